"""Several reports as one, of which none can stop a rollout."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from drainctl.journal.events import Event
from drainctl.report.door import Listener


class Together:
    """
    Passes each call on to all listeners, one thread at a time. A listener that raises (its disk is full,
    its pipe was closed, it has a defect) is named once on `errors` and then left out: a rollout in the
    middle of its work is never stopped by its own report. `heard`: whether there was any event.
    """

    def __init__(self, listeners: Sequence[Listener], errors: TextIO | None = None) -> None:
        self._listeners = list(listeners)
        self._errors = errors if errors is not None else sys.stderr
        self._lock = threading.Lock()
        self.heard = False

    def event(self, event: Event) -> None:
        self.heard = True
        self._each(lambda listener: listener.event(event))

    def progress(self, text_by_node: Mapping[str, str]) -> None:
        self._each(lambda listener: listener.progress(text_by_node))

    def close(self) -> None:
        self._each(lambda listener: listener.close())

    def _each(self, call: Callable[[Listener], None]) -> None:
        with self._lock:
            for listener in tuple(self._listeners):
                try:
                    call(listener)
                except Exception as error:  # noqa: BLE001 (whatever it is, the rollout goes on)
                    self._listeners.remove(listener)
                    self._say(f"warning: {type(listener).__name__} stopped: {error}; the rollout goes on\n")

    def _say(self, line: str) -> None:
        try:
            self._errors.write(line)
            self._errors.flush()
        except (OSError, ValueError):  # the terminal is gone, too
            return
