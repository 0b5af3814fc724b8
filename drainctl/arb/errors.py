"""
What a client of a shard raises; the type says whether the request was sent.

    ArbError
    ├── NotSent      no machine got it: repeat it at will
    └── MaybeSent    a machine got it, or may have: repeat it only where twice does no harm

Every instance is also one of the HTTP library's own errors, so except clauses that were there before go on
working: `requests.ConnectionError` always, `requests.ConnectTimeout`, `requests.ReadTimeout` and
`requests.exceptions.ChunkedEncodingError` where they fit; with httpx, `httpx.ConnectError`,
`httpx.ConnectTimeout`, `httpx.ReadError`, `httpx.ReadTimeout` and `httpx.RemoteProtocolError`.
"""

from __future__ import annotations

from collections.abc import Sequence

from drainctl.arb.policy import Fault, Try


class ArbError(Exception):
    """
    A request to a shard failed.

    Attributes:
        shard: the shard's name.
        tries: every try, in turn: machine, fault, seconds.
        fault: the fault that decided.
    """

    shard: str = ""
    tries: tuple[Try, ...] = ()
    fault: Fault = Fault.LOCAL


class NotSent(ArbError):
    """No machine got the request."""


class MaybeSent(ArbError):
    """A machine got the request, or may have got it."""


def told(shard: str, tries: Sequence[Try], fault: Fault) -> str:
    """The message: who did what after how long, and what is left."""
    left = "it may have been sent" if fault.sent else "nothing was sent"
    return f"{shard}: {', '.join(str(one) for one in tries)}; {left}"
