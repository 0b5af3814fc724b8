"""Releases of the lab's app: sound ones, and ones that fail in a chosen way."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

APP = Path(__file__).with_name("app") / "app.py"

# What a release may be told, and what a sound one does.
SOUND: dict[str, Any] = {
    "start_s": 0.0,  # seconds that importing the app takes
    "fail_start": False,  # importing it raises
    "die_after_s": 0.0,  # seconds after which the app kills itself; 0: never
    "wrong_version": "",  # the version that it tells instead of its own
    "pages_500": False,  # every page answers 500; /healthz and /version stay well
    "log_posts": False,  # each POST is a line of srv/shared/posts as it begins: what ran twice is there twice
    "only_on": "",  # the node (web2) on which it misbehaves; "": on all of them
    "slow_factor": 0,  # each page takes this many times 10 ms longer
}


def make_release(folder: Path, release: str, **settings: Any) -> Path:
    """
    Write `folder`/`release`.tar.gz: app.py and a release.json with the settings (see SOUND).

    The same release and settings give the same bytes, so its sha256 stays the same too.
    Raises: TypeError for an unknown setting.
    """
    unknown = settings.keys() - SOUND.keys()
    if unknown:
        raise TypeError(f"unknown release setting {', '.join(sorted(unknown))}; known: {', '.join(SOUND)}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{release}.tar.gz"
    with path.open("wb") as file:
        file.write(packed({"app.py": APP.read_bytes(), "release.json": _described(release, settings)}))
    return path


def unpack(archive: Path, target: Path) -> None:
    """
    The files of a release that we made ourselves, so without a distrustful unpacker's checks; with the mark
    that drainctl leaves, so that it may be deployed again.
    """
    from hashlib import sha256

    mark = f"{target.name} {sha256(archive.read_bytes()).hexdigest()}\n"
    (target / ".drainctl-release").write_text(mark)
    with tarfile.open(archive) as tar:
        for entry in tar:
            content = tar.extractfile(entry)
            if content is not None:
                (target / entry.name).write_bytes(content.read())


def _described(release: str, settings: dict[str, Any]) -> bytes:
    return json.dumps({"id": release, **SOUND, **settings}, indent=2).encode() + b"\n"


def packed(files: dict[str, bytes]) -> bytes:
    """A tar.gz of these files; equal contents, equal bytes."""
    from gzip import GzipFile

    packed = io.BytesIO()
    # No time and no name in the gzip header, no times in the tar: equal contents, equal bytes.
    with GzipFile("", "wb", fileobj=packed, mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
