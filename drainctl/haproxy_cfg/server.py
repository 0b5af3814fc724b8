"""
`server`, `default-server` and `server-template` lines.

What a keyword takes must be known for every keyword, or its argument would be read as one. Source: HAProxy
configuration.txt, "5.2. Server and default-server options" (2.6, with what 2.8 and 3.x add).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from drainctl.haproxy_cfg.model import At, Server, ServerSettings, Template
from drainctl.haproxy_cfg.values import address, seconds, whole
from drainctl.haproxy_cfg.words import Variables, in_address

READ: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(("inter", "fastinter", "downinter", "slowstart", "pool-purge-delay"), seconds),
    **dict.fromkeys(("rise", "fall", "port", "weight", "agent-port", "maxconn", "pool-max-conn"), whole),
    **dict.fromkeys(
        ("addr", "check-sni", "track", "observe", "on-error", "on-marked-down", "on-marked-up", "cookie"), str
    ),
    **dict.fromkeys(("init-addr", "init-state", "resolvers", "verify", "ca-file"), str),
}
SWITCHES = ("check", "check-ssl", "check-send-proxy", "backup", "disabled", "agent-check", "ssl")
OFF = {f"no-{name}": name for name in SWITCHES} | {"enabled": "disabled"}

# Known to HAProxy and of no interest here; each takes one argument.
TAKES_ONE = {
    "agent-addr", "agent-inter", "agent-send", "alpn", "cc", "check-alpn", "check-pool-conn-name",
    "check-proto", "ciphers", "ciphersuites", "client-sigalgs", "crl-file", "crt", "curves",
    "error-limit", "guid", "hash-key", "id", "idle-ping", "interface", "log-bufsize", "log-proto",
    "max-reuse", "maxqueue", "minconn", "namespace", "npn", "pool-conn-name", "pool-low-conn",
    "proto", "proxy-v2-options", "redir", "resolve-net", "resolve-opts", "resolve-prefer",
    "set-proxy-v2-tlv-fmt", "shard", "sigalgs", "sni", "socks4", "source", "ssl-max-ver",
    "ssl-min-ver", "tcp-md5sig", "tcp-ut", "usesrc", "verifyhost", "ws",
}  # fmt: skip
MOST_SLOTS = 1000  # of one template: more than that is a slip of the keyboard

Said = dict[str, At[Any]]


class Servers:
    """The servers of one section, and the `default-server` settings that hold for the next line."""

    def __init__(self, defaults: Mapping[str, At[Any]], note: Callable[[str], None]) -> None:
        self.defaults: Said = dict(defaults)
        self.servers: list[Server] = []
        self.templates: list[Template] = []
        self._note = note

    def default(self, words: Sequence[str], line: int) -> None:
        self._read(words[1:], line, self.defaults)

    def server(self, words: Sequence[str], line: int, variables: Variables) -> bool:
        """`server NAME ADDRESS …`; False where that much is not there."""
        if len(words) < 3:
            return False
        self.servers.append(self._made(words[1], words[2], words[3:], line, variables))
        return True

    def template(self, words: Sequence[str], line: int, variables: Variables) -> bool:
        """`server-template PREFIX COUNT|LOW-HIGH ADDRESS …`; False where it cannot be one."""
        found = re.fullmatch(r"(?:(\d+)-)?(\d+)", words[2]) if len(words) > 3 else None
        if not found:
            return False
        low, high = int(found[1] or 1), int(found[2])
        if high - low >= MOST_SLOTS:
            self._note(f"{high - low + 1} slots; the first {MOST_SLOTS} are read")
            high = low + MOST_SLOTS - 1
        prefix, *_ = words[1:]
        slots = [
            self._made(f"{prefix}{number}", words[3], words[4:], line, variables, template=prefix)
            for number in range(low, high + 1)
        ]
        self.templates.append(Template(prefix, line, tuple(slots)))
        return True

    def _made(
        self,
        name: str,
        where: str,
        words: Sequence[str],
        line: int,
        variables: Variables,
        template: str | None = None,
    ) -> Server:
        said = dict(self.defaults)
        raw = self._read(words, line, said)
        settings = ServerSettings(**{name.replace("-", "_"): at for name, at in said.items()})
        return Server(name, line, address(in_address(where, variables)), settings, raw, template)

    def _read(self, words: Sequence[str], line: int, said: Said) -> tuple[str, ...]:
        """Puts what the words say into `said`; returns every other word."""
        raw: list[str] = []
        rest = iter(words)
        for word in rest:
            if word in SWITCHES:
                said[word] = At(True, line)
            elif word in OFF:
                said.pop(OFF[word], None)
            elif word in READ or word in TAKES_ONE:
                argument = next(rest, None)
                if word in READ and argument is not None:
                    self._value(word, argument, line, said)
                else:
                    raw += [word] if argument is None else [word, argument]
            else:
                raw.append(word)
        return tuple(raw)

    def _value(self, word: str, argument: str, line: int, said: Said) -> None:
        try:
            said[word] = At(READ[word](argument), line)
        except ValueError:
            self._note(f"`{word} {argument}` cannot be read")
