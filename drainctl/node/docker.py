"""
Command lines in a container: an exec for each, and the engine's API for the rest.

A line gets its input by a length that is known, since a TLS connection cannot be half closed: `head` ends it.
The API cannot end an exec; so a line tells its process group, and a second exec ends that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from shlex import quote
from typing import BinaryIO

from drainctl.errors import CommandTimedOut, ConnectFailed, TransportError
from drainctl.node import exec_stream, group
from drainctl.node.door import Done
from drainctl.node.engine import Engine
from drainctl.node.exec_stream import Frames, Socket
from drainctl.node.group import KILL_S, WRAPPED, Stderr
from drainctl.node.tail import Tail

QUIET_S = 0.5  # then it is asked whether the command has ended, though something holds its output open
ENDED_S = 2.0  # within which the engine knows that a command whose stream has ended has a code
CHUNK = 65536
NOT_STARTED = "the command was not started"
UNKNOWN = "whether the command ran to its end is unknown"


class DockerTransport:
    """
    /bin/sh in one container. user: as `docker exec --user`, "" for the container's own.

    A line ends when its shell ends: what it left in the background lives on, and its output is not read any
    more. A container that does not run, or is not there, is ConnectFailed, with the engine's words.
    """

    def __init__(self, container: str, engine: Engine, user: str = "") -> None:
        self.container = container
        self.engine = engine
        self._user = user

    def run(self, line: str, *, limit_s: float, stdin: BinaryIO | bytes | None = None) -> Done:
        """See drainctl.node.door.Transport.run. Raises: ConnectFailed, CommandTimedOut."""
        began = time.monotonic()
        end = began + limit_s
        out, err = Tail(), Stderr()
        exec_id, door, first = self._begin(_with_input(line, stdin), stdin is not None)
        with closing(door), self._middle():
            ended = self._until_end(door, first, exec_id, Frames(out, err), _chunks(stdin), end)
            code = self._code(exec_id) if ended else None
        if ended:
            if code is None:
                raise ConnectFailed(f"{self.container}: the command ended without a code", left=UNKNOWN)
            return Done(code, out.text, err.text, time.monotonic() - began)
        killed = self._kill(err.pid)
        raise CommandTimedOut(
            f"{self.container}: a command was still running at its limit of {limit_s:g} s: "
            f"{line.strip()[-200:]}",
            left="it was killed" if killed else "it may still be running, since it could not be killed",
        )

    def close(self) -> None:
        """End the connections. May be called twice; the next command opens new ones."""
        self.engine.close()

    def _begin(self, line: str, stdin: bool) -> tuple[str, Socket, bytes]:
        try:
            argv = ["/bin/sh", "-c", WRAPPED + line]
            exec_id = self.engine.exec_create(self.container, argv, self._user, stdin=stdin)
            door = self.engine.connect()
        except TransportError as error:
            raise ConnectFailed(f"{self.container}: {error}", left=NOT_STARTED, hint=error.hint) from error
        try:
            return exec_id, door, exec_stream.start(door, self.engine.exec_path(exec_id))
        except (OSError, ConnectFailed) as error:
            door.close()
            raise ConnectFailed(f"{self.container}: {error}", left=NOT_STARTED) from error

    def _until_end(
        self, door: Socket, first: bytes, exec_id: str, frames: Frames, stdin: Iterator[bytes], end: float
    ) -> bool:
        """Whether the command has ended by `end`."""
        while (found := exec_stream.pump(door, first, frames, stdin, end, QUIET_S)) is None:
            if not self.engine.exec_state(exec_id)[0]:
                return True
            first = b""
        return found

    def _code(self, exec_id: str) -> int | None:
        deadline = time.monotonic() + ENDED_S
        running, code = self.engine.exec_state(exec_id)
        while running and time.monotonic() < deadline:
            time.sleep(0.005)
            running, code = self.engine.exec_state(exec_id)
        return None if running else code

    def _kill(self, pid: int | None) -> bool:
        """End a command's process group by a second exec; False when it is not known to be gone."""
        if pid is None:
            return False
        out = Tail()
        try:
            exec_id, door, first = self._begin(group.kill(pid), stdin=False)
            with closing(door), self._middle():
                end = time.monotonic() + KILL_S
                ended = self._until_end(door, first, exec_id, Frames(out, out), iter(()), end)
                return ended and self._code(exec_id) == 0
        except TransportError:
            return False

    @contextmanager
    def _middle(self) -> Iterator[None]:
        """What is lost once the command has begun."""
        try:
            yield
        except OSError as error:
            raise ConnectFailed(
                f"{self.container}: the engine's connection was lost in the middle: {error}", left=UNKNOWN
            ) from error
        except ConnectFailed as error:
            raise ConnectFailed(f"{self.container}: {error}", left=UNKNOWN, hint=error.hint) from error


def _with_input(line: str, stdin: BinaryIO | bytes | None) -> str:
    if stdin is None:
        return line
    return f"head -c {_size(stdin)} | /bin/sh -c {quote(line)}"


def _size(stdin: BinaryIO | bytes) -> int:
    if isinstance(stdin, bytes):
        return len(stdin)
    here = stdin.tell()
    size = stdin.seek(0, os.SEEK_END) - here
    stdin.seek(here)
    return size


def _chunks(stdin: BinaryIO | bytes | None) -> Iterator[bytes]:
    if isinstance(stdin, bytes):
        yield from (stdin[at : at + CHUNK] for at in range(0, len(stdin), CHUNK))
    elif stdin is not None:
        while chunk := stdin.read(CHUNK):
            yield chunk
