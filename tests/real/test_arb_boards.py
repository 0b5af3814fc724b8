"""Boards that all machines share: real PostgreSQL, real etcd, and what happens while these are away."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time

import pytest
from arb_kit import SLOW, within
from click.testing import CliRunner
from store_kit import etcd, postgres

from drainctl.arb import Policy, ReplicaSession, answered_by, board_of
from drainctl.arb.board import Down, fault_mark
from drainctl.arb.commands import arb
from drainctl.arb.stores import Stores

pytestmark = pytest.mark.real

KINDS = ("postgresql", "etcd")


class Server:
    """A store of boards, whatever it is. away and back: as if its machine had stopped, and went on."""

    def __init__(self, kind, server):
        self.kind = kind
        self._server = server
        self._members = [server] if kind == "postgresql" else server.members

    def board(self, name):
        """The address of a board that nobody used before."""
        if self.kind == "etcd":
            return self._server.url(name)
        return (
            f"postgresql://{self._server.user}@{self._server.host}:{self._server.port}/postgres?board={name}"
        )

    def away(self):
        for member in self._members:
            member.freeze()

    def back(self):
        for member in self._members:
            member.thaw()
        if self.kind == "etcd":
            self._server.wait()


@pytest.fixture(scope="module", params=KINDS)
def server(request):
    with postgres() if request.param == "postgresql" else etcd() as running:
        yield Server(request.param, running)


@pytest.fixture
def address(server, request):
    yield server.board("".join(letter for letter in request.node.name if letter.isalnum()))
    server.back()


@pytest.fixture
def machines(address):
    """The board as two machines have it."""
    pair = board_of(address), board_of(address)
    yield pair
    for board in pair:
        board.close()


def test_what_one_machine_says_all_know_within_two_seconds(machines):
    one, other = machines
    one.mark(Down("a:1", time.time(), time.time() + 60, "ops@control", "v2", by_hand=True, rollout="r7"))
    with within(2.0):
        while not other.down():
            time.sleep(0.01)
    assert other.down() == one.down()
    assert other.down()["a:1"].rollout == "r7"
    other.mark(fault_mark("a:1", "refused", 60))
    other.lift("a:1")
    assert other.written(5 * SLOW)
    assert other.down()["a:1"].by_hand, "no fault and no probe changes what a rollout said"
    other.lift("a:1", by_hand=True)
    with within(2.0):
        while one.down():
            time.sleep(0.01)


def test_writers_do_not_lose_each_others_marks(address, until):
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_mark_ten, args=(address, at)) for at in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    board = board_of(address)
    until("all marks are there", lambda: len(board.down()) == 40)
    board.close()


def _mark_ten(address, at):
    board = board_of(address)
    for name in range(10):
        board.mark(fault_mark(f"m{at}-{name}:1", "refused", 60))
        time.sleep(0.01)
    written = board.written(20 * SLOW)
    board.close()
    os._exit(0 if written else 1)


def test_a_store_that_does_not_answer_holds_no_request_up(server, machines, until):
    one, other = machines
    one.mark(fault_mark("a:1", "refused", 60))
    until("both know", other.down)
    server.away()
    until("it is noticed", lambda: one.trouble, 10)
    with within(0.2):
        for _ in range(100):
            assert "a:1" in one.down()
        one.mark(fault_mark("b:2", "refused", 60))
        one.lift("a:1")
        assert list(one.down()) == ["b:2"]
        assert one.probing(watch=False)
        one.rest(watch=False)
    assert not one.written(0.05)
    server.back()
    until("what was said meanwhile is written", lambda: list(other.down()) == ["b:2"], 20)
    assert one.written(10 * SLOW)
    assert not one.trouble


def test_one_prober_of_all_machines_and_another_when_it_dies(address, machines, until):
    one, _ = machines
    spawn = multiprocessing.get_context("spawn")
    parent, child = spawn.Pipe()
    prober = spawn.Process(target=_probe_until_killed, args=(address, child))
    prober.start()
    assert parent.poll(20 * SLOW), "the other process never was the prober"
    for _ in range(20):
        assert not one.probing(watch=False)
        time.sleep(0.05)
    os.kill(prober.pid, signal.SIGKILL)
    prober.join()
    for end in (parent, child):
        end.close()
    until("the one that is left probes", lambda: one.probing(watch=False), 20)


def _probe_until_killed(address, told):
    board = board_of(address)
    while not board.probing(watch=False):
        time.sleep(0.01)
    told.send("probing")
    time.sleep(600)


def test_a_dead_machine_is_paid_for_by_one_machine_only(tmp_path, address, until):
    policy = Policy(probe_path="/health", hold_s=30)
    with Stores(tmp_path, "127.0.110") as stores:
        shards = stores.shards
        with (
            ReplicaSession(shards, address, policy, probe=False) as here,
            ReplicaSession(shards, address, policy, probe=False) as there,
        ):
            stores.machines[0].kill()
            assert answered_by(here.post("arb://users/", data=b"x")) == stores.machines[1].listen
            until("the other machine knows", there.board.down)
            assert answered_by(there.post("arb://users/", data=b"x")) == stores.machines[1].listen
            assert sum(here.arb.in_flight.failed.values()) == 1
            assert not there.arb.in_flight.failed


def test_commands_take_the_address_of_such_a_board(address):
    def run(*words):
        return CliRunner().invoke(arb, [*words, "--board", address], catch_exceptions=False).output

    assert run("down", "a:1", "--why", "new disk") == "a:1 is down until `drainctl arb up a:1`\n"
    assert "new disk" in run("status")
    assert run("up", "a:1") == "a:1 is up\n"
    assert run("status") == "nobody is down\n"
