"""
What can befall a store machine, in real network namespaces: how long a client waits, what it does with GET and
POST, what it says when nobody answers, and what it writes on the board. Times are compared with limits, never
with each other's luck: a limit that did not hold would be minutes here.
"""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import time

import pytest
import requests
from arb_kit import SLOW, Hostile, Net, need_namespaces, queries_may_repeat, until_answers

from drainctl.arb import Fault, FileBoard, MaybeSent, MemoryBoard, NotSent, Policy, Prober, ReplicaSession, answered_by
from drainctl.arb.board import Down, fault_mark

pytestmark = pytest.mark.real

# A client that is not ours would wait this long for each machine that is gone.
READ_S = 60.0
POLICY = Policy(read_s=READ_S, repeatable=queries_may_repeat)


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    need_namespaces()
    net = Net(tmp_path_factory.mktemp("arb"), machines=2)
    try:
        net.up()
        net.start()
        yield net
    finally:
        net.down()


@pytest.fixture
def net(cell):
    with cell.inside():
        yield cell
        for at, machine in enumerate(cell.machines, 1):
            cell.restore(at)
            machine.thaw()
            if not machine.pid:
                machine.start()
            until_answers(machine.url)


@pytest.fixture
def session(net):
    with ReplicaSession(net.shards, policy=POLICY, probe=False) as session:
        yield session


@contextlib.contextmanager
def within(limit_s):
    """The block takes no longer, stretched on slow machines."""
    began = time.monotonic()
    yield
    took_s = time.monotonic() - began
    assert took_s < limit_s * SLOW, f"took {took_s:.2f} s"


def only_fault(session):
    ((machine, fault),) = session.arb.in_flight.failed
    return machine, fault


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_machine_that_drops_packets_costs_one_connect_limit_and_then_nothing(net, session, method):
    net.blackhole(1)
    with within(2.0):
        first = session.request(method, "arb://users/", data=b"x" if method == "POST" else None)
    assert answered_by(first) == session.arb.shards["users"].machines[1].name
    assert only_fault(session)[1] is Fault.CONNECT_LIMIT
    lost_s = session.arb.in_flight.lost_s
    for _ in range(20):
        session.get("arb://users/")
    assert session.arb.in_flight.lost_s == lost_s, "somebody paid again"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_machine_that_refuses_is_left_at_once_and_marked(net, session, method):
    net.machines[0].kill()
    answer = session.request(method, "arb://users/", data=b"x" if method == "POST" else None)
    assert answered_by(answer).startswith("10.231.0.2")
    assert session.board.down()["10.231.0.1:7000"].why.startswith("refused the connection")


def test_a_full_accept_queue_is_a_machine_that_does_not_connect(net, session):
    with net.inside(1), socket.create_server(("10.231.0.1", 7001), backlog=0) as full:
        with net.inside():
            waiting = [_begin(full.getsockname()) for _ in range(4)]
            with ReplicaSession(_beside(net, 7001), policy=POLICY, probe=False) as session, within(2.0):
                assert answered_by(session.post("arb://users/", data=b"x")).startswith("10.231.0.2")
            assert only_fault(session)[1] is Fault.CONNECT_LIMIT
            for sock in waiting:
                sock.close()


def test_connecting_to_several_addresses_takes_one_limit_in_all(net, session, monkeypatch):
    for host in (201, 202, 203):
        net.nowhere(host)
    names = {"half.store": [201, 202, 1], "dead.store": [201, 202, 203]}
    monkeypatch.setattr(socket, "getaddrinfo", _resolver(names))
    with ReplicaSession({"half": ["http://half.store:7000"]}, policy=POLICY, probe=False) as half, within(1.0):
        assert half.get("arb://half/").ok, "two dead addresses before the live one"
    with ReplicaSession({"dead": ["http://dead.store:7000"]}, policy=POLICY, probe=False) as dead:
        with within(1.9), pytest.raises(NotSent) as told:
            dead.post("arb://dead/", data=b"x")
    assert told.value.fault is Fault.CONNECT_LIMIT


def test_a_name_without_an_address_is_not_sent_and_marks_nobody(net, monkeypatch):
    del net
    monkeypatch.setattr(socket, "getaddrinfo", _resolver({}))
    with ReplicaSession({"lost": ["http://lost.store:7000"]}, policy=POLICY, probe=False) as session:
        with pytest.raises(NotSent, match="has no address") as told:
            session.post("arb://lost/", data=b"x")
    assert told.value.fault is Fault.NO_NAME
    assert not session.board.down()


def test_a_resolver_that_hangs_costs_the_connect_limit(net, monkeypatch):
    del net
    free = threading.Event()

    def hang(*_args, **_kwargs):
        free.wait(30)
        raise socket.gaierror(-3, "no")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with ReplicaSession({"slow": ["http://slow.store:7000"]}, policy=POLICY, probe=False) as session:
        with within(1.9), pytest.raises(NotSent, match="has no address"):
            session.get("arb://slow/")
    free.set()


def test_a_handshake_that_hangs_is_within_the_connect_limit_and_nothing_was_sent(net, certificate):
    shards = {"users": ["https://10.231.0.1:7443", "https://10.231.0.2:7443"]}
    with Hostile(net, 1, 7443, _until_closed):
        with _tls_store(net, 2, certificate), ReplicaSession(shards, policy=POLICY, probe=False) as session:
            with within(2.0):
                answer = session.post("arb://users/", data=b"x", verify=str(certificate))
    assert answered_by(answer) == "10.231.0.2:7443"
    assert only_fault(session) == ("10.231.0.1:7443", Fault.TLS_LIMIT)


def test_a_certificate_that_is_not_trusted_is_not_sent_to_and_marks_nobody(net, certificate):
    with _tls_store(net, 1, certificate):
        with ReplicaSession({"users": ["https://10.231.0.1:7443"]}, policy=POLICY, probe=False) as session:
            with pytest.raises(requests.ConnectionError) as told:
                session.post("arb://users/", data=b"x")
    assert isinstance(told.value, NotSent)
    assert told.value.fault is Fault.TLS_FAILED
    assert not session.board.down()


def test_a_frozen_machine_loses_its_queries_to_the_replica_once_a_prober_sees_it(net):
    board = MemoryBoard()
    net.machines[0].freeze()
    with ReplicaSession(net.shards, board, POLICY, probe=False) as session, _watching(session):
        with within(10.0):
            assert answered_by(session.get("arb://users/")).startswith("10.231.0.2")
        assert only_fault(session)[1] is Fault.HUNG
        assert answered_by(session.post("arb://users/", data=b"x")).startswith("10.231.0.2")


def test_a_write_at_a_frozen_machine_waits_and_runs_once(net):
    with ReplicaSession(net.shards, MemoryBoard(), POLICY, probe=False) as session, _watching(session):
        session.get("arb://users/")
        net.machines[0].freeze()
        thaw = threading.Timer(5.0, net.machines[0].thaw)
        thaw.start()
        answer = session.post("arb://users/once/frozen", data=b"x")
        thaw.join()
        assert answered_by(answer).startswith("10.231.0.1")
        assert "10.231.0.1:7000" in session.board.down(), "the prober saw nothing: this proves nothing"
        assert [_runs(net, at).get("frozen") for at in (1, 2)] == [1, None]


def test_what_was_taken_down_by_hand_finishes_its_queries_and_gets_no_new_ones(net):
    with ReplicaSession(net.shards, policy=POLICY, probe=False) as session:
        answers = []
        asking = threading.Thread(target=lambda: answers.append(session.get("arb://users/query?for=1.5")))
        asking.start()
        until_busy(session)
        session.board.mark(Down("10.231.0.1:7000", time.time(), None, "ann", "new disk", by_hand=True))
        assert answered_by(session.get("arb://users/")).startswith("10.231.0.2")
        asking.join()
        assert answered_by(answers[0]).startswith("10.231.0.1")


@pytest.mark.parametrize("idle", [True, False], ids=["pooled, idle", "mid-read"])
def test_a_machine_that_vanishes_under_a_connection_is_given_up_in_seconds(net, session, idle):
    session.get("arb://users/")
    cut = threading.Timer(0.0 if idle else 0.5, net.blackhole, (1,))
    cut.start()
    if idle:
        cut.join()
    with within(6.0):
        answer = session.get("arb://users/" if idle else "arb://users/query?for=2")
    assert answered_by(answer).startswith("10.231.0.2")
    assert only_fault(session)[1] is Fault.VANISHED
    assert "10.231.0.1:7000" in session.board.down()
    cut.join()


def test_a_machine_that_vanishes_in_the_middle_of_an_answer_is_asked_elsewhere(net, session):
    cut = threading.Timer(0.5, net.blackhole, (1,))
    cut.start()
    with within(8.0):
        answer = session.get("arb://users/stream?for=1.5")
    cut.join()
    assert answered_by(answer).startswith("10.231.0.2")
    assert len(answer.content) == 75


def test_a_write_at_a_machine_that_vanished_says_that_it_may_have_been_sent(net, session):
    session.get("arb://users/")
    net.blackhole(1)
    with within(6.0), pytest.raises(requests.ConnectionError) as told:
        session.post("arb://users/once/vanished", data=b"x")
    assert isinstance(told.value, MaybeSent)
    assert told.value.fault is Fault.VANISHED
    assert "vanished" not in _runs(net, 2)


def test_a_long_query_is_not_taken_for_a_dead_machine(net, session):
    del net
    with _watching(session):
        answer = session.get("arb://users/query?for=4")
    assert answered_by(answer).startswith("10.231.0.1")
    assert not session.arb.in_flight.failed


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

    with Hostile(net, 1, 7001, once_per_connection), ReplicaSession(_beside(net, 7001), policy=POLICY) as session:
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

    with Hostile(net, 1, 7001, serve), ReplicaSession(_beside(net, 7001), policy=POLICY, probe=False) as session:
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

    with Hostile(net, 1, 7001, read_late), ReplicaSession(_beside(net, 7001), policy=POLICY, probe=False) as session:
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
    with Hostile(net, 1, 7001, swallow), ReplicaSession(_beside(net, 7001), policy=POLICY, probe=False) as session:
        file = io.BytesIO(b"skipped one two")
        file.seek(8)
        assert session.post("arb://users/echo", data=file, headers=again).content == b"one two"
        with pytest.raises(MaybeSent):
            session.post("arb://users/echo", data=iter([b"one", b"two"]), headers=again)


def test_who_is_connecting_when_another_finds_the_machine_dead_need_not_wait(net, tmp_path):
    net.blackhole(1)
    path = tmp_path / "board"
    policy = Policy(connect_s=10.0)
    with ReplicaSession(net.shards, path, policy, probe=False) as session:
        board = FileBoard(path)
        tell = threading.Timer(0.5, board.mark, (fault_mark("10.231.0.1:7000", "refused", 60),))
        tell.start()
        with within(3.0):
            assert answered_by(session.post("arb://users/", data=b"x")).startswith("10.231.0.2")
        tell.join()
        board.close()
        assert only_fault(session)[1] is Fault.LEARNED
        session.board.close()


def test_rather_than_fail_whoever_is_marked_down_is_asked(net, session):
    for at in (1, 2):
        session.board.mark(fault_mark(f"10.231.0.{at}:7000", "refused", 60))
    assert session.get("arb://users/").ok
    assert len(session.board.down()) == 2, "only a probe brings a machine back"
    for machine in net.machines:
        machine.kill()
    with pytest.raises(NotSent, match=r"users: 10.231.0.1:7000 refused .*, 10.231.0.2:7000 refused .*; nothing was sent"):
        session.post("arb://users/", data=b"x")


def test_a_board_that_cannot_be_read_or_written_stops_nobody(net, tmp_path):
    path = tmp_path / "board"
    path.mkdir()
    net.machines[0].kill()
    with ReplicaSession(net.shards, path, POLICY, probe=False) as session:
        for _ in range(3):
            assert session.post("arb://users/", data=b"x").ok
        assert sum(session.arb.in_flight.failed.values()) == 1, "this process has not forgotten"


def test_a_machine_comes_back_by_a_probe_and_no_request_tried(net, until):
    with ReplicaSession(net.shards, policy=POLICY) as session:
        net.blackhole(1)
        session.get("arb://users/")
        net.restore(1)
        until("a probe has lifted the mark", lambda: not session.board.down() or session.get("arb://users/") is None)
        assert answered_by(session.get("arb://users/")).startswith("10.231.0.1")
        assert sum(session.arb.in_flight.failed.values()) == 1


def test_a_machine_that_died_while_idle_costs_nobody_anything(net, until):
    with ReplicaSession(net.shards, policy=POLICY, probe=False) as session, _watching(session):
        session.get("arb://users/")
        net.blackhole(1)
        until("the prober has seen it", session.board.down)
        assert answered_by(session.post("arb://users/", data=b"x")).startswith("10.231.0.2")
        assert not session.arb.in_flight.failed


@contextlib.contextmanager
def _watching(session):
    prober = Prober(session.arb.shards, session.board, POLICY, watch=True)
    prober.start()
    try:
        yield prober
    finally:
        prober.stop()


def until_busy(session):
    deadline = time.monotonic() + 5 * SLOW
    while not any(one.sent for one in session.arb.in_flight._attempts.copy()):
        assert time.monotonic() < deadline, "no request was sent"
        time.sleep(0.01)


def _beside(net, port):
    """A shard whose first machine is machine 1 at another port."""
    return {"users": [f"http://10.231.0.1:{port}", net.machines[1].url]}


def _runs(net, at):
    return requests.get(f"{net.machines[at - 1].url}/once", timeout=10).json()


def _begin(where):
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex(where)
    return sock


def _until_closed(sock):
    while sock.recv(65536):
        pass


def _resolver(names):
    def look_up(host, port, *_args, **_kwargs):
        if host not in names:
            raise socket.gaierror(-2, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"10.231.0.{at}", port)) for at in names[host]]

    return look_up


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    from arb_kit import self_signed

    return self_signed(tmp_path_factory.mktemp("tls"), ["10.231.0.1", "10.231.0.2"])


def _tls_store(net, at, certificate):
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve(sock):
        with contextlib.suppress(OSError), context.wrap_socket(sock, server_side=True) as spoken:
            while spoken.recv(65536):
                spoken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    return Hostile(net, at, 7443, serve)
