"""`drainctl arb` on a real board, beside real store machines on loopback."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from drainctl.arb import FileBoard, ReplicaSession, answered_by, client_metrics
from drainctl.arb.board import fault_mark
from drainctl.arb.commands import ago, arb, seconds
from drainctl.arb.stores import Stores
from drainctl.errors import ConfigError

pytestmark = pytest.mark.real


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "board")


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    with Stores(tmp_path_factory.mktemp("stores"), "127.0.82") as stores:
        yield stores


def run(*words):
    done = CliRunner().invoke(arb, words, catch_exceptions=False, standalone_mode=False)
    return done.output


def described(stores):
    return [word for name, urls in stores.shards.items() for word in ("--shard", f"{name}={','.join(urls)}")]


def test_down_and_up_are_seen_by_a_session_at_once(stores, path):
    with ReplicaSession(stores.shards, path) as session:
        first = answered_by(session.get("arb://users/"))
        assert run("down", first, "--why", "new disk", "--board", path).startswith(f"{first} is down until")
        assert answered_by(session.get("arb://users/")) != first
        assert run("up", first, "--board", path) == f"{first} is up\n"
        assert answered_by(session.get("arb://users/")) == first
        assert run("up", first, "--board", path) == f"{first} was not down\n"
        session.board.close()
        assert f'drainctl_arb_answers_total{{machine="{first}"}} 2\n' in client_metrics(session.arb.in_flight)


def test_status_names_who_since_until_and_why(stores, path):
    down = stores.machines[2].listen
    run("down", down, "--why", "new disk", "--for", "10m", "--board", path)
    lines = run("status", "--board", path, *described(stores)).splitlines()
    assert lines[0].split() == ["machine", "shard", "state", "since", "until", "by", "why"]
    assert lines[1].startswith(f"{down}  orders  by hand  0 s ago")
    assert "in 10 m" in lines[1]
    assert lines[1].endswith("new disk")
    assert [line.split()[-1] for line in lines[2:]] == ["up"] * 3
    assert json.loads(run("status", "--json", "--board", path))[0]["machine"] == down
    assert f'drainctl_arb_down{{machine="{down}",by="hand"}} 1' in run("status", "--metrics", "--board", path)


def test_an_empty_board_says_so(path):
    assert run("status", "--board", path) == "nobody is down\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["down", "store1"], "is no host:port"),
        (["down", "a:1", "--for", "soon"], "is no time"),
        (["status", "--shard", "users"], "wants a list"),
        (["watch"], "nothing to watch"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_written(path, words, message):
    with pytest.raises(ConfigError, match=message):
        run(*words, "--board", path)


def test_a_board_that_cannot_be_written_is_an_error_for_a_person(tmp_path):
    with pytest.raises(ConfigError, match="no such file or directory"):
        run("down", "a:1", "--board", str(tmp_path / "none" / "board"))


def test_watch_marks_who_dies_and_lifts_who_is_back(stores, path, until):
    program = "from drainctl.arb.commands import arb; arb()"
    words = [sys.executable, "-c", program, "watch", "--board", path, "--every", "100ms", *described(stores)]
    watcher = subprocess.Popen(words, stderr=subprocess.PIPE)
    board = FileBoard(path)
    machine = stores.machines[3]
    try:
        machine.kill()
        until("the watcher has seen it", lambda: machine.listen in board.down())
        assert "(probe)" in board.down()[machine.listen].why
        machine.start()
        until("it is back", lambda: not board.down())
        board.mark(fault_mark("127.0.82.250:7000", "of another shard", 60))
    finally:
        watcher.terminate()
        _, told = watcher.communicate(timeout=10)
        board.close()
    assert told == b"watching 4 machines\n"
    assert watcher.returncode == 0


def test_times():
    assert [seconds(text) for text in ("300ms", "10s", "5m", "2h", "1d")] == [0.3, 10, 300, 7200, 86400]
    assert [ago(span) for span in (0, 59, 60, 7200, 200000)] == ["0 s", "59 s", "1 m", "2 h", "2 d"]
