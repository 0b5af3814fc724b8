"""explain, schema."""

from __future__ import annotations

import json

import click

from drainctl.cli.common import Options, global_options
from drainctl.cli.completion import key_names


@click.command()
@click.argument("key", default="", shell_complete=key_names)
@global_options
def explain(options: Options, key: str) -> None:
    """
    What a key of drainctl.yml is for: its type, its default, an example. Without KEY, all keys.

    \b
    drainctl explain
    drainctl explain rollout.keep_up
    drainctl explain nodes.web1.vars
    """
    from drainctl.config import explain as table

    del options
    click.echo(table.explain(key))


@click.command()
@global_options
def schema(options: Options) -> None:
    """
    Print the JSON Schema of drainctl.yml.

    \b
    drainctl schema > drainctl.schema.json
    """
    from drainctl.config.json_schema import schema as make

    del options
    click.echo(json.dumps(make(), indent=2))
