"""What `--adopt` would change: files of nginx that drainctl did not write, and would take over."""

from __future__ import annotations

from collections.abc import Mapping

from drainctl.errors import ConfigError
from drainctl.model import Cluster, Survey
from drainctl.nginx import lines, upstream
from drainctl.rollout.plan import Plan
from drainctl.steps import WriteUpstream
from drainctl.strategies import port_flip


def adoptions(cluster: Cluster, plan: Plan, seen: Survey) -> Mapping[str, str]:
    """By node, the difference between its upstream file and what the plan would make of it first."""
    found = {}
    for name in plan.order:
        said = seen.nodes[name].inspected.get(port_flip.NAME)
        if said is None or plan.ways[name].strategy != port_flip.NAME:
            continue
        nginx = port_flip.nginx_of(cluster, cluster.node(name))
        file = str(nginx.file)
        old = lines.parse_inspect(said.out).file_text
        if old is not None and _ours(old, nginx.upstream, file):
            continue
        for step in plan.steps(cluster, name):
            if isinstance(step.act, WriteUpstream):
                new = port_flip.upstream_text(nginx, step.act)
                found[name] = upstream.diff(old or "", new, file)
    return found


def _ours(text: str, name: str, file: str) -> bool:
    try:
        return upstream.read(text, name, name=file).ours
    except ConfigError:
        return False
