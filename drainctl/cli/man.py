"""
man: drainctl(1), out of the commands; docs/drainctl.1 is `python -m drainctl.cli.man`.

Source: groff_man(7), and man-pages(7) for the sections and their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from inspect import cleandoc

import click

from drainctl import __version__
from drainctl.cli import COMMANDS, cli

FILES = (
    (
        "drainctl.yml",
        "The cluster, in the current folder unless -c names another. drainctl explain tells its keys.",
    ),
    (
        "$XDG_STATE_HOME/drainctl/APP.db",
        "Journal and lease, where drainctl.yml names no store; ~/.local/state where the variable is not set.",
    ),
    ("~/.ssh/config, ~/.ssh/known_hosts", "How nodes are reached, where drainctl.yml does not say."),
)
ENVIRONMENT = (
    ("VAR", "Whatever drainctl.yml names as ${VAR}; its value is never shown."),
    ("GITHUB_ACTIONS, GITLAB_CI", "Where true, --output is github or gitlab unless it is given."),
    (
        "GITHUB_STEP_SUMMARY, GITHUB_OUTPUT, GITLAB_DOTENV",
        "The files that --output github and gitlab add a summary and the outcome to.",
    ),
    ("NO_COLOR", "No colours on a terminal (no-color.org)."),
    ("XDG_STATE_HOME", "See above."),
)
EXITS = (
    ("0", "Done."),
    ("1", "Failed, and everything was put back as it was."),
    ("2", "Wrong usage or configuration; nothing was touched."),
    ("3", "Halted: a person is needed; the last lines name the nodes and the commands."),
    ("4", "Another rollout holds the lease; nothing was touched."),
    ("5", "Preflight failed; nothing was touched."),
    ("10", "plan --detailed-exitcode: there is something to do."),
    ("130", "Interrupted; nodes in flight were brought to a known state first."),
)


@click.command()
def man() -> None:
    """
    Print the manual page.

    \b
    drainctl man > drainctl.1
    """
    click.echo(page(), nl=False)


def page() -> str:
    """The whole page, in roff."""
    root = click.Context(cli, info_name="drainctl", **cli.context_settings)
    about, example = _parts(cli)
    lines = [
        '.\\" Written by `python -m drainctl.cli.man`; edit the docstrings in drainctl/cli instead.',
        f'.TH DRAINCTL 1 "" "drainctl {__version__}" "User Commands"',
        ".SH NAME",
        rf"drainctl \- {_text(about[0].rstrip('.'))}",
        ".SH SYNOPSIS",
        ".B drainctl",
        r"[\fIOPTION\fR]... \fICOMMAND\fR [\fIARG\fR]...",
        ".SH DESCRIPTION",
        *_paragraphs(about),
        *_example(example),
        ".SH OPTIONS",
        *_options(cli, root),
    ]
    for section in dict.fromkeys(section for _, section, _ in COMMANDS.values()):
        lines.append(f'.SH "COMMANDS: {section.upper()}"')
        for name, (_, at, _) in COMMANDS.items():
            if at == section:
                lines += _command(name, root)
    for title, rows in (("EXIT STATUS", EXITS), ("FILES", FILES), ("ENVIRONMENT", ENVIRONMENT)):
        lines += [f'.SH "{title}"', *(line for head, text in rows for line in _tagged(_bold(head), text))]
    return "\n".join([*lines, ""])


def _command(name: str, parent: click.Context) -> Iterator[str]:
    """One command: how it is called, what it does, its options, its examples; then those below it."""
    group = parent.command
    assert isinstance(group, click.Group)  # noqa: S101 - narrows the type; only groups are walked
    command = group.get_command(parent, name)
    if command is None:
        return
    context = click.Context(command, info_name=name, parent=parent)
    about, example = _parts(command)
    pieces = " ".join(command.collect_usage_pieces(context))
    yield f'.SS "{_text(context.command_path)} {_text(pieces)}"'
    yield from _paragraphs(about)
    yield from _options(command, context)
    yield from _example(example)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            yield from _command(below, context)


def _parts(command: click.Command) -> tuple[list[str], list[str]]:
    """The paragraphs of a command's help, and the lines of those that click must not wrap: its examples."""
    about: list[str] = []
    example: list[str] = []
    for block in re.split(r"\n\s*\n", cleandoc(command.help or "")):
        if block.startswith("\b"):
            example += block.splitlines()[1:]
        else:
            about.append(" ".join(block.split()))
    return about, example


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    """Its options; --help is told once, for all."""
    for param in command.get_params(context):
        told = isinstance(param, click.Option) and ("--help" not in param.opts or command is cli)
        record = param.get_help_record(context) if told else None
        if record:
            yield from _tagged(_bold(record[0]), record[1])


def _tagged(head: str, text: str) -> list[str]:
    return [".TP", head, _text(text)] if text else [".TP", head, r"\&"]


def _paragraphs(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield ".PP"
        yield _text(text)


def _example(lines: Iterable[str]) -> list[str]:
    found = [_text(line) for line in lines]
    return [".PP", ".EX", *(f"    {line}" for line in found), ".EE"] if found else []


def _bold(text: str) -> str:
    return rf"\fB{_text(text)}\fR"


def _text(text: str) -> str:
    """
    Text as roff takes it: backslashes, hyphens that are to be copied, quotes in arguments of macros, and
    letters that are not ASCII. A dot or a quote at the beginning of a line would be a request.
    """
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq").replace("'", r"\(aq")
    escaped = escaped.replace("`", r"\(ga").replace("^", r"\(ha").replace("~", r"\(ti")
    escaped = "".join(char if char.isascii() else rf"\[u{ord(char):04X}]" for char in escaped)
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


if __name__ == "__main__":
    import sys

    sys.stdout.write(page())
