"""What every store does alike: an event as it is written, and the words for a lease that is not ours."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from drainctl.errors import JournalError, LeaseHeld, LeaseLost
from drainctl.journal.door import Lease


def plain(text: str) -> str:
    """The text without what a store cannot keep: half a surrogate pair, and NUL."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode()


def as_json(rollout: str, kind: str, data: Mapping[str, Any] | None) -> str:
    """An event's data as it is stored. Raises: JournalError where it is no JSON."""
    try:
        return json.dumps(data or {}, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise JournalError(f"event {kind} of rollout {rollout} is not JSON: {error}") from error


def next_token(last: int, now: float) -> int:
    """
    The token of a new lease: higher than the last, and never below the clock (Unix milliseconds; now is in
    seconds), so that tokens of different stores can be compared, and whoever begins with an empty one is not
    behind.
    """
    return max(last + 1, int(now * 1000))


def held(lease: Lease, now: float) -> LeaseHeld:
    """Why `acquire` refuses. now: by the clock of the lease's until_s."""
    since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(lease.since_s))
    until = time.strftime("%H:%M:%S", time.gmtime(lease.until_s))
    return LeaseHeld(
        f"the lease on {lease.cluster} is held by {lease.holder} for rollout {lease.rollout} since {since},"
        f" until {until} (in {lease.until_s - now:.0f} s) unless it is renewed",
        left="nothing was changed",
        hint=f"`drainctl show {lease.rollout}` says what it does; `drainctl pause` or `abort` stops it",
    )


def lost(lease: Lease, stored: Lease | None) -> LeaseLost:
    """Why `renew` refuses. stored: what is in the store in place of ours."""
    if stored is None:
        why = "is not in the store any more"
    elif stored.token != lease.token:
        tokens = f"token {stored.token}, ours {lease.token}"
        why = f"was taken over by {stored.holder} for rollout {stored.rollout} ({tokens})"
    else:
        why = "was given back"
    return LeaseLost(
        f"the lease on {lease.cluster} {why}",
        left="no further act is started",
        hint="`drainctl status` says who holds it and what is where",
    )
