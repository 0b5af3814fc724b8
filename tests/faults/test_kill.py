"""
drainctl killed before and after every act of a node's journey, and interrupted, on a real cluster under load.

After each death `status` tells what is so, `resume` reaches the end that was wanted, `abort` puts everything
back; and the load, which runs over the whole module, loses no request in any of it. The acts are enumerated:
a journey that has another act than these fails the first test.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from drainctl.errors import Exit
from tests.conftest import until
from tests.faults import kit

pytestmark = [pytest.mark.real, pytest.mark.slow]

# The acts of a journey, in order, by the step that each belongs to; the rollout is made known by `begin`, and
# old releases are deleted by `prune` when all nodes are done.
ACTS = ("begin", "stage", "flag", "out", "switch", "restart", "warm", "restore", "up", "prune")
MOMENTS = tuple(f"{when}:{act}" for act in ACTS for when in ("before", "after"))
# Before it is known there is no rollout: nothing to go on with, see test_killed_before_it_is_known.
KNOWN = MOMENTS[1:]
# A death in the middle of an act can leave what no death between acts does: the command goes on without us.
KILLED = (*KNOWN, "during:restart")
# What is left after a death right before the restart, and of a way back after a death right after it.
GOING_ON = ("flag", "out", "switch", "restart", "warm", "restore", "up", "prune")
GOING_BACK = ("flag", "out", "switch", "restart", "warm", "restore", "up")


def named(moments):
    return [pytest.param(moment, id=moment.replace(":", "-")) for moment in moments]


@pytest.fixture(scope="module")
def ground():
    with kit.short_ground("127.0.51") as it:
        yield it


@pytest.fixture(autouse=True)
def _no_failure_spoils_the_next(request, ground):
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        ground.recover()


def reached(moment: str, act: str, when: str) -> bool:
    """Whether a journey that died at `moment` had come to `when` (before, after) `act`."""
    order = list(MOMENTS)
    died = moment.replace("during:", "before:")
    return order.index(died) >= order.index(f"{when}:{act}")


def flagged(moment: str) -> bool:
    return reached(moment, "flag", "after") and not reached(moment, "restore", "after")


# ---------------------------------------------------------------- what must be so


def check_status(
    ground: kit.Ground, moment: str, release: str, before: dict[str, kit.NodeIs], *, text: bool = False
) -> None:
    """Only what was done until the death is so, and status tells it."""
    told = ground.status(text=text)
    check_what_is_so(told.real, moment, release, before)
    check_json(told, moment)
    if text:
        check_text(told, moment, release)


def check_what_is_so(
    real: dict[str, kit.NodeIs], moment: str, release: str, before: dict[str, kit.NodeIs]
) -> None:
    web1, was = real["web1"], before["web1"]
    assert (web1.flag is not None) == flagged(moment)
    assert web1.current == (release if reached(moment, "switch", "after") else was.current)
    if moment != "during:restart":  # then its app is down for a while
        assert web1.words == ({"NOLB"} if flagged(moment) else {"UP"}), web1
        assert web1.version == (release if reached(moment, "restart", "after") else was.version)
    check_others(real, before)


def check_json(told: kit.Told, moment: str) -> None:
    for name, real in told.real.items():
        node = told.nodes[name]
        assert node["release"] == real.current
        assert node["flag"] == (real.flag and real.flag.rstrip("\n"))
        assert told.shown(name) == {lb: row.rpartition(" ")[0] for lb, row in real.rows.items()}
    assert (told.lease, told.rollout["open"], told.rollout["outcome"]) == (None, True, None)
    assert told.real["web1"].flag_owner == (told.rollout["id"] if flagged(moment) else None)
    at, act = told.rollout["nodes"]["web1"], moment.partition(":")[2]
    assert at["flagged"] == flagged(moment)
    if act in {"begin", "stage"}:
        assert (at["way"], at["outcome"]) == (None, None)
    elif act == "prune":
        assert (at["way"], at["outcome"]) == ("forward", "done")
    else:
        assert (at["way"], at["step"], at["outcome"]) == ("forward", act, None)


def check_text(told: kit.Told, moment: str, release: str) -> None:
    rollout, act = told.rollout["id"], moment.partition(":")[2]
    for name, real in told.real.items():
        found, version, _, *rows = told.row(name)[:5]
        assert [found, version, *rows] == [name, real.current, *told.shown(name).values()], told.text
        flag = "".join(told.row(name)[5:])
        assert flag.startswith(f"deploy {rollout}") if real.flag else not flag, told.text
    assert f"rollout {rollout} (deploy {release}) is not finished: its controller died" in told.text
    said = told.said("web1")
    if act in {"begin", "stage"}:
        assert said.startswith("web1: not begun, on "), told.text
    elif act == "prune":
        assert said == f"web1: in rotation, on {release}", told.text
    else:
        place = "flagged, so out of rotation" if flagged(moment) else "not flagged"
        assert said == f"web1: in flight forward at step {act}: {place}", told.text
    for verb in ("resume", "abort"):
        assert re.search(rf"drainctl -c \S+ {verb} {rollout}", told.text), told.text


def check_others(real: dict[str, kit.NodeIs], before: dict[str, kit.NodeIs]) -> None:
    """web2 and web3 were never touched: the same release, never flagged, never restarted."""
    for name in ("web2", "web3"):
        assert (real[name].current, real[name].master) == (before[name].current, before[name].master)
        assert real[name].flag is None
        assert real[name].words == {"UP"}


def check_on(ground: kit.Ground, release: dict[str, str] | str) -> dict[str, kit.NodeIs]:
    """Every node that is named (or all) runs that release, has no flag, and is UP at every balancer."""
    ground.all_up()  # a check that asked before the flag was gone may answer late, and holds for one interval
    real = ground.real()
    wanted = release if isinstance(release, dict) else dict.fromkeys(real, release)
    for name, node in real.items():
        assert node.flag is None, name
        assert node.words == {"UP"}, name
        assert (node.current, node.version) == (wanted[name], wanted[name]), name
    ground.all_up()
    return real


def check_over(ground: kit.Ground, outcome: str) -> None:
    """Nothing is left open."""
    told = ground.latest()
    assert (told["rollout"]["open"], told["rollout"]["outcome"], told["lease"]) == (False, outcome, None)


def releases(real: dict[str, kit.NodeIs], **more: str) -> dict[str, str]:
    return {name: node.current for name, node in real.items()} | more


# ---------------------------------------------------------------- the acts


def test_the_acts_of_a_journey_are_these(ground):
    before = ground.real()
    release, archive = ground.release()
    ended = ground.dying(None, "deploy", archive, "--only", "web1")
    assert ended.code == Exit.DONE, ended.told
    assert [line.rpartition(" ")[0].replace(" ", ":") for line in ended.trace] == list(MOMENTS)
    check_others(check_on(ground, releases(before, web1=release)), before)


# ---------------------------------------------------------------- killed once


def test_killed_before_it_is_known(ground):
    before, known = ground.real(), ground.latest()["rollout"]
    release, archive = ground.release()
    ground.killed("before:begin", "deploy", archive, "--only", "web1")
    told = ground.status()
    assert told.real == before
    assert (told.rollout, told.lease) == (known, None)
    ended = ground.drainctl("deploy", archive, "--only", "web1")
    assert ended.code == Exit.DONE, ended.told
    check_others(check_on(ground, releases(before, web1=release)), before)


@pytest.mark.parametrize("moment", named(KILLED))
def test_killed_and_resumed(ground, moment):
    before = ground.real()
    release, archive = ground.release()
    ground.killed(moment, "deploy", archive, "--only", "web1")
    check_status(ground, moment, release, before, text=True)
    left = ground.real()["web1"].master

    ended = ground.drainctl("resume")
    assert ended.code == Exit.DONE, ended.told
    real = check_on(ground, releases(before, web1=release))
    check_others(real, before)
    if reached(moment, "warm", "before"):
        assert real["web1"].master == left, "a restart that was over was done again"
    check_over(ground, "done")


@pytest.mark.parametrize("moment", named(KILLED))
def test_killed_and_aborted(ground, moment):
    before = ground.real()
    release, archive = ground.release()
    ground.killed(moment, "deploy", archive, "--only", "web1")
    check_status(ground, moment, release, before)

    ended = ground.drainctl("abort")
    assert ended.code == Exit.DONE, ended.told
    real = check_on(ground, releases(before))
    check_others(real, before)
    if not reached(moment, "switch", "before"):
        assert real["web1"].master == before["web1"].master, "a node that was not changed was restarted"
    check_over(ground, "put-back")


# ---------------------------------------------------------------- killed twice


@pytest.mark.parametrize("act", ["stage", *GOING_ON])
def test_killed_again_in_the_resume(ground, act):
    before = ground.real()
    release, archive = ground.release()
    ground.killed("before:stage" if act == "stage" else "before:restart", "deploy", archive, "--only", "web1")
    ground.killed(f"before:{act}", "resume")
    check_open(ground)

    ended = ground.drainctl("resume")
    assert ended.code == Exit.DONE, ended.told
    check_others(check_on(ground, releases(before, web1=release)), before)


@pytest.mark.parametrize("act", GOING_BACK)
def test_killed_again_in_the_abort(ground, act):
    before = ground.real()
    _, archive = ground.release()
    ground.killed("after:restart", "deploy", archive, "--only", "web1")
    ground.killed(f"before:{act}", "abort")
    check_open(ground)

    # Once it was turned it goes back, whichever of the two is asked.
    ended = ground.drainctl("resume" if act in {"switch", "restore"} else "abort")
    assert ended.code == Exit.DONE, ended.told
    check_others(check_on(ground, releases(before)), before)


def check_open(ground: kit.Ground) -> None:
    told = ground.status()
    assert (told.rollout["open"], told.rollout["outcome"], told.lease) == (True, None, None)
    web1 = told.real["web1"]
    assert told.nodes["web1"]["flag"] == (web1.flag and web1.flag.rstrip("\n"))
    assert told.rollout["nodes"]["web1"]["flagged"] == (web1.flag is not None)


# ---------------------------------------------------------------- the whole cluster


@pytest.mark.parametrize("moment", named(("before:restart", "after:restore")))
@pytest.mark.parametrize("node", ["web1", "web2"])
def test_killed_on_the_way_through_the_cluster_and_resumed(ground, moment, node):
    release, archive = ground.release()
    ground.killed(moment, "deploy", archive, node=node)
    ended = ground.drainctl("resume")
    assert ended.code == Exit.DONE, ended.told
    check_on(ground, release)
    check_over(ground, "done")


@pytest.mark.parametrize("moment", named(("before:flag", "after:switch")))
def test_killed_at_the_second_node_and_aborted(ground, moment):
    before = ground.real()
    release, archive = ground.release()
    ground.killed(moment, "deploy", archive, node="web2")
    assert ground.real()["web1"].current == release
    ended = ground.drainctl("abort")
    assert ended.code == Exit.DONE, ended.told
    real = check_on(ground, releases(before))
    assert real["web3"].master == before["web3"].master, "a node that was never taken was restarted"
    check_over(ground, "put-back")


def test_an_abort_does_not_take_a_node_that_came_back_from_the_last_users(ground):
    """The node in flight is in rotation again; meanwhile the others left, so it must wait for them."""
    before = ground.real()
    _, archive = ground.release()
    ground.killed("after:restore", "deploy", archive, "--only", "web1")
    ground.all_up()
    with ground.flagged_by_hand("web2", "web3"), ThreadPoolExecutor(1) as aside:
        aborting = aside.submit(ground.drainctl, "abort")
        until(
            "the abort began with web1", lambda: ground.latest()["rollout"]["nodes"]["web1"]["way"] == "back"
        )
        for _ in range(3):
            assert ground.latest()["nodes"]["web1"]["flag"] is None
            assert ground.real()["web1"].words == {"UP"}
        ground.unflag("web2", "web3")
        ended = aborting.result()
    assert ended.code == Exit.DONE, ended.told
    check_on(ground, releases(before))


# ---------------------------------------------------------------- signals


@pytest.mark.parametrize("name", ["TERM", "INT"])
@pytest.mark.parametrize(
    ("moment", "goes_on"), [("before:out", False), ("before:restart", True)], ids=["undone", "finished"]
)
def test_one_signal_settles_the_node_in_flight(ground, name, moment, goes_on):
    before = ground.real()
    release, archive = ground.release()
    ended = ground.dying(moment, "deploy", archive, send=name)
    assert ended.code == Exit.INTERRUPTED, ended.told
    assert "interrupted: settling the nodes in flight" in ended.err
    settled = check_on(ground, releases(before, web1=release) if goes_on else releases(before))
    check_others(settled, before)
    told = ground.status()
    assert (told.rollout["open"], told.rollout["outcome"], told.lease) == (True, "interrupted", None)

    ended = ground.drainctl("resume")
    assert ended.code == Exit.DONE, ended.told
    check_on(ground, release)


@pytest.mark.parametrize("name", ["TERM", "INT"])
@pytest.mark.parametrize("moment", named(("after:out", "before:restart")))
def test_two_signals_stop_at_once_with_the_state_written(ground, name, moment):
    before = ground.real()
    release, archive = ground.release()
    ended = ground.dying(moment, "deploy", archive, "--only", "web1", send=f"{name},{name}")
    assert ended.code == Exit.INTERRUPTED, ended.told
    assert "interrupted: stopping at once" in ended.err
    told = ground.status(text=True)
    assert (told.rollout["open"], told.rollout["outcome"], told.lease) == (True, "interrupted", None)
    assert told.real["web1"].flag_owner == told.rollout["id"], "it was not to be given back"
    assert "flagged, so out of rotation" in told.said("web1")

    ended = ground.drainctl("resume")
    assert ended.code == Exit.DONE, ended.told
    check_others(check_on(ground, releases(before, web1=release)), before)


# ---------------------------------------------------------------- all of it


def test_no_request_failed_in_all_of_it(ground):
    report = ground.counted()
    assert report.requests > 10 * ground.runs, "the load was not there all the while"
    assert set(report.kinds) == {"get", "post", "slow", "stream"}
