"""The lab of compose.yml: what both composes make of it, and rolls over it under load."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from drainctl.lab.compose import NODES, TREE, ComposeLab, Place, init_for
from drainctl.lab.compose_demo import SERVICES, Roll, drained, play, recreated, table, verdict
from drainctl.lab.engine import Engine
from drainctl.lab.screen import Screen
from tests.conftest import need

SOAK = bool(os.environ.get("DRAINCTL_SOAK"))
RATE = 250.0 if SOAK else 100.0
REDUCED = (*NODES, "lb1", "lb2", "load")
# The parts of a service that would give a container more than its neighbours have.
PRIVILEGES = {"privileged", "cap_add", "devices", "network_mode", "pid", "userns_mode", "security_opt"}


def composes() -> dict[str, str]:
    """The composes of this machine by their first number: Debian's docker-compose, and the wheel of v2."""
    found = {}
    for path in (shutil.which("docker-compose"), str(Path(sys.executable).with_name("docker-compose"))):
        if path and os.access(path, os.X_OK):
            told = subprocess.run([path, "version", "--short"], capture_output=True, text=True, check=True)
            found[told.stdout.strip().lstrip("v")[0]] = path
    return found


def config(compose: str, *words: str) -> str:
    """`config` of compose.yml, which asks no engine."""
    argv = [compose, "-f", str(TREE / "compose.yml"), "--profile", "stores", "config", *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower(), done.stderr
    return done.stdout


@pytest.mark.parametrize("version", ["1", "2"])
def test_both_composes_take_the_file(version):
    need("docker-compose")
    compose = composes().get(version) or pytest.fail(f"no compose {version}.x: pip install -e '.[dev]'")
    assert config(compose, "-q") == ""
    assert set(yaml.safe_load(config(compose))["services"]) == {*SERVICES, "postgres", "etcd"}


def test_nothing_in_it_is_privileged_and_ports_are_on_loopback():
    services = yaml.safe_load((TREE / "compose.yml").read_text())["services"]
    assert len(services) == len(SERVICES) + 2
    for name, service in services.items():
        assert not PRIVILEGES & service.keys(), name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert service["container_name"] == "${LAB_NAME:-drainctl}-" + name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_rolls_over_containers_lose_nothing_and_compose_alone_does(engine: Engine, tmp_path: Path):
    """In a soak the whole demo, with systemd on web4; else one roll by SSH and the naive one."""
    told = io.StringIO()
    screen = Screen(Console(file=told, width=200))
    place = Place("test", "10.77.31", "181", init_for(engine) if SOAK else "supervised")
    lab = ComposeLab(engine, tmp_path, place)
    lab.build(*(SERVICES if SOAK else REDUCED))
    try:
        lab.up(*(SERVICES if SOAK else REDUCED))
        if SOAK:
            rolls = play(lab, screen, RATE)
        else:
            rolls = [drained(lab, screen, "ssh", "v2", RATE), recreated(lab, screen, RATE)]
    finally:
        lab.down()
    print("\n".join(table(rolls)))
    code, sentences = verdict(rolls, enough=10_000 if SOAK else 500)
    assert code == 0, [*sentences, told.getvalue()]
    assert left(engine) == ""


def left(engine: Engine) -> str:
    return engine.docker("ps", "--all", "--quiet", "--filter", "label=com.docker.compose.project=test")


def test_the_verdict_believes_no_roll_that_lost_or_saw_too_little():
    from drainctl.lab.compare import Half
    from drainctl.lab.report import Report

    def roll(requests: int, failed: int, *, drained: bool, counted: int | None = 0) -> Roll:
        report = Report(requests=requests, bins={"ok": requests - failed, "http_503": failed})
        proof = {"failed": counted, "requests": requests}
        return Roll("by ssh" if drained else "naive", Half("v2", report, 3.0, 4, proof), drained)

    naive, good = roll(300, 40, drained=False, counted=40), roll(12_000, 0, drained=True)
    assert verdict([good, naive])[0] == 0
    for bad in (
        [roll(12_000, 1, drained=True), naive],
        [roll(12_000, 0, drained=True, counted=1), naive],
        [roll(12_000, 0, drained=True, counted=None), naive],
        [roll(9_999, 0, drained=True), naive],
        [good, roll(300, 0, drained=False)],
    ):
        code, sentences = verdict(bad)
        assert (code, len(sentences)) == (1, 1), sentences
