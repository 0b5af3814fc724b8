"""What several commands share: global options, the cluster, the reports, and how a rollout is ended."""

from __future__ import annotations

import functools
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from drainctl.called import DEFAULT, as_called
from drainctl.errors import ConfigError, DrainctlError
from drainctl.model import Amount, Cluster
from drainctl.report.door import Listener
from drainctl.rollout.rules import problems
from drainctl.wire import Wired

if TYPE_CHECKING:
    from types import FrameType

    from drainctl.controller import Controller, Result
    from drainctl.journal.events import Event
    from drainctl.report.terminal import TerminalReport
    from drainctl.report.together import Together
    from drainctl.rollout.world import Stop

OUTPUTS = ("text", "plain", "json", "github", "gitlab")


@dataclass(frozen=True, slots=True)
class Options:
    """The global options, wherever on the line they stood."""

    config: str
    output: str
    junit: str | None
    verbose: bool
    yes: bool


@dataclass(frozen=True, slots=True)
class Over:
    """Which nodes a verb goes over, and how many at once, where the line says otherwise than the file."""

    only: tuple[str, ...] = ()
    at_once: str | None = None
    canary: int | None = None


def global_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Global options after the verb as well; the command gets `options: Options`."""

    @click.option("-c", "--config", type=click.Path(), metavar="FILE", hidden=True)
    @click.option("--output", type=click.Choice(OUTPUTS), hidden=True)
    @click.option("--junit", type=click.Path(), metavar="FILE", hidden=True)
    @click.option("-v", "--verbose", is_flag=True, hidden=True)
    @click.option("--yes", is_flag=True, hidden=True)
    @click.pass_context
    @functools.wraps(command)
    def wrapped(
        ctx: click.Context, /, config: str, output: str, junit: str, verbose: bool, yes: bool, **rest: Any
    ) -> Any:
        before = ctx.obj or {}
        options = Options(
            config=config or before.get("config") or DEFAULT,
            output=output or before.get("output") or _usual_output(),
            junit=junit or before.get("junit"),
            verbose=verbose or bool(before.get("verbose")),
            yes=yes or bool(before.get("yes")),
        )
        try:
            return command(options=options, **rest)
        except DrainctlError as error:
            error.args = tuple(as_called(str(each), options.config) for each in error.args)
            error.hint = error.hint and as_called(error.hint, options.config)
            raise

    return wrapped


def _usual_output() -> str:
    if os.environ.get("GITHUB_ACTIONS") == "true":
        return "github"
    if os.environ.get("GITLAB_CI") == "true":
        return "gitlab"
    return "text" if sys.stderr.isatty() else "plain"


@contextmanager
def wired(options: Options, over: Over | None = None) -> Iterator[Wired]:
    """The cluster of `--config` with its adapters. Raises: ConfigError with every problem of the file."""
    from drainctl.config.load import load

    with Wired(_overridden(load(options.config), over or Over())) as adapters:
        yield adapters


def _overridden(cluster: Cluster, over: Over) -> Cluster:
    """The cluster with the line's at_once and canary, held to the same rules as the file's."""
    policy = cluster.rollout
    if over.at_once is not None:
        found = re.fullmatch(r"([1-9]\d*)(%?)", over.at_once)
        if not found:
            raise ConfigError(
                f"--at-once: found {over.at_once!r}, expected a count like 2 or a share like 25%"
            )
        policy = policy._replace(at_once=Amount(int(found[1]), percent=bool(found[2])))
    if over.canary is not None:
        policy = policy._replace(canary=over.canary)
    changed = replace(cluster, rollout=policy)
    if policy != cluster.rollout and (found_problems := problems(changed)):
        raise ConfigError("\n".join(f"{key}: {what}" for key, what in found_problems))
    return changed


def reports(options: Options, past: Sequence[Event] = (), view: TerminalReport | None = None) -> Together:
    """The listeners that `--output` and `--junit` ask for; `view` is the live one, where it can be."""
    from drainctl.report.together import Together

    found: list[Listener] = []
    match options.output:
        case "json":
            from drainctl.report.jsonl import JsonReport

            found.append(JsonReport(sys.stdout))
        case "github":
            from drainctl.report.github import GithubReport

            found.append(GithubReport(verbose=options.verbose, past=past))
        case "gitlab":
            from drainctl.report.gitlab import GitlabReport

            found.append(GitlabReport(verbose=options.verbose, past=past))
        case "text" if view is not None:
            found.append(view)
        case _:
            from drainctl.report.plain import PlainReport

            found.append(PlainReport(sys.stderr, verbose=options.verbose))
    if options.junit:
        from drainctl.report.junit import JunitReport

        found.append(JunitReport(Path(options.junit), past))
    return Together(found)


def live_view(options: Options, past: Sequence[Event] = ()) -> TerminalReport | None:
    """The live view, where text is asked for and standard error is a screen that is ours to draw on."""
    from drainctl.report.keys import in_foreground

    if options.output != "text" or not in_foreground(2) or os.environ.get("TERM", "dumb") == "dumb":
        return None
    from drainctl.report.terminal import TerminalReport

    return TerminalReport(sys.stderr, past=past)


def rollout(
    options: Options,
    do: Callable[[Controller], Result],
    over: Over | None = None,
    *,
    past: Callable[[Wired], Sequence[Event]] = lambda _: (),
) -> None:
    """`go`, then leave with its exit code."""
    raise click.exceptions.Exit(int(go(options, do, over, past=past).exit))


def go(
    options: Options,
    do: Callable[[Controller], Result],
    over: Over | None = None,
    *,
    past: Callable[[Wired], Sequence[Event]] = lambda _: (),
    stop: Stop | None = None,
) -> Result:
    """
    Run one rollout with its reports and signals; the reports tell of it.

    past: the events before this process, of a rollout that is resumed. stop: what signals ask, for whoever
    must know afterwards: a rollout that is at its end when they come has nothing to settle, and is done.
    """
    from drainctl import controller
    from drainctl.rollout import world

    stop = stop or world.Stop()
    report: Together | None = None
    view: TerminalReport | None = None
    with (
        ci_told(options, began=lambda: report is not None and report.heard),
        wired(options, over) as adapters,
        signals(stop, lambda text: bool(view and view.say(text))),
    ):
        before = past(adapters)
        view = live_view(options, before)
        report = reports(options, before, view)
        it = controller.Controller(adapters, [report], stop, lambda text: _say(view, text))
        with _shown(view, adapters, it):
            try:
                return do(it)
            finally:
                report.close()


def _say(view: TerminalReport | None, text: str) -> None:
    """A line for people, on the live view where there is one."""
    if view is None or not view.say(text):
        click.echo(text, err=True)


@contextmanager
def ci_told(options: Options, began: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """What ends the block is told to the CI system too, which `--output` and `--junit` name."""
    try:
        yield
    except DrainctlError as error:
        _tell_ci(options, error, began=began())
        raise


def _tell_ci(options: Options, error: DrainctlError, *, began: bool) -> None:
    """An error that is no event, in the CI system's own form; stderr has it in any case."""
    message, hint = (as_called(text, options.config) for text in (str(error), error.hint or ""))
    code = int(error.exit)
    try:
        if options.output == "github":
            from drainctl.report import github

            github.refused(message, hint or None, code, began=began)
        if options.output == "gitlab":
            from drainctl.report import gitlab

            gitlab.refused(code, began=began)
        if options.junit and not began:
            from drainctl.report import junit

            junit.refused(Path(options.junit), message, hint or None, code)
    except OSError as failed:
        click.echo(f"warning: the CI system was not told: {failed}", err=True)


def _shown(
    view: TerminalReport | None, adapters: Wired, controller: Controller
) -> AbstractContextManager[None]:
    if view is None:
        return nullcontext()
    from drainctl.cli.live import shown

    return shown(view, adapters, controller)


def events_of(adapters: Wired, rollout: str | None) -> Sequence[Event]:
    """What the journal has of a rollout, of the unfinished one when none is named."""
    from drainctl.overview import open_rollout

    if rollout is None:
        state = open_rollout(adapters.store, adapters.cluster.app)
        rollout = state.id if state else None
    return adapters.store.events(rollout) if rollout else ()


@contextmanager
def on_signals(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """SIGINT and SIGTERM go to `handler` for the length of a block."""
    old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)


@contextmanager
def signals(stop: Stop, show: Callable[[str], bool] = lambda _: False) -> Iterator[None]:
    """
    SIGINT and SIGTERM: the first settles the nodes in flight, the second stops at once.

    show: puts a line on the live view; False where there is none.
    """
    told = {1: "settling the nodes in flight; once more stops at once", 2: "stopping at once"}
    times = 0

    def ask(_number: int, _frame: object) -> None:
        nonlocal times
        times += 1
        stop.ask()
        if times in told and not show(f"interrupted: {told[times]}"):
            os.write(2, f"\ninterrupted: {told[times]}\n".encode())  # a signal handler must not use buffers

    with on_signals(ask):
        yield


def names(nodes: Sequence[str]) -> list[str]:
    """`web1,web2 web3` as people write it."""
    return [name for word in nodes for name in word.split(",") if name]
