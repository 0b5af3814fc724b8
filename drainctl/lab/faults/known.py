"""Every fault by its name; breaking and mending, written down so that another command can mend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from drainctl.errors import ConfigError
from drainctl.lab.cluster import Lab
from drainctl.lab.faults import balancers, nodes, releases, ssh, traffic
from drainctl.lab.faults.door import Fault

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for fault in (*balancers.FAULTS, *nodes.FAULTS, *ssh.FAULTS, *releases.FAULTS, *traffic.FAULTS)
}


def begin(lab: Lab, name: str, target: str | None = None) -> tuple[str, str | None]:
    """
    Break something. Returns: what it was done to, and what is worth knowing.

    Raises: ConfigError for an unknown fault or target; PreflightError where it cannot be done.
    """
    fault = FAULTS.get(name)
    if fault is None:
        raise ConfigError(f"no fault is called {name}", hint="drainctl lab break --list")
    known = fault.targets(lab)
    target = target or known[0]
    if fault.on != "release" and target not in known:
        raise ConfigError(f"{name}: found {target}, expected one of {', '.join(known)}")
    if fault.end:
        _note(lab, [*broken(lab), (name, target)])  # first: one that fails half-way is mended too
    return target, fault.begin(lab, target)


def end(lab: Lab, name: str, target: str) -> None:
    """Take one fault away."""
    ends = FAULTS[name].end
    if ends:
        ends(lab, target)
    left = broken(lab)
    if (name, target) in left:
        left.remove((name, target))
    _note(lab, left)


def mend(lab: Lab) -> list[tuple[str, str]]:
    """Take every fault away that `begin` left, the latest first. Returns: which."""
    found = list(reversed(broken(lab)))
    for name, target in found:
        end(lab, name, target)
    return found


@contextmanager
def during(lab: Lab, name: str, target: str | None = None) -> Iterator[str | None]:
    """A fault for the length of a block; its value is what is worth knowing."""
    target, told = begin(lab, name, target)
    try:
        yield told
    finally:
        end(lab, name, target)


def broken(lab: Lab) -> list[tuple[str, str]]:
    """Faults that were not taken away yet, with their targets, in order."""
    try:
        return [(name, target) for name, target in json.loads(_path(lab).read_text())]
    except FileNotFoundError:
        return []


def _note(lab: Lab, found: list[tuple[str, str]]) -> None:
    _path(lab).write_text(json.dumps(found) + "\n")


def _path(lab: Lab) -> Path:
    return lab.folder / "faults.json"
