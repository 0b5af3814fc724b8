"""The demo: what it shows, its exit codes, and that it leaves nothing running."""

from __future__ import annotations

import io
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time

import pytest
from rich.console import Console

from drainctl.errors import CommandFailed, PreflightError
from drainctl.lab import demo
from drainctl.lab.cluster import Lab
from drainctl.lab.compare import Half
from drainctl.lab.naive import restart_node
from drainctl.lab.report import Report
from drainctl.lab.screen import Screen
from tests.conftest import SLOW
from tests.conftest import need as need_program

pytestmark = pytest.mark.real
BASE = "127.0.47"
COUNTED = {"requests": 90, "failed": 0, "inconclusive": [], "balancers": {}}


@pytest.fixture
def screen():
    return Screen(Console(file=io.StringIO(), width=80))


@pytest.fixture
def lab(tmp_path):
    need_program("haproxy")
    need_program("nginx")
    it = Lab(tmp_path / "demo", base=BASE, nodes=2)
    yield it
    it.down()


def text_of(screen: Screen) -> str:
    return screen.console.file.getvalue()


def anybody_listens() -> bool:
    """Whether a part of a lab still has its address."""
    hosts = [f"{BASE}.{number}" for number in (1, 2, 11, 12, 13, 14)]
    for host in hosts:
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex((host, 8080)) == 0:
                return True
    return False


def half(failed: int) -> Half:
    report = Report(requests=100, bins={"ok": 100 - failed, "http_502": failed})
    return Half("v2", report, 8.0, 4, COUNTED)


def test_a_real_demo_ends_with_0_and_may_be_kept(lab, screen):
    code = demo.show(lab, screen, rate=100, keep=True)
    text = text_of(screen)
    assert code == 0, text
    sums = re.search(r"Naive restarts lost (\d+) of (\d+) .*; drainctl lost 0 of (\d+)\.", text)
    assert sums, text
    assert int(sums[1]) > 10
    assert all(int(number) > 333 for number in sums.groups()[1:])
    assert re.search(rf"(?m)^  failed +{sums[1]} +0$", text)
    assert re.search(rf"(?m)^    failed +{sums[1]} +0$", text), "HAProxy counts the same"
    for line in ("1/3 naive: v1 -> v2", "web2: restarting ... answers v2", "web2  done      on v3"):
        assert line in text
    before, _, after = text.replace(str(lab.folder), "").partition("2/3 drainctl")
    own = before + after.partition("3/3 side")[2]  # the lines between them are a report's
    assert [line for line in own.splitlines() if len(line) > 80] == []
    assert "\x1b" not in text
    assert all(lab.running().values())
    assert lab.config.exists()


@pytest.mark.parametrize(
    ("naive", "drained", "code", "said"),
    [
        (7, 0, 0, "Naive restarts lost 7 of 100"),
        (0, 0, 1, "the naive half failed"),
        (7, 1, 1, "drainctl's half failed"),
        (0, 1, 1, "the naive half failed"),
    ],
)
def test_the_exit_code_is_the_comparisons(tmp_path, screen, monkeypatch, naive, drained, code, said):
    folder = tmp_path / "demo"
    folder.mkdir()
    monkeypatch.setattr(demo, "set_up", lambda *_: None)
    monkeypatch.setattr(demo, "play", lambda *_: (half(naive), half(drained)))
    assert demo.show(Lab(folder, base=BASE), screen) == code
    assert said in text_of(screen)
    assert folder.exists() == (code == 1), "the logs of a demo that failed stay"


def test_a_half_that_breaks_is_named_and_the_lab_is_ended(lab, screen, monkeypatch):
    def broken(*_: object) -> Half:
        raise CommandFailed("web1: ctl restart ended with 1 and said: no", node="web1")

    monkeypatch.setattr(demo, "naive_half", broken)
    assert demo.show(lab, screen, keep=True) == 1
    assert "error: the naive half failed: web1: ctl restart ended with 1" in text_of(screen)
    assert f"its logs are in {lab.folder}" in text_of(screen)
    assert not any(lab.running().values())
    assert not anybody_listens()


def test_a_taken_address_ends_with_5_and_says_what_to_do(lab, screen):
    with socket.create_server((f"{BASE}.1", 8080)):
        assert demo.show(lab, screen) == 5
    assert f"error: lb1 cannot have {BASE}.1:8080: address already in use" in text_of(screen)
    assert "choose another --base" in text_of(screen)


def test_missing_parts_are_all_named_with_what_brings_them(monkeypatch):
    monkeypatch.setattr(demo, "find_spec", lambda _name: None)
    monkeypatch.setattr("drainctl.lab.programs.on_path", lambda _name: None)
    monkeypatch.setattr("drainctl.lab.programs.in_wheel", lambda _name: None)
    with pytest.raises(PreflightError, match="not installed: gunicorn, haproxy, nginx; nothing") as caught:
        demo.refuse_missing()
    assert "pip install 'drainctl[lab]'" in caught.value.hint


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path):
    (tmp_path / "precious").write_text("")
    argv = [sys.executable, "-m", "drainctl.lab.demo", "--dir", str(tmp_path), "--base", BASE]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30 * SLOW)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path} is not empty\nhint: ")
    assert (tmp_path / "precious").exists()


@pytest.mark.parametrize(
    ("moment", "number"), [("web1: restarting", signal.SIGTERM), ("wave 1 of 4", signal.SIGINT)]
)
def test_interrupted_in_either_half_it_leaves_nothing(tmp_path, moment, number):
    need_program("haproxy")
    need_program("nginx")
    folder = tmp_path / "demo"
    argv = [sys.executable, "-m", "drainctl.lab.demo", "--dir", str(folder), "--base", BASE]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as running:
        try:
            seen = read_until(running, moment)
            running.send_signal(number)
            rest = running.communicate(timeout=30 * SLOW)[0].decode()
        finally:
            running.kill()
    assert running.returncode == 130, seen + rest
    assert "interrupted: ending the lab" in rest
    assert "Traceback" not in rest
    assert not anybody_listens()
    assert not folder.exists()


def read_until(running: subprocess.Popen[bytes], words: str) -> str:
    """What the process has written when these words have come; fails after 40 s."""
    seen, deadline = b"", time.monotonic() + 40 * SLOW
    while words.encode() not in seen:
        assert time.monotonic() < deadline, f"waited for {words!r}: {seen.decode()}"
        if select.select([running.stdout], [], [], 0.2)[0]:
            part = os.read(running.stdout.fileno(), 65536)
            assert part, f"it ended before {words!r}: {seen.decode()}"
            seen += part
    return seen.decode()


def test_a_naive_restart_that_fails_says_what_ctl_said(lab):
    lab.up()
    lab.ctl("web1").write_text("#!/bin/sh\necho no such luck >&2\nexit 3\n")
    with pytest.raises(CommandFailed, match="web1: ctl restart ended with 3 and said: no such luck"):
        restart_node(lab, "web1", "v2")
