"""
Figures in Prometheus' text format; no library is needed to write them.

Source: Prometheus, "Exposition formats", text format 0.0.4.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from drainctl.arb.board import Board
from drainctl.arb.in_flight import InFlight
from drainctl.arb.shards import Shard

Row = tuple[Mapping[str, str], float]


def board_metrics(board: Board, shards: Mapping[str, Shard] | None = None) -> str:
    """
    Who is down.

    Args:
        board: any.
        shards: if given, machines that are up are shown too, as 0.
    """
    down = board.down()
    names = {machine.name for shard in (shards or {}).values() for machine in shard.machines} | set(down)
    now = time.time()
    return "".join(
        (
            _family(
                "drainctl_arb_down",
                "gauge",
                "1 while the machine is down: by a fault, or by hand.",
                (
                    (
                        {"machine": name, "by": "hand" if name in down and down[name].by_hand else "fault"},
                        name in down,
                    )
                    for name in sorted(names)
                ),
            ),
            _family(
                "drainctl_arb_down_seconds",
                "gauge",
                "How long the machine has been down.",
                (({"machine": name}, max(0.0, now - mark.since)) for name, mark in sorted(down.items())),
            ),
        )
    )


def client_metrics(client: InFlight) -> str:
    """What became of a client's requests: `session.arb.in_flight`, or the async client's `arb.in_flight`."""
    return "".join(
        (
            _family(
                "drainctl_arb_answers_total",
                "counter",
                "Answers, by the machine that gave them.",
                (({"machine": name}, count) for name, count in sorted(client.answered.copy().items())),
            ),
            _family(
                "drainctl_arb_faults_total",
                "counter",
                "Tries that failed.",
                (
                    ({"machine": name, "fault": fault.name.lower()}, count)
                    for (name, fault), count in client.failed.copy().items()
                ),
            ),
            _family(
                "drainctl_arb_lost_seconds_total",
                "counter",
                "Time that requests spent on tries that failed.",
                [({}, client.lost_s)],
            ),
        )
    )


def _family(name: str, kind: str, text: str, rows: Iterable[Row]) -> str:
    lines = [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    lines += [f"{name}{_labels(labels)} {float(value):.10g}" for labels, value in rows]
    return "\n".join(lines) + "\n"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    escaped = {
        name: value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        for name, value in labels.items()
    }
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped.items()) + "}"
