"""
Reload: the app server takes the new release without letting go of its socket.

gunicorn by USR2 and TERM, which also survives a release that does not start; by HUP; or any command. That
a signal was delivered proves nothing: the step is over when every worker answers with the new release.
Pure: lists steps. The order and the reasons are told in docs/reload.md.
"""

from __future__ import annotations

from collections.abc import Callable

from drainctl.config.placeholders import fill, values_of
from drainctl.model import Cluster, Node, Reload
from drainctl.node import gunicorn
from drainctl.node.gunicorn import Masters
from drainctl.steps import (
    Do,
    Expectation,
    Holds,
    Job,
    Never,
    NotYet,
    OnNode,
    RunOnNode,
    Seen,
    Step,
    Verb,
)
from drainctl.strategies import common
from drainctl.strategies.door import CHANGING, Strategy, unasked
from drainctl.strategies.expect import Judgement, count

NAME = "reload"
VERBS: frozenset[Verb] = CHANGING | {"restart"}
# Old workers answer beside new ones for a while; so many new answers in a row, on new connections, and an
# old one among four workers was missed with a chance of 0.3 %.
ANSWERS = 20


def journey(cluster: Cluster, node: Node, job: Job) -> tuple[Step, ...]:
    """Switch → spawn → retire → watch, or switch → reload → watch."""
    how = _reload(cluster, node)
    if not how.gunicorn:
        change = [_by_command(cluster, job, how)]
    elif how.by == "hup":
        change = [_by_hup(cluster, job, how.gunicorn)]
    else:
        back = [_dismiss(cluster, how.gunicorn)] if job.verb == "put-back" else []
        change = [*back, _spawn(cluster, job, how.gunicorn), _retire(cluster, job, how.gunicorn)]
    before = [common.switch(str(job.target))] if job.switches else []
    return (*before, *change, common.watch(cluster))


def cannot(cluster: Cluster, node: Node, job: Job, seen: Seen) -> str | None:
    """Gunicorn does not run, or two masters of it do."""
    how = _reload(cluster, node)
    if not how.gunicorn:
        return None
    said = seen.host.inspected.get(NAME)
    found = gunicorn.parse(said.out) if said else None
    if said is None or found is None:
        return unasked(node, said)
    if found.first is None:
        return f"gunicorn does not run: {how.gunicorn} names no living process"
    if found.second is not None and job.verb != "put-back":
        return f"two masters of gunicorn run, {found.first} and {found.second} ({how.gunicorn}.2)"
    return None


def question(cluster: Cluster, node: Node) -> str | None:
    """Which masters run."""
    how = _reload(cluster, node)
    return gunicorn.masters(how.gunicorn) if how.gunicorn else None


def _reload(cluster: Cluster, node: Node) -> Reload:
    how = cluster.service.reload or Reload()
    return how._replace(gunicorn=fill(how.gunicorn, values_of(cluster, node, None)) if how.gunicorn else None)


# ---------------------------------------------------------------- steps


def _by_masters(judge: Callable[[Masters, Seen], Judgement]) -> Expectation:
    """A judgement of which masters of gunicorn run, and with which workers."""

    def asked(seen: Seen) -> Judgement:
        found = gunicorn.parse(seen.host.probe.out) if seen.host.probe else None
        return NotYet("the node cannot be asked") if found is None else judge(found, seen)

    return asked


def _by_command(cluster: Cluster, job: Job, how: Reload) -> Step:
    answers, looks = common.answers(cluster, job.target)
    return Step(
        name="reload",
        act=RunOnNode(how.command or "", cluster.service.limit_s, job.target),
        seen_when=f"{ANSWERS} answers in a row are {job.target or 'good'}, each on a new connection",
        expects=answers,
        looks=looks,
        limit_s=cluster.service.limit_s,
        once=True,
        changes=True,
        in_a_row=ANSWERS,
        expected_s=None,
    )


def _by_hup(cluster: Cluster, job: Job, pid_file: str) -> Step:
    answers, looks = common.answers(cluster, job.target)

    def judge(found: Masters, seen: Seen) -> Judgement:
        if found.first is None:
            return Never(
                "gunicorn is gone: a release whose workers do not start ends its master at a HUP",
                hint="service.reload: {gunicorn: …, by: usr2} keeps the old one serving",
            )
        before = {word for word in seen.output.split() if ":" in word}
        if left := before & found.workers[0]:
            return NotYet(f"{count(len(left), 'old worker')} finish")
        return answers(seen)

    return Step(
        name="reload",
        act=OnNode(gunicorn.hup(pid_file), f"HUP to gunicorn ({pid_file})", 10.0),
        seen_when=f"every worker of before is gone, and the app answers{_with(job)}",
        expects=_by_masters(judge),
        looks=looks,
        limit_s=cluster.service.limit_s,
        probe=gunicorn.masters(pid_file),
        once=True,
        changes=True,
        in_a_row=2,
        expected_s=None,
    )


def _with(job: Job) -> str:
    return f" with {job.target}" if job.target else ""


def _spawn(cluster: Cluster, job: Job, pid_file: str) -> Step:
    """Both masters' workers take requests now, old release and new."""
    answers, looks = common.answers(cluster, job.target)

    def judge(found: Masters, seen: Seen) -> Judgement:
        if found.second is None:
            if job.verb == "put-back" and isinstance(now := answers(seen), Holds):
                return now  # the only master there is runs the old release: it never was replaced
            return Never("the second master of gunicorn has ended: this release does not start")
        if len(found.workers[1]) < len(found.workers[0]):
            return NotYet(f"{len(found.workers[1])} of {count(len(found.workers[0]), 'worker')} started")
        return answers(seen)

    return Step(
        name="spawn",
        act=OnNode(gunicorn.spawn(pid_file), f"USR2 to gunicorn ({pid_file})", 10.0),
        seen_when=f"a second master has as many workers as the first, and one of them answers{_with(job)}",
        expects=_by_masters(judge),
        looks=looks,
        limit_s=cluster.service.limit_s,
        probe=gunicorn.masters(pid_file),
        look_first=job.verb == "put-back",
        once=True,
        changes=True,
        every_s=0.03,  # an answer of the old ones says nothing, so ask often
        expected_s=None,
    )


def _retire(cluster: Cluster, job: Job, pid_file: str) -> Step:
    answers, looks = common.answers(cluster, job.target)

    def judge(found: Masters, seen: Seen) -> Judgement:
        if found.second is not None:
            return NotYet(f"the first master, {found.first or '?'}, finishes what it has")
        if found.first is None:
            return NotYet("no master of gunicorn is known")
        return answers(seen)

    return Step(
        name="retire",
        act=OnNode(gunicorn.retire(pid_file), f"TERM to the first gunicorn ({pid_file})", 10.0),
        seen_when=f"the first master is gone, and the app answers{_with(job)}",
        expects=_by_masters(judge),
        looks=looks,
        limit_s=cluster.service.limit_s,
        probe=gunicorn.masters(pid_file),
        look_first=True,
        changes=True,
        in_a_row=2,
        on_limit=Do.HALT,
        expected_s=None,
    )


def _dismiss(cluster: Cluster, pid_file: str) -> Step:
    """
    On the way back: of two masters the second is the one to end; but where the first was told to end before
    (a retire that was interrupted), it is waited for, and the release is put back by the next steps.
    """

    def judge(found: Masters, _: Seen) -> Judgement:
        if found.second is not None:
            return NotYet(f"two masters of gunicorn, {found.first or '?'} and {found.second}, finish to one")
        return Holds("one master runs")

    return Step(
        name="dismiss",
        act=OnNode(gunicorn.dismiss(pid_file), f"TERM to the second gunicorn ({pid_file}.2)", 10.0),
        seen_when="one master of gunicorn runs",
        expects=_by_masters(judge),
        looks=frozenset(),
        limit_s=cluster.service.limit_s,
        probe=gunicorn.masters(pid_file),
        look_first=True,
        changes=True,
    )


STRATEGY = Strategy(
    name=NAME,
    leaves=False,
    verbs=VERBS,
    journey=journey,
    cannot=cannot,
    question=question,
)
