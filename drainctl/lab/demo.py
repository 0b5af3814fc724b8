"""
`make demo`: two releases rolled over a real cluster under load, one naively and one by drainctl.

    python -m drainctl.lab.demo [--dir DIR] [--base 127.0.10] [--rate 250] [--keep]

Exit code 0: the naive half failed requests, and drainctl's failed none; 1: one of the halves failed, and
which; 2 or 5: the lab could not be set up; 130: interrupted. The lab is ended whatever happens, unless it
is to be kept and all went well.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path

import click

from drainctl.errors import ConfigError, DrainctlError, Exit, PreflightError
from drainctl.lab.cluster import Lab
from drainctl.lab.compare import Half, lines, table, verdict
from drainctl.lab.halves import SLOW_S, drained_half, handlers, naive_half
from drainctl.lab.programs import find
from drainctl.lab.screen import Screen, program, short

RATE = 250.0  # requests per second; they come whatever the answers do, so both halves bear the same
FAILED = Exit.PUT_BACK  # 1: the demo does not show what it should


def show(lab: Lab, screen: Screen, *, rate: float = RATE, keep: bool = False) -> int:
    """
    The whole demo, on a lab that is not up yet. Returns: the exit code.

    The lab is ended on every way out but a success that is to be kept. Its files go with it, unless a half
    failed: then its logs stay, and the last line says where.
    """
    code = int(Exit.HALTED)
    try:
        set_up(lab, screen, rate)
        code = conclude(screen, *play(lab, screen, rate))
        if code == Exit.DONE:
            go_on(lab, screen, kept=keep)
    except KeyboardInterrupt:
        screen.mark("\ninterrupted: ending the lab", good=False)
        code = int(Exit.INTERRUPTED)
    except DrainctlError as error:
        screen.mark(f"\nerror: {error}", good=False)
        if error.hint:
            screen.say(f"hint: {error.hint}")
        code = int(error.exit)
    finally:
        if not (keep and code == Exit.DONE):
            _clear(lab, screen, logs=code == FAILED)
    return code


def set_up(lab: Lab, screen: Screen, rate: float) -> None:
    """Say what there is and start it. Raises: PreflightError, ConfigError."""
    screen.say("drainctl: roll a release over servers behind HAProxy without a failed request", style="bold")
    screen.say()
    for line in picture(lab, rate):
        screen.say(f"    {line}")
    screen.say(f"\nstarting all of it in {short(lab.folder)} ... ", end="")
    began = time.monotonic()
    lab.up()
    screen.say(f"up, {time.monotonic() - began:.1f} s")


def refuse_missing() -> None:
    """Raises: PreflightError that names every part of the lab that is not installed."""
    missing = [] if find_spec("gunicorn") else ["gunicorn"]
    for name in ("haproxy", "nginx"):
        try:
            find(name)
        except PreflightError:
            missing.append(name)
    if missing:
        raise PreflightError(
            f"the demo needs what is not installed: {', '.join(missing)}",
            left="nothing was started",
            hint="pip install 'drainctl[lab]' brings all of it, without root",
        )


def picture(lab: Lab, rate: float) -> list[str]:
    """Who asks whom: clients, balancers and nodes, in three columns of 76 in all."""
    settings = lab.settings
    clients = ["clients", f"{rate:g} requests/s:", "GET, POST, streams,", f"pages that take {SLOW_S:g} s"]
    balancers = ["HAProxy", *(f"{name}  {settings.host(name)}" for name in settings.balancer_names)]
    nodes = ["nginx + gunicorn, v1"]
    nodes += [f"{name}  {settings.host(name)}" for name in settings.node_names]
    rows = zip_longest(clients, balancers, nodes, fillvalue="")
    return [
        f"{left:22}{'-->' if row == 1 else '':5}{middle:20}{'-->' if row == 1 else '':5}{right}".rstrip()
        for row, (left, middle, right) in enumerate(rows)
    ]


def play(lab: Lab, screen: Screen, rate: float) -> tuple[Half, Half]:
    """Both halves, on a lab that is up. Raises: DrainctlError that names the half, and ends with 1."""
    from drainctl.config.load import load
    from drainctl.wire import Wired

    with Wired(load(str(lab.config))) as wired:
        with _named("the naive half"):
            naive = naive_half(lab, wired, screen, rate)
        with _named("drainctl's half"):
            drained = drained_half(lab, wired, screen, rate)
    return naive, drained


@contextmanager
def _named(part: str) -> Iterator[None]:
    try:
        yield
    except DrainctlError as error:
        failed = DrainctlError(f"{part} failed: {error}", node=error.node, hint=error.hint)
        failed.exit = FAILED
        raise failed from error


def conclude(screen: Screen, naive: Half, drained: Half) -> int:
    """Both halves side by side, and what they show. Returns: the exit code."""
    screen.head("3/3 side by side")
    for line in lines(table(naive, drained)):
        screen.say(f"  {line}")
    screen.say("  (drainctl waits for pages in flight, and watches each node for a second)")
    code, sentences = verdict(naive, drained)
    screen.say()
    for sentence in sentences:
        screen.mark(sentence, good=code == Exit.DONE)
    return code


def go_on(lab: Lab, screen: Screen, *, kept: bool) -> None:
    """What the user may do next."""
    drainctl, config, folder = program("drainctl"), short(lab.config), short(lab.folder)
    if not kept:
        screen.say("\nTo go on by hand, let the lab run on after the demo:")
        screen.say(f"    {program('python')} -m drainctl.lab.demo --keep")
        return
    screen.say(f"""
The lab runs on. Go on by hand, perhaps with load in another terminal:
    {drainctl} lab load --dir {folder} --seconds 60 --live
    {drainctl} -c {config} status
    {drainctl} -c {config} rollback
    {drainctl} -c {config} history
and end it:
    {drainctl} lab down --dir {folder}""")


def _clear(lab: Lab, screen: Screen, *, logs: bool) -> None:
    """End the lab; another Ctrl-C does not leave half of it running."""
    with handlers(signal.SIG_IGN, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        lab.down()
        if logs:
            screen.say(f"The lab is ended; its logs are in {short(lab.folder)}.")
        else:
            shutil.rmtree(lab.folder, ignore_errors=True)


def empty_folder(asked: Path | None) -> Path:
    """The folder that was asked for, or a new one below .lab/. Raises: ConfigError if it holds something."""
    if asked is None:
        Path(".lab").mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="demo-", dir=".lab")).absolute()
    if asked.exists() and any(asked.iterdir()):
        hint = "the demo removes its folder in the end: name one that is empty or new"
        raise ConfigError(f"{asked} is not empty", hint=hint)
    asked.mkdir(parents=True, exist_ok=True)
    return asked.absolute()


@click.command()
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The lab's folder, empty or new [default: a new one below .lab/].",
)
@click.option("--base", default="127.0.10", show_default=True, help="First three numbers of all addresses.")
@click.option(
    "--rate", type=click.FloatRange(min=10), default=RATE, show_default=True, help="Requests per second."
)
@click.option("--keep", is_flag=True, help="Let the lab run on, to go on by hand.")
def demo(folder: Path | None, base: str, rate: float, keep: bool) -> None:
    """
    Roll a release naively, roll one with drainctl, and see side by side what users saw of it.

    Starts 4 nodes and 2 HAProxies on loopback, without root, and ends them again: half a minute.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            signal.signal(number, signal.default_int_handler)
    refuse_missing()
    sys.exit(show(Lab(empty_folder(folder), base=base), Screen(), rate=rate, keep=keep))


if __name__ == "__main__":
    try:
        demo(prog_name="python -m drainctl.lab.demo")
    except DrainctlError as error:
        click.echo(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), err=True)
        sys.exit(error.exit)
