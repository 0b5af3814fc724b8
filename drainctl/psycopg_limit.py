"""
An end to psycopg's waits that the server cannot miss: one that is frozen does not keep its own promise of a
statement_timeout. Imported where psycopg is.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

T = TypeVar("T")


def within(gen: Generator[Any, Any, T], deadline: float, why: str = "") -> Generator[Any, Any, T]:
    """
    The generator that a psycopg connection waits for, ended at `deadline` (monotonic seconds). psycopg (3.2
    and newer) resumes one that waits for its socket every 0.1 s, saying that nothing is ready.

    Raises: TimeoutError(why).
    """
    try:
        awaited = next(gen)
        while True:
            ready = yield awaited
            if not ready and time.monotonic() > deadline:
                raise TimeoutError(why)
            awaited = gen.send(ready)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]
