"""The boards: what is kept, what lapses, and that no state of a file hurts."""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time

import pytest

from drainctl.arb import file_board
from drainctl.arb.board import Down, MemoryBoard, fault_mark
from drainctl.arb.boards import board_of, shown, stale_s
from drainctl.arb.file_board import HEAD, FileBoard
from drainctl.arb.metrics import board_metrics
from drainctl.arb.shards import shards_of
from drainctl.arb.shared_board import SharedBoard


@pytest.fixture
def path(tmp_path):
    return tmp_path / "board"


@pytest.fixture
def boards(path):
    """Two views of one file, as two processes have them."""
    pair = FileBoard(path), FileBoard(path)
    yield pair
    for board in pair:
        board.close()


@pytest.fixture(params=["memory", "file", "shared"])
def board(request, boards):
    if request.param == "shared":
        board = SharedBoard(Common().shelf, every_s=0.02)
        yield board
        board.close()
    else:
        yield MemoryBoard() if request.param == "memory" else boards[0]


class Common:
    """A store in memory for several shared boards; `away` is what it fails with."""

    def __init__(self):
        self.marks = {}
        self.locks = {}
        self.away = None
        self.lock = threading.Lock()

    def shelf(self):
        return CommonShelf(self)


class CommonShelf:
    def __init__(self, store):
        self._store = store

    def read(self):
        return self.change(lambda marks: marks)

    def change(self, change):
        if self._store.away:
            raise self._store.away
        with self._store.lock:
            self._store.marks = change(self._store.marks)
            return self._store.marks

    def take(self, what):
        return self._store.locks.setdefault(what, self) is self

    def taken(self, what):
        return what in self._store.locks

    def leave(self, what):
        if self._store.locks.get(what) is self:
            del self._store.locks[what]

    def close(self):
        for what in list(self._store.locks):
            self.leave(what)


@pytest.fixture
def common():
    return Common()


@pytest.fixture
def shared(common):
    """Two boards on one store, as two machines have them."""
    pair = SharedBoard(common.shelf, every_s=0.02), SharedBoard(common.shelf, every_s=0.02)
    yield pair
    for board in pair:
        board.close()


def by_hand(machine, until=None, why="maintenance"):
    return Down(machine, time.time(), until, "ops", why, by_hand=True)


def test_a_mark_stands_until_it_is_lifted(board):
    assert not board.down()
    board.mark(fault_mark("a:1", "refused", 60))
    assert board.down()["a:1"].why == "refused"
    board.lift("a:1")
    assert not board.down()


def test_a_mark_lapses_that_nobody_renews(board):
    board.mark(fault_mark("a:1", "refused", 60))
    board.mark(Down("b:2", time.time() - 9, time.time() - 1, "x", "y"))
    assert list(board.down()) == ["a:1"]


def test_renewing_keeps_since_and_who_said_so_first(board):
    now = time.time()
    board.mark(Down("a:1", now - 5, now + 1, "first", "refused"))
    board.mark(Down("a:1", now, now + 60, "second", "refused (probe)"))
    mark = board.down()["a:1"]
    assert (mark.since, mark.by, mark.until) == (now - 5, "first", now + 60)


def test_what_a_person_said_no_probe_changes(board):
    board.mark(fault_mark("a:1", "refused", 60))
    board.mark(by_hand("a:1"))
    board.mark(fault_mark("a:1", "refused", 60))
    board.lift("a:1")
    assert board.down()["a:1"].by == "ops"
    board.lift("a:1", by_hand=True)
    assert not board.down()


def test_a_machine_wide_board_is_seen_by_all_at_once(boards):
    one, other = boards
    assert not other.down()
    one.mark(fault_mark("a:1", "refused", 60))
    assert other.down() == one.down() != {}
    other.lift("a:1")
    assert not one.down()


def test_writers_do_not_lose_each_others_marks(path):
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_mark_twenty, args=(path, at)) for at in range(6)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    board = FileBoard(path)
    assert len(board.down()) == 120
    board.close()


def _mark_twenty(path, at):
    file_board.LOCK_S = 30.0  # six writers on a busy machine: this is about losing marks, not about waiting
    board = FileBoard(path)
    for name in range(20):
        board.mark(fault_mark(f"m{at}-{name}:1", "refused", 60))
    os._exit(0)


BROKEN = {
    "emptied": lambda path: os.truncate(path, 0),
    "cut": lambda path: os.truncate(path, 40),
    "foreign": lambda path: path.write_bytes(b"x" * 4096),
    "torn": lambda path: path.write_bytes(path.read_bytes()[:-4] + b"????"),
    "altered": lambda path: path.write_bytes(path.read_bytes().replace(b"a:1", b"z:9")),
    "vast": lambda path: path.write_bytes(HEAD.pack(b"arbdown1", 9, 1 << 31, 0)),
    "another version": lambda path: path.write_bytes(_board_of([{"machine": "a:1", "colour": "red"}])),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


def _board_of(rows):
    import zlib

    text = json.dumps(rows).encode()
    return HEAD.pack(b"arbdown1", 7, len(text), zlib.crc32(text)) + text


@pytest.mark.parametrize("state", BROKEN)
def test_no_state_of_the_file_hurts_who_reads_or_marks(boards, path, state):
    one, other = boards
    one.mark(fault_mark("a:1", "refused", 60))
    assert other.down()
    BROKEN[state](path)
    for board in boards:
        board._look_at = 0.0  # as if a second had passed
        assert "z:9" not in board.down()
        board.mark(fault_mark("b:2", "refused", 60))
        assert "b:2" in board.down(), board.trouble
        board.lift("b:2")
        assert "b:2" not in board.down()


@pytest.mark.parametrize("state", sorted(set(BROKEN) - {"a folder"}))
def test_a_broken_board_is_mended_by_the_next_mark(boards, path, state):
    one, other = boards
    one.mark(fault_mark("a:1", "refused", 60))
    BROKEN[state](path)
    one._look_at = other._look_at = 0.0
    one.mark(fault_mark("b:2", "refused", 60))
    assert "b:2" in other.down()
    assert not other.trouble


def test_a_board_that_cannot_be_is_a_board_for_this_process(tmp_path):
    board = FileBoard(tmp_path / "no" / "such" / "folder")
    board.mark(fault_mark("a:1", "refused", 60))
    assert "a:1" in board.down()
    assert board.trouble == "no such file or directory"
    board.lift("a:1")
    assert not board.down()


def test_a_writer_that_stopped_with_the_lock_costs_nobody_more_than_a_moment(boards, path):
    import fcntl

    with path.open("wb") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        boards[0].mark(fault_mark("a:1", "refused", 60))
    assert "a:1" in boards[0].down()


def test_one_probes_and_a_watcher_goes_first(boards):
    one, other = boards
    assert one.probing(watch=False)
    assert not other.probing(watch=False)
    assert other.probing(watch=True)
    assert not one.probing(watch=False), "a watcher asks all machines: nobody else need"
    other.rest(watch=True)
    assert one.probing(watch=False)


def test_a_fork_does_not_keep_the_lock_of_a_parent_that_ended(boards):
    one, other = boards
    assert one.probing(watch=False)
    (to_child, child_end), (from_child, ready) = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        os.write(ready, b"x")  # after the hooks that a fork runs
        os.read(to_child, 1)
        os._exit(0)
    os.read(from_child, 1)
    one.rest(watch=False)
    free = other.probing(watch=False)
    os.write(child_end, b"x")
    os.waitpid(child, 0)
    for end in (to_child, child_end, from_child, ready):
        os.close(end)
    assert free


def test_metrics_show_who_is_down_and_for_how_long(boards):
    board = boards[0]
    board.mark(Down("a:1", time.time() - 30, time.time() + 9, "x", "refused"))
    board.mark(by_hand("b:2"))
    text = board_metrics(board, shards_of({"users": ["http://a:1", "http://b:2", "http://c:3"]}))
    assert 'drainctl_arb_down{machine="a:1",by="fault"} 1\n' in text
    assert 'drainctl_arb_down{machine="b:2",by="hand"} 1\n' in text
    assert 'drainctl_arb_down{machine="c:3",by="fault"} 0\n' in text
    assert 'drainctl_arb_down_seconds{machine="a:1"} 30' in text


def test_what_a_rollout_said_says_which(boards):
    one, other = boards
    one.mark(Down("a:1", 1.0, time.time() + 60, "ops@control", "deploy v2", by_hand=True, rollout="r7"))
    assert other.down()["a:1"].rollout == "r7"
    one.mark(fault_mark("a:1", "refused", 60))
    assert other.down()["a:1"].rollout == "r7"


def test_a_shared_board_tells_all_and_says_when_it_has(shared, common, until):
    one, other = shared
    one.mark(fault_mark("a:1", "refused", 60))
    assert "a:1" in one.down()
    assert one.written(10)
    assert "a:1" in common.marks
    until("the other machine knows", other.down)
    other.lift("a:1")
    assert not other.down()
    until("the first one knows", lambda: not one.down())


def test_a_store_that_is_away_stops_nobody_and_is_told_all_when_it_is_back(shared, common, until):
    one, other = shared
    other.mark(fault_mark("b:2", "refused", 60))
    until("both know", one.down)
    common.away = OSError("no route")
    until("it is away", lambda: one.trouble == "no route")
    one.mark(fault_mark("a:1", "refused", 60))
    one.mark(by_hand("c:3"))
    one.mark(fault_mark("c:3", "refused", 60))
    one.lift("b:2")
    assert sorted(one.down()) == ["a:1", "c:3"]
    assert not one.written(0.1)
    assert one.probing(watch=False), "each probes for itself"
    common.away = None
    assert one.written(10)
    until("the other knows", lambda: sorted(other.down()) == ["a:1", "c:3"])
    assert other.down()["c:3"].by_hand


def test_however_long_a_store_is_away_little_is_kept(shared, common):
    one, _ = shared
    common.away = OSError("no route")
    for at in range(50):
        one.mark(fault_mark("a:1", f"refused {at}", 60))
        one.lift("a:1")
    assert len(one._unwritten) == 2
    assert not one.down()


def test_one_process_of_all_machines_probes_and_a_watcher_goes_first(shared, until):
    one, other = shared
    until("one probes", lambda: one.probing(watch=False))
    assert not other.probing(watch=False)
    other.rest(watch=False)
    until("the other watches", lambda: other.probing(watch=True))
    until("one leaves it to the watcher", lambda: not one.probing(watch=False))
    other.rest(watch=True)
    until("one probes again", lambda: one.probing(watch=False))


def test_a_fork_looks_at_the_shared_board_for_itself(shared, common, until):
    one, other = shared
    until("one probes", lambda: one.probing(watch=False))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        common.marks = {"a:1": fault_mark("a:1", "refused", 60)}  # its own store: only that it looks counts
        common.lock = threading.Lock()
        deadline = time.monotonic() + 10
        while not one.down() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.write(write, b"1" if one.down() and not one._held else b"0")
        os._exit(0)
    os.waitpid(child, 0)
    told = os.read(read, 1)
    os.close(read)
    os.close(write)
    assert told == b"1"
    assert not other.down()


def test_a_board_that_all_have_forgotten_ends_its_thread(common, until):
    board = SharedBoard(common.shelf, every_s=0.02)
    thread = board._serving.thread
    del board
    until("its thread has ended", lambda: not thread.is_alive())


def test_boards_by_their_address(tmp_path):
    for address in (str(tmp_path / "board"), tmp_path / "board", f"file://{tmp_path}/board"):
        board = board_of(address)
        board.mark(fault_mark("a:1", "refused", 60))
        assert board.written(1)
        board.close()
    assert [path.name for path in tmp_path.iterdir()] == ["board"]
    assert stale_s("file:///x") < stale_s("etcd://h/x")
    for wrong, words in [("redis://h/x", "wants a path"), ("etcd://h:2379", "wants etcd://host:port/name")]:
        with pytest.raises(ValueError, match=words):
            board_of(wrong)
    assert shown("postgresql://me:word@h:5432/d?board=x") == "postgresql://me:***@h:5432/d?board=x"
    assert shown("/run/a:b@c") == "/run/a:b@c"
