"""The load generator must see every failure: servers that misbehave in each way, and exact counts."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from drainctl.errors import ConfigError, DrainctlError
from drainctl.lab.load import Load
from drainctl.lab.plan import Plan, stream_of
from drainctl.lab.report import Histogram, Report, Tally
from drainctl.lab.wire import Garbled, Reader

HOST = "127.0.39.1"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Release: v1\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nbusy\n"
CUT = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this"


class Server:
    """
    A server on a thread of its own whose n-th request (from 1) is answered by `behave(n, connection)`;
    connection.write, .close, .reset are all that it has. `asked` counts the requests that came.
    """

    def __init__(
        self, behave: Callable[[int, Connection], None], protocol: type[Connection] | None = None
    ) -> None:
        self.behave = behave
        self.protocol = protocol or Connection
        self.asked = 0
        self.loop = asyncio.new_event_loop()
        self.connections: set[Connection] = set()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self._run)
        self.url = ""

    def _run(self) -> None:
        async def listen() -> None:
            self.server = await self.loop.create_server(lambda: self.protocol(self), HOST, 0)
            self.url = f"http://{HOST}:{self.server.sockets[0].getsockname()[1]}"

        self.loop.run_until_complete(listen())
        self.ready.set()
        self.loop.run_forever()
        self.server.close()
        for connection in list(self.connections):
            connection.transport.abort()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def __enter__(self):
        self.thread.start()
        self.ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


class Connection(asyncio.Protocol):
    """Reads whole requests; bodies by Content-Length."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.server.connections.add(self)

    def connection_lost(self, _: Exception | None) -> None:
        self.server.connections.discard(self)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            if len(self.buffer) < end + 4 + length:
                return
            self.body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            self.server.asked += 1
            self.server.behave(self.server.asked, self)

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def close(self) -> None:
        self.transport.close()

    def reset(self) -> None:
        linger = struct.pack("ii", 1, 0)  # on, 0 s: close() sends RST
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.transport.abort()


def load(server: Server, **plan: object) -> Report:
    with_defaults = {"clients": 4, "mix": "get=1", "fresh": 0.0, "timeout_s": 5.0, **plan}
    run = Load([server.url], **with_defaults)
    return run.start().wait()


def some_of(bad: set[int], misbehave: Callable[[Connection], None]) -> Callable[[int, Connection], None]:
    return lambda number, connection: misbehave(connection) if number in bad else connection.write(OK)


def write_then(what: bytes, then: str) -> Callable[[Connection], None]:
    def act(connection: Connection) -> None:
        connection.write(what)
        getattr(connection, then)()

    return act


def nothing(_: Connection) -> None:
    """Never answer."""


BAD = {3, 50, 51, 200}
WAYS = {
    "http_503": lambda connection: connection.write(BUSY),
    "http_404": lambda connection: connection.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    "reset": Connection.reset,
    "closed": Connection.close,
    "cut": write_then(CUT, "close"),
    "garbled": write_then(b"SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n", "close"),
}


@pytest.mark.parametrize("name", WAYS)
def test_each_failure_is_counted_once_in_its_own_bin(name):
    with Server(some_of(BAD, WAYS[name])) as server:
        report = load(server, requests=400)
    assert report.bins == {"ok": 396, name: 4}
    assert (report.requests, report.failed, server.asked) == (400, 4, 400), "no request was sent twice"
    assert [one["bin"] for one in report.failures] == [name] * 4


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "cut"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "cut"),
        (b"HTTP/1.0 200 OK\r\n\r\nto the end", "ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nmore than two", "garbled"),
    ],
)
def test_an_answer_ends_where_its_framing_says(what, expected):
    with Server(some_of({2}, write_then(what, "close"))) as server:
        report = load(server, requests=4, clients=1)
    assert report.bins == Counter(["ok"] * 3 + [expected])


def test_a_reset_in_the_middle_of_an_answer_is_cut_not_reset():
    def half(connection: Connection) -> None:
        connection.write(CUT)
        connection.server.loop.call_later(0.05, connection.reset)

    with Server(some_of({2}, half)) as server:
        assert load(server, requests=4, clients=1).bins == {"ok": 3, "cut": 1}


def test_silence_is_a_timeout_and_the_connection_is_not_used_again():
    with Server(some_of({2}, nothing)) as server:
        report = load(server, requests=5, clients=1, timeout_s=0.3)
    assert report.bins == {"ok": 4, "timeout": 1}
    assert report.connections == 2
    assert 0.3 <= report.longest_s < 5


def test_a_late_client_is_silent_first_and_never_asks_on_a_connection_that_was_closed_meanwhile(until):
    with Server(some_of(set(), nothing)) as server:
        report = load(server, requests=3, clients=1, mix="late=1", late_s=0.2)
        assert report.bins == {"ok": 3}
        assert report.connections == 3
        assert report.longest_s >= 0.2

        run = Load([server.url], clients=1, requests=1, mix="late=1", late_s=0.5).start()
        until("its connection", lambda: server.connections)
        server.loop.call_soon_threadsafe(next(iter(server.connections)).close)
        assert run.wait().bins == {"ok": 1}
    assert server.asked == 4


SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (BUSY, "http_503"),
        (OK, "http_200"),
        (b"", "closed"),
        (SWITCH, "cut"),
        (SWITCH + b"Sec-WebSocket-Accept: bm8=\r\n\r\n", "garbled"),
    ],
)
def test_a_websocket_that_is_not_opened_is_counted_by_what_came_instead(what, expected):
    with Server(lambda _, connection: write_then(what, "close")(connection)) as server:
        assert load(server, requests=2, clients=1, mix="ws=1").bins == {expected: 2}


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (b"\x81\x05wrong", "wrong_body"),
        (b"\x88\x02\x03\xe9", "cut"),  # "going away", though nobody asked it to
        (b"\x81\x7e\x10\x00", "garbled"),
        (b"\x81", "cut"),
    ],
)
def test_a_websocket_that_ends_otherwise_than_by_its_client_has_failed(after, expected):
    class Echo(Connection):
        """Opens a WebSocket as RFC 6455 wants it, and answers the first message with `after`."""

        def data_received(self, data: bytes) -> None:
            if b"Sec-WebSocket-Key: " not in data:
                self.write(after)
                self.close()
                return
            key = data.partition(b"Sec-WebSocket-Key: ")[2].partition(b"\r\n")[0]
            told = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()  # noqa: S324  RFC 6455
            self.write(SWITCH + b"Sec-WebSocket-Accept: " + base64.b64encode(told) + b"\r\n\r\n")

    with Server(nothing, Echo) as server:
        assert load(server, requests=2, clients=1, mix="ws=1").bins == {expected: 2}


def test_a_websocket_that_is_not_answered_is_a_timeout_and_nobody_there_is_refused():
    with Server(some_of({1}, nothing)) as server:
        url = server.url
        assert load(server, requests=1, clients=1, mix="ws=1", timeout_s=0.3).bins == {"timeout": 1}
    assert Load([url], clients=1, requests=2, mix="ws=1").start().wait().bins == {"refused": 2}


def test_nobody_listening_is_refused():
    with Server(some_of(set(), nothing)) as server:
        url = server.url
    report = Load([url], clients=2, requests=20, mix="get=1").start().wait()
    assert report.bins == {"refused": 20}


def test_another_body_than_was_sent_is_wrong_also_when_it_is_someone_elses():
    before: list[bytes] = []

    def echo(number: int, connection: Connection) -> None:
        body = before[-1] if number == 7 else connection.body
        before.append(connection.body)
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    with Server(echo) as server:
        report = load(server, requests=30, mix="post=1")
    assert report.bins == {"ok": 29, "wrong_body": 1}


def test_the_old_version_is_wrong_only_after_the_announced_end(until):
    with Server(some_of(set(), nothing)) as server:
        run = Load([server.url], rate=200, mix="get=1").start()
        until("fifty answers", lambda: server.asked > 50)
        run.expect("v1")
        seen = server.asked
        until("fifty more", lambda: server.asked > seen + 50)
        run.expect("v2")
        seen = server.asked
        until("fifty wrong ones", lambda: server.asked > seen + 50)
        report = run.stop()
    assert report.requests == server.asked == sum(report.bins.values())
    assert report.bins["ok"] >= 100
    assert server.asked - seen - 5 <= report.bins["wrong_version"] <= server.asked - seen
    assert report.failures[0]["why"] == "v1, not v2"


def test_sigusr1_announces_the_end_and_sigterm_writes_the_report(tmp_path, until):
    with Server(some_of(set(), nothing)) as server:
        out = tmp_path / "report.json"
        argv = [sys.executable, "-m", "drainctl.lab", "load", "--url", server.url, "--rate", "200"]
        argv += ["--mix", "get=1", "--expect-version", "v2", "--json", str(out)]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        until("the load's requests", lambda: server.asked > 50)
        process.send_signal(signal.SIGUSR1)
        seen = server.asked
        until("more of them", lambda: server.asked > seen + 100)  # some were on their way as it was told
        process.send_signal(signal.SIGTERM)
        text = process.communicate(timeout=10)[0]
    report = Report.read(out.read_text())
    assert process.returncode == 1
    assert report.bins["ok"] >= 50
    assert report.bins["wrong_version"] >= 50
    assert report.requests == server.asked == sum(report.bins.values())
    assert f"{report.failed} failed" in text


def test_one_503_among_a_hundred_thousand_is_seen():
    with Server(some_of({77_777}, WAYS["http_503"])) as server:
        report = load(server, requests=100_000, clients=8)
    assert report.bins == {"ok": 99_999, "http_503": 1}
    assert server.asked == 100_000
    assert sum(second[2] for second in report.timeline) == 1


def test_a_rate_is_kept_although_answers_are_slow():
    def later(_: int, connection: Connection) -> None:
        connection.server.loop.call_later(0.5, connection.write, OK)

    with Server(later) as server:
        report = load(server, rate=100, requests=150)
    assert report.bins == {"ok": 150}
    assert report.connections > 20, "requests do not wait for one another's answers"
    assert report.late == 0


def test_a_rate_that_cannot_be_kept_fails_loudly():
    with Server(some_of(set(), nothing)) as server:
        run = Load([server.url], rate=200_000, seconds=0.5, mix="get=1").start()
        with pytest.raises(DrainctlError, match="could not keep 200000 requests/s"):
            run.wait()


def test_load_is_shared_between_urls_and_connections_are_reused():
    with Server(some_of(set(), nothing)) as one, Server(some_of(set(), nothing)) as two:
        report = Load([one.url, two.url], clients=4, requests=400, fresh=0.25, mix="get=1").start().wait()
    assert one.asked + two.asked == 400
    assert min(one.asked, two.asked) > 100
    assert 100 <= report.connections <= 110


def test_the_generator_ends_with_the_process_that_started_it(until):
    with Server(some_of(set(), nothing)) as server:
        run = Load([server.url], rate=50, mix="get=1").start()
        until("requests", lambda: server.asked > 5)
        run._process.stdin.close()  # as the kernel does when the parent dies
        report = run.wait()
    assert report.failed == 0


def test_a_plan_that_cannot_be_is_refused():
    for wrong in ({"mix": "get=x"}, {"mix": "put=1"}, {"mix": "get=0"}, {"clients": 0}, {"fresh": 2.0}):
        with pytest.raises(ConfigError):
            Plan(("http://127.0.0.1:1",), **wrong)
    for url in ("https://127.0.0.1", "127.0.0.1:80", "http://127.0.0.1/page"):
        with pytest.raises(ConfigError):
            Plan((url,))


def test_every_post_has_a_body_of_its_own():
    requests = stream_of(Plan(("http://h",), mix="post=1"), "h")
    bodies = [next(requests).body for _ in range(5000)]
    assert len(set(bodies)) == 5000
    assert all(16 <= len(body) <= 4112 for body in bodies)


def test_quantiles_are_at_most_two_percent_too_long():
    times = Histogram()
    for number in range(1, 10_001):
        times.add(number / 1000)
    for share in (0.01, 0.5, 0.9, 0.99, 0.999):
        assert 10 * share <= times.quantile(share) <= 10 * share * 1.021
    assert times.longest_s == 10


def test_a_report_survives_its_json():
    report = Tally().report(seconds=1.5, problem="none to speak of")
    assert Report.read(report.json()) == report
    assert json.loads(report.json())["failed"] == 0


# ---------------------------------------------------------------- the reader against h11

bodies = some.binary(max_size=300)
statuses = some.sampled_from([200, 201, 204, 304, 404, 500, 502, 503])
framings = some.sampled_from(["length", "chunked", "close"])


@given(
    status=statuses,
    framing=framings,
    parts=some.lists(bodies, max_size=4),
    cuts=some.lists(some.integers(0, 2000)),
)
@settings(max_examples=300, deadline=None)
def test_the_reader_reads_what_h11_reads_wherever_the_bytes_are_cut(status, framing, parts, cuts):
    wire = h11_answer(status, framing, parts)
    reader, answer = Reader(), None
    edges = [0, *sorted({cut for cut in cuts if cut < len(wire)}), len(wire)]
    for start, end in itertools.pairwise(edges):
        assert answer is None
        answer = reader.feed(wire[start:end]) if start < end else None
    answer = answer or reader.end()
    expected_status, expected_body, keep = h11_reads(wire)
    assert answer is not None
    assert (answer.status, answer.body, answer.keep) == (expected_status, expected_body, keep)


@given(junk=some.binary(min_size=1, max_size=300))
@settings(max_examples=300, deadline=None)
def test_the_reader_takes_no_junk_for_an_answer(junk):
    try:
        answer = Reader().feed(junk + b"\r\n\r\n")
    except Garbled:
        return
    assert answer is None or junk.startswith(b"HTTP/1.")


def h11_answer(status: int, framing: str, parts: list[bytes]) -> bytes:
    """Bytes of an answer as h11's server writes it."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n" if framing != "close" else b"GET / HTTP/1.0\r\n\r\n"
    )
    while server.next_event() not in (h11.NEED_DATA, h11.PAUSED) and server.their_state is not h11.DONE:
        continue
    empty = status in {204, 304}
    body = [] if empty else parts
    headers = [("Content-Length", str(sum(map(len, body))))] if framing == "length" and not empty else []
    sent = server.send(h11.Response(status_code=status, headers=headers))
    for part in body:
        sent += server.send(h11.Data(data=part))
    return sent + server.send(h11.EndOfMessage())


def h11_reads(wire: bytes) -> tuple[int, bytes, bool]:
    """Status, body, and whether the connection may be used again."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "h")]))
    client.send(h11.EndOfMessage())
    client.receive_data(wire)
    status, body = 0, b""
    while True:
        match client.next_event():
            case h11.Response() as response:
                status = response.status_code
            case h11.Data() as data:
                body += bytes(data.data)
            case h11.EndOfMessage():
                return status, body, client.their_state is h11.DONE
            case h11.NEED_DATA:
                client.receive_data(b"")
