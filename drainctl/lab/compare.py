"""The demo's two halves side by side, and whether they show what the demo says. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drainctl.lab.report import Report

# What a bin means where these servers stand; the others are named alone.
MEANS = {
    "http_502": "the node's nginx found no app",
    "http_503": "no server was left",
    "http_504": "the app did not answer nginx",
    "refused": "nobody listened",
    "reset": "before the answer",
    "closed": "with no answer",
    "cut": "in the middle of the answer",
    "timeout": "no answer in time",
    "wrong_version": "old release after the end",
}
LABEL_WIDTH, CELL_WIDTH = 44, 16  # 76 columns in all


@dataclass(frozen=True, slots=True)
class Half:
    """
    One way to roll a release, and what its load saw of it.

    release: that was rolled. report: what the clients saw, from a moment before the first node to a moment
    after the last. seconds, nodes: of the rollout alone. proof: what the balancers counted during it (the
    data of a `proof` event). problem: why the rollout did not come to its end, or None.
    """

    release: str
    report: Report
    seconds: float
    nodes: int
    proof: Mapping[str, Any]
    problem: str | None = None


def verdict(naive: Half, drained: Half) -> tuple[int, list[str]]:
    """
    The demo's exit code, and why.

    0 and one sentence, where the naive half shows failures and drainctl's shows none, by the clients and by
    the balancers' counters; else 1 and a sentence for each part that failed.
    """
    found = [f"the naive half failed: {why}" for why in _naive_faults(naive)]
    found += [f"drainctl's half failed: {why}" for why in _drained_faults(drained)]
    if found:
        return 1, found
    lost, all_ = naive.report.failed, naive.report.requests
    told = f"Naive restarts lost {lost} of {all_} requests ({lost / all_:.1%}); "
    return 0, [f"{told}drainctl lost 0 of {drained.report.requests}."]


def _naive_faults(half: Half) -> list[str]:
    found = _load_faults(half)
    if not found and not half.report.failed:
        found.append(
            f"it shows 0 failures in {half.report.requests} requests, so it cannot tell good from bad"
        )
    return found


def _drained_faults(half: Half) -> list[str]:
    found = _load_faults(half)
    report, proof = half.report, half.proof
    if report.failed:
        bins = ", ".join(f"{count} {name}" for name, count in _failed_bins(report).items())
        found.append(f"{report.failed} of {report.requests} requests failed ({bins})")
    if proof.get("failed") is None:
        why = "; ".join(proof.get("inconclusive", ())) or "it was not made"
        found.append(f"the balancers' proof is inconclusive: {why}")
    elif proof["failed"]:
        found.append(f"the balancers counted {proof['failed']} failures in {proof['requests']} requests")
    return found


def _load_faults(half: Half) -> list[str]:
    """Why a half says nothing, whatever it counted."""
    found = [half.problem] if half.problem else []
    if half.report.problem:
        found.append(f"its load is not to be trusted: {half.report.problem}")
    if not half.report.requests:
        found.append("no request was sent")
    return found


def table(naive: Half, drained: Half) -> list[tuple[str, str, str]]:
    """
    Rows of label, naive cell, drainctl cell; the first one is the head. A kind of failure that neither
    half saw has no row.
    """
    halves = (naive, drained)
    reports = [half.report for half in halves]
    rows = [("", "naive restart", "drainctl"), _row("requests", [str(one.requests) for one in reports])]
    rows.append(_row("failed", [str(one.failed) for one in reports]))
    kinds = sorted({name for one in reports for name in _failed_bins(one)})
    for name in kinds:
        means = f": {MEANS[name]}" if name in MEANS else ""
        rows.append(_row(f"  {name}{means}", [str(one.bins.get(name, 0)) for one in reports]))
    rows += [
        _row("longest request", [_time(one.longest_s) for one in reports]),
        _row("p99 of GET /", [_time(one.kinds.get("get", {}).get("p99_s", 0.0)) for one in reports]),
        _row("seconds", [f"{half.seconds:.1f} s" for half in halves]),
        _row("seconds per node", [f"{half.seconds / half.nodes:.1f} s" for half in halves]),
        _row("counted by HAProxy during the rollout", [_counted(half.proof, "requests") for half in halves]),
        _row("  failed", [_counted(half.proof, "failed") for half in halves]),
        _row("  connections tried again (retries)", [_retries(half.proof) for half in halves]),
    ]
    return rows


def lines(rows: list[tuple[str, str, str]]) -> list[str]:
    """The rows of `table`, aligned; no line is wider than 80 columns."""
    return [f"{label:{LABEL_WIDTH}}{left:>{CELL_WIDTH}}{right:>{CELL_WIDTH}}" for label, left, right in rows]


def _row(label: str, cells: list[str]) -> tuple[str, str, str]:
    left, right = cells
    return label, left, right


def _failed_bins(report: Report) -> dict[str, int]:
    return {name: count for name, count in sorted(report.bins.items()) if name != "ok" and count}


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 0.1 else f"{seconds * 1000:.0f} ms"


def _counted(proof: Mapping[str, Any], key: str) -> str:
    """A sum over all balancers; never a number where a counter began anew."""
    count = proof.get(key)
    return "inconclusive" if count is None or proof.get("inconclusive") else str(count)


def _retries(proof: Mapping[str, Any]) -> str:
    return str(sum(balancer["retries"] for balancer in proof.get("balancers", {}).values()))
