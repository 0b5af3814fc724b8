"""Looking at a cluster: what is where, and what the journal says. Touches nothing, and loads little."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from drainctl.errors import ConfigError, DrainctlError
from drainctl.journal.door import Lease, Store
from drainctl.journal.replay import RolloutState, replay
from drainctl.model import Cluster, FlagCommands, Place, Survey
from drainctl.node.fence import Claim
from drainctl.node.shell import holder
from drainctl.rollout.from_nodes import Found, found
from drainctl.rollout.places import find_places
from drainctl.rollout.survey import Inspect, survey
from drainctl.threads import in_parallel
from drainctl.wire import Wired


@dataclass(frozen=True, slots=True)
class Status:
    """
    Every node at every balancer, what its disk says, who holds the lease, and the open or latest rollout.

    notes: what drainctl.yml names and the balancers do not have.
    """

    cluster: Cluster
    survey: Survey
    places: Mapping[str, tuple[Place, ...]]
    lease: Lease | None
    rollout: RolloutState | None
    notes: Sequence[str] = ()


def look_around(wired: Wired, inspect: Inspect | None = None) -> Survey:
    """What is seen now of every balancer and node; faults are part of it. inspect: see `survey`."""
    return survey(wired.cluster, wired.fleet, wired.hosts, wired.http, wired.machines, inspect)


def status(wired: Wired) -> Status:
    """Everything that `drainctl status` shows; the journal is read while balancers and nodes answer."""
    cluster, seen = wired.cluster, Survey({})
    lease: Lease | None = None
    state: RolloutState | None = None

    def look() -> None:
        nonlocal seen
        seen = look_around(wired)

    def remember() -> None:
        nonlocal lease, state
        lease = wired.store.held(cluster.app)
        latest = wired.store.latest(cluster.app)
        state = open_rollout(wired.store, cluster.app) or (state_of(wired.store, latest) if latest else None)

    in_parallel([look, remember])
    notes: list[str] = []
    try:
        places = find_places(cluster, seen.tables)
    except ConfigError as error:
        places, notes = {node.name: () for node in cluster.nodes}, str(error).splitlines()
    shown = as_seen(state, cluster, seen) if state else None
    return Status(cluster, seen, places, lease, shown, tuple(notes))


def from_nodes(wired: Wired) -> tuple[Survey, Found]:
    """What was going on as far as the nodes themselves tell it; no journal is opened."""
    cluster, seen = wired.cluster, look_around(wired)
    claims: dict[str, Sequence[Claim]] = {}

    def ask(name: str) -> None:
        with suppress(DrainctlError):  # as if there were no fence: the survey tells whether it was reached
            claims[name] = wired.hosts[name].claims()

    in_parallel([partial(ask, name) for name in seen.nodes])
    return seen, found(cluster, seen, claims)


def as_seen(state: RolloutState, cluster: Cluster, seen: Survey) -> RolloutState:
    """
    The state with each flag as the node itself shows it: the journal only knows what was intended.

    Where the flag cannot be read (commands set it, or the node was not reached) the journal's word stays.
    """
    if isinstance(cluster.health.flag, FlagCommands):
        return state
    disks = {name: look.disk for name, look in seen.nodes.items() if look.disk and name in state.nodes}
    nodes = {
        name: state.nodes[name]._replace(flagged=holder(disk.flag or "") == state.id)
        for name, disk in disks.items()
    }
    return state._replace(nodes={**state.nodes, **nodes})


def open_rollout(store: Store, app: str) -> RolloutState | None:
    """
    The rollout that is not finished, if there is one: there is never more than one.

    Nodes may be drained and restored by hand meanwhile, which are rollouts too, so it need not be the latest.
    """
    for rollout in store.rollouts(app, limit=1000):
        state = state_of(store, rollout)
        if state.open:
            return state
        if state.verb not in {"drain", "restore"}:
            return None
    return None


def state_of(store: Store, rollout: str) -> RolloutState:
    """One rollout by its journal. Raises: ConfigError when the journal has none of that id."""
    events = store.events(rollout)
    if not events:
        raise ConfigError(f"no rollout {rollout!r} in the journal", hint="`drainctl history` lists them")
    return replay(rollout, events)
