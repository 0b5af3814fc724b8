"""The last screen of a rollout that stopped: where each node is, and the command for each way out. Pure."""

from __future__ import annotations

from drainctl.journal.replay import NodeState, RolloutState


def where(node: NodeState, state: RolloutState) -> str:
    """One node's place in one sentence: release, rotation, and what happened."""
    release = state.previous.get(node.name)
    target = state.targets.get(node.name)
    match node.outcome:
        case "done" if state.verb == "drain":
            return f"out of rotation and idle, on {release or 'its release'}; `drainctl restore {node.name}`"
        case "done":
            return f"in rotation, on {target or release or 'its release'}"
        case "put-back" | "restored":
            return f"in rotation, on {release or 'its old release'} ({node.why})"
        case "failed" if not node.flagged and not node.changed:
            return f"not touched ({node.why})"
        case "failed" if not node.flagged:
            return f"in rotation, on release {target} or {release} ({node.why})"
        case "failed":
            changed = node.changed and target and target != release
            on = f"release {target} or {release}" if changed else f"release {release}"
            return f"OUT OF ROTATION by its flag, on {on} ({node.why})"
    if node.in_flight:
        flag = "flagged, so out of rotation" if node.flagged else "not flagged"
        return f"in flight {node.way} at step {node.step or 'none'}: {flag}"
    return f"not begun, on {release or 'its old release'}"


def lines(state: RolloutState) -> list[str]:
    """Every node's place, then the ways out; nothing for a rollout that is closed."""
    told = [f"{name}: {where(node, state)}" for name, node in state.nodes.items()]
    return told + ways_out(state) if state.open else told


def ways_out(state: RolloutState) -> list[str]:
    """The commands that end an open rollout one way or the other."""
    ways = [f"go on: drainctl resume {state.id}"]
    if not state.line and (state.release or any(node.changed for node in state.nodes.values())):
        ways.append(f"take back: drainctl abort {state.id}")
    else:
        ways.append(f"give up: drainctl abort {state.id}")
    ways += [
        f"by hand: drainctl restore {node.name} --steal (puts it into rotation as it is)"
        for node in state.nodes.values()
        if node.flagged and node.outcome != "done"
    ]
    return ways
