"""
A HAProxy socket on another machine, reached by a command there.

Each question is one command on the node's kept SSH connection: it connects, asks, prints the answer and
ends, so a hung or half-read answer cannot spoil the next one. The command uses whichever of socat, OpenBSD's
nc and python3 the machine has. A transport keeps only the last 64 kB of output, so long answers (a whole
table of 1,000 servers has 222 kB) are packed by gzip on the way.
"""

from __future__ import annotations

import base64
import errno
import gzip
import re
import shlex
from collections.abc import Sequence

from drainctl.balancer import parse
from drainctl.balancer.exchange import ClosedUnasked, unreachable
from drainctl.errors import BalancerUnreachable, CommandTimedOut, TransportError
from drainctl.node.door import Done, Transport

_CONNECT_S = 10.0  # more time for a question that has to open the SSH connection first
_MARGIN_S = 1.0  # the command there ends itself at the limit, so it has to be killed from here only seldom
_MANY = 20  # questions whose answers together may pass 64 kB, at about 2 kB each
_TABLES = ("show stat", "show stat -1 4 -1")

_PYTHON = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout({limit}); s.connect(sys.argv[1]);"
    " s.sendall(sys.stdin.buffer.read()); s.shutdown(1);"
    ' [sys.stdout.buffer.write(b) for b in iter(lambda: s.recv(65536), b"")]'
)
_LINE = (
    "export LC_ALL=C;"
    " if command -v socat >/dev/null 2>&1; then socat -t {limit} -T {limit} - UNIX-CONNECT:{socat_path};"
    " elif nc -h 2>&1 | grep -q OpenBSD; then nc -N -w {limit} -U {path};"
    " elif command -v python3 >/dev/null 2>&1; then python3 -c {python} {path};"
    " else echo 'no socat, no nc of OpenBSD and no python3 there' >&2; (exit 127); fi"
)
_SOCAT_SPECIAL = re.compile(r"""[\\,:!"'(\[{]""")  # what socat's address syntax takes for its own
# The pipe would hide how asking ended, so that is told on the last line of standard error.
_PACKED = "{{ {line}; echo $? >&2; }} | gzip -c | base64"

# Words of socat, nc and python3 alike, since all print what the C library says of the kernel's answer.
_KERNEL = {
    "Permission denied": errno.EACCES,
    "No such file": errno.ENOENT,
    "Connection refused": errno.ECONNREFUSED,
    "Connection reset": errno.ECONNRESET,
    "timed out": errno.ETIMEDOUT,
}


class SshExchange:
    """
    Asks the unix socket `path` on the machine that `transport` leads to.

    Our side of the connection is closed after the question, which both kinds of socket allow. timeout_s: for
    one question; opening the SSH connection may take 10 s more.
    """

    kept = False

    def __init__(self, who: str, path: str, transport: Transport, *, timeout_s: float = 2.0) -> None:
        self._who = who
        self._path = path
        self._transport = transport
        self._timeout_s = timeout_s
        self._connected = False
        self._limit_s = limit = max(1, round(timeout_s))  # nc takes whole seconds only
        self._line = _LINE.format(
            limit=limit,
            path=shlex.quote(path),
            socat_path=shlex.quote(_SOCAT_SPECIAL.sub(r"\\\g<0>", path)),
            python=shlex.quote(_PYTHON.format(limit=limit)),
        )

    def ask(self, commands: Sequence[str]) -> list[str]:
        packed = len(commands) > _MANY or any(command.endswith(_TABLES) for command in commands)
        done = self._run(f"{';'.join(commands)}\n".encode(), packed=packed)
        try:
            return parse.answers(self._text(done, packed=packed), len(commands))
        except (OSError, EOFError) as error:
            raise unreachable(self._who, self._path, error, self._timeout_s) from error

    def _run(self, question: bytes, *, packed: bool) -> Done:
        line = _PACKED.format(line=self._line) if packed else self._line
        limit_s = self._timeout_s + (_MARGIN_S if self._connected else _CONNECT_S)
        self._connected = False
        try:
            done = self._transport.run(line, limit_s=limit_s, stdin=question)
        except CommandTimedOut:
            raise unreachable(self._who, self._path, TimeoutError(), limit_s) from None
        except TransportError as error:
            raise BalancerUnreachable(f"{self._who}: {error}", hint=error.hint) from error
        self._connected = True
        return done

    def _text(self, done: Done, *, packed: bool) -> str:
        """What HAProxy sent. Raises: OSError or EOFError, as a socket of this machine would."""
        code, said = done.code, done.err.strip()
        if packed:
            said, _, last = said.rpartition("\n") if "\n" in said else ("", "", said)
            code = int(last) if last.isdigit() else code
        if code != 0:
            known = next((number for words, number in _KERNEL.items() if words in said), None)
            raise OSError(known, said) if known else OSError(said or f"exit code {code}")
        text = gzip.decompress(base64.b64decode(done.out)).decode(errors="replace") if packed else done.out
        if not text:
            raise TimeoutError if done.took_s >= self._limit_s else ClosedUnasked("closed without an answer")
        return text

    def close(self) -> None:
        """End the transport, which the exchanges of one balancer share."""
        self._transport.close()
