"""What `drainctl lab` says and does where the lab is a store (`--arb`)."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import click

from drainctl.errors import PreflightError
from drainctl.lab.arb import NAMES, PAIRS, ArbLab, asked

USERS = 4  # per process of the load


def up(folder: Path, base: str) -> None:
    """Start it, and say what can be done with it."""
    it = ArbLab(folder, base=base)
    if not it.free:
        raise PreflightError(
            f"another kind of lab is in {folder}", hint="choose another --dir, or end that one and remove it"
        )
    it.up()
    shards = "\n".join(f"  {shard:7} {', '.join(urls)}" for shard, urls in it.shards.items())
    named = " ".join(f"--shard {shard}={','.join(urls)}" for shard, urls in it.shards.items())
    releases, config = it.folder / "releases", it.config
    click.echo(f"""\
{len(NAMES)} store machines are up, {len(PAIRS)} shards of 2 replicas:
{shards}
next:
  drainctl lab load --dir {it.folder} --seconds 30 &
  drainctl arb status --board {it.board} {named}
  drainctl -c {config} plan {releases}/v2.tar.gz
  drainctl -c {config} deploy {releases}/v2.tar.gz
  drainctl lab down --dir {it.folder}""")


def status(folder: Path) -> None:
    """Each machine: its process, release, lag and queries. Exit code 1 if one does not run."""
    it = ArbLab.open(folder)
    running = it.running()
    for name, process in running.items():
        pages = [asked(it.machine(name), page) for page in ("/version", "/lag", "/queries")]
        version, lag, queries = (body if status == 200 else "?" for status, body in pages)
        pid = f"pid {process.pid}" if process else "stopped"
        click.echo(
            f"{name:8} {pid:12} {it.machine(name):16} {version:8} {lag} s behind, {queries} queries"
            if process
            else f"{name:8} {pid}"
        )
    if not all(running.values()):
        raise SystemExit(1)


def load(folder: Path, *, clients: int, long_s: float, seconds: float) -> None:
    """Load until it has lasted that long (0: until Ctrl-C or SIGTERM). Exit code 1 if a request failed."""
    from drainctl.lab.arb_load import ArbLoad

    it, stop = ArbLab.open(folder), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    processes = max(1, round(clients / USERS))
    with ArbLoad(it.shards, board=str(it.board), processes=processes, users=USERS, long_s=long_s) as load:
        stop.wait(seconds or None)
    click.echo("\n".join(load.report.lines()))
    raise SystemExit(1 if load.report.failed else 0)
