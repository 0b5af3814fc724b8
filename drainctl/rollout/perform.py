"""Does an act through the adapters. No judgement here; every act may be done twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal
from urllib.parse import urlsplit

from drainctl.balancer.door import BalancerDoor
from drainctl.balancer.fleet import Fleet
from drainctl.config.placeholders import fill, values_of
from drainctl.errors import BalancerError, CommandFailed
from drainctl.http import Http
from drainctl.model import Cluster, Node, Place, Release, WarmUp, Word
from drainctl.node.host import Host
from drainctl.steps import (
    Act,
    ClearFlag,
    Nudge,
    RunOnNode,
    SetFlag,
    SetState,
    ShutdownSessions,
    Stage,
    Switch,
    Warm,
)


class Performer:
    """Performs acts for one rollout. flag_text: what the flag says of it; its id is in there."""

    def __init__(
        self,
        cluster: Cluster,
        fleet: Fleet,
        hosts: Mapping[str, Host],
        http: Http,
        places: Mapping[str, tuple[Place, ...]],
        *,
        rollout: str,
        release: Release | None,
        flag_text: Callable[[], str],
        steal: bool = False,
    ) -> None:
        self._cluster = cluster
        self._fleet = fleet
        self._hosts = hosts
        self._http = http
        self._places = places
        self._rollout = rollout
        self._release = release
        self._flag_text = flag_text
        self._steal = steal

    def __call__(self, node: Node, act: Act) -> str:
        """
        Do `act` on `node`, and say in words what was done.

        Raises: TransportError, ReleaseError; balancers that refuse a nudge are told in the words instead,
        since a nudge only saves time.
        """
        host = self._hosts[node.name]
        match act:
            case SetFlag():
                if self._steal:
                    host.clear_flag(self._rollout, steal=True)
                host.set_flag(self._flag_text())
                return "flag set"
            case ClearFlag():
                host.clear_flag(self._rollout, steal=self._steal)
                return "flag taken away"
            case Nudge(health):
                return self._nudge(node, health)
            case SetState(state):
                return self._set_state(node, state)
            case ShutdownSessions():
                return self._cut(node)
            case Stage():
                if self._release is None:
                    raise CommandFailed(f"{node.name}: no release to stage", node=node.name)
                host.stage(self._release)
                return f"releases/{self._release.id} is there"
            case Switch(release):
                host.switch(release)
                return f"current -> {release}"
            case RunOnNode(line, limit_s, target):
                done = host.run(fill(line, values_of(self._cluster, node, target)), limit_s=limit_s)
                said = (done.out.strip() or done.err.strip() or f"exit {done.code}").splitlines()
                return said[-1][:200]
            case Warm(pages):
                return "; ".join(self._warm(node, page) for page in pages)

    def nudge_out(self, node: Node, balancer: str) -> str:
        """Tell one balancer again that the node is stopping: it was reloaded and forgot."""
        return self._nudge(node, "stopping", only=balancer)

    def _nudge(self, node: Node, health: Literal["stopping", "up"], only: str | None = None) -> str:
        def tell(place: Place, door: BalancerDoor) -> None:
            door.set_health(place.backend, place.server, health)

        return self._tell(node, f"health {health}", tell, only)

    def _cut(self, node: Node) -> str:
        def tell(place: Place, door: BalancerDoor) -> None:
            door.shutdown_sessions(place.backend, place.server)

        return self._tell(node, "shutdown sessions", tell)

    def _set_state(self, node: Node, state: str) -> str:
        """MAINT, or out of it: `ready` is told only to balancers that show MAINT; others need no word."""
        shown = self._fleet.look() if state == "ready" else {}

        def tell(place: Place, door: BalancerDoor) -> None:
            look = shown.get(place.balancer)
            row = look.row(place.backend, place.server) if look else None
            if state == "maint":
                door.set_state(place.backend, place.server, "maint")
            elif row is not None and row.status.word is Word.MAINT:
                door.set_state(place.backend, place.server, "ready")

        return self._tell(node, f"state {state}", tell)

    def _tell(
        self,
        node: Node,
        what: str,
        tell: Callable[[Place, BalancerDoor], None],
        only: str | None = None,
    ) -> str:
        """Tell every balancer whose socket allows it; say who was told and who refused."""
        told, refused = [], []
        last = self._fleet.last()
        for place in self._places[node.name]:
            look = last.get(place.balancer)
            if (only and place.balancer != only) or look is None or not look.can_change:
                continue
            try:
                self._fleet.act(place.balancer, partial(tell, place))
            except BalancerError as error:
                refused.append(f"{place}: {error}")
            else:
                told.append(place.balancer)
        words = [f"{what} told to {', '.join(dict.fromkeys(told))}"] if told else []
        return "; ".join(words + refused) or "no balancer's socket allows it: their checks decide"

    def prune(self, node: Node, protect: frozenset[str]) -> str:
        """Delete the releases beyond `release.keep`, never one of `protect`; says which, "" where none."""
        layout = self._cluster.release
        if layout is None:
            return ""
        gone = self._hosts[node.name].prune(layout.keep, protect)
        return f"deleted {', '.join(gone)}" if gone else ""

    def _warm(self, node: Node, page: WarmUp) -> str:
        """
        Ask one page until it was asked often enough, or answered quickly enough.

        Raises: CommandFailed when an answer is an error: a release that fails here must not meet users.
        """
        check = urlsplit(fill(self._cluster.health.check, values_of(self._cluster, node, None)))
        url = f"{check.scheme}://{check.netloc}{page.path}"
        took_s: list[float] = []
        for _ in range(page.times):
            answer = self._http.get(url, timeout_s=max(self._cluster.health.timeout_s, 30.0))
            if answer.status is None or answer.status >= 500:
                raise CommandFailed(f"{node.name}: warm-up GET {page.path} answers {answer}", node=node.name)
            took_s.append(answer.took_s)
            if page.under_s is not None and took_s[-1] <= page.under_s:
                break
        if page.under_s is not None and took_s[-1] > page.under_s:
            raise CommandFailed(
                f"{node.name}: warm-up GET {page.path} still takes {took_s[-1] * 1000:.0f} ms after "
                f"{page.times} asks, under = {page.under_s * 1000:.0f} ms",
                node=node.name,
            )
        return f"{page.path} × {len(took_s)}, last {took_s[-1] * 1000:.0f} ms"
