"""The door to one HAProxy: what every way of reaching it (socket, SSH, stats page) offers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, Protocol

from drainctl.model import BalancerLook

Server = tuple[str, str]  # (backend, server), HAProxy's names


class BalancerDoor(Protocol):
    """
    One HAProxy process and its old workers. A door is used by one thread at a time.

    Every method raises BalancerUnreachable (no connection, no answer in time, answer cut short),
    BalancerRefused (HAProxy's own words, verbatim) or UnexpectedReply, and nothing else.
    """

    @property
    def name(self) -> str:
        """The balancer's name in drainctl.yml."""
        ...

    def look(self, servers: Collection[Server] | None = None) -> BalancerLook:
        """
        Read what HAProxy shows now.

        Args:
            servers: read only these rows (1.6 kB each, whatever the backend's size); None reads the whole
                table with every BACKEND and FRONTEND row. A server that is asked for and not there is
                simply missing from `rows`: the caller must not take it for an idle one.
        """
        ...

    def set_health(self, backend: str, server: str, health: Literal["up", "stopping", "down"]) -> None:
        """`set server B/s health H`: the nudge. HAProxy's next check overrides it."""
        ...

    def set_state(self, backend: str, server: str, state: Literal["ready", "drain", "maint"]) -> None:
        """`set server B/s state S`. It outlives the controller, and a reload forgets it."""
        ...

    def shutdown_sessions(self, backend: str, server: str) -> None:
        """`shutdown sessions server B/s`: requests in flight there are cut (502 to their clients), those
        that old workers carry too, where the master can be asked.
        """
        ...

    def close(self) -> None:
        """Let go of kept connections. May be called twice."""
        ...
