"""
One cell of the table of faults: a rollout on a real lab under load, with something broken at one of its
steps; what drainctl did, and whether all that must hold afterwards does.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shlex
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rollout_kit import Heard, cli, configure, flags, quick_checks, roll, running, wait_up

from drainctl.errors import DrainctlError
from drainctl.journal.events import Event
from drainctl.lab import ready
from drainctl.lab.cluster import Lab
from drainctl.lab.faults import known
from drainctl.lab.load import Load
from drainctl.lab.report import Report
from tests.conftest import SLOW, until

RATE = 60.0
MIX = "get=55,post=30,slow=5,stream=10"
EXITS = {"done": 0, "put-back": 1, "refused": 5, "unusable": 2, "halted": 3}
LIMITS = {
    "watch: {for: 1s,": "watch: {for: 300ms,",
    "limit: 30s": f"limit: {2 * SLOW:g}s",
    "times: 10": "times: 3",
    "max_failed: 0,": f"max_failed: 0, patience: {2 * SLOW:g}s,",
    "service:\n": "service:\n  limit: 8s\n",
}
OVER_SSH = {"{via: ssh,": f"{{via: ssh, timeout: {2 * SLOW:g}s,"}
# The event right after which a step without an act begins; one with an act is known by its intent.
BEFORE = {
    "guard": ("node.began", None),
    "idle": ("step.seen", "out"),
    "quiet": ("step.seen", "idle"),
    "watch": ("step.seen", "up"),
}
IN_THE_MIDDLE_S = 0.1
WAYS = {"resume": "go on: ", "abort": ("take back: ", "give up: "), "restore": "by hand: "}


@dataclass(frozen=True)
class Cell:
    """
    A fault at a step. at: a step's name (right before its act), `before` the rollout, or `during restart`.
    ends: done, put-back, halted, refused (exit 5) or unusable (exit 2); two of them, with | between, where
    the speed of the machine decides.

    on: the node whose step it is, and only: the nodes of the rollout. mended_s: the fault lasts that long,
    else to the end. then: the printed way out that is taken where it halted. lost: how many requests may
    fail, and why. users: balancers that have users. says: what the reason, or a note, must hold.
    """

    fault: str
    at: str
    ends: str = "done"
    target: str = "web1"
    on: str = "web1"
    only: tuple[str, ...] = ("web1",)
    mended_s: float | None = None
    then: str = "abort"
    lost: int = 0
    why: str = ""
    users: tuple[str, ...] = ("lb1", "lb2")
    says: str = ""
    config: Mapping[str, str] = field(default_factory=dict)
    release: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""
    settled: bool = False  # before: every server is UP again when the rollout begins
    all_end_with: str = ""  # how each long request or WebSocket of the fault ends
    ssh: bool = False

    @property
    def id(self) -> str:
        parts = ["ssh" if self.ssh else "local", self.fault, self.at.replace(" ", "-"), self.variant]
        lasts = "" if self.mended_s is None else f"{self.mended_s:g}s"
        return "-".join(part for part in (*parts, lasts) if part)

    @property
    def named(self) -> str:
        lasts = "" if self.mended_s is None else f", for {self.mended_s:g} s"
        more = f" ({self.variant.replace('-', ' ')})" if self.variant else ""
        return f"{self.fault} {self.target}{lasts}{more}"


@dataclass(frozen=True)
class Result:
    """What became of a cell, as docs/reliability.md has it."""

    cell: str
    fault: str
    step: str
    nodes: str
    did: str
    exit: int
    requests: int
    failed: int
    why_failed: str
    state: str
    seconds: float


# ---------------------------------------------------------------- the ground


def lab(base: str, *, ssh: bool) -> Any:
    return running(base, nodes=3, inter="200ms", ssh=ssh)


def prepare(it: Lab) -> None:
    """Short limits, so that what has to be waited for is over soon."""
    quick_checks(it)
    configure(it, LIMITS | (OVER_SSH if it.settings.ssh else {}))


@dataclass
class Ground:
    lab: Lab
    number: int = 0

    def recover(self) -> None:
        """After a cell that failed: nothing broken, nothing open, everything runs."""
        known.mend(self.lab)
        cli(self.lab.config, "abort")
        for journal in self.lab.folder.glob("*.db*"):
            journal.unlink()
        from drainctl.lab.faults.nodes import on

        for node in self.lab.settings.node_names:
            on(self.lab, node)
            self.lab.flag(node).unlink(missing_ok=True)
        for balancer in self.lab.settings.balancer_names:
            self.lab.reload(balancer)
        wait_up(self.lab)


# ---------------------------------------------------------------- one cell


def play(ground: Ground, cell: Cell) -> Result:
    """Raises: AssertionError where anything is not as it must be."""
    it = ground.lab
    # A request whose client has gone goes on at the balancer until its answer is there.
    until("no request of the cell before is in flight", lambda: _in_flight(it) == 0, limit_s=45)
    ground.number += 1
    release = f"c{ground.number}"
    archive = it.release(release, **{"only_on": "", **cell.release})
    config = configure(it, cell.config, "cell.yml")
    before = {name: current(it, name) for name in it.settings.node_names}
    urls = [f"http://{it.settings.host(lb)}:8080" for lb in cell.users]
    timers: list[threading.Timer] = []
    began = time.monotonic()
    with loaded(urls) as load:
        heard = Heard()
        try:
            arm(it, cell, heard, timers)
            ended = rolled(config, archive, heard, cell)
        finally:
            for timer in timers:
                timer.join()
        _check_how_it_ended(ended, cell)
        if cell.all_end_with:
            _check_the_long_ones(it, cell)
        known.mend(it)
        state = way_out(it, config, cell, ended)
        wait_up(it)
        report = load.stop(trust=False)  # a late request is one all the same
    _check_end(it, cell, ended, before, release)
    assert report.failed <= cell.lost, f"{report.table()}\n{ended.told}"
    return _result(cell, ended, heard, report, state, time.monotonic() - began, it)


@contextmanager
def loaded(urls: list[str]) -> Iterator[Load]:
    """A load that the block ends; ended in any case."""
    load = Load(urls, rate=RATE, mix=MIX, slow_s=0.3).start()
    try:
        yield load
    finally:
        if load.pid:
            load.stop(trust=False)


@dataclass(frozen=True)
class Ended:
    outcome: str
    exit: int
    why: str
    lines: tuple[str, ...]
    rollout: str | None

    @property
    def told(self) -> str:
        return "\n".join([f"{self.outcome} (exit {self.exit}): {self.why}", *self.lines])


def rolled(config: Path, archive: Path, heard: Heard, cell: Cell) -> Ended:
    try:
        result = roll(config, "deploy", archive, heard, only=list(cell.only))
    except DrainctlError as error:
        words = {code: word for word, code in EXITS.items()}
        hint = () if error.hint is None else (f"hint: {error.hint}",)
        return Ended(words.get(int(error.exit), "?"), int(error.exit), str(error), hint, None)
    return Ended(result.outcome, int(result.exit), result.why, tuple(result.lines), result.rollout)


def arm(it: Lab, cell: Cell, heard: Heard, timers: list[threading.Timer]) -> None:
    """The fault begins when the step does, and ends when its time is over."""

    def begin() -> None:
        known.begin(it, cell.fault, cell.target)
        if cell.mended_s is not None:
            end = lambda: known.end(it, cell.fault, cell.target)  # noqa: E731
            timers.append(threading.Timer(cell.mended_s, end))  # as long on any machine: limits are longer
            timers[-1].start()

    if cell.fault.startswith("release-") and not cell.target.startswith(("web", "lb")):
        return
    if cell.at == "before":
        begin()
        if cell.settled:
            wait_up(it)
    elif cell.at.startswith("during "):

        def soon() -> None:
            timers.append(threading.Timer(IN_THE_MIDDLE_S, begin))
            timers[-1].start()

        heard.on("step.intended", soon, step=cell.at.removeprefix("during "), node=cell.on)
    else:
        kind, step = BEFORE.get(cell.at, ("step.intended", cell.at))
        heard.on(kind, begin, step=step, node=cell.on)


# ---------------------------------------------------------------- what must be so


def _check_the_long_ones(it: Lab, cell: Cell) -> None:
    """Those that the fault itself sent, and that were to be waited for, came to their own end."""
    [told] = until("the long ones are over", lambda: list((it.folder / "faults").glob("*.said")), limit_s=45)
    ends = told.read_text().splitlines()
    assert ends == [cell.all_end_with] * len(ends)
    assert len(ends) >= len(it.settings.node_names)


def _check_how_it_ended(ended: Ended, cell: Cell) -> None:
    """It ended as it must, and where it halted the last lines name every node and a way out."""
    assert ended.outcome in cell.ends.split("|"), ended.told
    assert ended.exit == EXITS[ended.outcome], ended.told
    if ended.outcome == "halted" and ended.rollout:
        names = {line.partition(":")[0] for line in ended.lines}
        assert {"go on", *cell.only} <= names, ended.told


def way_out(it: Lab, config: Path, cell: Cell, ended: Ended) -> str:
    """Where it halted: what `status` says is so, and the printed way out works. Returns: the state."""
    if ended.outcome != "halted" or not ended.rollout:
        return (
            "in rotation, on the new release"
            if ended.outcome == "done"
            else "in rotation, on the old release"
        )
    told = json.loads(cli(config, "status", "--output", "json").out)
    assert told["rollout"]["id"] == ended.rollout
    assert told["rollout"]["open"], told["rollout"]
    for name in it.settings.node_names:
        assert (told["nodes"][name]["flag"] is not None) == it.flag(name).exists(), (
            name,
            told["nodes"][name],
        )
        assert told["nodes"][name]["release"] == current(it, name), (name, told["nodes"][name])
    at = {name: _shown(node) for name, node in told["rollout"]["nodes"].items() if name in cell.only}
    where = "; ".join(f"{name} {place}" for name, place in at.items())
    take(config, cell.then, ended)
    return f"{where}; then `{cell.then}`"


def _shown(node: Mapping[str, Any]) -> str:
    if node["outcome"] == "done":
        return "in rotation, on the new release"
    return f"{node['outcome'] or 'not begun'}, {'out by its flag' if node['flagged'] else 'not flagged'}"


def take(config: Path, then: str, ended: Ended) -> None:
    """Run the command of a printed way out; by hand, and then the way that closes the rollout."""
    lines = [line for line in ended.lines if line.startswith(WAYS[then])]
    assert lines, f"no way out by {then}: {ended.told}"
    for line in lines:
        words = re.sub(r" \(.*\)$", "", line.partition(": ")[2])
        program, *argv = shlex.split(words)
        assert program == "drainctl", line
        said = cli(config, *argv)
        assert said.code == 0 or (then == "resume" and said.code == 1), said
    if then == "restore":
        said = cli(config, "abort")
        assert said.code == 0, said


def _check_end(it: Lab, cell: Cell, ended: Ended, before: Mapping[str, str], release: str) -> None:
    """Nothing open, nothing flagged, and every node on the release that it should be on."""
    assert flags(it) == []
    told = json.loads(cli(it.config, "status", "--output", "json").out)
    assert told["lease"] is None
    if ended.rollout:
        assert not told["rollout"]["open"], told["rollout"]
    last = told["rollout"] or {}  # another one where a node was restored by hand
    done = ended.outcome == "done" or (last.get("id"), last.get("outcome")) == (ended.rollout, "done")
    for name in it.settings.node_names:
        wanted = release if done and ended.rollout and name in cell.only else before[name]
        assert current(it, name) == wanted, (name, told["nodes"][name])
        until(f"{name} answers {wanted}", lambda name=name, wanted=wanted: version(it, name) == wanted)


def _in_flight(it: Lab) -> int:
    found = 0
    for name in it.settings.balancer_names:
        text = ready.ask(it.socket(name), "show stat shop 4 -1").removeprefix("# ")
        found += sum(int(row["scur"]) for row in csv.DictReader(line for line in text.splitlines() if line))
    return found


def version(it: Lab, name: str) -> str:
    import http.client

    link = http.client.HTTPConnection(it.settings.host(name), 8080, timeout=5)
    try:
        link.request("GET", "/version")
        return link.getresponse().read().decode().strip()
    except OSError:
        return ""
    finally:
        link.close()


def current(it: Lab, name: str) -> str:
    path = it.root(name) / "current"
    return path.readlink().name if path.is_symlink() else ""


# ---------------------------------------------------------------- what is told


def _result(
    cell: Cell, ended: Ended, heard: Heard, report: Report, state: str, seconds: float, it: Lab
) -> Result:
    text = _plain(f"{ended.outcome}: {ended.why}" if ended.outcome != "done" else _went_on(heard), it)
    found = _plain(" ".join([ended.why, *(event.text for event in heard.events)]), it)
    assert cell.says in found, found
    return Result(
        cell.id,
        cell.named,
        cell.at,
        "ssh" if cell.ssh else "local",
        text,
        ended.exit,
        report.requests,
        report.failed,
        cell.why if report.failed else "",
        state,
        round(seconds, 1),
    )


def _went_on(heard: Heard) -> str:
    """What it took: notes, and the step that took longest."""
    notes = list(dict.fromkeys(event.text for event in heard.of("note")))
    failed = heard.of("step.failed")
    took = max(heard.of("step.seen"), key=_took, default=None)
    slowest = f"longest at {took.step}, {_took(took):.1f} s" if took else ""
    told = [*notes[:1], *(f"{event.step}: {event.text}" for event in failed[:1]), slowest]
    return "went on: " + "; ".join(part for part in told if part)


def _took(event: Event) -> float:
    return float(event.data.get("took_s", 0.0))


def _plain(text: str, it: Lab) -> str:
    """One line, without this run's folder."""
    text = " ".join(text.replace(str(it.folder), "DIR").split())
    return text if len(text) <= 260 else text[:257] + "…"


def write(result: Result, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{result.cell}.json").write_text(json.dumps(dataclasses.asdict(result), indent=1) + "\n")
