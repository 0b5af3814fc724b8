"""
The rows of wanted servers, read as cheaply as HAProxy allows.

`show stat B 4 SID` costs 8 µs a server inside HAProxy, whatever the backend's size, but wants ids. They are
learnt from a table and checked against the names in each answer, so that a reload, which may give a server
another id, never passes one server off as another.
Source: HAProxy management.txt, "9.3. Unix Socket commands", "show stat".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from drainctl.balancer import parse
from drainctl.balancer.door import Server

Ask = Callable[[Sequence[str]], list[str]]

_FEW = 100  # more questions in one line would near HAProxy's limit for it (tune.bufsize, 16 kB)


class Rows:
    """Reads the rows of one process, and remembers the ids of the servers in its last table."""

    def __init__(self) -> None:
        self._ids: dict[Server, int] = {}
        self._size = 0

    def read(
        self, ask: Ask, wanted: frozenset[Server] | None, first: Sequence[str] = ()
    ) -> tuple[list[str], parse.Shown]:
        """
        Ask the commands `first` and for the wanted rows (None: every row of every type) in one exchange.

        A second exchange is needed where an id has become another server's. A server that is not there is
        missing from the rows.
        Returns: the answers to `first`, and the rows.
        """
        if wanted is not None and self._worth_asking_singly(wanted):
            questions = [f"show stat {server[0]} 4 {self._ids[server]}" for server in wanted]
            texts = ask([*first, *questions]) if first or questions else []
            rows = [row for text in texts[len(first) :] for row in parse.show_stat(text, wanted).servers]
            if len({(row.backend, row.server) for row in rows}) == len(wanted):
                return texts[: len(first)], parse.Shown(tuple(rows))
        *texts, table = ask([*first, "show stat" if wanted is None else "show stat -1 4 -1"])
        shown = parse.show_stat(table, wanted)
        self._ids = {(row.backend, row.server): row.sid for row in shown.servers}
        self._size = table.count("\n")
        return texts, shown

    def _worth_asking_singly(self, wanted: frozenset[Server]) -> bool:
        """A row asked alone costs as much as eight in a table, so small tables are read whole."""
        return len(wanted) <= min(_FEW, self._size // 8) and wanted <= self._ids.keys()
