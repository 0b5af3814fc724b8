"""
completion: what a shell asks at <TAB>, and the scripts that make it ask.

The callbacks read drainctl.yml and the journal only, connect to nothing, create nothing, and are silent
whatever is wrong: somebody is in the middle of a line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import click

from drainctl.errors import DrainctlError

SHELLS = ("bash", "zsh", "fish")
Complete = Callable[[click.Context, click.Parameter, str], list[str]]


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """
    Print the script that completes drainctl's commands, options, nodes and rollouts in a shell.

    \b
    drainctl completion bash > ~/.local/share/bash-completion/completions/drainctl
    drainctl completion zsh > ~/.zfunc/_drainctl
    drainctl completion fish > ~/.config/fish/completions/drainctl.fish

    For zsh, ~/.zfunc must be in fpath before compinit is called.
    """
    from click.shell_completion import get_completion_class

    from drainctl.cli import cli

    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - click knows the shells of SHELLS
    script = found(cli, {}, "drainctl", "_DRAINCTL_COMPLETE")
    text: str = script.source_template % script.source_vars()
    click.echo(text)


def _quiet(names: Callable[[click.Context], Iterable[str]]) -> Complete:
    """A callback of click's: the names that begin as the word does; of `web1,we`, the last part."""

    def complete(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
        before, comma, begun = incomplete.rpartition(",")
        try:
            return [f"{before}{comma}{name}" for name in names(ctx) if name.startswith(begun)]
        except (DrainctlError, OSError, AttributeError, TypeError):  # a file that is not what it should be
            return []

    return complete


def _config(ctx: click.Context) -> str:
    """drainctl.yml as the line names it, before or after the verb."""
    at: click.Context | None = ctx
    while at:
        if at.params.get("config"):
            return os.path.expanduser(str(at.params["config"]))  # noqa: PTH111 - pathlib is not loaded for this
        at = at.parent
    return "drainctl.yml"


def _nodes(ctx: click.Context) -> Iterable[str]:
    """The names below `nodes:`, of a file that need not be right otherwise."""
    from drainctl.config.read import read

    return [str(name) for name in read(_config(ctx)).tree["nodes"]]


def _rollouts(ctx: click.Context) -> Iterable[str]:
    """The last rollouts of a journal that is there: none is created."""
    from drainctl.config.load import load
    from drainctl.journal.open import open_store

    cluster = load(_config(ctx))
    if not os.path.exists(os.path.expanduser(_path(cluster.store))):  # noqa: PTH110, PTH111 - as above
        return []
    store = open_store(cluster.store)
    try:
        return store.rollouts(cluster.app, limit=20)
    finally:
        store.close()


def _path(store: str) -> str:
    text = store.removeprefix("sqlite:///").lstrip("/")
    return text if text.startswith("~") else f"/{text}"


def _keys(_ctx: click.Context) -> Iterable[str]:
    from drainctl.config.schema import FILE
    from drainctl.config.shapes import sections

    for at, section in sections(FILE).items():
        for name in section.keys:
            yield ".".join(part for part in (*at, name) if part != "*")


node_names = _quiet(_nodes)
rollout_ids = _quiet(_rollouts)
key_names = _quiet(_keys)
