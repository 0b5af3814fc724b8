"""Stores that are lost, cut off, frozen, restarted and taken over: what was acknowledged stays, once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
import pytest
from store_kit import Etcd, Postgres, Way, etcd, free_port, locked_etcd, postgres, standby

from drainctl.errors import ConfigError, JournalError, LeaseLost, StoreAway
from drainctl.journal import patient
from drainctl.journal.door import Store
from drainctl.journal.etcd import EtcdStore
from drainctl.journal.etcd_members import put
from drainctl.journal.lease import Keeper, me
from drainctl.journal.open import open_store
from drainctl.journal.patient import Patience, PatientStore
from drainctl.journal.postgres import MIGRATIONS, READ_EVENTS, READ_ROLLOUTS, PostgresStore

pytestmark = pytest.mark.real

SLOW = float(os.environ.get("DRAINCTL_TEST_SLOW", "1"))
SOAK = os.environ.get("DRAINCTL_SOAK") == "1"
PASSWORD = "s3cret@x/y"  # noqa: S105 (of servers that live for a second)
ESCAPED = "s3cret%40x%2Fy"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as started:
        yield started


@pytest.fixture(scope="module")
def cluster() -> Iterator[Etcd]:
    with etcd() as started:
        yield started


class Place:
    """A store that nobody used before, how to freeze it, and a way to it that can lose answers."""

    def __init__(self, kind: str, server: Postgres | None, cluster: Etcd | None) -> None:
        self.kind, self.server, self.cluster = kind, server, cluster
        self.url = server.url(server.schema()) if server else cluster.url() if cluster else ""

    def open(self, url: str | None = None, limit_s: float = 5.0) -> Store:
        kinds: dict[str, Callable[..., Store]] = {"postgresql": PostgresStore, "etcd": EtcdStore}
        return kinds[self.kind](url or self.url, limit_s=limit_s)

    def freeze(self) -> None:
        if self.server:
            self.server.freeze()
        for member in self.cluster.members[1:] if self.cluster else []:
            member.freeze()

    def thaw(self) -> None:
        if self.server:
            self.server.thaw()
        for member in self.cluster.members[1:] if self.cluster else []:
            member.thaw()

    @contextmanager
    def way(self) -> Iterator[tuple[Way, str]]:
        if self.server:
            target: Any = str(self.server.folder / f".s.PGSQL.{self.server.port}")
        else:
            assert self.cluster
            target = (self.cluster.members[0].host, self.cluster.members[0].port)
        way = Way(target)
        at = f"{way.host}:{way.port}"
        prefix = self.url.rpartition("/")[2]
        schema = self.url.partition("search_path%3D")[2].partition("&")[0]
        url = self.server.url(schema, host=at) if self.server else f"etcd://{at}/{prefix}"
        with closing(way):
            yield way, url


@pytest.fixture(params=["postgresql", "etcd"])
def place(request) -> Iterator[Place]:
    servers = {"postgresql": ("server", None), "etcd": (None, "cluster")}[request.param]
    made = Place(request.param, *(name and request.getfixturevalue(name) for name in servers))
    yield made
    made.thaw()
    if made.cluster:
        made.cluster.wait()


def texts(store: Store, rollout: str = "r1") -> list[str]:
    return [event.text for event in store.events(rollout)]


# ---------------------------------------------------------------- answers that are lost


def test_whichever_answer_is_lost_what_was_asked_is_done_once(place):
    with place.way() as (way, url), closing(place.open(url)) as store:
        for skip in range(4):
            way.skip, way.swallow = skip, 1
            for number in range(3):
                store.append("r1", "note", text=f"{skip}.{number}")
            store.register("shop", f"s{skip}")
            lease = store.acquire(f"shop{skip}", "r1", me(), 60)
            held = store.held(f"shop{skip}")
            assert held
            assert held.token == lease.token == store.renew(lease, 70).token
            store.release(lease)
            assert store.held(f"shop{skip}") is None
        assert way.swallowed == 4
        assert texts(store) == [f"{skip}.{number}" for skip in range(4) for number in range(3)]
        assert store.rollouts("shop") == ["s3", "s2", "s1", "s0"]


def test_an_event_of_unknown_fate_is_appended_again_by_its_mark(place):
    with place.way() as (way, url), closing(place.open(url, limit_s=1.0)) as store:
        store.append("r1", "note", text="before")
        way.swallow = 1000
        with pytest.raises(StoreAway, match="writing note failed after"):
            store.append("r1", "note", text="this", mark="m1")
        way.swallow = 0
        with closing(place.open()) as other:
            assert texts(other) == ["before", "this"], "the store did it, and nobody was told"
            other.append("r1", "note", text="between")
        store.append("r1", "note", text="this", mark="m1")
        store.append("r1", "note", text="after")
        assert texts(store) == ["before", "this", "between", "after"]


def test_a_way_that_is_cut_for_long_is_waited_for_and_told_once(place, monkeypatch):
    monkeypatch.setattr(patient, "AGAIN_S", 0.05)
    told: list[str | None] = []
    with place.way() as (way, url), closing(place.open(url, limit_s=1.0)) as store:
        front = PatientStore(store, Patience(60, lambda why, _: told.append(why)))
        way.swallow = 10_000
        threading.Timer(1.0, setattr, (way, "swallow", 0)).start()
        for number in range(3):
            front.append("r1", "note", text=str(number))
        assert texts(store) == ["0", "1", "2"]
    assert [why is None for why in told] == [False, True]
    assert "writing note failed after" in str(told[0])
    assert "waiting for it up to 60 s" in str(told[0])


# ---------------------------------------------------------------- a store that never answers


def test_a_frozen_store_is_given_up_within_the_limit(place):
    store = place.open(limit_s=1.0)
    lease = store.acquire("shop", "r1", me(), 60)
    store.append("r1", "note", text="before")
    place.freeze()
    acts: list[Callable[[], object]] = [
        lambda: store.append("r1", "note", text="during", mark="m"),
        lambda: store.register("shop", "s1"),
        lambda: place.open(limit_s=1.0),
        lambda: store.renew(lease, 600),
        lambda: store.acquire("other", "r1", me(), 60),
    ]
    for act in acts if SOAK else acts[:3]:
        began = time.monotonic()
        with pytest.raises(StoreAway, match=r"failed after \d+\.\d s: ") as caught:
            act()
        assert time.monotonic() - began < 6 * SLOW, "an answer never comes: this ended by a limit"
        assert str(store.where) in str(caught.value)
    place.thaw()
    if place.cluster:
        place.cluster.wait()
    store.append("r1", "note", text="during", mark="m")
    store.append("r1", "note", text="after")
    assert texts(store) == ["before", "during", "after"]
    if store.latest("shop") is None:  # as a whole or not at all
        store.register("shop", "s1")
    assert store.rollouts("shop") == ["s1"]
    assert store.renew(lease, 60).token == lease.token
    store.close()


def test_a_rollout_waits_while_its_store_is_frozen_and_goes_on(place, until):
    told: list[str | None] = []
    waiting = Patience(60, lambda why, _: told.append(why))
    with closing(place.open(limit_s=1.0)) as store:
        front = PatientStore(store, waiting)
        lease = store.acquire("shop", "r1", me(), 2.0)
        keeper = Keeper(store, lease, 2.0, waiting)
        place.freeze()
        until("somebody is told", lambda: told)
        thawing = threading.Timer(3.0, place.thaw)
        thawing.start()
        until("the lease is not ours for certain", lambda: not keeper.ours)
        keeper.check(10)
        thawing.join()  # it may have thawed as many as are needed, and not all
        assert keeper.ours
        front.append("r1", "note", text="goes on")
        assert keeper.lost is None
        assert keeper.lease.token == lease.token, "nobody had a higher one"
        assert texts(store) == ["goes on"]
        until("it is told that the store is back", lambda: told[-1] is None)
        keeper.close()
    assert len(told) == 2


@pytest.mark.parametrize("place", ["postgresql", "etcd"] if SOAK else ["etcd"], indirect=True)
def test_patience_has_an_end(place):
    with closing(place.open(limit_s=1.0)) as store:
        waiting = Patience(0.5)
        lease = store.acquire("shop", "r1", me(), 2.0)
        keeper = Keeper(store, lease, 2.0, waiting)
        place.freeze()
        with pytest.raises(LeaseLost, match="ran out and could not be renewed"):
            keeper.check(10)
        with pytest.raises(StoreAway):
            PatientStore(store, waiting).append("r1", "note")
        place.thaw()
        with pytest.raises(LeaseLost):
            keeper.check(0)
        keeper.close()


def test_a_controller_that_is_cut_off_loses_its_lease_to_another(place, until):
    with (
        place.way() as (way, url),
        closing(place.open(url, limit_s=1.0)) as cut,
        closing(place.open()) as other,
    ):
        keeper = Keeper(cut, cut.acquire("shop", "r1", me(), 2.0), 2.0, Patience(60))
        way.swallow = 100_000
        until("the lease runs out", lambda: other.held("shop") is None)
        lease = other.acquire("shop", "r2", me(), 60)
        assert lease.token > keeper.lease.token
        answers: list[object] = []
        asking = threading.Thread(target=lambda: answers.append(_checked(keeper)))
        asking.start()
        asking.join(0.5)
        assert answers == [], "without a lease nothing is begun: it waits"
        way.swallow = 0
        asking.join(20 * SLOW)
        assert "taken over" in str(answers)
        keeper.close()
        held = other.held("shop")
        assert held
        assert held.token == lease.token


def _checked(keeper: Keeper) -> object:
    try:
        keeper.check(1)
    except LeaseLost as error:
        return error
    return "ours"


# ---------------------------------------------------------------- PostgreSQL


@pytest.fixture
def url(server) -> str:
    return server.url(server.schema())


def test_postgresql_restarted_between_two_appends_loses_and_doubles_nothing(server, url):
    with closing(open_store(url)) as store:
        lease = store.acquire("shop", "r1", me(), 60)
        for number in range(4):
            store.append("r1", "note", text=str(number))
            server.restart()
        assert texts(store) == list("0123")
        assert store.renew(lease, 60).token == lease.token


def test_postgresql_killed_under_appends_loses_and_doubles_nothing(server, url, monkeypatch, until):
    monkeypatch.setattr(patient, "AGAIN_S", 0.05)
    with closing(open_store(url)) as store:
        front = PatientStore(store, Patience(60))
        written: list[str] = []

        def write() -> None:
            written.extend(front.append("r1", "note", text=str(number)).text for number in range(400))

        writing = threading.Thread(target=write)
        writing.start()
        for enough in (50, 150):
            until("appends go on", lambda enough=enough: len(written) > enough)
            server.kill()
            server.start()
        writing.join(60 * SLOW)
        assert len(written) == 400
        assert texts(store) == [str(number) for number in range(400)]


def test_postgresql_fails_over_to_a_fresh_primary(monkeypatch):
    monkeypatch.setattr(patient, "AGAIN_S", 0.05)
    with postgres("127.0.11.12") as old, standby(old, "127.0.11.13") as new:
        url = old.url(old.schema(), host=f"{old.host}:{old.port},{new.host}:{new.port}")
        told: list[str | None] = []
        with closing(open_store(url)) as store:
            front = PatientStore(store, Patience(60, lambda why, _: told.append(why)))
            first = store.acquire("shop", "r1", me()._replace(boot="elsewhere"), 60)
            for number in range(20):
                front.append("r1", "note", text=str(number))
            old.kill()
            promoting = threading.Timer(1.0, new.sql, ("SELECT pg_promote(false)",))
            promoting.start()
            for number in range(20, 40):
                front.append("r1", "note", text=str(number))
            promoting.join()
            assert texts(store) == [str(number) for number in range(40)]
            assert store.renew(first, 60).token == first.token
            store.release(first)
            assert store.acquire("shop", "r2", me(), 60).token > first.token
        assert [why is None for why in told] == [False, True]


def test_pages_and_events_are_read_by_index_in_postgresql(url):
    with closing(open_store(url)) as store, psycopg.connect(url, autocommit=True) as other:
        assert isinstance(store, PostgresStore)
        other.execute(
            "INSERT INTO drainctl_rollouts (cluster, id, mark)"
            " SELECT 'shop', 'r' || n, '' FROM generate_series(1, 9999) n"
        )
        other.execute("ANALYZE drainctl_rollouts")
        plan = str(other.execute("EXPLAIN " + READ_ROLLOUTS, ("shop", 5000, 20)).fetchall())
        assert "Limit" in plan
        assert "Index Scan Backward using drainctl_rollouts" in plan
        assert "Sort" not in plan
        other.execute("SET enable_seqscan = off")
        plan = str(other.execute("EXPLAIN " + READ_EVENTS, ("r1", 7, 20)).fetchall())
        assert "drainctl_events_by_rollout" in plan


def test_a_schema_from_the_future_is_refused_by_postgresql(url):
    open_store(url).close()
    with psycopg.connect(url, autocommit=True) as other:
        other.execute("UPDATE drainctl_schema SET version = 2")
    with pytest.raises(JournalError, match="has schema 2, this drainctl knows 1") as caught:
        open_store(url)
    assert caught.value.hint


def test_an_older_schema_is_taken_forward_once_by_all_that_open_it(url, monkeypatch):
    with closing(open_store(url)) as store:
        store.append("r1", "note", text="old")
    more = ("CREATE TABLE drainctl_later (x TEXT); INSERT INTO drainctl_later VALUES ('here')",)
    monkeypatch.setattr("drainctl.journal.postgres.MIGRATIONS", MIGRATIONS + more)
    stores: list[Store] = []
    threads = [threading.Thread(target=lambda: stores.append(open_store(url))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(stores) == 5
    for each in stores:
        assert texts(each) == ["old"]
        each.close()
    with psycopg.connect(url, autocommit=True) as other:
        assert other.execute("SELECT x FROM drainctl_later").fetchall() == [("here",)]
        assert other.execute("SELECT version FROM drainctl_schema").fetchall() == [(2,)]


def test_a_role_that_may_only_read_and_write_is_enough_once_the_tables_are_there(server, url):
    schema = url.partition("search_path%3D")[2].partition("&")[0]
    server.sql("CREATE ROLE deploy LOGIN")
    theirs = url.replace(f"{server.user}@", "deploy@", 1)
    with pytest.raises(JournalError, match=r"permission denied|no schema has been selected") as caught:
        open_store(theirs)
    open_store(url).close()
    server.sql(f"GRANT USAGE ON SCHEMA {schema} TO deploy")
    server.sql(f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA {schema} TO deploy")
    with closing(open_store(theirs)) as store:
        store.append("r1", "note", text="written")
        store.register("shop", "r1")
        store.release(store.acquire("shop", "r1", me(), 60))
        assert texts(store) == ["written"]
    server.sql(f"REVOKE INSERT ON {schema}.drainctl_events FROM deploy")
    with (
        closing(open_store(theirs)) as store,
        pytest.raises(JournalError, match="permission denied") as caught,
    ):
        store.append("r1", "note")
    assert "docs/several-controllers.md" in str(caught.value.hint)
    assert not isinstance(caught.value, StoreAway), "waiting does not help"


def test_a_server_that_commits_before_the_disk_is_overruled():
    with (
        postgres("127.0.11.14", "synchronous_commit=off") as loose,
        closing(open_store(loose.url())) as store,
    ):
        assert isinstance(store, PostgresStore)
        assert store._rows("asking", "SHOW synchronous_commit", None) == [("on",)]


# ---------------------------------------------------------------- etcd


def test_appends_go_on_after_the_leader_of_etcd_was_killed(cluster):
    acknowledged: list[str] = []
    failed: list[str] = []
    with closing(open_store(cluster.url())) as store:
        store.append("r1", "note", text="first")
        leader = cluster.leader()
        leader.kill()
        deadline = time.monotonic() + 20 * SLOW
        number = 0
        while len(acknowledged) < 30:
            assert time.monotonic() < deadline, f"waited for 30 appends, {len(failed)} failed"
            try:
                acknowledged.append(store.append("r1", "note", text=str(number)).text)
            except StoreAway:
                failed.append(str(number))
            number += 1
        leader.start()
        cluster.wait()
        found = texts(store)[1:]
    assert sorted(set(found), key=int) == found, "in order, none twice"
    assert set(acknowledged) <= set(found) <= {*acknowledged, *failed}


def test_one_member_that_never_answers_is_left_for_the_next(cluster):
    with closing(open_store(cluster.url())) as store:
        store.append("r1", "note", text="0")
        first = cluster.members[0]  # the one that is asked first
        first.freeze()
        try:
            for number in range(1, 4):
                store.append("r1", "note", text=str(number))
        finally:
            first.thaw()
        assert texts(store) == list("0123")
    cluster.wait()


def test_a_schema_from_the_future_is_refused_by_etcd(cluster):
    url = cluster.url("shop")
    open_store(url).close()
    with closing(open_store(url)) as store:
        assert isinstance(store, EtcdStore)
        with store._call("testing"):
            store._transact([], [put("shop/schema", "2")])
    with pytest.raises(JournalError, match="has schema 2, this drainctl knows 1") as caught:
        open_store(url)
    assert caught.value.hint


def test_an_event_that_is_too_large_for_etcd_is_refused_in_its_words(cluster):
    with closing(open_store(cluster.url())) as store:
        with pytest.raises(JournalError, match="request is too large") as caught:
            store.append("r1", "note", text="x" * 2_000_000)
        assert not isinstance(caught.value, StoreAway), "waiting does not help"
        assert store.append("r1", "note", text="small").seq == 1


def test_etcd_by_tls_with_a_certificate_a_user_and_a_password(tmp_path):
    with locked_etcd(tmp_path, PASSWORD) as at:
        files = f"cacert={tmp_path}/ca.pem&cert={tmp_path}/client.pem&key={tmp_path}/client-key.pem"
        url = f"etcd://deploy:{ESCAPED}@{at}"
        with closing(open_store(f"{url}?{files}")) as store:
            assert isinstance(store, EtcdStore)
            store.append("r1", "note", text="by TLS")
            lease = store.acquire("shop", "r1", me(), 60)
            for client in store._members._clients:
                client.session.headers["Authorization"] = "one that ran out"
            assert store.renew(lease, 60).token == lease.token
            assert texts(store) == ["by TLS"]
        for wrong, words in (
            (f"{url}/elsewhere?{files}", "permission denied"),
            (f"{url.replace('s3cret', 'wrong')}?{files}", "authentication failed"),
            (f"{url}?tls=true", "certificate"),
            (url, "failed after"),
        ):
            with pytest.raises(JournalError, match=words) as caught:
                open_store(wrong)
            assert "s3cret" not in f"{caught.value} {caught.value.hint}"
        with pytest.raises(ConfigError, match=r"cannot read .*nowhere\.pem: No such file"):
            open_store(f"{url}?cacert={tmp_path}/nowhere.pem")


# ---------------------------------------------------------------- what is said


@pytest.mark.parametrize("kind", ["postgresql", "etcd"])
def test_a_store_that_is_not_there_is_named_without_its_password(kind):
    port = free_port("127.0.11.40")
    with pytest.raises(StoreAway, match=r"refused") as caught:
        open_store(f"{kind}://deploy:{ESCAPED}@127.0.11.40:{port}/shop")
    told = f"{caught.value} {caught.value.hint}"
    assert f"journal {kind}://127.0.11.40:{port}/shop: opening it failed after 0." in told
    assert "s3cret" not in told
    assert caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://deploy:s3cret/x@db/shop",
        "postgresql://deploy:s3cret@db:port/shop",
        "postgresql://deploy:123/s3cret@db/shop",
        "postgresql://deploy:s3cret%@db/shop",
        "postgresql://db/shop?s3cret",
        "etcd://deploy:s3cret/x@db/shop",
        "etcd://deploy:x@s3cret:port/shop",
        "etcd://db/shop?s3cret",
        "etcd://db/shop?password=s3cret",
        "etcd://db/shop?cert=s3cret",
        "etcd:///s3cret",
        "etcd://[s3cret/",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_and_not_shown(url):
    with pytest.raises(ConfigError, match="store") as caught:
        open_store(url)
    assert "s3cret" not in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint


WITHOUT = """
import sys
for name in {names}:
    sys.modules[name] = None
from drainctl.errors import ConfigError
from drainctl.journal.open import open_store
try:
    open_store(sys.argv[1]).close()
except ConfigError as error:
    print(error, "|", error.hint)
heavy = {{"psycopg", "etcd3gw", "requests", "drainctl.journal.postgres", "drainctl.journal.etcd"}}
print(sorted(set(sys.modules) & heavy - {{*{names}}}))
"""


@pytest.mark.parametrize(
    ("url", "name", "extra"),
    [("postgresql://db/shop", "psycopg", "postgres"), ("etcd://db/shop", "etcd3gw", "etcd")],
)
def test_a_missing_package_is_named_with_the_extra_that_brings_it(url, name, extra):
    program = WITHOUT.format(names=[name])
    done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=False)
    assert "needs a package that is not installed" in done.stdout, done.stderr
    assert name in done.stdout
    assert f"| pip install 'drainctl[{extra}]'" in done.stdout


def test_a_file_loads_nothing_of_the_others(tmp_path):
    program = WITHOUT.format(names=[])
    url = f"sqlite://{tmp_path}/j.db"
    done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
