"""
Which keys a host may have: the known_hosts files of OpenSSH (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT).

Read here and not by paramiko, whose reader checks every line against every other (seconds for a file of
a thousand hashed lines) and knows neither patterns nor `@revoked`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paramiko import PKey


def known_name(host: str, port: int) -> str:
    """The name under which a host stands in known_hosts."""
    return host if port == 22 else f"[{host}]:{port}"


def known_keys(name: str, files: Iterable[str]) -> tuple[list[PKey], list[PKey]]:
    """
    The keys that `name` may have, and those that are revoked. A file that is not there holds none; lines of
    certificate authorities are passed over (paramiko cannot check host certificates).
    """
    known: list[PKey] = []
    revoked: list[PKey] = []
    for file in files:
        for line in _lines(file):
            fields = line.split()
            marker = fields.pop(0) if fields[0].startswith("@") else ""
            if marker == "@cert-authority" or len(fields) < 3 or not _is_for(fields[0], name):
                continue
            key = _key(fields[1], fields[2])
            if key:
                (revoked if marker == "@revoked" else known).append(key)
    return known, revoked


def _lines(file: str) -> Iterator[str]:
    path = Path(file)
    if path.is_file():
        for line in path.read_text(errors="replace").splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                yield line


def _is_for(names: str, name: str) -> bool:
    if names.startswith("|1|"):
        from paramiko import HostKeys

        salt = names.rpartition("|")[0].removeprefix("|1|")
        return HostKeys.hash_host(name, f"|1|{salt}|") == names
    patterns = names.split(",")
    if any(_fits(pattern[1:], name) for pattern in patterns if pattern.startswith("!")):
        return False
    return any(_fits(pattern, name) for pattern in patterns)


def _fits(pattern: str, name: str) -> bool:
    """`*` and `?` only: the brackets of `[host]:port` stand for themselves."""
    return pattern == name or fnmatchcase(name, pattern.replace("[", "[[]"))


def _key(kind: str, base64: str) -> PKey | None:
    from base64 import b64decode

    from paramiko import PKey
    from paramiko.pkey import UnknownKeyType
    from paramiko.ssh_exception import SSHException

    try:
        return PKey.from_type_string(kind, b64decode(base64))
    except (UnknownKeyType, SSHException, ValueError):  # of no use to us, so as good as not there
        return None
