"""
The screen of a rollout: its nodes and their steps, what is awaited, the servers, the traffic, what was told.

Made for one size at a time and never larger than that: where not everything fits, what is in flight, what
failed, and what is not as it should be stay; the rest is counted. Pure.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from drainctl.report.board import Board
from drainctl.report.servers import LEGEND, odd, servers, traffic
from drainctl.report.story import Journey, StepRun, Story
from drainctl.report.text import clip, one_line, seconds

MANY_NODES = 40  # more are never listed one by one
MOST_NOTES = 6
NAME_WIDTH, WAY_WIDTH, CHANGE_WIDTH = 14, 10, 18
TOLD_TIME_S = 0.1  # a step that took less shows no time
STYLES = {"seen": "green", "skipped": "dim", "failed": "bold red", "running": "yellow"}
ENDS = {"done": "green", "put-back": "yellow", "restored": "yellow", "failed": "bold red"}
Words = list[tuple[str, str]]  # with their styles


@dataclass(slots=True)
class View:
    """
    What the screen is made from. waits: what each node in flight waits for. notes: lines that were told,
    oldest first. keys: what the keys do. said: one line of news about the view itself, such as an answer to
    a key. board: None until the balancers were looked at.
    """

    story: Story = field(default_factory=Story)
    waits: Mapping[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    keys: str = ""
    said: str = ""
    board: Board | None = None


def screen(view: View, width: int, height: int, now: float) -> list[Text]:
    """Lines, none wider than `width`, and no more than `height`."""
    story = view.story
    blocks = {name: _block(view, name, width, now) for name in story.nodes}
    urgent = [name for name in blocks if _is_urgent(story.latest(name))]
    head = _head(view, width, now)
    notes = [Text(line, no_wrap=True) for note in view.notes for line in _wrapped(note, width)][-MOST_NOTES:]
    flow = traffic(view.board, width) if view.board else []
    whole = [
        head,
        [line for name in blocks for line in blocks[name]],
        _servers(view, list(blocks), width),
        flow,
        notes,
    ]
    if len(blocks) <= MANY_NODES and sum(len(part) + 1 for part in whole if part) <= height + 1:
        return _joined(whole)
    rest = height - len(head) - sum(len(part) + 1 for part in (flow, notes[-2:]) if part)
    nodes = _cut(blocks, urgent, max(rest - 1, 3))
    rest -= len(nodes) + 1
    busy = _servers(view, urgent, width, others=[name for name in blocks if name not in urgent])
    return _joined([head, nodes, _clipped(busy, rest - 1), flow, notes[-2:]])[:height]


def last_screen(view: View, width: int, now: float) -> list[Text]:
    """What stays of it when the rollout is over: every node, or of many those that are not simply done."""
    story = view.story
    names = story.nodes
    if len(names) > MANY_NODES:
        names = [name for name in names if (way := story.latest(name)) and way.outcome != "done"]
    blocks = [line for name in names for line in _block(view, name, width, now)]
    return [*_head(view, width, now, keys=False), *blocks]


def _joined(parts: Sequence[Sequence[Text]]) -> list[Text]:
    lines: list[Text] = []
    for part in parts:
        if part:
            lines += [Text(), *part] if lines else part
    return lines


def _clipped(lines: list[Text], room: int) -> list[Text]:
    """The first that fit; nothing where that would be a headline alone."""
    return lines[:room] if len(lines[:room]) > 1 else []


def _cut(blocks: Mapping[str, list[Text]], names: Sequence[str], room: int) -> list[Text]:
    """As many whole blocks as there is room for, and how many are left."""
    lines: list[Text] = []
    for number, name in enumerate(names):
        last = number == len(names) - 1
        if len(lines) + len(blocks[name]) + (not last) > room and lines:
            return [*lines, Text(f"… and {len(names) - number} more nodes in flight", style="dim")]
        lines += blocks[name]
    return lines


def _is_urgent(journey: Journey | None) -> bool:
    return journey is not None and (journey.in_flight or journey.failed)


# ---------------------------------------------------------------- the head


def _head(view: View, width: int, now: float, *, keys: bool = True) -> list[Text]:
    story = view.story
    spent_s = story.took_s if story.took_s is not None else max(now - story.began_s, 0.0)
    wave = f"wave {story.wave} of {len(story.waves)}" if story.wave else "before the first wave"
    what = f"{story.verb} {story.release}".strip()
    parts = [what, f"rollout {story.rollout}", story.outcome or wave, seconds(spent_s)]
    title = clip(" · ".join(part for part in parts if part), width)
    lines = [Text(title, style="bold", no_wrap=True)]
    counts, right = _counts(story), view.keys if keys else ""
    if right and len(counts) + len(right) + 2 <= width:
        counts += right.rjust(width - len(counts))
    lines.append(Text(clip(counts, width), style="dim", no_wrap=True))
    if view.said and keys:
        lines.append(Text(clip(view.said, width), style="bold yellow", no_wrap=True))
    return lines


def _counts(story: Story) -> str:
    counts = dict.fromkeys(("done", "in flight", "to go"), 0)
    for node in story.nodes:
        journey = story.latest(node)
        state = journey.state if journey and journey.state != "staged" else "to go"
        counts[state] = counts.get(state, 0) + 1
    return ", ".join(f"{count} {state}" for state, count in counts.items())


# ---------------------------------------------------------------- one node


def _block(view: View, name: str, width: int, now: float) -> list[Text]:
    """A node's line: how it changes, its steps with the time in each; below, what it waits for."""
    journey = view.story.latest(name)
    line = Text(f"{clip(name, NAME_WIDTH):{_name_width(view)}}", no_wrap=True)
    if journey is None:
        line.append(f" {clip(view.story.previous.get(name) or '', CHANGE_WIDTH)}")
        line.rstrip()
        return [line]
    line.stylize("bold" if journey.in_flight else "")
    change = journey.change
    if len(change) > CHANGE_WIDTH:
        change = f"-> {clip(journey.target or '', CHANGE_WIDTH - 3)}"
    way = clip("back" if journey.way == "back" else journey.strategy, WAY_WIDTH)
    line.append("".join(f" {part}" for part in (way, change) if part))
    words = _ended(journey) if journey.outcome else _marks(journey.steps, running=False)
    lines = _flowed(line, words, width)
    if not journey.outcome and (waits := _awaited(view, name, journey, now)):
        lines += [Text(text, style="yellow", no_wrap=True) for text in _wrapped(waits, width, "  > ", "    ")]
    return lines


def _name_width(view: View) -> int:
    return min(NAME_WIDTH, max(map(len, view.story.nodes), default=0))


def _awaited(view: View, name: str, journey: Journey, now: float) -> str:
    waits = one_line(view.waits.get(name, ""))
    running = next((step.name for step in reversed(journey.steps) if step.state == "running"), "")
    spent_s = max(now - journey.touched_s, 0.0)
    return f"{waits or running} (for {seconds(spent_s)})" if waits or running else ""


def _marks(steps: Sequence[StepRun], *, running: bool = True) -> Words:
    """`flag out idle:0.3 restart:2.1`: names of the steps that are over, with the times that matter."""
    marks = []
    for step in steps:
        if step.state != "running" or running:
            time_s = step.took_s or 0.0
            took = f":{time_s:.1f}" if time_s >= TOLD_TIME_S else ""
            marks.append((f"{step.name}{'!' if step.state == 'failed' else ''}{took}", STYLES[step.state]))
    return marks


def _ended(journey: Journey) -> Words:
    """How a journey ended, and what took longest, or why it did not end well."""
    outcome = journey.outcome or ""
    took = f" {seconds(journey.took_s)}" if journey.took_s is not None else ""
    told = f"{outcome}{took}"
    if outcome != "done":
        return [(f"{told}:", ENDS.get(outcome, "")), *((word, "") for word in journey.why.split())]
    over = sorted(
        (step for step in journey.steps if step.state == "seen"), key=lambda step: -(step.took_s or 0.0)
    )
    slow = _marks([step for step in over[:3] if (step.took_s or 0.0) >= TOLD_TIME_S])
    return [(f"{told}:" if slow else told, ENDS["done"]), *slow]


def _flowed(line: Text, words: Words, width: int) -> list[Text]:
    """The words behind the line, and on further lines below where they do not fit."""
    lines = [line]
    for word, style in words:
        text = clip(word, width - 6)
        if len(lines[-1]) + 1 + len(text) > width:
            lines.append(Text("     ", no_wrap=True))
        lines[-1].append(" ").append(text, style=style)
    return lines


def _wrapped(text: str, width: int, first: str = "", rest: str = "  ") -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    ) or [""]


# ---------------------------------------------------------------- the servers


def _servers(view: View, names: Sequence[str], width: int, others: Sequence[str] = ()) -> list[Text]:
    if view.board is None:
        return []
    busy = [name for name in names if _is_urgent(view.story.latest(name))]
    strange = odd(view.board, others)
    left = [name for name in others if name not in strange]
    lines = servers(view.board, [*names, *strange], width, others=left, busy=busy)
    return [Text(clip(LEGEND, width), style="dim", no_wrap=True), *lines]
