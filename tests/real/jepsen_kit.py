"""
Controllers as machines of their own, whoever troubles them, and what must be so whatever befell them.

A machine is a folder (its HOME and its copy of drainctl.yml), a boot id, and a way to the store that can be
cut. On each somebody calls drainctl, one call after the other; what is called and what befalls it is drawn
from a seed. What is judged afterwards are the nodes' own logs, the journal, and where the nodes are.
"""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from drainctl.journal.events import Event
from drainctl.journal.replay import CLOSED, RolloutState
from drainctl.lab import ready
from drainctl.lab.cluster import Lab
from tests.conftest import SLOW
from tests.real.fence_kit import LEASE_S, Entry, overlaps, popen, stopped

ACTS = ("Stage", "SetFlag", "Nudge", "Switch", "RunOnNode", "Warm", "ClearFlag")  # to be stopped right before
CODES = {0, 1, 2, 3, 4, 5, 130, -signal.SIGKILL, -signal.SIGTERM}
HANGS = -1
CALL_LIMIT_S = 90.0
TROUBLES = ("kill", "stop", "stop", "cut", "cut and reset")

# A machine of its own for `gone`, and nodes' logs that are kept whole for who reads them afterwards.
ELSEWHERE = """
import faulthandler, signal
faulthandler.register(signal.SIGUSR1)
from drainctl.journal import lease
from drainctl.node import fence
lease._boot = lambda: {boot!r}
fence._CHECK = fence._CHECK.replace("-gt %d" % fence.LOG_MOST, "-gt 999999999")
"""
# What a node looks like whose fence lets everybody through, and still writes down who acts.
UNFENCED = """
from drainctl.node import fence
fence._CHECK = fence._CHECK.replace("fence_ours() {\\n", "fence_ours() {\\n  return 0\\n")
"""


# ---------------------------------------------------------------- the way to a store


class Relay:
    """
    The network between one machine and one server. While it is cut nothing passes in either direction, and
    what was sent meanwhile comes late, as TCP sends it again; or all connections end as well.
    """

    def __init__(self, target: tuple[str, int] | str, host: str) -> None:
        """Both may be the path of a unix socket. at: where it listens, as HOST:PORT or its path."""
        self._target = target
        unix = "/" in host
        self._listener = socket.socket(socket.AF_UNIX) if unix else socket.create_server((host, 0))
        if unix:
            self._listener.bind(host)
            self._listener.listen()
        self.at = host if unix else "{}:{}".format(*self._listener.getsockname())
        self._passes = threading.Event()
        self._passes.set()
        self._live: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def cut(self, *, reset: bool) -> None:
        self._passes.clear()
        for each in list(self._live) if reset else ():
            _shut(each)

    def heal(self) -> None:
        self._passes.set()

    def close(self) -> None:
        _shut(self._listener)  # wakes the thread that waits in accept; close alone does not
        self._listener.close()
        self.heal()
        while any(thread.is_alive() for thread in self._threads):
            for each in list(self._live):
                _shut(each)
            self._threads[0].join(0.01)
            self._threads = [thread for thread in self._threads if thread.is_alive()] or [threading.Thread()]

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._carry, args=(client,)))
            self._threads[-1].start()

    def _carry(self, client: socket.socket) -> None:
        self._passes.wait()
        with client, suppress(OSError), _connected(self._target) as server:
            both = {client, server}
            self._live |= both
            back = threading.Thread(target=self._pass, args=(server, client))
            back.start()
            self._pass(client, server)
            back.join()
            self._live -= both

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._passes.wait()
                sink.sendall(data)
        _shut(source)
        _shut(sink)


def _connected(target: tuple[str, int] | str) -> socket.socket:
    if not isinstance(target, str):
        return socket.create_connection(target)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(target)
    except OSError:
        connection.close()
        raise
    return connection


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)


# ---------------------------------------------------------------- who calls drainctl


@dataclass
class Call:
    """One call of drainctl that has ended."""

    machine: str
    argv: tuple[str, ...]
    code: int
    err: str

    @property
    def wrong(self) -> bool:
        return self.code not in CODES or "Traceback" in self.err

    def __str__(self) -> str:
        return f"{self.machine}: drainctl {' '.join(self.argv)}: exit {self.code}\n{self.err}"


@dataclass
class Machine:
    """
    A machine and who calls drainctl there. ways: to each server of the store. watches: stands by instead of
    deploying. rng: what is called there, and for how long what stops stays stopped.
    """

    lab: Lab
    name: str
    store: str
    ways: Sequence[Relay]
    archives: Sequence[Path]
    rng: random.Random
    watches: bool = False
    calls: list[Call] = field(default_factory=list)
    stops: int = 0
    process: subprocess.Popen[str] | None = None
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix=f"{self.name}-", dir=self.lab.folder))
        text = self.lab.config.read_text()
        [line] = [line for line in text.splitlines() if line.startswith("store:")]
        self.config = self.home / "drainctl.yml"
        self.config.write_text(text.replace(line, f'store: "{self.store}"'))
        self.thread = threading.Thread(target=self._live, name=self.name)

    def call(self, *argv: str, stop_at: str = "", limit_s: float = CALL_LIMIT_S) -> Call:
        """One call to its end. What is stopped on the way is woken after its lease has run out, or before."""
        env = {"HOME": str(self.home), "PWD": str(self.home), "TMPDIR": str(self.home)}
        before = ELSEWHERE.format(boot=self.name)
        with (self.home / "err").open("w+") as err:
            process = popen(
                self.lab, *argv, stop_at=stop_at, before=before, config=self.config, env=env, into=err
            )
            self.process = process
            try:
                in_time = self._wait(process, limit_s * SLOW)
            finally:
                self.process = None
                process.kill()
                process.wait()
            err.seek(0)
            code = process.returncode if in_time else HANGS
            self.calls.append(Call(self.name, argv, code, err.read()))
        return self.calls[-1]

    def _wait(self, process: subprocess.Popen[str], limit_s: float) -> bool:
        """Whether it ended in time; where not, it has said where each of its threads was."""
        began = time.monotonic()
        stays_s = self.rng.uniform(8, 25) if self.watches else limit_s
        wakes_s = asked = 0.0
        while process.poll() is None and (now := time.monotonic()) < began + limit_s:
            with suppress(OSError):  # it may end meanwhile
                if stopped(process.pid) and not wakes_s:
                    self.stops += 1
                    wakes_s = now + self.rng.uniform(0.3, 3) * LEASE_S * SLOW
            if wakes_s and (now > wakes_s or self.over.is_set()):
                process.send_signal(signal.SIGCONT)
                wakes_s = 0.0
            if self.watches and not asked and (now > began + stays_s or self.over.is_set()):
                process.send_signal(signal.SIGTERM)
                asked = now
            time.sleep(0.02)
        if process.poll() is not None:
            return True
        process.send_signal(signal.SIGCONT)
        process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)
        return False

    def _live(self) -> None:
        code = 0
        while not self.over.is_set():
            stop_at = self.rng.choice(ACTS) if self.rng.random() < 0.5 else ""
            code = self.call(*self._next(code), stop_at=stop_at).code
            self.over.wait(self.rng.uniform(0, 0.5))

    def _next(self, code: int) -> tuple[str, ...]:
        if self.watches:
            return ("recover", "--watch", "--every", "0.3", "--then", self.rng.choice(["resume", "abort"]))
        if code in {3, 5} and self.rng.random() < 0.7:
            ways = [("resume",), ("abort",), ("recover",), ("recover", "--then", "abort")]
            return self.rng.choice(ways)
        if code == 0 and self.rng.random() < 0.1:
            return ("pause",)
        verbs = [("deploy", str(self.rng.choice(self.archives)))] * 6 + [("restart",), ("rollback",)]
        return self.rng.choice(verbs)


def trouble(machines: Sequence[Machine], rng: random.Random, seconds: float) -> Counter[str]:
    """Kills, stops and cuts for so long, one at a time and several at once; what was done, by its name."""
    done: Counter[str] = Counter()
    cut: dict[str, tuple[Machine, float]] = {}
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        for machine, _ in [each for each in cut.values() if each[1] < now]:
            heal(machine)
            del cut[machine.name]
        machine, kind = rng.choice(machines), rng.choice(TROUBLES)
        process = machine.process
        if kind.startswith("cut"):
            for way in machine.ways:
                way.cut(reset=kind != "cut")
            cut[machine.name] = (machine, now + rng.uniform(0.3, 3) * LEASE_S * SLOW)
            done[kind] += 1
        elif process is not None:
            process.send_signal(signal.SIGKILL if kind == "kill" else signal.SIGSTOP)
            done[kind] += 1
        time.sleep(rng.uniform(0.3, 4))
    for machine in machines:
        heal(machine)
    return done


def heal(machine: Machine) -> None:
    for way in machine.ways:
        way.heal()


def settle(machine: Machine, opened: Callable[[], RolloutState | None]) -> None:
    """Faults are over: whoever is left takes over what died, and people end what was left to them."""
    deadline = time.monotonic() + CALL_LIMIT_S * SLOW
    while (state := opened()) is not None:
        last = machine.call("recover") if state.ended is None else machine.call("abort")
        for left in re.findall(r"^by hand: drainctl .* restore (\S+) --steal", last.err, re.MULTILINE):
            machine.call("restore", left, "--steal")  # a restart cannot be taken back; whoever reads on knows
        assert time.monotonic() < deadline, f"rollout {state.id} stays open ({state.ended}): {state}\n{last}"
        time.sleep(0.2)


# ---------------------------------------------------------------- what must be so


def wrong_in(log: Sequence[Entry]) -> list[str]:
    """What a node's log must never show: two controllers at once, or an old one after a new one."""
    found = [f"{new} began while {old} ran" for old, new in overlaps(list(log))]
    highest = 0
    for entry in log:
        if entry.what == "begin" and entry.token < highest:
            found.append(f"{entry} began after token {highest} had been there")
        if entry.what in {"raised", "begin"}:
            highest = max(highest, entry.token)
    return found


def unexplained(log: Iterable[Entry], journal: Mapping[str, Sequence[Event]]) -> list[str]:
    """Acts of whom the journal does not know: it tells, by its token, each controller of a rollout."""
    known = {
        (rollout, event.data["token"])
        for rollout, events in journal.items()
        for event in events
        if event.kind in {"rollout.began", "rollout.resumed"}
    }
    return [
        f"{entry} is of no rollout of the journal"
        for entry in log
        if entry.what == "begin" and entry.rest != "claim" and (entry.rollout, entry.token) not in known
    ]


def not_up(lab: Lab) -> list[str]:
    """What keeps a balancer from showing every server UP, after a while in which checks may pass."""
    names, deadline = lab.settings.node_names, time.monotonic() + 15 * SLOW
    while True:
        rows = (ready.all_up(lab.socket(lb), lab.settings.app, names) for lb in lab.settings.balancer_names)
        found = [row for row in rows if row]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def not_ended(states: Iterable[RolloutState]) -> list[str]:
    return [
        f"rollout {state.id} ({state.verb}): {state.ended}" for state in states if state.ended not in CLOSED
    ]


def should_run(states: Iterable[RolloutState], name: str, first: str) -> str:
    """The release that the journal says a node has. states: the oldest first."""
    release = first
    for state in states:
        node = state.nodes.get(name)
        if node and node.outcome in {"done", "put-back"} and node.target:
            release = node.target
    return release


def seed() -> int:
    """DRAINCTL_SEED, to see the same again as far as threads allow; else one of this run of the tests."""
    if given := os.environ.get("DRAINCTL_SEED"):
        return int(given)
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID")  # workers must collect the same tests
    return random.Random(run).randrange(10**6)  # noqa: S311
