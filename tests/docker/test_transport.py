"""Command lines in containers, over every way to an engine, and what happens when something breaks."""

from __future__ import annotations

import hashlib
import io
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import pytest

from drainctl.config.load import load
from drainctl.errors import CommandTimedOut, ConnectFailed
from drainctl.node.docker import DockerTransport
from drainctl.node.engine import Engine, Tls
from drainctl.wire import Wired
from tests.conftest import SLOW, need, until
from tests.real.sshd_kit import USER, sshd

SSHD = "127.0.113.2"
TLS = "127.0.113.3"


@pytest.fixture(scope="module", name="box")
def a_container(engine) -> Iterator[str]:
    name = f"drainctl-box-{time.monotonic_ns()}"
    engine.docker("run", "--detach", "--init", "--name", name, engine.base_image(), "sleep", "600")
    yield name
    engine.docker("rm", "--force", name)


@pytest.fixture(name="transport")
def a_transport(engine, box) -> Iterator[DockerTransport]:
    transport = DockerTransport(box, Engine(engine.host))
    yield transport
    transport.close()


def test_a_command_has_its_output_its_errors_and_its_code(transport):
    done = transport.run("echo out; echo err >&2; exit 7", limit_s=10)
    assert (done.code, done.out, done.err) == (7, "out\n", "err\n")
    assert transport.run("kill -9 $$", limit_s=10).code == 137


def test_who_commands_run_as(engine, box):
    for user, name in (("", "root"), ("nobody", "nobody")):
        transport = DockerTransport(box, Engine(engine.host), user)
        assert transport.run("id -un", limit_s=10).out == f"{name}\n"
        transport.close()


def test_input_is_streamed_also_where_the_output_is_not_read_first(transport):
    data = hashlib.sha256(b"x").digest() * 300_000  # 9.6 MB
    done = transport.run("sha256sum", limit_s=30, stdin=io.BytesIO(data))
    assert done.out.split()[0] == hashlib.sha256(data).hexdigest()
    half = io.BytesIO(data)
    half.seek(len(data) // 2)
    assert transport.run("wc -c", limit_s=30, stdin=half).out == f"{len(data) // 2}\n"
    assert transport.run("wc -c", limit_s=10, stdin=b"").out == "0\n"
    much = transport.run("head -c 3000000 /dev/zero; wc -c", limit_s=30, stdin=data)
    assert much.out.endswith(f"{len(data)}\n")
    assert transport.run("exit 4", limit_s=30, stdin=data).code == 4  # it does not want its input


def test_only_the_end_of_much_output_is_kept(transport):
    done = transport.run("seq 200000; echo end >&2", limit_s=30)
    assert done.out.endswith("199999\n200000\n")
    assert len(done.out) == 65536
    assert done.err == "end\n"


def test_a_command_ends_with_its_shell_whatever_it_left_behind(transport):
    began = time.monotonic()
    done = transport.run("sleep 300 & echo $!", limit_s=30)
    assert time.monotonic() - began < 15 * SLOW
    assert transport.run(f"kill {int(done.out)}", limit_s=10).code == 0, "what it left still ran"


def test_at_its_limit_a_command_and_all_that_it_started_are_killed(transport):
    line = "trap '' TERM; sleep 4242 & sleep 4242"  # the init process reaps them
    with pytest.raises(CommandTimedOut, match=r"still running at its limit of 1 s.*; it was killed"):
        transport.run(line, limit_s=1)
    left = transport.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '", limit_s=10).out
    assert "sleep 600" in left, "what runs in the container is seen"
    assert "sleep 4242" not in left


def test_a_container_that_is_not_there_does_not_run_or_is_paused(engine, box):
    def refused(name: str) -> str:
        transport = DockerTransport(name, Engine(engine.host))
        with pytest.raises(ConnectFailed) as caught:
            transport.run("true", limit_s=10)
        transport.close()
        return str(caught.value)

    nobody = refused("drainctl-nobody")
    assert nobody == (
        "drainctl-nobody: exec: No such container: drainctl-nobody; the command was not started"
    )
    made = f"{box}-made"
    engine.docker("create", "--name", made, engine.base_image())
    assert "is not running" in refused(made)
    engine.docker("rm", made)
    engine.docker("pause", box)
    try:
        assert "is paused" in refused(box)
    finally:
        engine.docker("unpause", box)


def test_no_engine(tmp_path, box):
    transport = DockerTransport(box, Engine(f"unix://{tmp_path}/docker.sock"))
    with pytest.raises(ConnectFailed) as caught:
        transport.run("true", limit_s=10)
    assert "does not answer (connect): No such file or directory" in str(caught.value)
    assert (
        caught.value.hint == f"does the engine run? `docker -H unix://{tmp_path}/docker.sock version` tells"
    )


def test_an_engine_that_hangs_is_bounded(tmp_path, box):
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "s"))
        mute.listen()
        transport = DockerTransport(box, Engine(f"unix://{tmp_path}/s", timeout_s=0.5))
        began = time.monotonic()
        with pytest.raises(ConnectFailed, match="does not answer"):
            transport.run("true", limit_s=10)
        assert time.monotonic() - began < 8 * SLOW


def test_a_connection_lost_in_the_middle_leaves_the_outcome_unknown(engine, box, tmp_path):
    with Relay(tmp_path / "relay.sock", urlsplit(engine.host).path) as relay:
        transport = DockerTransport(box, Engine(relay.url))
        assert transport.run("echo 1", limit_s=10).out == "1\n"
        cutter = threading.Timer(0.5, relay.cut)
        cutter.start()
        with pytest.raises(ConnectFailed, match="whether the command ran to its end is unknown"):
            transport.run("sleep 3", limit_s=20)
        cutter.join()
        relay.closed = False
        assert transport.run("echo 2", limit_s=10).out == "2\n", "it connects anew"
        transport.close()


def test_through_ssh(engine, box, tmp_path, monkeypatch):
    need("docker")
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    with sshd(tmp_path / "sshd", SSHD, f"SetEnv DOCKER_HOST={engine.host}") as server:
        shutil.copy(server.config, home / ".ssh" / "config")
        monkeypatch.setenv("HOME", str(home))
        transport = DockerTransport(box, Engine(f"ssh://{USER}@node:{server.port}"))
        with pytest.raises(ConnectFailed, match="not found in known_hosts"):
            transport.run("true", limit_s=10)
        shutil.copy(server.known_hosts, home / ".ssh" / "known_hosts")
        data = b"0123456789" * 100_000
        done = transport.run("wc -c; echo err >&2", limit_s=20, stdin=data)
        assert (done.out, done.err) == (f"{len(data)}\n", "err\n")
        with pytest.raises(CommandTimedOut, match="it was killed"):
            transport.run("sleep 60", limit_s=1)
        transport.close()


def test_by_tls(engine, box, tmp_path):
    authority(tmp_path)
    with Relay(None, urlsplit(engine.host).path, tls=tmp_path) as relay:
        files = [str(tmp_path / f"{name}.pem") for name in ("ca", "client", "client-key")]
        transport = DockerTransport(box, Engine(relay.url, Tls(*files)))
        data = b"0123456789" * 100_000
        assert transport.run("wc -c", limit_s=20, stdin=data).out == f"{len(data)}\n"
        assert transport.run("seq 100000 | tail -n 1", limit_s=20).out == "100000\n"
        transport.close()
        stranger = DockerTransport(box, Engine(relay.url, Tls(files[0])))
        with pytest.raises(ConnectFailed):
            stranger.run("true", limit_s=10)
        stranger.close()


def test_requests_in_flight_are_counted_without_ss(engine, box, tmp_path):
    """Bytes that nobody has read: a server that does not accept, seen by /proc of the container."""
    config = tmp_path / "drainctl.yml"
    config.write_text(
        f"""\
app: shop
balancers: {{lb1: {{runtime: unix:lb.sock}}}}
connect: {{via: docker, engine: "{engine.host}"}}
nodes: {{web1: {{host: 127.0.0.1, container: {box}}}}}
health:
  check: http://{{host}}:8099/http-check
  flag: /run/drain
  ready: http://{{host}}:8099/
store: "sqlite:///{tmp_path}/j.db"
""",
        encoding="utf-8",
    )
    serve = (
        "perl -MIO::Socket::INET -e '"
        "$d = IO::Socket::INET->new(LocalPort => 8099, Listen => 9) or die; "
        '$c = IO::Socket::INET->new("127.0.0.1:8099") or die; '
        "if ($ARGV[0]) { syswrite $c, q(GET / HTTP/1.1) } sleep 300' "
    )
    with Wired(load(str(config))) as wired:
        host = wired.hosts["web1"]
        assert host.ask("command -v ss").code, "this image is to have no ss"
        assert host.active() == 0
        idle = host.ask(f"{serve} 0 >/dev/null 2>&1 & echo $!").out.strip()
        until("it listens", lambda: "1FA3" in host.ask("cat /proc/net/tcp").out)
        assert host.active() == 0, "a connection without a request"
        host.ask(f"kill {idle}")
        until("it is gone", lambda: "1FA3" not in host.ask("grep ' 0A ' /proc/net/tcp").out)
        host.ask(f"{serve} 1 >/dev/null 2>&1 &")
        until("the request is counted", lambda: host.active() == 1)


# ---------------------------------------------------------------- kit


class Relay:
    """Connections handed on to the engine's socket: one that can be cut, and one that speaks TLS."""

    def __init__(self, at: Path | None, engine: str, tls: Path | None = None) -> None:
        self._engine = engine
        self._open: list[socket.socket] = []
        self._context: ssl.SSLContext | None = None
        self.closed = False
        if at is not None:
            self._door = socket.socket(socket.AF_UNIX)
            self._door.bind(str(at))
            self.url = f"unix://{at}"
        else:
            self._door = socket.socket()
            self._door.bind((TLS, 0))
            self.url = f"tcp://{TLS}:{self._door.getsockname()[1]}"
        if tls:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(tls / "server.pem", tls / "server-key.pem")
            self._context.load_verify_locations(tls / "ca.pem")
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._door.listen()
        self._door.settimeout(0.1)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.cut()
        self._thread.join()
        self._door.close()

    def cut(self) -> None:
        """Every connection that is open, and none is taken until `closed` is False again."""
        self.closed = True
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        threads = []
        while not self._end.is_set():
            try:
                client, _ = self._door.accept()
            except TimeoutError:
                continue
            if self.closed:
                client.close()
                continue
            thread = threading.Thread(target=self._serve, args=(client,))
            thread.start()
            threads.append(thread)
        for thread in threads:
            thread.join()

    def _serve(self, client: socket.socket) -> None:
        engine = socket.socket(socket.AF_UNIX)
        try:
            if self._context:
                client.settimeout(10)
                client = self._context.wrap_socket(client, server_side=True)
            engine.connect(self._engine)
            self._open += [client, engine]
            _both_ways(client, engine)
        except OSError:
            pass
        finally:
            client.close()
            engine.close()


def _both_ways(client: socket.socket, engine: socket.socket) -> None:
    """In one thread, since a TLS connection may not be read and written by two at a time."""
    client.setblocking(False)
    engine.setblocking(False)
    moved = time.monotonic()
    while time.monotonic() - moved < 60:
        for source, sink in ((client, engine), (engine, client)):
            try:
                data = source.recv(16384)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            if not data:
                return
            moved = time.monotonic()
            while data:
                try:
                    data = data[sink.send(data) :]
                except (BlockingIOError, ssl.SSLWantWriteError):
                    time.sleep(0.001)
        if time.monotonic() - moved > 0.001:
            time.sleep(0.001)


def authority(folder: Path) -> None:
    """A certificate authority with a server's and a client's certificate."""
    need("openssl")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=60)

    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    openssl(*new, "-x509", "-subj", "/CN=authority", "-keyout", "ca-key.pem", "-out", "ca.pem")
    for name in ("server", "client"):
        openssl(*new, "-subj", f"/CN={name}", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr")
        (folder / "ext").write_text(f"subjectAltName=IP:{TLS}\n")
        ends = ["-CAcreateserial", "-extfile", "ext", "-out", f"{name}.pem"]
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem", *ends)
