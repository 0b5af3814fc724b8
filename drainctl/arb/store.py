"""
A small real data store to try failover on: keys and values over HTTP, SQLite below, replicated from peer to
peer.

    python -m drainctl.arb.store --listen 127.0.0.1:7011 --file a.db --peer http://127.0.0.1:7012

    GET  /k/KEY            200 the value, 404
    PUT  /k/KEY            204; the body is the value
    GET  /query?for=S      200 after S seconds: a long query; /q?s=S is the same
    GET  /stream?for=S     200, a line every tenth of a second for S seconds
    POST /query?for=S      200 its own body after S seconds
    POST /once/ID          204; counts how often ID was run here (a request that runs twice is seen)
    GET  /once             200 {"ID": times, …}
    GET  /                 200 "NAME pid"
    GET  /health           200 while it serves
    GET  /version          200 the release's id, as release.json beside this file says it
    GET  /lag              200 seconds: all that the peer had written so long ago is here; 503: never reached
    GET  /queries          200 how many of the requests above are being answered now
    GET  /log?after=N      200 writes from N on, for the peer

Each machine takes writes and fetches its peer's, ten times a second; of two writes of one key the later
wins. It is a store for tests: asynchronous, so the last moments of a machine that dies are with it until it
is back; and what it missed while it was down it fetches first, and shows as lag. It needs nothing but
Python, so this file is also what a release of the lab's store is made of.
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
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

SCHEMA = """
CREATE TABLE IF NOT EXISTS kept (key TEXT PRIMARY KEY, value BLOB NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, key TEXT, value BLOB NOT NULL, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS once (id TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS applied (peer TEXT PRIMARY KEY, seq INTEGER NOT NULL, whole_at REAL);
"""
FETCH_S = 0.1
BATCH = 500
FINISH_S = 60.0  # how long a machine that was told to stop goes on with what it has
COUNTED = ("/k/", "/q", "/once", "/stream")
# What a release may be told in its release.json, and what a sound one does.
SOUND: dict[str, Any] = {
    "id": "none",
    "start_s": 0.0,  # seconds before it listens
    "fail_start": False,  # it ends at once
    "wrong_version": "",  # what /version tells instead of the id
    "sick": False,  # /health answers 500
    "apply_s": 0.0,  # seconds that each batch of the peer's writes takes
}


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

    def whole_at(self, peer: str) -> float | None:
        """When all that the peer had written was here the last time, seconds of Unix time; None: never."""
        rows = self._rows("SELECT whole_at FROM applied WHERE peer=?", peer)
        return rows[0][0] if rows else None

    def apply(self, peer: str, rows: list[list[Any]], whole_at: float | None) -> None:
        """Writes of the peer; whole_at: if they are all, when it was asked for them."""
        with self._lock, self._db:
            for _, key, value, at in rows:
                self._keep(key, bytes.fromhex(value), at)
            last = rows[-1][0] if rows else 0
            self._db.execute(
                "INSERT INTO applied VALUES (?, ?, ?) ON CONFLICT (peer) DO UPDATE"
                " SET seq = max(seq, excluded.seq), whole_at = coalesce(excluded.whole_at, whole_at)",
                (peer, last, whole_at),
            )

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
        self.release = {**SOUND, **_release()}
        self.queries = 0
        self.stopping = False
        self._peer = peer
        self._counting = threading.Condition()
        if peer:
            threading.Thread(target=self._follow, args=(peer,), daemon=True).start()

    @property
    def lag_s(self) -> float | None:
        """All that the peer had written so long ago is here; None: it was never reached."""
        if not self._peer:
            return 0.0
        whole_at = self.kept.whole_at(self._peer)
        return None if whole_at is None else max(0.0, time.time() - whole_at)

    @contextlib.contextmanager
    def counted(self, path: str) -> Iterator[None]:
        """A request that is being answered, if it is one of a client."""
        one = path.startswith(COUNTED) and path != "/queries"
        with self._counting:
            self.queries += one
        try:
            yield
        finally:
            with self._counting:
                self.queries -= one
                self._counting.notify_all()

    def finish(self) -> None:
        """Accept nothing more, and wait for what is being answered, for FINISH_S at most."""
        self.stopping = True
        self.shutdown()
        with self._counting:
            self._counting.wait_for(lambda: not self.queries, FINISH_S)

    def _follow(self, peer: str) -> None:
        while True:
            with contextlib.suppress(OSError, ValueError):
                self._fetch(peer)
            time.sleep(FETCH_S)

    def _fetch(self, peer: str) -> None:
        """Everything that the peer has written since."""
        whole = False
        while not whole:
            asked_at = time.time()
            after = self.kept.applied(peer)
            with urllib.request.urlopen(f"{peer}/log?after={after}", timeout=1) as answer:  # noqa: S310  our own URL
                log = json.load(answer)
            if log["rows"]:
                time.sleep(self.release["apply_s"])
                after = log["rows"][-1][0]
            whole = after >= log["last"]
            self.kept.apply(peer, log["rows"], asked_at if whole else None)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Store
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together

    def do_GET(self) -> None:
        with self.server.counted(self.path):
            url = urlsplit(self.path)
            if not self._told(url.path):
                self._get(url)

    def _told(self, path: str) -> bool:
        """Answers what is asked about the machine itself. Returns whether it was that."""
        server = self.server
        if path == "/health":
            self._answer(500 if server.release["sick"] else 503 if server.stopping else 200)
        elif path == "/version":
            self._answer(200, str(server.release["wrong_version"] or server.release["id"]).encode())
        elif path == "/queries":
            self._answer(200, str(server.queries).encode())
        elif path == "/lag":
            lag_s = server.lag_s
            self._answer(503 if lag_s is None else 200, b"" if lag_s is None else b"%.3f" % lag_s)
        else:
            return False
        return True

    def _get(self, url: SplitResult) -> None:
        asked = parse_qs(url.query)
        for_s = float(asked.get("for", asked.get("s", ["0"]))[0])
        if url.path.startswith("/k/"):
            value = self.server.kept.get(url.path[3:])
            self._answer(404 if value is None else 200, value or b"")
        elif url.path in ("/query", "/q"):
            time.sleep(for_s)
            self._answer(200, f"queried for {for_s:g} s".encode())
        elif url.path == "/stream":
            self._stream(for_s)
        elif url.path == "/once":
            self._answer(200, json.dumps(self.server.kept.runs()).encode())
        elif url.path == "/log":
            after = int(asked["after"][0])
            self._answer(200, json.dumps(self.server.kept.log(after)).encode())
        else:
            self._answer(200, f"{self.server.server_port} {os.getpid()}".encode())

    def do_PUT(self) -> None:
        with self.server.counted(self.path):
            self.server.kept.put(self.path[3:], self._body())
            self._answer(204)

    def do_POST(self) -> None:
        with self.server.counted("/query"):
            self._post()

    def _post(self) -> None:
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
        if self.server.stopping:
            self.send_header("Connection", "close")
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


def _release() -> dict[str, Any]:
    """What release.json beside this file says; nothing where there is none."""
    try:
        return dict(json.loads(Path(__file__).with_name("release.json").read_text()))
    except FileNotFoundError:
        return {}


def main(arguments: list[str] | None = None) -> None:
    """Serve until SIGTERM; what runs then is finished first."""
    parser = argparse.ArgumentParser(
        prog="python -m drainctl.arb.store", description="a data store for tests"
    )
    parser.add_argument("--listen", required=True, type=address, metavar="HOST:PORT")
    parser.add_argument("--file", required=True)
    parser.add_argument("--peer", metavar="URL")
    parser.add_argument("--pid", type=Path, metavar="FILE", help="written once it listens")
    options = parser.parse_args(arguments)
    told = {**SOUND, **_release()}
    if told["fail_start"]:
        sys.exit("this release does not start")
    time.sleep(told["start_s"])
    store = Store(options.listen, options.file, options.peer)
    finishing = threading.Thread(target=store.finish)

    def stop(_signal: int, _frame: FrameType | None) -> None:
        if not store.stopping:
            finishing.start()

    signal.signal(signal.SIGTERM, stop)
    if options.pid:
        options.pid.write_text(f"{os.getpid()}\n")
    with store:
        store.serve_forever(poll_interval=0.05)
        finishing.join()
    sys.exit(0)


if __name__ == "__main__":
    main()
