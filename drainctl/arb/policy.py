"""
The rules of failover, and nothing else: no clock, no network, no board.

A client says what happened (a `Fault`), and is told whether the machine is to be marked down and whom to ask
next. The session over requests, the client over httpx and the prober all ask here.

    fault          was it sent?  mark down?  then
    NO_NAME        no            no          the replica
    REFUSED        no            yes         the replica
    UNREACHABLE    no            yes         the replica
    CONNECT_LIMIT  no            yes         the replica
    TLS_LIMIT      no            yes         the replica
    TLS_FAILED     no            no          the replica: a wrong certificate may be this client's own mistake
    LEARNED        no            it is       the replica: another process marked it while we were connecting
    LOCAL          no            no          the replica: no port, no file descriptor; not the machine's fault
    CLOSED         maybe         no          if repeatable: the same machine once where a kept connection was
                                             stale (RFC 9112, section 9.3.1), else the replica
    VANISHED       maybe         yes         if repeatable: the replica
    CUT            maybe         no          if repeatable: the replica
    HUNG           maybe         it is       if repeatable: the replica
    SILENT         maybe         no          nobody: the read limit is the caller's word on how long to wait,
                                             and a slow query is no sign of a dead machine
    UNWELL         yes           no          (probes only: an answer of 500 or above)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from drainctl.arb.shards import Machine, Shard

# RFC 9110, section 9.2.2.
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

AGAIN_S = 1.0  # a machine that failed a request so long ago may be asked again, if it is up


class Fault(Enum):
    """
    What went wrong with one try.

    Attributes:
        words: what happened, for people; follows a machine's name.
        sent: whether the machine may have got the request.
        marks: whether it shows that the machine is down.
    """

    NO_NAME = ("has no address", False, False)
    REFUSED = ("refused the connection", False, True)
    UNREACHABLE = ("could not be reached", False, True)
    CONNECT_LIMIT = ("did not connect in time", False, True)
    TLS_LIMIT = ("did not finish the TLS handshake in time", False, True)
    TLS_FAILED = ("failed the TLS handshake", False, False)
    LEARNED = ("was marked down while we were connecting", False, False)
    LOCAL = ("could not be tried from here", False, False)
    CLOSED = ("closed the connection before it answered", True, False)
    VANISHED = ("stopped acknowledging", True, True)
    CUT = ("ended its answer too early", True, False)
    HUNG = ("was marked down while we waited for its answer", True, False)
    SILENT = ("did not answer within the read limit", True, False)
    UNWELL = ("answers with an error", True, False)

    def __init__(self, words: str, sent: bool, marks: bool) -> None:
        self.words = words
        self.sent = sent
        self.marks = marks


class Again(Enum):
    """Whom to ask next."""

    SAME = "the same machine, over a new connection"
    NEXT = "the next machine"
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from a fault."""

    mark: bool
    again: Again


@dataclass(frozen=True, slots=True)
class Try:
    """One try that failed: `host:port`, what went wrong, and after how many seconds."""

    machine: str
    fault: Fault
    took_s: float

    def __str__(self) -> str:
        return f"{self.machine} {self.fault.words} ({self.took_s:.2f} s)"


def by_method(method: str, _url: str, headers: Mapping[str, str]) -> bool:
    """
    Whether a request may be sent twice: its method is idempotent, or it carries an Idempotency-Key.

    Source: RFC 9110, section 9.2.2; draft-ietf-httpapi-idempotency-key-header.
    """
    return method in IDEMPOTENT or "Idempotency-Key" in headers


@dataclass(frozen=True, slots=True)
class Policy:
    """
    The limits and habits of a client; every time in seconds.

    Attributes:
        connect_s: most that connecting to one machine may take, all of its addresses and TLS included.
        read_s: longest silence while an answer is awaited, where the caller gives no `timeout`.
        dead_s: a machine that acknowledges nothing for that long is gone (TCP_USER_TIMEOUT and keepalive).
        keep_s: a kept connection that was idle for longer is not used again; keep it below the store's own
            limit.
        hold_s: how long a mark lasts that nobody renews; the prober renews it while it lives.
        every_s: time between two probes of a machine, jittered by a quarter.
        probe_s: most that a probe's answer may take once it is connected.
        probe_path: what a probe asks for. Any answer below 500 is a good one.
        rise: good probes in a row that bring a machine back.
        fall: silent probes in a row that mark a machine down; one is enough where it does not even connect.
        repeatable: (method, url, headers) → whether that request may be sent twice.
        move: whether a repeatable request that waits for a machine which is then found dead is taken to the
            replica.
    """

    connect_s: float = 1.0
    read_s: float = 900.0
    dead_s: float = 2.0
    keep_s: float = 4.0
    hold_s: float = 15.0
    every_s: float = 1.0
    probe_s: float = 1.0
    probe_path: str = "/"
    rise: int = 2
    fall: int = 2
    repeatable: Callable[[str, str, Mapping[str, str]], bool] = by_method
    move: bool = True


def judge(fault: Fault, *, reused: bool, repeatable: bool) -> Verdict:
    """
    What follows from a fault.

    Args:
        fault: what went wrong.
        reused: the request went over a kept connection.
        repeatable: it may be sent twice.
    """
    if not fault.sent:
        return Verdict(fault.marks, Again.NEXT)
    if not repeatable or fault in (Fault.SILENT, Fault.UNWELL):
        return Verdict(fault.marks, Again.NOBODY)
    if fault is Fault.CLOSED and reused:
        return Verdict(fault.marks, Again.SAME)
    return Verdict(fault.marks, Again.NEXT)


def order(shard: Shard, down: Mapping[str, bool]) -> tuple[Machine, ...]:
    """
    Whom to ask, in turn: who is up; then, rather than fail, who is marked down; then who was taken down by
    hand.

    Args:
        shard: whose machines.
        down: host:port → whether it was taken down by hand.
    """
    if not down:
        return shard.machines
    return tuple(sorted(shard.machines, key=lambda machine: _rank(down.get(machine.name))))


def up(shard: Shard, down: Mapping[str, object]) -> tuple[Machine, ...]:
    """The machines of a shard that are not marked down, in order."""
    return tuple(machine for machine in shard.machines if machine.name not in down)


def _rank(by_hand: bool | None) -> int:
    return 0 if by_hand is None else 1 + by_hand


class Course:
    """One request's way through the machines of a shard. Pure: it is told, and answers."""

    __slots__ = ("_at", "_over", "_repeatable", "_ways", "tries")

    def __init__(self, ways: tuple[Machine, ...], repeatable: bool) -> None:
        self._ways = ways
        self._at = 0
        self._repeatable = repeatable
        self._over = False
        self.tries: list[Try] = []

    @property
    def machine(self) -> Machine | None:
        """Whom to ask now; None when there is nobody left."""
        return self._ways[self._at] if self._at < len(self._ways) else None

    def failed(self, fault: Fault, *, reused: bool, took_s: float) -> bool:
        """Takes down that the machine failed. Returns whether it is to be marked down."""
        verdict = judge(fault, reused=reused, repeatable=self._repeatable)
        self.tries.append(Try(self._ways[self._at].name, fault, took_s))
        if verdict.again is Again.NEXT:
            self._at += 1
        elif verdict.again is Again.NOBODY:
            self.end()
        return verdict.mark

    def end(self) -> None:
        """Nobody else is to be asked: the request cannot be sent once more."""
        self._at, self._over = len(self._ways), True

    def once_more(self, up: Sequence[Machine]) -> None:
        """
        Nobody is left: those that are up by now and failed a while ago get a second chance, one each.

        So a long query that lost its machine, and then the replica too, is answered by the machine that has
        come back meanwhile; and a query that fells whoever gets it does not go round.

        Args:
            up: machines that are not marked down, in order.
        """
        if not self._over and self.machine is None:
            self._over = True
            self._ways += tuple(machine for machine in up if self._since_s(machine.name) >= AGAIN_S)

    def _since_s(self, name: str) -> float:
        """How long ago that machine failed, seconds."""
        since_s = 0.0
        for one in reversed(self.tries):
            if one.machine == name:
                return since_s
            since_s += one.took_s
        return since_s

    @property
    def worst(self) -> Fault:
        """The fault that the caller is told: the last one that may have been sent, else the last."""
        sent = [one.fault for one in self.tries if one.fault.sent]
        return (sent or [one.fault for one in self.tries])[-1]


class Pulse:
    """What a machine's probes show, over time: half-open until enough are good, down when enough are not."""

    __slots__ = ("_bad", "_good", "suspect")

    def __init__(self) -> None:
        self._good = 0
        self._bad = 0
        self.suspect = False  # it has begun to fail: the next probe need not wait

    def beat(self, fault: Fault | None, policy: Policy, *, down: bool) -> str:
        """
        Takes one probe's outcome.

        Args:
            fault: what went wrong; None: a good answer.
            policy: `rise` and `fall`.
            down: whether the board shows the machine down.
        Returns: "mark" (mark it, or renew the mark), "lift", or "" for nothing.
        """
        if fault is None:
            self._good, self._bad, self.suspect = self._good + 1, 0, False
            return "lift" if down and self._good >= policy.rise else ""
        self._good, self._bad = 0, self._bad + 1
        dead = fault.marks or self._bad >= policy.fall
        self.suspect = not (down or dead)
        return "mark" if down or dead else ""
