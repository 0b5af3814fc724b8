"""
Processes that outlive the command which started them, ended without ever touching a stranger.

A process is known by pid *and* start time (a pid comes back, the pair does not); signals go through a
pidfd, so between looking and sending the pid cannot change hands.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from drainctl.errors import PreflightError


@dataclass(frozen=True, slots=True)
class Process:
    """A process: `started` is field 22 of /proc/PID/stat, clock ticks since boot (proc(5))."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        return started_at(self.pid) == self.started

    def send(self, number: int) -> None:
        """Send a signal, unless the process is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except (ProcessLookupError, FileNotFoundError):  # some kernels say it in other words
            return
        try:
            if self.alive:
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return
        finally:
            os.close(handle)


@dataclass(frozen=True, slots=True)
class Service:
    """
    A daemon. `argv` returns once it was started, and `pidfile` names its master. `conf` is in the master's
    command line: that is how a pid from the file is known to be this daemon and not a stranger.
    """

    name: str
    argv: tuple[str, ...]
    pidfile: Path
    conf: Path
    log: Path
    stop: int = signal.SIGTERM

    def master(self) -> Process | None:
        """The running master, or None."""
        try:
            pid = int(self.pidfile.read_text())
            started = started_at(pid)
            named = str(self.conf).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return Process(pid, started) if started is not None and named else None

    def start(self, env: dict[str, str]) -> None:
        """Raises: PreflightError with the end of the log, if it does not start."""
        with self.log.open("ab") as log:
            try:
                code = subprocess.run(
                    self.argv,
                    cwd=self.conf.parent,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    timeout=20,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                raise self.failed("did not start within 20 s") from None
        if code:
            raise self.failed(f"did not start (exit code {code})")

    def failed(self, what: str) -> PreflightError:
        """An error that says what happened to this service and shows the end of its log."""
        try:
            end = self.log.read_text(errors="replace").splitlines()[-8:]
        except OSError:
            end = []
        shown = "\n".join(f"  {line}" for line in end) or "  (empty)"
        return PreflightError(f"{self.name} {what}", hint=f"the end of {self.log}:\n{shown}")


def started_at(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()
    return None if fields[0] in "ZX" else int(fields[19])


def family(process: Process) -> set[Process]:
    """The process and all that descend from it, as far as they still run."""
    found = {process} if process.alive else set()
    try:
        # One file per thread; a child belongs to the thread that forked it.
        listed = [path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/children")]
    except OSError:
        return found
    for pid in map(int, " ".join(listed).split()):
        started = started_at(pid)
        if started is not None:
            found |= family(Process(pid, started))
    return found


def marked(mark: str) -> set[Process]:
    """
    The user's processes that were started with `mark` (NAME=value) in their environment. nginx and sshd
    write over theirs once they run, so this is for what has no pid file yet.
    """
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            named = mark.encode() in path.read_bytes().split(b"\0")
        except OSError:
            continue  # gone, or someone else's
        pid = int(path.parent.name)
        started = started_at(pid) if named else None
        if started is not None:
            found.add(Process(pid, started))
    return found


def end(find: Callable[[], dict[Process, int]], limit_s: float = 3.0) -> int:
    """
    End what `find` finds, by the signal that it names for each; what ignores it for `limit_s` is killed.
    Looks again until nothing is found, for what was started in between. Returns: how many were ended.
    """
    ended: set[Process] = set()
    for _ in range(5):
        found = find()
        if not found:
            break
        ended |= found.keys()
        for process, number in found.items():
            process.send(number)
        if not gone(found, limit_s):
            for process in found:
                process.send(signal.SIGKILL)
            gone(found, limit_s)
    return len(ended)


def gone(processes: Collection[Process], limit_s: float) -> bool:
    """Whether all of them ended within `limit_s`."""
    deadline = time.monotonic() + limit_s
    while any(process.alive for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
