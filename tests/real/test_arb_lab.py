"""The lab's store: what it shows of itself is true, and its load reports what goes wrong."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner

from drainctl.errors import ConfigError, PreflightError
from drainctl.lab.arb import NAMES, ArbLab
from drainctl.lab.arb_load import ArbLoad
from drainctl.lab.commands import lab as command

pytestmark = pytest.mark.real

BASE = "127.0.106"


@pytest.fixture
def folder():
    folder = Path(tempfile.mkdtemp(prefix="da-"))
    yield folder
    ArbLab(folder, base=BASE).down()
    shutil.rmtree(folder)


@pytest.fixture
def lab(folder):
    lab = ArbLab(folder, base=BASE)
    lab.up()
    return lab


def run(*words, code=0):
    done = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


def page(lab, name, path, **asked):
    return requests.get(f"http://{lab.machine(name)}{path}", timeout=10, params=asked).text


def test_up_status_and_down_by_the_command_line(folder):
    said = run("up", "--arb", "--dir", folder, "--base", BASE)
    assert "4 store machines are up, 2 shards of 2 replicas" in said
    with pytest.raises(PreflightError, match="already up"):
        run("up", "--arb", "--dir", folder, "--base", BASE)
    assert [line.split()[0] for line in run("status", "--dir", folder).splitlines()] == list(NAMES)
    assert run("down", "--dir", folder) == "4 processes ended\n"
    assert run("status", "--dir", folder, code=1).splitlines()[0] == "store1   stopped"
    assert run("down", "--dir", folder) == "0 processes ended\n"


def test_a_folder_with_another_kind_of_lab_is_left_alone(folder):
    (folder / "lab.json").write_text('{"settings": {}, "processes": {}}')
    with pytest.raises(PreflightError, match="another kind of lab"):
        run("up", "--arb", "--dir", folder, "--base", BASE)
    with pytest.raises(ConfigError, match="is not the first three numbers"):
        ArbLab(folder / "x", base="10.0.0").up()


def test_lag_is_what_a_machine_really_is_behind(lab, until):
    subprocess.run([lab.ctl("store2"), "stop"], check=True)
    stopped = time.time()
    for at in range(1200):  # more than two batches
        requests.put(f"http://{lab.machine('store1')}/k/k{at}", data=b"x", timeout=10)
    root = lab.root("store2")
    (root / "releases" / "v1" / "release.json").write_text('{"id": "v1", "apply_s": 0.5}')
    subprocess.run([lab.ctl("store2"), "start"], check=True)
    behind = float(page(lab, "store2", "/lag"))
    assert behind > 0.9 * (time.time() - stopped), "its lag is small although it has fetched nothing yet"
    assert requests.get(f"http://{lab.machine('store2')}/k/k1199", timeout=10).status_code == 404
    until("it has caught up", lambda: float(page(lab, "store2", "/lag")) < 0.6)
    assert page(lab, "store2", "/k/k1199") == "x"


def test_queries_are_counted_and_finished_before_the_store_ends(lab, until):
    told = []
    query = threading.Thread(target=lambda: told.append(page(lab, "store1", "/q", s=1)))
    query.start()
    until("it is counted", lambda: page(lab, "store1", "/queries") == "1")
    subprocess.run([lab.ctl("store1"), "stop"], check=True)
    query.join()
    assert told == ["queried for 1 s"]


def test_the_load_reports_what_fails_what_is_lost_and_what_ran_twice(lab):
    with ArbLoad(lab.shards, board=str(lab.board), processes=1, users=2, long_s=0.0) as load:
        time.sleep(0.5)
        for name in ("store1", "store2"):
            subprocess.run([lab.ctl(name), "stop"], check=True)
        time.sleep(0.5)
        for name in ("store1", "store2"):
            subprocess.run([lab.ctl(name), "start"], check=True)
    report = load.report
    assert any("nothing was sent" in failure for failure in report.failures)
    assert not report.lost
    assert report.failed >= len(report.failures) > 0
    ran = dict.fromkeys(report.written, 1)
    ran[report.written[0]] = 2
    del ran[report.written[-1]]
    report.check(ran)
    assert (report.twice, report.lost) == ([report.written[0]], [report.written[-1]])


def test_load_by_the_command_line(lab):
    said = run("load", "--dir", lab.folder, "--clients", 4, "--slow", 0.2, "--seconds", 1)
    assert " 0 failed" in said
    assert " long" in said
