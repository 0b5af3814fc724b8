"""
The rollout: waves of nodes forward, and back when it fails.

    stage every node → each wave: walk its nodes, all at once → done
    a node fails      → put it back (or leave it out, on_failure: halt) → budget spent?
    budget spent      → put the finished nodes back by the same draining steps, or halt

All that it knows of the past comes from the journal's replay, so a resumed rollout is an ordinary one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from drainctl.errors import DrainctlError, Exit, LeaseLost
from drainctl.journal.replay import NodeState, RolloutState, replay
from drainctl.model import Node, Release
from drainctl.rollout.choose import jobs_of
from drainctl.rollout.plan import CONFIGURED, Plan, apart, choose_way
from drainctl.rollout.walk import Walk
from drainctl.rollout.world import World
from drainctl.steps import Do, Job, Look, Seen, Step, Verdict
from drainctl.strategies import common
from drainctl.strategies.door import Strategy
from drainctl.strategies.known import STRATEGIES
from drainctl.threads import in_parallel

STAGE_AT_ONCE = 4
ABORT = "abort was asked"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a rollout ended: done, put-back, halted, paused or interrupted, and why."""

    outcome: str
    exit: Exit
    why: str


class Roll:
    """One rollout over the cluster, from its plan and from what its journal says is done already."""

    def __init__(self, world: World, plan: Plan, on_failure: str) -> None:
        self._world = world
        self._plan = plan
        self._on_failure = on_failure
        self._state = RolloutState(world.rollout)
        self._lock = threading.Lock()
        self._taken: set[str] = set()

    def run(self) -> Outcome:
        """
        Go on until there is nothing more to do.

        Raises: LeaseLost, JournalError, Interrupted (second signal): nothing more may be done here.
        """
        state = self._now()
        if state.turned:
            return self._go_back(state.turned, asked=state.turned == ABORT)
        release = self._plan.release
        if release and release.to_stage and not state.staged and (failed := self._stage_all(release)):
            return failed
        for number, wave in enumerate(self._plan.waves, 1):
            names = [name for name in wave if self._now().nodes[name].outcome != "done"]
            if not names:
                continue
            if (held := self._held()) is not None:
                return held
            text = f"wave {number} of {len(self._plan.waves)}: {', '.join(names)}"
            self._world.record("wave.began", text, wave=number, of=len(self._plan.waves), nodes=names)
            self._taken.update(names)
            self._all_at_once(names, partial(self._forward, names))
            if (ended := self._after_wave()) is not None:
                return ended
        return self._finished()

    @staticmethod
    def _all_at_once(names: Sequence[str], work: Callable[[str], object], at_once: int = 32) -> None:
        in_parallel([partial(work, name) for name in names], at_once)

    # -------------------------------------------------------- what is known

    def _now(self) -> RolloutState:
        """The state by the journal, which other controllers may have written to as well."""
        with self._lock:
            events = self._world.store.events(self._world.rollout, after=self._state.seq)
            self._state = replay(self._world.rollout, events, self._state)
            return self._state

    def _held(self) -> Outcome | None:
        """Whether somebody asked to stop before the next wave."""
        if self._world.stop.asked:
            return Outcome("interrupted", Exit.INTERRUPTED, "no node is in flight")
        match self._now().asked:
            case "pause":
                return Outcome("paused", Exit.HALTED, "as asked; no node is in flight")
            case "abort":
                return self._go_back(ABORT)  # by another drainctl: who began this did not get it
        return None

    # -------------------------------------------------------- forward

    def _stage_all(self, release: Release) -> Outcome | None:
        """The release on every node before any leaves rotation. A failure here has touched no user."""
        step = common.stage(self._world.cluster, release.id)
        failed: dict[str, str] = {}

        def stage(name: str) -> None:
            stopped, verdict = Walk(self._world, self._world.cluster.node(name)).through([step])
            if stopped:
                failed[name] = verdict.why

        self._all_at_once(self._plan.order, stage, STAGE_AT_ONCE)
        if failed:
            first = next(f"{name}: {failed[name]}" for name in self._plan.order if name in failed)
            return Outcome("put-back", Exit.PUT_BACK, f"{first}; no node left rotation")
        self._world.record("rollout.staged", "the release is on every node")
        return None

    def _forward(self, wave: Sequence[str], name: str) -> None:
        """One node's whole journey, by another strategy where one falls back; its undoing where it fails."""
        node, before = self._world.cluster.node(name), self._now().nodes[name]
        if before.in_flight and before.way == "back":
            self._put_back(node, "its putting back was interrupted")
            return
        strategy = self._strategy(node)
        reason: str | None = self._plan.ways[name].reason
        while reason is not None:
            job = self._plan.job(name, strategy)
            self._begin(node, "forward", job, strategy, reason)
            way = strategy.journey(self._world.cluster, node, job)
            stopped, verdict = self._walk(node, wave).through(_left(way, before))
            if stopped is None:
                self._end(node, "done", f"on {job.target}" if job.target else "done")
                return
            why = f"{stopped.name}: {verdict.why}"
            if verdict.do is not Do.FALLBACK or self._now().nodes[name].changed:
                self._fail(node, strategy, verdict, why)
                return
            before = NodeState(name)  # a fallback begins anew
            strategy, reason = self._fall_back(node, strategy, why)

    def _strategy(self, node: Node) -> Strategy:
        """The one that the node is in the middle of, else the one that it was planned to go by."""
        at = self._now().nodes[node.name]
        return STRATEGIES[at.strategy] if at.in_flight and at.strategy else self._plan.strategy(node.name)

    def _fall_back(self, node: Node, strategy: Strategy, why: str) -> tuple[Strategy, str | None]:
        """
        Give the node back, unchanged, and find the next of its strategies that can now.

        Returns: it and why it is taken; no reason where the journey has ended here.
        """
        left = node.strategy[node.strategy.index(strategy.name) + 1 :]
        if not left:
            self._give_back(node, strategy, f"{why} (no other strategy is configured for {node.name})")
            return strategy, None
        if self._now().nodes[node.name].flagged and (trouble := self._returned(node, strategy)):
            self._end(node, "failed", f"{why}; giving it back failed at {trouble}")
            return strategy, None
        jobs = jobs_of(self._world.cluster, self._plan, node.name)
        way = choose_way(self._world.cluster, node.name, jobs, self._look(node), left)
        if way.strategy is None:
            self._end(node, "restored", f"{why}; {way.reason}; the node is in rotation, unchanged")
            return strategy, None
        passed = "" if way.reason == CONFIGURED else f"; {way.reason}"
        return STRATEGIES[way.strategy], f"{strategy.name} stopped at {why}{passed}"

    def _look(self, node: Node) -> Seen:
        """All that a strategy may need to know before it is taken."""
        observer = self._world.observer
        host = observer.host(node, frozenset({Look.CHECK, Look.DISK}))
        return Seen(
            node=node,
            places=self._world.places[node.name],
            looks=observer.balancers(frozenset({Look.TABLE})),
            host=host._replace(inspected=observer.inspect(node)),
        )

    def _walk(self, node: Node, wave: Sequence[str] = ()) -> Walk:
        state = self._now()
        out = {name for name, at in state.nodes.items() if at.in_flight or at.outcome == "failed"}
        out |= {name for name in wave if self._plan.strategy(name).leaves}
        servers = frozenset(self._world.cluster.node(name).server for name in out - {node.name})
        return Walk(self._world, node, acted=state.nodes[node.name].acted, out_too=servers)

    def _fail(self, node: Node, strategy: Strategy, verdict: Verdict, why: str) -> None:
        """A node's journey stopped: give it back, put it back, or leave it out, as far as that is right."""
        if verdict.do is Do.HALT:
            self._end(node, "failed", f"{why}; it stays as it is")
        elif not self._now().nodes[node.name].changed:
            self._give_back(node, strategy, why)
        elif self._on_failure == "roll-back" and self._can_put_back(node):
            self._put_back(node, why)
        else:
            self._leave_out(node, strategy, why)

    def _give_back(self, node: Node, strategy: Strategy, why: str) -> bool:
        """Nothing but the flag was changed: take it away and see the node up again."""
        if not self._now().nodes[node.name].flagged:
            self._end(node, "restored", f"{why}; the node was not touched")
            return True
        trouble = self._returned(node, strategy)
        if trouble is None:
            self._end(node, "restored", f"{why}; the node is back in rotation, unchanged")
        else:
            self._end(node, "failed", f"{why}; giving it back failed at {trouble}")
        return trouble is None

    def _returned(self, node: Node, strategy: Strategy) -> str | None:
        """Undo a journey that changed nothing yet; where that stops and why, None when it is done."""
        way = strategy.give_back(self._world.cluster, node)
        stopped, verdict = self._walk(node).through(way, finish=True)
        return f"{stopped.name}: {verdict.why}" if stopped else None

    def _leave_out(self, node: Node, strategy: Strategy, why: str) -> None:
        """A changed node that is not put back serves nobody until a person has looked, where that can be."""
        way = strategy.leave_out(self._world.cluster, node)
        if not way:
            self._end(node, "failed", f"{why}; it stays as it is")
            return
        stopped, verdict = self._walk(node).through(way, finish=True)
        left = (
            "left out of rotation"
            if stopped is None
            else f"not out of rotation, {stopped.name}: {verdict.why}"
        )
        self._end(node, "failed", f"{why}; {left}")

    # -------------------------------------------------------- back

    def _can_put_back(self, node: Node) -> bool:
        """An in-place restart can be, too: what was started beside the old process is ended again."""
        in_place = not self._last_strategy(node).leaves
        return (self._plan.jobs[node.name].switches or in_place) and self._plan.previous[
            node.name
        ] is not None

    def _put_back(self, node: Node, why: str) -> bool:
        """The old release through the same steps; of a node that is out already the guard asks nothing."""
        strategy = self._last_strategy(node)
        job = self._plan.back(node.name, strategy)
        self._begin(node, "back", job, strategy, why)
        way = strategy.journey(self._world.cluster, node, job)
        stopped, verdict = self._walk(node).through(way, finish=True)
        if stopped is None:
            self._end(node, "put-back", f"back on {job.target}: {why}")
        else:
            self._end(node, "failed", f"{why}; putting it back failed at {stopped.name}: {verdict.why}")
        return stopped is None

    def _last_strategy(self, node: Node) -> Strategy:
        """The strategy that the node went by, also where it has finished."""
        name = self._now().nodes[node.name].strategy
        return STRATEGIES[name] if name else self._plan.strategy(node.name)

    def _go_back(self, why: str, *, asked: bool = False) -> Outcome:
        """Put back every node that this rollout has changed: those in flight first, then the others."""
        if not self._now().turned:
            self._world.record("rollout.turned", f"going back: {why}", to="back", why=why)
        nodes = self._now().nodes
        loose = [
            name for name in self._plan.order if nodes[name].in_flight or nodes[name].outcome == "failed"
        ]
        finished = [name for name in reversed(self._plan.order) if nodes[name].outcome == "done"]
        size = max(1, self._world.cluster.rollout.at_once.of(len(nodes)))
        chunks = [
            *apart(self._world.cluster, loose, len(loose)),
            *apart(self._world.cluster, finished, size),
        ]
        for chunk in chunks:
            self._world.stop.raise_if_at_once()
            self._all_at_once(chunk, lambda name: self._back(self._world.cluster.node(name), why))
            if bad := [name for name in chunk if self._now().nodes[name].outcome == "failed"]:
                return Outcome(
                    "halted", Exit.HALTED, f"going back: {bad[0]}: {self._now().nodes[bad[0]].why}"
                )
        return Outcome("put-back", Exit.DONE if asked else Exit.PUT_BACK, why)

    def _back(self, node: Node, why: str) -> None:
        at = self._now().nodes[node.name]
        if not at.changed:
            if not (at.in_flight and at.way == "forward"):
                job = Job("put-back", self._plan.previous[node.name])
                self._begin(node, "back", job, self._last_strategy(node), why)
            self._world.observer.follow(node)
            self._give_back(node, self._last_strategy(node), why)
        elif self._can_put_back(node):
            self._put_back(node, why)
        elif at.outcome != "done":  # a finished restart or run left nothing that could be put back
            strategy = self._last_strategy(node)
            self._begin(node, "back", Job("put-back"), strategy, why)
            if strategy.leaves and not self._serves(node):
                self._leave_out(node, strategy, f"{why}; what ran on it cannot be taken back")
            else:
                self._end(node, "restored", f"{why}; what ran on it stays, and it is in rotation again")

    def _serves(self, node: Node) -> bool:
        """Somebody has put it back into rotation by hand: that is not undone."""
        host = self._world.observer.host(node, frozenset({Look.CHECK, Look.STORE}))
        answer = host.store.check if host.store else host.check
        marked = host.store is not None and host.store.mark is not None
        return answer is not None and answer.status == 200 and not marked

    # -------------------------------------------------------- ends

    def _after_wave(self) -> Outcome | None:
        nodes = self._now().nodes
        failed = [name for name in self._plan.order if name in self._taken and nodes[name].outcome != "done"]
        left_out = [name for name in failed if nodes[name].outcome == "failed"]
        if self._world.stop.asked:
            return Outcome("interrupted", Exit.INTERRUPTED, "the nodes in flight were settled")
        if not left_out and len(failed) <= self._world.cluster.rollout.max_failed:
            return None
        first = (left_out or failed)[0]
        why = f"{first}: {nodes[first].why}"
        if left_out or self._on_failure == "halt":
            return Outcome("halted", Exit.HALTED, why)
        return self._go_back(why)

    def _finished(self) -> Outcome:
        if self._now().asked == "abort":  # while the last wave was under way
            return self._go_back(ABORT)
        nodes = self._now().nodes
        if behind := [name for name, at in nodes.items() if at.outcome != "done"]:
            return Outcome("halted", Exit.HALTED, f"finished, but not on {', '.join(behind)}")
        if self._plan.release:
            self._all_at_once(self._plan.order, self._prune)
        return Outcome("done", Exit.DONE, f"{len(nodes)} of {len(nodes)} nodes done")

    def _prune(self, name: str) -> None:
        """Old releases go only after all is well; that it failed is told, and fails nothing."""
        kept = {self._plan.previous[name], self._plan.jobs[name].target} - {None}
        try:
            text = self._world.perform.prune(self._world.cluster.node(name), frozenset(map(str, kept)))
        except LeaseLost:
            raise
        except DrainctlError as error:
            text = f"old releases are still there: {error}"
        if text:
            self._world.record("note", text, node=name, what="pruned")

    # -------------------------------------------------------- the record

    def _begin(self, node: Node, way: str, job: Job, strategy: Strategy, reason: str) -> None:
        self._world.observer.follow(node)
        self._world.record(
            "node.began",
            _beginning(job, strategy, reason if way == "forward" else CONFIGURED),
            node=node.name,
            way=way,
            strategy=strategy.name,
            reason=reason,
            target=job.target,
        )

    def _end(self, node: Node, outcome: str, why: str) -> None:
        self._world.observer.leave(node)
        self._world.keep_out.discard(node)
        self._world.record("node.ended", f"{outcome}: {why}", node=node.name, outcome=outcome, why=why)


def _beginning(job: Job, strategy: Strategy, reason: str) -> str:
    what = f"{job.verb} {job.target or ''}".strip()
    return f"{what} by {strategy.name}" + ("" if reason == CONFIGURED else f": {reason}")


def _left(way: Sequence[Step], before: NodeState) -> Sequence[Step]:
    """
    What is left of a journey that was interrupted: all of it, or only the way back into rotation.

    An unchanged node that was on its way back was being given back: it begins anew.
    """
    if before.in_flight and before.changed and "restore" in before.intended:
        first = next(at for at, step in enumerate(way) if step.name == "restore")
        return way[first:]
    return way
