"""`recover`: stands by, and takes over a rollout whose drainctl died."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import click

from drainctl.cli.common import Options, events_of, global_options, go, on_signals, wired
from drainctl.errors import DrainctlError, Exit, JournalError, LeaseHeld
from drainctl.journal.replay import CLOSED, RolloutState
from drainctl.overview import open_rollout
from drainctl.rollout.world import Stop
from drainctl.wire import Wired

TOLD = {"resume": "resumed", "abort": "taken back"}
JITTER_S = 3.0


@click.command()
@click.option("--watch", is_flag=True, help="Stand by until SIGTERM or Ctrl-C, instead of looking once.")
@click.option(
    "--then",
    "how",
    type=click.Choice(["resume", "abort"]),
    default="resume",
    show_default=True,
    help="What is done about it.",
)
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch: how often the journal is asked.",
)
@global_options
def recover(options: Options, watch: bool, how: str, every_s: float) -> None:
    """
    Take over a rollout whose drainctl died: its lease ran out, and its rollout is still open.

    On any machine that reaches the store and the nodes. Several may stand by: each waits a moment of its own,
    and the lease decides. A rollout that halted, was paused or interrupted is left to people. Without
    --watch it ends with 0 where there is nothing to do, else as resume or abort does.

    \b
    drainctl recover
    drainctl recover --watch --then abort
    """
    with _stopping() as stop, wired(options) as adapters:
        watcher = Watcher(options, how, adapters, stop)
        code = watcher.look()
        while watch and code != Exit.INTERRUPTED and not stop.wait(every_s):
            code = watcher.look()
    if watch and code != Exit.INTERRUPTED:
        watcher.say("ended")
        code = Exit.DONE
    raise click.exceptions.Exit(int(code))


@dataclass
class Watcher:
    """One line per change of what is seen. again_s: when a take-over that failed is tried again."""

    options: Options
    how: str
    adapters: Wired
    stop: threading.Event
    said: str = ""
    failures: int = 0
    again_s: float = 0.0
    clock: Callable[[], float] = field(default=time.monotonic)

    def look(self) -> Exit:
        """Look once, and take over what is left; the exit code that stands for it."""
        try:
            state = self._left()
            if state is None or self.clock() < self.again_s:
                return Exit.DONE
            if not self.failures:
                self.say(f"rollout {state.id} is open, and nobody holds the lease: its drainctl died")
            self.stop.wait(random.uniform(0, JITTER_S))  # noqa: S311  so that not all come at once
            if self.stop.is_set() or (state := self._left()) is None:
                return Exit.DONE
            return self._take_over(state)
        except JournalError as error:
            self.say(f"the journal cannot be read: {error}", news="journal")
            return error.exit

    def _left(self) -> RolloutState | None:
        """The open rollout that nobody works on. The lease is asked first: it is given back last."""
        store, app = self.adapters.store, self.adapters.cluster.app
        lease = store.held(app)
        if lease is not None:
            self.say(f"rollout {lease.rollout} is run by {lease.holder}")
            return None
        state = open_rollout(store, app)
        if state is None:
            self.say("no rollout is open")
        elif state.ended is not None:
            self.say(f"rollout {state.id} is {state.ended}: it is left to people (drainctl show {state.id})")
        else:
            return state
        return None

    def _take_over(self, state: RolloutState) -> Exit:
        back, asked = self.how == "abort", Stop()
        past = partial(events_of, rollout=state.id)
        try:
            result = go(self.options, lambda it: it.resume(state.id, back=back), past=past, stop=asked)
        except DrainctlError as error:
            if isinstance(error, LeaseHeld) and self._left() is None:
                return Exit.DONE  # another one was faster, as has been said
            self.failures += 1
            self.again_s = self.clock() + min(60.0, 5.0 * 2 ** (self.failures - 1))
            self.say(f"rollout {state.id} could not be {TOLD[self.how]}: {error}", news="failed")
            return error.exit
        finally:
            if asked.asked:  # perhaps too late for the rollout, but not for the watch
                self.stop.set()
        self.failures = 0
        over = "over" if result.outcome in CLOSED else "left to people"
        self.say(f"rollout {state.id} was {TOLD[self.how]}: {result.outcome}, so it is {over}")
        return result.exit

    def say(self, text: str, news: str = "") -> None:
        """Told where it is news; `news` is what makes it that, where the words may differ each time."""
        if (news or text) != self.said:
            self.said = news or text
            click.echo(f"{time.strftime('%H:%M:%S', time.gmtime())} {text}", err=True)


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """Set by SIGINT and SIGTERM, while no rollout runs: that one has handlers of its own."""
    stop = threading.Event()
    with on_signals(lambda *_: stop.set()):
        yield stop
