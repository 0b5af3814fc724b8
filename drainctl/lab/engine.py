"""
A Docker engine for the lab: one that answers already, or one started here, below one folder.

    FOLDER/daemon.json   its whole configuration      FOLDER/docker.sock   where it answers
    FOLDER/data/         images and containers        FOLDER/dockerd.log   what it says
    FOLDER/users         locked by each process that uses it: the last one stops it

Only root can start one. It leaves the machine as it was: its bridge and its one iptables rule, which lets its
containers talk to each other where another engine has forbidden forwarding, go when it stops; it sets no
forwarding and no policy. So containers are reached through ports published on 127.0.0.1, and out to a network
they get only with the host's (`docker build --network host`).
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from drainctl.errors import DrainctlError, PreflightError
from drainctl.lab import base_image
from drainctl.lab.processes import Process, Service, end, family, started_at
from drainctl.lab.programs import find_on_path, on_path, run

START_S = 30.0
STOP_S = 20.0
COMMAND_S = 600.0
LAB = "10.77.0.0/16"  # what all engines of labs take their networks from
POOL = "10.77.128.0/18"  # the networks of containers, /24 each
BRIDGES = range(200, 240)  # 10.77.N.1/24: the first that no interface has


class Engine:
    """
    A context manager. `host` is what DOCKER_HOST is to be.

    `find_or_start` takes one that answers; `start` always has one of its own below `folder`, which must be
    another folder for each engine and short (a socket's path has at most 107 bytes). What `close` ends is
    what was started here, once no other process uses it; its images stay in the folder.
    """

    def __init__(self, host: str, folder: Path | None = None) -> None:
        self.host = host
        self.folder = folder
        self._users: IO[str] | None = None

    @classmethod
    def find_or_start(cls, folder: Path | str) -> Self:
        """
        The engine at DOCKER_HOST or the default socket, else one below `folder`.

        Raises: PreflightError that says why there is none.
        """
        _installed("docker", "docker.io")
        asked = os.environ.get("DOCKER_HOST")
        host = asked or "unix:///var/run/docker.sock"
        wrong = unanswered(host)
        if wrong is None:
            return cls(host)
        if asked:
            hint = "start it, or unset DOCKER_HOST"
            raise PreflightError(f"no Docker engine answers at DOCKER_HOST={asked}: {wrong}", hint=hint)
        return cls.start(folder)

    @classmethod
    def start(cls, folder: Path | str) -> Self:
        """An engine of our own below `folder`, whoever started it. Raises: PreflightError."""
        folder = Path(folder).absolute()
        _refuse_start()
        folder.mkdir(parents=True, exist_ok=True)
        engine = cls(f"unix://{folder}/docker.sock", folder)
        engine._users = (folder / "users").open("a")
        try:
            with engine._alone():
                fcntl.flock(engine._users, fcntl.LOCK_SH)
                if unanswered(engine.host) is not None:
                    engine._start()
        except BaseException:
            engine.close()
            raise
        return engine

    @property
    def ours(self) -> bool:
        """Whether it was started by this module, so that it may be stopped."""
        return self.folder is not None

    @property
    def env(self) -> dict[str, str]:
        """The environment of programs that are to use this engine."""
        return {**os.environ, "DOCKER_HOST": self.host}

    def docker(self, *words: str, limit_s: float = COMMAND_S) -> str:
        """`docker WORDS`; returns its stdout. Raises: DrainctlError with what it said on stderr."""
        done = run(["docker", *words], limit_s, self.env)
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip() or "nothing"
            raise DrainctlError(f"docker {' '.join(words)} ended with {done.returncode} and said: {said}")
        return done.stdout

    def base_image(self, tell: Callable[[str], None] = lambda _: None) -> str:
        """
        The name of a Debian image that this engine has: here already, pulled, or built by debootstrap.

        `tell` hears what is done where it takes time. Raises: DrainctlError.
        """
        return base_image.bring(self.docker, tell)

    # ------------------------------------------------------------ one that was started here

    def restart(self) -> None:
        """Stop it and start it again, as an operator or a package update does. Raises: PreflightError."""
        with self._alone():
            self._start()

    def stop(self) -> None:
        """Stop it, whoever uses it; its containers stop with it, and stay."""
        with self._alone():
            self._stop()

    def close(self) -> None:
        """Let go of it. Nobody else has it: its containers and networks are removed, and it is stopped."""
        if self._users is None:
            return
        users, self._users = self._users, None
        with users, self._alone():
            try:
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            if unanswered(self.host) is None:
                self._clear()
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------ how it is done

    @property
    def _own(self) -> Path:
        if self.folder is None:
            raise DrainctlError(f"the engine at {self.host} was not started here", left="it is left as it is")
        return self.folder

    @cached_property
    def _bridge(self) -> str:
        """Its bridge, and the mark of its rule. An interface's name has at most 15 bytes."""
        return f"drain-{sha256(bytes(self._own)).hexdigest()[:8]}"

    @cached_property
    def _service(self) -> Service:
        """The daemon stays in the foreground by itself. Its session is its own: Ctrl-C is not for it."""
        own, dockerd = self._own, _installed("dockerd", "docker.io")
        conf = own / "daemon.json"
        argv = ("setsid", "--fork", dockerd, "--config-file", str(conf))
        return Service("the Docker engine", argv, own / "dockerd.pid", conf, own / "dockerd.log")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other process starts or stops it meanwhile."""
        with (self._own / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _start(self) -> None:
        own = self._own
        self._stop()  # one that runs, or what a killed one left: containerd, the bridge
        self._write()
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        _run("ip", "addr", "add", _free(), "dev", self._bridge)
        _run("ip", "link", "set", self._bridge, "up")
        if on_path("iptables"):
            _run("iptables", "-w", "-I", "FORWARD", *self._rule)
        (own / "dockerd.log").unlink(missing_ok=True)
        self._service.start(dict(os.environ))
        deadline = time.monotonic() + START_S
        while (wrong := unanswered(self.host)) is not None:
            if time.monotonic() > deadline:
                self._stop()
                raise self._service.failed(f"does not answer {START_S:g} s after its start: {wrong}")
            time.sleep(0.05)

    def _write(self) -> None:
        own = self._own
        settings = {
            "data-root": f"{own}/data",
            "exec-root": f"{own}/exec",
            "pidfile": f"{own}/dockerd.pid",
            "hosts": [self.host],
            "bridge": self._bridge,
            "default-address-pools": [{"base": POOL, "size": 24}],
            "iptables": False,
            "ip-forward": False,
            "log-level": "warn",
        }
        self._service.conf.write_text(json.dumps(settings, indent=2) + "\n")

    @property
    def _rule(self) -> tuple[str, ...]:
        comment = ("-m", "comment", "--comment", self._bridge)
        return ("-s", LAB, "-d", LAB, *comment, "-j", "ACCEPT")

    def _clear(self) -> None:
        with suppress(DrainctlError):  # it is stopped in any case, and a later one goes on with what is left
            if known := self.docker("ps", "--all", "--quiet").split():
                self.docker("rm", "--force", "--volumes", *known)
            self.docker("network", "prune", "--force")

    def _stop(self) -> None:
        """The daemon takes its containers and containerd with it; one that was killed could not."""
        end(self._processes, STOP_S)
        (self._own / "dockerd.pid").unlink(missing_ok=True)
        if Path(f"/sys/class/net/{self._bridge}").exists():
            _run("ip", "link", "del", self._bridge)
        if on_path("iptables"):
            for _ in range(_run("iptables", "-w", "-S", "FORWARD").count(self._bridge)):
                _run("iptables", "-w", "-D", "FORWARD", *self._rule)

    def _processes(self) -> dict[Process, int]:
        master = self._service.master()
        found = {master} if master is not None else self._left_over()
        return dict.fromkeys(found, int(signal.SIGTERM))

    def _left_over(self) -> set[Process]:
        """What a killed daemon left: containerd and its children. Their command lines name the folder."""
        found: set[Process] = set()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # ended meanwhile
                pid = int(path.parent.name)
                ours = f"{self._own}/exec/".encode() in path.read_bytes()
                started = started_at(pid) if ours else None
                if started is not None:
                    found |= family(Process(pid, started))
        return found


def cache() -> Path:
    """Where one user's engine and base image stay between runs (XDG Base Directory Specification)."""
    return base_image.cache()


def unanswered(host: str) -> str | None:
    """None when an engine answers at this DOCKER_HOST, else why not."""
    try:
        version = ["docker", "version", "--format", "{{.Server.APIVersion}}"]
        done = run(version, 10.0, {**os.environ, "DOCKER_HOST": host})
    except DrainctlError:
        return "no answer within 10 s"
    return None if done.returncode == 0 else done.stderr.strip() or f"exit code {done.returncode}"


def _refuse_start() -> None:
    """Raises: PreflightError where this user or machine cannot have an engine."""
    if os.geteuid() != 0:
        raise PreflightError(
            "no Docker engine answers, and only root can start one",
            left="nothing was started",
            hint="start the machine's engine (systemctl start docker), or run this as root",
        )
    for program, package in (("docker", "docker.io"), ("dockerd", "docker.io"), ("ip", "iproute2")):
        _installed(program, package)


def _installed(program: str, package: str) -> str:
    """As find_on_path; says that nothing was started. Raises: PreflightError."""
    try:
        return find_on_path(program, package)
    except PreflightError as error:
        error.left = "nothing was started"
        raise


def _run(program: str, *words: str) -> str:
    """Run ip or iptables. Raises: PreflightError with its words."""
    argv = [on_path(program) or program, *words]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip()
        raise PreflightError(f"{program} {' '.join(words)} ended with {done.returncode} and said: {said}")
    return done.stdout


def _free() -> str:
    """An address for a bridge in a network that no interface of this machine is in."""
    taken = _run("ip", "-4", "-brief", "addr")
    for number in BRIDGES:
        if f"10.77.{number}." not in taken:
            return f"10.77.{number}.1/24"
    raise PreflightError("every network from 10.77.200.0/24 to 10.77.239.0/24 is taken on this machine")
