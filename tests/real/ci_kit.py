"""
GitHub Actions, GitLab CI and Jenkins as far as a deploy meets them: the example of `ci/` is read, and each of
its scripts is run as that system runs it: its shell and options, its environment, no terminal, its files.

Every script is a process group without a terminal; what it writes on either stream is the job's log.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import SLOW

ROOT = Path(__file__).parents[2]
JOB_LIMIT_S = 90.0
LEFT_ALONE_S = 0.3  # between two signals; GitHub waits 7.5 s and 2.5 s


@dataclass(frozen=True)
class Script:
    """One script of a job. always: it is run although one before it failed."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    always: bool = False


@dataclass
class Cancel:
    """
    Cancels the job when a line of its log matches: each signal in turn, until all that is told is gone.

    group: whether the whole process group is told, or only the script's own process.
    """

    at: str
    signals: Sequence[signal.Signals]
    group: bool = False
    sent: list[str] = field(default_factory=list)
    thread: threading.Thread | None = None

    def watch(self, line: str, process: subprocess.Popen[str]) -> None:
        if self.thread is None and re.search(self.at, line):
            self.thread = threading.Thread(target=self._cancel, args=(process,))
            self.thread.start()

    def _cancel(self, process: subprocess.Popen[str]) -> None:
        tell = os.killpg if self.group else os.kill
        for number in self.signals:
            if not self.group and process.poll() is not None:
                return
            try:
                tell(process.pid, number)
                self.sent.append(number.name)
                process.wait(LEFT_ALONE_S)
            except subprocess.TimeoutExpired:
                continue
            except ProcessLookupError:
                return


@dataclass
class Ran:
    """A job that is over. code: of the first script that failed, else 0. log: all that it wrote."""

    code: int = 0
    log: str = ""
    by_script: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"exit {self.code}, outputs {self.outputs}\n{self.log}"


def run(scripts: Iterator[Script], workspace: Path, cancel: Cancel | None = None) -> Ran:
    """The job: its scripts in order, the rest skipped after one failed."""
    ran = Ran()
    for script in scripts:
        if ran.code and not script.always:
            continue
        code, text = _script(script, workspace, cancel)
        ran.log += text
        ran.by_script[script.name] = text
        ran.code = ran.code or code
    return ran


def _script(script: Script, workspace: Path, cancel: Cancel | None) -> tuple[int, str]:
    lines = []
    with subprocess.Popen(
        script.argv,
        env=dict(script.env),
        cwd=workspace,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        end = threading.Timer(JOB_LIMIT_S * SLOW, process.kill)
        end.start()
        for line in process.stdout or ():
            lines.append(line)
            if cancel:
                cancel.watch(line, process)
        code = process.wait()
        end.cancel()
        end.join()
    if cancel and cancel.thread:
        cancel.thread.join()
    return code, "".join(lines)


def bare(**more: str) -> dict[str, str]:
    """A job's environment before its system adds to it: no terminal, none of the tests' own variables."""
    tools = Path(sys.executable).parent
    kept = {name: os.environ[name] for name in ("HOME", "LANG") if name in os.environ}
    return {**kept, "PATH": f"{tools}:/usr/local/bin:/usr/bin:/bin:/usr/sbin", "CI": "true", **more}


def _file(folder: Path, name: str, text: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text)
    return str(path)


# ---------------------------------------------------------------- GitHub Actions


class Github:
    """
    `runs-on` a machine of one's own. Source: docs.github.com, "Workflow syntax", `jobs.<id>.steps[*].shell`
    and "Metadata syntax", `runs.steps` of a composite action.
    """

    cancelled = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
    group = False

    def __init__(self, workspace: Path, temp: Path, sha: str, secrets: Mapping[str, str]) -> None:
        self._workspace = workspace
        self._temp = temp
        self._path: list[str] = []
        self._number = 0
        self._known: dict[str, Any] = {"github": {"sha": sha}, "secrets": dict(secrets), "steps": {}}
        self._env = bare(
            GITHUB_ACTIONS="true",
            GITHUB_SHA=sha,
            GITHUB_WORKSPACE=str(workspace),
            RUNNER_TEMP=str(temp),
            RUNNER_OS="Linux",
        )
        self.summary = ""
        self.artifacts: list[str] = []

    def job(self, text: str, cancel: Cancel | None = None, inputs: Mapping[str, str] | None = None) -> Ran:
        """The workflow's one job. inputs: put over those that it gives to the action."""
        [job] = yaml.safe_load(text)["jobs"].values()
        ran = run(self._steps(job["steps"], inputs or {}), self._workspace, cancel)
        ran.outputs = dict(self._known["steps"].get("deploy", {}).get("outputs", {}))
        return ran

    def _steps(self, steps: Sequence[Mapping[str, Any]], more: Mapping[str, str]) -> Iterator[Script]:
        for step in steps:
            always = step.get("if") == "always()"
            uses = step.get("uses", "")
            if uses.startswith("actions/checkout@"):
                continue
            if uses.startswith("actions/upload-artifact@"):
                self._upload(step["with"]["path"])
            elif re.match(r"\w+/drainctl@", uses):
                given = {name: self._filled(str(value)) for name, value in step["with"].items()}
                yield from self._composite(step["id"], {**given, **more}, self._variables(step))
            else:
                yield self._script(step, ("bash", "-e"), self._variables(step), always=always)
                self._heard(step)

    def _composite(self, called: str, given: Mapping[str, str], env: Mapping[str, str]) -> Iterator[Script]:
        action = yaml.safe_load((ROOT / "action.yml").read_text())
        unknown = given.keys() - action["inputs"].keys()
        assert not unknown, f"the action has no input {unknown}"
        outer = self._known
        inputs = {name: given.get(name, about["default"]) for name, about in action["inputs"].items()}
        self._known = {"inputs": inputs, "github": {"action_path": str(ROOT)}, "steps": {}}
        for step in action["runs"]["steps"]:
            if not self._holds(step.get("if")):
                continue
            assert step["shell"] == "bash"
            shell = ("bash", "--noprofile", "--norc", "-eo", "pipefail")
            yield self._script(step, shell, {**env, **self._variables(step)})
            self._heard(step)
        outputs = {name: self._filled(about["value"]) for name, about in action["outputs"].items()}
        self._known = outer
        self._known["steps"][called] = {"outputs": outputs}

    def _script(
        self, step: Mapping[str, Any], shell: Sequence[str], env: Mapping[str, str], *, always: bool = False
    ) -> Script:
        self._number += 1
        own = self._temp / f"step{self._number}"
        path = _file(own, "script.sh", self._filled(step["run"]))
        files = {
            name: _file(own, name.lower(), "")
            for name in ("GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STEP_SUMMARY")
        }
        before = ":".join([*self._path, self._env["PATH"]])
        return Script(step["name"], (*shell, path), {**self._env, "PATH": before, **env, **files}, always)

    def _heard(self, step: Mapping[str, Any]) -> None:
        """What the script that just ended wrote into its files."""
        own = self._temp / f"step{self._number}"
        pairs = (line.partition("=") for line in (own / "github_output").read_text().splitlines())
        outputs = {name: value for name, _, value in pairs}
        if "id" in step:
            self._known["steps"][step["id"]] = {"outputs": outputs}
        self._path[:0] = (own / "github_path").read_text().splitlines()
        self.summary += (own / "github_step_summary").read_text()

    def _upload(self, path: str) -> None:
        if (self._workspace / path).exists():
            self.artifacts.append(path)

    def _variables(self, step: Mapping[str, Any]) -> dict[str, str]:
        return {name: self._filled(str(value)) for name, value in step.get("env", {}).items()}

    def _holds(self, condition: str | None) -> bool:
        if condition is None:
            return True
        found = re.fullmatch(r"([\w.]+) == '(\w*)'", condition)
        assert found, f"unknown condition {condition!r}"
        return self._value(found[1]) == found[2]

    def _filled(self, text: str) -> str:
        return re.sub(r"\$\{\{ ([\w.]+) \}\}", lambda found: self._value(found[1]), text)

    def _value(self, name: str) -> str:
        """A dotted name; an output that was not set is empty, any other unknown name a defect."""
        value: Any = self._known
        for part in name.split("."):
            value = value.get(part, {} if name.startswith("steps.") else None)
            assert value is not None, f"{name} is not known here"
        return str(value or "")


# ---------------------------------------------------------------- GitLab CI


class Gitlab:
    """
    A shell runner: the lines of `script` are one bash script; a cancelled job's process group gets TERM,
    then KILL. Source: docs.gitlab.com, "CI/CD YAML syntax" and "artifacts:reports".
    """

    cancelled = (signal.SIGTERM, signal.SIGKILL)
    group = True

    def __init__(self, workspace: Path, temp: Path, sha: str, secrets: Mapping[str, str]) -> None:
        self._workspace = workspace
        self._temp = temp
        self._dotenv: dict[str, str] = {}
        self._env = bare(
            GITLAB_CI="true",
            CI_JOB_ID="4711",
            CI_COMMIT_SHORT_SHA=sha,
            CI_PROJECT_DIR=str(workspace),
            **secrets,
        )

    def job(self, text: str, cancel: Cancel | None = None) -> Ran:
        """The whole pipeline, as one job after the other in the order of their stages."""
        pipeline = yaml.safe_load(text)
        stages = pipeline.pop("stages")
        assert {job["stage"] for job in pipeline.values()} == set(stages)
        ran = run(self._jobs(pipeline, stages), self._workspace, cancel)
        ran.outputs = {name.removeprefix("DRAINCTL_").lower(): value for name, value in self._dotenv.items()}
        return ran

    def _jobs(self, pipeline: Mapping[str, Any], stages: Sequence[str]) -> Iterator[Script]:
        for name, job in sorted(pipeline.items(), key=lambda each: stages.index(each[1]["stage"])):
            body = "".join(f"{line}\n" for line in job["script"])
            path = _file(self._temp, f"{name}.sh", f"set -eo pipefail\n{body}")
            env = {**self._env, **job.get("variables", {}), **self._dotenv}
            yield Script(name, ("bash", path), env, always=job.get("when") == "always")
            dotenv = job.get("artifacts", {}).get("reports", {}).get("dotenv")
            if dotenv and (self._workspace / dotenv).exists():
                lines = (self._workspace / dotenv).read_text().splitlines()
                self._dotenv = dict(line.split("=", 1) for line in lines)


# ---------------------------------------------------------------- Jenkins


class Jenkins:
    """
    `sh` steps of a declarative pipeline, by `sh -xe`; an aborted build's processes get TERM, once, and the
    build is over at that moment. Source: jenkins.io, "Pipeline: Nodes and Processes", and the plugin
    durable-task.
    """

    cancelled = (signal.SIGTERM,)
    group = True

    def __init__(self, workspace: Path, temp: Path, sha: str, secrets: Mapping[str, str]) -> None:
        self._workspace = workspace
        self._temp = temp
        self._secrets = secrets
        self._env = bare(
            JENKINS_URL="http://jenkins.example.com/",
            JENKINS_SERVER_COOKIE="durable-1",
            BUILD_NUMBER=sha,
            WORKSPACE=str(workspace),
        )

    def job(self, text: str, cancel: Cancel | None = None) -> Ran:
        ids = dict(re.findall(r"^\s*(\w+) = credentials\('([\w-]+)'\)$", text, re.MULTILINE))
        env = {**self._env, **{name: self._secrets[key] for name, key in ids.items()}}
        body = text.partition("stages {")[2]
        found = re.findall(r"sh '''(.*?)'''|sh '(.*?)'\n", body, re.DOTALL)
        # Groovy joins the lines that a backslash ends.
        scripts = [(long or short).replace("\\\n", "") for long, short in found]
        assert scripts
        paths = [_file(self._temp, f"sh{number}", script) for number, script in enumerate(scripts)]
        steps = [Script(f"sh{number}", ("sh", "-xe", path), env) for number, path in enumerate(paths)]
        ran = run(iter(steps), self._workspace, cancel)
        [report] = re.findall(r"^\s*junit '([\w.-]+)'$", text, re.MULTILINE)
        assert cancel or (self._workspace / report).exists(), "the step junit would find nothing"
        return ran


SYSTEMS: Mapping[str, tuple[Callable[..., Any], str]] = {
    "github": (Github, "ci/github.yml"),
    "gitlab": (Gitlab, "ci/gitlab.yml"),
    "jenkins": (Jenkins, "ci/Jenkinsfile"),
}


def fresh(folder: Path) -> Path:
    """An empty folder of that name."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
