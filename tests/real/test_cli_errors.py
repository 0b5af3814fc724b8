"""
Bad input through the real command line: the exit code, a message that says who, what and where, a hint that
works when it is followed, and nothing touched.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from rollout_kit import (
    PROGRAM,
    Said,
    cli,
    configure,
    current,
    flags,
    masters,
    quick_checks,
    rewrite,
    running,
    wait_up,
)

from drainctl.lab.cluster import Lab
from tests.conftest import need as need_program

pytestmark = pytest.mark.real

NODES = ("web1", "web2", "web3")


@dataclass
class Try:
    """Calls of the command line, of which none may touch the lab."""

    lab: Lab
    folder: Path

    def config(self, **texts: str) -> Path:
        """The lab's drainctl.yml with texts replaced: `old="…", new="…"`; its journal is in `folder`."""
        changes = {f"{self.lab.folder}/shop.db": f"{self.folder}/shop.db"}
        if texts:
            changes[texts["old"]] = texts["new"]
        path = self.folder / "drainctl.yml"
        configure(self.lab, changes, "changed.yml").rename(path)
        return path

    def written(self, text: str) -> Path:
        path = self.folder / "drainctl.yml"
        path.write_text(text)
        return path

    @property
    def archive(self) -> str:
        return str(self.lab.folder / "releases" / "v2.tar.gz")

    def began(self) -> bool:
        """Whether the journal knows of a rollout."""
        listed = cli(self.config(), "history")
        assert listed.code == 0, listed
        return listed.out.strip() != "no rollout yet"


def refused(said: Said, code: int, *lines: str, hint: str | None = None) -> None:
    """Exactly these `error:` lines and this hint, on standard error, and nothing else anywhere."""
    wanted = [f"error: {line}" for line in lines] + ([f"hint: {hint}"] if hint else [])
    assert (said.code, said.out, said.err.splitlines()) == (code, "", wanted)


@pytest.fixture(scope="module")
def lab():
    with running("127.0.67", nodes=3, inter="300ms", level="user") as it:
        quick_checks(it)
        it.folder.chmod(
            0o711
        )  # mkdtemp's is the owner's alone; a user without rights must get to the sockets
        yield it


@pytest.fixture
def attempt(lab):
    """A folder that any user may write to; afterwards the lab is as it was before."""
    folder = Path(tempfile.mkdtemp(prefix="dl-try-"))
    folder.chmod(0o777)
    wait_up(lab)
    before = masters(lab)
    yield Try(lab, folder)
    assert flags(lab) == []
    assert current(lab) == dict.fromkeys(NODES, "v1")
    assert masters(lab) == before
    shutil.rmtree(folder)


# ---------------------------------------------------------------- the file


def test_a_missing_file(attempt):
    none = attempt.folder / "none.yml"
    for words in (["deploy", attempt.archive], ["status"], ["history"]):
        refused(cli(none, *words), 2, f"{none}: no such file or directory", hint="name the file with -c FILE")


def test_bad_yaml(attempt):
    path = attempt.written("app: shop\nnodes: {web1: [\n")
    said = cli(path, "deploy", attempt.archive)
    assert said.code == 2
    assert re.fullmatch(rf"error: {path}:3:1: not YAML: .+\n", said.err)


def test_an_unknown_key_and_a_wrong_type_are_told_together(attempt):
    path = attempt.config(old="at_once: 1,", new="at_onec: 1, max_failed: few,")
    said = cli(path, "deploy", attempt.archive)
    assert said.code == 2
    one, two, *rest = said.err.splitlines()
    assert re.fullmatch(
        rf"error: {path}:\d+:11: rollout.at_onec: found an unknown key, expected at_once .*", one
    )
    assert re.fullmatch(rf"error: {path}:\d+:\d+: rollout.max_failed: found few, expected .+", two)
    assert all("rollout.max_failed" in line for line in rest)  # the file has that key twice now


def test_two_nodes_with_one_server(attempt):
    path = attempt.config(old="{host: 127.0.67.12}", new="{host: 127.0.67.12, server: web1}")
    said = cli(path, "deploy", attempt.archive)
    where = rf"error: {path}:\d+:\d+: nodes\.web2\.server: "
    what = r"found web1, which is nodes\.web1's, expected a server of its own"
    assert said.code == 2
    assert re.fullmatch(f"{where}{what}\n", said.err)


def test_an_unknown_placeholder_in_the_file(attempt):
    path = attempt.config(old="ctl restart", new="ctl restart {nod}")
    said = cli(path, "restart")
    assert said.code == 2
    assert re.fullmatch(
        rf"error: {path}:\d+:\d+: service\.restart: found {{nod}}, "
        rf"expected one of {{host}} {{node}} {{release}} {{root}}\n",
        said.err,
    )


def test_a_password_that_the_environment_does_not_have(attempt):
    path = with_stats_page(attempt)
    said = cli(path, "status")
    assert said.code == 2
    assert re.fullmatch(
        rf"error: {path}:\d+:\d+: balancers\.lb1\.auth: found \${{LB1_AUTH}}, which is not set in the "
        r"environment, expected a value\n",
        said.err,
    )


def with_stats_page(attempt: Try) -> Path:
    path = attempt.config()
    stats = 'lb1: {stats: "http://127.0.67.1:8404/stats", auth: "${LB1_AUTH}"}'
    text, count = re.subn(r"lb1: \{.*\}", stats, path.read_text())
    assert count == 1
    return attempt.written(text)


# ---------------------------------------------------------------- the line


@pytest.mark.parametrize(
    ("words", "line", "hint"),
    [
        (["restart", "--only", "web9"], "no node web9 in {file}; it has: web1, web2, web3", None),
        (["drain", "web9"], "no node web9 in {file}; it has: web1, web2, web3", None),
        (
            ["run", "echo {nod}"],
            "found {nod} in echo {nod}, expected one of {host} {node} {root}",
            "write {{nod}} for a literal {nod}",
        ),
        (["deploy"], "found no SOURCE, expected an archive, a directory, a URL, or --command", None),
        (["deploy", "/none.tar.gz"], "/none.tar.gz is not there", None),
        (
            ["restart", "--at-once", "many"],
            "--at-once: found 'many', expected a count like 2 or a share like 25%",
            None,
        ),
        (
            ["restart", "--at-once", "2"],
            "rollout.at_once: found 2 (2 of 3 nodes), expected at most 1: rollout.keep_up = 50% keeps 2 up",
            None,
        ),
        (["show", "x"], "no rollout x in the journal", "`drainctl -c {file} history` lists them"),
    ],
    ids=lambda words: " ".join(words[:2]) if isinstance(words, list) else "",
)
def test_a_line_that_cannot_be_meant(attempt, words, line, hint):
    path = attempt.config()
    line, hint = (text and text.replace("{file}", str(path)) for text in (line, hint))
    refused(cli(path, *words), 2, line, hint=hint)
    assert not attempt.began()


def test_an_unknown_verb_and_an_unknown_option(attempt):
    for words, what in ((["restrat"], "'restrat'"), (["restart", "--onyl", "web1"], "'--onyl'")):
        said = cli(attempt.config(), *words)
        assert said.code == 2
        assert what in said.err
        assert "Traceback" not in said.err


@pytest.mark.parametrize("name", ["notes.tar.gz", "empty.tar.gz", "half.tar.gz", "up.tar"])
def test_a_release_that_is_no_archive(attempt, name):
    path = attempt.folder / name
    words = {"notes.tar.gz": b"1. drain\n2. deploy\n", "empty.tar.gz": b""}
    if name == "half.tar.gz":
        path.write_bytes(Path(attempt.archive).read_bytes()[:-300])
    elif name == "up.tar":
        (attempt.folder / "evil").write_text("evil")
        below = attempt.folder / "below"
        below.mkdir()
        subprocess.run(["tar", "-cPf", path, "../evil"], cwd=below, check=True)
    else:
        path.write_bytes(words[name])
    said = cli(attempt.config(), "deploy", str(path))
    assert said.code == 2
    assert said.out == ""
    told = {
        "notes.tar.gz": r"is no tar archive \(plain, gz, bz2, xz or zst\)",
        "empty.tar.gz": r"is no tar archive \(plain, gz, bz2, xz or zst\)",
        "half.tar.gz": r"is no whole tar archive: .+",
        "up.tar": r".*\.\./evil.*",
    }
    assert re.match(rf"error: {path}:? {told[name]}\n", said.err), said.err
    assert "Traceback" not in said.err
    assert not attempt.began()


# ---------------------------------------------------------------- the balancers


def test_an_unknown_backend(attempt):
    path = attempt.config(old="backends: [shop]", new="backends: [shp]")
    told = "has no backend 'shp' with servers; it has: shop"
    refused(
        cli(path, "deploy", attempt.archive),
        2,
        f"{path}: backends: lb1 {told}",
        f"{path}: backends: lb2 {told}",
    )
    assert not attempt.began()


def test_an_unknown_server(attempt):
    path = attempt.config(old="{host: 127.0.67.12}", new="{host: 127.0.67.12, server: w2}")
    told = "has no server w2; it has: web1, web2, web3"
    refused(
        cli(path, "deploy", attempt.archive),
        2,
        f"{path}: nodes.web2: lb1 {told}",
        f"{path}: nodes.web2: lb2 {told}",
    )
    assert not attempt.began()


def test_a_socket_that_we_may_not_use(attempt, need):
    need("setpriv")
    sockets = [attempt.lab.socket(name) for name in ("lb1", "lb2")]
    if os.geteuid() != 0:
        for socket in sockets:
            socket.chmod(0)
    path = attempt.config()
    said = cli(path, "deploy", attempt.archive, as_nobody=True)
    for socket in sockets:
        socket.chmod(0o600)
    refused(
        said,
        5,
        *(
            f"{name} cannot be read: {at}: permission denied"
            for name, at in zip(("lb1", "lb2"), sockets, strict=True)
        ),
        hint="join the socket's group (`haproxy` on Debian), "
        "or set `mode 660 group …` on its `stats socket` line",
    )
    for file in attempt.folder.glob("shop.db*"):
        file.chmod(0o666)
    assert not attempt.began()


def test_a_socket_that_is_not_there(attempt):
    path = attempt.config(old="lb2/runtime.sock", new="lb2/run.sock")
    where = attempt.lab.folder / "lb2" / "run.sock"
    refused(
        cli(path, "deploy", attempt.archive),
        5,
        f"lb2 cannot be read: {where}: no such socket",
        hint=f"start HAProxy with `stats socket {where} level admin` in its `global` section",
    )
    assert not attempt.began()


def test_a_stats_page_with_the_wrong_password(attempt):
    rewrite(attempt.lab, "lb1", "  stats enable\n", "  stats enable\n  stats auth ops:right\n")
    try:
        path = with_stats_page(attempt)
        said = cli(path, "deploy", attempt.archive, env={"LB1_AUTH": "ops:wr0ng"})
        refused(
            said,
            5,
            "lb1 cannot be read: http://127.0.67.1:8404/stats;csv wants other credentials (401)",
            hint="set balancers.lb1.auth to user:password of its `stats auth` line",
        )
        shown = cli(path, "status", env={"LB1_AUTH": "ops:wr0ng"})
        assert "lb1: http://127.0.67.1:8404/stats;csv wants other credentials (401)" in shown.out.splitlines()
        assert "wr0ng" not in shown.out + shown.err + said.err
        assert cli(path, "plan", attempt.archive, env={"LB1_AUTH": "ops:right"}).code == 0
        assert not attempt.began()
    finally:
        rewrite(attempt.lab, "lb1", "  stats auth ops:right\n", "")


def test_a_backend_without_disable_on_404(attempt):
    """Seen only when the node is flagged: it is given back, unchanged, and the missing line is named."""
    rewrite(attempt.lab, "lb2", "  http-check disable-on-404\n", "")
    try:
        said = cli(attempt.config(), "--output", "json", "deploy", attempt.archive)
        assert said.code == 1
        [failed] = said.of("step.failed")
        assert (failed["node"], failed["step"]) == ("web1", "out")
        assert re.fullmatch(
            r"lb2 counts the 404 of shop/web1 as a failed check \(UP 2/3, L7STS\): "
            r"the backend lacks disable-on-404",
            failed["data"]["why"],
        )
        assert failed["data"]["hint"] == "add `http-check disable-on-404` to backend shop"
        [ended] = said.of("node.ended")
        assert ended["data"]["outcome"] == "restored"
        assert said.of("step.intended", step="switch") == []
        assert said.ended["why"].endswith("the node is back in rotation, unchanged")
    finally:
        rewrite(attempt.lab, "lb2", "  option httpchk", "  http-check disable-on-404\n  option httpchk")


# ---------------------------------------------------------------- the nodes


def test_a_flag_that_cannot_be_written(attempt):
    said = cli(
        attempt.config(old="srv/shared/drain", new="srv/gone/drain"),
        "--output",
        "json",
        "deploy",
        attempt.archive,
    )
    assert said.code == 1
    [failed] = said.of("step.failed")
    assert (failed["node"], failed["step"]) == ("web1", "flag")
    where = f"{attempt.lab.root('web1')}/gone/drain"
    assert failed["data"]["why"].startswith(f"set the flag {where} ended with code 1:")
    assert "Directory nonexistent" in failed["data"]["why"] or "No such file" in failed["data"]["why"]
    assert said.of("node.began", "web2") == []
    assert said.of("step.intended", step="out") == []
    assert said.ended["why"].endswith("the node is back in rotation, unchanged")


@pytest.fixture
def small_disk(attempt) -> Path:
    """64 kB for the releases of web2; but for the live one's name they are hidden. Mounting needs root."""
    mount, umount = need_program("mount"), need_program("umount")
    place = attempt.lab.root("web2") / "releases"
    command = [mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        need_program("the right to mount a tmpfs (root)")
    (place / current(attempt.lab)["web2"]).mkdir()
    yield place
    subprocess.run([umount, str(place)], check=True)


def test_a_full_disk_on_a_node(attempt, small_disk):
    big = attempt.folder / "big"
    big.mkdir()
    (big / "noise").write_bytes(os.urandom(300_000))
    said = cli(attempt.config(), "--output", "json", "deploy", str(big), "--id", "big")
    assert said.code == 1
    [failed] = said.of("step.failed")
    assert (failed["node"], failed["step"]) == ("web2", "stage")
    assert failed["data"]["why"].startswith("stage big: the disk is full: ")
    assert "No space left on device; what was written of it is removed" in failed["data"]["why"]
    assert failed["data"]["hint"] == "make room on web2 (release.keep bounds how many releases stay)"
    assert said.ended["why"].startswith("web2: stage big: the disk is full: ")
    assert said.ended["why"].endswith("; no node left rotation")
    assert [path.name for path in small_disk.iterdir()] == [current(attempt.lab)["web2"]]
    assert said.of("node.began") == []


def test_an_unknown_host_key(tmp_path, need):
    """And the hint, taken word for word, makes it known."""
    need("ssh-keyscan")
    with running("127.0.68", nodes=2, balancers=1, ssh=True, inter="300ms") as lab:
        known = lab.folder / "ssh" / "known_hosts"
        kept = known.read_text()
        known.write_text("")
        changes = {f"{lab.folder}/shop.db": f"{tmp_path}/shop.db", "keep_up: 50%": "keep_up: 1"}
        path, before = configure(lab, changes), masters(lab)
        said = cli(path, "deploy", str(lab.folder / "releases" / "v2.tar.gz"))
        assert said.code == 5
        assert said.out == ""
        lines = said.err.splitlines()
        errors = [line for line in lines if line.startswith("error: ")]
        for name, line in zip(("web1", "web2"), errors, strict=True):
            shown = fingerprint(lab, name)
            assert re.fullmatch(
                rf"error: {name} cannot be reached: \S+@{lab.settings.host(name)}:2222: "
                rf"the host key is not known: it shows ssh-ed25519 {re.escape(shown)}",
                line,
            )
        hints = [line for line in lines if line.startswith("hint: ")]
        assert len(hints) == 2
        assert masters(lab) == before
        assert cli(path, "history").out.strip() == "no rollout yet"
        for hint in hints:
            command = hint.partition("then: ")[2]
            assert shlex.split(command)[0] == "ssh-keyscan"
            subprocess.run(command, shell=True, check=True, capture_output=True)  # noqa: S602  as printed
        assert set(kept.split()) <= set(known.read_text().split())
        assert cli(path, "plan", str(lab.folder / "releases" / "v2.tar.gz")).code == 0


def fingerprint(lab: Lab, name: str) -> str:
    key = lab.folder / "nodes" / name / "host_key.pub"
    done = subprocess.run(["ssh-keygen", "-lf", key], check=True, capture_output=True, text=True)
    return done.stdout.split()[1]


# ---------------------------------------------------------------- drainctl itself


def test_a_defect_of_drainctl_does_not_say_that_all_was_put_back(attempt):
    """Python would end with 1, which means `failed, and everything was put back`."""
    broken = f"import drainctl.wire; drainctl.wire.Wired.__enter__ = lambda _: 1 / 0; {PROGRAM}"
    said = cli(attempt.config(), "status", program=broken)
    assert said.code == 3
    assert "ZeroDivisionError" in said.err
    assert said.err.splitlines()[-2:] == [
        "error: a defect of drainctl ended it; nodes in flight are as they were left",
        "hint: `drainctl status` shows where each node is; `drainctl resume` goes on",
    ]
