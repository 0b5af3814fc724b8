"""What a table of keys is made of: a key, the section it stands in, and what a key may hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from drainctl.config.kinds import Kind


class Key(NamedTuple):
    """
    One key. default: as the file would write it; None where nothing, or an empty list, is meant.
    examples: values as the file would write them.
    """

    name: str
    holds: Shape
    meaning: str
    default: Any = None
    needed: bool = False
    examples: tuple[Any, ...] = ()


class Section:
    """
    Some keys that stand together.

    meaning: what they are about. example: the section as a file may have it. short: a lone text stands for
    the value of this key. later: keys of the contract that this version does not act on. They are refused
    by name: a key that is read and not acted on would be a promise that nobody keeps. json: what its JSON
    Schema says besides its keys.
    """

    __slots__ = ("example", "json", "keys", "later", "meaning", "short")

    def __init__(
        self,
        meaning: str,
        example: str,
        *keys: Key,
        short: str | None = None,
        later: tuple[str, ...] = (),
        json: Mapping[str, Any] | None = None,
    ) -> None:
        self.meaning = meaning
        self.example = example
        self.keys = {key.name: key for key in keys}
        self.short = short
        self.later = later
        self.json = json or {}


class List(NamedTuple):
    """A list of values of one kind, of sections, or of lists."""

    of: Kind | Section | List
    least: int = 0


class Names(NamedTuple):
    """Values of one kind, or sections, under names of the user's own."""

    name: Kind
    of: Kind | Section
    least: int = 0


Shape = Kind | Section | List | Names


def sections(top: Section, at: tuple[str, ...] = ()) -> dict[tuple[str, ...], Section]:
    """A section and all below it, by where they stand; `*` is a name or a place: `("nodes", "*")`."""
    found = {at: top}
    for key in top.keys.values():
        match key.holds:
            case Section() as inner:
                found |= sections(inner, (*at, key.name))
            case List(of=Section() as inner) | Names(of=Section() as inner):
                found |= sections(inner, (*at, key.name, "*"))
    return found


def type_of(holds: Shape) -> str:
    """What a key holds, in words: `duration`, `list of names`, `names with keys`."""
    match holds:
        case Kind():
            return " or ".join(f"`{word}`" for word in holds.words) or holds.name
        case Section():
            return "keys"
        case List(of=inner):
            many = isinstance(inner, Kind) and not inner.words
            return f"list of {type_of(inner)}{'s' if many else ''}"
        case Names(of=inner):
            return f"names with {type_of(inner)}{'s' if isinstance(inner, Kind) else ''}"


def default_of(key: Key) -> str:
    """A key's default as the file would write it; "" where there is none."""
    if key.default in (None, {}):
        return ""
    return f"[{', '.join(map(str, key.default))}]" if isinstance(key.default, list) else str(key.default)


def title(path: tuple[str, ...]) -> str:
    """Where a section stands, in words: `nodes.NAME`, `warm[]`."""
    return ".".join("NAME" if part == "*" else part for part in path).replace("warm.NAME", "warm[]")
