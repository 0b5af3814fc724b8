"""
The last screen of a rollout that stopped: where each node is, and the command for each way out. Pure.

    web1: OUT OF ROTATION by its flag, on release 43 or 42 (restart: health.version answers 502, …)
    web2: not begun, on 42
    go on: drainctl resume ID (web1 again, then web2)
    take back: drainctl abort ID (web1 to 42)
    by hand: drainctl restore web1 --steal (puts it into rotation as it is)
"""

from __future__ import annotations

from collections.abc import Sequence

from drainctl.journal.replay import TAKES_OUT, NodeState, RolloutState

STORE = "arb"  # the strategy whose nodes leave by a board, not by a flag
MOST_NAMES = 3  # a way out names no more nodes than these


def where(node: NodeState, state: RolloutState) -> str:
    """One node's place in one sentence: release, rotation, and what happened."""
    release, target = state.previous.get(node.name), state.targets.get(node.name)
    old, why = release or "its old release", " ".join(node.why.split())
    match node.outcome:
        case "done" if state.verb == "drain":
            return f"out of rotation and idle, on {release or 'its release'}; `drainctl restore {node.name}`"
        case "done":
            return f"in rotation, on {target or release or 'its release'}"
        case "put-back" | "restored":
            return f"in rotation, on {old} ({why})"
        case "failed":
            both = node.changed and target and target != release
            on = f"release {target} or {release}" if both else f"release {release}"
            return f"{_rotation(node)}{f', on {on}' if _was_touched(node) else ''} ({why})"
    if node.in_flight:
        flag = "flagged, so out of rotation" if node.flagged else "not flagged"
        return f"in flight {node.way} at step {node.step or 'none'}: {flag}"
    return f"not begun, on {old}"


def _rotation(node: NodeState) -> str:
    """Of a node that failed, as far as the journal knows: HAProxy's checks may see more than its flag."""
    if node.flagged:
        return "MARKED DOWN on the board" if node.strategy == STORE else "OUT OF ROTATION by its flag"
    return "not flagged by this rollout" if _was_touched(node) else "not touched"


def _was_touched(node: NodeState) -> bool:
    return node.flagged or node.changed or bool(node.intended & TAKES_OUT)


def lines(state: RolloutState) -> list[str]:
    """Every node's place, then the ways out; nothing for a rollout that is closed."""
    told = [f"{name}: {where(node, state)}" for name, node in state.nodes.items()]
    return told + ways_out(state) if state.open else told


def ways_out(state: RolloutState) -> list[str]:
    """The commands that end an open rollout one way or the other, and what each will do."""
    nodes = state.nodes.values()
    ways = [f"go on: drainctl resume {state.id}{_onward(state)}"]
    if not state.line and (state.release or any(node.changed for node in nodes)):
        ways.append(f"take back: drainctl abort {state.id}{_backward(state)}")
    else:
        ways.append(f"give up: drainctl abort {state.id}")
    return ways + [_by_hand(node) for node in nodes if node.flagged and node.outcome != "done"]


def _by_hand(node: NodeState) -> str:
    if node.strategy == STORE:  # its machine and its board are in drainctl.yml, arb.check and arb.board
        return f"by hand: drainctl arb up HOST:PORT of {node.name} --board BOARD (takes its mark away)"
    return restore_by_hand(node.name)


def restore_by_hand(name: str) -> str:
    """The way out of one node's flag that is always there."""
    return f"by hand: drainctl restore {name} --steal (puts it into rotation as it is)"


def _onward(state: RolloutState) -> str:
    """`(web1 again, then web2)`; of one that has turned already, what it still takes back."""
    if state.turned:
        left = [name for name, at in state.nodes.items() if at.changed or at.flagged]
        return f" (still takes back {_named(left)})" if left else ""
    again = [name for name, at in state.nodes.items() if at.way and at.outcome != "done"]
    fresh = [name for name, at in state.nodes.items() if not at.way]
    told = [f"{_named(again)} again"] if again else []
    told += [_named(fresh)] if fresh else []
    return f" ({', then '.join(told)})" if told else ""


def _backward(state: RolloutState) -> str:
    """`(web1 to 42)`; of nodes that were not changed, that they are given back."""
    changed = [name for name, at in state.nodes.items() if at.changed]
    given = [name for name, at in state.nodes.items() if at.flagged and not at.changed]
    to = {state.previous.get(name) for name in changed}
    release = to.pop() if len(to) == 1 else None
    told = [f"{_named(changed)} to {release or 'what ran before'}"] if changed else []
    told += [f"gives {_named(given)} back"] if given else []
    return f" ({', '.join(told)})" if told else ""


def _named(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= MOST_NAMES else f"{names[0]} and {len(names) - 1} more"
