"""A controller that stops itself right before an act, the real command line beside it, and nodes' logs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from drainctl.config.load import load
from drainctl.lab.cluster import Lab
from drainctl.node import fence
from drainctl.wire import Wired
from tests.conftest import SLOW
from tests.real.rollout_kit import running

LEASE_S = 2.0

# drainctl with a short lease, also before an act that may take long; with an act's name it stops itself
# (SIGSTOP) once, right before that act. Then more Python, which is run first.
PROGRAM = """
import os, signal, sys
from drainctl import controller
from drainctl.cli import main
from drainctl.journal.lease import Keeper
from drainctl.rollout.perform import Performer
controller.LEASE_S = float(sys.argv.pop(1))
stop_at, act, check = sys.argv.pop(1), Performer.__call__, Keeper.check
exec(sys.argv.pop(1))
Keeper.check = lambda self, need_s: check(self, min(need_s, 0.5))
def acting(self, node, what):
    global stop_at
    if type(what).__name__ == stop_at:
        stop_at = None
        os.kill(os.getpid(), signal.SIGSTOP)
    return act(self, node, what)
Performer.__call__ = acting
main()
"""


class Entry(NamedTuple):
    """One line of a node's log. what: raised, begin, end or refused. at_s: since the node was booted."""

    at_s: float
    what: str
    token: int
    rollout: str
    rest: str


def entries(path: Path) -> list[Entry]:
    found = []
    for line in path.read_text().splitlines() if path.exists() else ():
        at_s, what, token, rollout, rest = line.split(" ", 4)
        found.append(Entry(float(at_s), what, int(token), rollout, rest))
    return found


def log(lab: Lab, name: str) -> list[Entry]:
    return entries(lab.root(name) / fence.LOG)


def overlaps(log_: list[Entry]) -> list[tuple[Entry, Entry]]:
    """Acts of one token that began while one of another ran: there must be none (lines keep their order)."""
    found, running = [], []
    for entry in log_:
        if entry.what == "begin":
            found += [(other, entry) for other in running if other.token != entry.token]
            running.append(entry)
        elif entry.what == "end":
            mine = [one for one in running if one.token == entry.token and entry.rest.endswith(one.rest)]
            running.remove(mine[0])
    return found


def popen(
    lab: Lab,
    *argv: str,
    stop_at: str = "",
    before: str = "",
    config: Path | None = None,
    env: Mapping[str, str] | None = None,
    into: IO[str] | None = None,
) -> subprocess.Popen[str]:
    """into: gets what it tells; else it is in pipes that somebody must read."""
    program = [sys.executable, "-c", PROGRAM, str(LEASE_S * SLOW), stop_at or "-", before]
    return subprocess.Popen(
        [*program, "-c", str(config or lab.config), *argv],
        stdout=subprocess.DEVNULL if into else subprocess.PIPE,
        stderr=into or subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(lab.folder), **(env or {})},
    )


@contextmanager
def three_nodes(base: str) -> Iterator[Lab]:
    """A lab whose watch is short, so that a rollout is soon over."""
    with running(base, nodes=3, inter="300ms") as lab:
        text = lab.config.read_text()
        lab.config.write_text(text.replace("for: 1s", "for: 200ms"))
        yield lab


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Killed at the end of the block where it still runs, and let go of."""
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe:
                pipe.close()


def drainctl(lab: Lab, *argv: str, **more: object) -> subprocess.CompletedProcess[str]:
    """One call, waited for; while it is away the lease of a stopped one may run out."""
    with ended(popen(lab, *argv, **more)) as process:  # type: ignore[arg-type]
        out, err = process.communicate(timeout=90 * SLOW)
    return subprocess.CompletedProcess(argv, process.returncode, out, err)


def held(lab: Lab) -> bool:
    """Whether somebody has the lease."""
    with Wired(load(str(lab.config))) as wired:
        return wired.store.held(wired.cluster.app) is not None


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
