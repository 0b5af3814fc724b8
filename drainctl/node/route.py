"""
How a host is reached: what drainctl.yml says, then what ssh_config says (ssh_config(5)).

Honoured: Host, Match, Include, HostName, User, Port, IdentityFile, IdentitiesOnly, UserKnownHostsFile,
ProxyJump (several hops, each with its own settings) and ProxyCommand. StrictHostKeyChecking is not: a key
that is not known is always refused.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

from drainctl.errors import ConnectFailed

if TYPE_CHECKING:
    from paramiko import SSHConfig

GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts",)
DEFAULT_KEYS = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
MOST_HOPS = 8


@dataclass(frozen=True, slots=True)
class Hop:
    """
    One SSH server on the way. keys: private key files to try, all existing. agent: the agent's keys are
    tried as well. proxy_command: what to start instead of a connection of our own.
    """

    host: str
    port: int
    user: str
    keys: tuple[str, ...]
    agent: bool
    known_hosts: tuple[str, ...]
    proxy_command: str | None = None

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What drainctl.yml says of one node; None means what ssh_config says."""

    host: str
    user: str | None = None
    port: int | None = None
    key: str | None = None
    known_hosts: str | None = None


def route(wanted: Wanted, ssh_config: str | None) -> tuple[Hop, ...]:
    """The hops to a node, itself last. Raises: ConnectFailed (ssh_config or key not readable, a circle)."""
    from paramiko import ConfigParseError, SSHConfig

    try:
        config = SSHConfig.from_text(_text(Path(ssh_config).expanduser()) if ssh_config else "")
        return _hops(wanted, config, 1)
    except (ConfigParseError, OSError, ValueError) as error:
        raise ConnectFailed(f"{wanted.host}: {ssh_config} cannot be read: {error}") from error


def _hops(wanted: Wanted, config: SSHConfig, depth: int) -> tuple[Hop, ...]:
    if depth > MOST_HOPS:
        raise ConnectFailed(f"{wanted.host}: ProxyJump goes over more than {MOST_HOPS} hops, or in a circle")
    found = config.lookup(wanted.host)
    jumps = [jump.strip() for jump in found.get("proxyjump", "none").split(",")]
    before: tuple[Hop, ...] = ()
    if jumps != ["none"]:
        before = _hops(_jump(jumps[0]), config, depth + 1)  # the first hop may have a ProxyJump of its own
        for jump in jumps[1:]:
            before += (_hop(_jump(jump), config, None),)
    return (*before, _hop(wanted, config, found.get("proxycommand") if not before else None))


def _hop(wanted: Wanted, config: SSHConfig, proxy_command: str | None) -> Hop:
    from getpass import getuser

    found = config.lookup(wanted.host)
    known = (wanted.known_hosts,) if wanted.known_hosts else _default_known_hosts(found)
    keys = (wanted.key,) if wanted.key else tuple(found.get("identityfile", ()))
    files = tuple(str(Path(key).expanduser()) for key in keys or DEFAULT_KEYS)
    there = tuple(file for file in files if Path(file).is_file())
    if wanted.key and not there:
        raise ConnectFailed(f"{wanted.host}: the key file {wanted.key} is not there")
    return Hop(
        host=found["hostname"],
        port=wanted.port or int(found.get("port", 22)),
        user=wanted.user or found.get("user") or getuser(),
        keys=there,
        agent=found.get("identitiesonly", "no") != "yes",
        known_hosts=tuple(str(Path(file).expanduser()) for file in known),
        proxy_command=proxy_command,
    )


def _default_known_hosts(found: dict[str, str]) -> tuple[str, ...]:
    own = shlex.split(found.get("userknownhostsfile", "~/.ssh/known_hosts"))
    return (*own, *GLOBAL_KNOWN_HOSTS)


def _jump(text: str) -> Wanted:
    """`[user@]host[:port]` or `ssh://…`, as ProxyJump takes it."""
    from urllib.parse import urlsplit

    parts = urlsplit(text if text.startswith("ssh://") else f"ssh://{text}")
    if not parts.hostname:
        raise ValueError(f"ProxyJump {text!r} names no host")
    return Wanted(parts.hostname, parts.username, parts.port)


def _text(path: Path, depth: int = 0) -> str:
    """The file with its `Include`s in place. No file is an empty one, as for ssh."""
    if not path.is_file() or depth > 8:
        return ""
    lines = []
    for line in path.read_text().splitlines():
        words = line.split(maxsplit=1)
        if len(words) == 2 and words[0].lower() == "include":
            for pattern in shlex.split(words[1]):
                where = Path(pattern).expanduser()
                where = where if where.is_absolute() else Path("~/.ssh").expanduser() / where
                lines += [_text(Path(file), depth + 1) for file in sorted(glob(str(where)))]  # noqa: PTH207 - the pattern is absolute
        else:
            lines.append(line)
    return "\n".join(lines)
