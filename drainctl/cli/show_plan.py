"""A plan as text. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from drainctl.config.placeholders import fill, values_of
from drainctl.model import Cluster, Node
from drainctl.rollout.plan import Plan, steps
from drainctl.rollout.survey import Survey
from drainctl.rollout.walk import describe
from drainctl.steps import Job, RunOnNode, Step


def plan_text(cluster: Cluster, plan: Plan, seen: Survey, found: Sequence[str]) -> str:
    """Waves, each node as HAProxy shows it now, its steps with exact commands, and what stands against it."""
    lines = []
    if plan.jobs:
        release = f" {plan.release.id}" if plan.release else ""
        lines.append(f"{plan.verb}{release} over {len(plan.order)} nodes in {len(plan.waves)} waves")
        if plan.release and plan.release.to_stage:
            lines.append(f"  first, on all nodes: stage {plan.release.id} ({plan.release.size / 1e6:.1f} MB)")
        for number, wave in enumerate(plan.waves, 1):
            lines.append(f"wave {number}: {', '.join(wave)}")
            lines += [line for name in wave for line in _node(cluster, plan, seen, cluster.node(name))]
        lines += ["", *_way(cluster, plan)]
    if found:
        lines += ["", "refused, nothing would be touched:", *(f"  {why}" for why in dict.fromkeys(found))]
    return "\n".join(lines)


def _node(cluster: Cluster, plan: Plan, seen: Survey, node: Node) -> list[str]:
    job = plan.jobs[node.name]
    now = plan.previous[node.name] or "no release"
    shown = []
    for place in plan.places[node.name]:
        row = seen.tables[place.balancer].row(place.backend, place.server)
        if row:
            shown.append(
                f"{place.balancer} {place.backend}/{place.server} {row.status}, {row.scur} in flight"
            )
    change = f"{now} -> {job.target}" if job.target else now
    del cluster
    return [f"  {node.name}: http-check, {change}", *(f"    {line}" for line in shown)]


def _way(cluster: Cluster, plan: Plan) -> list[str]:
    """The steps of the first node; the others differ in their names and addresses only."""
    name = plan.order[0]
    node, job = cluster.node(name), plan.jobs[name]
    known = [step.expected_s for step in steps(cluster, job) if step.expected_s]
    lines = [f"each node (here {name}), step by step:"]
    lines += [line for step in steps(cluster, job) for line in _step(cluster, node, job, step)]
    lines.append(
        f"known to take {sum(known):.1f} s a node (checks and watch), plus drain, restart and warm-up; "
        f"{len(plan.waves)} waves"
    )
    return lines


def _step(cluster: Cluster, node: Node, job: Job, step: Step) -> list[str]:
    limit = f"limit {step.limit_s:g} s" if step.limit_s is not None else "no limit"
    lines = []
    if isinstance(step.act, RunOnNode):
        lines.append(f"  {step.name:8} run `{fill(step.act.line, values_of(cluster, node, job.target))}`")
    elif step.act:
        lines.append(f"  {step.name:8} {describe(step.act)}")
    lines.append(f"  {'' if lines else step.name:8} until {step.seen_when} ({limit})")
    lines += [f"  {'':8} after {more.after_s:g} s: {more.why}" for more in step.escalations]
    return lines
