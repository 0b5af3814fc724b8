"""
What was going on, from the nodes alone: their flags, fences, `current` links and answers. Pure.

For when the journal is lost. A node says which rollouts came to it and which release it had when they came
(node.fence), so the way back of the last one is known without a journal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from drainctl.errors import ConfigError, PreflightError
from drainctl.model import Cluster, NodeLook, Survey
from drainctl.node.fence import Claim
from drainctl.node.shell import flag_facts
from drainctl.rollout import ending

BY_HAND = frozenset({"drain", "restore"})  # rollouts of somebody who takes nodes out and puts them back


class Flag(NamedTuple):
    """A node's flag. claim: what it tells of the rollout that set it; None: drainctl did not write it."""

    text: str
    claim: Claim | None

    @property
    def ours(self) -> bool:
        """Set by a rollout that was to take it away again itself."""
        return self.claim is not None and self.claim.verb not in BY_HAND


@dataclass(frozen=True, slots=True)
class NodeFound:
    """
    One node as it is. answers: the release that its app answers with, None where it does not answer or is not
    asked (`asked`). claim: of the last rollout, where that came to it. error: why it could not be looked at.
    """

    name: str
    current: str | None = None
    releases: tuple[str, ...] = ()
    answers: str | None = None
    asked: bool = False
    flag: Flag | None = None
    claim: Claim | None = None
    error: str | None = None

    @property
    def out(self) -> bool:
        """Out of rotation by a rollout that did not give it back."""
        return self.flag is not None and self.flag.ours

    @property
    def left_alone(self) -> bool:
        """Out by a person's will, or by another tool's."""
        return self.flag is not None and not self.flag.ours

    @property
    def in_between(self) -> bool:
        """Its app does not answer with the release that `current` links to."""
        return self.asked and self.answers != self.current

    def runs(self, release: str) -> bool:
        return self.current == release and not self.in_between


@dataclass(frozen=True, slots=True)
class Found:
    """All nodes, and the last rollout that is known of, drains and restores by hand aside."""

    nodes: Mapping[str, NodeFound]
    last: Claim | None

    @property
    def unfinished(self) -> bool:
        """
        Whether some node is out, on another release than the others, or answers with another than its own.
        An app that does not answer at all, in rotation, may have died of anything.
        """
        mine = [node for node in self.nodes.values() if not node.left_alone and node.error is None]
        releases = {node.current for node in mine}
        return len(releases) > 1 or any(node.out or (node.in_between and node.answers) for node in mine)


class Back(NamedTuple):
    """What takes everything back: these nodes, to this release. why: where it is known from."""

    release: str
    nodes: tuple[str, ...]
    why: str


def found(cluster: Cluster, survey: Survey, claims: Mapping[str, Sequence[Claim]]) -> Found:
    """From what was seen. claims: each node's, the latest first."""
    flags = {name: _flag(survey.nodes.get(name, NodeLook())) for name in cluster.names}
    known = [_last_of(flags[name], claims.get(name, ())) for name in cluster.names]
    last = max((claim for claim in known if claim), key=lambda claim: claim.token, default=None)
    nodes = {name: _node(cluster, name, survey, flags[name], claims.get(name, ()), last) for name in flags}
    return Found(nodes, last)


def _node(
    cluster: Cluster,
    name: str,
    survey: Survey,
    flag: Flag | None,
    claims: Sequence[Claim],
    last: Claim | None,
) -> NodeFound:
    look = survey.nodes.get(name)
    if look is None:
        return NodeFound(name, error=survey.errors.get(name, "it was not looked at"))
    answer = look.version
    said = answer.body.strip() if answer is not None and answer.status == 200 else None
    return NodeFound(
        name=name,
        current=look.disk.current if look.disk else None,
        releases=look.disk.releases if look.disk else (),
        answers=said,
        asked=bool(cluster.health.version) and _has_releases(cluster),
        flag=flag,
        claim=next((claim for claim in claims if last and claim.rollout == last.rollout), None),
    )


def _flag(look: NodeLook) -> Flag | None:
    text = look.disk.flag if look.disk else None
    if text is None:
        return None
    told = flag_facts(text)
    try:
        rollout, token = str(told["rollout"]), int(told["token"])
        claim = Claim(token, rollout, str(told["at"]), str(told["verb"]), None, None, str(told["by"]))
    except (ValueError, KeyError, TypeError):
        return Flag(text, None)
    return Flag(text, claim)


def _last_of(flag: Flag | None, claims: Sequence[Claim]) -> Claim | None:
    """The rollout that came to a node last: by its fence, or (none can be written there) by its flag."""
    by_fence = next((claim for claim in claims if claim.verb not in BY_HAND), None)
    by_flag = flag.claim if flag and flag.ours else None
    if by_flag and (by_fence is None or by_flag.token > by_fence.token):
        return by_flag
    return by_fence


def back(seen: Found, cluster: Cluster, to: str | None = None) -> Back:
    """
    The way back: to the release that the nodes had when the last rollout came, or to `to`.

    Raises: ConfigError where nothing is unfinished, or the release is not known for certain: what is seen,
    and what to say. PreflightError where a node could not be looked at.
    """
    if missing := [
        f"{node.name} cannot be reached: {node.error}" for node in seen.nodes.values() if node.error
    ]:
        raise PreflightError("\n".join(missing), left="nothing was touched")
    if not _has_releases(cluster):
        raise ConfigError(
            f"{cluster.file} has no `release`, so no node can be put on another release",
            hint=_restores(seen) or "no node is out of rotation by a rollout",
        )
    if not seen.unfinished:
        runs = next((node.current for node in seen.nodes.values() if not node.left_alone), None)
        raise ConfigError(
            f"nothing is unfinished: no node is out by a rollout, and every node runs {runs}",
            hint="`drainctl rollback` goes back to the release of before",
        )
    release, why = (to, "as asked") if to else _before(seen)
    nodes = [node for node in seen.nodes.values() if not node.left_alone]
    lacking = [node.name for node in nodes if not node.runs(release) and release not in node.releases]
    if lacking:
        raise ConfigError(
            f"release {release} is not on {', '.join(lacking)}\n{_seen(nodes)}",
            hint="name one that all have: drainctl abort --from-nodes --to RELEASE",
        )
    return Back(release, tuple(node.name for node in nodes if node.out or not node.runs(release)), why)


def _has_releases(cluster: Cluster) -> bool:
    return cluster.release is not None or cluster.images is not None


def _before(seen: Found) -> tuple[str, str]:
    """The one release of before, and where it is known from. Raises: ConfigError where it is not one."""
    nodes = [node for node in seen.nodes.values() if not node.left_alone]
    came = [node for node in nodes if node.claim is not None]
    if came and all(node.claim and node.claim.was for node in came):
        had = {node.name: node.claim.was if node.claim else node.current for node in nodes}
        if len(set(had.values())) == 1:
            return str(next(iter(had.values()))), "by the nodes' fences, they had it before"
        told = ", ".join(f"{name} {release or 'none'}" for name, release in had.items())
        when = f"before rollout {seen.last.rollout}" if seen.last else "before"
        why = f"{when} the nodes ran different releases: {told}"
    else:
        (most, count), *_ = Counter(node.current for node in nodes).most_common()
        if most is not None and count * 2 > len(nodes):
            return most, f"{count} of {len(nodes)} nodes are on it, and no fence tells more"
        why = "no fence tells which release was there before, and no release is on most nodes"
    raise ConfigError(f"{why}\n{_seen(nodes)}", hint="say which: drainctl abort --from-nodes --to RELEASE")


def _seen(nodes: Sequence[NodeFound]) -> str:
    return "\n".join(
        f"  {node.name}: current {node.current or 'none'}; it has {', '.join(node.releases) or 'none'}"
        for node in nodes
    )


def _restores(seen: Found) -> str:
    return "\n".join(f"drainctl restore {node.name} --steal" for node in seen.nodes.values() if node.out)


# ---------------------------------------------------------------- words


def lines(seen: Found, cluster: Cluster) -> list[str]:
    """What was going on, node by node, and the commands that lead on."""
    told = [f"{node.name}: {where(node)}" for node in seen.nodes.values()]
    if seen.last is None:
        return [*told, "", "no rollout of drainctl has left a trace on these nodes", *_ways(seen, cluster)]
    state = "is not finished" if seen.unfinished else "left nothing unfinished"
    return [*told, "", f"{seen.last}", f"  {state}", *_ways(seen, cluster)]


def where(node: NodeFound) -> str:
    """One node in one sentence."""
    if node.error:
        return f"cannot be reached: {node.error}"
    parts = ["in rotation" if node.flag is None else "OUT OF ROTATION by its flag"]
    parts[0] += f", on {node.current}" if node.current else ""
    if node.in_between:
        parts.append(f"answers with {node.answers}" if node.answers else "its app does not answer")
    if node.claim and node.claim.was and node.claim.was != node.current:
        parts.append(f"before: {node.claim.was}")
    if node.flag is not None and node.flag.claim is None:
        parts.append("drainctl did not set it")
    elif node.flag is not None and node.flag.claim is not None:
        of = node.flag.claim
        if node.claim is None or of.rollout != node.claim.rollout:  # else it is told below
            parts.append(f"set by {of.verb} {of.rollout} of {of.by} at {of.at}")
    return "; ".join(parts)


def _ways(seen: Found, cluster: Cluster) -> list[str]:
    ways = []
    if seen.unfinished:
        try:
            taken = back(seen, cluster)
        except (ConfigError, PreflightError) as error:
            ways += [f"  {line.strip()}" for line in str(error).splitlines()[:1]]
            ways += [f"  {line}" for line in (error.hint or "").splitlines()]
        else:
            ways += [
                f"  take back: drainctl abort --from-nodes ({', '.join(taken.nodes)} to {taken.release}:",
                f"    {taken.why})",
            ]
    ways += [
        f"  {ending.restore_by_hand(node.name)}" for node in seen.nodes.values() if node.flag is not None
    ]
    return ["", *ways] if ways else []
