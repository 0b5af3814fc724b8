"""
The load generator's loop: asks as planned and counts what becomes of every request. It never asks twice.

`python -m drainctl.lab.generator PLAN.json-text` runs it as a process of its own for `drainctl.lab.load`:
lines on stdin tell it (`expect v2`, `stop`; the end of stdin stops it too, so it never outlives who started
it), lines on stdout answer (`started`, `expecting v2`, at last the report as one line of JSON).
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator

from drainctl.lab.client import Connection, End, connect
from drainctl.lab.plan import Plan, Request, stream_of, targets
from drainctl.lab.report import Outcome, Report, Tally
from drainctl.lab.websocket import talk

LATE_S = 0.1  # a request sent later than this after its time is late
LATE_SHARE = 0.01  # more late ones than this, and the run was not what it claims to be
IDLE_MAX_S = 10.0  # as browsers and pools do: no request on a connection that idled longer
OPEN_MAX = 2000  # connections at once in an open loop


class Generator:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tally = Tally()
        self.targets = targets(plan.urls)
        self.requests: Iterator[Request] = stream_of(plan, "shop")
        self.free: list[list[Connection]] = [[] for _ in self.targets]
        self.stopping = asyncio.Event()
        self.expected = b""
        self.started = 0
        self.connections = 0
        self.late = 0
        self.latest_s = 0.0
        self.lag_s = 0.0
        self.fresh_debt = 0.0
        self.seconds = 0.0  # from the first request's start to the last one's
        self.began = time.monotonic()

    async def run(self) -> Report:
        """Ask until an end is reached, then wait for what is in flight: every request has its outcome."""
        gc.freeze()
        self.began = time.monotonic()
        watch = asyncio.create_task(self._watch())
        await (self._open_loop() if self.plan.rate else self._closed_loop())
        watch.cancel()
        for connection in [one for kept in self.free for one in kept]:
            connection.drop()
        used = os.times()
        return self.tally.report(
            seconds=self.seconds,
            connections=self.connections,
            late=self.late,
            latest_s=self.latest_s,
            lag_s=self.lag_s,
            cpu_s=used.user + used.system,
            problem=self._problem(),
        )

    def stop(self) -> None:
        """Start no further request."""
        self.stopping.set()

    def expect(self, version: str) -> None:
        """From now on, a request that is started must be answered by this version alone."""
        self.expected = version.encode()

    # ------------------------------------------------------------ when to ask

    async def _closed_loop(self) -> None:
        await asyncio.gather(*(self._client(number) for number in range(self.plan.clients)))

    async def _client(self, number: int) -> None:
        while not self._ended():
            self._note_start(0.0)
            await self._one(time.monotonic(), (number + self.started) % len(self.targets))

    async def _open_loop(self) -> None:
        room = asyncio.Semaphore(OPEN_MAX)
        async with asyncio.TaskGroup() as flying:
            while not self._ended():
                due = self.began + self.started / self.plan.rate
                wait_s = due - time.monotonic()
                if wait_s > 0:
                    await asyncio.sleep(wait_s)
                    continue
                await room.acquire()
                self._note_start(time.monotonic() - due)
                task = flying.create_task(self._one(due, self.started % len(self.targets)))
                task.add_done_callback(lambda _: room.release())
                await asyncio.sleep(0)  # let it be sent before the next one is looked at

    def _ended(self) -> bool:
        plan = self.plan
        return (
            self.stopping.is_set()
            or bool(plan.requests and self.started >= plan.requests)
            or bool(plan.seconds and time.monotonic() - self.began >= plan.seconds)
        )

    def _note_start(self, late_s: float) -> None:
        self.started += 1
        self.seconds = time.monotonic() - self.began
        self.late += late_s > LATE_S
        self.latest_s = max(self.latest_s, late_s)

    async def _watch(self) -> None:
        """How long this process itself is held up: a longest time below that says nothing of the servers."""
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.05)
            self.lag_s = max(self.lag_s, time.monotonic() - before - 0.05)

    def _problem(self) -> str | None:
        if self.tally.bins.total() != self.started:
            return f"{self.started} requests were started, but {self.tally.bins.total()} have an outcome"
        if self.tally.bins["not_sent"]:
            return f"{self.tally.bins['not_sent']} requests could not be sent by this machine"
        if self.late > LATE_SHARE * self.started:
            return (
                f"it could not keep {self.plan.rate:g} requests/s: {self.late} of {self.started} were sent "
                f"more than {LATE_S:g} s late, the worst {self.latest_s:.2f} s"
            )
        return None

    # ------------------------------------------------------------ one request

    async def _one(self, due: float, target: int) -> None:
        plan, (url, host, port) = self.plan, self.targets[target]
        request, expected = next(self.requests), self.expected
        if request.kind == "ws":
            self.connections += 1
            end, reused = await talk(host, port, plan.ws_s, plan.timeout_s), False
        else:
            end, reused = await self._ask(request, target)
        now = time.monotonic()
        version = end.answer.headers.get(b"x-release", b"") if end.answer else b""
        name, why = _judge(end, request, expected, version)
        self.tally.add(
            Outcome(
                name, request.kind, url, now - self.began, now - due, reused, version.decode("latin-1"), why
            )
        )

    async def _ask(self, request: Request, target: int) -> tuple[End, bool]:
        """How a request ended, and whether its connection was used before."""
        plan, (_, host, port) = self.plan, self.targets[target]
        kept = None if request.kind == "late" else self._kept(target)
        taken = kept or await connect(host, port, plan.timeout_s)
        if request.kind == "late" and isinstance(taken, Connection):
            await asyncio.sleep(plan.late_s)
            if not taken.usable:  # closed before anything was sent on it: nothing is lost, a new one serves
                taken = await connect(host, port, plan.timeout_s)
        if isinstance(taken, End):
            return taken, False
        reused = taken.uses > 0
        self.connections += not reused
        end = await taken.ask(request.data, plan.timeout_s)
        if taken.usable:
            self.free[target].append(taken)
        return end, reused

    def _kept(self, target: int) -> Connection | None:
        """A connection that was used before, or None where a new one is due."""
        self.fresh_debt += self.plan.fresh
        free = self.free[target]
        if self.fresh_debt >= 1:
            self.fresh_debt -= 1
            if free:
                free.pop().drop()
            return None
        while free:
            connection = free.pop()
            if connection.usable and time.monotonic() - connection.idle_since < IDLE_MAX_S:
                return connection
            connection.drop()
        return None


def _judge(end: End, request: Request, expected: bytes, version: bytes) -> tuple[str, str]:
    """The one bin that a request falls into, and why."""
    answer = end.answer
    if answer is None:
        return end.bin, end.why
    if not (answer.status == 101 if request.kind == "ws" else 200 <= answer.status < 300):
        return f"http_{answer.status}", " ".join(answer.body[:200].decode("latin-1").split())[:80]
    if expected and version != expected:
        return "wrong_version", f"{version.decode('latin-1') or 'none'}, not {expected.decode('latin-1')}"
    if request.body is not None and answer.body != request.body:
        return "wrong_body", f"{len(answer.body)} bytes came back, not the {len(request.body)} that were due"
    return "ok", ""


async def play(plan: Plan, each_second: Callable[[Tally, float], None] | None = None) -> Report:
    """Run a plan in this process: SIGTERM and SIGINT end it, SIGUSR1 begins to expect `plan.expect`."""
    generator, loop = Generator(plan), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, generator.stop)
    loop.add_signal_handler(signal.SIGUSR1, generator.expect, plan.expect)
    ticking = asyncio.create_task(_tick(generator, each_second)) if each_second else None
    report = await generator.run()
    if ticking:
        ticking.cancel()
    return report


async def _tick(generator: Generator, each_second: Callable[[Tally, float], None]) -> None:
    while True:
        await asyncio.sleep(1)
        each_second(generator.tally, time.monotonic() - generator.began)


async def _serve(plan: Plan) -> Report:
    """`play`, told by lines on stdin."""
    generator, loop = Generator(plan), asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, generator.stop)

    async def listen() -> None:
        while line := (await lines.readline()).decode().split():
            if line[0] == "expect":
                generator.expect(line[1])
                _say(f"expecting {line[1]}")
            else:
                break
        generator.stop()

    listening = asyncio.create_task(listen())
    _say("started")
    report = await generator.run()
    listening.cancel()
    return report


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    _say(asyncio.run(_serve(Plan(**{**told, "urls": tuple(told["urls"])}))).json())
