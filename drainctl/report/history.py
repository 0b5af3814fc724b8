"""What `drainctl history` and `drainctl show ROLLOUT` print: pure functions over events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, tzinfo

from drainctl.journal.events import Event
from drainctl.report.plain import CONFIGURED, PlainReport
from drainctl.report.story import Journey, StepRun, Story
from drainctl.report.text import clip, columns, day_time, proof_table, said_together, seconds

WIDTH = 100
WIDE = 100  # below it `began` is left out: the rollout's id says it, too
NOTED = {"note", "step.escalated", "rollout.resumed", "rollout.turned", "rollout.asked"}


@dataclass(frozen=True, slots=True)
class Head:
    """
    One rollout in a line. done, nodes: nodes that are done, of all that it was to take. outcome: "open"
    while its journal has no end. took_s: seconds from its begin to its last event.
    """

    rollout: str
    began_s: float
    verb: str
    release: str
    outcome: str
    exit: int | None
    done: int
    nodes: int
    took_s: float
    why: str


def head(events: Iterable[Event]) -> Head:
    """The line of one rollout, from its events."""
    story = Story(events)
    ways = [story.latest(node) for node in story.nodes]
    return Head(
        rollout=story.rollout,
        began_s=story.began_s,
        verb=story.verb,
        release=story.release,
        outcome=story.outcome or "open",
        exit=story.exit,
        done=sum(way is not None and way.outcome == "done" for way in ways),
        nodes=len(ways),
        took_s=story.last_s - story.began_s,
        why=story.why,
    )


def history_table(heads: Sequence[Head], zone: tzinfo | None = UTC, width: int = WIDTH) -> str:
    """A line per rollout, in the order given; `why` is cut at `width` columns."""
    if not heads:
        return "no rollout yet"
    rows = [
        (
            f"began ({day_time(heads[0].began_s, zone)[20:]})",
            "rollout",
            "verb",
            "release",
            "nodes",
            "took",
            "outcome",
            "why",
        )
    ]
    rows += [
        (
            day_time(each.began_s, zone)[:16],
            each.rollout,
            each.verb,
            each.release,
            f"{each.done}/{each.nodes}",
            seconds(each.took_s),
            each.outcome if each.exit is None else f"{each.outcome} ({each.exit})",
            "" if each.outcome == "done" else each.why,
        )
        for each in heads
    ]
    lines = columns(rows, right={4, 5}) if width >= WIDE else columns([row[1:] for row in rows], right={3, 4})
    return "\n".join(clip(line, width) for line in lines)


def show_rollout(events: Sequence[Event], zone: tzinfo | None = UTC, width: int = WIDTH) -> str:
    """One rollout: how it ended, per node each step's seconds, outcome and why, then notes and proof."""
    if not events:
        return "no events"
    story = Story(events)
    spent = seconds(story.took_s if story.took_s is not None else story.last_s - story.began_s)
    end = f"{story.outcome} (exit {story.exit})" if story.outcome else "open: its journal has no end"
    lines = [
        f"rollout {story.rollout}: {story.title}",
        f"began {day_time(story.began_s, zone)}, took {spent}, {end}{f': {story.why}' if story.why else ''}",
    ]
    for node in story.nodes:
        ways = story.ways(node)
        lines += [""] if ways else ["", f"{node}  not begun"]
        for journey in ways:
            lines += _journey(journey, width)
    plain = PlainReport(zone=zone, clock=lambda: 0.0)
    noted = [line for event in events if event.kind in NOTED for line in plain.lines(event)]
    lines += ["", "notes", *(f"  {line}" for line in noted)] if noted else []
    lines += ["", f"proof: {proof_table(story.proof)}"] if story.proof is not None else []
    lines += ["", *said_together(story.lines)] if story.lines else []
    return "\n".join(lines)


def _journey(journey: Journey, width: int) -> list[str]:
    took = f" in {seconds(journey.took_s)}" if journey.took_s is not None else ""
    first = [journey.node, journey.way, journey.strategy, journey.change, f"{journey.state}{took}"]
    why = [f"      {journey.why}"] if journey.why and journey.outcome != "done" else []
    chosen = journey.way == "forward" and journey.reason not in {"", CONFIGURED}
    reason = [f"      by {journey.strategy}, because {journey.reason}"] if chosen else []
    lines = ["  ".join(part for part in first if part), *reason, *why]
    line = "     "
    for step in journey.steps:
        mark = _mark(step)
        if len(line) + 1 + len(mark) > width:
            lines.append(line)
            line = "     "
        line += f" {mark}" if line.isspace() else f"  {mark}"
    lines += [] if line.isspace() else [line]
    for step in journey.steps:
        if step.state == "failed":
            lines.append(f"      {step.name} failed: {step.text}")
            lines += [f"      hint: {step.hint}"] if step.hint else []
    return lines


def _mark(step: StepRun) -> str:
    if step.state == "running":
        return f"{step.name} (not over)"
    if step.state == "skipped":
        return f"{step.name} (done before)"
    failed = " (failed)" if step.state == "failed" else ""
    return f"{step.name} {seconds(step.took_s or 0.0)}{failed}"
