"""doctor on nodes that are flipped and reloaded in place: real nginx, gunicorn and their configurations."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from drainctl.doctor.in_place_line import InPlaceAsked, line, parse, read
from drainctl.lab.cluster import Lab
from drainctl.node.local import LocalTransport
from tests.conftest import need, until
from tests.real.rollout_kit import configure, need_wheel
from tests.real.test_doctor import Told, everything

pytestmark = pytest.mark.real
BASE = "127.0.98"


@contextmanager
def up(strategy, **settings):
    need("nginx")
    need("haproxy")
    if settings.get("nginx") == "wheel":
        need_wheel("nginx")
    folder = Path(tempfile.mkdtemp(prefix="dl-"))
    lab = Lab(folder, base=BASE, strategy=strategy, **{"nodes": 1, "balancers": 0, **settings})
    try:
        lab.up()
        tell_of_nginx(lab)
        yield lab
    finally:
        lab.down()
        shutil.rmtree(folder)


def tell_of_nginx(lab):
    """drainctl.yml also says how this nginx is tested, where the strategy does without."""
    command = " ".join(lab.nginx("web1").argv)
    section = f'test: "{command} -t", pid: "{own(lab)}/nginx.pid"'
    text = lab.config.read_text()
    if "  test:" in text or lab.settings.nodes > 1:
        return
    if "nginx: {" in text:
        text = text.replace("nginx: {", f"nginx: {{{section}, ")
    else:
        text += f"nginx: {{upstream: shop, {section}}}\n"
    lab.config.write_text(text)


def own(lab):
    return lab.folder / "nodes" / "web1"


@contextmanager
def changed(lab, file, *pairs):
    """A file of the node with texts replaced, and nginx reloaded; afterwards all is as before."""
    path = own(lab) / file
    before = text = path.read_text()
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    path.write_text(text)
    renew(lab)
    try:
        yield
    finally:
        path.write_text(before)
        renew(lab)


def renew(lab):
    """nginx reloaded, until only new workers are there. A configuration that it refuses is left to it."""
    nginx = lab.nginx("web1")
    master = nginx.master()
    assert master
    before = set(children(master.pid))
    done = subprocess.run([*nginx.argv, "-s", "reload"], capture_output=True, text=True, check=False)
    if done.returncode == 0:
        until("workers are new", lambda: (now := set(children(master.pid))) and not now & before)


def children(pid):
    with suppress(OSError):
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return []


# ---------------------------------------------------------------- nodes that are well


@pytest.mark.parametrize(
    ("strategy", "settings", "expected"),
    [
        ("socket-flip", {"nginx": "wheel"}, set()),
        ("backup", {}, set()),
        ("reload", {"nginx": "wheel"}, set()),
        ("port-flip", {"nginx": "wheel", "keepalive_min": "2s"}, set()),
        ("port-flip", {"balancers": 1, "nodes": 2, "only": True}, set()),
        ("port-flip", {}, {"clients-lost"}),
    ],
)
def test_a_fresh_lab_shows_nothing_but_what_it_is_made_to_lose(strategy, settings, expected):
    with up(strategy, **settings) as lab:
        before = everything(lab.folder)
        told = Told(lab)
        assert everything(lab.folder) == before
        assert told.codes - {"reloaded-recently"} <= expected, told.found
        assert told.codes >= expected
        assert (told.exit, told.may_begin) == (0, True)


# ---------------------------------------------------------------- port-flip


def test_traps_of_a_port_flip():
    with up("port-flip", balancers=1, nodes=2, only=True) as lab:
        nginx_conf = "nginx.conf"

        def told(*args, **changes):
            return Told(lab, *args, **changes)

        # the file
        file = own(lab) / "upstream.conf"
        text = file.read_text()
        for bad, code in [
            (text.partition("\n")[2], "upstream-file-foreign"),
            ("upstream shop {\n", "upstream-file-unreadable"),
            (None, "upstream-file-missing"),
        ]:
            file.unlink() if bad is None else file.write_text(bad)
            found = told()
            assert code in found.codes, found.found
            assert found.exit == 5
        file.write_text(text.replace("v1:8000", "v9:8000"))
        (behind,) = told().of("generation-other")
        assert behind["severity"] == "advice"
        assert "v1:8000" in behind["seen"]
        file.write_text(text)

        # the other port
        with socket.create_server((f"{BASE}.11", 8001)):
            taken = told()
        (found,) = taken.of("port-taken")
        assert "8000 serves, and on 8001 listens" in found["seen"]
        assert taken.exit == 5

        # nginx's own configuration, and the page
        with changed(
            lab,
            nginx_conf,
            ("listen ", "client_header_timeout 5m;\n    listen "),
            ("events {", "worker_shutdown_timeout 2s;\nevents {"),
            ("location = /-/generation", "location = /-/elsewhere"),
        ):
            found = told()
        assert found.codes >= {"silent-clients", "shutdown-cuts"}, found.found
        assert {"generation-silent", "generation-other"} & found.codes
        with changed(lab, nginx_conf, ("http {", "http {\n  no_such_directive on;")):
            broken = told()
        (found,) = broken.of("nginx-test-fails")
        assert "no_such_directive" in found["seen"]
        assert broken.exit == 5
        with changed(
            lab, nginx_conf, (f"include {own(lab)}/upstream.conf", f"include {own(lab)}/upstream2.conf")
        ):
            pass  # it refuses that: what serves is as before

        # drainctl.yml
        config = configure(lab, {"/nginx.pid": "/nowhere.pid"}, "copy.yml")
        assert "nginx-not-running" in told(config=config).codes
        config = configure(lab, {'start: "': 'start: "/nowhere'}, "copy.yml")
        assert "command-missing" in told(config=config).codes
        config = configure(lab, {"clients: nudge": "clients: kept"}, "copy.yml")
        cfg = lab.folder / "lb1" / "haproxy.cfg"
        (kept, *_) = told("--haproxy-cfg", str(cfg), config=config).of("clients-not-kept")
        assert (kept["severity"], kept["where"].partition(":")[0]) == ("loses requests", str(cfg))
        closing = lab.folder / "closing.cfg"
        closing.write_text(
            cfg.read_text().replace("balance roundrobin", "balance roundrobin\n  option http-server-close")
        )
        assert "clients-not-kept" not in told("--haproxy-cfg", str(closing), config=config).codes


def test_an_upstream_that_is_in_another_file():
    with up("port-flip", balancers=1, nodes=2, only=True) as lab:
        other = own(lab) / "other.conf"
        shutil.copy(own(lab) / "upstream.conf", other)
        with changed(lab, "nginx.conf", ("upstream.conf", "other.conf")):
            (found,) = Told(lab).of("upstream-not-included")
        assert f"upstream shop is in {other}:" in found["seen"]


def test_what_is_lost_is_named_beforehand_where_nobody_can_be_told():
    with up("port-flip") as lab:
        (lost,) = Told(lab).of("clients-lost")
        assert (lost["severity"], "10 of 102,000" in lost["seen"]) == ("loses requests", True)
        config = configure(lab, {"clients: lost": "clients: nudge"}, "copy.yml")
        told = Told(lab, config=config)
        assert [one["severity"] for one in told.of("clients-lost")] == ["refuses"]
        assert told.exit == 5


# ---------------------------------------------------------------- socket-flip and backup


def test_traps_of_a_socket_flip():
    with up("socket-flip") as lab:
        link = lab.settings.run(lab.folder, "web1") / "current.sock"
        target = link.readlink()
        link.unlink()
        told = Told(lab)
        link.symlink_to(target)
        assert told.of("socket-not-link")[0]["severity"] == "refuses"
        assert told.exit == 5
        with changed(
            lab, "nginx.conf", ("current.sock", "v1.sock"), ("max_fails=0;", "max_fails=0;\n    keepalive 8;")
        ):
            told = Told(lab)
        assert told.of("upstream-not-socket")[0]["seen"].endswith("current.sock")
        kept = [
            ("Connection $connection_header", 'Connection ""'),
            ("current.sock max_fails=0;", "current.sock max_fails=0;\n    keepalive 8;"),
            ("keepalive_requests 1;", ""),
        ]
        with changed(lab, "nginx.conf", *kept):
            assert "upstream-keeps-connections" in Told(lab).codes


def test_traps_of_a_backup():
    with up("backup", server_params="max_fails=1 fail_timeout=7s") as lab:
        calm = Told(lab)
        # The second is the health page's own limit of 2 s: it marks a server failed for everybody, too.
        assert calm.codes == {"marks-failed", "slow-counts-as-failed"}
        config = configure(lab, {"fail_timeout: 7s": "fail_timeout: 2s"}, "copy.yml")
        (found,) = Told(lab, config=config).of("fail-timeout-differs")
        assert found["severity"] == "loses requests"
        live, backup = (f"{lab.settings.run(lab.folder, 'web1')}/{name}.sock" for name in ("live", "backup"))
        with changed(
            lab,
            "nginx.conf",
            ("proxy_next_upstream error;", "proxy_next_upstream error non_idempotent;"),
            (f"server unix:{backup} max_fails=1 fail_timeout=7s backup;", ""),
        ):
            told = Told(lab)
        assert told.codes >= {"posts-twice", "no-backup-server"}
        assert told.exit == 0
        assert Told(lab, "--strict").exit == 5
        text = lab.config.read_text()
        path = f"{lab.folder}/nodes/{{node}}/run/live.sock"
        assert path in text
        config.write_text(text.replace(path, f"{live}.link"))
        Path(f"{live}.link").symlink_to(live)
        told = Told(lab, config=config)
        assert "is a link" in told.of("socket-not-hideable")[0]["seen"]
        assert told.exit == 5
        replaced = text.replace("sockets: [", "ports: [8000, 8001] #").replace("{socket}", "{port}")
        replaced = replaced.replace("clients: lost", "clients: nudge")
        config.write_text(replaced)
        told = Told(lab, config=config)
        assert told.of("backup-on-ports")[0]["severity"] == "refuses"
        assert told.exit == 5


# ---------------------------------------------------------------- reload


@pytest.mark.parametrize(
    ("start", "by", "found"),
    [
        ("resolved", "usr2", {"reload-keeps-release"}),
        ("preload", "usr2", set()),
        ("preload", "hup", {"reload-keeps-release", "reload-by-hup"}),
        ("chdir", "hup", {"reload-by-hup"}),
    ],
)
def test_how_gunicorn_was_started(start, by, found):
    with up("reload", gunicorn_start=start) as lab:
        config = configure(lab, {'gunicorn.pid"': f'gunicorn.pid", by: {by}'}, "copy.yml")
        told = Told(lab, config=config)
        assert told.codes == found, told.found
        assert told.exit == (5 if "reload-keeps-release" in found else 0)


def test_gunicorns_pid_file():
    with up("reload") as lab:
        pid = own(lab) / "gunicorn.pid"
        right = pid.read_text()
        master = lab.nginx("web1").master()
        assert master
        for text, said in [
            ("999999999\n", "names no living process"),
            (f"{master.pid}\n", "is no gunicorn but: nginx"),
        ]:
            pid.write_text(text)
            told = Told(lab)
            pid.write_text(right)
            assert any(said in one["seen"] for one in told.of("gunicorn-not-running")), told.found
            assert told.exit == 5
        os.kill(int(right), signal.SIGUSR2)
        second = own(lab) / "gunicorn.pid.2"
        until("a second master", second.exists)
        told = Told(lab)
        os.kill(int(second.read_text()), signal.SIGTERM)
        until("the second master ends", lambda: not second.exists())
        assert right.strip() in told.of("gunicorn-two-masters")[0]["seen"]
        assert told.exit == 5


# ---------------------------------------------------------------- the line by itself


def test_a_configuration_of_a_megabyte_comes_whole(tmp_path):
    program = need("nginx")
    servers = "".join(f"  # {at:06} {'x' * 60}\n" for at in range(14000))
    conf = tmp_path / "nginx.conf"
    conf.write_text(
        f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\n"
        + "".join(
            f"  {kind}_temp_path {tmp_path}/t;\n"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        + f"{servers}  upstream shop {{ server unix:{tmp_path}/s.sock; }}\n}}\n"
    )
    (tmp_path / "pid").write_text(f"{os.getpid()}\n")  # something that runs
    asked = InPlaceAsked(test=f"{program} -t -e {tmp_path}/log -c {conf}", pid=f"{tmp_path}/pid")
    done = LocalTransport().run(line(asked), limit_s=30)
    facts, text = parse(done.out, asked)
    assert (done.code, facts.conf_error) == (0, "")
    assert len(text) > 900_000
    found = read(facts, text, "shop")
    assert found.sockets == {f"{tmp_path}/s.sock"}
    assert found.version >= (1, 18)


def test_a_configuration_that_is_too_long_is_told(tmp_path):
    program = need("nginx")
    conf = tmp_path / "nginx.conf"
    noise = "".join(f"# {os.urandom(60).hex()}\n" for _ in range(2000))
    conf.write_text(f"pid {tmp_path}/pid;\nevents {{}}\n{noise}")
    (tmp_path / "pid").write_text(f"{os.getpid()}\n")
    asked = InPlaceAsked(
        test=f"{program} -t -e {tmp_path}/log -c {conf}", pid=f"{tmp_path}/pid", root="/nowhere"
    )
    facts, text = parse(LocalTransport().run(line(asked), limit_s=30).out, asked)
    assert text == ""
    assert "too long to be brought here" in facts.conf_error


def test_nothing_is_tested_where_nginx_does_not_run(tmp_path):
    asked = InPlaceAsked(test=f"touch {tmp_path}/ran; nginx -t", pid=f"{tmp_path}/pid")
    facts, text = parse(LocalTransport().run(line(asked), limit_s=30).out, asked)
    assert (text, facts.conf_error) == ("", f"nginx does not run by {tmp_path}/pid")
    assert list(tmp_path.iterdir()) == []


def test_app_servers_are_found_below_the_root_only(tmp_path):
    (tmp_path / "releases" / "v1").mkdir(parents=True)
    script = "import sys; print('on', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, "uvicorn"],
        cwd=tmp_path / "releases" / "v1",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        seen = {
            root: parse(LocalTransport().run(line(InPlaceAsked(root=root)), limit_s=30).out, InPlaceAsked())[
                0
            ].servers
            for root in (str(tmp_path), str(tmp_path / "other"))
        }
        process.communicate("")
    assert seen == {str(tmp_path): {"uvicorn"}, str(tmp_path / "other"): frozenset()}
