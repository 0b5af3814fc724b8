"""
From what drainctl.yml says and what is seen to who is taken when, and which way. Pure.

A plan is what `drainctl plan` prints and `drainctl deploy` does: there is no second list of steps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from drainctl.model import NOTHING, Cluster, Disk, NodeLook, Place, Release, Survey, Word
from drainctl.steps import Job, Seen, Step
from drainctl.strategies.door import Strategy
from drainctl.strategies.known import STRATEGIES

CONFIGURED = "configured"


class Way(NamedTuple):
    """Which way a node goes. strategy: None where none can. passed: those that cannot, and why."""

    strategy: str | None
    passed: tuple[tuple[str, str], ...] = ()

    @property
    def reason(self) -> str:
        """Why this one, in words."""
        return "; ".join(f"{name} cannot: {why}" for name, why in self.passed) or CONFIGURED


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What a rollout will do.

    waves: node names, taken in this order, those of a wave at once. jobs: what is done to each node.
    previous: the release that each node runs now (None: none known), to which it is put back. ways: how
    each node is done. live: by node and strategy, what serves before the rollout.
    """

    verb: str
    waves: tuple[tuple[str, ...], ...]
    jobs: Mapping[str, Job]
    places: Mapping[str, tuple[Place, ...]]
    previous: Mapping[str, str | None]
    release: Release | None = None
    ways: Mapping[str, Way] = field(default_factory=dict)
    live: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def order(self) -> tuple[str, ...]:
        return tuple(name for wave in self.waves for name in wave)

    def strategy(self, name: str) -> Strategy:
        """The way of a node. Raises: KeyError where none can: such a plan is refused."""
        return STRATEGIES[self.ways[name].strategy or ""]

    def job(self, name: str, strategy: Strategy) -> Job:
        """A node's job, as this strategy needs to know it."""
        live = self.live.get(name, NOTHING).get(strategy.name)
        return replace(self.jobs[name], leaving=self.previous[name], live=live)

    def back(self, name: str, strategy: Strategy) -> Job:
        """What puts a node back: the release of before."""
        target, leaving = self.previous[name], self.jobs[name].target
        return replace(self.job(name, strategy), verb="put-back", line=None, target=target, leaving=leaving)

    def steps(self, cluster: Cluster, name: str) -> tuple[Step, ...]:
        """What is done to a node, in order; nothing where no strategy can."""
        if self.ways[name].strategy is None:
            return ()
        strategy = self.strategy(name)
        return strategy.journey(cluster, cluster.node(name), self.job(name, strategy))


def waves(cluster: Cluster, names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """
    The canary nodes first; then `at_once` nodes a wave, in the file's order. Machines that hold the same data
    (arb.pairs) are never in one wave, whatever `at_once` says.
    """
    policy = cluster.rollout
    size = max(1, policy.at_once.of(len(cluster.nodes)))
    first = apart(cluster, names[: policy.canary], policy.canary) if policy.canary else ()
    return (*first, *apart(cluster, names[policy.canary :], size))


def apart(cluster: Cluster, names: Sequence[str], size: int) -> tuple[tuple[str, ...], ...]:
    """Groups of at most `size`, in order as far as that can be, no two machines of a pair in one."""
    pairs = cluster.arb.pairs if cluster.arb else ()
    pair_of = {name: at for at, pair in enumerate(pairs) for name in pair}
    found: list[tuple[str, ...]] = []
    left = list(names)
    while left:
        group: list[str] = []
        for name in left:
            taken = {pair_of.get(other) for other in group} - {None}
            if len(group) < size and pair_of.get(name) not in taken:
                group.append(name)
        found.append(tuple(group))
        left = [name for name in left if name not in group]
    return tuple(found)


def choose_way(
    cluster: Cluster, name: str, jobs: Mapping[str, Job], seen: Seen, names: Sequence[str] = ()
) -> Way:
    """
    The first of the node's strategies that can. jobs: the node's job, as each strategy needs to know it.
    names: the strategies that are left, all of the node's when empty.
    """
    node = cluster.node(name)
    passed: list[tuple[str, str]] = []
    for each in names or node.strategy:
        strategy, job = STRATEGIES[each], jobs[each]
        why: str | None = None
        if job.verb not in strategy.verbs or (job.line and not strategy.leaves):
            why = f"it does not know {job.verb}{' by a command' if job.line else ''}"
        else:
            why = strategy.cannot(cluster, node, job, seen)
        if why is None:
            return Way(each, tuple(passed))
        passed.append((each, why))
    return Way(None, tuple(passed))


def unreachable(survey: Survey, *, balancers: bool = True) -> list[str]:
    """Every balancer and node of the survey that could not be looked at, in words."""
    broken = {name: look.error for name, look in survey.tables.items() if look.error} if balancers else {}
    found = [f"{name} cannot be read: {why.removeprefix(f'{name}: ')}" for name, why in broken.items()]
    found += [
        f"{name} cannot be reached: {why.removeprefix(f'{name}: ')}" for name, why in survey.errors.items()
    ]
    return found


def refusals(cluster: Cluster, plan: Plan, survey: Survey, *, steal: bool = False) -> list[str]:
    """Every reason not to begin, in words. Empty: the rollout may start. steal: a flag is no reason."""
    found = []
    for wave in plan.waves:
        for name in wave:
            seen = see_now(cluster, plan.places, name, survey, also_out=frozenset(wave) - {name})
            found += _held(seen, steal=steal)
            found += _unswitchable(name, plan.jobs[name], seen.host.disk or Disk())
            way = plan.ways[name]
            if way.strategy is None and len(way.passed) == 1:
                why = way.passed[0][1]
                found.append(
                    f"{name} {why.removeprefix('it ')}" if why.startswith("it ") else f"{name}: {why}"
                )
            elif way.strategy is None:
                found += [f"{name}: {each} cannot: {why}" for each, why in way.passed]
    return found


def _unswitchable(name: str, job: Job, disk: Disk) -> list[str]:
    """A `current` that cannot be switched, or that names what no failed node could be put back on."""
    if job.switches and disk.blocked:
        return [f"{name}: `current` is not a link: move it away once, so that releases can be switched"]
    lost = disk.current is not None and disk.current not in disk.releases
    # A rollback leads away from it: that is how it is mended.
    if lost and job.verb != "rollback" and (job.switches or job.verb == "restart"):
        mend = "`drainctl rollback --to RELEASE` puts it on one that is there"
        return [f"{name}: `current` links to {disk.current}, which is not in releases/: no way back ({mend})"]
    return []


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


def _held(seen: Seen, *, steal: bool) -> list[str]:
    """Somebody else has taken this node out: no strategy goes behind their back."""
    name, found = seen.node.name, []
    rows = [(place, row) for place in seen.places if (row := seen.row(place))]
    for place, row in rows:
        if row.status.word is Word.MAINT:
            found.append(f"{name} is in {row.status} on {place.balancer}: somebody took it out")
        elif row.status.word is Word.DRAIN:
            found.append(f"{name} is in {row.status} on {place.balancer}: somebody drains it")
    flag = seen.host.disk.flag if seen.host.disk else None
    if flag is not None and not steal:
        text = flag.strip()[:200] or "the flag is empty"
        found.append(f"{name} is flagged already: {text} (take it away: restore {name}, or --steal)")
    return found
