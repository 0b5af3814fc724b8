"""
The rollout as JUnit XML: a suite per node's way, a case per step. CI systems show it as tests.

A step that was not over when the rollout ended is an error; a node that was not reached is skipped. Every
text goes through `one_line`, since XML 1.0 (section 2.2) cannot hold control characters and half surrogate
pairs, not even escaped.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from drainctl.journal.events import Event
from drainctl.report.story import Journey, StepRun, Story
from drainctl.report.text import one_line, rfc3339

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

BAD_ENDS = {"failed", "restored", "put-back"}


class JunitReport:
    """
    Writes `path` when it is closed, complete or not at all.

    Args:
        past: the rollout's events before this process, where it is resumed.
    """

    def __init__(self, path: Path, past: Iterable[Event] = ()) -> None:
        self._path = path
        self._story = Story(past)

    def event(self, event: Event) -> None:
        self._story.add(event)

    def progress(self, text_by_node: Mapping[str, str]) -> None:
        """Says nothing: only what is over is a test."""

    def close(self) -> None:
        """Writes the file, again at each call. Raises: OSError."""
        _write(self._path, suites(self._story))


def refused(path: Path, message: str, hint: str | None, code: int) -> None:
    """Writes the report of a rollout that did not begin: one case, which is an error. Raises: OSError."""
    from xml.etree.ElementTree import Element, SubElement

    counts = {"tests": "1", "failures": "0", "errors": "1", "skipped": "0", "time": "0.000"}
    total = Element("testsuites", {"name": "drainctl", **counts})
    suite = SubElement(total, "testsuite", {"name": "drainctl", **counts})
    case = SubElement(suite, "testcase", name="begin", classname="drainctl", time="0.000")
    first, *rest = [one_line(line) for line in message.splitlines()] or [""]
    _mark(case, "error", f"refused (exit {code}): {first}", hint=one_line(hint or ""), more=rest)
    _write(path, total)


def _write(path: Path, total: Element) -> None:
    from xml.etree.ElementTree import ElementTree, indent

    tree = ElementTree(total)
    indent(tree)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        tree.write(half, encoding="utf-8", xml_declaration=True)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def suites(story: Story) -> Element:
    """The story as a `testsuites` element."""
    from xml.etree.ElementTree import Element

    total = Element("testsuites", name=one_line(f"drainctl {story.verb} {story.release}".strip()))
    for node in story.nodes:
        for journey in story.ways(node) or [Journey(node, story.last_s, story.last_s)]:
            total.append(_suite(story, journey))
    for count in ("tests", "failures", "errors", "skipped"):
        total.set(count, str(sum(int(suite.get(count, "0")) for suite in total)))
    total.set("time", f"{story.took_s or story.last_s - story.began_s:.3f}")
    return total


def _suite(story: Story, journey: Journey) -> Element:
    from xml.etree.ElementTree import Element, SubElement

    fell_back = journey.outcome == "fell back"
    name = journey.node
    if journey.way == "back" or fell_back:
        name = f"{name} ({journey.strategy if fell_back else 'back'})"
    suite = Element("testsuite", name=one_line(name), hostname=one_line(journey.node))
    facts = {"rollout": story.rollout, "strategy": journey.strategy, "release": journey.change}
    properties = SubElement(suite, "properties")
    for fact, value in (*facts.items(), ("outcome", journey.outcome or story.outcome or "interrupted")):
        SubElement(properties, "property", name=fact, value=one_line(value))
    suite.extend(_case(journey, step, story) for step in journey.steps)
    if journey.outcome in BAD_ENDS and all(step.state != "failed" for step in journey.steps):
        end = SubElement(suite, "testcase", name="end", classname=one_line(journey.node), time="0.000")
        _mark(end, "failure", journey.why)
    if not journey.steps and journey.outcome is None:
        end = SubElement(suite, "testcase", name="not begun", classname=one_line(journey.node), time="0.000")
        _mark(end, "skipped", story.why or "the rollout did not come to this node")
    cases = suite.findall("testcase")
    suite.set("tests", str(len(cases)))
    for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(count, str(sum(case.find(tag) is not None for case in cases)))
    suite.set("time", f"{sum(step.took_s or 0.0 for step in journey.steps):.3f}")
    suite.set("timestamp", rfc3339(journey.began_s).removesuffix("Z"))
    return suite


def _case(journey: Journey, step: StepRun, story: Story) -> Element:
    from xml.etree.ElementTree import Element

    took_s = step.took_s if step.took_s is not None else max(story.last_s - step.began_s, 0.0)
    case = Element(
        "testcase", name=one_line(step.name), classname=one_line(journey.node), time=f"{took_s:.3f}"
    )
    if step.state == "failed" and journey.outcome == "fell back":  # another strategy did it
        _mark(case, "skipped", f"fell back: {step.text}")
    elif step.state == "failed":
        rows = ["the balancers showed last:", *(f"  {row}" for row in step.rows)] if step.rows else []
        _mark(case, "failure", step.text, hint=step.hint, more=rows)
    elif step.state == "running":
        _mark(case, "error", f"not over when the rollout ended ({story.outcome or 'interrupted'})")
    elif step.state == "skipped":
        _mark(case, "skipped", step.text)
    return case


def _mark(case: Element, tag: str, message: str, *, hint: str = "", more: Sequence[str] = ()) -> None:
    from xml.etree.ElementTree import SubElement

    mark = SubElement(case, tag, message=message)
    mark.text = "\n".join([message, *more, *([f"hint: {hint}"] if hint else [])])
