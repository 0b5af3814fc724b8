"""A lab under load on which drainctl dies, and what is really so afterwards: looked up without drainctl."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drainctl.lab import ready
from drainctl.lab.cluster import Lab
from drainctl.lab.load import Load
from drainctl.lab.report import Report
from tests.conftest import need

DYING = Path(__file__).with_name("dying_drainctl.py")
SLOW = float(os.environ.get("DRAINCTL_TEST_SLOW", "1"))
RUN_LIMIT_S = 60.0
MIX = "get=55,post=30,slow=8,stream=7"
RATE = 120.0


def wait_for(what: str, holds: Any, limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s * SLOW
    while (seen := holds()) is not True:
        assert time.monotonic() < deadline, f"waited {limit_s * SLOW:g} s for: {what}; seen: {seen}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Ended:
    """A drainctl that ended. trace: the moments that it reached, for one that dies."""

    code: int
    out: str
    err: str
    trace: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        return f"exit {self.code}\n{self.out}\n{self.err}"


@dataclass(frozen=True)
class NodeIs:
    """A node as it really is: flag file, `current`, /version, gunicorn's master, each balancer's row."""

    flag: str | None
    current: str
    version: str
    master: int
    rows: dict[str, str]

    @property
    def flag_owner(self) -> str | None:
        return None if self.flag is None else str(json.loads(self.flag)["rollout"])

    @property
    def words(self) -> set[str]:
        return {row.rpartition(" ")[0] for row in self.rows.values()}


@dataclass(frozen=True)
class Told:
    """`drainctl status` as JSON (and as text, where it was asked), and what was really so all the while."""

    nodes: dict[str, Any]
    rollout: Any
    lease: dict[str, Any] | None
    text: str
    real: dict[str, NodeIs]

    def shown(self, node: str) -> dict[str, str]:
        """A node's status at each balancer."""
        return {place.partition(" ")[0]: at["status"] for place, at in self.nodes[node]["servers"].items()}

    def row(self, node: str) -> list[str]:
        """A node's cells in the table, with the numbers of requests in flight left out."""
        line = next(line for line in self.text.splitlines() if line.startswith(f"{node} "))
        return [re.sub(r"^(\w+) \d+$", r"\1", cell) for cell in re.split(r"  +", line.strip())]

    def said(self, node: str) -> str:
        """What is said of a node below the table."""
        lines = [line.strip() for line in self.text.splitlines()]
        return next((line for line in lines if line.startswith(f"{node}: ")), "")


@dataclass
class Ground:
    """A lab, the load on it, and drainctl run on it as a process."""

    lab: Lab
    load: Load
    began_s: float = 0.0
    log: list[tuple[float, str]] = field(default_factory=list)
    runs: int = 0
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    program: Path = DYING  # the drainctl that dies

    # -------------------------------------------------------- running drainctl

    def drainctl(self, *argv: str, cwd: Path | None = None) -> Ended:
        """The real command, untouched."""
        return self._run([sys.executable, "-c", "from drainctl.cli import main; main()"], argv, cwd)

    def dying(
        self, at: str | None, *argv: str, send: str = "KILL", node: str = "web1", cwd: Path | None = None
    ) -> Ended:
        """drainctl that gets signals at a moment, or (None) only writes its moments down."""
        trace = self.lab.folder / f"trace-{next(self.numbers)}"
        how = [sys.executable, str(self.program), "--trace", str(trace), "--node", node, "--send", send]
        ended = self._run([*how, *(["--at", at] if at else []), "--"], argv, cwd)
        lines = trace.read_text().splitlines() if trace.exists() else []
        return Ended(ended.code, ended.out, ended.err, tuple(lines))

    def killed(self, at: str, *argv: str, node: str = "web1") -> Ended:
        """drainctl that was killed at this moment and no other."""
        ended = self.dying(at, *argv, node=node)
        assert ended.code == -signal.SIGKILL, f"{argv} was to die at {at}: {ended.told}"
        when, act, of = ended.trace[-1].split()
        assert f"{when}:{act}" == at, ended.trace
        assert of in {node, "-"}, ended.trace
        return ended

    def _run(self, program: list[str], argv: tuple[str, ...], cwd: Path | None) -> Ended:
        self.runs += 1
        self.note(f"drainctl {' '.join(argv)} {program[-3:] if '--at' in program else ''}")
        done = subprocess.run(
            [*program, "-c", str(self.lab.config), *argv],
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_LIMIT_S * SLOW,
            cwd=cwd,
            env={
                **os.environ,
                "TMPDIR": str(self.lab.folder),
            },  # what a killed process leaves goes with the lab
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def recover(self) -> None:
        """After a test that failed: nothing open, no flag, every app running. Requests may fail in here."""
        self.drainctl("abort")
        for journal in self.lab.folder.glob("*.db*"):
            journal.unlink()
        for name in self.lab.settings.node_names:
            subprocess.run([self.lab.ctl(name), "start"], check=True, capture_output=True)
            self.lab.flag(name).unlink(missing_ok=True)
        self.all_up()

    def note(self, what: str) -> None:
        """Remembered with its time, to tell which moment a failed request belongs to."""
        self.log.append((time.monotonic() - self.began_s, what))

    def release(self) -> tuple[str, str]:
        """A release that no node has seen: its id and its archive."""
        name = f"r{next(self.numbers)}"
        return name, str(self.lab.release(name))

    # -------------------------------------------------------- what is so

    def real(self) -> dict[str, NodeIs]:
        """Every node as it is now."""
        lab = self.lab
        rows = {lb: ready.servers(lab.socket(lb), lab.settings.app) for lb in lab.settings.balancer_names}
        return {
            name: NodeIs(
                flag=_text(lab.flag(name)),
                current=(lab.root(name) / "current").readlink().name,
                version=_version(lab.settings.host(name)),
                master=_master(lab, name),
                rows={lb: rows[lb][name] for lb in rows},
            )
            for name in lab.settings.node_names
        }

    def status(self, *, text: bool = False) -> Told:
        """
        `drainctl status` as JSON (and as text, where asked), between two equal looks at what is really so.

        After a death HAProxy's checks still find out about a flag that was set or taken away; that is waited
        for, and a status during any other change is asked again.
        """
        wait_for("HAProxy has seen every flag", self._flags_are_seen)
        for _ in range(5):
            before = self.real()
            with ThreadPoolExecutor(2) as both:
                told = both.submit(self._well, "status") if text else None
                shown = self.latest()
            if (real := self.real()) == before:
                said = told.result().out if told else ""
                return Told(shown["nodes"], shown["rollout"], shown["lease"], said, real)
        raise AssertionError(f"the cluster changed five times while it was looked at: {before} … {real}")

    def _flags_are_seen(self) -> bool:
        return all((node.flag is None) == ("UP" in node.words) for node in self.real().values())

    def latest(self) -> dict[str, Any]:
        """`drainctl status` as JSON."""
        return dict(json.loads(self._well("status", "--output", "json").out))

    def _well(self, *argv: str) -> Ended:
        ended = self.drainctl(*argv)
        assert ended.code == 0, ended.told
        return ended

    def all_up(self) -> None:
        """Every server exactly UP by a passed check, everywhere."""
        lab = self.lab

        def seen() -> bool | str:
            names = lab.settings.node_names
            wrong = [
                ready.all_up(lab.socket(lb), lab.settings.app, names) for lb in lab.settings.balancer_names
            ]
            return "; ".join(filter(None, wrong)) or True

        wait_for("every server UP at every balancer", seen)

    @contextmanager
    def flagged_by_hand(self, *nodes: str) -> Iterator[None]:
        """These nodes out of rotation by a flag of somebody else's, at the end taken away again."""
        for name in nodes:
            self.lab.flag(name).write_text("by hand\n")
        try:
            wait_for(f"{nodes} out", lambda: all(self.real()[name].words == {"NOLB"} for name in nodes))
            yield
        finally:
            self.unflag(*nodes)

    def unflag(self, *nodes: str) -> None:
        for name in nodes:
            self.lab.flag(name).unlink(missing_ok=True)

    # -------------------------------------------------------- the load

    def counted(self) -> Report:
        """Ends the load. Returns: what it saw. Raises: AssertionError when a request failed."""
        report = self.load.stop(trust=False)
        failures = [
            f"{one['at_s']:.2f} s {one['kind']} {one['bin']} {one['why']}: {self._meanwhile(one['at_s'])}"
            for one in report.failures
        ]
        told = f"{report.requests} requests, {report.failed} failed, {report.bins}"
        assert not failures, "\n".join([told, *failures])
        return report

    def _meanwhile(self, at_s: float) -> str:
        return next((what for began_s, what in reversed(self.log) if began_s <= at_s), "before the first run")


def _text(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None


def _version(host: str) -> str:
    link = http.client.HTTPConnection(host, 8080, timeout=5)
    try:
        link.request("GET", "/version")
        return link.getresponse().read().decode().strip()
    finally:
        link.close()


def _master(lab: Lab, name: str) -> int:
    master = lab.node(name)[0].master()
    return master.pid if master else 0


@contextmanager
def short_ground(base: str) -> Iterator[Ground]:
    """`ground` in a folder of its own, short enough for its sockets."""
    for program in ("haproxy", "nginx", "ss"):
        need(program)
    folder = Path(tempfile.mkdtemp(prefix="dl-"))
    try:
        with ground(folder, base) as it:
            yield it
    finally:
        shutil.rmtree(folder)


@contextmanager
def ground(folder: Path, base: str) -> Iterator[Ground]:
    """A lab of three nodes and two balancers, under load from here to the end, without a failed request."""
    lab = Lab(folder, base=base, nodes=3, balancers=2, inter="300ms")
    lab.up()
    try:
        text = lab.config.read_text()
        assert "for: 1s" in text, text
        lab.config.write_text(text.replace("for: 1s", "for: 200ms"))
        load = Load(lab.urls, rate=RATE, mix=MIX, slow_s=0.3, stream_s=0.3).start()
        it = Ground(lab, load, time.monotonic())
        try:
            yield it
        finally:
            if load.pid:
                it.counted()
    finally:
        lab.down()
