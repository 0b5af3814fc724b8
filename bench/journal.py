"""
What the journal costs, against what it cannot go below.

An append is compared with writing the same bytes to a plain file and fsync; reading a rollout's events
with parsing the same events from JSON lines in memory. Run: python bench/journal.py [folder]
"""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from drainctl.journal.events import Event
from drainctl.journal.sqlite import EVENT_COLUMNS, SqliteStore

APPENDS = 400
EVENTS = 100_000
TEXT = "NOLB on lb1, lb2"
DATA = {"why": TEXT, "took_s": 0.0062}


def median_us(act: Callable[[], object]) -> float:
    spent = []
    for _ in range(APPENDS):
        began = time.perf_counter()
        act()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent) * 1e6


def appends(folder: Path) -> None:
    store = SqliteStore(folder / "appends.db")
    line = json.dumps(
        {"kind": "step.seen", "node": "web1", "step": "out", "text": TEXT, "data": DATA}
    ).encode()

    def append() -> None:
        store.append("r1", "step.seen", node="web1", step="out", text=TEXT, data=DATA)

    with (folder / "plain").open("wb", buffering=0) as file:

        def plain() -> None:
            file.write(line)
            os.fsync(file.fileno())

        ours, limit = median_us(append), median_us(plain)
    store.close()
    print(f"append:  {ours:7.0f} µs, write + fsync {limit:7.0f} µs, ratio {ours / limit:.2f}")


def fill(path: Path) -> None:
    SqliteStore(path).close()
    with sqlite3.connect(path) as connection:
        data = json.dumps(DATA)
        rows = (
            (1e9 + n, f"r{n % 2}", "step.seen", f"web{n % 40}", "out", TEXT, data) for n in range(2 * EVENTS)
        )
        connection.executemany(f"INSERT INTO events ({EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)  # noqa: S608
    connection.close()


def reading(folder: Path) -> None:
    fill(folder / "reading.db")
    store = SqliteStore(folder / "reading.db")
    began = time.perf_counter()
    events = store.events("r1")
    ours = time.perf_counter() - began
    assert len(events) == EVENTS
    began = time.perf_counter()
    after = store.events("r1", after=events[-10].seq)
    tail = time.perf_counter() - began
    assert len(after) == 9
    store.close()

    fields = Event.__slots__
    lines = [json.dumps({name: getattr(event, name) for name in fields}) for event in events]
    began = time.perf_counter()
    parsed = [Event(**json.loads(line)) for line in lines]
    limit = time.perf_counter() - began
    assert parsed == events
    amount = f"{EVENTS:,} of {2 * EVENTS:,}"
    print(f"events:  {ours * 1e3:7.0f} ms for {amount}, JSON in memory {limit * 1e3:7.0f} ms, ratio", end=" ")
    print(f"{ours / limit:.2f}")
    print(f"tail:    {tail * 1e6:7.0f} µs for the last 9 of them, ratio to all {tail / ours:.5f}")


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as folder:
        appends(Path(folder))
        reading(Path(folder))


if __name__ == "__main__":
    main()
