"""`${VAR}` in the values of drainctl.yml: from the environment only, and never shown again."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Self

VARIABLE = r"\$(\$)\{|\$\{([^}]*)(\}?)"
NAME = r"[A-Za-z_][A-Za-z0-9_]*"


class Expanded(str):
    """A text with values from the environment in it; its repr is what the file says. `shown` is that text."""

    __slots__ = ("shown",)
    shown: str

    def __new__(cls, value: str, shown: str = "***") -> Self:
        text = super().__new__(cls, value)
        text.shown = shown
        return text

    def __repr__(self) -> str:
        return repr(self.shown)


def shown(text: str) -> str:
    """The text as it may be printed: with `${VAR}` where a value from the environment stands."""
    return text.shown if isinstance(text, Expanded) else text


def change(text: str, how: Callable[[str], str]) -> str:
    """`how(text)`; what may be printed of it is `how` of what may be printed of `text`."""
    return Expanded(how(text), how(text.shown)) if isinstance(text, Expanded) else how(text)


def expand(text: str, environ: Mapping[str, str]) -> tuple[str, str | None]:
    """
    The text with each `${VAR}` replaced, `$${` being a literal `${`; and what is wrong, or None.

    Where something is wrong the text comes back as it was.
    """
    if "${" not in text:
        return text, None
    wrong = next((fault for found in re.finditer(VARIABLE, text) if (fault := _fault(found, environ))), None)
    if wrong:
        return text, wrong
    value = re.sub(VARIABLE, lambda found: "${" if found[1] else environ[found[2]], text)
    if all(found[1] for found in re.finditer(VARIABLE, text)):
        return value, None
    return Expanded(value, text), None


def _fault(found: re.Match[str], environ: Mapping[str, str]) -> str | None:
    if found[1]:
        return None
    if not found[3] or not re.fullmatch(NAME, found[2]):
        return (
            f"found {found[0]}, expected ${{NAME}} with letters, digits and _ ($${{ stands for a literal ${{)"
        )
    if found[2] not in environ:
        return f"found {found[0]}, which is not set in the environment, expected a value"
    return None
