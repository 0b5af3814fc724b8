"""
One contract for every store: SQLite, a real PostgreSQL and a real etcd of three members.

What is here holds for all of them; what happens when a server is lost is in test_store_faults.py, what only
a file can suffer in tests/unit/test_journal.py.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from store_kit import etcd, postgres

from drainctl.errors import JournalError, LeaseHeld, LeaseLost
from drainctl.journal.door import Holder, Lease, Store
from drainctl.journal.lease import me
from drainctl.journal.open import open_store

pytestmark = pytest.mark.real

STORES = ("sqlite", "postgresql", "etcd")
SHARED = STORES[1:]

# Another drainctl. Each line of its input is a command: take, check, release.
OTHER = """
import sys
from drainctl.errors import LeaseError
from drainctl.journal.lease import Keeper, me
from drainctl.journal.open import open_store
store, ttl_s, rollout = open_store(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
print("ready", flush=True)
keeper = None
for line in sys.stdin:
    try:
        if line == "take\\n":
            lease = store.acquire("shop", rollout, me(), ttl_s)
            print("token", lease.token, flush=True)
        elif line == "release\\n":
            store.release(lease)
            print("released", flush=True)
        else:
            keeper = keeper or Keeper(store, lease, ttl_s)
            keeper.check(0.1)
            print("ours", keeper.lease.token, flush=True)
    except LeaseError as error:
        print(type(error).__name__, error, flush=True)
if keeper:
    keeper.close()
store.close()
"""
WRITER = """
import sys
from drainctl.journal.open import open_store
store = open_store(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    store.append("r1", "note", node=sys.argv[2], text=str(number))
store.close()
"""


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Any]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="session")
def etcd_cluster() -> Iterator[Any]:
    with etcd() as cluster:
        yield cluster


@pytest.fixture(params=STORES)
def url(request, tmp_path) -> str:
    """Of a store that nobody used before."""
    if request.param == "sqlite":
        return f"sqlite://{tmp_path}/j.db"
    if request.param == "etcd":
        return str(request.getfixturevalue("etcd_cluster").url())
    server = request.getfixturevalue("postgres_server")
    return str(server.url(server.schema()))


@pytest.fixture
def ttl_s(url) -> float:
    """A short lease: the shortest that etcd grants."""
    return 2.0 if url.startswith("etcd:") else 0.6


only_shared = pytest.mark.parametrize("url", SHARED, indirect=True)


@pytest.fixture
def opened(url) -> Iterator[Callable[[], Store]]:
    """Opens the store once more."""
    stores: list[Store] = []

    def begin() -> Store:
        stores.append(open_store(url))
        return stores[-1]

    yield begin
    for each in stores:
        each.close()


@pytest.fixture
def store(opened) -> Store:
    return opened()


class Process:
    """Another process that was given the store's URL."""

    def __init__(self, program: str, *args: str) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-c", program, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.popen.stdin
        assert self.popen.stdout
        self.out, self.into = self.popen.stdout, self.popen.stdin
        assert self.out.readline() == "ready\n"

    def tell(self, word: str) -> None:
        self.into.write(f"{word}\n")
        self.into.flush()

    def ask(self, word: str) -> str:
        self.tell(word)
        return self.out.readline().strip()

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self.into.close()
        self.out.close()


@pytest.fixture
def start(url, ttl_s) -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def begin(rollout: str = "r-other", ttl_s: float = ttl_s) -> Process:
        started.append(Process(OTHER, url, str(ttl_s), rollout))
        return started[-1]

    yield begin
    for process in started:
        process.end()


def same(one: Lease | None, other: Lease) -> bool:
    """The same lease, whatever was read of its times."""
    return one is not None and one._replace(since_s=0, until_s=0) == other._replace(since_s=0, until_s=0)


# ---------------------------------------------------------------- events


def test_an_event_is_read_as_it_was_returned(store):
    data = {"took_s": 0.31, "on": ("a",)}
    written = store.append("r1", "step.seen", node="web1", step="idle", text="0 requests → idle", data=data)
    assert store.events("r1") == [written]
    assert written.seq == 1
    assert abs(written.at_s - time.time()) < 60
    assert written.data == {"took_s": 0.31, "on": ["a"]}


def test_events_are_of_one_rollout_in_order_and_after_a_number(store):
    for number in range(6):
        store.append("r1" if number % 2 else "r10", "note", text=str(number))
    assert [event.text for event in store.events("r1")] == ["1", "3", "5"]
    assert [event.text for event in store.events("r1", after=2)] == ["3", "5"]
    assert store.events("r") == []


def test_text_that_no_store_can_keep_is_kept_readable(store):
    written = store.append("r1", "note", text="file \udcff\0", data={"name": "\udcff\0"})
    assert written.text == "file ??"
    assert store.events("r1") == [written]


def test_data_that_is_no_json_is_refused_and_nothing_is_written(store):
    with pytest.raises(JournalError, match="event note of rollout r1 is not JSON"):
        store.append("r1", "note", data={"spent_s": float("nan")})
    with pytest.raises(JournalError, match="not JSON"):
        store.append("r1", "note", data={"who": object()})
    assert store.events("r1") == []


def test_more_events_than_one_page_are_read_in_order(store, monkeypatch):
    for module in ("postgres", "etcd"):
        monkeypatch.setattr(f"drainctl.journal.{module}.PAGE", 3)
    for number in range(7):
        store.append("r1", "note", text=str(number))
        store.append("r2", "note")
    assert [event.text for event in store.events("r1")] == list("0123456")
    assert [event.text for event in store.events("r1", after=5)] == list("3456")


def test_threads_share_one_store(store):
    def write(name: str) -> None:
        for number in range(20):
            store.append("r1", "note", node=name, text=str(number))

    threads = [threading.Thread(target=write, args=(f"web{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    events = store.events("r1")
    assert [event.seq for event in events] == list(range(1, 81))
    assert [event.text for event in events if event.node == "web2"] == [str(n) for n in range(20)]


def test_who_follows_the_events_of_several_writers_misses_none(url, store):
    """A number is seen only after all below it: else `after` would step over an event that came late."""
    writers = [Process(WRITER, url, name, "60") for name in ("web1", "web2", "web3")]
    for writer in writers:
        writer.tell("go")
    followed: list[Any] = []
    while True:
        ended = all(writer.popen.poll() is not None for writer in writers)
        followed += store.events("r1", after=followed[-1].seq if followed else 0)
        if ended:
            break
    for writer in writers:
        writer.end()
    assert [event.seq for event in followed] == list(range(1, 181))
    for name in ("web1", "web2", "web3"):
        assert [event.text for event in followed if event.node == name] == [str(n) for n in range(60)]


def test_events_survive_closing_and_opening(url):
    for number in range(3):
        store = open_store(url)
        assert store.append("r1", "note").seq == number + 1
        store.close()


def test_a_closed_store_says_so_and_closes_twice(store):
    store.close()
    store.close()
    with pytest.raises(JournalError, match="closed"):
        store.append("r1", "note")


def test_a_new_store_may_be_opened_by_many_at_once(url):
    """Each makes or migrates the schema; all must succeed."""
    failed: list[BaseException] = []
    seqs: list[int] = []
    together = threading.Barrier(6)

    def begin() -> None:
        together.wait()
        try:
            store = open_store(url)
            seqs.append(store.append("r1", "note").seq)
            store.close()
        except JournalError as error:
            failed.append(error)

    threads = [threading.Thread(target=begin) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert sorted(seqs) == [1, 2, 3, 4, 5, 6]


# ---------------------------------------------------------------- rollouts


def test_rollouts_are_paged_newest_first(store):
    assert store.latest("shop") is None
    for number in range(5):
        store.register("shop", f"s{number}")
        store.register("shop2", f"o{number}")
    assert store.latest("shop") == "s4"
    assert store.rollouts("shop", limit=2) == ["s4", "s3"]
    assert store.rollouts("shop", limit=2, before="s3") == ["s2", "s1"]
    assert store.rollouts("shop", before="s0") == []
    with pytest.raises(JournalError, match="no rollout o1 of shop in the journal"):
        store.rollouts("shop", before="o1")
    with pytest.raises(JournalError, match="no rollout s9 of shop in the journal"):
        store.rollouts("shop", before="s9")


def test_an_id_is_registered_once(store):
    store.register("shop", "s0")
    with pytest.raises(JournalError, match=r"rollout s0 is in the journal .* already"):
        store.register("other", "s0")
    store.register("shop", "s1")
    assert store.rollouts("shop") == ["s1", "s0"]
    assert store.rollouts("other") == []


# ---------------------------------------------------------------- the lease


def test_a_held_lease_is_refused_with_all_that_a_person_wants_to_know(store):
    lease = store.acquire("shop", "r1", me(), 60)
    with pytest.raises(LeaseHeld) as caught:
        store.acquire("shop", "r2", me(), 60)
    assert str(me()) in str(caught.value)
    assert "rollout r1 since 20" in str(caught.value)
    assert "nothing was changed" in str(caught.value)
    assert "drainctl show r1" in str(caught.value.hint)
    assert same(store.held("shop"), lease)
    assert store.acquire("other", "r3", me(), 60).rollout == "r3"


def test_a_lease_lasts_for_as_long_as_was_asked(store):
    asked = time.time()
    lease = store.acquire("shop", "r1", me(), 60)
    assert asked + 60 <= lease.until_s + 0.001
    assert lease.until_s <= time.time() + 61
    held = store.held("shop")
    assert held
    assert abs(held.until_s - lease.until_s) < 1.5  # etcd tells whole seconds
    assert abs(held.since_s - asked) < 1.5


def test_holders_travel_through_the_store_unchanged(store):
    holder = Holder("deploy", "ops1", 4711, 123456, json.dumps({"odd": "boot"}))
    assert store.acquire("shop", "r1", holder, 60).holder == holder
    held = store.held("shop")
    assert held
    assert held.holder == holder


def test_the_token_grows_through_release_expiry_and_opening(url, store, until):
    asked_ms = int(time.time() * 1000)
    first = store.acquire("shop", "r1", me(), 60)
    store.release(first)
    assert store.held("shop") is None
    second = store.acquire("shop", "r2", me(), 0.3)
    until("the lease runs out", lambda: store.held("shop") is None)
    third = store.acquire("shop", "r3", me(), 60)
    store.release(third)
    store.close()
    again = open_store(url)
    fourth = again.acquire("shop", "r4", me(), 60)
    again.close()
    tokens = [lease.token for lease in (first, second, third, fourth)]
    assert tokens == sorted(set(tokens))
    assert asked_ms <= first.token <= time.time() * 1000, "a store's first one is its clock, in milliseconds"


def test_an_old_holder_can_neither_renew_nor_release_nor_write(store, until):
    """Its last words would come after the other has read what there is: the store refuses them."""
    old = store.acquire("shop", "r1", me(), 0.3)
    until("the lease runs out", lambda: store.held("shop") is None)
    new = store.acquire("shop", "r2", me(), 60)
    with pytest.raises(
        LeaseLost, match=rf"taken over by .* for rollout r2 \(token {new.token}, ours {old.token}\)"
    ):
        store.renew(old, 15)
    store.release(old)
    assert same(store.held("shop"), new)
    store.append("r1", "note", text="of the new one", lease=new)
    with pytest.raises(LeaseLost, match=rf"taken over by .* for rollout r2 \(token {new.token}"):
        store.append("r1", "note", text="too late", lease=old)
    store.append("r1", "note", text="asked by another", lease=None)
    store.release(new)
    for late in (store.renew, lambda lease, _: store.append("r1", "note", lease=lease)):
        with pytest.raises(LeaseLost, match="given back"):
            late(new, 15)
    assert [(event.seq, event.text) for event in store.events("r1")] == [
        (1, "of the new one"),
        (2, "asked by another"),
    ], "what was refused took no number"
    with pytest.raises(LeaseLost, match="not in the store"):
        store.renew(new._replace(cluster="nowhere"), 15)


def test_whoever_takes_the_lease_has_read_all_that_the_holder_before_ever_wrote(store, opened, ttl_s, until):
    """It writes as fast as it can, and its lease runs out; what comes after the taking is refused."""
    for number in range(2):
        old = opened()
        lease = old.acquire("shop", f"r{number}", Holder("deploy", "elsewhere", 1, 1, "boot"), ttl_s)
        told: list[str] = []
        writing = threading.Thread(target=_write_until_lost, args=(old, lease, told))
        writing.start()
        until("the lease runs out", lambda: store.held("shop") is None)
        taken = store.acquire("shop", f"r{number}", me(), 60)
        seen = store.events(lease.rollout)
        writing.join()
        assert f"token {taken.token}, ours {lease.token}" in told[0]
        assert store.events(lease.rollout) == seen
        assert len(seen) > 2
        store.release(taken)


def _write_until_lost(store: Store, lease: Lease, told: list[str]) -> None:
    try:
        while True:
            store.append(lease.rollout, "note", lease=lease)
    except LeaseLost as error:
        told.append(str(error))


def test_renewing_never_shortens_and_revives_what_nobody_took(store, until):
    lease = store.acquire("shop", "r1", me(), 60)
    assert store.renew(lease, 5).until_s > lease.until_s - 1.5
    longer = store.renew(lease, 300)
    assert longer.until_s > lease.until_s + 200
    store.release(longer)
    short = store.acquire("shop", "r2", me(), 0.3)
    until("the lease runs out", lambda: store.held("shop") is None)
    again = store.renew(short, 60)
    assert again.token == short.token
    assert again.until_s > time.time() + 50
    assert same(store.held("shop"), short)


def test_a_lease_that_was_made_longer_for_one_act_is_not_so_for_ever(store, until):
    """A controller that dies after a long act must not keep others out for as long as that again."""
    lease = store.acquire("shop", "r1", Holder("deploy", "elsewhere", 1, 1, "boot"), 2)
    store.renew(lease, 4)
    until("so little is left that a renewal prolongs", lambda: _left_s(store) < 3)
    assert store.renew(lease, 3).until_s < time.time() + 3.5
    until("it ends as it was renewed last", lambda: _left_s(store) < 2.5)


def _left_s(store: Store) -> float:
    lease = store.held("shop")
    return lease.until_s - time.time() if lease else 0.0


def test_a_holder_that_cannot_be_judged_keeps_it_until_its_end(store, ttl_s, until):
    lease = store.acquire("shop", "r1", Holder("deploy", "elsewhere", 1, 1, "boot"), ttl_s)

    def taken() -> Lease | None:
        try:
            return store.acquire("shop", "r2", me(), 60)
        except LeaseHeld:
            return None

    with pytest.raises(LeaseHeld, match="deploy@elsewhere"):
        store.acquire("shop", "r2", me(), 60)
    new = until("the lease of the other machine runs out", taken)
    assert new.token > lease.token
    assert new.since_s > lease.until_s - 0.1


@only_shared
@pytest.mark.parametrize("hours", [-1, 1])
def test_the_clocks_of_controllers_do_not_matter(store, opened, hours):
    wrong = opened()
    wrong._clock = lambda: time.time() + hours * 3600
    theirs = Holder("deploy", "elsewhere", 1, 1, "boot")
    lease = wrong.acquire("shop", "r1", theirs, 5)
    assert 4 < lease.until_s - wrong._clock() < 5.1, "by its own clock"
    with pytest.raises(LeaseHeld):
        store.acquire("shop", "r2", me(), 5)
    held = store.held("shop")
    assert held
    assert 2.5 < held.until_s - time.time() < 5.1, "by ours"
    wrong.release(lease)
    ours = store.acquire("shop", "r3", me()._replace(boot="unknown"), 5)
    with pytest.raises(LeaseHeld):
        wrong.acquire("shop", "r4", theirs, 5)
    assert same(wrong.held("shop"), ours)


# ---------------------------------------------------------------- between processes


def test_of_two_that_race_one_wins_each_time_and_tokens_grow(start):
    both = [start("ra", 30), start("rb", 30)]
    tokens: list[int] = []
    winners: set[int] = set()
    for _ in range(50):
        for process in both:
            process.tell("take")
        answers = [process.out.readline().split() for process in both]
        won = [at for at, answer in enumerate(answers) if answer[0] == "token"]
        assert len(won) == 1, answers
        assert answers[1 - won[0]][0] == "LeaseHeld"
        tokens.append(int(answers[won[0]][1]))
        winners |= set(won)
        assert both[won[0]].ask("release") == "released"
    assert tokens == sorted(set(tokens))


def test_a_killed_holder_is_replaced_at_once_with_a_higher_token(store, start):
    other = start(ttl_s=3600)
    token = int(other.ask("take").removeprefix("token "))
    with pytest.raises(LeaseHeld):
        store.acquire("shop", "r1", me(), 15)
    other.popen.send_signal(signal.SIGKILL)
    other.popen.wait()
    assert store.held("shop") is None
    assert store.acquire("shop", "r1", me(), 15).token > token


def test_a_paused_holder_that_wakes_after_a_takeover_may_not_act(store, start, until):
    other = start()
    token = int(other.ask("take").removeprefix("token "))
    assert other.ask("check") == f"ours {token}"
    other.popen.send_signal(signal.SIGSTOP)
    until("the paused holder's lease runs out", lambda: store.held("shop") is None)
    lease = store.acquire("shop", "r1", me(), 60)
    assert lease.token > token
    other.popen.send_signal(signal.SIGCONT)
    assert other.ask("check").startswith(
        f"LeaseLost the lease on shop was taken over by {me()} for rollout r1"
    )
    assert other.ask("check").startswith("LeaseLost"), "lost stays lost"
    assert same(store.held("shop"), lease)


def test_a_paused_holder_that_nobody_replaced_goes_on_with_its_token(store, start, until):
    other = start()
    token = int(other.ask("take").removeprefix("token "))
    assert other.ask("check") == f"ours {token}"
    other.popen.send_signal(signal.SIGSTOP)
    until("the paused holder's lease runs out", lambda: store.held("shop") is None)
    other.popen.send_signal(signal.SIGCONT)
    assert other.ask("check") == f"ours {token}"
    assert store.held("shop") is not None


def test_a_holder_that_ends_well_frees_the_lease(store, start):
    other = start(ttl_s=3600)
    token = int(other.ask("take").removeprefix("token "))
    assert other.ask("check") == f"ours {token}"
    other.into.close()
    assert other.popen.wait(timeout=60) == 0
    assert store.acquire("shop", "r1", me(), 15).token > token


def test_the_keeper_renews_by_itself(store, start, ttl_s, until):
    other = start()
    token = int(other.ask("take").removeprefix("token "))
    assert other.ask("check") == f"ours {token}"
    first = store.held("shop")
    assert first
    until("the lease is renewed over its length", lambda: _until_s(store) > first.until_s + ttl_s)


def _until_s(store: Store) -> float:
    lease = store.held("shop")
    return lease.until_s if lease else 0.0


def test_what_was_acknowledged_before_kill_9_is_there(url, store):
    program = WRITER.replace("    store.append(", "    print(store.append(").replace(
        "text=str(number))", "text=str(number)).seq, flush=True)"
    )
    writer = Process(program, url, "web1", "100000")
    writer.tell("go")
    acknowledged = [int(writer.out.readline()) for _ in range(100)]
    os.kill(writer.popen.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in writer.out.read().splitlines() if line]
    writer.end()
    found = [event.seq for event in store.events("r1")]
    assert acknowledged == list(range(1, len(acknowledged) + 1))
    assert found == list(range(1, len(found) + 1))
    assert len(acknowledged) <= len(found) <= len(acknowledged) + 1
    assert store.append("r1", "note").seq == len(found) + 1
