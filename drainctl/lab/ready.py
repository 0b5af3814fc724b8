"""When a part of the lab is ready: its own answer, never a pause."""

from __future__ import annotations

import csv
import http.client
import socket
import time
from collections.abc import Callable
from pathlib import Path

from drainctl.lab.processes import Service

GONE_S = 0.3  # a master that executes itself anew, as HAProxy's does at a reload, has no name for a moment


class Behind(http.client.HTTPConnection):
    """A connection to whoever listens at a unix socket."""

    def __init__(self, path: Path, host: str) -> None:
        super().__init__(host, timeout=2)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def get(host: str, at: int | Path, page: str) -> tuple[int, str]:
    """Status and text of a page, at a port or behind a socket. Raises: OSError, HTTPException."""
    connection = http.client.HTTPConnection(host, at, timeout=2) if isinstance(at, int) else Behind(at, host)
    try:
        connection.request("GET", page)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("latin-1")
    finally:
        connection.close()


def health(host: str, at: int | Path = 8080, page: str = "/http-check") -> str | None:
    """None when the page answers 200, else what it answers instead."""
    where = f"{host}:{at}{page}"
    try:
        status, _ = get(host, at, page)
    except (OSError, http.client.HTTPException) as error:
        return f"{where}: {error}"
    return None if status == 200 else f"{where} answers {status}"


def ask(path: Path, command: str) -> str:
    """One command to HAProxy's runtime socket; its answer. Raises: OSError."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(2)
        link.connect(str(path))
        link.sendall(command.encode() + b"\n")
        link.shutdown(socket.SHUT_WR)
        answer = b""
        while part := link.recv(65536):
            answer += part
    return answer.decode()


def servers(path: Path, app: str) -> dict[str, str]:
    """Each server's status and check status, as HAProxy shows them: `UP L7OK`. Raises: OSError."""
    lines = ask(path, f"show stat {app} 4 -1").removeprefix("# ").splitlines()
    rows = csv.DictReader(line for line in lines if line)
    return {row["svname"]: f"{row['status']} {row['check_status'].removeprefix('* ')}" for row in rows}


def worker(path: Path) -> str:
    """The pid of the HAProxy worker that answers. Raises: OSError."""
    lines = ask(path, "show info").splitlines()
    return next((line.removeprefix("Pid: ") for line in lines if line.startswith("Pid: ")), "")


def another(path: Path, before: str) -> str | None:
    """None when another worker than `before` answers."""
    try:
        now = worker(path)
    except OSError as error:
        return f"{path}: {error}"
    return None if now not in {before, ""} else f"worker {before} still answers"


def all_up(path: Path, app: str, names: tuple[str, ...]) -> str | None:
    """None when every named server is exactly UP and its check passed, else who is what."""
    try:
        seen = servers(path, app)
    except OSError as error:
        return f"{path}: {error}"
    wrong = [f"{name} {seen.get(name, 'missing')}" for name in names if seen.get(name) != "UP L7OK"]
    return ", ".join(wrong) or None


def wait(services: tuple[Service, ...], problem: Callable[[], str | None], limit_s: float) -> None:
    """
    Wait until `problem()` is None.

    Raises: PreflightError that names the first service whose process is gone, else the first of them and
    what is still wrong after limit_s.
    """
    deadline = time.monotonic() + limit_s
    seen = time.monotonic()  # when all of them ran
    while (wrong := problem()) is not None:
        now = time.monotonic()
        missing = next((service for service in services if service.master() is None), None)
        if missing is None:
            seen = now
        elif now - seen > GONE_S:
            raise missing.failed("started and ended again")
        if now > deadline:
            raise services[0].failed(f"is not ready {limit_s:g} s after its start: {wrong}")
        time.sleep(0.02)
