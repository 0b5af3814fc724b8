"""
What no key of drainctl.yml can tell alone: exclusive keys, duplicates, placeholders, paths filled in.

Everything here works on the plain tree and is tolerant of whatever else is wrong in it, so that these
problems are shown together with those of the single keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from drainctl.config.expand import shown
from drainctl.config.placeholders import OWN, fill, listed, names_in
from drainctl.config.problems import Path, Problem, found

Tree = Mapping[str, Any]

# Keys whose texts may hold placeholders, with the names that only they know.
TEMPLATES: Mapping[Path, frozenset[str]] = {
    ("connect", "engine"): frozenset(),
    ("release", "root"): frozenset(),
    ("service", "restart"): frozenset({"release"}),
    ("service", "start"): frozenset({"release", "port", "socket"}),
    ("service", "stop"): frozenset({"release", "port", "socket"}),
    ("service", "ask"): frozenset({"path", "port", "socket"}),
    ("service", "address"): frozenset(),
    ("service", "sockets", 0): frozenset(),
    ("service", "sockets", 1): frozenset(),
    ("service", "reload"): frozenset({"release"}),
    ("service", "reload", "command"): frozenset({"release"}),
    ("service", "reload", "gunicorn"): frozenset(),
    ("nginx", "file"): frozenset(),
    ("nginx", "test"): frozenset(),
    ("nginx", "reload"): frozenset(),
    ("nginx", "pid"): frozenset(),
    ("nginx", "generation"): frozenset(),
    ("socket", "current"): frozenset(),
    ("socket", "each"): frozenset({"release"}),
    ("arb", "check"): frozenset(),
    ("arb", "lag"): frozenset(),
    ("arb", "active"): frozenset(),
    ("health", "check"): frozenset(),
    ("health", "ready"): frozenset(),
    ("health", "version"): frozenset(),
    ("health", "active"): frozenset(),
    ("health", "flag"): frozenset(),
    ("health", "flag", "path"): frozenset(),
    ("health", "flag", "url"): frozenset(),
    ("health", "flag", "set"): frozenset({"text"}),
    ("health", "flag", "clear"): frozenset(),
}
ROOT = ("release", "root")
PATHS: tuple[Path, ...] = (
    ROOT,
    ("health", "flag"),
    ("health", "flag", "path"),
    ("nginx", "file"),
    ("nginx", "pid"),
    ("service", "reload", "gunicorn"),
    ("service", "sockets", 0),
    ("service", "sockets", 1),
    ("socket", "current"),
)
URLS: tuple[Path, ...] = (
    ("health", "check"),
    ("health", "ready"),
    ("health", "version"),
    ("health", "flag", "url"),
    ("nginx", "generation"),
    ("arb", "check"),
    ("arb", "lag"),
    ("arb", "active"),
)


def check(tree: Tree) -> Iterator[Problem]:
    """Every problem between the keys of a tree whose variables are in place."""
    for name, keys in _mapping(tree, "balancers").items():
        if isinstance(keys, dict):
            yield from _balancer(("balancers", name), keys)
    yield from _backends(tree)
    yield from _nodes(tree)
    yield from _containers(tree)
    yield from _release(tree)
    yield from _vars(tree)
    yield from _flag(tree)
    yield from _service(tree)
    yield from _socket(tree)
    yield from _arb(tree)
    yield from _placeholders(tree)
    yield from _urls(tree)


def _balancer(at: Path, keys: Tree) -> Iterator[Problem]:
    """Either a Runtime API or a stats page, and nothing that belongs to the other."""
    if "runtime" in keys and "stats" in keys:
        yield Problem(at, "found both runtime and stats, expected one of them", on_key=True)
    elif "runtime" not in keys and "stats" not in keys:
        yield Problem(at, "found neither runtime nor stats, expected one of them", on_key=True)
    for name in ("auth", "ca"):
        if name in keys and "stats" not in keys:
            yield Problem(
                (*at, name), f"found {name} without stats, expected it with stats only", on_key=True
            )
    stats = keys.get("stats")
    if "ca" in keys and isinstance(stats, str) and not stats.startswith("https://"):
        yield Problem(
            (*at, "ca"), "found ca with a stats page without TLS, expected it with https only", on_key=True
        )
    if "ssh" not in keys:
        return
    if "runtime" not in keys:
        yield Problem((*at, "ssh"), "found ssh without runtime, expected it with runtime only", on_key=True)
    for name in ("runtime", "master"):
        socket = keys.get(name)
        if isinstance(socket, str) and socket.startswith("unix:") and not socket.startswith("unix:/"):
            yield Problem((*at, name), f"found {found(socket)}, expected an absolute path on the ssh host")


def _backends(tree: Tree) -> Iterator[Problem]:
    names = tree.get("backends")
    if not isinstance(names, list):
        return
    for place, name in enumerate(names):
        if isinstance(name, str) and name in names[:place]:
            yield Problem(("backends", place), f"found {found(name)} a second time, expected once")


def _nodes(tree: Tree) -> Iterator[Problem]:
    """No two nodes are one server, nor, over SSH, one machine."""
    servers: dict[str, str] = {}
    machines: dict[tuple[str, str], str] = {}
    connect = _mapping(tree, "connect")
    for name, keys in _dicts(tree, "nodes"):
        server = keys.get("server", name)
        if isinstance(server, str) and (other := servers.setdefault(server, name)) != name:
            at: Path = ("nodes", name, "server")
            yield Problem(
                at, f"found {found(server)}, which is nodes.{other}'s, expected a server of its own"
            )
        host, port = keys.get("host"), keys.get("port", connect.get("port", "22"))
        if connect.get("via", "ssh") != "ssh" or not isinstance(host, str) or not isinstance(port, str):
            continue
        if (other := machines.setdefault((host, port), name)) != name:
            at = ("nodes", name, "host")
            text = f"found {found(host)} port {found(port)}, which is nodes.{other}'s, expected another"
            yield Problem(at, text)


def _containers(tree: Tree) -> Iterator[Problem]:
    """No two nodes are one container, unless their engines differ; and TLS has all its files."""
    connect = _mapping(tree, "connect")
    via = connect.get("via", "ssh")
    for name in ("engine", "ca", "cert"):
        if name in connect and via != "docker":
            yield Problem(("connect", name), f"found via: {via}, expected docker with {name}", on_key=True)
    engine = connect.get("engine", "")
    if "ca" in connect and isinstance(engine, str) and not engine.startswith(("tcp://", "{")):
        text = f"found engine {found(engine)}, expected tcp://HOST:PORT with ca"
        yield Problem(("connect", "ca"), text, on_key=True)
    if "cert" in connect and not {"ca", "key"} <= connect.keys():
        yield Problem(("connect", "cert"), "found cert alone, expected ca and key with it", on_key=True)
    taken: dict[tuple[object, object], str] = {}
    for name, keys in _dicts(tree, "nodes") if via == "docker" else ():
        here = keys.get("host") if isinstance(engine, str) and names_in(engine) else None
        container = keys.get("container", name)
        if (other := taken.setdefault((here, container), name)) != name:
            at: Path = ("nodes", name, "container") if "container" in keys else ("nodes", name)
            yield Problem(
                at, f"found {found(container)}, which is nodes.{other}'s, expected a container of its own"
            )


def _release(tree: Tree) -> Iterator[Problem]:
    """A folder, or an image; and an image's drain flag is put into the new container before it starts."""
    release = tree.get("release")
    if not isinstance(release, dict):
        return
    if ("root" in release) == ("image" in release):
        what = "both root and image" if "root" in release else "neither root nor image"
        yield Problem(("release",), f"found {what}, expected one of them", on_key=True)
    if "image" not in release:
        return
    if "shared" in release:
        yield Problem(("release", "shared"), "found it with image, expected it with root only", on_key=True)
    if (via := _mapping(tree, "connect").get("via", "ssh")) != "docker":
        yield Problem(("release", "image"), f"found connect.via = {via}, expected docker with an image")
    flag = _mapping(tree, "health").get("flag")
    if isinstance(flag, dict) and "path" not in flag:
        text = "found no path, expected one: with release.image it is put into a container before that starts"
        yield Problem(("health", "flag"), text, on_key=True)


def _vars(tree: Tree) -> Iterator[Problem]:
    for name, keys in _dicts(tree, "nodes"):
        for own in _mapping(keys, "vars"):
            if own in (*OWN, "text"):
                text = f"found {{{own}}}, which drainctl fills in, expected a name of your own"
                yield Problem(("nodes", name, "vars", own), text, on_key=True)


def _flag(tree: Tree) -> Iterator[Problem]:
    flag = _mapping(tree, "health").get("flag")
    if not isinstance(flag, dict):
        return
    given = flag.keys() & {"path", "set", "clear", "url"}
    if given not in ({"path"}, {"url"}, {"set", "clear"}):
        what = " and ".join(name for name in flag if name in given) or "none of its keys"
        yield Problem(
            ("health", "flag"), f"found {what}, expected path, or set and clear, or url", on_key=True
        )


def _service(tree: Tree) -> Iterator[Problem]:
    """Two processes that differ, and commands that say which one they mean; one way to reload."""
    service = _mapping(tree, "service")
    for kind, what in (("ports", "ports"), ("sockets", "paths")):
        pair = service.get(kind)
        if isinstance(pair, list) and (len(pair) != 2 or pair[0] == pair[1]):
            seen = f"{found(pair[0])} twice" if len(pair) == 2 else f"{len(pair)} of them"
            yield Problem(("service", kind), f"found {seen}, expected two different {what}")
    if "ports" in service and "sockets" in service:
        yield Problem(("service",), "found both ports and sockets, expected one of them", on_key=True)
    names = ("socket",) if "sockets" in service else ("port", "socket", "release")
    which = "{socket}" if "sockets" in service else "{port}, {socket} or {release}"
    for name in ("start", "stop"):
        text = service.get(name)
        if isinstance(text, str) and not set(names) & set(names_in(text)):
            what = f"expected {which} in it: it is for one process of several"
            yield Problem(("service", name), f"found {found(text)}, {what}")
    reload = service.get("reload")
    if isinstance(reload, dict) and ("command" in reload) == ("gunicorn" in reload):
        what = "both command and gunicorn" if "command" in reload else "neither command nor gunicorn"
        yield Problem(("service", "reload"), f"found {what}, expected one of them", on_key=True)


def _socket(tree: Tree) -> Iterator[Problem]:
    """Each release has a socket of its own, or the new process would take the old one's away."""
    each = _mapping(tree, "socket").get("each")
    if isinstance(each, str) and "release" not in names_in(each):
        yield Problem(("socket", "each"), f"found {found(each)}, expected {{release}} in it")


def _arb(tree: Tree) -> Iterator[Problem]:
    """Every machine of a pair is a node, and in one pair only."""
    pairs, nodes = _mapping(tree, "arb").get("pairs"), _mapping(tree, "nodes")
    seen: set[str] = set()
    for place, pair in enumerate(pairs if isinstance(pairs, list) else ()):
        for name in pair if isinstance(pair, list) else ():
            if isinstance(name, str) and name not in nodes:
                yield Problem(("arb", "pairs", place), f"found {found(name)}, expected a name in nodes")
            elif isinstance(name, str) and name in seen:
                yield Problem(("arb", "pairs", place), f"found {found(name)} again, expected it in one pair")
            seen.add(str(name))


def _placeholders(tree: Tree) -> Iterator[Problem]:
    """Every name in braces is known, on every node; and a path that begins with one is absolute there."""
    nodes = _values(tree)
    for at, text in _templates(tree):
        names = names_in(text)
        for node, values in nodes.items():
            known = (
                values if at != ROOT else {name: value for name, value in values.items() if name != "root"}
            )
            wrong = next((name for name in names if name not in known and name not in TEMPLATES[at]), None)
            if wrong:
                some = wrong != "root" and any(wrong in others for others in nodes.values())
                on = f" on nodes.{node}" if some else ""
                what = f"{{{wrong}}}" if f"{{{wrong}}}" in shown(text) else found(text)
                yield Problem(
                    at, f"found {what}{on}, expected one of {listed(_in_order(known.keys() | TEMPLATES[at]))}"
                )
                break
            if at in PATHS and text.startswith("{") and not fill(text, known).startswith("/"):
                yield Problem(at, f"found {found(text)}, no absolute path on nodes.{node}, expected one")
                break


def _values(tree: Tree) -> dict[str, dict[str, str]]:
    """What the placeholders are on each node, as far as the tree tells."""
    connect, release = _mapping(tree, "connect"), _mapping(tree, "release")
    nodes = {}
    for name, keys in _dicts(tree, "nodes"):
        own = {"host": keys.get("host"), "node": name, **_mapping(keys, "vars")}
        if port := keys.get("port", connect.get("port")):
            own["port"] = port
        values = {key: value if isinstance(value, str) else "" for key, value in own.items()}
        if isinstance(root := release.get("root"), str):
            values["root"] = fill(root, values) if set(names_in(root)) <= values.keys() else ""
        nodes[name] = values
    return nodes


def _in_order(names: AbstractSet[str]) -> list[str]:
    own = [name for name in ("host", "node", "port", "release", "root", "text") if name in names]
    return own + sorted(names - set(own))


def _urls(tree: Tree) -> Iterator[Problem]:
    """A URL on the node differs from node to node: one that does not is the balancer's, or one node's."""
    nodes = _mapping(tree, "nodes")
    for at, text in _templates(tree):
        if at in URLS and len(nodes) > 1 and not set(names_in(text)) - {"root"}:
            yield Problem(
                at, f"found {found(text)} for {len(nodes)} nodes, expected one that differs, by {{host}}"
            )


def _templates(tree: Tree) -> Iterator[tuple[Path, str]]:
    for at in TEMPLATES:
        value: Any = tree
        for part in at:
            value = _inside(value, part)
        if isinstance(value, str):
            yield at, value


def _inside(value: Any, part: str | int) -> Any:
    if isinstance(part, int):
        return value[part] if isinstance(value, list) and part < len(value) else None
    return value.get(part) if isinstance(value, dict) else None


def _mapping(tree: Tree, key: str) -> Tree:
    value = tree.get(key)
    return value if isinstance(value, dict) else {}


def _dicts(tree: Tree, key: str) -> Iterator[tuple[str, Tree]]:
    return ((name, keys) for name, keys in _mapping(tree, key).items() if isinstance(keys, dict))
