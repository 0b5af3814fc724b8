"""The async client in the same places: same rules, same board, same kinds of exceptions."""

from __future__ import annotations

import asyncio
import threading
import time

import httpx
import pytest
from arb_kit import SLOW, Hostile, mended, running

from drainctl.arb import AsyncReplicaClient, Fault, MaybeSent, MemoryBoard, NotSent, Policy, Prober, shards_of

pytestmark = pytest.mark.real

POLICY = Policy(read_s=60.0, every_s=0.3, probe_s=0.4)


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    yield from running(tmp_path_factory.mktemp("arb"))


@pytest.fixture
def net(cell):
    yield from mended(cell)


def asking(shards, use, board=None, policy=POLICY):
    """Runs `use(client)`; returns its value and (machine, fault) of every failed try."""

    async def run():
        async with AsyncReplicaClient(shards, board, policy, probe=False) as client:
            return await use(client), list(client.arb.in_flight.failed)

    return asyncio.run(run())


def by(response):
    return response.extensions["arb_machine"]


def test_parameters_cookies_and_other_urls_are_httpx_own(net):
    async def use(client):
        asked = await client.get("arb://users/query", params={"for": "0"})
        beside = await client.get(f"{net.machines[1].url}/")
        return asked.text, str(asked.url), beside.status_code

    (text, url, status), failed = asking(net.shards, use)
    assert (text, url, status, failed) == ("queried for 0 s", "arb://users/query?for=0", 200, [])


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("how", ["drops", "refuses"])
def test_a_machine_that_does_not_connect_is_paid_for_once(net, method, how):
    if how == "drops":
        net.blackhole(1)
    else:
        net.machines[0].kill()

    async def use(client):
        began = time.monotonic()
        answers = [await client.request(method, "arb://users/", content=b"x" if method == "POST" else None)]
        answers += [await client.get("arb://users/") for _ in range(5)]
        return answers, time.monotonic() - began

    (answers, took_s), failed = asking(net.shards, use)
    assert {by(answer) for answer in answers} == {"10.231.0.2:7000"}
    assert took_s < 2.0 * SLOW
    assert failed == [("10.231.0.1:7000", Fault.CONNECT_LIMIT if how == "drops" else Fault.REFUSED)]


def test_a_machine_that_vanishes_mid_read_is_given_up_in_seconds(net):
    cut = threading.Timer(0.5, net.blackhole, (1,))
    cut.start()
    began = time.monotonic()
    answer, failed = asking(net.shards, lambda client: client.get("arb://users/query?for=1"))
    cut.join()
    assert by(answer) == "10.231.0.2:7000"
    assert time.monotonic() - began < 8 * SLOW
    assert failed == [("10.231.0.1:7000", Fault.VANISHED)]


def test_a_frozen_machine_loses_its_queries_once_a_prober_sees_it(net):
    board = MemoryBoard()
    net.machines[0].freeze()
    prober = Prober(shards_of(net.shards), board, POLICY, watch=True)
    prober.start()
    answer, failed = asking(net.shards, lambda client: client.get("arb://users/"), board)
    prober.stop()
    assert by(answer) == "10.231.0.2:7000"
    assert failed == [("10.231.0.1:7000", Fault.HUNG)]


def test_a_post_whose_connection_is_closed_may_have_been_sent(net):
    with Hostile(net, 1, 7001, lambda sock: sock.recv(65536)):
        shards = {"users": ["http://10.231.0.1:7001", net.machines[1].url]}
        with pytest.raises(httpx.TransportError) as told:
            asking(shards, lambda client: client.post("arb://users/", content=b"x"))
        assert isinstance(told.value, MaybeSent)
        assert told.value.fault is Fault.CLOSED
        answer, _ = asking(shards, lambda client: client.get("arb://users/"))
        assert by(answer) == "10.231.0.2:7000"


def test_when_nobody_connects_nothing_was_sent_and_the_type_says_so(net):
    for machine in net.machines:
        machine.kill()
    with pytest.raises(httpx.ConnectError) as told:
        asking(net.shards, lambda client: client.post("arb://users/", content=b"x"))
    assert isinstance(told.value, NotSent)
    assert len(told.value.tries) == 2


def test_the_read_limit_is_the_callers(net):
    with pytest.raises(httpx.ReadTimeout) as told:
        asking(net.shards, lambda client: client.get("arb://users/query?for=20", timeout=0.3))
    assert isinstance(told.value, MaybeSent)
    assert told.value.fault is Fault.SILENT


def test_a_stream_comes_bit_by_bit(net):
    async def use(client):
        async with client.stream("GET", "arb://users/stream?for=0.5") as answer:
            began = time.monotonic()
            return [(time.monotonic() - began, part) async for part in answer.aiter_raw()]

    parts, _ = asking(net.shards, use)
    assert b"".join(part for _, part in parts) == b"".join(b"%04d\n" % at for at in range(5))
    assert parts[0][0] < parts[-1][0] - 0.2


def test_fifty_at_once_share_what_one_has_learned(net):
    net.blackhole(1)
    board = MemoryBoard()

    async def use(client):
        await client.get("arb://users/")
        return await asyncio.gather(*(client.get("arb://users/") for _ in range(50)))

    answers, failed = asking(net.shards, use, board)
    assert {by(answer) for answer in answers} == {"10.231.0.2:7000"}
    assert failed == [("10.231.0.1:7000", Fault.CONNECT_LIMIT)]
