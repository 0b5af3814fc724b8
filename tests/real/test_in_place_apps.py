"""
Apps that nginx does not ask by HTTP, and a balancer that asks the app itself: the same flips, under load.

nginx passes requests to uWSGI by FastCGI and by uWSGI's own protocol; drainctl asks the new process by the
command `service.ask`. And HAProxy's server is a unix socket, which is the link that a socket flip swaps.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from in_place_kit import SOAK, base, edit, in_place
from rollout_kit import need_wheel, roll

from drainctl.lab import ready
from drainctl.lab.load import Load
from drainctl.lab.programs import find
from drainctl.lab.releases import make_release, unpack
from drainctl.nginx import upstream
from tests.conftest import need, until

pytestmark = [pytest.mark.real, pytest.mark.slow]

BASE = base("127.0.103")

HOST = f"{BASE}.11"
RELEASES = ("v2", "v3") if SOAK else ("v2",)
ASK = Path(__file__).with_name("cgi_kit.py")
PARAMS = ("REQUEST_METHOD", "REQUEST_URI", "QUERY_STRING", "CONTENT_TYPE", "CONTENT_LENGTH")

# TERM lets uWSGI finish what it has; it returns when the process is gone.
CTL = """\
#!/bin/sh
cd {folder}
case $1 in
  start)
    exec {uwsgi} --{kind} "$3" --chdir "srv/releases/$4" --module app:application --need-app \\
      --master --processes 2 --threads 8 --listen 100 --pidfile "{folder}/run/$2.pid" --disable-logging \\
      --hook-master-start "unix_signal:15 gracefully_kill_them_all" --daemonize2 "{folder}/uwsgi.log" ;;
  stop)
    read -r pid <"run/$2.pid" || exit 0
    kill -TERM "$pid" 2>/dev/null
    while [ -d "/proc/$pid" ] && ! grep -q '^State:.Z' "/proc/$pid/status"; do sleep 0.02; done
    rm -f "run/$2.pid" ;;
esac
"""
NGINX = """\
{user}worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/tmp;
  proxy_temp_path {folder}/tmp;
  fastcgi_temp_path {folder}/tmp;
  uwsgi_temp_path {folder}/tmp;
  scgi_temp_path {folder}/tmp;
  keepalive_timeout 1h;
  keepalive_min_timeout 2s;
  {upstream}
  server {{
    listen {host}:8080;
    location = /-/generation {{ default_type text/plain; return 200 "${variable}\\n"; }}
    location / {{
{params}
      {protocol}_pass shop;
    }}
  }}
}}
"""
YML = """\
app: shop
nodes: {{web1: {{host: {host}}}}}
connect: {{via: local}}
release: {{root: {folder}/srv}}
strategy: [{strategy}]
service:
  start: "{folder}/ctl start {unit} {address} {{release}}"
  stop: "{folder}/ctl stop {unit}"
  ask: "{python} {ask} {protocol} {asked} {{path}}"
{ports}health: {{version: "http://{{host}}:8080/version", ready: "http://{{host}}:8080/healthz"}}
warm: [{{get: /, times: 5}}]
watch: {{for: 300ms, errors: 0}}
store: "sqlite:///{folder}/shop.db"
{more}"""
SOCKET = 'socket: {{current: {folder}/run/current.sock, each: "{folder}/run/{{release}}.sock"}}\n'
FLIP = """\
nginx:
  upstream: shop
  file: {folder}/upstream.conf
  test: {nginx} -t
  reload: {nginx} -s reload
  pid: {folder}/nginx.pid
  generation: "http://{{host}}:8080/-/generation"
  clients: kept
"""


class Shop:
    """One node in `folder`: nginx, and uWSGI with v1."""

    def __init__(self, folder: Path, protocol: str, strategy: str) -> None:
        self.folder, self.protocol, self.flips_port = folder, protocol, strategy == "port-flip"
        self.nginx = f"{find('nginx', 'wheel')} -p {folder} -e {folder}/nginx.log -c {folder}/nginx.conf"
        for name in ("run", "tmp", "srv/releases/v1"):
            (folder / name).mkdir(parents=True)
        for name in ("v1", "v2", "v3"):
            make_release(folder, name)
        unpack(folder / "v1.tar.gz", folder / "srv/releases/v1")
        (folder / "srv/current").symlink_to("releases/v1")
        self._write(strategy)

    def _write(self, strategy: str) -> None:
        folder, protocol = self.folder, self.protocol
        kind = "fastcgi-socket" if protocol == "fastcgi" else "uwsgi-socket"
        uwsgi = Path(sys.executable).with_name("uwsgi")
        ctl = folder / "ctl"
        ctl.write_text(CTL.format(folder=folder, uwsgi=uwsgi, kind=kind))
        ctl.chmod(0o755)
        servers = [upstream.Server(f"{HOST}:8000", "live"), upstream.Server(f"{HOST}:8001", "down")]
        (folder / "upstream.conf").write_text(upstream.render("shop", servers, "v1:8000"))
        names = [*((name, f"${name.lower()}") for name in PARAMS), ("PATH_INFO", "$uri")]
        names += [("SERVER_PROTOCOL", "$server_protocol"), ("SERVER_NAME", "shop"), ("SERVER_PORT", "80")]
        flip = f"include {folder}/upstream.conf;"
        link = f"upstream shop {{ server unix:{folder}/run/current.sock max_fails=0; }}"
        link += f' map "" ${upstream.variable("shop")} {{ }}'
        (folder / "nginx.conf").write_text(
            NGINX.format(
                user="user root;\n" if os.geteuid() == 0 else "",
                folder=folder,
                host=HOST,
                protocol=protocol,
                variable=upstream.variable("shop"),
                params="\n".join(f"      {protocol}_param {name} {value};" for name, value in names),
                upstream=flip if self.flips_port else link,
            )
        )
        more = (FLIP if self.flips_port else SOCKET).format(folder=folder, nginx=self.nginx)
        self.config = folder / "drainctl.yml"
        self.config.write_text(
            YML.format(
                folder=folder,
                host=HOST,
                strategy=strategy,
                unit="{port}" if self.flips_port else "{release}",
                address="{host}:{port}" if self.flips_port else "{socket}",
                asked="{host}:{port}" if self.flips_port else "unix:{socket}",
                ports='  ports: [8000, 8001]\n  address: "{host}"\n' if self.flips_port else "",
                python=sys.executable,
                ask=ASK,
                protocol=protocol,
                more=more,
            )
        )

    def up(self) -> None:
        run = self.folder / "run"
        unit, address = ("8000", f"{HOST}:8000") if self.flips_port else ("v1", f"{run}/v1.sock")
        (run / "current.sock").symlink_to("v1.sock")
        subprocess.run([self.folder / "ctl", "start", unit, address, "v1"], check=True)
        subprocess.run(self.nginx.split(), check=True)
        until("it answers", lambda: ready.health(HOST, page="/version") is None)

    def down(self) -> None:
        for pid_file in self.folder.glob("run/*.pid"):
            subprocess.run([self.folder / "ctl", "stop", pid_file.stem], check=True)
        if (self.folder / "nginx.pid").exists():
            subprocess.run([*self.nginx.split(), "-s", "stop"], check=True, capture_output=True)
            until("nginx has ended", lambda: not (self.folder / "nginx.pid").exists())


@contextmanager
def shop(protocol, strategy):
    need_wheel("nginx")
    if not Path(sys.executable).with_name("uwsgi").exists():
        need("uwsgi")
    folder = Path(tempfile.mkdtemp(prefix="dl-"))
    it = Shop(folder, protocol, strategy)
    try:
        it.up()
        yield it
    finally:
        it.down()
        shutil.rmtree(folder)


@pytest.mark.parametrize("strategy", ["socket-flip", "port-flip"])
@pytest.mark.parametrize("protocol", ["fastcgi", "uwsgi"])
def test_an_app_that_does_not_speak_http(protocol, strategy):
    with shop(protocol, strategy) as it:
        load = Load((f"http://{HOST}:8080",), rate=100.0, mix="get=60,post=37,slow=3", slow_s=1.0).start()
        try:
            for release in RELEASES:
                result = roll(it.config, "deploy", it.folder / f"{release}.tar.gz")
                assert (result.outcome, int(result.exit)) == ("done", 0), result
            load.expect(RELEASES[-1])
        finally:
            report = load.stop(trust=False)
        assert report.failed == 0, report.table()
        assert report.kinds.keys() == {"get", "post", "slow"}
        assert report.versions.keys() == {"v1", *RELEASES}
        assert len(list(it.folder.glob("run/*.pid"))) == 1, "only the live one runs"


# ---------------------------------------------------------------- HAProxy asks the app

CFG = """\
defaults
  mode http
  timeout connect 1s
  timeout client 60s
  timeout server 60s
listen shop
  bind {host}:8090
  option httpchk GET /healthz
  server web1 unix@{socket} check inter 300ms
"""


def test_a_server_of_haproxy_that_is_the_link(tmp_path):
    with in_place(BASE, strategy="socket-flip") as lab:
        cfg = tmp_path / "haproxy.cfg"
        host = lab.settings.host("web1")
        link = lab.settings.run(lab.folder, "web1") / "current.sock"
        cfg.write_text(CFG.format(host=host, socket=link))
        edit(lab, {"{host}:8080": "{host}:8090"})
        haproxy = subprocess.Popen(
            [find("haproxy", "path"), "-db", "-f", str(cfg)], stderr=subprocess.DEVNULL
        )
        try:
            until("HAProxy serves", lambda: ready.health(host, 8090, "/version") is None)
            load = Load(
                (f"http://{host}:8090",), rate=100.0, mix="get=60,post=36,slow=2,ws=2", slow_s=1.0, ws_s=1.0
            )
            load.start()
            try:
                for release in RELEASES:
                    result = roll(lab.config, "deploy", lab.folder / "releases" / f"{release}.tar.gz")
                    assert (result.outcome, int(result.exit)) == ("done", 0), result
                load.expect(RELEASES[-1])
            finally:
                report = load.stop(trust=False)
            assert report.failed == 0, report.table()
            assert report.versions.keys() == {"v1", *RELEASES}
        finally:
            haproxy.send_signal(signal.SIGTERM)
            haproxy.wait(20)
