"""
Waiting for a store that is away, instead of giving up: a rollout under way has nodes out of rotation.

One Patience belongs to one rollout. The store's front and the lease's keeper share it, so that one outage is
told once and ends for both at the same time.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from drainctl.errors import StoreAway
from drainctl.journal.door import Holder, Lease, Store
from drainctl.journal.events import Event

T = TypeVar("T")
AGAIN_S = 0.3


class Patience:
    """
    Since when a store has been away, and whether it is still waited for. Safe to use from any thread.

    Args:
        limit_s: how long it is waited for, counted from the first call that failed, seconds. 0: not at all.
        tell: called with why, and 0, when the waiting begins; with None, and how many seconds the store was
            away, when it is back. It must not write to the journal: its caller may be in the middle of that.
        give_up: asked before each wait; true when somebody wants no more waiting.
    """

    def __init__(
        self,
        limit_s: float = 0.0,
        tell: Callable[[str | None, float], None] = lambda _why, _away_s: None,
        give_up: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit_s = limit_s
        self._tell = tell
        self._give_up = give_up
        self._clock = clock
        self._lock = threading.Lock()
        self._since: float | None = None

    def away(self, error: StoreAway) -> bool:
        """A call failed. Whether to try again; once given up, it is not waited for until it was back."""
        with self._lock:
            begins = self._since is None
            if self._since is None:
                self._since = self._clock()
            left_s = self._since + self._limit_s - self._clock()
            if begins and left_s > 0:
                self._tell(f"{error}; waiting for it up to {left_s:.0f} s", 0.0)
            return left_s > 0 and not self._give_up()

    def back(self) -> None:
        """A call succeeded."""
        if self._since is None:  # read without the lock: this is asked after every call
            return
        with self._lock:
            was, self._since = self._since, None
            if was is not None and self._limit_s > 0:
                self._tell(None, self._clock() - was)


class PatientStore:
    """
    A store whose events and lists are waited for. All that a lease is about goes through as it is: its keeper
    waits by itself, and nobody waits for a lease before a rollout began.
    """

    def __init__(
        self, store: Store, patience: Patience, pause: Callable[[float], object] = time.sleep
    ) -> None:
        self._store = store
        self._patience = patience
        self._pause = pause

    def append(
        self,
        rollout: str,
        kind: str,
        *,
        node: str | None = None,
        step: str | None = None,
        text: str = "",
        data: Mapping[str, Any] | None = None,
        mark: str | None = None,
        lease: Lease | None = None,
    ) -> Event:
        mark = mark or uuid.uuid4().hex  # one for all tries: so it is written once
        return self._patiently(
            lambda: self._store.append(
                rollout, kind, node=node, step=step, text=text, data=data, mark=mark, lease=lease
            )
        )

    def events(self, rollout: str, after: int = 0) -> Sequence[Event]:
        return self._patiently(lambda: self._store.events(rollout, after))

    def latest(self, cluster: str) -> str | None:
        return self._patiently(lambda: self._store.latest(cluster))

    def rollouts(self, cluster: str, *, limit: int = 20, before: str | None = None) -> Sequence[str]:
        return self._patiently(lambda: self._store.rollouts(cluster, limit=limit, before=before))

    def register(self, cluster: str, rollout: str) -> None:
        self._store.register(cluster, rollout)

    def acquire(self, cluster: str, rollout: str, holder: Holder, ttl_s: float) -> Lease:
        return self._store.acquire(cluster, rollout, holder, ttl_s)

    def renew(self, lease: Lease, ttl_s: float) -> Lease:
        return self._store.renew(lease, ttl_s)

    def release(self, lease: Lease) -> None:
        self._store.release(lease)

    def held(self, cluster: str) -> Lease | None:
        return self._store.held(cluster)

    def close(self) -> None:
        self._store.close()

    def _patiently(self, ask: Callable[[], T]) -> T:
        while True:
            try:
                answer = ask()
            except StoreAway as error:
                if not self._patience.away(error):
                    raise
            else:
                self._patience.back()
                return answer
            self._pause(AGAIN_S)
