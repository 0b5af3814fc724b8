"""A real engine: the machine's, or one that is started here and shared by all workers."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from drainctl.errors import DrainctlError
from drainctl.lab.engine import Engine, cache


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """One that answers, with the base image. Without one a test is skipped, or fails (DRAINCTL_CI=1)."""
    try:
        found = Engine.find_or_start(cache() / "engine")
        with found:
            found.base_image()
            yield found
    except DrainctlError as error:
        message = f"{error}; {error.hint or 'see docs/docker.md'}"
        if os.environ.get("DRAINCTL_CI") == "1":
            pytest.fail(message)
        pytest.skip(message)
