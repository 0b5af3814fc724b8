"""<TAB>, asked by a real bash: commands, options, nodes and rollouts; silent where nothing is there."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from drainctl.journal.sqlite import SqliteStore
from tests.conftest import SLOW, need, until

NODES = ("web1", "web2", "db1")
FILE = """\
app: shop
balancers: {lb1: {runtime: "unix:/nowhere/lb1.sock"}}
nodes: {web1: {host: 127.0.0.1}, web2: {host: 127.0.0.2}, db1: {host: 127.0.0.3}}
service: {restart: restart}
health: {check: "http://{host}/check", flag: /drain, version: "http://{host}/version"}
store: "sqlite:///STORE"
"""
# What bash does at <TAB>: the words and the cursor, then the function that `complete` was told.
TAB = """\
source <(drainctl completion bash)
eval "$(complete -p drainctl | sed 's/.*-F \\([^ ]*\\).*/asked=\\1/')"
COMP_WORDS=(drainctl "$@"); COMP_CWORD=$#
$asked drainctl
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def environment(tmp_path):
    """A `drainctl` on PATH, and a home without anybody's settings."""
    program = tmp_path / "bin" / "drainctl"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nfrom drainctl.cli import main\nmain()\n")
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "HOME": str(tmp_path), "PS1": "$ ", "TERM": "dumb"}


@pytest.fixture
def terminal(environment, tmp_path):
    """An interactive bash: `terminal(keys, shown)` types and waits for what it shows."""
    master, slave = pty.openpty()
    shell = subprocess.Popen(
        [need("bash"), "--norc", "--noprofile", "-i"],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
    )
    os.close(slave)
    seen = b""

    def type_and_see(keys: str, shown: str) -> None:
        def there() -> bool:
            nonlocal seen
            while select.select([master], [], [], 0)[0]:
                seen += os.read(master, 4096)
            return shown.encode() in seen

        os.write(master, keys.encode())
        until(f"{shown!r} on the terminal", there)

    type_and_see("source <(drainctl completion bash); echo rea''dy\n", "ready")
    try:
        yield type_and_see
    finally:
        shell.kill()
        shell.wait()
        os.close(master)


@pytest.fixture
def tab(environment, tmp_path):
    """`tab("deploy", "--on")`: what bash offers for the last word, in a folder of its own."""
    bash = need("bash")

    def ask(*words: str) -> list[str]:
        done = subprocess.run(
            [bash, "-c", TAB, "bash", *words],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env=environment,
            timeout=30 * SLOW,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return [line for line in done.stdout.splitlines() if line]

    return ask


@pytest.fixture
def shop(tmp_path):
    """A drainctl.yml and a journal with two rollouts, in the folder where bash is."""
    journal = tmp_path / "shop.db"
    (tmp_path / "drainctl.yml").write_text(FILE.replace("STORE", str(journal)))
    store = SqliteStore(journal)
    for rollout in ("20260504-140211-aaaa", "20260504-150000-bbbb"):
        store.register("shop", rollout)
    store.close()
    return tmp_path


def test_commands_and_options(tab):
    assert {"restart", "resume", "restore"} <= set(tab("re"))
    assert tab("deploy", "--on") == ["--only"]
    assert tab("--out") == ["--output"]
    assert tab("deploy", "--output", "gi") == ["github", "gitlab"]
    assert tab("lab", "st") == ["status"]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    "line", [("drain",), ("restore",), ("deploy", "--only"), ("plan", "--only"), ("drain", "db1")]
)
def test_nodes(tab, line):
    assert tab(*line, "") == list(NODES)
    assert tab(*line, "web") == ["web1", "web2"]
    assert tab(*line, "web1,d") == ["web1,db1"]


@pytest.mark.parametrize("words", [("-c", "{}", "drain", "d"), ("drain", "-c", "{}", "d")])
def test_nodes_of_the_file_that_the_line_names(tab, shop, words):
    (shop / "drainctl.yml").rename(shop / "other.yml")
    assert tab("drain", "d") == []
    assert tab(*(word.format("other.yml") for word in words)) == ["db1"]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("verb", ["show", "resume", "abort"])
def test_rollouts_newest_first(tab, verb):
    assert tab(verb, "") == ["20260504-150000-bbbb", "20260504-140211-aaaa"]
    assert tab(verb, "20260504-14") == ["20260504-140211-aaaa"]


def test_keys_of_the_file(tab):
    assert tab("explain", "rollout.k") == ["rollout.keep_up"]


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("typed", "becomes"), [("drain d", "drain db1 "), ("deploy v", "deploy v2.tar.gz "), ("hist", "history ")]
)
def test_at_a_terminal(terminal, tmp_path, typed, becomes):
    (tmp_path / "v2.tar.gz").touch()
    terminal(f"drainctl {typed}\t", f"drainctl {becomes}")


def test_silent_without_a_file_and_nothing_is_created(tab, tmp_path):
    before = sorted(tmp_path.iterdir())
    assert tab("drain", "") == []
    assert tab("show", "") == []
    (tmp_path / "drainctl.yml").write_text("nodes: [")
    assert tab("drain", "") == []
    (tmp_path / "drainctl.yml").write_text("nodes:\n")
    assert tab("drain", "") == []
    (tmp_path / "drainctl.yml").write_text(FILE.replace("STORE", str(tmp_path / "none" / "shop.db")))
    assert tab("show", "") == []
    assert sorted(tmp_path.iterdir()) == [*before, tmp_path / "drainctl.yml"]


def test_a_variable_that_is_not_set_hides_no_node(tab, shop):
    file = shop / "drainctl.yml"
    file.write_text(file.read_text().replace("restart: restart", 'restart: "restart ${NOT_SET_ANYWHERE}"'))
    assert tab("drain", "d") == ["db1"]


@pytest.mark.parametrize(
    ("shell", "word"), [("bash", "complete "), ("zsh", "compdef"), ("fish", "complete ")]
)
def test_the_scripts(shell, word):
    script = run("completion", shell)
    assert f"_DRAINCTL_COMPLETE={shell}_complete" in script
    assert word in script
    if shell == "bash":
        subprocess.run([need("bash"), "-n"], input=script, text=True, check=True)


def test_no_adapter_is_loaded_for_commands():
    loaded = run("--", probe=True, env={"COMP_WORDS": "drainctl d", "COMP_CWORD": "1"})
    assert {"drainctl.cli.rollouts", "drainctl.controller", "yaml", "sqlite3"} & set(loaded.split()) == set()


PROBE = """\
import sys
sys.argv[0] = "drainctl"
from drainctl.cli import main
try:
    main()
except SystemExit:
    print(*sys.modules)
"""


def run(*words: str, probe: bool = False, env: dict[str, str] | None = None) -> str:
    more = {"_DRAINCTL_COMPLETE": "bash_complete", **(env or {})} if probe else {}
    done = subprocess.run(
        [sys.executable, "-c", PROBE if probe else "from drainctl.cli import main; main()", *words],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **more},
        cwd=Path(__file__).parent,
    )
    return done.stdout
