"""
A cluster in memory on which a schedule of mishaps falls, and the invariants that hold in any of them.

A schedule is a list of (moment, mishap, number). Moments are counted: each act has one before and one after
it; each look at the balancers, each event that is written and each wait has one. The number says how long, or
where.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from world_kit import Crash, FakeCluster, Journal, cluster

from drainctl.errors import ConnectFailed, LeaseLost
from drainctl.journal.events import Event
from drainctl.model import (
    Amount,
    BalancerLook,
    Checks,
    DrainPolicy,
    Node,
    Process,
    RolloutPolicy,
    Service,
    WarmUp,
    WatchPolicy,
    Word,
)
from drainctl.rollout import roll
from drainctl.rollout.keep_out import KeepOut
from drainctl.rollout.plan import Plan
from drainctl.rollout.roll import Outcome, Roll
from drainctl.rollout.world import Recorder, Stop, World
from drainctl.steps import Look, RunOnNode, SetFlag

# What may happen, and at which moments.
ACTING = ("crash", "lost reply", "lost command", "slow act")
AT_ANY = ("crash", "reload", "unreadable", "outage", "busy", "pause", "second")
MISHAPS = tuple(dict.fromkeys((*ACTING, *AT_ANY)))
LEASE_S = 1.5  # most mishaps that stop a controller are shorter, some are longer
INTER_S = 0.2
Mishap = tuple[int, str, int]


def small(nodes: int, balancers: int, at_once: int, **changes: Any) -> Any:
    """A cluster whose limits are short, so that a schedule is played in a few milliseconds."""
    policy = {"keep_up": Amount(1), "at_once": Amount(at_once), "patience_s": 1.0}
    return cluster(
        nodes,
        balancers,
        service=Service(restart="restart", limit_s=0.3),
        warm=(WarmUp("/", 1),),
        rollout=RolloutPolicy(**(policy | changes)),
        drain=DrainPolicy(limit_s=0.6),
        checks=Checks(inter_s=INTER_S),
        watch=WatchPolicy(for_s=0.2),
    )


class Turns:
    """Threads of which one runs at a time; who goes on at a wait is drawn, so a schedule can be repeated."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._waiting: dict[int, threading.Semaphore] = {}

    def in_parallel(self, tasks: Sequence[Callable[[], object]], at_once: int = 32) -> None:
        """As drainctl.threads.in_parallel; where nobody waits (staging, pruning), one by one is as good."""
        failures: dict[int, BaseException] = {}
        names = {task.func.__name__ for task in tasks if isinstance(task, partial)}
        if len(tasks) == 1 or at_once == roll.STAGE_AT_ONCE or names == {"_prune"}:
            for task in tasks:
                task()
            return
        done = threading.Semaphore(0)
        outer, self._waiting = self._waiting, {at: threading.Semaphore(0) for at in range(len(tasks))}
        turns = self._waiting

        def run(at: int) -> None:
            turns[at].acquire()
            try:
                tasks[at]()
            except BaseException as error:  # noqa: BLE001 - told to the caller below
                failures[at] = error
            del turns[at]
            if turns:
                self._next(turns).release()
            else:
                done.release()

        threads = [threading.Thread(target=run, args=(at,), name=f"turn-{at}") for at in range(len(tasks))]
        for thread in threads:
            thread.start()
        self._next(turns).release()
        done.acquire()
        for thread in threads:
            thread.join()
        self._waiting = outer
        if failures:
            raise failures[min(failures)]

    def switch(self) -> None:
        """A wait: somebody else's turn, perhaps."""
        name = threading.current_thread().name
        if len(self._waiting) < 2 or not name.startswith("turn-"):
            return
        mine = self._waiting[int(name.removeprefix("turn-"))]
        other = self._next(self._waiting)
        if other is not mine:
            other.release()
            mine.acquire()

    def _next(self, turns: Mapping[int, threading.Semaphore]) -> threading.Semaphore:
        return turns[self._chance.choice(sorted(turns))]


@dataclass
class Life:
    """One controller, and its lease."""

    world: Storm
    token: int
    dead: bool = False
    lost: str | None = None
    lease: None = None
    about_to_act: bool = False

    def lose(self, why: str) -> None:
        self.lost = why

    def check(self, need_s: float) -> None:
        """Renewed where nobody took it; a lease that somebody took is lost."""
        if need_s:
            self.world.moment("check", self)
            self.about_to_act = True  # what stops a controller from here to its act is beyond any lease
        if self.world.token != self.token:
            self.lost = "taken over"
            raise LeaseLost(self.lost)
        self.world.lease_until = self.world.now + LEASE_S


@dataclass
class Storm(FakeCluster):
    """FakeCluster with mishaps; `wrong` collects every broken invariant."""

    schedule: tuple[Mishap, ...] = ()
    seed: int = 0
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.left: dict[int, list[tuple[str, int]]] = {}
        for at, mishap, number in self.schedule:
            self.left.setdefault(at, []).append((mishap, number))
        self.moments = 0
        self.turns = Turns(random.Random(self.seed))  # noqa: S311 - an order, not a secret
        self.token = 0
        self.lease_until = 0.0
        self.acted_by = 0
        self.next_check = dict.fromkeys(self.words, INTER_S)
        self.next_due = INTER_S
        self.unseen: set[str] = set()  # nodes that were acted on since the last look
        self.pids = {balancer.name: 1 for balancer in self.cluster.balancers}
        self.unreadable: dict[str, float] = {}
        self.down: dict[str, float] = {}
        self.seen: Mapping[str, BalancerLook] = {}
        self.keep_out = self._keeper()
        self.plans: Plan = self.plan()
        self.calm = True  # until the first life begins
        self.life = Life(self, 0)
        self.second_ended: Outcome | None = None

    # ------------------------------------------------ mishaps

    def moment(self, what: str, life: Life | None = None) -> None:
        """Raises: Crash where the controller dies here, or is dead already."""
        life = life or self.life
        if life.dead:
            raise Crash(what)
        if self.calm:
            return
        for mishap, number in self.left.pop(self._count(), ()):
            if mishap in {"pause", "second"} and (life.about_to_act or what == "write"):
                continue  # between the look at the lease and what it is for: beyond any lease
            if mishap in (ACTING if what in {"before", "after"} else AT_ANY):
                self._happens(mishap, number, what, life)

    def begin(self, plan: Plan) -> None:
        """What happens at moment 0 was there before the rollout, long enough for every check to find it."""
        for mishap, number in self.left.pop(0, ()):
            if mishap in {"outage", "busy", "unreadable"}:
                self._happens(mishap, number, "before it", self.life)
        self._pass(INTER_S + 0.1)
        super().begin(plan)

    def _count(self) -> int:
        self.moments += 1
        return self.moments

    def _happens(self, mishap: str, number: int, what: str, life: Life) -> None:
        names, balancers = self.cluster.names, tuple(self.pids)
        match mishap:
            case "crash":
                life.dead = True
                raise Crash(what)
            case "lost reply" if what == "after":
                raise ConnectFailed("the connection was lost before the answer came")
            case "lost command" if what == "before":
                raise ConnectFailed("refused")
            case "slow act":
                self._pass(number * 0.2)
            case "reload":
                self._reload(balancers[number % len(balancers)])
            case "unreadable":
                self.unreadable[balancers[number % len(balancers)]] = self.now + number * 0.2
            case "outage":
                self.down[names[number % len(names)]] = self.now + number * 0.2
            case "busy":
                self.nodes[names[number % len(names)]].busy_until = self.now + number * 0.2
            case "pause":
                self._pass(number * 0.5)
            case "second":
                self._pass(number * 0.5)
                self._second(number)

    def _pass(self, seconds: float) -> None:
        """Time goes by while the controller is stopped or waits for an act."""
        end = self.now + seconds
        while self.now < end:
            FakeCluster.sleep(self, min(0.2, end - self.now))

    def _reload(self, balancer: str) -> None:
        """A new process believes that all are up until its first check."""
        self.pids[balancer] += 1
        for key in self.words:
            if key[0] == balancer:
                self.words[key] = Word.UP
                self.counted[key] = [0, 0]
                self.next_check[key] = self.now + INTER_S
        self.next_due = min(self.next_check.values())

    def _second(self, number: int) -> None:
        """Another controller wants the rollout: it gets it only when the lease has run out."""
        if self.now < self.lease_until or self.second_ended is not None or self.life.token < self.token:
            return
        turns, self.turns = self.turns, Turns(random.Random(self.seed + 1))  # noqa: S311
        mine = self.life
        try:
            self.second_ended = self.go_on(back=number % 2 == 1, calm=True)
        finally:
            self.turns, self.life = turns, mine

    def _found(self, node: Any) -> Word:
        if self.down.get(node.name, 0.0) > self.now:
            return Word.DOWN
        return super()._found(node)

    # ------------------------------------------------ what is seen and done

    def sleep(self, seconds: float) -> None:
        self.moment("wait")
        super().sleep(seconds)
        if self.life.token == self.token and self.now < self.lease_until:
            self.lease_until = self.now + LEASE_S  # as the keeper's thread does meanwhile
        self.turns.switch()

    def balancers(self, looks: frozenset[Look]) -> Mapping[str, BalancerLook]:
        self.moment("look")
        found = dict(super().balancers(looks))
        for name, look in found.items():
            if self.unreadable.get(name, 0.0) > self.now:
                found[name] = BalancerLook(name, self.now, error="no answer")
            else:
                found[name] = look._replace(process=Process(self.pids[name], 0, 1))
                self.keep_out.look(found[name])
        self.seen = found
        self.unseen.clear()
        return found

    def perform(self, node: Node, act: Any) -> str:
        life = self.life
        self.moment("before")
        life.about_to_act = False
        self._judge(node.name, act, life)
        self.acts.append(f"{node.name} {type(act).__name__}")
        self._do(self.nodes[node.name], act)
        self.unseen.add(node.name)
        self.moment("after")
        return "done"

    def append(self, rollout: str, kind: str, **rest: Any) -> Event:
        self.moment("write")
        self.life.about_to_act = False
        return super().append(rollout, kind, **rest)

    def _judge(self, name: str, act: Any, life: Life) -> None:
        """The invariants, at the moment of each act."""
        if self.acted_by > life.token:
            self.wrong.append(f"{name} {type(act).__name__} by {life.token}, after {self.acted_by} had acted")
        self.acted_by = max(self.acted_by, life.token)
        if isinstance(act, RunOnNode):
            self._judge_restart(name)
        elif isinstance(act, SetFlag):
            self._judge_leaving(name)

    def _judge_restart(self, name: str) -> None:
        if name in self.unseen:
            self.wrong.append(f"{name} restarted, and nobody looked since the act before")
        for look in self.seen.values():
            row = look.row("shop", name)
            if row is None:
                self.wrong.append(f"{name} restarted, although {look.balancer} could not be read")
            elif row.status.word is Word.UP or row.scur:
                self.wrong.append(f"{name} restarted, seen {row.status} with {row.scur} on {look.balancer}")

    def _judge_leaving(self, name: str) -> None:
        """Of a node that is in rotation nowhere, nothing is taken away."""
        gone = {other for other, at in self.nodes.items() if at.flag}
        for look in self.seen.values():
            shown = {row.server: row.status.word for row in look.rows}
            up = [other for other, word in shown.items() if word is Word.UP and other not in gone | {name}]
            if not up and shown.get(name) is Word.UP:
                self.wrong.append(f"{name} taken out, the last one up on {look.balancer}")

    def _restart(self, at: Any) -> None:
        at.running = None if at.current in self.breaks else at.current

    # ------------------------------------------------ lives

    def go_on(self, *, back: bool = False, calm: bool = False) -> Outcome | None:
        """One controller's life: beginning, resume or abort. None where it dies or loses the lease."""
        was, self.calm = self.calm, calm
        self.token += 1
        self.lease_until = self.now + LEASE_S
        self.life = Life(self, self.token)
        self.keep_out = self._keeper()
        try:
            if self.token > 1:
                self.resumed()
            if back and not self.state().turned:
                FakeCluster.append(self, "r1", "rollout.turned", data={"to": "back", "why": roll.ABORT})
            return Roll(self._world(self.life), self.plans, self.cluster.rollout.on_failure).run()
        except (Crash, LeaseLost):
            return None
        finally:
            self.calm = was

    def resumed(self) -> None:
        FakeCluster.append(self, "r1", "rollout.resumed", data={"holder": "me", "token": self.token})

    def _keeper(self) -> KeepOut:
        def nudge(node: Node, balancer: str) -> str:
            if self.admin and self.token == self.life.token:
                self.words[balancer, node.name] = Word.NOLB
            return "nudged"

        return KeepOut(self.places, nudge=nudge, tell=lambda *_: None)

    def _world(self, life: Life) -> World:
        store: Any = Journal(self)
        fake: Any = self
        record = Recorder(store, "r1", ())
        record.right = life
        return World(
            cluster=self.cluster,
            rollout="r1",
            places=self.places,
            observer=fake,
            perform=fake,
            store=store,
            right=life,
            keep_out=self.keep_out,
            record=record,
            stop=Stop(),
            clock=self.clock,
            sleep=self.sleep,
        )

    # ------------------------------------------------ what must be so between lives

    def derivable(self) -> list[str]:
        """What of the world the journal does not tell."""
        state, found = self.state(), []
        for name, at in self.nodes.items():
            told = state.nodes[name]
            if at.flag and not told.flagged:
                found.append(f"{name} has its flag, the journal does not know")
            if at.current != "v1" and not told.changed:
                found.append(f"{name} links to {at.current}, the journal does not know")
            if told.outcome == "done" and (at.current, at.flag) != ("v2", False):
                found.append(f"{name} is done by the journal, and links to {at.current}, flag {at.flag}")
            if told.outcome in {"restored", "put-back"} and (at.current, at.flag) != ("v1", False):
                found.append(f"{name} is {told.outcome} by the journal, and links to {at.current}")
        return found
