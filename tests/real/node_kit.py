"""A node reached in two ways, on this machine's own shell and through a real sshd, and a shop on its disk."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
import threading
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from drainctl.http import Http
from drainctl.model import (
    Cluster,
    Connect,
    Flag,
    FlagFile,
    Health,
    Node,
    Release,
    ReleaseLayout,
    Service,
)
from drainctl.node.archive import prepare
from drainctl.node.host import Host
from drainctl.node.local import LocalTransport
from drainctl.node.ssh import SshTransport
from tests.conftest import SLOW
from tests.real.sshd_kit import USER, sshd

HOST = "127.0.22.20"
NODE = Node("web1", HOST, "web1", ("http-check",))
LIMIT_S = 20 * SLOW
OURS = json.dumps({"rollout": "7f2c", "token": 3}) + "\nset by ops at noon"
THEIRS = json.dumps({"rollout": "9e1d", "token": 4}) + "\nset by another"


@pytest.fixture(scope="module", params=["local", "ssh"], name="transport")
def a_transport(request, tmp_path_factory):
    if request.param == "local":
        yield LocalTransport()
        return
    # SHLVL keeps bash from reading a login's start-up file, which may take long and is not what is tested.
    with sshd(tmp_path_factory.mktemp("sshd"), HOST, "SetEnv SHLVL=2") as server:
        transport = SshTransport(
            HOST,
            user=USER,
            port=server.port,
            key=server.key,
            known_hosts=server.known_hosts,
            ssh_config=None,
        )
        yield transport
        transport.close()


@dataclass
class Shop:
    """A node's disk, and a Host for it."""

    folder: Path
    transport: object

    @property
    def root(self) -> Path:
        return self.folder / "shop's root"

    @property
    def flag(self) -> Path:
        return self.folder / "a flag"

    def host(
        self, flag: Flag | None = None, shared=(), health: Health | None = None, root: Path | None = None
    ) -> Host:
        cluster = Cluster(
            app="shop",
            file="drainctl.yml",
            balancers=(),
            nodes=(NODE,),
            connect=Connect(),
            release=ReleaseLayout(str(root or self.root), shared=tuple(shared)),
            service=Service(),
            health=health or Health(check="", flag=flag or FlagFile("{folder}/a flag")),
            store="",
        )
        return Host(
            NODE, cluster, self.transport, Http(), lambda text: text.replace("{folder}", str(self.folder))
        )

    def release(self, id_: str, **files: str) -> Release:
        """A packed release with `app.py`, and what else is named."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            for name, text in {"app.py": id_, **files}.items():
                info = tarfile.TarInfo(name)
                info.size = len(text.encode())
                tar.addfile(info, io.BytesIO(text.encode()))
        source = self.folder / f"{id_}.tar.gz"
        source.write_bytes(out.getvalue())
        return prepare(str(source), id=None, into=self.folder)

    def below_releases(self) -> list[str]:
        return sorted(path.name for path in (self.root / "releases").iterdir())


@pytest.fixture(name="shop")
def a_shop(tmp_path, transport):
    return Shop(tmp_path, transport)


@contextlib.contextmanager
def serving(handler):
    with ThreadingHTTPServer(("127.0.22.21", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.22.21:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
