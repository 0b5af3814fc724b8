"""Who holds a lease, and the keeper. The lease of each store between processes: tests/real/test_stores.py."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from drainctl.errors import JournalError, LeaseLost, StoreAway
from drainctl.journal.door import Lease
from drainctl.journal.lease import Keeper, gone, me
from drainctl.journal.patient import Patience
from drainctl.journal.sqlite import SqliteStore

TTL_S = 0.6


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "j.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(path)
    yield opened
    opened.close()


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


# ---------------------------------------------------------------- who


def test_me_is_this_process_and_is_not_gone() -> None:
    holder = me()
    assert holder.pid == os.getpid()
    assert holder.host == os.uname().nodename
    assert holder.started > 0
    assert len(holder.boot) > 36
    assert str(holder) == f"{holder.user}@{holder.host} (pid {os.getpid()})"
    assert not gone(holder)


def test_a_pid_used_by_another_process_is_gone() -> None:
    assert gone(me()._replace(started=me().started - 1))


def test_another_machine_another_boot_or_no_proc_cannot_be_judged() -> None:
    ended = me()._replace(started=1)
    assert gone(ended)
    assert not gone(ended._replace(host="elsewhere"))
    assert not gone(ended._replace(boot="0000"))
    assert not gone(ended._replace(boot=""))
    assert not gone(ended._replace(pid=0))
    assert not gone(ended._replace(pid=-1))


def test_a_zombie_is_gone(until) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    stat = Path(f"/proc/{child.pid}/stat")
    holder = me()._replace(pid=child.pid, started=int(stat.read_text().rpartition(")")[2].split()[19]))
    until("the child is a zombie", lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z")
    assert gone(holder)
    child.wait()
    assert gone(holder)


# ---------------------------------------------------------------- the store's lease


def test_the_token_grows_through_release_and_expiry(path: Path) -> None:
    clock = Clock()
    store = SqliteStore(path, clock=clock)
    first = store.acquire("shop", "r1", me(), 15)
    store.release(first)
    assert store.held("shop") is None
    second = store.acquire("shop", "r2", me(), 15)
    clock.now += 15
    assert store.held("shop") is None
    third = store.acquire("shop", "r3", me(), 15)
    store.release(third)
    store.close()
    store = SqliteStore(path, clock=clock)
    fourth = store.acquire("shop", "r4", me(), 15)
    begin = 1_000_000_000  # the clock's milliseconds, and never less than one more than before
    assert [lease.token - begin for lease in (first, second, third, fourth)] == [0, 1, 15_000, 15_001]
    store.close()


def test_a_clock_that_was_set_back_makes_no_token_smaller(path: Path) -> None:
    clock = Clock()
    store = SqliteStore(path, clock=clock)
    first = store.acquire("shop", "r1", me(), 15)
    store.release(first)
    clock.now -= 5000
    assert store.acquire("shop", "r2", me(), 15).token == first.token + 1
    store.close()


def test_a_token_of_a_journal_that_counted_in_seconds_is_below_all_that_follow(path: Path) -> None:
    clock = Clock()
    store = SqliteStore(path, clock=clock)
    store.release(store.acquire("shop", "r1", me(), 15))
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("UPDATE leases SET token = 1000000")
    assert store.acquire("shop", "r2", me(), 15).token == 1_000_000_000
    store.close()


def test_renewing_never_shortens_and_revives_what_nobody_took(path: Path) -> None:
    clock = Clock()
    store = SqliteStore(path, clock=clock)
    lease = store.acquire("shop", "r1", me(), 60)
    assert store.renew(lease, 5).until_s == lease.until_s
    clock.now += 100
    assert store.held("shop") is None
    again = store.renew(lease, 5)
    assert again.token == lease.token
    assert store.held("shop") == again
    store.close()


# ---------------------------------------------------------------- the keeper


class Breaking:
    """A store whose renewals can be made to fail, over a real one."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.broken = threading.Event()
        self.renewed: list[float] = []

    def renew(self, lease: Lease, ttl_s: float) -> Lease:
        if self.broken.is_set():
            raise JournalError("journal j.db: the disk failed", hint="look at dmesg")
        self.renewed.append(ttl_s)
        return self.store.renew(lease, ttl_s)

    def release(self, lease: Lease) -> None:
        if self.broken.is_set():
            raise JournalError("journal j.db: the disk failed")
        self.store.release(lease)


@pytest.fixture
def breaking(store: SqliteStore) -> Breaking:
    return Breaking(store)


def keep(breaking: Breaking, ttl_s: float) -> Keeper:
    return Keeper(breaking, breaking.store.acquire("shop", "r1", me(), ttl_s), ttl_s)  # type: ignore[arg-type]


def test_check_asks_the_store_only_when_too_little_is_left(breaking: Breaking) -> None:
    keeper = keep(breaking, 60)
    keeper.check(58)
    assert breaking.renewed == []
    keeper.check(120)
    assert breaking.renewed == [180]
    keeper.check(170)
    assert breaking.renewed == [180]
    keeper.close()


def test_a_short_failure_of_the_store_is_waited_out(breaking: Breaking) -> None:
    keeper = keep(breaking, 60)
    breaking.broken.set()
    threading.Timer(0.2, breaking.broken.clear).start()
    keeper.check(100)
    assert breaking.renewed == [160]
    assert keeper.lost is None
    keeper.close()


def test_a_store_that_stays_away_loses_the_lease_at_its_end(breaking: Breaking, until) -> None:
    keeper = keep(breaking, TTL_S)
    breaking.broken.set()
    with pytest.raises(LeaseLost, match=r"ran out and could not be renewed: journal j\.db: the disk failed"):
        keeper.check(10)
    assert keeper.lost
    breaking.broken.clear()
    with pytest.raises(LeaseLost):
        keeper.check(0)
    until("the keeper's thread ends", lambda: not keeper._thread.is_alive())
    keeper.close()


def test_the_thread_notices_a_lost_lease_without_being_asked(
    store: SqliteStore, breaking: Breaking, until
) -> None:
    keeper = keep(breaking, TTL_S)
    store.release(keeper.lease)
    store.acquire("shop", "r2", me(), 60)
    until("the keeper notices", lambda: keeper.lost)
    assert "rollout r2" in str(keeper.lost)
    keeper.close()
    assert store.held("shop") is not None, "closing a lost lease leaves the new holder's alone"


def test_closing_gives_the_lease_back_and_ends_the_thread(store: SqliteStore, breaking: Breaking) -> None:
    keeper = keep(breaking, 60)
    keeper.close()
    keeper.close()
    assert store.held("shop") is None
    assert not keeper._thread.is_alive()
    with pytest.raises(LeaseLost, match="given back"):
        keeper.check(0)


def test_closing_with_a_broken_store_is_quiet(breaking: Breaking) -> None:
    keeper = keep(breaking, 60)
    breaking.broken.set()
    keeper.close()
    assert not keeper._thread.is_alive()


# ---------------------------------------------------------------- the keeper, while its store is away


class AwayStore:
    """A store for which time passes with each call that it does not answer: `away_s` in all."""

    def __init__(self, clock: Clock, away_s: float, taken: bool = False) -> None:
        self.clock, self.back_at, self.taken = clock, clock.now + away_s, taken
        self.tries = 0

    def renew(self, lease: Lease, ttl_s: float) -> Lease:
        self.tries += 1
        if self.clock.now < self.back_at:
            self.clock.now += 5
            raise StoreAway("journal x: renewing the lease failed after 5.0 s: no answer")
        if self.taken:
            raise LeaseLost("the lease on shop was taken over by somebody")
        return lease._replace(until_s=self.clock.now + ttl_s)

    def release(self, lease: Lease) -> None:
        pass


class Held:
    """A keeper whose thread sleeps, on a clock of ours, and what its patience told."""

    def __init__(self, away_s: float, patience_s: float, *, taken: bool = False) -> None:
        self.clock = Clock()
        self.told: list[tuple[str | None, float]] = []
        self.gave_up = False
        patience = Patience(
            patience_s, lambda *told: self.told.append(told), lambda: self.gave_up, self.clock
        )
        self.store = AwayStore(self.clock, away_s, taken)
        lease = Lease("shop", "r1", me(), 7, self.clock.now, self.clock.now + 15)
        self.keeper = Keeper(self.store, lease, 15, patience, [self.clock])  # type: ignore[arg-type]
        self.keeper._retry_s = 0.001


def test_a_store_that_is_back_before_the_leases_end_costs_nothing() -> None:
    held = Held(away_s=10, patience_s=0)
    held.keeper.check(60)
    assert held.keeper.lease.token == 7
    assert held.told == [], "without patience nobody is told of waiting"
    held.keeper.close()


def test_patience_outlasts_the_lease_which_is_then_renewed_with_its_token() -> None:
    held = Held(away_s=40, patience_s=60)
    held.keeper.check(30)
    assert held.keeper.ours
    assert held.keeper.lease.token == 7
    assert [why is None for why, _ in held.told] == [False, True]
    assert "no answer; waiting for it up to 60 s" in str(held.told[0][0])
    assert held.told[1][1] == 35, "from the first failure on"
    held.keeper.close()


def test_while_it_may_be_lost_the_lease_is_not_ours() -> None:
    held = Held(away_s=40, patience_s=60)
    assert held.keeper.ours
    held.clock.now += 15
    assert not held.keeper.ours
    assert held.keeper.lost is None
    held.keeper.check(0)
    assert held.keeper.ours
    held.keeper.close()
    assert not held.keeper.ours


def test_patience_that_is_over_loses_the_lease_for_good() -> None:
    held = Held(away_s=1000, patience_s=60)
    with pytest.raises(LeaseLost, match="ran out and could not be renewed: journal x"):
        held.keeper.check(30)
    assert 60 <= held.clock.now - 1_000_000 <= 70
    tries = held.store.tries
    held.store.back_at = 0
    with pytest.raises(LeaseLost):
        held.keeper.check(0)
    assert held.store.tries == tries, "lost stays lost"
    held.keeper.close()


def test_whoever_took_it_meanwhile_keeps_it() -> None:
    held = Held(away_s=30, patience_s=600, taken=True)
    with pytest.raises(LeaseLost, match="taken over"):
        held.keeper.check(30)
    assert held.clock.now - 1_000_000 <= 35, "at once, not when patience is over"
    held.keeper.close()


def test_who_wants_to_wait_no_more_need_not() -> None:
    held = Held(away_s=1000, patience_s=600)
    held.gave_up = True
    with pytest.raises(LeaseLost):
        held.keeper.check(30)
    assert held.clock.now - 1_000_000 <= 20, "until the lease's own end"
    held.keeper.close()


def test_a_store_that_refuses_is_no_store_that_is_away(breaking: Breaking, store: SqliteStore) -> None:
    lease = store.acquire("shop", "r1", me(), TTL_S)
    keeper = Keeper(breaking, lease, TTL_S, Patience(600))  # type: ignore[arg-type]
    breaking.broken.set()
    with pytest.raises(LeaseLost, match="the disk failed"):
        keeper.check(10)
    keeper.close()


@pytest.mark.parametrize("slow", [0, 1])
def test_of_two_clocks_the_one_that_has_gone_further_counts(breaking: Breaking, slow: int) -> None:
    clocks = [Clock(), Clock()]
    lease = Lease("shop", "r1", me(), 1, clocks[0].now, clocks[0].now + 60)
    keeper = Keeper(breaking, lease, 60, None, clocks)  # type: ignore[arg-type]
    clocks[1 - slow].now += 61
    assert not keeper.ours
    clocks[1 - slow].now -= 3600  # a wall clock that was set back gives nothing back
    clocks[slow].now += 61
    assert not keeper.ours
    keeper.close()
