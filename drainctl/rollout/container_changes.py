"""What nodes that are containers would differ in after a rollout; for `plan`, which shows it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from drainctl.errors import DrainctlError
from drainctl.node.host import Host
from drainctl.rollout.plan import Plan
from drainctl.threads import in_parallel

NOT_HERE = "the image is not on its engine yet, so what else differs is not known"


def container_changes(plan: Plan, hosts: Mapping[str, Host]) -> Mapping[str, Sequence[str]]:
    """By node, a line for each difference between its container and the new one; only for images."""
    if plan.release is None or plan.release.image is None:
        return {}
    ref = plan.release.image
    found: dict[str, Sequence[str]] = {}

    def ask(name: str) -> None:
        try:
            changes = hosts[name].changes(ref)
        except DrainctlError as error:
            changes = (f"not known: {error}",)
        found[name] = (NOT_HERE,) if changes is None else changes

    in_parallel([partial(ask, name) for name in plan.order])
    return {name: found[name] for name in plan.order}
