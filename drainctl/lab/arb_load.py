"""
Load on a replicated store: processes of users with a `ReplicaSession`, every request counted.

Per round a user reads by GET, asks by POST (the session knows that it is a query), writes by PUT, and sends
one POST that must not run twice. Others ask long queries, one after the other. What is not answered as it
should be is a failure; a write that ended as MaybeSent is counted apart, since nobody can know, and is
looked for on the machines afterwards.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from drainctl.arb.errors import MaybeSent
from drainctl.arb.policy import Policy, by_method
from drainctl.errors import DrainctlError
from drainctl.lab.arb import asked

if TYPE_CHECKING:
    from drainctl.arb.session import ReplicaSession

KEY = "a"  # the key that is read; it must be there
SHOWN = 10  # failures that a report tells in words


def queries_may_repeat(method: str, url: str, headers: Mapping[str, str]) -> bool:
    """POST /query is a query."""
    return by_method(method, url, headers) or "/query" in url


@dataclass(frozen=True, slots=True)
class ArbPlan:
    """
    One run.

    shards, board: as ReplicaSession takes them. processes, users: how many processes, and users in each.
    long_s: how long the long queries take; 0: none. long_users: how many users per process ask these.
    """

    shards: Mapping[str, Sequence[str]]
    board: str | None = None
    processes: int = 4
    users: int = 4
    long_s: float = 3.0
    long_users: int = 2


@dataclass(slots=True)
class Tally:
    """
    What became of the requests of some users. written, unsure: ids of POSTs that ran once, and of those that
    may have run.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    slowest_s: float = 0.0  # of the short ones

    def add(self, other: Tally) -> None:
        """Both together."""
        self.outcomes.update(other.outcomes)
        for mine, theirs in (
            (self.failures, other.failures),
            (self.written, other.written),
            (self.unsure, other.unsure),
        ):
            mine.extend(theirs)
        self.slowest_s = max(self.slowest_s, other.slowest_s)


class Users(Tally):
    """
    Users of one session, a thread each, 10 ms between their requests. A context manager.

    Args:
        session: whom they ask by.
        shards: the shards' names, shared evenly.
        threads: users with short requests.
        long_s, long_users: users with queries that long; 0: none.
        name: begins the ids of their writes.
    """

    def __init__(
        self,
        session: ReplicaSession,
        shards: Sequence[str] = ("users", "orders"),
        threads: int = 4,
        long_s: float = 0.0,
        long_users: int = 2,
        name: str = "",
    ) -> None:
        super().__init__()
        self.session = session
        self._name = name
        self._stop = threading.Event()
        self._lock = threading.Lock()
        users: list[tuple[Callable[..., None], int]] = [(self._user, at) for at in range(threads)]
        users += [(self._long, at) for at in range(long_users if long_s else 0)]
        self._threads = [
            threading.Thread(target=user, args=(shards[at % len(shards)], at, long_s)) for user, at in users
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _user(self, shard: str, user: int, _long_s: float) -> None:
        session, at = self.session, 0
        while not self._stop.wait(0.01):
            at += 1
            self._ask("get", lambda: session.get(f"arb://{shard}/k/{KEY}"))
            self._ask("post", lambda: session.post(f"arb://{shard}/query", data=b"x"))
            self._ask("put", lambda: session.put(f"arb://{shard}/k/u{user}", data=b"x"))
            self._write(shard, f"{self._name}{user}-{at}")

    def _write(self, shard: str, one: str) -> None:
        try:
            if self._ask("write", lambda: self.session.post(f"arb://{shard}/once/{one}"), unsure=True):
                self.written.append(one)
        except MaybeSent:
            self.unsure.append(one)

    def _long(self, shard: str, _user: int, long_s: float) -> None:
        while not self._stop.is_set():
            self._ask("long", lambda: self.session.get(f"arb://{shard}/query", params={"for": long_s}))

    def _ask(self, kind: str, send: Callable[[], Any], *, unsure: bool = False) -> bool:
        """Whether it was answered as it should be. Raises: MaybeSent, if that is to be counted apart."""
        began = time.monotonic()
        try:
            status = send().status_code
            failure = "" if status in (200, 204) else f"{kind}: status {status}"
        except MaybeSent as error:
            if unsure:
                raise
            failure = f"{kind}: {error}"
        except Exception as error:  # noqa: BLE001  whatever it is, it is a failure to be shown
            failure = f"{kind}: {type(error).__name__}: {error}"
        with self._lock:
            self.outcomes[kind] += 1
            if kind != "long":
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if failure:
                self.failures.append(failure)
        return not failure


@dataclass(slots=True)
class ArbReport(Tally):
    """
    A whole run. twice: POSTs that ran more than once, by the machines' own count. lost: POSTs that were
    answered well, and no machine knows of.
    """

    seconds: float = 0.0
    twice: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def check(self, ran: Mapping[str, int]) -> None:
        """Looks for the writes. Args: ran: how often each ran, by the machines' own count."""
        self.twice = [one for one in (*self.written, *self.unsure) if ran.get(one, 0) > 1]
        self.lost = sorted(set(self.written) - set(ran))

    @property
    def failed(self) -> int:
        """Requests that no user should have seen."""
        return len(self.failures) + len(self.unsure) + len(self.twice) + len(self.lost)

    def lines(self) -> Iterator[str]:
        """The report for people."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.outcomes.items()))
        yield f"{self.outcomes.total()} requests in {self.seconds:.0f} s ({kinds}), {self.failed} failed"
        yield f"longest wait of a short one: {self.slowest_s:.2f} s"
        if self.unsure:
            yield f"{len(self.unsure)} writes may have been sent or not"
        for what, found in (("ran twice", self.twice), ("was answered and is lost", self.lost)):
            yield from (f"POST /once/{one} {what}" for one in found[:SHOWN])
        yield from self.failures[:SHOWN]


class ArbLoad:
    """
    Load from processes of their own. A context manager; `report` is whole after `stop`.

    Keyword arguments are those of `ArbPlan`. Raises: DrainctlError if a process ends without its tally.
    """

    def __init__(self, shards: Mapping[str, Sequence[str]], **plan: Any) -> None:
        self.plan = ArbPlan(shards, **plan)
        self.report = ArbReport()
        self._began = 0.0
        self._processes: list[subprocess.Popen[str]] = []

    def start(self) -> Self:
        """Returns when all users have begun."""
        self._seed()
        self._began = time.monotonic()
        run = uuid.uuid4().hex[:8]  # the machines remember the writes of earlier runs
        for at in range(self.plan.processes):
            argv = [sys.executable, "-m", "drainctl.lab.arb_load", json.dumps(asdict(self.plan))]
            argv.append(f"{run}-{at}-")
            pipe = subprocess.PIPE
            self._processes.append(
                # Ctrl-C is ours: the users end when we close their standard input, or die.
                subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, start_new_session=True)
            )
        for process in self._processes:
            if process.stdout is None or process.stdout.readline() != "started\n":
                self._end()
                raise DrainctlError("a process of the load did not start")
        return self

    def stop(self) -> ArbReport:
        """End the run, wait for what is in flight, and look for the writes on the machines."""
        for process in self._processes:
            if process.stdin:
                process.stdin.close()
        texts = [process.stdout.read() if process.stdout else "" for process in self._processes]
        codes = self._end()
        report = ArbReport(seconds=time.monotonic() - self._began)
        for text, code in zip(texts, codes, strict=True):
            if not text.startswith("{"):
                raise DrainctlError(f"a process of the load ended with code {code} and no tally: {text!r}")
            told = json.loads(text)
            report.add(Tally(**{**told, "outcomes": Counter(told["outcomes"])}))
        ran = runs(url for urls in self.plan.shards.values() for url in urls)
        report.check(ran)
        self.report = report
        return report

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.stop()
        else:
            self._end()

    def _seed(self) -> None:
        """The key that is read must be on every machine before anybody asks."""
        with _session(self.plan) as session:
            for shard in self.plan.shards:
                session.put(f"arb://{shard}/k/{KEY}", data=b"x").raise_for_status()
        deadline = time.monotonic() + 10
        for url in [url for urls in self.plan.shards.values() for url in urls]:
            while asked(url.partition("//")[2], f"/k/{KEY}")[0] != 200:
                if time.monotonic() > deadline:
                    raise DrainctlError(f"{url} has not got its replica's write after 10 s")
                time.sleep(0.05)

    def _end(self) -> list[int]:
        """Ends what still runs (by closed pipes, then by force); the exit codes."""
        processes, self._processes = self._processes, []
        for process in processes:
            if process.stdin and not process.stdin.closed:
                process.terminate()
                process.stdin.close()
            if process.stdout:
                process.stdout.close()
        return [process.wait() for process in processes]


def runs(urls: Iterable[str]) -> Counter[str]:
    """How often each POST /once/ID ran, over all machines."""
    total: Counter[str] = Counter()
    for url in urls:
        status, body = asked(url.partition("//")[2], "/once", 10.0)
        if status != 200:
            raise DrainctlError(f"{url}/once answers {body if status is None else status}")
        total.update(json.loads(body))
    return total


@contextmanager
def _session(plan: ArbPlan) -> Iterator[ReplicaSession]:
    from drainctl.arb.session import ReplicaSession

    policy = Policy(repeatable=queries_may_repeat, probe_path="/health")
    session = ReplicaSession(plan.shards, plan.board, policy)
    try:
        yield session
    finally:
        session.close()


def main() -> None:
    """A process of the load: asks until its standard input ends, then writes its tally as JSON."""
    plan = ArbPlan(**json.loads(sys.argv[1]))
    with _session(plan) as session:
        users = Users(session, list(plan.shards), plan.users, plan.long_s, plan.long_users, name=sys.argv[2])
        with users:
            sys.stdout.write("started\n")
            sys.stdout.flush()
            sys.stdin.read()
    told = {name: getattr(users, name) for name in ("outcomes", "failures", "written", "unsure", "slowest_s")}
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
