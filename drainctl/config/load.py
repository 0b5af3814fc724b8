"""
drainctl.yml to a Cluster, or one error with every problem of the file.

A problem is one line, `file:line:column: key: found X, expected Y`, and the lines are in the file's order.
The rules of timing and capacity (`rollout.rules`) are about the whole, so they are judged as soon as every
key can be read for itself. Nothing is adjusted: what does not hold is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from drainctl.config.build import build
from drainctl.config.check import check
from drainctl.config.expand import expand
from drainctl.config.problems import Path, Problem, dotted, found
from drainctl.config.read import Document, Mark, read
from drainctl.config.schema import FILE
from drainctl.config.walk import take
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
        needed = ", ".join(key.name for key in FILE.keys.values() if key.needed)
        raise ConfigError(f"{path}:{line}:{column}: found {found(document.tree)}, expected keys: {needed}, …")
    problems: list[Problem] = []
    tree = _expanded(document.tree, (), environ, problems)
    wrong: list[Problem] = []
    file = take(FILE, tree, (), wrong)
    for group in (wrong, list(check(tree))):  # a value that cannot be read is not judged further
        known = {problem.key for problem in problems}
        problems += [problem for problem in group if problem.key not in known]
    problems += document.problems
    if not wrong:
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


def _rules(cluster: Cluster, document: Document) -> Iterable[Problem]:
    from drainctl.rollout.rules import MEASURED_BY, problems

    known = {dotted(path): path for path in document.keys}  # a name may have dots
    for key, text in problems(cluster):
        path = known.get(key) or tuple(key.split("."))
        other = known.get(MEASURED_BY.get(key, ""))
        at = document.where(other) if other and key not in known else None  # the value that the default broke
        yield Problem(path, text, at=at)


def _message(document: Document, problems: Iterable[Problem]) -> str:
    """One line per problem, in the file's order; of several at one key, every different one."""
    lines: dict[tuple[Mark, str], None] = {}
    for problem in problems:
        mark = problem.at or document.where(problem.key, on_key=problem.on_key)
        lines[mark, f"{dotted(problem.key)}: {problem.text}"] = None
    return "\n".join(f"{document.file}:{line}:{column}: {text}" for (line, column), text in sorted(lines))
