"""The promise: a rollout fails no request. Real servers, real load, every way that drainctl works."""

from __future__ import annotations

import subprocess
import time

import pytest

from drainctl.lab.cluster import Lab
from drainctl.lab.load import Load
from drainctl.lab.report import Report
from rollout_kit import Heard, configure, current, flags, roll, running, wait_up

pytestmark = [pytest.mark.real, pytest.mark.slow]

# Half of the time of most clients goes into pages that outlast a drain's first look: at any moment some of
# them are on every node.
MIX = "get=58,post=30,slow=8,stream=4"
SLOW_S = 0.7
QUICK = {"watch: {for: 1s, errors: 0}": "watch: {for: 300ms, errors: 0}"}


def load_on(lab: Lab, clients: int = 64) -> Load:
    return Load(lab.urls, clients=clients, mix=MIX, slow_s=SLOW_S, stream_s=0.3)


def other(lab: Lab) -> str:
    """v1 and v2 in turn."""
    return "v2" if current(lab)["web1"] == "v1" else "v1"


def roll_once(lab: Lab, told: list[str]) -> int:
    """One deploy of the other release; returns how many requests the balancers counted meanwhile."""
    heard, began = Heard(), time.monotonic()
    release = other(lab)
    result = roll(lab.config, "deploy", lab.folder / "releases" / f"{release}.tar.gz", heard)
    assert (result.outcome, int(result.exit)) == ("done", 0), result.lines
    assert set(current(lab).values()) == {release}
    assert not flags(lab)
    waited = [name for name in lab.settings.node_names if heard.waited(name, "idle: ", "in flight on lb")]
    assert waited == list(lab.settings.node_names), "no request was in flight when a drain began"
    proof = heard.data("proof")
    assert proof["inconclusive"] == []
    assert proof["failed"] == 0
    longest = max(event.data["took_s"] for event in heard.of("step.seen", "idle"))
    told.append(f"{release} in {time.monotonic() - began:.1f} s, longest drain {longest:.2f} s")
    return int(proof["requests"])


def naive(lab: Lab) -> Report:
    """What a restart of each node without a drain costs: the same load, the same service command."""
    with load_on(lab) as load:
        for name in lab.settings.node_names:
            subprocess.run([lab.ctl(name), "restart"], check=True, timeout=60)
        wait_up(lab)
    return load.report
