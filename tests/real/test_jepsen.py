"""
Three controllers, four nodes, two balancers, one store, under load; and controllers that are killed, stopped
for longer than their lease, and cut off from the store, as a seed says.

    DRAINCTL_SEED=4711 pytest tests/real/test_jepsen.py      the same choices again
    DRAINCTL_STORM_S=30 pytest tests/real/test_jepsen.py     for half a minute

With DRAINCTL_SOAK=1 ten minutes over each store instead of two over one, which the seed says.
"""

from __future__ import annotations

import os
import random
import signal
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager

import pytest

from drainctl.journal.door import Store
from drainctl.journal.open import open_store
from drainctl.journal.replay import replay
from drainctl.lab.cluster import Lab
from drainctl.lab.load import Load
from drainctl.overview import open_rollout
from tests.conftest import SLOW
from tests.real import fence_kit, jepsen_kit, store_kit
from tests.real.fence_kit import Entry
from tests.real.jepsen_kit import Machine, Relay
from tests.real.rollout_kit import current, flags, running, wait_up

pytestmark = [pytest.mark.real, pytest.mark.slow]

SOAK = os.environ.get("DRAINCTL_SOAK") == "1"
STORM_S = float(os.environ.get("DRAINCTL_STORM_S") or (600.0 if SOAK else 95.0))
SEED = jepsen_kit.seed()
KINDS = ("postgresql", "etcd")
STORES = KINDS if SOAK else [KINDS[SEED % 2]]
BASE = "127.0.115"
RELEASES = ("jep1", "jep2", "jep3", "jep4")


@contextmanager
def store_of(kind: str, names: Sequence[str]) -> Iterator[tuple[str, dict[str, tuple[str, list[Relay]]]]]:
    """A new store: its URL; and by machine a URL whose every way can be cut, and these ways."""
    with ExitStack() as stack:
        ways: dict[str, tuple[str, list[Relay]]] = {}

        def relays(*targets: tuple[str, int]) -> list[Relay]:
            return [stack.enter_context(closing(Relay(target, f"{BASE}.201"))) for target in targets]

        if kind == "postgresql":
            server = stack.enter_context(store_kit.postgres(f"{BASE}.200"))
            for name in names:
                [way] = relays((server.host, server.port))
                ways[name] = server.url(host=way.at), [way]
            yield server.url(), ways
            return
        cluster = stack.enter_context(store_kit.etcd())
        for name in names:
            found = relays(*((member.host, member.port) for member in cluster.members))
            ways[name] = f"etcd://{','.join(way.at for way in found)}/jepsen", found
        yield cluster.url("jepsen"), ways


@pytest.fixture(scope="module", name="lab")
def a_lab() -> Iterator[Lab]:
    with running(BASE, nodes=4, balancers=2, inter="300ms") as lab:
        text = lab.config.read_text()
        lab.config.write_text(text.replace("for: 1s", "for: 200ms"))
        yield lab


def drawn(name: str) -> random.Random:
    return random.Random(f"{SEED} {name}")  # noqa: S311  a seed must give the same again


def machines_of(lab: Lab, ways: dict[str, tuple[str, list[Relay]]]) -> list[Machine]:
    archives = [lab.release(release) for release in RELEASES]
    return [
        Machine(lab, name, url, relays, archives, drawn(name), watches=name == "c3")
        for name, (url, relays) in ways.items()
    ]


@pytest.mark.timeout(STORM_S + 600 * SLOW)
@pytest.mark.parametrize("kind", STORES)
def test_whatever_befalls_three_controllers_no_request_fails_and_no_node_has_two(lab, kind):
    print(f"DRAINCTL_SEED={SEED}, {kind}")
    first = current(lab)
    with store_of(kind, ["c1", "c2", "c3"]) as (url, ways), closing(open_store(url)) as store:
        machines = machines_of(lab, ways)
        load = Load(lab.urls, rate=100.0).start()
        try:
            for machine in machines:
                machine.thread.start()
            try:
                done = jepsen_kit.trouble(machines, drawn("trouble"), STORM_S)
            finally:
                for machine in machines:
                    machine.over.set()
                    jepsen_kit.heal(machine)
                for machine in machines:
                    machine.thread.join()
            jepsen_kit.settle(machines[0], lambda: open_rollout(store, lab.settings.app))
            out = jepsen_kit.not_up(lab)
        finally:
            report = load.stop(trust=False)
        wrong = judged(lab, store, first) + out
        done["stopped"] = sum(machine.stops for machine in machines)
        calls = [call for machine in machines for call in machine.calls]
        told = f"seed {SEED}, {kind}: {summary(lab, store, done)}, {len(calls)} calls {codes(calls)}"
    print(told, f"{report.requests} requests")
    assert report.failed == 0, f"{told}\n{report.failures}"
    assert wrong == [], told
    assert [str(call) for call in calls if call.wrong] == [], told
    assert min(done["kill"], done["stopped"], done["cut"]) >= 3, f"too little befell them: {told}"
    assert report.requests > 50 * STORM_S, told


def judged(lab: Lab, store: Store, first: dict[str, str]) -> list[str]:
    """All that is not as it must be, by the nodes' logs, by the journal, and by where the nodes are."""
    ids = list(reversed(store.rollouts(lab.settings.app, limit=100_000)))
    journal = {rollout: store.events(rollout) for rollout in ids}
    states = [replay(rollout, events) for rollout, events in journal.items()]
    wrong = jepsen_kit.not_ended(states)
    for name in lab.settings.node_names:
        log = fence_kit.log(lab, name)
        found = [*jepsen_kit.wrong_in(log), *jepsen_kit.unexplained(log, journal)]
        runs, should = current(lab)[name], jepsen_kit.should_run(states, name, first[name])
        answers = answered(lab, name)
        if (runs, answers) != (should, should):
            found.append(
                f"by the journal it has {should}, current leads to {runs}, its app answers {answers}"
            )
        wrong += [f"{name}: {each}" for each in found]
    return wrong + [f"{name} is flagged" for name in flags(lab)]


def answered(lab: Lab, name: str) -> str:
    [host] = [
        line.split("host: ")[1].rstrip("}")
        for line in lab.config.read_text().splitlines()
        if line.strip().startswith(f"{name}: ")
    ]
    with urllib.request.urlopen(f"http://{host}:8080/version", timeout=10 * SLOW) as answer:
        return str(answer.read().decode().strip())


def summary(lab: Lab, store: Store, done: Counter[str]) -> str:
    ids = store.rollouts(lab.settings.app, limit=100_000)
    events = [event for rollout in ids for event in store.events(rollout)]
    ends = Counter(event.data["outcome"] for event in events if event.kind == "rollout.ended")
    resumed = sum(event.kind == "rollout.resumed" for event in events)
    refused = sum(
        entry.what == "refused" for name in lab.settings.node_names for entry in fence_kit.log(lab, name)
    )
    return (
        f"{dict(done)}; {len(ids)} rollouts, {len(events)} events, ends {dict(ends)},"
        f" taken over {resumed} times, {refused} lines refused by nodes"
    )


def codes(calls: Sequence[jepsen_kit.Call]) -> dict[int, int]:
    return dict(sorted(Counter(call.code for call in calls).items()))


# ---------------------------------------------------------------- that the checks can fail


def entries(*lines: str) -> list[Entry]:
    found = [line.split(" ", 4) for line in lines]
    return [Entry(float(at), what, int(token), rollout, rest) for at, what, token, rollout, rest in found]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((), ""),
        (("1 begin 5 r1 a", "2 end 5 r1 0 a", "3 raised 7 r2 t raised", "4 begin 7 r2 a"), ""),
        (("1 begin 5 r1 a", "2 begin 5 r1 b", "3 end 5 r1 0 a", "4 end 5 r1 0 b"), ""),
        (("1 begin 5 r1 a", "2 begin 7 r2 b", "3 end 5 r1 0 a", "4 end 7 r2 0 b"), "began while"),
        (("1 begin 7 r2 a", "2 end 7 r2 0 a", "3 begin 5 r1 b", "4 end 5 r1 0 b"), "after token 7"),
        (("1 raised 7 r2 t raised", "3 begin 5 r1 b", "4 end 5 r1 0 b"), "after token 7"),
    ],
)
def test_a_log_with_two_controllers_in_it_is_found_out(lines, words):
    found = jepsen_kit.wrong_in(entries(*lines))
    assert bool(found) == bool(words)
    assert all(words in text for text in found)


def test_without_the_fence_a_controller_that_wakes_acts_and_is_found_out(
    lab: Lab, until: Callable[..., object]
):
    """The control: what the storm looks for is what happens where nodes let everybody through."""
    release = str(lab.release("unfenced"))
    logs = {name: len(fence_kit.log(lab, name)) for name in lab.settings.node_names}
    off = {"before": jepsen_kit.UNFENCED}
    with fence_kit.ended(fence_kit.popen(lab, "deploy", release, stop_at="RunOnNode", **off)) as first:
        until("the first controller is stopped", lambda: fence_kit.stopped(first.pid), limit_s=30)
        until("its lease runs out", lambda: not fence_kit.held(lab))
        taken = fence_kit.drainctl(lab, "recover", "--then", "abort", **off)
        assert taken.returncode == 0, taken.stderr
        first.send_signal(signal.SIGCONT)
        first.communicate(timeout=30 * SLOW)
    found = {name: jepsen_kit.wrong_in(fence_kit.log(lab, name)[logs[name] :]) for name in logs}
    assert any("after token" in text for text in found["web1"]), found
    wait_up(lab)
