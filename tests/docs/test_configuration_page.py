"""docs/configuration.md is what the schema says, and its examples are files that drainctl reads."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from drainctl.config.load import load
from drainctl.config.reference import markdown

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


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
