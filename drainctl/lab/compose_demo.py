"""
`make compose-demo`: releases rolled over containers under load, by SSH, naively, and by the Docker engine.

    python -m drainctl.lab.compose_demo [--rate 250] [--keep]

    1  drainctl, nodes reached by SSH           v1 -> v2 -> v3
    2  docker-compose up -d --force-recreate    v3 -> v1, which is what the image carries
    3  drainctl, nodes reached by docker exec   v1 -> v2 -> v3

Exit code 0: drainctl's rolls failed no request, of 10,000 or more, and the naive one failed some; 1: they did
not, and which; 2: there is no engine, or no compose; 130: interrupted. It is all ended whatever happens,
unless it is to be kept.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import click

from drainctl.errors import DrainctlError, Exit, PreflightError
from drainctl.lab.compare import Half
from drainctl.lab.compose import NODES, RELEASES, TREE, ComposeLab, Place, command, init_for
from drainctl.lab.engine import Engine, cache
from drainctl.lab.halves import SLOW_S, deploy, under
from drainctl.lab.load import Load
from drainctl.lab.screen import Screen, short

RATE = 250.0  # requests per second
ENOUGH = 10_000  # requests over drainctl's rolls
FAILED = int(Exit.PUT_BACK)
SERVICES = (*NODES, "lb1", "lb2", "load", "store1", "store2", "store3", "store4")
FIRST, *LATER = RELEASES
WIDTHS = (28, 10, 8, 9, 16)


@dataclass(frozen=True, slots=True)
class Roll:
    """One way over all nodes: how it is called, and what was seen of it."""

    name: str
    half: Half
    drained: bool


def show(lab: ComposeLab, screen: Screen, *, rate: float = RATE, keep: bool = False) -> int:
    """The whole demo, on images that are built. Returns: the exit code."""
    code = int(Exit.HALTED)
    try:
        with timed(screen, f"starting {len(SERVICES)} containers"):
            lab.up(*SERVICES)
        rolls = play(lab, screen, rate)
        code = conclude(screen, rolls)
    except KeyboardInterrupt:
        screen.mark("\ninterrupted: ending the lab", good=False)
        code = int(Exit.INTERRUPTED)
    finally:
        if keep and code == Exit.DONE:
            screen.say(f"\nThe lab runs on: drainctl -c {short(lab.folder)}/ssh.yml status")
        else:
            with timed(screen, "\nending it"):
                lab.down()
    return code


def play(lab: ComposeLab, screen: Screen, rate: float) -> list[Roll]:
    """All rolls. Raises: DrainctlError, KeyboardInterrupt."""
    rolls = [drained(lab, screen, "ssh", release, rate) for release in LATER]
    rolls.append(recreated(lab, screen, rate))
    return rolls + [drained(lab, screen, "docker", release, rate) for release in LATER]


def drained(lab: ComposeLab, screen: Screen, via: str, release: str, rate: float) -> Roll:
    """One release by drainctl, nodes reached by `via`. Raises: DrainctlError, KeyboardInterrupt."""
    from drainctl.config.load import load
    from drainctl.wire import Wired

    before = RELEASES[RELEASES.index(release) - 1]
    archive = lab.folder / "releases" / f"{release}.tar.gz"
    screen.head(f"drainctl, by {via}: {before} -> {release}")
    screen.say(f"    $ drainctl -c {short(lab.folder)}/{via}.yml deploy {short(archive)}")
    with (
        Wired(load(str(lab.folder / f"{via}.yml"))) as wired,
        under(_load(lab, rate), release) as seen,
    ):
        result = deploy(wired, archive, screen)
        if result.outcome == "interrupted":
            raise KeyboardInterrupt
    problem = None if result.outcome == "done" else f"it ended {result.outcome}: {result.why}"
    half = Half(release, seen[0], result.seconds, len(NODES), result.proof or {}, problem)
    return _told(screen, Roll(f"drainctl, {via}: {before} -> {release}", half, drained=True))


def recreated(lab: ComposeLab, screen: Screen, rate: float) -> Roll:
    """What Compose does by itself: every container of the service made anew. Raises: DrainctlError."""
    from drainctl.config.load import load
    from drainctl.rollout.places import find_places
    from drainctl.rollout.proof import proof
    from drainctl.wire import Wired

    words = ("up", "-d", "--no-deps", "--force-recreate", *NODES)
    screen.head(f"naive: {RELEASES[-1]} -> {FIRST}, by Compose alone")
    screen.say(f"    $ {' '.join(command())} {' '.join(words)}")
    with Wired(load(str(lab.folder / "ssh.yml"))) as wired, under(_load(lab, rate), FIRST) as seen:
        before, began = wired.fleet.overview(), time.monotonic()
        lab.compose(*words)
        lab.wait_up()
        seconds = time.monotonic() - began
        counted = proof(before, wired.fleet.overview(), find_places(wired.cluster, before), seconds)
    lab.write()  # new containers, new host keys
    half = Half(FIRST, seen[0], seconds, len(NODES), counted)
    return _told(screen, Roll("up -d --force-recreate", half, drained=False))


def _load(lab: ComposeLab, rate: float) -> Load:
    return Load(lab.urls, python=lab.python, rate=rate, slow_s=SLOW_S)


def _told(screen: Screen, roll: Roll) -> Roll:
    failed, requests = roll.half.report.failed, roll.half.report.requests
    screen.mark(f"    clients saw {failed} of {requests} requests fail", good=not failed)
    return roll


def conclude(screen: Screen, rolls: list[Roll]) -> int:
    """All rolls side by side, and what they show. Returns: the exit code."""
    screen.head("side by side")
    for line in table(rolls):
        screen.say(f"  {line}")
    code, sentences = verdict(rolls)
    screen.say()
    for sentence in sentences:
        screen.mark(sentence, good=code == Exit.DONE)
    return code


def table(rolls: list[Roll]) -> list[str]:
    """A line per roll; no line is wider than 78 columns. Pure."""
    rows = [("", "requests", "failed", "seconds", "HAProxy's own")]
    for roll in rolls:
        half = roll.half
        failed = half.proof.get("failed")
        counted = "inconclusive" if failed is None else f"{failed} of {half.proof['requests']}"
        report = half.report
        rows.append((roll.name, str(report.requests), str(report.failed), f"{half.seconds:.1f}", counted))
    name, *others = WIDTHS
    cells = [(row[0], zip(row[1:], others, strict=True)) for row in rows]
    return [f"{label:{name}}" + "".join(f"{cell:>{width}}" for cell, width in more) for label, more in cells]


def verdict(rolls: list[Roll], enough: int = ENOUGH) -> tuple[int, list[str]]:
    """The demo's exit code, and why: a sentence for each thing that is not as it should be. Pure."""
    found = [f"{roll.name}: {why}" for roll in rolls for why in _faults(roll)]
    all_ = sum(roll.half.report.requests for roll in rolls if roll.drained)
    if all_ < enough:
        found.append(f"drainctl's rolls saw {all_} requests, which is less than {enough}")
    if found:
        return FAILED, found
    lost = sum(roll.half.report.failed for roll in rolls if not roll.drained)
    asked = sum(roll.half.report.requests for roll in rolls if not roll.drained)
    told = f"Compose alone lost {lost} of {asked} requests ({lost / asked:.1%}); "
    return int(Exit.DONE), [f"{told}drainctl lost 0 of {all_}, by SSH and by the engine."]


def _faults(roll: Roll) -> list[str]:
    half, report = roll.half, roll.half.report
    found = [half.problem] if half.problem else []
    if report.problem:
        found.append(f"its load is not to be trusted: {report.problem}")
    if not roll.drained:
        return found if report.failed else [*found, "it lost nothing, so it cannot tell good from bad"]
    if report.failed:
        bins = ", ".join(f"{count} {name}" for name, count in sorted(report.bins.items()) if name != "ok")
        found.append(f"{report.failed} of {report.requests} requests failed ({bins})")
    if half.proof.get("failed") != 0:
        found.append(f"by HAProxy's own counters, {half.proof.get('failed', 'nothing')} failed")
    return found


@contextmanager
def timed(screen: Screen, what: str) -> Iterator[None]:
    """`what ... 5.2 s`, on one line."""
    screen.say(f"{what} ... ", end="")
    began = time.monotonic()
    yield
    screen.say(f"{time.monotonic() - began:.1f} s")


@click.command()
@click.option(
    "--rate", type=click.FloatRange(min=10), default=RATE, show_default=True, help="Requests per second."
)
@click.option("--keep", is_flag=True, help="Let the lab run on, until Enter is pressed.")
def demo(rate: float, keep: bool) -> None:
    """Roll releases over containers under load: by drainctl, through SSH and the engine, and by Compose."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, signal.default_int_handler)
    screen = Screen()
    screen.say("drainctl: releases rolled over containers behind HAProxy, under load", style="bold")
    command()
    with Engine.find_or_start(cache() / "engine") as engine:
        where = "started for this" if engine.ours else "this machine's"
        screen.say(f"engine: {engine.host} ({where})")
        lab = ComposeLab(engine, TREE / ".lab" / "compose", Place(init=init_for(engine)))
        with timed(screen, "building images (a minute, the first time)"):
            lab.build(*SERVICES, tell=screen.say)
        code = show(lab, screen, rate=rate, keep=keep)
        if keep and code == Exit.DONE:
            click.prompt("Enter ends it", default="", show_default=False)
            lab.down()
    sys.exit(code)


if __name__ == "__main__":
    try:
        demo(prog_name="python -m drainctl.lab.compose_demo")
    except DrainctlError as error:
        click.echo(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), err=True)
        sys.exit(Exit.USAGE if isinstance(error, PreflightError) else error.exit)
