"""The lease between real processes on a real file: one holder at a time, whatever happens to it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drainctl.errors import JournalError, LeaseHeld, LeaseLost
from drainctl.journal.door import Holder, Lease
from drainctl.journal.lease import Keeper, gone, me
from drainctl.journal.sqlite import SqliteStore

TTL_S = 0.6

# Takes the lease when told to, and then answers each line of its input with what `check` says.
HOLDER = """
import sys
from pathlib import Path
from drainctl.errors import LeaseError
from drainctl.journal.lease import Keeper, me
from drainctl.journal.sqlite import SqliteStore
store, ttl_s = SqliteStore(Path(sys.argv[1])), float(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
try:
    lease = store.acquire("shop", sys.argv[3], me(), ttl_s)
except LeaseError as error:
    print(type(error).__name__, error, flush=True)
    sys.exit()
print("token", lease.token, flush=True)
keeper = Keeper(store, lease, ttl_s)
for _ in sys.stdin:
    try:
        keeper.check(0.1)
        print("ours", keeper.lease.token, flush=True)
    except LeaseError as error:
        print(type(error).__name__, error, flush=True)
keeper.close()
store.close()
"""


class Process:
    """A drainctl that takes the lease, as another process."""

    def __init__(self, path: Path, rollout: str, ttl_s: float = TTL_S) -> None:
        command = [sys.executable, "-c", HOLDER, str(path), str(ttl_s), rollout]
        self.popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.popen.stdout
        assert self.popen.stdin
        self.out, self.into = self.popen.stdout, self.popen.stdin
        assert self.out.readline() == "ready\n"

    def tell(self) -> None:
        self.into.write("\n")
        self.into.flush()

    def ask(self) -> str:
        self.tell()
        return self.out.readline().strip()

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self.into.close()
        self.out.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "j.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(path)
    yield opened
    opened.close()


@pytest.fixture
def start(path: Path) -> Iterator[Any]:
    started: list[Process] = []

    def begin(rollout: str = "r-other", ttl_s: float = TTL_S) -> Process:
        started.append(Process(path, rollout, ttl_s))
        return started[-1]

    yield begin
    for process in started:
        process.end()


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


def test_a_held_lease_is_refused_with_all_that_a_person_wants_to_know(store: SqliteStore) -> None:
    lease = store.acquire("shop", "r1", me(), 60)
    with pytest.raises(LeaseHeld) as caught:
        store.acquire("shop", "r2", me(), 60)
    assert str(me()) in str(caught.value)
    assert "rollout r1 since 20" in str(caught.value)
    assert "nothing was changed" in str(caught.value)
    assert "drainctl show r1" in str(caught.value.hint)
    assert store.held("shop") == lease
    assert store.acquire("other", "r3", me(), 60).token == 1


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
    assert [lease.token for lease in (first, second, third, fourth)] == [1, 2, 3, 4]
    store.close()


def test_an_old_holder_can_neither_renew_nor_release(path: Path) -> None:
    clock = Clock()
    store = SqliteStore(path, clock=clock)
    old = store.acquire("shop", "r1", me(), 15)
    clock.now += 16
    new = store.acquire("shop", "r2", me(), 15)
    with pytest.raises(LeaseLost, match=r"taken over by .* for rollout r2 \(token 2, ours 1\)"):
        store.renew(old, 15)
    store.release(old)
    assert store.held("shop") == new
    store.release(new)
    with pytest.raises(LeaseLost, match="given back"):
        store.renew(new, 15)
    with pytest.raises(LeaseLost, match="not in the store"):
        store.renew(new._replace(cluster="nowhere"), 15)
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


def test_a_holder_that_cannot_be_judged_keeps_it_until_its_end(path: Path) -> None:
    clock = Clock()
    store = SqliteStore(path, clock=clock)
    store.acquire("shop", "r1", Holder("deploy", "elsewhere", 1, 1, "boot"), 15)
    clock.now += 14.9
    with pytest.raises(LeaseHeld, match="deploy@elsewhere"):
        store.acquire("shop", "r2", me(), 15)
    clock.now += 0.2
    assert store.acquire("shop", "r2", me(), 15).token == 2
    store.close()


# ---------------------------------------------------------------- between processes


def test_of_two_processes_one_gets_the_lease(start) -> None:
    for _ in range(5):
        both = [start("ra", 30), start("rb", 30)]
        for process in both:
            process.tell()
        answers = sorted(process.out.readline().split()[0] for process in both)
        assert answers == ["LeaseHeld", "token"]
        for process in both:
            process.end()


def test_a_killed_holder_is_replaced_at_once_with_a_higher_token(store: SqliteStore, start) -> None:
    other = start(ttl_s=3600)
    assert other.ask() == "token 1"
    with pytest.raises(LeaseHeld):
        store.acquire("shop", "r1", me(), 15)
    other.popen.send_signal(signal.SIGKILL)
    other.popen.wait()
    assert store.held("shop") is None
    assert store.acquire("shop", "r1", me(), 15).token == 2


def test_a_paused_holder_that_wakes_after_a_takeover_may_not_act(store: SqliteStore, start, until) -> None:
    other = start()
    assert other.ask() == "token 1"
    assert other.ask() == "ours 1"
    other.popen.send_signal(signal.SIGSTOP)
    until("the paused holder's lease runs out", lambda: store.held("shop") is None)
    lease = store.acquire("shop", "r1", me(), 60)
    assert lease.token == 2
    other.popen.send_signal(signal.SIGCONT)
    assert other.ask().startswith(f"LeaseLost the lease on shop was taken over by {me()} for rollout r1")
    assert other.ask().startswith("LeaseLost"), "lost stays lost"
    assert store.held("shop") == lease


def test_a_paused_holder_that_nobody_replaced_goes_on(store: SqliteStore, start, until) -> None:
    other = start()
    assert other.ask() == "token 1"
    other.popen.send_signal(signal.SIGSTOP)
    until("the paused holder's lease runs out", lambda: store.held("shop") is None)
    other.popen.send_signal(signal.SIGCONT)
    assert other.ask() == "ours 1"
    assert store.held("shop") is not None


def test_a_holder_that_ends_well_frees_the_lease(store: SqliteStore, start) -> None:
    other = start(ttl_s=3600)
    assert other.ask() == "token 1"
    other.into.close()
    assert other.popen.wait(timeout=60) == 0
    assert store.acquire("shop", "r1", me(), 15).token == 2


def test_the_keeper_renews_by_itself(store: SqliteStore, start, until) -> None:
    other = start()
    assert other.ask() == "token 1"
    first = store.held("shop")
    assert first
    until(
        "the lease is renewed three times over its length",
        lambda: _until_s(store) > first.until_s + 3 * TTL_S,
    )


def _until_s(store: SqliteStore) -> float:
    lease = store.held("shop")
    return lease.until_s if lease else 0.0


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


def test_holders_travel_through_the_store_unchanged(store: SqliteStore) -> None:
    holder = Holder("deploy", "ops1", 4711, 123456, json.dumps({"odd": "boot"}))
    assert store.acquire("shop", "r1", holder, 60).holder == holder
    held = store.held("shop")
    assert held
    assert held.holder == holder
