"""A real OpenSSH server of the current user on a loopback address, with keys of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import need, until

USER = getpass.getuser()


@dataclass(frozen=True)
class Sshd:
    """One running server: where it listens, and the files of a client that may log in."""

    host: str
    port: int
    pid: int
    folder: Path

    @property
    def key(self) -> str:
        return str(self.folder / "client")

    @property
    def known_hosts(self) -> str:
        return str(self.folder / "known_hosts")

    @property
    def config(self) -> str:
        """An ssh_config that knows this server as `node`."""
        return str(self.folder / "ssh_config")

    def children(self) -> list[int]:
        """One process for each connection."""
        return _children(self.pid)

    def serving(self) -> list[int]:
        """Every process that holds a connection: for a login other than root sshd splits in two."""
        found = self.children()
        return found + [pid for child in found for pid in _children(child) if _name(pid).startswith("sshd")]


@contextmanager
def sshd(folder: Path, host: str, *settings: str) -> Iterator[Sshd]:
    """Starts it, waits until it greets, and ends it with all its connections."""
    program = need("sshd")
    need("ssh-keygen")
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:  # sshd's chroot for its unprivileged half
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    for name in ("host", "client"):
        if not (folder / name).exists():
            make_key(folder / name)
    shutil.copy(folder / "client.pub", folder / "authorized_keys")
    port = free_port(host)
    write_config(folder, host, port, settings)
    kind, key, *_ = (folder / "host.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[{host}]:{port} {kind} {key}\n")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    server = Sshd(host, port, process.pid, folder)
    try:
        until("sshd greets", lambda: process.poll() is not None or greets(host, port))
        assert process.poll() is None, (folder / "log").read_text()
        yield server
    finally:
        cut(server)
        process.terminate()
        process.wait(10)


def cut(server: Sshd) -> None:
    """Kills the processes that serve connections, not the listener and not what they run."""
    for pid in server.serving():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    with suppress(OSError):
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text()
    return ""


def write_config(folder: Path, host: str, port: int, settings: tuple[str, ...]) -> None:
    lines = [
        f"ListenAddress {host}:{port}",
        f"HostKey {folder}/host",
        f"PidFile {folder}/pid",
        f"AuthorizedKeysFile {folder}/authorized_keys",
        "UsePAM no",
        "StrictModes no",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "MaxStartups 100",
        "LogLevel VERBOSE",
        *settings,
    ]
    (folder / "sshd_config").write_text("\n".join(lines) + "\n")
    client = f"""\
Host node
  HostName {host}
  Port {port}
  User {USER}
  IdentityFile {folder}/client
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
"""
    (folder / "ssh_config").write_text(client)


def make_key(path: Path, *options: str) -> None:
    kind = [] if "-t" in options else ["-t", "ed25519"]
    command = ["ssh-keygen", "-q", *kind, *(options or ("-N", "")), "-f", str(path)]
    subprocess.run(command, check=True, timeout=30)


def free_port(host: str) -> int:
    with socket.socket() as asked:
        asked.bind((host, 0))
        return int(asked.getsockname()[1])


def greets(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=1) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def listens(host: str, port: int) -> bool:
    """Somebody listens there."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True
