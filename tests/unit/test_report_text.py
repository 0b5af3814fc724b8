from __future__ import annotations

from datetime import UTC, timedelta, timezone
from typing import Any

import pytest

from drainctl.report import text
from tests.unit.events_kit import BEGAN_S, PROOF


@pytest.mark.parametrize(
    ("spent_s", "words"),
    [
        (0.004, "0.00 s"),
        (0.31, "0.31 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (99.94, "99.9 s"),
        (99.96, "1 min 40 s"),
        (119.7, "2 min 00 s"),
        (3599.6, "1 h 00 min"),
        (3840, "1 h 04 min"),
    ],
)
def test_seconds(spent_s: float, words: str) -> None:
    assert text.seconds(spent_s) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (4200, "4.2 kB"),
        (999_960, "1.0 MB"),
        (31_000_000, "31.0 MB"),
        (5 * 10**12, "5.0 TB"),
    ],
)
def test_size(count: int, words: str) -> None:
    assert text.size(count) == words


def test_times_have_their_zone() -> None:
    east = timezone(timedelta(hours=2), "CEST")
    assert text.rfc3339(BEGAN_S + 0.1234) == "2026-05-04T14:02:11.123Z"
    assert text.rfc3339(BEGAN_S) == "2026-05-04T14:02:11.000Z"
    assert text.clock_time(BEGAN_S, UTC) == "14:02:11"
    assert text.clock_time(BEGAN_S, east) == "16:02:11"
    assert text.day_time(BEGAN_S, east) == "2026-05-04 16:02:11 CEST"


def test_one_line_disarms_what_a_node_answered() -> None:
    assert text.one_line("a\x1b[2J\r\n::error::b\t c\u202e\udcff") == "a [2J ::error::b c"
    assert text.one_line("41 → 42, 3 × é") == "41 → 42, 3 × é"


def test_clip() -> None:
    assert [text.clip("abcdef", width) for width in (6, 5, 1, 0)] == ["abcdef", "abcd…", "…", "…"]


def test_columns_align() -> None:
    assert text.columns([("name", "n"), ("a", "100")], right={1}) == ["name    n", "a     100"]
    assert text.columns([]) == []


def test_proof_of_nothing_failed() -> None:
    first, *table = text.proof_table(PROOF).splitlines()
    assert first == "0 failed of 48210 requests in 41.2 s"
    assert table[0].split() == [
        "balancer",
        "requests",
        "5xx",
        "connect",
        "response",
        "haproxy",
        "5xx",
        "retries",
        "redispatches",
    ]
    assert table[1].split() == ["lb1", "24103", "0", "0", "0", "0", "0", "0"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"failed": 3}, "3 failed of 48210 requests in 41.2 s"),
        ({"inconclusive": ["lb2 was reloaded at 14:02:31"]}, "inconclusive: lb2 was reloaded at 14:02:31"),
        (
            {"inconclusive": ["lb2 was reloaded"], "failed": 3},
            "inconclusive: lb2 was reloaded; at least 3 failed",
        ),
        ({"failed": None}, "inconclusive: failed requests were not counted"),
        ({"balancers": {"lb1": {"requests": 4, "reset": True}}}, "inconclusive: lb1 was reset"),
        (
            {"balancers": {"lb1": {"reset": True}}, "inconclusive": ["lb1 was reloaded at 14:02:31"]},
            "inconclusive: lb1 was reloaded at 14:02:31",
        ),
        ({"balancers": {}}, "0 failed of 48210 requests in 41.2 s"),
    ],
)
def test_proof_never_says_zero_of_what_it_did_not_see(change: dict[str, Any], words: str) -> None:
    assert text.proof_table(PROOF | change).splitlines()[0] == words


def test_proof_shows_errors_by_kind_and_resets() -> None:
    row = {"requests": 9, "errors": {"5xx": 1, "connect": 2, "response": 3, "haproxy_5xx": 4}, "retries": 5}
    table = text.proof_table(PROOF | {"balancers": {"lb1": row | {"redispatches": 6, "reset": True}}})
    assert max(map(len, table.splitlines())) <= 78
    assert table.splitlines()[-1].startswith("* incomplete")
    assert table.splitlines()[2].split() == [
        "lb1",
        "*",
        "9",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
    ]


def test_the_proof_of_long_names_fits_80_columns() -> None:
    row = {"requests": 48210311, "errors": {"5xx": 1}, "reset": True}
    table = text.proof_table(PROOF | {"balancers": {"a-balancer-with-a-long-name": row}}).splitlines()
    assert max(map(len, table[1:])) <= 78
    assert table[2].startswith("a-balancer… * ")


def test_what_is_said_of_several_nodes_is_said_once() -> None:
    up = [f"web{number}: in rotation, on 42" for number in range(1, 7)]
    lines = [*up, "web7: OUT OF ROTATION", "go on: drainctl resume r"]
    assert text.said_together(lines) == [
        "web1 … web6 (6 nodes): in rotation, on 42",
        "web7: OUT OF ROTATION",
        "go on: drainctl resume r",
    ]
    assert text.said_together(up[:2]) == ["web1, web2: in rotation, on 42"]


def test_wrapped_lines_are_as_wide_as_asked() -> None:
    assert text.wrapped_all(["error: one two three", "  web1: four five"], 14) == [
        "error: one two",
        "  three",
        "  web1: four",
        "    five",
    ]
    assert text.wrapped_all(["", "x" * 9], 5) == ["", "xxxxx", "  xxx", "  x"]
