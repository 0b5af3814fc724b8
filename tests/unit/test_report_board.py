from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainctl.model import BackendRow, BalancerLook, Counters, Place, ServerRow, Status
from drainctl.report.board import Board, Cell, Moment
from drainctl.report.sparkline import BARS, sparkline

PLACES = {"web1": (Place("lb1", "shop", "web1"),), "web2": (Place("lb1", "shop", "web2"),)}


def row(server: str, status: str = "UP", active: int = 0, queued: int = 0, **counters: int) -> ServerRow:
    return ServerRow(
        "shop",
        server,
        Status.parse(status),
        "L7OK",
        False,
        200,
        "",
        1,
        "active",
        active,
        queued,
        Counters(**counters),
        2,
        1,
    )


def table(at_s: float, *rows: ServerRow, **counters: int) -> BalancerLook:
    shop = BackendRow("shop", "UP", 2, 0, 0, 0, Counters(**counters), 2)
    other = BackendRow("other", "UP", 2, 0, 0, 0, Counters(sessions=int(1e6 * at_s)), 3)
    return BalancerLook("lb1", at_s, rows=rows, backends=(shop, other))


def test_a_cell_has_state_requests_queue_and_the_errors_since_the_first_look() -> None:
    board = Board(["lb1"], PLACES)
    board.look(table(1.0, row("web1", answered_5xx=7)))
    assert str(board.cell("web1", "lb1")) == "UP"
    assert board.cell("web1", "lb1").well
    board.look(BalancerLook("lb1", 1.1, rows=(row("web1", "NOLB", 2, 3, answered_5xx=8, connect_errors=1),)))
    assert board.cell("web1", "lb1") == Cell(("NOLB",), 2, 3, 2)
    assert str(board.cell("web1", "lb1")) == "NOLB 2 +3 queued, 2 errors"
    assert str(board.cell("web2", "lb1")) == "-"


def test_counters_that_fell_are_counted_from_zero() -> None:
    board = Board(["lb1"], PLACES)
    board.look(table(1.0, row("web1", sessions=90, answered_5xx=7), sessions=100))
    board.look(table(2.0, row("web1", sessions=4, answered_5xx=1), sessions=10))
    assert board.cell("web1", "lb1").errors == 1
    assert board.traffic("lb1") == (Moment(None, None),)
    board.look(table(3.0, sessions=30))
    assert board.traffic("lb1")[-1] == Moment(20.0, 0.0)


def test_traffic_is_of_the_clusters_backends_alone_and_per_second() -> None:
    board = Board(["lb1"], PLACES)
    board.look(table(1.0, sessions=100))
    board.look(table(1.1, sessions=900))  # too soon after the last to be a rate
    board.look(table(3.0, sessions=300, answered_5xx=4, response_errors=2))
    assert board.traffic("lb1") == (Moment(100.0, 2.0),)


def test_a_balancer_that_cannot_be_read_shows_nothing_old() -> None:
    board = Board(["lb1", "lb2"], PLACES)
    board.look(table(1.0, row("web1", active=3), sessions=1))
    board.look(BalancerLook("lb1", 2.0, error="lb1: no\nsocket"))
    assert str(board.cell("web1", "lb1")) == "?"
    assert board.faults == {"lb1": "lb1: no socket"}
    assert board.traffic("lb1") == (Moment(None, None),)
    board.look(table(3.0, row("web1", active=4), sessions=500))
    assert str(board.cell("web1", "lb1")) == "UP 4"
    assert board.faults == {}
    assert len(board.traffic("lb1")) == 1  # the time that it was away is no second


def test_all_traffic_is_the_sum_where_all_is_known() -> None:
    board = Board(["lb1", "lb2"], {"web1": (*PLACES["web1"], Place("lb2", "shop", "web1"))})
    for at_s, sessions in ((1.0, 0), (2.0, 10), (3.0, 30)):
        board.look(table(at_s, sessions=sessions))
        board.look(table(at_s, sessions=2 * sessions)._replace(balancer="lb2"))
    assert board.all_traffic() == [Moment(30.0, 0.0), Moment(60.0, 0.0)]


@pytest.mark.parametrize(
    ("values", "bars"),
    [
        ([], "    "),
        ([0, 0, 0, 0], "▁▁▁▁"),
        ([1, 2, 3, 4, 5, 6, 7], "▅▆▇█"),
        ([5, None, 0, 5], "█ ▁█"),
        ([1000, 1, 0], " █▂▁"),
    ],
)
def test_sparklines(values: list[float | None], bars: str) -> None:
    assert sparkline(values, 4) == bars


@given(st.lists(st.one_of(st.none(), st.floats(0, 1e12)), max_size=50), st.integers(0, 20))
def test_only_zero_is_the_lowest_bar(values: list[float | None], width: int) -> None:
    bars = sparkline(values, width)
    assert len(bars) == width
    shown = values[-width:] if width else []
    for value, bar in zip(shown, bars[width - len(shown) :], strict=True):
        assert (bar == " ") == (value is None)
        assert (bar == BARS[0]) == (value is not None and value <= 0)
