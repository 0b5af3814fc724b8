"""All that doctor looks at, gathered before anything is judged. Values only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from drainctl.haproxy_cfg.model import HaproxyCfg, Proxy, Server
from drainctl.journal.door import Lease
from drainctl.journal.replay import RolloutState
from drainctl.model import BalancerLook, Cluster, Node, Place, Process, ServerRow, Survey
from drainctl.nginx.settings import Settings


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder and who may pass through it. mode: nine letters as `ls` writes them (`rwxr-x---`)."""

    path: str
    mode: str
    uid: int
    gid: int

    def lets_in(self, user: User) -> bool:
        """Whether the user may search it. Source: path_resolution(7): owner, else group, else others."""
        if user.uid == 0:
            return True
        at = 2 if user.uid == self.uid else 5 if self.gid in user.groups else 8
        return self.mode[at] in "xst"


@dataclass(frozen=True, slots=True)
class User:
    """Who a process of the node runs as. groups: its main group and the others."""

    uid: int
    groups: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """
    What a node's disk, programs and clock say, by one command that changes nothing.

    now_s: the node's clock, seconds since 1970. asked_s, answered_s: the controller's, before and after.
    tools: those of the asked ones that are there. restart: the program of service.restart is there (None:
    not asked, as is every None). sudo: it may run it without a password. flag_folder: "writable", "there"
    or "missing". flag_path: the folders above the flag, the deepest first. serving: who listens on the
    check's port. unwritable: folders below release.root that this user cannot write, or root itself.
    current: "link", "dangling" (to nothing), "real" or "none". free_kb, release_kb: room on the disk, size
    of the current release. lacks: files of release.shared that are not there. unfenced: files of the node's
    fence that this user cannot write.
    """

    now_s: int = 0
    asked_s: float = 0.0
    answered_s: float = 0.0
    user: str = ""
    tools: frozenset[str] = frozenset()
    restart: bool | None = None
    sudo: bool | None = None
    flag_folder: str | None = None
    flag_path: tuple[Folder, ...] = ()
    serving: tuple[User, ...] = ()
    unwritable: tuple[str, ...] = ()
    current: str | None = None
    free_kb: int | None = None
    release_kb: int | None = None
    lacks: tuple[str, ...] = ()
    unfenced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """
    A command of drainctl.yml on one node. there: its program is. may: sudo runs it without a password.
    None: not asked.
    """

    key: str
    line: str
    there: bool | None = None
    may: bool | None = None


@dataclass(frozen=True, slots=True)
class Gunicorn:
    """
    The running master. words: its command line and GUNICORN_CMD_ARGS. cwd: its working folder, as the kernel
    has it, links resolved. pwd: $PWD that it was started with, "" for none, None where that may not be read.
    config: what its configuration file says of chdir, pythonpath and preload_app, line by line. unit: the
    systemd unit whose main process it is, "" for none.
    """

    pid: int
    words: tuple[str, ...] = ()
    cwd: str = ""
    pwd: str | None = None
    config: tuple[str, ...] = ()
    unit: str = ""


@dataclass(frozen=True, slots=True)
class InPlace:
    """
    What the in-place strategies meet on a node, by a second command that changes nothing.

    folder: of the upstream file, as NodeFacts.flag_folder. version: of nginx, () where it is not known.
    conf: what nginx's whole configuration says of the upstream; None, with conf_error, where it could not be
    read, or was not asked (no conf_error). sockets: every unix socket that it connects to. servers: app
    servers that run below release.root, of those whose reload is known to be no good.
    """

    folder: str | None = None
    commands: tuple[Command, ...] = ()
    version: tuple[int, ...] = ()
    conf: Settings | None = None
    conf_error: str = ""
    sockets: frozenset[str] = frozenset()
    gunicorn: Gunicorn | None = None
    servers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Picture:
    """
    One look at a cluster and at what surrounds it.

    unknown: what drainctl.yml names and a balancer has not. again: each balancer's process a moment after
    the survey. in_place: of the nodes that have an in-place strategy. unlooked: {node: why its facts are
    missing}. unknown_keys: {node: the command that fetches the key which no known_hosts file has}. cfgs:
    {balancer: its haproxy.cfg}, where one was given.
    """

    cluster: Cluster
    survey: Survey
    places: Mapping[str, tuple[Place, ...]]
    unknown: tuple[str, ...] = ()
    again: Mapping[str, Process | None] = field(default_factory=dict)
    facts: Mapping[str, NodeFacts] = field(default_factory=dict)
    in_place: Mapping[str, InPlace] = field(default_factory=dict)
    unlooked: Mapping[str, str] = field(default_factory=dict)
    unknown_keys: Mapping[str, str] = field(default_factory=dict)
    cfgs: Mapping[str, HaproxyCfg] = field(default_factory=dict)
    lease: Lease | None = None
    rollout: RolloutState | None = None
    journal_error: str | None = None

    @property
    def drains(self) -> bool:
        """Whether some node leaves rotation by its health page."""
        return any("http-check" in node.strategy for node in self.cluster.nodes)

    @property
    def looks(self) -> Iterator[BalancerLook]:
        """The balancers that could be read."""
        return (look for look in self.survey.tables.values() if not look.error)

    def rows(self) -> Iterator[tuple[Node, Place, ServerRow]]:
        """Every server that is one of the nodes, as its balancer shows it."""
        for node in self.cluster.nodes:
            for place in self.places.get(node.name, ()):
                row = self.survey.tables[place.balancer].row(place.backend, place.server)
                if row is not None:
                    yield node, place, row

    def served(self) -> list[tuple[str, str]]:
        """(balancer, backend) of every backend that a node is in."""
        return list(dict.fromkeys((place.balancer, place.backend) for _, place, _ in self.rows()))

    def can_nudge(self, balancer: str) -> bool:
        """Whether its socket is of level admin. An unread balancer gets the benefit of the doubt."""
        look = self.survey.tables.get(balancer)
        return look is None or look.error is not None or look.can_change

    def configured(self) -> Iterator[tuple[str, HaproxyCfg, Proxy, list[tuple[Node, Server]]]]:
        """Each backend of each haproxy.cfg that has servers which are nodes, with those."""
        wanted = self.cluster.backends
        for balancer, cfg in self.cfgs.items():
            for proxy in cfg.backends:
                pairs = [
                    (node, server)
                    for server in proxy.all_servers
                    for node in self.cluster.nodes
                    if self._is(node, server)
                ]
                if pairs and (not wanted or proxy.name in wanted):
                    yield balancer, cfg, proxy, pairs

    def _is(self, node: Node, server: Server) -> bool:
        if self.cluster.match == "name":
            return server.name == node.server
        return server.address.host == node.host
