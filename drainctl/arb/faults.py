"""
From what an HTTP library raised to a fault, and from a request's tries to what its caller is told.

Each library has its own exceptions, so each client brings its table of them; the order of the questions is
the same for both.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from drainctl.arb.errors import ArbError, told
from drainctl.arb.in_flight import Attempt
from drainctl.arb.policy import Course, Fault

# What a read or write says when TCP_USER_TIMEOUT or keepalive gave the peer up (tcp(7)).
GONE = frozenset({errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH})

Kinds = Mapping[Fault, type[ArbError]]


def kinds(
    not_sent: type[ArbError], maybe_sent: type[ArbError], special: Mapping[Fault, type[ArbError]]
) -> Kinds:
    """What is raised for each fault: the special kinds, else one of two by whether it was sent."""
    return {fault: special.get(fault) or (maybe_sent if fault.sent else not_sent) for fault in Fault}


def raised(table: Kinds, shard: str, course: Course, **rest: Any) -> ArbError:
    """
    The exception for a request that no machine answered.

    Args:
        table: what to raise for which fault.
        shard: its name.
        course: the tries that were made.
        rest: what the library's own exceptions want to be told.
    """
    fault = course.worst
    error = table[fault](told(shard, course.tries, fault), **rest)
    error.shard, error.tries, error.fault = shard, tuple(course.tries), fault
    return error


def fault_of(
    error: BaseException,
    attempt: Attempt,
    *,
    silent: tuple[type[BaseException], ...],
    connecting: Callable[[tuple[BaseException, ...]], Fault],
) -> Fault:
    """
    What went wrong with an attempt: by how far it came, then by what was raised.

    Args:
        error: as the library raised it.
        attempt: it knows whether anything was sent.
        silent: exceptions that say that the read limit was reached.
        connecting: judges what was raised (with all it wraps) before anything was sent.
    """
    if attempt.fault is not None:
        return attempt.fault
    causes = tuple(chain(error))
    if not attempt.sent:
        return connecting(causes)
    if attempt.hung:
        return Fault.HUNG
    if any(isinstance(one, OSError) and one.errno in GONE for one in causes):
        return Fault.VANISHED
    if any(isinstance(one, silent) for one in causes):
        return Fault.SILENT
    return Fault.CUT if attempt.answered else Fault.CLOSED


def chain(error: BaseException) -> Iterator[BaseException]:
    """The exception, what it wraps, what it is a group of, and what it came from."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        grouped = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        inner = (one.__cause__, one.__context__, getattr(one, "reason", None), *one.args, *grouped)
        waiting += [each for each in inner if isinstance(each, BaseException)]
