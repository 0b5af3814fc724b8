"""What `plan` and `deploy --plan` read and write beside the cluster: plan files, sums, the journal."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from drainctl import __version__
from drainctl.errors import ConfigError
from drainctl.journal.door import Store
from drainctl.journal.events import Event
from drainctl.model import Cluster
from drainctl.overview import open_rollout
from drainctl.rollout.estimate import LAST, tells
from drainctl.rollout.planfile import Document, Made, parse

LOOK_BACK = 20  # rollouts


def made_now(cluster: Cluster) -> Made:
    """Who makes a plan now, with the sha256 of the drainctl.yml that is there. Raises: ConfigError."""
    try:
        text = Path(cluster.file).read_bytes()
    except OSError as error:
        raise ConfigError(f"{cluster.file} cannot be read again: {error.strerror}") from error
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return Made(__version__, at, hashlib.sha256(text).hexdigest())


def absolute(source: str | None) -> str | None:
    """A path as it may be used from any folder; URLs and tags as they are."""
    there = source is not None and "://" not in source and os.path.exists(source)  # noqa: PTH110 - see below
    return os.path.abspath(source) if source is not None and there else source  # noqa: PTH100 - no link is followed


def past(store: Store, app: str, line: str | None) -> list[Sequence[Event]]:
    """The events of the last finished rollouts that tell how long another one takes."""
    found: list[Sequence[Event]] = []
    for rollout in store.rollouts(app, limit=LOOK_BACK):
        events = store.events(rollout)
        if tells(events, line):
            found.append(events)
        if len(found) == LAST:
            break
    return found


def unfinished(store: Store, app: str) -> list[str]:
    """Why the journal is against a new rollout: one runs, or was not finished."""
    state = open_rollout(store, app)
    if state is None:
        return []
    lease = store.held(app)
    if lease:
        return [f"rollout {lease.rollout} is run by {lease.holder} now"]
    why = state.ended or "its controller died"
    return [f"rollout {state.id} ({state.verb}) was not finished: {why}; resume or abort it"]


def read(file: str) -> Document:
    """A plan file. Raises: ConfigError."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {getattr(error, 'strerror', error)}") from error
    return parse(text, file)


def write(file: str, told: Document) -> None:
    """A plan file, whole or not at all. Raises: ConfigError."""
    beside = Path(f"{file}.{os.getpid()}.new")
    try:
        beside.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        beside.replace(file)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
