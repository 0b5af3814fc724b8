"""
What a check asks: `option httpchk`, the other check options, and `http-check` rules with their inheritance.

A section's own `option httpchk` or `http-check` connect, send and expect rules begin a list of its own, which
replaces that of its defaults section whole, the request included. `disable-on-404` and `send-state` are
no rules but switches, and add up. Measured with 2.6 and 2.8; tests/real/test_haproxy_cfg.py repeats it.
Source: HAProxy configuration.txt, "option httpchk", "http-check send", "http-check connect".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

from drainctl.haproxy_cfg.model import At, HttpCheck

KINDS = (
    "tcp-check", "httpchk", "ssl-hello-chk", "smtpchk", "mysql-check", "pgsql-check", "redis-check",
    "ldap-check", "spop-check", "external-check",
)  # fmt: skip
Words = tuple[str, ...]


@dataclass(slots=True)
class Rules:
    """One list of rules: the request of `option httpchk`, then the `http-check` rules in order."""

    request: At[Words] | None = None
    steps: list[At[Words]] = field(default_factory=list)

    def of(self, kind: str) -> list[At[Words]]:
        return [step for step in self.steps if step.value[0] == kind]


class Check:
    """The check of one section while it is read. `kind`, `disable_on_404` and `send_state` are inherited."""

    def __init__(self, inherited: Check | None = None) -> None:
        self.kind: At[str] | None = inherited.kind if inherited else None
        self.disable_on_404: At[bool] | None = inherited.disable_on_404 if inherited else None
        self.send_state: At[bool] | None = inherited.send_state if inherited else None
        self._own = Rules()
        self._used: Rules | None = inherited._used if inherited else None  # noqa: SLF001  # another of this class

    def option(self, words: Words, line: int) -> None:
        """`option httpchk …` or another of KINDS; the last one counts."""
        self.kind = At(words[1], line)
        if words[1] == "httpchk":
            self._own.request = At(words[2:], line)
            self._used = self._own

    def rule(self, words: Words, line: int) -> None:
        """`http-check …`."""
        match words[1:2]:
            case ("disable-on-404",):
                self.disable_on_404 = At(True, line)
            case ("send-state",):
                self.send_state = At(True, line)
            case (_, *_):
                self._own.steps.append(At(words[1:], line))
                if self.kind is not None and self.kind.value == "httpchk":
                    self._used = self._own

    @property
    def expect(self) -> tuple[At[str], ...]:
        """The `http-check expect` rules that count, each as text."""
        used = self._used or Rules()
        return tuple(At(" ".join(step.value[1:]), step.line) for step in used.of("expect"))

    @property
    def lost_request(self) -> int | None:
        """The line of the rule that replaced an inherited request with nothing; else None."""
        if self.kind is None or self.kind.value != "httpchk" or self.request is not None:
            return None
        return self._own.steps[0].line if self._own.steps else None

    @property
    def request(self) -> HttpCheck | None:
        """The first request; None where nothing is asked."""
        if self.kind is None or self.kind.value != "httpchk" or self._used is None:
            return None
        used, sends = self._used, self._used.of("send")
        if used.request is None and not sends:
            return None
        said = _request(used.request)
        if sends:
            sent = _pairs(sends[0], {"meth": "method", "uri": "uri", "uri-lf": "uri"}) | _host(sends[0])
            later = used.request is None or sends[0].line > used.request.line
            said = said | sent if later else sent | said  # word by word, the later line counts
        first = used.request or sends[0]
        connect = used.of("connect")
        where = _pairs(connect[0], {"port": "port", "addr": "addr"}) if connect else {}
        port = where.get("port")
        with_tls = [step for step in connect[:1] if "ssl" in step.value]
        return HttpCheck(
            line=first.line,
            method=said.get("method", At("OPTIONS", first.line)),
            uri=said.get("uri", At("/", first.line)),
            host=said.get("host"),
            port=At(int(port.value), port.line) if port and port.value.isdigit() else None,
            addr=where.get("addr"),
            ssl=At(True, with_tls[0].line) if with_tls else None,
            requests=max(1, len(sends)),
        )


def _request(option: At[Words] | None) -> dict[str, At[str]]:
    """The words after `option httpchk`: nothing, a URI, or method, URI and version."""
    if option is None or not option.value:
        return {}
    words = option.value
    names = ("uri",) if len(words) == 1 else ("method", "uri")
    found = {name: At(word, option.line) for name, word in zip(names, words, strict=False)}
    if len(words) > 2 and (host := _old_host(" ".join(words[2:]))):
        found["host"] = At(host, option.line)
    return found


def _old_host(version: str) -> str | None:
    """The Host header that used to be hidden behind the version, after an escaped line end."""
    lines = [line.partition(":") for line in version.split("\r\n")[1:]]
    return next((text.strip() for name, _, text in lines if name.strip().lower() == "host"), None)


def _pairs(step: At[Words], names: dict[str, str]) -> dict[str, At[str]]:
    """The words that follow some names in a rule."""
    return {names[name]: At(word, step.line) for name, word in pairwise(step.value) if name in names}


def _host(send: At[Words]) -> dict[str, At[str]]:
    words = send.value
    hosts = [words[place + 2] for place, word in enumerate(words[:-2]) if _names_host(word, words[place + 1])]
    return {"host": At(hosts[0], send.line)} if hosts else {}


def _names_host(word: str, after: str) -> bool:
    return word == "hdr" and after.lower() == "host"
