"""Small pure helpers of all text reports: times, sizes, tables, and the proof in words."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any

# ---------------------------------------------------------------- one value


def seconds(spent_s: float) -> str:
    """`0.02 s`, `4.10 s`, `31.4 s`, `2 min 05 s`, `1 h 04 min`."""
    if spent_s < 9.995:
        return f"{spent_s:.2f} s"
    if spent_s < 99.95:
        return f"{spent_s:.1f} s"
    minutes, rest = divmod(round(spent_s), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def size(count: int) -> str:
    """Bytes in decimal units: `812 B`, `4.2 kB`, `31.0 MB`."""
    if count < 1000:
        return f"{count} B"
    amount = float(count)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:.1f} TB"


def rfc3339(at_s: float) -> str:
    """`2026-05-04T14:02:11.123Z` (RFC 3339, section 5.6), UTC."""
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def day_time(at_s: float, zone: tzinfo | None = None) -> str:
    """`2026-05-04 14:02:11 UTC`, in the zone (default: this machine's)."""
    return f"{datetime.fromtimestamp(at_s, UTC).astimezone(zone):%Y-%m-%d %H:%M:%S %Z}"


def clock_time(at_s: float, zone: tzinfo | None = None) -> str:
    """`14:02:11`, in the zone (default: this machine's)."""
    return f"{datetime.fromtimestamp(at_s, UTC).astimezone(zone):%H:%M:%S}"


def one_line(text: str) -> str:
    """
    The text as one printable line. What a node or a balancer answered may be in it: control characters
    would let it move the cursor of a terminal, or begin a command of a CI system on a line of its own.
    """
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def clip(text: str, width: int) -> str:
    """At most `width` characters, the last an ellipsis where something was cut."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


# ---------------------------------------------------------------- tables


def columns(rows: Sequence[Sequence[str]], right: Collection[int] = (), gap: int = 2) -> list[str]:
    """Lines with aligned cells, `gap` spaces apart; the columns numbered in `right` are flush right."""
    widths = [max(len(row[number]) for row in rows) for number in range(len(rows[0]))] if rows else []
    return [
        (" " * gap)
        .join(
            cell.rjust(width) if number in right else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        .rstrip()
        for row in rows
    ]


MOST_NAMES = 4  # of nodes of which the same is said


def said_together(lines: Sequence[str]) -> list[str]:
    """`web1, web2: in rotation, on 42`: neighbouring lines `NAME: …` that say the same of several nodes."""
    told: list[tuple[list[str], str]] = []
    for line in lines:
        name, colon, text = line.partition(": ")
        if not colon or " " in name:
            told.append(([], line))
        elif told and told[-1][0] and told[-1][1] == text:
            told[-1][0].append(name)
        else:
            told.append(([name], text))
    return [f"{_names(names)}: {text}" if names else text for names, text in told]


def _names(names: Sequence[str]) -> str:
    if len(names) <= MOST_NAMES:
        return ", ".join(names)
    return f"{names[0]} … {names[-1]} ({len(names)} nodes)"


def wrapped(text: str, width: int, first: str = "", rest: str = "") -> list[str]:
    """Lines of at most `width` columns; no word is broken that fits into one."""
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    ) or [first.rstrip()]


def wrapped_all(lines: Sequence[str], width: int) -> list[str]:
    """Each line wrapped, what goes on below it two columns further in than it began."""
    return [
        part
        for line in lines
        for part in wrapped(line, width, rest=" " * (len(line) - len(line.lstrip()) + 2))
    ]


# ---------------------------------------------------------------- the proof

ERRORS = ("5xx", "connect", "response", "haproxy_5xx")
MOVED = ("retries", "redispatches")
NAME_WIDTH = 11  # of a balancer in the proof
PROOF_WIDTH = 78  # a report puts up to two spaces before it


def proof_line(data: Mapping[str, Any]) -> str:
    """
    What the counters say of the whole rollout: `0 failed of 48210 requests in 41.2 s`, or `inconclusive:
    lb2 was reloaded at 14:02:31`. Never zero where a counter was reset, cannot be read, or was not counted.
    """
    balancers: Mapping[str, Mapping[str, Any]] = data.get("balancers", {})
    unsure = [one_line(str(reason)) for reason in data.get("inconclusive", ())]
    named = " ".join(unsure)
    unsure += [
        f"{name} was reset" for name, row in balancers.items() if row.get("reset") and name not in named
    ]
    failed, requests = data.get("failed"), data.get("requests", 0)
    if failed is None and not unsure:
        unsure.append("failed requests were not counted")
    if not unsure:
        return f"{failed} failed of {requests} requests in {seconds(data.get('seconds', 0.0))}"
    least = f"; at least {failed} failed" if failed else ""
    return f"inconclusive: {'; '.join(unsure)}{least}"


def proof_table(data: Mapping[str, Any]) -> str:
    """`proof_line`, then a row per balancer: requests, errors by kind, retries and redispatches."""
    balancers: Mapping[str, Mapping[str, Any]] = data.get("balancers", {})
    rows = [("balancer", "requests", *(name.replace("_", " ") for name in ERRORS), *MOVED)]
    for name, row in balancers.items():
        errors: Mapping[str, int] = row.get("errors", {})
        counts = [
            row.get("requests", 0),
            *(errors.get(kind, 0) for kind in ERRORS),
            *(row.get(kind, 0) for kind in MOVED),
        ]
        shown = clip(name, NAME_WIDTH)
        rows.append((f"{shown} *" if row.get("reset") else shown, *map(str, counts)))
    table = columns(rows, right=range(1, 8)) if balancers else []
    if table and max(map(len, table)) > PROOF_WIDTH:
        table = columns(rows, right=range(1, 8), gap=1)
    if any(row.get("reset") for row in balancers.values()):
        table.append("* incomplete: counted anew, or not read")
    return "\n".join([proof_line(data), *table])
