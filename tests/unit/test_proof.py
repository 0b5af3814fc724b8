"""What the balancers' counters prove of a rollout, and what they do not."""

from __future__ import annotations

from world_kit import look, row

from drainctl.model import BackendRow, Counters, Place
from drainctl.rollout.proof import proof

PLACES = {"web1": (Place("lb1", "shop", "web1"),)}


def table(pid=1, server_5xx=0, **counted):
    counters = Counters(**counted)
    backend = BackendRow("shop", "UP", 1, 0, 0, 0, counters, 1)
    other = BackendRow("other", "UP", 1, 0, 0, 0, Counters(sessions=9999, answered_5xx=99), 2)
    web1 = row("web1", counters=Counters(answered_5xx=server_5xx))
    return {"lb1": look(web1, pid=pid, backends=(backend, other))}


def test_requests_and_failures_are_differences_of_our_backends_only():
    told = proof(table(sessions=100, retries=1), table(sessions=250, retries=3), PLACES, 2.5)
    assert (told["requests"], told["failed"], told["inconclusive"], told["seconds"]) == (150, 0, [], 2.5)
    assert told["balancers"]["lb1"]["retries"] == 2


def test_what_haproxy_made_itself_is_told_from_what_the_app_answered():
    told = proof(table(), table(sessions=10, answered_5xx=5, server_5xx=3), PLACES, 1.0)
    assert told["balancers"]["lb1"]["errors"]["5xx"] == 3
    assert told["balancers"]["lb1"]["errors"]["haproxy_5xx"] == 2
    assert told["failed"] == 5


def test_a_retried_connection_is_no_failure_and_a_broken_response_is_counted_once():
    told = proof(
        table(), table(sessions=10, connect_errors=4, response_errors=2, answered_5xx=2), PLACES, 1.0
    )
    assert told["failed"] == 2


def test_a_reload_makes_it_inconclusive_and_never_zero():
    told = proof(table(sessions=100), table(pid=2, sessions=150), PLACES, 1.0)
    assert told["failed"] is None
    assert told["inconclusive"] == ["lb1 runs as another process now: its counters began anew"]


def test_so_do_counters_that_fell_a_lost_backend_and_a_lost_balancer():
    assert proof(table(sessions=100), table(sessions=50), PLACES, 1.0)["inconclusive"] == [
        "lb1 counts backend shop anew"
    ]
    assert proof(table(), {"lb1": look(row("web1"))}, PLACES, 1.0)["inconclusive"] == [
        "lb1 shows no backend shop any more"
    ]
    lost = {"lb1": look(error="refused")}
    assert proof(table(), lost, PLACES, 1.0)["inconclusive"] == ["lb1 cannot be read: refused"]
    assert proof(table(), {}, PLACES, 1.0)["failed"] is None
