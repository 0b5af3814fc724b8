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
from drainctl.machines import Machines
from drainctl.model import Cluster, Node, Place, Release, WarmUp, Word
from drainctl.nginx import lines
from drainctl.node.host import Host
from drainctl.steps import (
    Act,
    ClearFlag,
    MarkDown,
    MarkUp,
    Nudge,
    OnNode,
    ReplaceContainer,
    RestartContainer,
    RunOnNode,
    SetFlag,
    SetState,
    ShutdownSessions,
    Stage,
    Switch,
    Warm,
    WriteUpstream,
)
from drainctl.strategies import port_flip

WRITE_LIMIT_S = 30.0


class Performer:
    """Performs acts for one rollout. flag_text: what the flag says of it; its id is in there."""

    def __init__(
        self,
        cluster: Cluster,
        fleet: Fleet,
        hosts: Mapping[str, Host],
        http: Http,
        places: Mapping[str, tuple[Place, ...]],
        machines: Machines,
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
        self._machines = machines
        self._rollout = rollout
        self._release = release
        self._flag_text = flag_text
        self._steal = steal
        self._images: dict[str, str] = {}  # by node, the image that its engine has for this release

    def __call__(self, node: Node, act: Act) -> str:
        """
        Do `act` on `node`, and say in words what was done.

        Raises: TransportError, ReleaseError; balancers that refuse a nudge are told in the words instead,
        since a nudge only saves time.
        """
        match act:
            case Nudge(health):
                return self._nudge(node, health)
            case SetState(state):
                return self._set_state(node, state)
            case ShutdownSessions():
                return self._cut(node)
            case SetFlag() | ClearFlag():
                return self._turn(self._hosts[node.name], act)
            case MarkDown(lasts_s, why):
                return self._machines.down(node, self._rollout, why, lasts_s)
            case MarkUp():
                return self._machines.up(node, self._rollout)
            case Warm(pages):
                return "; ".join(self._warm(node, page) for page in pages)
            case ReplaceContainer() | RestartContainer():
                return self._container(node, act)
        return self._on_node(node, act)

    def _turn(self, host: Host, act: SetFlag | ClearFlag) -> str:
        if isinstance(act, SetFlag):
            if self._steal:
                host.clear_flag(self._rollout, steal=True)
            host.set_flag(self._flag_text())
            return "flag set"
        host.clear_flag(self._rollout, steal=self._steal)
        return "flag taken away"

    def _on_node(self, node: Node, act: Stage | Switch | RunOnNode | OnNode | WriteUpstream) -> str:
        host = self._hosts[node.name]
        match act:
            case Stage():
                if self._release is None:
                    raise CommandFailed(f"{node.name}: no release to stage", node=node.name)
                staged = host.stage(self._release)
                if self._release.image:
                    return self._same_image(node, self._release.image, staged)
                return f"releases/{self._release.id} is there"
            case Switch(release):
                host.switch(release)
                return f"current -> {release}"
            case RunOnNode(line, limit_s, target, more):
                known = {**values_of(self._cluster, node, target), **more}
                done = host.run(fill(line, known), limit_s=limit_s)
                said = (done.out.strip() or done.err.strip() or f"exit {done.code}").splitlines()
                return said[-1][:200]
            case OnNode(line, told, limit_s):
                return host.do(told, line, limit_s).out.strip()
            case WriteUpstream():
                return self._write_upstream(node, act)

    def _container(self, node: Node, act: ReplaceContainer | RestartContainer) -> str:
        host = self._hosts[node.name]
        if isinstance(act, RestartContainer):
            return host.restart_container()
        ref = self._release.image if act.anew and self._release else None
        return host.replace(act.release, ref, self._flag_text())

    def _same_image(self, node: Node, ref: str, image: str) -> str:
        """One tag is one image on all engines. Raises: CommandFailed where another node has another."""
        self._images[node.name] = image
        other = next((name for name, there in self._images.items() if there != image), None)
        if other is not None:
            raise CommandFailed(
                f"{node.name}: {ref} is {image[:19]} here, {self._images[other][:19]} on {other}",
                node=node.name,
                hint=f"`docker pull {ref}` on the engine that is behind, or deploy by another tag",
            )
        return f"{ref} is there ({image[:19]})"

    def nudge_out(self, node: Node, balancer: str) -> str:
        """Tell one balancer again that the node is out: it was reloaded and forgot."""
        if self._cluster.drain.sticky == "move":
            return self._set_state(node, "maint", only=balancer)
        return self._nudge(node, "stopping", only=balancer)

    def _nudge(self, node: Node, health: Literal["stopping", "up"], only: str | None = None) -> str:
        def tell(place: Place, door: BalancerDoor) -> None:
            door.set_health(place.backend, place.server, health)

        return self._tell(node, f"health {health}", tell, only)

    def _cut(self, node: Node) -> str:
        def tell(place: Place, door: BalancerDoor) -> None:
            door.shutdown_sessions(place.backend, place.server)

        return self._tell(node, "shutdown sessions", tell)

    def _set_state(self, node: Node, state: str, only: str | None = None) -> str:
        """MAINT, or out of it: `ready` is told only to balancers that show MAINT; others need no word."""
        shown = self._fleet.look() if state == "ready" else {}

        def tell(place: Place, door: BalancerDoor) -> None:
            look = shown.get(place.balancer)
            row = look.row(place.backend, place.server) if look else None
            if state == "maint":
                door.set_state(place.backend, place.server, "maint")
            elif row is not None and row.status.word is Word.MAINT:
                door.set_state(place.backend, place.server, "ready")

        return self._tell(node, f"state {state}", tell, only)

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

    def _write_upstream(self, node: Node, act: WriteUpstream) -> str:
        """Render, put in place, let nginx test it; the old file comes back where that fails."""
        nginx = port_flip.nginx_of(self._cluster, node)
        line = lines.put(str(nginx.file), port_flip.upstream_text(nginx, act), nginx.test)
        return self._hosts[node.name].do(f"write {nginx.file}", line, WRITE_LIMIT_S).out.strip()

    def prune(self, node: Node, protect: frozenset[str]) -> str:
        """Delete the releases beyond `release.keep`, never one of `protect`; says which, "" where none."""
        layout = self._cluster.images or self._cluster.release
        if layout is None:
            return ""
        gone = self._hosts[node.name].prune(layout.keep, protect)
        return f"deleted {', '.join(gone)}" if gone else ""

    def _warm(self, node: Node, page: WarmUp) -> str:
        """
        Ask one page until it was asked often enough, or answered quickly enough.

        Raises: CommandFailed when an answer is an error: a release that fails here must not meet users.
        """
        health = self._cluster.health
        known = values_of(self._cluster, node, None)
        check = urlsplit(fill(health.check or health.version or health.ready or "", known))
        url = f"{check.scheme}://{check.netloc}{page.path}"
        took_s: list[float] = []
        for _ in range(page.times):
            answer = self._http.get(url, timeout_s=max(health.timeout_s, 30.0))
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
