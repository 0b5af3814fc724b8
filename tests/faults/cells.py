"""The table of faults: which fault, at which step of a node's journey, and how a rollout must end then."""

from __future__ import annotations

from dataclasses import replace

from tests.faults.faults_kit import Cell

STEPS = ("guard", "flag", "out", "idle", "quiet", "switch", "restart", "warm", "restore", "up", "watch")
ONE = ("lb2",)  # users of the other balancer: this one's are lost with it, whatever drainctl does
SERVING = "its app, which was serving, was killed or stopped"


def each(cell: Cell, *steps: str) -> list[Cell]:
    return [replace(cell, at=step) for step in steps]


BALANCERS = [
    *each(Cell("lb-reload", "", target="lb1"), *STEPS),
    *each(Cell("lb-restart", "", target="lb1", users=ONE), *STEPS),
    *each(Cell("lb-hidden", "", target="lb1", mended_s=1), "guard", "idle", "restart", "up"),
    *each(Cell("lb-hidden", "", "refused", target="lb1"), "before"),
    *each(Cell("lb-hidden", "", "halted", target="lb1"), "flag", "restart", "watch"),
    *each(Cell("lb-mute", "", target="lb1", mended_s=1), "idle", "restart", "up"),
    *each(Cell("lb-mute", "", "refused", target="lb1"), "before"),
    *each(Cell("lb-mute", "", "halted", target="lb1"), "idle", "up"),
    *each(Cell("lb-freeze", "", target="lb1", mended_s=1), "out", "restart", "watch"),
    *each(Cell("lb-freeze", "", "refused", target="lb1", users=ONE), "before"),
    *each(Cell("lb-freeze", "", "halted", target="lb1", users=ONE), "idle"),
    *each(Cell("lb-kill", "", "refused", target="lb1", users=ONE), "before"),
    *each(Cell("lb-kill", "", "halted", target="lb1", users=ONE), "out", "watch"),
    *each(Cell("lb-user", "", target="lb1"), "idle", "restart", "up"),
    *each(Cell("lb-new-backend", "", target="lb1"), "out", "restart", "up"),
]
SERVERS = [
    Cell("server-maint", "before", "refused"),
    *each(Cell("server-maint", "", "halted"), "idle", "restart", "restore", "watch"),
    Cell("server-disabled", "before", "refused"),
    *each(Cell("server-disabled", "", "halted"), "idle", "restore"),
    Cell("server-removed", "before", "unusable"),
    *each(Cell("server-removed", "", "halted"), "idle", "restore"),
    Cell("server-misjudged", "before", "refused"),
    *each(Cell("server-misjudged", "", "halted"), "idle", "restore"),
]
NODES = [
    Cell("app-killed", "before", "refused", lost=15, why=SERVING),
    *each(Cell("app-killed", ""), "idle", "switch", "restart"),
    *each(Cell("app-killed", "", "put-back"), "warm", "restore"),
    Cell("app-killed", "watch", "put-back", lost=25, why=SERVING),
    Cell("app-frozen", "before", "refused", lost=15, why=SERVING),
    *each(Cell("app-frozen", "", "halted"), "idle", "restart", "warm"),
    *each(Cell("node-reboot", "", ssh=True, lost=15, why=SERVING), "flag", "idle"),
    *each(Cell("node-reboot", "", ssh=True), "switch", "restart", "warm", "restore"),
    Cell("node-reboot", "watch", "done|put-back", ssh=True, lost=25, why=SERVING),
    Cell("node-off", "before", "refused", ssh=True, lost=15, why=SERVING),
    Cell("node-off", "idle", "halted", ssh=True, lost=15, why=SERVING),
    Cell("node-off", "restart", "halted", ssh=True),
    Cell("node-unstartable", "restart", "halted"),
    Cell("node-flagged", "before", "refused"),
    Cell("node-flagged", "flag", "halted"),
    Cell("node-flagged", "restart", "halted"),
    Cell("node-disk-full", "before", "put-back"),
    Cell("node-disk-full", "before", "put-back", ssh=True),
    Cell("node-disk-full", "switch"),
    Cell("node-current-folder", "before", "refused"),
    Cell("node-current-folder", "switch", "halted"),
    Cell("node-current-lost", "before", "refused"),
    Cell("node-half-release", "before", "put-back"),
    Cell("node-half-release", "before", "put-back", ssh=True),
]
COMMANDS = [
    Cell(f"command-{how}", "restart", ends, ssh=ssh)
    for how, ends in (
        ("asks", "halted"),
        ("hangs", "halted"),
        ("fails", "halted"),
        ("slow", "done"),
        ("floods", "done"),
        ("binary", "done"),
    )
    for ssh in (False, True)
]
BAD_PAGES = "answered by the release itself, until the watch ended it"
HALT = {"on_failure: roll-back": "on_failure: halt"}
# Each way out that is printed at a halt, run as it is printed; the other cells that halt take `abort`.
WAYS_OUT = [
    Cell("command-fails", "restart", "halted", then=then, config=config, variant=f"{on_failure}-then-{then}")
    for then in ("resume", "restore")
    for on_failure, config in (("roll-back", {}), ("halt", HALT))
]
BAD = {
    "no-start": ({"fail_start": True}, False),
    "slow-start": ({"start_s": 2.0}, True),
    "too-slow-start": ({"start_s": 15.0}, False),
    "wrong-version": ({"wrong_version": "v0"}, False),
    "pages-500": ({"pages_500": True}, False),
    "slow": ({"slow_factor": 10}, True),
    "one-node": ({"fail_start": True, "only_on": "web2"}, False),
}
RELEASES = [
    Cell(
        f"release-{how}",
        "restart",
        "done" if well else ends,
        target=how,
        only=("web1", "web2"),
        release=settings,
        lost=60 if how == "pages-500" else 0,
        why=BAD_PAGES,
        config=config,
        variant=variant,
    )
    for how, (settings, well) in BAD.items()
    for variant, config, ends in (("roll-back", {}, "put-back"), ("halt", HALT, "halted"))
    if not (well and variant == "halt")
]
RELEASES.append(
    Cell(
        "release-pages-500",
        "restart",
        "put-back",
        target="pages-500",
        only=("web1", "web2"),
        release={"pages_500": True},
        lost=60,
        why=BAD_PAGES,
        config={"warm: [{get: /, times: 3}]\n": ""},
        variant="not-warmed",
    )
)
LONG_WATCH = {"watch: {for: 300ms,": "watch: {for: 6s,"}
RELEASES += [
    Cell(
        "release-dies",
        "watch",
        ends,
        target="dies",
        only=("web1", "web2"),
        release={"die_after_s": 3.0},
        lost=60,
        why=BAD_PAGES,
        config=LONG_WATCH | config,
        variant=variant,
    )
    for variant, config, ends in (("roll-back", {}, "put-back"), ("halt", HALT, "halted"))
]
# What HAProxy has cut, the app still works on: its stop waits for that, and service.limit must allow it.
THEN = {
    "wait": ("done", {"then: fallback": "then: wait"}),
    "fallback": ("put-back", {}),
    "force": ("done", {"then: fallback": "then: force", "limit: 8s": "limit: 40s"}),
    "halt": ("halted", {"then: fallback": "then: halt"}),
}
# When web2 is to leave, web3 is out by then: keep_up does not hold, and is waited for.
BELOW = Cell("node-flagged", "watch", target="web3", only=("web1", "web2"), variant="keep-up")
TRAFFIC = [
    *[
        Cell(
            "long-requests",
            "flag",
            ends,
            target="lb1",
            config=config,
            variant=f"then-{then}",
            all_end_with="200" if then == "wait" else "",
        )
        for then, (ends, config) in THEN.items()
    ],
    *[
        Cell(
            "websockets",
            "flag",
            "done",
            target="lb1",
            config=THEN[then][1],
            variant=f"then-{then}",
            all_end_with="closed as agreed" if then == "wait" else "",
        )
        for then in ("wait", "force")
    ],
    Cell("websockets", "flag", "put-back", target="lb1", variant="then-fallback"),
    Cell(
        "websockets",
        "flag",
        "halted",
        target="lb1",
        config=THEN["halt"][1],
        variant="then-halt",
        then="resume",
    ),
    Cell("h2-clients", "before", target="lb1", settled=True, all_end_with="200"),
    *[
        Cell(
            f"{by}-clients",
            "before",
            ends,
            target="lb1",
            config={"sticky: wait": sticky},
            settled=True,
            variant=f"sticky-{sticky.split()[1].strip(',')}",
            all_end_with="answered to the end" if ends == "done" else "",
        )
        for by in ("cookie", "stick")
        for sticky, ends in (
            ("sticky: wait", "done|put-back"),  # whether a moment without a request is seen is chance
            ("sticky: move, move_after: 500ms", "done"),
        )
    ],
    Cell("last-server", "before", "refused", target="lb1"),
    replace(BELOW, ends="halted"),
    replace(BELOW, mended_s=1),
    Cell("node-flagged", "restart", target="web2", variant="another-node"),
    *each(Cell("lb-queue", "", target="lb1", settled=True), "before", "idle"),
    Cell("lb-cookie", "idle", target="lb1"),
    Cell("lb-stick", "idle", target="lb1"),
]
LOST = [
    *each(Cell("ssh-refused", "", "refused"), "before"),
    *each(Cell("ssh-refused", ""), "flag", "switch", "restart", "restore"),
    *each(Cell("ssh-killed", "", "refused"), "before"),
    *each(Cell("ssh-killed", "", "halted"), "flag", "switch", "restart", "during restart", "restore"),
    *each(Cell("ssh-dropped", ""), "before", "flag", "switch", "restart", "during restart", "restore"),
    *each(Cell("ssh-slow", ""), "before", "flag", "switch", "restart", "restore"),
    *each(Cell("ssh-frozen", "", "refused"), "before"),
    *each(Cell("ssh-frozen", "", "halted"), "switch", "during restart", "restore"),
    *each(Cell("ssh-blackholed", "", "refused"), "before"),
    *each(Cell("ssh-blackholed", "", "halted"), "switch", "restore"),
    *each(Cell("ssh-other-key", "", "refused"), "before"),
    *each(Cell("ssh-other-key", "", "halted"), "switch", "restore"),
    Cell("ssh-refused", "switch", mended_s=1),
    Cell("ssh-killed", "restart", mended_s=1),
    Cell("ssh-frozen", "restart", mended_s=1),
    Cell("ssh-blackholed", "restart", mended_s=1),
]
SSH = [replace(cell, ssh=True) for cell in LOST]

# By lab, so that each is brought up once.
CELLS = tuple(
    sorted(
        (*BALANCERS, *SERVERS, *NODES, *COMMANDS, *WAYS_OUT, *RELEASES, *TRAFFIC, *SSH),
        key=lambda cell: cell.ssh,
    )
)

# What the normal suite plays: one cell of each kind.
QUICK = (
    "local-lb-reload-restart",
    "local-lb-mute-idle-1s",
    "local-lb-hidden-up-1s",
    "local-server-removed-idle",
    "local-app-killed-switch",
    "local-command-fails-restart",
    "local-release-no-start-restart-roll-back",
    "local-release-pages-500-restart-halt",
    "ssh-ssh-dropped-restart",
    "ssh-ssh-killed-restart-1s",
    "ssh-node-reboot-switch",
    "ssh-ssh-other-key-before",
)
