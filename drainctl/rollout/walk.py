"""
One node through its steps: look, judge, write, act, write, look until judged.

The loop does not know what a step is for. Before an act its `requires` must hold, the lease must last as
long as the act may take, and the intent must be on disk.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from drainctl.config.expand import shown
from drainctl.config.placeholders import fill, values_of
from drainctl.errors import ConnectFailed, DrainctlError, Fenced, Interrupted, LeaseLost
from drainctl.model import BalancerLook, Node, NodeLook, Said
from drainctl.rollout.decide import decide, due
from drainctl.rollout.observe import BALANCER_LOOKS
from drainctl.rollout.shown import rows_as_text
from drainctl.rollout.world import World
from drainctl.steps import (
    Act,
    ClearFlag,
    Do,
    Holds,
    Look,
    MarkDown,
    MarkUp,
    Never,
    Nudge,
    OnNode,
    ReplaceContainer,
    RestartContainer,
    RunOnNode,
    Seen,
    SetFlag,
    SetState,
    ShutdownSessions,
    Stage,
    Step,
    Switch,
    Verdict,
    Warm,
    WriteUpstream,
)

FIRST_LOOK_S = 0.004
AGAIN_S = (1.0, 2.0, 4.0)  # pauses before an act whose connection failed is tried again
DEFAULT_ACT_LIMIT_S = 30.0
FRESH_S = 2.0  # how old may be what was seen before an act; longer than a look and a write usually take


@dataclass
class _Spent:
    """
    The time that a step has taken, less what passed while a balancer could not be read: of that time nothing
    can be judged. `patience_s` of it are not counted, what is more is.
    """

    clock: Callable[[], float]
    patience_s: float
    began: float
    blind_s: float = 0.0

    @property
    def seconds(self) -> float:
        return self.clock() - self.began - min(self.blind_s, self.patience_s)

    def blind(self, since: float) -> None:
        self.blind_s += self.clock() - since

    def left_s(self, limit_s: float) -> float:
        more_s = max(0.0, self.patience_s - self.blind_s) if self.blind_s else 0.0
        return limit_s - self.seconds + more_s

    @property
    def told(self) -> str:
        """What is added to a limit that is over."""
        return f", and {self.blind_s:.1f} s in which a balancer could not be read" if self.blind_s else ""


@dataclass
class Walk:
    """
    One node's way. acted: what the acts that returned in an earlier life of this rollout printed, by step.
    out_too: servers of the nodes that are out at the same time, asked for afresh at each look. looks: the
    balancers as this node's way saw them last.
    """

    world: World
    node: Node
    acted: Mapping[str, str] = field(default_factory=dict)
    out_too: frozenset[str] = frozenset()
    before: dict[str, Mapping[str, BalancerLook]] = field(default_factory=dict)
    looks: Mapping[str, BalancerLook] = field(default_factory=dict)
    output: str = ""

    def through(self, steps: Sequence[Step], *, finish: bool = False) -> tuple[Step | None, Verdict]:
        """
        Take all steps. `finish`: go on although a stop was asked for.

        Returns: (None, next) when all were taken, else the step that stopped and its verdict.
        Raises: LeaseLost, Interrupted (second ask), JournalError: then nothing more is done here.
        """
        for step in steps:
            verdict = self._take(step, finish=finish)
            if verdict.do is not Do.NEXT:
                return step, verdict
        return None, Verdict(Do.NEXT, "all steps taken")

    def _take(self, step: Step, *, finish: bool) -> Verdict:
        began = self.world.clock()
        if Look.PEERS in step.looks:
            self.world.observer.follow(self.node, peers=True)
        self.output = self.acted.get(step.name, "")
        if (step.once and step.name in self.acted) or step.look_first:
            now = step.expects(self._see(step, 0))
            if isinstance(now, Holds):
                self._tell("step.skipped", step, f"already so: {now.why}", why=now.why)
                return Verdict(Do.NEXT, now.why)
        verdict = self._act_when_ready(step, finish=finish)
        acted = self.world.clock()
        if verdict.do is Do.NEXT:
            verdict = self._until_seen(step, acted, finish=finish)
        self.world.record.waiting(self.node.name, None)
        took_s = round(self.world.clock() - began, 4)
        if verdict.do is Do.NEXT:
            if step.stays_out:
                self.world.keep_out.add(self.node)
            self._tell("step.seen", step, verdict.why, why=verdict.why, took_s=took_s)
        else:
            hint = verdict.hint
            self._tell(
                "step.failed",
                step,
                verdict.why,
                why=verdict.why,
                hint=hint,
                do=verdict.do.value,
                took_s=took_s,
                rows=rows_as_text(self.world.places[self.node.name], self.looks),
            )
        return verdict

    # -------------------------------------------------------- waiting

    def _until_ready(self, step: Step, *, finish: bool, intended: bool) -> Verdict | None:
        """
        What the act requires holds, the lease lasts as long as it may take, and the intent is on disk, all at
        the same time: writing and renewing wait for a store that is away, and what was seen before that is
        looked at again. None when all is so, else why the act must not be done. intended: that is on disk.
        """
        while True:
            stopped = self._until_required(step, self.world.clock(), finish=finish)
            if stopped or step.act is None:
                return stopped
            seen = self.world.clock()
            limit_s = getattr(step.act, "limit_s", step.limit_s or DEFAULT_ACT_LIMIT_S)
            self.world.right.check(limit_s)
            if not intended:
                told = self._described(step.act)
                self._tell("step.intended", step, told, act=told, limit_s=limit_s, changes=step.changes)
                intended = True
            self.world.right.check(limit_s)
            if self.world.clock() - seen < FRESH_S:
                return None

    def _until_required(self, step: Step, began: float, *, finish: bool) -> Verdict | None:
        """Wait until what the act requires holds; None when it does, else why the act must not be done."""
        limit_s = self.world.cluster.drain.limit_s
        spent = _Spent(self.world.clock, self.world.cluster.rollout.patience_s, began)
        for pause_s in _pauses(step.every_s):
            looked = self.world.clock()
            if (stopped := self._stopped(step, finish=finish)) is not None:
                return stopped
            if step.requires is None:
                return None
            self.looks = self.world.observer.balancers(_ROWS)
            host = NodeLook(probe=self._probe(step)) if step.probe else NodeLook()
            now = step.requires(Seen(self.node, self.world.places[self.node.name], self.looks, host))
            if isinstance(now, Holds):
                return None
            if isinstance(now, Never):
                return Verdict(step.on_never, now.why, now.hint)
            if spent.seconds > limit_s:
                told = f"not ready for {step.name} within {limit_s:g} s{spent.told}"
                return Verdict(step.on_limit, f"{now.why}: {told}")
            self.world.record.waiting(self.node.name, f"before {step.name}: {now.why}")
            self.world.sleep(pause_s)
            if any(look.error for look in self.looks.values()):
                spent.blind(looked)
        raise AssertionError("pauses never end")

    def _until_seen(self, step: Step, acted: float, *, finish: bool) -> Verdict:
        """Look until the step is judged to be over, `in_a_row` times; escalate when its time comes."""
        in_a_row = escalated = 0
        spent = _Spent(self.world.clock, self.world.cluster.rollout.patience_s, acted)
        for pause_s in _pauses(step.every_s):
            looked, spent_s = self.world.clock(), spent.seconds
            verdict = decide(step, self._see(step, spent_s))
            if verdict.do is Do.NEXT:
                in_a_row += 1
                if in_a_row >= step.in_a_row:
                    return verdict
            elif verdict.do is Do.WAIT:
                in_a_row = 0
            else:
                return replace(verdict, why=f"{verdict.why}{spent.told}")
            if (stopped := self._stopped(step, finish=finish)) is not None:
                return stopped
            if verdict.do is Do.WAIT:
                escalated += self._escalate(step, spent_s, escalated)
                told = step.limit_s is not None and verdict.again_s is None
                left = f"; {spent.left_s(step.limit_s or 0):.0f} s left" if told else ""
                self.world.record.waiting(self.node.name, f"{step.name}: {verdict.why}{left}")
            rest_s = step.every_s if in_a_row else pause_s
            self.world.sleep(rest_s if verdict.again_s is None else min(rest_s, verdict.again_s))
            if self._is_blind(step):
                spent.blind(looked)
        raise AssertionError("pauses never end")

    def _is_blind(self, step: Step) -> bool:
        """Whether a balancer that this step looks at could not be read."""
        return bool(step.looks & BALANCER_LOOKS) and any(look.error for look in self.looks.values())

    def _escalate(self, step: Step, spent_s: float, already: int) -> bool:
        """Do what its time has come for. Returns: whether anything was done."""
        escalation = due(step, spent_s, already)
        if escalation is None:
            return False
        self._tell("step.escalated", step, escalation.why, act=type(escalation.act).__name__)
        self.world.right.check(DEFAULT_ACT_LIMIT_S)
        output = self.world.perform(self.node, escalation.act)
        self.world.record("note", f"{step.name}: {output}", node=self.node.name, what="escalated")
        return True

    def _stopped(self, step: Step, *, finish: bool) -> Verdict | None:
        self.world.stop.raise_if_at_once()
        if why := self.world.right.lost:  # perhaps by what another node said; all stop at once
            raise LeaseLost(why)
        if self.world.stop.asked and not finish and step.reversible:
            return Verdict(Do.UNDO, "interrupted before anything was changed")
        return None

    def _see(self, step: Step, spent_s: float) -> Seen:
        looks = step.looks & BALANCER_LOOKS
        asked = step.looks - BALANCER_LOOKS
        if looks:
            self.looks = self.world.observer.balancers(looks)
        host = self.world.observer.host(self.node, asked) if asked else NodeLook()
        return Seen(
            node=self.node,
            places=self.world.places[self.node.name],
            looks=self.looks if looks else {},
            host=host._replace(probe=self._probe(step)) if step.probe else host,
            before=self.before,
            out_too=self.out_too,
            spent_s=spent_s,
            output=self.output,
        )

    def _probe(self, step: Step) -> Said:
        return self.world.observer.ask(self.node, step.probe or "")

    # -------------------------------------------------------- acting

    def _act_when_ready(self, step: Step, *, finish: bool) -> Verdict:
        """
        Act as soon as all is ready for it, and say how it went. Where the connection was lost it is tried
        again, when all is ready again: meanwhile a balancer may have been reloaded, or the lease taken.
        """
        for number, pause_s in enumerate((*AGAIN_S, None), 1):
            if (stopped := self._until_ready(step, finish=finish, intended=number > 1)) is not None:
                return stopped
            try:
                return self._act(step)
            except ConnectFailed as error:
                if pause_s is None:
                    failed = self._failed(step, error)
                    return replace(failed, why=f"{failed.why} ({number} tries)")
                told = f"{error}; trying again"
                self.world.record("note", told, node=self.node.name, what="connect-failed")
                self.world.sleep(pause_s)
        raise AssertionError("the last try returns")

    def _act(self, step: Step) -> Verdict:
        """Act once, and say how it went. Raises: ConnectFailed."""
        if step.mark:
            self.before[step.name] = self.world.observer.balancers(step.looks & BALANCER_LOOKS or _ROWS)
        if step.stays_out is False:
            self.world.keep_out.discard(self.node)
        if step.act is None:
            return Verdict(Do.NEXT, "nothing to do")
        self.world.record.waiting(self.node.name, f"{step.name}: {self._described(step.act)}")
        began = self.world.clock()
        try:
            output = self.world.perform(self.node, step.act)
        except Fenced as error:
            self.world.right.lose(str(error))
            raise
        except (ConnectFailed, Interrupted, LeaseLost):
            raise
        except DrainctlError as error:
            return self._failed(step, error)
        self.output = output
        if step.once:
            took_s = round(self.world.clock() - began, 4)
            self._tell("step.acted", step, output, output=output, took_s=took_s)
        return Verdict(Do.NEXT, output)

    def _described(self, act: Act) -> str:
        """The act in words, a command line as this node gets it."""
        if isinstance(act, RunOnNode):
            known = {**values_of(self.world.cluster, self.node, act.release), **act.more}
            act = replace(act, line=fill(act.line, known))
        return describe(act)

    def _failed(self, step: Step, error: DrainctlError) -> Verdict:
        why = str(error).removeprefix(f"{self.node.name}: ")  # each event and line names the node
        return Verdict(step.on_never, why, error.hint)

    def _tell(self, kind: str, step: Step, text: str, **data: object) -> None:
        self.world.record(kind, text, node=self.node.name, step=step.name, **data)


_ROWS = frozenset({Look.ROWS})


def _pauses(most_s: float) -> Iterator[float]:
    """Look again soon after an act, then less and less often, until `most_s` apart."""
    first = itertools.takewhile(
        lambda pause_s: pause_s < most_s, (FIRST_LOOK_S * 2**power for power in range(20))
    )
    return itertools.chain(first, itertools.repeat(most_s))


def describe(act: Act) -> str:
    """An act in the words of `plan` and of the journal."""
    match act:
        case SetFlag():
            return "set the flag: /http-check answers 404"
        case ClearFlag():
            return "take the flag away"
        case Nudge(health):
            return f"set server … health {health} (where the socket's level is admin)"
        case SetState(state):
            return f"set server … state {state} (where the socket's level is admin)"
        case ShutdownSessions():
            return "shutdown sessions server … (where the socket's level is admin)"
        case Stage(release):
            return f"upload, verify and unpack releases/{release}"
        case Switch(release):
            return f"current -> releases/{release}"
        case RunOnNode(line):
            return f"run `{shown(line)}`"
        case OnNode() | MarkDown() | MarkUp() | ReplaceContainer() | RestartContainer():
            return act.told
        case WriteUpstream(servers, generation):
            listed = ", ".join(f"{address} {state}" for address, state in servers)
            return f"write nginx's upstream file: {listed} (generation {generation})"
        case Warm(pages):
            return "GET " + ", ".join(f"{page.path} × {page.times}" for page in pages)
