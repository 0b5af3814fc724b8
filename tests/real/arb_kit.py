"""
Store machines in network namespaces of their own, and a place beside them from which clients ask.

    client ── bridge ── m1 … mN      (each a namespace; the bridge too, so nothing of it is on the host)

Every end knows the others' hardware addresses (no ARP), so a port taken off the bridge is a blackhole:
packets go nowhere and nobody says so.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests

from drainctl.arb import Prober
from drainctl.arb.stores import StoreProcess, accepts

SLOW = float(os.environ.get("DRAINCTL_TEST_SLOW", "1"))
NEWNET = 0x40000000
PORT = 7000


def ip(*words):
    subprocess.run(["ip", *words], check=True, capture_output=True)


def need_namespaces():
    """Skips, or fails in CI, where this process cannot make network namespaces."""
    message = ""
    if os.geteuid() != 0:
        message = "network namespaces need root"
    elif shutil.which("ip") is None:
        message = "ip (iproute2) is not installed"
    else:
        name = f"dct{os.getpid()}"
        tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
        if tried.returncode:
            message = f"no network namespaces here: {tried.stderr.strip()}"
        else:
            ip("netns", "del", name)
    if message and os.environ.get("DRAINCTL_CI") == "1":
        pytest.fail(message)
    if message:
        pytest.skip(message)


def enter(path):
    """This thread, and those that it starts, live in that network namespace from now on."""
    fd = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


class Net:
    """`machines` store machines, m1…; their addresses are 10.231.0.1…, the client's 10.231.0.200."""

    def __init__(self, folder: Path, machines: int = 4) -> None:
        self._tag = f"dct{os.getpid()}"
        self._count = machines
        self._bridge = f"{self._tag}-br"
        hosts = [f"10.231.0.{at}" for at in range(1, machines + 1)]
        self.hosts = hosts
        listen = [f"{host}:{PORT}" for host in hosts]
        peers = [listen[at ^ 1] if (at ^ 1) < machines else listen[at] for at in range(machines)]
        self.machines = [
            StoreProcess(own, folder / f"m{at}.db", peer, ("ip", "netns", "exec", self.name(at)))
            for at, (own, peer) in enumerate(zip(listen, peers, strict=True), 1)
        ]
        urls = [one.url for one in self.machines]
        self.shards = {"users": urls[:2], "orders": urls[2:4]} if machines >= 4 else {"users": urls[:2]}

    def name(self, at):
        return f"{self._tag}-m{at}" if at else f"{self._tag}-c"

    def up(self):
        ip("netns", "add", self._bridge)
        ip("-n", self._bridge, "link", "add", "name", "middle", "type", "bridge")
        ip("-n", self._bridge, "link", "set", "middle", "up")
        ends = [(0, 200), *((at, at) for at in range(1, self._count + 1))]
        for at, host in ends:
            ns = self.name(at)
            ip("netns", "add", ns)
            ip(
                "-n",
                self._bridge,
                "link",
                "add",
                f"p{at}",
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "netns",
                ns,
            )
            ip("-n", ns, "link", "set", "eth0", "address", f"02:00:00:00:00:{host:02x}")
            ip("-n", ns, "addr", "add", f"10.231.0.{host}/24", "dev", "eth0")
            for link in ("lo", "eth0"):
                ip("-n", ns, "link", "set", link, "up")
            ip("-n", self._bridge, "link", "set", f"p{at}", "up")
            self.restore(at)
        for at, _ in ends:
            for _, host in ends:
                where = f"10.231.0.{host}"
                known = ("lladdr", f"02:00:00:00:00:{host:02x}", "nud", "permanent", "dev", "eth0")
                ip("-n", self.name(at), "neigh", "replace", where, *known)

    def nowhere(self, host):
        """The client believes that 10.231.0.`host` is on the bridge; nobody is."""
        known = ("lladdr", f"02:00:00:00:00:{host:02x}", "nud", "permanent", "dev", "eth0")
        ip("-n", self.name(0), "neigh", "replace", f"10.231.0.{host}", *known)

    def blackhole(self, at):
        ip("-n", self._bridge, "link", "set", f"p{at}", "nomaster")

    def restore(self, at):
        ip("-n", self._bridge, "link", "set", f"p{at}", "master", "middle")

    def start(self):
        for machine in self.machines:
            machine.start()
        with self.inside():
            for machine in self.machines:
                accepts(machine.listen, 15 * SLOW)

    def down(self):
        for machine in self.machines:
            machine.kill()
        for name in [self._bridge, *(self.name(at) for at in range(self._count + 1))]:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)

    @contextmanager
    def inside(self, at=0):
        """This thread, and what it starts, is where the clients are (or on machine `at`)."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            enter(f"/run/netns/{self.name(at)}")
            yield
        finally:
            enter(f"/proc/self/fd/{home}")
            os.close(home)


def running(folder, machines=2):
    """For a fixture of a module: store machines that serve."""
    need_namespaces()
    net = Net(folder, machines)
    try:
        net.up()
        net.start()
        yield net
    finally:
        net.down()


def mended(net):
    """For a fixture of a test: inside the clients' place; afterwards every machine is well again."""
    with net.inside():
        yield net
        for at, machine in enumerate(net.machines, 1):
            net.restore(at)
            machine.thaw()
            if not machine.pid:
                machine.start()
            until_answers(machine.url)


class Hostile:
    """
    A server on machine `at`: `serve(sock)` has each connection, one thread each, and may do what it likes.
    """

    def __init__(self, net, at, port, serve):
        with net.inside(at):
            self._listening = socket.create_server((net.hosts[at - 1], port))
        self._serve = serve
        self._open = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *_):
        for sock in (self._listening, *self._open):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for sock in (self._listening, *self._open):
            sock.close()

    def _accept(self):
        with suppress(OSError):
            while True:
                sock, _ = self._listening.accept()
                handle = sock.dup()  # TLS takes the socket itself away
                self._open.append(handle)
                self._threads.append(threading.Thread(target=self._one, args=(sock, handle)))
                self._threads[-1].start()

    def _one(self, sock, handle):
        with suppress(OSError):
            self._serve(sock)
        sock.close()
        with suppress(OSError):
            handle.shutdown(socket.SHUT_RDWR)


def until_answers(url, limit_s=15.0):
    deadline = time.monotonic() + limit_s * SLOW
    while True:
        try:
            return requests.get(url, timeout=1)
        except requests.RequestException:
            assert time.monotonic() < deadline, f"{url} does not answer"
            time.sleep(0.05)


def self_signed(folder, addresses):
    """A certificate for these addresses, with its key, in one PEM file."""
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "store")])
    now = dt.datetime.now(dt.UTC)
    names = [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    path = folder / "store.pem"
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password) + signed.public_bytes(pem)
    )
    return path


@contextmanager
def watching(session, policy):
    """A prober of all machines of a session, on its board."""
    prober = Prober(session.arb.shards, session.board, policy, watch=True)
    prober.start()
    try:
        yield prober
    finally:
        prober.stop()


@contextmanager
def within(limit_s):
    """The block takes no longer, stretched on slow machines."""
    began = time.monotonic()
    yield
    took_s = time.monotonic() - began
    assert took_s < limit_s * SLOW, f"took {took_s:.2f} s"
