"""
What the journal costs in each store, against what it cannot go below. Compare the ratios.

    python bench/journal.py [folder]

- an append: SQLite against writing the same bytes to a plain file and fsync; PostgreSQL against an INSERT of
  the same bytes into a table of one column; etcd against a bare put. All on loopback, all with fsync.
- a journey of 3 s: what all its events cost as a share of it, and what the engine alone does.
- 100,000 events of a rollout over 5,000 nodes: read, and replayed to its state.
- one page of `history` of 10,000 rollouts against one page of 20.

PostgreSQL and etcd are left out where they are not installed.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "real"))

from drainctl.journal.door import Store
from drainctl.journal.events import Event
from drainctl.journal.lease import me
from drainctl.journal.open import open_store
from drainctl.journal.replay import replay
from drainctl.journal.sqlite import EVENT_COLUMNS

APPENDS = 300
EVENTS = 100_000
JOURNEY_S = 3.0
# One node by http-check, from `node.began` to `node.ended`: 11 steps are seen, 5 of them are intended before,
# 3 of these returned.
JOURNEY = 21
MANY, FEW = 10_000, 20
TEXT = "NOLB on lb1, lb2"
DATA = {"why": TEXT, "took_s": 0.0062}
STEPS = ("guard", "flag", "out", "idle", "quiet", "switch", "restart", "restore", "up")


class Measured(NamedTuple):
    """One store, and the act of its engine that an append cannot be cheaper than."""

    name: str
    url: str
    least: str
    bare: Callable[[], object]


def medians_us(*acts: Callable[[], object], times: int = APPENDS) -> list[float]:
    spent: list[list[float]] = [[] for _ in acts]
    for _ in range(times):
        for act, each in zip(acts, spent, strict=True):
            began = time.perf_counter()
            act()
            each.append(time.perf_counter() - began)
    return [statistics.median(each) * 1e6 for each in spent]


# ---------------------------------------------------------------- stores


@contextmanager
def sqlite_store(folder: Path) -> Iterator[Measured]:
    line = json.dumps({"kind": "step.seen", "node": "web1", "text": TEXT, "data": DATA}).encode()
    with (folder / "plain").open("wb", buffering=0) as file:

        def bare() -> None:
            file.write(line)
            os.fsync(file.fileno())

        yield Measured("SQLite", f"sqlite://{folder}/journal.db", "write + fsync", bare)


@contextmanager
def postgresql_store() -> Iterator[Measured]:
    import psycopg
    from store_kit import postgres

    with postgres("127.0.11.50", "fsync=on") as server:
        server.sql("CREATE TABLE bare (line TEXT)")
        with psycopg.connect(server.url(), autocommit=True) as connection:
            line = json.dumps({"kind": "step.seen", "node": "web1", "text": TEXT, "data": DATA})

            def bare() -> None:
                connection.execute("INSERT INTO bare VALUES (%s)", (line,))

            yield Measured("PostgreSQL", server.url(), "INSERT", bare)


@contextmanager
def etcd_store() -> Iterator[Measured]:
    from store_kit import etcd

    from drainctl.journal.etcd_members import b64

    with etcd(fsync=True) as cluster:
        first = cluster.members[0]
        with closing(http.client.HTTPConnection(first.host, first.port)) as connection:
            body = json.dumps({"key": b64("bare"), "value": b64(TEXT * 10)})

            def bare() -> None:
                connection.request("POST", "/v3/kv/put", body)
                connection.getresponse().read()

            yield Measured("etcd, 3 members", cluster.url(), "put", bare)


def installed() -> Iterator[Any]:
    if Path("/usr/lib/postgresql").exists() or shutil.which("initdb"):
        yield postgresql_store
    if shutil.which("etcd"):
        yield etcd_store


# ---------------------------------------------------------------- what is measured


def appends(store: Store, measured: Measured) -> None:
    """By turns, so that both meet the same machine; under a lease, as a rollout's events are."""
    lease = store.acquire("bench", "r0", me(), 3600)

    def append() -> None:
        store.append("r0", "step.seen", node="web1", step="out", text=TEXT, data=DATA, lease=lease)

    ours, least = medians_us(append, measured.bare)
    store.release(lease)
    share, bare = (JOURNEY * each / 1e6 / JOURNEY_S for each in (ours, least))
    print(
        f"  append    {ours:7.0f} µs, {measured.least} {least:7.0f} µs, ratio {ours / least:.2f};"
        f" {JOURNEY} events are {share:.2%} of a journey of {JOURNEY_S:g} s, {measured.least} {bare:.2%}"
    )


def journal() -> Iterator[tuple[str, str | None, str | None, dict[str, Any]]]:
    """What a rollout over 5,000 nodes writes: kind, node, step, data."""
    nodes = [f"web{n}" for n in range(EVENTS // 20)]
    targets = dict.fromkeys(nodes, "v2")
    began = {"verb": "deploy", "cluster": "shop", "release": None, "targets": targets, "line": None}
    began |= {"waves": [nodes], "previous": dict.fromkeys(nodes, "v1"), "holder": "ops@ops1", "token": 1}
    yield "rollout.began", None, None, began | {"on_failure": "halt", "strategy": {}, "live": {}}
    way = {"way": "forward", "strategy": "http-check", "reason": "configured", "target": "v2"}
    for node in nodes:
        yield "node.began", node, None, way
        for step in STEPS:
            intent = {"act": "set the flag", "limit_s": 5.0, "changes": False}
            yield "step.intended", node, step, intent
            yield "step.seen", node, step, DATA
        yield "node.ended", node, None, {"outcome": "done", "why": "on v2", "took_s": 3.0}


def replaying(store: Store, fill: Callable[[list[Event]], None]) -> None:
    events = [
        Event(seq, 1e9 + seq, "r1", kind, node, step, TEXT, data)
        for seq, (kind, node, step, data) in enumerate(journal(), 10_001)
    ][:EVENTS]
    fill(events)
    began = time.perf_counter()
    found = store.events("r1")
    read_s = time.perf_counter() - began
    assert len(found) == EVENTS
    began = time.perf_counter()
    state = replay("r1", found)
    replay_s = time.perf_counter() - began
    assert sum(node.outcome == "done" for node in state.nodes.values()) > EVENTS // 21
    began = time.perf_counter()
    assert len(store.events("r1", after=found[-10].seq)) == 9
    tail_s = time.perf_counter() - began
    lines = [json.dumps({name: getattr(event, name) for name in Event.__slots__}) for event in found]
    began = time.perf_counter()
    assert [Event(**json.loads(line)) for line in lines] == found
    least_s = time.perf_counter() - began
    print(
        f"  {EVENTS:,} events: read in {read_s:.2f} s, JSON in memory {least_s:.2f} s, ratio"
        f" {read_s / least_s:.2f}; replayed in {replay_s:.2f} s; the last 9: {tail_s / read_s:.5f} of all"
    )


def pages(store: Store, register: Callable[[str, int], None]) -> None:
    register("few", FEW)
    register("many", MANY)
    few, many, middle = medians_us(
        lambda: store.rollouts("few", limit=20),
        lambda: store.rollouts("many", limit=20),
        lambda: store.rollouts("many", limit=20, before=f"many{MANY // 2}"),
        times=100,
    )
    assert len(store.rollouts("many", limit=20)) == 20
    print(
        f"  history   a page of {MANY:,} rollouts takes {many / few:.2f} of a page of {FEW},"
        f" from the middle {middle / few:.2f}"
    )


# ---------------------------------------------------------------- filled without the door, which is measured


def fill_sqlite(path: Path) -> tuple[Callable[[list[Event]], None], Callable[[str, int], None]]:
    def events(found: list[Event]) -> None:
        rows = [(e.at_s, e.rollout, e.kind, e.node, e.step, e.text, json.dumps(e.data)) for e in found]
        with closing(sqlite3.connect(path)) as connection, connection:
            write = f"INSERT INTO events ({EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
            connection.executemany(write, rows)

    def rollouts(cluster: str, number: int) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            ids = [(cluster, f"{cluster}{n}") for n in range(number)]
            connection.executemany("INSERT INTO rollouts (cluster, id) VALUES (?, ?)", ids)

    return events, rollouts


def fill_postgresql(url: str) -> tuple[Callable[[list[Event]], None], Callable[[str, int], None]]:
    import psycopg

    def events(found: list[Event]) -> None:
        columns = "seq, mark, at_s, rollout, kind, node, step, text, data"
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            with cursor.copy(f"COPY drainctl_events ({columns}) FROM STDIN") as copy:
                for e in found:
                    data = json.dumps(e.data)
                    copy.write_row(
                        (e.seq, str(e.seq), e.at_s, e.rollout, e.kind, e.node, e.step, e.text, data)
                    )
            cursor.execute("UPDATE drainctl_counter SET seq = %s", (found[-1].seq,))

    def rollouts(cluster: str, number: int) -> None:
        with psycopg.connect(url) as connection, connection.cursor() as cursor:
            rows = [(cluster, f"{cluster}{n}") for n in range(number)]
            cursor.executemany("INSERT INTO drainctl_rollouts (cluster, id, mark) VALUES (%s, %s, '')", rows)

    return events, rollouts


# ruff: noqa: SLF001 (what is filled is the store's own layout)
def fill_etcd(store: Any) -> tuple[Callable[[list[Event]], None], Callable[[str, int], None]]:
    from drainctl.journal.etcd_members import put

    def write(pairs: list[tuple[str, str]]) -> None:
        for at in range(0, len(pairs), 100):  # etcd takes 128 at once
            with store._call("filling"):
                store._transact([], [put(key, value) for key, value in pairs[at : at + 100]])

    def events(found: list[Event]) -> None:
        write(
            [
                (
                    store._event_key(e.rollout, e.seq),
                    json.dumps([e.at_s, e.kind, e.node, e.step, e.text, e.data, ""]),
                )
                for e in found
            ]
        )

    def rollouts(cluster: str, number: int) -> None:
        ids = [(store._rollout_key(cluster, n), f"{cluster}{n}") for n in range(number)]
        middle = json.dumps({"cluster": cluster, "number": number // 2, "mark": ""})
        write([*ids, (f"{store._prefix}ids/{cluster}{number // 2}", middle)])

    return events, rollouts


def measure(measured: Measured) -> None:
    print(f"{measured.name}:")
    with closing(open_store(measured.url)) as store:
        if measured.url.startswith("sqlite"):
            filling = fill_sqlite(Path(measured.url.removeprefix("sqlite://")))
        elif measured.url.startswith("postgresql"):
            filling = fill_postgresql(measured.url)
        else:
            filling = fill_etcd(store)
        appends(store, measured)
        replaying(store, filling[0])
        pages(store, filling[1])


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        with sqlite_store(Path(folder)) as measured:
            measure(measured)
        for begin in installed():
            with begin() as measured:
                measure(measured)


if __name__ == "__main__":
    main()
