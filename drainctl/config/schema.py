"""
The keys of drainctl.yml: kinds, defaults and descriptions. The one place where they are written down.

The loader, the JSON Schema, docs/configuration.md and `drainctl explain` all read these models. Defaults
are written as the file would have them. What no key can tell alone is in `check` and `rollout.rules`.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from drainctl.config import kinds
from drainctl.model import Amount, Secret

# Keys of the contract that this version does not act on. They are refused by name: a key that is read
# and not acted on would be a promise that nobody keeps.
LATER = frozenset(
    {
        ("nginx",),
        ("socket",),
        ("notify",),
        ("service", "reload"),
        ("service", "start"),
        ("service", "stop"),
        ("service", "ports"),
    }
)


def optional(description: str, default: Any = None, **more: Any) -> Any:
    """A key that may be left out. default: as the file would write it; None or [] where that is nothing."""
    return Field(default=default, description=description, validate_default=default not in (None, []), **more)


def required(description: str, **more: Any) -> Any:
    """A key that must be there."""
    return Field(description=description, **more)


def there(value: object) -> object:
    """A section that may be left out, but is not empty when it is named."""
    if value is None:
        raise PydanticCustomError("kind", "{expected}", {"expected": "keys below it", "later": False})
    return value


class Section(BaseModel):
    """Some keys that stand together. example: this section as a file may have it."""

    model_config = ConfigDict(extra="forbid", defer_build=True)
    example: ClassVar[str] = ""


class BalancerKeys(Section):
    """
    One HAProxy process. It is reached either by its Runtime API (`runtime`) or by its stats page
    (`stats`). Where the Runtime API's level is `admin`, drainctl nudges HAProxy, so that a node leaves and
    returns within milliseconds; with less it only looks on, and HAProxy's next check decides.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["runtime"]}, {"required": ["stats"]}],
            "dependentRequired": {"auth": ["stats"], "ca": ["stats"], "ssh": ["runtime"]},
        }
    )
    example: ClassVar[str] = """\
balancers:
  lb1: {runtime: unix:/run/haproxy/admin.sock, master: unix:/run/haproxy/master.sock}
  lb2: {runtime: tcp://10.0.0.6:9999}
  lb3: {runtime: unix:/run/haproxy/admin.sock, ssh: ops@10.0.0.7}
  lb4: {stats: http://10.0.0.8:8404/stats, auth: "${LB4_AUTH}"}
"""

    runtime: Annotated[str | None, kinds.RUNTIME] = optional(
        "The Runtime API's socket: `unix:/PATH` or `tcp://HOST:PORT`, as `stats socket` in "
        "haproxy.cfg has it. "
        "Level `admin` allows nudges, `user` is enough to watch.",
        examples=["unix:/run/haproxy/admin.sock", "tcp://10.0.0.6:9999"],
    )
    master: Annotated[str | None, kinds.MASTER] = optional(
        "The master CLI's socket (`haproxy -S`). With it, drainctl also waits for requests in old "
        "workers that "
        "a reload left behind; without it, it cannot see them.",
        examples=["unix:/run/haproxy/master.sock"],
    )
    stats: Annotated[str | None, kinds.STATS] = optional(
        "The URL of a stats page (`stats enable`), read only: nothing can be nudged through it.",
        examples=["http://10.0.0.8:8404/stats"],
    )
    auth: Annotated[Secret | None, kinds.AUTH] = optional(
        "`USER:PASSWORD` of the stats page. Take it from the environment; it is never shown.",
        examples=["${LB4_AUTH}"],
    )
    ca: Annotated[str | None, kinds.FILE] = optional(
        "File with the certificate authority that signed an https stats page's certificate; else the "
        "system's "
        "authorities are trusted.",
        examples=["/etc/ssl/private-ca.pem"],
    )
    ssh: Annotated[str | None, kinds.SSH] = optional(
        "`[USER@]HOST[:PORT]`: the sockets are on that machine and are reached through SSH. Their paths are "
        "absolute then.",
        examples=["ops@10.0.0.7"],
    )


class NodeKeys(Section):
    """
    One machine that runs the app, under the name that drainctl's output and commands use for it. Two nodes
    may not be the same server in HAProxy and, over SSH, not the same host and port.
    """

    example: ClassVar[str] = """\
nodes:
  web1: {host: 10.0.0.11}
  web2: {host: 10.0.0.12, server: w2}
  web3: {host: 10.0.0.13, user: ops, port: 2222, vars: {app_port: 8001}}
"""

    host: Annotated[str, kinds.HOST] = required(
        "Name or address, for SSH and for `{host}` in URLs.", examples=["10.0.0.11"]
    )
    server: Annotated[str | None, kinds.NAME] = optional(
        "Its server's name in HAProxy; the node's own name unless it is set.", examples=["w2"]
    )
    strategy: list[Annotated[str, kinds.STRATEGY]] = optional(
        "The ways to change this node's release, in place of the cluster's `strategy`.",
        [],
        min_length=1,
        examples=[["http-check"]],
    )
    port: Annotated[int | None, kinds.PORT] = optional(
        "SSH port, in place of `connect.port`.", examples=[2222]
    )
    user: Annotated[str | None, kinds.USER] = optional(
        "SSH user, in place of `connect.user`.", examples=["ops"]
    )
    vars: dict[Annotated[str, kinds.WORD], Annotated[str, kinds.VALUE]] = optional(
        "Placeholders of your own: with `vars: {app_port: 8001}`, commands, paths and URLs may say "
        "`{app_port}`.",
        {},
        examples=[{"app_port": 8001}],
    )


class ConnectKeys(Section):
    """
    How nodes are reached. Over SSH, keys and host keys are checked strictly: a host that is not in
    `known_hosts` is refused.
    """

    example: ClassVar[str] = """\
connect: {via: ssh, user: deploy, key: ~/.ssh/deploy, known_hosts: ~/.ssh/known_hosts}
"""

    via: Annotated[Literal["ssh", "local"], kinds.choice("ssh", "local", later=("docker",))] = optional(
        "`ssh`, or `local` to run the nodes' commands on this machine.", "ssh"
    )
    user: Annotated[str | None, kinds.USER] = optional(
        "SSH user; else what ssh_config says.", examples=["deploy"]
    )
    port: Annotated[int | None, kinds.PORT] = optional(
        "SSH port; else what ssh_config says, or 22.", examples=[22]
    )
    key: Annotated[str | None, kinds.FILE] = optional(
        "Private key file; else what ssh_config and the agent offer.", examples=["~/.ssh/deploy"]
    )
    known_hosts: Annotated[str | None, kinds.FILE] = optional(
        "File with the nodes' host keys; else what ssh_config says.", examples=["~/.ssh/known_hosts"]
    )
    timeout: Annotated[float, kinds.LIMIT] = optional("Most time that connecting to a node may take.", "10s")


class ReleaseKeys(Section):
    """
    Where releases live on a node, in Capistrano's layout: `ROOT/releases/ID`, `ROOT/shared`, and
    `ROOT/current`, a link to the live release.
    """

    example: ClassVar[str] = """\
release: {root: /srv/shop, keep: 5, shared: [media, .env]}
"""

    root: Annotated[str, kinds.ABSOLUTE] = required(
        "Folder of all releases, an absolute path.", examples=["/srv/shop"]
    )
    keep: Annotated[int, kinds.AT_LEAST_ONE] = optional(
        "How many releases stay on a node; older ones are removed when a rollout is done. The live "
        "release and the one before "
        "it are needed to roll back.",
        5,
    )
    shared: list[Annotated[str, kinds.RELATIVE]] = optional(
        "Files and folders below `ROOT/shared` that every release links to, such as uploads and secrets.",
        [],
        examples=[["media", ".env"]],
    )


class ServiceKeys(Section):
    """The command that changes the app's process on a node. Placeholders are filled in."""

    example: ClassVar[str] = """\
service: {restart: sudo systemctl restart shop, limit: 60s}
"""

    restart: Annotated[str | None, kinds.COMMAND] = optional(
        "Restarts the app, with `/bin/sh` on the node. It is over when the app answers again with the new "
        "release, and not when the command returns.",
        examples=["sudo systemctl restart shop"],
    )
    limit: Annotated[float, kinds.LIMIT] = optional(
        "Most time that a restart may take until the app answers, and that warming up may take.", "60s"
    )


class FlagKeys(Section):
    """
    What makes a node's /http-check answer 404. Either a file (`flag: /PATH` is short for
    `flag: {path: /PATH}`), or a pair of commands, or a URL.
    """

    example: ClassVar[str] = """\
health:
  check: http://{host}:8080/http-check
  ready: http://{host}:8080/healthz
  flag: {set: "echo {text} > /run/shop/drain", clear: rm -f /run/shop/drain}
"""

    path: Annotated[str | None, kinds.ABSOLUTE] = optional(
        "While this file exists, /http-check answers 404. An absolute path.",
        examples=["/srv/shop/shared/drain"],
    )
    set: Annotated[str | None, kinds.COMMAND] = optional(
        "Command that turns /http-check to 404; `{text}` is the flag's text, quoted for the shell.",
        examples=["echo {text} > /run/shop/drain"],
    )
    clear: Annotated[str | None, kinds.COMMAND] = optional(
        "Command that turns /http-check back; needed with `set`.", examples=["rm -f /run/shop/drain"]
    )
    url: Annotated[str | None, kinds.URL] = optional(
        "URL on the node: PUT with the flag's text turns the check to 404, DELETE turns it back, GET answers "
        "the text, or 404 where no flag is set.",
        examples=["http://{host}:8080/flag"],
    )


def _short_flag(value: object) -> object:
    return {"path": value} if isinstance(value, str) else value


class HealthKeys(Section):
    """
    How a node is asked how it does, straight, past the balancers. At least one of `ready` and `version` is
    needed: a restart is over when the app answers.
    """

    example: ClassVar[str] = """\
health:
  check: http://{host}:8080/http-check
  flag: /srv/shop/shared/drain
  ready: http://{host}:8080/healthz
  version: http://{host}:8080/version
"""

    check: Annotated[str, kinds.URL] = required(
        "What HAProxy's check asks (`option httpchk`), as a URL on the node. It answers 404 while "
        "the flag is "
        "set; haproxy.cfg needs `http-check disable-on-404`.",
        examples=["http://{host}:8080/http-check"],
    )
    flag: Annotated[FlagKeys, BeforeValidator(_short_flag)] = required(
        "What makes /http-check answer 404: a file's absolute path, `{set: …, clear: …}` or `{url: …}`.",
        examples=["/srv/shop/shared/drain"],
    )
    ready: Annotated[str | None, kinds.URL] = optional(
        "Answers 200 when the app can serve.", examples=["http://{host}:8080/healthz"]
    )
    version: Annotated[str | None, kinds.URL] = optional(
        "Its body is the id of the release that answers, surrounding space aside. With it, a restart is over "
        "only when the new release answers.",
        examples=["http://{host}:8080/version"],
    )
    active: Annotated[str, kinds.COMMAND] = optional(
        "How requests in flight are counted on the node itself: `ss` looks at its sockets, `none` "
        "leaves it to "
        "the balancers, anything else is a command that prints the number.",
        "ss",
    )
    timeout: Annotated[float, kinds.LIMIT] = optional("Most time that one such answer may take.", "2s")


class WarmKeys(Section):
    """
    One page that a restarted node is asked for before it takes traffic. An answer of 500 or more, or none,
    fails the step.
    """

    example: ClassVar[str] = """\
warm: [{get: /, times: 20}, {get: "/search?q=a", times: 5, under: 300ms}]
"""

    get: Annotated[str, kinds.PAGE] = required(
        "Path, and query where there is one, on the host and port of `health.check`.",
        examples=["/search?q=a"],
    )
    times: Annotated[int, kinds.AT_LEAST_ONE] = optional("How often it is asked, at most.", 1)
    under: Annotated[float | None, kinds.LIMIT] = optional(
        "Stop asking as soon as one answer took no longer than this; if none did, the step fails.",
        examples=["300ms"],
    )


class RolloutKeys(Section):
    """How a rollout goes over the nodes, and when it stops."""

    example: ClassVar[str] = """\
rollout: {at_once: 1, canary: 1, keep_up: 50%, max_failed: 0, on_failure: roll-back}
"""

    at_once: Annotated[Amount, kinds.TAKE] = optional(
        "Nodes in one wave, as a count or a share of the nodes. With `keep_up` it must fit into the cluster.",
        1,
    )
    canary: Annotated[int, kinds.COUNT] = optional(
        "Nodes of a first wave of their own; 0 for none. Fewer than the nodes there are.", 0
    )
    keep_up: Annotated[Amount, kinds.KEEP] = optional(
        "Servers that every balancer must show UP in each backend before a node leaves it, that node not "
        "counted. A share is rounded up.",
        "50%",
    )
    max_failed: Annotated[int, kinds.COUNT] = optional("How many nodes may fail before the rollout stops.", 0)
    on_failure: Annotated[Literal["roll-back", "halt"], kinds.choice("roll-back", "halt")] = optional(
        "What happens then: `roll-back` puts the changed nodes back by the same steps, `halt` leaves "
        "everything "
        "as it is for a person.",
        "roll-back",
    )
    patience: Annotated[float, kinds.LIMIT] = optional(
        "How long a node waits until the balancers show `keep_up` other servers UP, and how much longer than "
        "`watch.for` the balancers may take to show a watched node.",
        "60s",
    )


class DrainKeys(Section):
    """How long the requests of a node may take to end once it is out of rotation, and what happens then."""

    example: ClassVar[str] = """\
drain: {limit: 60s, then: fallback, sticky: move, move_after: 10s}
"""

    limit: Annotated[float, kinds.LIMIT] = optional("Most time that a node may take to become idle.", "60s")
    then: Annotated[
        Literal["fallback", "wait", "force", "halt"], kinds.choice("fallback", "wait", "force", "halt")
    ] = optional(
        "Past the limit: `fallback` takes the next strategy, `wait` waits on, `force` cuts what is left "
        "(`shutdown sessions`) and says how many, `halt` stops for a person.",
        "fallback",
    )
    sticky: Annotated[Literal["wait", "move"], kinds.choice("wait", "move")] = optional(
        "Clients bound by a cookie or a stick table reach a drained server still: `wait` for them, or `move` "
        "them to other servers by MAINT, where the socket's level is admin.",
        "wait",
    )
    move_after: Annotated[float, kinds.DURATION] = optional(
        "With `sticky: move`: how long after it left rotation. Less than `limit`.", "10s"
    )


class ChecksKeys(Section):
    """
    HAProxy's check settings of these servers, as haproxy.cfg has them; the words and the defaults are
    HAProxy's. The limits of drainctl's steps follow from them.
    """

    example: ClassVar[str] = """\
checks: {inter: 2s, timeout: 1s, fall: 3, rise: 2, downinter: 5s, spread: 5, slowstart: 5s}
"""

    inter: Annotated[float, kinds.LIMIT] = optional("Time between two checks (`inter`).", "2s")
    timeout: Annotated[float | None, kinds.LIMIT] = optional(
        "Most time that a check's answer may take (`timeout check`); without it, `inter` bounds the "
        "whole check.",
        examples=["1s"],
    )
    fall: Annotated[int, kinds.AT_LEAST_ONE] = optional("Failed checks until a server is DOWN (`fall`).", 3)
    rise: Annotated[int, kinds.AT_LEAST_ONE] = optional("Good checks until a DOWN server is UP (`rise`).", 2)
    downinter: Annotated[float | None, kinds.LIMIT] = optional(
        "Time between two checks of a DOWN server (`downinter`); `inter` unless it is set.", examples=["5s"]
    )
    spread: Annotated[int, kinds.SPREAD] = optional(
        "By how many percent HAProxy varies the interval (`spread-checks`).", 0
    )
    slowstart: Annotated[float, kinds.DURATION] = optional(
        "How long a server that was DOWN or in MAINT takes until it has its full share of the "
        "traffic (`slowstart`); "
        "`watch.for` may not be shorter.",
        "0s",
    )


class WatchKeys(Section):
    """How a restored node is watched before the next one is taken."""

    example: ClassVar[str] = """\
watch: {for: 10s, errors: 0}
"""

    for_: Annotated[float, kinds.DURATION] = optional("How long.", "10s", alias="for")
    errors: Annotated[int, kinds.COUNT] = optional(
        "How many errors it may show in that time beyond its peers' rate: answers of 5xx, failed "
        "connections and failed "
        "responses.",
        0,
    )


class File(Section):
    """Everything that drainctl.yml may say: one app, its balancers and its nodes."""

    example: ClassVar[str] = """\
app: shop
backends: [shop]
strategy: [http-check]
store: sqlite:///~/.local/state/drainctl/shop.db
"""

    app: Annotated[str, kinds.APP] = required(
        "The app's name, in output and in the journal.", examples=["shop"]
    )
    balancers: dict[Annotated[str, kinds.NAME], BalancerKeys] = required(
        "Every HAProxy process that sends traffic to the nodes, by name. One that is left out here "
        "is not waited for.",
        min_length=1,
    )
    backends: list[Annotated[str, kinds.NAME]] = optional(
        "The backends that count; left out, every backend with a server of that name does.",
        [],
        examples=[["shop"]],
    )
    match: Annotated[Literal["name", "address"], kinds.choice("name", "address")] = optional(
        "How a node finds its server in HAProxy: by the server's `name`, or by its `address` being "
        "the node's `host`.",
        "name",
    )
    nodes: dict[Annotated[str, kinds.NAME], NodeKeys] = required(
        "The machines that run the app, by name. A rollout takes them in this order.", min_length=1
    )
    connect: ConnectKeys = optional("How nodes are reached.", {})
    release: Annotated[ReleaseKeys | None, BeforeValidator(there)] = optional(
        "Where releases live on a node; needed by `deploy` and `rollback`."
    )
    service: ServiceKeys = optional("The command that restarts the app.", {})
    health: HealthKeys = required("How a node is asked how it does.")
    warm: list[WarmKeys] = optional("Pages that a restarted node is asked for before it takes traffic.", [])
    strategy: list[Annotated[str, kinds.STRATEGY]] = optional(
        "The ways to change a node's release, the first that can is taken.", ["http-check"], min_length=1
    )
    rollout: RolloutKeys = optional("How a rollout goes over the nodes.", {})
    drain: DrainKeys = optional("How long a drain may take.", {})
    checks: ChecksKeys = optional("HAProxy's check settings, as haproxy.cfg has them.", {})
    watch: WatchKeys = optional("How a restored node is watched.", {})
    store: Annotated[str | None, kinds.STORE] = optional(
        "Where the journal and the lease are kept: `sqlite:///PATH` on this machine. Unless it is set, "
        "`APP.db` in `$XDG_STATE_HOME/drainctl`, or in `~/.local/state/drainctl`.",
        examples=["sqlite:///~/.local/state/drainctl/shop.db"],
    )
