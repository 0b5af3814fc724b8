"""The rollout's decisions over a cluster in memory: order, guards, failures, crashes at every act."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world_kit import Crash, FakeCluster, cluster, die_at

from drainctl.errors import Exit
from drainctl.model import Amount, BalancerLook, DrainPolicy, ImageReleases, RolloutPolicy, Word
from drainctl.rollout.world import Stop

IMAGES = {"release": None, "images": ImageReleases("shop")}


def deployed(fake: FakeCluster) -> None:
    assert {node.current for node in fake.nodes.values()} == {"v2"}
    assert {node.running for node in fake.nodes.values()} == {"v2"}
    assert not any(node.flag for node in fake.nodes.values())
    assert fake.broken == []
    assert fake.failed == 0


def untouched(fake: FakeCluster) -> None:
    assert {node.current for node in fake.nodes.values()} == {"v1"}
    assert {node.running for node in fake.nodes.values()} == {"v1"}
    assert not any(node.flag for node in fake.nodes.values())
    assert fake.broken == []


@pytest.mark.parametrize("admin", [True, False])
def test_a_deploy_takes_every_node_and_fails_no_request(admin):
    fake = FakeCluster(cluster(), admin=admin)
    plan = fake.plan()
    fake.begin(plan)
    assert fake.roll(plan).outcome == "done"
    deployed(fake)
    assert fake.lowest_up == 3


def test_two_at_once_never_leave_fewer_than_keep_up():
    fake = FakeCluster(cluster(rollout=RolloutPolicy(at_once=Amount(2), canary=1)))
    plan = fake.plan()
    assert plan.waves == (("web1",), ("web2", "web3"), ("web4",))
    fake.begin(plan)
    assert fake.roll(plan).outcome == "done"
    deployed(fake)
    assert fake.lowest_up >= 2


def test_a_release_that_does_not_start_is_put_back_and_the_others_are_not_touched():
    fake = FakeCluster(cluster(), breaks=frozenset({"v2"}))
    plan = fake.plan()
    fake.begin(plan)
    outcome = fake.roll(plan)
    assert (outcome.outcome, outcome.exit) == ("put-back", Exit.PUT_BACK)
    untouched(fake)
    assert fake.failed == 0
    assert not any(act.startswith("web2") and "Stage" not in act for act in fake.acts)


def test_a_container_that_does_not_start_is_put_back_and_the_others_are_not_touched():
    fake = FakeCluster(cluster(**IMAGES), breaks={"v2"})
    plan = fake.plan()
    fake.begin(plan)
    outcome = fake.roll(plan)
    assert outcome.outcome == "put-back"
    assert "the container exited with code 0" in outcome.why
    untouched(fake)
    assert fake.failed == 0
    assert [act for act in fake.acts if "ReplaceContainer" in act] == ["web1 ReplaceContainer"] * 2


def test_a_release_that_answers_errors_is_seen_by_the_watch_and_put_back():
    fake = FakeCluster(cluster(), errors=frozenset({"v2"}))
    plan = fake.plan()
    fake.begin(plan)
    outcome = fake.roll(plan)
    assert outcome.outcome == "put-back"
    assert "5xx" in outcome.why
    untouched(fake)


def test_with_halt_the_failed_node_stays_out_and_the_others_as_they_are():
    fake = FakeCluster(cluster(rollout=RolloutPolicy(on_failure="halt")), breaks=frozenset({"v2"}))
    plan = fake.plan()
    fake.begin(plan)
    outcome = fake.roll(plan)
    assert (outcome.outcome, outcome.exit) == ("halted", Exit.HALTED)
    assert fake.nodes["web1"].flag
    assert [fake.nodes[name].running for name in ("web2", "web3", "web4")] == ["v1"] * 3


def test_finished_nodes_go_back_by_the_same_steps_when_a_later_one_fails():
    fake = FakeCluster(cluster())
    plan = fake.plan()
    fake.begin(plan)
    real = fake._restart

    def only_web3_breaks(at):
        fake.breaks = frozenset({"v2"}) if at.name == "web3" else frozenset()
        real(at)

    fake._restart = only_web3_breaks
    assert fake.roll(plan).outcome == "put-back"
    untouched(fake)
    outcomes = {name: node.outcome for name, node in fake.state().nodes.items()}
    assert outcomes == {"web1": "put-back", "web2": "put-back", "web3": "put-back", "web4": None}


def test_with_halt_a_bad_release_that_is_needed_is_not_taken_out():
    """keep_up holds for a node that has failed, too: the others went down while it was away."""
    policy = RolloutPolicy(on_failure="halt", keep_up=Amount(1), patience_s=0.5)
    fake = FakeCluster(cluster(2, rollout=policy), errors=frozenset({"v2"}))

    def outage(moment: str) -> None:
        if moment == "after" and fake.acts[-2:] == ["web1 ClearFlag", "web1 Nudge"]:
            fake.nodes["web2"].running = None
            fake.words.update({(lb.name, "web2"): Word.DOWN for lb in fake.cluster.balancers})

    fake.die = outage
    plan = fake.plan()
    fake.begin(plan)
    outcome = fake.roll(plan)
    assert outcome.outcome == "halted"
    assert "not out of rotation, guard: lb1 shop: 0 other of 2 servers up" in outcome.why
    assert not fake.nodes["web1"].flag


@dataclass
class Blinded(FakeCluster):
    """lb1 cannot be read for so long from when `idle` begins."""

    blind_s: float = 0.0
    until: float | None = None

    def append(self, rollout, kind, **rest):
        if kind == "step.seen" and rest.get("step") == "out" and self.until is None:
            self.until = self.now + self.blind_s
        return super().append(rollout, kind, **rest)

    def balancers(self, looks):
        found = dict(super().balancers(looks))
        if self.until is not None and self.now < self.until:
            found["lb1"] = BalancerLook("lb1", self.now, error="no answer")
        return found


@pytest.mark.parametrize(("blind_s", "outcome"), [(2.9, "done"), (3.2, "put-back")])
def test_a_balancer_that_cannot_be_read_stops_the_clock_for_as_long_as_patience_lasts(blind_s, outcome):
    """drain.limit 1 s and rollout.patience 2 s: 3 s in all."""
    policy = RolloutPolicy(patience_s=2.0)
    fake = Blinded(cluster(drain=DrainPolicy(limit_s=1.0), rollout=policy), blind_s=blind_s)
    plan = fake.plan()
    fake.begin(plan)
    ended = fake.roll(plan)
    assert ended.outcome == outcome, ended
    if outcome == "put-back":
        assert "lb1 cannot be read: no answer, 1.0 s after it began (limit 1 s), and 3.0 s" in ended.why
        assert "in which a balancer could not be read" in ended.why


@pytest.mark.parametrize(
    ("then", "outcome"), [("fallback", "put-back"), ("halt", "halted"), ("force", "done")]
)
def test_a_drain_past_its_limit(then, outcome):
    fake = FakeCluster(cluster(drain=DrainPolicy(limit_s=5.0, then=then)))
    fake.nodes["web1"].busy_until = 1e9
    plan = fake.plan()
    fake.begin(plan)
    ended = fake.roll(plan)
    assert ended.outcome == outcome
    assert fake.broken == []
    assert fake.nodes["web1"].flag == (then == "halt")
    if then != "force":
        assert "1 request in flight on lb1" in ended.why
        assert fake.nodes["web1"].running == "v1"


def test_with_wait_a_drain_has_no_limit():
    fake = FakeCluster(cluster(drain=DrainPolicy(limit_s=5.0, then="wait")))
    fake.nodes["web1"].busy_until = 300.0
    plan = fake.plan()
    fake.begin(plan)
    assert fake.roll(plan).outcome == "done"
    deployed(fake)


def test_the_guard_waits_for_another_server_and_then_gives_up():
    fake = FakeCluster(cluster(nodes=2))
    fake.nodes["web2"].running = None
    fake.sleep(2.0)
    plan = fake.plan()
    fake.begin(plan)
    before = fake.failed
    outcome = fake.roll(plan)
    assert outcome.outcome == "put-back"
    assert "rollout.keep_up = 50% needs 1" in outcome.why
    assert fake.nodes["web1"].running == "v1"
    assert fake.failed == before


@pytest.mark.parametrize("moment", range(80))
@pytest.mark.parametrize("end", ["resume", "abort"])
@pytest.mark.parametrize("kind", [{}, IMAGES], ids=["folders", "images"])
def test_a_crash_before_or_after_any_act_is_resumed_or_aborted(moment, end, kind):
    fake = FakeCluster(cluster(nodes=3, **kind))
    plan = fake.plan()
    fake.begin(plan)
    fake.die = die_at(moment)
    try:
        outcome = fake.roll(plan)
    except Crash:
        outcome = None
    fake.die = lambda _moment: None
    if outcome is not None:
        assert outcome.outcome == "done"  # fewer moments than that: nothing crashed
        deployed(fake)
        return
    fake.sleep(3.0)
    fake.resumed()
    if end == "abort":
        fake.append("r1", "rollout.turned", data={"to": "back", "why": "abort was asked"})
    outcome = fake.roll(plan)
    if end == "resume":
        assert outcome.outcome == "done"
        deployed(fake)
    else:
        assert outcome.outcome == "put-back"
        untouched(fake)
    assert fake.failed == 0
    assert fake.lowest_up >= 2


@settings(max_examples=10_000 if os.environ.get("DRAINCTL_SOAK") else 300, deadline=None)
@given(
    crashes=st.lists(st.integers(0, 60), max_size=4),
    breaks=st.booleans(),
    admin=st.booleans(),
    at_once=st.integers(1, 2),
    end=st.sampled_from(["resume", "abort"]),
)
def test_any_number_of_crashes_ends_in_a_known_state(crashes, breaks, admin, at_once, end):
    fake = FakeCluster(
        cluster(rollout=RolloutPolicy(at_once=Amount(at_once))),
        admin=admin,
        breaks=frozenset({"v2"} if breaks else ()),
    )
    plan = fake.plan()
    fake.begin(plan)
    outcome = None
    for number in crashes:
        fake.die = die_at(number)
        try:
            outcome = fake.roll(plan)
            break
        except Crash:
            fake.sleep(2.0)
            fake.resumed()
    fake.die = lambda _moment: None
    if outcome is None:
        if end == "abort" and not fake.state().turned:
            fake.append("r1", "rollout.turned", data={"to": "back", "why": "abort was asked"})
        outcome = fake.roll(plan)
    assert outcome.outcome in {"done", "put-back"}
    if outcome.outcome == "done":
        deployed(fake)
    else:
        untouched(fake)
        assert fake.failed == 0
    assert fake.lowest_up >= 4 - at_once


def test_the_first_interrupt_settles_the_node_in_flight_and_resume_goes_on():
    fake = FakeCluster(cluster())
    plan = fake.plan()
    fake.begin(plan)
    stop = Stop()
    fake.die = lambda _moment: stop.ask() if "web2 SetFlag" in fake.acts and not stop.asked else None
    outcome = fake.roll(plan, stop)
    assert (outcome.outcome, outcome.exit) == ("interrupted", Exit.INTERRUPTED)
    assert not any(node.flag for node in fake.nodes.values())
    assert [node.running for node in fake.nodes.values()] == ["v2", "v1", "v1", "v1"]
    fake.die = lambda _moment: None
    fake.resumed()
    assert fake.roll(plan).outcome == "done"
    deployed(fake)


def test_an_interrupt_after_the_switch_finishes_the_node():
    fake = FakeCluster(cluster())
    plan = fake.plan()
    fake.begin(plan)
    stop = Stop()
    fake.die = lambda _moment: stop.ask() if "web2 Switch" in fake.acts and not stop.asked else None
    assert fake.roll(plan, stop).outcome == "interrupted"
    assert [node.running for node in fake.nodes.values()] == ["v2", "v2", "v1", "v1"]


def test_pause_is_honoured_between_waves():
    fake = FakeCluster(cluster())
    plan = fake.plan()
    fake.begin(plan)
    asked = []

    def ask(_moment):
        if "web1 Switch" in fake.acts and not asked:
            asked.append(fake.append("r1", "rollout.asked", data={"ask": "pause", "by": "me"}))

    fake.die = ask
    outcome = fake.roll(plan)
    assert outcome.outcome == "paused"
    assert [node.running for node in fake.nodes.values()] == ["v2", "v1", "v1", "v1"]
    fake.resumed()
    assert fake.roll(plan).outcome == "done"
    deployed(fake)


def test_max_failed_lets_the_rollout_go_on_and_says_who_is_behind():
    fake = FakeCluster(cluster(rollout=RolloutPolicy(max_failed=1)))
    fake.nodes["web2"].busy_until = 1e9
    plan = fake.plan()
    fake.begin(plan)
    outcome = fake.roll(plan)
    assert outcome.outcome == "halted"
    assert outcome.why == "finished, but not on web2"
    assert [node.running for node in fake.nodes.values()] == ["v2", "v1", "v2", "v2"]
    assert not any(node.flag for node in fake.nodes.values())


def test_a_plan_of_one_node_is_one_wave():
    one = cluster(nodes=1)
    assert FakeCluster(replace(one)).plan().waves == (("web1",),)


def test_a_balancer_that_forgets_between_idle_and_restart_holds_the_restart_up():
    fake = FakeCluster(cluster(), admin=False)
    plan = fake.plan()
    fake.begin(plan)
    forgot = []

    def forget(moment):
        if moment == "after" and fake.acts[-1] == "web1 Switch" and not forgot:
            forgot.append(moment)
            fake.words["lb1", "web1"] = Word.UP  # as after a reload, until its next check
            fake.next_check["lb1", "web1"] = fake.now + 1.0

    fake.die = forget
    assert fake.roll(plan).outcome == "done"
    assert forgot
    deployed(fake)


def test_an_abort_asked_during_the_last_wave_is_honoured():
    fake = FakeCluster(cluster())
    plan = fake.plan()
    fake.begin(plan)
    asked = []

    def ask(_moment):
        if "web4 Switch" in fake.acts and not asked:
            asked.append(fake.append("r1", "rollout.asked", data={"ask": "abort", "by": "me"}))

    fake.die = ask
    outcome = fake.roll(plan)
    assert (outcome.outcome, outcome.exit) == ("put-back", Exit.PUT_BACK)
    untouched(fake)
