"""
drainctl.yml to a Cluster, or one error with every problem of the file.

A problem is one line, `file:line:column: key: found X, expected Y`, and the lines are in the file's order.
The rules of timing and capacity (`rollout.rules`) are about the whole, so they are judged as soon as every
key can be read for itself. Nothing is adjusted: what does not hold is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

from drainctl.config import schema, walk
from drainctl.config.build import build
from drainctl.config.check import check
from drainctl.config.expand import expand
from drainctl.config.kinds import Kind
from drainctl.config.problems import Path, Problem, dotted, found
from drainctl.config.read import Document, Mark, read
from drainctl.errors import ConfigError
from drainctl.model import Cluster


def load(path: str, environ: Mapping[str, str] = os.environ) -> Cluster:
    """
    The Cluster that a drainctl.yml describes; nothing but the file is touched.

    Args:
        path: of the file; relative paths in it are relative to its folder, `~` is the home folder.
        environ: what `${VAR}` may name, and XDG_STATE_HOME for the default store.
    Raises: ConfigError, exit code 2: one line per problem, all of them, without any value of `environ`.
    """
    document = read(path)
    if not isinstance(document.tree, dict):
        line, column = document.where(())
        needed = ", ".join(name for name, info in walk.keys(schema.File) if info.is_required())
        raise ConfigError(f"{path}:{line}:{column}: found {found(document.tree)}, expected keys: {needed}, …")
    problems: list[Problem] = []
    tree = _expanded(document.tree, (), environ, problems)
    file, wrong = _validated(tree)
    for group in (wrong, list(check(tree))):  # a value that cannot be read is not judged further
        known = {problem.key for problem in problems}
        problems += [problem for problem in group if problem.key not in known]
    problems += document.problems
    if file:
        cluster = build(file, path, environ)
        problems += _rules(cluster, document)
        if not problems:
            return cluster
    raise ConfigError(_message(document, problems))


def _expanded(value: Any, at: Path, environ: Mapping[str, str], problems: list[Problem]) -> Any:
    """The tree with every `${VAR}` replaced; what could not be is a problem, and stays."""
    match value:
        case dict():
            return {name: _expanded(item, (*at, name), environ, problems) for name, item in value.items()}
        case list():
            return [_expanded(item, (*at, place), environ, problems) for place, item in enumerate(value)]
        case str():
            text, wrong = expand(value, environ)
            if wrong:
                problems.append(Problem(at, wrong))
            return text
    return value


def _validated(tree: Mapping[str, Any]) -> tuple[schema.File | None, list[Problem]]:
    """The models, or None and a problem for every key that is wrong for itself."""
    try:
        return schema.File.model_validate(tree), []
    except ValidationError as error:
        found_wrong = error.errors(include_url=False, include_input=False)
        return None, [
            _problem(tree, wrong["loc"], wrong["type"], wrong.get("ctx", {})) for wrong in found_wrong
        ]


EXPECTED = {
    "model_type": "keys below it",
    "model_attributes_type": "keys below it",
    "dict_type": "keys below it",
    "list_type": "a list",
    "too_short": "at least one",
}


def _problem(tree: Mapping[str, Any], loc: Path, kind: str, context: Mapping[str, Any]) -> Problem:
    """One error of pydantic in our words."""
    if loc[-1] == "[key]":
        return Problem(loc[:-1], f"found this name, expected {context['expected']}", on_key=True)
    at = _there(tree, loc)
    if kind == "extra_forbidden":
        return Problem(at, _unknown(at), on_key=True)
    if kind == "missing":
        return Problem(at, f"found nothing, expected {_expected(at)}")
    value = "***" if at[-1] == "auth" else found(_value(tree, at))
    later = ", which is not available in this version" if context.get("later") else ""
    expected = EXPECTED.get(kind) or context.get("expected") or kind
    return Problem(at, f"found {value}{later}, expected {expected}")


def _there(tree: Any, loc: Path) -> Path:
    """`loc` as far as it goes in the tree: a flag that is a path has no key `path` below it."""
    for length, part in enumerate(loc):
        if not isinstance(tree, dict | list):
            return loc[:length]
        tree = _value(tree, (part,))
    return loc


def _value(tree: Any, at: Path) -> Any:
    for part in at:
        if isinstance(tree, dict):
            tree = tree.get(str(part))
        elif isinstance(tree, list):
            tree = tree[int(part)]
    return tree


def _unknown(at: Path) -> str:
    """A key of a later version, a typo with the nearest key there is, or all there are."""
    if at in schema.LATER:
        return "not available in this version"
    section = walk.section_at(at[:-1])
    known = [name for name, _ in walk.keys(section)] if section else []
    near = get_close_matches(str(at[-1]), known, n=1)
    if near:
        return f"found an unknown key, expected {near[0]} (the nearest known one)"
    return f"found an unknown key, expected one of {', '.join(known)}"


def _expected(at: Path) -> str:
    """What a key that is not there should hold."""
    section = walk.section_at(at[:-1])
    info = next(info for name, info in walk.keys(section or schema.File) if name == at[-1])
    return next((part.expected for part in info.metadata if isinstance(part, Kind)), "keys below it")


def _rules(cluster: Cluster, document: Document) -> Iterable[Problem]:
    from drainctl.rollout.rules import problems

    return [Problem(_path(key, document), text) for key, text in problems(cluster)]


def _path(key: str, document: Document) -> Path:
    """A rule's dotted key as a path: as the file has it where it does, since a name may have dots."""
    known = {dotted(path): path for path in document.keys}
    return known.get(key) or tuple(key.split("."))


def _message(document: Document, problems: Iterable[Problem]) -> str:
    """One line per problem, in the file's order; of several at one key, every different one."""
    lines: dict[tuple[Mark, str], None] = {}
    for problem in problems:
        mark = problem.at or document.where(problem.key, on_key=problem.on_key)
        lines[mark, f"{dotted(problem.key)}: {problem.text}"] = None
    return "\n".join(f"{document.file}:{line}:{column}: {text}" for (line, column), text in sorted(lines))
