"""The schema, walked: which sections and keys there are, for messages, docs and explanations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic.fields import FieldInfo

from drainctl.config.kinds import Kind
from drainctl.config.schema import File, Section


def keys(section: type[Section]) -> Iterator[tuple[str, FieldInfo]]:
    """The keys of a section, as the file spells them, in the order of the models."""
    for name, info in section.model_fields.items():
        yield info.alias or name, info


def kind_of(info: FieldInfo) -> Kind | None:
    """The kind of a key's value, or of the entries of its list; None for a section."""
    return next(_inside((*info.metadata, info.annotation), Kind), None)


def sections() -> dict[tuple[str, ...], type[Section]]:
    """Every section by where it stands; `*` is a name or a place in a list: `("nodes", "*")`."""
    return {(): File, **_below((), File)}


def section_at(path: tuple[str | int, ...]) -> type[Section] | None:
    """The section that stands at `path` of a file, or None."""
    for pattern, section in sections().items():
        if len(pattern) == len(path) and all(
            want in ("*", part) for want, part in zip(pattern, path, strict=True)
        ):
            return section
    return None


def _below(at: tuple[str, ...], section: type[Section]) -> dict[tuple[str, ...], type[Section]]:
    found: dict[tuple[str, ...], type[Section]] = {}
    for name, info in keys(section):
        for inner in _inside((info.annotation,), type):
            if issubclass(inner, Section):
                many = getattr(info.annotation, "__origin__", None) in (dict, list)
                path = (*at, name, "*") if many else (*at, name)
                found |= {path: inner, **_below(path, inner)}
    return found


def _inside(parts: tuple[Any, ...], wanted: type[Any]) -> Iterator[Any]:
    for part in parts:
        if isinstance(part, wanted) and not get_args(part):
            yield part
        yield from _inside(get_args(part), wanted)
