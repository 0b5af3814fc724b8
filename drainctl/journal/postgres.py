"""
The journal and the lease in a PostgreSQL database, shared by controllers on several machines.

Three things make it safe without trusting any controller:

- Events are numbered by a row that each append updates: its lock is held until the commit, so the numbers
  have no gap and nobody sees 6 before 5 (a sequence would promise neither).
- Every statement may be sent twice. An event, a new rollout and a new lease carry a mark of the caller's
  making, so after a lost connection the same is asked again and what was done already is found.
- The lease runs on the database's clock. What a controller is told is how long it lasts, counted from
  before it asked.

Source: PostgreSQL 15, "INSERT" (ON CONFLICT), "Explicit Locking", "Date/Time Functions" (clock_timestamp
moves on while a statement waits for a lock, now() does not); libpq, "Connection Strings".
"""

from __future__ import annotations

import json
import math
import threading
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict

from drainctl.errors import ConfigError, JournalError, StoreAway
from drainctl.journal import shared
from drainctl.journal.door import Holder, Lease
from drainctl.journal.events import Event
from drainctl.journal.lease import gone
from drainctl.psycopg_limit import within

T = TypeVar("T")

# One entry per schema version; what was released is never edited, only followed. leases: a row is never
# deleted, so that the token grows for ever; until = 'epoch' says that it was given back.
MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE drainctl_counter (seq BIGINT NOT NULL);
    INSERT INTO drainctl_counter VALUES (0);
    CREATE TABLE drainctl_events (
        seq BIGINT PRIMARY KEY, mark TEXT NOT NULL UNIQUE, at_s DOUBLE PRECISION NOT NULL,
        rollout TEXT NOT NULL, kind TEXT NOT NULL, node TEXT, step TEXT, text TEXT NOT NULL,
        data JSON NOT NULL);
    CREATE INDEX drainctl_events_by_rollout ON drainctl_events (rollout, seq);
    CREATE TABLE drainctl_rollouts (
        number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, cluster TEXT NOT NULL,
        id TEXT NOT NULL UNIQUE, mark TEXT NOT NULL);
    CREATE INDEX drainctl_rollouts_by_cluster ON drainctl_rollouts (cluster, number);
    CREATE TABLE drainctl_leases (
        cluster TEXT PRIMARY KEY, rollout TEXT NOT NULL, login TEXT NOT NULL, host TEXT NOT NULL,
        pid BIGINT NOT NULL, started BIGINT NOT NULL, boot TEXT NOT NULL, token BIGINT NOT NULL,
        since TIMESTAMPTZ NOT NULL, until TIMESTAMPTZ NOT NULL, mark TEXT NOT NULL);
    """,
)
MIGRATING = int.from_bytes(b"drainctl")  # the advisory lock of whoever makes or changes the schema

WRITE_EVENT = """
    WITH next AS (UPDATE drainctl_counter SET seq = seq + 1 RETURNING seq)
    INSERT INTO drainctl_events (seq, mark, at_s, rollout, kind, node, step, text, data)
    SELECT next.seq, %s, %s, %s, %s, %s, %s, %s, %s FROM next RETURNING seq"""
# The lease's row is locked until the commit: whoever takes it waits for this event, or this finds it taken.
WRITE_FENCED = """
    WITH ours AS (
        SELECT FROM drainctl_leases WHERE cluster = %s AND token = %s AND until <> 'epoch' FOR SHARE),
    next AS (UPDATE drainctl_counter SET seq = seq + 1 FROM ours RETURNING seq)
    INSERT INTO drainctl_events (seq, mark, at_s, rollout, kind, node, step, text, data)
    SELECT next.seq, %s, %s, %s, %s, %s, %s, %s, %s FROM next RETURNING seq"""
EVENT_COLUMNS = "seq, at_s, rollout, kind, node, step, text, data::text"
READ_EVENTS = f"""SELECT {EVENT_COLUMNS} FROM drainctl_events
    WHERE rollout = %s AND seq > %s ORDER BY seq LIMIT %s"""  # noqa: S608 (a constant of ours)
READ_MARKED = f"SELECT {EVENT_COLUMNS} FROM drainctl_events WHERE mark = %s"  # noqa: S608 (same)
PAGE = 10_000

REGISTER = """
    INSERT INTO drainctl_rollouts (cluster, id, mark) VALUES (%s, %s, %s)
    ON CONFLICT (id) DO UPDATE SET mark = excluded.mark WHERE drainctl_rollouts.mark = excluded.mark
    RETURNING number"""
READ_ROLLOUTS = """
    SELECT id FROM drainctl_rollouts WHERE cluster = %s AND number < %s ORDER BY number DESC LIMIT %s"""

# `gone`: the token of a holder that the caller knows to be dead; 0 where it knows of none.
ACQUIRE = """
    INSERT INTO drainctl_leases AS old
        (cluster, rollout, login, host, pid, started, boot, mark, token, since, until)
    VALUES (%(cluster)s, %(rollout)s, %(user)s, %(host)s, %(pid)s, %(started)s, %(boot)s, %(mark)s,
        floor(1000 * extract(epoch FROM clock_timestamp())), clock_timestamp(),
        clock_timestamp() + make_interval(secs => %(ttl)s))
    ON CONFLICT (cluster) DO UPDATE SET
        rollout = excluded.rollout, login = excluded.login, host = excluded.host, pid = excluded.pid,
        started = excluded.started, boot = excluded.boot, mark = excluded.mark,
        token = greatest(old.token + 1, excluded.token),
        since = excluded.since, until = excluded.until
    WHERE old.until < clock_timestamp() OR old.token = %(gone)s OR old.mark = excluded.mark
    RETURNING token, extract(epoch FROM since)::float8, extract(epoch FROM until - clock_timestamp())::float8
    """
RENEW = """
    UPDATE drainctl_leases SET until = greatest(until, clock_timestamp() + make_interval(secs => %s))
    WHERE cluster = %s AND token = %s AND until <> 'epoch'
    RETURNING extract(epoch FROM until - clock_timestamp())::float8"""
RELEASE = "UPDATE drainctl_leases SET until = 'epoch' WHERE cluster = %s AND token = %s"
READ_LEASE = """
    SELECT rollout, login, host, pid, started, boot, token, extract(epoch FROM since)::float8,
        extract(epoch FROM until - clock_timestamp())::float8
    FROM drainctl_leases WHERE cluster = %s"""
# A setting of the server's that lets a commit return before it is on the disk is not for a journal.
SETTINGS = """
    SELECT set_config('statement_timeout', %s, false),
        CASE WHEN current_setting('synchronous_commit') IN ('off', 'local')
        THEN set_config('synchronous_commit', 'on', false) END"""

RIGHTS = (
    "the role must own drainctl's tables, or be allowed to read and write them (docs/several-controllers.md)"
)
REACH = "`psql` with the same URL says whether it can be reached from here"


class PostgresStore:
    """
    A journal.door.Store in one database: tables `drainctl_…` in the first schema of the search path.

    Args:
        url: `postgresql://…` as libpq takes it; what it leaves out comes from PG… variables and ~/.pgpass.
        limit_s: the most that one call may take, seconds. Connecting takes libpq's least, 2 s per host, or
            more where the limit allows.
        clock: wall clock of this machine, Unix seconds.
    Raises: ConfigError for a URL that libpq cannot read. JournalError, from every method: the store without
        its password, what failed, after how long, and why.
    """

    def __init__(self, url: str, *, limit_s: float = 5.0, clock: Callable[[], float] = time.time) -> None:
        self._url = url
        self._hosts, self.where = _parsed(url)
        self._limit_s = limit_s
        self._clock = clock
        self._lock = threading.Lock()
        self._connection: _Limited | None = None
        self._closed = False
        try:
            self._run("opening it", self._set_up)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of the connection. May be called twice."""
        with self._lock:
            self._closed = True
            self._drop()

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
        mark: str | None = None,
        lease: Lease | None = None,
    ) -> Event:
        mark = mark or uuid.uuid4().hex
        row = (
            self._clock(),
            rollout,
            kind,
            node,
            step,
            shared.plain(text),
            shared.as_json(rollout, kind, data),
        )

        def write(connection: _Limited) -> Sequence[Any] | None:
            try:
                if lease is None:
                    return (_one(connection, WRITE_EVENT, (mark, *row))[0], *row)
                fenced = (lease.cluster, lease.token, mark, *row)
                if (written := connection.execute(WRITE_FENCED, fenced).fetchone()) is not None:
                    return (written[0], *row)
                return connection.execute(READ_MARKED, (mark,)).fetchone()
            except psycopg.errors.UniqueViolation:  # written before the connection was lost
                return _one(connection, READ_MARKED, (mark,))

        found = self._run(f"writing {kind}", write)
        if found is None and lease is not None:
            raise shared.lost(lease, self._lease(lease.cluster))
        return _event(found or ())

    def events(self, rollout: str, after: int = 0) -> Sequence[Event]:
        found: list[Event] = []
        while True:
            page = self._rows("reading events", READ_EVENTS, (rollout, after, PAGE))
            found += map(_event, page)
            if len(page) < PAGE:
                return found
            after = found[-1].seq

    # ------------------------------------------------------------ rollouts

    def register(self, cluster: str, rollout: str) -> None:
        row = (cluster, rollout, uuid.uuid4().hex)
        if not self._rows("registering a rollout", REGISTER, row):
            raise JournalError(f"rollout {rollout} is in the journal {self.where} already")

    def latest(self, cluster: str) -> str | None:
        return next(iter(self.rollouts(cluster, limit=1)), None)

    def rollouts(self, cluster: str, *, limit: int = 20, before: str | None = None) -> Sequence[str]:
        """As the door says. Raises: JournalError where `before` is not a rollout of this cluster."""
        below = 2**62
        if before is not None:
            known = "SELECT number FROM drainctl_rollouts WHERE cluster = %s AND id = %s"
            found = self._rows("reading rollouts", known, (cluster, before))
            if not found:
                raise JournalError(f"no rollout {before} of {cluster} in the journal {self.where}")
            below = found[0][0]
        return [row[0] for row in self._rows("reading rollouts", READ_ROLLOUTS, (cluster, below, limit))]

    # ------------------------------------------------------------ the lease

    def acquire(self, cluster: str, rollout: str, holder: Holder, ttl_s: float) -> Lease:
        wanted: dict[str, Any] = {"cluster": cluster, "rollout": rollout, **holder._asdict()}
        wanted |= {"ttl": ttl_s, "gone": 0, "mark": uuid.uuid4().hex}
        while True:
            asked = self._clock()
            row = next(iter(self._rows("taking the lease", ACQUIRE, wanted)), None)
            if row:
                return Lease(cluster, rollout, holder, row[0], row[1], asked + row[2])
            last = self._lease(cluster)
            if last and last.until_s > self._clock() and not gone(last.holder):
                raise shared.held(last, self._clock())
            wanted["gone"] = last.token if last and gone(last.holder) else 0

    def renew(self, lease: Lease, ttl_s: float) -> Lease:
        """As the door says. A lease that ran out and that nobody took is renewed too, in one statement."""
        asked = self._clock()
        row = next(iter(self._rows("renewing the lease", RENEW, (ttl_s, lease.cluster, lease.token))), None)
        if row is None:
            raise shared.lost(lease, self._lease(lease.cluster))
        return lease._replace(until_s=asked + row[0])

    def release(self, lease: Lease) -> None:
        self._run(
            "giving the lease back",
            lambda connection: connection.execute(RELEASE, (lease.cluster, lease.token)),
        )

    def held(self, cluster: str) -> Lease | None:
        lease = self._lease(cluster)
        return lease if lease and lease.until_s > self._clock() and not gone(lease.holder) else None

    def _lease(self, cluster: str) -> Lease | None:
        """For whoever waits for it: its end is counted from after the answer, so it has come for certain."""
        for row in self._rows("reading the lease", READ_LEASE, (cluster,)):
            return Lease(cluster, row[0], Holder(*row[1:6]), row[6], row[7], self._clock() + row[8])
        return None

    # ------------------------------------------------------------ the connection

    def _rows(self, what: str, sql: str, values: Any) -> list[tuple[Any, ...]]:
        return self._run(what, lambda connection: connection.execute(sql, values).fetchall())

    def _run(self, what: str, work: Callable[[_Limited], T]) -> T:
        """
        `work` with the connection, within the limit. Where a connection that had worked before turns out to
        be lost, once more with a new one: all that is sent here may be sent twice.
        """
        began = time.monotonic()
        if not self._lock.acquire(timeout=self._limit_s):
            raise StoreAway(
                f"journal {self.where}: {what}: not begun for {self._limit_s:g} s, others wait too"
            )
        try:
            while True:
                kept = self._connection is not None
                try:
                    return work(self._connected(began + self._limit_s))
                except (psycopg.Error, TimeoutError) as error:
                    lost = self._drop_if_lost(error)
                    if not (lost and kept) or isinstance(error, TimeoutError):
                        raise self._explained(what, time.monotonic() - began, error) from error
        finally:
            self._lock.release()

    def _connected(self, deadline: float) -> _Limited:
        if self._closed:
            raise JournalError(f"journal {self.where} is closed")
        if self._connection is None:
            per_host_s = int((deadline - time.monotonic()) / self._hosts)
            defaults: dict[str, Any] = {"connect_timeout": max(2, per_host_s)}
            defaults["fallback_application_name"] = "drainctl"
            if "target_session_attrs" not in self._url:  # after a failover the old primary may still answer
                defaults["target_session_attrs"] = "read-write"
            self._connection = _Limited.connect(self._url, autocommit=True, **defaults)
            self._connection.deadline = deadline
            # The server gives up a little earlier, so that its words are heard.
            self._connection.execute(SETTINGS, (str(int(self._limit_s * 900)),))
        self._connection.deadline = deadline
        return self._connection

    def _drop_if_lost(self, error: Exception) -> bool:
        """Whether another connection may do better. An unanswered one can no longer be used either."""
        if self._connection is None:
            return True
        read_only = isinstance(error, psycopg.errors.ReadOnlySqlTransaction)  # a primary no more
        lost = self._connection.closed or read_only or isinstance(error, TimeoutError)
        if lost:
            self._drop()
        return lost

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _explained(self, what: str, seconds: float, error: Exception) -> JournalError:
        told = " ".join(str(error).split())
        hint: str | None = None
        kind: type[JournalError] = JournalError
        if isinstance(error, TimeoutError):
            kind, hint, told = StoreAway, REACH, "no answer"
        elif isinstance(error, psycopg.errors.InsufficientPrivilege):
            hint = RIGHTS
        elif isinstance(error, (psycopg.OperationalError, psycopg.errors.ReadOnlySqlTransaction)):
            kind, hint = StoreAway, REACH
        return kind(f"journal {self.where}: {what} failed after {seconds:.1f} s: {told}", hint=hint)

    # ------------------------------------------------------------ the schema

    def _set_up(self, connection: _Limited) -> None:
        version = _version(connection)
        if version < len(MIGRATIONS):
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (MIGRATING,))
                connection.execute("CREATE TABLE IF NOT EXISTS drainctl_schema (version INTEGER NOT NULL)")
                version = _version(connection)  # another controller may have been faster
                for statements in MIGRATIONS[version:]:
                    connection.execute(statements.encode())
                connection.execute("DELETE FROM drainctl_schema")
                version = max(version, len(MIGRATIONS))
                connection.execute("INSERT INTO drainctl_schema VALUES (%s)", (version,))
        if version > len(MIGRATIONS):
            raise JournalError(
                f"journal {self.where} has schema {version}, this drainctl knows {len(MIGRATIONS)}",
                hint="use the drainctl that wrote it, or a newer one",
            )


class _Limited(psycopg.Connection[tuple[Any, ...]]):
    """A connection that waits for nothing beyond `deadline` (monotonic seconds), but raises TimeoutError."""

    deadline = math.inf

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **more: Any) -> T:
        return super().wait(within(gen, self.deadline), *args, **more)


def _parsed(url: str) -> tuple[int, str]:
    """How many hosts a URL names, and how it may be shown. Raises: ConfigError, which shows none of it."""
    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(url).items()}
        ports = [str(int(port)) for port in parts.get("port", "5432").split(",")]
    except (psycopg.Error, ValueError):
        ports = []
    if not ports or "@" in parts.get(
        "dbname", ""
    ):  # a password with a slash moves what follows into the path
        raise ConfigError(
            "store: libpq cannot read this postgresql:// URL",
            hint="postgresql://USER:PASSWORD@HOST:PORT/DATABASE, special characters of the password as %XX",
        ) from None
    hosts = parts.get("host", parts.get("hostaddr", "localhost")).split(",")
    ports = ports * len(hosts) if len(ports) == 1 else ports
    named = ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=False))
    return len(hosts), f"postgresql://{named}/{parts.get('dbname', parts.get('user', ''))}"


def _one(connection: _Limited, sql: str, values: Sequence[Any]) -> tuple[Any, ...]:
    row = connection.execute(sql, values).fetchone()
    if row is None:
        raise psycopg.DataError("no row where one must be: was drainctl_counter emptied?")
    return row


def _version(connection: _Limited) -> int:
    if connection.execute("SELECT to_regclass('drainctl_schema')").fetchone() == (None,):
        return 0
    row = connection.execute("SELECT version FROM drainctl_schema").fetchone()
    return row[0] if row else 0


def _event(row: Sequence[Any]) -> Event:
    seq, at_s, rollout, kind, node, step, text, data = row
    return Event(seq, at_s, rollout, kind, node, step, text, json.loads(data))
