"""The deploy that drainctl replaces: switch, restart, wait until it answers, next. Nobody tells HAProxy."""

from __future__ import annotations

import http.client
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from drainctl.errors import CommandFailed, CommandTimedOut
from drainctl.lab import ready
from drainctl.lab.cluster import Lab
from drainctl.lab.releases import unpack

RESTART_LIMIT_S = 40.0  # ctl gives gunicorn 30 s for what is in flight, and 10 s to start
ANSWER_LIMIT_S = 20.0


def restart_node(lab: Lab, name: str, release: str) -> float:
    """
    Put an archive of DIR/releases on a node and restart its app, under whatever traffic it has.

    It is the careful kind of careless: the link is switched atomically, gunicorn finishes what it has
    begun, and the node is left only when the new release answers. Still, from its TERM until then nobody
    listens, and HAProxy goes on sending requests: in so short a time no check finds the node down.

    Returns: seconds. Raises: CommandFailed, CommandTimedOut; PreflightError when the release does not answer.
    """
    began = time.monotonic()
    put(lab, name, release)
    ctl(lab, name, "restart")
    wait_for(lab, name, release)
    return time.monotonic() - began


def restart_in_turn(lab: Lab, release: str) -> Iterator[tuple[str, float | None]]:
    """
    `restart_node` over all nodes: (name, None) right before each one, (name, seconds) after it.

    Raises: as restart_node.
    """
    for name in lab.settings.node_names:
        yield name, None
        yield name, restart_node(lab, name, release)


def put(lab: Lab, name: str, release: str) -> None:
    """An archive of DIR/releases unpacked on a node, and `current` pointed at it."""
    root = lab.root(name)
    folder = root / "releases" / release
    folder.mkdir(exist_ok=True)
    unpack(lab.folder / "releases" / f"{release}.tar.gz", folder)
    link(root / "current", f"releases/{release}")


def link(path: Path, target: str) -> None:
    """The symlink `path` pointed at `target` by a rename: it is there at all times."""
    new = path.with_name("new")
    new.symlink_to(target)
    new.rename(path)


def ctl(lab: Lab, name: str, *words: str) -> None:
    """The node's service command. Raises: CommandFailed, CommandTimedOut."""
    argv, told = [str(lab.ctl(name)), *words], " ".join(("ctl", *words))
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=RESTART_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise CommandTimedOut(f"{name}: {told} still ran after {RESTART_LIMIT_S:g} s", node=name) from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or "nothing"
        raise CommandFailed(f"{name}: {told} ended with {done.returncode} and said: {said}", node=name)


def wait_for(lab: Lab, name: str, text: str, *, port: int | Path = 8080, page: str = "/version") -> None:
    """Until the page answers this text, at a port or behind a socket. Raises: PreflightError."""
    host = lab.settings.host(name)
    ready.wait(lab.node(name)[:2], lambda: _not_yet(host, port, page, text), ANSWER_LIMIT_S)


def _not_yet(host: str, port: int | Path, page: str, text: str) -> str | None:
    """None when the page answers the text, else what it answers."""
    try:
        status, told = ready.get(host, port, page)
    except (OSError, http.client.HTTPException) as error:
        return f"{host}:{port}{page}: {error}"
    return None if (status, told.strip()) == (200, text) else f"{page} answers {status} {told.strip()!r}"
