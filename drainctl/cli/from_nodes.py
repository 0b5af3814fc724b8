"""`status --from-nodes` and `abort --from-nodes`: for when the journal is lost."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import click

from drainctl.called import as_called
from drainctl.cli.common import Options, rollout, wired
from drainctl.cli.show_status import board_of, table
from drainctl.controller import Controller, Result
from drainctl.errors import ConfigError, DrainctlError
from drainctl.model import Cluster, Survey
from drainctl.overview import Status, from_nodes
from drainctl.report.text import wrapped_all
from drainctl.rollout.choose import Wish
from drainctl.rollout.from_nodes import Found, back, lines
from drainctl.rollout.places import find_places


def show(options: Options) -> None:
    """What was going on, and the commands that lead on."""
    with wired(options) as adapters:
        seen, found = from_nodes(adapters)
        cluster = adapters.cluster
    if options.output == "json":
        click.echo(json.dumps(as_json(cluster, found), indent=2))
        return
    told = ["", *(as_called(line, cluster.file) for line in lines(found, cluster))]
    if sys.stdout.isatty():
        told = wrapped_all(told, os.get_terminal_size(sys.stdout.fileno()).columns)
    click.echo("\n".join([*_table(cluster, seen), *told]))


def _table(cluster: Cluster, seen: Survey) -> list[str]:
    try:
        places = find_places(cluster, seen.tables)
    except ConfigError:  # a balancer that does not answer: the nodes tell what they can
        places = dict.fromkeys(cluster.names, ())
    status = Status(cluster, seen, places, None, None)
    return table(status, board_of(status), cluster.names)


def put_back(options: Options, to: str | None) -> None:
    """Take back what the nodes show; ends with the rollout's own exit code."""

    def go(controller: Controller) -> Result:
        with wired(options) as adapters:
            seen, cluster = from_nodes(adapters)[1], adapters.cluster
        taken = back(seen, cluster, to)
        what = f"{seen.last} is taken back" if seen.last else "what is found is taken back"
        click.echo(f"{what}: {', '.join(taken.nodes)} to {taken.release} ({taken.why})", err=True)
        for node in seen.nodes.values():
            if node.left_alone:
                click.echo(f"{node.name} stays out: its flag is of no rollout that died", err=True)
        # The flags are of a rollout that nobody knows; should its controller live, it is shut out everywhere.
        return controller.begin(
            Wish("rollback", to=taken.release, only=taken.nodes, steal=True, everywhere=True)
        )

    rollout(options, go)


def as_json(cluster: Cluster, found: Found) -> dict[str, Any]:
    """The same as one object; `v` is the version of its shape."""
    last = found.last
    told: dict[str, Any] = {
        "v": 1,
        "app": cluster.app,
        "unfinished": found.unfinished,
        "rollout": last._asdict() if last else None,
        "nodes": {
            name: {
                "release": node.current,
                "releases": list(node.releases),
                "answers": node.answers,
                "before": node.claim.was if node.claim else None,
                "out": node.flag is not None,
                "flag": node.flag.text if node.flag else None,
                "error": node.error,
            }
            for name, node in found.nodes.items()
        },
    }
    try:
        taken = back(found, cluster)
    except DrainctlError as error:
        return told | {"back": None, "why": str(error)}
    return told | {"back": {"release": taken.release, "nodes": list(taken.nodes)}, "why": taken.why}
