"""render: configuration for others, printed."""

from __future__ import annotations

import click

from drainctl.errors import ConfigError


@click.command()
@click.argument("kind", type=click.Choice(["arb-haproxy", "arb-nginx"]))
@click.option(
    "--shard",
    "shards",
    multiple=True,
    required=True,
    metavar="NAME=URL,URL",
    help="A shard and its machines, in the order in which they are asked. Once per shard.",
)
@click.option(
    "--listen",
    default="127.0.0.1:9100",
    show_default=True,
    metavar="HOST:PORT",
    help="Where the first shard is offered; each further one has the next port.",
)
def render(kind: str, shards: tuple[str, ...], listen: str) -> None:
    """
    Print a configuration that offers each shard on a port of its own and fails over by itself.

    \b
    drainctl render arb-haproxy --shard users=http://10.0.0.11:8080,http://10.0.0.12:8080
    """
    from drainctl.arb.render import render_arb

    known = dict(word.partition("=")[::2] for word in shards)
    try:
        text = render_arb(kind, {name: urls.split(",") for name, urls in known.items()}, listen=listen)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    click.echo(text, nl=False)
