"""
The fence on a node: on this machine's own shell and through a real sshd; and a controller that was stopped
for longer than its lease, between its last look at the lease and its act, on a real cluster under load.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from drainctl.errors import CommandFailed, Fenced
from drainctl.lab.load import Load
from drainctl.model import FlagHttp, Health
from drainctl.node import fence
from drainctl.node.fence import Fence, Says
from tests.conftest import SLOW
from tests.real import fence_kit
from tests.real.node_kit import LIMIT_S, a_shop, a_transport  # noqa: F401 - fixtures
from tests.real.rollout_kit import current, flags, wait_up

pytestmark = pytest.mark.real


def by(token: int, rollout: str, **more) -> Fence:
    return Fence(token, rollout, "deploy", "v2", f"{rollout}@ops (pid 1)", "2026-11-25T00:00:00Z", **more)


class Node:
    """A node's disk and the shell that reaches it."""

    def __init__(self, folder: Path, transport) -> None:
        self.root = folder / "the root"
        (self.root / "releases" / "v1").mkdir(parents=True)
        (self.root / "current").symlink_to("releases/v1")
        self.at = fence.place(str(self.root), None)
        self.transport = transport

    def run(self, line: str, who: Fence, before: str = "", **more):
        text = before + fence.wrap(line, who, self.at, "an act", **more)
        return self.transport.run(text, limit_s=LIMIT_S)

    def claim(self, who: Fence) -> str:
        return fence.parse_claimed(self.transport.run(fence.claim(who, self.at, 1), limit_s=LIMIT_S).out)

    @property
    def fence(self) -> Path:
        return self.root / fence.FENCE

    @property
    def claims(self):
        return fence.parse(self.transport.run(fence.look(self.at), limit_s=LIMIT_S).out)

    @property
    def log(self) -> list[fence_kit.Entry]:
        return fence_kit.entries(self.root / fence.LOG)


@pytest.fixture(name="node")
def a_node(tmp_path, transport):
    return Node(tmp_path, transport)


# ---------------------------------------------------------------- one shell line


def test_a_line_keeps_its_output_its_code_and_its_input(node):
    who = by(5, "r1")
    done = node.run("echo out; echo err >&2; exit 3", who)
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")
    assert node.run("set -e; trap 'echo bye' EXIT; false; echo never", who).out == "bye\n"
    assert node.run("cat <<E # )\n1)\nE", who).out == "1)\n"
    text = fence.wrap("cat", who, node.at, "an act")
    assert node.transport.run(text, limit_s=LIMIT_S, stdin=b"sent").out == "sent"


def test_a_higher_token_refuses_a_lower_one_and_says_who_it_is(node):
    assert node.run("echo 1", by(5, "r1")).code == 0
    assert node.run("echo 2", by(7, "r2")).code == 0
    done = node.run("echo never", by(5, "r1"))
    assert (done.code, done.out) == (Says.FENCED, "")
    assert "rollout r2 (deploy v2) of r2@ops (pid 1)" in (fence.refused(done.code, done.err) or "")
    assert node.run("echo 3", by(7, "r2")).out == "3\n"
    assert node.run("echo never", by(7, "r3")).code == Says.FENCED, "two stores, the same second"
    told = [(entry.what, entry.token) for entry in node.log if entry.what != "end"]
    assert told == [
        ("raised", 5),
        ("begin", 5),
        ("raised", 7),
        ("begin", 7),
        ("refused", 5),
        ("begin", 7),
        ("refused", 7),
    ]


def test_each_rollout_leaves_which_release_was_there_when_it_came(node):
    node.claim(by(5, "r1"))
    (node.root / "current").unlink()
    (node.root / "current").symlink_to("releases/v2/")
    assert node.claim(by(6, "r1")) == "raised", "the same rollout, resumed"
    assert node.claim(by(6, "r1")) == "held"
    assert node.claim(replace(by(7, "r2"), verb="drain", to=None)) == "raised"
    assert node.claim(by(8, "r1")) == "raised"
    assert [(one.token, one.rollout, one.was) for one in node.claims] == [(8, "r1", "v1"), (7, "r2", "v2")]
    for number in range(9, 20):
        node.claim(by(number, f"r{number}"))
    assert [one.token for one in node.claims] == list(range(19, 9, -1))
    assert sorted(path.name for path in node.root.iterdir()) == [
        ".drainctl-fence",
        ".drainctl-log",
        "current",
        "releases",
    ]


def test_stealing_goes_below_a_higher_token_and_shuts_out_whom_it_was_stolen_from(node):
    node.claim(by(2_000_000_000, "r1"))
    assert node.claim(by(5, "r2", steal=True)).startswith("stolen from 2000000000 r1 ")
    assert node.run("echo mine", by(5, "r2")).out == "mine\n"
    assert node.run("echo never", by(2_000_000_000, "r1")).code == Says.FENCED
    assert node.claim(by(6, "r3")) == "raised", "the wrong clock is forgotten"


def test_tokens_of_a_millisecond_are_compared_as_numbers_and_are_above_those_of_a_second(node):
    """What an earlier drainctl left is in seconds, which are fewer digits."""
    node.claim(by(1_795_566_712, "r1"))
    assert node.claim(by(1_795_566_712_999, "r2")) == "raised"
    assert node.claim(by(1_795_566_713_000, "r3")) == "raised", "one millisecond later"
    for late in (by(1_795_566_712_999, "r2"), by(1_795_566_799, "r4")):
        assert node.run("echo never", late).code == Says.FENCED
    assert node.claims[0].token == 1_795_566_713_000


def test_an_act_in_flight_is_waited_for_by_whoever_takes_over(node, until):
    running_one = threading.Thread(target=node.run, args=("sleep 1; echo over", by(5, "r1")))
    running_one.start()
    until("the old act has begun", lambda: [entry for entry in node.log if entry.what == "begin"])
    busy = node.run("echo never", by(7, "r2"), wait_s=0.3)
    assert busy.code == Says.BUSY
    assert "begin 5 r1 an act" in (fence.refused(busy.code, busy.err) or "")
    assert node.run("echo new", by(7, "r2"), wait_s=20 * SLOW).out == "new\n"
    running_one.join()
    assert fence_kit.overlaps(node.log) == []


def test_what_an_act_leaves_running_holds_nobody_up(node):
    done = node.run("sleep 60 >/dev/null 2>&1 & echo $!", by(5, "r1"))
    try:
        assert node.run("echo new", by(7, "r2"), wait_s=0.3).out == "new\n"
    finally:
        os.kill(int(done.out), signal.SIGKILL)


def test_many_that_come_at_once_leave_one_the_highest(node):
    codes: dict[int, int] = {}

    def come(token: int) -> None:
        codes[token] = node.run("sleep 0.05", by(token, f"r{token}"), wait_s=20 * SLOW).code

    threads = [threading.Thread(target=come, args=(token,)) for token in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(codes.values()) <= {0, Says.FENCED}
    assert codes[8] == 0
    assert node.claims[0].token == 8
    assert fence_kit.overlaps(node.log) == []


def test_without_flock_the_token_is_checked_all_the_same(node):
    bare = 'command() { [ "$2" != flock ]; }\n'
    assert node.run("echo 1", by(7, "r1"), before=bare).out == "1\n"
    assert node.run("echo never", by(5, "r2"), before=bare).code == Says.FENCED
    assert node.run("echo 2", by(8, "r2"), before=bare).out == "2\n"


def test_where_nothing_can_be_written_the_line_is_run_and_that_is_said(node):
    nowhere = node.at._replace(file="/proc/fence", log="/proc/log")
    done = node.transport.run(fence.wrap("echo run", by(5, "r1"), nowhere, "an act"), limit_s=LIMIT_S)
    assert (done.code, done.out, done.err) == (0, "run\n", "")
    claimed = node.transport.run(fence.claim(by(5, "r1"), nowhere, 1), limit_s=LIMIT_S)
    assert fence.parse_claimed(claimed.out) == "not raised: /proc/fence cannot be written"


def test_a_fence_that_is_no_text_of_ours_is_replaced(node):
    node.fence.write_bytes(b"\xff\0garbage\n")
    assert node.run("echo 1", by(5, "r1")).out == "1\n"
    assert [one.token for one in node.claims] == [5]


def test_the_log_is_shortened(node):
    (node.root / fence.LOG).write_text("1.00 begin 1 r0 x\n" * 5000)
    node.claim(by(5, "r1"))
    assert len(node.log) < fence.LOG_LINES + 5
    assert [entry.what for entry in node.log[-3:]] == ["raised", "begin", "end"]


# ---------------------------------------------------------------- a node's hands


def test_every_hand_that_changes_a_node_is_refused_and_no_look_is(shop, tmp_path):
    shop.root.mkdir()
    old, new = shop.host().fenced(by(5, "r1")), shop.host().fenced(by(7, "r2"))
    release = shop.release("r1")
    old.stage(release)
    old.switch("r1")
    assert new.claim(1) == "raised"
    acts = {
        "switch to r1 was refused": lambda: old.switch("r1"),
        "set the flag": lambda: old.set_flag("{}"),
        "clear the flag": lambda: old.clear_flag("r1"),
        "stage r1": lambda: old.stage(release),
        "prune releases": lambda: old.prune(1),
        "`touch it`": lambda: old.run("touch it", LIMIT_S),
        "take it over": lambda: old.claim(1),
        "write": lambda: old.do("write", f"touch '{tmp_path}/it'"),
    }
    for words, act in acts.items():
        with pytest.raises(Fenced, match=words) as caught:
            act()
        assert caught.value.node == "web1"
        assert "rollout r2" in str(caught.value)
    assert not (tmp_path / "it").exists()
    assert old.disk().current == "r1"
    assert [one.was for one in old.claims()] == ["r1", None]
    assert shop.host().run("echo not fenced at all", LIMIT_S).code == 0


def test_a_flag_over_http_is_asked_for_at_the_fence_first(shop):
    health = Health("", FlagHttp("http://127.0.22.21:1/flag"))
    shop.root.mkdir()
    assert shop.host(health=health).fenced(by(7, "r2")).claim(1) == "raised"
    with pytest.raises(Fenced, match="DELETE the flag was refused"):
        shop.host(health=health).fenced(by(5, "r1")).clear_flag("r1", steal=True)


def test_a_node_that_is_busy_says_with_what(shop, until):
    shop.root.mkdir()
    old = shop.host().fenced(by(5, "r1"))
    thread = threading.Thread(target=old.run, args=("sleep 1", LIMIT_S))
    thread.start()
    log = shop.root / fence.LOG
    until("it runs", lambda: log.exists() and "begin" in log.read_text())
    with pytest.raises(CommandFailed, match=r"still runs on it: .* begin 5 r1 `sleep 1`"):
        shop.host().fenced(by(7, "r2")).claim(0.2)
    thread.join()


# ---------------------------------------------------------------- a stopped controller


@pytest.fixture(scope="module", name="lab")
def a_lab():
    with fence_kit.three_nodes("127.0.91") as lab:
        yield lab


@pytest.mark.parametrize(("at", "then"), [("SetFlag", "abort"), ("RunOnNode", "resume")])
def test_a_controller_that_was_stopped_for_longer_than_its_lease_changes_nothing(lab, until, at, then):
    """It wakes between its look at the lease and its act: only the node can tell it."""
    before = current(lab)
    release = f"{at.lower()}-{then}"
    archive = str(lab.release(release))
    load = Load(lab.urls, rate=100.0).start()
    try:
        with fence_kit.ended(fence_kit.popen(lab, "deploy", archive, stop_at=at)) as first:
            until("the first controller is stopped", lambda: fence_kit.stopped(first.pid), limit_s=30)
            until("its lease runs out", lambda: not fence_kit.held(lab))
            taken = fence_kit.drainctl(lab, "recover", "--then", then)
            assert taken.returncode == 0, taken.stderr
            wanted = dict.fromkeys(before, release) if then == "resume" else before
            assert current(lab) == wanted
            logs = {name: fence_kit.log(lab, name) for name in before}
            first.send_signal(signal.SIGCONT)
            _, err = first.communicate(timeout=30 * SLOW)
    finally:
        report = load.stop(trust=False)
    assert first.returncode == 3, err
    assert "web1: " in err
    assert "has taken it over" in err
    assert "nodes in flight are as they were left" in err
    for name, was in logs.items():
        more = fence_kit.log(lab, name)[len(was) :]
        assert [entry.what for entry in more] == (["refused"] if name == "web1" else []), (name, more)
        assert fence_kit.overlaps(fence_kit.log(lab, name)) == []
    assert (current(lab), flags(lab)) == (wanted, [])
    wait_up(lab)
    assert report.failed == 0, report.failures
    assert report.requests > 100


def test_a_clock_that_was_wrong_needs_a_word(lab):
    """A controller with a store of its own meets a token that no clock of today makes."""
    [name, *_] = lab.settings.node_names
    path = lab.root(name) / fence.FENCE
    kept = path.read_text()
    path.write_text(f"3000000000000 r-odd 2065-01-24T05:20:00Z deploy v9 v1 them@elsewhere (pid 1)\n{kept}")
    refused = fence_kit.drainctl(lab, "restart", "--only", name)
    assert refused.returncode == 4, refused.stderr
    assert "rollout r-odd (deploy v9) of them@elsewhere (pid 1) since 2065" in refused.stderr
    assert "--steal takes the nodes from it" in refused.stderr
    done = fence_kit.drainctl(lab, "restart", "--only", name, "--steal")
    assert done.returncode == 0, done.stderr
    assert "fence stolen from 3000000000000 r-odd" in done.stderr
    assert fence_kit.drainctl(lab, "restart", "--only", name).returncode == 0


def test_the_fence_costs_a_few_milliseconds(tmp_path):
    """Measured against the same line without it; a bound that only a mistake breaks."""
    node = Node(tmp_path, None)
    bare, wrapped = ":", fence.wrap(":", by(5, "r1"), node.at, "an act")

    def spent(line: str) -> float:
        began = time.perf_counter()
        for _ in range(20):
            subprocess.run(["/bin/sh", "-c", line], check=True)
        return (time.perf_counter() - began) / 20

    spent(wrapped)
    most_s = 0.03 * SLOW
    assert min(spent(wrapped) - spent(bare) for _ in range(3)) < most_s, sys.version
