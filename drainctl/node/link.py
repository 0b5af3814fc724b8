"""One SSH connection over any number of hops: dialled, checked against known_hosts, logged in."""

from __future__ import annotations

import logging
import shlex
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from drainctl.errors import ConnectFailed
from drainctl.node.known_hosts import known_keys, known_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import Popen

    from paramiko import Channel, PKey, Transport

    from drainctl.node.route import Hop

KEEPALIVE_S = 15
DEAD_AFTER_MS = 30_000  # TCP_USER_TIMEOUT: data that nobody acknowledged for so long ends the connection

# What paramiko would print by itself is in our error messages.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class Link:
    """A logged-in connection to the last hop. Raises on opening: ConnectFailed, saying which hop and why."""

    def __init__(self, hops: tuple[Hop, ...], end: float) -> None:
        self._transports: list[Transport] = []
        self._proxy: _ProxyCommand | None = None
        try:
            for hop in hops:
                self._transports.append(_log_in(hop, self._dial(hop, end), end))
        except BaseException:
            self.close()
            raise

    @property
    def transport(self) -> Transport:
        """The last hop's."""
        return self._transports[-1]

    @property
    def alive(self) -> bool:
        return all(transport.is_active() for transport in self._transports)

    def close(self) -> None:
        """Ends it from the last hop back. May be called twice."""
        for transport in reversed(self._transports):
            with suppress(OSError):  # it may be gone; paramiko's reader wakes at once instead of in 0.1 s
                transport.sock.shutdown(socket.SHUT_RDWR)
            transport.close()
            transport.join(1)
        if self._proxy:
            self._proxy.close()

    def _dial(self, hop: Hop, end: float) -> socket.socket | Channel:
        if self._transports:
            return _through(self._transports[-1], hop, end)
        if hop.proxy_command:
            self._proxy = _ProxyCommand(hop.proxy_command)
            return self._proxy.socket
        return _connect(hop, end)


def left_s(end: float) -> float:
    """Seconds until `end` on the monotonic clock; never zero, which a socket takes for "do not wait"."""
    return max(0.001, end - time.monotonic())


def _connect(hop: Hop, end: float) -> socket.socket:
    began = time.monotonic()
    try:
        sock = socket.create_connection((hop.host, hop.port), timeout=left_s(end))
    except socket.gaierror as error:
        raise ConnectFailed(f"{hop}: the name {hop.host} does not resolve: {error.strerror}") from error
    except TimeoutError as error:
        raise ConnectFailed(f"{hop}: no connection within {time.monotonic() - began:.1f} s") from error
    except ConnectionRefusedError as error:
        raise ConnectFailed(
            f"{hop}: connection refused", hint=f"is sshd running there, and is {hop.port} its port?"
        ) from error
    except OSError as error:
        raise ConnectFailed(f"{hop}: no connection: {error.strerror or error}") from error
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER_MS)
    return sock


def _through(transport: Transport, hop: Hop, end: float) -> Channel:
    from paramiko.ssh_exception import SSHException

    here = transport.getpeername()
    try:
        return transport.open_channel("direct-tcpip", (hop.host, hop.port), ("", 0), timeout=left_s(end))
    except (SSHException, EOFError, OSError) as error:
        raise ConnectFailed(f"{hop}: no way there through the hop before it ({here}): {error}") from error


class _ProxyCommand:
    """A program whose stdin and stdout are the connection (ssh_config(5), ProxyCommand)."""

    def __init__(self, command: str) -> None:
        from subprocess import DEVNULL, Popen

        self.socket, theirs = socket.socketpair()
        self._process: Popen[bytes] = Popen(
            ["/bin/sh", "-c", f"exec {command}"],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            stderr=DEVNULL,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        theirs.close()

    def close(self) -> None:
        from subprocess import TimeoutExpired

        self.socket.close()
        self._process.terminate()
        try:
            self._process.wait(1)
        except TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _log_in(hop: Hop, sock: socket.socket | Channel, end: float) -> Transport:
    from paramiko import Transport
    from paramiko.ssh_exception import SSHException

    began = time.monotonic()
    known, revoked = known_keys(known_name(hop.host, hop.port), hop.known_hosts)
    transport = Transport(sock)
    try:
        _prefer(transport, known)
        transport.banner_timeout = transport.handshake_timeout = left_s(end)
        transport.start_client(timeout=left_s(end))
        _check_host_key(hop, transport, known, revoked)
        transport.auth_timeout = left_s(end)
        _authenticate(hop, transport)
        transport.set_keepalive(KEEPALIVE_S)
    except ConnectFailed:
        transport.close()
        raise
    except (SSHException, EOFError, OSError) as error:
        transport.close()
        waited = time.monotonic() - began
        if time.monotonic() >= end - 0.05:
            raise ConnectFailed(f"{hop}: connected, but no SSH session within {waited:.1f} s") from error
        raise ConnectFailed(f"{hop}: {_words(error)}") from error
    except BaseException:
        transport.close()
        raise
    return transport


def _words(error: Exception) -> str:
    if isinstance(error, EOFError) or "protocol banner" in str(error):
        return "the connection was closed before an SSH session began (sshd full, or not an SSH server?)"
    return f"no SSH session: {error}"


def _prefer(transport: Transport, known: list[PKey]) -> None:
    """Asks for a key of a kind that we know; an ssh-rsa key signs with SHA-2 (RFC 8332)."""
    options = transport.get_security_options()
    kinds: list[str] = []
    for key in known:
        name = key.get_name()
        kinds += ["rsa-sha2-512", "rsa-sha2-256"] if name == "ssh-rsa" else [name]
    first = [kind for kind in dict.fromkeys(kinds) if kind in options.key_types]
    options.key_types = (*first, *(kind for kind in options.key_types if kind not in first))


def _check_host_key(hop: Hop, transport: Transport, known: list[PKey], revoked: list[PKey]) -> None:
    key = transport.get_remote_server_key()
    name, file = known_name(hop.host, hop.port), shlex.quote(hop.known_hosts[0])
    shown = f"{key.get_name()} {key.fingerprint}"
    if key in revoked:
        raise ConnectFailed(f"{hop}: the host key is revoked: {shown}")
    if key in known:
        return
    if known:
        expected = ", ".join(f"{each.get_name()} {each.fingerprint}" for each in known)
        raise ConnectFailed(
            f"{hop}: the host key has changed: it shows {shown}, known is {expected}; "
            "a reinstalled host, or somebody in between",
            hint=f"if it was reinstalled: ssh-keygen -R {shlex.quote(name)} -f {file}, then add the new key",
        )
    raise ConnectFailed(
        f"{hop}: the host key is not known: it shows {shown}",
        hint=f"compare the fingerprint with the host's own, then: ssh-keyscan -p {hop.port} "
        f"{shlex.quote(hop.host)} >> {file}",
    )


def _authenticate(hop: Hop, transport: Transport) -> None:
    from paramiko.ssh_exception import AuthenticationException, BadAuthenticationType, SSHException

    tried: list[str] = []
    why = "refused"
    for name, key in _keys(hop, tried):
        tried.append(name)
        try:
            remaining = transport.auth_publickey(hop.user, key)
        except BadAuthenticationType as error:
            why = f"refused: the server takes only {', '.join(error.allowed_types)}"
            break
        except AuthenticationException as error:
            if not transport.is_active() or "timeout" in str(error):
                raise SSHException(f"the login was cut off after {', '.join(tried)}: {error}") from error
            continue
        if not remaining:
            return
        why = f"refused: the server asks for {', '.join(remaining)} as well"
    raise ConnectFailed(
        f"{hop}: login {why}; keys tried: {', '.join(tried) or 'none was found'}",
        hint=f"put the public key into ~{hop.user}/.ssh/authorized_keys on {hop.host}, or set connect.key",
    )


def _keys(hop: Hop, tried: list[str]) -> Iterator[tuple[str, PKey]]:
    """Files first, then the agent's; a file that cannot be used is put on `tried` with the reason."""
    from paramiko import Agent, PKey
    from paramiko.pkey import UnknownKeyType
    from paramiko.ssh_exception import SSHException

    for file in hop.keys:
        try:
            yield file, PKey.from_path(file)
        except TypeError:  # what cryptography raises for a missing passphrase
            tried.append(f"{file} (has a passphrase: ssh-add it)")
        except (UnknownKeyType, SSHException, ValueError, OSError) as error:
            tried.append(f"{file} (cannot be used: {error})")
    if hop.agent:
        agent = Agent()
        try:
            for key in agent.get_keys():
                yield f"agent key {key.fingerprint}", key
        finally:
            with suppress(OSError):
                agent.close()
