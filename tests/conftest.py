"""What every test may ask for."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from typing import TypeVar

import pytest

SLOW = float(os.environ.get("DRAINCTL_TEST_SLOW", "1"))
T = TypeVar("T")

# Debian keeps servers where a normal user's PATH does not look.
os.environ["PATH"] = os.environ.get("PATH", "") + os.pathsep + "/usr/sbin" + os.pathsep + "/sbin"


def need(program: str) -> str:
    """The program's path. Without it the test is skipped, or fails where skips are (DRAINCTL_CI=1)."""
    found = shutil.which(program)
    if found:
        return found
    message = f"{program} is not installed"
    if os.environ.get("DRAINCTL_CI") == "1":
        pytest.fail(message)
    pytest.skip(message)


def until(what: str, holds: Callable[[], T], limit_s: float = 10.0, every_s: float = 0.02) -> T:
    """Waits until `holds()` is true and returns its value; fails after limit_s × SLOW, saying `what`."""
    deadline = time.monotonic() + limit_s * SLOW
    while True:
        value = holds()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"waited {limit_s * SLOW:g} s for: {what}")
        time.sleep(every_s)


# Files that take a minute or more: begun first, so that two workers end at about the same time.
LONGEST = (
    "test_jepsen.py",
    "test_kill.py",
    "test_kill_in_place.py",
    "test_arb_rollout.py",
    "test_reliability.py",
    "test_store_faults.py",
    "test_schedules_at_once.py",
    "test_schedules.py",
    "test_soak.py",
    "test_lab_strategies.py",
    "test_rollout.py",
    "test_fence.py",
    "test_in_place_rolls.py",
    "test_screens.py",
    "test_image_release.py",
    "test_compose.py",
    "test_image_faults.py",
    "test_verbs.py",
    "test_ci.py",
    "test_arb_load.py",
    "test_store_rollout.py",
    "test_stores.py",
    "test_doctor_in_place.py",
    "test_render.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first; the order within a file stays."""
    rank = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(LONGEST)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a skipped test is a failure: there, a missing server is a defect of the set-up."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter else []
    if skipped and os.environ.get("DRAINCTL_CI") == "1":
        reporter.write_line(f"{len(skipped)} skipped tests are failures here (DRAINCTL_CI=1)", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(name="need")
def need_fixture() -> Callable[[str], str]:
    return need


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., object]:
    return until
