"""
The journal and the lease in one SQLite file, on a local disk of the controller.

Write-ahead log with synchronous=FULL: an event is on the disk when `append` returns, and readers never
wait for writers. One connection behind one lock, not one per thread: SQLite has one writer at a time in
any case, an append takes less than a thread's look at a balancer, and one connection can be closed for
certain while others' threads still end.

Source: sqlite.org "Write-Ahead Logging", "PRAGMA synchronous", "Result and Error Codes".
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from drainctl.errors import JournalError, StoreAway
from drainctl.journal import shared
from drainctl.journal.door import Holder, Lease
from drainctl.journal.events import Event
from drainctl.journal.lease import gone

# One entry per schema version, each a list of statements; what was released is never edited, only followed.
# leases: a row is never deleted, so that the token grows for ever; until_s = 0 says that it was given back.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE events (
            seq INTEGER PRIMARY KEY, at_s REAL NOT NULL, rollout TEXT NOT NULL, kind TEXT NOT NULL,
            node TEXT, step TEXT, text TEXT NOT NULL, data TEXT NOT NULL) STRICT""",
        "CREATE INDEX events_by_rollout ON events (rollout, seq)",
        """CREATE TABLE rollouts (
            number INTEGER PRIMARY KEY, cluster TEXT NOT NULL, id TEXT NOT NULL UNIQUE) STRICT""",
        "CREATE INDEX rollouts_by_cluster ON rollouts (cluster, number)",
        """CREATE TABLE leases (
            cluster TEXT PRIMARY KEY, rollout TEXT NOT NULL, user TEXT NOT NULL, host TEXT NOT NULL,
            pid INTEGER NOT NULL, started INTEGER NOT NULL, boot TEXT NOT NULL, token INTEGER NOT NULL,
            since_s REAL NOT NULL, until_s REAL NOT NULL) STRICT""",
    ),
)

LEASE_COLUMNS = "cluster, rollout, user, host, pid, started, boot, token, since_s, until_s"
READ_LEASE = f"SELECT {LEASE_COLUMNS} FROM leases WHERE cluster = ?"  # noqa: S608 (a constant of ours)
WRITE_LEASE = f"INSERT OR REPLACE INTO leases ({LEASE_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
EVENT_COLUMNS = "at_s, rollout, kind, node, step, text, data"
READ_EVENTS = f"SELECT seq, {EVENT_COLUMNS} FROM events WHERE rollout = ? AND seq > ? ORDER BY seq"  # noqa: S608
WRITE_EVENT = f"INSERT INTO events ({EVENT_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
WRITE_FENCED = f"""INSERT INTO events ({EVENT_COLUMNS}) SELECT ?, ?, ?, ?, ?, ?, ?
    WHERE EXISTS (SELECT 1 FROM leases WHERE cluster = ? AND token = ? AND until_s > 0)"""  # noqa: S608

FREE_SPACE = "free some space there; `drainctl resume` or `drainctl abort` then goes on from the last event"
OWNER = "check owner and mode of the file and of its folder, and that its disk is mounted for writing"
SET_ASIDE = (
    "put back a copy, or set the file aside: drainctl begins a new journal, and reads flags from the nodes"
)

# SQLite's code (or what it begins with), the cause in words, the hint. `{busy}` is filled in.
CAUSES = (
    ("SQLITE_READONLY", "it is read-only", OWNER),
    ("SQLITE_PERM", "permission denied", OWNER),
    ("SQLITE_CANTOPEN", "it cannot be opened", OWNER),
    ("SQLITE_FULL", "the disk is full", FREE_SPACE),
    ("SQLITE_IOERR_SHMSIZE", "the disk is full", FREE_SPACE),
    ("SQLITE_NOTADB", "not a database", SET_ASIDE),
    ("SQLITE_CORRUPT", "the file is damaged", SET_ASIDE),
    (
        "SQLITE_BUSY",
        "locked by another process for {busy:g} s",
        "see who has it open: `fuser -v` on the file",
    ),
    ("SQLITE_IOERR", "the disk failed", "look at the kernel's log (dmesg)"),
)


class SqliteStore:
    """
    A journal.door.Store in one file.

    Args:
        path: the file; it and its folders are created for their owner alone (0600, 0700).
        busy_s: how long to wait for another process that writes, seconds.
        clock: wall clock, Unix seconds.
    Raises: JournalError, from every method: the path, the cause in words, and a hint.
    """

    def __init__(self, path: Path, *, busy_s: float = 5.0, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._busy_s = busy_s
        self._clock = clock
        self._lock = threading.Lock()
        self._create()
        with self._explained():
            self._connection = sqlite3.connect(
                path, timeout=busy_s, isolation_level=None, check_same_thread=False
            )
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of the file. May be called twice."""
        with self._lock, self._explained():
            self._connection.close()

    # ------------------------------------------------------------ events

    def append(
        self,
        rollout: str,
        kind: str,
        *,
        node: str | None = None,
        step: str | None = None,
        text: str = "",
        data: Mapping[str, Any] | None = None,
        mark: str | None = None,  # noqa: ARG002 (an append that failed has written nothing here)
        lease: Lease | None = None,
    ) -> Event:
        at_s = self._clock()
        row = (at_s, rollout, kind, node, step, shared.plain(text), shared.as_json(rollout, kind, data))
        with self._using() as connection:
            if lease is None:
                cursor = connection.execute(WRITE_EVENT, row)
            else:
                cursor = connection.execute(WRITE_FENCED, (*row, lease.cluster, lease.token))
            if lease and not cursor.rowcount:
                stored = connection.execute(READ_LEASE, (lease.cluster,)).fetchone()
                raise shared.lost(lease, _lease(stored))
        return _event((cursor.lastrowid, *row))  # as it will be read, not as it was passed

    def events(self, rollout: str, after: int = 0) -> Sequence[Event]:
        with self._using() as connection:
            rows = connection.execute(READ_EVENTS, (rollout, after)).fetchall()
        return [_event(row) for row in rows]

    # ------------------------------------------------------------ rollouts

    def register(self, cluster: str, rollout: str) -> None:
        try:
            with self._using() as connection:
                connection.execute("INSERT INTO rollouts (cluster, id) VALUES (?, ?)", (cluster, rollout))
        except JournalError as error:
            if isinstance(error.__cause__, sqlite3.IntegrityError):
                raise JournalError(f"rollout {rollout} is in the journal {self.path} already") from error
            raise

    def latest(self, cluster: str) -> str | None:
        return next(iter(self.rollouts(cluster, limit=1)), None)

    def rollouts(self, cluster: str, *, limit: int = 20, before: str | None = None) -> Sequence[str]:
        """As the door says. Raises: JournalError where `before` is not a rollout of this cluster."""
        with self._using() as connection:
            below = 2**62
            if before is not None:
                found = connection.execute(
                    "SELECT number FROM rollouts WHERE cluster = ? AND id = ?", (cluster, before)
                ).fetchone()
                if not found:
                    raise JournalError(f"no rollout {before} of {cluster} in the journal {self.path}")
                below = found[0]
            rows = connection.execute(
                "SELECT id FROM rollouts WHERE cluster = ? AND number < ? ORDER BY number DESC LIMIT ?",
                (cluster, below, limit),
            ).fetchall()
        return [row[0] for row in rows]

    # ------------------------------------------------------------ the lease

    def acquire(self, cluster: str, rollout: str, holder: Holder, ttl_s: float) -> Lease:
        with self._writing() as connection:
            now = self._clock()
            last = _lease(connection.execute(READ_LEASE, (cluster,)).fetchone())
            if last and last.until_s > now and not gone(last.holder):
                raise shared.held(last, now)
            token = shared.next_token(last.token if last else 0, now)
            lease = Lease(cluster, rollout, holder, token, now, now + ttl_s)
            who = (holder.user, holder.host, holder.pid, holder.started, holder.boot)
            connection.execute(
                WRITE_LEASE, (cluster, rollout, *who, lease.token, lease.since_s, lease.until_s)
            )
        return lease

    def renew(self, lease: Lease, ttl_s: float) -> Lease:
        """
        As the door says. A lease that ran out and that nobody took is renewed too: the token is compared
        and the end moved in one transaction, so nobody can take it in between.
        """
        with self._writing() as connection:
            stored = _lease(connection.execute(READ_LEASE, (lease.cluster,)).fetchone())
            if stored is None or stored.token != lease.token or not stored.until_s:
                raise shared.lost(lease, stored)
            until_s = max(stored.until_s, self._clock() + ttl_s)
            connection.execute("UPDATE leases SET until_s = ? WHERE cluster = ?", (until_s, lease.cluster))
        return Lease(lease.cluster, lease.rollout, lease.holder, lease.token, lease.since_s, until_s)

    def release(self, lease: Lease) -> None:
        with self._using() as connection:
            connection.execute(
                "UPDATE leases SET until_s = 0 WHERE cluster = ? AND token = ?", (lease.cluster, lease.token)
            )

    def held(self, cluster: str) -> Lease | None:
        with self._using() as connection:
            lease = _lease(connection.execute(READ_LEASE, (cluster,)).fetchone())
        return lease if lease and lease.until_s > self._clock() and not gone(lease.holder) else None

    # ------------------------------------------------------------ the file

    def _create(self) -> None:
        # SQLite gives its -wal and -shm files the mode of the main file, so the first decides.
        folder = self.path.parent
        try:
            for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
                missing.mkdir(mode=0o700, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            hint = FREE_SPACE if error.errno == errno.ENOSPC else OWNER
            cause = (error.strerror or str(error)).lower()
            raise JournalError(f"journal {self.path}: {cause}", hint=hint) from error

    def _set_up(self) -> None:
        with self._using() as connection:
            if self._write_ahead(connection) != "wal":
                raise JournalError(
                    f"journal {self.path}: its disk has no shared memory, so there is no write-ahead log",
                    hint="put the store on a local disk",
                )
            connection.execute("PRAGMA synchronous = FULL")
            version = self._version(connection)
        if version < len(MIGRATIONS):
            with self._writing() as connection:  # another process may have been faster: read it again inside
                for statements in MIGRATIONS[self._version(connection) :]:
                    for statement in statements:
                        connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        elif version > len(MIGRATIONS):
            raise JournalError(
                f"journal {self.path} has schema {version}, this drainctl knows {len(MIGRATIONS)}",
                hint="use the drainctl that wrote it, or a newer one",
            )

    def _write_ahead(self, connection: sqlite3.Connection) -> str:
        # While another process turns the same new file to WAL, SQLite answers "locked" without waiting.
        deadline = time.monotonic() + self._busy_s
        while True:
            try:
                return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    @staticmethod
    def _version(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._explained():
            yield self._connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that has the right to write from its begin: what it reads stays true."""
        with self._using() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                connection.rollback()
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            self._explain(error)

    def _explain(self, error: sqlite3.Error) -> NoReturn:
        code = getattr(error, "sqlite_errorname", "")
        for begin, cause, hint in CAUSES:
            if code.startswith(begin):
                words = cause.format(busy=self._busy_s)
                kind = StoreAway if begin == "SQLITE_BUSY" else JournalError
                raise kind(f"journal {self.path}: {words} ({error})", hint=hint) from error
        raise JournalError(f"journal {self.path}: {error}") from error


# ---------------------------------------------------------------- rows


def _event(row: Sequence[Any]) -> Event:
    seq, at_s, rollout, kind, node, step, text, data = row
    return Event(seq, at_s, rollout, kind, node, step, text, json.loads(data))


def _lease(row: Sequence[Any] | None) -> Lease | None:
    return Lease(row[0], row[1], Holder(*row[2:7]), *row[7:]) if row else None
