"""
A process that is hidden before it ends: the lines that do it, on real sockets and a real gunicorn; backup on
sockets through drainctl, and what it refuses.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from in_place_kit import archive, in_place
from rollout_kit import cli, current

from drainctl.errors import Exit
from drainctl.lab.ready import get
from drainctl.model import Node, NodeLook, Said
from drainctl.node import sockets
from drainctl.node.sockets import Bound
from drainctl.steps import Holds, NotYet, Seen
from drainctl.strategies import beside, hidden
from tests.conftest import need, until

pytestmark = pytest.mark.real

BASE = "127.0.96"


def run(line):
    need("ss")
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout


@contextmanager
def listening(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        yield listener


@pytest.fixture(name="pair")
def _pair(tmp_path):
    """Two processes, at paths that a shell must be told with quotes."""
    return [beside.at_socket(str(tmp_path / f"{name} 'it'.sock"), None) for name in ("live", "backup")]


def where(pair):
    return hidden.parse(run(hidden.look(*pair)))


def hide(process):
    return run(hidden.hide(process, "hide", Holds, Holds, "").act.line)


# ---------------------------------------------------------------- the lines


def test_what_is_at_a_path(pair, tmp_path):
    path = tmp_path / "live 'it'.sock"
    assert where(pair) == ("nothing", False)
    path.write_text("")
    assert where(pair) == ("file", False)
    path.unlink()
    path.symlink_to("elsewhere")
    assert where(pair) == ("link", False)
    path.unlink()
    with listening(path):
        assert where(pair) == ("socket", False)
        os.link(path, tmp_path / "backup 'it'.sock")
        assert where(pair) == ("one", False)


def test_a_folder_in_which_drainctls_user_cannot_rename():
    with tempfile.TemporaryDirectory(prefix="dl-") as folder:
        pair = [beside.at_socket(f"{folder}/{name}.sock", None) for name in ("live", "backup")]
        nobody = {"user": 65534} if os.geteuid() == 0 else {}  # who may everything sees no difference
        with listening(f"{folder}/live.sock"):
            Path(folder).chmod(0o555)
            argv = ["sh", "-c", hidden.look(*pair)]
            told = subprocess.run(argv, capture_output=True, text=True, check=True, **nobody).stdout
            Path(folder).chmod(0o755)
        assert hidden.parse(told).what == "locked"


def test_a_hidden_socket_refuses_whoever_comes_and_keeps_whoever_is_there(pair, tmp_path):
    path = tmp_path / "live 'it'.sock"
    with listening(path) as listener, socket.socket(socket.AF_UNIX) as early:
        early.connect(str(path))
        for _ in range(2):  # an act may be done twice
            assert hide(pair[0]) == ""
            assert where(pair) == ("file", True)
        with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
            late.connect(str(path))
        # Nobody has accepted it yet: it would be reset, so it counts.
        assert sockets.parse(run(sockets.bound(pair[0].address))) == Bound(listening=True, connections=1)
        with closing(listener.accept()[0]) as accepted:
            assert sockets.parse(run(sockets.bound(pair[0].address))).connections == 1
            accepted.sendall(b"served")
            assert early.recv(6) == b"served"
        until(
            "nobody is connected", lambda: not sockets.parse(run(sockets.bound(pair[0].address))).connections
        )


def test_one_that_was_renamed_when_drainctl_died_is_hidden_by_the_same_act(pair, tmp_path):
    path = tmp_path / "live 'it'.sock"
    with listening(path):
        path.rename(f"{path}.hidden")
        assert where(pair) == ("nothing", True)
        hide(pair[0])
        assert where(pair) == ("file", True)
    assert run(hidden.cleared(pair[0], "echo started")) == "started\n"
    assert list(tmp_path.iterdir()) == []


def test_what_is_judged_of_a_real_one(pair, tmp_path):
    one = pair[0]
    expects = hidden.is_hidden(one)

    def now():
        out = run(sockets.bound(one.address)) + run(hidden.look(*pair))
        return expects(Seen(Node("web1", "h", "web1", ()), (), {}, NodeLook(probe=Said(0, out, ""))))

    with listening(tmp_path / "live 'it'.sock"):
        assert isinstance(now(), NotYet)
        hide(one)
        assert isinstance(now(), Holds)
    assert isinstance(now(), Holds)


# ---------------------------------------------------------------- gunicorn

APP = """\
import time
def application(environ, start_response):
    time.sleep(1.0)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""


@pytest.mark.parametrize("way", ["hidden", "renamed only"])
def test_gunicorn_finishes_what_it_has_where_its_path_is_there_at_its_end(tmp_path, way):
    """Past drain.limit it is told to end with connections left; with nothing at its path its master fails."""
    (tmp_path / "app.py").write_text(APP)
    path = tmp_path / "live.sock"
    argv = [sys.executable, "-m", "gunicorn", "app:application", "--chdir", str(tmp_path), "--threads", "2"]
    process = subprocess.Popen(
        [*argv, "--bind", f"unix:{path}", "--no-control-socket"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until("gunicorn answers", lambda: path.exists() and get("x", path, "/")[0] == 200)
        told = []
        asking = threading.Thread(target=lambda: told.append(get("x", path, "/")))
        asking.start()
        one = beside.at_socket(str(path), None)
        until("it is asked", lambda: sockets.parse(run(sockets.bound(one.address))).connections == 1)
        if way == "hidden":
            hide(one)
        else:
            path.rename(f"{path}.hidden")
        process.terminate()
        asking.join(10)
        assert told == [(200, "ok")]
        assert (process.wait(10) == 0) == (way == "hidden")
        assert not path.exists()
    finally:
        process.kill()
        process.wait()


# ---------------------------------------------------------------- through drainctl


@pytest.fixture(scope="module", name="lab")
def _lab():
    with in_place(BASE, strategy="backup") as lab:
        yield lab


def refused(lab, why):
    """A deploy is refused in these words, and nothing was touched."""
    run_folder, before = lab.settings.run(lab.folder, "web1"), current(lab)
    there = sorted((path.name, path.lstat().st_ino) for path in run_folder.iterdir())
    said = cli(lab.config, "deploy", str(archive(lab, "v2")))
    assert said.code == Exit.PREFLIGHT, said
    assert f"web1: {why}" in said.err, said
    assert sorted((path.name, path.lstat().st_ino) for path in run_folder.iterdir()) == there
    assert current(lab) == before


@contextmanager
def put_aside(path):
    kept = path.with_name("kept")
    path.rename(kept)
    try:
        yield kept
    finally:
        path.unlink(missing_ok=True)
        kept.rename(path)


def test_a_pair_that_cannot_be_replaced_is_left_alone(lab):
    folder = lab.settings.run(lab.folder, "web1")
    live, backup = folder / "live.sock", folder / "backup.sock"
    with put_aside(live):
        refused(lab, f"{live} is no socket")
        live.write_text("")
        refused(lab, f"{live} is no socket")
    with put_aside(live) as kept:
        live.symlink_to(kept)
        refused(lab, f"{live} is a link, and connections to what it points at cannot be counted")
    with put_aside(live):
        os.link(backup, live)
        refused(lab, f"{live} and the other of service.sockets are one socket")
    with put_aside(backup) as kept:
        os.link(kept, f"{backup}.hidden")
        refused(lab, f"{backup} is no socket: a rollout has hidden it; resume or abort that, or rename ")
        (folder / "backup.sock.hidden").unlink()
    with put_aside(backup) as kept:
        kept.with_name("elsewhere").symlink_to(".")  # the app has bound a socket by another name than nginx's
        backup.hardlink_to(kept)
        text = lab.config.read_text()
        other = text.replace(f"{{node}}/run/{backup.name}", f"{{node}}/run/elsewhere/{backup.name}")
        assert other != text
        lab.config.write_text(other)
        try:
            refused(lab, f"nobody listens at {folder}/elsewhere/{backup.name} by that name")
        finally:
            lab.config.write_text(text)
            kept.with_name("elsewhere").unlink()
    with put_aside(backup), listening(backup):
        refused(lab, f"the process behind {backup} answers ")
