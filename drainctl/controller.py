"""
The verbs, for the command line and for Python callers: survey, plan, take the lease, roll, prove, tell.

    with Wired(load("drainctl.yml")) as wired:
        result = Controller(wired).deploy(prepare("shop-1.4.2.tar.gz", ...))
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from drainctl.errors import (
    ConfigError,
    DrainctlError,
    Exit,
    Interrupted,
    LeaseHeld,
    PreflightError,
)
from drainctl.journal.door import Holder, Lease
from drainctl.journal.lease import Keeper, me
from drainctl.journal.replay import RolloutState, replay
from drainctl.model import Cluster, Node, NodeLook, Place, Release
from drainctl.report.door import Listener
from drainctl.rollout import ending
from drainctl.rollout.keep_out import EVERY_S, KeepOut
from drainctl.rollout.observe import Observer, survey
from drainctl.rollout.perform import Performer
from drainctl.rollout.plan import Plan, Survey, find_places, refusals, waves
from drainctl.rollout.proof import proof
from drainctl.rollout.roll import Outcome, Roll
from drainctl.rollout.world import Recorder, Stop, World
from drainctl.steps import Job
from drainctl.wire import Wired

LEASE_S = 15.0


@dataclass(frozen=True, slots=True)
class Result:
    """
    How a rollout ended.

    outcome: done, put-back, halted, paused or interrupted. lines: where every node is, and each way out.
    proof: the data of the proof event, or None where none could be made.
    """

    rollout: str
    outcome: str
    exit: Exit
    why: str
    lines: Sequence[str]
    proof: Mapping[str, Any] | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Status:
    """Every node at every balancer, what its disk says, who holds the lease, and the latest rollout."""

    cluster: Cluster
    survey: Survey
    places: Mapping[str, tuple[Place, ...]]
    lease: Lease | None
    rollout: RolloutState | None
    notes: Sequence[str] = field(default_factory=tuple)


class Controller:
    """
    Changes one cluster, one rollout at a time.

    Args:
        wired: its adapters; the caller closes them.
        listeners: told of every event (drainctl.report).
        stop: asked by signal handlers to end early.
        steal: take away flags that somebody else set.
    """

    def __init__(
        self,
        wired: Wired,
        listeners: Sequence[Listener] = (),
        stop: Stop | None = None,
        *,
        steal: bool = False,
    ) -> None:
        self._wired = wired
        self._cluster = wired.cluster
        self._listeners = tuple(listeners)
        self._stop = stop or Stop()
        self._steal = steal

    @property
    def cluster(self) -> Cluster:
        return self._cluster

    # -------------------------------------------------------- looking

    def survey(self) -> Survey:
        """What is seen now of every balancer and node; faults are part of it."""
        return survey(self._cluster, self._wired.fleet, self._wired.hosts, self._wired.http)

    def status(self) -> Status:
        """Everything that `drainctl status` shows. Touches nothing."""
        seen = self.survey()
        notes: list[str] = []
        try:
            places = find_places(self._cluster, seen.tables)
        except ConfigError as error:
            places, notes = {node.name: () for node in self._cluster.nodes}, str(error).splitlines()
        store = self._wired.store
        latest = store.latest(self._cluster.app)
        state = self.state(latest) if latest else None
        return Status(self._cluster, seen, places, store.held(self._cluster.app), state, tuple(notes))

    def state(self, rollout: str) -> RolloutState:
        """One rollout by its journal. Raises: ConfigError when the journal has none of that id."""
        events = self._wired.store.events(rollout)
        if not events:
            raise ConfigError(
                f"no rollout {rollout!r} in {self._cluster.store}", hint="`drainctl history` lists them"
            )
        return replay(rollout, events)

    def plan(
        self,
        verb: str,
        *,
        release: Release | None = None,
        line: str | None = None,
        to: str | None = None,
        only: Sequence[str] = (),
    ) -> tuple[Plan, Survey, list[str]]:
        """
        What a rollout would do, what it is based on, and every reason not to begin (none: it may).

        Raises: ConfigError for unknown nodes, servers, backends, or a release that no node has.
        """
        names = self._names(only)
        seen = self.survey()
        seen = replace(seen, errors={name: why for name, why in seen.errors.items() if name in names})
        if any(look.error for look in seen.tables.values()) or seen.errors:
            empty = Plan(verb, (), {}, {}, {}, release)
            return empty, seen, refusals(self._cluster, empty, seen)
        places = find_places(self._cluster, seen.tables)
        disks = {name: seen.nodes[name].disk for name in names}
        previous = {name: disk.current if disk else None for name, disk in disks.items()}
        jobs = {name: self._job(verb, name, seen, release=release, line=line, to=to) for name in names}
        plan = Plan(verb, waves(self._cluster, names), jobs, places, previous, release)
        if verb == "restore":
            return plan, seen, self._restore_refusals(plan, seen)
        return plan, seen, refusals(self._cluster, plan, seen)

    def _restore_refusals(self, plan: Plan, seen: Survey) -> list[str]:
        """A flag that an open rollout set is taken away by that rollout, not behind its back."""
        found = []
        for name in plan.order:
            owner = flag_owner(seen.nodes[name])
            open_one = owner and self._wired.store.events(owner) and self.state(owner).open
            if open_one and not self._steal:
                found.append(f"{name} is out for rollout {owner}, which is not finished: resume or abort it")
        return found

    def _names(self, only: Sequence[str]) -> list[str]:
        unknown = [name for name in only if name not in self._cluster.names]
        if unknown:
            there = ", ".join(self._cluster.names)
            raise ConfigError(f"no node {', '.join(unknown)} in {self._cluster.file}; it has: {there}")
        return [name for name in self._cluster.names if not only or name in only]

    def _job(
        self, verb: str, name: str, seen: Survey, *, release: Release | None, line: str | None, to: str | None
    ) -> Job:
        match verb:
            case "deploy":
                return Job("deploy", release.id if release else None, line)
            case "rollback":
                return Job("rollback", self._rollback_target(name, seen, to))
            case "run":
                return Job("run", None, line)
            case "drain" | "restore" | "restart":
                return Job(verb)
        raise ValueError(verb)

    def _rollback_target(self, name: str, seen: Survey, to: str | None) -> str:
        """`to`, or what the node ran before its current release: by the journal, else by its disk."""
        disk = seen.nodes[name].disk
        releases = disk.releases if disk else ()
        current = disk.current if disk else None
        target = to or self._before(name, current) or _older(releases, current)
        if target is None or target not in releases:
            there = ", ".join(releases) or "none"
            asked = f"no release {target!r}" if target else "no release before the current one"
            raise ConfigError(f"{name} has {asked} (current: {current}); it has: {there}")
        return target

    def _before(self, name: str, current: str | None) -> str | None:
        for rollout in self._wired.store.rollouts(self._cluster.app, limit=20):
            state = self.state(rollout)
            if state.ended == "done" and current is not None and state.targets.get(name) == current:
                return state.previous.get(name)
        return None

    # -------------------------------------------------------- changing

    def begin(
        self,
        verb: str,
        *,
        release: Release | None = None,
        line: str | None = None,
        to: str | None = None,
        only: Sequence[str] = (),
        wait_s: float = 0.0,
    ) -> Result:
        """
        Plan and do a rollout: deploy, rollback, restart, run, drain or restore.

        Raises:
            LeaseHeld: another rollout holds the lease after wait_s seconds.
            PreflightError: the plan has a reason not to begin, or an earlier rollout is still open.
            ConfigError: see `plan`.
        """
        rollout = _new_id()
        lease = self._acquire(rollout, wait_s)
        keeper = Keeper(self._wired.store, lease, LEASE_S)
        try:
            if verb not in {"drain", "restore"}:
                self._refuse_if_open()
            plan, seen, found = self.plan(verb, release=release, line=line, to=to, only=only)
            if found:
                raise PreflightError(_sentences(found), hint="`drainctl status` shows every node")
            self._wired.store.register(self._cluster.app, rollout)
            record = Recorder(self._wired.store, rollout, self._listeners)
            _announce(record, self._cluster, plan, line, keeper.lease)
            return self._roll(rollout, plan, seen, record, keeper)
        finally:
            keeper.close()

    def resume(self, rollout: str | None = None, *, back: bool = False) -> Result:
        """
        Go on with an open rollout (the latest, when none is named), or take it back.

        Raises: ConfigError when there is none; LeaseHeld while its controller lives; PreflightError when a
        balancer or node cannot be reached.
        """
        state = self._open_one(rollout)
        lease = self._acquire(state.id, 0.0)
        keeper = Keeper(self._wired.store, lease, LEASE_S)
        try:
            seen = self.survey()
            found = refusals(self._cluster, Plan(state.verb, (), {}, {}, {}), seen)
            if found:
                raise PreflightError(_sentences(found), left=f"rollout {state.id} stays as it was")
            plan = self._plan_of(state, find_places(self._cluster, seen.tables))
            record = Recorder(self._wired.store, state.id, self._listeners)
            holder = str(keeper.lease.holder)
            how = "taken back" if back else "resumed"
            record("rollout.resumed", f"{how} by {holder}", token=keeper.lease.token, holder=holder)
            if back and not state.turned:
                record("rollout.turned", "abort was asked", to="back", why="abort was asked")
            return self._roll(state.id, plan, seen, record, keeper)
        finally:
            keeper.close()

    def ask(self, what: str) -> str:
        """
        Ask the running rollout to `pause` or `abort`; it does so when its nodes in flight are done.

        Returns: its id. Raises: ConfigError when none is running.
        """
        lease = self._wired.store.held(self._cluster.app)
        if lease is None:
            raise ConfigError(f"no rollout of {self._cluster.app} is running")
        by = str(me())
        self._wired.store.append(
            lease.rollout, "rollout.asked", text=f"{by} asks to {what}", data={"ask": what, "by": by}
        )
        return lease.rollout

    def _open_one(self, rollout: str | None) -> RolloutState:
        found = rollout or self._wired.store.latest(self._cluster.app)
        if found is None:
            raise ConfigError(f"there is no rollout of {self._cluster.app} yet")
        state = self.state(found)
        if not state.open:
            raise ConfigError(f"rollout {found} ended {state.ended}: there is nothing to go on with")
        return state

    def _acquire(self, rollout: str, wait_s: float) -> Lease:
        deadline = time.monotonic() + wait_s
        holder: Holder = me()
        while True:
            try:
                return self._wired.store.acquire(self._cluster.app, rollout, holder, LEASE_S)
            except LeaseHeld:
                if time.monotonic() >= deadline or self._stop.asked:
                    raise
            time.sleep(min(0.5, max(0.0, deadline - time.monotonic())))

    def _refuse_if_open(self) -> None:
        latest = self._wired.store.latest(self._cluster.app)
        if latest is None:
            return
        state = self.state(latest)
        if state.open:
            where = "\n  ".join(ending.lines(state))
            why = state.ended or "its controller died"
            raise PreflightError(
                f"rollout {state.id} ({state.verb}) was not finished: {why}\n  {where}",
                hint=f"`drainctl resume {state.id}` goes on with it, `drainctl abort {state.id}` ends it",
            )

    def _plan_of(self, state: RolloutState, places: Mapping[str, tuple[Place, ...]]) -> Plan:
        gone = [name for name in state.order if name not in self._cluster.names]
        if gone:
            raise ConfigError(
                f"{self._cluster.file} has no node {', '.join(gone)}, but rollout {state.id} has"
            )
        verb: Any = state.verb
        jobs = {name: Job(verb, state.targets.get(name), state.line) for name in state.order}
        return Plan(state.verb, state.waves, jobs, places, state.previous, state.release)

    def _roll(self, rollout: str, plan: Plan, seen: Survey, record: Recorder, keeper: Keeper) -> Result:
        """The rollout itself; however it ends, that is written, proven where it can be, and told."""
        began = time.monotonic()
        world = self._world(rollout, plan, record, keeper)
        self._wired.fleet.keep(EVERY_S)
        try:
            outcome = Roll(world, plan, self._cluster.rollout.on_failure).run()
        except Interrupted as error:
            outcome = Outcome("interrupted", Exit.INTERRUPTED, str(error))
        except DrainctlError as error:
            outcome = Outcome("halted", error.exit, str(error))
        finally:
            self._wired.fleet.keep(None)
        seconds = time.monotonic() - began
        shown = proof(seen.tables, self._wired.fleet.overview(), plan.places, seconds)
        record("proof", _proof_text(shown), **shown)
        lines = ending.lines(replace(self.state(rollout), ended=outcome.outcome))
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

    def _world(self, rollout: str, plan: Plan, record: Recorder, keeper: Keeper) -> World:
        wired = self._wired

        def flag_text() -> str:
            return _flag_text(rollout, plan.verb, keeper.lease)

        perform = Performer(
            self._cluster,
            wired.fleet,
            wired.hosts,
            wired.http,
            plan.places,
            rollout=rollout,
            release=plan.release,
            flag_text=flag_text,
            steal=self._steal or plan.verb == "restore",
        )

        def note(node: Node, text: str) -> None:
            record("note", text, node=node.name, what="balancer-changed")

        keep_out = KeepOut(plan.places, nudge=perform.nudge_out, tell=note)
        wired.fleet.on_look(keep_out.look)
        return World(
            cluster=self._cluster,
            rollout=rollout,
            places=plan.places,
            observer=Observer(self._cluster, wired.fleet, wired.hosts, wired.http, plan.places),
            perform=perform,
            store=wired.store,
            right=keeper,
            keep_out=keep_out,
            record=record,
            stop=self._stop,
        )


# ---------------------------------------------------------------- words


def _announce(record: Recorder, cluster: Cluster, plan: Plan, line: str | None, lease: Lease) -> None:
    release = plan.release
    what = release.id if release else line or ""
    record(
        "rollout.began",
        f"{plan.verb} {what}: {len(plan.order)} nodes in {len(plan.waves)} waves".replace(" :", ":"),
        verb=plan.verb,
        cluster=cluster.app,
        release=None
        if release is None
        else {
            "id": release.id,
            "archive": release.archive,
            "sha256": release.sha256,
            "url": release.url,
            "size": release.size,
        },
        line=line,
        targets={name: job.target for name, job in plan.jobs.items()},
        previous=dict(plan.previous),
        waves=[list(wave) for wave in plan.waves],
        strategy=dict.fromkeys(plan.order, "http-check"),
        on_failure=cluster.rollout.on_failure,
        token=lease.token,
        holder=str(lease.holder),
    )


def _flag_text(rollout: str, verb: str, lease: Lease) -> str:
    """What stands in the flag file: one line of JSON, for people and for other controllers."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    told = {"rollout": rollout, "token": lease.token, "by": str(lease.holder), "at": at, "verb": verb}
    return json.dumps(told) + "\n"


def flag_owner(look: NodeLook) -> str | None:
    """The id of the rollout that set a node's flag; None without a flag, or for one that is not ours."""
    text = look.disk.flag if look.disk else None
    try:
        told = json.loads((text or "").partition("\n")[0])
    except ValueError:
        return None
    return str(told["rollout"]) if isinstance(told, dict) and "rollout" in told else None


def _new_id() -> str:
    """Sorts by time, and two controllers that start in the same second differ."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.urandom(2).hex()}"


def _older(releases: Sequence[str], current: str | None) -> str | None:
    """The release that was installed before `current`; releases are in order of installation."""
    if current is None or current not in releases:
        return None
    at = list(releases).index(current)
    return releases[at - 1] if at else None


def _sentences(found: Sequence[str]) -> str:
    return "\n".join(dict.fromkeys(found))


def _proof_text(shown: Mapping[str, Any]) -> str:
    if shown["inconclusive"]:
        return "inconclusive: " + "; ".join(shown["inconclusive"])
    return f"{shown['failed']} failed of {shown['requests']} requests by the balancers' own counters"
