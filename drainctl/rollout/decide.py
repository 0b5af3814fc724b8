"""
The judgement of a step: go on, wait, or stop, and why. No I/O, no clock, no log.

    expects holds          → next
    expects never holds    → what the step says of that (undo, halt, fall back)
    not yet, limit over    → what the step says of that, with what was seen and the limit
    not yet                → wait
"""

from __future__ import annotations

from drainctl.steps import Do, Escalation, Holds, Never, NotYet, Seen, Step, Verdict


def decide(step: Step, seen: Seen) -> Verdict:
    """What follows from what is seen `seen.spent_s` seconds after the step's act."""
    match step.expects(seen):
        case Holds(why):
            return Verdict(Do.NEXT, why)
        case Never(why, hint):
            return Verdict(step.on_never, why, hint)
        case NotYet(why) if step.limit_s is not None and seen.spent_s >= step.limit_s:
            return Verdict(
                step.on_limit, f"{why}, {seen.spent_s:.1f} s after it began (limit {step.limit_s:g} s)"
            )
        case NotYet(why, again_s):
            return Verdict(Do.WAIT, why, again_s=again_s)


def due(step: Step, spent_s: float, already: int) -> Escalation | None:
    """The next escalation whose time has come, when `already` of them were performed."""
    left = step.escalations[already:]
    return left[0] if left and spent_s >= left[0].after_s else None
