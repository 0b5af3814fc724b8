"""
Rollouts in a row, each with something that goes wrong at a step that was drawn, and a load over all of them.

What is drawn follows from the seed and the rollout's number alone, so one that failed can be had again. None
of the faults costs a request by itself: every failure is drainctl's.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rollout_kit import Heard, Running, cli, current, flags, wait_up

from drainctl.lab.cluster import Lab
from drainctl.lab.faults import known
from drainctl.lab.report import Report
from tests.conftest import until
from tests.faults import faults_kit as kit
from tests.faults.cells import STEPS

NODES = ("web1", "web2", "web3")
BALANCERS = ("lb1", "lb2")
ACTS = ("flag", "out", "switch", "restart", "warm", "restore", "up")
AWAY = ("switch", "restart")  # the node is out of rotation and idle: what dies then was serving nobody
# A fault, what it is done to, and at which steps.
FAULTS = (
    ("none", NODES, ("guard",)),
    ("controller-killed", NODES, ACTS),
    ("lb-reload", BALANCERS, STEPS),
    ("lb-hidden", BALANCERS, STEPS),
    ("lb-mute", BALANCERS, STEPS),
    ("server-maint", NODES, STEPS),
    ("server-misjudged", NODES, AWAY),
    ("app-killed", NODES, AWAY),
    ("node-reboot", NODES, AWAY),
    ("node-unstartable", NODES, AWAY),
    ("node-flagged", NODES, STEPS),
    ("command-asks", NODES, STEPS),
    ("command-fails", NODES, STEPS),
    ("command-slow", NODES, STEPS),
    ("ssh-refused", NODES, STEPS),
    ("ssh-killed", NODES, STEPS),
    ("ssh-dropped", NODES, STEPS),
    ("ssh-slow", NODES, STEPS),
    ("ssh-frozen", NODES, STEPS),
)
RELEASES = ({}, {}, {}, {"fail_start": True}, {"wrong_version": "v0"}, {"slow_factor": 5})
ENDLESS = 0.5  # the share of faults that last to the end of the rollout


@dataclass(frozen=True)
class Draw:
    """One rollout. lasts_s: of the fault, None: to the end. way: what is taken where it stays open."""

    number: int
    fault: str
    target: str
    at: str
    on: str
    lasts_s: float | None
    release: dict[str, object]
    on_failure: str
    way: str

    @property
    def told(self) -> str:
        lasts = "" if self.lasts_s is None else f" for {self.lasts_s:.1f} s"
        bad = f", release {self.release}" if self.release else ""
        return (
            f"{self.number}: {self.fault} {self.target}{lasts} at {self.on} {self.at}{bad}, {self.on_failure}"
        )


def draw(seed: int, number: int) -> Draw:
    chance = random.Random(f"{seed}-{number}")  # noqa: S311  an order, not a secret
    fault, targets, steps = chance.choice(FAULTS)
    target, at = chance.choice(targets), chance.choice(steps)
    same = steps is AWAY and target in NODES
    return Draw(
        number,
        fault,
        target,
        at,
        target if same else chance.choice(NODES),
        None if chance.random() < ENDLESS else chance.uniform(0.3, 2.0),
        chance.choice(RELEASES),
        chance.choice(("roll-back", "halt")),
        chance.choice(("resume", "abort")),
    )


@dataclass
class Summary:
    """What became of all of them. wrong: every invariant that did not hold, with its rollout."""

    seed: int
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    ways: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    report: Report = field(default_factory=Report)

    @property
    def text(self) -> str:
        each = [
            f"  {name}: " + ", ".join(f"{count} {what}" for what, count in found.most_common())
            for name, found in (("ended", self.outcomes), ("ways out", self.ways), ("faults", self.faults))
        ]
        head = f"{self.outcomes.total()} rollouts in {self.seconds:.0f} s, seed {self.seed}"
        load = f"{self.report.requests} requests, {self.report.failed} failed"
        return "\n".join([f"{head}: {load}", *each, *(f"  WRONG {line}" for line in self.wrong)])


def soak(it: Lab, seed: int, count: int) -> Summary:
    """`count` rollouts under one load."""
    summary, ground = Summary(seed), kit.Ground(it)
    began = time.monotonic()
    with kit.loaded(it.urls) as load:
        for number in range(1, count + 1):
            drawn = draw(seed, number)
            try:
                _one(ground, drawn, summary)
            except (AssertionError, Exception) as error:  # noqa: BLE001  one more line of the summary
                summary.wrong.append(f"{drawn.told}: {type(error).__name__}: {error}")
                ground.recover()
        summary.report = load.stop(trust=False)
    summary.seconds = time.monotonic() - began
    return summary


def _one(ground: kit.Ground, drawn: Draw, summary: Summary) -> None:
    """One rollout, its way out where it is open, and what must be so then."""
    it = ground.lab
    release = f"s{drawn.number}"
    before = current(it)
    archive = it.release(release, **drawn.release)
    config = kit.configure(it, {"on_failure: roll-back": f"on_failure: {drawn.on_failure}"}, "soak.yml")
    if drawn.fault == "controller-killed":
        ended = _killed(drawn, config, archive)
    else:
        with _broken(it, drawn) as heard:
            ended = kit.rolled(config, archive, heard, _cell(drawn)).outcome
    known.mend(it)
    summary.faults[drawn.fault] += 1
    summary.outcomes[ended] += 1
    _settle(config, drawn, summary)
    _check(it, before, release)


def _cell(drawn: Draw) -> kit.Cell:
    return kit.Cell(
        drawn.fault, drawn.at, target=drawn.target, on=drawn.on, only=NODES, mended_s=drawn.lasts_s
    )


@contextmanager
def _broken(it: Lab, drawn: Draw) -> Iterator[Heard]:
    heard, timers = Heard(), list[threading.Timer]()
    if drawn.fault != "none":
        kit.arm(it, _cell(drawn), heard, timers)
    try:
        yield heard
    finally:
        for timer in timers:
            timer.join()


def _killed(drawn: Draw, config, archive) -> str:
    """drainctl as a process, killed when a step's intent is on the disk."""
    process = Running(config, "--output", "json", "deploy", str(archive))
    try:
        process.until("step.intended", node="web1", step=drawn.at)
        os.kill(process.pid, signal.SIGKILL)
    finally:
        process.end()
    return "killed"


def _settle(config, drawn: Draw, summary: Summary) -> None:
    """The way out as `status` prints it; one that cannot lead on (a bad release) is taken back."""
    for way in (drawn.way, "abort"):
        if not _status(config)["rollout"]["open"]:
            return
        starts = kit.WAYS[way]
        lines = [line.strip() for line in cli(config, "status").out.splitlines()]
        [line] = [line for line in lines if line.startswith(starts)]
        program, *argv = shlex.split(line.partition(": ")[2].partition(" (")[0])
        assert program == "drainctl", line
        said = cli(config, *argv)
        summary.ways[f"{way} (exit {said.code})"] += 1
        assert said.code in ({0, 1, 3} if way == "resume" else {0}), said


def _check(it: Lab, before: dict[str, str], release: str) -> None:
    """Nothing open or flagged, every node in rotation, all on the release that the outcome names."""
    told = _status(it.config)
    assert told["lease"] is None
    assert not told["rollout"]["open"], told["rollout"]
    assert flags(it) == []
    deployed = told["rollout"]["outcome"] == "done" and set(current(it).values()) == {release}
    assert deployed or current(it) == before, (told["rollout"], current(it), before)
    for name, wanted in current(it).items():
        until(f"{name} answers {wanted}", lambda name=name, wanted=wanted: kit.version(it, name) == wanted)
    wait_up(it)


def _status(config) -> dict:
    return json.loads(cli(config, "status", "--output", "json").out)
