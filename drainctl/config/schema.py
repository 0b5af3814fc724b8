"""
The keys of drainctl.yml: kinds, defaults and descriptions. The one place where they are written down.

The loader, the JSON Schema, docs/configuration.md and `drainctl explain` all read this table. Defaults are
written as the file would have them. What no key can tell alone is in `check` and `rollout.rules`.
"""

from __future__ import annotations

from drainctl.config import kinds
from drainctl.config.shapes import Key, List, Names, Section

FLAG = Section(
    """
    What makes a node's /http-check answer 404. Either a file (`flag: /PATH` is short for
    `flag: {path: /PATH}`), or a pair of commands, or a URL.
    """,
    """
    health:
      check: http://{host}:8080/http-check
      ready: http://{host}:8080/healthz
      flag: {set: "echo {text} > /run/shop/drain", clear: rm -f /run/shop/drain}
    """,
    Key(
        "path",
        kinds.ABSOLUTE,
        "While this file exists, /http-check answers 404. An absolute path.",
        examples=("/srv/shop/shared/drain",),
    ),
    Key(
        "set",
        kinds.COMMAND,
        "Command that turns /http-check to 404; `{text}` is the flag's text, quoted for the shell.",
        examples=("echo {text} > /run/shop/drain",),
    ),
    Key(
        "clear",
        kinds.COMMAND,
        "Command that turns /http-check back; needed with `set`.",
        examples=("rm -f /run/shop/drain",),
    ),
    Key(
        "url",
        kinds.URL,
        "URL on the node: PUT with the flag's text turns the check to 404, DELETE turns it back, GET "
        "answers the text, or 404 where no flag is set.",
        examples=("http://{host}:8080/flag",),
    ),
    short="path",
)

HEALTH = Section(
    """
    How a node is asked how it does, straight, past the balancers. At least one of `ready` and `version` is
    needed: a restart is over when the app answers.
    """,
    """
    health:
      check: http://{host}:8080/http-check
      flag: /srv/shop/shared/drain
      ready: http://{host}:8080/healthz
      version: http://{host}:8080/version
    """,
    Key(
        "check",
        kinds.URL,
        "What HAProxy's check asks (`option httpchk`), as a URL on the node. It answers 404 while the "
        "flag is set; haproxy.cfg needs `http-check disable-on-404`.",
        needed=True,
        examples=("http://{host}:8080/http-check",),
    ),
    Key(
        "flag",
        FLAG,
        "What makes /http-check answer 404: a file's absolute path, `{set: …, clear: …}` or `{url: …}`.",
        needed=True,
        examples=("/srv/shop/shared/drain",),
    ),
    Key("ready", kinds.URL, "Answers 200 when the app can serve.", examples=("http://{host}:8080/healthz",)),
    Key(
        "version",
        kinds.URL,
        "Its body is the id of the release that answers, surrounding space aside. With it, a restart is "
        "over only when the new release answers.",
        examples=("http://{host}:8080/version",),
    ),
    Key(
        "active",
        kinds.COMMAND,
        "How requests in flight are counted on the node itself: `ss` looks at its sockets, `none` leaves "
        "it to the balancers, anything else is a command that prints the number.",
        "ss",
    ),
    Key("timeout", kinds.LIMIT, "Most time that one such answer may take.", "2s"),
)

BALANCER = Section(
    """
    One HAProxy process. It is reached either by its Runtime API (`runtime`) or by its stats page
    (`stats`). Where the Runtime API's level is `admin`, drainctl nudges HAProxy, so that a node leaves and
    returns within milliseconds; with less it only looks on, and HAProxy's next check decides.
    """,
    """
    balancers:
      lb1: {runtime: unix:/run/haproxy/admin.sock, master: unix:/run/haproxy/master.sock}
      lb2: {runtime: tcp://10.0.0.6:9999}
      lb3: {runtime: unix:/run/haproxy/admin.sock, ssh: ops@10.0.0.7}
      lb4: {stats: http://10.0.0.8:8404/stats, auth: "${LB4_AUTH}"}
    """,
    Key(
        "runtime",
        kinds.RUNTIME,
        "The Runtime API's socket: `unix:/PATH` or `tcp://HOST:PORT`, as `stats socket` in haproxy.cfg "
        "has it. Level `admin` allows nudges, `user` is enough to watch.",
        examples=("unix:/run/haproxy/admin.sock", "tcp://10.0.0.6:9999"),
    ),
    Key(
        "master",
        kinds.MASTER,
        "The master CLI's socket (`haproxy -S`). With it, drainctl also waits for requests in old workers "
        "that a reload left behind; without it, it cannot see them.",
        examples=("unix:/run/haproxy/master.sock",),
    ),
    Key(
        "stats",
        kinds.STATS,
        "The URL of a stats page (`stats enable`), read only: nothing can be nudged through it.",
        examples=("http://10.0.0.8:8404/stats",),
    ),
    Key(
        "auth",
        kinds.AUTH,
        "`USER:PASSWORD` of the stats page. Take it from the environment; it is never shown.",
        examples=("${LB4_AUTH}",),
    ),
    Key(
        "ca",
        kinds.FILE,
        "File with the certificate authority that signed an https stats page's certificate; else the "
        "system's authorities are trusted.",
        examples=("/etc/ssl/private-ca.pem",),
    ),
    Key(
        "ssh",
        kinds.SSH,
        "`[USER@]HOST[:PORT]`: the sockets are on that machine and are reached through SSH. Their paths "
        "are absolute then.",
        examples=("ops@10.0.0.7",),
    ),
    json={
        "oneOf": [{"required": ["runtime"]}, {"required": ["stats"]}],
        "dependentRequired": {"auth": ["stats"], "ca": ["stats"], "ssh": ["runtime"]},
    },
)

NODE = Section(
    """
    One machine that runs the app, under the name that drainctl's output and commands use for it. Two nodes
    may not be the same server in HAProxy and, over SSH, not the same host and port.
    """,
    """
    nodes:
      web1: {host: 10.0.0.11}
      web2: {host: 10.0.0.12, server: w2}
      web3: {host: 10.0.0.13, user: ops, port: 2222, vars: {app_port: 8001}}
    """,
    Key(
        "host",
        kinds.HOST,
        "Name or address, for SSH and for `{host}` in URLs.",
        needed=True,
        examples=("10.0.0.11",),
    ),
    Key(
        "server",
        kinds.NAME,
        "Its server's name in HAProxy; the node's own name unless it is set.",
        examples=("w2",),
    ),
    Key(
        "strategy",
        List(kinds.STRATEGY, least=1),
        "The ways to change this node's release, in place of the cluster's `strategy`.",
        examples=(["http-check"],),
    ),
    Key("port", kinds.PORT, "SSH port, in place of `connect.port`.", examples=(2222,)),
    Key("user", kinds.USER, "SSH user, in place of `connect.user`.", examples=("ops",)),
    Key(
        "vars",
        Names(kinds.WORD, kinds.VALUE),
        "Placeholders of your own: with `vars: {app_port: 8001}`, commands, paths and URLs may say "
        "`{app_port}`.",
        examples=({"app_port": 8001},),
    ),
)

CONNECT = Section(
    """
    How nodes are reached. Over SSH, keys and host keys are checked strictly: a host that is not in
    `known_hosts` is refused.
    """,
    """
    connect: {via: ssh, user: deploy, key: ~/.ssh/deploy, known_hosts: ~/.ssh/known_hosts}
    """,
    Key(
        "via",
        kinds.choice("ssh", "local", later=("docker",)),
        "`ssh`, or `local` to run the nodes' commands on this machine.",
        "ssh",
    ),
    Key("user", kinds.USER, "SSH user; else what ssh_config says.", examples=("deploy",)),
    Key("port", kinds.PORT, "SSH port; else what ssh_config says, or 22.", examples=(22,)),
    Key(
        "key",
        kinds.FILE,
        "Private key file; else what ssh_config and the agent offer.",
        examples=("~/.ssh/deploy",),
    ),
    Key(
        "known_hosts",
        kinds.FILE,
        "File with the nodes' host keys; else what ssh_config says.",
        examples=("~/.ssh/known_hosts",),
    ),
    Key("timeout", kinds.LIMIT, "Most time that connecting to a node may take.", "10s"),
)

RELEASE = Section(
    """
    Where releases live on a node, in Capistrano's layout: `ROOT/releases/ID`, `ROOT/shared`, and
    `ROOT/current`, a link to the live release.
    """,
    """
    release: {root: /srv/shop, keep: 5, shared: [media, .env]}
    """,
    Key(
        "root",
        kinds.ABSOLUTE,
        "Folder of all releases, an absolute path.",
        needed=True,
        examples=("/srv/shop",),
    ),
    Key(
        "keep",
        kinds.AT_LEAST_ONE,
        "How many releases stay on a node; older ones are removed when a rollout is done. The live "
        "release and the one before it are needed to roll back.",
        5,
    ),
    Key(
        "shared",
        List(kinds.RELATIVE),
        "Files and folders below `ROOT/shared` that every release links to, such as uploads and secrets.",
        examples=(["media", ".env"],),
    ),
)

SERVICE = Section(
    "The command that changes the app's process on a node. Placeholders are filled in.",
    """
    service: {restart: sudo systemctl restart shop, limit: 60s}
    """,
    Key(
        "restart",
        kinds.COMMAND,
        "Restarts the app, with `/bin/sh` on the node. It is over when the app answers again with the new "
        "release, and not when the command returns.",
        examples=("sudo systemctl restart shop",),
    ),
    Key(
        "limit",
        kinds.LIMIT,
        "Most time that a restart may take until the app answers, and that warming up may take.",
        "60s",
    ),
    later=("reload", "start", "stop", "ports"),
)

WARM = Section(
    """
    One page that a restarted node is asked for before it takes traffic. An answer of 500 or more, or none,
    fails the step.
    """,
    """
    warm: [{get: /, times: 20}, {get: "/search?q=a", times: 5, under: 300ms}]
    """,
    Key(
        "get",
        kinds.PAGE,
        "Path, and query where there is one, on the host and port of `health.check`.",
        needed=True,
        examples=("/search?q=a",),
    ),
    Key("times", kinds.AT_LEAST_ONE, "How often it is asked, at most.", 1),
    Key(
        "under",
        kinds.LIMIT,
        "Stop asking as soon as one answer took no longer than this; if none did, the step fails.",
        examples=("300ms",),
    ),
)

ROLLOUT = Section(
    "How a rollout goes over the nodes, and when it stops.",
    """
    rollout: {at_once: 1, canary: 1, keep_up: 50%, max_failed: 0, on_failure: roll-back}
    """,
    Key(
        "at_once",
        kinds.TAKE,
        "Nodes in one wave, as a count or a share of the nodes. With `keep_up` it must fit into the cluster.",
        1,
    ),
    Key(
        "canary",
        kinds.COUNT,
        "Nodes of a first wave of their own; 0 for none. Fewer than the nodes there are.",
        0,
    ),
    Key(
        "keep_up",
        kinds.KEEP,
        "Servers that every balancer must show UP in each backend before a node leaves it, that node not "
        "counted. A share is rounded up.",
        "50%",
    ),
    Key("max_failed", kinds.COUNT, "How many nodes may fail before the rollout stops.", 0),
    Key(
        "on_failure",
        kinds.choice("roll-back", "halt"),
        "What happens then: `roll-back` puts the changed nodes back by the same steps, `halt` leaves "
        "everything as it is for a person.",
        "roll-back",
    ),
    Key(
        "patience",
        kinds.LIMIT,
        "How long a node waits until the balancers show `keep_up` other servers UP, and how much longer "
        "than `watch.for` the balancers may take to show a watched node.",
        "60s",
    ),
)

DRAIN = Section(
    "How long the requests of a node may take to end once it is out of rotation, and what happens then.",
    """
    drain: {limit: 60s, then: fallback, sticky: move, move_after: 10s}
    """,
    Key("limit", kinds.LIMIT, "Most time that a node may take to become idle.", "60s"),
    Key(
        "then",
        kinds.choice("fallback", "wait", "force", "halt"),
        "Past the limit: `fallback` takes the next strategy, `wait` waits on, `force` cuts what is left "
        "(`shutdown sessions`) and says how many, `halt` stops for a person.",
        "fallback",
    ),
    Key(
        "sticky",
        kinds.choice("wait", "move"),
        "Clients bound by a cookie or a stick table reach a drained server still: `wait` for them, or "
        "`move` them to other servers by MAINT, where the socket's level is admin.",
        "wait",
    ),
    Key(
        "move_after",
        kinds.DURATION,
        "With `sticky: move`: how long after it left rotation. Less than `limit`.",
        "10s",
    ),
)

CHECKS = Section(
    """
    HAProxy's check settings of these servers, as haproxy.cfg has them; the words and the defaults are
    HAProxy's. The limits of drainctl's steps follow from them.
    """,
    """
    checks: {inter: 2s, timeout: 1s, fall: 3, rise: 2, downinter: 5s, spread: 5, slowstart: 5s}
    """,
    Key("inter", kinds.LIMIT, "Time between two checks (`inter`).", "2s"),
    Key(
        "timeout",
        kinds.LIMIT,
        "Most time that a check's answer may take (`timeout check`); without it, `inter` bounds the whole "
        "check.",
        examples=("1s",),
    ),
    Key("fall", kinds.AT_LEAST_ONE, "Failed checks until a server is DOWN (`fall`).", 3),
    Key("rise", kinds.AT_LEAST_ONE, "Good checks until a DOWN server is UP (`rise`).", 2),
    Key(
        "downinter",
        kinds.LIMIT,
        "Time between two checks of a DOWN server (`downinter`); `inter` unless it is set.",
        examples=("5s",),
    ),
    Key("spread", kinds.SPREAD, "By how many percent HAProxy varies the interval (`spread-checks`).", 0),
    Key(
        "slowstart",
        kinds.DURATION,
        "How long a server that was DOWN or in MAINT takes until it has its full share of the traffic "
        "(`slowstart`); `watch.for` may not be shorter.",
        "0s",
    ),
)

WATCH = Section(
    "How a restored node is watched before the next one is taken.",
    """
    watch: {for: 10s, errors: 0}
    """,
    Key("for", kinds.DURATION, "How long.", "10s"),
    Key(
        "errors",
        kinds.COUNT,
        "How many errors it may show in that time beyond its peers' rate: answers of 5xx, failed "
        "connections and failed responses.",
        0,
    ),
)

FILE = Section(
    "Everything that drainctl.yml may say: one app, its balancers and its nodes.",
    """
    app: shop
    backends: [shop]
    strategy: [http-check]
    store: sqlite:///~/.local/state/drainctl/shop.db
    """,
    Key("app", kinds.APP, "The app's name, in output and in the journal.", needed=True, examples=("shop",)),
    Key(
        "balancers",
        Names(kinds.NAME, BALANCER, least=1),
        "Every HAProxy process that sends traffic to the nodes, by name. One that is left out here is not "
        "waited for.",
        needed=True,
    ),
    Key(
        "backends",
        List(kinds.NAME),
        "The backends that count; left out, every backend with a server of that name does.",
        examples=(["shop"],),
    ),
    Key(
        "match",
        kinds.choice("name", "address"),
        "How a node finds its server in HAProxy: by the server's `name`, or by its `address` being the "
        "node's `host`.",
        "name",
    ),
    Key(
        "nodes",
        Names(kinds.NAME, NODE, least=1),
        "The machines that run the app, by name. A rollout takes them in this order.",
        needed=True,
    ),
    Key("connect", CONNECT, "How nodes are reached.", {}),
    Key("release", RELEASE, "Where releases live on a node; needed by `deploy` and `rollback`."),
    Key("service", SERVICE, "The command that restarts the app.", {}),
    Key("health", HEALTH, "How a node is asked how it does.", needed=True),
    Key("warm", List(WARM), "Pages that a restarted node is asked for before it takes traffic."),
    Key(
        "strategy",
        List(kinds.STRATEGY, least=1),
        "The ways to change a node's release, the first that can is taken.",
        ["http-check"],
    ),
    Key("rollout", ROLLOUT, "How a rollout goes over the nodes.", {}),
    Key("drain", DRAIN, "How long a drain may take.", {}),
    Key("checks", CHECKS, "HAProxy's check settings, as haproxy.cfg has them.", {}),
    Key("watch", WATCH, "How a restored node is watched.", {}),
    Key(
        "store",
        kinds.STORE,
        "Where the journal and the lease are kept: `sqlite:///PATH` on this machine. Unless it is set, "
        "`APP.db` in `$XDG_STATE_HOME/drainctl`, or in `~/.local/state/drainctl`.",
        examples=("sqlite:///~/.local/state/drainctl/shop.db",),
    ),
    later=("nginx", "socket", "notify"),
)
