"""A cluster about which doctor has nothing to say, as pictures; tests change one thing in it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from world_kit import cluster, row

from drainctl.doctor.picture import Folder, NodeFacts, Picture, User
from drainctl.haproxy_cfg.read import read_cfg
from drainctl.model import (
    Answer,
    Balancer,
    BalancerLook,
    Checks,
    Cluster,
    Disk,
    DrainPolicy,
    NodeLook,
    Process,
    ServerRow,
    Survey,
)
from drainctl.rollout.places import find_places

CFG = """\
global
    stats socket /run/haproxy/admin.sock level admin expose-fd listeners
    server-state-file /var/lib/haproxy/server-state
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 60s
    timeout check 4s
    retries 3
    option redispatch
    load-server-state-from-file global
backend shop
    option httpchk GET /http-check
    http-check disable-on-404
    default-server check inter 1s
    server web1 10.0.0.11:80
    server web2 10.0.0.12:80
    server web3 10.0.0.13:80
frontend stats
    bind :8404
    stats enable
    stats uri /stats
"""

TOOLS = frozenset({"tar", "sha256sum", "ss", "awk", "readlink"})
NOBODY = User(65534, frozenset({65534}))
ABOVE = (Folder("/srv/shop/shared", "rwxr-xr-x", 0, 0), Folder("/", "rwxr-xr-x", 0, 0))
FACTS = NodeFacts(
    now_s=1000,
    asked_s=1000.2,
    answered_s=1000.4,
    user="deploy",
    tools=TOOLS,
    restart=True,
    sudo=True,
    flag_folder="writable",
    flag_path=ABOVE,
    serving=(User(0), NOBODY),
    current="link",
    free_kb=1_000_000,
    release_kb=10_000,
)
NODE = NodeLook(check=Answer(200), version=Answer(200, "v1\n"), disk=Disk("v1", ("v1",)))
NODES = ("web1", "web2", "web3")


def shop(**changes: Any) -> Cluster:
    """drainctl.yml of three nodes and two balancers, as CFG has them."""
    values: dict[str, Any] = {
        "balancers": tuple(
            Balancer(name, runtime=f"unix:/run/{name}.sock", master=f"unix:/run/{name}.master")
            for name in ("lb1", "lb2")
        ),
        "checks": Checks(inter_s=1.0, timeout_s=4.0),
        "drain": DrainPolicy(limit_s=60.0),
    }
    return replace(cluster(nodes=3), **(values | changes))


def server(name: str, status: str = "UP", **changes: Any) -> ServerRow:
    """One of the three, at its own address."""
    return row(name, status, **({"address": f"10.0.0.1{name[-1]}:80"} | changes))


def look(name: str = "lb1", *rows: ServerRow, **changes: Any) -> BalancerLook:
    """A balancer of level admin, a day old. Rows given here take the place of the same server's."""
    shown = {one.server: one for one in map(server, NODES)}
    extra = [one for one in rows if one.backend != "shop"]
    shown |= {one.server: one for one in rows if one.backend == "shop"}
    process = Process(7, 0, 86400, version="2.6.12")
    values: dict[str, Any] = {"process": process, "rows": (*shown.values(), *extra), "can_change": True}
    return BalancerLook(name, 0.0, **(values | changes))


def picture(
    *looks: BalancerLook,
    config: Cluster | None = None,
    nodes: dict[str, NodeLook | None] | None = None,
    errors: dict[str, str] | None = None,
    facts: dict[str, Any] | None = None,
    cfg: str | None = None,
    **changes: Any,
) -> Picture:
    """
    The calm picture with the given looks, nodes (None: not looked at) and facts in place of its own.

    facts: changes of web1's. cfg: text of lb1's haproxy.cfg.
    """
    config = config or shop()
    tables = {balancer.name: look(balancer.name) for balancer in config.balancers}
    tables |= {one.balancer: one for one in looks}
    names = [node.name for node in config.nodes]
    all_facts = dict.fromkeys(names, FACTS) | ({"web1": replace(FACTS, **facts)} if facts else {})
    values: dict[str, Any] = {
        "cluster": config,
        "survey": Survey(tables, _seen(dict.fromkeys(names, NODE) | (nodes or {})), errors or {}),
        "again": {name: one.process for name, one in tables.items()},
        "facts": all_facts,
        "cfgs": {} if cfg is None else {"lb1": read_cfg(cfg, "haproxy.cfg", {})},
    }
    if "places" not in changes:
        values["places"] = find_places(config, tables)
    return Picture(**(values | changes))


def _seen(nodes: dict[str, NodeLook | None]) -> dict[str, NodeLook]:
    return {name: node for name, node in nodes.items() if node is not None}


def edited(*changes: tuple[str, str]) -> str:
    """CFG with texts replaced; each must be there."""
    text = CFG
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after)
    return text
