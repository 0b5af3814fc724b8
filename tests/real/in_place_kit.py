"""Labs of one strategy each, the load that their rolls are held against, and what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rollout_kit import Heard, current, need_wheel, roll, running

from drainctl.lab.cluster import Lab
from drainctl.lab.load import Load
from drainctl.lab.processes import family
from drainctl.lab.report import Report

SOAK = os.environ.get("DRAINCTL_SOAK") == "1"
DEPLOYS = int(os.environ.get("DRAINCTL_TEST_DEPLOYS", "20" if SOAK else "2"))
# Longer than a flip: some of these pages are being answered whenever one begins.
SLOW_S = 5.0 if SOAK else 1.5
WS_S = 6.0 if SOAK else 2.0
RATE = 150.0
MIX = "get=62,post=34,slow=1,ws=1,late=2"
KINDS = {"get", "post", "slow", "ws", "late"}
QUICK = ("watch: {for: 1s, errors: 0}", "watch: {for: 300ms, errors: 0}")


def base(own: str) -> str:
    """The addresses of a file's labs; others when asked, so that several tests of it can run at once."""
    return os.environ.get("DRAINCTL_TEST_BASE", own)


@dataclass(frozen=True)
class Cell:
    """
    One way to change a release in place. changes: texts of drainctl.yml that are other ones here. loses: the
    kinds of failure that are known of it, and only counted.
    """

    name: str
    lab: Mapping[str, Any]
    changes: Mapping[str, str] = field(default_factory=dict)
    loses: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return self.name

    def up(self, base: str) -> AbstractContextManager[Lab]:
        return in_place(base, changes=self.changes, **self.lab)


def nginx_of(source: str) -> str:
    return {"path": "1.22", "wheel": "1.31"}[source]


@contextmanager
def in_place(
    base: str, *, changes: Mapping[str, str] | None = None, quick: bool = True, **settings: Any
) -> Iterator[Lab]:
    """One node without a balancer, unless the settings say otherwise; its watch is short."""
    if settings.get("nginx") == "wheel":
        need_wheel("nginx")
    with running(base, **{"nodes": 1, "balancers": 0, "nginx": "path", **settings}) as lab:
        edit(lab, dict([QUICK] if quick else []) | dict(changes or {}))
        yield lab


def edit(lab: Lab, changes: Mapping[str, str]) -> None:
    """drainctl.yml of the lab with each text replaced; a text must be there."""
    text = lab.config.read_text()
    for old, new in changes.items():
        assert old in text, f"{old!r} is not in {lab.config}:\n{text}"
        text = text.replace(old, new)
    lab.config.write_text(text)


def load_on(lab: Lab, **plan: Any) -> Load:
    asked = {"rate": RATE, "mix": MIX, "slow_s": SLOW_S, "ws_s": WS_S, "late_s": 0.7, **plan}
    return Load(lab.urls, **asked)


def archive(lab: Lab, release: str) -> Path:
    return lab.folder / "releases" / f"{release}.tar.gz"


def other(lab: Lab) -> str:
    """v2 or v3, whichever does not run."""
    return "v3" if current(lab)["web1"] == "v2" else "v2"


def deploy(lab: Lab, release: str | None = None, heard: Heard | None = None, **wish: Any) -> float:
    """One deploy that must come to its end; its seconds."""
    release = release or other(lab)
    result = roll(lab.config, "deploy", archive(lab, release), heard, **wish)
    assert (result.outcome, int(result.exit)) == ("done", 0), result
    assert set(current(lab).values()) == {release}
    return result.seconds


def rolled(lab: Lab, times: int, act: Callable[[], object], **plan: Any) -> Report:
    """
    `act` so many times under load; after the last of them only what is current may answer. The report may
    say that some requests were sent late, on a busy machine: they are counted like all others.
    """
    load = load_on(lab, **plan).start()
    try:
        for _ in range(times):
            act()
        load.expect(current(lab)["web1"])
        # Time for some requests that are begun afterwards, measured by others of their kind.
        Load(lab.urls, clients=4, requests=100, mix="get=2,post=1").start().wait()
    finally:
        report = load.stop(trust=False)
    assert "not_sent" not in report.bins, report.table()
    return report


def no_failure(report: Report, known: frozenset[str] = frozenset()) -> None:
    assert report.bins.keys() <= {"ok"} | known, report.table()
    assert report.kinds.keys() == KINDS


def alone(lab: Lab) -> None:
    """No process of the app is left beside those that are to run, and none is missing."""
    for name in lab.settings.node_names:
        wanted = {service.name for service in lab.node(name) if "gunicorn" in service.name}
        runs = {app.name for app in lab.apps(name) if app.master()}
        if runs:  # strategies with one process have their pid file elsewhere
            assert runs == wanted
        masters = [service.master() for service in lab.node(name)]
        assert all(masters), f"{name}: {list(zip(lab.node(name), masters, strict=True))}"


def workers(lab: Lab, name: str = "web1") -> int:
    """How many processes the app's master has."""
    master = lab.node(name)[0].master()
    return len(family(master)) - 1 if master else 0


class Table:
    """What each cell saw, printed at the end of a run."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, int, int, int, str]] = []

    def add(self, name: str, deploys: int, report: Report, seconds: list[float]) -> None:
        mean = f"{sum(seconds) / len(seconds):.1f} s" if seconds else ""
        bins = ", ".join(f"{what} {n}" for what, n in sorted(report.bins.items()) if what != "ok")
        self.rows.append((name, deploys, report.failed, report.requests, f"{mean}  {bins}".strip()))

    def __str__(self) -> str:
        head = f"{'':52}{'deploys':>8}{'failed':>8}{'requests':>10}  each"
        lines = [
            f"{name:52}{n:>8}{failed:>8}{asked:>10}  {rest}" for name, n, failed, asked, rest in self.rows
        ]
        return "\n".join([head, *lines])
