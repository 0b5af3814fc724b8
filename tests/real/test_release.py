"""Releases on a node: staged, switched, pruned, or refused."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import subprocess
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from drainctl.errors import CommandFailed, CommandTimedOut, ReleaseError
from drainctl.model import (
    Disk,
    Release,
)
from drainctl.node import shell
from drainctl.node.archive import prepare
from tests.conftest import need
from tests.real.node_kit import LIMIT_S, a_shop, a_transport, serving  # noqa: F401 - fixtures

pytestmark = pytest.mark.real


def test_an_empty_node_has_nothing(shop):
    assert shop.host().disk() == Disk()


def test_stage_switch_and_look(shop):
    host = shop.host()
    for id_ in ("r1", "r2"):
        assert host.stage(shop.release(id_)) == "staged"
    host.switch("r1")
    assert host.disk() == Disk("r1", ("r1", "r2"))
    host.switch("r2")
    host.switch("r2")
    assert host.disk().current == "r2"
    assert (shop.root / "current" / "app.py").read_text() == "r2"
    assert str((shop.root / "current").readlink()) == "releases/r2"
    assert sorted(path.name for path in shop.root.iterdir()) == ["current", "releases", "shared"]


def test_the_same_release_twice_is_there_already_and_another_of_its_name_is_refused(shop):
    host, release = shop.host(), shop.release("r1")
    assert host.stage(release) == "staged"
    before = (shop.root / "releases" / "r1").stat().st_ino
    assert host.stage(release) == "already there"
    other = shop.release("r1", more="x")
    with pytest.raises(CommandFailed, match=f"with sha256 {release.sha256}, not {other.sha256}") as caught:
        host.stage(other)
    assert "--id" in caught.value.hint
    assert caught.value.node == "web1"
    assert (shop.root / "releases" / "r1").stat().st_ino == before


def test_a_release_of_another_tool_is_not_overwritten(shop):
    (shop.root / "releases" / "r1").mkdir(parents=True)
    with pytest.raises(CommandFailed, match="is there with sha256 unknown"):
        shop.host().stage(shop.release("r1"))


@pytest.mark.parametrize("kind", ["directory", "tar", "tar.bz2", "tar.xz", "tar.zst"])
def test_every_kind_of_release_arrives(shop, kind):
    folder = shop.folder / "built"
    (folder / "app").mkdir(parents=True)
    (folder / "app" / "main.py").write_text("print()")
    (folder / "app" / "main.py").chmod(0o755)
    (folder / "run").symlink_to("app/main.py")
    source = folder
    if kind != "directory":
        need("zstd" if kind == "tar.zst" else "tar")
        source = shop.folder / f"r.{kind}"
        subprocess.run(["tar", "-caf", str(source), "-C", str(folder), "."], check=True, timeout=30)
    release = prepare(str(source), id="r1", into=shop.folder)
    assert shop.host().stage(release) == "staged"
    arrived = shop.root / "releases" / "r1"
    assert (arrived / "run").read_text() == "print()"
    assert (arrived / "app" / "main.py").stat().st_mode & 0o777 == 0o755
    assert (arrived / ".drainctl-release").read_text() == f"r1 {release.sha256}\n"


def test_shared_paths_take_the_place_of_the_releases_own(shop):
    shared = shop.root / "shared"
    (shared / "config").mkdir(parents=True)
    (shared / ".env").write_text("secret")
    (shared / "config" / "site.py").write_text("here")
    host = shop.host(shared=["media/", ".env", "config/site.py", "var/log/"])
    host.stage(shop.release("r1", **{".env": "default", "media/logo": "x", "config/other": "y"}))
    arrived = shop.root / "releases" / "r1"
    assert (arrived / ".env").read_text() == "secret"
    assert (arrived / "config" / "site.py").read_text() == "here"
    assert (arrived / "config" / "other").read_text() == "y"
    assert str((arrived / "media").readlink()) == f"{shared}/media"
    assert list((arrived / "media").iterdir()) == []
    assert (arrived / "var" / "log").is_dir()


def test_a_shared_file_that_is_missing_is_told_before_anything_is_sent(shop):
    with pytest.raises(CommandFailed, match=r"shared/\.env is not there") as caught:
        shop.host(shared=[".env"]).stage(shop.release("r1"))
    assert "release.shared" in caught.value.hint
    assert shop.below_releases() == []


def test_what_arrives_changed_is_not_unpacked(shop):
    release = shop.release("r1")
    with Path(release.archive).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(CommandFailed, match=f"sha256 of what arrived is .*, not {release.sha256}"):
        shop.host().stage(release)
    assert shop.below_releases() == []


def test_an_archive_that_is_gone_is_told(shop):
    release = shop.release("r1")._replace(archive=str(shop.folder / "gone"))
    with pytest.raises(ReleaseError, match="cannot be read"):
        shop.host().stage(release)


def test_a_half_written_release_of_a_crash_is_put_away_and_a_living_one_is_not(shop):
    releases = shop.root / "releases"
    dead = subprocess.Popen(["true"])
    dead.wait()
    living = releases / f".r1.{os.getpid()}.partial"
    for path in (releases / f".r1.{dead.pid}.partial", living, releases / f".r2.{dead.pid}.partial"):
        path.mkdir(parents=True)
        (path / "half").write_text("x")
    (releases / f".r1.{dead.pid}.archive").write_text("x")
    assert shop.host().disk() == Disk()
    shop.host().stage(shop.release("r1"))
    assert shop.below_releases() == [living.name, f".r2.{dead.pid}.partial", "r1"]


def test_a_stage_that_is_killed_leaves_no_release(shop, transport):
    release = shop.release("r1")
    line = shell.receive(str(shop.root), "r1", release.sha256)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as never_ending, pytest.raises(CommandTimedOut):
        transport.run(line, limit_s=0.5, stdin=_Slow(never_ending, writing))
    assert shop.host().disk() == Disk()
    assert shop.host().stage(release) == "staged"
    assert shop.below_releases() == ["r1"]


class _Slow:
    """A file that gives a byte for each read, for ever."""

    def __init__(self, file: io.BufferedReader, writing: int) -> None:
        self._file, self._writing = file, writing
        self._reads = 0

    def read(self, _size: int) -> bytes:
        self._reads += 1
        if self._reads > 1000:
            os.close(self._writing)
            return b""
        os.write(self._writing, b"x")
        time.sleep(0.01)  # the slowness is the point
        return self._file.read(1)


def test_a_full_disk_is_said_and_leaves_nothing(shop):
    root = shop.folder / "small"
    root.mkdir()
    with small_disk(root):
        release = shop.release("r1", big="".join(map(chr, range(32, 127))) * 30_000)
        with pytest.raises(
            CommandFailed, match=r"the disk is full: tar: .*; what was written of it is removed"
        ) as caught:
            shop.host(root=root).stage(release)
        assert "release.keep" in caught.value.hint
        assert list((root / "releases").iterdir()) == []
        assert shop.host(root=root).stage(shop.release("r2")) == "staged"


@contextlib.contextmanager
def small_disk(folder: Path):
    """One megabyte; mounting is root's."""
    need("mount")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode:
        need("a file system that may be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_switch_refuses_what_is_not_there_and_a_current_that_is_no_link(shop):
    host = shop.host()
    host.stage(shop.release("r1"))
    with pytest.raises(CommandFailed, match="releases/r9 is not there"):
        host.switch("r9")
    (shop.root / "current").mkdir()
    with pytest.raises(CommandFailed, match="current is not a link"):
        host.switch("r1")
    assert (shop.root / "current").is_dir()
    assert host.disk().current is None


def test_readers_of_current_never_find_it_missing(shop):
    host = shop.host()
    for id_ in ("r1", "r2"):
        host.stage(shop.release(id_))
    host.switch("r1")
    missing, stop = [], threading.Event()

    def read() -> None:
        while not stop.is_set():
            if (shop.root / "current" / "app.py").read_text() not in ("r1", "r2"):
                missing.append(1)

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(20):
        host.switch("r2")
        host.switch("r1")
    stop.set()
    reader.join()
    assert missing == []


@pytest.mark.parametrize(
    ("live", "keep", "protect", "deleted"),
    [
        ("r5", 5, (), ()),
        ("r5", 2, (), ("r1", "r2", "r3")),
        ("r5", 1, (), ("r1", "r2", "r3")),  # r4 was live before
        ("r5", 0, (), ("r1", "r2", "r3")),
        ("r2", 1, (), ("r3", "r4")),
        ("r2", 3, (), ()),
        ("r5", 1, ("r1", "r3"), ("r2",)),
        (None, 3, (), ("r1", "r2")),
    ],
)
def test_prune_spares_the_live_one_the_one_before_and_the_protected(shop, live, keep, protect, deleted):
    for number in range(1, 6):
        folder = shop.root / "releases" / f"r{number}"
        folder.mkdir(parents=True)
        (folder / "file").write_text("x")
        os.utime(folder, (1000 + number, 1000 + number))
    if live:
        (shop.root / "current").symlink_to(f"{shop.root}/releases/{live}")
    assert shop.host().prune(keep, protect) == deleted
    left = [f"r{number}" for number in range(1, 6) if f"r{number}" not in deleted]
    assert shop.below_releases() == left
    assert shop.host().disk() == Disk(live, tuple(left))


def test_the_order_of_releases_is_that_of_staging_not_of_their_names(shop):
    host = shop.host()
    for id_ in ("b", "c", "a"):
        host.stage(shop.release(id_))
    (shop.root / "releases" / "b" / "cache").mkdir()  # a running app writes into its folder
    assert host.disk().releases == ("b", "c", "a")


def test_a_release_that_is_already_on_the_node_needs_no_archive(shop):
    host = shop.host()
    host.stage(shop.release("r1"))
    assert host.stage(Release("r1")) == "already there"
    with pytest.raises(CommandFailed, match="release r9 is not there"):
        host.stage(Release("r9"))


@pytest.fixture(name="served")
def a_web_server(tmp_path):
    class Files(BaseHTTPRequestHandler):
        def log_message(self, *_args) -> None:
            pass

        def do_GET(self) -> None:
            path = tmp_path / self.path.lstrip("/")
            body = path.read_bytes() if path.is_file() else b""
            self.send_response(200 if path.is_file() else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Files) as url:
        yield url


@pytest.mark.parametrize("tool", ["curl", "wget"])
def test_a_node_fetches_a_url_by_itself(shop, served, tool):
    need(tool)
    release = shop.release("r1")
    line = shell.pull(str(shop.root), "r1", f"{served}/r1.tar.gz", release.sha256)
    done = shop.transport.run(
        f"{without('curl' if tool == 'wget' else 'wget', shop.folder)}{line}", limit_s=LIMIT_S
    )
    assert (done.code, done.out) == (0, "staged\n"), done.err
    assert (shop.root / "releases" / "r1" / "app.py").read_text() == "r1"


def without(program: str, folder: Path) -> str:
    """A PATH of everything but one program."""
    binaries = folder / "bin"
    binaries.mkdir(exist_ok=True)
    for source in ("/usr/bin", "/bin"):
        for path in Path(source).iterdir():
            if path.name != program and not (binaries / path.name).exists():
                (binaries / path.name).symlink_to(path)
    return f"PATH={binaries}\n"


def test_a_url_through_the_host_and_its_failures(shop, served):
    release = shop.release("r1")
    host = shop.host()
    from_web = Release("r1", sha256=release.sha256, url=f"{served}/r1.tar.gz")
    assert host.stage(from_web) == "staged"
    assert host.stage(from_web) == "already there"
    with pytest.raises(CommandFailed, match="404"):
        host.stage(from_web._replace(id="r2", url=f"{served}/nothing.tar.gz"))
    with pytest.raises(CommandFailed, match="sha256 of what arrived is"):
        host.stage(from_web._replace(id="r3", sha256="00" * 32))
    with pytest.raises(CommandFailed):
        host.stage(from_web._replace(id="r4", url=f"file://{shop.folder}/r1.tar.gz"))
    assert shop.below_releases() == ["r1"]


def test_a_hostile_archive_from_a_url_is_refused_on_the_node(shop, served):
    hostile = shop.folder / "bad.tar"
    with tarfile.open(hostile, "w") as tar:
        tar.addfile(tarfile.TarInfo("good"))
        tar.addfile(tarfile.TarInfo("app/../../escaped"))
    sha256 = hashlib.sha256(hostile.read_bytes()).hexdigest()
    with pytest.raises(CommandFailed, match=r"(?s)escaped.*outside the release"):
        shop.host().stage(Release("bad", sha256=sha256, url=f"{served}/bad.tar"))
    assert shop.below_releases() == []
