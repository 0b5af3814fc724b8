"""
Boards by their address.

    /run/shop/arb.board, file:///run/shop/arb.board    all processes of a machine
    postgresql://user@host/database?board=shop         all machines, through PostgreSQL
    etcd://host:2379/shop                              all machines, through etcd

`file:` needs nothing but a file; PostgreSQL wants psycopg (`drainctl[postgres]`), etcd etcd3gw
(`drainctl[etcd]`). They are imported when such a board is opened.
"""

from __future__ import annotations

import os
import re
from typing import Protocol
from urllib.parse import unquote, urlsplit

from drainctl.arb.board import Board
from drainctl.arb.file_board import FileBoard

STALE_S = {"": 0.1, "file": 0.1, "postgresql": 2.0, "postgres": 2.0, "etcd": 2.0}


class OpenBoard(Board, Protocol):
    """
    A board that was opened by its address; whoever opened it closes it.

    Attributes:
        trouble: why it could not be read or written the last time it was tried; "" when all is well.
    """

    trouble: str

    def written(self, limit_s: float) -> bool:
        """
        Wait until what was said here stands where all others read it, or for limit_s seconds; for programs
        that must know. Returns whether it does; `trouble` says why not.
        """

    def close(self) -> None:
        """Close it. A later call may open it again."""


def board_of(address: str | os.PathLike[str]) -> OpenBoard:
    """
    Opens a board; a store that cannot be reached is no error, and shows in `trouble`.

    Args:
        address: a path, or one of the URLs above.
    Raises: ValueError for another scheme, or where the package for it is not installed.
    """
    url = os.fspath(address)
    scheme = scheme_of(url)
    try:
        if scheme in ("postgresql", "postgres"):
            from drainctl.arb.postgres_board import PostgresBoard

            return PostgresBoard(url)
        if scheme == "etcd":
            from drainctl.arb.etcd_board import EtcdBoard

            return EtcdBoard(url)
    except ImportError as error:
        package = "etcd" if scheme == "etcd" else "postgres"
        raise ValueError(f"board {shown(url)}: {error}; pip install 'drainctl[{package}]'") from error
    return FileBoard(unquote(urlsplit(url).path) if scheme == "file" else url)


def scheme_of(address: str) -> str:
    """`""` for a path. Raises: ValueError for a scheme that no board has."""
    scheme = address.partition("://")[0] if "://" in address else ""
    if scheme not in STALE_S:
        known = "a path, file://, postgresql:// or etcd://"
        raise ValueError(f"board {shown(address)!r}: wants {known}")
    return scheme


def shown(address: str) -> str:
    """A board's address without the password that may be in it."""
    return re.sub(r"(?<=//)([^:/@]*):[^@/]*@", r"\1:***@", address)


def stale_s(address: str) -> float:
    """
    How long it may take until a mark is seen by every client whose machine can reach the board, seconds.

    Raises: ValueError as `board_of`.
    """
    return STALE_S[scheme_of(address)]
