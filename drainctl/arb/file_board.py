"""
A board in one small file, shared by all processes of a machine.

A look costs one `pread` of 24 bytes (about 1 µs): the head tells whether anything has changed since the last
look, and only then is the rest read. Measured beside it: a select on an open SQLite database 3–5 µs, a byte
of a mapped file 0.1 µs; but a process that has mapped a file dies of SIGBUS when somebody truncates it or
the disk is full, and a board must never hurt. Without locks a reader can meet half a write: a checksum
tells, and the marks of before stand. A file that is gone, full, torn or forbidden means the same: the marks
of before, and this process's own.

    8 bytes  magic        8 bytes  generation        4 bytes  length        4 bytes  CRC-32 of the text
    then the text: a JSON list, one object per mark

Times are those of the wall clock, so `since` can be shown: a clock that is set back an hour makes marks last
so much longer at most, unless a prober lifts them.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import struct
import threading
import time
import weakref
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from drainctl.arb.board import NOBODY, Down, Marks, lifted, marked, rows_of, standing

HEAD = struct.Struct("<8sQII")
MAGIC = b"arbdown1"
LOCK_S = 0.05  # longest wait for another writer; a write takes tens of microseconds
LOOK_S = 1.0  # how often it is looked whether the file was replaced
MOST = 1 << 20  # longest text that is believed, bytes


class FileBoard:
    """
    A board shared through a file.

    Args:
        path: the board. It is created with the process's umask where it is missing; its folder must be
            there, and should not be one in which strangers may write. Beside it, `PATH.probe` and
            `PATH.watch` are lock files.

    Attributes:
        trouble: why the file could not be read or written the last time it was tried; "" when all is well.

    Raises: nothing, whatever state the file is in.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.trouble = ""
        self._fd = -1
        self._inode = (0, 0)
        self._look_at = 0.0
        self._head = b""
        self._shared: Marks = NOBODY
        self._own: Marks = NOBODY  # what could not be written
        self._lock = threading.RLock()
        ours = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _unlock(ours()))
        self._locks = {"probe": _FileLock(f"{self.path}.probe"), "watch": _FileLock(f"{self.path}.watch")}

    def down(self) -> Marks:
        """Who is down now. About 1 µs while nothing changes."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look(now)
        try:
            head = os.pread(self._fd, HEAD.size, 0)
        except OSError:
            head = self._head
        if head != self._head:
            self._read(head)
        if not self._shared and not self._own:
            return NOBODY
        return standing({**self._own, **self._shared}, time.time())

    def mark(self, down: Down) -> None:
        """Add or renew a mark. Where the file cannot be written within 50 ms, for this process alone."""
        if not self._change(lambda marks: marked(marks, down)):
            with self._lock:
                self._own = marked(self._own, down)

    def lift(self, machine: str, *, by_hand: bool = False) -> None:
        """Take a mark away."""
        with self._lock:
            self._own = lifted(self._own, machine, by_hand=by_hand)
        self._change(lambda marks: lifted(marks, machine, by_hand=by_hand))

    def probing(self, *, watch: bool) -> bool:
        """
        Whether this board object is the one of the machine that probes; two locks, so that a watcher need
        not wait.
        """
        watching, probing = self._locks["watch"], self._locks["probe"]
        if watch:
            return watching.take()
        if watching.held or not watching.take():
            probing.leave()
            return False
        watching.leave()
        return probing.take()

    def rest(self, *, watch: bool) -> None:
        """Stop being the one that probes."""
        self._locks["watch" if watch else "probe"].leave()

    def written(self, limit_s: float) -> bool:
        """Whether the last change stands in the file; it is written at once, so nothing is waited for."""
        del limit_s
        return not self.trouble

    def close(self) -> None:
        """Close the file. A later call opens it again."""
        for lock in self._locks.values():
            lock.leave()
        with self._lock:
            fd, self._fd = self._fd, -1
            self._look_at = 0.0
            if fd >= 0:
                os.close(fd)

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.close()

    def _look(self, now: float) -> None:
        """Opens the file where it is not open, or where another stands in its place by now."""
        with self._lock:
            self._look_at = now + LOOK_S
            try:
                seen = os.stat(self.path)  # noqa: PTH116  a hot path: a third of Path.stat's time
                if self._fd >= 0 and (seen.st_dev, seen.st_ino) == self._inode:
                    return
            except FileNotFoundError:
                pass
            except OSError as error:
                self.trouble = _words(error)
                return
            self._open()

    def _open(self) -> None:
        try:
            fd = _opened(self.path)
        except OSError as error:
            self.trouble = _words(error)
            return
        old, self._fd = self._fd, fd
        if old >= 0:
            os.close(old)
        status = os.fstat(fd)
        self._inode = (status.st_dev, status.st_ino)
        self._head = b""
        self.trouble = ""

    def _read(self, head: bytes) -> None:
        with self._lock:
            if self._fd < 0:
                return
            for _ in range(3):  # a writer may be in the middle
                try:
                    marks = _parsed(self._fd, head)
                except ValueError as error:
                    self.trouble = str(error)
                except OSError as error:
                    self.trouble = _words(error)
                else:
                    self._shared, self._head, self.trouble = marks, head, ""
                    return
                with contextlib.suppress(OSError):
                    head = os.pread(self._fd, HEAD.size, 0)
            self._head = head  # torn or foreign: believed again when it changes

    def _change(self, change: Callable[[Marks], Marks]) -> bool:
        """Read, change, write, under the file's lock. Returns whether the file says so now."""
        try:
            with _locked(self.path) as fd:
                head = os.pread(fd, HEAD.size, 0)
                try:
                    old = _parsed(fd, head)
                except ValueError:
                    old = self._shared  # a writer died in the middle: what was known stands
                new = change(standing(old, time.time()))
                if new is not old and new != old:
                    _write(fd, head, new)
        except OSError as error:
            self.trouble = _words(error)
            return False
        self.trouble = ""
        return True


class _FileLock:
    """A non-blocking lock on a file of its own; not inherited by a fork, gone with its holder."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._lock = threading.Lock()
        ours = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(ours()))

    @property
    def held(self) -> bool:
        return self._fd >= 0

    def take(self) -> bool:
        with self._lock:
            if self._fd >= 0:
                return True
            try:
                fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except OSError:
                return False
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(fd)
                return False
            self._fd = fd
            return True

    def leave(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, -1
            if fd >= 0:
                os.close(fd)

    def forget(self) -> None:
        """In the child of a fork: the lock is the parent's."""
        self._lock = threading.Lock()
        self.leave()


def _unlock(board: FileBoard | None) -> None:
    """In the child of a fork: a thread of the parent may have been looking just then."""
    if board is not None:
        board._lock = threading.RLock()  # noqa: SLF001  a part of the class that must not keep it alive


def _forget(lock: _FileLock | None) -> None:
    if lock is not None:
        lock.forget()


def _opened(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS):
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """
    The file, open anew (a lock belongs to an open file, which forks share) and locked, or OSError after
    LOCK_S.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        deadline = time.monotonic() + LOCK_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.001)
        yield fd
    finally:
        os.close(fd)


def _parsed(fd: int, head: bytes) -> Marks:
    """The marks below that head. Raises ValueError where the text is not the head's."""
    if not head:
        return NOBODY  # new
    if len(head) < HEAD.size:
        raise ValueError("the board is cut short")
    magic, _, length, checksum = HEAD.unpack(head)
    if magic != MAGIC or length > MOST:
        raise ValueError("the file is no board")
    text = os.pread(fd, length, HEAD.size)
    if len(text) != length or zlib.crc32(text) != checksum:
        raise ValueError("the board is torn")
    try:
        return {one["machine"]: Down(**one) for one in json.loads(text)}
    except (TypeError, KeyError) as error:
        raise ValueError(f"the board is of another version: {error}") from error


def _write(fd: int, head: bytes, marks: Marks) -> None:
    generation = (
        HEAD.unpack(head)[1] + 1 if len(head) == HEAD.size and head.startswith(MAGIC) else time.time_ns()
    )
    text = json.dumps(rows_of(marks)).encode()
    whole = HEAD.pack(MAGIC, generation, len(text), zlib.crc32(text)) + text
    if os.pwrite(fd, whole, 0) != len(whole):
        raise OSError(errno.ENOSPC, "written in part")


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
