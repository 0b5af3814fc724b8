"""Several reports as one, of which none can stop a rollout."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from drainctl.journal.events import Event
from drainctl.report.door import Listener

BEAT_S = 5.0


class Together:
    """
    Passes each call on to all listeners, one thread at a time. A listener that raises (its disk is full,
    its pipe was closed, it has a defect) is named once on `errors` and then left out: a rollout in the
    middle of its work is never stopped by its own report. `heard`: whether there was any event.

    What is awaited is told again every beat_s seconds: a long act makes no progress calls, and a listener
    that beats needs them to beat.
    """

    def __init__(
        self, listeners: Sequence[Listener], errors: TextIO | None = None, *, beat_s: float = BEAT_S
    ) -> None:
        self._listeners = list(listeners)
        self._errors = errors if errors is not None else sys.stderr
        self._lock = threading.Lock()
        self.heard = False
        self._waits: Mapping[str, str] = {}
        self._beat_s = beat_s
        self._over = threading.Event()
        self._beats: threading.Thread | None = None

    def event(self, event: Event) -> None:
        self.heard = True
        if self._beats is None and not self._over.is_set():
            self._beats = threading.Thread(target=self._beat, name="report", daemon=True)
            self._beats.start()
        self._each(lambda listener: listener.event(event))

    def progress(self, text_by_node: Mapping[str, str]) -> None:
        self._waits = text_by_node
        self._each(lambda listener: listener.progress(text_by_node))

    def _beat(self) -> None:
        while not self._over.wait(self._beat_s):
            self.progress(self._waits)

    def close(self) -> None:
        self._over.set()
        if self._beats is not None:
            self._beats.join()
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
