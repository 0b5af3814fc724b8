"""A cluster in memory only, with its own clock: for judging the rollout's decisions, not HAProxy."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from drainctl.errors import CommandFailed
from drainctl.journal.events import Event
from drainctl.journal.replay import RolloutState, replay
from drainctl.model import (
    Answer,
    Balancer,
    BalancerLook,
    Checks,
    Cluster,
    Connect,
    ContainerLook,
    Counters,
    Disk,
    DrainPolicy,
    FlagFile,
    Health,
    Node,
    NodeLook,
    Place,
    Process,
    Release,
    ReleaseLayout,
    RolloutPolicy,
    Said,
    ServerRow,
    Service,
    Status,
    WarmUp,
    WatchPolicy,
    Word,
)
from drainctl.rollout.keep_out import KeepOut
from drainctl.rollout.plan import Plan, Way, waves
from drainctl.rollout.roll import Outcome, Roll
from drainctl.rollout.world import Recorder, Stop, World
from drainctl.steps import (
    ClearFlag,
    Job,
    Look,
    Nudge,
    ReplaceContainer,
    RestartContainer,
    RunOnNode,
    SetFlag,
    SetState,
    ShutdownSessions,
    Stage,
    Switch,
    Warm,
)


class Crash(BaseException):
    """The controller dies here."""


def cluster(nodes: int = 4, balancers: int = 2, **changes: Any) -> Cluster:
    names = [f"web{at}" for at in range(1, nodes + 1)]
    values: dict[str, Any] = {
        "app": "shop",
        "file": "drainctl.yml",
        "balancers": tuple(Balancer(f"lb{at}", runtime=f"unix:/lb{at}") for at in range(1, balancers + 1)),
        "nodes": tuple(
            Node(name, f"10.0.0.{at}", name, ("http-check",)) for at, name in enumerate(names, 11)
        ),
        "connect": Connect("local"),
        "release": ReleaseLayout("/srv/shop"),
        "service": Service(restart="restart", limit_s=2.0),
        "health": Health("http://{host}/http-check", FlagFile("/drain"), version="http://{host}/version"),
        "store": "sqlite:///unused",
        "backends": ("shop",),
        "warm": (WarmUp("/", 2),),
        "rollout": RolloutPolicy(),
        "drain": DrainPolicy(limit_s=5.0),
        "checks": Checks(inter_s=1.0),
        "watch": WatchPolicy(for_s=1.0),
    }
    return Cluster(**(values | changes))


def row(server: str, status: str = "UP", **changes: Any) -> ServerRow:
    values: dict[str, Any] = {
        "backend": "shop",
        "server": server,
        "status": Status.parse(status),
        "check": "L7OK" if status.startswith("UP") else "L7OKC",
        "checking": False,
        "check_code": 200 if status.startswith("UP") else 404,
        "last_check": "",
        "weight": 1,
        "role": "active",
        "scur": 0,
        "qcur": 0,
        "counters": Counters(),
        "iid": 1,
        "sid": 1,
    }
    return ServerRow(**(values | changes))


PLAIN = {word: row("", word.value) for word in Word}


def look(*rows: ServerRow, balancer: str = "lb1", pid: int = 1, **changes: Any) -> BalancerLook:
    return BalancerLook(balancer, 0.0, Process(pid, 0, 1), tuple(rows), **changes)


@dataclass
class FakeNode:
    name: str
    current: str = "v1"
    running: str | None = "v1"
    flag: bool = False
    staged: set[str] = field(default_factory=lambda: {"v1"})
    busy_until: float = 0.0


@dataclass
class FakeCluster:
    """
    Nodes, balancers that check them each second, and users who send a request to an UP server each tick.

    breaks: releases that never answer after a restart. errors: releases whose pages answer 500.
    die: called before and after each act with its number; may raise Crash.
    """

    cluster: Cluster
    admin: bool = True
    breaks: frozenset[str] = frozenset()
    errors: frozenset[str] = frozenset()
    die: Callable[[str], None] = lambda _moment: None
    now: float = 0.0
    failed: int = 0
    broken: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.nodes = {name: FakeNode(name) for name in self.cluster.names}
        self.words = {(lb.name, name): Word.UP for lb in self.cluster.balancers for name in self.nodes}
        self.counted: dict[tuple[str, str], list[int]] = {key: [0, 0] for key in self.words}
        self.next_check = dict.fromkeys(self.words, 1.0)
        self.next_due = 1.0
        self.places = {
            name: tuple(Place(lb.name, "shop", name) for lb in self.cluster.balancers) for name in self.nodes
        }
        self.events: list[Event] = []
        self.lock = threading.RLock()
        self.acts: list[str] = []
        self.rows: dict[tuple[str, str], tuple[object, ServerRow]] = {}
        self.lowest_up = len(self.nodes)

    # ------------------------------------------------ time

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        with self.lock:
            self.now += seconds
            if self.now >= self.next_due:
                self._check()
            self._users()

    def _check(self) -> None:
        for key, due in self.next_check.items():
            if self.now >= due:
                self.next_check[key] = self.now + self.cluster.checks.inter_s
                self.words[key] = self._found(self.nodes[key[1]])
        self.next_due = min(self.next_check.values())

    def _found(self, node: FakeNode) -> Word:
        if node.running is None:
            return Word.DOWN
        return Word.NOLB if node.flag else Word.UP

    def _users(self) -> None:
        bad = {name: at.running is None or at.running in self.errors for name, at in self.nodes.items()}
        for key, word in self.words.items():
            if word is Word.UP:
                self.failed += bad[key[1]]
                self.counted[key][bad[key[1]]] += 1

    # ------------------------------------------------ what the observer asks

    def follow(self, node: Node, peers: bool = False) -> None: ...

    def leave(self, node: Node) -> None: ...

    def balancers(self, looks: frozenset[Look]) -> Mapping[str, BalancerLook]:
        del looks
        with self.lock:
            found = {}
            for balancer in self.cluster.balancers:
                rows = [self._row(balancer.name, name) for name in self.nodes]
                found[balancer.name] = look(*rows, balancer=balancer.name, can_change=self.admin)
                up = sum(shown.status.word is Word.UP for shown in rows)
                self.lowest_up = min(self.lowest_up, up)
            return found

    def _row(self, balancer: str, name: str) -> ServerRow:
        """The same row as long as nothing has changed in it: most looks see nothing new."""
        word = self.words[balancer, name]
        good, bad = self.counted[balancer, name]
        busy = int(self.now < self.nodes[name].busy_until)
        key, known = (word, good, bad, busy), self.rows.get((balancer, name))
        if known is None or known[0] != key:
            counters = Counters(good + bad, 0, good, 0, 0, bad)
            known = (key, PLAIN[word]._replace(server=name, counters=counters, scur=busy))
            self.rows[balancer, name] = known
        return known[1]

    def host(self, node: Node, looks: frozenset[Look]) -> NodeLook:
        at = self.nodes[node.name]
        version = Answer(200, at.running) if at.running else Answer(None, error="connection refused")
        container, check = None, Answer(404 if at.flag else 200 if at.running else 502)
        if self.cluster.images:
            container = ContainerLook(at.current, "running" if at.running else "exited")
            check = check if at.running else Answer(None, error="connection refused")
        return NodeLook(
            container=container,
            check=check,
            version=version if Look.VERSION in looks else None,
            disk=Disk(at.current, tuple(sorted(at.staged)), "{}" if at.flag else None),
            active=0,
        )

    def inspect(self, node: Node) -> Mapping[str, Said]:
        del node
        return {}

    # ------------------------------------------------ what acts do

    def perform(self, node: Node, act: Any) -> str:
        self.die("before")
        with self.lock:
            at = self.nodes[node.name]
            self.acts.append(f"{node.name} {type(act).__name__}")
            self._do(at, act)
        self.die("after")
        return "done"

    def _do(self, at: FakeNode, act: Any) -> None:
        match act:
            case SetFlag():
                at.flag = True
            case ClearFlag():
                at.flag = False
            case Nudge(health):
                if self.admin:
                    word = Word.NOLB if health == "stopping" else Word.UP
                    self.words.update({key: word for key in self.words if key[1] == at.name})
            case Stage(release):
                at.staged.add(release)
            case Switch() | ReplaceContainer() | RestartContainer() | RunOnNode():
                self._change(at, act)
            case Warm():
                if at.running in self.breaks:
                    raise CommandFailed(f"{at.name}: warm-up GET / answers 500")
            case SetState() | ShutdownSessions():
                at.busy_until = self.now

    def _change(self, at: FakeNode, act: Any) -> None:
        match act:
            case Switch(release):
                if release not in at.staged:
                    raise CommandFailed(f"{at.name}: no releases/{release}")
                at.current = release
            case ReplaceContainer(release):
                at.current = release
                self._restart(at)
            case RestartContainer():
                self._restart(at)
            case RunOnNode(line):
                self._run(at, line)

    def _run(self, at: FakeNode, line: str) -> None:
        if line == "reload":  # in place: what runs serves until the new one does
            at.running = None if at.current in self.breaks else at.current
        else:
            self._restart(at)

    def _restart(self, at: FakeNode) -> None:
        """The rule that must never break: nothing is stopped while a balancer may send requests."""
        shown = [word for (_, name), word in self.words.items() if name == at.name]
        if Word.UP in shown or self.now < at.busy_until:
            self.broken.append(f"{at.name} restarted while {shown}")
        at.running = None if at.current in self.breaks else at.current

    def prune(self, node: Node, protect: frozenset[str]) -> str:
        del node, protect
        return ""

    def __call__(self, node: Node, act: Any) -> str:
        return self.perform(node, act)

    # ------------------------------------------------ the journal, in memory

    def append(self, rollout: str, kind: str, **rest: Any) -> Event:
        with self.lock:
            event = Event(
                len(self.events) + 1,
                self.now,
                rollout,
                kind,
                rest.get("node"),
                rest.get("step"),
                rest.get("text", ""),
                rest.get("data") or {},
            )
            self.events.append(event)
            return event

    def events_of(self, rollout: str, after: int = 0) -> list[Event]:
        return [event for event in self.events[after:] if event.rollout == rollout]

    def state(self) -> RolloutState:
        return replay("r1", self.events)

    # ------------------------------------------------ rollouts

    def plan(self, verb: str = "deploy", target: str = "v2") -> Plan:
        job: Any = Job(verb, target)
        names = self.cluster.names
        return Plan(
            verb,
            waves(self.cluster, names),
            dict.fromkeys(names, job),
            self.places,
            dict.fromkeys(names, "v1"),
            Release(target, archive="/v2.tar"),
            dict.fromkeys(names, Way("http-check")),
        )

    def begin(self, plan: Plan) -> None:
        self.append(
            "r1",
            "rollout.began",
            data={
                "verb": plan.verb,
                "cluster": "shop",
                "release": {"id": plan.release.id, "archive": "/v2.tar"} if plan.release else None,
                "line": None,
                "targets": {name: job.target for name, job in plan.jobs.items()},
                "previous": dict(plan.previous),
                "waves": [list(wave) for wave in plan.waves],
                "strategy": {name: way.strategy for name, way in plan.ways.items()},
                "live": {},
                "holder": "me",
                "token": 1,
            },
        )

    def resumed(self) -> None:
        self.append("r1", "rollout.resumed", data={"holder": "me", "token": 2})

    def roll(self, plan: Plan, stop: Stop | None = None) -> Outcome:
        store: Any = Journal(self)
        fake: Any = self
        world = World(
            cluster=self.cluster,
            rollout="r1",
            places=self.places,
            observer=fake,
            perform=fake,
            store=store,
            right=fake,
            keep_out=KeepOut(self.places, nudge=lambda *_: "nudged", tell=lambda *_: None),
            record=Recorder(store, "r1", ()),
            stop=stop or Stop(),
            clock=self.clock,
            sleep=self.sleep,
        )
        return Roll(world, plan, self.cluster.rollout.on_failure).run()

    def check(self, need_s: float) -> None: ...

    @property
    def lease(self) -> None:
        return None

    @property
    def lost(self) -> str | None:
        return None


@dataclass
class Journal:
    """The part of a Store that a rollout uses."""

    fake: FakeCluster

    def append(self, rollout: str, kind: str, **rest: Any) -> Event:
        return self.fake.append(rollout, kind, **rest)

    def events(self, rollout: str, after: int = 0) -> list[Event]:
        return self.fake.events_of(rollout, after)


def die_at(number: int) -> Callable[[str], None]:
    """Crash at the number-th moment: each act has two, before and after."""
    moments = itertools.count()

    def die(moment: str) -> None:
        if next(moments) == number:
            raise Crash(moment)

    return die
