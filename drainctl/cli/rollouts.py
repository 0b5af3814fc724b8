"""plan, deploy, restart, run, rollback, resume, abort, pause."""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from drainctl.called import as_called
from drainctl.cli.common import Options, Over, events_of, global_options, names, rollout, wired
from drainctl.cli.completion import node_names, rollout_ids
from drainctl.controller import Controller, Result
from drainctl.errors import ConfigError, Exit, PreflightError
from drainctl.model import Cluster, Release, Survey
from drainctl.rollout.choose import Wish
from drainctl.rollout.plan import Plan
from drainctl.rollout.planfile import Asked, Document, asked_in, differences, document, runs_already

SOMETHING_TO_DO = 10  # of `plan --detailed-exitcode`; 2 stays for a wrong configuration


@dataclass(frozen=True, slots=True)
class Source:
    """Where a release comes from, as the command line says it."""

    source: str | None
    release_id: str | None
    sha256: str | None
    line: str | None
    adopt: bool = False
    image: str | None = None


def release_source(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that name a release; the command gets `source: Source`."""

    @click.argument("source", type=click.Path(), required=False)
    @click.option("--id", "release_id", metavar="ID", help="The release's id [default: the file's name].")
    @click.option(
        "--image", metavar="IMAGE", help="An image with its tag, where release.image is configured."
    )
    @click.option(
        "--sha256",
        metavar="HEX",
        help="Expected sum of the archive; needed for a URL. Of an image, its id.",
    )
    @click.option(
        "--command",
        "line",
        metavar="LINE",
        help="Your own deploy command, run on each drained node instead of upload, switch and restart.",
    )
    @click.option(
        "--adopt",
        is_flag=True,
        help="Take over nginx.file where drainctl did not write it; `plan --adopt` shows the change.",
    )
    @functools.wraps(command)
    def wrapped(
        source: str | None,
        release_id: str | None,
        sha256: str | None,
        line: str | None,
        adopt: bool,
        image: str | None,
        **rest: Any,
    ) -> Any:
        return command(source=Source(source, release_id, sha256, line, adopt, image), **rest)

    return wrapped


def over_nodes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of every verb that goes over the nodes; the command gets `over: Over`."""

    @click.option(
        "--only",
        multiple=True,
        metavar="NODE",
        shell_complete=node_names,
        help="Only these nodes (repeat, or a,b).",
    )
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
    @click.option(
        "--steal", is_flag=True, help="Take away others' flags, and go where a higher token has been."
    )
    @functools.wraps(command)
    def wrapped(*args: Any, **rest: Any) -> Any:
        return command(*args, **rest)

    return wrapped


steal_token = click.option(
    "--steal", is_flag=True, help="Also where a drainctl with a higher token has been: a clock may be wrong."
)


@contextmanager
def prepared(cluster: Cluster, source: Source) -> Iterator[Release | None]:
    """The release that is named, checked. Raises: ConfigError, ReleaseError; nothing was touched."""
    if source.line is not None:
        if source.source is not None or source.image is not None:
            raise ConfigError("found SOURCE and --command, expected one of them")
        yield Release(source.release_id) if source.release_id else None
        return
    if source.image is not None or cluster.images is not None:
        yield _image(cluster, source)
        return
    if source.source is None:
        raise ConfigError("found no SOURCE, expected an archive, a directory, a URL, or --command")
    stopping = any({"http-check", "arb"} & set(node.strategy) for node in cluster.nodes)
    if cluster.release is None or (stopping and cluster.service.restart is None):
        raise ConfigError(f"{cluster.file}: to deploy a release, release.root and service.restart are needed")
    from drainctl.node.archive import prepare

    scratch = Path(tempfile.mkdtemp(prefix="drainctl-"))
    try:
        yield prepare(source.source, id=source.release_id, sha256=source.sha256, into=scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _image(cluster: Cluster, source: Source) -> Release:
    if cluster.images is None:
        raise ConfigError(f"{cluster.file}: --image needs release.image, the image without its tag")
    if source.source is None and source.image is None:
        raise ConfigError(
            "found no SOURCE, expected a tag, an archive of `docker save`, --image, or --command"
        )
    from drainctl.node.image import prepare

    return prepare(
        cluster.images.repository, source.source, source.image, id=source.release_id, sha256=source.sha256
    )


@click.command()
@release_source
@over_nodes
@click.option(
    "--out",
    type=click.Path(),
    metavar="FILE",
    help="Write the plan there: `deploy --plan FILE` does that or nothing.",
)
@click.option(
    "--detailed-exitcode", "detailed", is_flag=True, help="End with 10 when there is something to do."
)
@global_options
def plan(options: Options, source: Source, over: Over, out: str | None, detailed: bool) -> None:
    """
    What deploy would do: waves, steps, exact commands, how long, and what stands against it. Touches nothing.

    Ends with 5 when a deploy would be refused now; then no FILE is written. With --detailed-exitcode, 0
    means that every node runs the release already and answers with it, 10 that some do not.

    \b
    drainctl plan shop-1.4.2.tar.gz
    drainctl plan shop-1.4.2.tar.gz --out plan.json
    drainctl deploy --plan plan.json
    """
    from drainctl.cli import plan_edges
    from drainctl.cli.show_plan import plan_text
    from drainctl.rollout.container_changes import container_changes
    from drainctl.rollout.estimate import estimate

    with wired(options, over) as adapters, prepared(adapters.cluster, source) as release:
        cluster, store = adapters.cluster, adapters.store
        wish = Wish("deploy", release=release, line=source.line, only=over.only, adopt=source.adopt)
        made, seen, found = Controller(adapters).plan(wish)
        found = [*plan_edges.unfinished(store, cluster.app), *found]
        expected = estimate(cluster, made, plan_edges.past(store, cluster.app, source.line))
        changes = container_changes(made, adapters.hosts)
        told = document(
            cluster,
            made,
            seen,
            asked=_asked(source, over),
            made=plan_edges.made_now(cluster),
            expected=expected,
            refused=found,
            changes=changes,
        )
    if options.output == "json":
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(as_called(plan_text(cluster, made, seen, found, expected, changes), cluster.file))
    if found:
        raise click.exceptions.Exit(int(Exit.PREFLIGHT))
    if out:
        plan_edges.write(out, told)
        done = f"\nwritten; `drainctl deploy --plan {out}` does exactly this, or nothing"
        click.echo(as_called(done, cluster.file), err=True)
    if detailed and not told["already"]:
        raise click.exceptions.Exit(SOMETHING_TO_DO)


@click.command()
@release_source
@over_nodes
@click.option(
    "--plan",
    "plan_file",
    type=click.Path(),
    metavar="FILE",
    help="Exactly what `plan --out FILE` wrote, or nothing.",
)
@click.option(
    "--abandoned",
    type=click.Choice(["resume", "abort", "fail"]),
    default="fail",
    show_default=True,
    help="What is done first about a rollout whose drainctl died or was interrupted; fail: refuse.",
)
@lease_options
@global_options
def deploy(
    options: Options,
    source: Source,
    over: Over,
    plan_file: str | None,
    abandoned: str,
    wait_s: float,
    steal: bool,
) -> None:
    """
    Roll a release over the cluster: tar (gz, xz, zst), directory, a URL that the nodes fetch, or an image.

    With --plan, SOURCE need not be given. Where drainctl.yml, the release or the cluster is not as it was,
    every difference is named, nothing is touched, and it ends with 5.

    \b
    drainctl deploy shop-1.4.2.tar.gz
    drainctl deploy build/ --id 1.4.2 --canary 1
    drainctl deploy https://ci.example.com/shop-1.4.2.tar.gz --sha256 9f86d0…
    drainctl deploy --command 'sudo /usr/local/bin/update-shop' --id 1.4.2
    drainctl deploy --image shop:1.4.2
    drainctl deploy --plan plan.json
    drainctl deploy shop-1.4.2.tar.gz --abandoned abort --wait 60   # in a pipeline
    """
    planned = None
    if plan_file:
        from drainctl.cli import plan_edges

        planned = plan_edges.read(plan_file)
        source, over = _as_planned(planned, source, over)
    if abandoned != "fail":
        from drainctl.cli.abandoned import settle

        settle(options, abandoned, wait_s, lambda cluster: prepared(cluster, source))

    def go(controller: Controller) -> Result:
        def accept(made: Plan, seen: Survey) -> None:
            if runs_already(controller.cluster, made, seen):
                click.echo(f"every node runs {made.jobs[made.order[0]].target} already: once more", err=True)
            if planned and plan_file:
                _refuse_differences(controller.cluster, made, seen, _asked(source, over), planned, plan_file)

        with prepared(controller.cluster, source) as release:
            wish = Wish(
                "deploy",
                release=release,
                line=source.line,
                only=over.only,
                steal=steal,
                adopt=source.adopt,
            )
            return controller.begin(wish, wait_s=wait_s, accept=accept)

    rollout(options, go, over)


def _asked(source: Source, over: Over) -> Asked:
    from drainctl.cli.plan_edges import absolute

    return Asked(
        absolute(source.source),
        source.release_id,
        source.line,
        over.only,
        over.at_once,
        over.canary,
        source.adopt,
        source.image,
    )


def _as_planned(planned: Document, source: Source, over: Over) -> tuple[Source, Over]:
    """What the plan says; the line may say again where the release is. Raises: ConfigError."""
    given = {
        "--id": source.release_id,
        "--sha256": source.sha256,
        "--command": source.line,
        "--only": over.only,
        "--at-once": over.at_once,
        "--canary": over.canary,
        "--adopt": source.adopt,
        "--image": source.image,
    }
    if twice := [name for name, value in given.items() if value not in (None, (), False)]:
        raise ConfigError(f"found --plan and {', '.join(twice)}, expected --plan alone: the plan says it")
    asked, release = asked_in(planned), planned["release"] or {}
    sha256 = release.get("sha256") if release.get("url") or release.get("image") else None
    where = source.source or asked.source
    return (
        Source(where, release.get("id"), sha256, asked.command, asked.adopt, asked.image),
        Over(asked.only, asked.at_once, asked.canary),
    )


def _refuse_differences(
    cluster: Cluster, made: Plan, seen: Survey, asked: Asked, planned: Document, name: str
) -> None:
    """Raises: PreflightError, naming everything that is not as the plan says."""
    from drainctl.cli.plan_edges import made_now

    now = document(cluster, made, seen, asked=asked, made=made_now(cluster))
    if found := differences(planned, now, name):
        raise PreflightError(
            "\n".join(found), hint="nothing was touched; `drainctl plan SOURCE --out FILE` makes a new plan"
        )


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
    drainctl restart --only web2,web3 --at-once 2
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

    The nodes must still have it: release.keep says how many stay on their disks.

    \b
    drainctl rollback
    drainctl rollback --to 1.4.1
    """
    wish = Wish("rollback", to=to, only=over.only, steal=steal)
    rollout(options, lambda it: it.begin(wish, wait_s=wait_s), over)


@click.command()
@click.argument("rollout_id", metavar="[ROLLOUT]", required=False, shell_complete=rollout_ids)
@steal_token
@global_options
def resume(options: Options, rollout_id: str | None, steal: bool) -> None:
    """
    Go on with a rollout that was paused, halted, interrupted, or whose drainctl died.

    Without ROLLOUT, the latest. What is done already is seen, and not done again. On any machine: what the
    dead drainctl still runs on a node is waited for, and should it wake, the nodes refuse it.

    \b
    drainctl resume
    drainctl resume 20261124-101502-9c3f
    """
    past = partial(events_of, rollout=rollout_id)
    rollout(options, lambda it: it.resume(rollout_id, steal=steal), past=past)


@click.command()
@click.argument("rollout_id", metavar="[ROLLOUT]", required=False, shell_complete=rollout_ids)
@click.option(
    "--from-nodes",
    "by_nodes",
    is_flag=True,
    help="Ask no journal: take back what the nodes themselves show, as a rollout of its own.",
)
@click.option("--to", metavar="ID", help="With --from-nodes: this release [default: the one of before].")
@steal_token
@global_options
def abort(options: Options, rollout_id: str | None, by_nodes: bool, to: str | None, steal: bool) -> None:
    """
    Take a rollout back: every node that it changed gets its old release, by the same draining steps.

    A running one is asked to turn back when its nodes in flight are done. With --from-nodes, for when the
    journal is lost, every node that is out, or on another release than before, goes the draining steps to
    the release of before; `status --from-nodes` shows it first. Nodes that somebody drained by hand stay out.

    \b
    drainctl abort
    drainctl abort 20261124-101502-9c3f
    drainctl abort --from-nodes
    drainctl abort --from-nodes --to 1.4.1
    """
    if by_nodes:
        from drainctl.cli import from_nodes

        if rollout_id is not None:
            raise ConfigError(
                "found ROLLOUT and --from-nodes, expected one of them: the nodes say which it was"
            )
        from_nodes.put_back(options, to)
        return
    if to is not None:
        raise ConfigError("found --to without --from-nodes: the journal says what each node ran before")
    with wired(options) as adapters:
        if adapters.store.held(adapters.cluster.app) is not None:
            asked = Controller(adapters).ask("abort")
            click.echo(f"asked rollout {asked} to turn back after its nodes in flight", err=True)
            return
    past = partial(events_of, rollout=rollout_id)
    rollout(options, lambda it: it.resume(rollout_id, back=True, steal=steal), past=past)


@click.command()
@global_options
def pause(options: Options) -> None:
    """
    Hold the running rollout: its nodes in flight are finished, then it ends; `resume` goes on.

    \b
    drainctl pause
    drainctl resume
    """
    with wired(options) as adapters:
        asked = Controller(adapters).ask("pause")
    click.echo(f"asked rollout {asked} to pause after its nodes in flight", err=True)
