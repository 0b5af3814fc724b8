"""All that a rollout works with, built once by `drainctl.wire`, so that no step knows where it came from."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from drainctl.errors import Interrupted
from drainctl.journal.door import Store
from drainctl.journal.events import Event
from drainctl.model import Cluster, Place
from drainctl.report.door import Listener
from drainctl.rollout.keep_out import KeepOut
from drainctl.rollout.observe import Observer
from drainctl.rollout.perform import Performer


class Right(Protocol):
    """The right to act: see journal.lease.Keeper."""

    def check(self, need_s: float) -> None:
        """Raises LeaseLost unless the lease is ours for `need_s` more seconds."""
        ...


class Stop:
    """
    Asked to stop: not at all, once (settle the nodes in flight, then end), or twice (end at once).

    Set from signal handlers and from other threads.
    """

    def __init__(self) -> None:
        self._times = 0
        self._asked = threading.Event()

    def ask(self) -> None:
        self._times += 1
        self._asked.set()

    @property
    def asked(self) -> bool:
        return self._times > 0

    def raise_if_at_once(self) -> None:
        """Raises: Interrupted after the second ask."""
        if self._times > 1:
            raise Interrupted(
                "stopped at once; nodes in flight are left as they are, and the journal says how"
            )


class Recorder:
    """Writes an event into the journal, then tells the listeners; one at a time, so that order is one."""

    def __init__(self, store: Store, rollout: str, listeners: tuple[Listener, ...]) -> None:
        self._store = store
        self._rollout = rollout
        self._listeners = listeners
        self._lock = threading.Lock()
        self._waiting: dict[str, str] = {}

    def __call__(
        self, kind: str, text: str, *, node: str | None = None, step: str | None = None, **data: Any
    ) -> Event:
        with self._lock:
            event = self._store.append(self._rollout, kind, node=node, step=step, text=text, data=data)
            for listener in self._listeners:
                listener.event(event)
            return event

    def waiting(self, node: str, text: str | None) -> None:
        """What a node waits for now, in words; None: it does not. Shown, not written."""
        with self._lock:
            if text is None:
                self._waiting.pop(node, None)
            else:
                self._waiting[node] = text
            for listener in self._listeners:
                listener.progress(dict(self._waiting))


@dataclass(frozen=True)
class World:
    """One rollout's surroundings. clock: monotonic seconds; sleep: waits that long."""

    cluster: Cluster
    rollout: str
    places: Mapping[str, tuple[Place, ...]]
    observer: Observer
    perform: Performer
    store: Store
    right: Right
    keep_out: KeepOut
    record: Recorder
    stop: Stop
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
