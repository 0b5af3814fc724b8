"""
A release on the controller: what it is, what it is called, and whether it may be unpacked.

Taken are tar archives (plain, gz, bz2, xz, zst: told by their first bytes, not their name), directories,
and http(s) URLs with a sha256, which the nodes fetch by themselves. Nodes need a tar that reads gz: a bz2,
xz or zst archive is sent as plain tar (decompressing gives the same bytes everywhere, so the same sha256);
a directory is packed as gz level 1, with everything in it. What the archive holds is unpacked as it is: a
single top-level folder stays. Owners are dropped on the node, and modes go through umask 022.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from drainctl.errors import ReleaseError
from drainctl.model import Release
from drainctl.node.shell import SAFE_ID

CHUNK = 1 << 20
SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar")
MOST_LINKS = 40  # as Linux (path_resolution(7))


def prepare(source: str, *, id: str | None, into: Path, sha256: str | None = None) -> Release:  # noqa: A002 - as `--id`
    """
    The release that `source` is, checked before any node is touched.

    Args:
        source: path of an archive or a directory, or a URL.
        id: its id; None takes the file's name without its suffix.
        into: an existing folder for the archive that is made of a directory, or of one that is decompressed.
        sha256: what the archive must have; needed with a URL.
    Raises: ReleaseError (no archive, hostile, cut short, changed while it was read, no usable id).
    """
    id_ = id or _name(source)
    if not SAFE_ID.fullmatch(id_):
        raise ReleaseError(
            f"{id_!r} cannot be a release's id: letters, digits and ._+- only, at most 128, no dot first",
            hint="give one with --id",
        )
    if source.startswith(("http://", "https://")):
        if not sha256:
            raise ReleaseError(f"{source}: nodes fetch a URL by themselves, so its sha256 must be given")
        return Release(id_, sha256=sha256.lower(), url=source)
    with _reading(source):
        path = Path(source).absolute()  # a resume may come from another folder
        if not path.exists():
            raise ReleaseError(f"{source} is not there")
        if sha256 and not path.is_dir():
            _same(source, _sha256(path), sha256.lower())
        archive = _as_tar(path, into / f"{id_}.tar")
        return Release(id_, str(archive), _examine(archive, source), size=archive.stat().st_size)


def _name(source: str) -> str:
    from urllib.parse import urlsplit

    name = posixpath.basename(urlsplit(source).path if "://" in source else os.path.abspath(source))  # noqa: PTH100 - "." has a name as well
    return next((name.removesuffix(end) for end in SUFFIXES if name.endswith(end)), name)


@contextmanager
def _reading(source: str) -> Iterator[None]:
    """What Python raises for a bad archive, in one word of ours."""
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise ReleaseError(f"{source} is no whole tar archive: {error}") from error
    except OSError as error:
        raise ReleaseError(f"{source} cannot be read: {error}") from error


# ---------------------------------------------------------------- into a tar that every node reads


def _as_tar(path: Path, made: Path) -> Path:
    if path.is_dir():
        _pack(path, made)
        return made
    with path.open("rb") as file:
        head = file.read(265)
        file.seek(0)
        if head.startswith(b"\x1f\x8b") or head[257:262] == b"ustar":
            return path
        opener = _decompressor(head)
        if not opener:
            raise ReleaseError(f"{path} is no tar archive (plain, gz, bz2, xz or zst)")
        with opener(file) as plain, made.open("wb") as out:
            while chunk := _decompressed(plain, path):
                out.write(chunk)
    return made


def _decompressor(head: bytes) -> Callable[[IO[bytes]], IO[bytes]] | None:
    if head.startswith(b"\xfd7zXZ\x00"):
        import lzma

        return lzma.open
    if head.startswith(b"BZh"):
        import bz2

        return bz2.open
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        return lambda file: zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
    return None


def _decompressed(plain: IO[bytes], path: Path) -> bytes:
    try:
        return plain.read(CHUNK)
    except OSError:
        raise
    except Exception as error:  # each library has its own
        raise ReleaseError(f"{path} cannot be decompressed: {error}") from error


def _pack(folder: Path, made: Path) -> None:
    """The same files with the same times give the same bytes."""
    import gzip

    with (
        made.open("wb") as out,
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=out, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for path in sorted(folder.rglob("*")):
            member = tar.gettarinfo(path, path.relative_to(folder).as_posix())
            if member is None:
                raise ReleaseError(f"{path} is neither file, folder nor link")
            member.uid = member.gid = 0
            member.uname = member.gname = ""
            member.mtime = int(member.mtime)
            if not member.isreg():
                tar.addfile(member)
                continue
            with path.open("rb") as file:
                before = os.fstat(file.fileno())
                tar.addfile(member, file)
                after = path.stat()
            if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
                raise ReleaseError(f"{path} changed while it was packed")


# ---------------------------------------------------------------- may it be unpacked?


class _Hashing:
    """A file that is hashed as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.sha256.update(data)
        return data


def _examine(archive: Path, source: str) -> str:
    """The sha256, after a look at every member; one pass. Raises: ReleaseError, and what tarfile raises."""
    import gzip

    with archive.open("rb") as file:
        before = os.fstat(file.fileno())
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        hashing: Any = _Hashing(file)
        plain: Any = gzip.GzipFile(fileobj=hashing) if zipped else hashing
        _judge(plain, source)
        while plain.read(CHUNK) or hashing.read(CHUNK):
            pass
        after = archive.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ReleaseError(f"{source} changed while it was read")
    return str(hashing.sha256.hexdigest())


def _judge(plain: IO[bytes], source: str) -> None:
    links: dict[str, str] = {}
    count = 0
    with tarfile.open(fileobj=plain, mode="r|") as tar:
        for member in tar:
            count += 1
            why = _hostile(member)
            if why:
                raise ReleaseError(f"{source}: {member.name!r} {why}; nothing was unpacked")
            if member.issym():
                links[posixpath.normpath(member.name)] = member.linkname
    if not count:
        raise ReleaseError(f"{source} holds no files")
    for name, target in links.items():
        if target.startswith("/") or not _stays_inside(name, links):
            raise ReleaseError(
                f"{source}: {name!r} is a link that leaves the release, to {target!r}; nothing was unpacked",
                hint="`tar -h` packs what a link points to; paths of a node belong into release.shared",
            )


def _hostile(member: tarfile.TarInfo) -> str | None:
    """Why this member may not be unpacked, by itself."""
    names = [member.name, member.linkname] if member.islnk() else [member.name]
    if any(name.startswith("/") or ".." in name.split("/") for name in names):
        return "is, or links to, a path outside the release"
    if not (member.isfile() or member.isdir() or member.issym() or member.islnk()):
        return "is a device, pipe or other special file"
    if member.isfile() and member.mode & 0o6000:
        return f"is set-user-id or set-group-id (mode {member.mode:04o})"
    if any(char < " " or char == "\x7f" for char in member.name + member.linkname):
        return "has a line break or control character in its name"
    return None


def _stays_inside(name: str, links: dict[str, str]) -> bool:
    """Follows a link as the kernel does, other links on its way included; a circle stays inside."""
    at: list[str] = []
    ahead = name.split("/")[::-1]
    followed = 0
    while ahead and followed <= MOST_LINKS:
        part = ahead.pop()
        if part == "..":
            if not at:
                return False
            at.pop()
        elif part not in ("", "."):
            target = links.get("/".join([*at, part]))
            if target is None:
                at.append(part)
            else:
                followed += 1
                ahead += target.split("/")[::-1]
                if target.startswith("/"):
                    return False
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _same(source: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise ReleaseError(f"{source} has sha256 {found}, not {wanted}")
