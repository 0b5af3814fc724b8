"""
Every error that drainctl raises on purpose, with the exit code that each one means.

    DrainctlError
    ├── ConfigError              2    drainctl.yml or the command line is wrong; nothing was touched
    ├── PreflightError           5    something cannot be reached, or would break keep_up; nothing was touched
    ├── LeaseError               4
    │   ├── LeaseHeld            4    another rollout has the lease
    │   └── LeaseLost            3    ours ran out or was taken while we worked
    │       └── Fenced           3    a node refuses us: a controller with a higher token has been there
    ├── RolledBack               1    the rollout failed, and everything was put back
    ├── Halted                   3    a person is needed
    ├── Interrupted            130    Ctrl-C or SIGTERM; nodes in flight were brought to a known state
    ├── BalancerError            3
    │   ├── BalancerUnreachable  3    no connection, no answer in time, or an answer cut short
    │   ├── BalancerRefused      3    HAProxy said no; its words are kept
    │   └── UnexpectedReply      3    an answer that we cannot read
    ├── TransportError           3
    │   ├── ConnectFailed        3    the node cannot be reached, or its host key is not the known one
    │   ├── CommandFailed        3    a command on the node ended with another code than 0
    │   └── CommandTimedOut      3    a command on the node outlived its limit
    ├── BoardError               3    the down board cannot be written, or somebody else marked the machine
    ├── ReleaseError             2    the release is no archive, is hostile, or differs from its sha256
    └── JournalError             3    the journal cannot be read or written
        └── StoreAway            3    its store did not answer in time; the same call may succeed later

A message says who, what was seen against which limit, and what is left; `.hint` says what to do next.
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """The exit codes that users script against (docs/exit-codes.md)."""

    DONE = 0
    PUT_BACK = 1
    USAGE = 2
    HALTED = 3
    LEASE_HELD = 4
    PREFLIGHT = 5
    INTERRUPTED = 130


class DrainctlError(Exception):
    """
    Base of all errors of drainctl.

    Attributes:
        exit: the process's exit code when this error ends a command.
        node: name of the node it is about, or None.
        left: what state the world is left in, in words, or None.
        hint: what to do next, or None.
    """

    exit: Exit = Exit.HALTED

    def __init__(
        self, message: str, *, node: str | None = None, left: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.node = node
        self.left = left
        self.hint = hint

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}; {self.left}" if self.left else text


class ConfigError(DrainctlError):
    """drainctl.yml or the command line is wrong; nothing was touched. One problem per line of the message."""

    exit = Exit.USAGE


class PreflightError(DrainctlError):
    """A check before the first act failed; nothing was touched."""

    exit = Exit.PREFLIGHT


class LeaseError(DrainctlError):
    """The right to change the cluster is not ours."""

    exit = Exit.LEASE_HELD


class LeaseHeld(LeaseError):
    """Another rollout holds the lease."""


class LeaseLost(LeaseError):
    """Our lease ran out or was taken over while we worked; no further act is started."""

    exit = Exit.HALTED


class Fenced(LeaseLost):
    """A node refused an act: another controller, with a higher token, has taken it over (node.fence)."""


class RolledBack(DrainctlError):
    """The rollout failed, and everything that it had changed was put back."""

    exit = Exit.PUT_BACK


class Halted(DrainctlError):
    """The rollout stopped where it was; the message names each node's state and each way out."""

    exit = Exit.HALTED


class Interrupted(DrainctlError):
    """A signal ended the rollout; nodes in flight were brought to a known state first."""

    exit = Exit.INTERRUPTED


class BalancerError(DrainctlError):
    """A balancer did not do or show what was asked."""


class BalancerUnreachable(BalancerError):
    """No connection to a balancer, no answer within the limit, or an answer that was cut short."""


class BalancerRefused(BalancerError):
    """HAProxy refused a command; the message carries its reply verbatim."""


class UnexpectedReply(BalancerError):
    """HAProxy answered something that drainctl cannot read."""


class TransportError(DrainctlError):
    """A node could not be worked on."""


class ConnectFailed(TransportError):
    """No connection to a node: refused, timed out, not authenticated, or an unknown host key."""


class CommandFailed(TransportError):
    """A command on a node ended with another code than 0; the message carries the end of its output."""


class CommandTimedOut(TransportError):
    """A command on a node was still running at its limit; it was ended as far as the transport can."""


class BoardError(DrainctlError):
    """The down board of strategy arb cannot be written, or somebody else has marked the machine."""


class ReleaseError(DrainctlError):
    """The release is no archive, would write outside its folder, or differs from its sha256."""

    exit = Exit.USAGE


class JournalError(DrainctlError):
    """The journal cannot be opened, read or written."""


class StoreAway(JournalError):
    """The journal's store cannot be reached, does not answer, or is locked: the same may succeed later."""
