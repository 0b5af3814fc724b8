"""What was going on, told by nodes alone: which release takes it back, and when that is not known."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from drainctl.errors import ConfigError, PreflightError
from drainctl.model import Answer, Disk, NodeLook, Survey
from drainctl.node.fence import Claim
from drainctl.rollout import from_nodes
from tests.unit.world_kit import cluster

SHOP = cluster(3)
AT = "2026-11-25T00:31:52Z"
BY = "deploy@ops1 (pid 4711)"


def flag(rollout: str = "r1", token: int = 7, verb: str = "deploy") -> str:
    return json.dumps({"rollout": rollout, "token": token, "by": BY, "at": AT, "verb": verb})


def claim(was: str | None = "v1", rollout: str = "r1", token: int = 7, verb: str = "deploy") -> Claim:
    return Claim(token, rollout, AT, verb, "v2" if verb == "deploy" else None, was, BY)


def node(current: str = "v1", answers: str | None = "", flagged: str | None = None) -> NodeLook:
    said = current if answers == "" else answers
    version = Answer(200, f"{said}\n") if said else Answer(None, error="refused")
    return NodeLook(version=version, disk=Disk(current, ("v1", "v2"), flagged))


def seen(
    nodes: Sequence[NodeLook | None], claims: Sequence[Sequence[Claim]] | None = None, shop: Any = SHOP
) -> from_nodes.Found:
    looks: Mapping[str, NodeLook] = {
        name: look for name, look in zip(shop.names, nodes, strict=True) if look is not None
    }
    errors = {name: "no route" for name in shop.names if name not in looks}
    kept = dict(zip(shop.names, claims or [[claim()]] * len(nodes), strict=True))
    return from_nodes.found(shop, Survey({}, looks, errors), kept)


def back(found: from_nodes.Found, to: str | None = None) -> tuple[str, tuple[str, ...]]:
    taken = from_nodes.back(found, SHOP, to)
    return taken.release, taken.nodes


@pytest.mark.parametrize(
    ("first", "taken"),
    [
        (node("v1", flagged=flag()), ("web1",)),
        (node("v2", "v1", flagged=flag()), ("web1",)),
        (node("v2", None, flagged=flag()), ("web1",)),
        (node("v2", flagged=flag()), ("web1",)),
        (node("v2"), ("web1",)),
    ],
    ids=["flagged", "switched", "restarting", "restarted", "given back"],
)
def test_a_rollout_that_died_on_its_first_node_is_taken_back_there(first, taken):
    assert back(seen([first, node(), node()])) == ("v1", taken)


def test_one_that_died_on_its_last_node_is_taken_back_everywhere():
    found = seen([node("v2"), node("v2"), node("v2", "v1", flag())])
    assert back(found) == ("v1", ("web1", "web2", "web3"))


def test_a_rollout_that_is_over_is_not_taken_back():
    for nodes in ([node("v2")] * 3, [node("v1")] * 3, [node("v2"), node("v2", None), node("v2")]):
        with pytest.raises(ConfigError, match="nothing is unfinished"):
            back(seen(nodes))


def test_without_fences_the_release_of_most_nodes_is_the_one_of_before():
    found = seen([node("v2", flagged=flag()), node(), node()], [[], [], []])
    assert found.last
    assert (found.last.rollout, found.last.verb) == ("r1", "deploy")
    assert back(found) == ("v1", ("web1",))


def test_what_is_not_known_for_certain_is_refused_and_can_be_said():
    half = seen([node("v2", flagged=flag()), node("v1"), node("v3")], [[], [], []])
    with pytest.raises(
        ConfigError, match=r"no release is on most nodes\n  web1: current v2; it has v1, v2\n"
    ):
        back(half)
    assert back(half, "v1") == ("v1", ("web1", "web3"))
    twice = seen([node("v1", flagged=flag("r2", 9)), node(), node()], [[claim("v2", "r2", 9)], [], []])
    with pytest.raises(ConfigError, match="the nodes ran different releases: web1 v2, web2 v1, web3 v1"):
        back(twice)
    assert back(twice, "v1") == ("v1", ("web1",))


def test_a_release_that_is_not_there_is_refused():
    with pytest.raises(ConfigError, match="release v9 is not on web1, web2, web3"):
        back(seen([node("v2", flagged=flag()), node(), node()]), "v9")


def test_nodes_that_people_took_out_stay_out():
    drained = flag("r9", 9, "drain")
    found = seen(
        [node("v2", flagged=flag()), node(flagged=drained), node(flagged="by hand")],
        [[claim()], [claim(rollout="r9", token=9, verb="drain"), claim()], [claim()]],
    )
    assert found.last
    assert found.last.rollout == "r1", "a drain by hand is no rollout that is to be taken back"
    assert back(found) == ("v1", ("web1",))
    assert [name for name, each in found.nodes.items() if each.left_alone] == ["web2", "web3"]
    with pytest.raises(ConfigError, match="nothing is unfinished"):
        back(seen([node(), node(flagged=drained), node()]))


def test_a_node_that_cannot_be_reached_is_a_reason_to_wait():
    with pytest.raises(PreflightError, match="web3 cannot be reached: no route"):
        back(seen([node("v2", flagged=flag()), node(), None]))


def test_without_releases_the_commands_are_told():
    shop = cluster(3, release=None)
    found = seen([node(flagged=flag()), node(), node()], shop=shop)
    with pytest.raises(ConfigError, match="has no `release`") as caught:
        from_nodes.back(found, shop)
    assert caught.value.hint == "drainctl restore web1 --steal"


def test_the_screen_says_who_since_when_where_and_what_to_do():
    found = seen([node("v2", "v1", flag()), node(), node(flagged="by hand")])
    assert from_nodes.lines(found, SHOP) == [
        "web1: OUT OF ROTATION by its flag, on v2; answers with v1; before: v1",
        "web2: in rotation, on v1",
        "web3: OUT OF ROTATION by its flag, on v1; drainctl did not set it",
        "",
        f"rollout r1 (deploy v2) of {BY} since {AT}, token 7",
        "  is not finished",
        "",
        "  take back: drainctl abort --from-nodes (web1 to v1:",
        "    by the nodes' fences, they had it before)",
        "  by hand: drainctl restore web1 --steal (puts it into rotation as it is)",
        "  by hand: drainctl restore web3 --steal (puts it into rotation as it is)",
    ]
    drained = seen([node(flagged=flag("r9", 9, "drain"))] * 3)
    assert from_nodes.lines(drained, SHOP)[0].endswith(f"on v1; set by drain r9 of {BY} at {AT}")
    assert from_nodes.lines(seen([node()] * 3, [[]] * 3), SHOP)[-1] == (
        "no rollout of drainctl has left a trace on these nodes"
    )
