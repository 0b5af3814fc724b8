"""
Every store machine in turn is killed, blackholed, frozen and brought back, under load, in real network
namespaces: no query fails, no write runs twice, nobody waits longer than the limits say, and long queries
    are answered.

With DRAINCTL_SOAK=1 long queries take 20 s and each fault lasts longer.
"""

from __future__ import annotations

import os
import time

import pytest
import requests
from arb_kit import SLOW, Net, need_namespaces
from requests.adapters import HTTPAdapter

from drainctl.arb import FileBoard, Policy, Prober, ReplicaSession, shards_of
from drainctl.arb.stores import Stores
from drainctl.lab.arb_load import Users, queries_may_repeat, runs

pytestmark = [pytest.mark.real, pytest.mark.slow]

SOAK = os.environ.get("DRAINCTL_SOAK") == "1"
LONG_S = 20.0 if SOAK else 6.0
LASTS_S = 3.0 if SOAK else 0.2
POLICY = Policy(read_s=120.0, every_s=0.2, probe_s=0.4, repeatable=queries_may_repeat)
FAULTS = ("killed", "blackholed", "frozen")


@pytest.fixture
def net(tmp_path):
    need_namespaces()
    net = Net(tmp_path, machines=4)
    try:
        net.up()
        net.start()
        yield net
    finally:
        net.down()


def befall(net, at, fault):
    machine = net.machines[at - 1]
    {"killed": machine.kill, "blackholed": lambda: net.blackhole(at), "frozen": machine.freeze}[fault]()


def bring_back(net, at, fault):
    machine = net.machines[at - 1]
    {"killed": machine.start, "blackholed": lambda: net.restore(at), "frozen": machine.thaw}[fault]()


def test_no_query_fails_while_each_of_four_machines_dies_in_every_way_and_comes_back(
    net, tmp_path, until, capsys
):
    path = tmp_path / "board"
    watched = FileBoard(path)
    prober = Prober(shards_of(net.shards), watched, POLICY, watch=True)
    # Each pair serves two shards, in either order: all four machines have users.
    shards = {**net.shards, **{f"{name}-turned": urls[::-1] for name, urls in net.shards.items()}}
    with net.inside(), ReplicaSession(shards, path, POLICY) as session:
        for shard in shards:
            session.put(f"arb://{shard}/k/a", data=b"1")
        for machine in net.machines:
            until("the value is replicated", lambda url=machine.url: requests.get(f"{url}/k/a", timeout=5).ok)
        prober.start()
        with Users(session, list(shards), long_s=LONG_S, long_users=4) as load:
            until("long queries are under way", lambda: load.outcomes["get"] > 50)
            told = [
                _one_fault(net, at, fault, session, load, until) for at in range(1, 5) for fault in FAULTS
            ]
        prober.stop()
        ran = runs(url for urls in net.shards.values() for url in urls)
        faults = {
            f"{name} {fault.name}": count for (name, fault), count in session.arb.in_flight.failed.items()
        }
        session.board.close()
    watched.close()
    with capsys.disabled():
        print(f"\n{sum(load.outcomes.values())} requests {dict(load.outcomes)}, {len(load.failures)} failed")
        twice = sum(times > 1 for times in ran.values())
        print(f"writes: {len(load.written)} sure, {len(load.unsure)} unsure, {twice} ran twice")
        print("longest wait of a short request, s: " + ", ".join(told))
        print(f"tries that failed: {faults}")
    assert not load.failures
    assert not [one for one, times in ran.items() if times > 1], "a write ran twice"
    assert set(load.written) <= set(ran), "a write was confirmed and is not there"
    assert len(load.unsure) <= len(FAULTS) * 4 * 4, "more than one write of each user per fault"
    assert load.outcomes["long"] >= 4


def _one_fault(net, at, fault, session, load, until):
    """Befalls a machine until the board shows it, then brings it back and waits for it. Returns figures."""
    name = net.machines[at - 1].listen
    load.slowest_s = 0.0
    befall(net, at, fault)
    until(f"the board shows {name}, {fault}, as down", lambda: name in session.board.down(), 15)
    seen, enough = load.outcomes["get"], time.monotonic() + LASTS_S
    until(
        "queries go on without it",
        lambda: load.outcomes["get"] > seen + 40 and time.monotonic() > enough,
        LASTS_S + 15,
    )
    bring_back(net, at, fault)
    until(f"{name} is back", lambda: name not in session.board.down(), 20)
    slowest_s = load.slowest_s
    assert slowest_s < 8 * SLOW, f"{name} {fault}: somebody waited {slowest_s:.1f} s"
    return f"{name} {fault} {slowest_s:.1f}"


def test_a_healthy_call_costs_no_more_than_three_percent(tmp_path, capsys):
    """
    In turn with plain requests over the same pool, neither looking for proxies, on loopback; the faster
    quarter, where noise is least.
    """
    with Stores(tmp_path, "127.0.84") as stores, requests.Session() as plain:
        plain.mount("http://", HTTPAdapter(pool_maxsize=32))
        url = stores.shards["users"][0]
        with ReplicaSession(stores.shards, tmp_path / "board") as session:
            plain.trust_env = session.trust_env = False
            ratios = []
            while len(ratios) < 5 and (not ratios or min(ratios) > 1.03):
                spent = in_turn(lambda: plain.get(f"{url}/"), lambda: session.get("arb://users/"))
                ratios.append(spent[1] / spent[0])
            session.board.close()
    with capsys.disabled():
        print(f"\nhealthy call, over plain requests: {min(ratios):.3f}")
    assert min(ratios) <= 1.03


def in_turn(*asks, calls=400):
    spent = [[] for _ in asks]
    for at in range(calls):
        for which in (0, 1) if at % 2 else (1, 0):
            began = time.perf_counter()
            asks[which]()
            spent[which].append(time.perf_counter() - began)
    return [sorted(each)[calls // 4] for each in spent]
