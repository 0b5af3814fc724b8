"""A release before it is sent anywhere: every kind of archive, and every kind that is refused."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import socket
import tarfile
from pathlib import Path

import pytest
import zstandard

from drainctl.errors import ReleaseError
from drainctl.node.archive import prepare

BODY = os.urandom(3000)


def packed(*members: tarfile.TarInfo | str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for member in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            if info.isreg():
                info.size = len(BODY)
            tar.addfile(info, io.BytesIO(BODY))
    return out.getvalue()


def special(name: str, kind: bytes, target: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, mode
    return info


def names(path: str) -> list[str]:
    with tarfile.open(path) as tar:
        return sorted(tar.getnames())


PLAIN = packed("app/main.py", "README")
KINDS = {
    "tar": PLAIN,
    "tar.gz": gzip.compress(PLAIN),
    "tgz": gzip.compress(PLAIN),
    "tar.bz2": bz2.compress(PLAIN),
    "tar.xz": lzma.compress(PLAIN),
    "tar.zst": zstandard.compress(PLAIN[:2000]) + zstandard.compress(PLAIN[2000:]),
}


@pytest.mark.parametrize("suffix", KINDS)
def test_each_kind_is_told_by_its_bytes_and_named_without_its_suffix(tmp_path, suffix):
    source = tmp_path / f"shop-1.2.{suffix}"
    source.write_bytes(KINDS[suffix])
    into = tmp_path / "into"
    into.mkdir()
    release = prepare(str(source), id=None, into=into)
    assert release.id == "shop-1.2"
    sent = Path(release.archive).read_bytes()
    assert release.sha256 == hashlib.sha256(sent).hexdigest()
    assert release.size == len(sent)
    assert names(release.archive) == ["README", "app/main.py"]
    assert (sent == PLAIN) == (suffix not in {"tar.gz", "tgz"})  # a node's tar reads plain and gz
    misnamed = tmp_path / "release.bin"
    misnamed.write_bytes(KINDS[suffix])
    assert prepare(str(misnamed), id="x", into=into).sha256 == release.sha256


def test_a_directory_is_packed_whole_and_the_same_way_twice(tmp_path):
    folder = tmp_path / "shop"
    (folder / "app" / "empty").mkdir(parents=True)
    (folder / "app" / "main.py").write_bytes(BODY)
    (folder / "run").symlink_to("app/main.py")
    (folder / ".hidden").write_text("x")
    releases = []
    for name in ("one", "two"):
        into = tmp_path / name
        into.mkdir()
        releases.append(prepare(str(folder), id=None, into=into))
    assert releases[0].id == "shop"
    assert releases[0].sha256 == releases[1].sha256
    assert names(releases[0].archive) == [".hidden", "app", "app/empty", "app/main.py", "run"]


@pytest.mark.parametrize(
    ("member", "why"),
    [
        ("/etc/cron.d/x", "outside the release"),
        ("../x", "outside the release"),
        ("app/../../x", "outside the release"),
        (special("l", tarfile.SYMTYPE, "/etc"), "leaves the release"),
        (special("l", tarfile.SYMTYPE, "../x"), "leaves the release"),
        (special("app/l", tarfile.SYMTYPE, "../../x"), "leaves the release"),
        (special("h", tarfile.LNKTYPE, "../x"), "outside the release"),
        (special("h", tarfile.LNKTYPE, "/etc/passwd"), "outside the release"),
        (special("dev", tarfile.CHRTYPE), "special file"),
        (special("dev", tarfile.BLKTYPE), "special file"),
        (special("pipe", tarfile.FIFOTYPE), "special file"),
        (special("su", tarfile.REGTYPE, mode=0o4755), "set-user-id"),
        (special("sg", tarfile.REGTYPE, mode=0o2755), "set-group-id"),
        ("a\nb", "line break"),
    ],
    ids=lambda value: getattr(value, "name", str(value)),  # the default repr holds an address
)
def test_hostile_members_are_refused_by_name(tmp_path, member, why):
    source = tmp_path / "r.tar"
    source.write_bytes(packed("good", member))
    with pytest.raises(ReleaseError, match=why) as caught:
        prepare(str(source), id=None, into=tmp_path)
    assert repr(member if isinstance(member, str) else member.name) in str(caught.value)


def test_a_link_that_leaves_only_through_another_link_is_refused(tmp_path):
    here = special("here", tarfile.SYMTYPE, ".")
    source = tmp_path / "r.tar"
    source.write_bytes(packed(special("out", tarfile.SYMTYPE, "here/../x"), here))
    with pytest.raises(ReleaseError, match="'out' is a link that leaves the release"):
        prepare(str(source), id=None, into=tmp_path)


def test_links_that_stay_inside_are_fine_circles_too(tmp_path):
    source = tmp_path / "r.tar"
    source.write_bytes(
        packed(
            "app/main.py",
            special("app/l", tarfile.SYMTYPE, "../app/main.py"),
            special("h", tarfile.LNKTYPE, "app/main.py"),
            special("a", tarfile.SYMTYPE, "b"),
            special("b", tarfile.SYMTYPE, "a"),
            special("shared-folder", tarfile.DIRTYPE, mode=0o2775),
        )
    )
    assert prepare(str(source), id=None, into=tmp_path).id == "r"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no tar archive"),
        (b"PK\x03\x04 a zip file", "no tar archive"),
        (packed(), "no tar archive"),
        (gzip.compress(packed()), "holds no files"),
        (KINDS["tar.gz"][:-20], "no whole tar archive|cannot be read"),
        (KINDS["tar.xz"][:-20], "cannot be decompressed"),
        (PLAIN[:1200], "no whole tar archive"),
        (KINDS["tar.gz"][:-8] + b"\0" * 8, "cannot be read: CRC"),
        (zstandard.compress(PLAIN)[:-9], "no whole tar archive|cannot be decompressed"),
        (gzip.compress(b"not a tar at all" * 100), "no whole tar archive"),
    ],
    ids=[
        "empty",
        "zip",
        "no-members",
        "gz-no-members",
        "gz-cut",
        "xz-cut",
        "tar-cut",
        "crc",
        "zst-cut",
        "no-tar",
    ],
)
def test_what_is_no_whole_archive_is_refused(tmp_path, data, why):
    source = tmp_path / "r.tar"
    source.write_bytes(data)
    with pytest.raises(ReleaseError, match=why):
        prepare(str(source), id=None, into=tmp_path)


def test_an_archive_is_told_from_its_sha256(tmp_path):
    source = tmp_path / "r.tar.xz"
    source.write_bytes(KINDS["tar.xz"])
    right = hashlib.sha256(KINDS["tar.xz"]).hexdigest()
    assert prepare(str(source), id=None, into=tmp_path, sha256=right.upper()).id == "r"
    with pytest.raises(ReleaseError, match=f"has sha256 {right}, not 00"):
        prepare(str(source), id=None, into=tmp_path, sha256="00" * 32)


def test_an_archive_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    source = tmp_path / "r.tar"
    source.write_bytes(PLAIN)
    judge = __import__("drainctl.node.archive", fromlist=["_judge"])._judge

    def meanwhile(plain, name):
        judge(plain, name)
        with source.open("ab") as file:
            file.write(b"more")

    monkeypatch.setattr("drainctl.node.archive._judge", meanwhile)
    with pytest.raises(ReleaseError, match="changed while it was read"):
        prepare(str(source), id=None, into=tmp_path)


def test_a_socket_in_a_directory_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "shop"
    folder.mkdir()
    monkeypatch.chdir(folder)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("s")
        with pytest.raises(ReleaseError, match="neither file, folder nor link"):
            prepare(".", id=None, into=tmp_path)


@pytest.mark.parametrize("bad", ["..", "a/b", ".git", "a b", ""])
def test_an_id_is_a_safe_name(tmp_path, bad):
    source = tmp_path / (bad.replace("/", "") or ".tar")
    with pytest.raises(ReleaseError, match="cannot be a release's id"):
        prepare(str(source), id=bad or None, into=tmp_path)


def test_nodes_fetch_a_url_and_need_its_sha256(tmp_path):
    url = "https://example.org/builds/shop-7.tar.gz?token=x"
    release = prepare(url, id=None, into=tmp_path, sha256="AB" * 32)
    assert (release.id, release.url, release.archive, release.sha256) == ("shop-7", url, None, "ab" * 32)
    with pytest.raises(ReleaseError, match="sha256 must be given"):
        prepare(url, id=None, into=tmp_path)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(ReleaseError, match="is not there"):
        prepare(str(tmp_path / "nothing.tar"), id=None, into=tmp_path)
