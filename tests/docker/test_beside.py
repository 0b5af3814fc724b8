"""Two containers on one host behind its nginx: port-flip, where start and stop are docker commands."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import need, until
from tests.docker.image_kit import Load, Site, build, get

HOST, PORT = "127.0.113.5", 18130
PORTS = (18131, 18132)

# docs/docker.md shows these keys; {docker} is `docker` there.
CONFIG = """\
app: shop
connect: {{via: local}}
nodes: {{host1: {{host: {host}}}}}
strategy: [port-flip]
release: {{root: {folder}/srv, keep: 3}}
service:
  start: >-
    {docker} rm --force shop-{{port}} >/dev/null 2>&1;
    {docker} run --detach --name shop-{{port}} --restart unless-stopped
    --publish 127.0.0.1:{{port}}:8080 $(cat {{root}}/releases/{{release}}/image)
  stop: {docker} stop --time 60 shop-{{port}}
  ports: [{ports[0]}, {ports[1]}]
  limit: 6s
nginx:
  upstream: shop
  file: {folder}/drainctl/upstream.conf
  test: {nginx} -t
  reload: {nginx} -s reload
  pid: {folder}/nginx.pid
  generation: http://{{host}}:{port}/-/generation
  worker_limit: 5s
  clients: kept
health: {{ready: "http://{{host}}:{port}/healthz", version: "http://{{host}}:{port}/version"}}
watch: {{for: 300ms}}
store: sqlite:///{folder}/journal.db
"""


class Host(Site):
    """A host with nginx and docker; what a Site asks its nodes and its drainctl, it does here."""

    def __init__(self, engine, folder: Path) -> None:
        super().__init__(engine, folder, ("shop",), 0)

    def up_with(self, release: str) -> None:
        nginx = f"{need('nginx')} -p {self.folder} -e {self.folder}/error.log -c {self.folder}/nginx.conf"
        docker = f"{need('docker')} --host {self.engine.host}"
        (self.folder / "drainctl").mkdir()
        self.config.write_text(
            CONFIG.format(host=HOST, port=PORT, ports=PORTS, folder=self.folder, docker=docker, nginx=nginx),
            encoding="utf-8",
        )
        conf = self.drainctl("render", "nginx", "--user", "root").stdout
        (self.folder / "nginx.conf").write_text(conf, encoding="utf-8")
        self._first(release)
        upstream = self.drainctl("render", "nginx", "--upstream").stdout
        (self.folder / "drainctl" / "upstream.conf").write_text(upstream, encoding="utf-8")
        subprocess.run(nginx.split(), check=True)
        until("nginx and the app answer", lambda: self.version() == release)

    def _first(self, release: str) -> None:
        """As after a first deploy: the release is there, current, and runs on the first port."""
        root = self.folder / "srv"
        (root / "releases" / release).mkdir(parents=True)
        (root / "releases" / release / "image").write_text(f"shop:{release}\n")
        (root / "current").symlink_to(f"releases/{release}")
        publish = ["--publish", f"127.0.0.1:{PORTS[0]}:8080"]
        self.engine.docker("run", "--detach", "--name", f"shop-{PORTS[0]}", *publish, f"shop:{release}")

    def release(self, name: str) -> str:
        """What is deployed: a folder with one file, which says the image."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        (folder / "image").write_text(f"shop:{name}\n")
        return str(folder)

    def version(self) -> str:
        return get(f"{HOST}:{PORT}", "/version")[1].strip()

    def end(self) -> None:
        pid = self.folder / "nginx.pid"
        if pid.exists():
            subprocess.run(["kill", "-QUIT", pid.read_text().strip()], check=True)
            until("nginx has ended", lambda: not pid.exists())
        self.engine.docker("rm", "--force", *[f"shop-{port}" for port in PORTS])


@pytest.fixture(name="host")
def a_host(engine) -> Iterator[Host]:
    for version in ("v1", "v2"):
        build(engine, version)
    build(engine, "bad-crash", "crash")
    folder = Path(tempfile.mkdtemp(prefix="dh-"))
    it = Host(engine, folder)
    try:
        it.up_with("v1")
        yield it
    finally:
        it.end()
        shutil.rmtree(folder)


def test_a_container_beside_the_other_takes_over_and_fails_nobody(host):
    with Load(f"{HOST}:{PORT}") as load:
        host.drainctl("deploy", host.release("v2"))
        assert host.version() == "v2"
        told = host.drainctl("deploy", host.release("bad-crash"), code=1).stderr
        assert host.version() == "v2", "a container that does not start never meets a user"
        host.drainctl("rollback", "--to", "v1")
        assert host.version() == "v1"
    assert "bad-crash" in told
    assert load.failed == {}
    assert load.total > 300
    until("one container serves", lambda: sum("running" in each for each in host.containers()) == 1)


def test_a_container_in_the_place_of_the_other_fails_somebody(host):
    """The control: the same load, and what a deploy script does that knows one port."""
    name = f"shop-{PORTS[0]}"
    with Load(f"{HOST}:{PORT}") as load:
        until("some were answered", lambda: load.total > 50)
        host.engine.docker("rm", "--force", name)
        publish = ["--publish", f"127.0.0.1:{PORTS[0]}:8080"]
        host.engine.docker("run", "--detach", "--name", name, *publish, "shop:v2")
        until("v2 answers", lambda: host.version() == "v2")
    assert load.failed
