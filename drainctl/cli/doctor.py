"""doctor."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from drainctl.called import as_called
from drainctl.cli.common import Options, global_options, wired
from drainctl.errors import ConfigError, Exit

if TYPE_CHECKING:
    from drainctl.doctor.finding import Severity
    from drainctl.haproxy_cfg.model import HaproxyCfg
    from drainctl.model import Cluster

_COLOURS = {"refuses": "red", "loses requests": "yellow", "slower": "cyan", "advice": "bright_black"}


@click.command()
@click.option(
    "--haproxy-cfg",
    "files",
    multiple=True,
    metavar="[LB=]FILE",
    help="A balancer's haproxy.cfg, to be read as well; without LB= it is that of all of them.",
)
@click.option("--strict", is_flag=True, help="End with 5 also for what loses requests.")
@global_options
def doctor(options: Options, files: tuple[str, ...], strict: bool) -> None:
    """
    Look at config, balancers, nodes and releases for what would go wrong; touches nothing.

    Ends with 5 when a deploy would be refused, or would stop; else with 0, whatever was found.

    \b
    drainctl doctor
    drainctl doctor --haproxy-cfg /etc/haproxy/haproxy.cfg
    drainctl doctor --haproxy-cfg lb1=lb1.cfg --haproxy-cfg lb2=lb2.cfg --strict
    """
    from drainctl.doctor.examine import examine
    from drainctl.doctor.finding import Severity, worst
    from drainctl.doctor.look import look
    from drainctl.doctor.show import findings_json, findings_text

    with wired(options) as adapters:
        cluster = adapters.cluster
        cfgs = _read(cluster, files)
        found = [
            replace(each, change=as_called(each.change, cluster.file))
            for each in examine(look(adapters, cfgs))
        ]
    refused = worst(found) is Severity.REFUSES
    if options.output == "json":
        click.echo(findings_json(found, may_begin=not refused))
    else:
        click.echo(findings_text(found, _looked_at(cluster, files), width=_width(), paint=_paint))
    if refused or (strict and worst(found) is Severity.LOSES):
        raise click.exceptions.Exit(int(Exit.PREFLIGHT))


def _read(cluster: Cluster, files: Sequence[str]) -> Mapping[str, HaproxyCfg]:
    """Each balancer's file. Raises: ConfigError for an unknown balancer or a file that cannot be read."""
    names = [balancer.name for balancer in cluster.balancers]
    found: dict[str, HaproxyCfg] = {}
    for given in files:
        from drainctl.haproxy_cfg.read import read_file

        name, equals, path = given.partition("=")
        if not equals or "/" in name:
            found |= dict.fromkeys(names, read_file(given))
        elif name in names:
            found[name] = read_file(path)
        else:
            raise ConfigError(f"--haproxy-cfg: found {name!r}, expected one of {', '.join(names)}")
    return found


def _looked_at(cluster: Cluster, files: Sequence[str]) -> str:
    told = [f"{len(cluster.balancers)} balancers", f"{len(cluster.nodes)} nodes"]
    if files:
        told.append(f"{len(files)} haproxy.cfg")
    return ", ".join(told)


def _width() -> int:
    """The terminal's, within what reads well; 80 where there is none."""
    return max(60, min(shutil.get_terminal_size((80, 24)).columns, 110))


def _paint(text: str, severity: Severity) -> str:
    if os.environ.get("NO_COLOR"):
        return text
    return click.style(text, fg=_COLOURS[severity.value], bold=severity.value == "refuses")
