"""
A plan as data: what `plan --output json` prints, `plan --out` writes, and `deploy --plan` is held to. Pure.

| key      | what it is |
|----------|------------|
| v        | version of this shape |
| drainctl | version that made it: another one may take other steps |
| made_at  | when, RFC 3339, UTC |
| app      | of drainctl.yml |
| config   | file, sha256: drainctl.yml as it was read |
| asked    | source, id, command, only, at_once, canary, adopt, image: the command line, for doing it again |
| release  | id, sha256, size, url, image: what would be rolled, or null |
| waves    | [[node]], in their order |
| nodes    | {node: release (now), target, strategy, reason, servers {place: status}, commands {step: line},
|          | container [text]: what differs in a new container; compared with nothing} |
| steps    | [{step, act, until, limit_s}]: those of the first node; acts of others on its strategy differ in
|          | names only |
| expected | seconds, at_least, waves, rollouts, steps [{strategy, step, seconds, how}]: compared with
|          | nothing |
| already  | whether every node runs the release and answers with it |
| refused  | [text]: why a deploy would be refused |

No counters are in it: they change with every request. What `${VAR}` stood for is not in it either.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from drainctl.config.expand import shown
from drainctl.config.placeholders import fill, values_of
from drainctl.errors import ConfigError
from drainctl.model import NOTHING, Cluster, FlagCommands, FlagFile, FlagHttp, Node, NodeLook, Survey
from drainctl.rollout.estimate import Estimate, StepTime
from drainctl.rollout.plan import Plan
from drainctl.rollout.walk import describe
from drainctl.steps import (
    ClearFlag,
    Nudge,
    ReplaceContainer,
    RunOnNode,
    SetFlag,
    SetState,
    Stage,
    Step,
    Switch,
)

VERSION = 1
Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asked for. source: an absolute path, or a URL."""

    source: str | None = None
    id: str | None = None
    command: str | None = None
    only: tuple[str, ...] = ()
    at_once: str | None = None
    canary: int | None = None
    adopt: bool = False
    image: str | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """Who made a plan file, when, and out of which drainctl.yml."""

    drainctl: str
    made_at: str
    config_sha256: str


# ---------------------------------------------------------------- what is in it


def document(
    cluster: Cluster,
    plan: Plan,
    seen: Survey,
    *,
    asked: Asked,
    made: Made,
    expected: Estimate | None = None,
    refused: Sequence[str] = (),
    changes: Mapping[str, Sequence[str]] = NOTHING,
) -> dict[str, Any]:
    """The plan and the facts that it rests on, as the table above says."""
    release = plan.release
    return {
        "v": VERSION,
        "drainctl": made.drainctl,
        "made_at": made.made_at,
        "app": cluster.app,
        "config": {"file": cluster.file, "sha256": made.config_sha256},
        "asked": {
            "source": asked.source,
            "id": asked.id,
            "command": asked.command,
            "only": list(asked.only),
            "at_once": asked.at_once,
            "canary": asked.canary,
            "adopt": asked.adopt,
            "image": asked.image,
        },
        "release": release
        and {
            "id": release.id,
            "sha256": release.sha256,
            "size": release.size,
            "url": release.url,
            "image": release.image,
        },
        "waves": [list(wave) for wave in plan.waves],
        "nodes": {
            name: _node(cluster, plan, seen, name) | {"container": list(changes.get(name, ()))}
            for name in plan.order
        },
        "steps": list(_steps(cluster, plan, seen)),
        "expected": expected and _expected(expected),
        "already": runs_already(cluster, plan, seen),
        "refused": list(dict.fromkeys(refused)),
    }


def runs_already(cluster: Cluster, plan: Plan, seen: Survey) -> bool:
    """
    Whether every node runs the release that it would get: `current` links to it, where drainctl links, and
    the app answers with it, where it is asked. Where neither tells, nothing is known, so there is a change.
    """
    return bool(plan.order) and all(
        _runs(cluster, plan, name, seen.nodes.get(name, NodeLook())) for name in plan.order
    )


def _runs(cluster: Cluster, plan: Plan, name: str, look: NodeLook) -> bool:
    job = plan.jobs[name]
    told = []
    if job.switches:
        told.append(plan.previous[name] == job.target)
    if cluster.health.version:
        answer = look.version
        told.append(answer is not None and answer.status == 200 and answer.body.strip() == job.target)
    return job.target is not None and bool(told) and all(told)


def _node(cluster: Cluster, plan: Plan, seen: Survey, name: str) -> dict[str, Any]:
    servers = {}
    for place in plan.places[name]:
        row = seen.tables[place.balancer].row(place.backend, place.server)
        servers[str(place)] = row.status.word.value if row else "no row"
    return {
        "release": plan.previous[name],
        "target": plan.jobs[name].target,
        "strategy": plan.ways[name].strategy,
        "reason": plan.ways[name].reason,
        "servers": servers,
        "commands": commands(cluster, plan, name),
    }


def _steps(cluster: Cluster, plan: Plan, seen: Survey) -> Iterator[dict[str, Any]]:
    name = plan.order[0] if plan.order else None
    for step in plan.steps(cluster, name) if name else ():
        act = exact(cluster, plan, seen, name or "", step)
        yield {"step": step.name, "act": act, "until": step.seen_when, "limit_s": step.limit_s}


def _expected(found: Estimate) -> dict[str, Any]:
    every: list[tuple[str | None, StepTime]] = [(None, found.stage)] if found.stage else []
    every += [(way.strategy, step) for way in found.ways for step in way.steps]
    return {
        "seconds": round(found.total_s, 2),
        "at_least": bool(found.unknown),
        "waves": found.waves,
        "rollouts": found.rollouts,
        "steps": [
            {"strategy": way, "step": step.name, "seconds": _rounded(step.seconds), "how": step.how}
            for way, step in every
        ],
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)


# ---------------------------------------------------------------- acts, exactly


def commands(cluster: Cluster, plan: Plan, name: str) -> dict[str, str]:
    """The command lines that this node would be told to run, by step, as they may be shown."""
    node = cluster.node(name)
    found = {}
    for step in plan.steps(cluster, name):
        if isinstance(step.act, RunOnNode):
            found[step.name] = _filled(cluster, node, step.act.line, step.act.release, step.act.more)
        elif isinstance(cluster.health.flag, FlagCommands) and isinstance(step.act, SetFlag | ClearFlag):
            flag = cluster.health.flag
            found[step.name] = _filled(
                cluster, node, flag.set if isinstance(step.act, SetFlag) else flag.clear
            )
    return found


def exact(cluster: Cluster, plan: Plan, seen: Survey, name: str, step: Step) -> str | None:
    """A step's act on this node in full, None for a step that only waits."""
    node, told = cluster.node(name), commands(cluster, plan, name)
    if step.name in told:
        return f"run `{told[step.name]}`"
    match step.act:
        case None:
            return None
        case SetFlag() | ClearFlag():
            return _flag(cluster, node, set_=isinstance(step.act, SetFlag))
        case Nudge(health):
            return _told(plan, seen, name, f"health {health}")
        case SetState(state):
            return _told(plan, seen, name, f"state {state}")
        case ReplaceContainer():
            return _replaced(plan, node, step.act)
        case Stage() | Switch() if cluster.release:
            root = _filled(cluster, node, cluster.release.root)
            link = f"{root}/current -> releases/{step.act.release}"
            return link if isinstance(step.act, Switch) else f"unpack {root}/releases/{step.act.release}"
    return describe(step.act)


def _replaced(plan: Plan, node: Node, act: ReplaceContainer) -> str:
    """The old container's and the new one's names, and the new one's image."""
    name = node.container or node.name
    kept = f"{name}.drainctl-{plan.previous[node.name]}"
    image = plan.release.image if act.anew and plan.release else None
    new = f"create {name} of {image}, flagged" if image else f"rename {name}.drainctl-{act.release} to {name}"
    return f"stop {name} and keep it as {kept}, {new}, start it"


def _flag(cluster: Cluster, node: Node, *, set_: bool) -> str | None:
    match cluster.health.flag:
        case FlagFile(path):
            return f"{'write' if set_ else 'delete'} {_filled(cluster, node, path)}"
        case FlagHttp(url):
            return f"{'PUT' if set_ else 'DELETE'} {_filled(cluster, node, url)}"
    return None


def _told(plan: Plan, seen: Survey, name: str, what: str) -> str:
    """What the balancers are told, by those whose socket allows it; of the others, who is waited for."""
    told: dict[str, list[str]] = {}
    waited = []
    for place in plan.places[name]:
        if seen.tables[place.balancer].can_change:
            told.setdefault(f"`set server {place.backend}/{place.server} {what}`", []).append(place.balancer)
        else:
            waited.append(place.balancer)
    words = [f"{line} on {', '.join(names)}" for line, names in told.items()]
    if waited:
        words.append(f"no nudge on {', '.join(dict.fromkeys(waited))} (read only): its next check decides")
    return "; ".join(words)


def _filled(
    cluster: Cluster,
    node: Node,
    template: str,
    release: str | None = None,
    more: Mapping[str, str] = NOTHING,
) -> str:
    values = {"text": "{text}", **values_of(cluster, node, release), **more}
    return shown(fill(template, values))


# ---------------------------------------------------------------- a plan that was written before


def parse(text: str, name: str) -> Document:
    """
    A plan file's text, read again; `name` is the file's, for messages.

    Raises: ConfigError where it is none, or one of another version of this shape.
    """
    try:
        told = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name} is no plan: {error}", hint=AGAIN) from error
    if not isinstance(told, dict) or not {"v", "asked", "waves", "nodes"} <= told.keys():
        raise ConfigError(f"{name} is no plan of drainctl", hint=AGAIN)
    if told["v"] != VERSION:
        raise ConfigError(f"{name} has version {told['v']} of plans, expected {VERSION}", hint=AGAIN)
    return told


AGAIN = "`drainctl plan SOURCE --out FILE` makes a new one"


def asked_in(told: Document) -> Asked:
    """The command line of a plan."""
    asked = told["asked"]
    return Asked(**(asked | {"only": tuple(asked["only"])}))


def differences(told: Document, now: Document, name: str) -> list[str]:
    """
    What is not as it was when the plan was made, a sentence each; empty: it may be done.

    told: the plan file. now: the same, made a moment ago. name: of the file, for messages.
    """
    found = [
        f"{what} {_short(now_is)}, {_short(was)} in {name}"
        for what, was, now_is in (
            ("drainctl has version", told["drainctl"], now["drainctl"]),
            ("the app is", told["app"], now["app"]),
            ("drainctl.yml has sha256", told["config"]["sha256"], now["config"]["sha256"]),
            *(
                (
                    f"the release has {part}",
                    (told["release"] or {}).get(part),
                    (now["release"] or {}).get(part),
                )
                for part in ("id", "sha256", "url", "image")
            ),
        )
        if was != now_is
    ]
    if not now["waves"]:  # something cannot be reached; that is told by itself
        return found
    if told["waves"] != now["waves"]:
        found.append(f"the waves are {_waves(now['waves'])}, {_waves(told['waves'])} in {name}")
    nodes: dict[str, list[str]] = {}
    for node in [node for node in told["nodes"] if node in now["nodes"]]:
        for text in _node_differences(told["nodes"][node], now["nodes"][node], name):
            nodes.setdefault(text, []).append(node)
    return found + [f"{', '.join(names)}: {text}" for text, names in nodes.items()]


def _node_differences(was: Document, now: Document, name: str) -> Iterator[str]:
    if was["release"] != now["release"]:
        yield f"runs {now['release'] or 'no release'}, {was['release'] or 'no release'} in {name}"
    if now["strategy"] and was["strategy"] != now["strategy"]:  # that none can is refused by itself
        yield f"goes by {now['strategy']}, by {was['strategy']} in {name}"
    if was["target"] != now["target"]:
        yield f"would get {now['target']}, {was['target']} in {name}"
    for place in dict.fromkeys([*was["servers"], *now["servers"]]):
        before, after = was["servers"].get(place, "missing"), now["servers"].get(place, "missing")
        if before != after:
            yield f"{place} is {after}, {before} in {name}"
    if was["strategy"] != now["strategy"]:
        return  # so its commands are others, too
    for step in dict.fromkeys([*was["commands"], *now["commands"]]):
        before, after = was["commands"].get(step), now["commands"].get(step)
        if before != after:
            yield f"{step} would run `{after}`, `{before}` in {name}"


def _waves(waves: Sequence[Sequence[str]]) -> str:
    text = ", ".join("+".join(wave) for wave in waves)
    return text if len(text) <= 60 else f"{len(waves)} over {sum(map(len, waves))} nodes ({text[:40]}…)"


def _short(value: object) -> str:
    """A sum by its first digits; nobody compares 64 of them by eye."""
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
