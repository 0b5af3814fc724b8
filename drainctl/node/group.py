"""
A command line's process group: how a line tells which one it is, and how all of it is ended.

For transports that start a command elsewhere: its own process is the leader of a session there, so its id is
that of the group to kill. Pure text; a line that is wrapped tells its id on stderr.
"""

from __future__ import annotations

import re

from drainctl.node.tail import Tail

WRAPPED = "printf 'drainctl-pid %s\\n' $$ >&2\n"
KILL_S = 3.0  # how long `kill` may take
_PID = re.compile(r"drainctl-pid (\d+)\n")
_KILL = """\
kill -TERM -{pid} 2>/dev/null
for i in 1 2 3 4 5 6 7 8 9 10; do kill -0 -{pid} 2>/dev/null || exit 0; sleep 0.1; done
kill -KILL -{pid}
sleep 0.1
! kill -0 {pid} 2>/dev/null  # not of the group: where init reaps nothing, its dead stay in it
"""


def kill(pid: int) -> str:
    """A line that ends the group, gracefully if it can be; its code is 0 when it is known to be gone."""
    return _KILL.format(pid=pid)


class Stderr(Tail):
    """A wrapped line's stderr, with the line taken out that names its process."""

    def __init__(self) -> None:
        super().__init__()
        self._head = b""

    def add(self, data: bytes) -> None:
        """See Tail."""
        if len(self._head) < 4096:
            self._head += data[:4096]
        super().add(data)

    @property
    def pid(self) -> int | None:
        """The group's id; None while the line has not told it."""
        found = _PID.search(self._head.decode(errors="replace"))
        return int(found[1]) if found else None

    @property
    def text(self) -> str:
        """See Tail."""
        return _PID.sub("", super().text, count=1)
