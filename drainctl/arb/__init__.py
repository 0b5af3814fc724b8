"""
Clients of a replicated data store that never wait for a dead machine.

    from drainctl.arb import ReplicaSession

    shards = {"users": ["http://10.0.0.11:8080", "http://10.0.0.12:8080"]}
    session = ReplicaSession(shards, board="/run/shop/arb.board")
    session.get("arb://users/query", params={"q": "name"})

Names are imported when they are asked for: the session loads requests, the async client httpx, and neither
loads anything else of drainctl.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drainctl.arb.async_client import AsyncReplicaClient, AsyncReplicaTransport
    from drainctl.arb.board import Board, Down, MemoryBoard
    from drainctl.arb.boards import OpenBoard, board_of
    from drainctl.arb.errors import ArbError, MaybeSent, NotSent
    from drainctl.arb.etcd_board import EtcdBoard
    from drainctl.arb.file_board import FileBoard
    from drainctl.arb.metrics import board_metrics, client_metrics
    from drainctl.arb.policy import Fault, Policy, Try
    from drainctl.arb.postgres_board import PostgresBoard
    from drainctl.arb.prober import Prober
    from drainctl.arb.render import render_arb
    from drainctl.arb.session import ReplicaAdapter, ReplicaSession, answered_by
    from drainctl.arb.shards import Machine, Shard, shards_of

_HOME = {
    "ArbError": "errors",
    "AsyncReplicaClient": "async_client",
    "AsyncReplicaTransport": "async_client",
    "Board": "board",
    "Down": "board",
    "EtcdBoard": "etcd_board",
    "Fault": "policy",
    "FileBoard": "file_board",
    "Machine": "shards",
    "MaybeSent": "errors",
    "MemoryBoard": "board",
    "NotSent": "errors",
    "OpenBoard": "boards",
    "Policy": "policy",
    "PostgresBoard": "postgres_board",
    "Prober": "prober",
    "ReplicaAdapter": "session",
    "ReplicaSession": "session",
    "Shard": "shards",
    "Try": "policy",
    "answered_by": "session",
    "board_of": "boards",
    "board_metrics": "metrics",
    "client_metrics": "metrics",
    "render_arb": "render",
    "shards_of": "shards",
}

__all__ = [
    "ArbError",
    "AsyncReplicaClient",
    "AsyncReplicaTransport",
    "Board",
    "Down",
    "EtcdBoard",
    "Fault",
    "FileBoard",
    "Machine",
    "MaybeSent",
    "MemoryBoard",
    "NotSent",
    "OpenBoard",
    "Policy",
    "PostgresBoard",
    "Prober",
    "ReplicaAdapter",
    "ReplicaSession",
    "Shard",
    "Try",
    "answered_by",
    "board_metrics",
    "board_of",
    "client_metrics",
    "render_arb",
    "shards_of",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
