"""From a file and a survey to waves, places and refusals; and the rules that refuse a file."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from world_kit import cluster, look, row

from drainctl.errors import ConfigError
from drainctl.model import (
    Amount,
    Answer,
    Checks,
    Disk,
    DrainPolicy,
    FlagFile,
    Health,
    NodeLook,
    Place,
    RolloutPolicy,
    Survey,
    WatchPolicy,
)
from drainctl.rollout import rules
from drainctl.rollout.choose import Wish, make_plan
from drainctl.rollout.places import find_places
from drainctl.rollout.plan import refusals, unreachable, waves

FOUR = cluster(nodes=4, balancers=1)
WELL = NodeLook(check=Answer(200), version=Answer(200, "v1"), disk=Disk("v1", ("v0", "v1")))


def survey(*rows, **nodes):
    rows = rows or tuple(row(name) for name in FOUR.names)
    return Survey({"lb1": look(*rows)}, dict.fromkeys(FOUR.names, WELL) | nodes)


def plan(seen, verb="restart", **wish):
    places = find_places(FOUR, seen.tables)
    return make_plan(FOUR, Wish(verb, **wish), seen, places, lambda *_: None)


def refused(seen):
    return refusals(FOUR, plan(seen), seen)


@given(nodes=st.integers(1, 40), at_once=st.integers(1, 100), percent=st.booleans(), canary=st.integers(0, 5))
def test_waves_take_every_node_once_in_order(nodes, at_once, percent, canary):
    made = cluster(nodes=nodes, rollout=RolloutPolicy(at_once=Amount(at_once, percent), canary=canary))
    found = waves(made, made.names)
    assert [name for wave in found for name in wave] == list(made.names)
    most = max(1, Amount(at_once, percent).of(nodes))
    assert all(0 < len(wave) <= most for wave in found[bool(canary) :])


def test_places_by_name_and_by_address():
    tables = {"lb1": look(*(row(name) for name in FOUR.names), row("web1", backend="admin"))}
    every = replace(FOUR, backends=())
    assert find_places(every, tables)["web1"] == (Place("lb1", "shop", "web1"), Place("lb1", "admin", "web1"))
    assert find_places(FOUR, tables)["web1"] == (Place("lb1", "shop", "web1"),)
    by_address = replace(FOUR, match="address")
    rows = [row(f"srv{at}", address=f"10.0.0.{at}:8080") for at in range(11, 15)]
    assert find_places(by_address, {"lb1": look(*rows)})["web2"] == (Place("lb1", "shop", "srv12"),)


def test_unknown_servers_and_backends_are_named_with_what_there_is():
    tables = {"lb1": look(row("web1"), row("web2"), row("other"))}
    with pytest.raises(ConfigError) as caught:
        find_places(FOUR, tables)
    assert str(caught.value).splitlines() == [
        "drainctl.yml: nodes.web3: lb1 has no server web3; it has: other, web1, web2",
        "drainctl.yml: nodes.web4: lb1 has no server web4; it has: other, web1, web2",
    ]
    with pytest.raises(ConfigError, match="lb1 has no backend 'shop' with servers; it has: api"):
        find_places(FOUR, {"lb1": look(row("web1", backend="api"))})


def test_a_healthy_cluster_is_not_refused():
    assert refused(survey()) == []


@pytest.mark.parametrize(
    ("rows", "nodes", "why"),
    [
        ({"web1": {"status": "MAINT"}}, {}, "web1 is in MAINT on lb1: somebody took it out"),
        ({"web1": {"status": "DRAIN"}}, {}, "web1 is in DRAIN on lb1: somebody drains it"),
        ({"web1": {"status": "no check"}}, {}, "lb1 shop/web1 has no check"),
        ({"web1": {"check": "INI"}}, {}, "lb1 shop/web1 has not finished its first check yet"),
        (
            {},
            {"web1": NodeLook(check=Answer(404), disk=Disk("v1", ("v1",), "by ops"))},
            "web1 is flagged already",
        ),
        ({}, {"web1": NodeLook(check=Answer(502), disk=Disk("v1", ("v1",)))}, "answers 502, expected 200"),
        (
            {"web2": {"status": "DOWN"}, "web3": {"status": "DOWN"}, "web4": {"status": "DOWN"}},
            {},
            "web1 cannot leave: lb1 shop: 0 other of 4 servers up, rollout.keep_up = 50% needs 2",
        ),
    ],
)
def test_what_is_refused(rows, nodes, why):
    shown = [row(name, **rows.get(name, {})) for name in FOUR.names]
    assert any(why in told for told in refused(survey(*shown, **nodes)))


def test_a_node_whose_release_is_gone_has_no_way_back_and_is_refused_but_for_a_rollback():
    gone = survey(web1=NodeLook(check=Answer(200), version=Answer(200, "v9"), disk=Disk("v9", ("v0", "v1"))))
    (why,) = refused(gone)
    assert why.startswith(
        "web1: `current` links to v9, which is not in releases/: no way back (`drainctl rollback"
    )
    assert refusals(FOUR, plan(gone, "rollback", to="v0"), gone) == []


def test_a_balancer_or_node_that_cannot_be_reached_is_the_only_thing_told():
    seen = Survey({"lb1": look(error="lb1: no answer within 2 s")}, {}, {"web2": "web2: refused"})
    assert unreachable(seen) == [
        "lb1 cannot be read: no answer within 2 s",
        "web2 cannot be reached: refused",
    ]
    assert unreachable(seen, balancers=False) == ["web2 cannot be reached: refused"]


def test_rollback_takes_the_release_before_by_journal_then_by_disk():
    seen = survey()
    assert {job.target for job in plan(seen, "rollback").jobs.values()} == {"v0"}
    places = find_places(FOUR, seen.tables)
    by_journal = make_plan(FOUR, Wish("rollback"), seen, places, lambda *_: "v1")
    assert {job.target for job in by_journal.jobs.values()} == {"v1"}
    with pytest.raises(ConfigError, match=r"web1 has no release 'v9' \(current: v1\); it has: v0, v1"):
        plan(seen, "rollback", to="v9")
    first = NodeLook(check=Answer(200), disk=Disk("v0", ("v0",)))
    with pytest.raises(ConfigError, match="web1 has no release before the current one"):
        plan(survey(web1=first), "rollback")


def test_a_restart_expects_the_release_that_runs():
    assert {job.target for job in plan(survey()).jobs.values()} == {"v1"}
    other = NodeLook(check=Answer(200), version=Answer(200, "build 7"), disk=Disk("v1", ("v1",)))
    assert plan(survey(web1=other)).jobs["web1"].target is None


def test_a_placeholder_that_nothing_fills_is_refused_before_anything_is_drained():
    with pytest.raises(ConfigError, match="nonsense"):
        plan(survey(), "run", line="echo {nonsense}")


def test_only_some_nodes():
    assert plan(survey(), only=["web3", "web1"]).order == ("web1", "web3")
    with pytest.raises(ConfigError, match=r"no node web9 in drainctl\.yml; it has: web1, web2, web3, web4"):
        plan(survey(), only=["web9"])


# ---------------------------------------------------------------- rules


def test_the_routing_tail():
    assert rules.routing_tail_s(Checks(inter_s=2.0)) == 6.0
    assert rules.routing_tail_s(Checks(inter_s=2.0, timeout_s=0.5)) == 7.0
    assert rules.routing_tail_s(Checks(inter_s=2.0, spread_percent=50)) == 7.0


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"rollout": RolloutPolicy(at_once=Amount(3))}, "rollout.at_once"),
        ({"rollout": RolloutPolicy(at_once=Amount(0))}, "rollout.at_once"),
        ({"rollout": RolloutPolicy(canary=4)}, "rollout.canary"),
        ({"checks": Checks(slowstart_s=6.0)}, "watch.for"),
        ({"drain": DrainPolicy(limit_s=5.0, sticky="move", move_after_s=5.0)}, "drain.move_after"),
        ({"health": Health("http://{host}/http-check", FlagFile("/drain"))}, "health"),
    ],
)
def test_what_breaks_a_rule_is_named(changes, key):
    assert [found for found, _ in rules.problems(cluster(**changes))] == [key]


def test_sound_files_break_none():
    assert rules.problems(cluster()) == []
    assert rules.problems(cluster(nodes=1)) == []
    assert rules.problems(cluster(checks=Checks(slowstart_s=6.0), watch=WatchPolicy(for_s=6.0))) == []
