"""Pages lead where they say, name what is there, and show nothing of the machine they were written on."""

from __future__ import annotations

import re

import pytest

from drainctl.cli import COMMANDS
from tests.docs.pages_kit import FENCE, PAGES, ROOT, anchors, drainctl_commands, text_of, wrong_with

LINK = re.compile(r"\]\(([^)\s]+)\)")
PRIVATE = re.compile(r"/root/|/home/\w+/|pyenv|site-packages")


def pages():
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def broken_links(text, page):
    found = []
    for link in LINK.findall(FENCE.sub("", text)):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(text_of(target) if path else text)):
            found.append(link)
    return found


@pages()
def test_every_link_leads_somewhere(page):
    assert broken_links(text_of(page), page) == []


def test_a_broken_link_is_found():
    text = "# A b\n[x](nowhere.md) [y](#c) [z](#a-b) [w](docs/safety.md#conditions) [v](docs/safety.md#no)"
    assert broken_links(text, ROOT / "README.md") == ["nowhere.md", "#c", "docs/safety.md#no"]


@pages()
def test_every_command_exists(page):
    said = {" ".join(words): wrong_with(words) for words in drainctl_commands(text_of(page))}
    assert {line: why for line, why in said.items() if why} == {}


def test_a_command_that_does_not_exist_is_found():
    lines = (
        "```sh\ndrainctl dploy x\n```\nand `drainctl deploy x --frobnicate`, `drainctl lab up --nodes many`"
    )
    said = [wrong_with(words) for words in drainctl_commands(lines)]
    assert len(said) == 3
    assert "dploy" in said[0]
    assert "--frobnicate" in said[1]
    assert "many" in said[2]


def test_the_readme_shows_commands():
    verbs = {words[0] for words in drainctl_commands(text_of(ROOT / "README.md")) if words}
    assert {"plan", "deploy", "resume", "abort", "restore", "status"} <= verbs


def test_what_the_readme_says_is_not_there_is_not_there():
    missing = text_of(ROOT / "README.md").partition("## What is not there yet")[2]
    assert missing
    assert sorted(set(re.findall(r"`(\w+)`", missing)) & set(COMMANDS)) == []


@pages()
def test_every_source_file_that_is_named_is_there(page):
    named = set(re.findall(r"(?:drainctl|tests|bench)/[\w/]+\.(?:py|json|sh)", text_of(page)))
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


@pages()
def test_nothing_of_the_writers_machine_is_shown(page):
    assert PRIVATE.findall(text_of(page)) == []


@pages()
def test_every_docs_page_can_be_found_from_the_readme(page):
    if page.parent.name == "docs":
        assert f"](docs/{page.name})" in text_of(ROOT / "README.md")
