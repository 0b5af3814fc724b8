"""
What README.md shows of the demo, out of docs/demo.txt: `python docs/record.py`, or `make docs`.

`make record` runs the demo anew first. What stands between a pair of marker comments is replaced.
"""  # noqa: INP001  a script beside the pages; no package

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parent
CUT = "[…]"

# First and last line of each part that is shown; all of them are in the recording, in this order.
PARTS = (
    (r"1/3 ", r"    clients saw"),
    (r"2/3 ", r"    A node gets"),
    (r"\S+ wave 1 of", r"\S+ \S+ +done "),
    (r"3/3 ", r"  seconds per node"),
)
FIGURES = """\
Four nodes restarted in turn under {rate} requests/s lost **{0:,} of {1:,} requests**, and the slowest
hundredth of the front page's answers took {naive} or more. The same cluster rolled by drainctl lost
**{2:,} of {3:,}**, and that hundredth began at {drained}."""


def excerpt(demo: str) -> str:
    """The parts of it that a first screen has room for. Raises: ValueError when one is not there."""
    lines, shown, at = demo.splitlines(), [], 0
    for first, last in PARTS:
        begin = _find(lines, first, at)
        end = _find(lines, last, begin) + 1
        if shown:
            shown.append(CUT if any(lines[at:begin]) else "")
        shown += lines[begin:end]
        at = end
    return "\n".join(["```text", *(line.rstrip() for line in shown), "```"])


def figures(demo: str) -> str:
    """The sentence with the numbers of the recording."""
    (lost,) = re.findall(
        r"^Naive restarts lost (\d+) of (\d+) .*; drainctl lost (\d+) of (\d+)", demo, re.MULTILINE
    )
    ((naive, drained),) = re.findall(r"^  p99 of GET / {2,}(.+?) {2,}(.+)$", demo, re.MULTILINE)
    (rate,) = re.findall(r"(\d+) requests/s:", demo)
    return FIGURES.format(*map(int, lost), rate=rate, naive=naive, drained=drained)


def filled(page: str, demo: str) -> str:
    """The page with the recording between its markers. Raises: ValueError when it has no such markers."""
    for name, text in {"figures": figures(demo), "recording": excerpt(demo)}.items():
        begin, end = f"<!-- {name}: docs/record.py -->\n", f"\n<!-- end of {name} -->"
        head, found, rest = page.partition(begin)
        _, closed, tail = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"the page has no markers for {name}: {begin.strip()} … {end.strip()}")
        page = f"{head}{begin}{text}{end}{tail}"
    return page


def _find(lines: list[str], pattern: str, begin: int) -> int:
    for at in range(begin, len(lines)):
        if re.match(pattern, lines[at]):
            return at
    raise ValueError(f"docs/demo.txt has no line that begins with {pattern!r} below line {begin}")


def main() -> None:
    readme = DOCS.parent / "README.md"
    demo = (DOCS / "demo.txt").read_text(encoding="utf-8")
    readme.write_text(filled(readme.read_text(encoding="utf-8"), demo), encoding="utf-8")


if __name__ == "__main__":
    main()
