"""One node under load that is changed in place, and what is really so on it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drainctl.config.load import load as load_config
from drainctl.journal.open import open_store
from drainctl.journal.replay import RolloutState
from drainctl.lab.cluster import Lab
from drainctl.lab.load import Load
from drainctl.overview import state_of
from tests.conftest import need
from tests.faults import kit

DYING = Path(__file__).with_name("dying_in_place.py")
MIX = "get=53,post=32,slow=8,ws=3,late=4"
RATE = 60.0
SLOW_S = 0.8


@dataclass(frozen=True)
class Way:
    """
    A strategy, as its lab is made. acts: of a deploy; back: by the act after which one died, those of its way
    back; all by the step that each belongs to.
    """

    name: str
    lab: Mapping[str, Any]
    acts: tuple[str, ...]
    back: Mapping[str, tuple[str, ...]]
    changes: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name

    @property
    def known(self) -> tuple[str, ...]:
        """All acts by which the rollout may be killed so that it goes on."""
        return ("stage", *self.acts, "prune")


@dataclass(frozen=True)
class Is:
    """web1 as it is: `current`, what it answers, what serves by link or upstream file, its processes."""

    current: str
    version: str
    serves: str
    runs: tuple[str, ...]


class Ground(kit.Ground):
    """A lab of one node (or of two behind a balancer), the load on it, and drainctl run on it."""

    def web1(self) -> Is:
        lab = self.lab
        strategy = lab.settings.strategy
        serves = {"socket-flip": lab.live_release, "port-flip": lambda name: str(lab.live_port(name))}
        runs = tuple(app.name.split()[-1] for app in lab.apps("web1") if app.master())
        if strategy == "reload":
            runs = tuple(str(pid.name) for pid in lab.ctl("web1").parent.glob("gunicorn.pid*"))
        return Is(
            current=(lab.root("web1") / "current").readlink().name,
            version=kit._version(lab.settings.host("web1")),
            serves=serves.get(strategy, lambda _name: "")("web1"),
            runs=runs,
        )

    def settled(self, release: str) -> Is:
        """web1 serves this release, by the processes that are to run, and none beside them."""
        seen = self.web1()
        assert (seen.current, seen.version) == (release, release), seen
        wanted = {
            "socket-flip": (seen.serves,),
            "port-flip": (seen.serves,),
            "backup": ("backup", "live"),
            "reload": ("gunicorn.pid",),
        }[self.lab.settings.strategy]
        assert seen.runs == wanted, seen
        if self.lab.settings.strategy == "socket-flip":
            assert seen.serves == release
        own = self.lab.ctl("web1").parent
        assert [*own.glob(".*.drainctl-*"), *own.glob("run/*.drainctl.*"), *own.glob("run/*.hidden")] == []
        if self.lab.settings.balancers:
            assert not self.lab.flag("web1").exists()
            self.all_up()
        return seen

    def state(self) -> RolloutState:
        """The last rollout, as its journal tells it; nobody holds the lease."""
        cluster = load_config(str(self.lab.config))
        with closing(open_store(cluster.store)) as store:
            assert store.held(cluster.app) is None
            return state_of(store, store.latest(cluster.app) or "")

    def over(self, outcome: str) -> None:
        state = self.state()
        assert (state.open, state.ended) == (False, outcome)

    def at(self, act: str, way: str) -> None:
        """The rollout is open, and it is known at which step it was left."""
        state = self.state()
        node = state.nodes["web1"]
        assert (state.open, state.ended) == (True, None)
        if act == "stage":
            assert (node.way, node.outcome) == (None, None)
        elif act == "prune":
            assert (node.way, node.outcome) == ("forward", "done")
        else:
            assert (node.way, node.step, node.outcome) == (way, act, None)


@contextmanager
def ground(way: Way, base: str) -> Iterator[Ground]:
    for program in ("haproxy", "nginx", "ss"):
        need(program)
    folder = Path(tempfile.mkdtemp(prefix="dl-"))
    lab = Lab(folder, base=base, **{"nodes": 1, "balancers": 0, "nginx": "path", **way.lab})
    try:
        lab.up()
        text = lab.config.read_text()
        for old, new in {"for: 1s": "for: 200ms", **way.changes}.items():
            assert old in text, text
            text = text.replace(old, new)
        lab.config.write_text(text)
        load = Load(lab.urls, rate=RATE, mix=MIX, slow_s=SLOW_S, ws_s=1.0, late_s=0.4).start()
        it = Ground(lab, load, time.monotonic(), program=DYING)
        try:
            yield it
        finally:
            if load.pid:
                load.stop(trust=False)
    finally:
        lab.down()
        shutil.rmtree(folder)
