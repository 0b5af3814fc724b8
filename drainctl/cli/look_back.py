"""history, show."""

from __future__ import annotations

import json
import os
import sys

import click

from drainctl.cli.common import Options, global_options, wired
from drainctl.cli.completion import rollout_ids
from drainctl.errors import ConfigError


@click.command()
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many.")
@global_options
def history(options: Options, limit: int) -> None:
    """
    The rollouts of this cluster, newest first.

    \b
    drainctl history
    drainctl history --limit 100
    """
    from drainctl.report.history import head, history_table

    with wired(options) as adapters:
        store = adapters.store
        heads = [head(store.events(rollout)) for rollout in store.rollouts(adapters.cluster.app, limit=limit)]
        click.echo(history_table(heads, width=_width()))


@click.command()
@click.argument("rollout", required=False, shell_complete=rollout_ids)
@global_options
def show(options: Options, rollout: str | None) -> None:
    """
    One rollout (the latest, when none is named): every node, every step, its time, and why it ended.

    \b
    drainctl show
    drainctl show 20261124-101502-9c3f
    drainctl show --output json
    """
    from drainctl.report.history import show_rollout
    from drainctl.report.text import wrapped_all

    with wired(options) as adapters:
        found = rollout or adapters.store.latest(adapters.cluster.app)
        events = adapters.store.events(found) if found else []
        if not events:
            raise ConfigError(
                f"no rollout {found or ''} in the journal", hint="`drainctl history` lists them"
            )
        if options.output == "json":
            from drainctl.report.jsonl import as_json

            for event in events:
                click.echo(json.dumps(as_json(event)))
        else:
            lines = show_rollout(events, width=_width()).splitlines()
            click.echo("\n".join(wrapped_all(lines, _width()) if sys.stdout.isatty() else lines))


def _width() -> int:
    """The terminal's; what is no terminal gets room enough."""
    return os.get_terminal_size(sys.stdout.fileno()).columns if sys.stdout.isatty() else 100
