"""A status as text or JSON. Pure."""

from __future__ import annotations

import json
import time
from typing import Any

from drainctl.model import NodeLook
from drainctl.overview import Status
from drainctl.report.text import columns
from drainctl.rollout import ending


def status_text(status: Status) -> str:
    """A table of nodes × balancers, then what a person must know: lease, open rollout, faults."""
    balancers = [balancer.name for balancer in status.cluster.balancers]
    rows = [["node", "release", "check", *balancers, "flag"]]
    for node in status.cluster.nodes:
        look = status.survey.nodes.get(node.name, NodeLook())
        release = (look.disk.current if look.disk else None) or "-"
        told = [_at(status, node.name, balancer) for balancer in balancers]
        rows.append([node.name, release, str(look.check or "-"), *told, _flag(look)])
    lines = columns(rows)
    wrong = {name: look.error for name, look in status.survey.tables.items() if look.error}
    wrong |= status.survey.errors
    lines += [f"{name}: {why.removeprefix(f'{name}: ')}" for name, why in wrong.items()]
    lines += status.notes
    if status.lease:
        since = time.strftime("%H:%M:%S UTC", time.gmtime(status.lease.since_s))
        lines += ["", f"rollout {status.lease.rollout} is run by {status.lease.holder} since {since}"]
    state = status.rollout
    if state and state.open and not status.lease:
        why = state.ended or "its controller died"
        lines += ["", f"rollout {state.id} ({state.verb}) is not finished: {why}"]
        lines += [f"  {line}" for line in ending.lines(state)]
    return "\n".join(lines)


def _at(status: Status, node: str, balancer: str) -> str:
    """`UP 3` for a server that is UP with three requests in flight; `?` where the balancer cannot be read."""
    look = status.survey.tables.get(balancer)
    if look is None or look.error:
        return "?"
    rows = [
        row
        for place in status.places.get(node, ())
        if place.balancer == balancer and (row := look.row(place.backend, place.server))
    ]
    told = {f"{row.status}": 0 for row in rows}
    for row in rows:
        told[str(row.status)] += row.scur
    return ", ".join(f"{word} {busy}" if busy else word for word, busy in told.items()) or "-"


def _flag(look: NodeLook) -> str:
    text = look.disk.flag if look.disk else None
    if text is None:
        return ""
    try:
        told = json.loads(text.partition("\n")[0])
        return f"{told['verb']} {told['rollout']} by {told['by']} at {told['at']}"
    except (ValueError, KeyError, TypeError):
        return text.strip()[:60] or "(empty)"


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
