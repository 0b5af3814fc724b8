"""`plan` and `deploy --plan` on a real lab: what is shown, written, done, and refused in another world."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from rollout_kit import cli, configure, current, flags, running, wait_up

from drainctl.lab.releases import make_release
from tests.conftest import until

pytestmark = pytest.mark.real

TAKES = re.compile(r"^expected: about ([\d.]+) s$", re.MULTILINE)


@pytest.fixture(scope="module")
def lab():
    with running("127.0.80", nodes=2, balancers=2, inter="300ms") as it:
        yield it


@pytest.fixture
def config(lab, request):
    """A drainctl.yml with a journal of its own; every server UP, no flag."""
    for name in lab.settings.node_names:
        lab.flag(name).unlink(missing_ok=True)
    wait_up(lab)
    changes = {
        "watch: {for: 1s, errors: 0}": "watch: {for: 100ms, errors: 0}",
        f"{lab.folder}/shop.db": f"{lab.folder}/{request.node.name}.db",
    }
    return configure(lab, changes, f"{request.node.name}.yml")


def release(lab, name):
    """An archive of this test's own, so that no other test's rollout has brought it already."""
    folder = lab.folder / "builds"
    folder.mkdir(exist_ok=True)
    if not (folder / f"{name}.tar.gz").exists():
        make_release(folder, name)
    return folder / f"{name}.tar.gz"


def test_from_the_first_plan_to_nothing_to_do(lab, config):
    archive, file = release(lab, "p1"), lab.folder / "p1.json"
    before = current(lab)
    first = cli(config, "plan", str(archive), "--out", str(file), "--detailed-exitcode")
    assert first.code == 10, first
    assert "not known yet: stage, idle, restart, warm" in first.out
    assert (current(lab), flags(lab)) == (before, [])
    assert cli(config, "plan", str(archive)).code == 0

    done = cli(config, "--output", "json", "deploy", "--plan", str(file))
    assert done.code == 0, done
    [began] = done.of("rollout.began")
    assert began["data"]["waves"] == json.loads(file.read_text())["waves"]
    assert set(current(lab).values()) == {"p1"}

    again = cli(config, "plan", str(archive), "--detailed-exitcode")
    assert again.code == 0, again
    assert "every node runs p1 already; a deploy would roll it once more" in again.out
    found = TAKES.search(again.out)
    assert found, again
    # The journal's own rollout is what it is measured by; a busy machine changes both alike.
    assert float(found[1]) == pytest.approx(done.ended["took_s"], rel=0.5, abs=0.5)

    once_more = cli(config, "deploy", "--plan", str(file))
    assert once_more.code == 5
    assert f"error: web1, web2: runs p1, v1 in {file}" in once_more.err
    assert "every node runs p1 already: once more" in once_more.err


def test_everything_that_changed_is_named_and_nothing_is_touched(lab, config):
    archive, file = release(lab, "p2"), lab.folder / "p2.json"
    assert cli(config, "plan", str(archive), "--out", str(file)).code == 0
    before = current(lab)

    config.write_text(config.read_text() + "\n# a word more\n")
    lab.flag("web2").write_text("ops\n")
    shown = lambda: json.loads(cli(config, "--output", "json", "status").out)["nodes"]["web2"]["servers"]  # noqa: E731
    until("web2 is NOLB", lambda: {at["status"] for at in shown().values()} == {"NOLB"})
    other = release(lab, "p3")
    said = cli(config, "deploy", "--plan", str(file), str(other))
    assert said.code == 5, said
    for why in (
        r"drainctl\.yml has sha256 \w{12}…, \w{12}… in ",
        r"the release has sha256 \w{12}…, \w{12}… in ",
        r"web2: lb1 shop/web2 is NOLB, UP in ",
        r"web2: lb2 shop/web2 is NOLB, UP in ",
    ):
        assert re.search(rf"^error: {why}{re.escape(str(file))}$", said.err, re.MULTILINE), said
    assert said.err.count("error: ") == 4
    assert "hint: nothing was touched" in said.err
    assert (current(lab), flags(lab)) == (before, ["web2"])
    assert cli(config, "history").out.strip() == "no rollout yet"


def test_a_rebuilt_archive_is_refused_and_the_same_one_elsewhere_is_taken(lab, config, tmp_path):
    archive, file = release(lab, "p4"), lab.folder / "p4.json"
    assert cli(config, "plan", str(archive), "--only", "web1", "--out", str(file)).code == 0
    moved = tmp_path / "moved.tar.gz"
    shutil.move(archive, moved)
    gone = cli(config, "deploy", "--plan", str(file))
    assert (gone.code, "is not there" in gone.err) == (2, True)
    archive.write_bytes(release(lab, "p5").read_bytes())
    assert "the release has sha256" in cli(config, "deploy", "--plan", str(file)).err

    before = current(lab)
    done = cli(config, "deploy", "--plan", str(file), str(moved))
    assert done.code == 0, done
    assert current(lab) == before | {"web1": "p4"}


def test_a_plan_says_it_all(lab, config):
    archive, file = release(lab, "p6"), lab.folder / "p6.json"
    assert cli(config, "plan", str(archive), "--out", str(file)).code == 0
    said = cli(config, "deploy", "--plan", str(file), "--only", "web1", "--canary", "1")
    assert said.code == 2
    assert "found --plan and --only, --canary, expected --plan alone" in said.err
    file.write_text("no plan")
    assert cli(config, "deploy", "--plan", str(file)).code == 2
    assert cli(config, "deploy", "--plan", str(lab.folder / "none.json")).code == 2


def test_what_would_be_refused_ends_with_5_and_writes_nothing(lab, config):
    archive, file = release(lab, "p7"), lab.folder / "p7.json"
    lab.flag("web1").write_text("ops\n")
    said = cli(config, "--output", "json", "plan", str(archive), "--out", str(file), "--detailed-exitcode")
    assert said.code == 5, said
    assert any("web1 is flagged already: ops" in why for why in json.loads(said.out)["refused"])
    assert not file.exists()
    assert cli(config, "plan", str(lab.folder / "none.tar.gz"), "--detailed-exitcode").code == 2


def test_an_unfinished_rollout_stands_against_a_plan(lab, config):
    broken = lab.folder / "builds" / "p8.tar.gz"
    if not broken.exists():
        make_release(broken.parent, "p8", fail_start=True)
    text = config.read_text().replace("on_failure: roll-back", "on_failure: halt")
    config.write_text(text.replace('ctl restart"', 'ctl restart"\n  limit: 3s'))
    before = current(lab)
    assert cli(config, "deploy", str(broken)).code == 3
    said = cli(config, "plan", str(release(lab, "p9")))
    assert said.code == 5
    assert re.search(
        r"rollout \S+ \(deploy\) was not finished: halted; resume or abort it", " ".join(said.out.split())
    )
    assert cli(config, "abort").code == 0
    assert current(lab) == before


def test_the_json_says_what_the_screen_says(lab, config):
    archive = release(lab, "p10")
    said = cli(config, "plan", str(archive), "--output", "json", "--at-once", "1", "--only", "web2")
    assert said.code == 0, said
    told = json.loads(said.out)
    assert (told["v"], told["waves"], told["refused"], told["already"]) == (1, [["web2"]], [], False)
    assert told["asked"]["only"] == ["web2"]
    assert told["config"]["file"] == str(config)
    node = told["nodes"]["web2"]
    assert node["servers"] == {"lb1 shop/web2": "UP", "lb2 shop/web2": "UP"}
    assert node["commands"] == {"restart": f"{lab.folder}/nodes/web2/ctl restart"}
    screen = cli(config, "plan", str(archive)).out
    for step in told["steps"]:
        if step["act"] and "web2" not in step["act"]:
            assert step["act"] in screen
    assert [line for line in screen.splitlines() if len(line) > 80 and str(lab.folder) not in line] == []
    assert Path(told["asked"]["source"]) == archive
