"""A plain tree, walked along the table: what its values mean, and every key that is wrong for itself."""

from __future__ import annotations

from typing import Any

from drainctl.config.kinds import Kind
from drainctl.config.problems import Path, Problem, found
from drainctl.config.shapes import Key, List, Names, Section, Shape


def take(holds: Shape, value: Any, at: Path, problems: list[Problem]) -> Any:
    """
    What the value at `at` means: a section is a dict of all its keys, those left out with their defaults.

    What is wrong is added to `problems`; the outcome is of no use then.
    """
    match holds, value:
        case Kind(), _:
            return _one(holds, value, at, problems)
        case Section(), dict():
            return _section(holds, value, at, problems)
        case Section(short=str(name)), str():
            return _section(holds, {}, at, problems) | {
                name: take(holds.keys[name].holds, value, at, problems)
            }
        case List(), list():
            _enough(holds, value, at, problems)
            return [take(holds.of, item, (*at, place), problems) for place, item in enumerate(value)]
        case Names(), dict():
            _enough(holds, value, at, problems)
            _names(holds, value, at, problems)
            return {name: take(holds.of, item, (*at, name), problems) for name, item in value.items()}
    problems.append(_wrong(at, value, _expected(holds)))
    return None


def _one(kind: Kind, value: Any, at: Path, problems: list[Problem]) -> Any:
    """One value; from the file it is a text, and a default may be a number."""
    try:
        if isinstance(value, str | int):
            return kind.read(value if isinstance(value, str) else str(value))
    except ValueError:
        pass
    problems.append(_wrong(at, value, kind.expected))
    return None


def _section(section: Section, tree: dict[str, Any], at: Path, problems: list[Problem]) -> dict[str, Any]:
    unknown = [name for name in tree if name not in section.keys]
    problems += [Problem((*at, name), _unknown(name, section), on_key=True) for name in unknown]
    return {name: _key(key, tree, (*at, name), problems) for name, key in section.keys.items()}


def _key(key: Key, tree: dict[str, Any], at: Path, problems: list[Problem]) -> Any:
    if key.name in tree:
        return take(key.holds, tree[key.name], at, problems)
    if key.needed:
        problems.append(Problem(at, f"found nothing, expected {_expected(key.holds)}"))
        return None
    if key.default is not None:
        return take(key.holds, key.default, at, problems)
    match key.holds:
        case List():
            return []
        case Names():
            return {}
    return None


def _enough(
    holds: List | Names, value: list[Any] | dict[str, Any], at: Path, problems: list[Problem]
) -> None:
    if len(value) < holds.least:
        problems.append(_wrong(at, value, "at least one"))


def _names(holds: Names, value: dict[str, Any], at: Path, problems: list[Problem]) -> None:
    for name in value:
        try:
            holds.name.read(name)
        except ValueError:
            text = f"found this name, expected {holds.name.expected}"
            problems.append(Problem((*at, name), text, on_key=True))


def _expected(holds: Shape) -> str:
    if isinstance(holds, Kind):
        return holds.expected
    return "a list" if isinstance(holds, List) else "keys below it"


def _wrong(at: Path, value: Any, expected: str) -> Problem:
    what = "***" if at[-1] == "auth" else found(value)
    return Problem(at, f"found {what}, expected {expected}")


def _unknown(name: str, section: Section) -> str:
    """A key of a later version, a typo with the nearest key there is, or all there are."""
    from difflib import get_close_matches

    if name in section.later:
        return "not available in this version"
    near = get_close_matches(name, section.keys, n=1)
    if near:
        return f"found an unknown key, expected {near[0]} (the nearest known one)"
    return f"found an unknown key, expected one of {', '.join(section.keys)}"
