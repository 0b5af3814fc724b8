"""A status as text or JSON. Pure."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from drainctl.called import as_called
from drainctl.journal.replay import RolloutState
from drainctl.model import NodeLook
from drainctl.overview import Status
from drainctl.report.board import Board
from drainctl.report.text import columns, said_together, wrapped_all
from drainctl.rollout import ending

TITLES = ("node", "release", "check")


def board_of(status: Status) -> Board:
    """The servers of one status; `look` of another status' tables goes on with it."""
    board = Board([balancer.name for balancer in status.cluster.balancers], status.places)
    for look in status.survey.tables.values():
        board.look(look)
    return board


def status_text(status: Status, width: int | None = None) -> str:
    """A table of nodes × balancers, then what a person must know: lease, open rollout, faults."""
    lines = [*table(status, board_of(status), status.cluster.names), *said_below(status, width)]
    return "\n".join(lines)


def table(status: Status, board: Board, names: Sequence[str]) -> list[str]:
    """A headline, and a line per node: `web1  v1  200  UP 3  UP 2`, and what its flag says."""
    rows = [[*TITLES, *board.balancers, "flag"]]
    for name in names:
        look = status.survey.nodes.get(name, NodeLook())
        told = [str(board.cell(name, balancer)) for balancer in board.balancers]
        flag = flag_of(look)
        rows.append([name, release(look), str(look.check or "-"), *told, flag.short if flag else ""])
    return columns(rows)


def release(look: NodeLook) -> str:
    return (look.disk.current if look.disk else None) or "-"


def said_below(status: Status, width: int | None = None) -> list[str]:
    """What is to be said below the table; `width` columns wide, or as wide as it comes."""
    wrong = {name: look.error for name, look in status.survey.tables.items() if look.error}
    wrong |= status.survey.errors
    faults = [f"{name}: {why.removeprefix(f'{name}: ')}" for name, why in wrong.items()]
    paragraphs = [[*faults, *status.notes], _foreign(status), _rollout(status)]
    said = [line for paragraph in paragraphs if paragraph for line in ("", *paragraph)]
    lines = [as_called(line, status.cluster.file) for line in said]
    return lines if width is None else wrapped_all(lines, width)


def _rollout(status: Status) -> list[str]:
    """What runs, what is not finished, or what was done last."""
    state, lease = status.rollout, status.lease
    if lease:
        since = time.strftime("%H:%M:%S UTC", time.gmtime(lease.since_s))
        lines = [f"rollout {lease.rollout} is run by {lease.holder} since {since}"]
        return lines + ([f"  {_progress(state)}"] if state and state.id == lease.rollout else [])
    if state is None:
        return []
    what = f"{state.verb} {state.release.id if state.release else ''}".strip()
    if state.open:
        why = state.ended or "its controller died"
        told = [f"  {line}" for line in said_together(ending.lines(state))]
        return [f"rollout {state.id} ({what}) is not finished: {why}", *told]
    at = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(state.ended_s or state.began_s))
    return [f"last rollout: {what}, {state.ended} at {at} ({state.id})"]


def _progress(state: RolloutState) -> str:
    """`deploy v2: 1 done, 2 to go; web2 at idle`."""
    what = f"{state.verb} {state.release.id if state.release else ''}".strip()
    in_flight = [f"{name} at {at.step or 'its begin'}" for name, at in state.nodes.items() if at.in_flight]
    counts = Counter(at.outcome or "to go" for at in state.nodes.values() if not at.in_flight)
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    return f"{what}: {'; '.join(part for part in (told, *in_flight) if part)}"


class FlagSaid(NamedTuple):
    """What stands in a node's flag. short: `deploy 20261124-214402-9c3f`; more: by whom, and since when."""

    short: str
    rollout: str | None = None
    more: str = ""


def flag_of(look: NodeLook) -> FlagSaid | None:
    """None where no flag is set, or none is known."""
    text = look.disk.flag if look.disk else None
    if text is None:
        return None
    try:
        told = json.loads(text.partition("\n")[0])
        return FlagSaid(
            f"{told['verb']} {told['rollout']}", told["rollout"], f"by {told['by']} at {told['at']}"
        )
    except (ValueError, KeyError, TypeError):
        return FlagSaid(text.strip().replace("\n", " ")[:28] or "(empty)")


def _foreign(status: Status) -> list[str]:
    """Who set the flags that are not of the rollout that is told of anyway."""
    state = status.rollout
    ours = {status.lease.rollout if status.lease else None, state.id if state and state.open else None}
    flags = {name: flag_of(look) for name, look in status.survey.nodes.items()}
    found = {name: flag for name, flag in flags.items() if flag and flag.rollout not in ours}
    lines = [f"{name}: flag set {flag.more}" for name, flag in found.items() if flag.more]
    return lines + [
        f"{name}: flag set by hand or by another tool; `drainctl restore {name} --steal` takes it away"
        for name, flag in found.items()
        if not flag.more
    ]


def status_json(status: Status) -> str:
    """The same as one JSON object; `v` is the version of its shape."""
    nodes: dict[str, Any] = {}
    for node in status.cluster.nodes:
        look = status.survey.nodes.get(node.name, NodeLook())
        at = {}
        for place in status.places.get(node.name, ()):
            row = status.survey.tables[place.balancer].row(place.backend, place.server)
            if row:
                at[str(place)] = {"status": str(row.status), "active": row.scur, "queued": row.qcur}
        nodes[node.name] = {
            "release": look.disk.current if look.disk else None,
            "releases": list(look.disk.releases) if look.disk else [],
            "check": look.check.status if look.check else None,
            "flag": look.disk.flag if look.disk else None,
            "servers": at,
            "error": status.survey.errors.get(node.name),
        }
    state = status.rollout
    told = {
        "v": 1,
        "app": status.cluster.app,
        "nodes": nodes,
        "balancers": {name: {"error": look.error} for name, look in status.survey.tables.items()},
        "lease": None
        if status.lease is None
        else {
            "rollout": status.lease.rollout,
            "holder": str(status.lease.holder),
            "token": status.lease.token,
        },
        "rollout": None
        if state is None
        else {
            "id": state.id,
            "verb": state.verb,
            "outcome": state.ended,
            "open": state.open,
            "nodes": {
                name: {"way": at.way, "step": at.step, "outcome": at.outcome, "flagged": at.flagged}
                for name, at in state.nodes.items()
            },
        },
    }
    return json.dumps(told, indent=2)
