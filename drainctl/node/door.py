"""The door to one node: a way to run a command line there. Everything else is built from that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO, Protocol


@dataclass(frozen=True, slots=True)
class Done:
    """A command that ended. Output is text (undecodable bytes replaced), each stream's last 64 kB."""

    code: int
    out: str
    err: str
    took_s: float


class Transport(Protocol):
    """
    One node's shell. One connection for a whole journey; opened at the first command, safe to share
    between threads, opened again when it was lost.
    """

    def run(self, line: str, *, limit_s: float, stdin: BinaryIO | bytes | None = None) -> Done:
        """
        Run `line` with /bin/sh on the node and wait for its end.

        Args:
            line: shell text. The caller has quoted what came from outside (shlex.quote).
            limit_s: seconds, from the call to the end of the command; connecting counts.
            stdin: streamed to the command, then closed; nothing is read into memory whole.
        Raises:
            ConnectFailed: no connection, or it was lost in the middle; whether the line ran is unknown.
            CommandTimedOut: still running at its limit; it was sent a kill where that is possible.
        """
        ...

    def close(self) -> None:
        """End the connection. May be called twice."""
        ...
