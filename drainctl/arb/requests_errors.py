"""What requests raises, as faults; and faults as exceptions that its own except clauses catch."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import requests
from urllib3.exceptions import ReadTimeoutError

from drainctl.arb.errors import ArbError, MaybeSent, NotSent, told
from drainctl.arb.in_flight import Attempt
from drainctl.arb.policy import Course, Fault

# What a read or write says when TCP_USER_TIMEOUT or keepalive gave the peer up (tcp(7)).
GONE = {errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH}


class RequestNotSent(NotSent, requests.ConnectionError):
    """No machine got it."""


class ConnectLimit(RequestNotSent, requests.ConnectTimeout):
    """No machine got it: the last one did not connect in time."""


class RequestMaybeSent(MaybeSent, requests.ConnectionError):
    """A machine may have got it."""


class NoAnswer(RequestMaybeSent, requests.ReadTimeout):
    """A machine has it, and did not answer within the read limit."""


class AnswerCut(RequestMaybeSent, requests.exceptions.ChunkedEncodingError):
    """A machine had it, and its answer ended too early."""


KINDS: dict[Fault, type[ArbError]] = {
    Fault.CONNECT_LIMIT: ConnectLimit,
    Fault.TLS_LIMIT: ConnectLimit,
    Fault.SILENT: NoAnswer,
    Fault.CUT: AnswerCut,
}


def raised(shard: str, course: Course) -> ArbError:
    """The exception for a request that no machine answered."""
    fault = course.worst
    kind = KINDS.get(fault, RequestMaybeSent if fault.sent else RequestNotSent)
    error = kind(told(shard, course.tries, fault))
    error.shard, error.tries, error.fault = shard, tuple(course.tries), fault
    return error


def fault_of(error: BaseException, attempt: Attempt) -> Fault:
    """What went wrong with an attempt: by how far it came, then by what was raised."""
    if attempt.fault is not None:
        return attempt.fault
    if not attempt.sent:
        return _while_connecting(error)
    if attempt.hung:
        return Fault.HUNG
    if any(isinstance(one, OSError) and one.errno in GONE for one in _chain(error)):
        return Fault.VANISHED
    if any(isinstance(one, ReadTimeoutError | TimeoutError) for one in _chain(error)):
        return Fault.SILENT
    return Fault.CUT if attempt.answered else Fault.CLOSED


def _while_connecting(error: BaseException) -> Fault:
    """Connected, nothing sent: the TLS handshake, or this process itself."""
    if any(isinstance(one, ReadTimeoutError | TimeoutError) for one in _chain(error)):
        return Fault.TLS_LIMIT
    if any(isinstance(one, requests.exceptions.SSLError | ConnectionError) for one in _chain(error)):
        return Fault.TLS_FAILED
    return Fault.LOCAL


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, what it wraps, and what it came from."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        inner = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args)
        waiting += [each for each in inner if isinstance(each, BaseException)]
