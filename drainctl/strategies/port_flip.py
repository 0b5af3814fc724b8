"""
Port flip: the new release starts on the other port, nginx's upstream is rewritten, nginx reloaded.

A reload closes idle client connections, and a request on its way there is lost; so for that moment the node
is nudged out at the balancers, and flagged where it has a flag, so that no check puts it back too early.
Pure: lists steps. The order and the reasons are told in docs/port-flip.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from drainctl.config.placeholders import fill, values_of
from drainctl.errors import ConfigError
from drainctl.model import Amount, Cluster, Nginx, Node, NodeLook, Word
from drainctl.nginx import lines, upstream
from drainctl.nginx.lines import Worker
from drainctl.node import ask
from drainctl.node.ask import Process
from drainctl.steps import (
    Do,
    Escalation,
    Expectation,
    Holds,
    Job,
    Look,
    NotYet,
    Nudge,
    OnNode,
    Seen,
    Step,
    Verb,
    WriteUpstream,
)
from drainctl.strategies import beside, common, expect, http_check
from drainctl.strategies.beside import Beside
from drainctl.strategies.door import CHANGING, Strategy, unasked
from drainctl.strategies.expect import Judgement, count, listed

NAME = "port-flip"
VERBS: frozenset[Verb] = CHANGING | {"restart"}
AGAIN = "a check that passed has put it back: it is told again"
ASIDE_S = 0.1  # from the nudge to the reload: measured to be enough (docs/nginx-facts.md)
SERVING_LIMIT_S = 10.0  # a failed reload never serves the new generation: nginx tries binding for 2.5 s


def journey(cluster: Cluster, node: Node, job: Job) -> tuple[Step, ...]:
    """Switch → start → warm → rewrite → (flag, aside) → reload → (restore, back) → workers → stop → watch."""
    new, old = _new_and_old(cluster, node, job)
    nginx = nginx_of(cluster, node)
    serves = _serves(generation(job, new))
    around = cluster.balancers and nginx.clients == "nudge"
    flagged = around and cluster.health.flag is not None and cluster.health.check
    return (
        *((common.switch(str(job.target)),) if job.switches else ()),
        beside.start(cluster, node, job, new),
        *beside.warm(cluster, node, new),
        _rewrite(nginx, job, new, old),
        *((_guard(cluster),) if around else ()),
        *((http_check.flag(),) if flagged else ()),
        *((_aside(),) if around else ()),
        _reload(nginx, serves),
        *((http_check.unflag(cluster),) if flagged else ()),
        *((_back(),) if around else ()),
        _old_workers(cluster, nginx),
        beside.stop(cluster, old),
        common.watch(cluster),
    )


def cannot(cluster: Cluster, node: Node, job: Job, seen: Seen) -> str | None:
    """Nginx does not run, its file is missing, foreign or not understood, or clients would be lost."""
    nginx, said = nginx_of(cluster, node), seen.host.inspected.get(NAME)
    if said is None or said.code:
        return unasked(node, said)
    look = lines.parse_inspect(said.out)
    if look.master is None:
        return f"nginx does not run: {look.trouble}"
    if why := _file(nginx, look.file_text, adopt=job.adopt):
        return why
    if job.live is None:
        return f"neither {nginx.file} nor nginx.generation tells which of the ports {_ports(cluster)} serves"
    if why := _taken(cluster, node, job, said.out):
        return why
    if nginx.clients != "nudge":
        return None
    if cluster.balancers and not isinstance(told := _guard(cluster).expects(seen), Holds):
        return f"it cannot be left alone for the moment of nginx's reload: {told.why}"
    deaf = [name for name, shown in seen.looks.items() if shown.error or not shown.can_change]
    if not cluster.balancers or deaf:
        where = (
            f"{listed(deaf)} cannot be told to leave it alone for that moment"
            if deaf
            else ("no balancer is configured that could leave it alone for that moment")
        )
        return (
            f"a reload of nginx closes idle client connections, and a request on its way there is lost; "
            f"{where} (nginx.clients = nudge)"
        )
    return None


def _file(nginx: Nginx, text: str | None, *, adopt: bool) -> str | None:
    """Why the upstream file may not be written, None where it may."""
    if text is None:
        return None if adopt else f"{nginx.file} is not there (`--adopt` writes it)"
    try:
        found = upstream.read(text, nginx.upstream, name=str(nginx.file))
    except ConfigError as error:
        return str(error)
    if found.ours or adopt:
        return None
    return f"{nginx.file} was not written by drainctl (`--adopt` shows what would change, and takes it over)"


def _taken(cluster: Cluster, node: Node, job: Job, out: str) -> str | None:
    """Who has the port of the new process, unless it is that process itself, left by an earlier run."""
    new, _ = _new_and_old(cluster, node, job)
    asked = dict(zip(map(str, cluster.service.ports), out.split(beside.NEXT), strict=False))
    if isinstance(beside.answers(cluster, new, job.target, asked.get(str(new), "")), Holds):
        return None
    host = new.address.rpartition(":")[0].strip("[]")
    who = (lines.parse_inspect(out, host).listeners or {}).get(int(str(new)))
    return f"port {new} is taken already: {who}" if who else None


def question(cluster: Cluster, node: Node) -> str:
    """
    How the processes answer, which generation serves, nginx and its workers, who listens on the ports, and
    the upstream file.
    """
    nginx = nginx_of(cluster, node)
    ports = [beside.at_port(cluster, node, port, None) for port in cluster.service.ports]
    asked = "".join(f"{beside.question(cluster, node, port)}echo {beside.NEXT}" for port in ports)
    return (
        f"{asked}{_ask_generation(nginx)}{lines.inspect(str(nginx.file), nginx.pid, cluster.service.ports)}"
    )


def live(cluster: Cluster, node: Node, look: NodeLook) -> str | None:
    """The port that serves: nginx's own workers say, else the file that they were started with."""
    nginx, said = nginx_of(cluster, node), look.inspected.get(NAME)
    if said is None or said.code:
        return None
    ports = [str(port) for port in cluster.service.ports]
    _, _, port = _generation(said.out).rpartition(":")
    if port in ports:
        return port
    text = lines.parse_inspect(said.out).file_text
    try:
        address = upstream.live(upstream.read(text or "", nginx.upstream, name=str(nginx.file)))
    except ConfigError:
        return None
    _, _, port = (address or "").rpartition(":")
    return port if port in ports else None


def nginx_of(cluster: Cluster, node: Node) -> Nginx:
    """The section `nginx` on one node; without one, its defaults for an upstream named as the app."""
    known = values_of(cluster, node, None)
    nginx = cluster.nginx or Nginx(cluster.app)
    return nginx._replace(
        file=fill(nginx.file or "", known),
        test=fill(nginx.test, known),
        reload=fill(nginx.reload, known),
        pid=fill(nginx.pid, known),
        generation=fill(nginx.generation or "", known),
    )


def _ports(cluster: Cluster) -> str:
    return " and ".join(map(str, cluster.service.ports))


def _new_and_old(cluster: Cluster, node: Node, job: Job) -> tuple[Beside, Beside]:
    """On the way back, the port that served before the rollout is the new one again."""
    first, second = (str(port) for port in cluster.service.ports)
    before = job.live or first
    other = second if before == first else first
    new, old = (before, other) if job.verb == "put-back" else (other, before)
    return (
        beside.at_port(cluster, node, new, job.target),
        beside.at_port(cluster, node, old, job.leaving),
    )


def generation(job: Job, new: Beside) -> str:
    """What nginx answers at nginx.generation once `new` serves: `RELEASE:PORT`."""
    return f"{job.target or 'app'}:{new}"


def upstream_text(nginx: Nginx, act: WriteUpstream) -> str:
    """The upstream file that an act writes. Raises: ConfigError for a template that cannot be filled in."""
    servers = [upstream.Server(address, state) for address, state in act.servers]
    return upstream.render(nginx.upstream, servers, act.generation, template=nginx.template)


# ---------------------------------------------------------------- judgements


def _ask_generation(nginx: Nginx) -> str:
    url = urlsplit(nginx.generation or "")
    return ask.ask(Process(url.netloc, url.netloc), [url.path or "/"], 2.0)


def _generation(out: str) -> str:
    answers = ask.parse(out)
    return answers[-1].body.strip().rpartition("\n")[2] if answers and answers[-1].status == 200 else ""


def _by_nginx(judge: Callable[[str, Seen], Judgement]) -> Expectation:
    """A judgement of what nginx's workers say of themselves."""

    def asked(seen: Seen) -> Judgement:
        said = seen.host.probe
        if said is None or said.code:
            return NotYet(f"nginx cannot be asked: {said.err.strip() if said else 'no answer'}")
        return judge(said.out, seen)

    return asked


def _serves(wanted: str) -> Expectation:
    """The marker is the wanted one, and every worker of before takes no new connection any more."""

    def judge(out: str, seen: Seen) -> Judgement:
        now = _generation(out)
        if now != wanted:
            return NotYet(f"nginx.generation answers {now!r}, not {wanted!r}")
        before, workers = lines.parse_before(seen.output), lines.parse_workers(out)
        if not (lines.replaced(before, workers) if before else _settled(workers)):
            return NotYet("a worker of before the reload still takes connections")
        return Holds(f"generation {now}")

    return _by_nginx(judge)


def _settled(workers: Sequence[Worker]) -> bool:
    """No reload within the last second: a worker of before takes connections for 0.1 s after one at most."""
    serving = [worker for worker in workers if not worker.stopping]
    return bool(serving) and all(worker.age_s >= 1 for worker in serving)


def _set_aside(seen: Seen) -> Judgement:
    """Out at every balancer, for a moment."""
    shown = [(place, seen.row(place)) for place in seen.places]
    still = [place.balancer for place, row in shown if row is None or row.status.word is Word.UP]
    if still:
        return NotYet(f"UP on {listed(still)}")
    if seen.spent_s < ASIDE_S:
        return NotYet("what is on its way arrives", ASIDE_S - seen.spent_s)
    return Holds("out for the moment of the reload")


def _in_rotation(seen: Seen) -> Judgement:
    shown = [(place, seen.row(place)) for place in seen.places]
    out = [
        f"{row.status if row else 'no row'} on {place.balancer}"
        for place, row in shown
        if row is None or row.status.word is not Word.UP
    ]
    return NotYet("; ".join(out)) if out else Holds(f"UP on {listed([p.balancer for p, _ in shown])}")


def _no_old_workers(limit_s: float | None) -> Expectation:
    """Their clients may still send requests, which they pass to the old process."""

    def judge(out: str, seen: Seen) -> Judgement:
        old = lines.stopping(lines.parse_workers(out))
        if not old:
            return Holds("every worker has the new configuration")
        told = ", ".join(
            f"{worker.pid} ({worker.age_s:.0f} s old"
            + ("" if worker.connections is None else f", {count(worker.connections, 'connection')}")
            + ")"
            for worker in old
        )
        words = f"{count(len(old), 'old worker')} finish: {told}"
        if limit_s is not None and seen.spent_s >= limit_s:
            return Holds(f"{words}; past nginx.worker_limit = {limit_s:g} s their clients are left to them")
        return NotYet(words)

    return _by_nginx(judge)


# ---------------------------------------------------------------- steps


def _rewrite(nginx: Nginx, job: Job, new: Beside, old: Beside) -> Step:
    """
    On the way back the file may be as it was: then nothing is written, and nothing tested, since it may have
    been that test which failed.
    """
    back = job.verb == "put-back"
    return Step(
        name="rewrite",
        act=WriteUpstream(((old.address, "down"), (new.address, "live")), generation(job, new)),
        seen_when="the upstream file is in place, and nginx's own test passed",
        expects=_says(nginx, generation(job, new)) if back else _written,
        looks=frozenset(),
        limit_s=30.0,
        probe=lines.inspect(str(nginx.file), nginx.pid, ()) if back else None,
        look_first=back,
        changes=True,
    )


def _written(seen: Seen) -> Judgement:
    return Holds(seen.output or "written")


def _says(nginx: Nginx, wanted: str) -> Expectation:
    """The upstream file is drainctl's, of this generation."""

    def judge(seen: Seen) -> Judgement:
        said = seen.host.probe
        if said is None or said.code:
            return NotYet(f"{nginx.file} cannot be read: {said.err.strip() if said else 'no answer'}")
        text = lines.parse_inspect(said.out).file_text or ""
        try:
            found = upstream.read(text, nginx.upstream, name=str(nginx.file))
        except ConfigError as error:
            return NotYet(str(error))
        if found.generation != wanted:
            return NotYet(f"{nginx.file} is of generation {found.generation}, not {wanted}")
        return Holds(f"{nginx.file} is of generation {wanted}")

    return judge


ONE = Amount(1)


def _guard(cluster: Cluster) -> Step:
    """For a moment all requests go elsewhere, so there must be another server, if only one."""
    members = frozenset(node.server for node in cluster.nodes)
    return Step(
        name="guard",
        act=None,
        seen_when="every balancer shows another server up, for the moment of the reload",
        expects=expect.guard(ONE, members),
        looks=frozenset({Look.TABLE}),
        limit_s=cluster.rollout.patience_s,
        every_s=0.25,
    )


def _aside() -> Step:
    return Step(
        name="aside",
        act=Nudge("stopping"),
        seen_when=f"every balancer shows it out, for {ASIDE_S:g} s: nothing is on its way to nginx",
        expects=_set_aside,
        looks=frozenset({Look.ROWS}),
        limit_s=2.0,
        every_s=0.01,
        stays_out=True,
        escalations=tuple(Escalation(after_s, Nudge("stopping"), AGAIN) for after_s in (0.2, 0.4, 0.8)),
        expected_s=ASIDE_S,
    )


def _reload(nginx: Nginx, serves: Expectation) -> Step:
    return Step(
        name="reload",
        act=OnNode(lines.reload(nginx.pid, nginx.reload), f"run `{nginx.reload}`", 10.0),
        seen_when="nginx.generation answers the new one, and no worker of before takes connections",
        expects=serves,
        looks=frozenset(),
        limit_s=SERVING_LIMIT_S,
        probe=f"{_ask_generation(nginx)}{lines.workers(nginx.pid)}",
        look_first=True,
        once=True,
        changes=True,
        every_s=0.02,
    )


def _back() -> Step:
    return Step(
        name="back",
        act=Nudge("up"),
        seen_when="every balancer shows it UP",
        expects=_in_rotation,
        looks=frozenset({Look.ROWS}),
        limit_s=10.0,
        stays_out=False,
    )


def _old_workers(cluster: Cluster, nginx: Nginx) -> Step:
    """The old process is needed as long as a worker of before lives: it knows no other."""
    then = cluster.drain.then
    return Step(
        name="workers",
        act=None,
        seen_when="no worker with the old configuration is left",
        expects=_no_old_workers(nginx.worker_limit_s if then == "force" else None),
        looks=frozenset(),
        limit_s=None if then == "wait" else nginx.worker_limit_s + (2.0 if then == "force" else 0.0),
        probe=lines.workers(nginx.pid),
        every_s=0.1,
        on_limit=Do.HALT,
        on_never=Do.HALT,
        expected_s=None,
    )


STRATEGY = Strategy(
    name=NAME,
    leaves=False,
    verbs=VERBS,
    journey=journey,
    cannot=cannot,
    question=question,
    live=live,
)
