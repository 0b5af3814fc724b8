"""What is asked on a node and taken for granted there, against real sockets, gunicorn and nginx."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import UnixStreamServer

import pytest
from in_place_kit import base, in_place

from drainctl.config.load import load as load_config
from drainctl.lab.processes import family
from drainctl.model import Node
from drainctl.node import ask, gunicorn, sockets
from drainctl.node.sockets import Bound
from drainctl.steps import Holds, Job, Seen
from drainctl.strategies import backup
from tests.conftest import need, until

pytestmark = pytest.mark.real

BASE = base("127.0.104")


def bound(address):
    need("ss")
    done = subprocess.run(["sh", "-c", sockets.bound(address)], capture_output=True, text=True, check=True)
    return sockets.parse(done.stdout)


@pytest.mark.parametrize(
    ("family", "host", "addresses", "strangers"),
    [
        (
            socket.AF_INET,
            "127.0.0.1",
            ["127.0.0.1", "localhost", "no-such-host.invalid"],
            ["127.0.88.1", "[::1]"],
        ),
        (socket.AF_INET, "0.0.0.0", ["127.0.0.1", "localhost"], []),
        (socket.AF_INET6, "::1", ["[::1]", "localhost"], ["127.0.0.1"]),
    ],
)
def test_who_listens_and_how_many_are_connected_by_address_and_by_name(family, host, addresses, strangers):
    with socket.socket(family) as listener:
        listener.bind((host, 0))
        listener.listen()
        port = listener.getsockname()[1]
        to = "127.0.0.1" if host == "0.0.0.0" else host
        with socket.create_connection((to, port)), listener.accept()[0]:
            for address in addresses:
                assert bound(f"{address}:{port}") == Bound(listening=True, connections=1), address
            for address in strangers:
                assert bound(f"{address}:{port}") == Bound(listening=False, connections=0), address


def test_who_listens_behind_a_path_and_who_is_connected(tmp_path):
    path = str(tmp_path / "a b.sock")
    assert bound(f"unix:{path}") == Bound(listening=False, connections=0)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            with listener.accept()[0]:
                assert bound(f"unix:{path}") == Bound(listening=True, connections=1)


# ---------------------------------------------------------------- a process, asked


class Page(BaseHTTPRequestHandler):
    def do_GET(self):
        text = f"{self.path} of {self.headers['Host']}\n\n".encode()
        self.send_response(404 if self.path == "/none" else 200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        """Nothing is logged."""

    def address_string(self):
        return "a socket"


class OnSocket(UnixStreamServer):
    def get_request(self):
        return super().get_request()[0], ("", 0)


@pytest.mark.parametrize("tool", ["curl", "python3"])
@pytest.mark.parametrize("at", ["port", "socket"])
def test_a_process_is_asked_for_several_pages_by_curl_or_by_python(tool, at, tmp_path):
    (tmp_path / "bin").mkdir()
    if tool == "curl":
        (tmp_path / "bin/curl").symlink_to(need("curl"))
    else:
        (tmp_path / "bin/python3").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        (tmp_path / "bin/python3").chmod(0o755)
    path = str(tmp_path / "a.sock")
    with HTTPServer(("127.0.0.1", 0), Page) if at == "port" else OnSocket(path, Page) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"unix:{path}" if at == "socket" else f"127.0.0.1:{server.server_address[1]}"
        line = ask.ask(ask.Process(address, "shop"), ["/a?b=c&d", "/none", "/it's"], 2.0)
        found = asked(line, tmp_path)
        server.shutdown()
        thread.join()
    told = [(answer.status, answer.body.strip()) for answer in found]
    assert told == [(200, "/a?b=c&d of shop"), (404, "/none of shop"), (200, "/it's of shop")]
    assert [(answer.status, answer.error) for answer in asked(line, tmp_path)] == [(None, "no answer")] * 3


def asked(line, folder):
    done = subprocess.run(
        ["/bin/sh", "-c", line], capture_output=True, text=True, check=True, env={"PATH": f"{folder}/bin"}
    )
    return ask.parse(done.stdout)


# ---------------------------------------------------------------- gunicorn

APP = "import time\ntime.sleep({start_s})\ndef application(environ, start_response):\n    raise OSError\n"


@pytest.fixture(name="master")
def _master(tmp_path):
    """A gunicorn that loads its app, which takes 0.1 s, before it forks: its pid file."""
    write_app(tmp_path, 0.1)
    pid_file = tmp_path / "g.pid"
    argv = [sys.executable, "-m", "gunicorn", "app:application", "--chdir", str(tmp_path), "--preload"]
    argv += ["--pid", str(pid_file), "--bind", f"unix:{tmp_path}/g.sock", "--workers", "2"]
    process = subprocess.Popen([*argv, "--no-control-socket"], stderr=subprocess.DEVNULL)
    until("gunicorn has its workers", lambda: len(seen(pid_file).workers[0]) == 2)
    yield pid_file, process
    for pid in (seen(pid_file).second, seen(pid_file).first):
        if pid:
            subprocess.run(["kill", "-QUIT", str(pid)], check=False)
    process.wait(20)
    until("no master is left", lambda: seen(pid_file).first is seen(pid_file).second is None)


def write_app(folder, start_s):
    (folder / "app.py").write_text(APP.format(start_s=start_s))


def run(line):
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True).stdout


def seen(pid_file):
    return gunicorn.parse(run(gunicorn.masters(str(pid_file))))


def test_a_second_master_is_known_from_its_start(master, tmp_path):
    pid_file, process = master
    write_app(tmp_path, 1.5)
    said = run(gunicorn.spawn(str(pid_file)))
    assert not pid_file.with_name("g.pid.2").exists(), "its app is still being loaded"
    now = seen(pid_file)
    assert said == f"first {process.pid}, second {now.second}\n"
    assert now.first == process.pid
    assert len(now.workers[0]) == 2
    assert now.workers[1] == frozenset()
    assert run(gunicorn.spawn(str(pid_file))) == said, "there is one already"
    assert run(gunicorn.dismiss(str(pid_file))) == f"TERM to {now.second}\n"
    until("one master", lambda: seen(pid_file).second is None)
    assert seen(pid_file).first == process.pid


def test_of_two_masters_the_second_is_left_when_the_first_was_told_to_end(master):
    pid_file, process = master
    with socket.socket(socket.AF_UNIX) as user:  # a worker of the first waits for what it has to say
        user.connect(str(pid_file.with_name("g.sock")))
        run(gunicorn.spawn(str(pid_file)))
        until("the second has its workers", lambda: len(seen(pid_file).workers[1]) == 2)
        second = seen(pid_file).second
        shared = sockets_of(process.pid) & sockets_of(second)
        assert len(shared) == 1
        assert run(gunicorn.retire(str(pid_file))) == f"TERM to {process.pid}\n"
        until("the first does not listen any more", lambda: not shared & sockets_of(process.pid))
        assert run(gunicorn.dismiss(str(pid_file))) == f"the first, {process.pid}, ends already\n"
        assert seen(pid_file)[:2] == (process.pid, second)
    until("the second is the first now", lambda: seen(pid_file)[:2] == (second, None))


def sockets_of(pid):
    found = {str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if int(path.name) > 2}
    return {name for name in found if name.startswith("socket:")}


def test_a_pid_file_that_is_written_anew_is_waited_for(master):
    pid_file, process = master
    text = pid_file.read_text()
    pid_file.unlink()
    writer = subprocess.Popen(["sh", "-c", 'sleep 0.2; printf "%s" "$1" > "$2"', "sh", text, str(pid_file)])
    assert seen(pid_file).first == process.pid
    assert writer.wait() == 0


# ---------------------------------------------------------------- nginx's fail_timeout


def test_nginx_counts_fail_timeout_in_whole_seconds_and_settle_waits_for_the_last():
    with in_place(BASE, strategy="backup", server_params="max_fails=1 fail_timeout=1s") as lab:
        live = lab.settings.run(lab.folder, "web1") / "live.sock"
        until("a second has just begun", lambda: time.time() % 1 < 0.1, every_s=0.005)
        live.rename(live.with_suffix(".away"))
        began = time.monotonic()
        assert worker(lab) not in workers_of_live(lab), "the backup answers"
        live.with_suffix(".away").rename(live)
        until("the live one is asked again", lambda: worker(lab) in workers_of_live(lab))
        took_s = time.monotonic() - began
        [settle] = [step for step in journey_of(lab) if step.name == "settle"]
        assert took_s > 1.5, "longer than fail_timeout says"
        assert took_s < settle.expected_s + 1.0
        assert not isinstance(settle.expects(Seen(NODE, (), {}, spent_s=1.9)), Holds)
        assert isinstance(settle.expects(Seen(NODE, (), {}, spent_s=2.0)), Holds)


def test_a_server_that_had_failed_is_failed_until_the_one_request_that_tries_it_has_ended():
    """So where max_fails is not 0 no time that is waited for is enough: that request may be a slow one."""
    with in_place(BASE, strategy="backup", server_params="max_fails=1 fail_timeout=1s") as lab:
        live = lab.settings.run(lab.folder, "web1") / "live.sock"
        live.rename(live.with_suffix(".away"))
        assert worker(lab) not in workers_of_live(lab)
        live.with_suffix(".away").rename(live)
        again = time.monotonic() + 2.1
        until("its time is over", lambda: time.monotonic() > again)
        with ThreadPoolExecutor(1) as aside:
            slow = aside.submit(get, lab, "/slow?s=0.8")
            until("it is asked that page", lambda: bound(f"unix:{live}").connections == 1)
            assert worker(lab) not in workers_of_live(lab)
            slow.result()
        assert worker(lab) in workers_of_live(lab)


NODE = Node("web1", "127.0.0.1", "web1", ("backup",))


def journey_of(lab):
    cluster = load_config(str(lab.config))
    return backup.journey(cluster, cluster.nodes[0], Job("deploy", "v2", leaving="v1"))


def worker(lab):
    return int(get(lab, "/pid"))


def get(lab, path):
    with urllib.request.urlopen(f"{lab.urls[0]}{path}", timeout=5) as answer:  # noqa: S310  the lab's own address
        return answer.read()


def workers_of_live(lab):
    return {process.pid for process in family(lab.node("web1")[0].master())}
