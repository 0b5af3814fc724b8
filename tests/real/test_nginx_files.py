"""The rendered upstream in real nginx, old and new, and what is read of their `nginx -T`."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import threading
import urllib.error
import urllib.request
from contextlib import closing, suppress

import pytest

from drainctl.nginx.settings import Member, keeps_clients, settings
from drainctl.nginx.upstream import Server, render
from tests.conftest import SLOW
from tests.real import nginx_kit
from tests.real.sshd_kit import free_port

pytestmark = pytest.mark.real
HOST = "127.0.109.2"


@pytest.fixture(name="which", params=["system", "wheel"])
def _which(request):
    return request.param


class Wire:
    """Accepts connections, remembers the bytes that begin each, and answers HTTP."""

    def __init__(self) -> None:
        self.began: list[bytes] = []
        self._socket = socket.create_server((HOST, 0))
        self.address = f"{HOST}:{self._socket.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self._open: list[socket.socket] = []

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                connection.settimeout(10 * SLOW)
                self._open.append(connection)
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            first = True
            while data := connection.recv(65536):
                if first:
                    self.began.append(data)
                first = False
                if data[:3] not in {b"GET", b"POS"}:
                    return
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                if b"connection: close" in data.lower():
                    return

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()


@pytest.fixture(name="wire")
def _wire():
    wire = Wire()
    yield wire
    wire.close()


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=10 * SLOW) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


SERVER = """
include {file};
server {{
  listen {host}:{port};
  location = /-/generation {{ default_type text/plain; return 200 "$drainctl_generation_shop\\n"; }}
  location /http {{ proxy_pass http://shop; proxy_http_version 1.1; }}
  location /fastcgi {{ fastcgi_pass shop; fastcgi_param REQUEST_METHOD GET; }}
  location /uwsgi {{ uwsgi_pass uwsgi://shop; uwsgi_param REQUEST_METHOD GET; }}
  location /scgi {{ scgi_pass shop; scgi_param REQUEST_METHOD GET; }}
}}
"""


def test_one_block_serves_every_protocol_and_tells_its_generation(which, tmp_path, wire):
    program, port, file = nginx_kit.binary(which), free_port(HOST), tmp_path / "shop.conf"
    servers = (Server(f"{HOST}:1", "down"), Server(wire.address, "live"))
    file.write_text(render("shop", servers, "v2:8001"))
    conf = SERVER.format(file=file, host=HOST, port=port)
    code, words = nginx_kit.tested(program, tmp_path, conf)
    assert code == 0, words
    with nginx_kit.nginx(program, tmp_path, conf):
        assert get(port, "/-/generation") == (200, "v2:8001\n")
        assert get(port, "/http") == (200, "ok")
        for path in ("/fastcgi", "/uwsgi", "/scgi"):
            assert get(port, path)[0] == 502  # the wire speaks HTTP only
        http_, fastcgi, uwsgi, scgi = wire.began
        assert http_.startswith(b"GET ")
        assert fastcgi.startswith(b"\1\1")  # version 1, FCGI_BEGIN_REQUEST
        assert uwsgi.startswith(b"\0")  # modifier1 0
        assert re.match(rb"\d+:", scgi)  # a netstring
        began = len(wire.began)
        assert [get(port, "/http") for _ in range(3)] == [(200, "ok")] * 3
        assert len(wire.began) == began + 3, "a connection was used twice"


def lost_posts(port):
    """How many of 400 POSTs over 4 connections were not answered with 200."""
    lost = []

    def client():
        with closing(http.client.HTTPConnection(HOST, port, timeout=10 * SLOW)) as connection:
            for _ in range(100):
                connection.request("POST", "/http", b"x")
                with connection.getresponse() as answer:
                    answer.read()
                lost.extend([answer.status] if answer.status != 200 else [])

    clients = [threading.Thread(target=client) for _ in range(4)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    return len(lost)


@pytest.mark.parametrize("line", ["", "keepalive_requests 1;"], ids=["naive", "ours"])
def test_an_app_that_closes_without_a_word_loses_no_post(which, tmp_path, wire, line):
    """nginx 1.29.7 and later keep a connection even where they asked the app to close it."""
    program, port, file = nginx_kit.binary(which), free_port(HOST), tmp_path / "shop.conf"
    text = render("shop", (Server(wire.address, "live"),), "v2:8001")
    assert "  keepalive_requests 1;\n" in text
    file.write_text(text.replace("keepalive_requests 1;", line))
    conf = SERVER.format(file=file, host=HOST, port=port)
    with nginx_kit.nginx(program, tmp_path, conf.replace("1.1;", "1.1; proxy_set_header Connection close;")):
        lost = lost_posts(port)
    print(f"{which} {line or 'without'}: {lost} of 400 lost")
    assert bool(lost) is (which == "wheel" and not line)


@pytest.mark.parametrize(
    "servers",
    [
        [("unix:/run/shop/current.sock", "live")],
        [("127.0.0.1:8000", "live"), ("127.0.0.1:8001", "backup")],
        [("127.0.0.1:8000", "live"), ("unix:/run/shop/other.sock", "down")],
    ],
    ids=["socket", "backup", "flip"],
)
def test_what_is_rendered_is_valid(which, tmp_path, servers):
    text = render("my-shop.v2", [Server(*server) for server in servers], "2024.01.31-a+b_c:8001")
    code, words = nginx_kit.tested(nginx_kit.binary(which), tmp_path, text)
    assert code == 0, words


def dumped(which, folder, conf, main=""):
    """`nginx -T` of it, both streams, as a terminal would show it."""
    config = nginx_kit.write(folder, conf)
    config.write_text(main + config.read_text())
    done = subprocess.run(
        [nginx_kit.binary(which), "-T", "-p", str(folder), "-e", str(folder / "e"), "-c", str(config)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30 * SLOW, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_settings_of_a_real_configuration(which, tmp_path):
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "shop.conf").write_text(
        render("shop", (Server("127.0.0.1:8000", "live"), Server("127.0.0.1:8001", "backup")), "v1:8000")
    )
    (tmp_path / "conf.d" / "a.conf").write_text(
        "# configuration file: not a mark\n"
        "server {\n"
        f"  listen {HOST}:8080;\n"
        "  client_header_timeout 1m30s;\n"
        "  proxy_connect_timeout 1s;\n"
        '  location / {\n    if ($request_method = "TRACE") { return 405; }\n'
        "    proxy_pass http://shop;\n    proxy_read_timeout 900s;\n"
        "    proxy_next_upstream error non_idempotent;\n  }\n"
        "  location ~ \\.php$ { fastcgi_pass shop; }\n"
        "}\n"
    )
    http = 'proxy_set_header Connection ""; include conf.d/*.conf; client_header_timeout 5s;'
    found = settings(dumped(which, tmp_path, http, "worker_shutdown_timeout 2m;\n"), "shop")
    assert found.at is not None
    assert found.at.startswith(str(tmp_path / "conf.d" / "shop.conf:"))
    assert found.servers == (
        Member("127.0.0.1:8000", down=False, backup=False, max_fails=0, fail_timeout_s=10),
        Member("127.0.0.1:8001", down=False, backup=True, max_fails=0, fail_timeout_s=10),
    )
    assert (found.keepalive, found.keepalive_requests, found.keepalive_timeout_s) == (None, 1, 60)
    proxy, fastcgi = found.passes
    assert proxy.at == f"{tmp_path}/conf.d/a.conf:8"
    assert proxy[1:] == ("proxy", 1, 900, ("error", "non_idempotent"), "")
    assert fastcgi[1:] == ("fastcgi", 60, 60, ("error", "timeout"), None)
    assert found.client_header_timeout_s == 90
    assert found.worker_shutdown_timeout_s == 120
    assert found.keeps_clients is False


@pytest.mark.parametrize(
    "http",
    [
        "keepalive_min_timeout 2s; server { listen %s; }",
        "server { listen %s; keepalive_min_timeout 2s; }",
        "server { listen %s; location / { keepalive_min_timeout 2s; } }",
    ],
    ids=["http", "server", "location"],
)
def test_who_keeps_idle_clients(which, tmp_path, http):
    http %= f"{HOST}:8080"
    code, words = nginx_kit.tested(nginx_kit.binary(which), tmp_path, http)
    if which == "system":
        assert 'unknown directive "keepalive_min_timeout"' in words
    else:
        assert code == 0, words
        assert keeps_clients(dumped(which, tmp_path, http)) is (None if "location" in http else True)
