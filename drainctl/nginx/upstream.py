"""
The upstream file: the one file of nginx's configuration that drainctl writes, and reads back.

It says which of the app's addresses serves, and by a variable which generation the answering worker was
started with. Its first line is the mark by which drainctl knows its own file; a file without it is somebody
else's, and is replaced only when a person says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from drainctl.errors import ConfigError
from drainctl.nginx.parse import Directive, parse, walk

State = Literal["live", "down", "backup"]

_MARK = "# drainctl upstream {upstream} generation {generation}: written by drainctl, edits here are lost"
_MARKED = re.compile(r"# drainctl upstream (\S+) generation (\S+): written by drainctl\b")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_GENERATION = re.compile(r"[A-Za-z0-9_.:+-]+")
_ADDRESS = re.compile(r"[A-Za-z0-9_.:/@\[\]+-]+")
# Source: nginx, ngx_http_upstream_module, "server".
_WORDS = {"down", "backup", "resolve", "drain"}
_SETTINGS = {"weight", "max_conns", "max_fails", "fail_timeout", "slow_start", "route", "service"}


class Server(NamedTuple):
    """One server of an upstream: `host:port` or `unix:/path`, and whether it takes requests."""

    address: str
    state: State


class Found(NamedTuple):
    """What an upstream file says. generation is None in a file that drainctl did not write."""

    ours: bool
    generation: str | None
    servers: tuple[Server, ...]


def variable(upstream: str) -> str:
    """The variable that holds the generation, without its `$`; each upstream has one of its own."""
    return "drainctl_generation_" + re.sub(r"\W", "_", upstream, flags=re.ASCII)


def render(upstream: str, servers: Sequence[Server], generation: str, *, template: str | None = None) -> str:
    """
    The whole text of the upstream file.

    Args:
        upstream: the block's name.
        servers: exactly one is live.
        generation: RELEASE:PORT; what `variable(upstream)` is to say.
        template: path of the user's own template on this machine; nginx/upstream.conf.j2 says what it may
            use. The mark is put before it.
    Raises: ConfigError for a value that nginx would not read as one word, or a template that cannot be
        filled in or does not come out as these servers; ValueError unless exactly one server is live.
    """
    for what, value, wanted in (
        ("nginx.upstream", upstream, _NAME),
        ("generation", generation, _GENERATION),
        *(("address", server.address, _ADDRESS) for server in servers),
    ):
        if not wanted.fullmatch(value):
            raise ConfigError(f"{what} = {value!r} is no single word of an nginx configuration")
    if [server.state for server in servers].count("live") != 1:
        raise ValueError(f"one server must be live: {servers}")
    values: dict[str, object] = {
        "upstream": upstream,
        "servers": tuple(servers),
        "generation": generation,
        "variable": variable(upstream),
    }
    mark = _MARK.format(upstream=upstream, generation=generation) + "\n"
    if template is None:
        from drainctl import templates

        return mark + templates.render("nginx/upstream.conf.j2", **values)
    text = mark + _own(template, values)
    _prove(text, template, upstream, servers)
    return text


def read(text: str, upstream: str, *, name: str) -> Found:
    """
    What an upstream file says about one upstream.

    Args:
        text: the whole file.
        upstream: the block that is looked for, at the file's top level (nginx includes it in `http`).
        name: what messages call the file.
    Raises: ConfigError, with the line, when the text cannot be parsed, the block is missing or there twice,
        a part of it is in another file, or a server is written in a way that is not known here.
    """
    directives = parse(text, name)
    for one, _ in walk(directives):
        if one.name == "include":
            raise ConfigError(
                f"{one.at}: `{one}`: what it brings in cannot be seen from here; "
                f"expected all of upstream {upstream} in {name} itself"
            )
    block = _block(directives, upstream, name)
    servers = tuple(_server(one) for one in block.inside if one.name == "server")
    if not servers:
        raise ConfigError(f"{block.at}: upstream {upstream} has no server; expected at least one")
    marked = _MARKED.match(text)
    ours = marked is not None and marked[1] == upstream
    return Found(ours, marked[2] if marked and ours else None, servers)


def live(found: Found) -> str | None:
    """The address that serves; None where none does, or several share the requests."""
    serving = [server.address for server in found.servers if server.state == "live"]
    return serving[0] if len(serving) == 1 else None


def diff(old: str, new: str, name: str) -> str:
    """What taking over a file changes in it: a unified diff, "" where nothing does."""
    from difflib import unified_diff

    shown = unified_diff(
        old.splitlines(), new.splitlines(), f"{name} (now)", f"{name} (drainctl)", lineterm=""
    )
    return "".join(f"{line}\n" for line in shown)


def _own(template: str, values: dict[str, object]) -> str:
    from jinja2 import Environment, StrictUndefined, TemplateError, TemplateSyntaxError

    environment = Environment(  # noqa: S701  configuration files, not HTML: escaping would break them
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    try:
        return environment.from_string(Path(template).read_text(encoding="utf-8")).render(**values)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"nginx.template: {template} cannot be read: {reason}") from error
    except TemplateSyntaxError as error:
        raise ConfigError(f"{template}:{error.lineno}: {error.message}") from error
    except TemplateError as error:
        raise ConfigError(
            f"{template}: {error.message}",
            hint="a template may use: upstream, servers (address, state), generation, variable",
        ) from error


def _prove(text: str, template: str, upstream: str, servers: Sequence[Server]) -> None:
    """A template of one's own may lay the file out as it likes, but must send requests where it is told."""
    found = read(text, upstream, name=f"{template}, filled in")
    wanted = next(server.address for server in servers if server.state == "live")
    if live(found) != wanted:
        raise ConfigError(f"{template}: filled in, {live(found) or 'no single server'} serves, not {wanted}")
    if not any(one.args[:2] == ("", f"${variable(upstream)}") for one in parse(text, template)):
        raise ConfigError(
            f'{template}: no `map "" ${variable(upstream)}`: without it nobody can tell when nginx serves '
            "with the new file",
            hint='add: map "" ${{ variable }} { default "{{ generation }}"; }',
        )


def _block(directives: Sequence[Directive], upstream: str, name: str) -> Directive:
    blocks = [one for one in directives if one.name == "upstream"]
    named = [one for one in blocks if one.args == (upstream,)]
    if len(named) > 1:
        raise ConfigError(
            f"{named[1].at}: a second upstream {upstream}, the first is in line {named[0].line}; expected one"
        )
    if not named:
        others = ", ".join(f"upstream {' '.join(one.args)} in line {one.line}" for one in blocks)
        raise ConfigError(
            f"{name}:1: no upstream {upstream} at the top level of this file; found {others or 'none'}",
            hint="nginx.file is a file of its own, included in nginx's http block, that holds the upstream",
        )
    return named[0]


def _server(one: Directive) -> Server:
    address, *words = one.args or ("",)
    known = [word for word in words if word in _WORDS or word.partition("=")[0] in _SETTINGS]
    strange = [word for word in words if word not in known]
    if not _ADDRESS.fullmatch(address) or strange or one.block is not None:
        what = f"`{strange[0]}`" if strange else "this"
        raise ConfigError(
            f"{one.at}: `{one}`: {what} is not understood; expected `server ADDRESS`, then nothing but "
            f"{', '.join(sorted(_WORDS))} or NAME=VALUE, then a semicolon"
        )
    state: State = "down" if {"down", "drain"} & set(words) else "backup" if "backup" in words else "live"
    return Server(address, state)
