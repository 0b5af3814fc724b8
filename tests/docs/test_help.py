"""--help teaches: every command says what it does and shows a line that runs; and so does the manual page."""

from __future__ import annotations

import re
import shlex
import subprocess
from inspect import cleandoc

import click
import pytest

from drainctl.cli import COMMANDS, cli
from drainctl.cli.man import page
from drainctl.errors import Exit
from tests.conftest import need
from tests.docs.pages_kit import ROOT, text_of, wrong_with


def walk(command=cli, path=("drainctl",)):
    yield " ".join(path), command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from walk(command.get_command(context, name), (*path, name))


EVERY = dict(walk())


def examples(command):
    """The lines of the help that click must not wrap; what follows two spaces is said of the line."""
    blocks = re.split(r"\n\s*\n", cleandoc(command.help or ""))
    return [
        line.partition("  ")[0]
        for block in blocks
        if block.startswith("\b")
        for line in block.split("\n")[1:]
    ]


@pytest.mark.parametrize("name", EVERY)
def test_help_has_an_example_of_the_command_and_every_example_parses(name):
    found = examples(EVERY[name])
    below = name if name != "drainctl" else "drainctl "
    assert any(line.startswith(below) for line in found), f"{name} shows no example of itself"
    for line in found:
        words = shlex.split(line, comments=True)
        ends = [at for at, word in enumerate(words) if word in {"|", ">", "&"}] + [len(words)]
        assert words[0] == "drainctl", line
        assert wrong_with(words[1 : ends[0]]) is None, line


@pytest.mark.parametrize("name", EVERY)
def test_every_option_says_what_it_is_for(name):
    options = [param for param in EVERY[name].params if isinstance(param, click.Option) and not param.hidden]
    bare = [option.opts[0] for option in options if not option.help]
    assert bare == [], f"{name}: options without a help text"


def test_the_table_of_commands_names_what_there_is():
    for name, (_, _, text) in COMMANDS.items():
        command = EVERY[f"drainctl {name}"]
        assert command.name == name
        assert len(f"  completion  {text}") <= 78
    assert [name for name in EVERY if name.count(" ") == 1] == [f"drainctl {name}" for name in COMMANDS]


# ---------------------------------------------------------------- the manual page


def plain(roff):
    """The page's words, without what is for roff."""
    for there, meant in (
        (r"\-", "-"),
        (r"\fB", ""),
        (r"\fR", ""),
        (r"\(aq", "'"),
        (r"\(ga", "`"),
        (r"\(ti", "~"),
    ):
        roff = roff.replace(there, meant)
    return roff


def test_the_manual_page_is_fresh():
    assert text_of(ROOT / "docs" / "drainctl.1") == page(), "run `make docs`"


def test_every_command_option_and_exit_code_is_in_it():
    text = plain(page())
    for name, command in EVERY.items():
        assert name == "drainctl" or f'.SS "{name} ' in text
        for param in command.params:
            if isinstance(param, click.Option) and not param.hidden:
                assert param.opts[-1] in text, f"{name} {param.opts}"
    codes = set(re.findall(r"^\.TP\n(\d+)\n", text, re.MULTILINE))
    assert codes == {*(str(int(code)) for code in Exit), "10"}
    for section in ("NAME", "SYNOPSIS", "OPTIONS", "EXIT STATUS", "FILES", "ENVIRONMENT"):
        assert re.search(rf'^\.SH "?{section}"?$', text, re.MULTILINE), section


def test_groff_has_nothing_against_it():
    done = subprocess.run(
        [need("groff"), "-man", "-ww", "-Tutf8", "-Kutf8"],
        input=page(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    assert "drainctl deploy" in re.sub(r"\x1b\[[\d;]*m|.\x08", "", done.stdout)


def test_groff_would_say_so():
    done = subprocess.run(
        [need("groff"), "-man", "-ww", "-Tutf8"],
        input=".SH A\n.nonsense b\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert "nonsense" in done.stderr
