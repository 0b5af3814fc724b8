"""One line per thing that matters, for logs, pipes and three in the morning. Never any colour."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from datetime import tzinfo
from typing import TextIO

from drainctl.journal.events import Event
from drainctl.report.story import said
from drainctl.report.text import clock_time, day_time, one_line, proof_table, said_together, seconds, wrapped

HEARTBEAT_S = 30.0
HEARTBEAT_NODES = 4  # a heartbeat names no more of the nodes in flight
MARGIN = " " * 9  # of a wrapped line: below what comes after the time
TEXT_WIDTH = 46  # with a node of four letters, a line whose text fits is 80 columns wide
VERBOSE_ONLY = {"step.intended", "step.acted"}  # and the begin of a way forward
SILENT_STEPS = {"guard", "quiet"}  # said only when they had to wait for a second
CONFIGURED = "configured"  # the reason of a strategy that was the first choice
BEFORE = {"step.intended": "will ", "step.acted": "did: ", "step.failed": "failed: "}


class PlainReport:
    """
    Lines such as `14:02:11 web1  out       NOLB on lb1, lb2                 0.01 s`.

    Args:
        stream: default standard error.
        verbose: also what is intended and done, and every step.
        clock: wall clock, Unix seconds. zone: of the printed times; default this machine's.
        width: columns of a terminal, where lines are to be wrapped.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        verbose: bool = False,
        clock: Callable[[], float] = time.time,
        zone: tzinfo | None = None,
        width: Callable[[], int] | None = None,
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._verbose = verbose
        self._clock = clock
        self._zone = zone
        self._width = width
        self._node_width = 0
        self._step_width = 8
        self._began_s: dict[str, float] = {}
        self._last_s = clock()

    def event(self, event: Event) -> None:
        nodes = [node for wave in event.data.get("waves", ()) for node in wave]
        self._node_width = max(self._node_width, len(event.node or ""), *map(len, nodes), 0)
        self._step_width = max(self._step_width, len(event.step or ""))
        if event.kind == "node.began" and event.node:
            self._began_s[event.node] = event.at_s
        if lines := self.lines(event):
            self._print(lines)

    def progress(self, text_by_node: Mapping[str, str]) -> None:
        now = self._clock()
        if not text_by_node or now - self._last_s < HEARTBEAT_S:
            return
        lines = []
        for node, text in list(text_by_node.items())[:HEARTBEAT_NODES]:
            step, _, waits = one_line(text).partition(": ")
            lines.append(self._of_node(now, node, step, f"waits: {waits or step}"))
        if len(text_by_node) > HEARTBEAT_NODES:
            more = len(text_by_node) - HEARTBEAT_NODES
            lines.append(f"{clock_time(now, self._zone)} and {more} more in flight")
        self._print(lines)

    def close(self) -> None:
        self._stream.flush()

    def lines(self, event: Event) -> list[str]:
        """The event as lines, none where it is only of use to `verbose`."""
        if not self._verbose and _is_detail(event):
            return []
        return self._whole(event) if event.node is None else self._node(event, event.node)

    def _whole(self, event: Event) -> list[str]:
        at, data, text = clock_time(event.at_s, self._zone), event.data, said(event)
        match event.kind:
            case "rollout.began":
                return [
                    f"{at} rollout {event.rollout}, {day_time(event.at_s, self._zone)}",
                    f"{at} {text}",
                ]
            case "rollout.ended":
                spent = f", {seconds(data['took_s'])}" if "took_s" in data else ""
                lines = said_together([one_line(str(line)) for line in data.get("lines", ())])
                why = one_line(data.get("why") or text)
                return [f"{at} {data['outcome']}: {why} (exit {data['exit']}{spent})", *lines]
            case "proof":
                first, *rest = proof_table(data).splitlines()
                return [f"{at} proof: {first}", *(f"  {line}" for line in rest)]
        return [f"{at} {text}"]

    def _node(self, event: Event, node: str) -> list[str]:
        data, text = event.data, said(event)
        took_s = data.get("took_s")
        match event.kind:
            case "node.began":
                fell_back = data["way"] == "forward" and data.get("reason", CONFIGURED) != CONFIGURED
                column = "fallback" if fell_back else data["way"]
            case "node.ended":
                column, text = data["outcome"], one_line(data.get("why") or text)
                if took_s is None and node in self._began_s:
                    took_s = event.at_s - self._began_s[node]
            case _:
                column, text = event.step or "note", BEFORE.get(event.kind, "") + text
        lines = [self._of_node(event.at_s, node, column, text, took_s)]
        if hint := one_line(data.get("hint") or ""):
            lines.append(f"{'':8} {'':{self._node_width}}  hint: {hint}")
        return lines

    def _of_node(self, at_s: float, node: str, step: str, text: str, took_s: float | None = None) -> str:
        who = f"{clock_time(at_s, self._zone)} {node:{self._node_width}}"
        line = f"{who}  {step:{self._step_width}}  {text:{TEXT_WIDTH}}"
        return f"{line}  {seconds(took_s):>7}" if took_s is not None else line.rstrip()

    def _print(self, lines: list[str]) -> None:
        if self._width is not None:
            lines = [part for line in lines for part in wrapped(line, self._width(), rest=MARGIN)]
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()
        self._last_s = self._clock()


def _is_detail(event: Event) -> bool:
    if event.kind == "step.seen" and event.step in SILENT_STEPS:
        return float(event.data.get("took_s", 0.0)) < 1.0
    if event.kind == "node.began":  # a way that was not the first choice is worth its line
        return event.data.get("way") == "forward" and event.data.get("reason", CONFIGURED) == CONFIGURED
    return event.kind in VERBOSE_ONLY
