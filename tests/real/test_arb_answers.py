"""Answers that do not come, or not whole, over new and kept connections; and bodies that are sent twice."""

from __future__ import annotations

import contextlib
import io
import time

import pytest
import requests
from arb_kit import Hostile, mended, running, within

from drainctl.arb import Fault, MaybeSent, Policy, ReplicaSession, answered_by
from drainctl.lab.arb_load import queries_may_repeat

pytestmark = pytest.mark.real

POLICY = Policy(read_s=60.0, repeatable=queries_may_repeat)


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    yield from running(tmp_path_factory.mktemp("arb"))


@pytest.fixture
def net(cell):
    yield from mended(cell)


@pytest.fixture
def session(net):
    with ReplicaSession(net.shards, policy=POLICY, probe=False) as session:
        yield session


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_kept_connection_gone_stale(net, method):
    served = []

    def once_per_connection(sock):
        for _ in range(2):
            head = sock.recv(65536)
            if not head or served.count(head[:3]) > 3:
                return
            served.append(head[:3])
            if len(served) == 2:
                return  # closes on the request, as a store does whose keep-alive limit has just passed
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with (
        Hostile(net, 1, 7001, once_per_connection),
        ReplicaSession(_beside(net, 7001), policy=POLICY) as session,
    ):
        session.get("arb://users/")
        if method == "GET":
            assert answered_by(session.get("arb://users/")) == "10.231.0.1:7001", "the machine is well"
        else:
            with pytest.raises(MaybeSent) as told:
                session.post("arb://users/", data=b"x")
            assert told.value.fault is Fault.CLOSED
            assert len(served) == 2, "it was sent again"
        assert not session.board.down()


def test_a_kept_connection_that_was_idle_for_too_long_is_not_used(net):
    connections = []

    def count(sock):
        connections.append(1)
        while sock.recv(65536):
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    policy = Policy(keep_s=0.0)
    with Hostile(net, 1, 7001, count), ReplicaSession(_beside(net, 7001), policy=policy) as session:
        for _ in range(3):
            session.post("arb://users/", data=b"x")
    assert len(connections) == 3


@pytest.mark.parametrize(
    ("answer", "fault"),
    [(b"", Fault.CLOSED), (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", Fault.CUT)],
    ids=["closes", "cut short"],
)
def test_an_answer_that_does_not_come_whole(net, answer, fault):
    def serve(sock):
        sock.recv(65536)
        sock.sendall(answer)

    with (
        Hostile(net, 1, 7001, serve),
        ReplicaSession(_beside(net, 7001), policy=POLICY, probe=False) as session,
    ):
        assert answered_by(session.get("arb://users/")).startswith("10.231.0.2")
        with pytest.raises(MaybeSent) as told:
            session.post("arb://users/", data=b"x")
        assert told.value.fault is fault
        assert isinstance(told.value, requests.exceptions.ChunkedEncodingError) == (fault is Fault.CUT)
        said_so = session.post("arb://users/", data=b"x", headers={"Idempotency-Key": "7"})
        assert answered_by(said_so).startswith("10.231.0.2")


def test_the_read_limit_is_the_callers_word_and_nobody_is_asked_instead(net, session):
    del net
    with within(3.0), pytest.raises(requests.ReadTimeout) as told:
        session.get("arb://users/query?for=30", timeout=0.3)
    assert isinstance(told.value, MaybeSent)
    assert len(told.value.tries) == 1
    assert not session.board.down()


def test_a_long_upload_is_not_held_to_the_connect_limit(net):
    """urllib3 itself holds each send to it."""
    got = []

    def read_late(sock):
        sock.recv(1)
        time.sleep(1.6)
        sock.settimeout(5)
        while not b"".join(got[-2:]).endswith(b"end"):
            got.append(sock.recv(1 << 20))
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with (
        Hostile(net, 1, 7001, read_late),
        ReplicaSession(_beside(net, 7001), policy=POLICY, probe=False) as session,
    ):
        assert session.post("arb://users/", data=b"x" * (32 << 20) + b"end").ok
        assert not session.arb.in_flight.failed


def test_bodies_go_to_the_replica_whole(net, session):
    net.machines[0].kill()

    def parts():
        yield b"one "
        yield b"two"

    for body in (b"one two", io.BytesIO(b"one two"), parts()):
        session.board.lift("10.231.0.1:7000")
        answer = session.post("arb://users/echo", data=body)
        assert answer.content == b"one two"
        assert answered_by(answer).startswith("10.231.0.2")


def test_a_file_is_rewound_and_an_iterator_that_was_read_is_not_sent_again(net):
    def swallow(sock):
        sock.recv(65536)
        sock.settimeout(0.2)
        with contextlib.suppress(TimeoutError):
            while sock.recv(65536):
                pass

    again = {"Idempotency-Key": "1"}
    with (
        Hostile(net, 1, 7001, swallow),
        ReplicaSession(_beside(net, 7001), policy=POLICY, probe=False) as session,
    ):
        file = io.BytesIO(b"skipped one two")
        file.seek(8)
        assert session.post("arb://users/echo", data=file, headers=again).content == b"one two"
        with pytest.raises(MaybeSent):
            session.post("arb://users/echo", data=iter([b"one", b"two"]), headers=again)


def _beside(net, port):
    """A shard whose first machine is machine 1 at another port."""
    return {"users": [f"http://10.231.0.1:{port}", net.machines[1].url]}
