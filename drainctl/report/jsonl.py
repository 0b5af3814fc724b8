"""One event per line, for programs. The format is `event.schema.json` next to this file, version 1."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any, TextIO

from drainctl.journal.events import Event
from drainctl.report.text import rfc3339

VERSION = 1  # grows when a field changes its meaning or goes; new fields and new kinds may come at any time


class JsonReport:
    """Writes each event as one line of JSON to `stream` (default standard output), flushed at once."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream if stream is not None else sys.stdout

    def event(self, event: Event) -> None:
        self._stream.write(json.dumps(as_json(event), separators=(",", ":")) + "\n")
        self._stream.flush()

    def progress(self, text_by_node: Mapping[str, str]) -> None:
        """Says nothing: what is not in the journal is no event."""

    def close(self) -> None:
        self._stream.flush()


def as_json(event: Event) -> dict[str, Any]:
    """The event as JSON: `at` is RFC 3339 in UTC; `node` and `step` are null where it is about none."""
    return {
        "v": VERSION,
        "seq": event.seq,
        "at": rfc3339(event.at_s),
        "rollout": event.rollout,
        "kind": event.kind,
        "node": event.node,
        "step": event.step,
        "text": event.text,
        "data": dict(event.data),
    }
