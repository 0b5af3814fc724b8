"""What happens to a balancer, and to a server as one balancer sees it."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Sequence

from drainctl.errors import PreflightError
from drainctl.lab import ready
from drainctl.lab.cluster import Lab
from drainctl.lab.faults.door import Fault, dismiss, environment, keep, members, put_back, send, stand_in

# ---------------------------------------------------------------- the process


def kill(lab: Lab, name: str) -> None:
    """The master and every worker at once: clients' connections are reset."""
    send(members(lab.balancer(name).master()), signal.SIGKILL)


def start(lab: Lab, name: str) -> None:
    service = lab.balancer(name)
    if service.master() is None:
        service.start(environment(lab))
        ready.wait((service,), lambda: ready.another(lab.socket(name), "-"), lab.limit_s)


def restart(lab: Lab, name: str) -> None:
    kill(lab, name)
    start(lab, name)


def freeze(lab: Lab, name: str) -> None:
    """Its sockets still accept (the kernel does that), and nothing is answered: users' requests wait too."""
    send(members(lab.balancer(name).master()), signal.SIGSTOP)


def thaw(lab: Lab, name: str) -> None:
    send(members(lab.balancer(name).master()), signal.SIGCONT)


# ---------------------------------------------------------------- its runtime socket


def hide(lab: Lab, name: str) -> None:
    """The balancer serves on; only its socket is not there."""
    keep(lab.socket(name))


def show(lab: Lab, name: str) -> None:
    put_back(lab.socket(name))


def mute(lab: Lab, name: str) -> None:
    """
    Somebody who accepts and says nothing takes the place of the socket. From one moment to the next, and back
    likewise: there is no moment at which nobody is there.
    """
    path = lab.socket(name)
    aside = path.with_name("mute.sock")
    stand_in(lab, f"mute-{name}", "mute", f"unix:{aside}")
    keep(path, copied=True)
    aside.replace(path)


def unmute(lab: Lab, name: str) -> None:
    put_back(lab.socket(name))
    dismiss(lab, f"mute-{name}")
    lab.socket(name).with_name("mute.sock").unlink(missing_ok=True)


# ---------------------------------------------------------------- its configuration


def rewritten(*changes: tuple[str, str]) -> Callable[[Lab, str], None]:
    """A fault: (pattern, what stands for it) each applied to haproxy.cfg, which is then reloaded."""

    def begin(lab: Lab, name: str) -> None:
        rewrite(lab, name, changes)

    return begin


def rewrite(lab: Lab, name: str, changes: Sequence[tuple[str, str]]) -> None:
    path = lab.balancer(name).conf
    text = path.read_text()
    for pattern, instead in changes:
        text, found = re.subn(pattern, instead, text, flags=re.MULTILINE)
        if not found:
            raise PreflightError(f"{path} has nothing like {pattern!r}")
    keep(path)
    path.write_text(text)
    lab.reload(name)


def as_before(lab: Lab, name: str) -> None:
    """The configuration that it had, reloaded."""
    if put_back(lab.balancer(name).conf):
        lab.reload(name)


# ---------------------------------------------------------------- one server at the first balancer


def first(lab: Lab) -> str:
    return lab.settings.balancer_names[0]


def maint(lab: Lab, node: str) -> None:
    _told(lab, f"set server {lab.settings.app}/{node} state maint")


def unmaint(lab: Lab, node: str) -> None:
    _told(lab, f"set server {lab.settings.app}/{node} state ready")


def _told(lab: Lab, command: str) -> None:
    said = ready.ask(lab.socket(first(lab)), command).strip()
    if said:
        raise PreflightError(f"{first(lab)}: {command}: {said}")


def disabled(lab: Lab, node: str) -> None:
    rewrite(lab, first(lab), [(rf"^(  server {node} .*)$", r"\1 disabled")])


def removed(lab: Lab, node: str) -> None:
    rewrite(lab, first(lab), [(rf"^  server {node} .*\n", "")])


def misjudged(lab: Lab, node: str) -> None:
    rewrite(lab, first(lab), [(rf"^(  server {node} .*)$", r"\1 port 1 fall 1")])


def mended(lab: Lab, node: str) -> None:
    del node
    as_before(lab, first(lab))


COOKIE = (
    (r"^  balance roundrobin$", "  balance roundrobin\n  cookie SERVER insert indirect nocache"),
    (r"^(  server (\S+) \S+)(.*)$", r"\1 cookie \2\3"),
)
STICK = ((r"^  balance roundrobin$", "  balance roundrobin\n  stick-table type ip size 1k\n  stick on src"),)
H2 = ((r"^  bind (\S+):8080$", r"  bind \1:8080\n  bind \1:8081 proto h2"),)
SERVERS = r"^(  server \S+ \S+)(.*)$"
FAULTS = (
    Fault("lb-reload", "balancer", "reload it, as an operator does", lambda lab, name: lab.reload(name)),
    Fault("lb-kill", "balancer", "kill -9 the master and its workers", kill, start),
    Fault("lb-restart", "balancer", "kill -9 and start again: its sessions are lost", restart),
    Fault(
        "lb-freeze", "balancer", "stop it (SIGSTOP): accepts, answers nobody, users included", freeze, thaw
    ),
    Fault("lb-hidden", "balancer", "its runtime socket is gone; it serves on", hide, show),
    Fault("lb-mute", "balancer", "its runtime socket accepts and never answers; it serves on", mute, unmute),
    Fault(
        "lb-user",
        "balancer",
        "its runtime socket allows level user only: nothing can be nudged",
        rewritten(("level admin", "level user")),
        as_before,
    ),
    Fault(
        "lb-cookie",
        "balancer",
        "clients stay with their server by a cookie",
        rewritten(*COOKIE),
        as_before,
    ),
    Fault(
        "lb-stick",
        "balancer",
        "clients stay with their server by a stick table on their address",
        rewritten(*STICK),
        as_before,
    ),
    Fault(
        "lb-queue",
        "balancer",
        "each server takes one request at a time (maxconn 1): the others queue",
        rewritten((SERVERS, r"\1\2 maxconn 1")),
        as_before,
    ),
    Fault(
        "lb-new-backend",
        "balancer",
        "has another backend with the same nodes, which nobody has told drainctl of",
        rewritten((r"^backend (\S+)\n((?:  .*\n)+)", r"backend \1\n\2\nbackend another\n\2")),
        as_before,
    ),
    Fault("server-maint", "server", "somebody puts it into MAINT at the first balancer", maint, unmaint),
    Fault("server-disabled", "server", "disabled in the first balancer's haproxy.cfg", disabled, mended),
    Fault("server-removed", "server", "removed from the first balancer's haproxy.cfg", removed, mended),
    Fault("server-misjudged", "server", "DOWN at the first balancer, UP at the others", misjudged, mended),
)
