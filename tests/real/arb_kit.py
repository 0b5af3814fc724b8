"""
Store machines in network namespaces of their own, and a place beside them from which clients ask.

    client ── bridge ── m1 … mN          (each a namespace; the bridge has one too, so nothing of it is on the host)

Every end knows the others' hardware addresses (no ARP), so a port taken off the bridge is a blackhole: packets go
nowhere and nobody says so.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

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
        ip("-n", self._bridge, "link", "add", "br", "type", "bridge")
        ip("-n", self._bridge, "link", "set", "br", "up")
        ends = [(0, 200), *((at, at) for at in range(1, self._count + 1))]
        for at, host in ends:
            ns = self.name(at)
            ip("netns", "add", ns)
            ip("-n", self._bridge, "link", "add", f"p{at}", "type", "veth", "peer", "name", "eth0", "netns", ns)
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

    def blackhole(self, at):
        ip("-n", self._bridge, "link", "set", f"p{at}", "nomaster")

    def restore(self, at):
        ip("-n", self._bridge, "link", "set", f"p{at}", "master", "br")

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


class Load:
    """
    `threads` users, each with one request after the other, 10 ms apart; every outcome is counted.

    Reads go to /k/a, every third is a POST that must run once; `long_s` adds as many users with queries that long.
    """

    def __init__(self, session, shards=("users", "orders"), threads=4, long_s=0.0, long_users=2):
        self.session = session
        self.outcomes = Counter()
        self.failures = []
        self.sent = []
        self.slowest_s = 0.0
        self.long = 0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [
            threading.Thread(target=self._user, args=(shards[at % len(shards)], at)) for at in range(threads)
        ]
        if long_s:
            self._threads += [
                threading.Thread(target=self._long, args=(shards[at % len(shards)], long_s)) for at in range(long_users)
            ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _user(self, shard, user):
        at = 0
        while not self._stop.is_set():
            at += 1
            began = time.monotonic()
            try:
                if at % 3:
                    status = self.session.get(f"arb://{shard}/k/a").status_code
                else:
                    one = f"{user}-{at}"
                    with self._lock:
                        self.sent.append(one)
                    status = self.session.post(f"arb://{shard}/once/{one}", data=b"x").status_code
                self._count(status if status in (200, 204) else f"status {status}", began)
            except Exception as error:
                self._count(type(error).__name__, began, f"{'POST' if at % 3 == 0 else 'GET'} {error}")
            self._stop.wait(0.01)

    def _long(self, shard, long_s):
        while not self._stop.is_set():
            try:
                status = self.session.get(f"arb://{shard}/query", params={"for": long_s}).status_code
                self._count("long" if status == 200 else f"long status {status}", time.monotonic())
            except Exception as error:
                self._count(f"long {type(error).__name__}", time.monotonic(), str(error))

    def _count(self, outcome, began, failure=None):
        took_s = time.monotonic() - began
        with self._lock:
            self.outcomes[outcome] += 1
            self.slowest_s = max(self.slowest_s, took_s)
            if failure is not None:
                self.failures.append(failure)

    @property
    def failed(self):
        return sum(count for outcome, count in self.outcomes.items() if outcome not in (200, 204, "long"))


def runs(session, shards):
    """How often each POST ran, over all machines."""
    total = Counter()
    for urls in shards.values():
        for url in urls:
            total.update(session.get(f"{url}/once").json())
    return total
