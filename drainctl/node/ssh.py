"""
Command lines on a node through SSH: one connection for all, a channel per command.

A kept shell would save one of the two round trips of a command, but a hanging, flooding or dying command
poisons it; a channel ends with its command.
"""

from __future__ import annotations

import threading
import time
from contextlib import closing, suppress
from shlex import quote
from typing import TYPE_CHECKING, BinaryIO

from drainctl.errors import CommandTimedOut, ConnectFailed
from drainctl.node import group
from drainctl.node.door import Done
from drainctl.node.group import KILL_S, WRAPPED, Stderr
from drainctl.node.link import Link, left_s
from drainctl.node.route import Wanted, route
from drainctl.node.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from paramiko import Channel

CHUNK = 65536
TICK_S = 0.1  # an ended command's output must be quiet that long when something still holds it open
SIGNALLED = 255  # the exit code when the server named none, as ssh(1) has it
NOT_STARTED = "the command was not started"
UNKNOWN = "whether the command ran to its end is unknown"


class SshTransport:
    """
    A node's /bin/sh through SSH (paramiko), with strict host keys; see drainctl.node.route for what of
    ssh_config is honoured.

    Nothing is connected before the first command; a connection that was lost between commands is opened
    again. There is no terminal, and without `stdin` the command's input is empty, so `sudo` that wants a
    password fails at once with its own words. At its limit a command's process group gets SIGTERM, a second
    later SIGKILL, as far as this user may. A line ends when its shell ends: what it left in the background
    lives on, but its output is not read any more. A death by signal is code 255 unless a shell told it.
    Name resolution is bounded by resolv.conf, not by the limit.
    """

    def __init__(
        self,
        host: str,
        *,
        user: str | None = None,
        port: int | None = None,
        key: str | None = None,
        known_hosts: str | None = None,
        timeout_s: float = 10.0,
        ssh_config: str | None = "~/.ssh/config",
    ) -> None:
        self._wanted = Wanted(host, user, port, key, known_hosts)
        self._timeout_s = timeout_s
        self._ssh_config = ssh_config
        self._link: Link | None = None
        self._opening = threading.Lock()

    def run(self, line: str, *, limit_s: float, stdin: BinaryIO | bytes | None = None) -> Done:
        """See drainctl.node.door.Transport.run. Raises: ConnectFailed, CommandTimedOut."""
        began = time.monotonic()
        end = began + limit_s
        link, channel = self._session(end)
        with closing(channel):
            self._start(channel, f"exec /bin/sh -c {quote(WRAPPED + line)}", end)
            feeder = _Feeder(channel, stdin)
            out, err = Tail(), Stderr()
            ended = _collect(channel, out, err, end)
            code = channel.exit_status
            alive = link.alive
        feeder.check()
        if ended and code == -1 and not alive:
            raise ConnectFailed(f"{self._wanted.host}: the connection was lost in the middle", left=UNKNOWN)
        if not ended:
            killed = _kill(link, err.pid)
            raise CommandTimedOut(
                f"{self._wanted.host}: a command was still running at its limit of {limit_s:g} s: "
                f"{line.strip()[-200:]}",
                left="it was killed" if killed else "it may still be running, since it could not be killed",
            )
        return Done(SIGNALLED if code == -1 else code, out.text, err.text, time.monotonic() - began)

    def close(self) -> None:
        """End the connection. May be called twice; the next command opens a new one."""
        with self._opening:
            if self._link:
                self._link.close()
                self._link = None

    def _session(self, end: float) -> tuple[Link, Channel]:
        """A channel to start a command on. What fails here has not run, so it is tried again once."""
        from paramiko.ssh_exception import ChannelException, SSHException

        link = self._connected(end)
        again = False
        while True:
            began = time.monotonic()
            try:
                return link, link.transport.open_session(timeout=min(self._timeout_s, left_s(end)))
            except ChannelException as error:  # full; also a moment long, while an ended one is put away
                if time.monotonic() + TICK_S > end:
                    raise ConnectFailed(
                        f"{self._wanted.host}: the server opens no further session: {error.text}",
                        left=NOT_STARTED,
                        hint="sshd_config's MaxSessions bounds how many commands run at once",
                    ) from error
                time.sleep(TICK_S)
            except (SSHException, EOFError, OSError) as error:
                waited = time.monotonic() - began
                if again or time.monotonic() >= end:
                    raise ConnectFailed(
                        f"{self._wanted.host}: no session within {waited:.1f} s: {_words(error)}",
                        left=NOT_STARTED,
                    ) from error
                again = True
                link.close()
                link = self._connected(end)

    def _connected(self, end: float) -> Link:
        if not self._opening.acquire(timeout=left_s(end)):
            raise ConnectFailed(f"{self._wanted.host}: still connecting at the command's limit")
        try:
            if self._link and not self._link.alive:
                self._link.close()
                self._link = None
            if not self._link:
                hops = route(self._wanted, self._ssh_config)
                self._link = Link(hops, min(end, time.monotonic() + self._timeout_s))
            return self._link
        finally:
            self._opening.release()

    def _start(self, channel: Channel, command: str, end: float) -> None:
        from paramiko.ssh_exception import SSHException

        try:
            _exec(channel, command, end)
        except (SSHException, EOFError, OSError) as error:
            host = self._wanted.host
            raise ConnectFailed(
                f"{host}: no answer to the command's start: {_words(error)}", left=UNKNOWN
            ) from error


def _words(error: Exception) -> str:
    return str(error) or "the connection was closed"


class _Wake(threading.Event):
    """Set by both of a channel's buffers; each would clear it while the other has something."""

    def clear(self) -> None:
        """Only `rest` clears it."""

    def rest(self, timeout_s: float) -> bool:
        """True when it was woken, False when `timeout_s` passed in quiet."""
        woken = self.wait(timeout_s)
        super().clear()
        return woken


def _collect(channel: Channel, out: Tail, err: Tail, end: float) -> bool:
    """Reads until the command ended and its output is read; False when `end` comes first."""
    wake = _Wake()
    channel.in_buffer.set_event(wake)
    channel.in_stderr_buffer.set_event(wake)
    while True:
        moved = False
        if channel.recv_ready():
            out.add(channel.recv(CHUNK))
            moved = True
        if channel.recv_stderr_ready():
            err.add(channel.recv_stderr(CHUNK))
            moved = True
        left = end - time.monotonic()
        if moved and left > 0:
            continue
        if channel.exit_status_ready() and (channel.eof_received or channel.closed):
            return True
        if left <= 0:
            return channel.exit_status_ready()
        if channel.eof_received:
            channel.status_event.wait(left)  # its output is closed; it may go on
            continue
        ended = channel.exit_status_ready()  # before the rest: what it wrote at its end may be on its way
        if not wake.rest(min(left, TICK_S)) and ended:
            return True


class _Feeder:
    """Sends stdin from a thread of its own, since the command may want its output read first."""

    def __init__(self, channel: Channel, stdin: BinaryIO | bytes | None) -> None:
        self._channel = channel
        self._error: Exception | None = None
        self._thread: threading.Thread | None = None
        if stdin is None:
            with suppress(OSError):
                channel.shutdown_write()
        else:
            self._thread = threading.Thread(
                target=self._feed, args=(stdin,), name="drainctl-stdin", daemon=True
            )
            self._thread.start()

    def check(self) -> None:
        """To be called when the channel is closed: raises what reading stdin raised."""
        if self._thread:
            self._thread.join(1)
        if self._error:
            raise self._error

    def _feed(self, stdin: BinaryIO | bytes) -> None:
        for chunk in self._chunks(stdin):
            rest = chunk
            while rest:
                try:
                    sent = self._channel.send(rest)
                except OSError:
                    return
                if not sent:  # the command ended, or does not want more
                    return
                rest = rest[sent:]
        with suppress(OSError):
            self._channel.shutdown_write()

    def _chunks(self, stdin: BinaryIO | bytes) -> Iterator[bytes]:
        if isinstance(stdin, bytes):
            for at in range(0, len(stdin), CHUNK):
                yield stdin[at : at + CHUNK]
            return
        try:
            while chunk := stdin.read(CHUNK):
                yield chunk
        except (OSError, ValueError) as error:
            self._error = error
            self._channel.close()


def _exec(channel: Channel, command: str, end: float) -> None:
    """Starts a command. paramiko waits for the answer without limit; closing the channel ends that."""
    watch = threading.Timer(left_s(end), channel.close)
    watch.daemon = True
    watch.start()
    try:
        channel.exec_command(command)
    finally:
        watch.cancel()


def _kill(link: Link, pid: int | None) -> bool:
    """Ends a command's process group by a second command; False when it is not known to be gone."""
    from paramiko.ssh_exception import SSHException

    if pid is None or not link.alive:
        return False
    end = time.monotonic() + KILL_S
    with (
        suppress(SSHException, EOFError, OSError),
        closing(link.transport.open_session(timeout=KILL_S)) as channel,
    ):
        _exec(channel, f"exec /bin/sh -c {quote(group.kill(pid))}", end)
        channel.status_event.wait(left_s(end))
        return channel.exit_status == 0
    return False
