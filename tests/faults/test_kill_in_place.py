"""
drainctl killed at every act of every in-place journey, forth and back, on a real node under load.

After each death the journal says where it was left; `resume` reaches the end that was wanted, `abort` puts
the old release back; no process is left beside the one that serves, and the load, which runs over each
test, loses no request. The acts are enumerated: a journey with another act than these fails.

One rollout is killed at each of its acts in turn, going on by `resume`, and others on their way back, going
on by `abort`; then there are deaths by themselves: those that leave the most to be undone, or with
DRAINCTL_SOAK=1 one before and one after each act, resumed and aborted.
"""

from __future__ import annotations

import os

import pytest

from drainctl.errors import Exit
from tests.faults import kit_in_place as kit
from tests.faults.kit import wait_for
from tests.faults.kit_in_place import Way

pytestmark = [pytest.mark.real, pytest.mark.slow]

SOAK = os.environ.get("DRAINCTL_SOAK") == "1"
BASE = os.environ.get("DRAINCTL_TEST_BASE", "127.0.88")

FLIP = ("start", "warm", "switch", "flip", "stop")
AROUND = ("rewrite", "flag", "aside", "reload", "restore", "back", "stop")
PAIR = tuple(f"{act}-{name}" for name in ("backup", "live") for act in ("hide", "stop", "start", "warm"))
KEPT = {"strategy": "port-flip", "nginx": "wheel", "keepalive_min": "2s"}
NUDGED = {"strategy": "port-flip", "nodes": 2, "balancers": 1, "inter": "300ms"}

WAYS = [
    Way("socket-flip", {"strategy": "socket-flip"}, FLIP, {"stop": FLIP}),
    Way(
        "port-flip",
        KEPT,
        ("switch", "start", "warm", "rewrite", "reload", "stop"),
        {"stop": ("switch", "start", "warm", "rewrite", "reload", "stop")},
    ),
    Way(
        "port-flip, nudged and flagged",
        NUDGED,
        ("switch", "start", "warm", *AROUND),
        {"stop": ("switch", "start", "warm", *AROUND)},
        {"[http-check, port-flip]": "[port-flip]"},
    ),
    Way("backup", {"strategy": "backup"}, ("switch", *PAIR), {PAIR[-1]: ("switch", *PAIR[4:], *PAIR[:4])}),
    Way(
        "reload by usr2",
        {"strategy": "reload"},
        ("switch", "spawn", "retire"),
        # Killed before it retires the bad one, it finds two masters again: the second is dismissed.
        {"spawn": ("switch", "dismiss"), "retire": ("switch", "spawn", "retire", "dismiss")},
    ),
    Way(
        "reload by hup",
        {"strategy": "reload"},
        ("switch", "reload"),
        {"reload": ("switch", "reload")},
        {'gunicorn.pid"}': 'gunicorn.pid", by: hup}'},
    ),
]
# Deaths that leave the most to be undone: each is aborted.
WORST = {
    "socket-flip": ("after:start",),
    "port-flip": ("after:reload",),
    "port-flip, nudged and flagged": ("after:aside", "after:reload"),
    "backup": ("after:hide-backup", "after:stop-live"),
    "reload by usr2": ("after:spawn", "after:retire"),
    "reload by hup": ("after:reload",),
}


# Nudged and flagged, a port flip has all the acts of one that stands alone.
@pytest.fixture(name="ground", params=[way for way in WAYS if SOAK or way.name != "port-flip"], ids=str)
def _ground(request):
    with kit.ground(request.param, BASE) as it:
        yield it, request.param


def test_killed_at_each_act_in_turn_forth_and_back(ground):
    it, way = ground
    first, seen = forth(it, way)
    it.settled(first)
    assert seen == [f"after:{act}" for act in ("begin", *way.known)]

    for act in way.back:
        back(it, way, act)
        it.settled(first)

    for moment, end in deaths(way):
        it.settled(by_itself(it, moment, end))
    report = it.counted()
    assert report.requests > 5 * it.runs, "the load was not there all the while"
    assert set(report.kinds) == {"get", "post", "slow", "ws", "late"}


def killing(acts):
    """All acts, or those that change what users meet: after the others a death leaves no more than these."""
    return [act for act in acts if SOAK or not act.startswith(("stage", "warm", "prune"))]


def forth(it, way):
    """One deploy that is killed after each of its acts, and goes on by resume."""
    release, archive = it.release()
    ended, seen = None, []
    for act in killing(way.known):
        ended = it.killed(f"after:{act}", *(["resume"] if ended else ["deploy", archive, "--only", "web1"]))
        seen += [moment for moment in moments(ended, "after") if moment not in seen]
        it.at(act, "forward")
    ended = it.dying(None, "resume")
    assert ended.code == Exit.DONE, ended.told
    it.over("done")
    return release, [*seen, *(moment for moment in moments(ended, "after") if moment not in seen)]


def back(it, way, dies):
    """One deploy that is killed after this act, and killed again before each act of its way back."""
    _, archive = it.release()
    it.killed(f"after:{dies}", "deploy", archive, "--only", "web1")
    if dies == "retire":  # else it is chance whether the way back meets the first master
        wait_for("the first master is gone", lambda: it.web1().runs == ("gunicorn.pid",))
    seen = []
    for act in killing(way.back[dies]):
        ended = it.killed(f"before:{act}", "abort")
        seen += [moment for moment in moments(ended, "before") if moment not in seen]
        it.at(act, "back")
    ended = it.dying(None, "abort")
    assert ended.code == Exit.DONE, ended.told
    seen += [moment for moment in moments(ended, "before") if moment not in seen]
    assert seen == [f"before:{act}" for act in way.back[dies]]
    it.over("put-back")


def deaths(way):
    """How a rollout dies, and how it goes on."""
    if not SOAK:
        return [(moment, "abort") for moment in WORST[way.name]]
    found = [f"{when}:{act}" for act in way.known for when in ("before", "after")]
    found += [f"during:{act}" for act in way.acts if act.startswith(("start", "stop"))]
    return [(moment, end) for moment in found for end in ("resume", "abort")]


def by_itself(it, moment, end):
    """One death and what follows; the release that must serve afterwards."""
    before = it.web1().current
    release, archive = it.release()
    it.killed(moment, "deploy", archive, "--only", "web1")
    ended = it.drainctl(end)
    assert ended.code == Exit.DONE, (moment, ended.told)
    it.over("done" if end == "resume" else "put-back")
    return release if end == "resume" else before


def moments(ended, when):
    found = [line.rpartition(" ")[0].replace(" ", ":") for line in ended.trace]
    return [moment for moment in found if moment.startswith(f"{when}:")]
