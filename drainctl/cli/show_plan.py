"""A plan as text, 80 columns wide; only commands may go beyond, so that they can be copied. Pure."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from drainctl.model import NOTHING, Cluster, NodeLook, Place, Release, Survey
from drainctl.report.text import columns, seconds, size
from drainctl.rollout.adopt import adoptions
from drainctl.rollout.estimate import Estimate, StepTime, WayTime
from drainctl.rollout.plan import Plan
from drainctl.rollout.planfile import commands, exact, runs_already

WIDTH = 80
MOST_LINES = 8  # of one kind, before they are folded
SHORT_S = 0.05  # steps that take less are summed up


def plan_text(
    cluster: Cluster,
    plan: Plan,
    seen: Survey,
    found: Sequence[str],
    expected: Estimate | None = None,
    changes: Mapping[str, Sequence[str]] = NOTHING,
) -> str:
    """What is there now, the waves, each step's exact commands, the time, and what stands against it."""
    lines = []
    if plan.jobs:
        lines += _head(cluster, plan, seen)
        lines += ["", "now", *_now(cluster, plan, seen)]
        lines += ["", _policy(cluster), *_waves(cluster, plan)]
        lines += ["", *_way(cluster, plan, seen)]
        lines += _adopted(cluster, plan, seen)
        lines += _containers(cluster, changes)
        lines += ["", *_time(expected)] if expected else []
    if found:
        lines += ["", "refused, nothing would be touched:"] if lines else ["refused, nothing was touched:"]
        lines += [line for why in dict.fromkeys(found) for line in _wrapped(why, "  ", "    ")]
    return "\n".join(lines)


def _wrapped(text: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _head(cluster: Cluster, plan: Plan, seen: Survey) -> list[str]:
    release = f" {plan.release.id}" if plan.release else ""
    lines = [f"{plan.verb}{release} over {_count(plan.order, 'node')} in {_count(plan.waves, 'wave')}"]
    if runs_already(cluster, plan, seen):
        target = plan.jobs[plan.order[0]].target
        lines.append(f"every node runs {target} already; a deploy would roll it once more")
    return lines


def _count(things: Sequence[object], what: str) -> str:
    return f"{len(things)} {what}{'' if len(things) == 1 else 's'}"


# ---------------------------------------------------------------- nodes, folded


def folded(names: Sequence[str], order: Sequence[str]) -> str:
    """
    Names as a person reads them: neighbours in `order`, four or more, become `web1 … web9`.

    So nothing is hidden: who knows the order knows every name.
    """
    at = {name: number for number, name in enumerate(order)}
    runs: list[list[str]] = []
    for name in names:
        if runs and at[name] == at[runs[-1][-1]] + 1:
            runs[-1].append(name)
        else:
            runs.append([name])
    return ", ".join(f"{run[0]} … {run[-1]}" if len(run) > 3 else ", ".join(run) for run in runs)


def _grouped(facts: Mapping[str, tuple[str, ...]]) -> dict[tuple[str, ...], list[str]]:
    """Nodes with equal facts together, in the order of their first."""
    found: dict[tuple[str, ...], list[str]] = {}
    for name, fact in facts.items():
        found.setdefault(fact, []).append(name)
    return found


def _now(cluster: Cluster, plan: Plan, seen: Survey) -> list[str]:
    """Each node, or nodes with equal facts: release, strategy, and its servers as HAProxy shows them."""
    facts = {name: (_change(plan, name, seen), *_shown(plan.places[name], seen)) for name in plan.order}
    lines = []
    for (change, *shown), names in _grouped(facts).items():
        many = f" ({len(names)} nodes)" if len(names) > 1 else ""
        lines += _wrapped(f"{folded(names, cluster.names)}{many}: {change}", "  ", "    ")
        lines += [line for text in shown for line in _wrapped(text, "    ", "      ")]
        places = [place for name in names for place in plan.places[name]]
        lines += [f"    {_in_flight(places, seen)}"] if places else []
    return lines


def _change(plan: Plan, name: str, seen: Survey) -> str:
    job, now = plan.jobs[name], plan.previous[name] or "no release"
    change = f"{now} -> {job.target}" if job.target else now
    answer = seen.nodes.get(name, NodeLook()).version
    told = (
        ""
        if answer is None or answer.body.strip() == plan.previous[name]
        else f", but answers {_said(answer)}"
    )
    way = plan.ways[name]
    return f"{change}{told}, by {way.strategy or 'no strategy'} ({way.reason})"


def _said(answer: object) -> str:
    body = getattr(answer, "body", "").strip()
    return repr(body[:40]) if getattr(answer, "status", None) == 200 else str(answer)


def _shown(places: Iterable[Place], seen: Survey) -> list[str]:
    """`UP on lb1 shop, lb2 shop`: equal states together."""
    found: dict[str, list[str]] = {}
    for place in places:
        row = seen.tables[place.balancer].row(place.backend, place.server)
        found.setdefault(str(row.status) if row else "no row", []).append(f"{place.balancer} {place.backend}")
    return [f"{state} on {', '.join(dict.fromkeys(at))}" for state, at in found.items()]


def _in_flight(places: Iterable[Place], seen: Survey) -> str:
    rows = [seen.tables[place.balancer].row(place.backend, place.server) for place in places]
    busy, queued = sum(row.scur for row in rows if row), sum(row.qcur for row in rows if row)
    return f"in flight: {busy}" + (f", queued: {queued}" if queued else "")


# ---------------------------------------------------------------- waves


def _policy(cluster: Cluster) -> str:
    policy = cluster.rollout
    return f"waves (at_once = {policy.at_once}, canary = {policy.canary}, keep_up = {policy.keep_up})"


def _waves(cluster: Cluster, plan: Plan) -> list[str]:
    """A line per wave; many waves of one size in a row are one line."""
    runs: list[list[int]] = []
    for number, wave in enumerate(plan.waves):
        if runs and len(plan.waves[runs[-1][0]]) == len(wave):
            runs[-1].append(number)
        else:
            runs.append([number])
    lines = []
    for run in runs:
        shown = [run] if len(run) > MOST_LINES else [[number] for number in run]
        for part in shown:
            names = [name for number in part for name in plan.waves[number]]
            each = f", {_count(plan.waves[part[0]], 'node')} each" if len(part) > 1 else ""
            title = f"wave {part[0] + 1}" if len(part) == 1 else f"waves {part[0] + 1} to {part[-1] + 1}"
            lines += _wrapped(f"{title}: {folded(names, cluster.names)}{each}", "  ", "    ")
    return lines


# ---------------------------------------------------------------- steps


def _way(cluster: Cluster, plan: Plan, seen: Survey) -> list[str]:
    """By strategy, the steps of its first node; where the others' commands differ, each of them."""
    lines = []
    if plan.release and plan.release.to_stage:
        lines += _wrapped(f"first, on every node: {_staged(plan.release)}", rest="  ")
    by_way: dict[str, list[str]] = {}
    for name in plan.order:
        if strategy := plan.ways[name].strategy:
            by_way.setdefault(strategy, []).append(name)
    for strategy, names in by_way.items():
        which = "each node" if len(by_way) == 1 else f"{folded(names, cluster.names)} by {strategy}"
        lines += _wrapped(f"then {which}, step by step (names as for {names[0]}):", rest="  ")
        lines += _steps(cluster, plan, seen, names)
    return lines


def _staged(release: Release) -> str:
    if release.image is None:
        return f"stage {release.id} ({size(release.size)})"
    how = f"loaded ({size(release.size)})" if release.archive else "pulled"
    return f"image {release.image}, {how} where its engine does not have it"


def _steps(cluster: Cluster, plan: Plan, seen: Survey, names: Sequence[str]) -> list[str]:
    """The steps of the first of `names`, which all go the same way."""
    lines = []
    differing = _differing({each: commands(cluster, plan, each) for each in names}, plan.order)
    for step in plan.steps(cluster, names[0]):
        act = exact(cluster, plan, seen, names[0], step)
        if act:
            lines += _act(step.name, act)
            lines += [_MARGIN + line for line in differing.get(step.name, ())]
        limit = f"limit {step.limit_s:g} s" if step.limit_s is not None else "no limit"
        head = _MARGIN if act else f"  {step.name:8} "
        lines += _wrapped(f"until {step.seen_when} ({limit})", head, _MARGIN + "  ")
        for more in step.escalations:
            lines += _wrapped(f"after {more.after_s:g} s: {more.why}", _MARGIN, _MARGIN + "  ")
    return lines


_MARGIN = " " * 11


def _act(name: str, act: str) -> list[str]:
    """An act beside its step's name; what stands between backticks is never broken."""
    whole = re.sub("`[^`]*`", lambda found: found[0].replace(" ", "\xa0"), act)
    lines = _wrapped(whole, f"  {name:8} ", _MARGIN) if "\n" not in act else [f"  {name:8} {act}"]
    return [line.replace("\xa0", " ") for line in lines]


def _differing(told: Mapping[str, Mapping[str, str]], order: Sequence[str]) -> dict[str, list[str]]:
    """Of each step whose command is not the same on every node: the other nodes' commands."""
    found = {}
    for step in next(iter(told.values())):
        by_line: dict[str, list[str]] = {}
        for name, commands_of in told.items():
            by_line.setdefault(commands_of[step], []).append(name)
        lines = [f"on {folded(names, order)}: `{line}`" for line, names in by_line.items()][1:]
        if len(lines) > MOST_LINES:
            left = len(lines) - MOST_LINES // 2
            lines = [*lines[: MOST_LINES // 2], f"{left} more: `drainctl plan --output json` has every one"]
        if lines:
            found[step] = lines
    return found


def _adopted(cluster: Cluster, plan: Plan, seen: Survey) -> list[str]:
    """What taking over files of nginx changes in them; equal changes once."""
    lines = []
    changes = {name: (change,) for name, change in adoptions(cluster, plan, seen).items()}
    for (change,), names in _grouped(changes).items():
        lines += ["", f"nginx.file on {folded(names, cluster.names)} becomes drainctl's own:"]
        lines += [f"  {line}" for line in change.splitlines()]
    return lines


def _containers(cluster: Cluster, changes: Mapping[str, Sequence[str]]) -> list[str]:
    """What differs between the containers and those that take their place; equal differences once."""
    lines = []
    for told, names in _grouped({name: tuple(each) for name, each in changes.items()}).items():
        lines += ["", f"what differs in the new container of {folded(names, cluster.names)}:"]
        lines += [line for text in told for line in _wrapped(text, "  ", "    ")]
    return lines


# ---------------------------------------------------------------- time


def _time(expected: Estimate) -> list[str]:
    """The expected time, then each part of it and where that comes from."""
    total = seconds(expected.total_s)
    if expected.unknown:
        unknown = ", ".join(expected.unknown)
        begin = f"expected: {total} at least; not known yet: {unknown}"
        lines = _wrapped(f"{begin} (no finished rollout tells)", rest="  ")
    else:
        lines = [f"expected: about {total}"]
    stage = f"{_seconds(expected.stage)} to stage" if expected.stage else ""
    parts = [f"{way.waves} × {seconds(way.seconds)} a wave" for way in expected.ways if way.waves]
    lines.append(f"  = {' + '.join([*([stage] if stage else []), *parts])}, of which")
    for way in expected.ways:
        lines += [f"    by {way.strategy}"] if len(expected.ways) > 1 else []
        lines += [f"    {line}" for line in columns(_rows(way), right={0})]
    return lines


def _rows(way: WayTime) -> list[tuple[str, str, str]]:
    """Each step's time; those that take next to none are summed up."""
    short = [step for step in way.steps if step.seconds is not None and step.seconds < SHORT_S]
    rows = [(_seconds(step), step.name, step.how) for step in way.steps if step not in short]
    if short:
        together = seconds(sum(step.seconds or 0.0 for step in short))
        rows.append((together, "others", ", ".join(step.name for step in short)))
    return rows


def _seconds(step: StepTime) -> str:
    return "?" if step.seconds is None else seconds(step.seconds)
