"""
What became of every request: one bin each, times, and a report of both.

    ok             the whole, right answer
    http_<status>  a whole answer with another status than 2xx
    refused        nobody listened
    reset          the connection was reset before the answer's first byte
    closed         the connection was closed in good order, with no byte of an answer
    cut            the answer began and did not end: closed, reset, or shorter than it said; a WebSocket that
                   was opened and ended before its client closed it
    timeout        no whole answer within the limit (connecting counts)
    wrong_body     200, but not the bytes that were to come back
    wrong_version  200, but not from the release that alone may answer by now
    garbled        not HTTP/1.1
    not_sent       the generator itself could not connect (out of ports or files): its failure, loudly
"""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

SAMPLES_MAX = 50  # failures that are told in full


class Histogram:
    """Times in logarithmic buckets, each 2 % wider than the one before; the longest is kept exactly."""

    STEP = math.log(1.02)

    def __init__(self) -> None:
        self.buckets: Counter[int] = Counter()
        self.longest_s = 0.0

    def add(self, seconds: float) -> None:
        self.buckets[int(math.log(max(seconds, 1e-6) * 1e6) / self.STEP)] += 1
        self.longest_s = max(self.longest_s, seconds)

    def quantile(self, share: float) -> float:
        """The time that `share` of all did not exceed, seconds, at most 2 % too long; 0 if there is none."""
        left = share * self.buckets.total()
        for bucket in sorted(self.buckets):
            left -= self.buckets[bucket]
            if left <= 0:
                return min(math.exp((bucket + 1) * self.STEP) / 1e6, self.longest_s)
        return self.longest_s

    def summary(self) -> dict[str, float]:
        shares = {"p50_s": 0.5, "p90_s": 0.9, "p99_s": 0.99, "p999_s": 0.999}
        return {name: self.quantile(share) for name, share in shares.items()} | {"longest_s": self.longest_s}


@dataclass(frozen=True, slots=True)
class Report:
    """
    All that a run of the load generator saw.

    requests: all that were started; each is in exactly one of `bins`. seconds: from the first one's start to
    the last one's. kinds: per kind (see `drainctl.lab.plan.Plan`) its requests, failures and times. versions:
    X-Release of whole answers. targets: requests and failures by URL. timeline: per second (by when the
    request ended): second, requests, failed, longest_s.
    failures: the first 50, each with its time, kind, bin, URL, whether its connection was used before,
    and the reason. late: requests sent more than 0.1 s after their time (constant rate only); latest_s:
    the worst. lag_s: longest time the generator itself was held up. cpu_s: its processor time. problem:
    why the run is not to be trusted, or None.
    """

    requests: int = 0
    seconds: float = 0.0
    bins: dict[str, int] = field(default_factory=dict)
    latency: dict[str, float] = field(default_factory=dict)
    kinds: dict[str, dict[str, float]] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    targets: dict[str, dict[str, int]] = field(default_factory=dict)
    timeline: list[list[float]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    connections: int = 0
    late: int = 0
    latest_s: float = 0.0
    lag_s: float = 0.0
    cpu_s: float = 0.0
    problem: str | None = None

    @property
    def ok(self) -> int:
        return self.bins.get("ok", 0)

    @property
    def failed(self) -> int:
        return self.requests - self.ok

    @property
    def rps(self) -> float:
        return self.requests / self.seconds if self.seconds else 0.0

    @property
    def longest_s(self) -> float:
        """The longest that any request took; per kind it is in `kinds`."""
        return self.latency.get("longest_s", 0.0)

    def json(self) -> str:
        """One JSON object: the fields, and `ok`, `failed`, `rps` for those who read only that."""
        return json.dumps({**asdict(self), "ok": self.ok, "failed": self.failed, "rps": round(self.rps, 1)})

    @classmethod
    def read(cls, text: str) -> Report:
        """The report from its JSON."""
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in json.loads(text).items() if name in known})

    def write(self, path: Path) -> None:
        path.write_text(self.json() + "\n")

    def table(self) -> str:
        """The report for a person."""
        lines = [
            f"{self.requests} requests in {self.seconds:.1f} s ({self.rps:.0f}/s), {self.failed} failed",
            "  " + "  ".join(f"{name} {count}" for name, count in sorted(self.bins.items())),
            f"{'kind':8}{'requests':>10}{'failed':>8}{'p50':>10}{'p99':>10}{'longest':>10}",
        ]
        for name, row in self.kinds.items():
            times = "".join(f"{row[key] * 1000:>7.1f} ms" for key in ("p50_s", "p99_s", "longest_s"))
            lines.append(f"{name:8}{row['requests']:>10.0f}{row['failed']:>8.0f}{times}")
        answered = ", ".join(f"{name} {count}" for name, count in sorted(self.versions.items()))
        lines.append(f"answered by {answered or 'nobody'}")
        for one in self.failures[:10]:
            reused = "kept-alive" if one["reused"] else "new"
            line = f"  at {one['at_s']:.3f} s: {one['kind']} {one['url']}: {one['bin']} ({reused} connection)"
            lines.append(f"{line}: {one['why']}" if one["why"] else line)
        if self.failed > len(self.failures[:10]):
            lines.append(f"  … and {self.failed - len(self.failures[:10])} more")
        if self.problem:
            lines.append(f"not to be trusted: {self.problem}")
        return "\n".join(lines)


class Tally:
    """Counts outcomes as they come; `report` makes a Report of them."""

    def __init__(self) -> None:
        self.bins: Counter[str] = Counter()
        self.kinds: dict[str, tuple[Counter[str], Histogram]] = {}
        self.versions: Counter[str] = Counter()
        self.targets: dict[str, Counter[str]] = {}
        self.seconds: dict[int, list[float]] = {}
        self.failures: list[dict[str, Any]] = []
        self.all = Histogram()

    def add(self, outcome: Outcome) -> None:
        """Count one request."""
        bad = outcome.bin != "ok"
        self.bins[outcome.bin] += 1
        counts, times = self.kinds.setdefault(outcome.kind, (Counter(), Histogram()))
        target = self.targets.setdefault(outcome.url, Counter())
        second = self.seconds.setdefault(int(outcome.at_s), [int(outcome.at_s), 0, 0, 0.0])
        for counter in (counts, target):
            counter["requests"] += 1
            counter["failed"] += bad
        for histogram in (times, self.all):
            histogram.add(outcome.took_s)
        second[1] += 1
        second[2] += bad
        second[3] = max(second[3], outcome.took_s)
        if outcome.version:
            self.versions[outcome.version] += 1
        if bad and len(self.failures) < SAMPLES_MAX:
            self.failures.append(asdict(outcome))

    def report(self, **more: Any) -> Report:
        return Report(
            requests=self.bins.total(),
            bins=dict(self.bins),
            latency=self.all.summary(),
            kinds={
                name: {**counts, **times.summary()} for name, (counts, times) in sorted(self.kinds.items())
            },
            versions=dict(self.versions),
            targets={url: dict(counts) for url, counts in self.targets.items()},
            timeline=[self.seconds[second] for second in sorted(self.seconds)],
            failures=self.failures,
            **more,
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """One request's end: at_s since the run began; took_s from when it was due (sent, in a closed loop)."""

    bin: str
    kind: str
    url: str
    at_s: float
    took_s: float
    reused: bool
    version: str = ""
    why: str = ""
