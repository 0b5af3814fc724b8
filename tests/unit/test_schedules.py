"""Any schedule of mishaps, one node at a time; see schedules_kit. With the file beside it: 10,000 in all."""

from __future__ import annotations

from schedules_kit import held

test_any_schedule_keeps_the_invariants = held([(2, 1, 1), (3, 1, 1), (2, 2, 1)], 7000)
