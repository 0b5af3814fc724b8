"""
Imports follow the direction of flow, cli → controller → rollout → adapters, and the middle does no I/O.

The table below is docs/design.md's: what stands in it is allowed, whatever is missing is a defect of the code
or a decision that belongs into the table and the page.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import drainctl

PACKAGE = Path(drainctl.__file__).parent

NOUNS = {"model", "errors", "steps"}
RECORD = {"journal.events", "journal.replay"}
MIDDLE = {
    "rollout.rules",
    "rollout.plan",
    "rollout.choose",
    "rollout.places",
    "rollout.decide",
    "rollout.proof",
}
MIDDLE |= {"rollout.ending", "strategies"}
ADAPTERS = {"http", "balancer", "node", "journal", "machines"}
VERBS = {"wire", "overview", "controller"}
FILLED = {"config.placeholders", "config.expand"}  # pure: names and secrets in texts

# Pure: command lines, and what they print.
QUESTIONS = {"node.ask", "node.shell", "node.sockets", "node.gunicorn", "nginx"}

# Who may import whom, below `drainctl.`; the longest name that fits a module counts. A package may always
# import itself.
MAY = {
    "": set(),
    "errors": set(),
    "called": set(),
    "model": set(),
    "steps": {"model"},
    "threads": set(),
    "psycopg_limit": set(),
    "middleware": set(),
    "templates": set(),
    "arb": {"errors", "psycopg_limit", "templates", "threads"},
    "haproxy_cfg": {"errors"},
    "http": {"model", "errors"},
    "journal": {"model", "errors", "psycopg_limit"},
    "node": {"model", "errors", "http"},
    "balancer": {"model", "errors", "http", "node"},
    "machines": {"model", "errors", "http", "arb"},
    "config": {"model", "errors", "rollout.rules"},
    "report": {"model", "errors", *RECORD},
    "nginx": {"errors", "node.shell", "templates"},
    "render": {"model", "errors", "nginx", "strategies", "templates", *FILLED},
    "strategies": {*NOUNS, "rollout.rules", *FILLED, *QUESTIONS},
    "rollout.rules": {"model"},
    "rollout.places": NOUNS,
    "rollout.decide": NOUNS,
    "rollout.proof": NOUNS,
    "rollout.ending": {*NOUNS, *RECORD},
    "rollout.plan": {*NOUNS, *MIDDLE},
    "rollout.choose": {*NOUNS, *RECORD, *MIDDLE, *FILLED},
    "rollout": {*NOUNS, *RECORD, *MIDDLE, *ADAPTERS, *FILLED, "nginx", "threads", "report.door"},
    "wire": {*NOUNS, *ADAPTERS, *FILLED, "threads"},
    "overview": {*NOUNS, "journal", "node.fence", "node.shell", "rollout", "threads", "wire"},
    "controller": {
        *NOUNS,
        "called",
        "journal",
        "node.fence",
        "node.shell",
        "rollout",
        "strategies",
        "report.door",
        "wire",
        "overview",
    },
    "doctor": {
        *NOUNS,
        *ADAPTERS,
        *VERBS,
        *MIDDLE,
        "config",
        "haproxy_cfg",
        "nginx",
        "report.text",
        "rollout",
        "threads",
    },
    "init": {*NOUNS, "balancer", "config", "haproxy_cfg"},
    "cli": {
        *NOUNS,
        *VERBS,
        *MIDDLE,
        "",
        "called",
        "config",
        "doctor",
        "haproxy_cfg",
        "init",
        "journal",
        "node.archive",
        "node.image",
        "report",
        "rollout",
    },
    "cli.lab": {"lab"},
    "cli.arb": {"arb"},
    "cli.render": {"arb", "cli.common", "config", "errors", "model", "render"},
    "lab": {*NOUNS, *VERBS, "arb", "config", "nginx", "node", "report", "rollout", "templates", "threads"},
}

# Modules that judge and describe: no file, no clock, no network, no process.
PURE = {
    "model",
    "errors",
    "steps",
    "journal.events",
    "journal.replay",
    "report.story",
    "report.markdown",
}
PURE |= MIDDLE | {"node.recipe"}
QUIET = {
    "__future__",
    "collections",
    "dataclasses",
    "typing",
    "enum",
    "functools",
    "itertools",
    "json",
    "math",
    "re",
    "shlex",
    "types",
    "urllib",
}


def fits(name, among):
    """The longest of `among` that is `name` or a package that it is in; None where none is."""
    found = [one for one in among if one == name or (one and name.startswith(one + "."))]
    return max(found, key=len) if found else None


def imports(source):
    """Every module that the source imports, wherever the import stands; `from x import y` is x and x.y."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules():
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if not name.startswith("lab.app"):  # the lab's app imports nothing of ours and is nobody's layer
            yield name, file.read_text(encoding="utf-8")


def upward(name, source):
    """The imports of this source that its place in the table does not allow."""
    unit = fits(name, MAY) or ""
    for module in imports(source):
        if not module.startswith("drainctl"):
            continue
        below = module.removeprefix("drainctl").removeprefix(".")
        same = unit and unit.count(".") == 0 and fits(below, {unit})
        allowed = fits(below, MAY[unit]) or ("" in MAY[unit] and below.startswith("__version__"))
        if not (same or allowed):
            yield module


def loud(source):
    """The imports of a pure module that could touch the world."""
    return [module for module in imports(source) if module.split(".")[0] not in {*QUIET, "drainctl"}]


SOURCES = dict(modules())


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_imports_follow_the_flow(name):
    assert name == "" or fits(name, MAY), f"{name} has no place in the table"
    assert sorted(upward(name, SOURCES[name])) == []


@pytest.mark.parametrize("name", sorted(PURE))
def test_the_middle_does_no_io(name):
    found = [(module, loud(source)) for module, source in SOURCES.items() if fits(module, {name})]
    assert found, f"no module {name}"
    assert [(module, bad) for module, bad in found if bad] == []


def test_packages_import_nothing_by_themselves():
    """Importing a module of a package must not load its neighbours; names may be fetched when asked for."""
    exempt = {"cli", "lab.app"}  # cli/__init__.py is the command line's root
    for file in PACKAGE.rglob("__init__.py"):
        name = ".".join(file.parent.relative_to(PACKAGE).parts)
        top = [
            node
            for node in ast.parse(file.read_text(encoding="utf-8")).body
            if "Import" in type(node).__name__
        ]
        loaded = {module for node in top for module in imports(ast.unparse(node))}
        if name not in exempt:
            assert {
                module for module in loaded if module.partition(".")[0] not in {"__future__", "typing"}
            } == set()


def test_an_import_against_the_flow_is_found():
    assert list(upward("node.host", "from drainctl.rollout.roll import Roll")) == [
        "drainctl.rollout.roll.Roll"
    ]
    assert list(upward("strategies.http_check", "def f():\n    import drainctl.cli")) == ["drainctl.cli"]
    assert list(upward("rollout.decide", "from drainctl.rollout.roll import Roll")) == [
        "drainctl.rollout.roll.Roll"
    ]
    assert list(upward("model", "from drainctl.errors import Exit")) == ["drainctl.errors.Exit"]
    assert list(upward("rollout.roll", "from drainctl.rollout.walk import Walk")) == []
    assert loud("import time\nfrom collections.abc import Mapping") == ["time"]
