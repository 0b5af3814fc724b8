"""Strategy arb: which machines are taken together, what lets one go, and what brings it back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainctl.model import (
    Amount,
    Answer,
    Arb,
    Cluster,
    Connect,
    DrainPolicy,
    Health,
    Mark,
    Node,
    NodeLook,
    ReleaseLayout,
    RolloutPolicy,
    Service,
    StoreLook,
)
from drainctl.rollout.plan import apart, waves
from drainctl.steps import Do, Holds, Job, Never, NotYet, Seen
from drainctl.strategies import arb

STORES = tuple(f"store{at}" for at in range(1, 5))
WELL = StoreLook(Answer(200), lag_s=0.1, active=0)
BY_HAND = Mark("ops@control", "new disk", by_hand=True)
OURS = Mark("ops@control", "deploy v2", by_hand=True, rollout="r7")
JOB = Job("deploy", "v2")


def cluster(names=STORES, pairs=(STORES[:2], STORES[2:]), board="file:///run/board", **changes):
    whole = Cluster(
        app="shop",
        file="drainctl.yml",
        balancers=(),
        nodes=tuple(Node(name, f"10.0.0.{at}", name, ("arb",)) for at, name in enumerate(names, 1)),
        connect=Connect("local"),
        release=ReleaseLayout("/srv/shop"),
        service=Service("ctl restart", 30.0),
        health=Health(version="http://{host}:8000/version"),
        store="sqlite:///x.db",
        arb=Arb(board, pairs, "http://{host}:8000/health", "http://{host}:8000/lag", 5.0, "http://{host}/q"),
    )
    return replace(whole, **changes)


FOUR = cluster()


def steps(whole=FOUR, job=JOB):
    return {step.name: step for step in arb.journey(whole, whole.nodes[0], job)}


def judged(step, store=WELL, spent_s=99.0, version="v2", **replicas):
    host = NodeLook(version=Answer(200, version), store=store, replicas={"store2": WELL, **replicas})
    return step.expects(Seen(FOUR.nodes[0], (), {}, host, spent_s=spent_s))


# ---------------------------------------------------------------- who is taken together

NAMES = st.lists(st.integers(0, 30), unique=True, max_size=14).map(lambda ats: [f"n{at}" for at in ats])


@given(NAMES, st.integers(1, 6), st.integers(2, 3))
def test_each_machine_is_taken_once_and_never_with_one_that_holds_its_data(names, size, together):
    pairs = tuple(tuple(f"n{at + more}" for more in range(together)) for at in range(0, 24, together))
    found = apart(cluster(pairs=pairs), names, size)
    assert sorted(name for group in found for name in group) == sorted(names)
    for group in found:
        assert 0 < len(group) <= size
        assert all(len(set(pair) & set(group)) <= 1 for pair in pairs)


@given(NAMES, st.integers(1, 6))
def test_without_a_data_store_the_order_is_the_files(names, size):
    found = apart(cluster(arb=None), names, size)
    assert [name for group in found for name in group] == names
    assert all(len(group) == size for group in found[:-1])


@pytest.mark.parametrize(
    ("at_once", "canary", "expected"),
    [
        (1, 0, [["store1"], ["store2"], ["store3"], ["store4"]]),
        (4, 0, [["store1", "store3"], ["store2", "store4"]]),
        (4, 1, [["store1"], ["store2", "store3"], ["store4"]]),
        (1, 2, [["store1"], ["store2"], ["store3"], ["store4"]]),
    ],
)
def test_waves(at_once, canary, expected):
    whole = replace(FOUR, rollout=RolloutPolicy(Amount(at_once), canary=canary))
    assert [list(wave) for wave in waves(whole, STORES)] == expected


# ---------------------------------------------------------------- what lets one go


def test_the_steps_and_where_a_machine_is_no_longer_what_it_was():
    found = steps()
    assert list(found) == ["guard", "down", "quiet", "switch", "restart", "catch-up", "up", "watch"]
    assert [name for name, step in found.items() if step.changes] == ["switch", "restart"]
    assert [name for name, step in found.items() if step.reversible] == ["guard", "down", "quiet"]


@pytest.mark.parametrize(
    ("replica", "words"),
    [
        (StoreLook(Answer(503)), "store2 does not serve: its check answers 503"),
        (StoreLook(Answer(None, error="refused")), "store2 does not serve: its check answers refused"),
        (WELL._replace(lag_s=7.25), "store2 is 7.2 s behind its replica, arb.most_lag = 5 s"),
        (
            WELL._replace(lag_s=None, lag_error="no number"),
            "how far store2 is behind is not known: no number",
        ),
        (WELL._replace(mark=BY_HAND), "store2 is marked down by ops@control: new disk"),
    ],
)
def test_a_replica_that_could_not_serve_keeps_the_machine(replica, words):
    for step in ("guard", "quiet"):
        now = judged(
            steps()[step], store=WELL._replace(mark=None if step == "guard" else OURS), store2=replica
        )
        assert isinstance(now, NotYet)
        assert now.why == words
    seen = Seen(FOUR.nodes[0], (), {}, NodeLook(store=WELL, replicas={"store2": replica}))
    assert arb.cannot(FOUR, FOUR.nodes[0], JOB, seen) == words


def test_what_a_person_took_down_is_left_alone_and_what_a_rollout_did_is_gone_on_with():
    assert isinstance(judged(steps()["guard"], WELL._replace(mark=BY_HAND)), Never)
    assert isinstance(judged(steps()["guard"], WELL._replace(mark=OURS)), Holds)
    found = NodeLook(store=WELL._replace(mark=OURS), replicas={"store2": WELL})
    refused = arb.cannot(FOUR, FOUR.nodes[0], JOB, Seen(FOUR.nodes[0], (), {}, found))
    assert refused == "store1 is marked down by rollout r7 of ops@control: deploy v2"


def test_a_machine_in_no_pair_has_nobody_to_serve_for_it():
    alone = cluster(pairs=(("store2", "store3"),))
    assert isinstance(judged(steps(alone)["guard"]), Never)


def test_a_board_that_cannot_be_read_lets_nobody_go():
    for step in ("guard", "down", "quiet", "up"):
        assert isinstance(judged(steps()[step], WELL._replace(board_error="torn")), NotYet)


def test_the_mark_is_given_time_until_every_client_has_seen_it():
    marked = WELL._replace(mark=OURS)
    assert isinstance(judged(steps()["down"], WELL), NotYet)
    assert isinstance(judged(steps()["down"], marked, spent_s=0.05), NotYet)
    assert isinstance(judged(steps()["down"], marked, spent_s=0.2), Holds)
    shared = steps(cluster(board="etcd://10.0.0.9:2379/shop"))["down"]
    assert isinstance(judged(shared, marked, spent_s=0.2), NotYet)
    assert isinstance(judged(shared, marked, spent_s=2.1), Holds)


def test_quiet_is_no_query_while_the_mark_stands():
    quiet, marked = steps()["quiet"], WELL._replace(mark=OURS)
    assert isinstance(judged(quiet, marked), Holds)
    assert judged(quiet, marked._replace(active=1)).why == "1 query is running"
    assert judged(quiet, marked._replace(active=2)).why == "2 queries are running"
    assert isinstance(judged(quiet, marked._replace(active=None)), NotYet)
    assert isinstance(judged(quiet, WELL), NotYet), "the mark has lapsed: clients may come at any moment"
    dead = StoreLook(Answer(None, error="refused"), mark=OURS)
    assert isinstance(judged(quiet, dead), NotYet)
    assert isinstance(judged(steps(job=Job("put-back", "v1"))["quiet"], dead), Holds)


def test_a_mark_lasts_longer_than_all_steps_may_take_and_not_for_ever():
    for whole in (FOUR, replace(FOUR, drain=DrainPolicy(7200.0))):
        found = steps(whole)
        limits = [step.limit_s for name, step in found.items() if name not in ("guard", "watch")]
        assert sum(limits) + whole.service.limit_s < found["down"].act.lasts_s < 86400
    waits = steps(replace(FOUR, drain=DrainPolicy(then="wait")))
    assert waits["quiet"].limit_s is None
    assert waits["down"].act.lasts_s > 86400
    [left_out] = arb.leave_out(FOUR, FOUR.nodes[0])
    assert left_out.act.lasts_s is None


@pytest.mark.parametrize(("then", "do"), [("fallback", Do.FALLBACK), ("halt", Do.HALT), ("force", Do.HALT)])
def test_queries_that_do_not_end(then, do):
    assert steps(replace(FOUR, drain=DrainPolicy(then=then)))["quiet"].on_limit is do


# ---------------------------------------------------------------- what brings it back


def test_a_restart_is_over_when_the_new_release_answers_and_serves():
    restart = steps()["restart"]
    assert isinstance(judged(restart), Holds)
    assert isinstance(judged(restart, version="v1"), NotYet)
    assert isinstance(judged(restart, StoreLook(Answer(500))), NotYet)


def test_up_only_when_caught_up_and_watched_until_it_is_well():
    assert isinstance(judged(steps()["catch-up"], WELL._replace(lag_s=9.0)), NotYet)
    assert isinstance(judged(steps()["catch-up"]), Holds)
    assert isinstance(judged(steps()["up"], WELL._replace(mark=OURS)), NotYet)
    watch = steps()["watch"]
    assert isinstance(judged(watch, spent_s=1.0), NotYet)
    assert isinstance(judged(watch), Holds)
    for ill in (StoreLook(Answer(500)), WELL._replace(lag_s=9.0), WELL._replace(mark=Mark("c:1", "refused"))):
        assert isinstance(judged(watch, ill, spent_s=1.0), Never)


def test_without_a_page_for_lag_nothing_waits_for_it():
    whole = replace(FOUR, arb=FOUR.arb._replace(lag=None))
    assert "catch-up" not in steps(whole)
    assert isinstance(judged(steps(whole)["guard"], store2=WELL._replace(lag_s=None)), Holds)


def test_a_command_of_ones_own_is_run_instead_of_the_restart():
    found = steps(job=Job("run", line="ctl defrag"))
    assert list(found) == ["guard", "down", "quiet", "run", "catch-up", "up", "watch"]
    assert found["run"].act.line == "ctl defrag"
    assert found["down"].act.why == "run `ctl defrag`"
