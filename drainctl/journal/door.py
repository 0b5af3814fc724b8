"""The door to the journal and the lease: one interface for SQLite, PostgreSQL and etcd."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from drainctl.journal.events import Event


class Holder(NamedTuple):
    """
    Who holds a lease. started: the process's start time in clock ticks since boot (/proc/PID/stat, field
    22), so that a pid which was used again is told from the holder.
    """

    user: str
    host: str
    pid: int
    started: int
    boot: str

    def __str__(self) -> str:
        return f"{self.user}@{self.host} (pid {self.pid})"


class Lease(NamedTuple):
    """
    The right to change one cluster. token: grows with every new holder (fencing), and is never below the
    store's clock when it was taken, in Unix milliseconds (etcd shows none: the controller's), so that those
    of different stores can be compared. since_s: when this holder took it. until_s: by this machine's wall
    clock, Unix seconds, whatever the store's clock shows. For its holder never later than the store's own
    end (counted from before the store was asked); for others, from `held`, never earlier.
    """

    cluster: str
    rollout: str
    holder: Holder
    token: int
    since_s: float
    until_s: float


class Store(Protocol):
    """
    Journal and lease of all rollouts of one store. Every method may be called from any thread, returns or
    raises within the store's limit, and raises JournalError; StoreAway where the same call may succeed later.
    """

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
        """
        Write one event; it is on disk when this returns.

        mark: an id of the caller's making. After a StoreAway nobody knows whether the event was written;
        appended again with the same mark it is there once. lease: written only while nobody else has taken
        it, which is compared in the same transaction: whoever took it has read all that came before.

        Raises: LeaseLost where another token is there or the lease was given back.
        """
        ...

    def events(self, rollout: str, after: int = 0) -> Sequence[Event]:
        """The events of one rollout with seq > after, in order."""
        ...

    def latest(self, cluster: str) -> str | None:
        """Id of the cluster's rollout that began last, or None."""
        ...

    def rollouts(self, cluster: str, *, limit: int = 20, before: str | None = None) -> Sequence[str]:
        """Ids, newest first, `limit` at most, those that began before `before`."""
        ...

    def register(self, cluster: str, rollout: str) -> None:
        """Make a new rollout id known as the cluster's latest."""
        ...

    def acquire(self, cluster: str, rollout: str, holder: Holder, ttl_s: float) -> Lease:
        """
        Take the lease: free, run out, or held by a process of this machine that is gone. The token is
        higher than any before.

        Raises: LeaseHeld, naming holder, rollout, since when and until when.
        """
        ...

    def renew(self, lease: Lease, ttl_s: float) -> Lease:
        """
        Prolong our lease to now + ttl_s (never shortens it).

        Raises: LeaseLost when another token is there or the lease is gone.
        """
        ...

    def release(self, lease: Lease) -> None:
        """Give the lease back; without effect when it is not ours any more."""
        ...

    def held(self, cluster: str) -> Lease | None:
        """Who holds it now: None when free, run out, or its holder is gone."""
        ...

    def close(self) -> None: ...
