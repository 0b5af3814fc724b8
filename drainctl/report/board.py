"""
What the balancers show, kept for a view: each node's servers, and the requests of each second. Pure.

Errors and requests are counted from the first look on; a balancer whose counters fell is counted from zero.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from drainctl.model import BalancerLook, Counters, Place, ServerRow, Word
from drainctl.report.text import one_line

KEPT = 120  # moments of traffic that are kept
LEAST_S = 0.5  # between two moments: counters of a shorter time jump too much to be read as a rate


class Cell(NamedTuple):
    """
    A node at one balancer, all its backends together.

    words: each different status, in HAProxy's words; "?" where the balancer cannot be read, "-" where it has
    no such server. active, queued: requests now. errors: since the first look.
    """

    words: tuple[str, ...]
    active: int = 0
    queued: int = 0
    errors: int = 0

    @property
    def well(self) -> bool:
        """Taking traffic everywhere, and nothing that a person should look at."""
        return self.words == (Word.UP.value,) and not self.queued and not self.errors

    def __str__(self) -> str:
        """`UP 12`, `NOLB 2`, `UP 12 +3 queued, 1 error`."""
        text = ", ".join(self.words) + (f" {self.active}" if self.active else "")
        text += f" +{self.queued} queued" if self.queued else ""
        return text + (f", {self.errors} error{'' if self.errors == 1 else 's'}" if self.errors else "")


class Moment(NamedTuple):
    """Requests and failures (5xx answers, broken responses) per second; None where they are not known."""

    requests: float | None
    failed: float | None


class Board:
    """Changed by `look` alone, which takes looks in their order; one caller at a time."""

    def __init__(self, balancers: Sequence[str], places: Mapping[str, Sequence[Place]]) -> None:
        """balancers: their names, in the order in which they are shown. places: each node's servers."""
        self.balancers = tuple(balancers)
        self.faults: dict[str, str] = {}
        self.places = places
        self._rows: dict[Place, ServerRow] = {}
        self._first: dict[Place, Counters] = {}
        self._totals: dict[str, tuple[float, Counters]] = {}
        self._moments: dict[str, deque[Moment]] = {name: deque(maxlen=KEPT) for name in balancers}
        self._backends = {
            name: {place.backend for found in places.values() for place in found if place.balancer == name}
            for name in balancers
        }

    def look(self, look: BalancerLook) -> None:
        """One look: of a few servers or, where it has backends, of all, and then a moment of traffic too."""
        name = look.balancer
        if name not in self._moments:
            return
        if look.error:
            self.faults[name] = one_line(look.error)
            if self._totals.pop(name, None):
                self._moments[name].append(Moment(None, None))
            return
        self.faults.pop(name, None)
        for row in look.rows:
            place = Place(name, row.backend, row.server)
            self._rows[place] = row
            if row.counters.since(self._first.setdefault(place, row.counters)).fell:
                self._first[place] = Counters()
        if look.backends:
            self._count(look)

    def _count(self, look: BalancerLook) -> None:
        total = Counters()
        for backend in look.backends:
            if backend.backend in self._backends[look.balancer]:
                total = total.plus(backend.counters)
        at_s, was = self._totals.get(look.balancer, (look.at_s, total))
        spent_s = look.at_s - at_s
        if 0 < spent_s < LEAST_S:
            return
        self._totals[look.balancer] = (look.at_s, total)
        if spent_s <= 0:
            return
        delta = total.since(was)
        failed = max(delta.answered_5xx, delta.response_errors)
        moment = Moment(delta.sessions / spent_s, failed / spent_s)
        self._moments[look.balancer].append(Moment(None, None) if delta.fell else moment)

    def cell(self, node: str, balancer: str) -> Cell:
        if balancer in self.faults:
            return Cell(("?",))
        places = [place for place in self.places.get(node, ()) if place.balancer == balancer]
        found = [(place, self._rows[place]) for place in places if place in self._rows]
        if not found:
            return Cell(("-",))
        return Cell(
            tuple(dict.fromkeys(str(row.status) for _, row in found)),
            sum(row.scur for _, row in found),
            sum(row.qcur for _, row in found),
            sum(row.counters.since(self._first[place]).errors for place, row in found),
        )

    def traffic(self, balancer: str) -> Sequence[Moment]:
        """Its moments, about a second apart, the newest last."""
        return tuple(self._moments[balancer])

    def all_traffic(self) -> Sequence[Moment]:
        """The moments of all balancers, summed from the newest back; not known where one is not."""
        kept = [list(reversed(moments)) for moments in self._moments.values() if moments]
        summed = [
            Moment(_sum([each.requests for each in row]), _sum([each.failed for each in row]))
            for row in zip(*kept, strict=False)
        ]
        return summed[::-1]


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
