"""
The verbs, for the command line and for Python callers: lease, survey, plan, roll, prove, tell.

    with Wired(load("drainctl.yml")) as wired:
        result = Controller(wired).begin(Wish("deploy", release=prepare("shop-1.4.2.tar.gz", ...)))
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from drainctl.called import as_called
from drainctl.errors import (
    ConfigError,
    DrainctlError,
    Exit,
    Interrupted,
    JournalError,
    LeaseHeld,
    LeaseLost,
    PreflightError,
)
from drainctl.journal.lease import Keeper, me
from drainctl.journal.patient import Patience
from drainctl.journal.turn import Turn
from drainctl.model import Cluster, Node
from drainctl.node.fence import Fence
from drainctl.node.shell import holder
from drainctl.overview import look_around, open_rollout, state_of
from drainctl.rollout import ending
from drainctl.rollout.choose import Wish, again, chosen, make_plan
from drainctl.rollout.inspect import inspect
from drainctl.rollout.keep_out import EVERY_S, KeepOut
from drainctl.rollout.observe import Observer
from drainctl.rollout.perform import Performer
from drainctl.rollout.places import find_places
from drainctl.rollout.plan import Plan, refusals, unreachable
from drainctl.rollout.proof import proof
from drainctl.rollout.roll import ABORT, Outcome, Roll
from drainctl.rollout.takeover import Hosts, fenced
from drainctl.rollout.world import Recorder, Stop, World
from drainctl.strategies.known import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from drainctl.journal.door import Lease
    from drainctl.journal.replay import RolloutState
    from drainctl.model import Survey
    from drainctl.report.door import Listener
    from drainctl.wire import Wired

LEASE_S = 15.0


@dataclass(frozen=True, slots=True)
class Result:
    """
    How a rollout ended.

    outcome: done, put-back, halted, paused or interrupted. lines: where every node is, and each way out.
    proof: the data of the proof event, or None where none could be made. seconds: of this run.
    """

    rollout: str
    outcome: str
    exit: Exit
    why: str
    lines: Sequence[str]
    proof: Mapping[str, Any] | None
    seconds: float


class Controller:
    """
    Changes one cluster, one rollout at a time.

    Args:
        wired: its adapters; the caller closes them.
        listeners: told of every event (drainctl.report).
        stop: asked by signal handlers to end early.
        say: gets a line for people where there is no event to tell yet, while it waits for the lease.
    """

    def __init__(
        self,
        wired: Wired,
        listeners: Sequence[Listener] = (),
        stop: Stop | None = None,
        say: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._wired = wired
        self._listeners = tuple(listeners)
        self._stop = stop or Stop()
        self._say = say

    @property
    def cluster(self) -> Cluster:
        return self._wired.cluster

    def plan(self, wish: Wish) -> tuple[Plan, Survey, list[str]]:
        """
        What a rollout would do, what it is based on, and every reason not to begin (none: it may).

        Raises: ConfigError for unknown nodes, servers, backends, or a release that no node has.
        """
        names = chosen(self.cluster, wish.only)
        seen = look_around(self._wired, inspect)
        seen = seen._replace(errors={name: why for name, why in seen.errors.items() if name in names})
        if found := self._unreachable(seen, names):
            return Plan(wish.verb, (), {}, {}, {}, wish.release), seen, found
        plan = make_plan(self.cluster, wish, seen, find_places(self.cluster, seen.tables), self._ran_before)
        if wish.verb == "restore":
            return plan, seen, [] if wish.steal else self._not_ours(plan, seen)
        return plan, seen, refusals(self.cluster, plan, seen, steal=wish.steal)

    def begin(
        self,
        wish: Wish,
        *,
        wait_s: float = 0.0,
        accept: Callable[[Plan, Survey], object] = lambda _plan, _seen: None,
    ) -> Result:
        """
        Plan and do a rollout.

        accept: told the plan before the first event, under the lease; what it raises ends the rollout.

        Raises:
            LeaseHeld: another rollout holds the lease after wait_s seconds.
            PreflightError: the plan has a reason not to begin, or an earlier rollout is still open.
            ConfigError: see `plan`.
        """
        rollout = _new_id()
        record = self._recorder(rollout)
        with self._lease(rollout, record.patience, wait_s) as keeper:
            record.right = keeper
            if wish.verb not in {"drain", "restore"}:
                self._refuse_if_open()
            plan, seen, found = self.plan(wish)
            accept(plan, seen)
            if found:
                raise PreflightError(_lines(found), hint=_hint(seen))
            others = self.cluster.names if wish.everywhere else ()
            targets = dict.fromkeys(others) | {name: job.target for name, job in plan.jobs.items()}
            hosts, told = self._take_over(rollout, wish.verb, targets, keeper.lease, steal=wish.steal)
            _announce(record, self.cluster, plan, wish, keeper.lease)
            # Known only once it has a beginning: one without would be open for ever, and could not be read.
            self._wired.store.register(self.cluster.app, rollout)
            _tell_takeover(record, told)
            flags = wish.steal or wish.verb == "restore"
            return self._roll(rollout, plan, seen, record, keeper, hosts, steal=flags)

    def resume(self, rollout: str | None = None, *, back: bool = False, steal: bool = False) -> Result:
        """
        Go on with an open rollout (the latest, when none is named), or take it back.

        What the controller of before still does on a node is waited for, and it can begin nothing more there,
        before the cluster is looked at. steal: also where a controller with a higher token has been.

        Raises: ConfigError when there is none; LeaseHeld while its controller lives; PreflightError when a
        balancer or node cannot be reached.
        """
        state = self._open_one(rollout)
        record = self._recorder(state.id)
        with self._lease(state.id, record.patience) as keeper:
            record.right = keeper
            try:
                hosts, told = self._take_over(state.id, state.verb, state.targets, keeper.lease, steal=steal)
            except PreflightError as error:
                error.left = f"rollout {state.id} stays as it was"
                raise
            seen = look_around(self._wired)
            if found := self._unreachable(seen, state.order):
                raise PreflightError(_lines(found), left=f"rollout {state.id} stays as it was")
            plan = again(self.cluster, state, find_places(self.cluster, seen.tables))
            holder = str(keeper.lease.holder)
            how = "taken back" if back else "resumed"
            record("rollout.resumed", f"{how} by {holder}", token=keeper.lease.token, holder=holder)
            if back and state.turned != ABORT:  # one that turned by itself ends as was asked now, too
                record("rollout.turned", ABORT, to="back", why=ABORT)
            _tell_takeover(record, told)
            return self._roll(state.id, plan, seen, record, keeper, hosts)

    def ask(self, what: str) -> str:
        """
        Ask the running rollout to `pause` or `abort`; it does so when its nodes in flight are done.

        Returns: its id. Raises: ConfigError when none is running.
        """
        store = self._wired.store
        lease = store.held(self.cluster.app)
        if lease is None:
            raise ConfigError(f"no rollout of {self.cluster.app} is running")
        by = str(me())
        store.append(
            lease.rollout, "rollout.asked", text=f"{by} asks to {what}", data={"ask": what, "by": by}
        )
        return lease.rollout

    def _unreachable(self, seen: Survey, names: Sequence[str]) -> list[str]:
        """What must be looked at and could not be; a balancer only where a node has no way without it."""
        needed = any(
            all(STRATEGIES[each].leaves for each in node.strategy)
            for node in self.cluster.nodes
            if node.name in names
        )
        return unreachable(seen, balancers=needed)

    # -------------------------------------------------------- the past

    def _ran_before(self, name: str, release: str) -> str | None:
        store = self._wired.store
        for rollout in store.rollouts(self.cluster.app, limit=20):
            state = state_of(store, rollout)
            # A rollback's "before" is what was rolled back from: a second rollback must not go there again.
            if state.ended == "done" and state.verb != "rollback" and state.targets.get(name) == release:
                before = state.previous.get(name)
                if before != release:
                    return before
        return None

    def _not_ours(self, plan: Plan, seen: Survey) -> list[str]:
        """A flag that an open rollout set is taken away by that rollout, not behind its back."""
        store, found = self._wired.store, []
        for name in plan.order:
            disk = seen.nodes[name].disk
            owner = holder((disk and disk.flag) or "")
            if owner and store.events(owner) and state_of(store, owner).open:
                found.append(f"{name} is out for rollout {owner}, which is not finished: resume or abort it")
        return found

    def _open_one(self, rollout: str | None) -> RolloutState:
        store = self._wired.store
        state = state_of(store, rollout) if rollout else open_rollout(store, self.cluster.app)
        if state is None:
            raise ConfigError(
                f"no rollout of {self.cluster.app} is unfinished: there is nothing to go on with"
            )
        if not state.open:
            raise ConfigError(f"rollout {state.id} ended {state.ended}: there is nothing to go on with")
        return state

    def _refuse_if_open(self) -> None:
        state = open_rollout(self._wired.store, self.cluster.app)
        if state is None:
            return
        where = "\n  ".join(ending.lines(state))
        why = state.ended or "its controller died"
        raise PreflightError(
            f"rollout {state.id} ({state.verb}) was not finished: {why}\n  {where}",
            hint=f"`drainctl resume {state.id}` goes on with it, `drainctl abort {state.id}` ends it",
        )

    # -------------------------------------------------------- one rollout

    def _recorder(self, rollout: str) -> Recorder:
        patience_s = self.cluster.rollout.patience_s
        return Recorder(self._wired.store, rollout, self._listeners, patience_s, lambda: self._stop.at_once)

    @contextmanager
    def _lease(self, rollout: str, patience: Patience, wait_s: float = 0.0) -> Iterator[Keeper]:
        """The lease, kept until the block ends. Raises: LeaseHeld after wait_s seconds."""
        store, holder = self._wired.store, me()
        turn = Turn(wait_s, self._say)
        while True:
            try:
                lease = store.acquire(self.cluster.app, rollout, holder, LEASE_S)
                break
            except LeaseHeld:
                if not turn.left_s or self._stop.asked:
                    raise
            turn.held_by(store.held(self.cluster.app))
            time.sleep(min(0.5, turn.left_s))
        keeper = Keeper(store, lease, LEASE_S, patience)
        try:
            yield keeper
        finally:
            keeper.close()

    def _roll(
        self,
        rollout: str,
        plan: Plan,
        seen: Survey,
        record: Recorder,
        keeper: Keeper,
        hosts: Hosts,
        *,
        steal: bool = False,
    ) -> Result:
        """
        The rollout itself; however it ends, that is written, proven where it can be, and told.

        Raises: JournalError and LeaseLost: then nothing may be written any more, and `resume` goes on.
        """
        began = time.monotonic()
        world = self._world(rollout, plan, record, keeper, hosts, steal=steal)
        self._wired.fleet.keep(EVERY_S)
        try:
            outcome = Roll(world, plan, self.cluster.rollout.on_failure).run()
        except (JournalError, LeaseLost) as error:
            error.left = f"rollout {rollout} stays open: nodes in flight are as they were left"
            if "drainctl" not in (error.hint or ""):
                goes_on = "`drainctl status` shows where each node is, `drainctl resume` goes on"
                error.hint = f"{error.hint}\n{goes_on}" if error.hint else goes_on
            raise
        except Interrupted as error:
            outcome = Outcome("interrupted", Exit.INTERRUPTED, str(error))
        except DrainctlError as error:
            outcome = Outcome("halted", Exit.HALTED, str(error))  # whatever its own code: nodes were touched
        finally:
            self._wired.fleet.keep(None)
        seconds = time.monotonic() - began
        shown = proof(seen.tables, self._wired.fleet.overview(), plan.places, seconds)
        record("proof", _proof_text(shown), **shown)
        state = state_of(record.store, rollout)._replace(ended=outcome.outcome)
        lines = [as_called(line, self.cluster.file) for line in ending.lines(state)]
        record(
            "rollout.ended",
            f"{outcome.outcome}: {outcome.why}",
            outcome=outcome.outcome,
            exit=int(outcome.exit),
            why=outcome.why,
            lines=lines,
            took_s=round(seconds, 3),
        )
        return Result(rollout, outcome.outcome, outcome.exit, outcome.why, lines, shown, seconds)

    def _take_over(
        self,
        rollout: str,
        verb: str,
        targets: Mapping[str, str | None],
        lease: Lease,
        *,
        steal: bool,
    ) -> tuple[Hosts, Mapping[str, str]]:
        """The nodes of `targets`, closed to controllers of lower tokens; see rollout.takeover."""
        by = Fence(lease.token, rollout, verb, None, str(lease.holder), _now(), steal)
        hosts = {name: self._wired.hosts[name] for name in targets if name in self._wired.hosts}
        return fenced(hosts, by, targets, self.cluster.service.limit_s)

    def _world(
        self,
        rollout: str,
        plan: Plan,
        record: Recorder,
        keeper: Keeper,
        hosts: Hosts,
        *,
        steal: bool,
    ) -> World:
        wired = self._wired
        perform = Performer(
            self.cluster,
            wired.fleet,
            hosts,
            wired.http,
            plan.places,
            wired.machines,
            rollout=rollout,
            release=plan.release,
            flag_text=lambda: _flag_text(rollout, plan.verb, keeper.lease),
            steal=steal,
        )

        def note(node: Node, text: str) -> None:
            record.note(text, node=node.name, what="balancer-changed")

        def nudge(node: Node, balancer: str) -> str:
            if keeper.ours:
                return perform.nudge_out(node, balancer)
            return "left so: the lease has run out, and the store is away"  # it may be another's by now

        keep_out = KeepOut(plan.places, nudge=nudge, tell=note)
        wired.fleet.on_look(keep_out.look)
        return World(
            cluster=self.cluster,
            rollout=rollout,
            places=plan.places,
            observer=Observer(
                self.cluster, wired.fleet, wired.hosts, wired.http, plan.places, wired.machines
            ),
            perform=perform,
            store=record.store,
            right=keeper,
            keep_out=keep_out,
            record=record,
            stop=self._stop,
        )


# ---------------------------------------------------------------- words


def _announce(record: Recorder, cluster: Cluster, plan: Plan, wish: Wish, lease: Lease) -> None:
    what = f"{plan.verb} {plan.release.id if plan.release else wish.line or ''}".strip()
    record(
        "rollout.began",
        f"{what}: {len(plan.order)} nodes in {len(plan.waves)} waves",
        verb=plan.verb,
        cluster=cluster.app,
        release=plan.release._asdict() if plan.release else None,
        line=wish.line,
        targets={name: job.target for name, job in plan.jobs.items()},
        previous=dict(plan.previous),
        waves=[list(wave) for wave in plan.waves],
        strategy={name: way.strategy for name, way in plan.ways.items()},
        live={name: dict(live) for name, live in plan.live.items()},
        on_failure=cluster.rollout.on_failure,
        token=lease.token,
        holder=str(lease.holder),
    )


def _hint(seen: Survey) -> str:
    """What helps with what could not be looked at, else where to look."""
    hints = [look.hint for look in seen.tables.values() if look.error and look.hint]
    hints += [seen.hints[name] for name in seen.errors if name in seen.hints]
    return "\n".join(dict.fromkeys(hints)) or "`drainctl status` shows every node"


def _flag_text(rollout: str, verb: str, lease: Lease) -> str:
    """What stands in the flag file: one line of JSON, for people and for other controllers."""
    told = {"rollout": rollout, "token": lease.token, "by": str(lease.holder), "at": _now(), "verb": verb}
    return json.dumps(told) + "\n"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _tell_takeover(record: Recorder, told: Mapping[str, str]) -> None:
    """A token that was stolen, and a node that keeps none, are on record."""
    for name, how in told.items():
        record("note", f"fence {how}", node=name, what="fence")


def _new_id() -> str:
    """Sorts by time, and two controllers that start in the same second differ."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(2).hex()}"


def _lines(found: Sequence[str]) -> str:
    return "\n".join(dict.fromkeys(found))


def _proof_text(shown: Mapping[str, Any]) -> str:
    if shown["inconclusive"]:
        return "inconclusive: " + "; ".join(shown["inconclusive"])
    return f"{shown['failed']} failed of {shown['requests']} requests by the balancers' own counters"
