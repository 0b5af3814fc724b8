"""`drainctl explain KEY`: what the table says of one key or section, for reading in a terminal."""

from __future__ import annotations

import re
from inspect import cleandoc
from textwrap import fill, indent

from drainctl.config.kinds import Kind
from drainctl.config.schema import FILE
from drainctl.config.shapes import Key, Section, default_of, sections, title, type_of
from drainctl.errors import ConfigError

WIDTH = 78


def explain(key: str) -> str:
    """
    What a key is for, its type, its default and an example; of a section, its keys.

    Args:
        key: as messages and the reference write it. A name or a place may stand where they have one, or be
            left out: `nodes.web1.host`, `nodes.NAME.host`, `nodes.host`; `warm[0].get`, `warm.get`. "" is
            the whole file.
    Raises: ConfigError for a key that there is not, with the nearest one.
    """
    path = tuple(re.findall(r"[^.\[\]]+", key))
    there = sections(FILE)
    for at, section in there.items():
        for known in section.keys.values():
            if _fits(path, (*at, known.name)):
                return _key((*at, known.name), known, there)
        if _fits(path, at):
            return f"{title(at) or 'drainctl.yml'}\n{_section(section)}"
    raise ConfigError(_unknown(key, path, there), hint="`drainctl explain` alone lists the keys")


def _fits(path: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    """Whether a path is that of a pattern, with or without what stands for its `*`."""
    exact = len(path) == len(pattern) and all(
        want in ("*", part) for want, part in zip(pattern, path, strict=True)
    )
    return exact or path == _bare(pattern)


def _bare(pattern: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(part for part in pattern if part != "*")


def _key(path: tuple[str, ...], key: Key, there: dict[tuple[str, ...], Section]) -> str:
    holds = key.holds
    about = [
        ("type", holds.expected if isinstance(holds, Kind) else type_of(holds)),
        ("default", "none, it is needed" if key.needed else default_of(key) or "none"),
    ]
    below = next((at for at in (path, (*path, "*")) if at in there), None)
    if not below:
        example = key.examples[0] if key.examples else key.default
        about.append(("example", f"{key.name}: {_written(example)}"))
    lines = [title(path), _wrapped(key.meaning), *(f"  {name + ':':<10}{what}" for name, what in about)]
    if below:
        lines += ["", *([] if below == path else [title(below)]), _section(there[below])]
    return "\n".join(lines)


def _section(section: Section) -> str:
    keys = section.keys.values()
    rows = [f"    {key.name:<12}{type_of(key.holds)}{', needed' if key.needed else ''}" for key in keys]
    example = indent(cleandoc(section.example), "    ")
    return "\n".join([_wrapped(section.meaning), "  keys:", *rows, "  example:", example])


def _wrapped(text: str) -> str:
    return indent(fill(" ".join(text.split()), WIDTH, break_on_hyphens=False), "  ")


def _written(value: object) -> str:
    """A value of the table as a line of YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {item}" for name, item in value.items()) + "}"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, list) else str(value)


def _unknown(key: str, path: tuple[str, ...], there: dict[tuple[str, ...], Section]) -> str:
    from difflib import get_close_matches

    if any(_fits(path, (*at, name)) for at, section in there.items() for name in section.later):
        return f"{key}: not available in this version"
    known = {
        ".".join(_bare((*at, name))): (*at, name) for at, section in there.items() for name in section.keys
    }
    near = get_close_matches(".".join(path), known, n=1)
    if not near:
        return f"{key}: found no such key, expected one of {', '.join(FILE.keys)}"
    return f"{key}: found no such key, expected {title(known[near[0]])} (the nearest known one)"
