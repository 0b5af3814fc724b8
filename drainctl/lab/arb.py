"""
The lab's data store: two shards of two replicas each, a process per machine, on loopback.

    DIR/lab.json                 its base; every process that `up` left running, with its start time
    DIR/drainctl.yml             the cluster as drainctl sees it, strategy arb
    DIR/board                    the down board: DIR/board.probe and DIR/board.watch are its locks
    DIR/releases/v1.tar.gz …     releases of the store to deploy
    DIR/nodes/store1/            ctl, store.db, store.log, store.pid; srv/{releases,shared,current}

store1 and store2 hold the shard `users`, store3 and store4 `orders`. A release is the store itself,
`drainctl/arb/store.py`, and a release.json.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from drainctl.arb.store import SOUND
from drainctl.errors import ConfigError, PreflightError
from drainctl.lab import ready
from drainctl.lab.processes import Process, Service, end, family, marked
from drainctl.lab.releases import packed, unpack
from drainctl.threads import in_parallel

PAIRS = {"users": ("store1", "store2"), "orders": ("store3", "store4")}
NAMES = tuple(name for pair in PAIRS.values() for name in pair)
RELEASES = ("v1", "v2", "v3")
PORT = 8000
STORE = Path(__file__).parents[1] / "arb" / "store.py"

CONFIG = """\
# Written by `drainctl lab up --arb`.
app: shop
nodes:
{nodes}
connect: {{via: local}}
release: {{root: "{own}/srv", keep: 5}}
service: {{restart: "{own}/ctl restart", limit: 30s}}
health:
  version: "http://{{host}}:8000/version"
strategy: [arb]
arb:
  board: "file://{folder}/board"
  pairs: [[store1, store2], [store3, store4]]
  check: "http://{{host}}:8000/health"
  lag: "http://{{host}}:8000/lag"
  most_lag: 1s
  active: "http://{{host}}:8000/queries"
rollout: {{at_once: 1, max_failed: 0, on_failure: roll-back}}
drain: {{limit: 60s}}
watch: {{for: 1s, errors: 0}}
store: "sqlite:///{folder}/shop.db"
"""


class ArbLab:
    """
    The store in `folder`; its machines are `base`.11 to `base`.14, port 8000.

    `up` raises PreflightError (already up, an address taken, a machine that does not start: then all that
    was started is ended again) or ConfigError; `down` may be called at any time.
    """

    def __init__(self, folder: Path | str, *, base: str = "127.0.10", limit_s: float = 20.0) -> None:
        self.folder = Path(folder).absolute()
        self.base = base
        self.limit_s = limit_s

    @classmethod
    def open(cls, folder: Path | str) -> ArbLab:
        """The lab that is in `folder`. Raises: PreflightError if there is none of this kind."""
        stored = _stored(folder)
        if stored is None:
            raise PreflightError(f"no store lab in {folder}", hint=f"drainctl lab up --arb --dir {folder}")
        return cls(folder, base=stored["base"])

    @property
    def free(self) -> bool:
        """Whether the folder holds no lab, or one of this kind."""
        return is_arb(self.folder) or not (self.folder / "lab.json").exists()

    @property
    def config(self) -> Path:
        return self.folder / "drainctl.yml"

    @property
    def board(self) -> Path:
        """The file of the down board."""
        return self.folder / "board"

    @property
    def shards(self) -> dict[str, list[str]]:
        """The shards as `ReplicaSession` takes them."""
        return {shard: [f"http://{self.machine(name)}" for name in pair] for shard, pair in PAIRS.items()}

    @property
    def services(self) -> tuple[Service, ...]:
        return tuple(self.service(name) for name in NAMES)

    def host(self, name: str) -> str:
        """The address of `store1` …"""
        return f"{self.base}.{11 + NAMES.index(name)}"

    def machine(self, name: str) -> str:
        """`host:port`, as boards and clients know it."""
        return f"{self.host(name)}:{PORT}"

    def own(self, name: str) -> Path:
        """The folder of a machine."""
        return self.folder / "nodes" / name

    def ctl(self, name: str) -> Path:
        """The service command of a machine."""
        return self.own(name) / "ctl"

    def root(self, name: str) -> Path:
        """The release root of a machine."""
        return self.own(name) / "srv"

    def service(self, name: str) -> Service:
        """The store's process of a machine; the lab ends it at once, whatever it is answering."""
        own = self.own(name)
        start = (f"{own}/ctl", "start")
        return Service(
            f"{name} store", start, own / "store.pid", own / "store.db", own / "store.log", signal.SIGKILL
        )

    def release(self, release: str, **settings: Any) -> Path:
        """
        Write DIR/releases/`release`.tar.gz, the store with these settings (see `drainctl.arb.store.SOUND`).

        Raises: TypeError for an unknown setting.
        """
        if unknown := settings.keys() - SOUND.keys():
            raise TypeError(f"unknown setting {', '.join(sorted(unknown))}; known: {', '.join(SOUND)}")
        folder = self.folder / "releases"
        folder.mkdir(parents=True, exist_ok=True)
        told = json.dumps({**SOUND, **settings, "id": release}, indent=2).encode() + b"\n"
        path = folder / f"{release}.tar.gz"
        path.write_bytes(packed({"store.py": STORE.read_bytes(), "release.json": told}))
        return path

    def running(self) -> dict[str, Process | None]:
        """Each machine's process, if it runs now."""
        return {name: self.service(name).master() for name in NAMES}

    # ------------------------------------------------------------ up and down

    def up(self) -> None:
        """Start everything; returns when every machine serves and has caught up with its replica."""
        self._refuse()
        self._write()
        try:
            in_parallel([partial(self.service(name).start, self._environment()) for name in NAMES])
            for name in NAMES:
                ready.wait(self.services, partial(self._problem, name), self.limit_s)
        except BaseException as error:
            self.down()
            if isinstance(error, PreflightError):
                error.left = "all that was started is ended again"
            raise
        self._save({name: [process] for name, process in self.running().items() if process})

    def down(self) -> int:
        """End every process of this lab; files stay. Returns: how many were ended."""
        ended = end(self._processes)
        if _stored(self.folder) is not None:
            self._save({})
        return ended

    def problem(self) -> str | None:
        """None when every machine serves and has caught up, else what is wrong with the first one."""
        return next((wrong for name in NAMES if (wrong := self._problem(name))), None)

    def _problem(self, name: str) -> str | None:
        for page in ("/health", "/lag"):
            status, body = asked(self.machine(name), page)
            if status != 200:
                return f"{name}: {page} answers {body if status is None else status}"
        return None if float(body) < 1 else f"{name} is {body} s behind"

    def _processes(self) -> dict[Process, int]:
        stored = (_stored(self.folder) or {}).get("processes", {})
        known = {Process(*pair) for pairs in stored.values() for pair in pairs}
        found = {process for process in known if process.alive} | marked(f"DRAINCTL_LAB={self.folder}")
        for master in self.running().values():
            found |= family(master) if master else set()
        return dict.fromkeys(found, int(signal.SIGKILL))

    def _refuse(self) -> None:
        """Raises for what could not run, before anything is written."""
        if not re.fullmatch(r"127\.\d{1,3}\.\d{1,3}", self.base):
            raise ConfigError(f"base {self.base!r} is not the first three numbers of a loopback address")
        if not re.fullmatch(r"/[A-Za-z0-9_./+@-]*", str(self.folder)):
            raise ConfigError(
                f"{self.folder}: a lab's folder may hold letters, digits and _ . / + @ - only",
                hint="its path goes into configurations and commands; choose another --dir",
            )
        if alive := [name for name, master in self.running().items() if master]:
            raise PreflightError(
                f"the lab in {self.folder} is already up ({', '.join(alive)})",
                hint=f"drainctl lab down --dir {self.folder}",
            )

    def _write(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._save({})
        self.board.unlink(missing_ok=True)
        for release in RELEASES:
            self.release(release)
        for pair in PAIRS.values():
            for name, peer in (pair, pair[::-1]):
                self._write_machine(name, peer)
        nodes = "\n".join(f"  {name}: {{host: {self.host(name)}}}" for name in NAMES)
        own = f"{self.folder}/nodes/{{node}}"
        self.config.write_text(CONFIG.format(nodes=nodes, own=own, folder=self.folder))

    def _write_machine(self, name: str, peer: str) -> None:
        """Capistrano's layout in srv/, and the machine's own files beside it; its data is new."""
        own, root, first = self.own(name), self.root(name), RELEASES[0]
        (root / "releases" / first).mkdir(parents=True, exist_ok=True)
        (root / "shared").mkdir(exist_ok=True)
        unpack(self.folder / "releases" / f"{first}.tar.gz", root / "releases" / first)
        (root / "current").unlink(missing_ok=True)
        (root / "current").symlink_to(f"releases/{first}")
        for old in own.glob("store.db*"):
            old.unlink()
        (own / "node.env").write_text(
            f"NODE={name}\nPYTHON={sys.executable}\nDRAINCTL_LAB={self.folder}\n"
            f"LISTEN={self.machine(name)}\nPEER=http://{self.machine(peer)}\n"
        )
        ctl = self.ctl(name)
        ctl.write_text(Path(__file__).with_name("arb_ctl.sh").read_text())
        ctl.chmod(0o755)

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "DRAINCTL_LAB": str(self.folder)}

    def _save(self, processes: Mapping[str, list[Process]]) -> None:
        pairs = {name: [(one.pid, one.started) for one in found] for name, found in processes.items()}
        text = json.dumps({"arb": {"base": self.base, "processes": pairs}}, indent=2)
        written = self.folder / "lab.json.new"
        written.write_text(text + "\n")
        written.rename(self.folder / "lab.json")


def is_arb(folder: Path | str) -> bool:
    """Whether the lab in that folder is a store."""
    return _stored(folder) is not None


def asked(machine: str, path: str, limit_s: float = 2.0) -> tuple[int | None, str]:
    """One GET: status and body, or None and why there was no answer."""
    host, _, port = machine.rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=limit_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return None, str(error)
    finally:
        connection.close()


def _stored(folder: Path | str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads((Path(folder).absolute() / "lab.json").read_text())
    except FileNotFoundError:
        return None
    return found.get("arb")
