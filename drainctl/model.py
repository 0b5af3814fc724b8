"""
The nouns of drainctl: what drainctl.yml describes, and what is seen of the world.

Everything here is a frozen value without I/O, most a NamedTuple: that costs a fifth of a dataclass to define
and less to make, and every command loads this module. Seconds end in `_s`; addresses are text as HAProxy or
drainctl.yml writes them. `Cluster` and what it holds come from `drainctl.config`; `BalancerLook` from
`drainctl.balancer`; `NodeLook` from `drainctl.rollout.observe`. What is judged and done is in
`drainctl.steps`, apart, because looking at a cluster does not need it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

NOTHING: Mapping[str, Any] = MappingProxyType({})

# ---------------------------------------------------------------- what drainctl.yml describes


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that is used but never shown: its text form is a mask."""

    value: str = field(repr=False)

    def __str__(self) -> str:
        return "***"


class Amount(NamedTuple):
    """A count (`4`) or a share (`50%`) of something."""

    number: int
    percent: bool = False

    def of(self, total: int) -> int:
        """How many of `total` this is; a share is rounded up: it is a promise of at least that."""
        return -(-total * self.number // 100) if self.percent else self.number

    def __str__(self) -> str:
        return f"{self.number}%" if self.percent else str(self.number)


class Balancer(NamedTuple):
    """
    One HAProxy process and how it is reached.

    `runtime` is `unix:/path` or `tcp://host:port`; `master` is `unix:/path` of the master CLI (`-S`);
    `stats` is the URL of a stats page (read only). Exactly one of `runtime` and `stats` is set. `ssh`
    (`[user@]host[:port]`) says that the sockets are on that machine.
    """

    name: str
    runtime: str | None = None
    master: str | None = None
    stats: str | None = None
    auth: Secret | None = None
    ca: str | None = None
    ssh: str | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """
    One machine that runs the app, or one container. `server` is its name in HAProxy; `port` overrides
    connect.port; `container` is its name at the engine, the node's own where it is "".
    """

    name: str
    host: str
    server: str
    strategy: tuple[str, ...]
    user: str | None = None
    port: int | None = None
    vars: Mapping[str, str] = field(default_factory=dict)
    container: str = ""


class Connect(NamedTuple):
    """
    How nodes are reached: `via` ssh, local or docker; paths are expanded; None means what ssh_config says.

    engine: URL of the Docker engine, with placeholders; None means what the environment says. user: also who
    commands in a container run as. ca, cert and key: files for an engine reached by TLS.
    """

    via: Literal["ssh", "local", "docker"] = "ssh"
    user: str | None = None
    port: int | None = None
    key: str | None = None
    known_hosts: str | None = None
    timeout_s: float = 10.0
    engine: str | None = None
    ca: str | None = None
    cert: str | None = None


class ReleaseLayout(NamedTuple):
    """Capistrano's layout below `root`: releases/<id>, shared/, current."""

    root: str
    keep: int = 5
    shared: tuple[str, ...] = ()


class ImageReleases(NamedTuple):
    """
    Releases that are images: a node is a container, and is replaced by one of another image.

    repository: `registry/shop`; a release's id is its tag. keep: containers that stay, the live one too.
    """

    repository: str
    keep: int = 5


class Reload(NamedTuple):
    """
    How the app server takes a new release without being stopped: `command`, or gunicorn's own way.

    gunicorn: path of its pid file. by: "usr2" starts a second master and ends the first (TERM) when the
    second serves; "hup" lets the master replace its workers. Source: gunicorn docs, "Signal Handling".
    """

    command: str | None = None
    gunicorn: str | None = None
    by: Literal["usr2", "hup"] = "usr2"


class Service(NamedTuple):
    """
    The commands that change the app's process; `{placeholders}` are not filled in yet.

    start, stop: one process of several, by `{port}`, `{socket}` or `{release}`. ports: the two ports of
    port-flip and backup. address: where the app listens on the node. ask: a command that asks a process
    which does not speak HTTP for `{path}`. sockets: the two of backup instead of ports, the live one first.
    """

    restart: str | None = None
    limit_s: float = 60.0
    start: str | None = None
    stop: str | None = None
    ports: tuple[int, ...] = ()
    address: str = "127.0.0.1"
    ask: str | None = None
    reload: Reload | None = None
    sockets: tuple[str, ...] = ()


class Nginx(NamedTuple):
    """
    The nginx on each node, for the strategies that work through it.

    upstream: the block's name. file: what drainctl writes. template: a jinja2 file of one's own.
    generation: URL that answers with which configuration a worker was started. worker_limit_s: how long
    old workers may live. fail_timeout_s: nginx's own, 0 where max_fails=0. clients: what becomes of idle
    client connections at a reload: "nudge" takes the node out at the balancers for that moment, "kept"
    says that this set-up loses none, "lost" accepts that some requests are; backup on ports asks for one of
    the last two, since an app that ends may lose POSTs.
    """

    upstream: str
    file: str | None = None
    template: str | None = None
    test: str = "nginx -t"
    reload: str = "nginx -s reload"
    pid: str = "/run/nginx.pid"
    generation: str | None = None
    worker_limit_s: float = 60.0
    fail_timeout_s: float = 10.0
    clients: Literal["nudge", "kept", "lost"] = "nudge"


class Socket(NamedTuple):
    """current: the link that nginx or HAProxy connects to. each: a release's own socket, by `{release}`."""

    current: str
    each: str


class Arb(NamedTuple):
    """
    Machines of a replicated data store. board: where down marks are kept. pairs: machines with the same
    data. check, lag, active: URLs; lag answers seconds, active a number of queries.
    """

    board: str
    pairs: tuple[tuple[str, ...], ...]
    check: str
    lag: str | None = None
    most_lag_s: float = 5.0
    active: str | None = None


@dataclass(frozen=True, slots=True)
class FlagFile:
    """While this file exists, /http-check answers 404."""

    path: str


@dataclass(frozen=True, slots=True)
class FlagCommands:
    """Commands that turn the check off and on; `{text}` is replaced by the flag's text, shell-quoted."""

    set: str
    clear: str


@dataclass(frozen=True, slots=True)
class FlagHttp:
    """PUT with the flag's text turns the check off, DELETE turns it on, GET answers the text or 404."""

    url: str


Flag = FlagFile | FlagCommands | FlagHttp


class Health(NamedTuple):
    """
    How a node is asked how it does. URLs may hold placeholders.

    check: what HAProxy asks; it is empty, and the flag None, where no node leaves rotation. ready: 200 when
    the app can serve (default: not asked). version: its body names the release (default: not asked). active:
    "ss" counts requests in flight on the node's own sockets, "none" does not, anything else is a command
    that prints the number.
    """

    check: str = ""
    flag: Flag | None = None
    ready: str | None = None
    version: str | None = None
    active: str = "ss"
    timeout_s: float = 2.0


class WarmUp(NamedTuple):
    """GET `path` `times` times; with `under_s`, until one answer took no longer (at most `times` asks)."""

    path: str
    times: int = 1
    under_s: float | None = None


class RolloutPolicy(NamedTuple):
    """How a rollout goes over the nodes, and when it stops."""

    at_once: Amount = Amount(1)
    canary: int = 0
    keep_up: Amount = Amount(50, percent=True)
    max_failed: int = 0
    on_failure: Literal["roll-back", "halt"] = "roll-back"
    patience_s: float = 60.0


class DrainPolicy(NamedTuple):
    """How long a drain may take and what happens then."""

    limit_s: float = 60.0
    then: Literal["fallback", "wait", "force", "halt"] = "fallback"
    sticky: Literal["wait", "move"] = "wait"
    move_after_s: float = 10.0


class Checks(NamedTuple):
    """HAProxy's check timings on these servers, as its configuration has them; defaults are HAProxy's."""

    inter_s: float = 2.0
    timeout_s: float | None = None
    fall: int = 3
    rise: int = 2
    downinter_s: float | None = None
    spread_percent: int = 0
    slowstart_s: float = 0.0


class WatchPolicy(NamedTuple):
    """How long a restored node is watched and how many errors it may show (beyond its peers' rate)."""

    for_s: float = 10.0
    errors: int = 0


@dataclass(frozen=True, slots=True)
class Cluster:
    """
    One app, its balancers and its nodes: all that drainctl.yml says. `file` is where it was read. Of release
    and images, one at most.
    """

    app: str
    file: str
    balancers: tuple[Balancer, ...]
    nodes: tuple[Node, ...]
    connect: Connect
    release: ReleaseLayout | None
    service: Service
    health: Health
    store: str
    backends: tuple[str, ...] = ()
    match: Literal["name", "address"] = "name"
    warm: tuple[WarmUp, ...] = ()
    rollout: RolloutPolicy = RolloutPolicy()
    drain: DrainPolicy = DrainPolicy()
    checks: Checks = Checks()
    watch: WatchPolicy = WatchPolicy()
    nginx: Nginx | None = None
    socket: Socket | None = None
    arb: Arb | None = None
    images: ImageReleases | None = None

    def node(self, name: str) -> Node:
        """The node of that name. Raises: KeyError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    @property
    def names(self) -> tuple[str, ...]:
        """Node names, in the file's order."""
        return tuple(node.name for node in self.nodes)


# ---------------------------------------------------------------- what a balancer shows

STATUS = re.compile(r"^(UP|DOWN|NOLB|DRAIN|MAINT|no check)(?: (-?\d+)/(\d+))?(?: \((.*)\))?$")


class Word(Enum):
    """The first word of a server's `status` in `show stat`."""

    UP = "UP"
    DOWN = "DOWN"
    NOLB = "NOLB"
    DRAIN = "DRAIN"
    MAINT = "MAINT"
    NO_CHECK = "no check"


class Status(NamedTuple):
    """
    A server's status: `UP`, `UP 1/3`, `NOLB 2/3`, `MAINT (resolution)`, ….

    `steady` is true where no n/m follows: only then has HAProxy made up its mind.
    """

    word: Word
    n: int | None = None
    of: int | None = None
    note: str = ""

    @classmethod
    def parse(cls, text: str) -> Status:
        """Reads a `status` column. Raises: ValueError for a text that HAProxy is not known to write."""
        found = STATUS.match(text)
        if not found:
            raise ValueError(f"unknown server status {text!r}")
        word, n, of, note = found.groups()
        return cls(Word(word), int(n) if n else None, int(of) if of else None, note or "")

    @property
    def steady(self) -> bool:
        return self.n is None

    def __str__(self) -> str:
        count = "" if self.n is None else f" {self.n}/{self.of}"
        return f"{self.word.value}{count}{f' ({self.note})' if self.note else ''}"


class Counters(NamedTuple):
    """Cumulative counters of a `show stat` row since its process started. Names in brackets: columns."""

    sessions: int = 0  # stot
    answered_1xx: int = 0  # hrsp_1xx …
    answered_2xx: int = 0
    answered_3xx: int = 0
    answered_4xx: int = 0
    answered_5xx: int = 0
    connect_errors: int = 0  # econ
    response_errors: int = 0  # eresp
    retries: int = 0  # wretr
    redispatches: int = 0  # wredis
    client_aborts: int = 0  # cli_abrt
    server_aborts: int = 0  # srv_abrt
    failed_checks: int = 0  # chkfail

    def since(self, before: Counters) -> Counters:
        """Field by field, what was counted since; a negative field means that the counters were reset."""
        return Counters(*(now - was for now, was in zip(self, before, strict=True)))

    def plus(self, other: Counters) -> Counters:
        """Field by field, both together."""
        return Counters(*(one + more for one, more in zip(self, other, strict=True)))

    @property
    def fell(self) -> bool:
        """True for a difference in which some counter fell: a new process, so a new baseline."""
        return min(self) < 0

    @property
    def answered_well(self) -> int:
        return self.answered_1xx + self.answered_2xx + self.answered_3xx + self.answered_4xx

    @property
    def errors(self) -> int:
        return self.answered_5xx + self.connect_errors + self.response_errors


class ServerRow(NamedTuple):
    """
    A server as one balancer process shows it (`show stat`, type 4).

    check: `check_status` without its leading `* ` ("L7OK", "INI", "" …). checking: that star was there, a
    check is running. check_code: HTTP code of the last *finished* check, None while unknown. address: the
    `addr` column, "" where the socket's level hides it. since_s: `lastchg`.

    In whole tables only: slowest_s (`ttime_max`, the longest of the requests since the process started),
    agent (`agent_status`, "" without an agent) and tracks (`tracked`, `backend/server`, "" for none).
    """

    backend: str
    server: str
    status: Status
    check: str
    checking: bool
    check_code: int | None
    last_check: str
    weight: int
    role: Literal["active", "backup"]
    scur: int
    qcur: int
    counters: Counters
    iid: int
    sid: int
    address: str = ""
    cookie: str = ""
    since_s: int = 0
    slowest_s: float = 0.0
    agent: str = ""
    tracks: str = ""


class BackendRow(NamedTuple):
    """The BACKEND row of `show stat`: `active`/`backup` count the servers that can take traffic now."""

    backend: str
    status: str
    active: int
    backup: int
    scur: int
    qcur: int
    counters: Counters
    iid: int


class Process(NamedTuple):
    """Which HAProxy process answered (`show info`); `None` fields where only a stats page was read."""

    pid: int | None
    started_at_s: int | None
    uptime_s: int | None
    version: str = ""
    stopping: bool = False


class OldWorker(NamedTuple):
    """A worker that a reload left behind and that still runs (master CLI: `show proc`, `@!PID show stat`)."""

    pid: int
    uptime: str
    rows: tuple[ServerRow, ...]


class BalancerLook(NamedTuple):
    """
    What one balancer showed in one look.

    at_s: monotonic clock when the look *began*, seconds: what it shows is no older. error: why it could
    not be read (then everything else is empty); hint: what helps. rows: the asked servers only, unless the
    whole table was asked. can_change: the socket's level is admin, so a nudge is possible. frontends:
    request counters.
    """

    balancer: str
    at_s: float
    process: Process | None = None
    rows: tuple[ServerRow, ...] = ()
    backends: tuple[BackendRow, ...] = ()
    frontends: tuple[BackendRow, ...] = ()
    old_workers: tuple[OldWorker, ...] = ()
    can_change: bool = False
    error: str | None = None
    hint: str | None = None

    def row(self, backend: str, server: str) -> ServerRow | None:
        return next((row for row in self.rows if (row.backend, row.server) == (backend, server)), None)


class Place(NamedTuple):
    """Where a node stands at a balancer: a server in a backend."""

    balancer: str
    backend: str
    server: str

    def __str__(self) -> str:
        return f"{self.balancer} {self.backend}/{self.server}"


# ---------------------------------------------------------------- what a node shows


class Answer(NamedTuple):
    """One HTTP answer of a node: `status` and the first 4 kB of the body, or `error` when there was none."""

    status: int | None
    body: str = ""
    took_s: float = 0.0
    error: str | None = None

    def __str__(self) -> str:
        return str(self.status) if self.status is not None else (self.error or "no answer")


class Disk(NamedTuple):
    """
    What a node's disk says. current: id of the release that `current` links to, None where there is none.
    releases: ids, newest last. flag: the flag file's text, None where there is no flag. blocked: where
    `current` should be is something that is no link, such as a folder.
    """

    current: str | None = None
    releases: tuple[str, ...] = ()
    flag: str | None = None
    blocked: bool = False


class Said(NamedTuple):
    """What a command line on a node answered: exit code and text; code None: it could not be run."""

    code: int | None
    out: str = ""
    err: str = ""


class Mark(NamedTuple):
    """
    A machine's mark on the down board. by_hand: said by a person or a rollout, so no probe lifts it.
    rollout: which one; "" for a person or a fault.
    """

    by: str
    why: str
    by_hand: bool = False
    rollout: str = ""


class StoreLook(NamedTuple):
    """
    What a machine of a replicated store showed (strategy arb); None where it was not asked. lag_s: seconds
    behind its replica. active: queries that run. mark: None where the board does not show it down.
    board_error: why the board could not be read; then `mark` says nothing.
    """

    check: Answer | None = None
    lag_s: float | None = None
    lag_error: str = ""
    active: int | None = None
    active_error: str = ""
    mark: Mark | None = None
    board_error: str = ""


class ContainerLook(NamedTuple):
    """
    What an engine shows of a node's container. release: its id, None where there is no container. status:
    the engine's word (running, exited, …). health: of its HEALTHCHECK, "" where it has none. code: what it
    exited with. restarts: how often the engine started it again. words: what there is to be told of one
    that does not do: the engine's error, the last health check's output, the last lines that it wrote. fixed:
    why it cannot be replaced, None where it can.
    """

    release: str | None
    status: str = ""
    health: str = ""
    code: int = 0
    oom_killed: bool = False
    restarts: int = 0
    words: str = ""
    fixed: str | None = None

    @property
    def running(self) -> bool:
        return self.status == "running"


class NodeLook(NamedTuple):
    """
    What a node itself showed; None where it was not asked. active: requests in flight on its sockets.
    probe: what a step's own question was answered. inspected: by strategy, what its was, before a rollout.
    store: of a machine of a replicated store; replicas: the others that hold its data, by name. container: of
    a node that is one, where releases are images.
    """

    check: Answer | None = None
    ready: Answer | None = None
    version: Answer | None = None
    disk: Disk | None = None
    active: int | None = None
    active_error: str | None = None
    probe: Said | None = None
    inspected: Mapping[str, Said] = NOTHING
    store: StoreLook | None = None
    replicas: Mapping[str, StoreLook] = NOTHING
    container: ContainerLook | None = None


class Release(NamedTuple):
    """
    One release to be rolled. archive: path of a local tar file, or None where nodes pull `url` or where
    the release is already on the nodes. sha256 is of the archive, lower-case hex. image: `registry/shop:TAG`
    where it is an image, and sha256 is the image's id then.
    """

    id: str
    archive: str | None = None
    sha256: str | None = None
    url: str | None = None
    size: int = 0
    image: str | None = None

    @property
    def to_stage(self) -> bool:
        """Whether it has to be brought to the nodes first."""
        return self.archive is not None or self.url is not None or self.image is not None


class Survey(NamedTuple):
    """What was seen before the first act: every balancer's table, each node. errors, hints: {node: text}."""

    tables: Mapping[str, BalancerLook]
    nodes: Mapping[str, NodeLook] = NOTHING
    errors: Mapping[str, str] = NOTHING
    hints: Mapping[str, str] = NOTHING
