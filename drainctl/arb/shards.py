"""
The nouns: a shard is an ordered list of machines that hold the same data; the first that is up is asked.

A machine is known by its `host:port`, on boards, screens and in metrics, whichever shard it serves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Machine:
    """
    One store machine.

    Attributes:
        name: `host:port`, as boards and metrics show it.
        url: `http://host:port` or `https://host:port`, with no path.
    """

    name: str
    url: str

    @property
    def host(self) -> str:
        """Name or address, without port and brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port of `name`, which always has one."""
        return int(self.name.rpartition(":")[2])

    @property
    def tls(self) -> bool:
        """Whether it is spoken to in TLS."""
        return self.url.startswith("https:")


@dataclass(frozen=True, slots=True)
class Shard:
    """
    A part of the data and the machines that hold it.

    Attributes:
        name: what stands as the host in `arb://NAME/path`; lower case letters, digits, `.`, `-`, `_`.
        machines: in the order in which they are asked; at least one.
    """

    name: str
    machines: tuple[Machine, ...]


Shards = Mapping[str, Shard]


def shards_of(described: Mapping[str, Sequence[str]]) -> dict[str, Shard]:
    """
    Reads `{"users": ["http://10.0.0.11:8080", "http://10.0.0.12:8080"]}`.

    Raises: ValueError naming the shard, for a name that no URL could carry, a shard without machines, a
        machine named twice in one shard, a machine's URL that has a path or is not http(s), or a mix of http
        and https.
    """
    return {name: _shard(name, urls) for name, urls in described.items()}


def _shard(name: str, urls: Sequence[str]) -> Shard:
    if not NAME.fullmatch(name):
        raise ValueError(f"shard {name!r}: a name has lower case letters, digits, '.', '-', '_'")
    if isinstance(urls, str) or not urls:
        raise ValueError(f"shard {name}: wants a list of its machines' URLs, got {urls!r}")
    machines = tuple(_machine(name, url) for url in urls)
    if len({machine.name for machine in machines}) < len(machines):
        raise ValueError(f"shard {name}: a machine is named twice in {', '.join(urls)}")
    if len({machine.tls for machine in machines}) > 1:
        raise ValueError(f"shard {name}: http and https are mixed in {', '.join(urls)}")
    return Shard(name, machines)


def _machine(shard: str, url: str) -> Machine:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"shard {shard}: {url!r} is not http://host:port or https://host:port")
    if parts.path.strip("/") or parts.query or parts.fragment or parts.username:
        raise ValueError(f"shard {shard}: {url!r} has more than a scheme, a host and a port")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    name = f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    return Machine(name, f"{parts.scheme}://{name}")
