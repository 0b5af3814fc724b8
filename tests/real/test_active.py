"""Requests in flight as the node's own sockets show them: behind HAProxy and nginx, and by captured text."""

from __future__ import annotations

import socket
import subprocess
import threading
import time
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from drainctl.node import shell
from drainctl.node.local import LocalTransport
from tests.conftest import SLOW, need, until
from tests.real import nginx_kit
from tests.real.sshd_kit import free_port, listens

pytestmark = pytest.mark.real
BALANCER, NODE = "127.0.22.30", "127.0.22.31"


class App:
    """HTTP/1.1 with /slow and /stream that go on until `go_on`, and /big that nobody reads."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        app = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                if self.path == "/slow":
                    app.go_on.wait(30)
                if self.path == "/stream":
                    return self.stream()
                return self.answer(b"x" * (30_000_000 if self.path == "/big" else 10))

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                self.answer(b"ok")

            def answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def stream(self) -> None:
                self.send_response(200)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                while not app.go_on.wait(0.02):
                    self.wfile.write(b"1\r\nx\r\n")
                self.wfile.write(b"0\r\n\r\n")

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None: ...  # clients hang up on purpose

        self.server = Server((NODE, 0), Handler)
        self.port = self.server.server_address[1]
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self.go_on.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()


class Stack:
    """client → HAProxy → nginx (kept-alive, not buffering) → app (pooled by nginx)."""

    def __init__(self, port: int, nginx_port: int, app: App) -> None:
        self.port, self.nginx_port, self.app = port, nginx_port, app

    def ask(self, text: str, port: int | None = None) -> socket.socket:
        """Sends text on a new connection, to HAProxy or straight to nginx."""
        address = (NODE, port) if port else (BALANCER, self.port)
        connection = socket.create_connection(address, timeout=20 * SLOW)
        connection.sendall(text.encode())
        return connection

    def get(self, path: str) -> socket.socket:
        return self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")

    def active(self) -> tuple[int, int]:
        """At nginx and at the app."""
        return count(self.nginx_port), count(self.app.port)

    def settle(self, nginx: int, app: int) -> None:
        until(f"{nginx} active at nginx and {app} at the app", lambda: self.active() == (nginx, app))


def count(port: int) -> int:
    done = LocalTransport().run(shell.active_requests(port, NODE), limit_s=20 * SLOW)
    assert done.code == 0, done.err
    return shell.parse_active(done.out)


@pytest.fixture(name="stack")
def a_stack(tmp_path):
    need("ss")
    app = App()
    nginx_port, port = free_port(NODE), free_port(BALANCER)
    http = f"""
    upstream app {{ server {NODE}:{app.port}; keepalive 8; }}
    server {{
        listen {NODE}:{nginx_port};
        location / {{
            proxy_pass http://app;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}"""
    config = tmp_path / "haproxy.cfg"
    config.write_text(f"""
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
listen shop
    bind {BALANCER}:{port}
    server node {NODE}:{nginx_port} check inter 100ms
""")
    try:
        with nginx_kit.nginx(need("nginx"), tmp_path, http), haproxy(config, port):
            yield Stack(port, nginx_port, app)
    finally:
        app.stop()


@contextmanager
def haproxy(config, port):
    process = subprocess.Popen([need("haproxy"), "-q", "-db", "-f", str(config)])
    try:
        until("HAProxy listens", lambda: listens(BALANCER, port))
        yield
    finally:
        process.terminate()
        process.wait(10)


def test_kept_and_pooled_connections_are_idle_and_a_slow_page_is_active(stack):
    kept = [stack.get("/") for _ in range(3)]
    for each in kept:
        assert b"200 OK" in each.recv(4096)
    stack.settle(0, 0)
    shown = ["ss", "-Htn", "state", "established", f"sport = :{stack.nginx_port} and src {NODE}"]
    assert subprocess.run(shown, capture_output=True, text=True, check=True).stdout.strip(), "none is pooled"
    time.sleep(0.05)  # the next requests come later than one clock tick after the last answer
    slow = [stack.get("/slow") for _ in range(2)]  # on new and on pooled connections
    kept[0].sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    stack.settle(3, 3)
    for _ in range(5):
        assert stack.active() == (3, 3)
    stack.app.go_on.set()
    stack.settle(0, 0)
    for each in kept + slow:
        each.close()


def test_a_stream_is_active_until_its_end(stack):
    with closing(stack.get("/stream")) as client:
        stack.settle(1, 1)
        for _ in range(10):
            assert stack.active() == (1, 1)
        stack.app.go_on.set()
        stack.settle(0, 0)
        assert client.recv(4096)


def test_half_a_body_is_active(stack):
    with closing(stack.ask("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc")) as client:
        stack.settle(1, 1)
        client.sendall(b"defghij")
        assert b"200 OK" in client.recv(4096)
        stack.settle(0, 0)


def test_an_answer_that_is_not_read_is_active(stack):
    with closing(stack.get("/big")):
        until("nginx and the app are stuck", lambda: min(stack.active()) >= 1)
        time.sleep(0.3)  # longer than a sender counts as active for having sent
        assert min(stack.active()) >= 1
    stack.settle(0, 0)


def test_a_connection_without_a_byte_is_idle_and_half_a_request_is_not(stack):
    with closing(stack.ask("", stack.nginx_port)) as client:
        until("it is accepted", lambda: stack.active() == (0, 0))
        client.sendall(b"GET / HT")
        stack.settle(1, 0)
        client.sendall(b"TP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in client.recv(4096)
        stack.settle(0, 0)


SS = "0      {queued}      127.0.0.1:8080 127.0.0.1:5{n}\n\t cubic wscale:7,7 {numbers} rcv_space:65483\n"


@pytest.mark.parametrize(
    ("numbers", "queued", "active"),
    [
        (
            "bytes_sent:132 bytes_received:27 lastsnd:1004 lastrcv:1004 lastack:1004",
            0,
            0,
        ),  # answered in one tick
        ("bytes_sent:122 bytes_received:62 lastsnd:2024 lastrcv:1012", 0, 1),  # a request after an answer
        ("bytes_received:31 lastsnd:1004 lastrcv:1004", 0, 1),  # a request with its connection
        ("bytes_sent:244 bytes_received:62 lastsnd:520 lastrcv:3520", 0, 0),  # answered after a while
        ("bytes_sent:290 bytes_received:38 lastsnd:44 lastrcv:1000", 0, 1),  # streaming
        ("bytes_sent:290 bytes_received:38 lastrcv:1000", 0, 1),  # sent just now: ss leaves a zero out
        ("lastsnd:704 lastrcv:704 lastack:704", 0, 0),  # silent
        ("", 0, 0),  # silent, just accepted
        ("bytes_sent:9 bytes_received:27 lastsnd:1276 lastrcv:1504", 4096, 1),  # not taken by the client
    ],
)
def test_the_rule_on_what_ss_prints(tmp_path, numbers, queued, active):
    fake = tmp_path / "ss"
    text = "".join(SS.format(n=n, numbers=numbers, queued=queued) for n in range(500))
    (tmp_path / "shown").write_text(text)
    fake.write_text(f"#!/bin/sh\ncat {tmp_path}/shown\n")
    fake.chmod(0o755)
    done = LocalTransport().run(f"PATH={tmp_path}:$PATH\n" + shell.active_requests(8080), limit_s=20 * SLOW)
    assert shell.parse_active(done.out) == active * 500


def test_no_connection_is_none_and_a_failing_ss_is_no_zero(tmp_path):
    assert count(free_port(NODE)) == 0
    fake = tmp_path / "ss"
    fake.write_text("#!/bin/sh\necho no netlink >&2\nexit 1\n")
    fake.chmod(0o755)
    done = LocalTransport().run(f"PATH={tmp_path}:$PATH\n" + shell.active_requests(8080), limit_s=20 * SLOW)
    assert (done.code, done.out, done.err) == (1, "", "no netlink\n")
