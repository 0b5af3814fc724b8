"""
The command line: parse, call, print, exit code; no logic.

Commands are imported when they are called: `drainctl --help` loads click and nothing else.
"""

from __future__ import annotations

import os
import sys

import click

from drainctl import __version__
from drainctl.errors import DrainctlError, Exit

# name: (module, section, short help). Shown in this order.
COMMANDS = {
    "init": ("init", "set up", "Write drainctl.yml from haproxy.cfg; never overwrites"),
    "doctor": ("doctor", "set up", "Look for what would go wrong; touches nothing"),
    "explain": ("explain", "set up", "What a key of drainctl.yml is for, its default, an example"),
    "schema": ("explain", "set up", "The JSON Schema of drainctl.yml, for editors"),
    "completion": ("completion", "set up", "The script that completes commands and nodes in a shell"),
    "man": ("man", "set up", "The manual page, for man -l"),
    "plan": ("rollouts", "deploy", "What deploy would do, node by node; touches nothing"),
    "deploy": ("rollouts", "deploy", "Roll a release over the cluster"),
    "restart": ("rollouts", "deploy", "Roll a restart over the cluster"),
    "run": ("rollouts", "deploy", "Roll a command: drain, run it, restore, node by node"),
    "rollback": ("rollouts", "deploy", "Roll back to the release of before"),
    "resume": ("rollouts", "deploy", "Go on with a rollout that stopped or died"),
    "abort": ("rollouts", "deploy", "Take a rollout back: every node as it was"),
    "pause": ("rollouts", "deploy", "Hold the running rollout after its nodes in flight"),
    "recover": ("recover", "deploy", "Stand by, and take over a rollout whose drainctl died"),
    "status": ("nodes", "nodes", "Every node at every balancer, releases, flags, the lease"),
    "drain": ("nodes", "nodes", "Take nodes out of rotation, for maintenance"),
    "restore": ("nodes", "nodes", "Put nodes back into rotation"),
    "history": ("look_back", "look back", "The rollouts of this cluster"),
    "show": ("look_back", "look back", "One rollout: every node, every step, its time"),
    "arb": ("arb", "data stores", "The down board of a replicated store's machines"),
    "render": ("render", "set up", "nginx or HAProxy configuration that this cluster needs"),
    "lab": ("lab", "lab", "A real cluster on loopback, to try things on"),
}

EPILOG = """Exit codes: 0 done; 1 failed, and everything was put back; 2 wrong usage or configuration, nothing
touched; 3 halted, a person is needed; 4 another rollout holds the lease; 5 preflight failed, nothing touched;
130 interrupted, nodes in flight were brought to a known state first."""


class Commands(click.Group):
    """Knows its commands by name and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in COMMANDS:
            return None
        import importlib

        module = importlib.import_module(f"drainctl.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        from click.shell_completion import CompletionItem

        found = [name for name in COMMANDS if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [CompletionItem(name, help=COMMANDS[name][2]) for name in found] + options

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        sections = dict.fromkeys(section for _, section, _ in COMMANDS.values())
        for section in sections:
            with formatter.section(section.capitalize()):
                formatter.write_dl(
                    [(name, text) for name, (_, at, text) in COMMANDS.items() if at == section]
                )


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-c", "--config", type=click.Path(), metavar="FILE", help="The cluster's file [default: drainctl.yml]."
)
@click.option(
    "--output",
    type=click.Choice(["text", "plain", "json", "github", "gitlab"]),
    help="How to tell what happens [default: text on a terminal, else plain].",
)
@click.option(
    "--junit", type=click.Path(), metavar="FILE", help="Write a JUnit report: suite = node, case = step."
)
@click.option("-v", "--verbose", is_flag=True, help="Tell every act, not only what was seen.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.version_option(__version__, prog_name="drainctl")
@click.pass_context
def cli(ctx: click.Context, /, **options: object) -> None:
    """
    Roll a new release across the servers behind HAProxy without one failed user request.

    Global options are taken before and after the command.

    \b
    drainctl plan shop-1.4.2.tar.gz      what would be done
    drainctl deploy shop-1.4.2.tar.gz    do it
    drainctl status                      what is where
    """
    ctx.obj = options


def main() -> None:
    """The `drainctl` command. Ends the process with one of errors.Exit."""
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(Exit.USAGE)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(Exit.INTERRUPTED)
    except DrainctlError as error:
        show_error(error)
        sys.exit(error.exit)
    except Exception:  # noqa: BLE001  Python's own exit code 1 would say that everything was put back
        show_defect()
        sys.exit(Exit.HALTED)


def show_defect() -> None:
    """What nobody foresaw: all of it, then what to do, since nodes may be in flight."""
    import traceback

    click.echo(traceback.format_exc(), err=True)
    click.echo("error: a defect of drainctl ended it; nodes in flight are as they were left", err=True)
    click.echo("hint: `drainctl status` shows where each node is; `drainctl resume` goes on", err=True)


def show_error(error: DrainctlError) -> None:
    """`error:` for each line of the message, then `hint:`; on stderr, on a terminal as wide as that."""
    told = [line if line.startswith("  ") else f"error: {line}" for line in str(error).splitlines() or [""]]
    told += [f"hint: {line}" for line in (error.hint or "").splitlines()]
    if sys.stderr.isatty():
        from drainctl.report.text import wrapped_all

        told = wrapped_all(told, os.get_terminal_size(sys.stderr.fileno()).columns)
    for line in told:
        click.echo(line, err=True)
