"""What happens to the way to a node: its sshd, and the network in between."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from drainctl.lab.cluster import Lab
from drainctl.lab.faults.door import Fault, dismiss, environment, keep, members, put_back, send, stand_in
from drainctl.lab.keys import PORT
from drainctl.lab.processes import Process, Service
from drainctl.lab.programs import find_on_path

ASIDE = PORT + 1  # where sshd listens while somebody else has its port
ONE_WAY_S = "0.15"


def _sshd(lab: Lab, node: str) -> Service:
    return lab.node(node)[-1]


def _processes(lab: Lab, node: str) -> set[Process]:
    """The listener and its sessions, but not the commands that they run."""
    return {process for process in members(_sshd(lab, node).master()) if _is_sshd(process)}


def _is_sshd(process: Process) -> bool:
    try:
        return Path(f"/proc/{process.pid}/comm").read_text().startswith("sshd")
    except OSError:
        return False


def refused(lab: Lab, node: str) -> None:
    """New connections are refused; those that are open stay."""
    master = _sshd(lab, node).master()
    send([master] if master else [], signal.SIGKILL)


def killed(lab: Lab, node: str) -> None:
    """Connections are lost in the middle of what they do, new ones are refused; commands run on."""
    send(_processes(lab, node), signal.SIGKILL)


def back(lab: Lab, node: str) -> None:
    service = _sshd(lab, node)
    if service.master() is None:
        service.start(environment(lab))


def dropped(lab: Lab, node: str) -> None:
    killed(lab, node)
    back(lab, node)


def frozen(lab: Lab, node: str) -> None:
    send(_processes(lab, node), signal.SIGSTOP)


def thawed(lab: Lab, node: str) -> None:
    send(_processes(lab, node), signal.SIGCONT)


def blackholed(lab: Lab, node: str) -> None:
    """No answer to anything: sessions are stopped, and a full backlog drops each new connection's SYN."""
    master = _sshd(lab, node).master()
    sessions = _processes(lab, node) - ({master} if master else set())
    send(sessions, signal.SIGSTOP)
    _note(lab, node, sessions)
    refused(lab, node)
    stand_in(lab, f"full-{node}", "full", lab.settings.host(node), str(PORT))


def reachable(lab: Lab, node: str) -> None:
    dismiss(lab, f"full-{node}")
    send(_noted(lab, node), signal.SIGCONT)
    back(lab, node)


def _note(lab: Lab, node: str, sessions: set[Process]) -> None:
    path = _sessions(lab, node)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{process.pid} {process.started}\n" for process in sessions))


def _noted(lab: Lab, node: str) -> list[Process]:
    path = _sessions(lab, node)
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return [Process(*map(int, line.split())) for line in lines]


def _sessions(lab: Lab, node: str) -> Path:
    return lab.folder / "faults" / f"sessions-{node}"


def slow(lab: Lab, node: str) -> None:
    """Each byte is 150 ms late in each direction, on every new connection."""
    conf, host = _sshd(lab, node).conf, lab.settings.host(node)
    text = conf.read_text()
    keep(conf)
    conf.write_text(text.replace(f"{host}:{PORT}", f"{host}:{ASIDE}"))
    dropped(lab, node)
    stand_in(lab, f"late-{node}", "late", host, str(PORT), str(ASIDE), ONE_WAY_S)


def quick(lab: Lab, node: str) -> None:
    dismiss(lab, f"late-{node}")
    if put_back(_sshd(lab, node).conf):
        killed(lab, node)
    back(lab, node)


def other_key(lab: Lab, node: str) -> None:
    """As on a machine that was installed anew, or that is another one; open connections are lost."""
    key = _sshd(lab, node).conf.with_name("host_key")
    keep(key)
    keygen = find_on_path("ssh-keygen", "openssh-client")
    argv = [keygen, "-q", "-t", "ed25519", "-N", "", "-C", "another", "-f", str(key)]
    public = key.with_name("host_key.pub")
    keep(public)
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    dropped(lab, node)


def own_key(lab: Lab, node: str) -> None:
    key = _sshd(lab, node).conf.with_name("host_key")
    put_back(key.with_name("host_key.pub"))
    if put_back(key):
        dropped(lab, node)


FAULTS = (
    Fault("ssh-refused", "sshd", "new connections are refused; open ones stay", refused, back),
    Fault("ssh-killed", "sshd", "connections are lost in mid-command, new ones refused", killed, back),
    Fault("ssh-dropped", "sshd", "connections are lost in mid-command; new ones are welcome", dropped),
    Fault("ssh-frozen", "sshd", "stop it (SIGSTOP): accepts, answers nothing", frozen, thawed),
    Fault("ssh-blackholed", "sshd", "every packet to it seems lost", blackholed, reachable),
    Fault("ssh-slow", "sshd", "300 ms for each round trip", slow, quick),
    Fault("ssh-other-key", "sshd", "it shows another host key than the known one", other_key, own_key),
)
