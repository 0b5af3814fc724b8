"""
Backup: nginx's upstream has a live and a `backup` server; first the one is restarted, then the other.

Nothing is rewritten: while the live one restarts, nginx is refused and asks the backup. Pure: lists steps.
The order and the reasons are told in docs/backup.md.
"""

from __future__ import annotations

from dataclasses import replace

from drainctl.model import Cluster, Node
from drainctl.steps import Do, Holds, Job, NotYet, Seen, Step, Verb
from drainctl.strategies import beside, common
from drainctl.strategies.beside import Beside
from drainctl.strategies.door import CHANGING, Strategy
from drainctl.strategies.expect import Judgement

NAME = "backup"
VERBS: frozenset[Verb] = CHANGING | {"restart"}


def journey(cluster: Cluster, node: Node, job: Job) -> tuple[Step, ...]:
    """Switch → the backup: stop, start, warm → the live one: stop, start, warm → settle → watch."""
    steps = [common.switch(str(job.target))] if job.switches else []
    for name, port in zip(("backup", "live"), reversed(cluster.service.ports), strict=True):
        old = beside.at_port(cluster, node, port, job.leaving)
        new = beside.at_port(cluster, node, port, job.target)
        steps += [
            _stop(cluster, node, job, old, f"stop-{name}"),
            beside.start(cluster, node, job, new, f"start-{name}"),
            *beside.warm(cluster, node, new, f"warm-{name}"),
        ]
    return (*steps, _settle(cluster), common.watch(cluster))


def cannot(cluster: Cluster, node: Node, job: Job, seen: Seen) -> str | None:
    """Only where both processes answer may one of them be stopped."""
    del job
    said = seen.host.inspected.get(NAME)
    if said is None or said.code:
        return f"{node.name} cannot be asked: {said.err.strip() if said else 'no answer'}"
    parts = said.out.split(_NEXT)
    for port, out in zip(cluster.service.ports, parts, strict=False):
        now = beside.answers(cluster, beside.at_port(cluster, node, port, None), None, out)
        if not isinstance(now, Holds):
            return f"the process on port {now.why}, so the other one must not be stopped"
    return None


def question(cluster: Cluster, node: Node) -> str:
    """How both processes answer."""
    asked = [
        beside.question(cluster, node, beside.at_port(cluster, node, port, None))
        for port in cluster.service.ports
    ]
    return f"echo {_NEXT.strip()}\n".join(asked)


_NEXT = "drainctl-next\n"


def _stop(cluster: Cluster, node: Node, job: Job, old: Beside, name: str) -> Step:
    """It may be stopped while the other one answers; one that has the new release already may stay."""
    gone, other = beside.gone(old), _other(cluster, node, old)

    def done(seen: Seen) -> Judgement:
        """Gone; or, looked at before the act, restarted already by an earlier life of this rollout."""
        said = seen.host.probe
        if said is not None and job.switches and job.target != job.leaving:
            now = beside.answers(cluster, old, job.target, said.out.partition(_NEXT)[0])
            if isinstance(now, Holds):
                return Holds(f"{now.why} already")
        return gone(seen)

    def other_answers(seen: Seen) -> Judgement:
        said = seen.host.probe
        if said is None:
            return NotYet("the node cannot be asked")
        return beside.answers(cluster, other, None, said.out.partition(_NEXT)[2])

    asked = (beside.question(cluster, node, old), beside.question(cluster, node, other))
    return replace(
        beside.stop(cluster, old, name),
        expects=done,
        requires=other_answers,
        probe=f"echo {_NEXT.strip()}\n".join(asked),
        on_limit=Do.UNDO,
    )


def _other(cluster: Cluster, node: Node, this: Beside) -> Beside:
    port = next(port for port in cluster.service.ports if str(port) != str(this))
    return beside.at_port(cluster, node, port, None)


def _settle(cluster: Cluster) -> Step:
    """
    For `fail_timeout`, nginx leaves a server alone that refused it; until then only the backup serves, and
    nothing may stop it. Source: ngx_http_upstream_module, "fail_timeout".
    """
    wait_s = cluster.nginx.fail_timeout_s if cluster.nginx else 10.0

    def judge(seen: Seen) -> Judgement:
        left_s = wait_s - seen.spent_s
        if left_s > 0:
            return NotYet(f"nginx asks the live server again within {left_s:.0f} s", left_s)
        return Holds(f"nginx asks the live server again (fail_timeout = {wait_s:g} s)")

    return Step(
        name="settle",
        act=None,
        seen_when=f"nginx's fail_timeout of {wait_s:g} s is over: it asks the live server again",
        expects=judge,
        looks=frozenset(),
        limit_s=wait_s + 5.0,
        expected_s=wait_s,
    )


STRATEGY = Strategy(
    name=NAME,
    leaves=False,
    verbs=VERBS,
    journey=journey,
    cannot=cannot,
    question=question,
)
