"""How long a rollout takes: what drainctl.yml says, what other rollouts took, and what neither tells."""

from __future__ import annotations

import events_kit
import pytest
from world_kit import cluster

from drainctl.model import Amount, Checks, Disk, NodeLook, Release, RolloutPolicy, Survey, WatchPolicy
from drainctl.rollout.choose import Wish, make_plan
from drainctl.rollout.estimate import estimate, median, tells
from drainctl.rollout.plan import Plan

FILE = cluster(
    nodes=6,
    rollout=RolloutPolicy(at_once=Amount(2), canary=1),
    watch=WatchPolicy(for_s=10.0),
    checks=Checks(inter_s=2.0),
)
RELEASE = Release("43", archive="/43.tar", sha256="ab")


def plan(release=RELEASE, line=None):
    seen = Survey({}, {name: NodeLook(disk=Disk("42", ("42",))) for name in FILE.names})
    wish = Wish("deploy", release=release, line=line)
    return make_plan(FILE, wish, seen, dict.fromkeys(FILE.names, ()), lambda *_: None)


def by_name(found):
    return {step.name: step for step in found.ways[0].steps}


def test_the_first_rollout_says_what_it_does_not_know():
    found = estimate(FILE, plan(), [])
    assert found.unknown == ("stage", "idle", "restart", "warm")
    assert found.ways[0].seconds == 1.0 + 1.0 + 10.0  # half a check interval out, and up, and the watch
    assert (found.waves, found.total_s) == (4, 48.0)
    told = by_name(found)
    assert (told["idle"].seconds, told["idle"].how) == (None, "not known yet")
    assert (told["out"].how, told["watch"].how) == ("half of checks.inter", "watch.for")


def test_the_journal_tells_the_rest():
    found = estimate(FILE, plan(), [events_kit.done(), events_kit.done()])
    took = {name: took_s for name, _, _, took_s in events_kit.FORWARD}
    assert {name: step.seconds for name, step in by_name(found).items()} == took | {"watch": 10.0}
    assert by_name(found)["restart"].how == "median of 8 in the last 2 rollouts"
    assert found.unknown == ()
    assert found.stage
    assert found.stage.seconds == pytest.approx(1.6)  # 0.8 s a node, four nodes at once, six nodes
    assert found.total_s == pytest.approx(1.6 + 4 * sum(took.values()))


def test_the_watch_is_as_long_as_the_file_says_whatever_was_watched_before():
    longer = cluster(nodes=6, watch=WatchPolicy(for_s=30.0))
    assert by_name(estimate(longer, plan(), [events_kit.done()]))["watch"].seconds == 30.0


def test_nothing_to_bring_is_not_staged():
    assert estimate(FILE, plan(Release("43"), "update"), []).stage is None


def test_only_finished_rollouts_of_the_same_command_tell():
    assert tells(events_kit.done(), None)
    assert not tells(events_kit.done(), "sudo update-shop")
    assert not tells(events_kit.put_back(), None)
    assert not tells(events_kit.interrupted(), None)
    assert not tells([], None)


def test_an_empty_plan_takes_no_time():
    found = estimate(FILE, Plan("deploy", (), {}, {}, {}, None), [])
    assert (found.total_s, found.unknown) == (0.0, ())


@pytest.mark.parametrize(("values", "middle"), [([3.0], 3.0), ([9.0, 1.0, 2.0], 2.0), ([1.0, 4.0], 2.5)])
def test_the_median(values, middle):
    assert median(values) == middle
