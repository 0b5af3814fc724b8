"""
As dying_drainctl.py, for the in-place strategies: a moment is named by the step that is being taken, since
several steps of theirs have acts of the same class.
"""

from __future__ import annotations

import threading

import dying_drainctl

from drainctl.rollout.walk import Walk

at = threading.local()
act = Walk._act


def acting(self, step):
    at.step = step.name
    return act(self, step)


if __name__ == "__main__":
    Walk._act = acting
    dying_drainctl.step_of = lambda _act: at.step
    dying_drainctl.main()
