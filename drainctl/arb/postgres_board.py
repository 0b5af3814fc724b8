"""
A board in PostgreSQL: one row per board in the table `drainctl_arb_board`, a connection per process.

    postgresql://user@host/database?board=shop

The table is made where it is missing; a role that may not create it needs SELECT, INSERT and UPDATE on it.
Who probes is decided by session-level advisory locks (PostgreSQL, section 13.3.5), so the connection must
not go through a pooler that changes sessions between transactions.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Generator
from functools import partial
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict

from drainctl.arb.board import Down, Marks, rows_of
from drainctl.arb.shared_board import EVERY_S, FIRST_S, LIMIT_S, Change, SharedBoard
from drainctl.psycopg_limit import within

TABLE = """
CREATE TABLE drainctl_arb_board (name text PRIMARY KEY, marks text NOT NULL);
"""
LOCKS = 0x617262  # the first key of all our advisory locks
T = TypeVar("T")


class PostgresBoard(SharedBoard):
    """
    A board that all machines share through PostgreSQL. Other arguments are those of `SharedBoard`.

    Args:
        url: as above; without `board`, the board is named "default".
    """

    def __init__(self, url: str, *, every_s: float = EVERY_S, first_s: float = FIRST_S) -> None:
        super().__init__(partial(PostgresShelf, *split(url)), every_s=every_s, first_s=first_s)


class PostgresShelf:
    """One connection; see `Shelf`. Raises: psycopg.Error or TimeoutError from every method."""

    def __init__(self, url: str, name: str) -> None:
        limit_ms = round(LIMIT_S * 1000)
        given = conninfo_to_dict(url).get("options") or ""
        self._name = name
        self._held: set[str] = set()
        self._link = _Limited.connect(
            url,
            autocommit=True,
            connect_timeout=2,  # libpq takes no less
            options=f"{given} -c statement_timeout={limit_ms} -c lock_timeout={limit_ms}",
            tcp_user_timeout=2 * limit_ms,
            keepalives_idle=1,
            keepalives_interval=1,
            keepalives_count=2,
            application_name="drainctl arb",
        )
        try:
            self._make()
        except BaseException:
            self._link.close()
            raise

    def _make(self) -> None:
        if self._value("SELECT to_regclass('drainctl_arb_board') IS NULL"):
            with self._link.transaction():
                # Two that make it at once: the second waits, and then finds it.
                self._link.execute("SELECT pg_advisory_xact_lock(%s, 0)", (LOCKS,))
                if self._value("SELECT to_regclass('drainctl_arb_board') IS NULL"):
                    self._link.execute(TABLE)

    def read(self) -> Marks:
        """The marks as they stand."""
        return _marks(self._value("SELECT marks FROM drainctl_arb_board WHERE name = %s", self._name))

    def change(self, change: Change) -> Marks:
        """Read, change, write under the row's lock."""
        with self._link.transaction():
            self._link.execute(
                "INSERT INTO drainctl_arb_board VALUES (%s, '[]') ON CONFLICT DO NOTHING", (self._name,)
            )
            row = "SELECT marks FROM drainctl_arb_board WHERE name = %s FOR UPDATE"
            new = change(_marks(self._value(row, self._name)))
            self._link.execute(
                "UPDATE drainctl_arb_board SET marks = %s WHERE name = %s",
                (json.dumps(rows_of(new)), self._name),
            )
        return new

    def take(self, what: str) -> bool:
        """Take the lock, or keep it; the server lets go of it when this connection ends."""
        if what not in self._held and self._value("SELECT pg_try_advisory_lock(%s, %s)", *self._key(what)):
            self._held.add(what)
        return what in self._held

    def taken(self, what: str) -> bool:
        """Whether anybody holds it."""
        return bool(
            self._value(
                "SELECT EXISTS (SELECT FROM pg_locks JOIN pg_database AS here ON here.oid = database"
                " WHERE datname = current_database() AND locktype = 'advisory' AND granted"
                " AND classid = %s AND objid = %s)",
                *self._key(what),
            )
        )

    def leave(self, what: str) -> None:
        """Let go of it."""
        if what in self._held:
            self._held.discard(what)
            self._value("SELECT pg_advisory_unlock(%s, %s)", *self._key(what))

    def close(self) -> None:
        """End the connection, and with it the locks."""
        self._link.close()

    def _key(self, what: str) -> tuple[int, int]:
        return LOCKS, zlib.crc32(f"{self._name} {what}".encode()) >> 1  # int4, and positive

    def _value(self, statement: str, *values: object) -> object:
        # The statements above are our own, so psycopg's guard against built ones has nothing to guard.
        row = self._link.execute(statement.encode(), values).fetchone()
        return row[0] if row else None


class _Limited(psycopg.Connection[tuple[Any, ...]]):
    """A connection that waits LIMIT_S for an answer."""

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **more: Any) -> T:
        """As psycopg's own. Raises: TimeoutError."""
        why = f"PostgreSQL gave no answer for {LIMIT_S:g} s"
        return super().wait(within(gen, time.monotonic() + LIMIT_S, why), *args, **more)


def split(url: str) -> tuple[str, str]:
    """The URL as libpq takes it, and the board's name."""
    parts = urlsplit(url)
    asked = dict(parse_qsl(parts.query))
    name = asked.pop("board", "default")
    return parts._replace(query=urlencode(asked)).geturl(), name


def _marks(text: object) -> Marks:
    return {one["machine"]: Down(**one) for one in json.loads(str(text or "[]"))}
