"""
A node whose releases are images: a Host, for which the container itself is the release.

What a shell in the container does for other nodes is done there while it runs. What must be done while it
does not run, or before it runs, goes through the engine (node.container).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import suppress

from drainctl.errors import CommandFailed, ConnectFailed, Fenced
from drainctl.model import Cluster, ContainerLook, Disk, FlagFile, Node, Release
from drainctl.node import fence, shell
from drainctl.node.container import By, Container
from drainctl.node.docker import DockerTransport
from drainctl.node.fence import Claim, Fence
from drainctl.node.host import STAGE_LIMIT_S, Getter, Host

STOPPED = "not raised: the container does not run"


class ContainerHost(Host):
    """A container of one node; see Host for what every method may raise."""

    def __init__(
        self,
        node: Node,
        cluster: Cluster,
        transport: DockerTransport,
        http: Getter,
        fill: Callable[[str], str],
        by: Fence | None = None,
    ) -> None:
        super().__init__(node, cluster, transport, http, fill, by)
        self._docker = transport
        flag = cluster.health.flag
        self._path = fill(flag.path) if isinstance(flag, FlagFile) else ""
        self._it = Container(transport.engine, transport.container, self._path)
        self._had = ""  # the release that it had when it was taken over

    def fenced(self, by: Fence) -> ContainerHost:
        """See Host.fenced."""
        return ContainerHost(self._node, self._cluster, self._docker, self._http, self._fill, by)

    def claim(self, wait_s: float) -> str:
        """See Host.claim. One that does not run is only asked who has been there."""
        with self._named():
            look = self._it.look()
            self._had = look.release or ""
            if look.running:
                return super().claim(wait_s)
            self._refuse_newer("take it over")
        return STOPPED

    def claims(self) -> tuple[Claim, ...]:
        """See Host.claims."""
        place = self._place
        with self._named():
            return fence.parse(self._it.file(place.file) or "") if place else ()

    def container(self) -> ContainerLook | None:
        """Its state at the engine."""
        with self._named():
            return self._it.look()

    def disk(self) -> Disk:
        """The live container's release, those of the kept ones, and the flag."""
        with self._named():
            return self._it.disk()

    def set_flag(self, text: str) -> None:
        """See Host.set_flag; into a container that does not run it is put through the engine."""
        with self._named():
            if self._it.running():
                try:
                    super().set_flag(text)
                except (ConnectFailed, CommandFailed):
                    look = self._it.look()
                    if look.running and not look.restarts:
                        raise  # else it ended just now, or ends and is started again and again
                else:
                    return
            self._refuse_newer("set the flag")
            held = self._it.file(self._path)
            if held is not None and shell.holder(held) not in (None, shell.holder(text)):
                raise self._held(held)
            self._it.write_flag(text)

    def stage(self, release: Release, limit_s: float = STAGE_LIMIT_S) -> str:
        """
        Bring the image to the engine: it is there, is loaded, or is pulled. Returns: its id.

        Raises: CommandFailed, ReleaseError; nothing that runs was touched.
        """
        del limit_s  # the engine's own limits end a pull
        with self._named():
            return self._it.stage(release)

    def replace(self, release: str, ref: str | None, flag: str) -> str:
        """
        Put a container of another release in place of the live one; see Container.replace.

        Raises: Fenced where another controller has been there.
        """
        self._check_fence("replace the container")
        by = By(self._fence.rollout, self._fence.token) if self._fence else By("", 0)
        with self._named():
            return self._it.replace(release, ref, by, flag)

    def restart_container(self) -> str:
        """Stop the container and start it again. Raises: Fenced, as replace."""
        self._check_fence("restart the container")
        with self._named():
            return self._it.restart()

    def changes(self, ref: str) -> tuple[str, ...] | None:
        """What a container of this image will have that the live one has not; None: not on this engine."""
        with self._named():
            return self._it.changes(ref)

    def prune(self, keep: int, protect: Collection[str] = ()) -> tuple[str, ...]:
        """Delete old kept containers (see Container.prune); the deleted ids."""
        self._check_fence("prune releases")
        with self._named():
            return self._it.prune(keep, protect)

    def active(self) -> int | None:
        """See Host.active; none where the container does not run."""
        with self._named():
            return super().active() if self._it.running() else 0

    @property
    def _place(self) -> fence.Place | None:
        place = super()._place
        return place._replace(had=self._had) if place else None

    def _check_fence(self, what: str) -> None:
        """The engine knows no fence: the container is asked right before, by its files or its labels."""
        with self._named():
            if self._it.running():
                with suppress(ConnectFailed):  # as above
                    self._act(what, ":", self._quick_s)
            self._refuse_newer(what)

    def _refuse_newer(self, what: str) -> None:
        if self._fence is None or self._fence.steal:
            return
        place = self._place
        said = fence.parse((self._it.file(place.file) if place else "") or "")
        label = self._it.newest()
        newest = max([*((claim.token, claim.rollout) for claim in said), (label.token, label.rollout)])
        if newest[0] > self._fence.token:
            name = self._node.name
            raise Fenced(
                f"{name}: {what} was refused: rollout {newest[1]}, token {newest[0]}, has taken it over",
                node=name,
                left="no further act is started",
            )
