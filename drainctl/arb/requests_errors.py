"""What requests raises, as faults; and faults as exceptions that its own except clauses catch."""

from __future__ import annotations

import requests
from urllib3.exceptions import ReadTimeoutError

from drainctl.arb.errors import MaybeSent, NotSent
from drainctl.arb.faults import kinds
from drainctl.arb.policy import Fault

# What a network may do to a request, as requests says it.
FAILS = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
SILENT = (ReadTimeoutError, TimeoutError)


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


KINDS = kinds(
    RequestNotSent,
    RequestMaybeSent,
    {
        Fault.CONNECT_LIMIT: ConnectLimit,
        Fault.TLS_LIMIT: ConnectLimit,
        Fault.SILENT: NoAnswer,
        Fault.CUT: AnswerCut,
    },
)


def connecting(causes: tuple[BaseException, ...]) -> Fault:
    """Connected, nothing sent: the TLS handshake, or this process itself."""
    if any(isinstance(one, SILENT) for one in causes):
        return Fault.TLS_LIMIT
    if any(isinstance(one, requests.exceptions.SSLError | ConnectionError) for one in causes):
        return Fault.TLS_FAILED
    return Fault.LOCAL
