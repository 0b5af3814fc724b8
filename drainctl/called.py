"""
Commands that are printed, as this drainctl was called: with `-c FILE` they work where they are read.

Every message says `drainctl VERB`. What goes to people passes through `as_called` once, at the edge.
"""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote

DEFAULT = "drainctl.yml"
# The verbs that read a cluster's file.
_VERBS = (
    *("plan", "deploy", "restart", "run", "rollback", "resume", "abort", "pause", "recover"),
    *("status", "drain", "restore", "history", "show", "doctor", "render"),
)
_COMMAND = re.compile(rf"\bdrainctl (?=(?:{'|'.join(_VERBS)})\b)")


def as_called(text: str, file: str) -> str:
    """The text, each command of drainctl in it with `-c file`, unless that is the file it reads anyway."""
    path, here = Path(file).resolve(), Path.cwd()
    if path == here / DEFAULT:
        return text
    named = quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
    return _COMMAND.sub(lambda _: f"drainctl -c {named} ", text)
