"""What drainctl.yml, the journal and the guard say: one function per trap. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from drainctl.doctor.finding import Finding, Severity
from drainctl.doctor.picture import Picture
from drainctl.model import Cluster, Node, NodeLook
from drainctl.rollout.choose import with_ways
from drainctl.rollout.plan import Plan, refusals, see_now, waves
from drainctl.rollout.rules import routing_tail_s
from drainctl.steps import Holds, Job
from drainctl.strategies import expect
from drainctl.strategies.known import STRATEGIES


def journal(picture: Picture) -> Iterator[Finding]:
    """A journal that cannot be used, a lease that somebody holds, a rollout that was not finished."""
    if picture.journal_error:
        where, change = (
            f"{picture.cluster.file} store",
            "store: a place that this user may write (docs/several-controllers.md)",
        )
        yield Finding("journal-unusable", Severity.REFUSES, where, picture.journal_error, change)
    elif picture.lease:
        lease = picture.lease
        seen = f"rollout {lease.rollout} is run by {lease.holder}"
        yield Finding("lease-held", Severity.REFUSES, "journal", seen, "drainctl deploy --wait SECONDS")
    elif picture.rollout and picture.rollout.open:
        state = picture.rollout
        seen = f"rollout {state.id} ({state.verb}): {state.ended or 'its controller died'}"
        change = f"drainctl resume {state.id}, or drainctl abort {state.id}"
        yield Finding("rollout-open", Severity.REFUSES, "journal", seen, change)


def proof_of_restart(picture: Picture) -> Iterator[Finding]:
    """Nothing that names the release which runs."""
    cluster = picture.cluster
    if not cluster.health.version:
        change = "health: {version: http://{host}:PORT/version}"
        yield Finding("no-version", Severity.ADVICE, cluster.file, "health.version is not set", change)


def deployable(picture: Picture) -> Iterator[Finding]:
    """A release cannot be deployed without a place for it and a restart; an image brings both."""
    cluster = picture.cluster
    if cluster.images:
        return
    wanted: list[tuple[str, object]] = [("release.root", cluster.release)]
    if any("http-check" in node.strategy for node in cluster.nodes):
        wanted.append(("service.restart", cluster.service.restart))
    missing = [key for key, found in wanted if not found]
    if missing:
        change = "release: {root: /srv/APP} and service: {restart: COMMAND}"
        seen = f"{' and '.join(missing)} not set"
        yield Finding("no-restart", Severity.ADVICE, cluster.file, seen, change)


def checks_and_drain(picture: Picture) -> Iterator[Finding]:
    """By `checks:`, HAProxy may need longer to see a 404 than a whole drain may take."""
    cluster = picture.cluster
    tail_s = routing_tail_s(cluster.checks)
    if picture.drains and tail_s > cluster.drain.limit_s:
        seen = f"a 404 is seen after up to {tail_s:g} s, drain.limit = {cluster.drain.limit_s:g} s"
        change = f"drain: {{limit: {int(2 * tail_s) + 1}s}}, or a shorter `inter` and checks.inter"
        yield Finding("checks-outlast-drain", Severity.SLOWER, f"{cluster.file} checks", seen, change)


def keep_up(picture: Picture) -> Iterator[Finding]:
    """The rollout's own guard, asked for each node with its wave."""
    cluster = picture.cluster
    if not _surveyed(picture):
        return
    judge = expect.guard(cluster.rollout.keep_up, frozenset(node.server for node in cluster.nodes))
    told: dict[tuple[str, bool], list[str]] = {}
    for wave in waves(cluster, cluster.names):
        for name in wave:
            ways = cluster.node(name).strategy
            if "http-check" not in ways:
                continue  # it stays in rotation
            seen = see_now(cluster, picture.places, name, picture.survey, also_out=frozenset(wave) - {name})
            verdict = judge(seen)
            if not isinstance(verdict, Holds):
                told.setdefault((verdict.why, len(ways) > 1), []).append(name)
    for (why, another), names in told.items():
        change = "bring servers up, or lower rollout.keep_up or rollout.at_once"
        severity = Severity.ADVICE if another else Severity.REFUSES
        what = f"{why}; the next of its strategies is tried" if another else why
        yield Finding("keep-up", severity, ", ".join(names), what, change)


def others(picture: Picture) -> Iterator[Finding]:
    """What `drainctl plan` would refuse by and no other finding has said. Called with those left out."""
    if _surveyed(picture):
        plan = _plan(picture)
        for text in dict.fromkeys(refusals(picture.cluster, plan, picture.survey)):
            change = "`drainctl plan` and `drainctl status` tell more"
            yield Finding("deploy-refused", Severity.REFUSES, picture.cluster.app, text, change)


def _surveyed(picture: Picture) -> bool:
    """Whether there is a plan to judge: everything could be reached, and every name is known."""
    seen = picture.survey
    return not (picture.unknown or seen.errors or any(look.error for look in seen.tables.values()))


def _plan(picture: Picture) -> Plan:
    """A deploy of some release that no node has yet."""
    cluster = picture.cluster
    jobs = dict.fromkeys(cluster.names, Job("deploy", "RELEASE"))
    looks = {name: picture.survey.nodes.get(name, NodeLook()) for name in cluster.names}
    previous = {name: look.disk.current if look.disk else None for name, look in looks.items()}
    live = {name: _live(cluster, cluster.node(name), look) for name, look in looks.items()}
    plan = Plan("deploy", waves(cluster, cluster.names), jobs, picture.places, previous, live=live)
    return with_ways(cluster, plan, picture.survey)


def _live(cluster: Cluster, node: Node, look: NodeLook) -> dict[str, str]:
    """What serves on a node now, as each of its strategies calls it."""
    found = {name: STRATEGIES[name].live(cluster, node, look) for name in node.strategy}
    return {name: what for name, what in found.items() if what is not None}
