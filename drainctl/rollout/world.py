"""All that a rollout works with, built once by `drainctl.wire`, so that no step knows where it came from."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from drainctl.errors import Interrupted, LeaseLost
from drainctl.journal.door import Lease, Store
from drainctl.journal.events import Event
from drainctl.journal.patient import Patience, PatientStore
from drainctl.model import Cluster, Place
from drainctl.report.door import Listener
from drainctl.rollout.keep_out import KeepOut
from drainctl.rollout.observe import Observer
from drainctl.rollout.perform import Performer


class Right(Protocol):
    """The right to act: see journal.lease.Keeper."""

    def check(self, need_s: float) -> None:
        """
        Returns when the lease is ours for `need_s` more seconds; that may take a while where its store is
        away. Raises: LeaseLost.
        """
        ...

    @property
    def lease(self) -> Lease | None:
        """What the journal compares when an event is written; None: nothing."""
        ...

    @property
    def lost(self) -> str | None:
        """Why it is lost, in words; None while it is not known to be."""
        ...

    def lose(self, why: str) -> None:
        """A node told that somebody else acts by now."""
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

    @property
    def at_once(self) -> bool:
        return self._times > 1

    def raise_if_at_once(self) -> None:
        """Raises: Interrupted after the second ask."""
        if self.at_once:
            raise Interrupted(
                "stopped at once; nodes in flight are left as they are, and the journal says how"
            )


class Recorder:
    """
    Writes an event into the journal, then tells the listeners; one at a time, so that order is one.

    Args:
        patience_s: how long a store that is away is waited for, seconds; `patience` is shared with the lease.
        give_up: asked meanwhile; true when nobody wants to wait any more.

    right: once it is set, an event is only written while the lease is ours, which the store compares as it
    writes. A controller that was stopped for longer than its lease would else tell what it has seen of a
    rollout that is somebody else's by then.
    """

    right: Right | None = None

    def __init__(
        self,
        store: Store,
        rollout: str,
        listeners: tuple[Listener, ...],
        patience_s: float = 0.0,
        give_up: Callable[[], bool] = lambda: False,
    ) -> None:
        self.patience = Patience(patience_s, self._away, give_up)
        self.store = PatientStore(store, self.patience)
        self._rollout = rollout
        self._listeners = listeners
        self._writing = threading.Lock()  # held while the store is waited for
        self._telling = threading.Lock()  # held for a moment
        self._waiting: dict[str, str] = {}
        self._later: list[tuple[str, str | None, Mapping[str, Any]]] = []

    def __call__(
        self, kind: str, text: str, *, node: str | None = None, step: str | None = None, **data: Any
    ) -> Event:
        if self.right is not None:
            self.right.check(0.0)
        with self._writing:
            self._write_notes()
            return self._write(kind, text, node, step, data)

    def note(self, text: str, *, node: str | None = None, **data: Any) -> None:
        """
        A note that is written soon, by whoever writes or waits next: for those who must not wait for the
        store themselves.
        """
        self._later.append((text, node, data))

    def waiting(self, node: str, text: str | None) -> None:
        """What a node waits for now, in words; None: it does not. Shown, not written."""
        if self._later:
            with self._writing:
                self._write_notes()
        self._show(node, text)

    def _write(
        self, kind: str, text: str, node: str | None, step: str | None, data: Mapping[str, Any]
    ) -> Event:
        lease = self.right.lease if self.right else None
        try:
            event = self.store.append(
                self._rollout, kind, node=node, step=step, text=text, data=data, lease=lease
            )
        except LeaseLost as error:
            if self.right:
                self.right.lose(str(error))  # all nodes' ways end here, not this one's alone
            raise
        with self._telling:
            for listener in self._listeners:
                listener.event(event)
        return event

    def _write_notes(self) -> None:
        while self._later:
            text, node, data = self._later[0]
            self._write("note", text, node, None, data)
            del self._later[0]

    def _show(self, name: str, text: str | None) -> None:
        with self._telling:
            if text is None:
                self._waiting.pop(name, None)
            else:
                self._waiting[name] = text
            for listener in self._listeners:
                listener.progress(dict(self._waiting))

    def _away(self, why: str | None, away_s: float) -> None:
        """Shown at once; written when it is over."""
        self._show("journal", why and f"store: {why}")
        if why is None:
            self.note(f"the journal's store was away for {away_s:.0f} s", what="store-away")


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
