"""Releases that fail, each in its own way; a fault of this kind only writes the archive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from drainctl.lab.cluster import Lab
from drainctl.lab.faults.door import Fault

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "release-no-start": ("does not start", {"fail_start": True}),
    "release-slow-start": ("takes 5 s to start", {"start_s": 5.0}),
    "release-dies": ("starts, and dies 3 s later", {"die_after_s": 3.0}),
    "release-wrong-version": ("says that it is another release", {"wrong_version": "v0"}),
    "release-pages-500": ("answers 500 on every page, and 200 on /healthz", {"pages_500": True}),
    "release-slow": ("takes 0.1 s longer for every page", {"slow_factor": 10}),
    "release-one-node": ("does not start on web2, only there", {"fail_start": True, "only_on": "web2"}),
}


def _written(settings: dict[str, Any]) -> Callable[[Lab, str], str]:
    def begin(lab: Lab, release: str) -> str:
        return str(lab.release(release, **settings))

    return begin


def _gone(lab: Lab, release: str) -> None:
    (lab.folder / "releases" / f"{release}.tar.gz").unlink(missing_ok=True)


FAULTS = tuple(
    Fault(name, "release", f"write the archive of one that {does}", _written(settings), _gone)
    for name, (does, settings) in WAYS.items()
)
