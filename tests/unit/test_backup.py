"""backup without a node: what it does on sockets and on ports, and what it says where it cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world_kit import cluster

from drainctl.model import Health, Nginx, Node, NodeLook, Said, Service
from drainctl.node import ask, sockets
from drainctl.steps import Do, Holds, Job, Never, NotYet, Seen
from drainctl.strategies import backup, hidden

LIVE, BACKUP = "/run/shop/live.sock", "/run/shop/backup.sock"
START = {"start": "start {socket}", "stop": "stop {socket}"}
ON_SOCKETS = Service(sockets=("/run/{app}/live.sock", "/run/{app}/backup.sock"), **START)
ON_PORTS = Service(start="start {port}", stop="stop {port}", ports=(8000, 8001))
NODE = Node("web1", "10.0.0.11", "web1", ("backup",), vars={"app": "shop"})
PAIRED = cluster(nodes=1, balancers=0, service=ON_SOCKETS, nginx=Nginx("shop", fail_timeout_s=0.0))
DEPLOY = Job("deploy", "v2", leaving="v1")
BACK = Job("put-back", "v1", leaving="v2")
RESTART = Job("restart", "v1", leaving="v1")
RESTART_BACK = Job("put-back", "v1", leaving="v1")


def steps(job, at=PAIRED):
    return {step.name: step for step in backup.journey(at, NODE, job)}


def said(version=None, what="socket", *, listens=True, connections=0, aside="-"):
    """What is printed of one process."""
    answer = f"{version or ''}\n{ask.MARK} {200 if version else 0} 0.001\n"
    return f"{answer}{sockets.MARK} {int(listens)} {connections}\n{hidden.MARK} {what} {aside}\n"


GONE = said(what="nothing", listens=False)
AWAY = said(what="file", aside="aside")


def look(here, there=GONE, spent_s=0.0):
    probe = Said(0, f"{here}drainctl-next\n{there}", "")
    return Seen(NODE, (), {}, NodeLook(probe=probe), spent_s=spent_s)


# ---------------------------------------------------------------- order


ACTS = ("hide", "quiet", "stop", "start", "warm")


def test_each_is_hidden_and_idle_before_it_ends_the_backup_first_and_on_the_way_back_last():
    live, spare = ([f"{act}-{name}" for act in ACTS] for name in ("live", "backup"))
    assert list(steps(DEPLOY)) == ["switch", *spare, *live, "settle", "watch"]
    assert list(steps(BACK)) == ["switch", *live, "settle", *spare, "watch"]
    assert steps(DEPLOY)["hide-live"].changes


def test_a_restart_waits_first_since_an_earlier_life_of_it_may_have_restarted_the_live_one():
    marked = replace(PAIRED, nginx=Nginx("shop", fail_timeout_s=2.0, clients="lost"))
    rest = steps(RESTART, marked)["rest"]
    assert list(steps(RESTART, marked))[:2] == ["rest", "hide-backup"]
    assert isinstance(rest.expects(look(said("v1"), spent_s=1.9)), NotYet)
    assert isinstance(rest.expects(look(said("v1"), spent_s=rest.limit_s)), Holds)
    assert "rest" in steps(Job("deploy", "v1", leaving="v1"))


def test_on_ports_nothing_is_hidden():
    ported = cluster(nodes=1, balancers=0, service=ON_PORTS, nginx=Nginx("shop"))
    assert not any(name.startswith(("hide", "quiet")) for name in steps(DEPLOY, ported))


def test_what_hiding_has_left_is_taken_away_right_before_the_start():
    act = steps(DEPLOY)["start-live"].act
    assert act.line == f"rm -f -- {LIVE} {LIVE}.hidden; start {{socket}}"
    assert dict(act.more) == {"socket": LIVE}


# ---------------------------------------------------------------- what is judged


@pytest.mark.parametrize(
    ("here", "there", "may"),
    [
        (said("v1"), said("v1"), True),
        (said("v1"), said("v2"), True),
        (said("v1"), GONE, False),
        (said("v1"), AWAY, False),
        (said(), said("v1"), True),
        (said(what="file", listens=False), GONE, True),  # nobody has it any more: nothing can be lost by it
    ],
)
@pytest.mark.parametrize("step", ["hide-live", "stop-live", "hide-backup", "stop-backup"])
def test_one_may_go_while_the_other_answers_or_where_nobody_has_it(step, here, there, may):
    assert isinstance(steps(DEPLOY)[step].requires(look(here, there)), Holds) == may


def test_where_nobody_has_the_other_one_it_is_not_waited_for():
    requires = steps(DEPLOY)["stop-backup"].requires
    assert isinstance(requires(look(AWAY, said("v1", listens=False))), Never)
    assert isinstance(requires(look(AWAY, said())), NotYet)
    assert isinstance(requires(look(said("v1"), AWAY)), NotYet), "it runs, and is to come back"


@pytest.mark.parametrize(
    ("here", "holds"),
    [
        (said("v1"), False),
        (AWAY, True),
        (GONE, True),
        (said(what="nothing", aside="aside"), False),  # renamed, and the file is not there yet
        (said("v1", what="link"), False),
    ],
)
def test_it_is_hidden_when_a_file_is_in_its_place_or_nobody_listens(here, holds):
    step = steps(DEPLOY)["hide-live"]
    assert step.look_first
    assert isinstance(step.expects(look(here, said("v1"))), Holds) == holds


@pytest.mark.parametrize("step", ["hide-live", "quiet-live", "stop-live"])
@pytest.mark.parametrize(
    ("job", "version", "left"),
    [
        (DEPLOY, "v2", True),
        (DEPLOY, "v1", False),
        (BACK, "v1", True),
        (RESTART_BACK, "v1", True),  # the right one may stay, whether or not it was restarted
        (RESTART, "v1", False),
        (Job("deploy", "v1", leaving="v1"), "v1", False),
    ],
)
def test_one_that_has_the_new_release_is_left_alone(step, job, version, left):
    busy = look(said(version, connections=3), said("v1"))
    assert isinstance(steps(job)[step].expects(busy), Holds) == left


def test_an_app_that_does_not_tell_its_version_is_never_taken_for_the_new_one():
    ready = cluster(
        nodes=1,
        balancers=0,
        service=ON_SOCKETS,
        nginx=Nginx("shop"),
        health=Health(ready="http://{host}/healthz"),
    )
    assert isinstance(steps(DEPLOY, ready)["stop-live"].expects(look(said("ok"), said("ok"))), NotYet)


def test_connections_are_waited_for_by_drain_limit_and_then():
    quiet = steps(DEPLOY)["quiet-live"]
    busy = said(what="file", connections=2)
    assert isinstance(quiet.expects(look(busy, said("v1"))), NotYet)
    over = quiet.expects(look(busy, said("v1"), spent_s=PAIRED.drain.limit_s))
    assert "it is told to stop, and finishes them" in over.why
    assert quiet.in_a_row == 2
    assert (quiet.on_limit, steps(DEPLOY)["stop-live"].on_limit) == (Do.HALT, Do.UNDO)


# ---------------------------------------------------------------- who cannot


def why_not(live, spare, at=PAIRED):
    inspected = {"backup": Said(0, f"{live}drainctl-next\n{spare}", "")}
    return backup.cannot(at, NODE, DEPLOY, Seen(NODE, (), {}, NodeLook(inspected=inspected)))


@pytest.mark.parametrize(
    ("live", "spare", "why"),
    [
        (said("v1"), said("v1"), None),
        (GONE, said("v1"), f"{LIVE} is no socket"),
        (said("v1"), said(what="file", listens=False), f"{BACKUP} is no socket"),
        (
            said("v1"),
            AWAY,
            (
                f"{BACKUP} is no socket: a rollout has hidden it; resume or abort that, or rename "
                f"{BACKUP}.hidden back"
            ),
        ),
        (
            said("v1", what="link"),
            said("v1"),
            f"{LIVE} is a link, and connections to what it points at cannot be counted",
        ),
        (said("v1", what="locked"), said("v1"), f"drainctl's user may not rename in the folder of {LIVE}"),
        (
            said("v1", what="one"),
            said("v1"),
            f"{LIVE} and the other of service.sockets are one socket",
        ),
        (
            said("v1", listens=False),
            said("v1"),
            (
                f"nobody listens at {LIVE} by that name, so its connections cannot be counted: the app is to "
                f"bind the path that service.sockets names"
            ),
        ),
        (
            said("v1"),
            said(),
            f"the process behind {BACKUP} answers no answer, so the other one must not be stopped",
        ),
    ],
)
def test_a_pair_of_sockets_that_cannot_be_replaced(live, spare, why):
    assert why_not(live, spare) == why


@pytest.mark.parametrize(("clients", "loses"), [("nudge", True), ("kept", False), ("lost", False)])
def test_ports_must_be_asked_for_by_name_since_they_lose_posts(clients, loses):
    ported = replace(PAIRED, service=ON_PORTS, nginx=Nginx("shop", clients=clients, fail_timeout_s=0.0))
    why = why_not(said("v1"), said("v1"), ported)
    assert (why is not None) == loses
    assert not why or ("65 of 53,024" in why and "nginx.clients = lost" in why)
    assert why_not(said("v1"), said("v1")) is None, "sockets need no such word"
