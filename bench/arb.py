"""
What a dead store machine costs, and what a healthy one costs more; all from one run, no root needed.

    python bench/arb.py [--processes 8] [--calls 2000]

1. Eight processes, a machine that drops packets (its accept queue is full), its replica beside it; they come
   together, or 0.1 s apart; each asks twice. Against: requests with timeout=(1, 900) and the replica asked
   by hand, the same with one timeout for all, urllib3's Retry, httpx. A long query tells whether the limits
   suit it.
2. A healthy call through the session against plain requests, in turn, with the same pool.
3. A look at the board against what else it could be kept in.

Compare the ratios; absolute times belong to the machine and the moment.
"""

from __future__ import annotations

import argparse
import mmap
import multiprocessing
import socket
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import requests
from requests.adapters import HTTPAdapter
from urllib3.util.retry import Retry

from drainctl.arb import FileBoard, Policy, Prober, ReplicaSession, shards_of
from drainctl.arb.board import fault_mark
from drainctl.arb.stores import Stores

BASE = "127.0.83"
ASKS = 2
LONG_S = 1.5
APART_S = 0.1
Ask = Callable[[str], object]  # path → answer


@contextmanager
def machine_that_drops_packets() -> Iterator[str]:
    """A listening socket whose queue is full: the kernel drops every further SYN."""
    with socket.create_server((f"{BASE}.9", 7000), backlog=0) as full:
        waiting = [socket.socket() for _ in range(8)]
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        try:
            yield f"http://{BASE}.9:7000"
        finally:
            for sock in waiting:
                sock.close()


def by_hand(
    get: Callable[..., object], fails: tuple[type[Exception], ...], urls: list[str], **limits: object
) -> Ask:
    """What people write: ask one, ask the other where that fails."""

    def ask(path: str) -> object:
        for url in urls[:-1]:
            try:
                return get(url + path, **limits)
            except fails:
                continue
        return get(urls[-1] + path, **limits)

    return ask


def plain(urls: list[str], _board: str) -> Ask:
    return by_hand(requests.Session().get, (requests.ConnectionError,), urls, timeout=(1, 900))


def one_timeout(urls: list[str], _board: str) -> Ask:
    fails = (requests.ConnectionError, requests.Timeout)
    return by_hand(requests.Session().get, fails, urls, timeout=1)


def retry(urls: list[str], _board: str) -> Ask:
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=Retry(connect=2, read=0)))
    return by_hand(session.get, (requests.ConnectionError,), urls, timeout=(1, 900))


def with_httpx(urls: list[str], _board: str) -> Ask:
    client = httpx.Client(timeout=httpx.Timeout(900, connect=1))
    return by_hand(client.get, (httpx.ConnectTimeout, httpx.ConnectError), urls)


def arb(urls: list[str], board: str) -> Ask:
    session = ReplicaSession({"users": urls}, board)
    return lambda path: session.get(f"arb://users{path}")


KINDS = {
    "requests, timeout=(1, 900)": plain,
    "requests, timeout=1": one_timeout,
    "requests, Retry(connect=2)": retry,
    "httpx, connect=1": with_httpx,
    "drainctl.arb": arb,
    "drainctl.arb, arb watch on": arb,
}


def client(
    kind: str, urls: list[str], board: str, begin: float, wait_s: float, told: multiprocessing.Queue
) -> None:
    ask = KINDS[kind](urls, board)
    time.sleep(max(0.0, begin + wait_s - time.time()))
    began = time.monotonic()
    for _ in range(ASKS):
        ask("/")
    told.put(time.monotonic() - began)


def cost(kind: str, urls: list[str], processes: int, apart_s: float) -> tuple[float, float]:
    """Seconds that all processes together spent, and the slowest one."""
    fork = multiprocessing.get_context("fork")
    told: multiprocessing.Queue = fork.Queue()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/board"
        watcher = None
        if kind.endswith("watch on"):
            board = FileBoard(path)
            watcher = Prober(shards_of({"users": urls}), board, Policy(), watch=True)
            watcher.start()
            while not board.down():
                time.sleep(0.05)
        begin = time.time() + 0.5
        running = [
            fork.Process(target=client, args=(kind, urls, path, begin, at * apart_s, told))
            for at in range(processes)
        ]
        for process in running:
            process.start()
        spent = [told.get(timeout=60) for _ in running]
        for process in running:
            process.join()
        if watcher is not None:
            watcher.stop()
            board.close()
    return sum(spent), max(spent)


def long_query(kind: str, url: str) -> str:
    """Whether a query longer than the connect limit is answered."""
    with tempfile.TemporaryDirectory() as folder:
        ask = KINDS[kind]([url, url] if not kind.startswith("drainctl") else [url], f"{folder}/board")
        try:
            ask(f"/query?for={LONG_S}")
        except Exception as error:  # noqa: BLE001  each library has its own
            return type(error).__name__
    return "answered"


def dead_machine(stores: Stores, processes: int) -> None:
    print(f"1. a machine that drops packets; {processes} processes, {ASKS} queries each; seconds lost by all")
    print(f"   {'':28} {'together':>9} {'ratio':>6}   {'0.1 s apart':>11} {'ratio':>6}   {LONG_S:g} s query")
    live = stores.machines[1].url
    with machine_that_drops_packets() as dead:
        rows = {
            kind: (cost(kind, [dead, live], processes, 0)[0], cost(kind, [dead, live], processes, APART_S)[0])
            for kind in KINDS
        }
    ours = rows["drainctl.arb"]
    for kind, (together, apart) in rows.items():
        ratios = together / ours[0], apart / ours[1]
        figures = f"{together:9.2f} {ratios[0]:6.2f}   {apart:11.2f} {ratios[1]:6.2f}"
        print(f"   {kind:28} {figures}   {long_query(kind, live)}")


def healthy(stores: Stores, calls: int) -> None:
    print("2. a healthy call, in turn with plain requests; ratio of times")
    url = stores.shards["users"][0]
    for environment in (True, False):
        with tempfile.TemporaryDirectory() as folder, requests.Session() as bare:
            bare.mount("http://", HTTPAdapter(pool_maxsize=32))
            with ReplicaSession(stores.shards, f"{folder}/board") as session:
                bare.trust_env = session.trust_env = environment
                plain_s, arb_s = in_turn(
                    calls,
                    lambda: bare.get(f"{url}/", timeout=(1, 900)),
                    lambda: session.get("arb://users/"),
                )
        for part, name in ((0.1, "10 %"), (0.25, "25 %"), (0.5, "median")):
            one, other = (sorted(spent)[int(len(spent) * part)] for spent in (plain_s, arb_s))
            word = "as they come" if environment else "trust_env=False for both"
            print(f"   {word:26} {name:>7}  {other / one:.3f}   ({one * 1e6:.0f} and {other * 1e6:.0f} µs)")


def in_turn(calls: int, *asks: Callable[[], object]) -> list[list[float]]:
    spent: list[list[float]] = [[] for _ in asks]
    order = list(enumerate(asks))
    for _ in range(calls):
        for at, ask in order:
            began = time.perf_counter()
            ask()
            spent[at].append(time.perf_counter() - began)
        order.reverse()
    return spent


def boards() -> None:
    print("3. a look at the board")
    with tempfile.TemporaryDirectory() as folder:
        board = FileBoard(f"{folder}/board")
        board.mark(fault_mark("c:3", "x", 60))
        board.lift("c:3")
        database = sqlite3.connect(f"{folder}/db")
        database.executescript("PRAGMA journal_mode=WAL; CREATE TABLE down (machine TEXT)")
        Path(folder, "map").write_bytes(bytes(4096))
        with Path(folder, "map").open("r+b") as file, mmap.mmap(file.fileno(), 4096) as mapped:
            looks: dict[str, Callable[[], object]] = {
                "FileBoard.down, nobody down": board.down,
                "SQLite, a select": lambda: database.execute("SELECT machine FROM down").fetchall(),
                "a byte of a mapped file": lambda: mapped[0],
            }
            for name, look in looks.items():
                print(f"   {name:28} {each(look) * 1e6:6.2f} µs")
        board.mark(fault_mark("a:1", "x", 60))
        print(f"   {'FileBoard.down, one down':28} {each(board.down) * 1e6:6.2f} µs")
        database.close()
        board.close()


def each(call: Callable[[], object], times: int = 20000) -> float:
    began = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - began) / times


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--calls", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="drainctl-bench-") as folder, Stores(folder, BASE) as stores:
        dead_machine(stores, options.processes)
        healthy(stores, options.calls)
    boards()


if __name__ == "__main__":
    main()
