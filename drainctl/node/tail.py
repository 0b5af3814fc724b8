"""The end of a stream whose length nobody knows."""

from __future__ import annotations

KEPT = 65536


class Tail:
    """Takes bytes in any amount and keeps the last 64 kB."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        self._kept += data
        if len(self._kept) > 2 * KEPT:
            del self._kept[:-KEPT]

    @property
    def text(self) -> str:
        """What was kept, as UTF-8; bytes that are not become U+FFFD."""
        return self._kept[-KEPT:].decode(errors="replace")
