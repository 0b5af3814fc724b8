"""
Lines in collapsible sections, and a dotenv file, for GitLab CI.

Source: docs.gitlab.com, "Custom collapsible sections" (a section's name: letters, digits, `_`, `.`, `-`)
and "artifacts:reports:dotenv".
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TextIO

from drainctl.journal.events import Event
from drainctl.report.plain import PlainReport
from drainctl.report.story import Story, said

CLEAR = "\x1b[0K"


class GitlabReport:
    """
    Plain lines on `stream` (default standard output), a section per wave. Where $GITLAB_DOTENV names a
    file, rollout, outcome and exit code are written into it at the end, for `artifacts:reports:dotenv`.
    `past`: the rollout's events before this process, where it is resumed.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        verbose: bool = False,
        clock: Callable[[], float] = time.time,
        past: Iterable[Event] = (),
    ) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._plain = PlainReport(self._stream, verbose=verbose, clock=clock)
        self._environ = environ
        self._clock = clock
        self._story = Story(past)
        self._section: str | None = None
        self._heard = False

    def event(self, event: Event) -> None:
        self._heard = True
        self._story.add(event)
        if event.kind in {"wave.began", "rollout.turned", "proof", "rollout.ended"}:
            self._end_section()
        if event.kind == "wave.began":
            self._section = f"drainctl_wave_{self._story.wave}"
            self._stream.write(
                f"{CLEAR}section_start:{event.at_s:.0f}:{self._section}\r{CLEAR}{said(event)}\n"
            )
        self._plain.event(event)

    def progress(self, text_by_node: Mapping[str, str]) -> None:
        self._plain.progress(text_by_node)

    def close(self) -> None:
        """Ends the section and writes the dotenv file. Raises: OSError."""
        self._end_section()
        self._plain.close()
        if self._heard:  # else it did not begin: see `refused`
            story = self._story
            _dotenv(self._environ, story.rollout, story.outcome or "interrupted", story.exit)

    def _end_section(self) -> None:
        if self._section:
            self._stream.write(f"{CLEAR}section_end:{self._clock():.0f}:{self._section}\r{CLEAR}\n")
            self._section = None


def refused(code: int, *, began: bool, environ: Mapping[str, str] = os.environ) -> None:
    """
    Tells of an error that is no event: the outcome `refused` where no rollout `began`, else its exit code
    beside what the report wrote. Raises: OSError.
    """
    if not began:
        _dotenv(environ, "", "refused", code)
    elif path := environ.get("GITLAB_DOTENV"):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"DRAINCTL_EXIT={code}\n")  # of a name that is there twice the last value counts


def _dotenv(environ: Mapping[str, str], rollout: str, outcome: str, code: int | None) -> None:
    if path := environ.get("GITLAB_DOTENV"):
        end = "" if code is None else code
        lines = (f"ROLLOUT={rollout}", f"OUTCOME={outcome}", f"EXIT={end}")
        Path(path).write_text("".join(f"DRAINCTL_{line}\n" for line in lines), encoding="utf-8")
