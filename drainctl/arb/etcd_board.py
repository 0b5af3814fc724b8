"""
A board in etcd (3.4 or newer, by its JSON gateway): one key per board, and a key per lock under a lease.

    etcd://10.0.0.1:2379,10.0.0.2:2379/shop    members are tried in this order
    etcd+https is not offered: put etcd behind a tunnel, or take PostgreSQL
"""

from __future__ import annotations

import base64
import json
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from etcd3gw.client import Etcd3Client

from drainctl.arb.board import Down, Marks, me, rows_of
from drainctl.arb.shared_board import EVERY_S, FIRST_S, LIMIT_S, Change, SharedBoard

TRIES = 20  # of a change that others keep changing meanwhile
LEASE_S = 5  # a lock outlives its holder by no more
PORT = 2379


class EtcdBoard(SharedBoard):
    """
    A board that all machines share through etcd. Other arguments are those of `SharedBoard`.

    Args:
        url: as above.
    Raises: ValueError for a URL without host or name.
    """

    def __init__(self, url: str, *, every_s: float = EVERY_S, first_s: float = FIRST_S) -> None:
        members, name = split(url)
        super().__init__(partial(_first, members, name), every_s=every_s, first_s=first_s)


class EtcdShelf:
    """One member of the cluster; see `Shelf`. Raises: etcd3gw's and requests' exceptions."""

    def __init__(self, host: str, port: int, name: str) -> None:
        self._etcd: Any = Etcd3Client(host, port, timeout=LIMIT_S, api_path="/v3/")
        self._etcd.session.trust_env = False
        self._key = f"drainctl/arb/{name}"
        self._leases: dict[str, Any] = {}

    def read(self) -> Marks:
        """The marks as they stand."""
        return self._read()[0]

    def change(self, change: Change) -> Marks:
        """Read, change, and write if nobody has written since; else again. Raises: OSError after TRIES."""
        for _ in range(TRIES):
            old, revision = self._read()
            new = change(old)
            value = json.dumps(rows_of(new))
            if self._put_if({"target": "MOD", "mod_revision": revision}, self._key, value):
                return new
        raise OSError(f"others wrote the board {TRIES} times while we tried")

    def take(self, what: str) -> bool:
        """Take the lock, or renew it."""
        lease = self._leases.get(what)
        if lease is not None:
            if lease.refresh() > 0:
                return True
            del self._leases[what]
        if self.taken(what):
            return False
        lease = self._etcd.lease(LEASE_S)
        if self._put_if({"target": "VERSION", "version": 0}, f"{self._key}/{what}", me(), lease.id):
            self._leases[what] = lease
            return True
        lease.revoke()
        return False

    def taken(self, what: str) -> bool:
        """Whether anybody holds it."""
        return bool(self._etcd.get(f"{self._key}/{what}"))

    def leave(self, what: str) -> None:
        """Let go of it."""
        lease = self._leases.pop(what, None)
        if lease is not None:
            lease.revoke()

    def close(self) -> None:
        """Let go of the locks, end the connections."""
        try:
            for what in list(self._leases):
                self.leave(what)
        finally:
            self._etcd.session.close()

    def _read(self) -> tuple[Marks, int]:
        """The marks, and the revision by which they were written; 0: never."""
        for value, about in self._etcd.get(self._key, metadata=True):
            marks = {one["machine"]: Down(**one) for one in json.loads(value)}
            return marks, int(about["mod_revision"])
        return {}, 0

    def _put_if(self, compare: dict[str, Any], key: str, value: str, lease: int = 0) -> bool:
        coded = _coded(key)
        put = {"key": coded, "value": _coded(value), "lease": lease}
        asked = {
            "compare": [{"key": coded, "result": "EQUAL", **compare}],
            "success": [{"request_put": put}],
        }
        return bool(self._etcd.transaction(asked).get("succeeded"))


def split(url: str) -> tuple[list[tuple[str, int]], str]:
    """The members, and the board's name. Raises: ValueError."""
    parts = urlsplit(url)
    name = parts.path.strip("/")
    members = [f"//{one}" for one in parts.netloc.split(",") if one]
    if not members or not name:
        raise ValueError(f"board {url!r}: wants etcd://host:port/name")
    found = [urlsplit(one) for one in members]
    return [(one.hostname or "", one.port or PORT) for one in found], name


def _first(members: list[tuple[str, int]], name: str) -> EtcdShelf:
    """The first member that answers. Raises: what the last one did."""
    for host, port in members[:-1]:
        shelf = EtcdShelf(host, port, name)
        try:
            shelf.read()
        except Exception:  # noqa: BLE001  whatever it is, the next one is asked
            shelf.close()
        else:
            return shelf
    return EtcdShelf(*members[-1], name)


def _coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
