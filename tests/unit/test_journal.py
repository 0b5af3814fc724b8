"""The journal in a file: what only a file has, and how a disk fails. The rest: tests/real/test_stores.py."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from drainctl.errors import ConfigError, JournalError, StoreAway
from drainctl.journal.open import open_store
from drainctl.journal.sqlite import MIGRATIONS, SqliteStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "state" / "drainctl" / "shop.db")
    yield opened
    opened.close()


@pytest.fixture
def small_disk(tmp_path: Path, need) -> Iterator[Path]:
    """A disk of 512 kB of its own."""
    mount = need("mount")
    folder = tmp_path / "disk"
    folder.mkdir()
    command = [mount, "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        need("the right to mount a tmpfs (root)")
    yield folder
    subprocess.run([need("umount"), str(folder)], check=True)


# ---------------------------------------------------------------- events


def test_events_and_pages_are_read_by_index(store: SqliteStore) -> None:
    asked: list[str] = []
    store._connection.set_trace_callback(asked.append)
    store.events("r1", after=7)
    store.latest("shop")
    store._connection.set_trace_callback(None)
    plans = [str(store._connection.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()) for sql in asked]
    assert len(plans) == 2
    assert "USING INDEX events_by_rollout (rollout=? AND seq>?)" in plans[0]
    assert "USING INDEX rollouts_by_cluster (cluster=? AND number<?)" in plans[1]
    assert "TEMP B-TREE" not in plans[0] + plans[1]


# ---------------------------------------------------------------- the file


def test_file_and_folders_are_for_their_owner_alone(store: SqliteStore) -> None:
    store.append("r1", "note")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in store.path.parent.iterdir()}
    assert modes == {"shop.db": 0o600, "shop.db-wal": 0o600, "shop.db-shm": 0o600}
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.path.parent.parent.stat().st_mode) == 0o700


def test_a_new_file_may_be_opened_by_many_at_once(tmp_path: Path) -> None:
    line = "import sys, pathlib; from drainctl.journal.sqlite import SqliteStore as S; "
    line += "s = S(pathlib.Path(sys.argv[1])); print(s.append('r1', 'note').seq); s.close()"
    command = [sys.executable, "-c", line, str(tmp_path / "j.db")]
    many = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert sorted(int(each.communicate(timeout=60)[0]) for each in many) == [1, 2, 3, 4, 5, 6]


def test_a_new_file_that_another_process_sets_up_is_waited_for(tmp_path: Path) -> None:
    other = sqlite3.connect(tmp_path / "j.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.2, other.execute, ["ROLLBACK"])
    timer.start()
    store = SqliteStore(tmp_path / "j.db")
    assert store.append("r1", "note").seq == 1
    timer.join()
    store.close()
    other.close()


def test_a_schema_from_the_future_is_refused(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "j.db").close()
    with sqlite3.connect(tmp_path / "j.db") as other:
        other.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    other.close()
    with pytest.raises(JournalError, match="has schema 2, this drainctl knows 1") as caught:
        SqliteStore(tmp_path / "j.db")
    assert caught.value.hint


def test_an_older_schema_is_taken_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteStore(tmp_path / "j.db")
    store.append("r1", "note")
    store.close()
    more = (*MIGRATIONS, ("CREATE TABLE later (x TEXT) STRICT", "INSERT INTO later VALUES ('here')"))
    monkeypatch.setattr("drainctl.journal.sqlite.MIGRATIONS", more)
    store = SqliteStore(tmp_path / "j.db")
    assert len(store.events("r1")) == 1
    store.close()
    with sqlite3.connect(tmp_path / "j.db") as other:
        assert other.execute("PRAGMA user_version").fetchone() == (2,)
        assert other.execute("SELECT x FROM later").fetchall() == [("here",)]
    other.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SqliteStore(tmp_path / "j.db").close()
    more = (*MIGRATIONS, ("CREATE TABLE later (x TEXT) STRICT", "INSERT INTO nowhere VALUES (1)"))
    monkeypatch.setattr("drainctl.journal.sqlite.MIGRATIONS", more)
    with pytest.raises(JournalError, match="no such table: nowhere"):
        SqliteStore(tmp_path / "j.db")
    with sqlite3.connect(tmp_path / "j.db") as other:
        assert other.execute("PRAGMA user_version").fetchone() == (1,)
        assert other.execute("SELECT count(*) FROM sqlite_master WHERE name = 'later'").fetchone() == (0,)
    other.close()


# ---------------------------------------------------------------- what fails


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    path.write_text("app: shop\n" * 200)
    with pytest.raises(JournalError, match=f"journal {path}: not a database") as caught:
        SqliteStore(path)
    assert "set the file aside" in str(caught.value.hint)
    assert path.read_text().startswith("app: shop")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "j.db"
    store = SqliteStore(path)
    for _ in range(300):
        store.append("r1", "note", text="x" * 200)
    store.close()
    with path.open("r+b") as file:
        for page in range(2, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    with pytest.raises(JournalError, match="the file is damaged"), closing(SqliteStore(path)) as damaged:
        damaged.events("r1")


def test_a_lock_that_is_not_let_go_is_named_with_its_time(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "j.db", busy_s=0.1)
    other = sqlite3.connect(tmp_path / "j.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreAway, match=r"locked by another process for 0\.1 s"):
        store.append("r1", "note")
    assert store.events("r1") == []
    other.execute("ROLLBACK")
    assert store.append("r1", "note").seq == 1
    other.close()
    store.close()


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="is a directory"):
        SqliteStore(tmp_path)


def test_a_full_disk_is_named_and_what_was_acknowledged_stays(small_disk: Path) -> None:
    store = SqliteStore(small_disk / "j.db")
    acknowledged: list[int] = []

    def fill() -> None:
        while len(acknowledged) < 1000:
            acknowledged.append(store.append("r1", "note", text="x" * 2000).seq)

    with pytest.raises(JournalError, match="the disk is full") as caught:
        fill()
    assert len(acknowledged) > 10
    assert "free some space" in str(caught.value.hint)
    assert [event.seq for event in store.events("r1")] == acknowledged
    store.close()
    again = SqliteStore(small_disk / "j.db")
    assert [event.seq for event in again.events("r1")] == acknowledged
    again.close()


def test_a_journal_on_a_disk_that_is_full_already_is_refused(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(b"x" * 600_000)
    with pytest.raises(JournalError, match=r"the disk is full|no space left on device") as caught:
        SqliteStore(small_disk / "j.db")
    assert "free some space" in str(caught.value.hint)


def test_a_read_only_disk_is_named(small_disk: Path, need) -> None:
    SqliteStore(small_disk / "j.db").close()
    subprocess.run([need("mount"), "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(JournalError, match="read-only file system") as caught:
        SqliteStore(small_disk / "j.db")
    assert "mounted for writing" in str(caught.value.hint)


def test_a_disk_that_turns_read_only_is_named(tmp_path: Path) -> None:
    # query_only makes SQLite refuse with the code of a read-only file, whoever runs this test.
    store = SqliteStore(tmp_path / "j.db")
    store._connection.execute("PRAGMA query_only = 1")
    with pytest.raises(JournalError, match="it is read-only"):
        store.append("r1", "note")
    store.close()


# ---------------------------------------------------------------- open_store


def test_open_store_takes_absolute_paths_and_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for url in (f"sqlite://{tmp_path}/a.db", f"sqlite:///{tmp_path}/b.db", "sqlite:///~/state/c.db"):
        open_store(url).close()
    assert [path.exists() for path in (tmp_path / "a.db", tmp_path / "b.db", tmp_path / "state/c.db")] == [
        True
    ] * 3


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://db/shop", "store mysql: is none that drainctl knows"),
        ("shop.db", "is none that drainctl knows"),
        ("sqlite:///", "names no file"),
        ("sqlite:///var/lib/", "names no file"),
        ("sqlite:///~nobody-of-that-name/x.db", "no such home folder"),
    ],
)
def test_open_store_refuses_what_it_cannot_open(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_store(url)
