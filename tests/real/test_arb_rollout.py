"""
Releases rolled over the four machines of a real replicated store, by the real command line, under load that
counts every request.

With DRAINCTL_SOAK=1 the long queries take 20 s, and more kinds of bad releases are tried.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from contextlib import contextmanager

import pytest
import requests
import rollout_kit
import store_kit
from rollout_kit import Running, cli, configure

from drainctl.arb import FileBoard, board_of
from drainctl.arb.board import Down
from drainctl.lab.arb import NAMES, PAIRS, ArbLab
from drainctl.lab.arb_load import ArbLoad
from tests.conftest import SLOW

pytestmark = pytest.mark.real

SOAK = os.environ.get("DRAINCTL_SOAK") == "1"
LONG_S = 20.0 if SOAK else 3.0
BAD = {
    "does not start": ({"fail_start": True}, "ended again"),
    "is another": ({"wrong_version": "v0"}, "answers 'v0', not 'bad'"),
}
RUNS = [("1", "file"), ("4", "file")]
if SOAK:
    RUNS += [("2", "postgresql"), ("4", "etcd")]
    BAD["does not serve"] = ({"sick": True}, "its check answers 500")
    BAD["does not catch up"] = ({"apply_s": 600.0}, "s behind its replica")


@pytest.fixture
def lab(monkeypatch):
    monkeypatch.setattr(rollout_kit, "CLI_LIMIT_S", 60.0 + 8 * LONG_S)
    with rollout_kit.up(lambda folder: ArbLab(folder, base="127.0.107")) as lab:
        yield lab


@pytest.fixture
def board(lab):
    board = FileBoard(lab.board)
    yield board
    board.close()


@contextmanager
def loaded(lab, capsys, **plan):
    """Users on the store; none of their requests may fail."""
    plan = {"board": str(lab.board), "processes": 2, "users": 2, "long_s": LONG_S, **plan}
    with ArbLoad(lab.shards, **plan) as load:
        yield load
    with capsys.disabled():
        print("\n" + "\n".join(load.report.lines()))
    assert load.report.failed == 0, list(load.report.lines())
    assert all(load.report.outcomes[kind] for kind in ("get", "post", "put", "write", "long"))


def archive(lab, release="v2"):
    return str(lab.folder / "releases" / f"{release}.tar.gz")


def current(lab):
    return {(lab.root(name) / "current").readlink().name for name in NAMES}


def answered(lab):
    return {requests.get(f"http://{lab.machine(name)}/version", timeout=5).text for name in NAMES}


@contextmanager
def board_at(lab, kind):
    """The address of a board of that kind."""
    if kind == "file":
        yield f"file://{lab.board}"
    elif kind == "etcd":
        with store_kit.etcd() as server:
            yield server.url()
    else:
        with store_kit.postgres() as server:
            yield f"postgresql://{server.user}@{server.host}:{server.port}/postgres?board=shop"


@pytest.mark.parametrize(("at_once", "kind"), RUNS)
def test_a_release_rolls_over_all_machines_and_no_request_fails(lab, capsys, at_once, kind):
    before = lab.running()
    with board_at(lab, kind) as address:
        config = configure(lab, {f"file://{lab.board}": address, "at_once: 1": f"at_once: {at_once}"})
        with loaded(lab, capsys, board=address):
            said = cli(config, "--output", "json", "deploy", archive(lab), "--yes")
        board = board_of(address)
        assert board.written(10)
        assert not board.down()
        board.close()
    assert said.code == 0, said
    assert current(lab) == answered(lab) == {"v2"}
    assert all(lab.running()[name] not in (None, before[name]) for name in NAMES)
    assert len(said.of("wave.began")) == (4 if at_once == "1" else 2)
    for pair in PAIRS.values():
        spans = [_out(said, name) for name in pair]
        assert spans[0][1] < spans[1][0], "both machines of a pair were down at once"


def _out(said, name):
    """From when to when a machine was marked down, by the numbers of the events."""
    [down] = said.of("step.intended", name, "down")
    [up] = said.of("step.seen", name, "up")
    return down["seq"], up["seq"]


def _refused(lab, words):
    """Exit code 5 with these words, and nothing was touched."""
    before, marks = lab.running(), _marks(lab)
    said = cli(lab.config, "deploy", archive(lab), "--yes")
    assert said.code == 5, said
    assert words in said.err, said
    assert lab.running() == before
    assert _marks(lab) == marks
    assert current(lab) == {"v1"}
    assert not (lab.root("store1") / "releases" / "v2").exists()


def _marks(lab):
    board = FileBoard(lab.board)
    try:
        return dict(board.down())
    finally:
        board.close()


def test_a_dead_replica_is_a_reason_not_to_begin(lab):
    subprocess.run([lab.ctl("store4"), "stop"], check=True)
    _refused(lab, "store4 does not serve")


def test_a_replica_that_is_behind_is_a_reason_not_to_begin(lab):
    configure(lab, {"most_lag: 1s": "most_lag: 1ms"}, "drainctl.yml")
    _refused(lab, "s behind its replica, arb.most_lag = 0.001 s")


@pytest.mark.parametrize("name", ["store1", "store2"])
def test_a_machine_that_somebody_took_down_is_a_reason_not_to_begin(lab, board, name):
    board.mark(Down(lab.machine(name), time.time(), None, "ops@control", "new disk", by_hand=True))
    _refused(lab, "by ops@control: new disk")


@pytest.mark.parametrize("how", BAD)
def test_a_bad_release_is_put_back_and_no_request_fails(lab, board, capsys, how):
    fault, words = BAD[how]
    lab.release("bad", **fault)
    # The limit is the good release's as well, when it is put back.
    limit = {"limit: 30s": f"limit: {4 * SLOW:g}s", "max_failed: 0": "max_failed: 0, patience: 3s"}
    config = configure(lab, limit)
    with loaded(lab, capsys):
        said = cli(config, "deploy", archive(lab, "bad"), "--yes")
        assert said.code == 1, said
        assert words in said.err, said
        assert current(lab) == {"v1"}, said  # told before the load asks a machine that was left out
    assert current(lab) == answered(lab) == {"v1"}
    assert not board.down()


def test_a_query_that_does_not_end_gives_the_machine_back_unchanged(lab, board, until):
    config = configure(lab, {"drain: {limit: 60s}": "drain: {limit: 1s}"})
    before, url = lab.running(), f"http://{lab.machine('store1')}"
    told = []
    query = threading.Thread(target=lambda: told.append(requests.get(f"{url}/q?s=3", timeout=30).status_code))
    query.start()
    until("the query runs", lambda: requests.get(f"{url}/queries", timeout=5).text == "1")
    said = cli(config, "deploy", archive(lab), "--yes")
    query.join()
    assert said.code == 1, said
    assert "1 query is running" in said.err
    assert told == [200]
    assert lab.running() == before
    assert not board.down()


@pytest.mark.parametrize("step", ["quiet", "restart"] if SOAK else ["restart"])
def test_a_controller_that_died_leaves_a_mark_with_its_name_and_resume_goes_on(
    lab, board, capsys, until, step
):
    with loaded(lab, capsys):
        running = Running(lab.config, "--output", "json", "deploy", archive(lab), "--yes")
        running.until("step.seen" if step == "quiet" else "step.intended", node="store1", step=step)
        os.kill(running.pid, signal.SIGKILL)
        rollout = running.end().rollout
        [mark] = board.down().values()
        assert (mark.machine, mark.rollout) == (lab.machine("store1"), rollout)
        assert mark.until < time.time() + 600, "a dead controller keeps a machine out for ever"
        until("its lease has run out", lambda: cli(lab.config, "resume").code == 0, 30, 1.0)
    assert current(lab) == answered(lab) == {"v2"}
    assert not board.down()
