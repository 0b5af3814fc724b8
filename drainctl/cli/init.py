"""init: what is known about a cluster → drainctl.yml."""

from __future__ import annotations

import os
import shlex
import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from drainctl.cli.common import Options, global_options
from drainctl.errors import ConfigError

if TYPE_CHECKING:
    from drainctl.init.choose import Group, Several
    from drainctl.init.draft import Draft
    from drainctl.init.sight import Sight

USUAL = "/etc/haproxy/haproxy.cfg"
WIDTH = 80


@click.command()
@click.option(
    "--haproxy-cfg",
    "cfgs",
    multiple=True,
    metavar="[LB=]FILE",
    help=f"A balancer's configuration, and its name; once for each balancer [default: {USUAL}].",
)
@click.option("--app", metavar="NAME", help="The app's name [default: its first backend's].")
@click.option("--backend", metavar="NAME", help="A backend of the app, where haproxy.cfg has several apps.")
@click.option("--out", metavar="FILE", help="The file to write, - for stdout [default: drainctl.yml].")
@global_options
def init(
    options: Options, cfgs: tuple[str, ...], app: str | None, backend: str | None, out: str | None
) -> None:
    """
    Write a commented drainctl.yml from haproxy.cfg and the sockets that it names; never overwrite one.

    What could not be known is marked SET THIS. Without a haproxy.cfg it asks, on a terminal.

    \b
    drainctl init
    drainctl init --haproxy-cfg lb1/haproxy.cfg --haproxy-cfg lb2/haproxy.cfg
    drainctl init --backend shop --out shop.yml
    """
    from drainctl.init.text import write

    target = out or options.config
    _refuse_existing(target)
    asking = sys.stdin.isatty() and not options.yes
    paths = cfgs or _usual(asking=asking)
    if paths:
        draft = _from_files(paths, app, backend, asking=asking)
    elif asking:
        from drainctl.cli.init_questions import ask

        draft = ask(app)
    else:
        raise ConfigError(
            f"{USUAL} cannot be read, and there is no terminal to ask on; nothing was written",
            hint="--haproxy-cfg FILE, once for each balancer",
        )
    text = write(draft)
    if target == "-":
        click.echo(text, nl=False)
        return
    _create(target, text)
    _tell(draft, target, text)


def _refuse_existing(target: str) -> None:
    if target != "-" and os.path.lexists(target):  # a link to nowhere is somebody's too
        raise ConfigError(
            f"{target} is already there; it was not touched",
            hint="--out FILE writes another one; or move it away",
        )


def _usual(*, asking: bool) -> tuple[str, ...]:
    """The system's haproxy.cfg; where one can be asked, only if it has servers (a package's has none)."""
    if not os.access(USUAL, os.R_OK):
        return ()
    from drainctl.haproxy_cfg.read import read_file

    return () if asking and not any(read_file(USUAL).servers()) else (USUAL,)


def _create(target: str, text: str) -> None:
    try:
        with open(target, "x", encoding="utf-8") as file:  # noqa: PTH123  # pathlib costs start-up
            file.write(text)
    except FileExistsError:
        _refuse_existing(target)
    except OSError as error:
        raise ConfigError(f"{target}: {os.strerror(error.errno or 0).lower()}; nothing was written") from None


def _from_files(paths: Sequence[str], app: str | None, backend: str | None, *, asking: bool) -> Draft:
    from drainctl.haproxy_cfg.read import read_file
    from drainctl.init.choose import Several, choose
    from drainctl.init.known import app_name, draft
    from drainctl.init.reach import named, reach

    read = [(name, read_file(path)) for name, path in named(paths)]
    sights = [reach(name, cfg) for name, cfg in read]
    try:
        group = choose(sights, app, backend)
    except Several as several:
        if not asking:
            raise
        group = _asked(several, sights)
    return draft(sights, group, app or app_name(group))


def _asked(several: Several, sights: Sequence[Sight]) -> Group:
    """Which app is meant, of those that share no server."""
    from drainctl.init.choose import choose

    click.echo(str(several), err=True)
    names = [name for group in several.groups for name in group.backends]
    name = click.prompt("Which backend is the app's", type=click.Choice(names), err=True)
    return choose(sights, None, name)


# ---------------------------------------------------------------- what is said at the end


def _tell(draft: Draft, target: str, text: str) -> None:
    """On stderr: what was found, what is to be set, what does not load yet, and the next command."""
    from drainctl.init.text import marks

    source = ", ".join(dict.fromkeys(draft.files.values())) or "your answers"
    _say(f"{target} is written, from {source}")
    _row("app", draft.app)
    _row("balancers", ", ".join(one.balancer.name for one in draft.balancers))
    _row("backends", ", ".join(draft.backends))
    _row("nodes", ", ".join(node.name for node in draft.live) or "none")
    out = [f"{node.name} ({node.out})" for node in draft.nodes if node.out]
    if out or draft.others:
        _row("left out", "; ".join([*out, *draft.others]))
    _row("check", draft.check.value)
    for warning in draft.warnings:
        _say(f"warning: {warning}")
    to_set = marks(text)
    if to_set:
        _say(f"to set in {target}, below these lines:")
    for number, what in to_set:
        _row(f"line {number}", what)
    for problem in _problems(target):
        _say(f"not yet: {problem}")
    click.echo(f"next: {_next(draft, target)}", err=True)  # one line, to be copied


def _next(draft: Draft, target: str) -> str:
    """The doctor's command line, for a shell."""
    words = ["drainctl", *(() if target == "drainctl.yml" else ("-c", target)), "doctor"]
    for balancer, file in draft.files.items():
        words += ["--haproxy-cfg", f"{balancer}={file}" if len(draft.files) > 1 else file]
    return shlex.join(words)


def _row(label: str, what: str) -> None:
    _say(f"  {label:<10}  {what}", indent=14)


def _say(text: str, indent: int = 2) -> None:
    lines = textwrap.wrap(
        text, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
    click.echo("\n".join(lines), err=True)


def _problems(target: str) -> list[str]:
    """What the loader has against the file as it is, such as a variable that is not exported yet."""
    from drainctl.config.load import load

    try:
        load(target)
    except ConfigError as error:
        return str(error).splitlines()
    return []
