"""`drainctl lab break` and `lab mend`, as they are told on a terminal."""

from __future__ import annotations

import time
from pathlib import Path

import click

from drainctl.lab.cluster import Lab
from drainctl.lab.faults import known

TITLES = {
    "balancer": "a balancer (lb1, lb2, …)",
    "server": "a node (web1, web2, …) as the first balancer sees it",
    "node": "a node",
    "sshd": "the way to a node, in a lab with --ssh",
    "release": "a release to deploy; TARGET is its id",
    "traffic": "users, by way of a balancer",
}


def listed() -> str:
    """Every fault and what it does, by what it is done to."""
    lines = []
    for on, title in TITLES.items():
        found = [fault for fault in known.FAULTS.values() if fault.on == on]
        lines += ["", title, *(f"  {fault.name:22}{fault.does}" for fault in found)]
    return "\n".join(lines[1:])


def broken(folder: Path, fault: str, target: str | None, seconds: float | None) -> None:
    """Break, say so, and where a time is given wait for it and mend."""
    lab = Lab.open(folder)
    target, told = known.begin(lab, fault, target)
    click.echo(f"{fault} {target}: {told or known.FAULTS[fault].does}")
    if seconds is None:
        if known.FAULTS[fault].end:
            click.echo(f"  until: drainctl lab mend --dir {folder}")
        return
    try:
        time.sleep(seconds)
    finally:
        known.end(lab, fault, target)
    click.echo(f"{fault} {target}: mended after {seconds:g} s")


def mended(folder: Path) -> None:
    """Mend all, and say what."""
    found = known.mend(Lab.open(folder))
    for fault, target in found:
        click.echo(f"{fault} {target}: mended")
    if not found:
        click.echo("nothing is broken")
