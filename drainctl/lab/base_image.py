"""
`make base-image`: debian:bookworm-slim, also where no registry can be reached.

Pulled if possible. If not, debootstrap makes the same set of packages from this machine's own mirror. The
tarball is kept in the user's cache, for this machine alone: it names that mirror.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from drainctl.errors import DrainctlError, PreflightError
from drainctl.lab.programs import find_on_path, run

IMAGE = "debian:bookworm-slim"
PULL_S = 120.0
BUILD_S = 600.0


class Docker(Protocol):
    """`Engine.docker`."""

    def __call__(self, *words: str, limit_s: float = ...) -> str: ...


def bring(docker: Docker, tell: Callable[[str], None]) -> str:
    """IMAGE, which the engine then has. Raises: DrainctlError."""
    if _there(docker):
        return IMAGE
    tarball = cache() / f"{IMAGE.replace(':', '-')}.tar"
    if not tarball.exists():
        try:
            docker("pull", "--quiet", IMAGE, limit_s=PULL_S)
        except DrainctlError as error:
            tell(f"{IMAGE} cannot be pulled; building it with debootstrap ...")
            build(tarball, f"no registry: {error}")
        else:
            return IMAGE
    docker("import", "--change", 'CMD ["bash"]', str(tarball), IMAGE)
    return IMAGE


def cache() -> Path:
    """Folder of this user for what is made once per machine (XDG Base Directory Specification)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "drainctl"


def build(tarball: Path, why: str) -> None:
    """Write the tarball, by debootstrap. Raises: PreflightError, DrainctlError."""
    if os.geteuid() != 0:
        raise PreflightError(f"{IMAGE} is missing, and only root can build it ({why})")
    debootstrap = find_on_path("debootstrap", "debootstrap")
    tarball.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="base-", dir=tarball.parent) as scratch:
        root, new = Path(scratch) / "root", Path(scratch) / "new.tar"
        mirror, security = mirrors()
        _run(debootstrap, "--variant=minbase", "bookworm", str(root), mirror)
        _slim(root, mirror, security)
        _run("tar", "-C", str(root), "-cf", str(new), ".")
        new.rename(tarball)


def mirrors() -> tuple[str, str]:
    """
    Debian's archive and its security archive, as this machine's own apt names them.

    Raises: PreflightError where it names none that is reached by plain http.
    """
    sources = [
        *Path("/etc/apt/sources.list.d").glob("*.sources"),
        *Path("/etc/apt/sources.list.d").glob("*.list"),
    ]
    text = "\n".join(path.read_text() for path in [*sources, Path("/etc/apt/sources.list")] if path.exists())
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    named = re.findall(r"https?://\S*/debian(?:-security)?/?(?=\s|$)", "\n".join(lines))
    plain = [one.rstrip("/") for one in named if one.startswith("http:")]  # a minimal image has no CAs
    main = next((one for one in plain if one.endswith("/debian")), None)
    if main is None:
        raise PreflightError(
            f"{IMAGE} cannot be pulled, and apt's sources here name no Debian archive to build it from",
            hint=f"load it into the engine by hand: docker load, or docker tag … {IMAGE}",
        )
    return main, next((one for one in plain if one.endswith("-security")), f"{main}-security")


def _slim(root: Path, mirror: str, security: str) -> None:
    """What debootstrap leaves out (updates), and what an image need not carry."""
    suites = [(mirror, "bookworm"), (mirror, "bookworm-updates"), (security, "bookworm-security")]
    sources = "".join(f"deb {uri} {suite} main\n" for uri, suite in suites)
    (root / "etc/apt/sources.list").write_text(sources)
    for path in [*(root / "var/cache/apt/archives").glob("*.deb"), *(root / "var/lib/apt/lists").glob("*")]:
        path.unlink() if path.is_file() else shutil.rmtree(path)
    for name in ("usr/share/doc", "usr/share/man", "usr/share/locale"):
        shutil.rmtree(root / name, ignore_errors=True)
    # No service starts while a package is installed, as in Docker's own Debian images.
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)


def _run(*argv: str) -> None:
    done = run(argv, BUILD_S)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-4:])
        raise DrainctlError(f"{argv[0]} ended with {done.returncode} and said: {said}")


def _there(docker: Docker) -> bool:
    try:
        docker("image", "inspect", IMAGE)
    except DrainctlError:
        return False
    return True
