"""plan, deploy, restart, run, rollback, resume, abort, pause."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from drainctl.cli.common import Options, Over, events_of, global_options, names, rollout, wired
from drainctl.controller import Controller, Result
from drainctl.errors import ConfigError, Exit
from drainctl.model import Cluster, Release
from drainctl.rollout.choose import Wish


@dataclass(frozen=True, slots=True)
class Source:
    """Where a release comes from, as the command line says it."""

    source: str | None
    release_id: str | None
    sha256: str | None
    line: str | None


def release_source(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that name a release; the command gets `source: Source`."""

    @click.argument("source", required=False)
    @click.option("--id", "release_id", metavar="ID", help="The release's id [default: the file's name].")
    @click.option("--sha256", metavar="HEX", help="Expected sum of the archive; needed for a URL.")
    @click.option(
        "--command",
        "line",
        metavar="LINE",
        help="Your own deploy command, run on each drained node instead of upload, switch and restart.",
    )
    @functools.wraps(command)
    def wrapped(
        source: str | None, release_id: str | None, sha256: str | None, line: str | None, **rest: Any
    ) -> Any:
        return command(source=Source(source, release_id, sha256, line), **rest)

    return wrapped


def over_nodes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every verb that goes over the nodes; the command gets `over: Over`."""

    @click.option("--only", multiple=True, metavar="NODE", help="Only these nodes (repeat, or a,b).")
    @click.option("--at-once", metavar="N|N%", help="Overrides rollout.at_once.")
    @click.option("--canary", type=click.IntRange(min=0), metavar="N", help="Overrides rollout.canary.")
    @functools.wraps(command)
    def wrapped(only: tuple[str, ...], at_once: str | None, canary: int | None, **rest: Any) -> Any:
        return command(over=Over(tuple(names(only)), at_once, canary), **rest)

    return wrapped


def lease_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--wait and --steal."""

    @click.option(
        "--wait", "wait_s", type=float, default=0.0, metavar="SECONDS", help="Wait this long for the lease."
    )
    @click.option("--steal", is_flag=True, help="Take away flags that somebody else set.")
    @functools.wraps(command)
    def wrapped(*args: Any, **rest: Any) -> Any:
        return command(*args, **rest)

    return wrapped


@contextmanager
def prepared(cluster: Cluster, source: Source) -> Iterator[Release | None]:
    """The release that is named, checked. Raises: ConfigError, ReleaseError; nothing was touched."""
    if source.line is not None:
        if source.source is not None:
            raise ConfigError("found SOURCE and --command, expected one of them")
        yield Release(source.release_id) if source.release_id else None
        return
    if source.source is None:
        raise ConfigError("found no SOURCE, expected an archive, a directory, a URL, or --command")
    if cluster.release is None or cluster.service.restart is None:
        raise ConfigError(f"{cluster.file}: to deploy a release, release.root and service.restart are needed")
    from drainctl.node.archive import prepare

    scratch = Path(tempfile.mkdtemp(prefix="drainctl-"))
    try:
        yield prepare(source.source, id=source.release_id, sha256=source.sha256, into=scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@click.command()
@release_source
@over_nodes
@global_options
def plan(options: Options, source: Source, over: Over) -> None:
    """
    What deploy would do: waves, steps, exact commands, and what stands against it. Touches nothing.

    Ends with 5 when a deploy would be refused now.

    \b
    drainctl plan shop-1.4.2.tar.gz
    """
    from drainctl.cli.show_plan import plan_text

    with wired(options, over) as adapters, prepared(adapters.cluster, source) as release:
        wish = Wish("deploy", release=release, line=source.line, only=over.only)
        made, seen, found = Controller(adapters).plan(wish)
        click.echo(plan_text(adapters.cluster, made, seen, found))
    if found:
        raise click.exceptions.Exit(int(Exit.PREFLIGHT))


@click.command()
@release_source
@over_nodes
@lease_options
@global_options
def deploy(options: Options, source: Source, over: Over, wait_s: float, steal: bool) -> None:
    """
    Roll a release over the cluster: tar (gz, xz, zst), directory, or a URL that the nodes fetch.

    \b
    drainctl deploy shop-1.4.2.tar.gz
    drainctl deploy build/ --id 1.4.2 --canary 1
    drainctl deploy https://ci.example.com/shop-1.4.2.tar.gz --sha256 9f86d0…
    drainctl deploy --command 'sudo /usr/local/bin/update-shop' --id 1.4.2
    """

    def go(controller: Controller) -> Result:
        with prepared(controller.cluster, source) as release:
            wish = Wish("deploy", release=release, line=source.line, only=over.only, steal=steal)
            return controller.begin(wish, wait_s=wait_s)

    rollout(options, go, over)


@click.command()
@over_nodes
@lease_options
@global_options
def restart(options: Options, over: Over, wait_s: float, steal: bool) -> None:
    """
    Roll a restart: each node drained, service.restart, warmed, back, watched.

    \b
    drainctl restart
    drainctl restart --only web2
    """
    wish = Wish("restart", only=over.only, steal=steal)
    rollout(options, lambda it: it.begin(wish, wait_s=wait_s), over)


@click.command()
@click.argument("line", metavar="COMMAND")
@over_nodes
@lease_options
@global_options
def run(options: Options, line: str, over: Over, wait_s: float, steal: bool) -> None:
    """
    Roll any command: drain, run it on the node, wait until the app is ready, restore.

    It must end with 0, and may be run twice if drainctl dies in the middle of it.

    \b
    drainctl run 'sudo apt-get -y upgrade openssl && sudo systemctl restart shop'
    """
    wish = Wish("run", line=line, only=over.only, steal=steal)
    rollout(options, lambda it: it.begin(wish, wait_s=wait_s), over)


@click.command()
@click.option("--to", metavar="ID", help="This release [default: the one before the current, per node].")
@over_nodes
@lease_options
@global_options
def rollback(options: Options, to: str | None, over: Over, wait_s: float, steal: bool) -> None:
    """
    Roll back to the release of before, by the same steps.

    \b
    drainctl rollback
    drainctl rollback --to 1.4.1
    """
    wish = Wish("rollback", to=to, only=over.only, steal=steal)
    rollout(options, lambda it: it.begin(wish, wait_s=wait_s), over)


@click.command()
@click.argument("rollout_id", metavar="[ROLLOUT]", required=False)
@global_options
def resume(options: Options, rollout_id: str | None) -> None:
    """
    Go on with a rollout that was paused, halted, interrupted, or whose drainctl died.

    \b
    drainctl resume
    """
    rollout(options, lambda it: it.resume(rollout_id), past=partial(events_of, rollout=rollout_id))


@click.command()
@click.argument("rollout_id", metavar="[ROLLOUT]", required=False)
@global_options
def abort(options: Options, rollout_id: str | None) -> None:
    """
    Take a rollout back: every node that it changed gets its old release, by the same draining steps.

    A running one is asked to turn back when its nodes in flight are done.

    \b
    drainctl abort
    """
    with wired(options) as adapters:
        if adapters.store.held(adapters.cluster.app) is not None:
            asked = Controller(adapters).ask("abort")
            click.echo(f"asked rollout {asked} to turn back after its nodes in flight", err=True)
            return
    past = partial(events_of, rollout=rollout_id)
    rollout(options, lambda it: it.resume(rollout_id, back=True), past=past)


@click.command()
@global_options
def pause(options: Options) -> None:
    """
    Hold the running rollout: its nodes in flight are finished, then it ends; `resume` goes on.

    \b
    drainctl pause
    """
    with wired(options) as adapters:
        asked = Controller(adapters).ask("pause")
    click.echo(f"asked rollout {asked} to pause after its nodes in flight", err=True)
