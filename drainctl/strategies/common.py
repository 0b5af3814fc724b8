"""Steps that strategies share: stage, switch, watch. Pure."""

from __future__ import annotations

from drainctl.model import Cluster
from drainctl.rollout import rules
from drainctl.steps import Expectation, Look, Stage, Step, Switch
from drainctl.strategies import expect


def stage(cluster: Cluster, release: str) -> Step:
    """Before anything else: the release is on the node, whole, under its own name."""
    what = f"image {cluster.images.repository}:{release}" if cluster.images else f"releases/{release}"
    seen_when = f"{what} is unpacked and its sha256 was verified on the node"
    return Step(
        name="stage",
        act=Stage(release),
        seen_when=f"{what} is on the node's engine" if cluster.images else seen_when,
        expects=expect.at_once(f"{what} is there"),
        looks=frozenset(),
        limit_s=cluster.service.limit_s,
        expected_s=None,
    )


def switch(release: str) -> Step:
    """`current` links to the release. What runs already does not care; what is started next does."""
    return Step(
        name="switch",
        act=Switch(release),
        seen_when=f"current links to releases/{release}",
        expects=expect.links_to(release),
        looks=frozenset({Look.DISK}),
        limit_s=5.0,
        changes=True,
    )


def answers(cluster: Cluster, release: str | None) -> tuple[Expectation, frozenset[Look]]:
    """That the app answers, with `release` where one is named, and the looks that tell it."""
    health = cluster.health
    looks = [look for look, url in ((Look.VERSION, health.version), (Look.READY, health.ready)) if url]
    expects = expect.answers_with(release, version=bool(health.version), ready=bool(health.ready))
    return expects, frozenset(looks)


def watch(cluster: Cluster) -> Step:
    """Back, and still well: by the balancers' counters, or by its own answers where there is no balancer."""
    policy = cluster.watch
    if not cluster.balancers:
        well, looks = answers(cluster, None)
        return Step(
            name="watch",
            act=None,
            seen_when=f"{policy.for_s:g} s in which it answers",
            expects=expect.keeps(well, policy),
            looks=looks,
            limit_s=policy.for_s + cluster.rollout.patience_s,
            every_s=0.2,
            expected_s=policy.for_s,
            by_key="watch.for",
            exact=True,
        )
    peers = frozenset(node.server for node in cluster.nodes)
    return Step(
        name="watch",
        act=None,
        seen_when=f"{policy.for_s:g} s with at most {policy.errors} errors beyond its peers' rate",
        expects=expect.watched(policy, peers, rules.routing_tail_s(cluster.checks)),
        looks=frozenset({Look.PEERS}),
        limit_s=policy.for_s + cluster.rollout.patience_s,
        mark=True,
        every_s=0.2,
        expected_s=policy.for_s,
        by_key="watch.for",
        exact=True,
    )
