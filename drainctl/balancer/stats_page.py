"""
One HAProxy through its stats page: read only, and blind to which process answers.

The page's CSV has the columns of `show stat`, but neither pid nor uptime, so a new process is known only by
counters that fell. Old workers cannot be seen.
Source: HAProxy management.txt, "9.1. CSV format"; configuration.txt, "stats uri", "stats auth".
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Literal, NoReturn

from drainctl.balancer import parse
from drainctl.errors import BalancerRefused, BalancerUnreachable, UnexpectedReply
from drainctl.http import Http
from drainctl.model import Answer, BalancerLook, Process, Secret

_MOST = 64 << 20  # bytes of CSV: 250,000 servers


class StatsPageBalancer:
    """
    A BalancerDoor that can look and not act.

    Args:
        name: the balancer's name.
        url: the stats page; `;csv` is added where it is missing.
        auth: `user:password`, where the page asks for them.
        ca: PEM file of the CAs to trust instead of the system's.
        timeout_s: limit of one look.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        auth: Secret | None = None,
        ca: str | None = None,
        timeout_s: float = 2.0,
    ) -> None:
        self._name = name
        self._url = url if url.endswith(";csv") else f"{url};csv"
        self._auth = auth
        self._ca = ca
        self._timeout_s = timeout_s
        self._http = Http()

    @property
    def name(self) -> str:
        return self._name

    def look(self, servers: Collection[tuple[str, str]] | None = None) -> BalancerLook:
        """Read the whole page, whichever servers are wanted: there is no narrower one. See BalancerDoor."""
        began = time.monotonic()
        answer = self._http.get(
            self._url, timeout_s=self._timeout_s, auth=self._auth, ca=self._ca, limit=_MOST
        )
        wanted = None if servers is None else frozenset(servers)
        try:
            shown = parse.show_stat(self._csv(answer), wanted)
        except UnexpectedReply as error:
            raise UnexpectedReply(f"{self._name}: {error}", hint=error.hint) from None
        return BalancerLook(
            balancer=self._name,
            at_s=began,
            process=Process(None, None, None),
            rows=shown.servers,
            backends=shown.backends,
            frontends=shown.frontends,
        )

    def _csv(self, answer: Answer) -> str:
        if answer.status is None:
            raise BalancerUnreachable(f"{self._name}: {self._url}: {answer.error}")
        if answer.status == 401:
            how = "other credentials" if self._auth else "a user and a password"
            raise BalancerRefused(
                f"{self._name}: {self._url} wants {how} (401)",
                hint=f"set balancers.{self._name}.auth to user:password of its `stats auth` line",
            )
        if answer.status == 403:
            raise BalancerRefused(
                f"{self._name}: {self._url} is forbidden to us (403)",
                hint="an `http-request deny` or a filter of addresses stands before the page",
            )
        if answer.status != 200:
            raise UnexpectedReply(
                f"{self._url} answered {answer.status} and not 200",
                hint="compare it with the `stats uri` line",
            )
        if not answer.body.startswith("# pxname"):
            raise UnexpectedReply(
                f"{self._url} answered something else than `show stat` CSV",
                hint="that is another page: compare the URL with the `stats uri` line",
            )
        if len(answer.body) >= _MOST or not answer.body.endswith("\n"):
            raise UnexpectedReply(f"{self._url}: answer cut short after {len(answer.body)} bytes")
        return answer.body

    def set_health(self, backend: str, server: str, health: Literal["up", "stopping", "down"]) -> None:
        """Refused: see BalancerDoor."""
        self._refuse(f"set server {backend}/{server} health {health}")

    def set_state(self, backend: str, server: str, state: Literal["ready", "drain", "maint"]) -> None:
        """Refused: see BalancerDoor."""
        self._refuse(f"set server {backend}/{server} state {state}")

    def shutdown_sessions(self, backend: str, server: str) -> None:
        """Refused: see BalancerDoor."""
        self._refuse(f"shutdown sessions server {backend}/{server}")

    def _refuse(self, command: str) -> NoReturn:
        raise BalancerRefused(
            f"{self._name}: `{command}` was not sent: a stats page is read only",
            hint=f"give balancers.{self._name}.runtime instead of stats",
        )

    def close(self) -> None:
        """Close the kept connection; see BalancerDoor."""
        self._http.close()
