"""
The promise: a rollout fails no request.

Real servers, real load, and every way that drainctl works: HAProxy 2.6 and 2.8, with and without the nudge,
over local and over real SSH. Each of the eight combinations rolls under load; two that have nothing in
common (so that each value is in one of them) roll three times and on, until 20,000 requests are counted.
"""

from __future__ import annotations

import csv
import http.client
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest
from rollout_kit import Heard, configure, current, flags, quick_checks, roll, running, wait_up

from drainctl.config.load import load as load_config
from drainctl.lab import ready
from drainctl.lab.cluster import Lab
from drainctl.lab.load import Load
from drainctl.lab.report import Report
from drainctl.rollout.rules import routing_tail_s
from tests.conftest import SLOW, until

pytestmark = [pytest.mark.real, pytest.mark.slow]

ENOUGH = 20_000
# Most of the clients wait for pages that outlast a drain's first look, so some are on every node at any time.
MIX = "get=52,post=26,slow=18,stream=4"
SLOW_S = 0.7
QUICK = {"watch: {for: 1s, errors: 0}": "watch: {for: 300ms, errors: 0}"}
PAIRS = {"at_once: 1,": "at_once: 2, canary: 1,"}
KINDS = {"get", "post", "slow", "stream"}


@dataclass(frozen=True)
class Way:
    """One combination. stats: without the nudge because only the stats pages are known."""

    haproxy: str
    nudge: bool
    ssh: bool
    stats: bool = False

    def __str__(self) -> str:
        version = "2.6" if self.haproxy == "path" else "2.8"
        nudge = "nudge" if self.nudge else "stats page" if self.stats else "no nudge"
        return f"{version}, {nudge}, {'ssh' if self.ssh else 'local'}"

    def lab(self, base: str) -> Any:
        level = "admin" if self.nudge or self.stats else "user"
        return running(
            base, haproxy=self.haproxy, ssh=self.ssh, inter="500ms", level=level, stats_only=self.stats
        )


THREE_TIMES = [Way("path", nudge=True, ssh=False), Way("wheel", nudge=False, ssh=True)]
ONCE = [
    Way("path", nudge=True, ssh=True),
    Way("path", nudge=False, ssh=False, stats=True),
    Way("path", nudge=False, ssh=True),
    Way("wheel", nudge=True, ssh=False),
    Way("wheel", nudge=True, ssh=True),
    Way("wheel", nudge=False, ssh=False),
]


def load_on(lab: Lab, clients: int = 56) -> Load:
    return Load(lab.urls, clients=clients, mix=MIX, slow_s=SLOW_S)


def served(lab: Lab) -> int:
    """Requests that the balancers have counted."""
    found = 0
    for name in lab.settings.balancer_names:
        text = ready.ask(lab.socket(name), "show stat shop 2 -1").removeprefix("# ")
        found += sum(int(row["stot"]) for row in csv.DictReader(line for line in text.splitlines() if line))
    return found


def deploy_other(lab: Lab, heard: Heard) -> float:
    """One deploy of v2 or v3, whichever does not run, and all that must hold at its end; its seconds."""
    release = "v3" if current(lab)["web1"] == "v2" else "v2"
    result = roll(lab.config, "deploy", lab.folder / "releases" / f"{release}.tar.gz", heard)
    assert (result.outcome, int(result.exit)) == ("done", 0), result
    assert set(current(lab).values()) == {release}
    assert flags(lab) == []
    assert outlasted(lab, heard) == set(lab.settings.node_names)
    return result.seconds


def outlasted(lab: Lab, heard: Heard) -> set[str]:
    """The nodes on which requests were in flight when their drain began, and which were waited for."""
    return {name for name in lab.settings.node_names if heard.waited(name, "idle: ", " in flight on lb")}


def finish(lab: Lab, load: Load) -> None:
    """From the end on only the new release may answer; a few hundred more requests show that it does."""
    load.expect(current(lab)["web1"])
    goal = served(lab) + 300
    until("300 requests after the end", lambda: served(lab) >= goal)


def no_failure(report: Report, lab: Lab) -> None:
    assert report.failed == 0, report.table()
    assert report.kinds.keys() == KINDS
    assert {int(row["failed"]) for row in report.targets.values()} == {0}
    assert len(report.targets) == len(lab.settings.balancer_names)


def tell(capsys: pytest.CaptureFixture[str], way: object, report: Report, seconds: list[float]) -> None:
    rolls = ", ".join(f"{each:.1f}" for each in seconds)
    with capsys.disabled():
        print(
            f"\n{way}: {report.failed} failed of {report.requests} requests ({report.rps:.0f}/s); "
            f"seconds per roll: {rolls}"
        )


# ---------------------------------------------------------------- zero


@pytest.mark.parametrize("way", THREE_TIMES, ids=str)
def test_three_rolls_and_20000_requests_without_a_failure(way, capsys):
    seconds: list[float] = []
    with way.lab("127.0.61") as lab:
        configure(lab, QUICK)
        with load_on(lab, clients=84) as load:
            began = served(lab)
            while len(seconds) < 3 or served(lab) - began < ENOUGH:
                heard = Heard()
                seconds.append(deploy_other(lab, heard))
                assert heard.data("proof")["inconclusive"] == []
                assert heard.data("proof")["failed"] == 0
            finish(lab, load)
        tell(capsys, way, load.report, seconds)
        assert load.report.requests >= ENOUGH
        no_failure(load.report, lab)


@pytest.mark.parametrize("way", ONCE, ids=str)
def test_two_nodes_at_once_after_a_canary_without_a_failure(way, capsys):
    with way.lab("127.0.62") as lab:
        configure(lab, QUICK | PAIRS)
        heard = Heard()
        with load_on(lab) as load:
            seconds = deploy_other(lab, heard)
            finish(lab, load)
        tell(capsys, way, load.report, [seconds])
        no_failure(load.report, lab)
        assert heard.data("rollout.began")["waves"] == [["web1"], ["web2", "web3"], ["web4"]]
        assert at_the_same_time(heard, "web2", "web3")
        assert not at_the_same_time(heard, "web1", "web2")
        assert not at_the_same_time(heard, "web3", "web4")


def at_the_same_time(heard: Heard, one: str, other: str) -> bool:
    """Whether both nodes were out of rotation at some moment."""
    at = {
        (event.node, event.step): event.at_s
        for event in heard.of("step.seen")
        if event.step in {"out", "restore"}
    }
    return at[one, "out"] < at[other, "restore"] and at[other, "out"] < at[one, "restore"]


def test_the_same_load_counts_what_a_restart_without_a_drain_costs(capsys):
    """Without this, zero failures could mean a blind generator."""
    with running("127.0.61", haproxy="path", inter="500ms") as lab:
        with load_on(lab) as load:
            began = time.monotonic()
            for name in lab.settings.node_names:
                subprocess.run([lab.ctl(name), "restart"], check=True, timeout=60)
            wait_up(lab)
            seconds = time.monotonic() - began
        tell(capsys, "restart without a drain", load.report, [seconds])
        assert load.report.failed > 0


# ---------------------------------------------------------------- the routing tail


LOG = """\
  log_format begun '$msec $request_time $uri';
  access_log {path} begun;
"""


def log_requests(lab: Lab, name: str) -> None:
    """From now on the node's nginx writes down when each request ended and how long it took."""
    conf = lab.folder / "nodes" / name / "nginx.conf"
    old = "  access_log off;\n"
    text = conf.read_text()
    assert old in text
    path = conf.with_name("access.log")
    conf.write_text(text.replace(old, LOG.format(path=path), 1))
    master = lab.node(name)[1].master()
    assert master
    master.send(signal.SIGHUP)
    until(f"{name} writes its log", lambda: path.exists() and begun(lab, name, probe=True))


def begun(lab: Lab, name: str, *, probe: bool = False) -> list[float]:
    """When each of the users' requests began on the node, Unix seconds."""
    if probe:
        link = http.client.HTTPConnection(lab.settings.host(name), 8080, timeout=5)
        link.request("GET", "/version", headers={"Connection": "close"})
        link.getresponse().read()
        link.close()
    text = (lab.folder / "nodes" / name / "access.log").read_text()
    lines = [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]
    return [float(ended) - float(took) for ended, took, path in lines if path != "/version" or probe]


@pytest.mark.parametrize("haproxy", ["path", "wheel"])
def test_no_new_request_after_the_routing_tail(haproxy, capsys):
    """Two nodes are flagged by hand, nobody is nudged: how long do requests still come?"""
    with running("127.0.63", haproxy=haproxy, inter="500ms", level="user") as lab:
        quick_checks(lab)
        tail_s = routing_tail_s(load_config(str(lab.config)).checks)
        assert tail_s == 2.5  # 0.5 s between checks, and two checks of at most 0.5 s + 0.5 s
        for name in lab.settings.node_names:
            log_requests(lab, name)
        flagged: dict[str, float] = {}
        with load_on(lab) as load:
            until("every node serves", lambda: all(begun(lab, name) for name in lab.settings.node_names))
            for name in ("web1", "web2"):
                flagged[name] = time.time()  # before the flag: the first 404 comes no sooner
                lab.flag(name).write_text("by hand\n")
            end = max(flagged.values()) + tail_s + 1
            until("a second after the tail", lambda: max(begun(lab, "web4")) > end, limit_s=tail_s + 10)
        assert load.report.failed == 0, load.report.table()
        late = {name: max(begun(lab, name)) - at for name, at in flagged.items()}
        with capsys.disabled():
            print(f"\n{haproxy}: last request {late} s after the flag; tail {tail_s} s")
        assert all(seconds <= tail_s for seconds in late.values()), late
        assert max(late.values()) > 0.02, "requests that came after the flag were not seen at all"


# ---------------------------------------------------------------- reloads


@pytest.mark.parametrize("haproxy", ["path", "wheel"])
def test_a_reload_between_idle_and_restart_costs_no_request_and_leaves_the_proof_open(haproxy, capsys):
    with running("127.0.64", haproxy=haproxy, inter="500ms") as lab:
        configure(lab, QUICK)
        heard = Heard()
        heard.on("step.seen", lambda: lab.reload("lb1"), step="idle", node="web2")
        with load_on(lab) as load:
            seconds = deploy_other(lab, heard)
            finish(lab, load)
        tell(capsys, f"reload in a journey, {haproxy}", load.report, [seconds])
        no_failure(load.report, lab)
        proof = heard.data("proof")
        assert proof["failed"] is None
        assert [why for why in proof["inconclusive"] if not why.startswith("lb1 ")] == []
        assert "another process" in proof["inconclusive"][0]
        [changed] = [event for event in heard.of("note") if "another process" in event.text]
        assert changed.node == "web2"


class Slow:
    """A request that takes its time, in a thread. ended_s: Unix seconds of its last byte."""

    def __init__(self, lab: Lab, balancer: str, seconds: float) -> None:
        self.status: int | None = None
        self.ended_s = 0.0
        self._link = http.client.HTTPConnection(lab.settings.host(balancer), 8080, timeout=60)
        self._thread = threading.Thread(target=self._ask, args=(seconds,))
        self._thread.start()

    def _ask(self, seconds: float) -> None:
        self._link.request("GET", f"/slow?s={seconds:g}", headers={"Connection": "close"})
        answer = self._link.getresponse()
        if answer.read().endswith(b", slowly\n"):
            self.status = answer.status
        self.ended_s = time.time()
        self._link.close()

    def end(self) -> None:
        self._thread.join()


def in_flight(lab: Lab, balancer: str) -> Mapping[str, int]:
    text = ready.ask(lab.socket(balancer), "show stat shop 4 -1").removeprefix("# ")
    rows = csv.DictReader(line for line in text.splitlines() if line)
    return {row["svname"]: int(row["scur"]) for row in rows}


@pytest.mark.parametrize("haproxy", ["path", "wheel"])
def test_a_request_on_a_worker_that_a_reload_left_behind_delays_idle(haproxy):
    with running("127.0.65", haproxy=haproxy, nodes=3, inter="500ms") as lab:
        slow = [Slow(lab, "lb1", 3.0 * SLOW) for _ in range(3)]
        each_one = dict.fromkeys(lab.settings.node_names, 1)
        until("each node has one of the requests", lambda: in_flight(lab, "lb1") == each_one)
        lab.reload("lb1")
        wait_up(lab)
        assert set(in_flight(lab, "lb1").values()) == {0}, "the new worker knows nothing of them"
        heard = Heard()
        result = roll(lab.config, "drain", heard=heard, only=["web1"])
        for each in slow:
            each.end()
        assert [each.status for each in slow] == [200, 200, 200]
        assert result.outcome == "done"
        assert heard.waited("web1", "idle: 1 request on the old worker ", " of lb1 (reloaded ")
        [idle] = heard.of("step.seen", "idle")
        assert idle.at_s >= min(each.ended_s for each in slow) - 0.1
        assert roll(lab.config, "restore", only=["web1"]).outcome == "done"
