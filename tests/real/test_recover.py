"""`recover`: two machines that stand by for a third, with nothing in common but the store and the nodes."""

from __future__ import annotations

import signal
import subprocess
import tempfile
import threading
from pathlib import Path

import pytest

from drainctl.lab.load import Load
from tests.conftest import SLOW
from tests.real import fence_kit, store_kit
from tests.real.rollout_kit import current, flags, wait_up

pytestmark = pytest.mark.real


@pytest.fixture(scope="module", name="lab")
def a_lab():
    with fence_kit.three_nodes("127.0.108") as lab:
        yield lab


@pytest.fixture(scope="module", name="server")
def a_server():
    with store_kit.postgres("127.0.108.200") as server:
        yield server


class Machine:
    """A folder that stands for a machine: its HOME, its copy of drainctl.yml, where it is called."""

    def __init__(self, lab, store: str) -> None:
        self.lab = lab
        self.home = Path(tempfile.mkdtemp(prefix="home-", dir=lab.folder))
        text = lab.config.read_text()
        [line] = [line for line in text.splitlines() if line.startswith("store:")]
        self.config = self.home / "drainctl.yml"
        self.config.write_text(text.replace(line, f"store: {store}"))
        self.env = {"HOME": str(self.home), "PWD": str(self.home)}

    def call(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return fence_kit.drainctl(self.lab, *argv, config=self.config, env=self.env)

    def start(self, *argv: str, stop_at: str = "", before: str = "") -> Started:
        process = fence_kit.popen(
            self.lab, *argv, config=self.config, env=self.env, stop_at=stop_at, before=before
        )
        return Started(process)


class Started:
    """A drainctl that runs; what it tells is read as it comes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self.thread = threading.Thread(target=self._read)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stderr
        self.lines.extend(iter(self.process.stderr.readline, ""))

    @property
    def told(self) -> str:
        return "".join(self.lines)

    def end(self, number: int | None = None) -> int:
        """Waits for its end, after a signal; kills what does not end."""
        if number:
            self.process.send_signal(number)
        try:
            self.process.wait(30 * SLOW)
        finally:
            self.process.kill()
            self.process.wait()
            self.thread.join()
            for pipe in (self.process.stdout, self.process.stderr):
                if pipe:
                    pipe.close()
        return self.process.returncode


def test_of_two_that_stand_by_one_takes_over_from_another_machine(lab, server, until):
    store = server.url(server.schema())
    machines = [Machine(lab, store) for _ in range(3)]
    before = current(lab)
    load = Load(lab.urls, rate=100.0).start()
    dying = machines[0].start("deploy", str(lab.release("rec1")), stop_at="RunOnNode")
    watchers = [each.start("recover", "--watch", "--every", "0.3") for each in machines[1:]]
    try:
        until("it stands before its restart", lambda: fence_kit.stopped(dying.process.pid), limit_s=30)
        until("the watchers see who runs it", lambda: all("is run by" in one.told for one in watchers))
        assert current(lab) != before
        until(
            "one has gone on with it to its end",
            lambda: any("was resumed: done" in one.told for one in watchers),
            limit_s=60,
        )
        until("nobody sees an open one", lambda: all("no rollout is open" in one.told for one in watchers))
        codes = [one.end(signal.SIGTERM) for one in watchers]
    finally:
        for one in (dying, *watchers):
            one.end(signal.SIGKILL)
        report = load.stop(trust=False)
    told = "\n----\n".join(one.told for one in watchers)
    assert codes == [0, 0], told
    assert sum("was resumed: done" in one.told for one in watchers) == 1, told
    for one in watchers:
        mine = [line for line in one.lines if line[2:3] == ":" and "rollout" in line]
        assert len(mine) == len(set(mine)), "a line is told once"
        assert one.lines[-1].endswith("ended\n")
    assert current(lab) == dict.fromkeys(before, "rec1")
    assert flags(lab) == []
    assert report.failed == 0, report.failures
    for name in before:
        assert fence_kit.overlaps(fence_kit.log(lab, name)) == []
    wait_up(lab)


def test_once_it_takes_back_what_died_or_does_nothing(lab, server, until):
    store = server.url(server.schema())
    here, there = Machine(lab, store), Machine(lab, store)
    before = current(lab)
    nothing = there.call("recover")
    assert (nothing.returncode, nothing.stderr.count("\n")) == (0, 1)
    assert "no rollout is open" in nothing.stderr
    dying = here.start("deploy", str(lab.release("rec2")), stop_at="RunOnNode")
    until("it stands before its restart", lambda: fence_kit.stopped(dying.process.pid), limit_s=30)
    dying.end(signal.SIGKILL)
    taken = there.call("recover", "--then", "abort")
    assert taken.returncode == 0, taken.stderr
    assert "was taken back: put-back, so it is over" in taken.stderr
    assert (current(lab), flags(lab)) == (before, [])
    wait_up(lab)


def test_a_signal_at_the_very_end_of_a_rollout_that_was_taken_over_ends_the_watch(lab, server, until):
    """There the rollout has nothing to settle any more and is done; the watch must have heard it too."""
    store = server.url(server.schema())
    here, there = Machine(lab, store), Machine(lab, store)
    dying = here.start("deploy", str(lab.release("rec3")), "--only", "web1", stop_at="RunOnNode")
    until("it stands before its restart", lambda: fence_kit.stopped(dying.process.pid), limit_s=30)
    dying.end(signal.SIGKILL)
    stands = "Performer.prune = lambda *_: os.kill(os.getpid(), signal.SIGSTOP) or ''"
    watcher = there.start("recover", "--watch", "--every", "0.2", before=stands)
    try:
        until("it is at its end", lambda: fence_kit.stopped(watcher.process.pid), limit_s=60)
        watcher.process.send_signal(signal.SIGTERM)
        watcher.process.send_signal(signal.SIGCONT)
        assert watcher.end() == 0, watcher.told
    finally:
        watcher.end(signal.SIGKILL)
    assert "was resumed: done" in watcher.told
    wait_up(lab)


def test_what_people_stopped_is_left_to_people(lab, server, until):
    machine = Machine(lab, server.url(server.schema()))
    running_one = machine.start("restart", stop_at="RunOnNode")
    until("it stands before its restart", lambda: fence_kit.stopped(running_one.process.pid), limit_s=30)
    paused = machine.call("pause")
    assert paused.returncode == 0, paused.stderr
    running_one.process.send_signal(signal.SIGCONT)
    assert running_one.end() == 3, running_one.told
    left = machine.call("recover")
    assert left.returncode == 0
    assert "is paused: it is left to people" in left.stderr
    assert machine.call("abort").returncode == 0
    wait_up(lab)


def test_a_store_that_is_away_is_told_once_and_waited_for(lab, server, until):
    machine = Machine(lab, server.url(server.schema()))
    watcher = machine.start("recover", "--watch", "--every", "0.2")
    try:
        until("it stands by", lambda: "no rollout is open" in watcher.told)
        server.kill()
        until("it tells that the store is away", lambda: "the journal cannot be read" in watcher.told)
        server.start()
        until("it stands by again", lambda: watcher.told.count("no rollout is open") == 2, limit_s=30)
        assert watcher.told.count("the journal cannot be read") == 1
        assert watcher.end(signal.SIGTERM) == 0
    finally:
        watcher.end(signal.SIGKILL)
