"""
From what drainctl.yml says and what is seen to who is taken when, and how. Pure.

A plan is what `drainctl plan` prints and `drainctl deploy` does: there is no second list of steps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from drainctl.model import Cluster, NodeLook, Place, Release, Survey, Word
from drainctl.steps import Holds, Job, Seen, Step
from drainctl.strategies import expect, http_check


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What a rollout will do.

    waves: node names, taken in this order, those of a wave at once. jobs: what is done to each node.
    previous: the release that each node runs now (None: none known), to which it is put back.
    """

    verb: str
    waves: tuple[tuple[str, ...], ...]
    jobs: Mapping[str, Job]
    places: Mapping[str, tuple[Place, ...]]
    previous: Mapping[str, str | None]
    release: Release | None = None

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(name for wave in self.waves for name in wave)


def waves(cluster: Cluster, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The canary nodes first, one wave of their own; then `at_once` nodes a wave, in the file's order."""
    policy = cluster.rollout
    size = max(1, policy.at_once.of(len(cluster.nodes)))
    canary = tuple(names[: policy.canary])
    rest = names[policy.canary :]
    found = [canary] if canary else []
    found += [tuple(rest[at : at + size]) for at in range(0, len(rest), size)]
    return tuple(found)


def refusals(cluster: Cluster, plan: Plan, survey: Survey, *, steal: bool = False) -> list[str]:
    """Every reason not to begin, in words. Empty: the rollout may start. steal: a flag is no reason."""
    broken = {name: look.error for name, look in survey.tables.items() if look.error}
    found = [f"{name} cannot be read: {why.removeprefix(f'{name}: ')}" for name, why in broken.items()]
    found += [
        f"{name} cannot be reached: {why.removeprefix(f'{name}: ')}" for name, why in survey.errors.items()
    ]
    if found:
        return found
    for wave in plan.waves:
        for name in wave:
            seen = see_now(cluster, plan.places, name, survey, also_out=frozenset(wave) - {name})
            found += _node_refusals(cluster, seen, steal=steal)
    return found


def see_now(
    cluster: Cluster,
    places: Mapping[str, tuple[Place, ...]],
    name: str,
    survey: Survey,
    also_out: Collection[str] = (),
) -> Seen:
    """One node as the survey shows it. also_out: nodes that would be out at the same time."""
    out = frozenset(cluster.node(other).server for other in also_out)
    host = survey.nodes.get(name, NodeLook())
    return Seen(node=cluster.node(name), places=places[name], looks=survey.tables, host=host, out_too=out)


def _node_refusals(cluster: Cluster, seen: Seen, *, steal: bool) -> list[str]:
    """Why this node must not be taken now."""
    name, found = seen.node.name, []
    rows = [(place, row) for place in seen.places if (row := seen.row(place))]
    for place, row in rows:
        if row.status.word is Word.MAINT:
            found.append(f"{name} is in {row.status} on {place.balancer}: somebody took it out")
        elif row.status.word is Word.DRAIN:
            found.append(f"{name} is in {row.status} on {place.balancer}: somebody drains it")
        elif row.status.word is Word.NO_CHECK:
            found.append(f"{place} has no check: a 404 would never take it out of rotation")
        elif row.check == "INI":
            found.append(f"{place} has not finished its first check yet")
    flag = seen.host.disk.flag if seen.host.disk else None
    if flag is not None:
        if not steal:
            text = flag.strip()[:200] or "the flag is empty"
            found.append(f"{name} is flagged already: {text} (take it away: restore {name}, or --steal)")
    elif any(row.status.word is Word.UP for _, row in rows) and not _answers_200(seen.host):
        answer = seen.host.check
        found.append(f"{name}: {cluster.health.check} answers {answer}, expected 200 while it is in rotation")
    verdict = expect.guard(cluster.rollout.keep_up, frozenset(node.server for node in cluster.nodes))(seen)
    if not isinstance(verdict, Holds):
        found.append(f"{name} cannot leave: {verdict.why}")
    return found


def _answers_200(host: NodeLook) -> bool:
    return host.check is not None and host.check.status == 200


def steps(cluster: Cluster, job: Job) -> tuple[Step, ...]:
    """What is done to a node for `job`, in order."""
    match job.verb:
        case "drain":
            return http_check.drain(cluster)
        case "restore":
            return http_check.restore(cluster)
        case _:
            return http_check.journey(cluster, job)
