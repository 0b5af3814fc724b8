"""A real HAProxy in master-worker mode on loopback, before small apps whose health page can be switched."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from drainctl.balancer.exchange import UnixExchange
from drainctl.errors import BalancerUnreachable

HOST = "127.0.21.1"  # HAProxy
APPS = "127.0.21.2"
SLOW = float(os.environ.get("DRAINCTL_TEST_SLOW", "1"))


def wait_for(what: str, holds: Callable[[], object], limit_s: float = 10.0) -> None:
    deadline = time.monotonic() + limit_s * SLOW
    while not holds():
        assert time.monotonic() < deadline, f"waited {limit_s * SLOW:g} s for: {what}"
        time.sleep(0.01)


def free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


class App:
    """An app: `/http-check` answers `check`, `/slow` waits for `release`, the rest answers `status`."""

    def __init__(self) -> None:
        self.check = 200
        self.status = 200
        self.release = threading.Event()
        self.slow_requests = 0
        app = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                code = app.status
                if self.path == "/http-check":
                    code = app.check
                elif self.path == "/slow":
                    app.slow_requests += 1
                    app.release.wait(30 * SLOW)
                self.send_response(code)
                self.send_header("Content-Length", "3")
                self.end_headers()
                self.wfile.write(b"ok\n")

            def log_message(self, *_: object) -> None: ...

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None: ...  # HAProxy hangs up whenever it likes

        self._server = Server((APPS, 0), Handler)
        self.address = f"{APPS}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def apps(count: int) -> Iterator[list[App]]:
    started = [App() for _ in range(count)]
    try:
        yield started
    finally:
        for app in started:
            app.stop()


class Haproxy:
    """
    HAProxy with one socket per level, a TCP socket, a master CLI, and stats pages.

    The backend `fill` comes first and has 60 servers, so that a few rows are worth asking singly.
    """

    def __init__(self, binary: str, folder: Path, body: str, *, options: str = "") -> None:
        self.binary = binary
        self.folder = folder
        self.socket = str(folder / "admin.sock")
        self.operator_socket = str(folder / "operator.sock")
        self.user_socket = str(folder / "user.sock")
        self.master_socket = str(folder / "master.sock")
        self.tcp_port = free_port(HOST)
        self.port = free_port(HOST)
        self.stats_port = free_port(HOST)
        self.options = options
        self._config = folder / "haproxy.cfg"
        self.write(body)
        self._log = (folder / "haproxy.log").open("wb")
        self._process = subprocess.Popen(
            [binary, "-W", "-S", self.master_socket, "-f", str(self._config)],
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        try:
            wait_for(f"{binary} to answer (see {self._log.name})", self._answers)
        except BaseException:
            self.stop()
            raise

    def write(self, body: str, *, fill: int = 60) -> None:
        fillers = "\n".join(f"    server f{at} {APPS}:9 disabled" for at in range(fill))
        self._config.write_text(f"""
global
    stats socket {self.socket} mode 600 level admin expose-fd listeners
    stats socket {self.operator_socket} mode 600 level operator
    stats socket {self.user_socket} mode 600 level user
    stats socket ipv4@{HOST}:{self.tcp_port} level admin
    hard-stop-after 60s
    {self.options}
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    timeout check 1s
frontend stats
    bind {HOST}:{self.stats_port}
    stats enable
    stats uri /stats
    stats auth ops:right
    http-request deny if {{ path_beg /denied }}
    http-request return status 200 content-type text/html string "<html>hello</html>" if {{ path_beg /html }}
backend fill
{fillers}
{body}
""")

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.folder / "haproxy.log").read_text()
        return self.said("show info") is not None and self.master_said("show proc") is not None

    def said(self, command: str) -> str | None:
        return _said(UnixExchange("kit", self.socket), command)

    def master_said(self, command: str) -> str | None:
        return _said(UnixExchange("kit", self.master_socket, half_close=True), command)

    def pid(self) -> int | None:
        said = self.said("show info") or ""
        return int(said.partition("\nPid: ")[2].split("\n", 1)[0] or 0) or None

    def reload(self) -> None:
        """As an operator does it; over when another worker answers on the socket."""
        before = self.pid()
        self.ask_for_reload()
        wait_for("a new worker to answer", lambda: self.pid() not in (None, before))

    def ask_for_reload(self) -> None:
        self._process.send_signal(signal.SIGUSR2)

    def get(self, path: str, *, port: int | None = None) -> int:
        """The status of one request through HAProxy."""
        connection = http.client.HTTPConnection(HOST, port or self.port, timeout=30 * SLOW)
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            return connection.getresponse().status
        finally:
            connection.close()

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10 * SLOW)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        self._log.close()


def _said(exchange: UnixExchange, command: str) -> str | None:
    """None while nobody answers; the caller waits."""
    try:
        return exchange.ask([command])[0]
    except BalancerUnreachable:
        return None


class Listener:
    """A unix socket that answers each question with `reply` and hangs up; with None it stays silent."""

    def __init__(self, path: Path, reply: bytes | None) -> None:
        self.path = str(path)
        self.questions: list[bytes] = []
        self._reply = reply
        self._open: list[socket.socket] = []
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(self.path)
        self._server.listen(8)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                line, _ = self._server.accept()
            except OSError:
                return
            self._open.append(line)
            self.questions.append(line.recv(65536))
            if self._reply is not None:
                line.sendall(self._reply)
                line.close()

    def stop(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()
        for line in self._open:
            line.close()
