"""
What is wrong with a node, or turns out to be while it is changed in place: the words, the exit code, and
what is so afterwards. Refused is exit 5 and nothing touched; failed is exit 1 and all of it put back, under
load, without a failed request.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest
from in_place_kit import archive, base, in_place, load_on
from rollout_kit import Said, cli, current

from drainctl.errors import Exit
from drainctl.lab.naive import ctl, link
from drainctl.lab.processes import Process
from tests.conftest import until

pytestmark = [pytest.mark.real, pytest.mark.slow]

BASE = base("127.0.101")

LIMIT = {"service:\n": "service:\n  limit: 2s\n"}


@pytest.fixture(scope="module", name="lab")
def _lab(request):
    """One lab at a time; the tests of each come after one another."""
    settings, changes = request.param
    with in_place(BASE, changes=changes, **settings) as lab:
        yield lab


def of(settings, changes):
    """Marks a test as one of this lab."""
    return pytest.mark.parametrize("lab", [(settings, changes)], indirect=True, ids=[settings["strategy"]])


@pytest.fixture(autouse=True)
def _no_failure_spoils_the_next(request):
    failed = request.session.testsfailed
    yield
    if request.session.testsfailed > failed and "lab" in request.fixturenames:
        lab = request.getfixturevalue("lab")
        cli(lab.config, "abort")
        for journal in lab.folder.glob("*.db*"):
            journal.unlink()


@dataclass(frozen=True)
class Shape:
    """All of web1 that a rollout may touch."""

    current: str
    files: dict[str, list[str]]  # in whatever order: the two servers of an upstream may have changed places
    links: dict[str, str]
    masters: frozenset[Process]


def shape(lab) -> Shape:
    own = lab.ctl("web1").parent
    masters = {service.master() for service in (*lab.node("web1"), *lab.apps("web1"))}
    return Shape(
        current(lab)["web1"],
        {path.name: sorted(path.read_text().splitlines()) for path in own.glob("*.conf")},
        {path.name: str(path.readlink()) for path in own.glob("run/*") if path.is_symlink()},
        frozenset(masters - {None}),
    )


def deploy(lab, release="v2", *more) -> Said:
    return cli(lab.config, "deploy", str(archive(lab, release)), *more)


def refused(lab, *words: str, release="v2") -> None:
    """A deploy is refused in these words, nothing was touched, and `plan` says the same."""
    before = shape(lab)
    said = deploy(lab, release)
    assert said.code == Exit.PREFLIGHT, said
    for word in words:
        assert word in said.err, said
    assert shape(lab) == before
    planned = cli(lab.config, "plan", str(archive(lab, release)))
    assert planned.code == Exit.PREFLIGHT, planned
    assert " ".join(words[0].split()) in " ".join((planned.out + planned.err).split()), planned
    assert shape(lab) == before


def put_back(lab, release: str, *words: str, same_masters: bool = True) -> Said:
    """A deploy fails in these words under load, and all is as before it: nobody has noticed."""
    before = shape(lab)
    load = load_on(lab, rate=80.0, mix="get=60,post=36,slow=2,ws=2", slow_s=0.5, ws_s=0.5).start()
    try:
        said = deploy(lab, release)
    finally:
        load.stop(trust=False)
    assert said.code == Exit.PUT_BACK, said
    for word in words:
        assert word in said.out + said.err, said
    assert load.report.failed == 0, load.report.table()
    assert load.report.versions.keys() == {before.current}, load.report.table()
    until("all is as before", lambda: as_before(lab, before, same_masters=same_masters))
    return said


def as_before(lab, before: Shape, *, same_masters: bool) -> bool:
    now = shape(lab)
    same = (now.current, now.files, now.links) == (before.current, before.files, before.links)
    return same and (now.masters == before.masters or not same_masters)


@contextmanager
def text_of(path, text):
    """The file has another text (None: it is not there), and afterwards the old one."""
    old = path.read_text()
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    try:
        yield old
    finally:
        path.write_text(old)


@contextmanager
def stopped(lab, *unit):
    ctl(lab, "web1", "stop", *unit)
    try:
        yield
    finally:
        ctl(lab, "web1", "start", *unit)


@contextmanager
def stranger(lab, port):
    """Somebody else listens there, and closes what comes."""
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((lab.settings.host("web1"), port))
        taken.listen()
        closing = threading.Thread(target=close_all, args=(taken,))
        closing.start()
        try:
            yield
        finally:
            taken.shutdown(socket.SHUT_RDWR)
            closing.join()


def close_all(listener):
    with suppress(OSError):
        while True:
            listener.accept()[0].close()


# ---------------------------------------------------------------- port-flip


flipped = of({"strategy": "port-flip"}, LIMIT)


def upstream_file(lab):
    return lab.ctl("web1").with_name("upstream.conf")


@flipped
def test_an_upstream_file_that_is_not_there(lab):
    with text_of(upstream_file(lab), None):
        refused(lab, f"web1: {upstream_file(lab)} is not there (`--adopt` writes it)")


@flipped
def test_an_upstream_file_of_somebody_elses(lab):
    file = upstream_file(lab)
    with text_of(file, file.read_text().partition("\n")[2]):
        refused(lab, f"web1: {file} was not written by drainctl (`--adopt` shows what would change")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("upstream shop {\n  server 127.0.0.1:8000;\n", ':2: unexpected end of file, expecting "}"'),
        ("upstream shop {\n  server 127.0.0.1:8000 shy;\n}\n", ":2: `server 127.0.0.1:8000 shy`: `shy` is"),
        ("upstream other {\n  server 127.0.0.1:8000;\n}\n", ":1: no upstream shop"),
    ],
)
@flipped
def test_an_upstream_file_that_cannot_be_read(lab, text, words):
    with text_of(upstream_file(lab), text):
        refused(lab, f"web1: {upstream_file(lab)}{words}")


@flipped
def test_a_configuration_that_nginx_does_not_pass(lab):
    conf = lab.ctl("web1").with_name("nginx.conf")
    with text_of(conf, conf.read_text() + "nonsense;\n"):
        put_back(lab, "v2", "rewrite", 'unknown directive "nonsense"', "the old file is back")


@flipped
def test_a_reload_that_nginx_accepts_and_does_not_take_up(lab):
    conf = lab.ctl("web1").with_name("nginx.conf")
    host = lab.settings.host("web1")
    with (
        stranger(lab, 8081),
        text_of(conf, conf.read_text().replace("listen ", f"listen {host}:8081;\n    listen ", 1)),
    ):
        put_back(lab, "v2", "nginx.generation answers 'v1:8000', not 'v2:8001'")


@flipped
def test_the_other_port_taken_by_somebody_else(lab):
    with stranger(lab, 8001):
        refused(lab, "web1: port 8001 is taken already: ", f"pid {os.getpid()}")


@flipped
def test_a_new_process_that_answers_the_wrong_version(lab):
    lab.release("liar", wrong_version="v7")
    put_back(lab, "liar", "8001 answers 'v7', not 'liar'")


@flipped
def test_a_new_process_that_never_starts(lab):
    lab.release("dud", fail_start=True)
    put_back(lab, "dud", "start")


@flipped
def test_a_release_whose_pages_fail_when_it_is_warmed_up(lab):
    lab.release("sick", pages_500=True)
    put_back(lab, "sick", "GET / answers 500")


@flipped
def test_an_nginx_that_does_not_run(lab):
    master = lab.nginx("web1").master()
    master.send(signal.SIGQUIT)
    until("nginx has ended", lambda: not master.alive)
    try:
        refused(lab, "web1: nginx does not run: there is no ")
    finally:
        subprocess.run(lab.nginx("web1").argv, check=True, capture_output=True)
        until("nginx runs", lab.nginx("web1").master)


# ---------------------------------------------------------------- port-flip behind a balancer


BEHIND = {"strategy": "port-flip", "only": True, "nodes": 2, "balancers": 1}


@of({**BEHIND, "level": "user"}, {})
def test_a_balancer_that_cannot_be_told(lab):
    refused(lab, "web1: a reload of nginx closes idle client connections", "lb1 cannot be told to leave it")


@of({**BEHIND, "inter": "300ms"}, {})
def test_the_only_server_that_is_up(lab):
    ctl(lab, "web2", "stop", "8000")
    until("web2 is DOWN", lambda: "DOWN" in said_of(lab, "web2"))
    refused(
        lab,
        "web1 cannot be left alone for the moment of nginx's reload: lb1 shop: 0 other of 2 servers up",
    )


def said_of(lab, name):
    from drainctl.lab import ready

    return ready.servers(lab.socket("lb1"), lab.settings.app)[name]


# ---------------------------------------------------------------- socket-flip


linked = of({"strategy": "socket-flip"}, LIMIT)


@linked
def test_a_current_socket_that_is_no_link(lab):
    run = lab.settings.run(lab.folder, "web1")
    path, target = run / "current.sock", (run / "current.sock").readlink()
    path.unlink()
    try:
        refused(lab, "web1: socket.current is no link to a socket on web1: nothing there")
        path.write_text("no socket\n")
        refused(lab, "web1: socket.current is no link to a socket on web1: not a link")
    finally:
        path.unlink()
        link(path, str(target))


@linked
def test_a_new_process_behind_a_socket_that_does_not_start(lab):
    lab.release("dud", fail_start=True)
    put_back(lab, "dud", "start")


# ---------------------------------------------------------------- backup


@of({"strategy": "backup"}, LIMIT)
def test_a_pair_of_which_one_does_not_run(lab):
    run = lab.settings.run(lab.folder, "web1")
    with stopped(lab, "backup"):
        refused(lab, f"web1: {run}/backup.sock is no socket")


@of({"strategy": "backup"}, LIMIT)
def test_a_release_of_a_pair_that_does_not_start(lab):
    lab.release("dud", fail_start=True)
    put_back(lab, "dud", "start-backup", same_masters=False)


# ---------------------------------------------------------------- reload


by_usr2 = of({"strategy": "reload"}, LIMIT)


@by_usr2
def test_no_gunicorn_and_two_of_them(lab):
    pid_file = lab.ctl("web1").with_name("gunicorn.pid")
    with text_of(pid_file, "999999\n"):
        refused(lab, f"web1: gunicorn does not run: {pid_file} names no living process")
    master = lab.node("web1")[0].master()
    os.kill(master.pid, signal.SIGUSR2)
    second = pid_file.with_name("gunicorn.pid.2")
    until("a second master", second.exists)
    pid = int(second.read_text())
    refused(lab, f"web1: two masters of gunicorn run, {master.pid} and {pid} ({pid_file}.2)")
    os.kill(pid, signal.SIGTERM)
    until("one master again", lambda: not second.exists())


@by_usr2
def test_a_release_that_does_not_start_by_usr2(lab):
    lab.release("dud", fail_start=True)
    put_back(lab, "dud", "the second master of gunicorn has ended: this release does not start")


@by_usr2
def test_a_release_by_usr2_that_answers_another_version(lab):
    lab.release("liar", wrong_version="v7")
    before = current(lab)["web1"]
    said = deploy(lab, "liar")
    assert said.code == Exit.PUT_BACK, said
    assert re.search(r"health.version answers 'v[17]', not 'liar'", said.err), said  # both masters answer
    until("one master", lambda: not lab.ctl("web1").with_name("gunicorn.pid.2").exists())
    assert current(lab)["web1"] == before


HUP = {'gunicorn.pid"}': 'gunicorn.pid", by: hup}'}


@of({"strategy": "reload", "gunicorn_start": "preload"}, LIMIT | HUP)
def test_a_hup_after_which_a_preloaded_release_answers(lab):
    put_back(lab, "v2", "reload", "health.version answers 'v1', not 'v2'", same_masters=False)


@of({"strategy": "reload", "gunicorn_start": "resolved"}, LIMIT | HUP)
def test_a_hup_after_which_the_release_that_the_working_directory_was_answers(lab):
    put_back(lab, "v2", "reload", "health.version answers 'v1', not 'v2'", same_masters=False)
