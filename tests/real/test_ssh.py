"""SshTransport against a real OpenSSH server, and what it says when there is no way in."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from drainctl.errors import CommandTimedOut, ConnectFailed
from drainctl.model import Connect, Node
from drainctl.node.known_hosts import known_keys
from drainctl.node.local import LocalTransport
from drainctl.node.open import open_transport
from drainctl.node.route import Wanted, route
from drainctl.node.ssh import SshTransport
from tests.conftest import SLOW, need, until
from tests.real.sshd_kit import USER, Sshd, cut, free_port, make_key, sshd

pytestmark = pytest.mark.real
HOST = "127.0.22.10"


@pytest.fixture(scope="module", name="server")
def a_server(tmp_path_factory):
    with sshd(tmp_path_factory.mktemp("sshd"), HOST) as server:
        yield server


@pytest.fixture(name="ssh")
def a_transport(server):
    until("connections of before are gone", lambda: not server.children())
    transport = to(server)
    yield transport
    transport.close()


def to(server: Sshd, **other) -> SshTransport:
    wanted = {"user": USER, "port": server.port, "key": server.key, "known_hosts": server.known_hosts}
    return SshTransport(server.host, **{**wanted, "ssh_config": None, "timeout_s": 5 * SLOW, **other})


def refused(transport: SshTransport, limit_s: float = 10.0) -> ConnectFailed:
    try:
        with pytest.raises(ConnectFailed) as caught:
            transport.run("true", limit_s=limit_s * SLOW)
        return caught.value
    finally:
        transport.close()


def kib_of_memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


# ---------------------------------------------------------------- what it is for


def test_all_commands_share_one_connection_also_from_many_threads(server, ssh):
    ssh.run("true", limit_s=10 * SLOW)
    before = server.children()
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        answers[number] = ssh.run(f"sleep 0.1; echo {number}", limit_s=10 * SLOW).out

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"{number}\n" for number in range(8)}
    assert server.children() == before


def test_ssh_config_says_host_user_port_key_and_known_hosts(server):
    transport = SshTransport("node", ssh_config=server.config)
    assert transport.run("echo $SSH_CONNECTION", limit_s=10 * SLOW).out.split()[2:] == [
        HOST,
        str(server.port),
    ]
    transport.close()
    transport.close()


def test_an_included_ssh_config_counts(server, tmp_path):
    including = tmp_path / "config"
    including.write_text(f"Include {server.folder}/ssh_con*\nHost other\n  Port 1\n")
    transport = SshTransport("node", ssh_config=str(including))
    assert transport.run("echo in", limit_s=10 * SLOW).out == "in\n"
    transport.close()


def test_open_transport_takes_the_node_before_connect(server):
    connect = Connect(user="nobody", port=1, key=server.key, known_hosts=server.known_hosts)
    node = Node("web1", HOST, "web1", (), user=USER, port=server.port)
    transport = open_transport(node, connect)
    assert transport.run("echo in", limit_s=10 * SLOW).out == "in\n"
    transport.close()
    assert isinstance(open_transport(node, Connect(via="local")), LocalTransport)


def test_a_jump_goes_through_every_hop(server, tmp_path):
    with sshd(tmp_path / "a", "127.0.22.11") as first, sshd(tmp_path / "b", "127.0.22.12") as second:
        config = tmp_path / "config"
        text = Path(server.config).read_text() + "  ProxyJump first,second\n"
        for name, hop in (("first", first), ("second", second)):
            text += Path(hop.config).read_text().replace("Host node", f"Host {name}")
        config.write_text(text)
        transport = SshTransport("node", ssh_config=str(config))
        done = transport.run("echo $SSH_CONNECTION; sha256sum", limit_s=20 * SLOW, stdin=b"x" * 5_000_000)
        came_from, digest = done.out.splitlines()
        assert came_from.split()[2] == HOST
        assert digest.split()[0] == hashlib.sha256(b"x" * 5_000_000).hexdigest()
        assert "Starting session" not in (first.folder / "log").read_text()
        assert len(first.children()) == len(second.children()) == 1
        transport.close()
        until("both hops are left", lambda: not first.children() and not second.children())


def test_a_hop_that_cannot_reach_the_next_is_named(server, tmp_path):
    config = tmp_path / "config"
    nowhere = free_port(HOST)
    config.write_text(
        Path(server.config).read_text() + f"Host far\n  HostName {HOST}\n  Port {nowhere}\n  ProxyJump node\n"
    )
    error = refused(SshTransport("far", user=USER, ssh_config=str(config)))
    assert f"{USER}@{HOST}:{nowhere}: no way there through the hop before it" in str(error)


def test_a_jump_in_a_circle_is_refused(tmp_path):
    config = tmp_path / "config"
    config.write_text("Host a\n  ProxyJump b\nHost b\n  ProxyJump a\n")
    assert "in a circle" in str(refused(SshTransport("a", ssh_config=str(config))))


def test_a_proxy_command_is_the_connection_and_ends_with_it(server, tmp_path):
    ssh_program = need("ssh")
    config = tmp_path / "config"
    via = f"{ssh_program} -F {server.config} -W %h:%p node"
    config.write_text(Path(server.config).read_text() + f"  ProxyCommand {via}\n")
    transport = SshTransport("node", ssh_config=str(config))
    until("connections of before are gone", lambda: not server.children())
    assert transport.run("echo in", limit_s=10 * SLOW).out == "in\n"
    assert len(server.children()) == 2
    transport.close()
    until("both connections are gone", lambda: not server.children())


def test_a_proxy_command_that_fails_is_no_ssh_session(server, tmp_path):
    config = tmp_path / "config"
    config.write_text(Path(server.config).read_text() + "  ProxyCommand false\n")
    error = refused(SshTransport("node", ssh_config=str(config)))
    assert "the connection was closed before an SSH session began" in str(error)


# ---------------------------------------------------------------- no way in


def test_an_unknown_host_key_is_refused_with_its_fingerprint_and_the_way_to_learn_it(server, tmp_path):
    empty = tmp_path / "known hosts"
    error = refused(to(server, known_hosts=str(empty)))
    listed = ["ssh-keygen", "-lf", str(server.folder / "host.pub")]
    fingerprint = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split()[1]
    assert f"the host key is not known: it shows ssh-ed25519 {fingerprint}" in str(error)
    command = error.hint.partition("then: ")[2]
    assert command == f"ssh-keyscan -p {server.port} {HOST} >> '{empty}'"
    subprocess.run(["sh", "-c", command], check=True, capture_output=True, timeout=30)
    transport = to(server, known_hosts=str(empty))
    assert transport.run("echo in", limit_s=10 * SLOW).out == "in\n"
    transport.close()


def test_a_changed_host_key_is_refused_and_the_hint_forgets_the_old_one(server, tmp_path):
    make_key(tmp_path / "other")
    kind, key, *_ = (tmp_path / "other.pub").read_text().split()
    changed = tmp_path / "known_hosts"
    changed.write_text(f"[{HOST}]:{server.port} {kind} {key}\n")
    error = refused(to(server, known_hosts=str(changed)))
    assert "the host key has changed" in str(error)
    assert str(error).count("SHA256:") == 2
    command = error.hint.removeprefix("if it was reinstalled: ").partition(", then")[0]
    subprocess.run(["sh", "-c", command], check=True, capture_output=True, timeout=30)
    assert "is not known" in str(refused(to(server, known_hosts=str(changed))))


def test_a_revoked_host_key_is_refused_though_it_is_known(server, tmp_path):
    line = Path(server.known_hosts).read_text()
    revoked = tmp_path / "known_hosts"
    revoked.write_text(f"{line}@revoked * {line.split(maxsplit=1)[1]}")
    assert "the host key is revoked" in str(refused(to(server, known_hosts=str(revoked))))


def test_known_hosts_hashed_with_patterns_and_with_rubbish(server, tmp_path):
    file = tmp_path / "known_hosts"
    name = f"[{HOST}]:{server.port}"
    key = Path(server.known_hosts).read_text().split(maxsplit=1)[1]
    file.write_text(f"{name} {key}")
    subprocess.run(["ssh-keygen", "-H", "-f", str(file)], check=True, capture_output=True, timeout=30)
    assert file.read_text().startswith("|1|")
    rubbish = f"# a comment\n\nrubbish\n{name} ssh-ed25519 !!!\n@cert-authority * {key}"
    file.write_text(rubbish + file.read_text())
    assert len(known_keys(name, [str(file), str(tmp_path / "no such file")])[0]) == 1
    assert known_keys("[127.0.22.99]:1", [str(file)]) == ([], [])
    file.write_text(f"[127.0.22.*]:{server.port},!{name} {key}")
    assert known_keys(name, [str(file)]) == ([], [])
    assert len(known_keys(f"[127.0.22.11]:{server.port}", [str(file)])[0]) == 1


def test_a_refused_login_names_the_keys_that_were_tried(server, tmp_path, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    make_key(tmp_path / "stranger")
    error = refused(to(server, key=str(tmp_path / "stranger")))
    assert f"{USER}@{HOST}:{server.port}: login refused; keys tried: {tmp_path}/stranger" in str(error)
    assert "authorized_keys" in error.hint


def test_a_key_with_a_passphrase_is_told_and_a_missing_one_too(server, tmp_path, monkeypatch):
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    make_key(tmp_path / "locked", "-N", "secret", "-t", "ed25519")
    assert f"{tmp_path}/locked (has a passphrase: ssh-add it)" in str(
        refused(to(server, key=str(tmp_path / "locked")))
    )
    assert "is not there" in str(refused(to(server, key=str(tmp_path / "nothing"))))


def test_the_agent_is_asked(server, tmp_path, monkeypatch):
    agent = need("ssh-agent")
    sock = tmp_path / "a"
    with subprocess.Popen([agent, "-D", "-a", str(sock)], stdout=subprocess.DEVNULL) as process:
        try:
            until("the agent listens", sock.exists)
            monkeypatch.setenv("SSH_AUTH_SOCK", str(sock))
            subprocess.run(["ssh-add", "-q", server.key], check=True, timeout=30)
            make_key(tmp_path / "stranger")
            transport = to(server, key=str(tmp_path / "stranger"))
            assert transport.run("echo in", limit_s=10 * SLOW).out == "in\n"
            transport.close()
        finally:
            process.terminate()


def test_a_port_where_nobody_listens(server):
    port = free_port(HOST)
    error = refused(to(server, port=port))
    assert str(error) == f"{USER}@{HOST}:{port}: connection refused"


def test_a_name_that_does_not_resolve():
    error = refused(SshTransport("no-such-host.invalid", user="x", ssh_config=None))
    assert "the name no-such-host.invalid does not resolve" in str(error)


@pytest.mark.parametrize("greeting", [b"", b"SSH-2.0-mute\r\n"], ids=["no-banner", "banner-only"])
def test_a_server_that_never_answers_is_given_up_in_time(server, greeting):
    with socket.create_server((HOST, 0)) as mute:
        held = []

        def accept() -> None:
            connection, _ = mute.accept()
            held.append(connection)
            connection.sendall(greeting)

        thread = threading.Thread(target=accept)
        thread.start()
        began = time.monotonic()
        error = refused(to(server, port=mute.getsockname()[1], timeout_s=0.5))
        assert time.monotonic() - began < 3 * SLOW
        assert "connected, but no SSH session within 0." in str(error)
        thread.join()
        held[0].close()


def test_a_server_that_hangs_up_at_once(server):
    with socket.create_server((HOST, 0)) as rude:

        def hang_up() -> None:
            connection, _ = rude.accept()
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        error = refused(to(server, port=rude.getsockname()[1]))
        assert "the connection was closed before an SSH session began" in str(error)
        thread.join()


def test_a_full_accept_queue_is_no_connection(server):
    with socket.socket() as full:
        full.bind((HOST, 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(address)
        error = refused(to(server, port=address[1], timeout_s=0.5))
        assert "no connection within 0." in str(error)
        for each in waiting:
            each.close()


def test_more_sessions_than_the_server_allows(tmp_path):
    with sshd(tmp_path / "sshd", HOST, "MaxSessions 1") as server:
        transport = to(server)
        transport.run("true", limit_s=10 * SLOW)
        started, go_on = tmp_path / "started", tmp_path / "go on"
        line = f"touch '{started}'; until [ -e '{go_on}' ]; do sleep 0.05; done"
        thread = threading.Thread(target=transport.run, args=(line,), kwargs={"limit_s": 20 * SLOW})
        thread.start()
        until("the first command runs", started.exists)
        with pytest.raises(
            ConnectFailed, match=r"opens no further session: .*; the command was not started"
        ) as caught:
            transport.run("true", limit_s=0.5)
        assert "MaxSessions" in caught.value.hint
        threading.Timer(0.3, go_on.touch).start()
        assert transport.run("echo in turn", limit_s=20 * SLOW).out == "in turn\n"
        thread.join()
        transport.close()


# ---------------------------------------------------------------- lost, and found again


def test_a_connection_lost_in_the_middle_says_that_the_outcome_is_unknown(server, ssh, tmp_path):
    ssh.run("true", limit_s=10 * SLOW)
    started = tmp_path / "started"

    def meanwhile() -> None:
        until("the command runs", started.exists)
        cut(server)

    thread = threading.Thread(target=meanwhile)
    thread.start()
    began = time.monotonic()
    with pytest.raises(
        ConnectFailed, match="lost in the middle; whether the command ran to its end is unknown"
    ):
        ssh.run(f"touch {started}; sleep 5", limit_s=20 * SLOW)
    assert time.monotonic() - began < 4 * SLOW
    thread.join()
    assert ssh.run("echo again", limit_s=10 * SLOW).out == "again\n"


def test_a_connection_lost_between_commands_is_opened_again(server, ssh):
    ssh.run("true", limit_s=10 * SLOW)
    cut(server)
    until("the connections are gone", lambda: not server.children())
    assert ssh.run("echo again", limit_s=10 * SLOW).out == "again\n"
    ssh.close()
    assert ssh.run("echo and again", limit_s=10 * SLOW).out == "and again\n"


def test_a_server_that_freezes_is_bounded_by_the_limit(server, ssh):
    ssh.run("true", limit_s=10 * SLOW)
    frozen = server.serving()
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(ConnectFailed, match=r"no session within .*; the command was not started"):
            ssh.run("true", limit_s=0.5)
        assert time.monotonic() - began < 3 * SLOW
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)


def test_at_its_limit_the_whole_group_is_killed_and_the_connection_lives(server, ssh, tmp_path):
    pid_file = tmp_path / "pid"
    ssh.run("true", limit_s=10 * SLOW)
    before = server.children()
    with pytest.raises(CommandTimedOut, match=r"still running at its limit of 1 s: .*; it was killed"):
        ssh.run(f"trap '' TERM; sleep 60 & echo $! > {pid_file}; wait; sleep 60", limit_s=1)
    assert not alive(int(pid_file.read_text()))
    assert server.children() == before
    assert ssh.run("echo on", limit_s=10 * SLOW).out == "on\n"


def alive(pid: int) -> bool:
    """Running: a process that ended and that nobody has reaped yet is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_flood_is_drained_and_not_kept(ssh):
    ssh.run("true", limit_s=10 * SLOW)
    before = kib_of_memory()
    done = ssh.run("head -c 100000000 /dev/zero; head -c 3000000 /dev/zero >&2; echo end", limit_s=60 * SLOW)
    assert (done.code, len(done.out), len(done.err)) == (0, 65536, 65536)
    assert done.out.endswith("end\n")
    assert kib_of_memory() - before < 20_000


def test_the_way_of_fifty_megabytes_costs_no_memory(ssh, tmp_path):
    source = tmp_path / "big"
    wanted = hashlib.sha256()
    with source.open("wb") as file:
        for _ in range(50):
            block = os.urandom(1_000_000)
            wanted.update(block)
            file.write(block)
    ssh.run("true", limit_s=10 * SLOW)
    before = kib_of_memory()
    with source.open("rb") as file:
        done = ssh.run("sha256sum", limit_s=60 * SLOW, stdin=file)
    assert done.out.split()[0] == wanted.hexdigest()
    assert kib_of_memory() - before < 20_000


def test_a_command_cannot_be_taken_for_the_line_that_names_its_process(ssh):
    done = ssh.run("echo drainctl-pid 1 >&2; echo more >&2", limit_s=10 * SLOW)
    assert done.err == "drainctl-pid 1\nmore\n"


def test_a_stdin_that_cannot_be_read_raises_its_own_error(ssh):
    class Broken:
        def read(self, _size: int) -> bytes:
            raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        ssh.run("cat", limit_s=10 * SLOW, stdin=Broken())


def test_a_route_has_the_settings_of_each_hop(tmp_path):
    config = tmp_path / "config"
    config.write_text(
        "Host web*\n  User deploy\n  ProxyJump ops@gate:2222,inner\nHost inner\n  HostName 10.0.0.9\n"
        "Host gate\n  ProxyJump outer\nHost *\n  Port 2022\n"
    )
    hops = route(Wanted("web1", port=22), str(config))
    assert [str(hop) for hop in hops] == [
        f"{USER}@outer:2022",
        "ops@gate:2222",
        f"{USER}@10.0.0.9:2022",
        "deploy@web1:22",
    ]
