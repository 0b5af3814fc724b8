"""`python -m drainctl.lab up|load|down|status`: the lab without the rest of drainctl."""

from __future__ import annotations

import sys

import click

from drainctl.errors import DrainctlError
from drainctl.lab.commands import lab

try:
    lab(prog_name="python -m drainctl.lab")
except DrainctlError as error:
    click.echo(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), err=True)
    sys.exit(error.exit)
