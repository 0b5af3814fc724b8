"""`drainctl arb`: the down board, for people and rollouts."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from drainctl.errors import ConfigError

if TYPE_CHECKING:
    from drainctl.arb.board import Down
    from drainctl.arb.boards import OpenBoard
    from drainctl.arb.shards import Shard

WRITTEN_S = 5.0  # how long a person waits for a board's store
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

_board = click.option(
    "--board",
    "path",
    required=True,
    envvar="DRAINCTL_ARB_BOARD",
    metavar="BOARD",
    help="A file, postgresql://… or etcd://… [or DRAINCTL_ARB_BOARD].",
)
_shards = click.option(
    "--shard",
    "shards",
    multiple=True,
    metavar="NAME=URL,URL",
    help="A shard and its machines, in the order in which they are asked. Once per shard.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def arb() -> None:
    """
    Which machines of a replicated store are down, who said so, and until when.

    \b
    drainctl arb status --board /run/shop/arb.board
    drainctl arb down 10.0.0.11:8080 --why "new disk" --board /run/shop/arb.board
    drainctl arb up 10.0.0.11:8080 --board /run/shop/arb.board
    """


@arb.command()
@_board
@_shards
@click.option("--json", "as_json", is_flag=True, help="One JSON list.")
@click.option("--metrics", is_flag=True, help="Prometheus' text format.")
def status(path: str, shards: tuple[str, ...], as_json: bool, metrics: bool) -> None:
    """
    Who is down. With --shard, who is up as well.

    \b
    drainctl arb status --board /run/shop/arb.board
    drainctl arb status --board /run/shop/arb.board --json
    """
    known = _known(shards)
    board = _opened(path)
    if metrics:
        from drainctl.arb.metrics import board_metrics

        click.echo(board_metrics(board, known), nl=False)
    elif as_json:
        from dataclasses import asdict

        click.echo(json.dumps([asdict(mark) for mark in board.down().values()], indent=2))
    else:
        for line in table(list(board.down().values()), known, time.time()):
            click.echo(line)
    board.close()


@arb.command()
@click.argument("machines", nargs=-1, required=True, metavar="HOST:PORT...")
@_board
@click.option("--why", default="taken down by hand", show_default=True, help="Shown to whoever asks.")
@click.option(
    "--for", "lasts", metavar="TIME", help="Comes back by itself after, e.g., 10m [default: never]."
)
def down(machines: tuple[str, ...], path: str, why: str, lasts: str | None) -> None:
    """
    Take machines down: no new query goes there while a replica is up. Queries in flight may finish.

    \b
    drainctl arb down 10.0.0.11:8080 --why "new disk" --for 1h --board /run/shop/arb.board
    """
    from drainctl.arb.board import Down, user

    now = time.time()
    until = now + seconds(lasts) if lasts else None
    with_port = [_machine(machine) for machine in machines]
    board = _opened(path)
    for machine in with_port:
        board.mark(Down(machine, now, until, user(), why, by_hand=True))
        _written(board, path)
        click.echo(
            f"{machine} is down" + (f" for {lasts}" if lasts else f" until `drainctl arb up {machine}`")
        )
    board.close()


@arb.command()
@click.argument("machines", nargs=-1, required=True, metavar="HOST:PORT...")
@_board
def up(machines: tuple[str, ...], path: str) -> None:
    """
    Take marks away, whoever set them. A machine that is dead is soon marked again.

    \b
    drainctl arb up 10.0.0.11:8080 --board /run/shop/arb.board
    """
    board = _opened(path)
    for machine in machines:
        was = machine in board.down()
        board.lift(machine, by_hand=True)
        _written(board, path)
        click.echo(f"{machine} is up" if was else f"{machine} was not down")
    board.close()


@arb.command()
@_board
@_shards
@click.option(
    "--every", default="1s", show_default=True, metavar="TIME", help="Between two probes of a machine."
)
@click.option(
    "--path", "probe_path", default="/", show_default=True, help="What is asked for; below 500 is good."
)
def watch(path: str, shards: tuple[str, ...], every: str, probe_path: str) -> None:
    """
    Probe all machines until Ctrl-C or SIGTERM. One such process per machine that has clients.

    A store machine that dies or freezes while nobody uses it is down before anybody asks it.

    \b
    drainctl arb watch --board /run/shop/arb.board --shard users=http://10.0.0.11:8080
    """
    import signal
    import threading

    from drainctl.arb.policy import Policy
    from drainctl.arb.prober import Prober

    known = _known(shards)
    if not known:
        raise ConfigError(
            "nothing to watch", hint="name the shards: --shard users=http://10.0.0.11:8080,http://…"
        )
    board = _opened(path)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    policy = Policy(every_s=seconds(every), probe_path=probe_path)
    click.echo(f"watching {sum(len(shard.machines) for shard in known.values())} machines", err=True)
    Prober(known, board, policy, watch=True).run(stop)
    board.close()


def table(marks: Sequence[Down], shards: dict[str, Shard], now: float) -> list[str]:
    """The screen of `arb status`: one line per machine, who is down first."""
    serves = {machine.name: name for name, shard in shards.items() for machine in shard.machines}
    rows = [("machine", "shard", "state", "since", "until", "by", "why")] if marks or serves else []
    for mark in sorted(marks, key=lambda one: one.machine):
        until = "arb up" if mark.until is None else f"in {ago(mark.until - now)}"
        state = f"rollout {mark.rollout}" if mark.rollout else "by hand" if mark.by_hand else "down"
        since = f"{ago(now - mark.since)} ago"
        rows.append((mark.machine, serves.get(mark.machine, "-"), state, since, until, mark.by, mark.why))
    downs = {mark.machine for mark in marks}
    rows += [(name, shard, "up", "", "", "", "") for name, shard in serves.items() if name not in downs]
    if not rows:
        return ["nobody is down"]
    widths = [max(len(row[at]) for row in rows) for at in range(6)]
    return ["  ".join([*map(str.ljust, row[:6], widths), row[6]]).rstrip() for row in rows]


def ago(span_s: float) -> str:
    """A span of time in its largest unit: `3 s`, `12 m`, `5 h`, `2 d`."""
    span_s = max(0.0, span_s)
    unit = "s"
    for name in ("m", "h", "d"):
        if span_s < _UNITS[name]:
            break
        unit = name
    return f"{span_s / _UNITS[unit]:.0f} {unit}"


def seconds(text: str) -> float:
    """Reads `300ms`, `10s`, `5m`, `2h`, `1d`. Raises: ConfigError."""
    number = text.rstrip("mshd")
    unit = text[len(number) :]
    try:
        span_s = float(number) * _UNITS[unit]
    except (KeyError, ValueError):
        span_s = 0.0
    if span_s <= 0:
        raise ConfigError(f"{text!r} is no time", hint="for example 300ms, 10s, 5m, 2h, 1d")
    return span_s


def _known(described: Sequence[str]) -> dict[str, Shard]:
    from drainctl.arb.shards import shards_of

    pairs = [one.partition("=") for one in described]
    try:
        return shards_of({name: [url for url in urls.split(",") if url] for name, _, urls in pairs})
    except ValueError as error:
        raise ConfigError(
            str(error), hint="for example --shard users=http://10.0.0.11:8080,http://10.0.0.12:8080"
        ) from error


def _machine(text: str) -> str:
    if not text.rpartition(":")[2].isdigit() or not text.rpartition(":")[0]:
        raise ConfigError(f"{text!r} is no host:port", hint="as `drainctl arb status` shows it")
    return text


def _opened(path: str) -> OpenBoard:
    from drainctl.arb.boards import board_of

    try:
        board = board_of(path)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    board.down()
    _written(board, path)
    return board


def _written(board: OpenBoard, path: str) -> None:
    if not board.written(WRITTEN_S):
        from drainctl.arb.boards import shown

        board.close()
        raise ConfigError(
            f"{shown(path)}: {board.trouble or 'no answer'}",
            hint="this user must be able to write it, and its folder or server must be there",
        )
