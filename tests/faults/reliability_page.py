"""docs/reliability.md: what is written by hand, and between two marks what the tests have seen."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
CELLS = ROOT / ".lab" / "reliability"  # a file per cell
RUNS = ROOT / ".lab" / "faults"  # a file per test file of this folder: each test and how it ended
SOAK = ROOT / ".lab" / "soak.txt"  # what the last long run of test_soak.py has told
BEGIN, END = "<!-- cells: begin -->", "<!-- cells: end -->"
TITLES = ("fault", "at step", "nodes", "what drainctl did", "exit", "requests", "failed", "state at the end")
ELSEWHERE = {
    "test_kill.py": "drainctl killed at each act, in `resume` and `abort` too; SIGINT and SIGTERM",
    "test_kill_in_place.py": "the same for the in-place strategies",
}


def rows(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """A row per cell, as the page has it."""
    return [
        (
            str(one["fault"]),
            str(one["step"]),
            str(one["nodes"]),
            _cell(one["did"]),
            str(one["exit"]),
            str(one["requests"]),
            f"{one['failed']}: {one['why_failed']}" if one["failed"] else "0",
            _cell(one["state"]),
        )
        for one in results
    ]


def page(text: str, results: Sequence[Mapping[str, Any]]) -> str:
    """The page with its generated part anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    requests, failed = (sum(int(one[key]) for one in results) for key in ("requests", "failed"))
    count = f"{len(results)} cells, {requests} requests, {failed} failed."
    table = [_line(TITLES), _line(["---"] * len(TITLES)), *map(_line, rows(results))]
    return "\n".join([f"{before}{BEGIN}", "", count, "", *table, *_elsewhere(), "", f"{END}{after}"])


def write(order: Iterable[str]) -> None:
    """The page from the results that are there; every cell of `order` must be one of them."""
    results = [json.loads((CELLS / f"{cell}.json").read_text()) for cell in order]
    PAGE.write_text(page(PAGE.read_text(), results))


def shown() -> list[tuple[str, ...]]:
    """The rows that the page has now, without its head."""
    part = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    found = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines]
    return [row for row in found if len(row) == len(TITLES)][2:]


def _elsewhere() -> list[str]:
    """Tests of the same folder that keep cells of their own: counted, where they have run."""
    found = []
    for name, what in ELSEWHERE.items():
        path = RUNS / f"{name}.json"
        if path.exists():
            ended = list(json.loads(path.read_text()).values())
            found.append(
                f"- `tests/faults/{name}`: {what}: {ended.count('passed')} of {len(ended)} tests passed"
            )
    told = ["", "And, with cells of their own:", "", *found] if found else []
    if SOAK.exists():
        told += [
            "",
            "And rollouts in a row, with random faults under one load (`tests/faults/test_soak.py`):",
        ]
        told += ["", "```text", *SOAK.read_text().splitlines(), "```"]
    return told


def _cell(text: object) -> str:
    return " ".join(str(text).replace("|", "\\|").replace("<", "&lt;").split())


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
