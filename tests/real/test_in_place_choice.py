"""
Which way a node goes: the first of its strategies that can. Where http-check cannot, or stops before it has
changed anything, the node goes in place: under load, without a failed request, and `plan`, the journal and
`show` say which way and why.
"""

from __future__ import annotations

import json
import threading
import urllib.request
from contextlib import contextmanager

import pytest
from in_place_kit import archive, base, in_place, load_on, other
from rollout_kit import cli, configure, current, flags, wait_up

from drainctl.errors import Exit
from drainctl.lab import ready
from tests.conftest import until

pytestmark = [pytest.mark.real, pytest.mark.slow]

BASE = base("127.0.102")

# A limit that the load's own requests keep, and one that never ends does not.
LIMITS = {"drain: {limit: 30s,": "drain: {limit: 2s,", "rollout: {": "rollout: {patience: 1s, "}


@pytest.fixture(scope="module", name="lab")
def _lab():
    settings = {"strategy": "socket-flip", "nodes": 2, "balancers": 2, "inter": "300ms"}
    with in_place(BASE, changes=LIMITS, **settings) as lab:
        yield lab


@pytest.fixture(autouse=True)
def _no_failure_spoils_the_next(request, lab):
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed:
        cli(lab.config, "abort")
        for journal in lab.folder.glob("*.db*"):
            journal.unlink()


class Deployed:
    """One deploy under load, and what was said of it."""

    def __init__(self, lab, *words, release=None, config=None):
        self.lab, self.config = lab, config or lab.config
        self.release = release or other(lab)
        self.before = current(lab)
        load = load_on(lab, rate=100.0, mix="get=60,post=36,slow=2,ws=2", slow_s=0.5, ws_s=0.5).start()
        try:
            told = str(archive(lab, self.release))
            self.said = cli(self.config, "deploy", told, *words, "--output", "json")
        finally:
            self.report = load.stop(trust=False)
        assert self.report.failed == 0, self.report.table()

    def ways(self, node="web1"):
        """(strategy, reason) of each time that the node was begun."""
        began = self.said.of("node.began", node)
        return [(event["data"]["strategy"], event["data"]["reason"]) for event in began]

    def steps(self, node="web1"):
        return [event["step"] for event in self.said.of("step.seen", node) if event["step"] != "stage"]

    def done(self, *nodes):
        assert self.said.code == Exit.DONE, self.said
        assert current(self.lab) == self.before | dict.fromkeys(nodes, self.release)
        assert flags(self.lab) == []

    def shown(self):
        """How `show` tells the first way that the node went, as text, and why, as JSON."""
        told = cli(self.config, "show", self.said.rollout)
        began = cli(self.config, "show", self.said.rollout, "--output", "json").of("node.began")[0]["data"]
        return " ".join(told.out.split()), began["reason"]


def planned(lab, release, *words):
    """`plan` as JSON, and as text without its line breaks."""
    told = str(archive(lab, release))
    text = cli(lab.config, "plan", told, *words)
    found = cli(lab.config, "plan", told, *words, "--output", "json")
    return json.loads(found.out), " ".join(text.out.split())


FLIPPED = ["start", "warm", "switch", "flip", "quiet", "stop", "watch"]


@contextmanager
def flagged(lab, name):
    """Out of rotation by somebody's hand."""
    lab.flag(name).write_text("by hand\n")
    try:
        until(f"{name} is out", lambda: all("NOLB" in word for word in words_of(lab, name)))
        yield
    finally:
        lab.flag(name).unlink()
        wait_up(lab)


def words_of(lab, name):
    return [ready.servers(lab.socket(lb), lab.settings.app)[name] for lb in lab.settings.balancer_names]


# ---------------------------------------------------------------- http-check can, and cannot


def test_the_last_one_up_goes_in_place(lab):
    with flagged(lab, "web2"):
        why = "http-check cannot: it cannot leave: lb1 shop: 0 other of 2 servers up"
        plan, text = planned(lab, other(lab), "--only", "web1")
        assert plan["nodes"]["web1"]["strategy"] == "socket-flip"
        assert why in plan["nodes"]["web1"]["reason"]
        assert why in text
        rolled = Deployed(lab, "--only", "web1")
        assert rolled.said.code == Exit.DONE, rolled.said
        [(strategy, reason)] = rolled.ways()
        assert (strategy, why in reason) == ("socket-flip", True)
        assert set(FLIPPED) >= set(rolled.steps()) >= {"start", "flip", "stop", "watch"}
        text, shown_why = rolled.shown()
        assert ("web1 forward socket-flip" in text, shown_why) == (True, reason), text
        assert current(lab)["web1"] == rolled.release


def test_a_balancer_that_cannot_be_read(lab):
    hidden = lab.socket("lb2").with_name("away.sock")
    lab.socket("lb2").rename(hidden)
    try:
        why = "http-check cannot: lb2 cannot be read"
        plan, text = planned(lab, other(lab), "--only", "web1")
        assert plan["nodes"]["web1"]["strategy"] == "socket-flip"
        assert why in text
        rolled = Deployed(lab, "--only", "web1")
    finally:
        hidden.rename(lab.socket("lb2"))
    rolled.done("web1")
    [(strategy, reason)] = rolled.ways()
    assert (strategy, why in reason) == ("socket-flip", True)


# ---------------------------------------------------------------- on the way


class Endless:
    """A request on a node that takes longer than any drain here waits."""

    def __init__(self, lab, name, seconds):
        self.status = None
        self._url = f"http://{lab.settings.host(name)}:8080/slow?s={seconds}"
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self):
        with urllib.request.urlopen(self._url, timeout=60) as answer:  # noqa: S310  the lab's own address
            self.status = answer.status if answer.read() else None

    def end(self):
        self._thread.join()
        return self.status


def test_a_drain_that_does_not_end_is_taken_back_and_the_node_goes_in_place(lab):
    endless = Endless(lab, "web1", 7)
    rolled = Deployed(lab, "--only", "web1")
    assert endless.end() == 200
    rolled.done("web1")
    (first, configured), (second, why) = rolled.ways()
    assert (first, configured, second) == ("http-check", "configured", "socket-flip")
    assert why.startswith("http-check stopped at quiet: 1 request in flight on the node itself"), why
    order = rolled.steps()
    flip = order.index("start")
    assert order[:flip] == ["guard", "flag", "out", "idle", "restore", "up"], "back in rotation first"
    assert set(order[flip:]) <= set(FLIPPED)
    text, _ = rolled.shown()
    assert "http-check" in text
    assert "socket-flip" in text


# ---------------------------------------------------------------- by node, and none


def test_each_node_has_strategies_of_its_own(lab):
    host = lab.settings.host("web2")
    own = {f"web2: {{host: {host}}}": f"web2: {{host: {host}, strategy: [socket-flip]}}"}
    config = configure(lab, own, "by-node.yml")
    lab.release("v9")  # neither has it
    rolled = Deployed(lab, config=config, release="v9")
    rolled.done("web1", "web2")
    assert (rolled.ways("web1"), rolled.ways("web2")) == (
        [("http-check", "configured")],
        [("socket-flip", "configured")],
    )
    began = rolled.said.of("rollout.began")[0]["data"]
    assert began["strategy"] == {"web1": "http-check", "web2": "socket-flip"}


NO_LINK = {"run/current.sock": "run/gone.sock"}  # what socket-flip cannot do without


def test_no_strategy_left_is_refused_and_nothing_is_touched(lab):
    config = configure(lab, NO_LINK, "no-link.yml")
    with flagged(lab, "web2"):
        rolled = Deployed(lab, "--only", "web1", config=config)
        assert rolled.said.code == Exit.PREFLIGHT, rolled.said
        assert "web1: http-check cannot: it cannot leave" in rolled.said.err
        assert "web1: socket-flip cannot: socket.current is no link to a socket on web1" in rolled.said.err
    assert current(lab) == rolled.before


def test_no_strategy_left_on_the_way_leaves_the_node_as_it_was(lab):
    config = configure(lab, NO_LINK, "no-link.yml")
    endless = Endless(lab, "web1", 5)
    rolled = Deployed(lab, "--only", "web1", config=config)
    assert endless.end() == 200
    assert rolled.said.code == Exit.PUT_BACK, rolled.said
    [ended] = rolled.said.of("node.ended", "web1")
    assert ended["data"]["outcome"] == "restored"
    assert "socket-flip cannot" in ended["data"]["why"]
    assert "the node is in rotation, unchanged" in ended["data"]["why"]
    assert "switch" not in rolled.steps()
    assert flags(lab) == []
    wait_up(lab)
