"""
The door: a haproxy.cfg's text, or a file, to what it says.

Nothing is an error here but a file that cannot be opened: HAProxy judges its configuration itself. A line
that is not known is kept as it is, a value that cannot be read is noted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, cast

from drainctl.errors import ConfigError
from drainctl.haproxy_cfg import model
from drainctl.haproxy_cfg.conditions import Blocks
from drainctl.haproxy_cfg.globals import global_line
from drainctl.haproxy_cfg.model import At, HaproxyCfg, Note, Raw
from drainctl.haproxy_cfg.scope import Scope
from drainctl.haproxy_cfg.server import Servers
from drainctl.haproxy_cfg.values import address
from drainctl.haproxy_cfg.words import Variables, in_address, split

PROXIES = ("frontend", "backend", "listen")
SECTIONS = (
    "global", "defaults", *PROXIES, "peers", "resolvers", "userlist", "mailers", "program", "ring", "cache",
    "http-errors", "fcgi-app", "log-forward", "log-profile", "crt-store", "acme", "traces",
)  # fmt: skip
NOTHING: Mapping[str, str] = MappingProxyType({})


def read_file(path: str, environ: Mapping[str, str] = os.environ) -> HaproxyCfg:
    """The same for a file, called by its path. Raises: ConfigError where it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:  # noqa: PTH123  # pathlib costs start-up
            text = file.read()
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        hint = (
            "HAProxy's files are often root's: sudo, or a copy that you may read"
            if error.errno == 13
            else None
        )
        raise ConfigError(f"{path}: {why}", hint=hint) from None
    return read_cfg(text, path, environ)


def read_cfg(text: str, name: str = "haproxy.cfg", environ: Mapping[str, str] = NOTHING) -> HaproxyCfg:
    """
    What a configuration says.

    Args:
        text: one whole file.
        name: how messages call it, as in `haproxy.cfg:41`.
        environ: HAProxy's environment, as far as it is known.
    """
    variables = Variables(environ, name)
    blocks = Blocks(variables)
    reader = _Reader(variables)
    for number, line in enumerate(text.split("\n"), 1):
        variables.line = number
        if blocks.directive(line):
            blocks.take(split(line, variables, strict=True), number)
        elif blocks.active and (words := split(line, variables)):
            reader.take(words, number)
    return reader.cfg(name, blocks.notes)


@dataclass(slots=True)
class _Open:
    """A section while it is read. take: what one of its lines goes to."""

    kind: str
    name: str
    line: int
    scope: Scope
    servers: Servers
    base: int | str | None = None
    raw: list[Raw] = field(default_factory=list)
    binds: list[At[model.Address]] = field(default_factory=list)
    default_backend: At[str] | None = None
    use_backends: list[At[str]] = field(default_factory=list)


class _Reader:
    """Lines to sections. A defaults section stays in force until the next one, or is called by its name."""

    def __init__(self, variables: Variables) -> None:
        self._variables = variables
        self._notes: list[Note] = []
        self._global = model.Global()
        self._open: _Open | None = None
        self._defaults: list[_Open] = []
        self._done: list[_Open] = []

    def take(self, words: tuple[str, ...], line: int) -> None:
        if words[0] in SECTIONS:
            self._begin(words, line)
        elif self._open is None:
            self._note("stands before any section")
        elif self._open.kind == "global":
            if not self._variables.change(words):
                self._global = global_line(self._global, words, line, self._variables, self._note)
        elif self._open.kind in ("defaults", *PROXIES):
            if not self._proxy_line(self._open, words, line):
                self._open.raw.append(Raw(line, words))
        else:
            self._open.raw.append(Raw(line, words))

    def _begin(self, words: tuple[str, ...], line: int) -> None:
        kind, name = words[0], words[1] if len(words) > 1 and words[1] != "from" else ""
        self._variables.section = name or kind
        base = self._base(kind, words)
        scope = Scope(self._note, base.scope if base else None)
        servers = Servers(scope.default_server, self._note)
        section = _Open(kind, name, line, scope, servers)
        if base is not None:
            section.base = base.name if kind == "defaults" else base.line
        if kind == "defaults":
            self._defaults.append(section)
        if kind == "global":
            self._global = replace(self._global, line=self._global.line or line)
        else:
            self._done.append(section)
        self._open = section

    def _base(self, kind: str, words: tuple[str, ...]) -> _Open | None:
        """The defaults section that a section takes over: `from NAME`, else, for a proxy, the last one."""
        if kind not in ("defaults", *PROXIES):
            return None
        wanted = words[words.index("from") + 1 :] if "from" in words[1:] else ()
        if wanted:
            named = [section for section in self._defaults if section.name == wanted[0]]
            if not named:
                self._note(f"no defaults section is named {wanted[0]}")
            return named[-1] if named else None
        return self._defaults[-1] if kind != "defaults" and self._defaults else None

    def _proxy_line(self, section: _Open, words: tuple[str, ...], line: int) -> bool:
        match words:
            case ("default-server", *_):
                section.servers.default(words, line)
                section.scope.default_server = section.servers.defaults
                return True
            case ("server", *_):
                return section.servers.server(words, line, self._variables)
            case ("server-template", *_):
                return section.servers.template(words, line, self._variables)
            case ("bind", where, *_):
                for text in where.split(","):
                    section.binds.append(At(address(in_address(text, self._variables)), line))
                return True
            case ("default_backend", name, *_):
                section.default_backend = At(name, line)
                return True
            case ("use_backend", name, *_):
                section.use_backends.append(At(name, line))
                return True
        return section.scope.take(words, line)

    def _note(self, text: str) -> None:
        self._notes.append(Note(self._variables.line, text))

    # ------------------------------------------------------------ the end

    def cfg(self, name: str, notes: list[Note]) -> HaproxyCfg:
        for line, variable in self._variables.missing:
            self._notes.append(Note(line, f"{variable} is not set here; HAProxy's environment may have it"))
        proxies = [section for section in self._done if section.kind in PROXIES]
        for section in proxies:
            self._lost_request(section)
        self._twice(proxies)
        return HaproxyCfg(
            name,
            self._global,
            tuple(_defaults(section) for section in self._defaults),
            tuple(_proxy(section) for section in proxies),
            tuple(
                model.Section(section.kind, section.name, section.line, tuple(section.raw))
                for section in self._done
                if section.kind not in ("defaults", *PROXIES)
            ),
            tuple(sorted({*self._notes, *notes}, key=lambda note: (note.line, note.text))),
        )

    def _lost_request(self, section: _Open) -> None:
        line = section.scope.check.lost_request
        if line is not None and section.kind != "frontend":
            text = (
                f"these `http-check` rules replace those of the defaults section, its request included: the "
                f"checks of {section.name} ask nothing; repeat `option httpchk` in {section.name}"
            )
            self._notes.append(Note(line, text))

    def _twice(self, proxies: list[_Open]) -> None:
        seen: dict[tuple[bool, str], int] = {}
        for section in proxies:
            first = seen.setdefault((section.kind == "frontend", section.name), section.line)
            if first != section.line:
                self._notes.append(
                    Note(section.line, f"{section.kind} {section.name} is also in line {first}")
                )


def _defaults(section: _Open) -> model.Defaults:
    base = section.base if isinstance(section.base, str) else None
    return model.Defaults(section.name, section.line, base, section.scope.settings(), tuple(section.raw))


def _proxy(section: _Open) -> model.Proxy:
    return model.Proxy(
        kind=cast("Literal['frontend', 'backend', 'listen']", section.kind),
        name=section.name,
        line=section.line,
        settings=section.scope.settings(),
        defaults=section.base if isinstance(section.base, int) else None,
        binds=tuple(section.binds),
        default_backend=section.default_backend,
        use_backends=tuple(section.use_backends),
        servers=tuple(section.servers.servers),
        templates=tuple(section.servers.templates),
        raw=tuple(section.raw),
    )
