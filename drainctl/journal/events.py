"""
The journal's words: one Event per thing that happened, in order, never changed.

Kinds and their `data` (all JSON):

| kind            | data |
|-----------------|------|
| rollout.began   | verb, cluster, release {id, archive, sha256, url, size} or null, line,
|                 | targets {node: release or null}, previous {node: release or null},
|                 | waves [[node]], strategy {node: strategy}, live {node: {strategy: what serves}},
|                 | on_failure, token, holder |
| rollout.staged  | every node has the release on its disk |
| rollout.resumed | token, holder |
| rollout.turned  | to: "back", why: from here on nodes are put back instead of forward |
| rollout.asked   | ask: "pause" or "abort", by: another drainctl asks the running one |
| rollout.ended   | outcome: done, put-back, halted, paused, interrupted; exit; why; lines [text]; took_s |
| wave.began      | wave, of, nodes |
| node.began      | way: "forward" or "back"; strategy; reason; target (release or null); a second one,
|                 | with another strategy, is a fallback |
| node.ended      | outcome: done, restored, put-back, failed; why; took_s |
| step.intended   | act (text), limit_s, changes (whether the node is another from here on): written
|                 | before the act |
| step.skipped    | why: what the step wants is seen already |
| step.acted      | took_s, output: the act returned |
| step.escalated  | why, act |
| step.seen       | why, took_s: the step is over |
| step.failed     | why, hint, do, took_s, rows [text]: what each balancer showed last |
| note            | what: balancer-changed, store-away, …: seen by the way |
| proof           | balancers, inconclusive, ...: what the counters say of the whole rollout |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """
    One line of the journal. seq: 1, 2, … over all rollouts of a store. at_s: wall clock, Unix seconds.
    rollout: its id. node and step: what it is about, or None. text: the same in words, one line.
    """

    seq: int
    at_s: float
    rollout: str
    kind: str
    node: str | None = None
    step: str | None = None
    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
