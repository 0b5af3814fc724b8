"""
Lines, groups, annotations, a step summary and outputs for GitHub Actions.

Source: docs.github.com, "Workflow commands for GitHub Actions": `%`, CR and LF of a value are written as
%25, %0D and %0A, in a property `:` and `,` as %3A and %2C too.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TextIO

from drainctl.journal.events import Event
from drainctl.report.markdown import refusal, summary
from drainctl.report.plain import PlainReport
from drainctl.report.story import Story, said
from drainctl.report.text import one_line

LEVELS = {"step.failed": "error", "rollout.turned": "warning", "step.escalated": "warning"}
LOUD_NOTES = {"balancer-changed", "re-nudged", "connect-failed"}


class GithubReport:
    """
    Plain lines on `stream` (default standard output, where the runner reads its commands), and more.
    `past`: the rollout's events before this process, where it is resumed.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        environ: Mapping[str, str] = os.environ,
        verbose: bool = False,
        past: Iterable[Event] = (),
    ) -> None:
        self._stream = stream if stream is not None else sys.stdout
        self._plain = PlainReport(self._stream, verbose=verbose)
        self._environ = environ
        self._story = Story(past)
        self._in_group = False
        self._heard = False
        self._closed = False

    def event(self, event: Event) -> None:
        self._heard = True
        self._story.add(event)
        if event.kind in {"wave.began", "rollout.turned", "proof", "rollout.ended"}:
            self._end_group()
        if event.kind == "wave.began":
            self._say(f"::group::{escaped(said(event))}")
            self._in_group = True
        self._plain.event(event)
        level = LEVELS.get(event.kind)
        if event.kind == "note" and event.data.get("what") in LOUD_NOTES:
            level = "warning"
        if event.kind == "rollout.ended" and event.data.get("exit"):
            level = "error"
        if level:
            title = " ".join(part for part in (event.node, event.step) if part) or event.kind
            self._say(annotation(level, title, said(event), event.data.get("hint")))

    def progress(self, text_by_node: Mapping[str, str]) -> None:
        self._plain.progress(text_by_node)

    def close(self) -> None:
        """Ends the group, and appends to $GITHUB_STEP_SUMMARY and $GITHUB_OUTPUT. Raises: OSError."""
        if self._closed:
            return
        self._closed = True
        self._end_group()
        self._plain.close()
        if not self._heard:  # it did not begin: see `refused`
            return
        story = self._story
        _append(self._environ, "GITHUB_STEP_SUMMARY", summary(story))
        end = "" if story.exit is None else story.exit
        outputs = f"rollout={story.rollout}\noutcome={story.outcome or 'interrupted'}\nexit={end}\n"
        _append(self._environ, "GITHUB_OUTPUT", outputs)

    def _end_group(self) -> None:
        if self._in_group:
            self._say("::endgroup::")
            self._in_group = False

    def _say(self, line: str) -> None:
        self._stream.write(f"{line}\n")


def refused(
    message: str,
    hint: str | None,
    code: int,
    *,
    began: bool,
    stream: TextIO | None = None,
    environ: Mapping[str, str] = os.environ,
) -> None:
    """
    Tells of an error that is no event: an annotation and the exit code, and, where no rollout `began`, the
    outcome `refused` and a summary. Raises: OSError.
    """
    out = stream if stream is not None else sys.stdout
    out.write(annotation("error", "drainctl", "\n".join(map(one_line, message.splitlines())), hint) + "\n")
    out.flush()
    if not began:
        _append(environ, "GITHUB_STEP_SUMMARY", refusal(message, hint, code))
        _append(environ, "GITHUB_OUTPUT", "rollout=\noutcome=refused\n")
    _append(environ, "GITHUB_OUTPUT", f"exit={code}\n")


def annotation(level: str, title: str, text: str, hint: str | None = None) -> str:
    """The workflow command that shows a text at the run's top: level is notice, warning or error."""
    text = f"{text}\nhint: {one_line(hint)}" if hint else text
    return f"::{level} title={escaped(title, in_property=True)}::{escaped(text)}"


def escaped(text: str, *, in_property: bool = False) -> str:
    """The text as a workflow command's value, or as one of its properties."""
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    return text.replace(":", "%3A").replace(",", "%2C") if in_property else text


def _append(environ: Mapping[str, str], variable: str, text: str) -> None:
    if path := environ.get(variable):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)
