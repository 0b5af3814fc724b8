from __future__ import annotations

from drainctl.model import BalancerLook, Counters, Place, ServerRow, Status
from drainctl.rollout.shown import rows_as_text

PLACES = [Place("lb1", "shop", "web1"), Place("lb2", "shop", "web1"), Place("lb3", "shop", "web1")]
ROW = ServerRow(
    backend="shop",
    server="web1",
    status=Status.parse("NOLB 1/2"),
    check="L7STS",
    checking=False,
    check_code=404,
    last_check="",
    weight=1,
    role="active",
    scur=2,
    qcur=1,
    counters=Counters(sessions=140, answered_5xx=3, connect_errors=4, response_errors=5),
    iid=3,
    sid=1,
)


def test_a_row_says_state_check_load_and_errors() -> None:
    looks = {"lb1": BalancerLook("lb1", 1.0, rows=(ROW,))}
    assert rows_as_text(PLACES[:1], looks) == [
        "lb1 shop/web1: NOLB 1/2, L7STS 404, 2 in flight, 1 queued, 140 sessions, 3 5xx, 4 econ, 5 eresp"
    ]


def test_what_is_not_there_is_said_and_what_was_not_asked_is_not() -> None:
    looks = {"lb1": BalancerLook("lb1", 1.0), "lb2": BalancerLook("lb2", 1.0, error="no answer within 2 s")}
    assert rows_as_text(PLACES, looks) == [
        "lb1 shop/web1: no such server",
        "lb2 shop/web1: cannot be read: no answer within 2 s",
    ]
