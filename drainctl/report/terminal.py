"""A live table of nodes and their steps on a terminal. rich is loaded when the report is made."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TextIO

from drainctl.journal.events import Event
from drainctl.report.plain import PlainReport
from drainctl.report.story import Journey, StepRun, Story
from drainctl.report.text import clip, one_line, seconds

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.text import Text

FEW_ROWS = 20  # a terminal with fewer rows shows only the nodes in flight
MANY_NODES = 40
FRAMES_PER_S = 4
TOLD_ABOVE = {"note", "step.escalated", "step.failed", "rollout.turned", "rollout.resumed", "rollout.asked"}
TOLD_BELOW = {"proof", "rollout.ended"}
TOLD_TIME_S = 0.1  # a step that took less shows no time
STYLES = {"seen": "green", "skipped": "dim", "failed": "bold red", "running": "yellow"}
ENDS = {"done": "green", "put-back": "yellow", "restored": "yellow", "failed": "bold red"}


class TerminalReport:
    """
    A frame four times a second, in place: a summary, then a row per node, and notes above it. The last
    frame stays, with the proof and the end below it.

    Args:
        stream: default standard error. console: a rich Console instead of one made for `stream`.
        clock: wall clock, Unix seconds. past: the rollout's events before this process, where it is resumed.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.time,
        past: Iterable[Event] = (),
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        self.console = console or Console(file=stream if stream is not None else sys.stderr)
        self._clock = clock
        self._lock = threading.Lock()  # frames are drawn by rich's own thread
        self._story = Story(past)
        self._waits: Mapping[str, str] = {}
        self._plain = PlainReport(clock=clock)
        self._below: list[str] = []
        self._live = Live(
            console=self.console, get_renderable=self.frame, refresh_per_second=FRAMES_PER_S, transient=False
        )

    def event(self, event: Event) -> None:
        with self._lock:
            self._story.add(event)
        if not self._live.is_started:
            self._live.start()
        if event.kind in TOLD_ABOVE:
            self._say(self._plain.lines(event))
        if event.kind in TOLD_BELOW:
            self._below += self._plain.lines(event)

    def progress(self, text_by_node: Mapping[str, str]) -> None:
        with self._lock:
            self._waits = text_by_node

    def close(self) -> None:
        if self._live.is_started:
            self._live.stop()
        self._say(self._below)
        self._below = []

    def frame(self) -> Group:
        """What is shown at this moment."""
        from rich.console import Group
        from rich.table import Table

        with self._lock:
            story, now = self._story, self._clock()
            table = Table.grid(padding=(0, 1))
            for width in (14, 10, 18):
                table.add_column(no_wrap=True, overflow="ellipsis", max_width=width)
            table.add_column(ratio=1, overflow="fold")
            for node in story.nodes:
                journey = story.latest(node)
                if not self._is_small() or (journey and (journey.in_flight or journey.failed)):
                    table.add_row(*self._row(node, journey, now))
            return Group(self._summary(now), self._counts(), table)

    # ------------------------------------------------------------ parts of a frame

    def _is_small(self) -> bool:
        nodes, rows = len(self._story.nodes), self.console.size.height
        return rows < FEW_ROWS or nodes > MANY_NODES or nodes + 2 * len(self._waits) + 3 > rows

    def _summary(self, now: float) -> Text:
        from rich.text import Text

        story = self._story
        spent_s = story.took_s if story.took_s is not None else max(now - story.began_s, 0.0)
        wave = f"wave {story.wave} of {len(story.waves)}" if story.wave else "before the first wave"
        what = f"{story.verb} {story.release}".strip()
        parts = [what, f"rollout {story.rollout}", story.outcome or wave, seconds(spent_s)]
        return Text(
            " · ".join(part for part in parts if part), style="bold", no_wrap=True, overflow="ellipsis"
        )

    def _counts(self) -> Text:
        from rich.text import Text

        counts = dict.fromkeys(("done", "in flight", "to go"), 0)
        for node in self._story.nodes:
            journey = self._story.latest(node)
            state = journey.state if journey and journey.state != "staged" else "to go"
            counts[state] = counts.get(state, 0) + 1
        return Text(", ".join(f"{count} {state}" for state, count in counts.items()), style="dim")

    def _row(self, node: str, journey: Journey | None, now: float) -> tuple[Text, Text, Text, Text]:
        from rich.text import Text

        if journey is None:
            return Text(node), Text(), Text(self._story.previous.get(node) or ""), Text()
        change = journey.change if len(journey.change) <= 18 else f"-> {clip(journey.target or '', 15)}"
        way = "back" if journey.way == "back" else journey.strategy
        cell = _ended(journey) if journey.outcome else self._in_flight(node, journey, now)
        return Text(node, style="bold" if journey.in_flight else ""), Text(way), Text(change), cell

    def _in_flight(self, node: str, journey: Journey, now: float) -> Text:
        cell = _marks([step for step in journey.steps if step.state != "running"])
        waits = one_line(self._waits.get(node, ""))
        running = next((step.name for step in reversed(journey.steps) if step.state == "running"), "")
        if waits or running:
            cell.append("\n" if cell.plain else "")
            cell.append(f"> {waits or running}", style=STYLES["running"])
            cell.append(f" ({seconds(max(now - journey.touched_s, 0.0))})", style="dim")
        return cell

    def _say(self, lines: list[str]) -> None:
        for line in lines:
            self.console.print(line, markup=False, highlight=False)


def _marks(steps: list[StepRun]) -> Text:
    """`flag out idle:0.3 restart:2.1`: names of the steps that are over, with the times that matter."""
    from rich.text import Text

    marks = Text()
    for step in steps:
        time_s = step.took_s or 0.0
        took = f":{time_s:.1f}" if time_s >= TOLD_TIME_S else ""
        failed = "!" if step.state == "failed" else ""
        marks.append(f"{' ' if marks.plain else ''}{step.name}{failed}{took}", style=STYLES[step.state])
    return marks


def _ended(journey: Journey) -> Text:
    """How a journey ended, and what took longest, or why it did not end well."""
    from rich.text import Text

    outcome = journey.outcome or ""
    took = f" {seconds(journey.took_s)}" if journey.took_s is not None else ""
    cell = Text(f"{outcome}{took}", style=ENDS.get(outcome, ""))
    if outcome != "done":
        return cell.append(f": {journey.why}", style="")
    longest = sorted(
        (step for step in journey.steps if step.state == "seen"), key=lambda step: -(step.took_s or 0.0)
    )
    slow = [step for step in longest[:3] if (step.took_s or 0.0) >= TOLD_TIME_S]
    return cell.append(": ", style="dim").append_text(_marks(slow)) if slow else cell
