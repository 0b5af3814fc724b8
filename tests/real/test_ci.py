"""
The pipelines of `ci/`, each run as its system runs it, on a real cluster under load.

A job builds a release, deploys it, and is looked at as its system would: exit code, log, outputs, reports.
The load runs over the whole module and loses no request; no secret of a job is in any log, report or journal.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import yaml
from ci_kit import ROOT, SYSTEMS, Cancel, Ran, bare, fresh
from rollout_kit import Running, cli, current, flags, running, wait_up

from drainctl.config.load import load
from drainctl.config.placeholders import fill, values_of
from drainctl.errors import CommandFailed
from drainctl.lab.cluster import Lab
from drainctl.lab.load import Load
from drainctl.lab.releases import APP, SOUND
from drainctl.wire import Wired
from tests.conftest import need

pytestmark = [pytest.mark.real, pytest.mark.slow]

RATE = 60.0
SECRETS = {"SHOP_STATS_AUTH": "ops:st4ts-pa55word", "SHOP_TOKEN": "t0ken-of-the-shop"}
SYSTEM = pytest.mark.parametrize("system", SYSTEMS)


@dataclass
class Ground:
    """The cluster, and the machine on which jobs run: one workspace, which each job finds as it was left."""

    lab: Lab
    folder: Path
    load: Load
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    logs: list[str] = field(default_factory=list)
    cancels: list[str] = field(default_factory=list)  # the signals that each took
    summary: str = ""

    @property
    def workspace(self) -> Path:
        return self.folder / "workspace"

    @property
    def junit(self) -> ET.Element:
        return ET.parse(self.workspace / "drainctl-junit.xml").getroot()  # noqa: S314 (our own file)

    def job(
        self,
        system: str,
        cancel_at: str | None = None,
        changes: Mapping[str, str] | None = None,
        **release: object,
    ) -> tuple[Ran, str]:
        """One job on a commit of its own. changes: of the pipeline's text. Returns: it, and the release."""
        sha = f"c{next(self.numbers):06}"
        self._check_out(f"shop-{sha}", release)
        kind, example = SYSTEMS[system]
        text = (ROOT / example).read_text()
        secrets = {NAMED.get((system, name), name): value for name, value in SECRETS.items()}
        for old, new in {**EVERYWHERE[system], **(changes or {})}.items():
            assert old in text, f"{old!r} is not in {example}"
            text = text.replace(old, new)
        one = kind(self.workspace, fresh(self.folder / "temp"), sha, secrets)
        cancel = Cancel(cancel_at, kind.cancelled, group=kind.group) if cancel_at else None
        ran = one.job(text, cancel)
        assert not cancel or cancel.sent, f"it was never cancelled: {ran}"
        self.logs.append(ran.log)
        self.cancels += [" ".join(cancel.sent)] if cancel else []
        self.summary = getattr(one, "summary", "")
        return ran, f"shop-{sha}"

    def _check_out(self, release: str, settings: Mapping[str, object]) -> None:
        """The commit: the app, and the cluster's file."""
        app, deploy = self.workspace / "app", self.workspace / "deploy"
        for path in (app, deploy):
            path.mkdir(parents=True, exist_ok=True)
        shutil.copy(APP, app / "app.py")
        (app / "release.json").write_text(json.dumps({"id": release, **SOUND, **settings}))
        shutil.copy(self.lab.folder / "ci.yml", deploy / "drainctl.yml")
        for report in ("drainctl-junit.xml", "drainctl.env"):
            (self.workspace / report).unlink(missing_ok=True)

    def status(self) -> dict:
        said = cli(self.lab.folder / "ci.yml", "--output", "json", "status", env=SECRETS)
        assert said.code == 0, said
        return json.loads(said.out)

    def everywhere(self, release: str) -> bool:
        """Whether every node serves this release, and nothing is left open."""
        told = self.status()
        wait_up(self.lab)
        assert (told["rollout"]["open"], told["lease"]) == (False, None), told["rollout"]
        return set(current(self.lab).values()) == {release} and flags(self.lab) == []

    def finish(self) -> None:
        """What a failed test left is put right."""
        if self.status()["rollout"]["open"]:
            cli(self.lab.folder / "ci.yml", "resume", env=SECRETS)


# Jenkins' ids of the secrets; GitHub and GitLab know them by the variable's name.
NAMED = {("jenkins", "SHOP_STATS_AUTH"): "shop-stats-auth", ("jenkins", "SHOP_TOKEN"): "shop-token"}

# What is otherwise here than in the examples: drainctl is there, it tells all, and there is a second secret.
STATS = "SHOP_STATS_AUTH: ${{ secrets.SHOP_STATS_AUTH }}"
EVERYWHERE = {
    "github": {
        'wait: "300"': 'wait: "60"\n          install: "false"',
        "args: --canary 1": "args: --canary 1 --verbose",
        STATS: STATS + "\n          SHOP_TOKEN: ${{ secrets.SHOP_TOKEN }}",
    },
    "gitlab": {"--wait 300": "--wait 60 --verbose"},
    "jenkins": {
        "--wait 300": "--wait 60 --verbose",
        "environment {": "environment {\n    SHOP_TOKEN = credentials('shop-token')",
    },
}


def cluster_file(lab: Lab) -> None:
    """The lab's cluster with two secrets: a password of a balancer's stats page, a token in a command."""
    text = lab.config.read_text()
    own = f'{{runtime: "unix:{lab.socket("lb2")}", master: "unix:{lab.folder}/lb2/master.sock"}}'
    changes = {
        own: f'{{stats: "http://{lab.settings.host("lb2")}:8404/stats", auth: "${{SHOP_STATS_AUTH}}"}}',
        '/ctl restart"': '/ctl restart # ${SHOP_TOKEN}"\n  limit: 5s',
        "watch: {for: 1s, errors: 0}": "watch: {for: 200ms, errors: 0}",
    }
    for old, new in changes.items():
        assert old in text, f"{old!r} is not in {text}"
        text = text.replace(old, new)
    (lab.folder / "ci.yml").write_text(text)


@pytest.fixture(scope="module")
def ground(tmp_path_factory):
    for program in ("bash", "xargs", "tar"):
        need(program)
    with running("127.0.84", nodes=3, inter="300ms") as lab:
        cluster_file(lab)
        load = Load(lab.urls, rate=RATE, mix="get=60,post=30,slow=10", slow_s=0.3).start()
        it = Ground(lab, tmp_path_factory.mktemp("ci"), load)
        yield it
        if load.pid:
            load.stop(trust=False)


@pytest.fixture(autouse=True)
def _no_failure_spoils_the_next(request):
    failed = request.session.testsfailed
    yield
    if "ground" in request.fixturenames and request.session.testsfailed > failed:
        request.getfixturevalue("ground").finish()


def cases(root: ET.Element, tag: str) -> list[tuple[str, str, str]]:
    """Suite, case and text of everything in the report that has such an end."""
    return [
        (str(suite.get("name")), str(case.get("name")), str(case.findtext(tag)))
        for suite in root
        for case in suite.iter("testcase")
        if case.find(tag) is not None
    ]


# ---------------------------------------------------------------- it goes well


@SYSTEM
def test_a_job_deploys(ground, system):
    ran, release = ground.job(system)
    assert ran.code == 0, ran
    assert ground.everywhere(release)
    assert f"{release}: 3 nodes in 3 waves" in ran.log
    assert " UP " not in ran.log.partition("rollout ")[0], "nothing of the view of a terminal"
    assert "\x1b[" not in ran.log.replace("\x1b[0K", ""), "no colours, no cursor"
    root = ground.junit
    assert [suite.get("name") for suite in root] == ["web1", "web2", "web3"]
    assert (root.get("failures"), root.get("errors"), root.get("skipped")) == ("0", "0", "0")
    assert cases(root, "failure") == []
    assert {"guard", "flag", "out", "idle", "switch", "restart", "up", "watch"} <= {
        case.get("name") for case in root[0].iter("testcase")
    }


def test_github_shows_groups_a_summary_and_outputs(ground):
    ran, release = ground.job("github")
    lines = ran.log.splitlines()
    groups = [line for line in lines if line.startswith(("::group::", "::endgroup::"))]
    assert groups == [
        part
        for number, node in enumerate(("web1", "web2", "web3"), 1)
        for part in (f"::group::wave {number} of 3: {node}", "::endgroup::")
    ]
    assert (ran.outputs["outcome"], ran.outputs["exit"]) == ("done", "0")
    assert ran.outputs["rollout"] == ground.status()["rollout"]["id"]
    assert ran.by_script["What became of it"] == f"rollout {ran.outputs['rollout']} is done\n"
    rows = [line for line in ground.summary.splitlines() if line.startswith("| web")]
    assert len(rows) == 3
    assert all(f"-> {release} | forward | done |" in row for row in rows), rows
    assert "Proof: 0 failed of" in ground.summary


def test_gitlab_shows_sections_and_passes_variables_on(ground):
    ran, _ = ground.job("gitlab")
    assert ran.log.count("\x1b[0Ksection_start:") == ran.log.count("\x1b[0Ksection_end:") == 3
    assert ran.outputs == {"rollout": ground.status()["rollout"]["id"], "outcome": "done", "exit": "0"}
    assert ran.by_script["announce"] == f"rollout {ran.outputs['rollout']} is done (exit 0)\n"


# ---------------------------------------------------------------- it does not


@SYSTEM
def test_a_bad_release_is_taken_back_and_the_report_shows_what_the_balancers_showed(ground, system):
    before = set(current(ground.lab).values())
    ran, release = ground.job(system, fail_start=True)
    assert ran.code == 1, ran
    assert ground.everywhere(*before)
    failures = {(suite, case): text for suite, case, text in cases(ground.junit, "failure")}
    assert set(failures) == {("web1", "restart"), ("web1 (back)", "end")}
    message, *rest = failures["web1", "restart"].splitlines()
    assert message == "health.version answers 502, 5.0 s after it began (limit 5 s)"
    at = rest.index("the balancers showed last:")
    assert [line.partition(", ")[0] for line in rest[at + 1 :]] == [
        "  lb1 shop/web1: NOLB",
        "  lb2 shop/web1: NOLB",
    ]
    assert all(" 0 in flight, 0 queued, " in line for line in rest[at + 1 :])
    assert f"{release}" in ran.log
    if system == "github":
        [error, *_] = [
            line for line in ran.log.splitlines() if line.startswith("::error title=web1 restart::")
        ]
        assert "health.version answers 502" in error
        assert "| forward | turned back |" in ground.summary
    if system != "jenkins":
        assert (ran.outputs["outcome"], ran.outputs["exit"]) == ("put-back", "1")


@SYSTEM
@pytest.mark.parametrize("code", [2, 5], ids=["wrong-file", "refused"])
def test_a_job_that_may_not_begin_says_why_where_its_system_looks(ground, system, code):
    config = ground.lab.folder / "ci.yml"
    sound = config.read_text()
    before = current(ground.lab)
    try:
        config.write_text(
            sound.replace(":8404/stats", ":8405/stats") if code == 5 else sound + "colour: red\n"
        )
        ran, _ = ground.job(system)
    finally:
        config.write_text(sound)
    assert ran.code == code, ran
    assert current(ground.lab) == before
    why = "lb2" if code == 5 else "colour"
    [(_, _, text)] = cases(ground.junit, "error")
    assert text.startswith(f"refused (exit {code}): ")
    assert why in text
    if system == "github":
        [error] = [line for line in ran.log.splitlines() if line.startswith("::error ")]
        assert why in error
        assert ground.summary.startswith(f"### drainctl: refused (exit {code})\n")
    if system != "jenkins":
        assert ran.outputs == {"rollout": "", "outcome": "refused", "exit": str(code)}


# ---------------------------------------------------------------- it is cancelled

AT_SWITCH = r"web2 +switch "  # the line before web2's restart is begun


def test_a_cancelled_job_is_found_refused_and_resumed(ground):
    """INT, TERM and, where those do not end it, KILL, within a second, as the second node is restarted."""
    before = current(ground.lab)
    ran, first = ground.job("github", AT_SWITCH)
    assert ran.code, ran
    told = ground.status()["rollout"]
    assert told["open"], told
    assert current(ground.lab) == {**before, "web1": first, "web2": first}

    ran, _ = ground.job("github", changes={"abandoned: abort": "abandoned: fail"})
    assert ran.code == 5, ran
    [error] = [line for line in ran.log.splitlines() if line.startswith("::error ")]
    assert f"rollout {told['id']} (deploy) was not finished" in error
    called = "drainctl -c deploy/drainctl.yml"
    assert f"{called} resume {told['id']}" in error
    assert f"{called} abort {told['id']}" in error
    assert current(ground.lab)["web3"] == before["web3"]

    ran, release = ground.job("github", changes={"abandoned: abort": "abandoned: resume"})
    assert ran.code == 0, ran
    assert f"rollout {told['id']} (deploy {first}) was abandoned: " in ran.log
    assert "it is resumed first (--abandoned resume)" in ran.log
    assert f"rollout {told['id']} is over (done); now the deploy" in ran.log
    assert ran.outputs["rollout"] == ground.status()["rollout"]["id"] != told["id"]
    assert ground.summary.count("### drainctl: deploy") == 2
    assert [suite.get("name") for suite in ground.junit] == ["web1", "web2", "web3"]
    assert ground.everywhere(release)


def test_a_cancelled_job_is_taken_back_by_the_next(ground):
    before = current(ground.lab)
    ran, first = ground.job("gitlab", AT_SWITCH)
    assert ran.code, ran
    told = ground.status()["rollout"]
    assert told["open"], told

    ran, release = ground.job("gitlab")
    assert ran.code == 0, ran
    assert "it is taken back first (--abandoned abort)" in ran.log
    assert f"rollout {told['id']} is over (put-back); now the deploy" in ran.log
    back = ran.log.partition("now the deploy")[0]
    assert f"back on {before['web1']}" in back
    assert first not in ran.log.partition("now the deploy")[2].replace(f"from {first}", "")
    assert ran.outputs["outcome"] == "done"
    assert ground.everywhere(release)


def test_a_job_that_ends_by_itself_after_the_cancel_is_waited_for(ground):
    """Jenkins reports the build as over at once; drainctl settles web2 and lets go of the lease."""
    ran, first = ground.job("jenkins", AT_SWITCH)
    assert ran.code, ran
    ran, release = ground.job("jenkins")
    assert ran.code == 0, ran
    assert f"(deploy {first}) was abandoned: interrupted" in ran.log
    assert f"web2: in rotation, on {first}" in ran.log
    assert ground.everywhere(release)


def test_a_rollout_that_halted_is_left_to_a_person(ground):
    before = current(ground.lab)
    config = ground.lab.folder / "ci.yml"
    sound = config.read_text()
    try:
        config.write_text(sound.replace("on_failure: roll-back", "on_failure: halt"))
        ran, _ = ground.job("gitlab", fail_start=True)
        assert ran.code == 3, ran
        assert ran.outputs["outcome"] == "halted"
        ran, _ = ground.job("gitlab")
        assert ran.code == 5, ran
        assert f"drainctl -c deploy/drainctl.yml abort {ground.status()['rollout']['id']}" in ran.log
    finally:
        config.write_text(sound)
    said = cli(config, "abort", env=SECRETS)
    assert said.code == 0, said
    assert current(ground.lab) == before


# ---------------------------------------------------------------- one at a time


def test_a_second_job_waits_for_the_lease_or_is_refused(ground):
    other = Running(ground.lab.folder / "ci.yml", "--output", "json", "restart", env=SECRETS)
    try:
        other.until("wave.began")
        ran, _ = ground.job(
            "github", changes={'wait: "60"': 'wait: "0"', "abandoned: abort": "abandoned: fail"}
        )
        assert ran.code == 4, ran
        assert ran.outputs == {"rollout": "", "outcome": "refused", "exit": "4"}
        ran, release = ground.job("github")
        assert ran.code == 0, ran
    finally:
        said = other.end()
    assert said.code == 0, said
    assert "was abandoned" not in ran.log
    assert ground.everywhere(release)


# ---------------------------------------------------------------- the files themselves


def test_no_example_lets_a_newer_job_cancel_a_running_one():
    github = yaml.safe_load((ROOT / "ci/github.yml").read_text())
    assert github["concurrency"] == {"group": "shop-production", "cancel-in-progress": False}
    deploy = yaml.safe_load((ROOT / "ci/gitlab.yml").read_text())["deploy"]
    assert (deploy["resource_group"], deploy["interruptible"]) == ("shop-production", False)
    assert "disableConcurrentBuilds(abortPrevious: false)" in (ROOT / "ci/Jenkinsfile").read_text()


def test_the_page_has_every_input_of_the_action_with_its_default():
    inputs = yaml.safe_load((ROOT / "action.yml").read_text())["inputs"]
    table = (ROOT / "docs/ci.md").read_text().partition("## The action")[2]
    told = re.findall(r"^\| `(\w+)` \|(.*?)\|", table, re.MULTILINE)
    assert {name: default.strip(" `") for name, default in told} == {
        name: about["default"] for name, about in inputs.items()
    }


ALL = {"SOURCE": "a b.tar", "ARGS": """--id 'x y' --command "echo $(id) `id` $HOME" -v""", "JUNIT": "r.xml"}
GIVEN = [
    (ALL, ["--junit", "r.xml"], ["--id", "x y", "--command", "echo $(id) `id` $HOME", "-v", "a b.tar"]),
    ({"SOURCE": "", "ARGS": "", "JUNIT": ""}, [], []),
]


@pytest.mark.parametrize(("inputs", "before", "after"), GIVEN, ids=["all", "none"])
def test_no_input_of_the_action_becomes_a_command(tmp_path, inputs, before, after):
    """Its words reach drainctl as they are; drainctl here is a program that writes them down."""
    written = tmp_path / "words"
    stub = tmp_path / "drainctl"
    stub.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {written}\nexit 3\n')
    stub.chmod(0o755)
    [_, deploy] = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]
    env = bare(CONFIG="c.yml", ABANDONED="fail", WAIT="0", **inputs)
    env["PATH"] = f"{tmp_path}:{env['PATH']}"
    argv = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", deploy["run"]]
    done = subprocess.run(
        argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    asked = ["deploy", "--abandoned", "fail", "--wait", "0"]
    want = ["--config", "c.yml", "--output", "github", *before, *asked, *after]
    assert written.read_text().splitlines() == want


def test_a_command_that_fails_is_told_without_its_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOP_TOKEN", SECRETS["SHOP_TOKEN"])
    config = tmp_path / "drainctl.yml"
    config.write_text("""
app: shop
balancers: {lb1: {stats: "http://127.0.84.1:8404/stats"}}
nodes: {web1: {host: 127.0.84.11}}
connect: {via: local}
release: {root: /srv/shop}
service: {restart: "test -n ${SHOP_TOKEN} && exit 7 # {host}"}
health: {check: "http://{host}/http-check", flag: /srv/shop/drain, ready: "http://{host}/healthz"}
""")
    cluster = load(str(config))
    line = fill(cluster.service.restart, values_of(cluster, cluster.nodes[0], None))
    with Wired(cluster) as wired, pytest.raises(CommandFailed) as failed:
        wired.hosts["web1"].run(line, limit_s=5.0)
    told = "web1: `test -n ${SHOP_TOKEN} && exit 7 # 127.0.84.11` ended with code 7: it printed nothing"
    assert str(failed.value) == told


def test_the_action_installs_itself_where_drainctl_is_not(tmp_path):
    """From its own checkout, by the Python that it is told; it needs the package index, as `make` does."""
    [install, deploy] = yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]
    assert (install["if"], deploy["id"]) == ("inputs.install == 'true'", "deploy")
    found = tmp_path / "path"
    env = {
        **bare(PYTHON=sys.executable, VERSION="", CHECKOUT=str(ROOT)),
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_PATH": str(found),
    }
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", install["run"]],
        env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done
    [folder] = found.read_text().splitlines()
    said = subprocess.run(
        ["drainctl", "--version"], env={"PATH": f"{folder}:/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.startswith("drainctl")
    schema = list(
        (tmp_path / "drainctl").glob("lib/python3*/site-packages/drainctl/report/event.schema.json")
    )
    assert len(schema) == 1, "the schema of --output json is not in the wheel"


# ---------------------------------------------------------------- all of it


def test_no_secret_is_in_any_log_report_or_journal(ground):
    assert len(ground.logs) > 10
    journal = sqlite3.connect(ground.lab.folder / "shop.db")
    told = "\n".join(f"{row}" for row in journal.execute("SELECT text, data FROM events"))
    journal.close()
    assert "ctl restart # ${SHOP_TOKEN}" in told, "the command with the token is there, as the file has it"
    files = [path.read_text() for path in ground.workspace.glob("drainctl*")]
    everything = [*ground.logs, told, ground.summary, *files]
    for secret in ("st4ts-pa55word", SECRETS["SHOP_TOKEN"]):
        assert [text for text in everything if secret in text] == []


def test_no_request_failed_in_all_of_it(ground, record_property):
    report = ground.load.stop()
    record_property(
        "load", f"{len(ground.logs)} jobs, {report.requests} requests, {report.bins}; {ground.cancels}"
    )
    assert report.failed == 0, report.bins
    assert report.requests > 20 * RATE
