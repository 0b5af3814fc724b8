"""The screen of a rollout at every size: nothing wider, nothing higher, and what matters is on it."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_report_board import row

from drainctl.journal.events import Event
from drainctl.model import BackendRow, BalancerLook, Counters, Place
from drainctl.report.board import Board
from drainctl.report.live import View, last_screen, screen
from drainctl.report.story import Story
from tests.unit import events_kit as kit

IDLE = "idle: 2 requests in flight on lb2; 46 s left"


def board_of(names: Sequence[str], out: Sequence[str] = (), balancers: int = 2) -> Board:
    """Five seconds of traffic over the nodes, at every balancer; those in `out` are NOLB."""
    lbs = [f"lb{number}" for number in range(1, balancers + 1)]
    board = Board(lbs, {name: tuple(Place(lb, "shop", name) for lb in lbs) for name in names})
    for second in range(1, 6):
        for lb in lbs:
            rows = tuple(row(name, "NOLB" if name in out else "UP", 2) for name in names)
            shop = BackendRow("shop", "UP", 9, 0, 0, 0, Counters(sessions=412 * second), 2)
            board.look(BalancerLook(lb, float(second), rows=rows, backends=(shop,)))
    return board


@cache
def in_flight(nodes: int, *, balancers: int = 2) -> View:
    """The last but one of the nodes waits to be idle."""
    events = kit.large(nodes)
    names = [f"web{number:03}" for number in range(1, nodes + 1)]
    return View(
        Story(events),
        {names[-2]: IDLE},
        notes=[f"14:02:26 lb2 took it back into rotation, number {number}" for number in range(9)],
        keys="p pauses, q leaves the view",
        board=board_of(names, out=names[-2:-1], balancers=balancers),
    )


def drawn(view: View, width: int, height: int) -> list[str]:
    lines = [line.plain for line in screen(view, width, height, view.story.last_s + 14.2)]
    assert len(lines) <= height
    assert [line for line in lines if len(line) > width] == []
    return lines


@pytest.mark.parametrize("nodes", [2, 4, 39, 200])
def test_at_80_columns_everything_that_matters_is_there(nodes: int) -> None:
    lines = drawn(in_flight(nodes), 80, 24)
    text, name = "\n".join(lines), f"web{nodes - 1:03}"
    assert lines[0].startswith(f"deploy 42 · rollout {kit.ROLLOUT} · wave {nodes - 1} of {nodes} · ")
    assert lines[1].startswith(f"{nodes - 2} done, 1 in flight, 1 to go")
    assert lines[1].endswith("p pauses, q leaves the view")
    assert f"\n{name}  http-check 41 -> 42  stage:0.8 guard flag out" in text
    assert "\n  > idle for 14 s: 2 requests in flight on lb2; 46 s left" in text
    assert any(line.split() == [name, "NOLB", "2", "NOLB", "2"] for line in lines)
    assert "412 requests/s" in text
    assert "0 failed/s" in text
    assert "number 8" in lines[-1]


def test_of_200_nodes_the_others_are_one_line() -> None:
    lines = drawn(in_flight(200), 80, 24)
    assert [line.split() for line in lines if "others" in line] == [
        ["199", "others", "UP", "398", "UP", "398"]
    ]


def test_a_server_that_is_not_as_it_should_be_is_named_among_200() -> None:
    view = deepcopy(in_flight(200))
    assert view.board
    view.board.look(BalancerLook("lb2", 9.0, rows=(row("web077", "DOWN", 0, 0),)))
    lines = drawn(view, 80, 24)
    assert [line.split() for line in lines if "web077" in line] == [["web077", "UP", "2", "DOWN"]]
    assert any(line.startswith("198 others") for line in lines)


def test_many_nodes_in_flight_are_cut_at_a_node_and_counted() -> None:
    events = kit.large(60)
    names = [f"web{number:03}" for number in range(1, 61)]
    for number, name in enumerate(names[-20:], 1000):
        data = {"way": "forward", "strategy": "http-check", "target": "42"}
        events.append(Event(number, events[-1].at_s, kit.ROLLOUT, "node.began", name, data=data))
    view = View(Story(events), dict.fromkeys(names, IDLE), board=board_of(names))
    lines = drawn(view, 80, 24)
    shown = sum("> idle" in line for line in lines)
    assert 3 <= shown < 20
    assert f"… and {20 - shown} more nodes in flight" in lines


def test_twelve_balancers_fit_80_columns() -> None:
    lines = drawn(in_flight(4, balancers=12), 80, 30)
    head = next(line for line in lines if line.startswith("servers")).split()
    cells = next(line for line in lines if line.startswith("web003") and "NOLB" in line).split()
    assert head[:3] == ["servers", "lb1", "lb2"]
    assert head[-1] != "lb12"
    assert cells[-1] == "NOLB"  # what those without a column of their own have in common
    assert "12 balancers" in "\n".join(lines)
    assert f"{12 * 412} requests/s" in "\n".join(lines)


@settings(deadline=None, max_examples=40)
@given(
    nodes=st.sampled_from([2, 4, 12, 200]),
    width=st.integers(20, 250),
    height=st.integers(6, 70),
    balancers=st.integers(1, 9),
)
def test_no_size_is_too_small(nodes: int, width: int, height: int, balancers: int) -> None:
    lines = drawn(in_flight(nodes, balancers=balancers), width, height)
    assert lines[0].startswith("deploy 42")
    assert any("> idle" in line for line in lines) or width < 60 or height < 12


def test_what_stays_fits_the_width_and_names_what_is_not_done() -> None:
    view = View(Story(kit.large(200)))
    lines = [line.plain for line in last_screen(view, 80, view.story.last_s)]
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[2:]] == ["web199"]
