"""What the demo's user reads, and how paths and programs are spelled there."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


class Screen:
    """Plain lines on stdout; on a terminal with a little colour (none where NO_COLOR is set)."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self.console = console or Console()

    def say(self, text: str = "", *, style: str | None = None, end: str = "\n") -> None:
        """Seen at once, also in a pipe. Never wrapped: what is to be copied stays one line."""
        self.console.print(text, style=style, end=end, markup=False, highlight=False, soft_wrap=True)
        self.console.file.flush()

    def head(self, text: str) -> None:
        self.say(f"\n{text}", style="bold")

    def mark(self, text: str, *, good: bool) -> None:
        self.say(text, style="bold green" if good else "bold red")


def short(path: Path) -> str:
    """The path, from the working folder where it is below that."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def program(name: str) -> str:
    """How to call a program of this Python's environment from the working folder."""
    beside = Path(sys.executable).with_name(name)
    if shutil.which(name) == str(beside) or not beside.exists():
        return name
    return short(beside)
