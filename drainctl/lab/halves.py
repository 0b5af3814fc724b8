"""The demo's two halves: the same load over two ways to roll a release, naively and by drainctl."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from drainctl.errors import DrainctlError
from drainctl.lab.compare import Half
from drainctl.lab.load import Load
from drainctl.lab.naive import restart_in_turn
from drainctl.lab.screen import program, short

if TYPE_CHECKING:
    from drainctl.controller import Result
    from drainctl.lab.cluster import Lab
    from drainctl.lab.report import Report
    from drainctl.lab.screen import Screen
    from drainctl.report.door import Listener
    from drainctl.rollout.world import Stop
    from drainctl.wire import Wired

SLOW_S = 1.5  # a slow page: HAProxy is told to send no more within milliseconds, and this one still runs
CALM_S = 1.5  # load before the first node and after the last one
NAIVE, DRAINED = "v2", "v3"  # what each half rolls


def naive_half(lab: Lab, wired: Wired, screen: Screen, rate: float) -> Half:
    """v1 → v2, each node restarted in turn. Raises: DrainctlError where that does not come to its end."""
    from drainctl.overview import look_around
    from drainctl.rollout.places import find_places
    from drainctl.rollout.proof import proof

    screen.head(f"1/3 naive: v1 -> {NAIVE}, each node restarted in turn, HAProxy told nothing")
    screen.say("    While an app restarts, HAProxy still sends it a share of the requests.")
    with under(Load(lab.urls, rate=rate, slow_s=SLOW_S), NAIVE) as seen:
        before, began = look_around(wired).tables, time.monotonic()
        for name, took_s in restart_in_turn(lab, NAIVE):
            told = f"    {name}: restarting ... " if took_s is None else f"answers {NAIVE}, {took_s:.1f} s\n"
            screen.say(told, end="")
        seconds = time.monotonic() - began
        counted = proof(before, look_around(wired).tables, find_places(wired.cluster, before), seconds)
    return _told(screen, Half(NAIVE, seen[0], seconds, len(lab.settings.node_names), counted))


def drained_half(lab: Lab, wired: Wired, screen: Screen, rate: float) -> Half:
    """v2 → v3, by drainctl. Raises: DrainctlError where it refuses to begin; KeyboardInterrupt."""
    archive = lab.folder / "releases" / f"{DRAINED}.tar.gz"
    screen.head(f"2/3 drainctl: {NAIVE} -> {DRAINED}, each node drained first and watched afterwards")
    screen.say("    A node gets no new requests, ends those in flight, and only then restarts.")
    screen.say(f"    $ {program('drainctl')} -c {short(lab.config)} \\\n        deploy {short(archive)}")
    with under(Load(lab.urls, rate=rate, slow_s=SLOW_S), DRAINED) as seen:
        result = deploy(wired, archive, screen)
        if result.outcome == "interrupted":
            raise KeyboardInterrupt
    problem = None if result.outcome == "done" else f"the rollout ended {result.outcome}: {result.why}"
    nodes = len(lab.settings.node_names)
    return _told(screen, Half(DRAINED, seen[0], result.seconds, nodes, result.proof or {}, problem))


@contextmanager
def under(load: Load, release: str) -> Iterator[list[Report]]:
    """Load around a rollout; the list holds its report afterwards. In the end only `release` may answer."""
    seen: list[Report] = []
    load.start()
    try:
        time.sleep(CALM_S)
        yield seen
        load.expect(release)
        time.sleep(CALM_S)
    except BaseException:
        with suppress(DrainctlError):  # what ended the half is the news, not how its load took that
            load.stop(trust=False)
        raise
    seen.append(load.stop(trust=False))  # where it is doubtful, the verdict says so


def _told(screen: Screen, half: Half) -> Half:
    failed, requests = half.report.failed, half.report.requests
    screen.mark(f"    clients saw {failed} of {requests} requests fail", good=not failed)
    return half


def deploy(wired: Wired, archive: Path, screen: Screen) -> Result:
    """What `drainctl deploy` does: the live view on a terminal, else plain lines."""
    from drainctl.controller import Controller
    from drainctl.node.archive import prepare
    from drainctl.report.together import Together
    from drainctl.rollout.choose import Wish
    from drainctl.rollout.world import Stop

    stop, report = Stop(), Together([_progress(screen)])
    with tempfile.TemporaryDirectory(prefix="drainctl-") as scratch, _asking(stop):
        try:
            release = prepare(str(archive), id=None, into=Path(scratch))
            return Controller(wired, [report], stop).begin(Wish("deploy", release=release))
        finally:
            report.close()


def _progress(screen: Screen) -> Listener:
    if screen.console.is_terminal:
        from drainctl.report.terminal import TerminalReport

        return TerminalReport(console=screen.console)
    from drainctl.report.plain import PlainReport

    return PlainReport(cast("TextIO", screen.console.file))


@contextmanager
def _asking(stop: Stop) -> Iterator[None]:
    """SIGINT and SIGTERM ask the rollout to stop, as `drainctl deploy` takes them."""

    def ask(_number: int, _frame: object) -> None:
        stop.ask()
        os.write(2, b"\ninterrupted: settling the nodes in flight; once more stops at once\n")

    with handlers(ask, signal.SIGINT, signal.SIGTERM):
        yield


@contextmanager
def handlers(handler: Callable[[int, object], None] | signal.Handlers, *numbers: int) -> Iterator[None]:
    """Signals are handled so inside the block, and as before after it."""
    old = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in old.items():
            signal.signal(number, former)
