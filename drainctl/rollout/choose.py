"""From a verb and what is seen to a plan: which nodes, in which waves, to which release each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from drainctl.config.placeholders import fill, values_of
from drainctl.errors import ConfigError
from drainctl.journal.replay import RolloutState
from drainctl.model import Cluster, Disk, NodeLook, Place, Release, Survey
from drainctl.rollout.plan import Plan, Way, choose_way, see_now, waves
from drainctl.steps import Job, Verb
from drainctl.strategies.known import STRATEGIES


@dataclass(frozen=True, slots=True)
class Wish:
    """
    What a rollout is asked to do.

    verb: deploy, rollback, restart, run, drain or restore. release: for deploy. line: a command line for
    run, and for a deploy that brings its own. to: for rollback, else the release of before. only: nodes,
    all when empty. steal: take away flags that somebody else set, and go where a higher token has been.
    everywhere: take over all nodes of the cluster, also those that nothing is done to. adopt: take over files
    of nginx that drainctl did not write.
    """

    verb: str
    release: Release | None = None
    line: str | None = None
    to: str | None = None
    only: Sequence[str] = ()
    steal: bool = False
    adopt: bool = False
    everywhere: bool = False


def chosen(cluster: Cluster, only: Sequence[str]) -> list[str]:
    """The nodes of a wish in the file's order. Raises: ConfigError, naming unknown ones."""
    unknown = [name for name in only if name not in cluster.names]
    if unknown:
        raise ConfigError(
            f"no node {', '.join(unknown)} in {cluster.file}; it has: {', '.join(cluster.names)}"
        )
    return [name for name in cluster.names if not only or name in only]


def make_plan(
    cluster: Cluster,
    wish: Wish,
    seen: Survey,
    places: Mapping[str, tuple[Place, ...]],
    before: Callable[[str, str], str | None],
) -> Plan:
    """
    The plan for a wish. before(node, release): what the node ran before it got `release`, by the journal.

    Raises: ConfigError for a release that a node does not have, or a placeholder that nothing fills.
    """
    names = chosen(cluster, wish.only)
    disks = {name: seen.nodes[name].disk or Disk() for name in names}
    jobs = {name: _job(cluster, wish, name, seen.nodes[name], before) for name in names}
    for name, job in jobs.items():
        line = job.line or cluster.service.restart or ""
        fill(line, values_of(cluster, cluster.node(name), job.target))  # refused now, not on a drained node
        needs_line = cluster.images is None and "http-check" in cluster.node(name).strategy
        if not line and wish.verb == "restart" and needs_line:
            raise ConfigError(f"{cluster.file}: to restart {name}, service.restart is needed")
    previous = {name: disk.current for name, disk in disks.items()}
    live = {name: _live(cluster, name, seen.nodes[name]) for name in names}
    plan = Plan(wish.verb, waves(cluster, names), jobs, places, previous, wish.release, live=live)
    return with_ways(cluster, plan, seen)


def with_ways(cluster: Cluster, plan: Plan, seen: Survey) -> Plan:
    """The plan, with the way that each node goes by what is seen."""
    return replace(
        plan, ways={name: _way(cluster, plan, name, wave, seen) for wave in plan.waves for name in wave}
    )


def _live(cluster: Cluster, name: str, look: NodeLook) -> dict[str, str]:
    """What serves on a node now, as each of its strategies calls it."""
    node = cluster.node(name)
    found = {each: STRATEGIES[each].live(cluster, node, look) for each in node.strategy}
    return {each: what for each, what in found.items() if what is not None}


def _way(cluster: Cluster, plan: Plan, name: str, wave: Sequence[str], survey: Survey) -> Way:
    """Chosen as if all others of its wave were out at the same time."""
    seen = see_now(cluster, plan.places, name, survey, also_out=frozenset(wave) - {name})
    return choose_way(cluster, name, jobs_of(cluster, plan, name), seen)


def jobs_of(cluster: Cluster, plan: Plan, name: str) -> dict[str, Job]:
    """A node's job as each of its strategies needs to know it."""
    return {each: plan.job(name, STRATEGIES[each]) for each in cluster.node(name).strategy}


def _job(
    cluster: Cluster, wish: Wish, name: str, look: NodeLook, before: Callable[[str, str], str | None]
) -> Job:
    match wish.verb:
        case "deploy":
            return Job("deploy", wish.release.id if wish.release else None, wish.line, adopt=wish.adopt)
        case "rollback":
            return Job("rollback", _rollback_target(name, look.disk or Disk(), wish.to, before))
        case "run":
            return Job("run", None, wish.line)
        case "restart":
            return Job("restart", _answered(look))
        case "drain":
            return Job("drain")
        case "restore":
            return Job("restore")
    raise ValueError(f"{cluster.app}: no verb {wish.verb!r}")


def _answered(look: NodeLook) -> str | None:
    """The release that the node answers with, where that is the one that `current` links to."""
    answer, disk = look.version, look.disk
    if answer is None or disk is None or answer.status != 200:
        return None
    return disk.current if answer.body.strip() == disk.current else None


def _rollback_target(name: str, disk: Disk, to: str | None, before: Callable[[str, str], str | None]) -> str:
    """`to`, or what the node ran before its current release: by the journal, else by its disk."""
    target = to
    if target is None and disk.current is not None:
        target = before(name, disk.current) or _installed_before(disk)
    if target is None or target not in disk.releases:
        there = ", ".join(disk.releases) or "none"
        asked = f"no release {target!r}" if target else "no release before the current one"
        raise ConfigError(f"{name} has {asked} (current: {disk.current}); it has: {there}")
    return target


def _installed_before(disk: Disk) -> str | None:
    """Releases are listed in order of installation."""
    if disk.current not in disk.releases:
        return None
    at = disk.releases.index(disk.current)
    return disk.releases[at - 1] if at else None


def again(cluster: Cluster, state: RolloutState, places: Mapping[str, tuple[Place, ...]]) -> Plan:
    """The plan of a rollout that the journal knows. Raises: ConfigError when the file lost a node of it."""
    gone = [name for name in state.order if name not in cluster.names]
    if gone:
        raise ConfigError(f"{cluster.file} has no node {', '.join(gone)}, but rollout {state.id} has")
    verb = cast("Verb", state.verb)  # written by a controller, from a plan's own verb
    jobs = {name: Job(verb, state.targets.get(name), state.line) for name in state.order}
    ways = {name: Way(state.strategies.get(name)) for name in state.order}
    return Plan(state.verb, state.waves, jobs, places, state.previous, state.release, ways, state.live)
