"""Every verb through the real command line, on a real lab: what it prints, does and leaves; its exit code."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rollout_kit import Running, Said, cli, configure, current, flags, masters, quick_checks, running, wait_up

from drainctl.lab.cluster import Lab
from drainctl.lab.load import Load
from drainctl.lab.releases import make_release, unpack
from tests.conftest import SLOW, need, until

pytestmark = pytest.mark.real

NODES = ("web1", "web2", "web3")
OUTCOME = {0: "done", 1: "put-back", 3: "halted"}


@dataclass(frozen=True)
class Shop:
    """The lab, and a drainctl.yml with a journal of its own for one test."""

    lab: Lab
    config: Path
    started: list[Running] = field(default_factory=list)

    def changed(self, **more: str) -> Shop:
        """The same with texts of drainctl.yml replaced: `old="…", new="…"`, numbered where several."""
        text = self.config.read_text()
        for name in sorted(key for key in more if key.startswith("old")):
            assert more[name] in text
            text = text.replace(more[name], more[name.replace("old", "new")])
        self.config.write_text(text)
        return self

    def do(self, *words: str) -> Said:
        """A verb with `--output json`."""
        return cli(self.config, "--output", "json", *words)

    def start(self, *words: str) -> Running:
        self.started.append(Running(self.config, "--output", "json", *words))
        return self.started[-1]

    def archive(self, release: str) -> str:
        return str(self.lab.folder / "releases" / f"{release}.tar.gz")

    def status(self) -> dict:
        said = self.do("status")
        assert said.code == 0, said
        return json.loads(said.out)

    def last(self) -> tuple[str, str, str | None, bool]:
        """The latest rollout as `status` tells it: id, verb, outcome, whether it is open."""
        told = self.status()["rollout"]
        return told["id"], told["verb"], told["outcome"], told["open"]

    def answered(self) -> dict[str, str]:
        """The release that each node answers with."""
        found = {}
        for name in NODES:
            url = f"http://{self.lab.settings.host(name)}:8080/version"
            found[name] = subprocess.run(
                ["curl", "-fsS", url], capture_output=True, text=True, check=True
            ).stdout.strip()
        return found


@pytest.fixture(scope="module")
def lab():
    need("curl")
    with running("127.0.66", nodes=3, inter="300ms") as it:
        quick_checks(it)
        make_release(it.folder / "releases", "v4", fail_start=True)
        make_release(it.folder / "releases", "v5", pages_500=True)
        yield it


@pytest.fixture
def shop(lab, request):
    """Every node on v1, serving, with no other release on its disk; a journal of this test's own."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(functools.partial(back_to_v1, lab), NODES))
    wait_up(lab)
    changes = {
        "watch: {for: 1s, errors: 0}": "watch: {for: 100ms, errors: 0}",
        f"{lab.folder}/shop.db": f"{lab.folder}/{request.node.name}.db",
        'ctl restart"': 'ctl restart"\n  limit: 3s',
    }
    it = Shop(lab, configure(lab, changes, f"{request.node.name}.yml"))
    yield it
    for each in it.started:
        each.end()


def back_to_v1(lab: Lab, name: str) -> None:
    root = lab.root(name)
    lab.flag(name).unlink(missing_ok=True)
    (root / ".drainctl-fence").unlink(missing_ok=True)  # tokens of another test's journal, a moment ago
    first = root / "releases" / "v1"
    for release in (root / "releases").iterdir():
        if release != first:
            shutil.rmtree(release)
    if not first.exists():
        first.mkdir()
        unpack(lab.folder / "releases" / "v1.tar.gz", first)
    if (root / "current").readlink().name != "v1":
        (root / "new").symlink_to("releases/v1")
        (root / "new").rename(root / "current")
        subprocess.run([lab.ctl(name), "restart"], check=True, timeout=40 * SLOW)


def ended(said: Said, code: int, outcome: str | None = None) -> Said:
    """The exit code, and the same in the last event."""
    assert said.code == code, said
    assert said.ended["exit"] == code
    assert said.ended["outcome"] == (outcome or OUTCOME[code])
    return said


def untouched(shop: Shop, before: object) -> None:
    assert flags(shop.lab) == []
    assert masters(shop.lab) == before


# ---------------------------------------------------------------- restart and run


def test_restart_takes_every_node_in_turn_and_keeps_its_release(shop):
    before = masters(shop.lab)
    said = ended(shop.do("restart"), 0)
    assert [event["data"]["nodes"] for event in said.of("wave.began")] == [["web1"], ["web2"], ["web3"]]
    assert set(current(shop.lab).values()) == {"v1"}
    after = masters(shop.lab)
    assert all(after[name] != before[name] for name in NODES)
    assert flags(shop.lab) == []
    assert said.ended["lines"] == [f"{name}: in rotation, on v1" for name in NODES]
    shown = shop.status()["nodes"]["web1"]["servers"]
    assert {place: at["status"] for place, at in shown.items()} == {
        "lb1 shop/web1": "UP",
        "lb2 shop/web1": "UP",
    }


def test_only_takes_the_named_nodes(shop):
    before = masters(shop.lab)
    said = ended(shop.do("restart", "--only", "web3,web1"), 0)
    assert said.of("rollout.began")[0]["data"]["waves"] == [["web1"], ["web3"]]
    after = masters(shop.lab)
    assert {name for name in NODES if after[name] != before[name]} == {"web1", "web3"}


def test_run_runs_the_line_on_each_drained_node(shop):
    before = masters(shop.lab)
    line = "{ cat {root}/shared/drain; echo '{node} at {host}'; } >> {root}/shared/ran"
    ended(shop.do("run", line, "--only", "web1", "--only", "web2"), 0)
    for name in ("web1", "web2"):
        flag, _, rest = (shop.lab.root(name) / "shared" / "ran").read_text().partition("\n")
        assert json.loads(flag)["verb"] == "run"
        assert rest.strip() == f"{name} at {shop.lab.settings.host(name)}"
    assert not (shop.lab.root("web3") / "shared" / "ran").exists()
    untouched(shop, before)


def test_a_run_that_fails_leaves_the_node_out_and_the_printed_way_brings_it_back(shop):
    said = ended(shop.do("run", "echo no such package >&2; exit 7"), 3)
    assert flags(shop.lab) == ["web1"]
    assert said.of("step.failed", "web1", "run")[0]["data"]["why"].endswith(
        "ended with code 7:\n  no such package"
    )
    assert said.of("node.began", "web2") == []
    assert "OUT OF ROTATION" in said.ended["lines"][0]
    assert shop.status()["nodes"]["web1"]["servers"]["lb1 shop/web1"]["status"] == "NOLB"
    refused = shop.do("restart")
    assert refused.code == 5
    assert said.rollout in refused.err
    # The way out that was printed is taken word for word.
    [way] = [line for line in said.ended["lines"] if line.startswith("by hand: ")]
    words = shlex.split(way.removeprefix(f"by hand: drainctl -c {shop.config} ").partition(" (")[0])
    ended(shop.do(*words), 0)
    assert flags(shop.lab) == []
    wait_up(shop.lab)
    # And then the rollout can be given up, which leaves what was put right by hand alone.
    assert f"give up: drainctl -c {shop.config} abort {said.rollout}" in said.ended["lines"]
    ended(shop.do("abort", said.rollout), 0, "put-back")
    assert flags(shop.lab) == []
    ended(shop.do("restart", "--only", "web1"), 0)


# ---------------------------------------------------------------- deploy and rollback


def test_rollback_goes_back_release_by_release_and_to_a_named_one(shop):
    two = ("web1", "web2")
    only = ("--only", ",".join(two))
    for release in ("v2", "v3"):
        ended(shop.do("deploy", shop.archive(release), *only), 0)
    for release in ("v2", "v1"):  # never forward again to what was rolled back from
        said = ended(shop.do("rollback", *only), 0)
        assert said.of("rollout.began")[0]["data"]["targets"] == dict.fromkeys(two, release)
        assert shop.answered() == dict.fromkeys(two, release) | {"web3": "v1"}
    ended(shop.do("rollback", "--to", "v3", *only), 0)
    assert shop.answered() == dict.fromkeys(two, "v3") | {"web3": "v1"}
    before = masters(shop.lab)
    nowhere = shop.do("rollback", "--to", "v9")
    assert nowhere.code == 2
    assert nowhere.err.splitlines()[0] == (
        "error: web1 has no release 'v9' (current: v3); it has: v1, v2, v3"
    )
    untouched(shop, before)


def test_rollback_with_nothing_to_go_back_to_touches_nothing(shop):
    before = masters(shop.lab)
    said = shop.do("rollback")
    assert said.code == 2
    assert "web1 has no release before the current one (current: v1); it has: v1" in said.err
    untouched(shop, before)
    assert cli(shop.config, "history").out.strip() == "no rollout yet"


def test_deploy_with_a_command_of_your_own(shop):
    line = (
        f"mkdir -p {{root}}/releases/v2 && tar -xzf {shop.archive('v2')} -C {{root}}/releases/v2"
        f" && ln -sfn releases/v2 {{root}}/current && {shop.lab.folder}/nodes/{{node}}/ctl restart"
    )
    said = ended(shop.do("deploy", "--command", line, "--id", "v2"), 0)
    assert shop.answered() == dict.fromkeys(NODES, "v2")
    assert said.of("step.seen", step="stage") == []
    assert len(said.of("step.seen", step="run")) == 3


def test_a_command_that_leaves_the_old_release_running_is_no_deploy(shop):
    said = ended(shop.do("deploy", "--command", "true", "--id", "v2"), 3)
    why = said.of("step.failed", "web1", "run")[0]["data"]["why"]
    assert why.startswith("health.version answers 'v1', not 'v2'")
    assert said.of("node.began", "web2") == []
    ended(shop.do("abort"), 3)  # what a command did cannot be taken back: it stays out, and is told
    assert flags(shop.lab) == ["web1"]
    ended(shop.do("restore", "web1", "--steal"), 0)  # as it says: into rotation as it is, and then it is over
    ended(shop.do("abort"), 0, "put-back")
    assert flags(shop.lab) == []


def test_deploy_of_a_directory(shop, tmp_path):
    folder = tmp_path / "build"
    folder.mkdir()
    unpack(Path(shop.archive("v3")), folder)
    ended(shop.do("deploy", str(folder), "--id", "v3"), 0)
    assert shop.answered() == dict.fromkeys(NODES, "v3")


@contextmanager
def serving(folder: Path, host: str) -> Iterator[str]:
    """A web server for the files of a folder; its URL."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Tests print what failed, not what was asked."""

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer((host, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://{host}:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_deploy_of_a_url_that_the_nodes_fetch(shop):
    before = masters(shop.lab)
    digest = hashlib.sha256(Path(shop.archive("v2")).read_bytes()).hexdigest()
    with serving(shop.lab.folder / "releases", "127.0.66.200") as url:
        unsigned = shop.do("deploy", f"{url}/v2.tar.gz")
        assert unsigned.code == 2
        assert "sha256 must be given" in unsigned.err
        wrong = ended(shop.do("deploy", f"{url}/v2.tar.gz", "--sha256", "0" * 64), 1)
        assert wrong.ended["why"].endswith("no node left rotation")
        assert f"sha256 of what arrived is {digest}, not {'0' * 64}" in wrong.ended["why"]
        missing = ended(shop.do("deploy", f"{url}/none.tar.gz", "--sha256", digest), 1)
        assert "404" in missing.ended["why"]
        untouched(shop, before)
        ended(shop.do("deploy", f"{url}/v2.tar.gz", "--sha256", digest), 0)
    assert shop.answered() == dict.fromkeys(NODES, "v2")


def test_keep_never_deletes_the_live_release_nor_the_one_before(shop):
    shop.changed(old="keep: 5", new="keep: 1")
    only = ("--only", "web1")
    for release, left in (("v2", ["v1", "v2"]), ("v3", ["v2", "v3"])):
        ended(shop.do("deploy", shop.archive(release), *only), 0)
        assert sorted(path.name for path in (shop.lab.root("web1") / "releases").iterdir()) == left
    ended(shop.do("rollback", *only), 0)
    assert shop.answered()["web1"] == "v2"


def test_what_runs_already_may_be_deployed_again(shop):
    ended(shop.do("deploy", shop.archive("v2"), "--only", "web1"), 0)
    ended(shop.do("deploy", shop.archive("v2")), 0)
    assert shop.answered() == dict.fromkeys(NODES, "v2")


# ---------------------------------------------------------------- broken releases


def test_a_release_that_does_not_start_is_put_back(shop):
    before = masters(shop.lab)
    said = ended(shop.do("deploy", shop.archive("v4")), 1)
    assert shop.answered() == dict.fromkeys(NODES, "v1")
    assert set(current(shop.lab).values()) == {"v1"}
    assert flags(shop.lab) == []
    wait_up(shop.lab)
    assert said.of("node.ended", "web1")[-1]["data"]["outcome"] == "put-back"
    assert said.of("node.began", "web2") == said.of("node.began", "web3") == []
    after = masters(shop.lab)
    assert (after["web2"], after["web3"]) == (before["web2"], before["web3"])
    assert said.of("step.failed", "web1", "restart")
    assert shop.last() == (said.rollout, "deploy", "put-back", False)


def test_a_release_that_does_not_start_halts_where_that_is_asked_for(shop):
    shop.changed(old="on_failure: roll-back", new="on_failure: halt")
    with Load(shop.lab.urls, clients=4, mix="get=2,post=1") as load:
        said = ended(shop.do("deploy", shop.archive("v4")), 3)
        assert flags(shop.lab) == ["web1"]
        told = said.ended["lines"]
        assert told[0].startswith("web1: OUT OF ROTATION by its flag, on release v4 or v1 (")
        assert told[1:3] == ["web2: not begun, on v1", "web3: not begun, on v1"]
        assert f"take back: drainctl -c {shop.config} abort {said.rollout} (web1 to v1)" in told
        text = cli(shop.config, "status")
        assert text.code == 0
        assert f"rollout {said.rollout} (deploy v4) is not finished: halted" in text.out
        ended(shop.do("abort", said.rollout), 0, "put-back")
    assert load.report.failed == 0, load.report.table()
    assert shop.answered() == dict.fromkeys(NODES, "v1")
    assert flags(shop.lab) == []


def test_a_release_whose_pages_fail_never_meets_a_user_where_it_is_warmed(shop):
    with Load(shop.lab.urls, clients=4, mix="get=2,post=1") as load:
        said = ended(shop.do("deploy", shop.archive("v5")), 1)
    assert load.report.failed == 0, load.report.table()
    assert "warm-up GET / answers 500" in said.of("step.failed", "web1", "warm")[0]["data"]["why"]
    assert shop.answered() == dict.fromkeys(NODES, "v1")


def test_a_release_whose_pages_fail_is_caught_by_the_watch_and_put_back(shop):
    shop.changed(
        old1="warm: [{get: /, times: 10}]", new1="", old2="watch: {for: 100ms", new2="watch: {for: 3s"
    )
    with Load(shop.lab.urls, clients=4, mix="get=2,post=1") as load:
        said = ended(shop.do("deploy", shop.archive("v5")), 1)
        load.expect("v1")
        until("more answers", lambda: cli(shop.config, "status").code == 0)
    assert load.report.bins.keys() == {"ok", "http_500"}  # until the watch saw it, on one node of three
    why = said.of("step.failed", "web1", "watch")[0]["data"]["why"]
    assert " × 5xx" in why
    assert "allowed: 0 (watch.errors = 0" in why
    assert said.of("node.began", "web2") == []
    assert shop.answered() == dict.fromkeys(NODES, "v1")
    assert flags(shop.lab) == []


# ---------------------------------------------------------------- by hand


def test_drain_and_restore_by_hand(shop):
    before = masters(shop.lab)
    said = ended(shop.do("drain", "web2"), 0)
    flag = json.loads(shop.lab.flag("web2").read_text())
    assert (flag["rollout"], flag["verb"]) == (said.rollout, "drain")
    at = shop.status()["nodes"]["web2"]
    assert (at["check"], {each["status"] for each in at["servers"].values()}) == (404, {"NOLB"})
    shown = cli(shop.config, "status").out
    assert re.search(rf"^web2 .* NOLB .* drain {said.rollout}$", shown, re.MULTILINE)
    assert re.search(rf"^web2: flag set by \S+@{os.uname().nodename} \(pid \d+\) at ", shown, re.MULTILINE)
    refused = shop.do("restart")
    assert refused.code == 5
    assert "web2 is flagged already: " in refused.err
    one_more = shop.do("drain", "web1")
    assert one_more.code == 5, "one of three left, keep_up 50 % of them: two"
    assert (
        "web1 cannot leave: lb1 shop: 1 other of 3 servers up, rollout.keep_up = 50% needs 2" in one_more.err
    )
    ended(shop.do("restore", "web2"), 0)
    wait_up(shop.lab)
    untouched(shop, before)


def test_somebody_elses_flag_is_left_alone_unless_it_is_stolen(shop):
    shop.lab.flag("web2").write_text("maintenance, ops\n")
    before = masters(shop.lab)
    refused = shop.do("restart")
    assert refused.code == 5
    assert "web2 is flagged already: maintenance, ops" in refused.err
    assert "--steal" in refused.err
    assert masters(shop.lab) == before
    assert shop.lab.flag("web2").read_text() == "maintenance, ops\n"
    ended(shop.do("restart", "--steal", "--only", "web2"), 0)
    assert flags(shop.lab) == []
    assert masters(shop.lab)["web2"] != before["web2"]


# ---------------------------------------------------------------- pause, resume, abort, signals


def test_pause_lets_the_node_in_flight_finish_and_resume_goes_on(shop):
    running_ = shop.start("deploy", shop.archive("v2"))
    running_.until("node.began", node="web1")
    asked = cli(shop.config, "pause")
    assert asked.code == 0, asked
    said = ended(running_.end(), 3, "paused")
    assert said.rollout in asked.err
    assert shop.answered() == {"web1": "v2", "web2": "v1", "web3": "v1"}
    assert flags(shop.lab) == []
    assert shop.last() == (said.rollout, "deploy", "paused", True)
    again = shop.do("deploy", shop.archive("v3"))
    assert again.code == 5
    assert f"rollout {said.rollout} (deploy) was not finished: paused" in again.err
    on = ended(shop.do("resume"), 0)
    assert on.rollout == said.rollout
    assert on.of("node.began", "web1") == []
    assert shop.answered() == dict.fromkeys(NODES, "v2")


def test_a_paused_rollout_can_be_taken_back(shop):
    running_ = shop.start("deploy", shop.archive("v2"))
    running_.until("node.began", node="web1")
    cli(shop.config, "pause")
    ended(running_.end(), 3, "paused")
    ended(shop.do("abort"), 0, "put-back")
    assert shop.answered() == dict.fromkeys(NODES, "v1")
    assert flags(shop.lab) == []
    done = shop.do("abort")
    assert done.code == 2
    assert "no rollout of shop is unfinished: there is nothing to go on with" in done.err


def test_abort_turns_a_running_rollout_back(shop):
    with Load(shop.lab.urls, clients=4, mix="get=2,post=1") as load:
        running_ = shop.start("deploy", shop.archive("v2"))
        running_.until("node.ended", node="web1")
        asked = cli(shop.config, "abort")
        assert asked.code == 0, asked
        said = running_.end()
        load.expect("v1")
    assert load.report.failed == 0, load.report.table()
    assert asked.err.startswith(f"asked rollout {said.rollout} to turn back")
    ended(said, 1)  # whoever started the deploy must not take it for done
    assert shop.answered() == dict.fromkeys(NODES, "v1")
    assert flags(shop.lab) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_settles_the_node_in_flight_and_ends_with_130(shop, number):
    running_ = shop.start("deploy", shop.archive("v2"))
    running_.until("step.intended", node="web2", step="restart")
    os.kill(running_.pid, number)
    said = ended(running_.end(), 130, "interrupted")
    assert flags(shop.lab) == []
    assert shop.answered() == {"web1": "v2", "web2": "v2", "web3": "v1"}
    assert "interrupted: settling the nodes in flight" in said.err
    ended(shop.do("abort"), 0, "put-back")
    assert shop.answered() == dict.fromkeys(NODES, "v1")


def test_nothing_to_ask_of_and_nothing_to_go_on_with(shop):
    for verb, words in {
        "pause": "no rollout of shop is running",
        "resume": "no rollout of shop is unfinished: there is nothing to go on with",
        "abort": "no rollout of shop is unfinished: there is nothing to go on with",
    }.items():
        said = cli(shop.config, verb)
        assert said.code == 2
        assert words in said.err


# ---------------------------------------------------------------- the lease


def test_a_second_drainctl_is_told_who_is_first_or_waits(shop):
    first = shop.start("restart", "--only", "web1,web2")
    first.until("step.seen", node="web1", step="out")
    second = cli(shop.config, "restart", "--only", "web3")
    assert second.code == 4
    rollout = first.until("rollout.began")["rollout"]
    assert f"@{os.uname().nodename} (pid {first.pid}) for rollout {rollout} since " in second.err
    assert "nothing was changed" in second.err
    assert f"hint: `drainctl -c {shop.config} show {rollout}`" in second.err
    lease = shop.status()["lease"]
    assert lease["rollout"] == rollout
    third = shop.start("restart", "--only", "web3", "--wait", "60")
    one, other = ended(first.end(), 0), ended(third.end(), 0)
    assert other.of("rollout.began")[0]["seq"] > one.of("rollout.ended")[0]["seq"]
    assert re.match(
        rf"waiting up to \d+ s for .*, who holds the lease on shop for rollout {rollout} ", other.err
    )
    assert shop.status()["lease"] is None


# ---------------------------------------------------------------- looking back


def test_history_and_show_tell_what_the_journal_has(shop):
    one = ended(shop.do("deploy", shop.archive("v2"), "--only", "web1"), 0)
    other = ended(shop.do("deploy", shop.archive("v4"), "--only", "web2"), 1)
    head, *rows = cli(shop.config, "history").out.splitlines()
    assert head.split()[2:6] == ["rollout", "verb", "release", "nodes"]
    assert [row.split()[2:6] for row in rows] == [
        [other.rollout, "deploy", "v4", "0/1"],
        [one.rollout, "deploy", "v2", "1/1"],
    ]
    assert "put-back (1)" in rows[0]
    assert "done (0)" in rows[1]
    shown = cli(shop.config, "show").out
    assert shown.startswith(f"rollout {other.rollout}: deploy v4")
    assert "restart failed: " in shown
    assert cli(shop.config, "show", one.rollout).out.startswith(f"rollout {one.rollout}: deploy v2")
    unknown = cli(shop.config, "show", "nothing")
    assert unknown.code == 2
    assert "no rollout nothing in the journal" in unknown.err
    assert f"hint: `drainctl -c {shop.config} history` lists them" in unknown.err


def test_the_journal_of_a_finished_rollout_is_what_was_told_while_it_ran(shop):
    said = ended(shop.do("deploy", shop.archive("v2"), "--only", "web1"), 0)
    kept = shop.do("show", said.rollout)
    assert kept.events == said.events
    order = [
        (event["kind"], event["step"])
        for event in said.events
        if event["node"] == "web1" and event["kind"] != "note"
    ]
    acts = {"flag", "out", "switch", "restart", "warm", "restore", "up"}
    steps = ["guard", "flag", "out", "idle", "quiet", "switch", "restart", "warm", "restore", "up", "watch"]
    told = [("step.intended", "stage"), ("step.seen", "stage"), ("node.began", None)]
    for step in steps:
        told += [("step.intended", step)] if step in acts else []
        told += [("step.acted", step)] if step == "restart" else []
        told += [("step.seen", step)]
    assert order == [*told, ("node.ended", None)]
    assert [event["kind"] for event in said.events][-2:] == ["proof", "rollout.ended"]
    assert said.events[0]["kind"] == "rollout.began"
    over = shop.do("resume", said.rollout)
    assert over.code == 2
    assert f"rollout {said.rollout} ended done: there is nothing to go on with" in over.err


def test_status_as_text_and_as_json(shop):
    text = cli(shop.config, "status")
    assert text.code == 0
    assert [line.split() for line in text.out.splitlines()] == [
        ["node", "release", "check", "lb1", "lb2", "flag"],
        *([name, "v1", "200", "UP", "UP"] for name in NODES),
    ]
    told = shop.status()
    assert (told["v"], told["app"], told["lease"], told["rollout"]) == (1, "shop", None, None)
    assert told["balancers"] == {"lb1": {"error": None}, "lb2": {"error": None}}
    at = told["nodes"]["web3"]
    assert (at["release"], at["releases"], at["check"], at["flag"], at["error"]) == (
        "v1",
        ["v1"],
        200,
        None,
        None,
    )
    up = {"status": "UP", "active": 0, "queued": 0}
    assert at["servers"] == {"lb1 shop/web3": up, "lb2 shop/web3": up}


def test_plan_says_what_deploy_does_and_touches_nothing(shop):
    before = masters(shop.lab)
    said = cli(shop.config, "plan", shop.archive("v2"))
    assert said.code == 0, said
    assert said.out.startswith("deploy v2 over 3 nodes in 3 waves\n")
    assert f"run `{shop.lab.folder}/nodes/web1/ctl restart`" in said.out
    untouched(shop, before)
    shop.lab.flag("web3").write_text("maintenance, ops\n")
    refused = cli(shop.config, "plan", shop.archive("v2"))
    assert refused.code == 5
    assert "web3 is flagged already: maintenance, ops" in refused.out
    assert cli(shop.config, "history").out.strip() == "no rollout yet"
