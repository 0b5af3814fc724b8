"""
Real PostgreSQL and etcd servers for tests: started once, stopped, killed, frozen and started again.

Everything is of the test's own: folders, ports, processes. Servers are ended by their process ids.
"""

from __future__ import annotations

import getpass
import http.client
import itertools
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from tests.conftest import need, until

BLOCK = "127.0.11"


def free_port(host: str) -> int:
    with closing(socket.socket()) as asked:
        asked.bind((host, 0))
        return int(asked.getsockname()[1])


def wait_stopped(pid: int) -> None:
    """Until every thread stands still: one takes the signal, and on a busy machine the others run on."""

    def still() -> bool:
        states = []
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):  # it ended meanwhile
                states.append((task / "stat").read_text().rpartition(")")[2].split()[0])
        return set(states) <= {"T", "t", "Z"}

    until(f"process {pid} stands still", still)


# ---------------------------------------------------------------- PostgreSQL


def programs() -> Path:
    """Where PostgreSQL's own programs are: Debian keeps them out of PATH."""
    newest = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda at: int(at.parts[-3]))
    return Path(need(str(newest[-1]) if newest else "initdb")).resolve().parent


def owner() -> dict[str, Any]:
    """PostgreSQL refuses to run as root: what subprocess must be told to run it as somebody else."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise AssertionError("no user to run PostgreSQL as")


def children(pid: int) -> list[int]:
    try:
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    return [int(child) for child in below]


def ended(pid: int) -> bool:
    """A zombie, or gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}


@dataclass
class Postgres:
    """One server. It listens on a socket in its folder, and on `host`:`port`. user: its superuser."""

    folder: Path
    host: str
    port: int
    user: str
    settings: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def run(self, program: str, *args: str) -> None:
        done = subprocess.run(
            [programs() / program, *args], capture_output=True, text=True, check=False, cwd="/", **owner()
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        settings = [
            f"listen_addresses={self.host}",
            f"port={self.port}",
            f"unix_socket_directories={self.folder}",
            "fsync=off",
            *self.settings,
        ]
        options = [word for setting in settings for word in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [programs() / "postgres", "-D", self.data, *options],
                stdout=log,
                stderr=log,
                cwd="/",
                **owner(),
            )
        until("PostgreSQL answers", self.answers)

    def answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.log
        with suppress(psycopg.Error):
            self.sql("SELECT 1")
            return True
        return False

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url(), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def url(self, schema: str | None = None, host: str | None = None) -> str:
        """By its socket; or by `host`, which may be HOST:PORT,HOST:PORT."""
        query = [f"options=-csearch_path%3D{schema}"] if schema else []
        if host is None:
            query.append(f"host={quote(str(self.folder), safe='')}&port={self.port}")
        asked = f"?{'&'.join(query)}" if query else ""
        return f"postgresql://{self.user}@{host or ''}/postgres{asked}"

    def schema(self) -> str:
        """An empty schema of its own: a store that nobody used before."""
        name = f"s{next(self.numbers)}"
        self.sql(f"CREATE SCHEMA {name}")
        return name

    def _signal(self, number: signal.Signals) -> None:
        assert self.process
        for pid in (self.process.pid, *children(self.process.pid)):  # each backend has a session of its own
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self) -> None:
        """It stays there, accepts connections in the kernel, and never answers."""
        self._signal(signal.SIGSTOP)
        assert self.process
        for pid in (self.process.pid, *children(self.process.pid)):
            wait_stopped(pid)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends it at once and in order ("fast"); SIGQUIT without writing anything more."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(how)
        self.thaw()
        self.process.wait(timeout=30)

    def kill(self) -> None:
        """As a power cut ends it. Its children first: one that is left keeps a new server from starting."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)  # so that it begins no more of them
        for child in children(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        pid = self.process.pid
        until("its children end", lambda: all(map(ended, children(pid))))
        self.process.kill()
        self.process.wait(timeout=30)

    def restart(self) -> None:
        self.stop()
        self.start()


def _folder(prefix: str) -> Path:
    # Below /tmp: the name of a UNIX socket has 107 characters, and the server's user must get there.
    made = Path(tempfile.mkdtemp(prefix=f"drainctl-{prefix}-", dir="/tmp"))
    made.chmod(0o755)
    if owner():
        os.chown(made, owner()["user"], owner()["group"])
    return made


@contextmanager
def postgres(host: str = f"{BLOCK}.10", *settings: str) -> Iterator[Postgres]:
    """A new server that trusts whoever reaches it."""
    folder = _folder("pg")
    user = pwd.getpwuid(owner()["user"]).pw_name if owner() else getpass.getuser()
    server = Postgres(folder, host, free_port(host), user, settings)
    try:
        server.run("initdb", "-D", str(server.data), "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        server.start()
        yield server
    finally:
        server.stop(signal.SIGQUIT)
        shutil.rmtree(folder)


@contextmanager
def standby(of: Postgres, host: str = f"{BLOCK}.11") -> Iterator[Postgres]:
    """A hot standby that follows `of`, which from now on acknowledges only what the standby has, too."""
    folder = _folder("pg")
    server = Postgres(folder, host, free_port(host), of.user)
    try:
        source = f"host={of.folder} port={of.port} user={of.user} application_name=standby"
        server.run("pg_basebackup", "-D", str(server.data), "-R", "-X", "stream", "-c", "fast", "-d", source)
        server.start()
        of.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        of.sql("SELECT pg_reload_conf()")
        until(
            "the standby is synchronous",
            lambda: of.sql("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"),
        )
        yield server
    finally:
        server.stop(signal.SIGQUIT)
        shutil.rmtree(folder)


# ---------------------------------------------------------------- etcd


@dataclass
class Member:
    """One etcd process."""

    command: list[str]
    host: str
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def ask(self, path: str, body: str = "{}", limit_s: float = 1.0) -> dict[str, Any]:
        with closing(http.client.HTTPConnection(self.host, self.port, timeout=limit_s)) as connection:
            connection.request("POST", path, body)
            return dict(json.loads(connection.getresponse().read()))

    def leads(self) -> bool:
        with suppress(OSError, ValueError):
            status = self.ask("/v3/maintenance/status")
            return bool(status["leader"] == status["header"]["member_id"])
        return False

    def ready(self) -> bool:
        """It answers a read that most must agree to: after a pause it may still name the old leader."""
        assert self.process
        assert self.process.poll() is None, self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
        with suppress(OSError, ValueError):
            return "header" in self.ask("/v3/kv/range", '{"key": "eA=="}')
        return False

    def freeze(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        wait_stopped(self.process.pid)

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=30)


@dataclass
class Etcd:
    """A cluster of three."""

    members: list[Member]

    def url(self, prefix: str | None = None) -> str:
        """With a prefix that nobody used before, when none is given."""
        hosts = ",".join(f"{member.host}:{member.port}" for member in self.members)
        return f"etcd://{hosts}/{prefix or uuid.uuid4().hex}"

    def leader(self) -> Member:
        found = until("etcd has a leader", lambda: [member for member in self.members if member.leads()])
        return found[0]

    def wait(self) -> None:
        for member in self.members:
            until("each member answers for all of them", member.ready, limit_s=20)


@contextmanager
def etcd(*, fsync: bool = False) -> Iterator[Etcd]:
    """Three members, ready to be written to. fsync: as in earnest."""
    program = need("etcd")
    folder = Path(tempfile.mkdtemp(prefix="drainctl-etcd-", dir="/tmp"))
    at = [(f"{BLOCK}.{n}", free_port(f"{BLOCK}.{n}"), free_port(f"{BLOCK}.{n}")) for n in (1, 2, 3)]
    cluster = ",".join(f"m{n}=http://{host}:{peer}" for n, (host, _, peer) in enumerate(at))
    members = []
    for n, (host, port, peer) in enumerate(at):
        command = [program, "--name", f"m{n}", "--data-dir", str(folder / f"m{n}")]
        command += [] if fsync else ["--unsafe-no-fsync"]
        command += ["--initial-cluster", cluster, "--initial-cluster-token", folder.name]
        for kind, where in (("client", port), ("peer", peer)):
            command += [f"--listen-{kind}-urls", f"http://{host}:{where}"]
        command += ["--advertise-client-urls", f"http://{host}:{port}", "--log-level", "error"]
        command += ["--initial-advertise-peer-urls", f"http://{host}:{peer}"]
        members.append(Member(command, host, port, folder / f"log{n}"))
    cluster_of = Etcd(members)
    try:
        for member in members:
            member.start()
        cluster_of.wait()
        yield cluster_of
    finally:
        for member in members:
            member.kill()
        shutil.rmtree(folder)


def certificates(folder: Path, host: str) -> None:
    """An authority of our own, and what it signed: server.pem for `host`, client.pem; each with its key."""
    openssl = need("openssl")

    def run(*args: str) -> None:
        done = subprocess.run([openssl, *args], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    new = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
    run("req", "-x509", *new, "-subj", "/CN=authority", "-keyout", "ca-key.pem", "-out", "ca.pem")
    for name, usage in (("server", "serverAuth,clientAuth"), ("client", "clientAuth")):
        run("req", *new[:-2], "-subj", f"/O={name}", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr")
        (folder / "more").write_text(
            f"subjectAltName=IP:{host}\nextendedKeyUsage={usage}\n", encoding="ascii"
        )
        signing = ("-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-days", "2")
        run("x509", "-req", "-in", f"{name}.csr", *signing, "-extfile", "more", "-out", f"{name}.pem")


@contextmanager
def locked_etcd(folder: Path, password: str, host: str = f"{BLOCK}.30") -> Iterator[str]:
    """
    One member that wants TLS, a client's certificate, and the user `deploy`, who may write below `drainctl/`
    only. Gives HOST:PORT.
    """
    program, ctl = need("etcd"), need("etcdctl")
    certificates(folder, host)
    port, peer = free_port(host), free_port(host)
    command = [program, "--name", "m", "--data-dir", str(folder / "m"), "--unsafe-no-fsync"]
    command += ["--listen-client-urls", f"https://{host}:{port}", "--log-level", "error"]
    command += ["--advertise-client-urls", f"https://{host}:{port}", "--client-cert-auth"]
    command += ["--listen-peer-urls", f"http://{host}:{peer}", "--initial-cluster", f"m=http://{host}:{peer}"]
    command += ["--initial-advertise-peer-urls", f"http://{host}:{peer}", "--cert-file", "server.pem"]
    command += ["--key-file", "server-key.pem", "--trusted-ca-file", "ca.pem"]
    asked = [ctl, "--endpoints", f"https://{host}:{port}", "--cacert", "ca.pem", "--cert", "client.pem"]
    asked += ["--key", "client-key.pem"]

    def run(*args: str) -> bool:
        done = subprocess.run([*asked, *args], cwd=folder, capture_output=True, text=True, check=False)
        return done.returncode == 0

    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        until("etcd answers by TLS", lambda: run("endpoint", "health"))
        assert run("user", "add", f"root:{password}")
        assert run("user", "grant-role", "root", "root")
        assert run("role", "add", "drainctl")
        assert run("role", "grant-permission", "drainctl", "readwrite", "--prefix", "drainctl/")
        assert run("user", "add", f"deploy:{password}")
        assert run("user", "grant-role", "deploy", "drainctl")
        assert run("auth", "enable")
        yield f"{host}:{port}"
    finally:
        process.kill()
        process.wait(timeout=30)


# ---------------------------------------------------------------- the way there


class Way:
    """
    The network between a controller and its store: passes everything on, until it is told to swallow what the
    store answers. The store then does what it was asked, and the controller sees its connection cut.

    swallow: how many answers from now on are lost; skip: how many pass before.
    """

    def __init__(self, target: tuple[str, int] | str, host: str = f"{BLOCK}.20") -> None:
        self._target = target
        self._listener = socket.create_server((host, 0))
        self.host, self.port = self._listener.getsockname()
        self.skip = self.swallow = self.swallowed = 0
        self._open: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        # shutdown wakes the thread that waits in accept; close alone does not
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(timeout=10)
        for each in self._open:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET)
            server.connect(self._target)
            self._open += [client, server]
            for pair in ((client, server, False), (server, client, True)):
                self._threads.append(threading.Thread(target=self._pass, args=pair, daemon=True))
                self._threads[-1].start()

    def _pass(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if answers and self.skip > 0:
                    self.skip -= 1
                elif answers and self.swallow > 0:
                    self.swallow -= 1
                    self.swallowed += 1
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
