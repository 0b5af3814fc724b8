"""
The journal and the lease in an etcd cluster, shared by controllers on several machines.

| key below the prefix         | value |
|------------------------------|-------|
| schema                       | version of this layout |
| seq, number                  | how many events, how many rollouts there are |
| events/ROLLOUT/SEQ           | one event |
| rollouts/CLUSTER/DOWN        | a rollout's id; DOWN falls, so that the newest is the first |
| ids/ROLLOUT                  | where a rollout is: cluster, number, mark |
| leases/CLUSTER               | who held the lease last: never deleted, so that the token grows for ever |
| alive/CLUSTER                | is there while the lease lasts: bound to an etcd lease, which runs out |

Every write is one transaction that compares what it rests on, and names a revision. So it may be sent twice
(after a timeout, to another member): a late copy finds its revision gone and does nothing. Whether it was the
first copy that changed it, the mark in the value says.

Source: etcd 3.4, "KV API guarantees" (linearizable by default), "Lease" (an etcd lease never ends before its
TTL, though later where the leader changed), "Limits" (1.5 MB per request).
"""

from __future__ import annotations

import json
import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from drainctl.errors import JournalError, StoreAway
from drainctl.journal import shared
from drainctl.journal.door import Holder, Lease
from drainctl.journal.etcd_members import (
    REACH,
    Found,
    Members,
    b64,
    delete,
    found,
    get,
    put,
    read,
    unb64,
    unchanged,
)
from drainctl.journal.events import Event
from drainctl.journal.lease import gone

VERSION = 1
PAGE = 2000
TOP = 10**18  # rollouts are numbered down from here, so that a range from the front begins with the newest


class _Alive(NamedTuple):
    """The key that is bound to the etcd lease `id`, which was asked for with `ttl_s`."""

    id: int
    ttl_s: int
    revision: int


class _Record(NamedTuple):
    """The lease as it was taken last; given_back: it is free. revision: of its key."""

    lease: Lease
    mark: str
    given_back: bool
    revision: int


class EtcdStore:
    """
    A journal.door.Store in one etcd cluster, below one prefix.

    Args:
        url: etcd://host1:2379,host2:2379/prefix (see etcd_members.SHAPE).
        limit_s: the most that one call may take, seconds; an election takes one to three.
        clock: wall clock of this machine, Unix seconds.
    Raises: ConfigError for a wrong URL. JournalError, from every method: the store without its password, what
        failed, after how long, and why.
    """

    def __init__(self, url: str, *, limit_s: float = 5.0, clock: Callable[[], float] = time.time) -> None:
        address = read(url)
        self.where = address.where
        self._prefix = address.prefix
        self._members = Members(address, limit_s)
        self._limit_s = limit_s
        self._clock = clock
        self._lock = threading.Lock()
        self._closed = False
        self._counters: dict[str, Found] = {}  # the counters as they were last
        self._unsettled: dict[str, Found] = {}  # marks of appends that were given up, and what they rest on
        self._taken: dict[tuple[str, int], int] = {}  # cluster, token: the revision at which it was taken
        try:
            self._set_up()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Lets go of the connections. May be called twice."""
        with self._lock:
            self._closed = True
            self._members.close()

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
        at_s, text = self._clock(), shared.plain(text)
        rest = json.loads(shared.as_json(rollout, kind, data))
        value = json.dumps([at_s, kind, node, step, text, rest, mark], separators=(",", ":"))
        with self._call(f"writing {kind}"):
            counted = self._unsettled.get(mark) or self._counters.get("seq") or self._read("seq")[0]
            while True:
                seq = int(counted.value or 0) + 1
                key = self._event_key(rollout, seq)
                self._unsettled[mark] = counted
                ours = [self._not_taken(lease)] if lease else []
                counted, there = self._count("seq", counted, [put(key, value)], key, *ours)
                del self._unsettled[mark]
                if there is None or (there.value and _mark(there.value) == mark):
                    return _event(rollout, seq, there.value if there else value)
                if lease:
                    _still(lease, self._lease(lease.cluster)[0])

    def events(self, rollout: str, after: int = 0) -> Sequence[Event]:
        events: list[Event] = []
        end = _end(self._event_key(rollout))
        while True:
            with self._call("reading events"):
                pairs = self._range(self._event_key(rollout, after + 1), end, PAGE)
            events += (_event(rollout, int(key.rpartition("/")[2]), value) for key, value in pairs)
            if len(pairs) < PAGE:
                return events
            after = events[-1].seq

    def _event_key(self, rollout: str, seq: int | None = None) -> str:
        return f"{self._prefix}events/{rollout}/" + ("" if seq is None else f"{seq:019d}")

    # ------------------------------------------------------------ rollouts

    def register(self, cluster: str, rollout: str) -> None:
        mark = uuid.uuid4().hex
        ids = f"{self._prefix}ids/{rollout}"
        with self._call("registering a rollout"):
            counted = self._read("number")[0]
            while True:
                number = int(counted.value or 0) + 1
                known = json.dumps({"cluster": cluster, "number": number, "mark": mark})
                writes = [put(ids, known), put(self._rollout_key(cluster, number), rollout)]
                counted, there = self._count("number", counted, writes, ids, unchanged(ids, 0))
                if there is None or (there.value and json.loads(there.value)["mark"] == mark):
                    return
                if there.value:
                    raise JournalError(f"rollout {rollout} is in the journal {self.where} already")

    def latest(self, cluster: str) -> str | None:
        return next(iter(self.rollouts(cluster, limit=1)), None)

    def rollouts(self, cluster: str, *, limit: int = 20, before: str | None = None) -> Sequence[str]:
        """As the door says. Raises: JournalError where `before` is not a rollout of this cluster."""
        with self._call("reading rollouts"):
            below = TOP
            if before is not None:
                known = self._read(f"ids/{before}")[0].value
                if not known or json.loads(known)["cluster"] != cluster:
                    raise JournalError(f"no rollout {before} of {cluster} in the journal {self.where}")
                below = json.loads(known)["number"]
            start, end = self._rollout_key(cluster, below - 1), _end(self._rollout_key(cluster))
            return [value for _key, value in self._range(start, end, limit)]

    def _rollout_key(self, cluster: str, number: int | None = None) -> str:
        return f"{self._prefix}rollouts/{cluster}/" + ("" if number is None else f"{TOP - number:019d}")

    # ------------------------------------------------------------ the lease

    def acquire(self, cluster: str, rollout: str, holder: Holder, ttl_s: float) -> Lease:
        mark = uuid.uuid4().hex
        with self._call("taking the lease"):
            while True:
                record, alive = self._lease(cluster)
                if record and record.mark == mark:  # by a copy of ours whose answer did not come
                    return self._prolonged(record.lease, record, alive, ttl_s)
                if record and alive and not record.given_back and not gone(record.lease.holder):
                    raise shared.held(self._seen(record.lease, alive), self._clock())
                asked = self._clock()
                token = shared.next_token(record.lease.token if record else 0, asked)
                lease = Lease(cluster, rollout, holder, token, asked, 0.0)
                if (until_s := self._bind(lease, record, alive, ttl_s, _written(lease, mark))) is not None:
                    return lease._replace(until_s=until_s)

    def renew(self, lease: Lease, ttl_s: float) -> Lease:
        """
        As the door says. A lease that ran out and that nobody took is renewed too: that the token is still
        ours is compared in the transaction that binds it again.
        """
        with self._call("renewing the lease"):
            record, alive = self._lease(lease.cluster)
            return self._prolonged(lease, record, alive, ttl_s)

    def release(self, lease: Lease) -> None:
        with self._call("giving the lease back"):
            record, _ = self._lease(lease.cluster)
            if record and record.lease.token == lease.token and not record.given_back:
                key = self._prefix + "leases/" + lease.cluster
                writes = [put(key, _written(record.lease, record.mark, given_back=True))]
                writes.append(delete(self._prefix + "alive/" + lease.cluster))
                self._transact([unchanged(key, record.revision)], writes)

    def held(self, cluster: str) -> Lease | None:
        with self._call("reading the lease"):
            record, alive = self._lease(cluster)
            if not record or not alive or record.given_back or gone(record.lease.holder):
                return None
            return self._seen(record.lease, alive)

    def _prolonged(self, lease: Lease, record: _Record | None, alive: _Alive | None, ttl_s: float) -> Lease:
        while True:
            record = _still(lease, record)
            asked = self._clock()
            if alive and alive.ttl_s > math.ceil(ttl_s):  # it was asked to last longer, for a long act
                left_s = self._left_s(alive)
                if left_s >= ttl_s:
                    return lease._replace(until_s=asked + left_s)
            if alive and alive.ttl_s == math.ceil(ttl_s):
                answer = self._members.ask("lease/keepalive", {"ID": alive.id})
                left_s = int(answer.get("result", {}).get("TTL", 0))
                until_s: float | None = asked + left_s if left_s > 0 else None
            else:
                until_s = self._bind(lease, record, alive, ttl_s)
            if until_s is not None:
                return lease._replace(until_s=max(lease.until_s, until_s))
            record, alive = self._lease(lease.cluster)

    def _bind(
        self,
        lease: Lease,
        record: _Record | None,
        alive: _Alive | None,
        ttl_s: float,
        written: str | None = None,
    ) -> float | None:
        """
        Binds `alive` to a new etcd lease, with `written` as the new record, provided that both are as they
        were seen. Returns: until when it lasts at least, or None where they had changed.
        """
        asked, ttl = self._clock(), math.ceil(ttl_s)
        granted = self._members.ask("lease/grant", {"TTL": ttl})
        record_key, alive_key = (self._prefix + kind + lease.cluster for kind in ("leases/", "alive/"))
        as_seen = [
            unchanged(record_key, record.revision if record else 0),
            unchanged(alive_key, alive.revision if alive else 0),
        ]
        bound = json.dumps({"id": granted["ID"], "ttl_s": ttl})
        writes = [put(alive_key, bound, int(granted["ID"]))]
        made = self._transact(as_seen, writes + ([put(record_key, written)] if written else []))
        return asked + int(granted["TTL"]) if made else None

    def _lease(self, cluster: str) -> tuple[_Record | None, _Alive | None]:
        """The record, and the key that says that it lasts; both of one moment."""
        record, alive = self._read(f"leases/{cluster}", f"alive/{cluster}")
        return _record(cluster, record), _alive(alive)

    def _left_s(self, alive: _Alive) -> int:
        """How long it lasts at least: etcd leaves out what is less than a second."""
        return max(0, int(self._members.ask("lease/timetolive", {"ID": alive.id}).get("TTL", 0)))

    def _seen(self, lease: Lease, alive: _Alive) -> Lease:
        """For whoever waits for it: with the time by which it has ended for certain, unless it is renewed."""
        return lease._replace(until_s=self._clock() + self._left_s(alive) + 1)

    def _not_taken(self, lease: Lease) -> dict[str, Any]:
        """Compares: nobody took the lease after us, nor was it given back; both would write its record."""
        at = (lease.cluster, lease.token)
        if at not in self._taken:
            self._taken[at] = _still(lease, self._lease(lease.cluster)[0]).revision
        return unchanged(self._prefix + "leases/" + lease.cluster, self._taken[at])

    # ------------------------------------------------------------ transactions

    @contextmanager
    def _call(self, what: str) -> Iterator[None]:
        if not self._lock.acquire(timeout=self._limit_s):
            why = f"not begun within {self._limit_s:g} s: earlier calls wait, too"
            raise StoreAway(f"journal {self.where}: {what} failed: {why}", hint=REACH)
        try:
            if self._closed:
                raise JournalError(f"journal {self.where} is closed")
            self._members.begin(what)
            yield
        finally:
            self._lock.release()

    def _set_up(self) -> None:
        key = self._prefix + "schema"
        with self._call("opening it"):
            made = self._transact([unchanged(key, 0)], [put(key, str(VERSION))])
            there = "" if made else self._read("schema")[0].value
        if there and int(there) > VERSION:
            raise JournalError(
                f"journal {self.where} has schema {there}, this drainctl knows {VERSION}",
                hint="use the drainctl that wrote it, or a newer one",
            )

    def _transact(self, as_seen: list[Any], writes: list[Any]) -> int:
        """The revision that it was written at, or 0 where something was not as it was seen."""
        answer = self._members.ask("kv/txn", {"compare": as_seen, "success": writes})
        return int(answer["header"]["revision"]) if answer.get("succeeded") else 0

    def _count(
        self, name: str, counted: Found, writes: list[Any], key: str, *as_seen: Any
    ) -> tuple[Found, Found | None]:
        """
        Writes with the counter `name` one higher, provided that it is as it was seen.

        Returns: the counter as it is now; and what is at `key` where it was not written, None where it was.
        """
        counter = self._prefix + name
        one_more = str(int(counted.value or 0) + 1)
        compare = [unchanged(counter, counted.revision), *as_seen]
        if revision := self._transact(compare, [put(counter, one_more), *writes]):
            self._counters[name], there = Found(one_more, revision), None
        else:
            self._counters[name], there = self._read(name, key.removeprefix(self._prefix))
        return self._counters[name], there

    def _read(self, *names: str) -> list[Found]:
        """These keys, all of one moment."""
        gets = [get(self._prefix + name) for name in names]
        answer = self._members.ask("kv/txn", {"success": gets})
        return [found(response) for response in answer["responses"]]

    def _range(self, start: str, end: str, limit: int) -> list[tuple[str, str]]:
        """Key and value of the first `limit` in the order of their keys: etcd stops reading there."""
        answer = self._members.ask("kv/range", {"key": b64(start), "range_end": b64(end), "limit": limit})
        return [(unb64(pair["key"]), unb64(pair.get("value", ""))) for pair in answer.get("kvs", [])]


# ---------------------------------------------------------------- values


def _end(prefix: str) -> str:
    """The first key after all that begin with `prefix`, which ends with a slash."""
    return prefix[:-1] + chr(ord("/") + 1)


def _event(rollout: str, seq: int, value: str) -> Event:
    at_s, kind, node, step, text, data, _mark = json.loads(value)
    return Event(seq, at_s, rollout, kind, node, step, text, data)


def _mark(value: str) -> str:
    return str(json.loads(value)[-1])


def _written(lease: Lease, mark: str, *, given_back: bool = False) -> str:
    told = {"rollout": lease.rollout, "holder": list(lease.holder), "token": lease.token}
    return json.dumps(told | {"since_s": lease.since_s, "mark": mark, "given_back": given_back})


def _record(cluster: str, there: Found) -> _Record | None:
    if not there.value:
        return None
    told = json.loads(there.value)
    lease = Lease(cluster, told["rollout"], Holder(*told["holder"]), told["token"], told["since_s"], 0.0)
    return _Record(lease, told["mark"], told["given_back"], there.revision)


def _still(lease: Lease, record: _Record | None) -> _Record:
    """The record, while it is this lease's. Raises: LeaseLost."""
    if record is None or record.lease.token != lease.token or record.given_back:
        raise shared.lost(lease, record.lease if record else None)
    return record


def _alive(there: Found) -> _Alive | None:
    if not there.value:
        return None
    told = json.loads(there.value)
    return _Alive(int(told["id"]), told["ttl_s"], there.revision)
