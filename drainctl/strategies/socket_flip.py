"""
Socket flip: nginx (or HAProxy) connects to a link, and the link is swapped to the new process's socket.

Neither is rewritten or reloaded, so no client connection is closed by it. Pure: lists steps. The order and
the reasons are told in docs/socket-flip.md.
"""

from __future__ import annotations

from shlex import quote

from drainctl.config.placeholders import fill, values_of
from drainctl.model import Cluster, Node, NodeLook
from drainctl.steps import Expectation, Holds, Job, NotYet, OnNode, Seen, Step
from drainctl.strategies import beside, common
from drainctl.strategies.beside import Beside
from drainctl.strategies.door import CHANGING, Strategy, unasked
from drainctl.strategies.expect import Judgement

NAME = "socket-flip"


def journey(cluster: Cluster, node: Node, job: Job) -> tuple[Step, ...]:
    """Start → warm → switch → flip → quiet → stop → watch; a node that is there already keeps its process."""
    new, old = _new_and_old(cluster, node, job)
    end = (beside.quiet(cluster, old), beside.stop(cluster, old)) if new.address != old.address else ()
    return (
        beside.start(cluster, node, job, new),
        *beside.warm(cluster, node, new),
        common.switch(str(job.target)),
        _flip(_current(cluster, node), new),
        *end,
        common.watch(cluster),
    )


def cannot(cluster: Cluster, node: Node, job: Job, seen: Seen) -> str | None:
    """The link is no link, so nobody knows what serves."""
    del cluster
    said = seen.host.inspected.get(NAME)
    if said is None or said.code:
        return unasked(node, said)
    if job.live is None:
        return f"socket.current is no link to a socket on {node.name}: {said.out.strip() or 'nothing there'}"
    return None


def question(cluster: Cluster, node: Node) -> str:
    """Where the link points, made absolute."""
    return f"link={quote(_current(cluster, node))}\n{_WHERE}"


def live(cluster: Cluster, node: Node, look: NodeLook) -> str | None:
    """The socket that serves."""
    del cluster, node
    said = look.inspected.get(NAME)
    path = said.out.strip() if said and not said.code else ""
    return path if path.startswith("/") else None


def _current(cluster: Cluster, node: Node) -> str:
    return fill(cluster.socket.current if cluster.socket else "", values_of(cluster, node, None))


def _each(cluster: Cluster, node: Node, release: str | None) -> str:
    return fill(cluster.socket.each if cluster.socket else "", values_of(cluster, node, release))


def _new_and_old(cluster: Cluster, node: Node, job: Job) -> tuple[Beside, Beside]:
    """On the way back, what served before the rollout is the new one again, whatever its socket's name."""
    if job.verb == "put-back":
        new = beside.at_socket(job.live or _each(cluster, node, job.target), job.target)
        return new, beside.at_socket(_each(cluster, node, job.leaving), job.leaving)
    old = beside.at_socket(job.live or _each(cluster, node, job.leaving), job.leaving)
    return beside.at_socket(_each(cluster, node, job.target), job.target), old


def _flip(current: str, new: Beside) -> Step:
    path = new.path
    line = f"link={quote(current)}\nto={quote(path)}\n"
    return Step(
        name="flip",
        act=OnNode(f"{line}{_FLIP}", f"{current} -> {path}, by rename", 10.0),
        seen_when=f"{current} links to {path}: whoever connects from now on is served by it",
        expects=_links(path),
        looks=frozenset(),
        limit_s=5.0,
        probe=f"link={quote(current)}\n{_WHERE}",
        look_first=True,
        changes=True,
    )


def _links(path: str) -> Expectation:
    def judge(seen: Seen) -> Judgement:
        said = seen.host.probe
        where = said.out.strip() if said else "unknown"
        return Holds(f"-> {path}") if where == path else NotYet(f"it links to {where}")

    return judge


# A relative link is made absolute, so that it can be compared; what it points at need not be there.
_WHERE = """\
[ -L "$link" ] || { [ -e "$link" ] && echo 'not a link' || echo 'nothing there'; exit 0; }
to=$(readlink -- "$link")
case $to in /*) printf '%s\\n' "$to" ;; *) printf '%s/%s\\n' "$(dirname -- "$link")" "$to" ;; esac
"""

_FLIP = """\
[ -S "$to" ] || { echo "$to is no socket" >&2; exit 1; }
new=$link.drainctl.$$
trap 'rm -f -- "$new"' EXIT
ln -s -- "$to" "$new" && mv -fT -- "$new" "$link" && echo "$link -> $to"
"""


STRATEGY = Strategy(
    name=NAME,
    leaves=False,
    verbs=CHANGING,
    journey=journey,
    cannot=cannot,
    question=question,
    live=live,
)
