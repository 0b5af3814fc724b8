"""
The in-place strategies as they are done by hand: right in the main, and wrong in one thing.

Each puts `release` (an archive of DIR/releases) on a node that serves, and returns the seconds it took. The
app is always stopped gracefully unless said otherwise, so what is lost is lost by the order of things.
Errors: as `drainctl.lab.naive.ctl` and `wait_for`.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from drainctl.lab import apps, ready
from drainctl.lab.cluster import Lab
from drainctl.lab.naive import ANSWER_LIMIT_S, ctl, link, put, restart_node, wait_for
from drainctl.lab.processes import Process, family
from drainctl.nginx import upstream

GAP_S = 0.3  # between the two restarts of a backup pair
LEAVING = b"worker process is shutting down"  # nginx's title of a worker that takes no new connection


def naive_port_flip(
    lab: Lab, name: str, release: str, stop: Literal["first-answer", "workers-leaving"]
) -> float:
    """
    The old process is stopped too early: at the first answer of the new generation, when the old workers
    still take requests for 0.1 s; or once they take no new connection, when one that has said nothing yet
    is still theirs, and goes to the old port.
    """
    began = time.monotonic()
    old = lab.live_port(name)
    new = apps.OTHER if old == apps.LIVE else apps.LIVE
    put(lab, name, release)
    ctl(lab, name, "start", str(new))
    wait_for(lab, name, release, port=new)
    before = _workers(lab, name)
    _write_upstream(lab, name, release, new, old)
    _nginx(lab, name, "-s", "reload")
    wait_for(lab, name, f"{release}:{new}", page="/-/generation")
    if stop == "workers-leaving":
        _wait(lab, name, lambda: _busy(before))
    ctl(lab, name, "stop", str(old))
    return time.monotonic() - began


def naive_socket_flip(lab: Lab, name: str, release: str) -> float:
    """The old process is stopped before the link is swapped: until then, nobody is behind it."""
    began = time.monotonic()
    old = lab.live_release(name)
    put(lab, name, release)
    ctl(lab, name, "start", release)
    ctl(lab, name, "stop", old)
    link(lab.settings.run(lab.folder, name) / "current.sock", f"{release}.sock")
    wait_for(lab, name, release)
    return time.monotonic() - began


def naive_backup(lab: Lab, name: str, release: str) -> float:
    """
    The live process first and its backup 0.3 s later, though nginx may still hold the live one for failed:
    with server_params="max_fails=1 fail_timeout=10s" it does for 10 s. Neither is hidden before it ends.
    """
    began = time.monotonic()
    put(lab, name, release)
    for unit in apps.pair(lab.settings):
        ctl(lab, name, "stop", unit)
        ctl(lab, name, "start", unit)
        wait_for(lab, name, release, port=lab.place(name, unit))
        time.sleep(GAP_S)
    return time.monotonic() - began


def naive_reload(lab: Lab, name: str, release: str, by: Literal["hup", "restart"]) -> float:
    """
    hup: over when every worker is another one; what they serve is not asked (see Settings.gunicorn_start).
    restart: TERM, then start.
    """
    if by == "restart":
        return restart_node(lab, name, release)
    began = time.monotonic()
    put(lab, name, release)
    master = _master(lab, name)
    workers = family(master) - {master}
    master.send(signal.SIGHUP)
    _wait(lab, name, lambda: _alive(workers))
    return time.monotonic() - began


def plain_reload(lab: Lab, name: str) -> float:
    """A reload of nginx that no balancer is told of; over when no worker of before is left."""
    began = time.monotonic()
    before = _workers(lab, name)
    _nginx(lab, name, "-s", "reload")
    _wait(lab, name, lambda: _alive(before))
    return time.monotonic() - began


def _write_upstream(lab: Lab, name: str, release: str, live: int, down: int) -> None:
    host = lab.settings.host(name)
    servers = [upstream.Server(f"{host}:{live}", "live"), upstream.Server(f"{host}:{down}", "down")]
    path = lab.folder / "nodes" / name / "upstream.conf"
    new = path.with_name("upstream.conf.new")
    new.write_text(upstream.render(lab.settings.app, servers, f"{release}:{live}"))
    new.rename(path)


def _nginx(lab: Lab, name: str, *words: str) -> None:
    subprocess.run([*lab.nginx(name).argv, *words], check=True, capture_output=True)


def _workers(lab: Lab, name: str) -> set[Process]:
    master = lab.nginx(name).master()
    return family(master) - {master} if master else set()


def _master(lab: Lab, name: str) -> Process:
    app = lab.node(name)[0]
    master = app.master()
    if master is None:
        raise app.failed("does not run")
    return master


def _wait(lab: Lab, name: str, problem: Callable[[], str | None]) -> None:
    ready.wait((lab.nginx(name),), problem, ANSWER_LIMIT_S)


def _alive(processes: set[Process]) -> str | None:
    """None when all have ended."""
    left = sum(process.alive for process in processes)
    return f"{left} processes of before still run" if left else None


def _busy(workers: set[Process]) -> str | None:
    """None when each of nginx's workers takes no new connection or has ended."""
    left = [one.pid for one in workers if one.alive and LEAVING not in _title(one)]
    return f"workers {left} still take connections" if left else None


def _title(process: Process) -> bytes:
    try:
        return Path(f"/proc/{process.pid}/cmdline").read_bytes()
    except OSError:
        return LEAVING  # it has ended since
