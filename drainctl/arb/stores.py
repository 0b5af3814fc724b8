"""Store machines as processes: two shards of two replicas on loopback, for tests and benches."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

START_S = 15.0


class StoreProcess:
    """
    One store machine.

    Args:
        listen: `host:port`.
        file: its database; it survives `kill`.
        peer: its replica's `host:port`.
        inside: words before the command, e.g. `ip netns exec m1`.
    """

    def __init__(self, listen: str, file: Path, peer: str, inside: Sequence[str] = ()) -> None:
        self.listen = listen
        self.url = f"http://{listen}"
        command = [sys.executable, "-m", "drainctl.arb.store", "--listen", listen, "--file", str(file)]
        self._command = [*inside, *command, "--peer", f"http://{peer}"]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; `Stores.up` waits."""
        self._process = subprocess.Popen(self._command)

    def kill(self) -> None:
        """As if the process had died."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Politely: what runs is finished."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """It goes on accepting connections, in its kernel, and answers nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        self._signal(signal.SIGCONT)

    @property
    def pid(self) -> int:
        """The process, or 0."""
        return self._process.pid if self._process else 0

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            os.kill(self._process.pid, number)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._signal(number)
            self._signal(signal.SIGCONT)
            self._process.wait()
            self._process = None


class Stores:
    """
    Two shards, `users` and `orders`, of two replicas each.

    Args:
        folder: for the databases.
        base: first three numbers of a loopback block; the machines are .1 to .4, port 7000.
    """

    def __init__(self, folder: str | Path, base: str = "127.0.70") -> None:
        listen = [f"{base}.{at}:7000" for at in (1, 2, 3, 4)]
        peers = [listen[1], listen[0], listen[3], listen[2]]
        self.machines = [
            StoreProcess(own, Path(folder) / f"store{at}.db", peer)
            for at, (own, peer) in enumerate(zip(listen, peers, strict=True), 1)
        ]
        urls = [machine.url for machine in self.machines]
        self.shards = {"users": urls[:2], "orders": urls[2:]}

    def up(self) -> None:
        """Start all, and wait until each accepts. Raises: TimeoutError."""
        for machine in self.machines:
            machine.start()
        for machine in self.machines:
            accepts(machine.listen)

    def down(self) -> None:
        """Stop all."""
        for machine in self.machines:
            machine.stop()

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()


def accepts(listen: str, limit_s: float = START_S) -> None:
    """Waits until `host:port` accepts connections. Raises: TimeoutError after limit_s seconds."""
    host, _, port = listen.rpartition(":")
    deadline = time.monotonic() + limit_s
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{listen} accepts no connection {limit_s:g} s after its start: {error}"
                ) from error
            time.sleep(0.02)
        else:
            return
