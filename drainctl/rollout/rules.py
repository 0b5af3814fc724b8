"""
What must be true of timings and capacity: one function per rule, and the sentences that refuse a file.

`drainctl.config` refuses a drainctl.yml by `problems`; the strategies take their limits from the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

from drainctl.model import Checks, Cluster

LOOK_MARGIN_S = 2.0  # a look at a slow balancer, and a busy machine

# What each strategy needs of drainctl.yml; of keys with `or` between them, one.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "http-check": ("balancers", "health.check", "health.flag"),
    "socket-flip": ("socket", "service.start", "service.stop", "release"),
    "port-flip": ("nginx.file", "nginx.generation", "service.ports", "service.start", "service.stop"),
    "backup": ("nginx", "service.sockets or service.ports", "service.start", "service.stop"),
    "reload": ("service.reload",),
    "arb": ("arb", "service.restart"),
}

# What these keys are measured by: where one of them is left out, a message points to the other.
MEASURED_BY = {
    "watch.for": "checks.slowstart",
    "rollout.at_once": "rollout.keep_up",
    "drain.move_after": "drain.limit",
}


def check_length_s(checks: Checks) -> float:
    """
    Longest time one whole check may take, connect and answer, seconds.

    Source: HAProxy configuration.txt, "timeout check": without it, `inter` bounds the whole check; with
    it, connecting is bounded by `inter` and the answer by `timeout check`.
    """
    return checks.inter_s if checks.timeout_s is None else checks.inter_s + checks.timeout_s


def routing_tail_s(checks: Checks) -> float:
    """
    Longest time HAProxy may still pick a server after its /http-check first answers 404, seconds.

    One 404 is enough, whatever `fall` says. `inter` begins when a check ends, so a check that had just
    asked when the flag was set comes first, then the interval, then the check that sees the 404. Clients
    bound by persistence may still come afterwards.

    Source: HAProxy configuration.txt, "http-check disable-on-404", "inter", "spread-checks".
    Proof: tests/real/test_rollout.py::test_no_new_request_after_the_routing_tail
    """
    return checks.inter_s * (1 + checks.spread_percent / 100) + 2 * check_length_s(checks)


def return_limit_s(checks: Checks) -> float:
    """
    Longest time from a /http-check that answers 200 again to UP, seconds.

    From NOLB one good check is enough; a server that went DOWN meanwhile is asked every `downinter` and
    needs `rise` good checks.
    """
    slowest = max(checks.inter_s, checks.downinter_s or 0) * (1 + checks.spread_percent / 100)
    return (checks.rise + 1) * (slowest + check_length_s(checks))


def problems(cluster: Cluster) -> list[tuple[str, str]]:
    """Every rule that the cluster breaks, as (dotted key, what was found and what is expected)."""
    return [
        problem
        for rule in (_wave_fits, _watch_covers_slowstart, _move_before_limit, _answers, _needs, _containers)
        for problem in rule(cluster)
    ]


def _wave_fits(cluster: Cluster) -> list[tuple[str, str]]:
    """A wave and `keep_up` must fit into the cluster together. A lone node's peers are not in the file."""
    policy, nodes = cluster.rollout, len(cluster.nodes)
    leaving = any("http-check" in node.strategy for node in cluster.nodes)
    wave, keep = policy.at_once.of(nodes), policy.keep_up.of(nodes)
    found = []
    if wave < 1:
        found.append(("rollout.at_once", f"found {policy.at_once}, expected at least 1 node at once"))
    elif leaving and nodes > 1 and wave + keep > nodes:
        what = (
            f"found {policy.at_once} ({wave} of {nodes} nodes), expected at most {nodes - keep}: "
            f"rollout.keep_up = {policy.keep_up} keeps {keep} up"
        )
        found.append(("rollout.at_once", what))
    if policy.canary >= nodes > 1:
        found.append(("rollout.canary", f"found {policy.canary}, expected fewer than the {nodes} nodes"))
    return found


def _watch_covers_slowstart(cluster: Cluster) -> list[tuple[str, str]]:
    """A server takes its full share only after `slowstart`; the next one must not leave before."""
    watch, slowstart = cluster.watch.for_s, cluster.checks.slowstart_s
    if watch >= slowstart:
        return []
    what = (
        f"found {watch:g} s, expected at least checks.slowstart = {slowstart:g} s: until then a restored "
        f"server does not take its full share"
    )
    return [("watch.for", what)]


def _move_before_limit(cluster: Cluster) -> list[tuple[str, str]]:
    drain = cluster.drain
    if drain.sticky != "move" or drain.move_after_s < drain.limit_s:
        return []
    what = (
        f"found {drain.move_after_s:g} s, expected less than drain.limit = {drain.limit_s:g} s: sticky "
        f"clients would never be moved"
    )
    return [("drain.move_after", what)]


def _answers(cluster: Cluster) -> list[tuple[str, str]]:
    health = cluster.health
    if health.ready or health.version:
        return []
    return [
        (
            "health",
            "found neither ready nor version, expected at least one: a restart is over when the app answers",
        )
    ]


def _containers(cluster: Cluster) -> list[tuple[str, str]]:
    """A whole container is replaced out of rotation; the ways in place change a process beside another."""
    others = {name for node in cluster.nodes for name in node.strategy if name != "http-check"}
    if cluster.images is None or not others:
        return []
    what = f"found {', '.join(sorted(others))}, expected http-check: release.image replaces whole containers"
    return [("strategy", what)]


def _needs(cluster: Cluster) -> list[tuple[str, str]]:
    """Every key that some node's strategies need is there."""
    found = []
    for strategy, keys in NEEDS.items():
        users = [node.name for node in cluster.nodes if strategy in node.strategy]
        if users:
            found += [
                (
                    key.partition(" or ")[0],
                    f"found nothing, expected {_expected(key)}: strategy {strategy} needs it",
                )
                for key in keys
                if not any(_value(cluster, each) for each in key.split(" or "))
            ]
    return found


def _expected(key: str) -> str:
    return f"it or {key.partition(' or ')[2]}" if " or " in key else "a value"


def _value(cluster: Cluster, key: str) -> object:
    found: object = cluster
    for part in key.split("."):
        found = getattr(found, part, None)
    return found
