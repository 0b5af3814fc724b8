"""
Steps for a process that is started beside the one that serves: start, warm, stop. Pure.

What socket-flip, port-flip and backup have in common: several processes of the app on one node, each with
an address of its own, at which it is asked on the node itself before any user meets it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from urllib.parse import urlsplit

from drainctl.config.placeholders import fill, values_of
from drainctl.model import Cluster, Node
from drainctl.node import ask, sockets
from drainctl.node.ask import Process
from drainctl.node.sockets import Bound
from drainctl.steps import Do, Expectation, Holds, Job, Never, NotYet, OnNode, RunOnNode, Seen, Step
from drainctl.strategies.expect import Judgement, count

NEXT = "drainctl-next\n"  # between the answers of several processes


class Beside(NamedTuple):
    """One process of several. address: as node.ask takes it. more: its placeholders: port, socket."""

    address: str
    release: str | None
    more: tuple[tuple[str, str], ...]

    @property
    def path(self) -> str:
        """Of its socket."""
        return self.address.removeprefix("unix:")

    def __str__(self) -> str:
        return dict(self.more).get("port") or self.path


def at_port(cluster: Cluster, node: Node, port: int | str, release: str | None) -> Beside:
    """The process on one of `service.ports`."""
    host = fill(cluster.service.address, values_of(cluster, node, None))
    at = f"[{host}]" if ":" in host else host
    return Beside(f"{at}:{port}", release, (("port", str(port)),))


def at_socket(path: str, release: str | None) -> Beside:
    """The process behind a socket."""
    return Beside(f"unix:{path}", release, (("socket", path),))


def process(cluster: Cluster, node: Node, beside: Beside) -> Process:
    """How this process is asked: as nginx asks it, or by `service.ask`."""
    known = values_of(cluster, node, beside.release) | dict(beside.more)
    url = urlsplit(fill(cluster.health.version or cluster.health.ready or "", known))
    paths = [*_paths(cluster, node), *(page.path for page in cluster.warm)]
    command = cluster.service.ask
    commands = [(path, fill(command, known | {"path": path})) for path in paths] if command else []
    return Process(beside.address, url.netloc, tuple(commands))


def _paths(cluster: Cluster, node: Node) -> list[str]:
    """Version and ready, as far as they are configured, in that order."""
    known = values_of(cluster, node, None)
    urls = [urlsplit(fill(url, known)) for url in (cluster.health.version, cluster.health.ready) if url]
    return [f"{url.path or '/'}{f'?{url.query}' if url.query else ''}" for url in urls]


def question(cluster: Cluster, node: Node, beside: Beside) -> str:
    """A line that tells how this process answers, who listens at its address, and its connections."""
    asked = ask.ask(process(cluster, node, beside), _paths(cluster, node), cluster.health.timeout_s)
    return f"{asked}{sockets.bound(beside.address)}"


# ---------------------------------------------------------------- judgements


def answers(cluster: Cluster, beside: Beside, release: str | None, out: str) -> Judgement:
    """Whether a process answers as `release` does, by what `question` printed; None accepts any."""
    told = ask.parse(out)
    if not told:
        return NotYet(f"{beside} was not asked")
    version = told[0] if cluster.health.version else None
    ready = told[-1] if cluster.health.ready else None
    if version is not None:
        if version.status != 200:
            return NotYet(f"{beside} answers {version}")
        said = version.body.strip()[:60]
        if release is not None and said != release:
            return NotYet(f"{beside} answers {said!r}, not {release!r}")
    if ready is not None and ready.status != 200:
        return NotYet(f"{beside} is not ready: {ready}")
    return Holds(f"{beside} answers {version.body.strip()[:60] if version else 'ready'}")


def _started(cluster: Cluster, beside: Beside, release: str | None) -> Expectation:
    def judge(seen: Seen) -> Judgement:
        said = seen.host.probe
        if said is None or said.code is None:
            return NotYet(f"the node cannot be asked: {said.err if said else 'no answer'}")
        if said.code:
            return Never(said.err.strip() or f"asking {beside} ended with exit code {said.code}")
        return answers(cluster, beside, release, said.out)

    return judge


def _by_socket(judge: Callable[[Bound, str], Judgement]) -> Expectation:
    """A judgement of who listens at an address, and of all that the probe printed."""

    def asked(seen: Seen) -> Judgement:
        said = seen.host.probe
        found = sockets.parse(said.out) if said else None
        if said is None or found is None:
            return NotYet(f"the node cannot be asked: {said.err.strip() if said else 'no answer'}")
        return judge(found, said.out)

    return asked


def _free(cluster: Cluster, beside: Beside) -> Expectation:
    """Nobody else is there: a stranger on our port would be sent users, or keep us from starting."""

    def judge(found: Bound, out: str) -> Judgement:
        if not found.listening:
            return Holds(f"{beside} is free")
        now = answers(cluster, beside, None, out)
        return Never(
            f"{beside} is taken already: {now.why}",
            hint=f"end that process (service.stop with {dict(beside.more)}), or choose another address",
        )

    return _by_socket(judge)


def gone(beside: Beside) -> Expectation:
    """Nobody listens there any more, and the last request has ended."""

    def judge(found: Bound, _: str) -> Judgement:
        if found.listening:
            return NotYet(f"{beside} still listens")
        if found.connections:
            return NotYet(f"{beside} finishes {count(found.connections, 'connection')}")
        return Holds(f"{beside} is gone")

    return _by_socket(judge)


# ---------------------------------------------------------------- steps


def start(cluster: Cluster, node: Node, job: Job, beside: Beside, name: str = "start") -> Step:
    """The new process runs beside the old, and answers at its own address; no user has met it."""
    return Step(
        name=name,
        act=RunOnNode(cluster.service.start or "", cluster.service.limit_s, job.target, dict(beside.more)),
        seen_when=f"{beside} answers{f' with {job.target}' if job.target else ''}, asked on the node itself",
        expects=_started(cluster, beside, job.target),
        looks=frozenset(),
        limit_s=cluster.service.limit_s,
        requires=_free(cluster, beside),
        probe=question(cluster, node, beside),
        look_first=True,
        changes=True,
        every_s=0.1,
        expected_s=None,
    )


def warm(cluster: Cluster, node: Node, beside: Beside, name: str = "warm") -> tuple[Step, ...]:
    """The listed pages, asked of the new process at its own address; nothing where none is listed."""
    if not cluster.warm:
        return ()
    pages = ", ".join(f"{page.path} × {page.times}" for page in cluster.warm)
    line = ask.warm(process(cluster, node, beside), cluster.warm, max(cluster.health.timeout_s, 30.0))
    step = Step(
        name=name,
        act=OnNode(line, f"GET {pages} at {beside}", cluster.service.limit_s),
        seen_when=f"{pages} answered without an error",
        expects=_warmed,
        looks=frozenset(),
        limit_s=cluster.service.limit_s,
        expected_s=None,
    )
    return (step,)


def _warmed(seen: Seen) -> Judgement:
    return Holds(seen.output.strip().rstrip(";") or "warm")


def stop(cluster: Cluster, beside: Beside, name: str = "stop") -> Step:
    """
    The old process is told to end; it finishes what it has. Whatever becomes of it, the new release serves:
    past its limit a person decides.
    """
    return Step(
        name=name,
        act=RunOnNode(cluster.service.stop or "", cluster.service.limit_s, beside.release, dict(beside.more)),
        seen_when=f"nobody listens at {beside} any more, and its last request has ended",
        expects=gone(beside),
        looks=frozenset(),
        limit_s=cluster.service.limit_s,
        probe=sockets.bound(beside.address),
        look_first=True,
        changes=True,
        on_limit=Do.HALT,
        expected_s=None,
    )


def quiet(cluster: Cluster, old: Beside, name: str = "quiet") -> Step:
    """Nobody connects to the old process any more; it may end when those who are connected have gone."""
    drain = cluster.drain
    patient = drain.then in {"wait", "halt"}
    return Step(
        name=name,
        act=None,
        seen_when=f"no connection is left on {old}",
        expects=_unused(old, None if patient else drain.limit_s),
        looks=frozenset(),
        limit_s=None if drain.then == "wait" else drain.limit_s + 2.0,
        probe=sockets.bound(old.address),
        in_a_row=2,  # one who was connecting just then may not be counted yet
        on_limit=Do.HALT,
        expected_s=None,
    )


def _unused(old: Beside, limit_s: float | None) -> Expectation:
    """No connection; past `limit_s` the old process may be told to stop with some left: it finishes them."""

    def judge(seen: Seen) -> Judgement:
        said = seen.host.probe
        found = sockets.parse(said.out) if said else None
        if said is not None and said.code:
            return Never(said.err.strip() or f"exit code {said.code}")
        if found is None:
            return NotYet("the node cannot be asked")
        if not found.connections:
            return Holds(f"0 connections on {old}")
        left = f"{count(found.connections, 'connection')} on {old}"
        if limit_s is not None and seen.spent_s >= limit_s:
            return Holds(f"{left} after {limit_s:g} s (drain.limit): it is told to stop, and finishes them")
        return NotYet(left)

    return judge
