"""docs/commands.md, out of the commands: `python -m drainctl.cli.reference > docs/commands.md`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from drainctl.cli import COMMANDS, cli

# So that a help text fits beside a page's margin, on whatever terminal the page was written.
SHAPE: dict[str, Any] = {"terminal_width": 96, "max_content_width": 96}

HEAD = """\
# Commands

<!-- Written by `python -m drainctl.cli.reference`; edit the commands' docstrings in drainctl/cli instead. -->

What `drainctl COMMAND --help` says, command by command. Global options are taken before and after the
command. The exit codes are explained in [exit-codes.md](exit-codes.md), `drainctl.yml` in
[configuration.md](configuration.md).
"""


def markdown() -> str:
    """The whole page."""
    root = click.Context(cli, info_name="drainctl", **SHAPE, **cli.context_settings)
    parts = [HEAD, _contents(), _block("drainctl", cli.get_help(root))]
    for name, command in _leaves(root):
        parts.append(_block(name, command))
    return "\n".join(parts)


def _contents() -> str:
    """A table of the sections, in the order of `drainctl --help`."""
    rows = [f"| [`{name}`](#drainctl-{name}) | {text} |" for name, (_, _, text) in COMMANDS.items()]
    return "\n".join(["| command | what it does |", "|---|---|", *rows, ""])


def _leaves(parent: click.Context) -> Iterator[tuple[str, str]]:
    """(`drainctl lab up`, its help) for every command below `parent`, depth first."""
    group = parent.command
    assert isinstance(group, click.Group)  # noqa: S101 - narrows the type; only groups are walked
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        if command is None:
            continue
        context = click.Context(command, info_name=name, parent=parent, **SHAPE)
        yield context.command_path, command.get_help(context)
        if isinstance(command, click.Group):
            yield from _leaves(context)


def _block(name: str, text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return f"## {name}\n\n```text\n{lines}\n```\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(markdown())
