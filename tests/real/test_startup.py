"""What is not needed is not loaded: start-up time is a feature, and a count of modules does not flicker."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from rollout_kit import running

pytestmark = pytest.mark.real

RUN = """\
import json, sys
from drainctl.cli import main
sys.argv = ["drainctl", *sys.argv[1:]]
try:
    main()
except SystemExit as ended:
    print(json.dumps([ended.code, sorted(sys.modules)]), file=sys.stderr)
"""
CLICK = """\
import json, sys
import click
group = click.Group("drainctl", commands=[click.Command("x", params=[click.Option(["--y"])])])
try:
    group.main(["--help"])
except SystemExit:
    print(json.dumps([0, sorted(sys.modules)]), file=sys.stderr)
"""
# Each costs tens of milliseconds, and none is of use for looking at sockets of this machine.
HEAVY = {"paramiko", "jinja2", "rich", "requests", "pydantic", "zstandard", "asyncio", "gunicorn", "xml"}
CHANGING = {"drainctl.controller", "drainctl.rollout.roll", "drainctl.strategies.http_check", "drainctl.lab"}


def loaded(program, *argv, code=0):
    """Names of the modules that are loaded at the end of a process."""
    done = subprocess.run(
        [sys.executable, "-c", program, *argv], capture_output=True, text=True, check=False, timeout=60
    )
    ended, names = json.loads(done.stderr.splitlines()[-1])
    assert ended == code, done.stderr
    return set(names)


@pytest.fixture(scope="module")
def status():
    with running("127.0.78", nodes=1, balancers=1) as lab:
        yield loaded(RUN, "-c", str(lab.config), "status")


def test_help_loads_click_and_nothing_else():
    more = loaded(RUN, "--help") - loaded(CLICK)
    assert more == {"drainctl", "drainctl.cli", "drainctl.errors"}


def test_the_version_loads_no_more_than_help():
    assert loaded(RUN, "--version") <= loaded(RUN, "--help")


def test_the_help_of_a_command_loads_no_adapter():
    names = loaded(RUN, "deploy", "--help")
    assert names & {*HEAVY, "yaml", "sqlite3", "http.client", "ssl", "subprocess"} == set()


def test_status_of_a_local_cluster_loads_nothing_heavy(status):
    assert status & HEAVY == set()
    assert {"yaml", "sqlite3", "http.client"} <= status, "it looked at nothing"


def test_status_does_not_load_what_changes_a_cluster(status):
    assert status & CHANGING == set()


def test_status_stays_small(status):
    ours = {name for name in status if name.partition(".")[0] == "drainctl"}
    assert len(ours) <= 61, sorted(ours)
    assert (
        len(status)
        <= len(loaded("import json, sys; print(json.dumps([0, sorted(sys.modules)]), file=sys.stderr)")) + 260
    )
