"""The strategies that there are, by name, in the order in which docs and messages list them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from drainctl.strategies import arb, backup, http_check, port_flip, reload, socket_flip
from drainctl.strategies.door import Strategy

STRATEGIES: Mapping[str, Strategy] = MappingProxyType(
    {
        one.name: one
        for one in (
            http_check.STRATEGY,
            socket_flip.STRATEGY,
            port_flip.STRATEGY,
            backup.STRATEGY,
            reload.STRATEGY,
            arb.STRATEGY,
        )
    }
)
