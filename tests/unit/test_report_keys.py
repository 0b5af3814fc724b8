"""Keys from a pseudo-terminal: a child of its own session, so that the terminal is its own."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from drainctl.report.keys import Keys, in_foreground

CHILD = """
import os, sys, threading, fcntl, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from drainctl.report.keys import Keys
over = threading.Event()
def pressed(key):
    os.write(1, f"<{key}>".encode())
    if key == "x":
        over.set()
keys = Keys(pressed, 0)
os.write(1, f"started {keys.start()}\\n".encode())
END
"""
ENDS = {
    "stop": "over.wait(30); keys.stop(); keys.stop()",
    "error": "over.wait(30); raise SystemExit(3)",
    "ctrl-c": "over.wait(30); os.kill(os.getpid(), 2); over.clear(); over.wait(30)",
    "from a key": "keys._pressed = lambda key: (keys.stop(), over.set()); over.wait(30)",
}


@contextmanager
def child(end: str) -> Iterator[tuple[int, int, subprocess.Popen[bytes]]]:
    """The two ends of the terminal, and the child on it."""
    ours, theirs = pty.openpty()
    code = CHILD.replace("END", ENDS[end])
    argv = [sys.executable, "-c", code]
    process = subprocess.Popen(
        argv, stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield ours, theirs, process
    finally:
        process.kill()
        process.wait()
        os.close(ours)
        os.close(theirs)


def heard(fd: int, words: str, limit_s: float = 20.0) -> str:
    """What was written until `words` came."""
    told, deadline = "", time.monotonic() + limit_s
    while words not in told:
        assert time.monotonic() < deadline, f"waited {limit_s} s for {words!r}, heard {told!r}"
        if select.select([fd], [], [], 0.1)[0]:
            told += os.read(fd, 1000).decode()
    return told


def local_modes(fd: int) -> int:
    modes: int = termios.tcgetattr(fd)[3]
    return modes & (termios.ICANON | termios.ECHO)


@pytest.mark.parametrize("end", ENDS)
def test_the_terminal_is_as_before_however_it_ends(end: str) -> None:
    with child(end) as (ours, theirs, process):
        before = local_modes(theirs)
        assert before
        heard(ours, "started True")
        assert local_modes(theirs) == 0
        if end != "from a key":
            os.write(ours, b"pq")
            assert "<p><q>" in heard(ours, "<q>").replace("\r\n", "")
        os.write(ours, b"x")
        process.wait(20)
        assert local_modes(theirs) == before


def test_ctrl_c_stays_an_interrupt() -> None:
    with child("stop") as (ours, _theirs, process):
        heard(ours, "started True")
        os.write(ours, b"\x03")
        process.wait(20)
        assert process.returncode in {1, -2}


def test_what_is_no_terminal_has_no_keys() -> None:
    reading, writing = os.pipe()
    try:
        keys = Keys(lambda _: None, reading)
        assert not keys.start()
        keys.stop()
        assert not in_foreground(reading)
        assert not in_foreground(-1)
    finally:
        os.close(reading)
        os.close(writing)
