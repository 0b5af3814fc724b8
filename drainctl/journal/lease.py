"""
Who we are, whether a holder still lives, and the thread that keeps our lease.

A lease is a promise with an end, so what it promises is narrow: whoever passed `Keeper.check(need_s)` had
the lease for the next need_s seconds at that moment. A process that is paused between the check and its
act is beyond any lease; against that, the flag on the node carries the token.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from drainctl.errors import JournalError, LeaseLost, StoreAway
from drainctl.journal.door import Holder, Lease, Store

if TYPE_CHECKING:
    from drainctl.journal.patient import Patience

STARTED = 19  # field 22 of /proc/PID/stat, counted from the state (field 3), which follows the name's ")"
DEAD = {"Z", "X"}  # a zombie acts no more: it only waits for its parent to ask how it ended

# ---------------------------------------------------------------- who holds


def me() -> Holder:
    """
    The calling process, as a holder. Without /proc `started` is 0 and `boot` is "": then nobody can tell
    whether we still live, and our lease is free only when it is released or has run out.
    """
    stat = _stat(os.getpid())
    return Holder(_user(), os.uname().nodename, os.getpid(), int(stat[STARTED]) if stat else 0, _boot())


def gone(holder: Holder) -> bool:
    """
    True where the holder is known to run no more: a process of this machine whose pid is free, is used by
    another process, or is a zombie. False wherever that cannot be known.
    """
    if holder.pid <= 0 or not holder.boot or (holder.host, holder.boot) != (os.uname().nodename, _boot()):
        return False
    try:
        os.kill(holder.pid, 0)  # /proc may hide the processes of other users (hidepid=2); the kernel does not
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    stat = _stat(holder.pid)
    return stat is not None and (stat[0] in DEAD or int(stat[STARTED]) != holder.started)


def _stat(pid: int) -> list[str] | None:
    # proc(5): the name in brackets may hold spaces and brackets, so what follows its last ")" is read.
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123 (light)
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def _boot() -> str:
    # The pid namespace belongs to it: two containers of one machine may share host name and boot id, and
    # a pid of the one says nothing in the other.
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123 (light)
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 (text is wanted)
    except OSError:
        return ""


def _user() -> str:
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container's uid without a name
        return str(os.getuid())


# ---------------------------------------------------------------- keeping it


def _always_on() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)  # counts on while the machine sleeps


CLOCKS: tuple[Callable[[], float], ...] = (time.time, _always_on)


class Keeper:
    """
    Keeps one lease by a daemon thread that renews it each ttl_s / 3, and answers `check` before each act.

    How long the lease still lasts is counted here from before the store was asked, by two clocks: one that
    nobody can set, and the wall clock, which a file's lease is judged by. The nearer end counts.

    A lease that ran out (this process was paused, the store was away) and that nobody took is renewed like
    any other: the store compares the token and prolongs in one transaction, so that it is either still
    ours or refused. It keeps its token then: nobody had a higher one, so whatever was marked with ours on a
    node is still ours. A store that is away is asked again until the lease's end, and beyond it for as long
    as `patience` lasts; then the lease is lost. Lost stays lost.

    Args:
        store: where the lease is. lease: as `acquire` gave it. ttl_s: how long one renewal lasts, seconds.
        patience: how long a store that is away is waited for, by `check` too; not at all when left out.
        clocks: the wall clock (lease.until_s is of it), and a clock that always moves on; seconds.
    """

    def __init__(
        self,
        store: Store,
        lease: Lease,
        ttl_s: float = 15.0,
        patience: Patience | None = None,
        clocks: Sequence[Callable[[], float]] = CLOCKS,
    ) -> None:
        self._store = store
        self._lease = lease
        self._ttl_s = ttl_s
        from drainctl.journal.patient import Patience  # `status` needs no keeper

        self._patience = patience or Patience()
        self._clocks = clocks
        left_s = lease.until_s - clocks[0]()
        self._ends = [clock() + left_s for clock in clocks]
        self._lost: str | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._retry_s = min(0.5, ttl_s / 10)
        self._thread = threading.Thread(target=self._keep, name=f"lease {lease.cluster}", daemon=True)
        self._thread.start()

    @property
    def lease(self) -> Lease:
        """The lease as it was last renewed."""
        return self._lease

    @property
    def lost(self) -> str | None:
        """Why the lease is lost, in words; None while it is ours, or may be again when its store is back."""
        return self._lost

    @property
    def ours(self) -> bool:
        """Whether it lasts at this moment, as far as is known here; asks nobody."""
        return self._lost is None and not self._closing.is_set() and self._left_s() > 0

    def check(self, need_s: float) -> None:
        """
        Returns when the lease is ours for at least need_s more seconds; where less than that and a second
        is left, it is first renewed to last need_s + ttl_s. A store that is away is waited for, so what was
        seen before this was called may no longer be so.

        Raises: LeaseLost; no act may be started then.
        """
        margin_s = min(1.0, self._ttl_s / 2)
        self._refuse_if_lost()
        if self._left_s() < need_s + margin_s:
            while not self._renew(need_s + self._ttl_s):
                self._closing.wait(self._retry_s)

    def lose(self, why: str) -> None:
        """Somebody else is known to act by now, whatever the store says: no act is started from here on."""
        self._lost = self._lost or why

    def close(self) -> None:
        """Ends the thread and gives the lease back. May be called twice."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._thread.join()
        with suppress(JournalError):  # it then runs out; for this machine it is free when the process ends
            self._store.release(self._lease)

    def _keep(self) -> None:
        pause_s = self._ttl_s / 3
        while not self._closing.wait(pause_s):
            try:
                pause_s = self._ttl_s / 3 if self._renew(self._ttl_s) else self._retry_s
            except LeaseLost:
                return

    def _left_s(self) -> float:
        return min(end - clock() for end, clock in zip(self._ends, self._clocks, strict=True))

    def _renew(self, ttl_s: float) -> bool:
        """False where the store could not be reached and is to be asked again. Raises: LeaseLost."""
        with self._lock:
            self._refuse_if_lost()
            asked = [clock() for clock in self._clocks]
            try:
                self._lease = self._store.renew(self._lease, ttl_s)
            except LeaseLost as error:
                self._lost = str(error)
                raise
            except JournalError as error:
                waits = isinstance(error, StoreAway) and self._patience.away(error)
                if waits or self._left_s() > 0:
                    return False
                self._lost = f"the lease on {self._lease.cluster} ran out and could not be renewed: {error}"
                raise LeaseLost(self._lost, hint=error.hint) from error
            self._ends = [max(end, at + ttl_s) for end, at in zip(self._ends, asked, strict=True)]
        self._patience.back()
        return True

    def _refuse_if_lost(self) -> None:
        if self._lost:
            raise LeaseLost(self._lost, hint="`drainctl status` says who holds it and what is where")
        if self._closing.is_set():
            raise LeaseLost(f"the lease on {self._lease.cluster} was given back")
