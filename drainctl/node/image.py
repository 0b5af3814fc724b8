"""
A release that is an image: what it is called, and what an archive of `docker save` holds.

Source: OCI Distribution Specification, "Pulling manifests" (a tag), and the image's tarball format of
`docker image save`: manifest.json lists images with their Config and RepoTags.
"""

from __future__ import annotations

import json
import re
import tarfile
import zlib
from pathlib import Path
from typing import Any

from drainctl.errors import ReleaseError
from drainctl.model import Release

TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
DIGEST = re.compile(r"[0-9a-f]{64}")


def prepare(
    repository: str,
    source: str | None,
    image: str | None,
    *,
    id: str | None,  # noqa: A002 - as `--id`
    sha256: str | None,
) -> Release:
    """
    The release that a command line names, checked before any node is touched.

    Args:
        repository: release.image of drainctl.yml.
        source: a tag, or the path of an archive of `docker save`.
        image: `REPOSITORY:TAG`, as `--image` has it; with an archive it says which of its images.
        id: the release's id; None takes the tag.
        sha256: the image's id, which every engine must then have.
    Raises: ReleaseError.
    """
    if sha256 is not None and not DIGEST.fullmatch(sha256.lower().removeprefix("sha256:")):
        raise ReleaseError(f"--sha256: found {sha256!r}, expected an image's id: 64 hexadecimal digits")
    tag = _tag(repository, image) if image else None
    archive = Path(source).absolute() if source and Path(source).is_file() else None
    if archive:
        held = _held(archive, str(source))
        tag = _chosen(repository, tag, held, str(source))
    elif source is not None:
        if tag is not None:
            raise ReleaseError(f"found {source!r} and --image, expected one of them: no file has that name")
        tag = source.removeprefix(f"{repository}:")
    if tag is None or not TAG.fullmatch(tag):
        raise ReleaseError(f"found {tag!r}, expected a tag of {repository}, or an archive of `docker save`")
    if id is not None and not TAG.fullmatch(id):
        raise ReleaseError(f"{id!r} cannot be an image's id: letters, digits and ._- only, at most 128")
    return Release(
        id or tag,
        archive=str(archive) if archive else None,
        sha256=sha256.lower().removeprefix("sha256:") if sha256 else None,
        size=archive.stat().st_size if archive else 0,
        image=f"{repository}:{tag}",
    )


def config_digest(archive: str, ref: str) -> str | None:
    """The id that an image of the archive has on most engines (`sha256:…`); None where it does not tell."""
    config = _held(Path(archive), archive).get(ref, "").removesuffix(".json").rpartition("/")[2]
    return f"sha256:{config}" if DIGEST.fullmatch(config) else None


def _tag(repository: str, image: str) -> str:
    name, colon, tag = image.rpartition(":")
    if not colon or "/" in tag:
        name, tag = image, "latest"
    if name != repository:
        raise ReleaseError(
            f"--image: found {image}, expected {repository}:TAG: release.image says so",
            hint="one cluster rolls the tags of one image; another image is another release.image",
        )
    return tag


def _chosen(repository: str, tag: str | None, held: dict[str, str], source: str) -> str:
    """The tag of the archive's image that is meant."""
    tags = [ref.rpartition(":")[2] for ref in held if ref.rpartition(":")[0] == repository]
    if tag is not None and tag in tags:
        return tag
    if tag is None and len(tags) == 1:
        return tags[0]
    wanted = f"{repository}:{tag}" if tag else f"one image of {repository}"
    raise ReleaseError(
        f"{source} holds {', '.join(held) or 'no image with a name'}, expected {wanted}",
        hint=f"--image {repository}:TAG says which" if tags and tag is None else None,
    )


def _held(archive: Path, source: str) -> dict[str, str]:
    """The archive's images by name, each with the member that is its configuration."""
    try:
        with tarfile.open(archive) as tar:
            member = tar.extractfile("manifest.json")
            told: Any = json.load(member) if member else None
        return {str(ref): str(each["Config"]) for each in told for ref in each["RepoTags"] or ()}
    except (KeyError, ValueError, TypeError) as error:
        raise ReleaseError(f"{source} is no archive of `docker save`: {error}") from error
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ReleaseError(f"{source} cannot be read: {error}") from error
