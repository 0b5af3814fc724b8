"""Taking nodes over before the first act: from then on an older controller is refused there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from drainctl.errors import DrainctlError, Fenced, LeaseHeld, PreflightError
from drainctl.node.fence import Fence
from drainctl.node.host import Host
from drainctl.threads import in_parallel

Hosts = Mapping[str, Host]
LONGER_S = 10.0  # than an act's own limit: until whoever ran it has ended it
STOLEN, NOT_RAISED = "stolen from ", "not raised"


def fenced(
    hosts: Hosts, by: Fence, targets: Mapping[str, str | None], act_limit_s: float
) -> tuple[Hosts, dict[str, str]]:
    """
    Raise the fence of all these nodes at once, to `by`; acts that still run there are waited for.

    Args:
        hosts: the nodes' hands, by name.
        by: who comes, and for what.
        targets: the release that each node is to get, which its fence tells.
        act_limit_s: how long another controller's act may take.
    Returns: hosts whose acts are fenced, and by node what there is to be told of it.
    Raises: LeaseHeld where a higher token is; PreflightError where a node could not be asked. Both: nothing
        was changed but fences.
    """
    ours = {name: host.fenced(replace(by, to=targets.get(name))) for name, host in hosts.items()}
    said: dict[str, str] = {}
    errors: dict[str, DrainctlError] = {}

    def claim(name: str) -> None:
        try:
            said[name] = ours[name].claim(act_limit_s + LONGER_S)
        except DrainctlError as error:
            errors[name] = error

    in_parallel([partial(claim, name) for name in ours])
    _raise(by, errors)
    told = {name: text for name, text in said.items() if text.startswith((STOLEN, NOT_RAISED))}
    return ours, told


def _raise(by: Fence, errors: Mapping[str, DrainctlError]) -> None:
    refused = [str(error) for error in errors.values() if isinstance(error, Fenced)]
    if refused:
        raise LeaseHeld(
            "\n".join([*refused, f"  ours is token {by.token}, of rollout {by.rollout}"]),
            hint="where that controller runs, wait for it; where its clock or yours is wrong (a token is the "
            "milliseconds since 1970), --steal takes the nodes from it",
        )
    if errors:
        told = [f"{name}: {str(error).removeprefix(f'{name}: ')}" for name, error in errors.items()]
        raise PreflightError("\n".join(told), hint=next((e.hint for e in errors.values() if e.hint), None))
