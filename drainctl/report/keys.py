"""
Single keys from a terminal, while a view is on it. The terminal is as before afterwards, however it ends.

A process in the background must neither read the terminal nor change it: the system would stop it (SIGTTIN,
SIGTTOU; POSIX, General Terminal Interface), and with it the rollout. So each of that is done in the
foreground only.
"""

from __future__ import annotations

import atexit
import os
import select
import sys
import threading
from collections.abc import Callable
from typing import Any

EVERY_S = 0.2


class Keys:
    """
    Calls `pressed` with each key, from a thread of its own, between `start` and `stop`.

    Ctrl-C and Ctrl-Z stay what they are. Without a terminal on `fd` there are no keys, and nothing is done.
    """

    def __init__(self, pressed: Callable[[str], object], fd: int | None = None) -> None:
        self._pressed = pressed
        self._fd = _stdin() if fd is None else fd
        self._before: list[Any] | None = None
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> bool:
        """Returns: whether keys are read."""
        if not in_foreground(self._fd):
            return False
        import termios
        import tty

        self._before = termios.tcgetattr(self._fd)
        atexit.register(self.stop)
        tty.setcbreak(self._fd, termios.TCSANOW)
        self._thread = threading.Thread(target=self._read, name="keys", daemon=True)
        self._thread.start()
        return True

    def stop(self) -> None:
        """The terminal as it was. May be called twice, and by a key."""
        self._over.set()
        before, self._before = self._before, None
        if before is not None and in_foreground(self._fd):
            import termios

            termios.tcsetattr(self._fd, termios.TCSANOW, before)
        atexit.unregister(self.stop)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _read(self) -> None:
        while not self._over.is_set():
            if not in_foreground(self._fd):
                self._over.wait(EVERY_S)
                continue
            if not select.select([self._fd], [], [], EVERY_S)[0] or not in_foreground(self._fd):
                continue
            try:
                key = os.read(self._fd, 1).decode("ascii", "ignore")
            except OSError:  # the terminal is gone
                return
            if not key:
                return
            if not self._over.is_set():
                self._pressed(key)


def in_foreground(fd: int) -> bool:
    """Whether `fd` is a terminal, and this process may use it now."""
    try:
        return os.isatty(fd) and os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False


def _stdin() -> int:
    try:
        return sys.stdin.fileno()
    except (OSError, ValueError, AttributeError):  # closed, or not a file
        return -1
