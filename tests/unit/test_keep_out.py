"""A node that must stay out is nudged out again by whatever look shows it in rotation."""

from __future__ import annotations

import pytest
from world_kit import cluster, look, row

from drainctl.model import Place
from drainctl.rollout.keep_out import KeepOut

WEB1 = cluster().nodes[0]
PLACES = {"web1": (Place("lb1", "shop", "web1"), Place("lb2", "shop", "web1"))}


@pytest.fixture
def keeper():
    nudged, told = [], []

    def nudge(node, balancer):
        nudged.append((node.name, balancer))
        return "told"

    it = KeepOut(PLACES, nudge=nudge, tell=lambda _node, text: told.append(text))
    it.nudged, it.told = nudged, told
    return it


def test_a_stray_is_nudged_and_told(keeper):
    keeper.add(WEB1)
    keeper.look(look(row("web1", "NOLB")))
    assert keeper.nudged == []
    keeper.look(look(row("web1", "UP 1/3")))
    assert keeper.nudged == [("web1", "lb1")]
    assert keeper.told == ["lb1 took it back into rotation: told"]


def test_a_new_process_is_told(keeper):
    keeper.add(WEB1)
    keeper.look(look(row("web1", "NOLB"), pid=1))
    keeper.look(look(row("web1", "NOLB"), pid=2))
    assert keeper.told == ["lb1 runs as another process now (pid 1 -> 2)"]


def test_a_node_that_may_come_back_is_left_alone(keeper):
    keeper.add(WEB1)
    keeper.discard(WEB1)
    keeper.look(look(row("web1")))
    assert keeper.nudged == []


def test_an_unreadable_balancer_is_no_stray(keeper):
    keeper.add(WEB1)
    keeper.look(look(error="refused"))
    assert keeper.nudged == []
