"""Command lines on this very machine: for a node that is localhost, for labs and for tests."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from subprocess import DEVNULL, PIPE, Popen, TimeoutExpired
from typing import BinaryIO

from drainctl.errors import CommandTimedOut
from drainctl.node.door import Done
from drainctl.node.tail import Tail

TICK_S = 0.05  # an ended command's output must be quiet that long when something still holds it open
KILL_AFTER_S = 1.0  # between SIGTERM and SIGKILL
CHUNK = 65536


class LocalTransport:
    """
    /bin/sh -c in a session, and so a process group, of its own.

    At the limit the whole group gets SIGTERM, and a second later SIGKILL. A line ends when its shell ends:
    what it left in the background lives on, but its output is not read any more, so give it a place
    (`>log 2>&1 &`). A death by signal N is code 128 + N, as in a shell.
    """

    def run(self, line: str, *, limit_s: float, stdin: BinaryIO | bytes | None = None) -> Done:
        """See drainctl.node.door.Transport.run. Raises: CommandTimedOut."""
        began = time.monotonic()
        process = Popen(
            ["/bin/sh", "-c", line],
            stdin=DEVNULL if stdin is None else PIPE,
            stdout=PIPE,
            stderr=PIPE,
            start_new_session=True,
            bufsize=0,
        )
        out, err = Tail(), Tail()
        try:
            ended = _pump(process, stdin, (out, err), began + limit_s)
        finally:  # also after Ctrl-C, or a stdin that could not be read
            killed = process.poll() is not None or _kill_group(process)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe:
                    pipe.close()
        if not ended:
            raise CommandTimedOut(
                f"a command was still running at its limit of {limit_s:g} s: {line.strip()[-200:]}",
                left="it was killed" if killed else f"it could not be killed (pid {process.pid})",
            )
        code = process.returncode
        return Done(128 - code if code < 0 else code, out.text, err.text, time.monotonic() - began)

    def close(self) -> None:
        """Nothing is kept."""


def _pump(
    process: Popen[bytes], stdin: BinaryIO | bytes | None, tails: tuple[Tail, Tail], end: float
) -> bool:
    """Moves bytes until the process has ended and its output is read; False when `end` comes first."""
    with DefaultSelector() as pipes:
        for pipe, tail in zip((process.stdout, process.stderr), tails, strict=True):
            if pipe:
                pipes.register(pipe, EVENT_READ, _Sink(tail))
        if process.stdin:
            os.set_blocking(process.stdin.fileno(), False)
            pipes.register(process.stdin, EVENT_WRITE, _Source(stdin))
        while pipes.get_map():
            left = end - time.monotonic()
            ended = (
                process.poll() is not None
            )  # before the look: what it wrote at its end is still to be seen
            ready = pipes.select(min(TICK_S, max(0.0, left)))
            for key, _ in ready:
                if not key.data.move(key.fd):
                    pipes.unregister(key.fileobj)
                    key.fileobj.close()  # type: ignore[union-attr]  # a pipe object, as registered above
            if (ended and not ready) or left <= 0:
                return ended
    try:
        process.wait(max(0.0, end - time.monotonic()))
    except TimeoutExpired:
        return False
    return True


class _Sink:
    """The command's output, into a tail."""

    def __init__(self, tail: Tail) -> None:
        self._tail = tail

    def move(self, fd: int) -> bool:
        data = os.read(fd, CHUNK)
        self._tail.add(data)
        return bool(data)


class _Source:
    """The command's input, out of a file or bytes."""

    def __init__(self, stdin: BinaryIO | bytes | None) -> None:
        self._file = None if isinstance(stdin, bytes) else stdin
        self._next = memoryview(stdin if isinstance(stdin, bytes) else b"")

    def move(self, fd: int) -> bool:
        if not self._next and self._file:
            self._next = memoryview(self._file.read(CHUNK))
        if not self._next:
            return False
        try:
            self._next = self._next[os.write(fd, self._next) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:  # the command does not want more
            return False
        return True


def _kill_group(process: Popen[bytes]) -> bool:
    """SIGTERM to all of the command's group, SIGKILL to what is left a second later; False if it stays."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
        end = time.monotonic() + KILL_AFTER_S
        while time.monotonic() < end:
            process.poll()
            os.killpg(process.pid, 0)  # raises when nobody is left
            time.sleep(TICK_S)
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(TimeoutExpired):
        process.wait(KILL_AFTER_S)
    return process.returncode is not None
