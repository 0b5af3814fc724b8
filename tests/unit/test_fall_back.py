"""Falling back: a node is given back before the next strategy takes it; every report tells of both ways."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import UTC

import pytest
from world_kit import Crash, FakeCluster, cluster, die_at

from drainctl.errors import Exit
from drainctl.model import DrainPolicy, Reload, Service
from drainctl.report.history import show_rollout
from drainctl.report.junit import suites
from drainctl.report.plain import PlainReport
from drainctl.report.story import Story
from drainctl.rollout.plan import choose_way
from drainctl.steps import Job, Seen


def two_ways(then="fallback", *names):
    """Three nodes that are drained, or else reloaded."""
    file = cluster(
        nodes=3,
        service=Service(restart="restart", limit_s=20.0, reload=Reload(command="reload")),
        drain=DrainPolicy(limit_s=2.0, then=then),
    )
    ways = names or ("http-check", "reload")
    return replace(file, nodes=tuple(replace(node, strategy=ways) for node in file.nodes))


def rolled(file, **changes):
    """A deploy while web1 has requests that never end."""
    fake = FakeCluster(file, **changes)
    fake.nodes["web1"].busy_until = 1e9
    plan = fake.plan()
    fake.begin(plan)
    return fake, fake.roll(plan)


def test_past_the_drain_limit_the_next_strategy_does_it():
    fake, outcome = rolled(two_ways())
    assert outcome.outcome == "done"
    assert {node.running for node in fake.nodes.values()} == {"v2"}
    assert not any(node.flag for node in fake.nodes.values())
    assert (fake.failed, fake.broken) == (0, [])
    assert [at.strategy for at in fake.state().nodes.values()] == ["reload", "http-check", "http-check"]


def test_the_flag_is_taken_away_and_the_node_is_up_before_the_other_strategy_begins():
    fake, _ = rolled(two_ways())
    began = next(event for event in fake.events if event.kind == "node.began" and "reload" in event.text)
    before = [event for event in fake.events if event.node == "web1" and event.seq < began.seq]
    assert [(event.kind, event.step) for event in before[-2:]][-1] == ("step.seen", "up")
    assert began.data["reason"].startswith("http-check stopped at idle: 1 request in flight on lb1")


@pytest.mark.parametrize("then", ["halt", "wait", "force"])
def test_only_fallback_falls_back(then):
    if then == "wait":
        fake = FakeCluster(two_ways(then))
        fake.nodes["web1"].busy_until = 20.0
        plan = fake.plan()
        fake.begin(plan)
        assert fake.roll(plan).outcome == "done"
    else:
        fake, outcome = rolled(two_ways(then))
        assert outcome.outcome == ("halted" if then == "halt" else "done")
    assert {event.data["strategy"] for event in fake.events if event.kind == "node.began"} == {"http-check"}


def test_no_strategy_left_gives_the_node_back_unchanged():
    file = two_ways("fallback", "http-check")
    fake, outcome = rolled(file)
    assert (outcome.outcome, outcome.exit) == ("put-back", Exit.PUT_BACK)
    assert "no other strategy is configured for web1" in outcome.why
    assert fake.nodes["web1"].running == "v1"
    assert not fake.nodes["web1"].flag


@pytest.mark.parametrize("moment", range(0, 40, 2))
def test_killed_anywhere_it_goes_on_by_the_strategy_that_it_was_in(moment):
    fake = FakeCluster(two_ways(), die=die_at(moment))
    fake.nodes["web1"].busy_until = 1e9
    plan = fake.plan()
    fake.begin(plan)
    try:
        outcome = fake.roll(plan)
    except Crash:
        fake.die = lambda _: None
        fake.resumed()
        outcome = fake.roll(plan)
    assert outcome.outcome == "done"
    assert {node.running for node in fake.nodes.values()} == {"v2"}
    assert not any(node.flag for node in fake.nodes.values())
    assert (fake.failed, fake.broken) == (0, [])


def test_reports_tell_of_both_ways():
    fake, _ = rolled(two_ways())
    shown = show_rollout(fake.events, UTC)
    assert "web1  forward  http-check  v1 -> v2  fell back" in shown
    assert "web1  forward  reload  v1 -> v2  done" in shown
    out = io.StringIO()
    plain = PlainReport(out, zone=UTC)
    for event in fake.events:
        plain.event(event)
    assert "web1  fallback  deploy v2 by reload: http-check stopped at idle" in out.getvalue()
    total = suites(Story(fake.events))
    assert (total.get("failures"), total.get("errors")) == ("0", "0")
    first = total.find("testsuite[@name='web1 (http-check)']/testcase[@name='idle']/skipped")
    assert first is not None
    assert first.get("message", "").startswith("fell back: ")


def test_the_first_that_can_is_chosen_and_says_why_not_the_others():
    file = two_ways("fallback", "http-check", "reload")
    node = file.node("web1")
    fake = FakeCluster(file)
    seen = Seen(node, fake.places["web1"], fake.balancers(frozenset()), fake.host(node, frozenset()))
    jobs = {name: Job("deploy", "v2") for name in node.strategy}
    assert choose_way(file, "web1", jobs, seen).strategy == "http-check"
    alone = replace(seen, out_too=frozenset({"web2", "web3"}))
    way = choose_way(file, "web1", jobs, alone)
    assert way.strategy == "reload"
    assert way.reason.startswith("http-check cannot: it cannot leave: lb1 shop: 0 other of 3 servers up")
    drained = choose_way(file, "web1", {name: Job("drain") for name in node.strategy}, alone)
    assert drained.strategy is None
    assert drained.passed[-1] == ("reload", "it does not know drain")
