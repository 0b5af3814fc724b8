"""The journal is lost in the middle of a rollout: the nodes alone tell what went on, and it is taken back."""

from __future__ import annotations

import json

import pytest

from tests.conftest import SLOW, until
from tests.faults import kit
from tests.real import fence_kit

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def ground():
    """A lab under load: no request of the whole module may fail."""
    with kit.short_ground("127.0.92") as it:
        yield it


def lose_the_journal(ground: kit.Ground) -> None:
    found = list(ground.lab.folder.glob("*.db*"))
    assert found
    for path in found:
        path.unlink()


def told(ground: kit.Ground) -> dict:
    ended = ground.drainctl("status", "--from-nodes", "--output", "json")
    assert ended.code == 0, ended.told
    return dict(json.loads(ended.out))


def check_all_on(ground: kit.Ground, release: str) -> None:
    ground.all_up()
    for name, node in ground.real().items():
        assert (node.current, node.version, node.flag) == (release, release, None), name


@pytest.mark.parametrize("moment", ["before:switch", "during:restart", "after:restore"])
def test_a_deploy_that_died_is_told_and_taken_back(ground, moment):
    before = ground.real()["web2"].current
    release, archive = ground.release()
    ground.killed(moment, "deploy", archive)
    lose_the_journal(ground)

    shown = told(ground)
    flagged = moment != "after:restore"
    switched = moment != "before:switch"
    assert shown["unfinished"]
    assert (shown["rollout"]["verb"], shown["rollout"]["to"]) == ("deploy", release)
    assert shown["back"] == {"release": before, "nodes": ["web1"]}
    web1 = shown["nodes"]["web1"]
    assert (web1["out"], web1["before"]) == (flagged, before)
    assert web1["release"] == (release if switched else before)
    for name in ("web2", "web3"):
        at = shown["nodes"][name]
        assert (at["out"], at["release"], at["answers"], at["before"]) == (False, before, before, before)

    text = ground.drainctl("status", "--from-nodes").out
    assert f"rollout {shown['rollout']['rollout']} (deploy {release}) of " in text
    assert f"take back: drainctl -c {ground.lab.config} abort --from-nodes (web1 to {before}:" in text
    assert max(map(len, text.splitlines())) <= 120, text

    ended = ground.drainctl("abort", "--from-nodes")
    assert ended.code == 0, ended.told
    assert f"web1 to {before}" in ended.err
    check_all_on(ground, before)
    assert ground.latest()["rollout"]["verb"] == "rollback", "it is a rollout of its own in the new journal"
    assert not told(ground)["unfinished"]
    again = ground.drainctl("abort", "--from-nodes")
    assert again.code == 2, again.told
    assert f"nothing is unfinished: no node is out by a rollout, and every node runs {before}" in again.err


def test_two_that_died_one_after_the_other_need_a_word(ground):
    """The way back of the first died as well, and its journal was lost, too."""
    before = ground.real()["web2"].current
    release, archive = ground.release()
    ground.killed("before:restore", "deploy", archive)
    lose_the_journal(ground)
    ground.killed("before:switch", "abort", "--from-nodes")
    lose_the_journal(ground)
    ended = ground.drainctl("abort", "--from-nodes")
    assert ended.code == 2, ended.told
    assert f"the nodes ran different releases: web1 {release}, web2 {before}, web3 {before}" in ended.err
    assert f"say which: drainctl -c {ground.lab.config} abort --from-nodes --to RELEASE" in ended.err
    wrong = ground.drainctl("abort", "--from-nodes", "--to", "r-unknown")
    assert wrong.code == 2, wrong.told
    assert "release r-unknown is not on web1, web2, web3" in wrong.err
    ended = ground.drainctl("abort", "--from-nodes", "--to", before)
    assert ended.code == 0, ended.told
    check_all_on(ground, before)


def test_what_does_not_go_together_is_refused(ground):
    for words, why in (
        (("abort", "--to", "v1"), "found --to without --from-nodes"),
        (("abort", "some-id", "--from-nodes"), "found ROLLOUT and --from-nodes"),
        (("status", "--watch", "--from-nodes"), "found --watch and --from-nodes"),
    ):
        ended = ground.drainctl(*words)
        assert (ended.code, why in ended.err) == (2, True), ended.told


def test_a_controller_that_lives_on_with_the_lost_journal_is_shut_out(ground):
    """Lost for us only: it goes on until a node tells it that somebody else has come."""
    before = ground.real()["web2"].current
    release, archive = ground.release()
    program = fence_kit.popen(ground.lab, "deploy", archive, stop_at="RunOnNode")
    with fence_kit.ended(program) as first:
        until("it stands before its restart of web1", lambda: fence_kit.stopped(first.pid), limit_s=30)
        other = ground.lab.folder / "other.yml"
        text = ground.lab.config.read_text()
        [store] = [line for line in text.splitlines() if line.startswith("store:")]
        other.write_text(text.replace(store, f"store: sqlite:///{ground.lab.folder}/other.db"))
        taken = fence_kit.drainctl(ground.lab, "abort", "--from-nodes", config=other)
        assert taken.returncode == 0, taken.stderr
        first.send_signal(kit.signal.SIGCONT)
        _, err = first.communicate(timeout=30 * SLOW)
    assert first.returncode == 3, err
    assert "has taken it over" in err
    check_all_on(ground, before)
    assert fence_kit.overlaps(fence_kit.log(ground.lab, "web1")) == []
    assert release not in {node.current for node in ground.real().values()}
    ended = ground.drainctl("abort")  # the rollout is still open in its own journal
    assert ended.code == 0, ended.told
