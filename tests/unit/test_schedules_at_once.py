"""Any schedule of mishaps, two journeys at once; a file of its own, so that another worker may take it."""

from __future__ import annotations

from schedules_kit import held

test_any_schedule_of_two_at_once_keeps_the_invariants = held([(3, 1, 2), (4, 1, 2)], 3000)
