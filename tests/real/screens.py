"""
Every screen of drainctl as a terminal of 80 and of 200 columns shows it, on a real lab under load.

    PYTHONPATH=. python tests/real/screens.py      writes docs/screens/NAME.WIDTH.txt

`tests/real/test_screens.py` holds the same screens to the facts that a person needs.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rollout_kit import running
from tmux_kit import PROMPT, Tmux

from drainctl.lab.cluster import Lab
from drainctl.lab.load import Load
from drainctl.lab.releases import make_release
from tests.conftest import until

ROOT = Path(__file__).parents[2]
BASE = "127.0.83"
WIDTHS = (80, 200)
LIMIT_S = 60.0

Name = tuple[str, int]  # of the screen, and its width


@dataclass
class Screens:
    """What was captured: by name and width, the lines. `lab` is the cluster that they are of."""

    lab: Lab
    lines: dict[Name, list[str]] = field(default_factory=dict)

    def add(self, name: str, width: int, lines: list[str]) -> None:
        self.lines[name, width] = [line.rstrip() for line in lines]

    def __getitem__(self, name: Name) -> str:
        return "\n".join(self.lines[name])


def capture() -> Screens:
    """A lab, and everything that can be captured on it; the lab is down again afterwards."""
    with running(BASE, nodes=4, inter="300ms") as lab:
        make_release(lab.folder / "releases", "v4", fail_start=True)
        screens = Screens(lab)
        with Load(lab.urls, rate=100, mix="get=3,post=1,slow=1"):
            _capture(lab, screens)
        return screens


def _capture(lab: Lab, screens: Screens) -> None:
    _config(lab, "drainctl.yml", {'ctl restart"': 'ctl restart"\n  limit: 4s'})
    _config(lab, "broken.yml", {"keep_up: 50%": "keep_up: 500%", "inter: 300ms": "intr: 300ms"})
    _config(lab, "halting.yml", {"on_failure: roll-back": "on_failure: halt"})
    for width in WIDTHS:
        with Tmux(lab.folder, width) as tmux:
            for name, line in {
                "config-errors": "drainctl -c broken.yml status",
                "doctor": "drainctl doctor",
                "plan": "drainctl plan releases/v2.tar.gz",
                "status": "drainctl status",
            }.items():
                screens.add(name, width, tmux.run(line))
    with Tmux(lab.folder) as tmux:
        _config(lab, "drainctl.yml", {"for: 1s": "for: 3s"})  # time enough to look at it from all sides
        _deploy(tmux, screens)
        _config(lab, "drainctl.yml", {"for: 3s": "for: 1s"})
        _put_back(tmux, screens)
        _halt(lab, tmux, screens)
    _dead(lab)
    for width in WIDTHS:
        with Tmux(lab.folder, width) as tmux:
            screens.add("status-open", width, tmux.run("drainctl status"))
            screens.add("deploy-refused", width, tmux.run("drainctl deploy releases/v3.tar.gz"))
            screens.add("history", width, tmux.run("drainctl history"))
    with Tmux(lab.folder) as tmux:
        screens.add("resume", 80, tmux.run("drainctl resume"))
    for width in WIDTHS:
        with Tmux(lab.folder, width) as tmux:
            screens.add("show", width, tmux.run("drainctl show"))


def _config(lab: Lab, name: str, changes: dict[str, str]) -> None:
    text = lab.config.read_text()
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    (lab.folder / name).write_text(text)


def _deploy(tmux: Tmux, screens: Screens) -> None:
    """In the middle, at both widths by a resize; seen from beside; the lease held; done."""
    tmux.enter("drainctl deploy releases/v2.tar.gz")
    tmux.until("a node that waits, and the traffic of some seconds", "wave 2", "> idle", "failed/s", "NOLB")
    screens.add("deploy-middle", 80, tmux.lines())
    tmux.resize(200, 24)
    tmux.until("the view in the new size", "requests/s", "web4")
    until("no line of the old size", lambda: "q leaves the view" in tmux.lines()[1][150:])
    screens.add("deploy-middle", 200, tmux.lines())
    tmux.resize(80, 24)
    for width in WIDTHS:
        with Tmux(screens.lab.folder, width) as beside:
            screens.add("status-running", width, beside.run("drainctl status"))
            screens.add("lease-held", width, beside.run("drainctl deploy releases/v3.tar.gz"))
            beside.enter("drainctl status --watch")
            beside.until("traffic of two seconds", "requests/s", "failed/s", "▁▁", "q leaves")
            screens.add("status-watch", width, beside.lines())
            beside.key("q")
    tmux.until("the end", "done:", f"\n{PROMPT.strip()}", limit_s=LIMIT_S)
    screens.add("deploy-done", 80, tmux.scrollback()[:-1])


def _put_back(tmux: Tmux, screens: Screens) -> None:
    screens.add("put-back", 80, tmux.run("drainctl deploy releases/v4.tar.gz", LIMIT_S))


def _halt(lab: Lab, tmux: Tmux, screens: Screens) -> None:
    screens.add("halt", 80, tmux.run("drainctl -c halting.yml deploy releases/v4.tar.gz", LIMIT_S))
    for width in WIDTHS:
        with Tmux(lab.folder, width) as beside:
            screens.add("status-halted", width, beside.run("drainctl status"))
    screens.add("abort", 80, tmux.run("drainctl abort", LIMIT_S))


def _dead(lab: Lab) -> None:
    """A rollout whose drainctl is killed while a node is out."""
    with Tmux(lab.folder) as tmux:
        tmux.enter("drainctl deploy releases/v3.tar.gz & echo $! > pid; fg")
        tmux.until("a node that is out", "> idle")
        os.kill(int((lab.folder / "pid").read_text()), signal.SIGKILL)
        until("its end", lambda: "Killed" in tmux.text())


def tidy(lines: list[str], lab: Lab) -> str:
    """The lines as they go into docs/: without what only this machine has."""
    text = "\n".join(lines).replace(str(lab.folder), "/srv/lab")
    return re.sub(r"\b\w+@[\w.-]+ \(pid", "me@ops1 (pid", text) + "\n"


def main(write: Callable[[str], object] = print) -> None:
    folder = ROOT / "docs" / "screens"
    folder.mkdir(exist_ok=True)
    screens = capture()
    for (name, width), lines in sorted(screens.lines.items()):
        path = folder / f"{name}.{width}.txt"
        path.write_text(tidy(lines, screens.lab))
        write(str(path.relative_to(ROOT)))


if __name__ == "__main__":
    main()
