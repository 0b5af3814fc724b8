"""
Findings as text or JSON. Pure.

First a table that fits a terminal: how bad, what, where. Then each finding once, whatever number of places
it was seen in: what was seen in each, the line to add or change, why, and where the manual tells more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from textwrap import wrap

from drainctl.doctor.finding import Finding, Severity
from drainctl.report.text import clip, columns, one_line

Paint = Callable[[str, Severity], str]
_LABEL = 8


def plain(text: str, _severity: Severity) -> str:
    """No colour."""
    return text


def findings_text(
    findings: Sequence[Finding], looked_at: str, *, width: int = 80, paint: Paint = plain
) -> str:
    """
    A table, then each finding with all that is known of it.

    Args:
        findings: in the order in which they are to be told.
        looked_at: `2 balancers, 4 nodes, 1 haproxy.cfg`.
        width: of the terminal.
        paint: colours a severity's name.
    """
    groups = _grouped(findings)
    if not groups:
        return f"{looked_at}: nothing found; a deploy may begin"
    lines = [*_table(groups, width, paint)]
    for group in groups:
        lines += ["", *_told(group, width, paint)]
    return "\n".join([*lines, "", *wrap(f"{looked_at}: {_sum(findings)}", width)])


def _grouped(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Those of one code and severity together, in the order of the first of each."""
    groups: dict[tuple[str, Severity], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.code, finding.severity), []).append(finding)
    return list(groups.values())


def _table(groups: Sequence[Sequence[Finding]], width: int, paint: Paint) -> list[str]:
    rows = [("severity", "finding", "where")]
    rows += [
        (group[0].severity.value, group[0].code, ", ".join(dict.fromkeys(one.where for one in group)))
        for group in groups
    ]
    lines = [clip(_printable(line), width) for line in columns(rows)]
    painted = [_paint_start(line, group[0], paint) for line, group in zip(lines[1:], groups, strict=True)]
    return [lines[0], *painted]


def _printable(text: str) -> str:
    """The line with its blanks, and without what could move a terminal's cursor."""
    return "".join(char if char.isprintable() else " " for char in text)


def _paint_start(line: str, finding: Finding, paint: Paint) -> str:
    name = finding.severity.value
    return paint(name, finding.severity) + line.removeprefix(name)


def _told(group: Sequence[Finding], width: int, paint: Paint) -> list[str]:
    first = group[0]
    lines = [f"{paint(first.severity.value, first.severity)}: {first.code}"]
    changes = list(dict.fromkeys(one.change for one in group))
    for one in group:
        lines += _field("seen", f"{one.where}: {one.seen}", width)
        if len(changes) > 1:
            lines += _field("change", one.change, width)
    if len(changes) == 1:
        lines += _field("change", changes[0], width)
    return [*lines, *_field("why", first.why, width), *_field("more", first.docs, width)]


def _field(label: str, text: str, width: int) -> list[str]:
    """`  label   text`, the text's further lines below its first."""
    indent = " " * (_LABEL + 2)
    lines = wrap(one_line(text), max(width - len(indent), 20), break_on_hyphens=False)
    return [f"  {label:{_LABEL}}{line}" if at == 0 else f"{indent}{line}" for at, line in enumerate(lines)]


def _sum(findings: Sequence[Finding]) -> str:
    counts = {severity: sum(one.severity is severity for one in findings) for severity in Severity}
    told = ", ".join(f"{count} × {severity.value}" for severity, count in counts.items() if count)
    refused = counts[Severity.REFUSES]
    return f"{told}; {'a deploy would be refused or stop' if refused else 'a deploy may begin'}"


def findings_json(findings: Sequence[Finding], *, may_begin: bool) -> str:
    """One JSON object; `v` is the version of its shape."""
    told = [
        {
            "code": one.code,
            "severity": one.severity.value,
            "where": one.where,
            "seen": one.seen,
            "change": one.change,
            "why": one.why,
            "docs": one.docs,
        }
        for one in findings
    ]
    return json.dumps({"v": 1, "may_begin": may_begin, "findings": told}, indent=2, ensure_ascii=False)
