"""The project's pages, and what is looked for in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

from drainctl.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md")])
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SHELLS = {"sh", "console"}


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The contents of the text's fenced blocks in that language."""
    return [body for name, body in FENCE.findall(text) if name == language]


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives to the text's headings."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shell_lines(text: str) -> list[str]:
    """Lines of shell blocks: whole where there is no prompt, those with a prompt where there is one."""
    found = []
    for language in SHELLS:
        for body in blocks(text, language):
            lines = body.splitlines()
            prompted = [line[2:] for line in lines if line.startswith("$ ")]
            found += prompted or ([] if language == "console" else lines)
    return found


def drainctl_commands(text: str) -> list[list[str]]:
    """Every `drainctl …` of the text, in shell blocks and, in prose, between backticks; without that word."""
    prose = re.findall(r"`(drainctl [^`]+)`", FENCE.sub("", text))
    found = []
    for line in [*shell_lines(text), *prose]:
        words = shlex.split(line, comments=True)
        ends = [at for at, word in enumerate(words) if word in {"|", ">", "&", "&&", ";"}] + [len(words)]
        if words[:1] == ["drainctl"]:
            found.append(words[1 : ends[0]])
    return found


def wrong_with(words: list[str]) -> str | None:
    """What click has against this command line; None when it would run. `COMMAND` stands for any verb."""
    if "COMMAND" in words:
        return None
    try:
        command, context, rest = cli, click.Context(cli, info_name="drainctl", **cli.context_settings), words
        while isinstance(command, click.Group):
            if not rest:
                return None
            rest = click.Command.parse_args(command, context, list(rest))  # the options before the verb
            if not rest:
                return None
            name, command, rest = command.resolve_command(context, rest)
            context = click.Context(command, info_name=name, parent=context)
        command.make_context(context.info_name, rest, parent=context.parent)
    except click.exceptions.Exit:
        return None  # --help and --version
    except click.MissingParameter:
        return None  # prose names a verb without its arguments
    except click.ClickException as error:
        return error.format_message()
    return None
