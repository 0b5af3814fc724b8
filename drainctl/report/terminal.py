"""
The live view of a rollout: a whole screen four times a second, and at its end what a person must keep.

It takes the terminal's other screen, so that a resize never leaves half of an old frame, and what stood
there before comes back. rich is loaded when the report is made.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TextIO, cast

from drainctl.errors import DrainctlError
from drainctl.journal.events import Event
from drainctl.model import BalancerLook
from drainctl.report.keys import Keys
from drainctl.report.plain import PlainReport

if TYPE_CHECKING:
    from rich.console import Console, Group

    from drainctl.report.board import Board

FRAMES_PER_S = 4
LOOKS_KEPT = 1000  # between two frames; far more than there are
TOLD = {"note", "step.escalated", "step.failed", "rollout.turned", "rollout.resumed", "rollout.asked"}
TOLD_BELOW = {"proof", "rollout.ended"}
KEYS = "p pauses, q leaves the view"
LEFT = "left the view; the rollout goes on, Ctrl-C stops it, `drainctl status --watch` shows it"


class TerminalReport:
    """
    The view while the rollout runs; then, on the terminal's own screen, what was told, the nodes, the proof
    and the end. The key q leaves the view: from then on it is plain lines. p asks the rollout to pause.

    Args:
        stream: default standard error. console: a rich Console instead of one made for `stream`.
        clock: wall clock, Unix seconds. past: the rollout's events before this process, where it is resumed.
        keys: makes the reader of keys; default: of standard input.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        console: Console | None = None,
        clock: Callable[[], float] = time.time,
        past: Iterable[Event] = (),
        keys: Callable[[Callable[[str], object]], Keys] = Keys,
    ) -> None:
        from rich.console import Console
        from rich.live import Live

        from drainctl.report.live import View
        from drainctl.report.story import Story

        self.console = console or Console(file=stream if stream is not None else sys.stderr)
        self.pause: Callable[[], object] | None = None
        self._clock = clock
        self._lock = threading.Lock()  # frames are drawn by rich's own thread, looks come from the fleet's
        self._view = View(Story(past))
        self._plain = PlainReport(
            cast("TextIO", self.console.file), clock=clock, width=lambda: self.console.width
        )
        self._below: list[str] = []
        self._looks: deque[BalancerLook] = deque(maxlen=LOOKS_KEPT)
        self._left = self._asked = False
        self._keys = keys(self._pressed)
        self._live = Live(
            console=self.console,
            get_renderable=self.frame,
            refresh_per_second=FRAMES_PER_S,
            screen=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    @property
    def on(self) -> bool:
        """Whether the view is on the terminal now."""
        return self._live.is_started

    @property
    def has_board(self) -> bool:
        """Whether `show` was called."""
        return self._view.board is not None

    def event(self, event: Event) -> None:
        with self._lock:
            self._view.story.add(event)
        if self._left:
            self._plain.event(event)
            return
        if not self.on:
            self._live.start()
            if self._keys.start():
                self._view.keys = KEYS if self.pause else KEYS.partition(", ")[2]
        lines = self._plain.lines(event)
        if event.kind in TOLD_BELOW:
            self._below += ["", *lines] if event.kind == "rollout.ended" else lines
        elif event.kind in TOLD:
            with self._lock:
                self._view.notes += lines

    def progress(self, text_by_node: Mapping[str, str]) -> None:
        with self._lock:
            self._view.waits = text_by_node
        if self._left:
            self._plain.progress(text_by_node)

    def show(self, board: Board) -> None:
        """From now on the servers on this board are shown, and looks change it."""
        with self._lock:
            self._view.board = board

    def look(self, look: BalancerLook) -> None:
        """What a balancer shows; taken note of with the next frame, so that nobody waits here."""
        self._looks.append(look)

    def say(self, text: str) -> bool:
        """Show one line at the top of the view; signal handlers may. Returns: whether the view is on."""
        self._view.said = text
        return self.on

    def close(self) -> None:
        """Leave the terminal as it was, with what must be kept on it. May be called twice."""
        self._keys.stop()
        if self.on:
            self._leave()
        self._print(self._below)
        self._below = []

    def frame(self) -> Group:
        """What is shown at this moment."""
        from rich.console import Group

        from drainctl.report.live import screen

        width, height = self.console.size
        with self._lock:
            while self._looks:
                look = self._looks.popleft()
                if self._view.board:
                    self._view.board.look(look)
            return Group(*screen(self._view, width, height, self._clock()))

    # ------------------------------------------------------------ leaving

    def _leave(self) -> None:
        from drainctl.report.live import last_screen

        self._live.stop()
        with self._lock:
            notes, lines = self._view.notes, last_screen(self._view, self.console.width, self._clock())
        self._print(notes)
        for line in lines:
            self.console.print(line)

    def _print(self, lines: Iterable[str]) -> None:
        from drainctl.report.live import told

        for line in lines:
            for part in told(line, self.console.width):
                self.console.print(part)

    # ------------------------------------------------------------ keys

    def _pressed(self, key: str) -> None:
        if key == "q" and not self._left:
            self._left = True
            self._keys.stop()
            self._leave()
            self._print([LEFT])
        elif key == "p" and self.pause and not self._asked:
            try:
                self.pause()
            except DrainctlError as error:
                self.say(f"p: {error}")
                return
            self._asked = True
            self.say("pausing after the nodes in flight; `drainctl resume` goes on then")
