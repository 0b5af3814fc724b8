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
@click.option("--balancers", type=click.IntRange(0, 9), default=2, show_default=True, help="How many.")
@click.option(
    "--strategy",
    type=click.Choice(["http-check", "socket-flip", "port-flip", "backup", "reload"]),
    default="http-check",
    show_default=True,
    help="What the nodes are made for; an in-place one works without balancers too.",
)
@click.option(
    "--arb", is_flag=True, help="A replicated data store instead, for strategy arb: 2 shards of 2 replicas."
)
@click.option(
    "--backup-by",
    type=click.Choice(["socket", "port"]),
    default="socket",
    show_default=True,
    help="Where backup's two processes are; on ports, POSTs are lost.",
)
@click.option("--only", is_flag=True, help="drainctl.yml names this strategy alone, not http-check first.")
@click.option("--base", default="127.0.10", show_default=True, help="First three numbers of all addresses.")
@click.option(
    "--ssh", is_flag=True, help="A real sshd per node; without it nodes are reached as `via: local`."
)
@click.option("--haproxy", type=source, default="auto", show_default=True, help="Where haproxy comes from.")
@click.option("--nginx", type=source, default="auto", show_default=True, help="Where nginx comes from.")
@click.option("--keepalive-min", default="", help="nginx's keepalive_min_timeout, such as 2s (newer nginx).")
@click.option(
    "--gunicorn-start",
    type=click.Choice(["chdir", "resolved", "preload"]),
    default="chdir",
    show_default=True,
    help="How gunicorn comes to the release; the last two keep an old one at a reload.",
)
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
def up(folder: Path, arb: bool, **settings: Any) -> None:
    """
    Start the lab and wait until every server is UP at every balancer.

    \b
    drainctl lab up
    drainctl lab up --dir /tmp/shop --nodes 6 --inter 500ms
    drainctl lab up --nodes 1 --balancers 0 --strategy socket-flip
    drainctl lab up --arb
    """
    from drainctl.lab.arb import is_arb
    from drainctl.lab.cluster import Lab

    if arb or is_arb(folder):
        from drainctl.lab import arb_screen

        arb_screen.up(folder, settings["base"])
        return
    it = Lab(folder, **settings)
    it.up()
    releases, config = it.folder / "releases", it.config
    nodes, balancers = it.settings.nodes, it.settings.balancers
    up = f"{_count(nodes, 'node')} up at {_count(balancers, 'balancer')}" if balancers else ""
    click.echo(f"""\
{up or f"{_count(nodes, 'node')} up, without a balancer"}; next:
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
    from drainctl.lab.arb import ArbLab, is_arb
    from drainctl.lab.cluster import Lab

    click.echo(f"{(ArbLab if is_arb(folder) else Lab).open(folder).down()} processes ended")


@lab.command()
@folder
def status(folder: Path) -> None:
    """
    Which of the lab's services run, and what the balancers show. Exit code 1 if one does not run.

    \b
    drainctl lab status --dir /tmp/shop
    """
    from drainctl.lab.arb import is_arb
    from drainctl.lab.cluster import Lab
    from drainctl.lab.ready import servers

    if is_arb(folder):
        from drainctl.lab import arb_screen

        arb_screen.status(folder)
        return
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
    help="Shares of the kinds of requests; there are also ws and late.",
)
@click.option("--fresh", type=float, default=0.1, show_default=True, help="Share on new connections.")
@click.option(
    "--slow", "slow_s", type=float, default=1.0, show_default=True, help="Seconds a slow page takes."
)
@click.option("--ws", "ws_s", type=float, default=6.0, show_default=True, help="Seconds a WebSocket lives.")
@click.option(
    "--late", "late_s", type=float, default=1.0, show_default=True, help="Seconds a late client is silent."
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

    from drainctl.lab.arb import is_arb
    from drainctl.lab.cluster import Lab
    from drainctl.lab.generator import play
    from drainctl.lab.plan import Plan

    if is_arb(folder) and not urls:  # of a store: --clients, --seconds and --slow, the long queries
        from drainctl.lab import arb_screen

        arb_screen.load(folder, clients=plan["clients"], long_s=plan["slow_s"], seconds=plan["seconds"])
        return
    asked = Plan(urls or Lab.open(folder).urls, **plan)
    report = asyncio.run(play(asked, _tell if live else None))
    if out:
        report.write(out)
    click.echo(report.table())
    raise SystemExit(3 if report.problem else 1 if report.failed else 0)


@lab.command("break")
@folder
@click.argument("fault", required=False)
@click.argument("target", required=False)
@click.option("--for", "seconds", type=click.FloatRange(0, min_open=True), help="Mend it after this time.")
@click.option("--list", "listed", is_flag=True, help="Name every fault and what it does.")
def break_(folder: Path, fault: str | None, target: str | None, seconds: float | None, listed: bool) -> None:
    """
    Break something in the lab, to see what drainctl does about it. TARGET: a node, a balancer, a release.

    \b
    drainctl lab break --list
    drainctl lab break lb-reload lb1
    drainctl lab break ssh-blackholed web2 --for 10
    """
    from drainctl.lab.faults import screen

    if listed or fault is None:
        click.echo(screen.listed())
        return
    screen.broken(folder, fault, target, seconds)


@lab.command()
@folder
def mend(folder: Path) -> None:
    """
    Take away every fault that `break` left.

    \b
    drainctl lab mend --dir /tmp/shop
    """
    from drainctl.lab.faults import screen

    screen.mended(folder)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _tell(tally: Any, seconds: float) -> None:
    total = tally.bins.total()
    click.echo(f"{seconds:5.0f} s  {total} requests, {total - tally.bins['ok']} failed", err=True)
