"""docs/commands.md is what --help says; exit codes and events are all documented, as the code has them."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

from drainctl import errors
from drainctl.journal import events
from tests.docs.pages_kit import ROOT, text_of

DOCS = ROOT / "docs"
ROW = re.compile(r"^\| `([^`]+)` \| (\d+) \|", re.MULTILINE)
KIND = re.compile(r"^(rollout|wave|node|step)\.[a-z]+$|^(note|proof)$")


def test_the_commands_page_is_what_help_says():
    """In a process of its own: click keeps the help option of a command as its first caller had it."""
    argv = [sys.executable, "-m", "drainctl.cli.reference"]
    printed = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    assert text_of(DOCS / "commands.md") == printed, "run `make docs`"


# ---------------------------------------------------------------- exit codes


def tree(cls=errors.DrainctlError):
    yield cls
    for below in cls.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from tree(below)


def test_every_error_is_documented_with_its_code():
    told = {name: int(code) for name, code in ROW.findall(text_of(DOCS / "exit-codes.md"))}
    assert told == {cls.__name__: int(cls.exit) for cls in tree()}


def test_every_exit_code_is_documented_by_its_name():
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", text_of(DOCS / "exit-codes.md"), re.MULTILINE)
    assert {name: int(code) for code, name in rows} == {code.name: code.value for code in errors.Exit}


def test_the_tree_that_the_module_draws_is_the_tree():
    drawn = dict(re.findall(r"[├└]── (\w+) +(\d+)", errors.__doc__))
    assert {name: int(code) for name, code in drawn.items()} == {
        cls.__name__: int(cls.exit) for cls in tree() if cls is not errors.DrainctlError
    }


# ---------------------------------------------------------------- events


def emitted():
    """Every kind that the code writes: texts of that form in calls, wherever they stand."""
    found = set()
    for file in (ROOT / "drainctl").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                texts = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
                found |= {text for text in texts if isinstance(text, str) and KIND.match(text)}
    return found


def test_the_kinds_that_are_written_are_found_in_the_code():
    assert {"rollout.began", "rollout.asked", "step.seen", "note", "proof", "node.ended"} <= emitted()


def test_every_kind_is_documented_and_none_else():
    page = set(re.findall(r"^\| `([\w.]+)` \|", text_of(DOCS / "events.md"), re.MULTILINE))
    assert {name for name in page if KIND.match(name)} == emitted()
    assert set(re.findall(r"^\| ([\w.]+) +\|", events.__doc__, re.MULTILINE)) - {"kind"} == emitted()


def test_every_note_is_documented():
    code = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "drainctl").rglob("*.py"))
    (row,) = re.findall(r"^\| `note` \|.*$", text_of(DOCS / "events.md"), re.MULTILINE)
    notes = set(re.findall(r'what="([\w-]+)"', code))
    assert notes
    assert {name for name in notes if f"`{name}`" not in row} == set()
