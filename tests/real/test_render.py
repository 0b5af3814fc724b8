"""Rendered configurations: every nginx and HAProxy here takes them, and each strategy deploys on them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from nginx_kit import binary, nginx

from drainctl.cli import cli as drainctl
from drainctl.config.load import load as load_config
from drainctl.errors import ConfigError
from drainctl.lab import ready
from drainctl.lab.cluster import Lab
from drainctl.lab.load import Load
from drainctl.lab.programs import find
from drainctl.model import Checks
from drainctl.nginx.settings import settings
from drainctl.render.haproxy import render_haproxy
from drainctl.render.nginx import Wish, check_limits_ms, render_nginx, render_upstream
from tests.conftest import need, until
from tests.real.rollout_kit import cli, need_wheel

pytestmark = pytest.mark.real

BASE = "127.0.90"
HOST = f"{BASE}.5"
STRATEGIES = ("http-check", "socket-flip", "port-flip", "backup", "reload")

YML = """\
app: shop
balancers:
  lb1: {{runtime: "unix:{folder}/admin.sock", master: "unix:{folder}/master.sock"}}
  lb2: {{runtime: "unix:{folder}/admin.sock", master: "unix:{folder}/master.sock"}}
nodes: {{web1: {{host: {host}}}, web2: {{host: 10.0.0.12, strategy: [{strategy}]}}}}
release: {{root: {folder}/srv}}
strategy: [http-check, {strategy}]
service:
  restart: "true"
  start: "true {{port}}"
  stop: "true {{port}}"
  ports: [8000, 8001]
  reload: "true"
nginx: {{upstream: shop, file: "{folder}/shop.conf", pid: "{folder}/nginx.pid",
  generation: "http://{{host}}:{port}/-/generation", clients: {clients}}}
socket: {{current: "{folder}/current.sock", each: "{folder}/{{release}}.sock"}}
health:
  check: "http://{{host}}:{port}/http-check"
  flag: "{folder}/drain"
  ready: "http://{{host}}:{port}/healthz"
  version: "http://{{host}}:{port}/version"
checks: {{inter: 2s, timeout: 4s, slowstart: 5s, downinter: 1s, spread: 5}}
"""


def cluster_in(folder, strategy="port-flip", port=8080, clients="nudge", host=HOST, text=YML):
    file = folder / "drainctl.yml"
    file.write_text(text.format(folder=folder, strategy=strategy, port=port, clients=clients, host=host))
    return load_config(str(file))


def said(*words):
    return CliRunner().invoke(drainctl, list(map(str, words)), obj={})


# ---------------------------------------------------------------- nginx takes it


def settled(text, folder):
    """The same text for a test's own folder: where nginx keeps bodies is not the configuration's business."""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    own = "".join(f"  {kind}_temp_path {folder}/tmp;\n" for kind in kinds)
    return text.replace("http {\n", f"http {{\n{own}", 1)


def judged(program, folder, text):
    conf = folder / "nginx.conf"
    conf.write_text(settled(text, folder))
    line = [program, "-t", "-p", str(folder), "-e", str(folder / "log"), "-c", str(conf)]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize("which", ["system", "wheel"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_nginx_takes_it_without_a_word_of_warning(tmp_path, which, strategy):
    cluster = cluster_in(tmp_path, strategy)
    (tmp_path / "shop.conf").write_text(
        render_upstream(cluster, cluster.nodes[0]) if strategy == "port-flip" else ""
    )
    version = (1, 31) if which == "wheel" else ()
    for protocol in ("proxy", "fastcgi", "uwsgi"):
        text = render_nginx(cluster, cluster.nodes[0], Wish(protocol, version))
        assert ("\n    keepalive_min_timeout" in text) == (which == "wheel" and strategy == "port-flip")
        done = judged(binary(which), tmp_path, text)
        assert (done.returncode, "warn" in done.stderr) == (0, False), done.stderr


def test_what_it_says_is_what_doctor_wants_to_read(tmp_path):
    for strategy in STRATEGIES:
        cluster = cluster_in(tmp_path, strategy)
        (tmp_path / "shop.conf").write_text(
            render_upstream(cluster, cluster.nodes[0]) if strategy == "port-flip" else ""
        )
        conf = tmp_path / "nginx.conf"
        conf.write_text(settled(render_nginx(cluster, cluster.nodes[0]), tmp_path))
        line = [binary("system"), "-T", "-p", str(tmp_path), "-e", str(tmp_path / "log"), "-c", str(conf)]
        found = settings(
            subprocess.run(line, capture_output=True, text=True, check=True, timeout=30).stdout, "shop"
        )
        assert found.keepalive_requests == 1
        assert {one.max_fails for one in found.servers} == {0}
        assert [one.backup for one in found.servers] == {
            "backup": [False, True],
            "port-flip": [False, False],
        }.get(strategy, [False])
        page = next(one for one in found.passes if one.read_timeout_s > 10)
        assert (page.connect_timeout_s, page.read_timeout_s) == (1, 900)
        assert all("non_idempotent" not in one.next_upstream for one in found.passes)
        assert found.worker_shutdown_timeout_s is None
        if strategy == "port-flip":
            assert found.client_header_timeout_s <= cluster.nginx.worker_limit_s


def test_the_check_stays_below_what_haproxy_gives_it():
    for checks in (Checks(), Checks(0.2), Checks(5.0, 4.0), Checks(1.0, 0.3)):
        limit_ms = 1000 * (checks.timeout_s or checks.inter_s)
        assert sum(check_limits_ms(checks)) < limit_ms
    assert check_limits_ms(Checks(2.0, 4.0)) == (1000, 2000)


# ---------------------------------------------------------------- HAProxy takes it


@pytest.mark.parametrize("which", ["path", "wheel"])
@pytest.mark.parametrize("clients", ["nudge", "kept"])
def test_every_haproxy_takes_it_without_a_word_of_warning(tmp_path, which, clients):
    program = need("haproxy") if which == "path" else find_wheel()
    cluster = cluster_in(tmp_path, clients=clients)
    text = render_haproxy(cluster, cluster.balancers[0])
    assert ("option http-server-close" in text) == (clients == "kept")
    assert "check inter 2s fall 3 rise 2 downinter 1s slowstart 5s" in text
    pages = cluster.balancers[0]._replace(runtime=None, master=None, stats=f"http://{HOST}:8404/stats")
    for one in (text, render_haproxy(cluster, pages)):
        file, state = tmp_path / "haproxy.cfg", tmp_path / "server-state"
        state.write_text("1\n")  # as the rendered text says
        file.write_text(one.replace("/var/lib/haproxy/server-state", str(state)))
        done = subprocess.run([program, "-c", "-f", str(file)], capture_output=True, text=True, check=False)
        told = done.stdout + done.stderr
        assert (done.returncode, "WARNING" in told) == (0, False), told


def find_wheel():
    need_wheel("haproxy")
    return find("haproxy", "wheel")


# ---------------------------------------------------------------- the command


def test_the_command_prints_one_text_for_nodes_that_are_alike_and_asks_where_they_differ(tmp_path):
    text = YML.replace(", strategy: [{strategy}]", "")
    cluster_in(tmp_path, host="10.0.0.11", text=text)
    file = tmp_path / "drainctl.yml"
    alike = said("-c", file, "render", "nginx")
    assert alike.exit_code == 0, alike.output
    assert "listen 8080;" in alike.stdout
    assert said("-c", file, "render", "haproxy").stdout.count("\n  server web") == 2
    assert said("-c", file, "render", "nginx", "--upstream").stdout.startswith(
        "# drainctl upstream shop generation app:8000: written by drainctl"
    )
    assert "\nhttp {" not in said("-c", file, "render", "nginx", "--site").stdout
    cluster_in(tmp_path)  # now one goes by port-flip alone
    differ = said("-c", file, "render", "nginx")
    assert isinstance(differ.exception, ConfigError)
    assert differ.exception.hint == "--node web1 prints the first one's"
    assert said("-c", file, "render", "nginx", "--node", "web2").exit_code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nginx", "--node", "web9"], "expected one of web1, web2"),
        (["nginx", "--nginx", "new"], "expected a version such as 1.31"),
        (["haproxy", "--balancer", "lb7"], "expected one of lb1, lb2"),
    ],
)
def test_what_cannot_be_rendered_is_refused(tmp_path, words, told):
    cluster_in(tmp_path)
    assert told in str(said("-c", tmp_path / "drainctl.yml", "render", *words).exception)


def test_no_upstream_file_without_port_flip_and_no_certificates(tmp_path):
    cluster = cluster_in(tmp_path, "backup")
    with pytest.raises(ConfigError, match="no upstream file"):
        render_upstream(cluster, cluster.nodes[1])
    health = cluster.health._replace(ready="https://{host}/ok")
    with pytest.raises(ConfigError, match="https is not rendered"):
        render_nginx(replace(cluster, health=health), cluster.nodes[0])


# ---------------------------------------------------------------- fastcgi and uwsgi, really asked


def uwsgi_request(link):
    """The variables of one request. Source: The uwsgi Protocol: 4 bytes of head, then names and values."""
    head = read(link, 4)
    block, found, at = read(link, int.from_bytes(head[1:3], "little")), {}, 0
    words = []
    while at < len(block):
        size = int.from_bytes(block[at : at + 2], "little")
        words.append(block[at + 2 : at + 2 + size].decode())
        at += 2 + size
    found |= zip(words[::2], words[1::2], strict=True)
    return found, lambda text: link.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + text)


def fastcgi_request(link):
    """The same by FastCGI: records of 8 bytes of head; parameters end with an empty record."""
    block, found = b"", {}
    while True:
        _, kind, *_ = head = read(link, 8)
        size = int.from_bytes(head[4:6], "big")
        body = read(link, size + head[6])[:size]
        if kind == 4:
            block += body
        if kind == 5 and not size:
            break
    at = 0
    while at < len(block):
        sizes = []
        for _ in range(2):
            wide = 4 if block[at] & 128 else 1
            sizes.append(int.from_bytes(block[at : at + wide], "big") & 0x7FFFFFFF)
            at += wide
        name, value = block[at : at + sizes[0]], block[at + sizes[0] : at + sum(sizes)]
        found[name.decode()] = value.decode()
        at += sum(sizes)

    def answer(text):
        out = b"Status: 200 OK\r\n\r\n" + text
        link.sendall(b"\x01\x06\x00\x01" + len(out).to_bytes(2, "big") + b"\x00\x00" + out)
        link.sendall(b"\x01\x06\x00\x01\x00\x00\x00\x00" + b"\x01\x03\x00\x01\x00\x08\x00\x00" + bytes(8))

    return found, answer


def read(link, size):
    data = b""
    while len(data) < size:
        more = link.recv(size - len(data))
        assert more, "the peer ended in the middle of a request"
        data += more
    return data


@contextmanager
def app(path, request_of):
    """Answers each request with its PATH_INFO and REQUEST_URI, over a unix socket."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o777)
        server.listen(8)

        def serve():
            while True:
                try:
                    link, _ = server.accept()
                except OSError:
                    return
                with link:
                    found, answer = request_of(link)
                    answer(f"{found['PATH_INFO']} {found['REQUEST_URI']} {found['HTTP_HOST']}".encode())

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)


@pytest.mark.parametrize("which", ["system", "wheel"])
@pytest.mark.parametrize(("protocol", "request_of"), [("uwsgi", uwsgi_request), ("fastcgi", fastcgi_request)])
def test_an_app_that_speaks_another_protocol_is_asked_for_what_users_ask(which, protocol, request_of):
    folder = Path(tempfile.mkdtemp(prefix="dl-"))
    folder.chmod(0o755)
    with socket.create_server((HOST, 0)) as probe:
        port = probe.getsockname()[1]
    cluster = cluster_in(folder, "socket-flip", port)
    (folder / "current.sock").symlink_to("v1.sock")
    text = render_nginx(cluster, cluster.nodes[0], Wish(protocol, site=True))

    def get(page):
        with urllib.request.urlopen(f"http://{HOST}:{port}{page}", timeout=5) as answer:
            return answer.read().decode()

    try:
        with app(folder / "v1.sock", request_of), nginx(binary(which), folder, text):
            assert get("/a/b?c=d") == f"/a/b /a/b?c=d {HOST}:{port}"
            assert get("/http-check").startswith("/healthz /healthz ")
            (folder / "drain").touch()
            with pytest.raises(urllib.error.HTTPError, match="404"):
                get("/http-check")
    finally:
        shutil.rmtree(folder)


# ---------------------------------------------------------------- a real deploy of each strategy on it

MIX = "get=60,post=30,slow=4,stream=5,ws=1"


@contextmanager
def rendered(strategy, **more):
    """A lab whose nginx and HAProxy run with what `drainctl render` prints for its drainctl.yml."""
    need("haproxy")
    need("nginx")
    folder = Path(tempfile.mkdtemp(prefix="dl-"))
    lab = Lab(folder, base=BASE, strategy=strategy, **{"nodes": 1, "balancers": 0, **more})
    try:
        lab.up()
        text = lab.config.read_text()
        if "nginx:" not in text:
            text += "nginx: {upstream: shop}\n"
        if "pid:" not in text:
            text = text.replace("nginx: {", f'nginx: {{pid: "{folder}/nodes/{{node}}/nginx.pid", ')
        lab.config.write_text(text)
        for name in lab.settings.node_names:
            replace_nginx(lab, name, ["--nginx", "1.31"] if more.get("nginx") == "wheel" else [])
        for name in lab.settings.balancer_names:
            replace_haproxy(lab, name)
        yield lab
    finally:
        lab.down()
        shutil.rmtree(folder)


def replace_nginx(lab, name, words):
    own = lab.folder / "nodes" / name
    asked = ["render", "nginx", "--node", name, "--app", f"{lab.settings.host(name)}:8000", *words]
    if os.geteuid() == 0:
        asked += ["--user", "root"]  # others may not enter a test's folder
    printed = cli(lab.config, *asked)
    assert printed.code == 0, printed
    if lab.settings.strategy == "port-flip":
        first = cli(lab.config, "render", "nginx", "--node", name, "--upstream")
        assert first.code == 0, first
        (own / "upstream.conf").write_text(first.out)
    (own / "nginx.conf").write_text(settled(printed.out, own))
    again(lab.nginx(name), lab)
    until("the node answers", lambda: ready.health(lab.settings.host(name), page="/healthz") is None)


def replace_haproxy(lab, name):
    address = f"{lab.settings.host(name)}:8080"
    printed = cli(lab.config, "render", "haproxy", "--balancer", name, "--bind", address)
    assert printed.code == 0, printed
    own = lab.folder / name
    (own / "server-state").write_text("1\n")
    text = printed.out.replace("/var/lib/haproxy/server-state", f"{own}/server-state")
    (own / "haproxy.cfg").write_text(text)
    again(lab.balancer(name), lab)
    names = lab.settings.node_names
    until("every server is UP", lambda: ready.all_up(lab.socket(name), lab.settings.app, names) is None)


def again(service, lab):
    """Ended and started, with the configuration that is there now; found by lab.down as before."""
    before = service.master()
    assert before
    before.send(signal.SIGTERM)
    until(f"{service.name} ends", lambda: not before.alive)
    service.start({**os.environ, "DRAINCTL_LAB": str(lab.folder)})
    until(f"{service.name} runs", service.master)


def deploy(lab, mix=MIX):
    """The report of a load around a deploy, after which only the new release may answer."""
    with Load(lab.urls, clients=10, mix=mix, slow_s=0.6, ws_s=0.8) as load:
        done = cli(lab.config, "deploy", str(lab.folder / "releases" / "v2.tar.gz"), "--yes")
        assert done.code == 0, done
        load.expect("v2")
    print(load.report.table())
    return load.report


CASES = [
    ("http-check", {"nodes": 2, "balancers": 1}),
    ("socket-flip", {"nginx": "wheel"}),
    ("port-flip", {"nginx": "wheel", "keepalive_min": "2s"}),
    ("port-flip", {"nodes": 2, "balancers": 1, "only": True}),
    ("backup", {}),
    ("reload", {"nginx": "wheel"}),
]


@pytest.mark.parametrize(("strategy", "more"), CASES, ids=[f"{name}-{len(more)}" for name, more in CASES])
def test_a_deploy_on_what_is_rendered_loses_nothing(strategy, more):
    with rendered(strategy, **more) as lab:
        report = deploy(lab)
        assert report.bins.keys() == {"ok"}, report.table()
        assert report.versions.keys() == {"v1", "v2"}


def test_without_a_nudge_haproxy_closes_towards_nginx_and_a_reload_loses_nothing():
    with rendered("port-flip", balancers=1, only=True) as lab:
        text = lab.config.read_text()
        lab.config.write_text(text.replace("clients: nudge", "clients: kept"))
        replace_haproxy(lab, "lb1")
        assert "option http-server-close" in (lab.folder / "lb1" / "haproxy.cfg").read_text()
        report = deploy(lab)
        assert report.bins.keys() == {"ok"}, report.table()
