"""status, drain, restore."""

from __future__ import annotations

import os
import sys
import time

import click

from drainctl.cli.common import Options, global_options, names, rollout, wired
from drainctl.cli.completion import node_names
from drainctl.errors import ConfigError


@click.command()
@click.option("--watch", is_flag=True, help="Again every second, until q or Ctrl-C.")
@click.option(
    "--from-nodes",
    "by_nodes",
    is_flag=True,
    help="Ask no journal: what the nodes themselves tell of the last rollout.",
)
@global_options
def status(options: Options, watch: bool, by_nodes: bool) -> None:
    """
    Every node at every balancer, its release and flag, who holds the lease, and an open rollout.

    With --from-nodes, for when the journal is lost: the last rollout, who ran it since when, which nodes are
    out or differ, and the commands that lead on, by the nodes' flags, fences, links and answers.

    \b
    drainctl status
    drainctl status --output json
    drainctl status --from-nodes
    """
    if by_nodes:
        from drainctl.cli import from_nodes

        if watch:
            raise ConfigError("found --watch and --from-nodes, expected one of them")
        from_nodes.show(options)
        return
    from drainctl import overview
    from drainctl.cli.show_status import status_json, status_text

    on_terminal = sys.stdout.isatty()
    width = os.get_terminal_size(sys.stdout.fileno()).columns if on_terminal else None
    with wired(options) as adapters:
        if watch and on_terminal and options.output != "json":
            from drainctl.cli.watch_status import watch as watch_status

            watch_status(adapters)
            return
        while True:
            seen = overview.status(adapters)
            click.echo(status_json(seen) if options.output == "json" else status_text(seen, width))
            if not watch:
                return
            time.sleep(1.0)


@click.command()
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...", shell_complete=node_names)
@global_options
def drain(options: Options, nodes: tuple[str, ...]) -> None:
    """
    Take nodes out of rotation, one after the other, and wait until they are idle. They stay out.

    \b
    drainctl drain web2
    drainctl drain web2 web3
    drainctl restore web2 web3
    """
    from drainctl.rollout.choose import Wish

    rollout(options, lambda it: it.begin(Wish("drain", only=names(nodes))))


@click.command()
@click.argument("nodes", nargs=-1, required=True, metavar="NODE...", shell_complete=node_names)
@click.option("--steal", is_flag=True, help="Also where an unfinished rollout or somebody else set the flag.")
@global_options
def restore(options: Options, nodes: tuple[str, ...], steal: bool) -> None:
    """
    Put nodes back into rotation as they are: flag away, /http-check 200, UP on every balancer.

    \b
    drainctl restore web2
    drainctl restore web2 --steal
    """
    from drainctl.rollout.choose import Wish

    rollout(options, lambda it: it.begin(Wish("restore", only=names(nodes), steal=steal)))
