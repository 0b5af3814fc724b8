"""
What can befall a store machine, in real network namespaces: how long a client waits, what it does with GET
and POST, what it says when nobody answers, and what it writes on the board. Times are compared with limits,
never with each other's luck: a limit that did not hold would be minutes here.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import threading
import time

import pytest
import requests
from arb_kit import SLOW, Hostile, mended, running, watching, within

from drainctl.arb import (
    Fault,
    FileBoard,
    MaybeSent,
    MemoryBoard,
    NotSent,
    Policy,
    ReplicaSession,
    answered_by,
)
from drainctl.arb.board import Down, fault_mark
from drainctl.lab.arb_load import queries_may_repeat

pytestmark = pytest.mark.real

# A client that is not ours would wait this long for each machine that is gone.
READ_S = 60.0
POLICY = Policy(read_s=READ_S, every_s=0.3, probe_s=0.4, repeatable=queries_may_repeat)


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


def test_a_full_accept_queue_is_a_machine_that_does_not_connect(net):
    with net.inside(1), socket.create_server(("10.231.0.1", 7001), backlog=0) as full, net.inside():
        waiting = [_begin(full.getsockname()) for _ in range(4)]
        with ReplicaSession(_beside(net, 7001), policy=POLICY, probe=False) as session, within(2.0):
            assert answered_by(session.post("arb://users/", data=b"x")).startswith("10.231.0.2")
        assert only_fault(session)[1] is Fault.CONNECT_LIMIT
        for sock in waiting:
            sock.close()


def test_connecting_to_several_addresses_takes_one_limit_in_all(net, monkeypatch):
    for host in (201, 202, 203):
        net.nowhere(host)
    names = {"half.store": [201, 202, 1], "dead.store": [201, 202, 203]}
    monkeypatch.setattr(socket, "getaddrinfo", _resolver(names))
    with (
        ReplicaSession({"half": ["http://half.store:7000"]}, policy=POLICY, probe=False) as half,
        within(1.0),
    ):
        assert half.get("arb://half/").ok, "two dead addresses before the live one"
    with (
        ReplicaSession({"dead": ["http://dead.store:7000"]}, policy=POLICY, probe=False) as dead,
        within(1.9),
        pytest.raises(NotSent) as told,
    ):
        dead.post("arb://dead/", data=b"x")
    assert told.value.fault is Fault.CONNECT_LIMIT


def test_a_name_without_an_address_is_not_sent_and_marks_nobody(net, monkeypatch):
    del net
    monkeypatch.setattr(socket, "getaddrinfo", _resolver({}))
    with (
        ReplicaSession({"lost": ["http://lost.store:7000"]}, policy=POLICY, probe=False) as session,
        pytest.raises(NotSent, match="has no address") as told,
    ):
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
    with (
        ReplicaSession({"slow": ["http://slow.store:7000"]}, policy=POLICY, probe=False) as session,
        within(1.9),
        pytest.raises(NotSent, match="has no address"),
    ):
        session.get("arb://slow/")
    free.set()


def test_a_handshake_that_hangs_is_within_the_connect_limit_and_nothing_was_sent(net, certificate):
    shards = {"users": ["https://10.231.0.1:7443", "https://10.231.0.2:7443"]}
    with (
        Hostile(net, 1, 7443, _until_closed),
        _tls_store(net, 2, certificate),
        ReplicaSession(shards, policy=POLICY, probe=False) as session,
        within(2.0),
    ):
        answer = session.post("arb://users/", data=b"x", verify=str(certificate))
    assert answered_by(answer) == "10.231.0.2:7443"
    assert only_fault(session) == ("10.231.0.1:7443", Fault.TLS_LIMIT)


def test_a_certificate_that_is_not_trusted_is_not_sent_to_and_marks_nobody(net, certificate):
    with (
        _tls_store(net, 1, certificate),
        ReplicaSession({"users": ["https://10.231.0.1:7443"]}, policy=POLICY, probe=False) as session,
        pytest.raises(requests.ConnectionError) as told,
    ):
        session.post("arb://users/", data=b"x")
    assert isinstance(told.value, NotSent)
    assert told.value.fault is Fault.TLS_FAILED
    assert not session.board.down()


def test_a_frozen_machine_loses_its_queries_to_the_replica_once_a_prober_sees_it(net):
    board = MemoryBoard()
    net.machines[0].freeze()
    with ReplicaSession(net.shards, board, POLICY, probe=False) as session, watching(session, POLICY):
        with within(10.0):
            assert answered_by(session.get("arb://users/")).startswith("10.231.0.2")
        assert only_fault(session)[1] is Fault.HUNG
        assert answered_by(session.post("arb://users/", data=b"x")).startswith("10.231.0.2")


def test_a_write_at_a_frozen_machine_waits_and_runs_once(net):
    with ReplicaSession(net.shards, MemoryBoard(), POLICY, probe=False) as session, watching(session, POLICY):
        session.get("arb://users/")
        net.machines[0].freeze()
        thaw = threading.Timer(2.5, net.machines[0].thaw)
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
        session.board.mark(Down("10.231.0.1:7000", time.time(), None, "ops", "new disk", by_hand=True))
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
        answer = session.get("arb://users/" if idle else "arb://users/query?for=1")
    assert answered_by(answer).startswith("10.231.0.2")
    assert only_fault(session)[1] is Fault.VANISHED
    assert "10.231.0.1:7000" in session.board.down()
    cut.join()


def test_a_machine_that_vanishes_in_the_middle_of_an_answer_is_asked_elsewhere(net, session):
    cut = threading.Timer(0.5, net.blackhole, (1,))
    cut.start()
    with within(8.0):
        answer = session.get("arb://users/stream?for=1.0")
    cut.join()
    assert answered_by(answer).startswith("10.231.0.2")
    assert len(answer.content) == 50


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
    with watching(session, POLICY):
        answer = session.get("arb://users/query?for=2.5")
    assert answered_by(answer).startswith("10.231.0.1")
    assert not session.arb.in_flight.failed


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
    with pytest.raises(
        NotSent, match=r"users: 10.231.0.1:7000 refused .*, 10.231.0.2:7000 refused .*; nothing was sent"
    ):
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
        until(
            "a probe has lifted the mark",
            lambda: not session.board.down() or session.get("arb://users/") is None,
        )
        assert answered_by(session.get("arb://users/")).startswith("10.231.0.1")
        assert sum(session.arb.in_flight.failed.values()) == 1


def test_a_machine_that_died_while_idle_costs_nobody_anything(net, until):
    with ReplicaSession(net.shards, policy=POLICY, probe=False) as session, watching(session, POLICY):
        session.get("arb://users/")
        net.blackhole(1)
        until("the prober has seen it", session.board.down)
        assert answered_by(session.post("arb://users/", data=b"x")).startswith("10.231.0.2")
        assert not session.arb.in_flight.failed


def test_processes_that_share_a_board_pay_once_each_at_most_and_who_comes_later_nothing(net, tmp_path):
    net.blackhole(1)
    fork = multiprocessing.get_context("fork")
    told = fork.Queue()

    def ask(wait_s):
        time.sleep(wait_s)
        with ReplicaSession(net.shards, tmp_path / "board", POLICY, probe=False) as session:
            answers = [answered_by(session.post("arb://users/", data=b"x")) for _ in range(3)]
            told.put(
                (
                    answers,
                    session.arb.in_flight.lost_s,
                    [fault.name for _, fault in session.arb.in_flight.failed],
                )
            )

    for waits in ([0.0, 0.2, 0.4, 0.6], [0.0, 0.1]):
        running = [fork.Process(target=ask, args=(wait_s,)) for wait_s in waits]
        for process in running:
            process.start()
        seen = [told.get(timeout=20 * SLOW) for _ in running]
        for process in running:
            process.join()
        assert {answer for answers, _, _ in seen for answer in answers} == {"10.231.0.2:7000"}
        lost = sorted(lost_s for _, lost_s, _ in seen)
        if len(waits) == 4:
            assert [faults for _, _, faults in seen if faults == ["CONNECT_LIMIT"]], (
                "nobody met the dead machine"
            )
            assert all(len(faults) <= 1 for _, _, faults in seen)
            assert sum(lost) < 4 * lost[-1] - 0.5, (
                "who was connecting when it was found dead did not learn of it"
            )
        else:
            assert lost == [0.0, 0.0]
    told.close()
    told.join_thread()


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
