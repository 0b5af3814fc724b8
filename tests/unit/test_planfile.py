"""A plan as data, and what is told where the world is not as it was; and the plan's screen, at any size."""

from __future__ import annotations

import json
from dataclasses import replace

import events_kit
import pytest
from world_kit import cluster, look, row

from drainctl.cli.show_plan import folded, plan_text
from drainctl.config.expand import Expanded
from drainctl.errors import ConfigError
from drainctl.model import (
    Amount,
    Answer,
    Disk,
    FlagCommands,
    Health,
    NodeLook,
    Release,
    ReleaseLayout,
    RolloutPolicy,
    Service,
    Survey,
)
from drainctl.rollout.choose import Wish, make_plan
from drainctl.rollout.estimate import estimate
from drainctl.rollout.places import find_places
from drainctl.rollout.plan import refusals
from drainctl.rollout.planfile import Asked, Made, asked_in, differences, document, parse, runs_already

MADE = Made("0.1.0", "2026-05-04T14:02:11Z", "a" * 64)
RELEASE = Release("v2", archive="/v2.tar", sha256="b" * 64, size=31_000_000)
ASKED = Asked("/builds/v2.tar", only=("web1", "web2"), at_once="2")
FOUR = cluster(nodes=4)


def survey(file, statuses=(), release="v1", **busy):
    rows = [row(name, dict(statuses).get(name, "UP"), scur=busy.get(name, 0)) for name in file.names]
    tables = {lb.name: look(*rows, balancer=lb.name, can_change=lb.name == "lb1") for lb in file.balancers}
    seen = NodeLook(check=Answer(200), version=Answer(200, release), disk=Disk(release, ("v0", release)))
    return Survey(tables, dict.fromkeys(file.names, seen))


def planned(file, seen, release=RELEASE, **wish):
    return make_plan(
        file, Wish("deploy", release=release, **wish), seen, find_places(file, seen.tables), lambda *_: None
    )


def told(file=FOUR, seen=None, release=RELEASE, made=MADE, **wish):
    seen = seen or survey(file)
    found = document(file, planned(file, seen, release, **wish), seen, asked=ASKED, made=made)
    return json.loads(json.dumps(found))


# ---------------------------------------------------------------- the file


def test_a_plan_is_read_as_it_was_written():
    was = told()
    assert parse(json.dumps(was), "p.json") == was
    assert asked_in(was) == ASKED
    assert was["waves"] == [["web1"], ["web2"], ["web3"], ["web4"]]
    assert was["nodes"]["web3"] == {
        "release": "v1",
        "target": "v2",
        "strategy": "http-check",
        "reason": "configured",
        "servers": {"lb1 shop/web3": "UP", "lb2 shop/web3": "UP"},
        "commands": {"restart": "restart"},
        "container": [],
    }
    assert [step["step"] for step in was["steps"]][:3] == ["guard", "flag", "out"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", r"p\.json is no plan: "),
        ("[]", r"p\.json is no plan of drainctl"),
        ('{"v": 1}', r"p\.json is no plan of drainctl"),
        ('{"v": 2, "asked": {}, "waves": [], "nodes": {}}', r"p\.json has version 2 of plans, expected 1"),
    ],
)
def test_what_is_no_plan_is_refused(text, why):
    with pytest.raises(ConfigError, match=why):
        parse(text, "p.json")


def test_the_same_world_has_no_differences_whatever_its_counters_say():
    assert differences(told(), told(seen=survey(FOUR, web2=17)), "p.json") == []


@pytest.mark.parametrize(
    ("now", "why"),
    [
        (
            {"made": replace(MADE, config_sha256="c" * 64)},
            ["drainctl.yml has sha256 cccccccccccc…, aaaaaaaaaaaa… in p.json"],
        ),
        ({"made": replace(MADE, drainctl="0.2.0")}, ["drainctl has version 0.2.0, 0.1.0 in p.json"]),
        (
            {"release": RELEASE._replace(sha256="d" * 64)},
            ["the release has sha256 dddddddddddd…, bbbbbbbbbbbb… in p.json"],
        ),
        (
            {"seen": survey(FOUR, release="v0")},
            ["web1, web2, web3, web4: runs v0, v1 in p.json"],
        ),
        (
            {"seen": survey(FOUR, {"web2": "DOWN"})},
            ["web2: lb1 shop/web2 is DOWN, UP in p.json", "web2: lb2 shop/web2 is DOWN, UP in p.json"],
        ),
        (
            {"file": replace(FOUR, rollout=RolloutPolicy(at_once=Amount(2)))},
            ["the waves are web1+web2, web3+web4, web1, web2, web3, web4 in p.json"],
        ),
        (
            {"file": replace(FOUR, service=Service("restart {node}"))},
            [f"web{at}: restart would run `restart web{at}`, `restart` in p.json" for at in range(1, 5)],
        ),
        (
            {"file": replace(FOUR, balancers=FOUR.balancers[:1])},
            [f"web{at}: lb2 shop/web{at} is missing, UP in p.json" for at in range(1, 5)],
        ),
    ],
)
def test_every_difference_is_named(now, why):
    assert differences(told(), told(**now), "p.json") == why


def test_a_world_that_cannot_be_reached_is_not_called_different():
    now = told() | {"waves": [], "nodes": {}}
    assert differences(told(), now, "p.json") == []


def test_what_a_variable_stood_for_is_in_no_file():
    secret = Expanded("restart --token hunter2", "restart --token ${TOKEN}")
    was = json.dumps(told(replace(FOUR, service=Service(secret))))
    assert "hunter2" not in was
    assert "restart --token ${TOKEN}" in was


def test_every_node_runs_it_already_only_where_it_answers_with_it():
    seen = survey(FOUR, release="v2")
    assert runs_already(FOUR, planned(FOUR, seen), seen)
    assert not runs_already(FOUR, planned(FOUR, survey(FOUR)), survey(FOUR))
    old = seen.nodes["web4"]._replace(version=Answer(200, "v1"))
    other = seen._replace(nodes={**seen.nodes, "web4": old})
    assert not runs_already(FOUR, planned(FOUR, other), other)
    unnamed = planned(FOUR, seen, None, line="update")
    assert not runs_already(FOUR, unnamed, seen)


# ---------------------------------------------------------------- the screen


def screen(file=FOUR, seen=None, past=(), **wish):
    seen = seen or survey(file)
    plan = planned(file, seen, **wish)
    return plan_text(file, plan, seen, refusals(file, plan, seen), estimate(file, plan, past))


def test_what_stands_on_the_screen():
    text = screen(replace(FOUR, service=Service("ctl {node}")), survey(FOUR, {"web4": "DOWN"}, web2=3))
    assert "  web1, web2, web3 (3 nodes): v1 -> v2, by http-check (configured)\n" in text
    assert "    UP on lb1 shop, lb2 shop\n    in flight: 6\n" in text
    assert "  web4: v1 -> v2, by http-check (configured)\n    DOWN on lb1 shop, lb2 shop\n" in text
    assert "first, on every node: stage v2 (31.0 MB)" in text
    assert (
        "  restart  run `ctl web1`\n           on web2: `ctl web2`\n           on web3: `ctl web3`\n" in text
    )
    assert "`set server shop/web1 health stopping` on lb1; no nudge on lb2" in text
    assert "  switch   /srv/shop/current -> releases/v2\n" in text
    assert "expected: 8.00 s at least; not known yet: stage, idle, restart, warm" in text


def test_the_time_says_where_it_comes_from():
    text = screen(past=[events_kit.done()])
    assert "expected: about 15.9 s\n  = 0.80 s to stage + 4 × 3.77 s a wave, of which\n" in text
    assert "    2.10 s  restart  median of 4 in the last rollout\n" in text
    assert "    1.00 s  watch    watch.for\n" in text


def test_a_node_that_answers_another_release_than_it_links_to_is_told():
    seen = survey(FOUR)
    lying = seen.nodes["web2"]._replace(version=Answer(200, "v7\n"))
    text = screen(seen=seen._replace(nodes={**seen.nodes, "web2": lying}))
    assert "  web2: v1 -> v2, but answers 'v7', by http-check (configured)\n" in text


def test_commands_that_set_the_flag_are_shown_as_they_are_run():
    flag = FlagCommands("echo {text} > /run/{node}", "rm /run/{node}")
    file = replace(FOUR, health=Health("http://{host}/c", flag, version="http://{host}/v"))
    assert "run `echo {text} > /run/web1`" in screen(file)
    assert "run `rm /run/web1`" in screen(file)


def test_two_hundred_nodes_fit_on_a_screen_of_80_columns():
    many = cluster(
        nodes=200,
        release=ReleaseLayout("/srv/shop"),
        service=Service("ctl {node}"),
        rollout=RolloutPolicy(canary=1, at_once=Amount(3)),
    )
    text = screen(many, survey(many, {"web77": "DOWN"}), past=[events_kit.done()])
    lines = text.splitlines()
    assert len(lines) <= 70, text
    assert max(map(len, lines)) <= 80
    assert "  web1 … web76, web78 … web200 (199 nodes): v1 -> v2" in text
    assert "  wave 1: web1\n  waves 2 to 67: web2 … web199, 3 nodes each\n  wave 68: web200\n" in text
    assert "195 more: `drainctl plan --output json` has every one" in text


def test_what_is_refused_stands_last():
    seen = survey(FOUR, {"web1": "MAINT"})
    lines = screen(seen=seen).splitlines()
    at = lines.index("refused, nothing would be touched:")
    assert lines[at + 1] == "  web1 is in MAINT on lb1: somebody took it out"


def test_neighbours_are_folded_and_nothing_is_hidden():
    order = [f"n{at}" for at in range(9)]
    assert folded(order, order) == "n0 … n8"
    assert folded(order[:3] + order[4:], order) == "n0, n1, n2, n4 … n8"
    assert folded(["n7"], order) == "n7"
