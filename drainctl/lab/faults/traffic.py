"""Users who make a drain hard: a request and a WebSocket that outlast it."""

from __future__ import annotations

from collections.abc import Callable

from drainctl.lab import ready
from drainctl.lab.cluster import Lab
from drainctl.lab.faults.door import Fault, dismiss, said, stand_in

LONG_S = "30"


def _asked(kind: str) -> Callable[[Lab, str], str]:
    """One to each node, through this balancer."""

    def begin(lab: Lab, name: str) -> str:
        for number in range(lab.settings.nodes):
            said(lab, f"{kind}-{name}-{number}").unlink(missing_ok=True)
            stand_in(lab, f"{kind}-{name}-{number}", kind, lab.settings.host(name), "8080", LONG_S)
        return f"for {LONG_S} s; what becomes of them: {lab.folder}/faults/*.said"

    return begin


def _ended(kind: str) -> Callable[[Lab, str], None]:
    def end(lab: Lab, name: str) -> None:
        for number in range(lab.settings.nodes):
            dismiss(lab, f"{kind}-{name}-{number}")

    return end


def drained(lab: Lab) -> None:
    """Every node but the first is taken out of rotation by hand: that one is the last that is UP."""
    from drainctl.lab.faults.nodes import flag_by_hand

    for node in lab.settings.node_names[1:]:
        flag_by_hand(lab, node)


def last_up(lab: Lab, name: str) -> None:
    del name
    drained(lab)
    others = lab.settings.node_names[1:]
    for lb in lab.settings.balancer_names:
        service = lab.balancer(lb)
        ready.wait((service,), lambda lb=lb: _still_up(lab, lb, others), lab.limit_s)  # type: ignore[misc]


def _still_up(lab: Lab, balancer: str, nodes: tuple[str, ...]) -> str | None:
    shown = ready.servers(lab.socket(balancer), lab.settings.app)
    up = [node for node in nodes if shown[node].startswith("UP")]
    return f"{', '.join(up)} up" if up else None


def all_up(lab: Lab, name: str) -> None:
    from drainctl.lab.faults.nodes import flag_gone

    del name
    for node in lab.settings.node_names:
        flag_gone(lab, node)


FAULTS = (
    Fault("long-requests", "traffic", "a request of 30 s to each node", _asked("get"), _ended("get")),
    Fault("websockets", "traffic", "a WebSocket of 30 s to each node", _asked("ws"), _ended("ws")),
    Fault("last-server", "traffic", "every node but the first is out, by hand", last_up, all_up),
)
