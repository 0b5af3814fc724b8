"""docs/configuration.md is what the schema says, and all pages' examples are files that drainctl reads."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent

import pytest
import yaml

from drainctl.config.load import load
from drainctl.config.reference import markdown

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"


def test_the_page_is_what_the_schema_says():
    assert PAGE.read_text(encoding="utf-8") == markdown()


def test_the_examples_together_are_a_file(tmp_path):
    examples = re.findall(r"```yaml\n(.*?)```", markdown(), re.DOTALL)
    whole = {}
    for example in examples:
        whole |= yaml.safe_load(example)
    file = tmp_path / "drainctl.yml"
    file.write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    assert load(str(file), {"LB4_AUTH": "ops:x"}).app == "shop"


def test_every_link_has_its_heading():
    page = markdown()
    headings = {re.sub(r"[^a-z-]", "", line.lower()) for line in re.findall(r"^## (.*)$", page, re.MULTILINE)}
    links = set(re.findall(r"\]\(#([^)]*)\)", page))
    assert links
    assert links <= headings


def whole_files(page):
    """The ```yaml blocks of a page that are a whole drainctl.yml: those that name the app."""
    blocks = re.findall(
        r"^ *```yaml\n(.*?)^ *```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    return [text for text in map(dedent, blocks) if re.search(r"^app:", text, re.MULTILINE)]


def test_the_readme_has_a_whole_file():
    assert whole_files(ROOT / "README.md")


# configuration.md shows one section at a time; see test_the_examples_together_are_a_file.
@pytest.mark.parametrize(
    "page", sorted({ROOT / "README.md", *(ROOT / "docs").glob("*.md")} - {PAGE}), ids=lambda page: page.name
)
def test_every_whole_file_on_a_page_is_one_that_drainctl_reads(page, tmp_path):
    for text in whole_files(page):
        file = tmp_path / "drainctl.yml"
        file.write_text(text, encoding="utf-8")
        environ = dict.fromkeys(re.findall(r"\$\{(\w+)\}", text), "user:secret")
        assert load(str(file), environ).app
