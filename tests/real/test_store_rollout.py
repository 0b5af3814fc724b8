"""A rollout whose journal and lease are in PostgreSQL or etcd, under load, while the store is away."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from partition_kit import partition
from rollout_kit import Heard, Running, cli, configure, current, flags, roll, running
from store_kit import etcd, postgres

from drainctl import controller
from drainctl.journal.open import open_store
from drainctl.lab.cluster import Lab
from drainctl.lab.load import Load
from tests.conftest import SLOW

pytestmark = [pytest.mark.real, pytest.mark.slow]

SOAK = os.environ.get("DRAINCTL_SOAK") == "1"
# With DRAINCTL_SOAK=1 the lease that users have, an outage of 30 s, and each over both stores.
LEASE_S = controller.LEASE_S if SOAK else 2.0
AWAY_S = 30.0 if SOAK else 8.0  # longer than the lease, and than one call may take
BOTH = ["postgresql", "etcd"] if SOAK else []
QUICK = {"watch: {for: 1s, errors: 0}": "watch: {for: 300ms, errors: 0}"}


class Frozen:
    """A store with the means to put it out of reach, by freezing it or by cutting it off."""

    targets: Sequence[tuple[str, int]] = ()  # where its servers listen
    through: Callable[[Sequence[str]], str] = ",".join  # its URL by way of these HOST:PORTs in their place

    def __init__(self, url: str, freeze: Any, thaw: Any) -> None:
        self.url, self.freeze, self.thaw = url, freeze, thaw


@contextmanager
def server(kind: str) -> Iterator[Frozen]:
    if kind == "postgresql":
        with postgres() as one:
            found = Frozen(one.url(), one.freeze, one.thaw)
            found.targets = [(one.host, one.port)]
            found.through = lambda ats: one.url(host=",".join(ats))
            yield found
        return
    with etcd() as cluster:
        two = cluster.members[1:]
        found = Frozen(
            cluster.url("drainctl"),
            lambda: [member.freeze() for member in two],
            lambda: [member.thaw() for member in two],
        )
        found.targets = [(member.host, member.port) for member in cluster.members]
        found.through = lambda ats: f"etcd://{','.join(ats)}/drainctl"
        yield found


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with running("127.0.11", nodes=2) as up:
        yield up


@contextmanager
def behind_a_network(kind: str) -> Iterator[Frozen]:
    """The same, reached through a network that can be cut: a namespace's for root, a relay's for others."""
    with server(kind) as near, partition(near.targets) as (ats, cut, heal):
        yield Frozen(near.through(ats), cut, heal)


@pytest.fixture
def store(request, monkeypatch) -> Iterator[Frozen]:
    monkeypatch.setattr("drainctl.controller.LEASE_S", LEASE_S)
    kind, _, how = request.param.partition(" ")
    with behind_a_network(kind) if how else server(kind) as frozen:
        yield frozen


def configured(lab: Lab, url: str) -> Any:
    old = f'store: "sqlite:///{lab.folder}/{lab.settings.app}.db"'
    return configure(lab, {old: f'store: "{url}"', **QUICK}, "shared.yml")


CUT = [f"{kind} cut off" for kind in BOTH or ["etcd"]]


@pytest.mark.parametrize("store", [*(BOTH or ["postgresql"]), *CUT], indirect=True)
def test_a_store_that_is_away_for_longer_than_the_lease_costs_a_pause_and_no_request(lab, store):
    config = configured(lab, store.url)
    release = "v2" if current(lab)["web1"] != "v2" else "v3"
    heard = Heard()
    thawing = threading.Timer(AWAY_S * SLOW, store.thaw)
    frozen_at: list[float] = []

    def away() -> None:
        store.freeze()
        frozen_at.append(time.time())
        thawing.start()

    heard.on("step.seen", away, step="idle", node="web1")
    with Load(lab.urls, clients=8) as load:
        result = roll(config, "deploy", lab.folder / f"releases/{release}.tar.gz", heard)
    thawing.join()
    print(
        f"{store.url}: {load.report.requests} requests, {load.report.failed} failed, {result.seconds:.1f} s"
    )
    assert (result.outcome, load.report.failed) == ("done", 0)
    assert set(current(lab).values()) == {release}
    assert flags(lab) == []
    [told] = [text for node, text in heard.waits if node == "journal"]
    assert "waiting for it up to 60 s" in told
    [note] = [event for event in heard.of("note") if event.data["what"] == "store-away"]
    assert "the journal's store was away for" in note.text
    acted = [event for event in heard.of("step.intended") if event.at_s > frozen_at[0]]
    assert min(event.at_s for event in acted) > frozen_at[0] + AWAY_S * SLOW - 0.5, "it paused"
    opened = open_store(store.url)
    assert list(opened.events(result.rollout)) == heard.events, "none is missing, none is there twice"
    opened.close()
    assert cli(config, "status").code == 0
    assert "done" in cli(config, "history").out


@pytest.mark.parametrize("store", BOTH or ["etcd"], indirect=True)
def test_a_store_that_stays_away_leaves_the_rollout_open_for_resume(lab, store, until):
    config = configured(lab, store.url)
    text = config.read_text()
    assert "patience" not in text
    config.write_text(text.replace("rollout: {", "rollout: {patience: 2s, "))
    release = "v2" if current(lab)["web1"] != "v2" else "v3"
    with Load(lab.urls, clients=8) as load:
        archive = str(lab.folder / f"releases/{release}.tar.gz")
        began = Running(config, "--output", "json", "deploy", archive)
        try:
            began.until("step.seen", node="web1", step="out")
            store.freeze()
            said = began.end()
        finally:
            store.thaw()
        assert said.code == 3, said
        assert "failed after" in said.err
        assert "stays open: nodes in flight are as they were left" in said.err
        assert f"`drainctl -c {config} resume` goes on" in said.err
        assert current(lab)["web2"] != release, "web2 was not begun"
        until("the store answers again", lambda: cli(config, "status").code == 0, limit_s=30)
        resumed = cli(config, "resume")
    assert resumed.code == 0, resumed
    assert load.report.failed == 0
    assert set(current(lab).values()) == {release}
    assert flags(lab) == []
