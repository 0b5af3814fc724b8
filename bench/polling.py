"""
What one look at a HAProxy costs the controller, in CPU time: four rows asked singly, and the whole table.

Run: python bench/polling.py [servers] [looks]. HAProxy is the one on PATH. All numbers of one run are from
the same machine at the same time, so compare the ratios and not the milliseconds of different runs.
"""

from __future__ import annotations

import csv
import io
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from drainctl.balancer import parse
from drainctl.balancer.exchange import UnixExchange
from drainctl.balancer.fleet import Fleet
from drainctl.balancer.open import open_balancer
from drainctl.model import Balancer
from tests.conftest import need
from tests.real.haproxy_kit import APPS, Haproxy

WANTED = [("app", f"s{at}") for at in (1, 333, 666, 999)]


def main() -> None:
    servers, looks = (int(word) for word in (*sys.argv[1:], "1000", "300")[:2])
    with haproxy(servers) as balancer:
        unix = f"unix:{balancer.socket}"
        tcp = f"tcp://127.0.21.1:{balancer.tcp_port}"
        wanted = WANTED if servers >= 1000 else [("app", f"s{at}") for at in range(1, 5)]
        raw = UnixExchange("raw", balancer.socket)
        text = raw.ask(["show stat -1 4 -1"])[0]
        single = door("lb1", runtime=unix)
        mastered = door("lb1", runtime=unix, master=f"unix:{balancer.master_socket}")
        kept = door("lb1", runtime=tcp)
        with closing(single), closing(mastered), closing(kept), closing(Fleet([single], every_s=0)) as fleet:
            fleet.watch("all", {"lb1": wanted})
            ways: dict[str, Callable[[], object]] = {
                "4 rows, unix socket": lambda: single.look(wanted),
                "4 rows and the master's list": lambda: mastered.look(wanted),
                "4 rows, TCP kept open": lambda: kept.look(wanted),
                "4 rows, through the fleet": fleet.look,
                f"4 rows out of the table of {servers}": lambda: parse.show_stat(
                    raw.ask(["show stat -1 4 -1"])[0], set(wanted)
                ),
                f"the whole table of {servers}": single.look,
                "for comparison: csv.DictReader on that table": lambda: list(
                    csv.DictReader(io.StringIO(text))
                ),
            }
            report(ways, looks)


def report(ways: dict[str, Callable[[], object]], looks: int) -> None:
    base = None
    print(f"{'':46} {'CPU ms':>8} {'wall ms':>8} {'ratio':>7}")
    for name, look in ways.items():
        cpu_ms, wall_ms = cost(look, looks)
        base = base or cpu_ms
        print(f"{name:46} {cpu_ms:8.3f} {wall_ms:8.3f} {cpu_ms / base:7.1f}")


def cost(look: Callable[[], object], looks: int) -> tuple[float, float]:
    """CPU (of all threads) and median wall time of one look, milliseconds; at most 3 s of looks."""
    look()
    walls: list[float] = []
    began, cpu = time.monotonic(), time.process_time()
    while len(walls) < looks and time.monotonic() - began < 3:
        start = time.perf_counter()
        look()
        walls.append(time.perf_counter() - start)
    return (time.process_time() - cpu) * 1000 / len(walls), statistics.median(walls) * 1000


def door(name: str, **address: str):
    return open_balancer(Balancer(name, **address))


@contextmanager
def haproxy(servers: int) -> Iterator[Haproxy]:
    folder = Path(tempfile.mkdtemp(prefix="drainctl-", dir="/tmp"))  # short enough for a unix socket's path
    lines = "\n".join(f"    server s{at + 1} {APPS}:9" for at in range(servers))
    started = Haproxy(need("haproxy"), folder, f"backend app\n{lines}")
    try:
        yield started
    finally:
        started.stop()
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
