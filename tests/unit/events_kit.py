"""Event streams as real rollouts write them: all four nodes done, one put back, one interrupted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from drainctl.journal.events import Event

BEGAN_S = datetime(2026, 5, 4, 14, 2, 11, tzinfo=UTC).timestamp()
ROLLOUT = "20260504-140211-3f2a"
NODES = ("web1", "web2", "web3", "web4")
WAVES = [["web1"], ["web2", "web3"], ["web4"]]

# (step, act or None, what was seen, seconds); {to} is the release.
FORWARD: tuple[tuple[str, str | None, str, float], ...] = (
    ("guard", None, "enough others are up (keep_up = 50%)", 0.004),
    ("flag", "set the flag: /http-check answers 404", "/http-check answers 404", 0.021),
    ("out", "set server … health stopping (where the socket's level is admin)", "NOLB on lb1, lb2", 0.006),
    ("idle", None, "0 requests on lb1, lb2", 0.312),
    ("quiet", None, "0 requests on the node", 0.018),
    ("switch", "current -> releases/{to}", "current -> {to}", 0.011),
    ("restart", "sudo systemctl restart shop", "answers {to}", 2.104),
    ("warm", "GET / 20 times", "warm", 0.22),
    ("restore", "take the flag away", "/http-check answers 200", 0.02),
    (
        "up",
        "set server … health up (where the socket's level is admin)",
        "UP on lb1, lb2: 12 requests answered",
        0.05,
    ),
    ("watch", None, "0 errors in 1204 requests", 10.0),
)
PROOF: dict[str, Any] = {
    "balancers": {
        "lb1": {"requests": 24103, "errors": {"5xx": 0, "connect": 0, "response": 0, "haproxy_5xx": 0}},
        "lb2": {"requests": 24107, "errors": {"5xx": 0, "connect": 0, "response": 0, "haproxy_5xx": 0}},
    },
    "inconclusive": [],
    "failed": 0,
    "requests": 48210,
    "seconds": 41.2,
}


class Script:
    """Writes events one after the other; `wait` lets the time pass."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.at_s = BEGAN_S

    def wait(self, seconds: float) -> None:
        self.at_s += seconds

    def tell(
        self, kind: str, text: str, *, node: str | None = None, step: str | None = None, **data: Any
    ) -> None:
        self.events.append(
            Event(len(self.events) + 1, round(self.at_s, 4), ROLLOUT, kind, node, step, text, data)
        )

    def began(self, nodes: Sequence[str] = NODES, waves: Sequence[Sequence[str]] = WAVES) -> None:
        self.tell(
            "rollout.began",
            f"deploy 42 over shop: {len(nodes)} nodes in {len(waves)} waves, by deploy@ops1 (pid 4711)",
            verb="deploy",
            cluster="shop",
            release={"id": "42", "archive": "/srv/shop-42.tar.gz", "sha256": "ab", "url": None, "size": 1200},
            line=None,
            targets=dict.fromkeys(nodes, "42"),
            previous=dict.fromkeys(nodes, "41"),
            waves=[list(wave) for wave in waves],
            on_failure="roll-back",
            token=7,
            holder="deploy@ops1 (pid 4711)",
        )
        for node in nodes:
            self.step(
                node, ("stage", "upload, verify and unpack releases/42", "releases/42 is there", 0.8), "42"
            )
        self.tell("rollout.staged", "the release is on every node")

    def wave(self, number: int, of: int, nodes: Sequence[str]) -> None:
        self.tell(
            "wave.began", f"wave {number} of {of}: {', '.join(nodes)}", wave=number, of=of, nodes=list(nodes)
        )

    def node(self, node: str, way: str, target: str) -> None:
        verb = "deploy" if way == "forward" else "put-back"
        facts = {"way": way, "strategy": "http-check", "reason": "configured", "target": target}
        self.tell("node.began", f"{verb} {target}", node=node, **facts)

    def step(self, node: str, row: tuple[str, str | None, str, float], to: str) -> None:
        name, act, seen, took_s = row
        if act is not None:
            act = act.format(to=to)
            self.tell("step.intended", act, node=node, step=name, act=act, limit_s=60.0)
        self.wait(took_s)
        if name in {"restart", "stage"}:
            self.tell("step.acted", "", node=node, step=name, output="", took_s=took_s)
        seen = seen.format(to=to)
        self.tell("step.seen", seen, node=node, step=name, why=seen, took_s=took_s)

    def steps(self, node: str, to: str, rows: Iterable[tuple[str, str | None, str, float]] = FORWARD) -> None:
        for row in rows:
            self.step(node, row, to)

    def ended(self, node: str, outcome: str, why: str) -> None:
        self.tell("node.ended", f"{outcome}: {why}", node=node, outcome=outcome, why=why)

    def forward(self, node: str) -> None:
        self.node(node, "forward", "42")
        self.steps(node, "42")
        self.ended(node, "done", "on 42")

    def over(self, outcome: str, exit_code: int, why: str, lines: Sequence[str] = ()) -> list[Event]:
        took_s = round(self.at_s - BEGAN_S, 3)
        end = {"outcome": outcome, "exit": exit_code, "why": why, "lines": list(lines), "took_s": took_s}
        self.tell("rollout.ended", f"{outcome}: {why}", **end)
        return self.events


def done() -> list[Event]:
    """Four nodes, all done; lb2 is reloaded in between and seen afresh."""
    script = Script()
    script.began()
    for number, wave in enumerate(WAVES, 1):
        script.wave(number, len(WAVES), wave)
        for node in wave:
            script.forward(node)
        if number == 1:
            text = "lb2 has a new process (pid 811, before 402): looked at afresh"
            script.tell("note", text, what="balancer-changed")
    script.tell("proof", "0 failed of 48210 requests", **PROOF)
    return script.over("done", 0, "4 nodes done")


def put_back() -> list[Event]:
    """web1 is done; web2 answers the old release after its restart, is put back, and then web1 too."""
    script = Script()
    script.began()
    script.wave(1, 3, ["web1"])
    script.forward("web1")
    script.wave(2, 3, ["web2"])
    script.node("web2", "forward", "42")
    script.steps("web2", "42", FORWARD[:6])
    act = "sudo systemctl restart shop"
    script.tell("step.intended", act, node="web2", step="restart", act=act, limit_s=60.0)
    script.wait(60.0)
    why = "health.version answers '41', not '42' 60 s after it began (limit 60 s)"
    hint = "see `systemctl status shop` on web2"
    script.tell("step.failed", why, node="web2", step="restart", why=why, hint=hint, do="undo", took_s=60.0)
    script.node("web2", "back", "41")
    script.steps("web2", "41", FORWARD[1:])
    script.ended("web2", "put-back", f"back on 41: restart: {why}")
    script.tell("rollout.turned", f"going back: web2: restart: {why}", to="back", why=f"web2: restart: {why}")
    script.node("web1", "back", "41")
    script.steps("web1", "41")
    script.ended("web1", "put-back", f"back on 41: web2: restart: {why}")
    inconclusive = {"failed": None, "inconclusive": ["lb2 was reloaded at 14:02:31"]}
    script.tell("proof", "inconclusive", **(PROOF | inconclusive))
    lines = ["every node runs 41 again", "`drainctl show` says what each step saw"]
    return script.over("put-back", 1, f"web2: restart: {why}", lines)


def interrupted() -> list[Event]:
    """web1 is done, web2 waits to be idle, when Ctrl-C comes twice: the journal ends in the middle."""
    script = Script()
    script.began()
    script.wave(1, 3, ["web1"])
    script.forward("web1")
    script.wave(2, 3, ["web2"])
    script.node("web2", "forward", "42")
    script.steps("web2", "42", FORWARD[:6])
    act = "sudo systemctl restart shop"
    script.tell("step.intended", act, node="web2", step="restart", act=act, limit_s=60.0)
    script.wait(12.0)
    return script.over("interrupted", 130, "stopped at once; nodes in flight are left as they are")


def large(nodes: int) -> list[Event]:
    """The first `nodes - 2` of many nodes are done, the last but one is in flight, the last has not begun."""
    names = [f"web{number:03}" for number in range(1, nodes + 1)]
    script = Script()
    script.began(names, [[name] for name in names])
    for number, name in enumerate(names[:-2], 1):
        script.wave(number, nodes, [name])
        script.forward(name)
    script.wave(nodes - 1, nodes, [names[-2]])
    script.node(names[-2], "forward", "42")
    script.steps(names[-2], "42", FORWARD[:4])
    return script.events
