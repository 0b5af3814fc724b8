"""What a fault is, and what all of them need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from drainctl.errors import ConfigError, PreflightError
from drainctl.lab.cluster import Lab
from drainctl.lab.processes import Process, family, gone, started_at

On = Literal["balancer", "server", "node", "sshd", "release", "traffic"]
GONE_S = 5.0


@dataclass(frozen=True, slots=True)
class Fault:
    """
    One thing that goes wrong. on: what it is done to; a `server` is a node as the first balancer sees it.

    does: told by `lab break --list`. begin(lab, target) does it, and may say something worth knowing;
    end(lab, target) takes it away, and may be called although it is gone; None: it is over at once, or ends
    by itself. Both raise PreflightError where they cannot, ConfigError where the lab is not made for it.
    """

    name: str
    on: On
    does: str
    begin: Callable[[Lab, str], str | None]
    end: Callable[[Lab, str], object] | None = None

    def targets(self, lab: Lab) -> tuple[str, ...]:
        """What it can be done to, the first one by default. Raises: ConfigError where there is nothing."""
        if self.on == "release":
            return (self.name.removeprefix("release-"),)
        if self.on == "sshd" and not lab.settings.ssh:
            raise ConfigError(f"{self.name}: this lab has no sshd", hint="drainctl lab up --ssh")
        if self.on in {"server", "balancer", "traffic"} and not lab.settings.balancers:
            raise ConfigError(f"{self.name}: this lab has no balancer")
        return lab.settings.balancer_names if self.on in {"balancer", "traffic"} else lab.settings.node_names


def environment(lab: Lab) -> dict[str, str]:
    """That of whatever is started by a fault: marked, so that `lab down` ends it too."""
    return {**os.environ, "DRAINCTL_LAB": str(lab.folder), "PYTHONDONTWRITEBYTECODE": "1"}


# ---------------------------------------------------------------- files


def keep(path: Path, *, copied: bool = False) -> Path:
    """
    Put a file's name aside, as `path`.sound; `copied`: it keeps its own name, too, for somebody to take over.
    Raises: PreflightError where another fault did so already.
    """
    sound = path.with_name(path.name + ".sound")
    if os.path.lexists(sound):
        raise PreflightError(f"{path} is broken already", hint="drainctl lab mend")
    if copied:
        os.link(path, sound)
    else:
        path.rename(sound)
    return sound


def put_back(path: Path) -> bool:
    """What `keep` put aside is in its place again. Returns: whether it was not."""
    sound = path.with_name(path.name + ".sound")
    if not os.path.lexists(sound):
        return False
    sound.replace(path)
    return True


# ---------------------------------------------------------------- processes


def send(processes: Iterable[Process], number: int) -> None:
    """A signal to each of them; after SIGKILL and SIGTERM they are gone when this returns."""
    processes = list(processes)
    for process in processes:
        process.send(number)
    if number in {signal.SIGKILL, signal.SIGTERM} and not gone(processes, GONE_S):
        left = ", ".join(str(process.pid) for process in processes if process.alive)
        raise PreflightError(f"still running {GONE_S:g} s after {signal.Signals(number).name}: {left}")


def members(master: Process | None) -> list[Process]:
    """A service's processes, the master first, so that it does not replace the others; [] where none runs."""
    return [master, *family(master) - {master}] if master else []


def stand_in(lab: Lab, name: str, *words: str) -> None:
    """Start `drainctl.lab.faults.stand_in` in the background; returns when it is ready."""
    pidfile = _pidfile(lab, name)
    pidfile.parent.mkdir(exist_ok=True)
    argv = [sys.executable, "-m", "drainctl.lab.faults.stand_in", str(pidfile), *words]
    done = subprocess.run(
        argv,
        env=environment(lab),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=20,
    )
    if done.returncode:
        raise PreflightError(f"{name}: {done.stderr.strip().rpartition(chr(10))[2]}")


def dismiss(lab: Lab, name: str) -> None:
    """End a stand-in, if it runs."""
    pidfile = _pidfile(lab, name)
    try:
        pid, started = map(int, pidfile.read_text().split())
    except (OSError, ValueError):
        return
    if started_at(pid) == started:
        send([Process(pid, started)], signal.SIGKILL)
    pidfile.unlink(missing_ok=True)


def said(lab: Lab, name: str) -> Path:
    """Where a stand-in writes what became of its request."""
    return _pidfile(lab, name).with_suffix(".said")


def _pidfile(lab: Lab, name: str) -> Path:
    return lab.folder / "faults" / f"{name}.pid"
