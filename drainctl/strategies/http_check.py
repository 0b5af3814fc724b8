"""
The main way: /http-check to 404, out of rotation, idle, changed, warm, back, watched.

Pure: lists steps, touches nothing. The order and the reasons are told in docs/how-it-works.md.
"""

from __future__ import annotations

from dataclasses import replace

from drainctl.config.placeholders import fill, values_of
from drainctl.model import Cluster, Node, Word
from drainctl.rollout import rules
from drainctl.steps import (
    ClearFlag,
    Do,
    Escalation,
    Holds,
    Job,
    Look,
    Nudge,
    RunOnNode,
    Seen,
    SetFlag,
    SetState,
    ShutdownSessions,
    Step,
    Verb,
    Warm,
)
from drainctl.strategies import common, container, expect
from drainctl.strategies.door import Strategy

ROWS = frozenset({Look.ROWS})
HALF = "half of checks.inter"


def journey(cluster: Cluster, node: Node, job: Job) -> tuple[Step, ...]:
    """All steps that take a node out, change it by `job`, and bring it back; or a part, by hand."""
    if job.verb == "restore":
        return restore(cluster, node)
    leave = (_guard(cluster), *_leaving(cluster))
    if job.verb == "drain":
        return leave
    return (*leave, *_change(cluster, job), *give_back(cluster, node), common.watch(cluster))


def restore(cluster: Cluster, node: Node) -> tuple[Step, ...]:
    """Back from a drain by hand. A node that does not come up is left as it is, for a person to see."""
    return tuple(replace(step, on_limit=Do.HALT, on_never=Do.HALT) for step in give_back(cluster, node))


def out_only(cluster: Cluster, node: Node) -> tuple[Step, ...]:
    """
    Out of rotation, however many requests are still in flight: for a node that must not serve on. Unless it
    is needed: a bad release that answers some is better than nobody. Of a node that is out already the guard
    asks nothing.
    """
    del node
    return (_guard(cluster), flag(), _out(cluster))


def cannot(cluster: Cluster, node: Node, job: Job, seen: Seen) -> str | None:
    """A balancer that cannot be read, a server without a check, a check that fails, or too few others up."""
    del node
    if job.verb == "restore":
        return None
    if broken := [
        f"{name} cannot be read: {look.error.removeprefix(f'{name}: ')}"
        for name, look in seen.looks.items()
        if look.error
    ]:
        return "; ".join(broken)
    rows = [(place, row) for place in seen.places if (row := seen.row(place))]
    for place, row in rows:
        if row.status.word is Word.NO_CHECK:
            return f"{place} has no check: a 404 would never take it out of rotation"
        if row.check == "INI":
            return f"{place} has not finished its first check yet"
    flagged = seen.host.disk is not None and seen.host.disk.flag is not None
    serves = not flagged and any(row.status.word is Word.UP for _, row in rows)
    answer = seen.host.check
    if serves and (answer is None or answer.status != 200):
        url = fill(cluster.health.check or "", values_of(cluster, seen.node, None))
        return f"{url} answers {answer}, expected 200 while it is in rotation"
    if seen.host.container and seen.host.container.fixed and job.verb not in ("drain", "run"):
        return f"the container cannot be replaced: {seen.host.container.fixed}"
    verdict = _guard(cluster).expects(seen)
    return None if isinstance(verdict, Holds) else f"it cannot leave: {verdict.why}"


def _leaving(cluster: Cluster) -> tuple[Step, ...]:
    """Flag, out, idle, quiet: from serving to not a single request in flight."""
    steps = [flag(), _out(cluster), _idle(cluster)]
    if cluster.drain.sticky == "move":
        steps.append(_move())
    if cluster.health.active != "none":
        steps.append(_quiet(cluster))
    return tuple(steps)


def give_back(cluster: Cluster, node: Node) -> tuple[Step, ...]:
    """Restore and up: from out of rotation to proven serving. Also what undoes a drain."""
    del node
    steps = [unflag(cluster)]
    if cluster.drain.sticky == "move":
        steps.append(_ready(cluster))
    steps.append(_up(cluster))
    return tuple(steps)


def _guard(cluster: Cluster) -> Step:
    members = frozenset(node.server for node in cluster.nodes)
    return Step(
        name="guard",
        reversible=True,
        act=None,
        seen_when=f"every balancer shows {cluster.rollout.keep_up} of the servers up without this one",
        expects=expect.guard(cluster.rollout.keep_up, members),
        looks=frozenset({Look.TABLE}),
        limit_s=cluster.rollout.patience_s,
        every_s=0.25,
        on_limit=Do.FALLBACK,
        on_never=Do.FALLBACK,
    )


def flag() -> Step:
    """The node's own /http-check answers 404; HAProxy finds out, or is told. A dead container is silent."""
    return Step(
        name="flag",
        reversible=True,
        act=SetFlag(),
        seen_when="the node's own /http-check answers 404",
        expects=expect.flagged,
        looks=frozenset({Look.CHECK, Look.CONTAINER}),
        limit_s=5.0,
    )


def _out(cluster: Cluster) -> Step:
    tail_s = rules.routing_tail_s(cluster.checks)
    return Step(
        name="out",
        reversible=True,
        act=Nudge("stopping"),
        seen_when="every balancer shows it NOLB, DRAIN, MAINT or DOWN in every backend",
        expects=expect.out_of_rotation,
        looks=ROWS,
        limit_s=tail_s + rules.LOOK_MARGIN_S,
        stays_out=True,
        expected_s=cluster.checks.inter_s / 2,
        by_key=HALF,
    )


def _idle(cluster: Cluster) -> Step:
    drain = cluster.drain
    escalations = []
    if drain.sticky == "move":
        moved = "bound clients still come: the server goes to MAINT, which moves them"
        escalations.append(Escalation(drain.move_after_s, SetState("maint"), moved))
    limit_s: float | None = drain.limit_s
    if drain.then == "force":
        cut = f"drain.limit = {drain.limit_s:g} s is over: what is left is cut (drain.then = force)"
        escalations.append(Escalation(drain.limit_s, ShutdownSessions(), cut))
        limit_s = drain.limit_s + rules.LOOK_MARGIN_S
    if drain.then == "wait":
        limit_s = None
    # The second look is `quiet`'s and the next act's own (its `requires`), which come at once; without
    # `quiet` it is made here.
    looks = 2 if cluster.health.active == "none" else 1
    return Step(
        name="idle",
        reversible=True,
        act=None,
        seen_when="no request in flight or queued on any balancer or old worker, seen twice",
        expects=expect.idle,
        looks=ROWS,
        limit_s=limit_s,
        in_a_row=looks,
        escalations=tuple(escalations),
        on_limit=_past_limit(cluster),
        expected_s=None,
    )


def _move() -> Step:
    """
    Before anything is changed the clients that are bound to it go elsewhere, although none of them asks just
    now: the next of them would find an app that restarts. Where no socket allows it, nothing is told.
    """
    return Step(
        name="move",
        reversible=True,
        act=SetState("maint"),
        seen_when="every balancer whose socket allows it shows MAINT",
        expects=expect.moved,
        looks=ROWS,
        limit_s=rules.LOOK_MARGIN_S,
    )


def _quiet(cluster: Cluster) -> Step:
    return Step(
        name="quiet",
        reversible=True,
        act=None,
        seen_when="no request in flight by the node's own count of its sockets, nor on any balancer",
        expects=expect.quiet,
        looks=frozenset({Look.ACTIVE, Look.ROWS}),
        limit_s=None if cluster.drain.then == "wait" else cluster.drain.limit_s,
        on_limit=_past_limit(cluster),
    )


def _past_limit(cluster: Cluster) -> Do:
    """Past drain.limit the node stays drained with `halt`: somebody wants to look at what is left."""
    return Do.FALLBACK if cluster.drain.then == "fallback" else Do.HALT


def _change(cluster: Cluster, job: Job) -> tuple[Step, ...]:
    steps = []
    if job.switches and not cluster.images:
        steps.append(replace(common.switch(str(job.target)), requires=expect.idle))
    if job.line is not None:
        steps.append(_restart(cluster, job.line, job, "run"))
    elif cluster.images:
        steps.append(container.change(cluster, job))
    else:
        steps.append(_restart(cluster, cluster.service.restart or "", job, "restart"))
    if cluster.warm:
        steps.append(_warm(cluster))
    return tuple(steps)


def _restart(cluster: Cluster, line: str, job: Job, name: str) -> Step:
    """The command, and then the app that answers: a supervisor's word is not an answer."""
    expects, looks = common.answers(cluster, job.target)
    answers = f"the app answers with {job.target}" if job.target else "the app answers"
    return Step(
        name=name,
        act=RunOnNode(line, cluster.service.limit_s, job.target),
        seen_when=answers,
        expects=expects,
        looks=looks,
        limit_s=cluster.service.limit_s,
        requires=expect.idle,
        once=True,
        changes=True,
        every_s=0.02,
        expected_s=None,
    )


def _warm(cluster: Cluster) -> Step:
    pages = ", ".join(f"{page.path} × {page.times}" for page in cluster.warm)
    return Step(
        name="warm",
        act=Warm(cluster.warm),
        seen_when=f"{pages} answered without an error",
        expects=expect.at_once("warm"),
        looks=frozenset(),
        limit_s=cluster.service.limit_s,
        expected_s=None,
    )


def unflag(cluster: Cluster) -> Step:
    """The node's own /http-check answers 200 again."""
    return Step(
        name="restore",
        act=ClearFlag(),
        seen_when="the node's own /http-check answers 200",
        expects=expect.unflagged,
        looks=frozenset({Look.CHECK}),
        limit_s=cluster.health.timeout_s + 5.0,
        mark=True,
        stays_out=False,
    )


def _ready(cluster: Cluster) -> Step:
    """After MAINT the server would be taken unchecked, so this comes only once the node answers 200."""
    return Step(
        name="ready",
        act=SetState("ready"),
        seen_when="the balancers take it out of MAINT",
        expects=expect.at_once("ready"),
        looks=frozenset(),
        limit_s=cluster.health.timeout_s,
    )


def _up(cluster: Cluster) -> Step:
    checks = cluster.checks
    return Step(
        name="up",
        act=Nudge("up"),
        seen_when="every balancer shows exactly UP, and a check or a request has passed since",
        expects=expect.up(rules.routing_tail_s(checks)),
        looks=ROWS,
        limit_s=max(rules.return_limit_s(checks), rules.routing_tail_s(checks)) + rules.LOOK_MARGIN_S,
        expected_s=checks.inter_s / 2,
        by_key=HALF,
    )


VERBS: frozenset[Verb] = frozenset({"deploy", "rollback", "restart", "run", "drain", "restore", "put-back"})

STRATEGY = Strategy(
    name="http-check",
    leaves=True,
    verbs=VERBS,
    journey=journey,
    cannot=cannot,
    give_back=give_back,
    leave_out=out_only,
)
