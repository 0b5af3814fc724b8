"""Doing several things at once with threads, and hearing of every failure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence


def in_parallel(tasks: Sequence[Callable[[], object]], at_once: int = 32) -> None:
    """
    Runs all tasks, `at_once` at a time, and waits for every one of them.

    Raises: the first exception of the earliest task that raised, after all have ended.
    """
    failures: dict[int, BaseException] = {}
    waiting = iter(enumerate(tasks))
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                index, task = next(waiting, (-1, None))
            if task is None:
                return
            try:
                task()
            except BaseException as error:  # noqa: BLE001 - told to the caller below, whatever it is
                failures[index] = error

    threads = [threading.Thread(target=work, name=f"drainctl-{at}") for at in range(min(at_once, len(tasks)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[min(failures)]
