"""
`.if`, `.elif`, `.else`, `.endif`: which lines count.

What a reader can know is evaluated: `defined()`, `streq()` and `strneq()` on its own environment, numbers,
`!`, `&&`, `||`, parentheses. What only HAProxy knows (`feature()`, `version_atleast()`, `enabled()`, …) is
neither true nor false: then the lines of both sides count, and a note says so.
Source: HAProxy configuration.txt, "2.4. Conditional blocks".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from drainctl.haproxy_cfg.model import Note
from drainctl.haproxy_cfg.words import OWN, Variables

_PART = re.compile(r"\s*(&&|\|\||!|\(|\)|-?\d+(?![\w.])|[A-Za-z_]\w*)")
_NESTING = 64  # HAProxy's own limit for parentheses is lower


@dataclass(slots=True)
class _Level:
    """active: its lines count now. settled: a side that surely counts was there, so no other one can."""

    active: bool
    settled: bool
    outer: bool


class Blocks:
    """Fed with every line in turn; `active` says whether it counts."""

    def __init__(self, variables: Variables) -> None:
        self.notes: list[Note] = []
        self._variables = variables
        self._levels: list[_Level] = []

    @property
    def active(self) -> bool:
        return not self._levels or self._levels[-1].active

    @staticmethod
    def directive(text: str) -> bool:
        """Whether a line is one that this class reads."""
        return bool(re.match(r"\s*\.(if|elif|else|endif|notice|warning|alert|diag)\b", text))

    def take(self, words: Sequence[str], line: int) -> None:
        """One directive. One without its `.if` is no error here: HAProxy would not start with it."""
        kind, condition = words[0], " ".join(words[1:])
        if kind == ".if":
            self._levels.append(_Level(active=False, settled=False, outer=self.active))
        if not self._levels or kind not in (".if", ".elif", ".else", ".endif"):
            return
        level = self._levels[-1]
        if kind == ".endif":
            self._levels.pop()
        elif not level.outer or level.settled:
            level.active = False
        else:
            holds = True if kind == ".else" else holds_true(condition, self._variables)
            if holds is None:
                text = f"`{kind} {condition}`: only HAProxy knows; the lines of both sides are read"
                self.notes.append(Note(line, text))
            level.active = holds is not False
            level.settled = holds is True


def holds_true(condition: str, variables: Variables) -> bool | None:
    """Whether a condition holds; None where only HAProxy knows, or where it cannot be read."""
    if not condition.strip():
        return False
    try:
        reader = _Reader(condition, variables)
        found = reader.either()
        return found if reader.at_end else None
    except ValueError:
        return None


class _Reader:
    """Recursive descent; `!` binds tighter than `&&`, and that tighter than `||`."""

    def __init__(self, text: str, variables: Variables) -> None:
        self._text = text
        self._at = 0
        self._depth = 0
        self._variables = variables

    @property
    def at_end(self) -> bool:
        return not self._text[self._at :].strip()

    def either(self) -> bool | None:
        found = self._both()
        while self._next("||"):
            found = _or(found, self._both())
        return found

    def _both(self) -> bool | None:
        found = self._one()
        while self._next("&&"):
            other = self._one()
            found = _not(_or(_not(found), _not(other)))
        return found

    def _one(self) -> bool | None:
        part = self._take()
        if part in ("!", "("):
            self._depth += 1
            if self._depth > _NESTING:
                raise ValueError("nested too deeply")
            if part == "!":
                return _not(self._one())
            found = self.either()
            if not self._next(")"):
                raise ValueError("no closing parenthesis")
            return found
        if part.lstrip("-").isdigit():
            return int(part) != 0
        return self._predicate(part, self._arguments())

    def _predicate(self, name: str, arguments: list[str]) -> bool | None:
        match name, arguments:
            case "defined", [variable]:
                return self._defined(variable)
            case "streq", [one, other]:
                return one == other
            case "strneq", [one, other]:
                return one != other
        return None

    def _defined(self, name: str) -> bool | None:
        if self._variables.get(name) is not None:
            return True
        if name.startswith(OWN):
            return None
        self._variables.missing[self._variables.line, name] = None
        return False

    def _arguments(self) -> list[str]:
        found = re.compile(r"\(([^()]*)\)").match(self._text, self._at)
        if not found:
            return []
        self._at = found.end()
        return [argument.strip() for argument in found[1].split(",")]

    def _take(self) -> str:
        found = _PART.match(self._text, self._at)
        if not found:
            raise ValueError("no condition")
        self._at = found.end()
        return found[1]

    def _next(self, part: str) -> bool:
        found = _PART.match(self._text, self._at)
        if found is None or found[1] != part:
            return False
        self._at = found.end()
        return True


def _or(one: bool | None, other: bool | None) -> bool | None:
    if one or other:
        return True
    return False if one is False and other is False else None


def _not(one: bool | None) -> bool | None:
    return None if one is None else not one
