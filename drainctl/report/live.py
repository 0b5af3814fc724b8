"""
The screen of a rollout: its nodes and their steps, what is awaited, the servers, the traffic, what was told.

Made for one size at a time and never larger than that: where not everything fits, what is in flight, what
failed, and what is not as it should be stay; the rest is counted. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from drainctl.report.board import Board
from drainctl.report.plain import MARGIN
from drainctl.report.servers import LEGEND, odd, servers, traffic
from drainctl.report.story import Journey, StepRun, Story
from drainctl.report.text import clip, one_line, seconds, wrapped

MANY_NODES = 40  # more are never listed one by one
MOST_NOTES, LEAST_NOTES = 6, 2
NAME_WIDTH, WAY_WIDTH, CHANGE_WIDTH = 14, 10, 18
TOLD_TIME_S = 0.1  # a step that took less shows no time
STYLES = {"seen": "green", "skipped": "dim", "failed": "bold red"}
ENDS = {"done": "green", "put-back": "yellow", "restored": "yellow", "failed": "bold red"}
_QUIET = {"done", "staged"}
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
    nodes = _Nodes(view, width, now)
    head = _head(view, nodes, width, now, view.keys)
    head += [Text(clip(view.said, width), style="bold yellow", no_wrap=True)] if view.said else []
    flow = traffic(view.board, width) if view.board else []
    notes = [line for note in view.notes[-MOST_NOTES:] for line in told(note, width)]
    if len(nodes.names) <= MANY_NODES:
        servers_now = _servers(view, nodes.names, (), width)
        whole = _joined([head, nodes.lines(nodes.names), servers_now, flow, notes[-MOST_NOTES:]])
        if len(whole) <= height:
            return whole
    busy = [name for name in nodes.names if nodes.is_urgent(name)]
    others = [name for name in nodes.names if not nodes.is_urgent(name)]
    below = _joined([[], flow, notes[-LEAST_NOTES:]])
    room = height - len(head) - len(below) - 2
    above = _cut([nodes.block(name) for name in busy], max(room, 3))
    servers_now = _servers(view, busy, others, width)[: max(room - len(above) - 1, 0)]
    return _joined([head, above, servers_now, flow, notes[-LEAST_NOTES:]])[:height]


def last_screen(view: View, width: int, now: float) -> list[Text]:
    """What stays of it when the rollout is over: every node, or of many those that are not simply done."""
    nodes = _Nodes(view, width, now)
    names = nodes.names
    if len(names) > MANY_NODES:
        names = [name for name in names if (way := nodes.latest.get(name)) and way.state not in _QUIET]
    return [*_head(view, nodes, width, now), *nodes.lines(names)]


def told(line: str, width: int) -> list[Text]:
    """A line of the plain report, on a terminal of that width."""
    return [Text(part, no_wrap=True) for part in wrapped(line, width, rest=MARGIN)]


def _joined(parts: Sequence[Sequence[Text]]) -> list[Text]:
    """With an empty line between two parts."""
    lines: list[Text] = []
    for number, part in enumerate(parts):
        if part:
            lines += [Text(), *part] if number else part
    return lines


def _cut(blocks: Sequence[list[Text]], room: int) -> list[Text]:
    """As many whole blocks as there is room for, and how many are left."""
    lines: list[Text] = []
    for number, block in enumerate(blocks):
        is_last = number == len(blocks) - 1
        if lines and len(lines) + len(block) + (not is_last) > room:
            return [*lines, Text(f"… and {len(blocks) - number} more nodes in flight", style="dim")]
        lines += block
    return lines


def _servers(view: View, names: Sequence[str], others: Sequence[str], width: int) -> list[Text]:
    """Those of `names`, those of `others` that are not simply UP, and the rest of them together."""
    if view.board is None:
        return []
    strange = odd(view.board, others)
    left = [name for name in others if name not in set(strange)]
    lines = servers(view.board, [*names, *strange], width, others=left, busy=view.story.in_flight)
    return [Text(clip(LEGEND, width), style="dim", no_wrap=True), *lines]


# ---------------------------------------------------------------- the head


def _head(view: View, nodes: _Nodes, width: int, now: float, keys: str = "") -> list[Text]:
    story = view.story
    spent_s = story.took_s if story.took_s is not None else max(now - story.began_s, 0.0)
    wave = f"wave {story.wave} of {len(story.waves)}" if story.wave else "before the first wave"
    what = f"{story.verb} {story.release}".strip()
    parts = [what, f"rollout {story.rollout}", story.outcome or wave, seconds(spent_s)]
    title = clip(" · ".join(part for part in parts if part), width)
    counts = nodes.counts()
    if keys and len(counts) + len(keys) + 2 <= width:
        counts += keys.rjust(width - len(counts))
    return [Text(title, style="bold", no_wrap=True), Text(clip(counts, width), style="dim", no_wrap=True)]


# ---------------------------------------------------------------- the nodes


class _Nodes:
    """A view's nodes as lines of one width, at one moment."""

    def __init__(self, view: View, width: int, now: float) -> None:
        self.names = view.story.nodes
        self.latest = {journey.node: journey for journey in view.story.journeys}
        self._view = view
        self._width = width
        self._now = now
        self._name_width = min(NAME_WIDTH, max(map(len, self.names), default=0))
        changes = {_change(journey) for journey in self.latest.values() if journey.way}
        self._change_width = max(map(len, changes), default=0)

    def is_urgent(self, name: str) -> bool:
        journey = self.latest.get(name)
        return journey is not None and (journey.in_flight or journey.failed)

    def counts(self) -> str:
        """`1 done, 1 in flight, 2 to go`."""
        found = [self.latest[name].state if name in self.latest else "to go" for name in self.names]
        counts = Counter("to go" if state == "staged" else state for state in found)
        told = dict.fromkeys(("done", "in flight", "to go", *counts))
        return ", ".join(f"{counts[state]} {state}" for state in told)

    def lines(self, names: Iterable[str]) -> list[Text]:
        return [line for name in names for line in self.block(name)]

    def block(self, name: str) -> list[Text]:
        """A node's line: how it changes, its steps with the time in each; below, what it waits for."""
        journey, width = self.latest.get(name), self._width
        line = Text(f"{clip(name, NAME_WIDTH):{self._name_width}}", no_wrap=True)
        if journey is None or not journey.way:
            release = clip(self._view.story.previous.get(name) or "", CHANGE_WIDTH)
            line.append(f"  {release}{', staged' if journey else ''}", style="dim")
            line.rstrip()
            return [line]
        line.stylize("bold" if journey.in_flight else "")
        line.append(f"  {_change(journey):{self._change_width}} ")
        lines = _flowed(line, _ended(journey) if journey.outcome else _marks(journey.steps), width)
        waits = "" if journey.outcome else self._awaited(name, journey)
        told = wrapped(waits, width, "  > ", "    ") if waits else []
        return lines + [Text(text, style="yellow", no_wrap=True) for text in told]

    def _awaited(self, name: str, journey: Journey) -> str:
        """`idle for 14 s: 2 requests in flight on lb2; 46 s left`."""
        running = next((step.name for step in reversed(journey.steps) if step.state == "running"), "")
        step, _, why = one_line(self._view.waits.get(name, running)).partition(": ")
        spent = f"{step} for {max(self._now - journey.touched_s, 0.0):.0f} s"
        return "" if not step else f"{spent}: {why}" if why else spent


def _change(journey: Journey) -> str:
    """`http-check 41 -> 42`."""
    change = journey.change
    if len(change) > CHANGE_WIDTH:
        change = f"-> {clip(journey.target or '', CHANGE_WIDTH - 3)}"
    way = clip("back" if journey.way == "back" else journey.strategy, WAY_WIDTH)
    return f"{way} {change}".strip()


def _marks(steps: Sequence[StepRun]) -> Words:
    """`flag out idle:0.3 restart:2.1`: names of the steps that are over, with the times that matter."""
    marks = []
    for step in steps:
        if step.state != "running":
            time_s = step.took_s or 0.0
            took = f":{time_s:.1f}" if time_s >= TOLD_TIME_S else ""
            marks.append((f"{step.name}{'!' if step.state == 'failed' else ''}{took}", STYLES[step.state]))
    return marks


def _ended(journey: Journey) -> Words:
    """How a journey ended, and the steps that took longest, or all of them where it did not end well."""
    outcome = journey.outcome or ""
    end = f"{outcome} {seconds(journey.took_s)}" if journey.took_s is not None else outcome
    steps = journey.steps
    if outcome == "done":
        seen = sorted(
            (step for step in steps if step.state == "seen"), key=lambda step: -(step.took_s or 0.0)
        )
        steps = [step for step in seen[:3] if (step.took_s or 0.0) >= TOLD_TIME_S]
    return [(f"{end}:" if steps else end, ENDS.get(outcome, "")), *_marks(steps)]


def _flowed(line: Text, words: Words, width: int) -> list[Text]:
    """The words behind the line, and on further lines below where they do not fit."""
    line.truncate(width)
    lines = [line]
    for word, style in words:
        text = clip(word, width - 6)
        if len(lines[-1]) + 1 + len(text) > width:
            lines.append(Text("     ", no_wrap=True))
        lines[-1].append(" ").append(text, style=style)
    return lines
