"""The rollout as Markdown, for a step summary or a comment."""

from __future__ import annotations

from drainctl.report.story import Story
from drainctl.report.text import one_line, proof_line, seconds


def summary(story: Story) -> str:
    """How it ended, a row per node's way, and the proof."""
    end = story.outcome or "interrupted"
    end = f"{end}: {story.why}" if story.why else end
    lines = [
        f"### drainctl: {_cell(story.title)}",
        "",
        f"**{_cell(end)}** (rollout {_cell(story.rollout)})",
        "",
    ]
    lines += ["| node | release | way | outcome | time | why |", "|---|---|---|---|--:|---|"]
    for node in story.nodes:
        ways = story.ways(node)
        lines += [] if ways else [_row(node, "", "", "not begun", "", "")]
        for way in ways:
            took = seconds(way.took_s) if way.took_s is not None else ""
            lines.append(_row(node, way.change, way.way, way.state, took, way.why))
    lines += ["", f"Proof: {_cell(proof_line(story.proof))}"] if story.proof is not None else []
    return "\n".join([*lines, "", ""])


def refusal(message: str, hint: str | None, code: int) -> str:
    """A rollout that did not begin: why, and what to do."""
    lines = [
        f"### drainctl: refused (exit {code})",
        "",
        *(f"- {_cell(line)}" for line in message.splitlines()),
    ]
    lines += ["", f"hint: {_cell(hint)}"] if hint else []
    return "\n".join([*lines, "", ""])


def _row(*cells: str) -> str:
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    # Markdown takes any ASCII punctuation after a backslash as itself; HTML has to be closed off apart.
    text = one_line(text).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{char}" if char in "\\`*_[]|#" else char for char in text)
