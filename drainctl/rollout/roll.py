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

from drainctl.errors import DrainctlError, Exit
from drainctl.journal.replay import NodeState, RolloutState, replay
from drainctl.model import Node, Release
from drainctl.rollout.plan import Plan, steps
from drainctl.rollout.walk import Walk
from drainctl.rollout.world import World
from drainctl.steps import Do, Job, Look, Step, Verdict
from drainctl.strategies import http_check
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
        step = http_check.stage(self._world.cluster, release.id)
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
        """One node's whole journey, and its undoing where it fails."""
        node, job = self._world.cluster.node(name), self._plan.jobs[name]
        before = self._now().nodes[name]
        if before.in_flight and before.way == "back":
            self._put_back(node, "its putting back was interrupted")
            return
        self._begin(node, "forward", job)
        stopped, verdict = self._walk(node, wave).through(_left(steps(self._world.cluster, job), before))
        if stopped is None:
            self._end(node, "done", f"on {job.target}" if job.target else "done")
        else:
            self._fail(node, stopped, verdict)

    def _walk(self, node: Node, wave: Sequence[str] = ()) -> Walk:
        state = self._now()
        out = {name for name, at in state.nodes.items() if at.in_flight or at.outcome == "failed"} | set(wave)
        servers = frozenset(self._world.cluster.node(name).server for name in out - {node.name})
        return Walk(self._world, node, acted=state.nodes[node.name].acted, out_too=servers)

    def _fail(self, node: Node, stopped: Step, verdict: Verdict) -> None:
        """A node's journey stopped: give it back, put it back, or leave it out, as far as that is right."""
        why = f"{stopped.name}: {verdict.why}"
        if verdict.do is Do.FALLBACK:
            why += f" (no other strategy is configured for {node.name})"
        if verdict.do is Do.HALT:
            self._end(node, "failed", f"{why}; it stays as it is")
        elif not self._now().nodes[node.name].changed:
            self._give_back(node, why)
        elif self._on_failure == "roll-back" and self._can_put_back(node):
            self._put_back(node, why)
        else:
            self._leave_out(node, why)

    def _give_back(self, node: Node, why: str) -> bool:
        """Nothing but the flag was changed: take it away and see the node up again."""
        if not self._now().nodes[node.name].flagged:
            self._end(node, "restored", f"{why}; the node was not touched")
            return True
        stopped, verdict = self._walk(node).through(http_check.give_back(self._world.cluster), finish=True)
        if stopped is None:
            self._end(node, "restored", f"{why}; the node is back in rotation, unchanged")
        else:
            self._end(node, "failed", f"{why}; giving it back failed at {stopped.name}: {verdict.why}")
        return stopped is None

    def _leave_out(self, node: Node, why: str) -> None:
        """A changed node that is not put back serves nobody until a person has looked."""
        stopped, verdict = self._walk(node).through(http_check.out_only(self._world.cluster), finish=True)
        left = (
            "left out of rotation"
            if stopped is None
            else f"not out of rotation, {stopped.name}: {verdict.why}"
        )
        self._end(node, "failed", f"{why}; {left}")

    # -------------------------------------------------------- back

    def _can_put_back(self, node: Node) -> bool:
        return self._plan.jobs[node.name].switches and self._plan.previous[node.name] is not None

    def _put_back(self, node: Node, why: str) -> bool:
        """The old release through the same steps; of a node that is out already the guard asks nothing."""
        job = Job("put-back", self._plan.previous[node.name])
        self._begin(node, "back", job)
        stopped, verdict = self._walk(node).through(steps(self._world.cluster, job), finish=True)
        if stopped is None:
            self._end(node, "put-back", f"back on {job.target}: {why}")
        else:
            self._end(node, "failed", f"{why}; putting it back failed at {stopped.name}: {verdict.why}")
        return stopped is None

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
        chunks = [loose, *(finished[at : at + size] for at in range(0, len(finished), size))]
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
                self._begin(node, "back", Job("put-back", self._plan.previous[node.name]))
            self._world.observer.follow(node)
            self._give_back(node, why)
        elif self._can_put_back(node):
            self._put_back(node, why)
        elif at.outcome != "done":  # a finished restart or run left nothing that could be put back
            self._begin(node, "back", Job("put-back"))
            if self._serves(node):
                self._end(node, "restored", f"{why}; what ran on it stays, and it is in rotation again")
            else:
                self._leave_out(node, f"{why}; what ran on it cannot be taken back")

    def _serves(self, node: Node) -> bool:
        """Somebody has put it back into rotation by hand: that is not undone."""
        answer = self._world.observer.host(node, frozenset({Look.CHECK})).check
        return answer is not None and answer.status == 200

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
        except DrainctlError as error:
            text = f"old releases are still there: {error}"
        if text:
            self._world.record("note", text, node=name, what="pruned")

    # -------------------------------------------------------- the record

    def _begin(self, node: Node, way: str, job: Job) -> None:
        self._world.observer.follow(node)
        self._world.record(
            "node.began",
            f"{job.verb} {job.target or ''}".strip(),
            node=node.name,
            way=way,
            strategy=http_check.NAME,
            reason="configured",
            target=job.target,
        )

    def _end(self, node: Node, outcome: str, why: str) -> None:
        self._world.observer.leave(node)
        self._world.keep_out.discard(node)
        self._world.record("node.ended", f"{outcome}: {why}", node=node.name, outcome=outcome, why=why)


def _left(way: Sequence[Step], before: NodeState) -> Sequence[Step]:
    """What is left of a journey that was interrupted: all of it, or only the way back into rotation."""
    if before.in_flight and "restore" in before.intended:
        first = next(at for at, step in enumerate(way) if step.name == "restore")
        return way[first:]
    return way
