"""Writes down how each test of this folder ended, for docs/reliability.md."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest

from tests.faults import reliability_page

_ended: dict[str, dict[str, str]] = defaultdict(dict)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    name = report.nodeid.partition("::")[0].rpartition("/")[2]
    if report.when == "call" and name in reliability_page.ELSEWHERE:
        _ended[name][report.nodeid.partition("::")[2]] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):
        return  # of pytest-xdist: whoever began it hears of all
    for name, ended in _ended.items():
        reliability_page.RUNS.mkdir(parents=True, exist_ok=True)
        path = reliability_page.RUNS / f"{name}.json"
        path.write_text(json.dumps(ended, indent=1) + "\n")
