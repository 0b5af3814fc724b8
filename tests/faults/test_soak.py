"""
Rollouts in a row with random faults, under one load: no request fails, and each ends in a known state.

A few always; a hundred with DRAINCTL_SOAK=1. DRAINCTL_SOAK_SEED draws others, DRAINCTL_SOAK_ROLLOUTS more.
"""

from __future__ import annotations

import os

import pytest

from tests.faults import faults_kit as kit
from tests.faults import reliability_page, soak_kit

pytestmark = [pytest.mark.real, pytest.mark.slow]

ROLLOUTS = int(os.environ.get("DRAINCTL_SOAK_ROLLOUTS") or (100 if os.environ.get("DRAINCTL_SOAK") else 3))
LONG = 15  # from so many on the summary is kept for docs/reliability.md
SEED = int(os.environ.get("DRAINCTL_SOAK_SEED", "1"))


def test_rollouts_in_a_row_with_random_faults_fail_no_request(record_property):
    with kit.lab("127.0.100", ssh=True) as it:
        kit.prepare(it)
        summary = soak_kit.soak(it, SEED, ROLLOUTS)
    print(f"\n{summary.text}")
    record_property("soak", summary.text)
    if ROLLOUTS >= LONG:
        reliability_page.SOAK.parent.mkdir(exist_ok=True)
        reliability_page.SOAK.write_text(summary.text + "\n")
    assert summary.wrong == [], summary.text
    assert summary.report.failed == 0, f"{summary.text}\n{summary.report.table()}"
    assert summary.outcomes.total() == ROLLOUTS


def test_what_is_drawn_follows_from_the_seed():
    drawn = [soak_kit.draw(SEED, number) for number in range(1, 101)]
    assert drawn == [soak_kit.draw(SEED, number) for number in range(1, 101)]
    assert {one.fault for one in drawn} == {fault for fault, _, _ in soak_kit.FAULTS}
    assert drawn != [soak_kit.draw(SEED + 1, number) for number in range(1, 101)]
