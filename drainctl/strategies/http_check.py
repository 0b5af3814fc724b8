"""
The main way: /http-check to 404, out of rotation, idle, changed, warm, back, watched.

Pure: lists steps, touches nothing. The order and the reasons are told in docs/how-it-works.md.
"""

from __future__ import annotations

from dataclasses import replace

from drainctl.model import Cluster
from drainctl.rollout import rules
from drainctl.steps import (
    ClearFlag,
    Do,
    Escalation,
    Job,
    Look,
    Nudge,
    RunOnNode,
    SetFlag,
    SetState,
    ShutdownSessions,
    Stage,
    Step,
    Switch,
    Warm,
)
from drainctl.strategies import expect

NAME = "http-check"
ROWS = frozenset({Look.ROWS})
# Once one of these was begun, the node no longer is what it was: putting it back means the whole way.
CHANGES = frozenset({"switch", "restart", "run"})


def stage(cluster: Cluster, release: str) -> Step:
    """Before anything leaves rotation: the release is on the node, whole, under its own name."""
    return Step(
        name="stage",
        act=Stage(release),
        seen_when=f"releases/{release} is unpacked and its sha256 was verified on the node",
        expects=expect.at_once(f"releases/{release} is there"),
        looks=frozenset(),
        limit_s=cluster.service.limit_s,
    )


def journey(cluster: Cluster, job: Job) -> tuple[Step, ...]:
    """All steps that take a node out, change it by `job`, and bring it back."""
    leave = (_guard(cluster), *leaving(cluster))
    return (*leave, *_change(cluster, job), *give_back(cluster), _watch(cluster))


def drain(cluster: Cluster) -> tuple[Step, ...]:
    """Out of rotation and idle, for maintenance by hand; it stays so until `restore`."""
    return (_guard(cluster), *leaving(cluster))


def restore(cluster: Cluster) -> tuple[Step, ...]:
    """Back from a drain by hand. A node that does not come up is left as it is, for a person to see."""
    return tuple(replace(step, on_limit=Do.HALT, on_never=Do.HALT) for step in give_back(cluster))


def out_only(cluster: Cluster) -> tuple[Step, ...]:
    """Out of rotation, however many requests are still in flight: for a node that must not serve on."""
    return (_flag(), _out(cluster))


def leaving(cluster: Cluster) -> tuple[Step, ...]:
    """Flag, out, idle, quiet: from serving to not a single request in flight."""
    steps = [*out_only(cluster), _idle(cluster)]
    if cluster.health.active != "none":
        steps.append(_quiet(cluster))
    return tuple(steps)


def give_back(cluster: Cluster) -> tuple[Step, ...]:
    """Restore and up: from out of rotation to proven serving. Also what undoes a drain."""
    steps = [_restore(cluster)]
    if cluster.drain.sticky == "move":
        steps.append(_ready(cluster))
    steps.append(_up(cluster))
    return tuple(steps)


def _guard(cluster: Cluster) -> Step:
    members = frozenset(node.server for node in cluster.nodes)
    return Step(
        name="guard",
        act=None,
        seen_when=f"every balancer shows {cluster.rollout.keep_up} of the servers up without this one",
        expects=expect.guard(cluster.rollout.keep_up, members),
        looks=frozenset({Look.TABLE}),
        limit_s=cluster.rollout.patience_s,
        every_s=0.25,
        on_limit=Do.FALLBACK,
        on_never=Do.FALLBACK,
    )


def _flag() -> Step:
    return Step(
        name="flag",
        act=SetFlag(),
        seen_when="the node's own /http-check answers 404",
        expects=expect.flagged,
        looks=frozenset({Look.CHECK}),
        limit_s=5.0,
    )


def _out(cluster: Cluster) -> Step:
    tail_s = rules.routing_tail_s(cluster.checks)
    return Step(
        name="out",
        act=Nudge("stopping"),
        seen_when="every balancer shows it NOLB, DRAIN, MAINT or DOWN in every backend",
        expects=expect.out_of_rotation,
        looks=ROWS,
        limit_s=tail_s + rules.LOOK_MARGIN_S,
        stays_out=True,
        expected_s=cluster.checks.inter_s / 2,
    )


def _idle(cluster: Cluster) -> Step:
    drain = cluster.drain
    escalations = []
    if drain.sticky == "move":
        moved = "sticky clients still come: the server goes to MAINT, which moves them"
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


def _quiet(cluster: Cluster) -> Step:
    return Step(
        name="quiet",
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
    if job.switches:
        steps.append(
            Step(
                name="switch",
                act=Switch(str(job.target)),
                seen_when=f"current links to releases/{job.target}",
                expects=expect.links_to(str(job.target)),
                looks=frozenset({Look.DISK}),
                limit_s=5.0,
                requires=expect.idle,
            )
        )
    if job.line is None:
        steps.append(_restart(cluster, cluster.service.restart or "", job, "restart"))
    else:
        steps.append(_restart(cluster, job.line, job, "run"))
    if cluster.warm:
        steps.append(_warm(cluster))
    return tuple(steps)


def _restart(cluster: Cluster, line: str, job: Job, name: str) -> Step:
    """The command, and then the app that answers: a supervisor's word is not an answer."""
    health = cluster.health
    looks = {Look.VERSION} if health.version else set()
    looks |= {Look.READY} if health.ready else set()
    answers = f"the app answers with {job.target}" if job.target else "the app answers"
    return Step(
        name=name,
        act=RunOnNode(line, cluster.service.limit_s, job.target),
        seen_when=answers,
        expects=expect.answers_with(job.target, version=bool(health.version), ready=bool(health.ready)),
        looks=frozenset(looks),
        limit_s=cluster.service.limit_s,
        requires=expect.idle,
        once=True,
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


def _restore(cluster: Cluster) -> Step:
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
    )


def _watch(cluster: Cluster) -> Step:
    watch = cluster.watch
    peers = frozenset(node.server for node in cluster.nodes)
    return Step(
        name="watch",
        act=None,
        seen_when=f"{watch.for_s:g} s with at most {watch.errors} errors beyond its peers' rate",
        expects=expect.watched(watch, peers, rules.routing_tail_s(cluster.checks)),
        looks=frozenset({Look.PEERS}),
        limit_s=watch.for_s + cluster.rollout.patience_s,
        mark=True,
        every_s=0.2,
        expected_s=watch.for_s,
    )
