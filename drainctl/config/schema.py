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
    needed: a restart is over when the app answers. `check` and `flag` are for strategy `http-check`.
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
        examples=("http://{host}:8080/http-check",),
    ),
    Key(
        "flag",
        FLAG,
        "What makes /http-check answer 404: a file's absolute path, `{set: …, clear: …}` or `{url: …}`.",
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
    One machine, or one container, that runs the app, under the name that drainctl's output and commands use
    for it. Two nodes may not be the same server in HAProxy and, over SSH, not the same host and port.
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
    Key(
        "container",
        kinds.CONTAINER,
        "With `via: docker`, the container's name; the node's own name unless it is set.",
        examples=("shop-web1",),
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
    `known_hosts` is refused. Nodes that are containers are reached through their Docker engine, which needs
    `pip install 'drainctl[docker]'` (docker.md).
    """,
    """
    connect: {via: ssh, user: deploy, key: ~/.ssh/deploy, known_hosts: ~/.ssh/known_hosts}
    """,
    Key(
        "via",
        kinds.choice("ssh", "local", "docker"),
        "`ssh`, `local` to run the nodes' commands on this machine, or `docker` to run them in containers.",
        "ssh",
    ),
    Key(
        "user",
        kinds.USER,
        "SSH user, else what ssh_config says; with `via: docker` who commands in the container run as, else "
        "the container's own user.",
        examples=("deploy",),
    ),
    Key("port", kinds.PORT, "SSH port; else what ssh_config says, or 22.", examples=(22,)),
    Key(
        "key",
        kinds.FILE,
        "Private key file; else what ssh_config and the agent offer. With `via: docker`, that of `cert`.",
        examples=("~/.ssh/deploy",),
    ),
    Key(
        "known_hosts",
        kinds.FILE,
        "File with the nodes' host keys; else what ssh_config says.",
        examples=("~/.ssh/known_hosts",),
    ),
    Key("timeout", kinds.LIMIT, "Most time that connecting to a node may take.", "10s"),
    Key(
        "engine",
        kinds.ENGINE,
        "With `via: docker`, the Docker engine: `unix:///PATH`, `ssh://[USER@]HOST[:PORT]` or "
        "`tcp://HOST:PORT`; `{host}` and a node's `vars` are filled in. Else what DOCKER_HOST says, or the "
        "local socket.",
        examples=("unix:///var/run/docker.sock", "ssh://deploy@{host}", "tcp://{host}:2376"),
    ),
    Key(
        "ca",
        kinds.FILE,
        "With `engine: tcp://…`, the authority that signed the engine's certificate; the connection is TLS "
        "then.",
        examples=("~/.docker/ca.pem",),
    ),
    Key(
        "cert",
        kinds.FILE,
        "With `ca`, our own certificate; `key` is its key.",
        examples=("~/.docker/cert.pem",),
    ),
)

RELEASE = Section(
    """
    Where releases live on a node, in Capistrano's layout: `ROOT/releases/ID`, `ROOT/shared`, and
    `ROOT/current`, a link to the live release. Or, for nodes that are containers, the image that they are
    made of: `release: {image: registry.example.com/shop}`.
    """,
    """
    release: {root: /srv/shop, keep: 5, shared: [media, .env]}
    """,
    Key(
        "root",
        kinds.ABSOLUTE,
        "Folder of all releases, an absolute path.",
        examples=("/srv/shop",),
    ),
    Key(
        "image",
        kinds.REPOSITORY,
        "Instead of `root`, with `via: docker`: the image without its tag. A release is a tag of it, and a "
        "node is changed by a new container in place of the old one.",
        examples=("registry.example.com/shop",),
    ),
    Key(
        "keep",
        kinds.AT_LEAST_ONE,
        "How many releases stay on a node, of an image as stopped containers; older ones are removed when a "
        "rollout is done. The live release and the one before it are needed to roll back.",
        5,
    ),
    Key(
        "shared",
        List(kinds.RELATIVE),
        "Files and folders below `ROOT/shared` that every release links to, such as uploads and secrets.",
        examples=(["media", ".env"],),
    ),
    json={"oneOf": [{"required": ["root"]}, {"required": ["image"]}]},
)

RELOAD = Section(
    """
    How the app server takes a new release without being stopped, for strategy `reload`: a command
    (`reload: COMMAND` is short for `reload: {command: COMMAND}`), or gunicorn's own way, by its pid file.
    """,
    """
    service:
      restart: sudo systemctl restart shop
      reload: {gunicorn: /run/shop/gunicorn.pid, by: usr2}
    """,
    Key(
        "command",
        kinds.COMMAND,
        "Command that makes the app server take the new release.",
        examples=("sudo systemctl reload shop",),
    ),
    Key(
        "gunicorn",
        kinds.ABSOLUTE,
        "gunicorn's pid file; drainctl sends the signals, as the user that it logs in as.",
        examples=("/run/shop/gunicorn.pid",),
    ),
    Key(
        "by",
        kinds.choice("usr2", "hup"),
        "`usr2` starts a second master beside the first, and ends the first (TERM) once the second serves: a "
        "release that does not start never meets a user. `hup` replaces the workers: such a release ends the "
        "service.",
        "usr2",
    ),
    short="command",
)

SERVICE = Section(
    "The commands that change the app's process on a node. Placeholders are filled in.",
    """
    service:
      restart: sudo systemctl restart shop
      start: sudo systemctl start shop@{port}
      stop: sudo systemctl stop shop@{port}
      ports: [8000, 8001]
      limit: 60s
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
    Key(
        "start",
        kinds.COMMAND,
        "Starts one process beside another: on `{port}` for port-flip and backup, at `{socket}` for "
        "socket-flip and backup; `{release}` is the release that it is to run.",
        examples=("sudo systemctl start shop@{port}",),
    ),
    Key(
        "stop",
        kinds.COMMAND,
        "Ends such a process gracefully: it finishes the requests that it has.",
        examples=("sudo systemctl stop shop@{port}",),
    ),
    Key(
        "ports",
        List(kinds.PORT),
        "The two ports of port-flip; for backup, that of nginx's live server, then that of its `backup`.",
        examples=([8000, 8001],),
    ),
    Key(
        "sockets",
        List(kinds.ABSOLUTE),
        "Instead of ports, for backup: the unix socket of nginx's live server, then that of its `backup`. "
        "drainctl's user renames in their folder, so that nobody connects to a process that is to end; on "
        "ports a POST that comes just then is lost.",
        examples=(["/run/shop/live.sock", "/run/shop/backup.sock"],),
    ),
    Key("address", kinds.ADDRESS, "Where the app listens on the node.", "127.0.0.1"),
    Key(
        "ask",
        kinds.COMMAND,
        "How a process that does not speak HTTP is asked, on the node: prints the answer's body, and ends "
        "with 0 for a good one. `{path}` is the page; `{port}` or `{socket}` is where.",
        examples=("uwsgi_curl {socket} {path}",),
    ),
    Key("reload", RELOAD, "How the app server takes a new release without being stopped."),
)

NGINX = Section(
    """
    nginx on each node, for port-flip and backup. `file` holds the upstream and nothing else; drainctl writes
    it, and nobody else does. `drainctl render nginx` prints a configuration that includes it.
    """,
    """
    nginx:
      upstream: shop
      file: /etc/nginx/conf.d/shop.upstream.conf
      test: sudo nginx -t
      reload: sudo nginx -s reload
      generation: http://{host}:8080/-/generation
    """,
    Key("upstream", kinds.NAME, "The upstream block's name.", needed=True, examples=("shop",)),
    Key(
        "file",
        kinds.ABSOLUTE,
        "The file of that block on the node, included in nginx's `http` block.",
        examples=("/etc/nginx/conf.d/shop.upstream.conf",),
    ),
    Key(
        "template",
        kinds.FILE,
        "A jinja2 template of your own for that file; `nginx/upstream.conf.j2` says what it may use.",
        examples=("./shop.upstream.j2",),
    ),
    Key("test", kinds.COMMAND, "Tests nginx's configuration.", "nginx -t"),
    Key(
        "reload",
        kinds.COMMAND,
        "Makes nginx take it up. That it returns proves nothing: nginx may refuse it later.",
        "nginx -s reload",
    ),
    Key("pid", kinds.ABSOLUTE, "nginx's pid file.", "/run/nginx.pid"),
    Key(
        "generation",
        kinds.URL,
        "Answers with which upstream file the worker that answers was started.",
        examples=("http://{host}:8080/-/generation",),
    ),
    Key(
        "worker_limit",
        kinds.LIMIT,
        "How long workers of before a reload may live on with their clients; the old process is ended when "
        "the last of them is gone.",
        "60s",
    ),
    Key(
        "fail_timeout",
        kinds.DURATION,
        "For backup: how long nginx leaves a server alone that refused it (`fail_timeout`); `0s` where its "
        "servers say `max_fails=0`.",
        "10s",
    ),
    Key(
        "clients",
        kinds.choice("nudge", "kept", "lost"),
        "A reload closes idle client connections, and a request on its way there is lost. `nudge` takes the "
        "node out at the balancers for that moment, and needs sockets of level `admin`; `kept` says that "
        "your set-up loses none (`keepalive_min_timeout`, or HAProxy's `http-server-close` or `retry-on "
        "all-retryable-errors`); `lost` accepts it. backup on ports needs `kept` or `lost`: see "
        "`service.sockets`.",
        "nudge",
    ),
)

SOCKET = Section(
    """
    For socket-flip: nginx (or HAProxy) connects to `current`, a link to the live process's own socket.
    """,
    """
    socket: {current: /run/shop/current.sock, each: "/run/shop/{release}.sock"}
    """,
    Key(
        "current",
        kinds.ABSOLUTE,
        "The link.",
        needed=True,
        examples=("/run/shop/current.sock",),
    ),
    Key(
        "each",
        kinds.ABSOLUTE,
        "The socket of one release's process; `{release}` is its id.",
        needed=True,
        examples=("/run/shop/{release}.sock",),
    ),
)

ARB = Section(
    """
    For strategy `arb`: the nodes are machines of a replicated data store, whose clients use
    `drainctl.arb` and look at the board.
    """,
    """
    arb:
      board: file:///run/shop/board
      pairs: [[web1, web2]]
      check: http://{host}:8000/health
      lag: http://{host}:8000/lag
      active: http://{host}:8000/queries
    """,
    Key(
        "board",
        kinds.BOARD,
        "Where it is kept who is down: `file:///PATH`, `postgresql://…` or `etcd://HOST:PORT/PREFIX`.",
        needed=True,
        examples=("file:///run/shop/board",),
    ),
    Key(
        "pairs",
        List(List(kinds.NAME, least=2), least=1),
        "Nodes that hold the same data; two of them are never taken at once.",
        needed=True,
        examples=([["store1", "store2"]],),
    ),
    Key(
        "check",
        kinds.URL,
        "Answers 200 when the machine serves queries.",
        needed=True,
        examples=("http://{host}:8000/health",),
    ),
    Key(
        "lag",
        kinds.URL,
        "Answers by how many seconds the machine is behind its replica.",
        examples=("http://{host}:8000/lag",),
    ),
    Key("most_lag", kinds.DURATION, "How far behind still counts as caught up.", "5s"),
    Key(
        "active",
        kinds.URL,
        "Answers how many queries are running on the machine.",
        examples=("http://{host}:8000/queries",),
    ),
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
        "How long a node waits until the balancers show `keep_up` other servers UP, how much longer than "
        "`watch.for` the balancers may take to show a watched node, and how long a rollout waits for a "
        "`store` that is away, or for a balancer that cannot be read: the clock of a step stands still "
        "meanwhile.",
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
        "(`shutdown sessions`; also of old workers, where `master` is configured), `halt` stops for a "
        "person.",
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
        "With `sticky: move`: how long after it left rotation at most; sooner where it is idle sooner. Less "
        "than `limit`.",
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
        Names(kinds.NAME, BALANCER),
        "Every HAProxy process that sends traffic to the nodes, by name. One that is left out here is not "
        "waited for. Strategy `http-check` needs them.",
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
    Key("nginx", NGINX, "nginx on each node, for port-flip and backup."),
    Key("socket", SOCKET, "The sockets of socket-flip."),
    Key("arb", ARB, "The data store of strategy `arb`."),
    Key(
        "store",
        kinds.STORE,
        "Where the journal and the lease are kept: `sqlite:///PATH` on this machine; for controllers on "
        "several machines `postgresql://USER:${PASSWORD}@HOST/DATABASE` as libpq takes it, or "
        "`etcd://HOST:PORT,HOST:PORT/PREFIX` (several-controllers.md). Unless it is set, "
        "`APP.db` in `$XDG_STATE_HOME/drainctl`, or in `~/.local/state/drainctl`.",
        examples=("sqlite:///~/.local/state/drainctl/shop.db",),
    ),
    later=("notify",),
)
