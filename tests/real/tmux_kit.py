"""A real terminal of a given size: tmux, without its status line and without anybody's configuration."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.conftest import need, until

PROMPT = "$ "
BIN = Path(sys.executable).parent


class Tmux:
    """
    A shell in a terminal of `width` × `height`; a context manager.

    `drainctl` is on its PATH. Its prompt is `$ `, and nothing of the caller's environment decides on colours.
    """

    def __init__(
        self, folder: Path, width: int = 80, height: int = 24, env: Mapping[str, str] | None = None
    ) -> None:
        self._program = need("tmux")
        self._socket = f"drainctl-{uuid.uuid4().hex[:8]}"
        self.width, self.height = width, height
        self._folder = folder
        self._env = {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "PS1": PROMPT,
            "TZ": "UTC",
            **(env or {}),
        }

    def __enter__(self) -> Self:
        size = ("-x", str(self.width), "-y", str(self.height))
        shell = shlex.join(["env", "-i", *(f"{key}={value}" for key, value in self._env.items())])
        shell += " TERM=$TERM bash --norc --noprofile"
        self._tmux("-f", "/dev/null", "new-session", "-d", *size, "-c", str(self._folder), shell)
        self._tmux("set-option", "-g", "status", "off")
        until("a prompt", lambda: self.text().strip() == PROMPT.strip())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tmux("kill-server")

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(
            [self._program, "-L", self._socket, *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    # ------------------------------------------------------------ what a person does

    def type(self, text: str) -> None:
        self._tmux("send-keys", "-l", text)

    def key(self, *names: str) -> None:
        """Keys by tmux's names: `Enter`, `C-c`, `q`."""
        self._tmux("send-keys", *names)

    def enter(self, line: str) -> None:
        self.type(line)
        self.key("Enter")

    def run(self, line: str, limit_s: float = 60.0) -> list[str]:
        """Types the line, waits until the prompt is back, and returns the line and all that it printed."""
        self.clear()
        self.enter(line)
        until(f"the end of `{line}`", self.at_prompt, limit_s, every_s=0.1)
        return self.scrollback()[:-1]

    def clear(self) -> None:
        """An empty screen with nothing above it."""
        self.enter("clear")
        until("an empty screen", lambda: self.text().strip() == PROMPT.strip())
        self._tmux("clear-history")

    def at_prompt(self) -> bool:
        """Whether a command ended: its output, then the prompt."""
        lines = self.lines()
        return len(lines) > 1 and lines[-1] == PROMPT.strip()

    def resize(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._tmux("resize-window", "-x", str(width), "-y", str(height))

    # ------------------------------------------------------------ what a person sees

    def text(self) -> str:
        """The screen as it is."""
        return self._tmux("capture-pane", "-p")

    def coloured(self) -> str:
        """The screen with the codes of its colours."""
        return self._tmux("capture-pane", "-p", "-e")

    def lines(self) -> list[str]:
        """The screen's lines, without the empty ones at its end."""
        return [line.rstrip() for line in self.text().rstrip().splitlines()]

    def scrollback(self) -> list[str]:
        """The screen and what scrolled out of it, without the empty ones at its end."""
        return [line.rstrip() for line in self._tmux("capture-pane", "-p", "-S", "-").rstrip().splitlines()]

    def until(self, what: str, *words: str, limit_s: float = 30.0) -> list[str]:
        """Waits until all the words are on the screen at once, and returns its lines."""

        def shown() -> list[str] | None:
            lines = self.lines()
            joined = "\n".join(lines)
            return lines if all(word in joined for word in words) else None

        found = until(f"{what}: {', '.join(words)}", shown, limit_s, every_s=0.05)
        assert found
        return found


def wide(lines: Sequence[str], width: int) -> list[str]:
    """The lines that do not fit."""
    return [line for line in lines if len(line) > width]
