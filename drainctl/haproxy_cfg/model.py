"""
What a haproxy.cfg says: frozen values, each with the line that says it.

`None` stands for "not said": then HAProxy's own default holds, which `value(found, default)` puts in.
Durations are seconds. A text may still hold `${NAME}` where the variable was not set for the reader; there
is a note for each. Source of all words: HAProxy configuration.txt, "4. Proxies" and "5. Bind and server
options".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class At(Generic[T]):
    """A value and the line that says it."""

    value: T
    line: int


def value(found: At[T] | None, default: T) -> T:
    """What was said, else HAProxy's default."""
    return default if found is None else found.value


@dataclass(frozen=True, slots=True)
class Raw:
    """A line that the reader keeps as it is: its words, variables and quotes resolved."""

    line: int
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Note:
    """What the reader could not know or read; a sentence without the file's name."""

    line: int
    text: str


# ---------------------------------------------------------------- global


@dataclass(frozen=True, slots=True)
class Address:
    """
    Where a server, a listener or a socket is. text: as written. kind: "unix" has only `host`, the path;
    "other" (abstract sockets, file descriptors) has only `text`. host: without brackets, "" for any
    address. port: None where none is written, or where it is relative to the client's (`:+1000`).
    """

    text: str
    kind: Literal["ip", "unix", "other"]
    host: str
    port: int | None = None


@dataclass(frozen=True, slots=True)
class StatsSocket:
    """A `stats socket` line. level: HAProxy's default is operator. mode: as written ("660"), if it is."""

    line: int
    address: Address
    level: Literal["user", "operator", "admin"] = "operator"
    mode: str | None = None


@dataclass(frozen=True, slots=True)
class Global:
    """The `global` sections together. spread_checks: percent. raw: every other line."""

    line: int | None = None
    sockets: tuple[StatsSocket, ...] = ()
    state_file: At[str] | None = None  # server-state-file, below server-state-base where that is set
    spread_checks: At[int] | None = None
    hard_stop_after: At[float] | None = None
    nbproc: At[int] | None = None
    raw: tuple[Raw, ...] = ()


# ---------------------------------------------------------------- servers


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """
    What a server line says, or `default-server` for it. Names are HAProxy's, `-` written `_`.

    check, backup, disabled, ssl, check_ssl, agent_check are None or true: `no-…` takes an earlier one back.
    track: "backend/server", or "server" in the same backend. weight: HAProxy's default is 1.
    """

    check: At[bool] | None = None
    inter: At[float] | None = None
    fastinter: At[float] | None = None
    downinter: At[float] | None = None
    rise: At[int] | None = None
    fall: At[int] | None = None
    port: At[int] | None = None
    addr: At[str] | None = None
    check_ssl: At[bool] | None = None
    check_sni: At[str] | None = None
    check_send_proxy: At[bool] | None = None
    weight: At[int] | None = None
    backup: At[bool] | None = None
    disabled: At[bool] | None = None
    track: At[str] | None = None
    slowstart: At[float] | None = None
    observe: At[str] | None = None
    on_error: At[str] | None = None
    on_marked_down: At[str] | None = None
    on_marked_up: At[str] | None = None
    cookie: At[str] | None = None
    agent_check: At[bool] | None = None
    agent_port: At[int] | None = None
    maxconn: At[int] | None = None
    init_addr: At[str] | None = None
    init_state: At[str] | None = None
    resolvers: At[str] | None = None
    ssl: At[bool] | None = None
    verify: At[str] | None = None
    ca_file: At[str] | None = None
    pool_purge_delay: At[float] | None = None
    pool_max_conn: At[int] | None = None


@dataclass(frozen=True, slots=True)
class Server:
    """
    One `server` line, or one slot of a `server-template` (then `template` is its prefix).

    settings: after default-server. raw: every other word of its own line.
    """

    name: str
    line: int
    address: Address
    settings: ServerSettings = ServerSettings()
    raw: tuple[str, ...] = ()
    template: str | None = None

    @property
    def check_host(self) -> str:
        """Where HAProxy's check goes, before any `http-check connect`: `addr`, else the server's address."""
        return value(self.settings.addr, self.address.host)

    @property
    def check_port(self) -> int | None:
        """The same for the port: `port`, else the server's own."""
        own = self.settings.port
        return self.address.port if own is None else own.value

    @property
    def checks_with_tls(self) -> bool:
        """
        Whether its checks speak TLS. Source: configuration.txt, "check-ssl": implied by `ssl` unless the
        check has an `addr` or a `port` of its own.
        """
        settings = self.settings
        own = settings.addr is not None or settings.port is not None
        return settings.check_ssl is not None or (settings.ssl is not None and not own)


@dataclass(frozen=True, slots=True)
class Template:
    """A `server-template` line: `servers` are its slots, named prefix and number."""

    prefix: str
    line: int
    servers: tuple[Server, ...]


# ---------------------------------------------------------------- proxies


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """
    The first request of a check, with what `http-check send` and `http-check connect` change in it.

    line: of `option httpchk`, or of the `http-check send` that stands for it. host: the Host header, where
    one is set. port, addr, ssl: of `http-check connect`; they go before the server's own. requests: how many
    requests one check sends.
    """

    line: int
    method: At[str]
    uri: At[str]
    host: At[str] | None = None
    port: At[int] | None = None
    addr: At[str] | None = None
    ssl: At[bool] | None = None
    requests: int = 1


@dataclass(frozen=True, slots=True)
class Stats:
    """A stats page. uri: HAProxy's default is /haproxy?stats. users: without their passwords."""

    line: int
    uri: At[str] | None = None
    users: tuple[At[str], ...] = ()
    scope: tuple[At[str], ...] = ()
    hide_version: At[bool] | None = None
    admin: At[str] | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """
    What a proxy is set to, its defaults section included.

    check_kind: "httpchk", "tcp-check", "mysql-check", …; None is a plain connect. httpchk: only where
    check_kind is "httpchk", and None even then where the section's own `http-check` rules have replaced the
    request of its defaults section: HAProxy connects and asks nothing (measured, 2.6 and 2.8; there is a
    note). expect: the words of each `http-check expect` that counts. redispatch: the interval of
    `option redispatch`, -1 for "on the last retry", 0 for "no option redispatch". timeouts: seconds, by
    HAProxy's word ("connect", "server", "check", "http-request", "http-keep-alive", "queue", "tunnel", …).
    cookie: the words after `cookie`. stick: `stick-table` and `stick …` lines, each as text. options: every
    `option NAME`, true, or false for `no option NAME`.
    """

    mode: At[str] | None = None
    balance: At[str] | None = None
    hash_type: At[str] | None = None
    check_kind: At[str] | None = None
    httpchk: HttpCheck | None = None
    disable_on_404: At[bool] | None = None
    send_state: At[bool] | None = None
    expect: tuple[At[str], ...] = ()
    retries: At[int] | None = None
    redispatch: At[int] | None = None
    retry_on: At[tuple[str, ...]] | None = None
    timeouts: Mapping[str, At[float]] = field(default_factory=dict)
    cookie: At[tuple[str, ...]] | None = None
    stick: tuple[At[str], ...] = ()
    load_server_state: At[str] | None = None
    http_reuse: At[str] | None = None
    stats: Stats | None = None
    disabled: At[bool] | None = None
    options: Mapping[str, At[bool]] = field(default_factory=dict)

    def option(self, name: str) -> At[bool] | None:
        """The line that turns `option NAME` on; None where it is off."""
        found = self.options.get(name)
        return found if found is not None and found.value else None

    @property
    def persist(self) -> At[bool] | None:
        """`option persist`: it defeats even MAINT."""
        return self.option("persist")


@dataclass(frozen=True, slots=True)
class Defaults:
    """One `defaults` section. name: "" without one. base: the section that it takes over (`from`)."""

    name: str
    line: int
    base: str | None
    settings: Settings
    raw: tuple[Raw, ...] = ()


@dataclass(frozen=True, slots=True)
class Proxy:
    """
    A frontend, backend or listen. settings: with those of its defaults section, whose line is `defaults`.

    use_backends: the names after `use_backend` (log-format expressions included, as written). raw: every
    line of the section itself that the reader keeps as it is, `force-persist` and `monitor` among them.
    """

    kind: Literal["frontend", "backend", "listen"]
    name: str
    line: int
    settings: Settings
    defaults: int | None = None
    binds: tuple[At[Address], ...] = ()
    default_backend: At[str] | None = None
    use_backends: tuple[At[str], ...] = ()
    servers: tuple[Server, ...] = ()
    templates: tuple[Template, ...] = ()
    raw: tuple[Raw, ...] = ()

    @property
    def has_servers(self) -> bool:
        return self.kind != "frontend"

    @property
    def all_servers(self) -> tuple[Server, ...]:
        """The servers and every slot of the templates."""
        return self.servers + tuple(slot for template in self.templates for slot in template.servers)


@dataclass(frozen=True, slots=True)
class Section:
    """Any other section (peers, resolvers, userlist, cache, …), unread."""

    kind: str
    name: str
    line: int
    raw: tuple[Raw, ...] = ()


@dataclass(frozen=True, slots=True)
class HaproxyCfg:
    """A whole file. name: how messages call it. proxies, defaults and sections: in the file's order."""

    name: str
    global_: Global = Global()
    defaults: tuple[Defaults, ...] = ()
    proxies: tuple[Proxy, ...] = ()
    sections: tuple[Section, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def backends(self) -> tuple[Proxy, ...]:
        """Backends and listens: the proxies that may have servers."""
        return tuple(proxy for proxy in self.proxies if proxy.has_servers)

    def backend(self, name: str) -> Proxy | None:
        return next((proxy for proxy in self.backends if proxy.name == name), None)

    def servers(self) -> Iterator[tuple[Proxy, Server]]:
        """Every server of every backend, template slots included."""
        return ((proxy, server) for proxy in self.backends for server in proxy.all_servers)

    def where(self, line: int) -> str:
        """`haproxy.cfg:41`."""
        return f"{self.name}:{line}"
