"""
The prober: brings machines back, so that no user's request has to try.

One of all the processes that share a board probes (a non-blocking lock; the others do nothing). A session's
own prober asks only machines that are down; a prober that watches (`Prober(…, watch=True)`, `drainctl arb
watch`) asks all of them, so a machine that died or froze while nobody used it is down before anybody asks it.
"""

from __future__ import annotations

import http.client
import os
import random
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any

from drainctl.arb.board import Board, Marks, fault_mark
from drainctl.arb.dial import DialFailed, dial, vanishing
from drainctl.arb.policy import Fault, Policy, Pulse
from drainctl.arb.shards import Machine, Shard
from drainctl.threads import in_parallel

JITTER = 0.25


class Prober:
    """
    Probes the machines of some shards, and writes what it finds on the board.

    Args:
        shards: as `shards_of` gives them.
        board: where marks are lifted, renewed and, with `watch`, set.
        policy: `every_s`, `probe_s`, `probe_path`, `rise`, `fall`, `connect_s`, `hold_s`.
        watch: ask all machines, all the time; else those that are down, while any is.

    Attributes:
        probes: how many were made.
    """

    def __init__(
        self, shards: Mapping[str, Shard], board: Board, policy: Policy | None = None, *, watch: bool = False
    ) -> None:
        self.probes = 0
        self._machines = {one.name: one for shard in shards.values() for one in shard.machines}
        self._board = board
        self._policy = policy or Policy()
        self._watch = watch
        self._pulses = {name: Pulse() for name in self._machines}
        self._trust: tuple[Any, Any] = (True, None)
        self._context: ssl.SSLContext | None = None
        self._stop: threading.Event | None = None
        self._lock = threading.Lock()
        ours = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(ours()))

    def trust(self, verify: bool | str, cert: Any = None) -> None:
        """
        How to speak TLS.

        Args:
            verify: True, False, or the path of a file or folder of CAs, as in requests.
            cert: path of the client's certificate, or (certificate, key), as in requests.
        """
        if (verify, cert) != self._trust:
            self._trust, self._context = (verify, cert), None

    def start(self) -> None:
        """
        Probe in a thread of this process until `stop`; without `watch`, until nothing is down. Again:
        nothing.
        """
        if self._stop is not None:
            return
        with self._lock:
            if self._stop is None:
                self._stop = threading.Event()
                threading.Thread(
                    target=self._run, args=(self._stop,), name="drainctl-arb-prober", daemon=True
                ).start()

    def stop(self) -> None:
        """End the thread after its round."""
        with self._lock:
            stop, self._stop = self._stop, None
        if stop is not None:
            stop.set()

    def run(self, stop: threading.Event) -> None:
        """Probe here until `stop` is set."""
        while not stop.wait(self._pause_s()):
            if not self.round() and not self._watch:
                return

    def _pause_s(self) -> float:
        if any(pulse.suspect for pulse in self._pulses.values()):
            return 0.0
        return self._policy.every_s * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311  no secret

    def _run(self, stop: threading.Event) -> None:
        try:
            self.run(stop)
        finally:
            self._board.rest(watch=self._watch)
            with self._lock:
                if self._stop is stop:
                    self._stop = None

    def round(self) -> bool:
        """
        One probe of each machine that is due, side by side, if it is ours to probe. Returns whether one was
        due.
        """
        down = {name: mark for name, mark in self._board.down().items() if not mark.by_hand}
        due = [machine for name, machine in self._machines.items() if self._watch or name in down]
        if due and self._board.probing(watch=self._watch):
            in_parallel([partial(self._probe, machine, down) for machine in due])
        return bool(due)

    def _probe(self, machine: Machine, down: Marks) -> None:
        fault = self.ask(machine)
        does = self._pulses[machine.name].beat(fault, self._policy, down=machine.name in down)
        if does == "lift":
            self._board.lift(machine.name)
        elif does == "mark" and fault is not None:
            self._board.mark(fault_mark(machine.name, f"{fault.words} (probe)", self._policy.hold_s))

    def ask(self, machine: Machine) -> Fault | None:
        """One probe. Returns what is wrong, or None; any answer below 500 is a good one."""
        self.probes += 1
        try:
            with self._connected(machine) as sock:
                return self._answer(machine, sock)
        except DialFailed as error:
            return error.fault
        except TimeoutError:
            return Fault.TLS_LIMIT
        except OSError:
            return Fault.TLS_FAILED

    def _connected(self, machine: Machine) -> socket.socket:
        policy = self._policy
        deadline = time.monotonic() + policy.connect_s
        sock = dial(machine.host, machine.port, policy.connect_s, options=vanishing(policy.dead_s))
        if not machine.tls:
            return sock
        try:
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            return self._tls().wrap_socket(sock, server_hostname=machine.host)
        except BaseException:
            sock.close()
            raise

    def _answer(self, machine: Machine, sock: socket.socket) -> Fault | None:
        sock.settimeout(self._policy.probe_s)
        connection = http.client.HTTPConnection(machine.host, machine.port)
        connection.sock = sock
        try:
            connection.request("GET", self._policy.probe_path, headers={"User-Agent": "drainctl-arb"})
            response = connection.getresponse()
            status = response.status
            response.close()
        except TimeoutError:
            return Fault.SILENT
        except (OSError, http.client.HTTPException):
            return Fault.CLOSED
        return None if status < http.HTTPStatus.INTERNAL_SERVER_ERROR else Fault.UNWELL

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            verify, cert = self._trust
            where = verify if isinstance(verify, str) else None
            folder = bool(where and os.path.isdir(where))  # noqa: PTH112  it is a string that ssl takes
            context = ssl.create_default_context(
                cafile=None if folder else where, capath=where if folder else None
            )
            if verify is False:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if cert:
                context.load_cert_chain(*([cert] if isinstance(cert, str) else cert))
            self._context = context
        return self._context

    def forget(self) -> None:
        """In the child of a fork: the thread is the parent's."""
        self._lock = threading.Lock()
        self._stop = None


def _forget(prober: Prober | None) -> None:
    if prober is not None:
        prober.forget()
