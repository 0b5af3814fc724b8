"""
All balancers at once: one thread each, which reads when somebody asks and for all who ask.

A demand names the moment that a look may not be older than. Demands that come while a look is under way wait
for the next one and share it, so the cost grows with balancers, not with the nodes that wait. A balancer
that hangs holds up its own thread only.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

from drainctl.balancer.door import BalancerDoor, Server
from drainctl.errors import BalancerError, BalancerUnreachable
from drainctl.model import BalancerLook

Clock = Callable[[], float]
T = TypeVar("T")

_BACK_OFF_S = 1.0  # the longest pause between unasked-for looks at a balancer that gives errors
_NEVER, _FOREVER = float("-inf"), float("inf")


class Fleet:
    """
    The doors of all balancers, read in parallel on demand. Safe to share between threads.

    Args:
        doors: one per balancer; the fleet closes them.
        clock: monotonic seconds, the clock of BalancerLook.at_s.
        every_s: looks at one balancer begin no closer together than this, except after a command.
    """

    def __init__(
        self, doors: Sequence[BalancerDoor], *, clock: Clock = time.monotonic, every_s: float = 0.05
    ) -> None:
        self._clock = clock
        self._callbacks: list[Callable[[BalancerLook], None]] = []
        self._readers = {door.name: _Reader(door, clock, every_s, self._tell) for door in doors}
        self._watched: dict[str, Mapping[str, Collection[Server]]] = {}
        self._lock = threading.Lock()

    def watch(self, key: str, servers: Mapping[str, Collection[Server]]) -> None:
        """Have `servers` (balancer name → its (backend, server)) in every look that begins from now on."""
        with self._lock:
            self._watched[key] = servers
            self._spread()

    def unwatch(self, key: str) -> None:
        """Take back what was watched for that key; without effect when nothing was."""
        with self._lock:
            self._watched.pop(key, None)
            self._spread()

    def _spread(self) -> None:
        for name, reader in self._readers.items():
            reader.servers = frozenset(
                server for servers in self._watched.values() for server in servers.get(name, ())
            )

    def look(self, since_s: float | None = None, limit_s: float = 5.0) -> dict[str, BalancerLook]:
        """
        A look of each balancer that began at or after since_s (now, when left out), by balancer name.

        Rows are those of the watched servers. One that could not be read, or not within limit_s, is a look
        with `error`. Raises: only what a callback raised.
        """
        return self._gather(self._clock() if since_s is None else since_s, limit_s, whole=False)

    def overview(self, limit_s: float = 5.0) -> dict[str, BalancerLook]:
        """As `look`, with the whole tables."""
        return self._gather(self._clock(), limit_s, whole=True)

    def _gather(self, since_s: float, limit_s: float, *, whole: bool) -> dict[str, BalancerLook]:
        deadline = self._clock() + limit_s
        for reader in self._readers.values():
            reader.demand(since_s, whole=whole)
        return {
            name: reader.result(since_s, deadline, limit_s, whole=whole)
            for name, reader in self._readers.items()
        }

    def act(self, balancer: str, do: Callable[[BalancerDoor], T]) -> T:
        """
        Run `do` with that balancer's door, between two looks. Waits for it and raises what it raises.

        A callback of `on_look` may act on the balancer whose look it was given, and on no other.
        Raises: KeyError for an unknown balancer; BalancerUnreachable after `close`.
        """
        return self._readers[balancer].act(do)

    def on_look(self, callback: Callable[[BalancerLook], None]) -> None:
        """Call `callback` with each look, in the thread that read it. What it raises comes out of `look`."""
        self._callbacks.append(callback)

    def _tell(self, look: BalancerLook) -> None:
        for callback in self._callbacks:
            callback(look)

    def keep(self, interval_s: float | None) -> None:
        """Look at each balancer at least every interval_s without being asked; None ends that."""
        for reader in self._readers.values():
            reader.keep(interval_s)

    def last(self) -> dict[str, BalancerLook]:
        """The newest look of each balancer that was looked at, however old; nothing is read."""
        return {name: reader.last for name, reader in self._readers.items() if reader.last is not None}

    def close(self) -> None:
        """End the threads and close the doors. May be called twice."""
        for reader in self._readers.values():
            reader.stop()
        for reader in self._readers.values():
            reader.join()


class _Job:
    """A command for a reader's thread, and how it ended."""

    def __init__(self, do: Callable[[BalancerDoor], Any]) -> None:
        self._do = do
        self._done = threading.Event()
        self._value: Any = None
        self._error: BaseException | None = None

    def run(self, door: BalancerDoor) -> None:
        try:
            self._value = self._do(door)
        except BaseException as error:  # noqa: BLE001  # it is raised again where the result is waited for
            self._error = error
        self._done.set()

    def refuse(self, error: BalancerError) -> None:
        self._error = error
        self._done.set()

    def result(self) -> Any:
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value


class _Reader:
    """The thread of one balancer. What it shares with others is guarded by `_changed`."""

    def __init__(
        self, door: BalancerDoor, clock: Clock, every_s: float, tell: Callable[[BalancerLook], None]
    ) -> None:
        self.servers: frozenset[Server] = frozenset()
        self.last: BalancerLook | None = None
        self._door = door
        self._clock = clock
        self._every_s = every_s
        self._tell = tell
        self._changed = threading.Condition()
        self._jobs: deque[_Job] = deque()
        # By "is it a whole table": the newest demand, the newest look, and when that look began.
        self._wanted = {False: _NEVER, True: _NEVER}
        self._began = {False: _NEVER, True: _NEVER}
        self._looks: dict[bool, BalancerLook] = {}
        self._rest_until = _NEVER
        self._keep_s: float | None = None
        self._errors = 0
        self._failure: BaseException | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name=f"balancer {door.name}", daemon=True)
        self._thread.start()

    def demand(self, since_s: float, *, whole: bool) -> None:
        with self._changed:
            if since_s > self._wanted[whole]:
                self._wanted[whole] = since_s
                self._changed.notify_all()

    def result(self, since_s: float, deadline: float, limit_s: float, *, whole: bool) -> BalancerLook:
        with self._changed:
            self._changed.wait_for(
                lambda: self._began[whole] >= since_s or self._failure is not None or self._stopped,
                timeout=max(0.0, deadline - self._clock()),
            )
            if self._failure is not None:
                raise self._failure
            if self._began[whole] >= since_s:
                return self._looks[whole]
        why = "its reader was closed" if self._stopped else f"no look within {limit_s:g} s"
        return BalancerLook(self._door.name, since_s, error=f"{self._door.name}: {why}")

    def act(self, do: Callable[[BalancerDoor], T]) -> T:
        if threading.current_thread() is self._thread:  # a callback
            return do(self._door)
        job = _Job(do)
        with self._changed:
            if self._stopped:
                raise BalancerUnreachable(f"{self._door.name}: its reader was closed")
            self._jobs.append(job)
            self._changed.notify_all()
        value: T = job.result()
        return value

    def keep(self, interval_s: float | None) -> None:
        with self._changed:
            self._keep_s = interval_s
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def join(self) -> None:
        self._thread.join()

    def _work(self) -> None:
        while self._wait_for_work():
            if self._jobs:
                self._jobs.popleft().run(self._door)
                self._rest_until = _NEVER  # what a command did is wanted at once
            else:
                self._look()
        for job in self._jobs:
            job.refuse(BalancerUnreachable(f"{self._door.name}: its reader was closed"))
        self._door.close()

    def _wait_for_work(self) -> bool:
        """True when there is a command or a look is due; False when it is over."""
        with self._changed:
            while not (self._stopped or self._jobs):
                pause = self._due() - self._clock()
                if pause <= 0:
                    break
                self._changed.wait(None if pause == _FOREVER else pause)
            return not self._stopped

    def _due(self) -> float:
        """When the next look shall begin: demanded ones after a short rest, kept ones at their interval."""
        due = _FOREVER
        if self._wanted[True] > self._began[True] or self._wanted[False] > self._began[False]:
            due = self._rest_until
        if self._keep_s is not None:
            back_off = min(_BACK_OFF_S, self._every_s * 2**self._errors) if self._errors else 0.0
            due = min(due, self._began[False] + max(self._keep_s, back_off))
        return due

    def _look(self) -> None:
        whole = self._wanted[True] > self._began[True]
        began = self._clock()
        try:
            look = self._door.look(None if whole else self.servers)
        except BalancerError as error:
            look = BalancerLook(self._door.name, began, error=str(error), hint=error.hint)
        except Exception as error:  # noqa: BLE001  # a defect of ours: `look` raises it in the caller's thread
            self._failure = error
            look = BalancerLook(self._door.name, began, error=f"{self._door.name}: {error!r}")
        self._rest_until = began + self._every_s
        self._errors = min(self._errors + 1, 16) if look.error else 0
        with self._changed:
            self.last = self._looks[False] = look
            self._began[False] = look.at_s
            if whole:
                self._looks[True] = look
                self._began[True] = look.at_s
            self._changed.notify_all()
        try:
            self._tell(look)
        except Exception as error:  # noqa: BLE001  # as above: the thread must live on to run commands
            with self._changed:
                self._failure = error
                self._changed.notify_all()
