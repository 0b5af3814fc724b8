"""
What is judged and done: a strategy is a list of steps, and a step is act + expects + limit, as data.

Pure, like `drainctl.model`. Steps come from `drainctl.strategies`; `drainctl.rollout` judges and performs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from drainctl.model import BalancerLook, Node, NodeLook, Place, ServerRow, WarmUp


class Look(Enum):
    """
    What a step needs to see of a node. ROWS: its own rows at every balancer; TABLE: every balancer's whole
    table; PEERS: the rows of all the cluster's nodes. The others are asked of the node itself.
    """

    ROWS = "rows"
    TABLE = "table"
    PEERS = "peers"
    CHECK = "check"
    READY = "ready"
    VERSION = "version"
    DISK = "disk"  # current, releases, flag
    ACTIVE = "active"
    STORE = "store"  # arb: its check, lag, queries, and its mark on the board
    REPLICAS = "replicas"  # arb: the same of those that hold its data
    CONTAINER = "container"  # of a node that is one: its state at the engine


NOTHING_SEEN = NodeLook()
Verb = Literal["deploy", "rollback", "restart", "run", "drain", "restore", "put-back"]


@dataclass(frozen=True, slots=True)
class Seen:
    """
    All that is known of one node at one moment: what steps are judged by.

    places: every server that the node is, at every balancer. looks: the last look at each balancer.
    before: the balancers as they were right before a named step's act. out_too: servers (HAProxy's names)
    of other nodes that are out or on their way out. spent_s: time since this step's act returned. output:
    what this step's act printed.
    """

    node: Node
    places: tuple[Place, ...]
    looks: Mapping[str, BalancerLook]
    host: NodeLook = NOTHING_SEEN
    before: Mapping[str, Mapping[str, BalancerLook]] = field(default_factory=dict)
    out_too: frozenset[str] = frozenset()
    spent_s: float = 0.0
    output: str = ""

    def row(self, place: Place) -> ServerRow | None:
        look = self.looks.get(place.balancer)
        return look.row(place.backend, place.server) if look else None


@dataclass(frozen=True, slots=True)
class Holds:
    """What a step expects is seen; `why` says what was seen."""

    why: str


@dataclass(frozen=True, slots=True)
class NotYet:
    """Not seen yet; `why` says what is waited for. again_s: when it may be over at the earliest."""

    why: str
    again_s: float | None = None


@dataclass(frozen=True, slots=True)
class Never:
    """Waiting will not help."""

    why: str
    hint: str | None = None


Expectation = Callable[[Seen], Holds | NotYet | Never]


@dataclass(frozen=True, slots=True)
class SetFlag:
    """Turn the node's /http-check to 404; the flag's text says who, when, for which rollout."""


@dataclass(frozen=True, slots=True)
class ClearFlag:
    """Turn the node's /http-check back to the app's own answer."""


@dataclass(frozen=True, slots=True)
class Nudge:
    """Tell each balancer whose socket allows it what its next check will find: "stopping" or "up"."""

    health: Literal["stopping", "up"]


@dataclass(frozen=True, slots=True)
class SetState:
    """`set server B/s state maint|ready` where the socket allows it."""

    state: Literal["maint", "ready"]


@dataclass(frozen=True, slots=True)
class ShutdownSessions:
    """`shutdown sessions server B/s` where the socket allows it: what is in flight is cut."""


@dataclass(frozen=True, slots=True)
class Stage:
    """Bring the release to the node and unpack it under releases/, linked to shared/."""

    release: str


@dataclass(frozen=True, slots=True)
class Switch:
    """Point `current` at a release, atomically."""

    release: str


@dataclass(frozen=True, slots=True)
class ReplaceContainer:
    """
    Put a container of `release` in the node's place, drained from its start; the one of before is kept,
    stopped. anew: it is made of the rollout's image, as the one of before was made; else it is the kept one
    of that release. limit_s: how long that may take.
    """

    release: str
    limit_s: float
    anew: bool

    @property
    def told(self) -> str:
        return f"replace the container by {'one' if self.anew else 'the kept one'} of release {self.release}"


@dataclass(frozen=True, slots=True)
class RestartContainer:
    """Stop the node's container and start it again, still drained."""

    limit_s: float
    told: str = "stop the container and start it again"


@dataclass(frozen=True, slots=True)
class RunOnNode:
    """
    Run a command of drainctl.yml on the node; `limit_s` bounds it; `release` is what its {release} stands
    for, `more` what further placeholders do.
    """

    line: str
    limit_s: float
    release: str | None = None
    more: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OnNode:
    """Run a command line of drainctl's own on the node, as it is; `told` says in words what it does."""

    line: str
    told: str
    limit_s: float


@dataclass(frozen=True, slots=True)
class WriteUpstream:
    """Write nginx's upstream file: each server's address and state (live, down), and the generation."""

    servers: tuple[tuple[str, Literal["live", "down"]], ...]
    generation: str


@dataclass(frozen=True, slots=True)
class Warm:
    """Ask the listed pages of the node itself, where its health pages are."""

    pages: tuple[WarmUp, ...]


@dataclass(frozen=True, slots=True)
class MarkDown:
    """Mark the machine down on the board, for `lasts_s` seconds (None: until it is lifted); `why` is told."""

    lasts_s: float | None
    why: str

    @property
    def told(self) -> str:
        return "mark it down on the board" + (f", for {self.lasts_s:.0f} s at most" if self.lasts_s else "")


@dataclass(frozen=True, slots=True)
class MarkUp:
    """Take this rollout's mark away from the board."""

    told: str = "take its mark off the board"


Act = (
    SetFlag
    | ClearFlag
    | Nudge
    | SetState
    | ShutdownSessions
    | Stage
    | Switch
    | ReplaceContainer
    | RestartContainer
    | RunOnNode
    | OnNode
    | WriteUpstream
    | MarkDown
    | MarkUp
    | Warm
)


class Do(Enum):
    """What follows from a judgement."""

    NEXT = "next"
    WAIT = "wait"
    FALLBACK = "fallback"
    UNDO = "undo"
    HALT = "halt"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judgement and its reason, in words. again_s: when to look again at the latest, if that is known."""

    do: Do
    why: str
    hint: str | None = None
    again_s: float | None = None


@dataclass(frozen=True, slots=True)
class Escalation:
    """While a step still waits `after_s` after its act, `act` is performed once; `why` is told."""

    after_s: float
    act: Act
    why: str


@dataclass(frozen=True, slots=True)
class Step:
    """
    One thing done to one node: act, what must be seen, limit. Data, so `plan` can print it.

    act: None for a step that only waits. It is idempotent: after a crash it may run twice.
    expects: pure judgement of what is seen; `in_a_row` looks must hold. looks: what must be looked at.
    requires: what must hold right before the act; while it does not, the act waits.
    mark: the balancers are looked at right before the act; `seen.before` keeps that under the step's name.
    once: when the journal says that this act returned before (a resumed rollout) and what it brings is
    seen, it is not done again. look_first: when what it brings is seen, it is not done, whoever did it.
    probe: a command line of ours, run on the node at each look; `seen.host.probe` is its answer.
    changes: from its act on, the node no longer is what it was. reversible: nothing was changed yet, so
    here a rollout may be stopped.
    limit_s: from the act's return; None waits for ever. every_s: looks are at most this far apart.
    stays_out: once this step is seen the node must stay out of rotation (True), or from its act on it may
    come back (False).
    on_limit / on_never: what follows when waiting ended badly.
    expected_s: how long it takes as far as drainctl.yml tells, None: not at all. by_key: the key that tells,
    in words; with `exact` it is so whatever earlier rollouts took.
    """

    name: str
    act: Act | None
    seen_when: str
    expects: Expectation
    looks: frozenset[Look]
    limit_s: float | None
    requires: Expectation | None = None
    mark: bool = False
    stays_out: bool | None = None
    once: bool = False
    look_first: bool = False
    probe: str | None = None
    changes: bool = False
    reversible: bool = False
    in_a_row: int = 1
    every_s: float = 0.05
    escalations: tuple[Escalation, ...] = ()
    on_limit: Do = Do.UNDO
    on_never: Do = Do.UNDO
    expected_s: float | None = 0.0
    by_key: str = ""
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Job:
    """
    What a rollout does to a node while it is out.

    target: the release that the app must answer with afterwards, None where that is not known. line: what
    is run instead of service.restart. leaving: the release that the node is to leave. live: what served
    before the rollout, in the strategy's own word (a port, a socket's path), also on the way back. adopt:
    files that drainctl did not write may be taken over.
    """

    verb: Verb
    target: str | None = None
    line: str | None = None
    leaving: str | None = None
    live: str | None = None
    adopt: bool = False

    @property
    def switches(self) -> bool:
        """Whether `current` is to be pointed at the target: not for a restart or a command of one's own."""
        moves = self.verb in {"deploy", "rollback", "put-back"}
        return moves and self.line is None and self.target is not None
