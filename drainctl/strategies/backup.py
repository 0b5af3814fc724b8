"""
Backup: nginx's upstream has a live and a `backup` server; first the one is restarted, then the other.

Nothing is rewritten: while the live one restarts, nginx is refused and asks the backup. Behind unix sockets
a process is hidden before it ends, so that nobody is lost; on ports it cannot be. Pure: lists steps. The
order and the reasons are told in docs/backup.md.
"""

from __future__ import annotations

from dataclasses import replace

from drainctl.config.placeholders import fill, values_of
from drainctl.model import Cluster, Node
from drainctl.node import sockets
from drainctl.steps import Do, Expectation, Holds, Job, Never, NotYet, RunOnNode, Seen, Step, Verb
from drainctl.strategies import beside, common, hidden
from drainctl.strategies.beside import Beside
from drainctl.strategies.door import CHANGING, Strategy, unasked
from drainctl.strategies.expect import Judgement

NAME = "backup"
VERBS: frozenset[Verb] = CHANGING | {"restart"}


def journey(cluster: Cluster, node: Node, job: Job) -> tuple[Step, ...]:
    """
    Switch → the backup: hide, quiet, stop, start, warm → the live one: the same → settle → watch. On ports,
    nothing is hidden.

    On the way back the live one comes first: it may be the one that does not run, or that nginx leaves alone
    because it was just restarted, and then the backup must not be stopped. Where the releases do not tell
    whether it was, as at a restart that is resumed, its time is waited for at first.
    """
    live = (*_replaced(cluster, node, job, "live"), _settle(cluster, "settle"))
    backup = _replaced(cluster, node, job, "backup")
    return (
        *(() if _told_apart(cluster, job) else (_settle(cluster, "rest"),)),
        *((common.switch(str(job.target)),) if job.switches else ()),
        *((*live, *backup) if job.verb == "put-back" else (*backup, *live)),
        common.watch(cluster),
    )


def _replaced(cluster: Cluster, node: Node, job: Job, name: str) -> tuple[Step, ...]:
    """One of the two processes: hide, quiet, stop, start, warm."""
    at = ("live", "backup").index(name)
    old, other = pair(cluster, node, job.leaving)[at], pair(cluster, node, None)[1 - at]
    new = pair(cluster, node, job.target)[at]
    probe = f"{_question(cluster, node, old, other)}echo {beside.NEXT}{_question(cluster, node, other, old)}"
    may = _other_serves(cluster, old, other)
    start = beside.start(cluster, node, job, new, f"start-{name}")
    stop = beside.stop(cluster, old, f"stop-{name}")
    away: tuple[Step, ...] = ()
    if cluster.service.sockets:
        quiet = beside.quiet(cluster, old, f"quiet-{name}")
        away = (
            hidden.hide(old, f"hide-{name}", _or_done(cluster, job, old, hidden.is_hidden(old)), may, probe),
            replace(quiet, expects=_or_done(cluster, job, old, quiet.expects), probe=probe),
        )
        start = _after_hiding(start, new)
    return (
        *away,
        replace(
            stop,
            expects=_or_done(cluster, job, old, stop.expects),
            requires=may,
            probe=probe,
            on_limit=Do.UNDO,
        ),
        start,
        *beside.warm(cluster, node, new, f"warm-{name}"),
    )


def _after_hiding(start: Step, new: Beside) -> Step:
    if not isinstance(start.act, RunOnNode):
        return start
    return replace(start, act=replace(start.act, line=hidden.cleared(new, start.act.line)))


def pair(cluster: Cluster, node: Node, release: str | None) -> tuple[Beside, Beside]:
    """The live process and the backup."""
    known = values_of(cluster, node, None)
    found = [beside.at_socket(fill(path, known), release) for path in cluster.service.sockets]
    live, backup = found or [beside.at_port(cluster, node, port, release) for port in cluster.service.ports]
    return live, backup


def cannot(cluster: Cluster, node: Node, job: Job, seen: Seen) -> str | None:
    """
    One of them may be stopped only while both answer; on ports, and where servers are marked, only where
    it is accepted what is lost.
    """
    del job
    if not cluster.service.sockets and (cluster.nginx is None or cluster.nginx.clients == "nudge"):
        return _LOSES
    if cluster.nginx and cluster.nginx.fail_timeout_s and cluster.nginx.clients != "lost":
        return _MARKED.format(cluster.nginx.fail_timeout_s)
    said = seen.host.inspected.get(NAME)
    if said is None or said.code:
        return unasked(node, said)
    for one, out in zip(pair(cluster, node, None), said.out.split(beside.NEXT), strict=False):
        if cluster.service.sockets and (why := hidden.why_not(one, out)):
            return why
        now = beside.answers(cluster, one, None, out)
        if not isinstance(now, Holds):
            what = "behind" if cluster.service.sockets else "on port"
            return f"the process {what} {now.why}, so the other one must not be stopped"
    return None


def question(cluster: Cluster, node: Node) -> str:
    """How both processes answer; behind sockets, whether they can be hidden."""
    live, backup = pair(cluster, node, None)
    return (
        f"{_question(cluster, node, live, backup)}echo {beside.NEXT}{_question(cluster, node, backup, live)}"
    )


def _question(cluster: Cluster, node: Node, one: Beside, other: Beside) -> str:
    path = hidden.look(one, other) if cluster.service.sockets else ""
    return f"{beside.question(cluster, node, one)}{path}"


WHOLE_S = 1.0
# Measured: docs/backup.md.
_LOSES = (
    "an app that is told to end may lose the POSTs that come just then (gunicorn: 65 of 53,024 in 12 stops): "
    "name service.sockets instead of service.ports, which loses none, or accept it (nginx.clients = lost; "
    "kept, where your app refuses connections from then on)"
)

_MARKED = (
    "nginx marks a server that refused it, and asks it again by one request at a time: a slow one, and all "
    "others find no live server (91 × 502 in 20 deploys). Say max_fails=0 on both servers and "
    "nginx.fail_timeout: 0s, or accept it (nginx.clients = lost; found fail_timeout = {:g} s)"
)


def _told_apart(cluster: Cluster, job: Job) -> bool:
    """Whether an answer tells that a process was restarted. On the way back, the right one may just stay."""
    return bool(
        job.switches and cluster.health.version and (job.verb == "put-back" or job.target != job.leaving)
    )


def _or_done(cluster: Cluster, job: Job, one: Beside, expects: Expectation) -> Expectation:
    """`expects`, or that this process has the new release already, by an earlier life of this rollout."""

    def judge(seen: Seen) -> Judgement:
        said = seen.host.probe
        if said is not None and _told_apart(cluster, job):
            now = beside.answers(cluster, one, job.target, said.out.partition(beside.NEXT)[0])
            if isinstance(now, Holds):
                return Holds(f"{now.why} already")
        return expects(seen)

    return judge


def _dead(out: str) -> bool:
    found = sockets.parse(out)
    return found is not None and not found.listening


def _other_serves(cluster: Cluster, one: Beside, other: Beside) -> Expectation:
    """It may end while the other one answers, or where nobody has it anyway."""

    def judge(seen: Seen) -> Judgement:
        said = seen.host.probe
        if said is None:
            return NotYet("the node cannot be asked")
        here, _, there = said.out.partition(beside.NEXT)
        if _dead(here):
            return Holds(f"nobody listens at {one}")
        if _dead(there):  # soon put back, which starts it
            return Never(f"nobody listens at {other}, so {one} must not be stopped")
        return beside.answers(cluster, other, None, there)

    return judge


def _settle(cluster: Cluster, name: str) -> Step:
    """
    For `fail_timeout`, nginx leaves a server alone that refused it; until then only the backup serves, and
    nothing may stop it. It counts in whole seconds, and the last of them must be over: 502s were seen after
    less. Source: ngx_http_upstream_module, "fail_timeout"; ngx_http_upstream_round_robin.c, `checked`.
    """
    fail_timeout_s = cluster.nginx.fail_timeout_s if cluster.nginx else 10.0
    wait_s = fail_timeout_s + WHOLE_S if fail_timeout_s else 0.0

    def judge(seen: Seen) -> Judgement:
        left_s = wait_s - seen.spent_s
        if left_s > 0:
            return NotYet(f"nginx asks the live server again within {left_s:.0f} s", left_s)
        return Holds(f"nginx asks the live server again (fail_timeout = {fail_timeout_s:g} s)")

    return Step(
        name=name,
        act=None,
        seen_when=f"nginx's fail_timeout of {fail_timeout_s:g} s is over: it asks the live server again",
        expects=judge,
        looks=frozenset(),
        limit_s=wait_s + 5.0,
        expected_s=wait_s,
        by_key="nginx.fail_timeout",
        exact=True,
    )


STRATEGY = Strategy(
    name=NAME,
    leaves=False,
    verbs=VERBS,
    journey=journey,
    cannot=cannot,
    question=question,
)
