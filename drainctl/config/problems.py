"""One thing that is wrong in drainctl.yml, and how a key and a value are written in its message."""

from __future__ import annotations

import re
from typing import NamedTuple

from drainctl.config.expand import shown

Path = tuple[str | int, ...]

LONGEST = 60


class Problem(NamedTuple):
    """
    What is wrong at `key` (a path from the root, list places counted from 0).

    text: "found X, expected Y". on_key: it is about the key itself, so it is shown where the key stands.
    at: line and column, where those of the key are not the right ones.
    """

    key: Path
    text: str
    on_key: bool = False
    at: tuple[int, int] | None = None


def dotted(key: Path) -> str:
    """`("warm", 0, "get")` as a message writes it: `warm[0].get`, on one line whatever the keys are."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{_plain(part)}" for part in key)
    return "".join(parts).removeprefix(".")


def _plain(part: str) -> str:
    return part if part.isprintable() else repr(part)


def found(value: object) -> str:
    """
    A value of the tree in the words of a message: on one line, cut at 60 characters.

    What came from the environment is never shown, and neither is a password inside a URL.
    """
    match value:
        case None:
            return "nothing"
        case dict():
            return "a mapping" if value else "an empty mapping"
        case list():
            return "a list" if value else "an empty list"
    text = re.sub(r"//.*@", "//***@", shown(value) if isinstance(value, str) else str(value))
    if len(text) > LONGEST:
        text = text[: LONGEST - 1] + "…"
    return text if text.isprintable() and text.strip() == text != "" else repr(text)
