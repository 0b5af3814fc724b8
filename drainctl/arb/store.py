"""
A small real data store to try failover on: keys and values over HTTP, SQLite below, replicated from peer to
peer.

    python -m drainctl.arb.store --listen 127.0.0.1:7011 --file a.db --peer http://127.0.0.1:7012

    GET  /k/KEY            200 the value, 404
    PUT  /k/KEY            204; the body is the value
    GET  /query?for=S      200 after S seconds: a long query
    GET  /stream?for=S     200, a line every tenth of a second for S seconds
    POST /query?for=S      200 its own body after S seconds
    POST /once/ID          204; counts how often ID was run here (a request that runs twice is seen)
    GET  /once             200 {"ID": times, …}
    GET  /                 200 "NAME pid"
    GET  /lag              200 {"lag": N}: the peer's writes that are not here yet; null: it was never reached
    GET  /log?after=N      200 writes from N on, for the peer

Each machine takes writes and fetches its peer's, ten times a second; of two writes of one key the later
wins. It is a store for tests: asynchronous, so the last moments of a machine that dies are with it until it
is back.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sqlite3
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import FrameType
from typing import Any
from urllib.parse import parse_qs, urlsplit

SCHEMA = """
CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value BLOB NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, key TEXT, value BLOB NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS once (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS applied (peer TEXT PRIMARY KEY, seq INTEGER NOT NULL);
"""
FETCH_S = 0.1
BATCH = 500


class Kept:
    """The data of one machine. Safe to share between threads."""

    def __init__(self, file: str) -> None:
        self._db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._lock = threading.Lock()
        self._db.executescript(f"PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF; {SCHEMA}")

    def get(self, key: str) -> bytes | None:
        """The value of a key."""
        rows = self._rows("SELECT value FROM kept WHERE key=?", key)
        return rows[0][0] if rows else None

    def put(self, key: str, value: bytes) -> None:
        """A write of a client: kept, and logged for the peer."""
        at = time.time()
        with self._lock, self._db:
            self._keep(key, value, at)
            self._db.execute("INSERT INTO log (key, value, at) VALUES (?, ?, ?)", (key, value, at))

    def log(self, after: int) -> dict[str, Any]:
        """Writes after that number, and the number of the last there is."""
        rows = self._rows(
            "SELECT seq, key, value, at FROM log WHERE seq > ? ORDER BY seq LIMIT ?", after, BATCH
        )
        last = self._rows("SELECT coalesce(max(seq), 0) FROM log")[0][0]
        return {"last": last, "rows": [[seq, key, value.hex(), at] for seq, key, value, at in rows]}

    def applied(self, peer: str) -> int:
        """The number of the peer's last write that is here."""
        rows = self._rows("SELECT seq FROM applied WHERE peer=?", peer)
        return rows[0][0] if rows else 0

    def apply(self, peer: str, rows: list[list[Any]]) -> None:
        """Writes of the peer."""
        with self._lock, self._db:
            for _, key, value, at in rows:
                self._keep(key, bytes.fromhex(value), at)
            self._db.execute("INSERT OR REPLACE INTO applied VALUES (?, ?)", (peer, rows[-1][0]))

    def run(self, one: str) -> None:
        """Counts one run of a request that should run once."""
        self._rows("INSERT INTO once VALUES (?)", one)

    def runs(self) -> dict[str, int]:
        """How often each was run."""
        return dict(self._rows("SELECT id, count(*) FROM once GROUP BY id"))

    def _keep(self, key: str, value: bytes, at: float) -> None:
        self._db.execute(
            "INSERT INTO kept VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE"
            " SET value=excluded.value, at=excluded.at WHERE excluded.at > kept.at",
            (key, value, at),
        )

    def _rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._db.execute(statement, values).fetchall()


class Store(ThreadingHTTPServer):
    """One machine of the store: an HTTP server, and a thread that fetches the peer's writes."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, listen: tuple[str, int], file: str, peer: str | None) -> None:
        super().__init__(listen, _Handler)
        self.kept = Kept(file)
        self.lag: int | None = None
        if peer:
            threading.Thread(target=self._follow, args=(peer,), daemon=True).start()

    def _follow(self, peer: str) -> None:
        while True:
            with contextlib.suppress(OSError, ValueError):
                self._fetch(peer)
            time.sleep(FETCH_S)

    def _fetch(self, peer: str) -> None:
        """Everything that the peer has written since."""
        while True:
            after = self.kept.applied(peer)
            with urllib.request.urlopen(f"{peer}/log?after={after}", timeout=1) as answer:  # noqa: S310  our own URL
                log = json.load(answer)
            if log["rows"]:
                self.kept.apply(peer, log["rows"])
                after = log["rows"][-1][0]
            self.lag = log["last"] - after
            if not self.lag:
                return

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        for_s = float(parse_qs(url.query).get("for", ["0"])[0])
        if url.path.startswith("/k/"):
            value = self.server.kept.get(url.path[3:])
            self._answer(404 if value is None else 200, value or b"")
        elif url.path == "/query":
            time.sleep(for_s)
            self._answer(200, f"queried for {for_s:g} s".encode())
        elif url.path == "/stream":
            self._stream(for_s)
        elif url.path == "/once":
            self._answer(200, json.dumps(self.server.kept.runs()).encode())
        elif url.path == "/lag":
            self._answer(200, json.dumps({"lag": self.server.lag}).encode())
        elif url.path == "/log":
            after = int(parse_qs(url.query)["after"][0])
            self._answer(200, json.dumps(self.server.kept.log(after)).encode())
        else:
            self._answer(200, f"{self.server.server_port} {os.getpid()}".encode())

    def do_PUT(self) -> None:
        self.server.kept.put(self.path[3:], self._body())
        self._answer(204)

    def do_POST(self) -> None:
        body = self._body()
        for_s = float(parse_qs(urlsplit(self.path).query).get("for", ["0"])[0])
        if self.path.startswith("/once/"):
            self.server.kept.run(self.path[6:])
            self._answer(204)
        else:
            time.sleep(for_s)
            self._answer(200, body)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunks(self) -> list[bytes]:
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return chunks

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response_only(status)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, for_s: float) -> None:
        lines = max(1, round(for_s * 10))
        self.send_response_only(200)
        self.send_header("Content-Length", str(lines * 5))
        self.end_headers()
        for at in range(lines):
            self.wfile.write(b"%04d\n" % (at % 10000))
            self.wfile.flush()
            time.sleep(0.1)

    def log_message(self, *_args: object) -> None:
        """Nobody reads a log of ten thousand queries."""


def address(text: str) -> tuple[str, int]:
    """Reads `host:port`."""
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM; what runs then is finished first."""
    parser = argparse.ArgumentParser(
        prog="python -m drainctl.arb.store", description="a data store for tests"
    )
    parser.add_argument("--listen", required=True, type=address, metavar="HOST:PORT")
    parser.add_argument("--file", required=True)
    parser.add_argument("--peer", metavar="URL")
    options = parser.parse_args(arguments)
    store = Store(options.listen, options.file, options.peer)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        threading.Thread(target=store.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    with store:
        store.serve_forever(poll_interval=0.05)
    sys.exit(0)


if __name__ == "__main__":
    main()
