"""The last screen of a rollout that stopped: every node's place and every way out."""

from __future__ import annotations

import pytest

from drainctl.journal.replay import NodeState, RolloutState
from drainctl.model import Release
from drainctl.rollout import ending

WHY = "restart: health.version answers 502, 4.0 s after it began (limit 4 s)"


def state(*nodes, **changes):
    values = {
        "verb": "deploy",
        "release": Release("43"),
        "targets": {node.name: "43" for node in nodes},
        "previous": {node.name: "42" for node in nodes},
        "waves": tuple((node.name,) for node in nodes),
        "nodes": {node.name: node for node in nodes},
        "ended": "halted",
    }
    return RolloutState("r1", **(values | changes))


DONE = NodeState("web1", way="forward", outcome="done", changed=True)
LEFT_OUT = NodeState("web2", way="forward", outcome="failed", step="out", why=WHY, flagged=True, changed=True)
FRESH = NodeState("web3")


def test_a_halt_names_what_was_seen_each_place_and_each_way_out():
    assert ending.lines(state(DONE, LEFT_OUT, FRESH)) == [
        "web1: in rotation, on 43",
        f"web2: OUT OF ROTATION by its flag, on release 43 or 42 ({WHY})",
        "web3: not begun, on 42",
        "go on: drainctl resume r1 (web2 again, then web3)",
        "take back: drainctl abort r1 (web1, web2 to 42)",
        "by hand: drainctl restore web2 --steal (puts it into rotation as it is)",
    ]


def test_one_that_turned_says_what_is_left_to_take_back():
    back = LEFT_OUT._replace(way="back", why="putting it back failed at restart: exit 7")
    told = ending.lines(
        state(DONE._replace(outcome="put-back", changed=False, why="x"), back, turned="web2: x")
    )
    assert "go on: drainctl resume r1 (still takes back web2)" in told
    assert "take back: drainctl abort r1 (web2 to 42)" in told


def test_a_node_that_was_only_flagged_is_given_back():
    only = NodeState("web1", way="forward", outcome="failed", why="quiet: x", flagged=True)
    assert ending.lines(state(only))[:3] == [
        "web1: OUT OF ROTATION by its flag, on release 42 (quiet: x)",
        "go on: drainctl resume r1 (web1 again)",
        "take back: drainctl abort r1 (gives web1 back)",
    ]


@pytest.mark.parametrize(
    ("node", "place"),
    [
        (NodeState("a", way="forward", outcome="failed", why="guard: no"), "not touched (guard: no)"),
        (
            NodeState("a", way="forward", outcome="failed", why="up: no", intended=frozenset({"flag"})),
            "not flagged by this rollout, on release 42 (up: no)",
        ),
        (
            NodeState("a", way="forward", outcome="failed", why="watch: no", changed=True),
            "not flagged by this rollout, on release 43 or 42 (watch: no)",
        ),
        (NodeState("a", way="forward", outcome="restored", why="idle: no"), "in rotation, on 42 (idle: no)"),
        (
            NodeState("a", way="forward", outcome="failed", why="run:\n  one\n  two"),
            "not touched (run: one two)",
        ),
        (
            NodeState("a", way="back", step="restart", flagged=True),
            "in flight back at step restart: flagged, so out of rotation",
        ),
    ],
)
def test_the_place_of_a_node(node, place):
    assert ending.where(node, state(node)) == place


def test_a_way_out_names_three_nodes_and_counts_the_rest():
    many = [NodeState(f"web{at}") for at in range(1, 41)]
    assert ending.ways_out(state(*many))[0] == "go on: drainctl resume r1 (web1 and 39 more)"


def test_a_run_is_given_up_and_not_taken_back():
    ran = LEFT_OUT._replace(name="web1")
    told = ending.ways_out(state(ran, verb="run", release=None, line="apt upgrade"))
    assert told[1] == "give up: drainctl abort r1"


def test_a_closed_rollout_has_no_way_out():
    assert ending.lines(state(DONE, ended="done")) == ["web1: in rotation, on 43"]


def test_each_way_out_fits_into_80_columns():
    told = ending.ways_out(state(DONE, LEFT_OUT, FRESH)._replace(id="20261124-222814-1307"))
    assert max(map(len, told)) <= 80


def test_a_machine_of_a_store_is_marked_down_and_has_no_flag():
    left = NodeState("store1", way="forward", strategy="arb", outcome="failed", why="quiet", flagged=True)
    state = RolloutState("r1", "deploy", nodes={"store1": left}, previous={"store1": "v1"}, ended="halted")
    told = ending.lines(state)
    assert told[0].startswith("store1: MARKED DOWN on the board, on release v1")
    assert told[-1] == "by hand: drainctl arb up HOST:PORT of store1 --board BOARD (takes its mark away)"
