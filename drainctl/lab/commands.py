"""`drainctl lab`: a real cluster on loopback to try things on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

folder = click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("drainctl-lab"),
    show_default=True,
    help="The lab's folder.",
)
source = click.Choice(["auto", "path", "wheel"])


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def lab() -> None:
    """
    A real cluster on loopback: HAProxy, nginx, gunicorn, and load that counts every request.

    \b
    drainctl lab up
    drainctl lab load --seconds 30
    drainctl -c drainctl-lab/drainctl.yml deploy drainctl-lab/releases/v2.tar.gz
    drainctl lab down
    """


@lab.command()
@folder
@click.option("--nodes", type=click.IntRange(1, 200), default=4, show_default=True, help="How many.")
@click.option("--balancers", type=click.IntRange(1, 9), default=2, show_default=True, help="How many.")
@click.option("--base", default="127.0.10", show_default=True, help="First three numbers of all addresses.")
@click.option(
    "--ssh", is_flag=True, help="A real sshd per node; without it nodes are reached as `via: local`."
)
@click.option("--haproxy", type=source, default="auto", show_default=True, help="Where haproxy comes from.")
@click.option("--nginx", type=source, default="auto", show_default=True, help="Where nginx comes from.")
@click.option("--inter", default="1s", show_default=True, help="HAProxy's check interval.")
@click.option(
    "--level",
    type=click.Choice(["admin", "operator", "user"]),
    default="admin",
    show_default=True,
    help="What HAProxy's sockets allow; nudges need admin.",
)
@click.option("--stats-only", is_flag=True, help="Describe the balancers by their stats pages, read only.")
@click.option(
    "--master-worker/--no-master-worker",
    default=True,
    show_default=True,
    help="Whether HAProxy runs as a master and its workers.",
)
@click.option("--cookie", is_flag=True, help="Clients stay with their server by a cookie.")
@click.option("--state-file", is_flag=True, help="HAProxy loads its server state at a reload.")
def up(folder: Path, **settings: Any) -> None:
    """
    Start the lab and wait until every server is UP at every balancer.

    \b
    drainctl lab up
    drainctl lab up --dir /tmp/shop --nodes 6 --inter 500ms
    """
    from drainctl.lab.cluster import Lab

    it = Lab(folder, **settings)
    it.up()
    releases, config = it.folder / "releases", it.config
    click.echo(f"""\
{len(it.settings.node_names)} nodes are UP at {len(it.urls)} balancers; next:
  curl -i {it.urls[0]}/
  drainctl lab load --dir {it.folder} --seconds 30 &
  drainctl -c {config} plan {releases}/v2.tar.gz
  drainctl -c {config} deploy {releases}/v2.tar.gz
  drainctl lab down --dir {it.folder}""")


@lab.command()
@folder
def down(folder: Path) -> None:
    """
    End every process of the lab; its files stay.

    \b
    drainctl lab down --dir /tmp/shop
    """
    from drainctl.lab.cluster import Lab

    click.echo(f"{Lab.open(folder).down()} processes ended")


@lab.command()
@folder
def status(folder: Path) -> None:
    """
    Which of the lab's services run, and what the balancers show. Exit code 1 if one does not run.

    \b
    drainctl lab status --dir /tmp/shop
    """
    from drainctl.lab.cluster import Lab
    from drainctl.lab.ready import servers

    it = Lab.open(folder)
    running = it.running()
    for name, master in running.items():
        click.echo(f"{name:16} {f'pid {master.pid}' if master else 'stopped'}")
    for name in it.settings.balancer_names:
        try:
            seen = servers(it.socket(name), it.settings.app)
            shown = ", ".join(f"{server} {state}" for server, state in seen.items())
        except OSError as error:
            shown = str(error)
        click.echo(f"{name:16} {shown}")
    if not all(running.values()):
        raise SystemExit(1)


@lab.command()
@folder
@click.option(
    "--url", "urls", multiple=True, help="Ask here instead of the lab's balancers (several: shared)."
)
@click.option(
    "--clients", type=click.IntRange(1), default=16, show_default=True, help="Closed loop: how many."
)
@click.option(
    "--rate", type=float, default=0.0, help="Open loop instead: requests per second, come what may."
)
@click.option("--seconds", type=float, default=0.0, help="End after this time.")
@click.option("--requests", type=int, default=0, help="End after this many requests.")
@click.option(
    "--mix",
    default="get=60,post=30,slow=3,stream=7",
    show_default=True,
    help="Shares of the kinds of requests.",
)
@click.option("--fresh", type=float, default=0.1, show_default=True, help="Share on new connections.")
@click.option(
    "--slow", "slow_s", type=float, default=1.0, show_default=True, help="Seconds a slow page takes."
)
@click.option(
    "--timeout", "timeout_s", type=float, default=15.0, show_default=True, help="Seconds per request."
)
@click.option("--expect-version", "expect", default="", help="From SIGUSR1 on, only this release may answer.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="Write the report here.")
@click.option("--live", is_flag=True, help="A line per second.")
def load(folder: Path, urls: tuple[str, ...], out: Path | None, live: bool, **plan: Any) -> None:
    """
    Ask the lab's pages and count what becomes of every request. Nothing is ever asked twice.

    It ends at --seconds, at --requests or when told by Ctrl-C or SIGTERM, waits for what is in flight, and
    prints its report. Exit code 0: none failed; 1: some did; 3: the load itself is not to be trusted.

    \b
    drainctl lab load --dir /tmp/shop --seconds 30
    drainctl lab load --dir /tmp/shop --rate 200 --requests 10000 --json report.json
    """
    import asyncio

    from drainctl.lab.cluster import Lab
    from drainctl.lab.generator import play
    from drainctl.lab.plan import Plan

    asked = Plan(urls or Lab.open(folder).urls, **plan)
    report = asyncio.run(play(asked, _tell if live else None))
    if out:
        report.write(out)
    click.echo(report.table())
    raise SystemExit(3 if report.problem else 1 if report.failed else 0)


def _tell(tally: Any, seconds: float) -> None:
    total = tally.bins.total()
    click.echo(f"{seconds:5.0f} s  {total} requests, {total - tally.bins['ok']} failed", err=True)
