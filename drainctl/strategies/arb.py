"""
arb: a machine of a replicated data store, whose clients look at a down board (`drainctl.arb`).

Guard → down → quiet → switch → restart → catch-up → up → watch. No balancer has a part in it: clients stop
asking the machine because the board says so, and its replica has all their queries meanwhile.
Pure: lists steps. The order and the reasons are told in docs/arb.md.
"""

from __future__ import annotations

from dataclasses import replace

from drainctl.model import Arb, Cluster, Node, StoreLook
from drainctl.steps import (
    Do,
    Expectation,
    Holds,
    Job,
    Look,
    MarkDown,
    MarkUp,
    Never,
    NotYet,
    RunOnNode,
    Seen,
    Step,
    Verb,
)
from drainctl.strategies import common
from drainctl.strategies.door import CHANGING, Strategy
from drainctl.strategies.expect import Judgement

NAME = "arb"
VERBS: frozenset[Verb] = CHANGING | {"restart", "run"}
STORE = frozenset({Look.STORE})
DAY_S = 86400.0
MARGIN_S = 60.0  # beyond the limits of all steps, so that no mark lapses in the middle of one
# How long a mark may take until every client has seen it: the boards' own promise, see drainctl.arb.boards.
STALE_S = {"file": 0.1}
SHARED_STALE_S = 2.0


def journey(cluster: Cluster, node: Node, job: Job) -> tuple[Step, ...]:
    """All steps that take a machine from its clients, change it by `job`, and give it back."""
    steps = [_guard(cluster, node), _down(cluster, job), _quiet(cluster, node, job)]
    if job.switches:
        steps.append(common.switch(str(job.target)))
    return (*steps, _restart(cluster, job), *give_back(cluster, node), _watch(cluster))


def give_back(cluster: Cluster, node: Node) -> tuple[Step, ...]:
    """Caught up, then up: also what undoes a journey that changed nothing yet."""
    del node
    return (*([_catch_up(cluster)] if _arb(cluster).lag else []), _up())


def leave_out(cluster: Cluster, node: Node) -> tuple[Step, ...]:
    """Marked down without an end: whoever has looked at it takes the mark away."""
    del node
    return (_marked_down(cluster, MarkDown(None, "left out by a rollout that failed")),)


def cannot(cluster: Cluster, node: Node, job: Job, seen: Seen) -> str | None:
    """No replica could take its queries, or a person or another rollout has taken it out."""
    mark = seen.host.store.mark if seen.host.store else None
    if mark is not None and mark.rollout and job.verb != "put-back":
        return f"{node.name} is marked down by rollout {mark.rollout} of {mark.by}: {mark.why}"
    now = _replicas_serve(cluster, node)(seen)
    return None if isinstance(now, Holds) else now.why


def replicas(cluster: Cluster, name: str) -> tuple[str, ...]:
    """The other machines that hold the same data."""
    for pair in _arb(cluster).pairs:
        if name in pair:
            return tuple(other for other in pair if other != name)
    return ()


def _arb(cluster: Cluster) -> Arb:
    if cluster.arb is None:
        raise AssertionError("strategy arb without a section arb: the rules refuse that")
    return cluster.arb


# ---------------------------------------------------------------- judgements


def _serves(name: str, look: StoreLook, most_lag_s: float | None) -> Judgement:
    """Its check answers 200, and it is not too far behind."""
    if look.check is None or look.check.status != 200:
        return NotYet(f"{name} does not serve: its check answers {look.check or 'nothing'}")
    if most_lag_s is None:
        return Holds(f"{name} answers 200")
    if look.lag_s is None:
        return NotYet(f"how far {name} is behind is not known: {look.lag_error}")
    if look.lag_s > most_lag_s:
        return NotYet(f"{name} is {look.lag_s:.1f} s behind its replica, arb.most_lag = {most_lag_s:g} s")
    return Holds(f"{name} answers 200, {look.lag_s:.1f} s behind")


def _most_lag_s(cluster: Cluster) -> float | None:
    arb = _arb(cluster)
    return arb.most_lag_s if arb.lag else None


def _replicas_serve(cluster: Cluster, node: Node) -> Expectation:
    """Every replica serves, has caught up, and is not marked down; and nobody else has taken this one out."""
    others = replicas(cluster, node.name)

    def judge(seen: Seen) -> Judgement:
        own = seen.host.store
        if not others:
            return Never(
                f"{node.name} is in none of arb.pairs: nobody else has its data",
                hint="add it to the pair that holds the same data",
            )
        if own is None or own.board_error:
            return NotYet(f"the board cannot be read: {own.board_error if own else 'not asked'}")
        if own.mark is not None and own.mark.by_hand and not own.mark.rollout:
            return Never(
                f"{node.name} was taken down by {own.mark.by}: {own.mark.why}",
                hint="`drainctl arb up` when it may serve again",
            )
        found = []
        for name in others:
            look = seen.host.replicas.get(name, StoreLook())
            if look.mark is not None:
                return NotYet(f"{name} is marked down by {look.mark.by}: {look.mark.why}")
            now = _serves(name, look, _most_lag_s(cluster))
            if not isinstance(now, Holds):
                return now
            found.append(now.why)
        return Holds("; ".join(found))

    return judge


def _marked(stale_s: float) -> Expectation:
    """The board shows the mark, and has for so long that every client has seen it."""

    def judge(seen: Seen) -> Judgement:
        store = seen.host.store
        if store is None or store.board_error:
            return NotYet(f"the board cannot be read: {store.board_error if store else 'not asked'}")
        if store.mark is None or not store.mark.rollout:
            return NotYet("the board does not show it down")
        left_s = stale_s - seen.spent_s
        if left_s > 0:
            return NotYet(f"every client sees the mark within {left_s:.1f} s", left_s)
        return Holds("marked down on the board")

    return judge


def _no_queries(cluster: Cluster, node: Node, job: Job) -> Expectation:
    """
    No query is running on it; the mark stands, and the replicas go on serving, until the very end.

    On the way back a machine that does not answer at all is one that its new release left so: it was quiet
    when that was started, and has been marked down since.
    """
    marked, others_serve = _marked(0.0), _replicas_serve(cluster, node)

    def judge(seen: Seen) -> Judgement:
        for needed in (marked(seen), others_serve(seen)):
            if not isinstance(needed, Holds):
                return needed
        store = seen.host.store or StoreLook()
        if store.active is None and job.verb == "put-back" and store.check and store.check.status is None:
            return Holds("it does not answer at all")
        if store.active is None:
            return NotYet(f"the number of its queries is not known: {store.active_error}")
        if store.active:
            return NotYet(f"{store.active} {'query is' if store.active == 1 else 'queries are'} running")
        return Holds("0 queries are running")

    return judge


def _answers(version: Expectation) -> Expectation:
    def judge(seen: Seen) -> Judgement:
        now = version(seen)
        if not isinstance(now, Holds):
            return now
        serves = _serves("it", seen.host.store or StoreLook(), None)
        return Holds(f"{now.why}; its check answers 200") if isinstance(serves, Holds) else serves

    return judge


def _unmarked(seen: Seen) -> Judgement:
    store = seen.host.store
    if store is None or store.board_error:
        return NotYet(f"the board cannot be read: {store.board_error if store else 'not asked'}")
    if store.mark is not None and store.mark.by_hand:
        return NotYet(f"the board shows it down by {store.mark.by}")
    return Holds("no longer marked down")


def _stays_well(cluster: Cluster) -> Expectation:
    policy, most_lag_s = cluster.watch, _most_lag_s(cluster)

    def judge(seen: Seen) -> Judgement:
        store = seen.host.store or StoreLook()
        now = _serves("it", store, most_lag_s)
        if not isinstance(now, Holds):
            return Never(f"{now.why}, {seen.spent_s:.1f} s after it was up")
        if store.mark is not None:
            return Never(
                f"marked down by {store.mark.by}, {seen.spent_s:.1f} s after it was up: {store.mark.why}"
            )
        left_s = policy.for_s - seen.spent_s
        if left_s > 0:
            return NotYet(f"{now.why}, {left_s:.0f} s left to watch", max(left_s, 0.001))
        return now

    return judge


# ---------------------------------------------------------------- steps


def _guard(cluster: Cluster, node: Node) -> Step:
    others = ", ".join(replicas(cluster, node.name)) or "a replica"
    return Step(
        name="guard",
        act=None,
        seen_when=f"{others} serves, has caught up and is not marked down",
        expects=_replicas_serve(cluster, node),
        looks=frozenset({Look.STORE, Look.REPLICAS}),
        limit_s=cluster.rollout.patience_s,
        every_s=0.25,
        reversible=True,
        on_limit=Do.FALLBACK,
        on_never=Do.FALLBACK,
    )


def _lasts_s(cluster: Cluster) -> float:
    """Longer than all that follows may take: who dies in the middle keeps the machine out no longer."""
    wait_s = DAY_S if cluster.drain.then == "wait" else cluster.drain.limit_s
    return wait_s + 3 * cluster.service.limit_s + cluster.rollout.patience_s + MARGIN_S


def _stale_s(cluster: Cluster) -> float:
    return STALE_S.get(_arb(cluster).board.partition("://")[0], SHARED_STALE_S)


def _down(cluster: Cluster, job: Job) -> Step:
    what = f"run `{job.line}`" if job.line else f"{job.verb} {job.target or ''}".strip()
    return replace(_marked_down(cluster, MarkDown(_lasts_s(cluster), what)), reversible=True)


def _marked_down(cluster: Cluster, act: MarkDown) -> Step:
    stale_s = _stale_s(cluster)
    return Step(
        name="down",
        act=act,
        seen_when=f"the board shows it down, for {stale_s:g} s so that every client has seen it",
        expects=_marked(stale_s),
        looks=STORE,
        limit_s=stale_s + 10.0,
        expected_s=stale_s,
    )


def _quiet(cluster: Cluster, node: Node, job: Job) -> Step:
    drain = cluster.drain
    return Step(
        name="quiet",
        act=None,
        seen_when="no query is running on it, seen twice, while the replica serves",
        expects=_no_queries(cluster, node, job),
        looks=frozenset({Look.STORE, Look.REPLICAS}),
        limit_s=None if drain.then == "wait" else drain.limit_s,
        in_a_row=2,
        reversible=True,
        on_limit=Do.FALLBACK if drain.then == "fallback" else Do.HALT,
        expected_s=None,
    )


def _restart(cluster: Cluster, job: Job) -> Step:
    """The command, and then the store that answers: a supervisor's word is not an answer."""
    version, looks = common.answers(cluster, job.target)
    name = "restart" if job.line is None else "run"
    answers = f"it answers with {job.target}" if job.target else "it answers"
    return Step(
        name=name,
        act=RunOnNode(job.line or cluster.service.restart or "", cluster.service.limit_s, job.target),
        seen_when=f"{answers}, and its check answers 200",
        expects=_answers(version),
        looks=STORE | looks,
        limit_s=cluster.service.limit_s,
        once=True,
        changes=True,
        every_s=0.05,
        expected_s=None,
    )


def _catch_up(cluster: Cluster) -> Step:
    def judge(seen: Seen) -> Judgement:
        return _serves("it", seen.host.store or StoreLook(), _most_lag_s(cluster))

    return Step(
        name="catch-up",
        act=None,
        seen_when=f"it is at most {_arb(cluster).most_lag_s:g} s behind its replica",
        expects=judge,
        looks=STORE,
        limit_s=max(cluster.service.limit_s, cluster.rollout.patience_s),
        every_s=0.25,
        expected_s=None,
    )


def _up() -> Step:
    return Step(
        name="up",
        act=MarkUp(),
        seen_when="the board no longer shows it down",
        expects=_unmarked,
        looks=STORE,
        limit_s=10.0,
    )


def _watch(cluster: Cluster) -> Step:
    policy = cluster.watch
    return Step(
        name="watch",
        act=None,
        seen_when=f"{policy.for_s:g} s in which its check answers 200 and it does not fall behind",
        expects=_stays_well(cluster),
        looks=STORE,
        limit_s=policy.for_s + cluster.rollout.patience_s,
        every_s=0.2,
        expected_s=policy.for_s,
        by_key="watch.for",
        exact=True,
    )


STRATEGY = Strategy(
    name=NAME,
    leaves=True,
    verbs=VERBS,
    journey=journey,
    cannot=cannot,
    give_back=give_back,
    leave_out=leave_out,
)
