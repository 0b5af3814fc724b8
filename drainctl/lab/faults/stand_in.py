"""
A process that stands in for something that went wrong, in the background until it is ended.

    python -m drainctl.lab.faults.stand_in PIDFILE mute unix:PATH        accepts, and never answers
                                                   full HOST PORT        does not even accept
                                                   late HOST PORT TO S   passes on to port TO, S seconds late
                                                   get HOST PORT S N     N requests that take S seconds
                                                   ws HOST PORT S N      N WebSockets that live S seconds
                                                   stay HOST PORT S N    N clients with a cookie, S seconds
                                                   h2 HOST PORT S N      N connections of HTTP/2, S seconds

It returns when it is ready and goes on as a daemon. PIDFILE gets its pid and start time; clients write
what became of them beside it, as PIDFILE's name with .said.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from drainctl.lab.processes import started_at

FILLERS = 8  # connections that wait in a backlog of one: the kernel drops every further SYN (tcp(7))
CHUNK = 65536
LONGEST_S = 600.0
PAUSE_S = 0.02  # of a client between two requests
WELL = "answered to the end"
H2_PAGE_S = 0.1
GoOn = Callable[[], object]


def main() -> None:
    pidfile, what, *words = sys.argv[1:]
    listeners: dict[str, Callable[..., GoOn]] = {"mute": mute, "full": full, "late": late}
    clients: dict[str, Callable[..., GoOn]] = {"get": get, "ws": ws, "stay": stay, "h2": h2}
    go_on = listeners[what](*words) if what in listeners else clients[what](pidfile, *words)
    _become_daemon(Path(pidfile))
    go_on()


def _become_daemon(pidfile: Path) -> None:
    """The child goes on; whoever started us sees us end once the pid file is there."""
    child = os.fork()
    if child:
        pidfile.write_text(f"{child} {started_at(child)}\n")
        os._exit(0)
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)


# ---------------------------------------------------------------- listeners


def mute(address: str) -> GoOn:
    """The kernel accepts for us, and nobody reads."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address.removeprefix("unix:"))
    listener.listen(512)
    return lambda: _hold(listener)


def full(host: str, port: str) -> GoOn:
    """A backlog that is full: to who connects, packets seem to get lost, as behind a dead machine."""
    listener = _listener(host, port, 0)
    waiting = []
    for _ in range(FILLERS):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex((host, int(port)))
        waiting.append(filler)
    return lambda: _hold(listener, *waiting)


def _hold(*sockets: socket.socket) -> None:
    """They stay open for as long as this process lives."""
    while sockets:
        signal.pause()


def late(host: str, port: str, to: str, seconds: str) -> GoOn:
    """Each byte comes through, `seconds` later in each direction."""
    listener = _listener(host, port, 128)

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(host, int(to))
        await asyncio.gather(_carry(reader, back, float(seconds)), _carry(there, writer, float(seconds)))

    async def serve() -> None:
        server = await asyncio.start_server(pass_on, sock=listener)
        await server.serve_forever()

    return lambda: asyncio.run(serve())


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """What is read is written when its time has come, while more is read."""
    due: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def read() -> None:
        part = b"-"
        while part:
            try:
                part = await reader.read(CHUNK)
            except OSError:
                part = b""
            await due.put((time.monotonic() + seconds, part))

    async def write() -> None:
        while True:
            at, part = await due.get()
            await asyncio.sleep(max(0.0, at - time.monotonic()))
            if not part:
                writer.close()
                return
            writer.write(part)

    await asyncio.gather(read(), write())


def _listener(host: str, port: str, backlog: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, int(port)))
    listener.listen(backlog)
    return listener


# ---------------------------------------------------------------- clients


def get(pidfile: str, host: str, port: str, seconds: str, count: str) -> GoOn:
    """The requests are sent before this returns."""
    import http.client

    links = [http.client.HTTPConnection(host, int(port), timeout=LONGEST_S) for _ in range(int(count))]
    for link in links:
        link.request("GET", f"/slow?s={seconds}", headers={"Connection": "close"})

    def answer(link: http.client.HTTPConnection) -> str:
        try:
            answered = link.getresponse()
            whole = answered.read().endswith(b", slowly\n")
            return f"{answered.status}{'' if whole else ', cut short'}"
        except (OSError, http.client.HTTPException) as error:
            return f"lost: {error!r}"

    return lambda: _say(pidfile, [answer(link) for link in links])


def ws(pidfile: str, host: str, port: str, seconds: str, count: str) -> GoOn:
    """They are opened soon after this returns."""
    from drainctl.lab.websocket import talk

    async def converse() -> str:
        end = await talk(host, int(port), float(seconds), 15.0)
        return "closed as agreed" if end.answer and end.answer.status == 101 else f"lost: {end.bin} {end.why}"

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*(converse() for _ in range(int(count))))

    return lambda: _say(pidfile, asyncio.run(all_of_them()))


def stay(pidfile: str, host: str, port: str, seconds: str, count: str) -> GoOn:
    """Each from an address of its own: they keep the cookie that they got and ask again and again."""
    import http.client
    from concurrent.futures import ThreadPoolExecutor

    def one(number: int) -> str:
        cookie, end, asked = "", time.monotonic() + float(seconds), 0
        while time.monotonic() < end:
            link = http.client.HTTPConnection(host, int(port), 15, (f"127.0.0.{10 + number}", 0))
            try:
                link.request("GET", "/slow?s=0.05", headers={"Cookie": cookie} if cookie else {})
                answer = link.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException) as error:
                return f"lost: {error!r} after {asked}"
            finally:
                link.close()
            if answer.status != 200:
                return f"{answer.status} after {asked}"
            cookie = (answer.getheader("Set-Cookie") or cookie).partition(";")[0]
            asked += 1
            time.sleep(PAUSE_S)
        return WELL

    def all_of_them() -> list[str]:
        with ThreadPoolExecutor(int(count)) as pool:
            return list(pool.map(one, range(int(count))))

    return lambda: _say(pidfile, all_of_them())


def h2(pidfile: str, host: str, port: str, seconds: str, count: str) -> GoOn:
    """On each connection there are requests all the time."""
    from concurrent.futures import ThreadPoolExecutor

    from drainctl.lab.http2 import keep_asking

    def one(_number: int) -> str:
        return keep_asking(host, int(port), f"/slow?s={H2_PAGE_S}", float(seconds))

    def all_of_them() -> list[str]:
        with ThreadPoolExecutor(int(count)) as pool:
            return list(pool.map(one, range(int(count))))

    return lambda: _say(pidfile, all_of_them())


def _say(pidfile: str, ends: list[str]) -> None:
    path = Path(pidfile).with_suffix(".said")
    written = path.with_suffix(".new")
    written.write_text("".join(f"{end}\n" for end in ends))
    written.rename(path)


if __name__ == "__main__":
    main()
