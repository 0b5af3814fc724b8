"""doctor on real clusters: what it finds, what it does not, and that it touches nothing."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from drainctl.cli.doctor import doctor
from drainctl.doctor.node_line import Asked, line, parse
from drainctl.lab import ready
from drainctl.lab.cluster import Lab
from drainctl.node.local import LocalTransport
from tests.conftest import need

pytestmark = pytest.mark.real
BASE = "127.0.82"


class Told:
    """What one run of `drainctl doctor` said."""

    def __init__(self, lab: Lab, *args: str, config: Path | None = None) -> None:
        asked = ["-c", str(config or lab.config), "--output", "json", *args]
        ran = CliRunner().invoke(doctor, asked, obj={}, catch_exceptions=False)
        said = json.loads(ran.stdout)
        self.exit = ran.exit_code
        self.may_begin = said["may_begin"]
        self.found = said["findings"]

    @property
    def codes(self) -> set[str]:
        return {one["code"] for one in self.found}

    @property
    def severities(self) -> set[str]:
        return {one["severity"] for one in self.found}

    def of(self, code: str) -> list[dict[str, str]]:
        return [one for one in self.found if one["code"] == code]


def up(folder: Path, **settings):
    need("haproxy")
    need("nginx")
    lab = Lab(folder, base=BASE, **settings)
    lab.up()
    return lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    made = up(tmp_path_factory.mktemp("doctor"), nodes=3)
    yield made
    made.down()


def edited(lab: Lab, name: str, *changes: tuple[str, str]) -> Path:
    """A copy of a file of the lab, with texts replaced; each must be there."""
    source = lab.config if name == "drainctl.yml" else lab.folder / "lb1" / name
    text = source.read_text()
    for before, after in changes:
        assert before in text, before
        text = text.replace(before, after)
    copy = lab.folder / f"copy-of-{name}"
    copy.write_text(text)
    return copy


def everything(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file that a node or balancer has, with what changes when it is written to."""
    found = {}
    for part in ("nodes", "lb1", "lb2"):
        for path in (folder / part).rglob("*"):
            if path.suffix != ".log":
                state = path.lstat()
                found[str(path)] = (state.st_ino, state.st_size, state.st_mtime_ns)
    return found


# ---------------------------------------------------------------- a lab that is well


def test_a_fresh_lab_has_nothing_worse_than_advice_and_is_not_touched(lab):
    def servers():
        told = [ready.ask(lab.socket(name), "show servers state") for name in ("lb1", "lb2")]
        return [[row.split()[5:9] for row in text.splitlines()[2:] if row] for text in told]

    before = everything(lab.folder), servers()
    told = Told(lab)
    assert (everything(lab.folder), servers()) == before
    assert told.severities <= {"advice"}
    assert (told.exit, told.may_begin) == (0, True)
    assert Told(lab, "--strict").exit == 0


def test_its_own_haproxy_cfg_adds_advice_only(lab):
    told = Told(lab, "--haproxy-cfg", str(lab.folder / "lb1" / "haproxy.cfg"), "--strict")
    assert told.severities <= {"advice"}
    assert "state-lost-at-reload" in told.codes
    assert told.exit == 0


def test_an_unknown_balancer_is_refused(lab):
    asked = ["-c", str(lab.config), "--haproxy-cfg", "lb7=x"]
    ran = CliRunner().invoke(doctor, asked, obj={})
    assert "expected one of lb1, lb2" in str(ran.exception)


# ---------------------------------------------------------------- haproxy.cfg


def test_the_line_without_disable_on_404_is_named(lab):
    cfg = edited(lab, "haproxy.cfg", ("  http-check disable-on-404\n", ""))
    told = Told(lab, "--haproxy-cfg", f"lb1={cfg}")
    (found,) = told.of("no-disable-on-404")
    backend = 1 + cfg.read_text().splitlines().index("backend shop")
    assert found["where"] == f"{cfg}:{backend}"
    assert (found["severity"], found["change"]) == ("loses requests", "http-check disable-on-404")
    assert (told.exit, told.may_begin) == (0, True)
    assert Told(lab, "--haproxy-cfg", f"lb1={cfg}", "--strict").exit == 5


def test_traps_of_a_haproxy_cfg(lab):
    cfg = edited(
        lab,
        "haproxy.cfg",
        (
            "check inter 1s fall 3 rise 2",
            "check inter 40s fall 3 rise 2 on-marked-down shutdown-sessions slowstart 9s",
        ),
        ("  option redispatch\n", ""),
        ("  timeout check 4s\n", ""),
        (f"web2 {BASE}.12:8080", f"web2 {BASE}.12:8080 port 9000"),
    )
    told = Told(lab, "--haproxy-cfg", f"lb1={cfg}")
    assert told.codes >= {
        "marked-down-cuts",
        "slowstart-outlasts-watch",
        "no-redispatch",
        "no-timeout-check",
        "checks-differ",
        "checks-outlast-drain",
        "check-not-the-app",
    }
    assert told.exit == 0
    assert Told(lab, "--haproxy-cfg", f"lb1={cfg}", "--strict").exit == 5


# ---------------------------------------------------------------- what is seen live


def test_a_flagged_node(lab):
    lab.flag("web2").write_text("by hand\n")
    try:
        told = Told(lab)
    finally:
        lab.flag("web2").unlink()
    (found,) = told.of("node-flagged")
    assert (found["where"], found["change"]) == ("web2", f"drainctl -c {lab.config} restore web2")
    assert "by hand" in found["seen"]
    assert told.exit == 5


def test_a_server_in_maint_on_one_balancer(lab, until):
    ready.ask(lab.socket("lb1"), "set server shop/web1 state maint")
    try:
        told = Told(lab)
    finally:
        ready.ask(lab.socket("lb1"), "set server shop/web1 state ready")
        until("web1 UP again", lambda: ready.all_up(lab.socket("lb1"), "shop", ("web1",)))
    (found,) = told.of("server-out-by-hand")
    assert found["where"] == "lb1 shop/web1"
    assert "balancers-disagree" in told.codes
    assert told.exit == 5


def test_a_balancer_and_nodes_that_are_not_there(lab):
    config = edited(lab, "drainctl.yml", ("lb1/runtime.sock", "lb1/nowhere.sock"))
    told = Told(lab, config=config)
    assert told.of("balancer-unreachable")
    assert told.exit == 5


# ---------------------------------------------------------------- what the nodes show


@pytest.mark.parametrize(
    ("code", "before", "after"),
    [
        ("flag-folder-missing", "srv/shared/drain", "srv/nowhere/drain"),
        ("restart-missing", "/ctl restart", "/ctl-of-yesterday restart"),
        ("shared-missing", "keep: 5", "keep: 5, shared: [media/, .env]"),
        ("version-silent", "/version", "/no-such-page"),
        ("version-not-current", "/version", "/healthz"),
        ("no-restart", r"(?m)^(service:|  restart:).*\n", ""),
    ],
)
def test_what_drainctl_yml_says_of_the_nodes(lab, code, before, after):
    config = lab.folder / "copy-of-drainctl.yml"
    text, count = re.subn(before, after, lab.config.read_text())
    assert count
    config.write_text(text)
    told = Told(lab, config=config)
    assert code in told.codes
    assert code not in Told(lab).codes


def test_a_current_that_is_a_folder(lab):
    current = lab.root("web3") / "current"
    target = current.readlink()
    current.unlink()
    current.mkdir()
    try:
        told = Told(lab)
    finally:
        current.rmdir()
        current.symlink_to(target)
    assert [one["where"] for one in told.of("current-not-link")] == ["web3"]


def test_what_the_line_sees_of_this_machine(tmp_path):
    need("ss")
    shared = tmp_path / "srv" / "shared"
    shared.mkdir(parents=True)
    (tmp_path / "srv" / "releases" / "v1").mkdir(parents=True)
    (tmp_path / "srv" / "current").symlink_to("releases/v1")
    (tmp_path / "srv" / "shared" / "there").touch()
    asked = Asked(f"{shared}/drain", f"{tmp_path}/srv", "sudo-not-here x", ("there", "gone", "made/"))
    done = LocalTransport().run(line(asked), limit_s=20)
    facts = parse(done.out)
    assert (done.code, done.err) == (0, "")
    assert facts.flag_folder == "writable"
    assert facts.flag_path[0].path == str(shared.resolve())
    assert facts.flag_path[-1].path == "/"
    assert (facts.restart, facts.current, facts.lacks) == (False, "link", ("gone",))
    assert (facts.free_kb or 0) > 0
    assert (facts.release_kb or 0) > 0
    assert {"tar", "sha256sum", "ss", "awk"} <= facts.tools
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        "current",
        "releases",
        "shared",
        "srv",
        "there",
        "v1",
    ]


LISTEN = """
import socket, sys
server = socket.create_server((sys.argv[1], 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_who_answers_the_check_and_cannot_search_the_folder(tmp_path):
    need("ss")
    other = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    python = "/usr/bin/python3" if os.geteuid() == 0 else sys.executable
    address = f"{BASE}.99"
    with subprocess.Popen(
        [python, "-c", LISTEN, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd="/",
        **other,
    ) as listener:
        assert listener.stdout is not None
        port = int(listener.stdout.readline())
        private = tmp_path / "private"
        private.mkdir(mode=0o700)
        asked = Asked(f"{private}/drain", None, None, port=port, address=address)
        facts = parse(LocalTransport().run(line(asked), limit_s=20).out)
        listener.communicate("")
    (user,) = facts.serving
    assert user.uid == (65534 if other else os.geteuid())
    assert facts.flag_path[0].path == str(private)
    assert facts.flag_path[0].lets_in(user) is not bool(other)
    with pytest.raises(OSError), socket.create_connection((address, port), timeout=1):
        pass  # it is gone


# ---------------------------------------------------------------- other labs


def test_a_socket_without_admin(lab, tmp_path):
    lab.down()
    other = up(tmp_path, nodes=2, level="user", cookie=True)
    try:
        told = Told(other)
        with_cfg = Told(other, "--haproxy-cfg", str(other.folder / "lb1" / "haproxy.cfg"))
    finally:
        other.down()
        lab.up()
    assert [one["where"] for one in told.of("socket-not-admin")] == ["lb1", "lb2"]
    assert "level admin" in told.of("socket-not-admin")[0]["change"]
    assert told.severities <= {"slower", "advice"}
    assert told.exit == 0
    assert "sticky-clients" not in told.codes  # a socket of level user does not show cookies; the file does
    assert "needs a socket of level admin" in with_cfg.of("sticky-clients")[0]["seen"]
    assert "loses requests" in with_cfg.severities  # state-lost-at-reload, which nobody could repair here


def test_cookies_without_a_policy(lab, tmp_path):
    lab.down()
    other = up(tmp_path, nodes=2, cookie=True)
    try:
        moved = Told(other)
        waits = Told(other, config=edited(other, "drainctl.yml", ("sticky: move", "sticky: wait")))
    finally:
        other.down()
        lab.up()
    assert "sticky-clients" not in moved.codes
    assert [one["where"] for one in waits.of("sticky-clients")] == ["lb1 shop", "lb2 shop"]
    assert "drain.sticky = wait" in waits.of("sticky-clients")[0]["seen"]


def test_a_stats_page_that_hides_the_servers(lab, tmp_path):
    lab.down()
    other = up(tmp_path, nodes=2, balancers=1, stats_only=True)
    try:
        seen = Told(other)
        cfg = other.folder / "lb1" / "haproxy.cfg"
        cfg.write_text(
            cfg.read_text().replace("  stats uri /stats\n", "  stats uri /stats\n  stats scope stats\n")
        )
        other.reload("lb1")
        hidden = Told(other, "--haproxy-cfg", str(cfg))
    finally:
        other.down()
        lab.up()
    assert seen.codes <= {"socket-not-admin", "no-master-socket"}
    assert "a stats page is read only" in seen.of("socket-not-admin")[0]["seen"]
    assert {one["where"].split(":")[0] for one in hidden.of("stats-page-hides")} >= {str(cfg)}
    assert hidden.exit == 5


def test_a_host_key_that_is_not_known(lab, tmp_path):
    need("sshd")
    lab.down()
    other = up(tmp_path, nodes=1, balancers=1, ssh=True)
    try:
        known = Told(other)
        keys = other.folder / "ssh" / "known_hosts"
        keys.write_text("")
        told = Told(other)
    finally:
        other.down()
        lab.up()
    assert "host-key-unknown" not in known.codes
    (found,) = told.of("host-key-unknown")
    assert found["change"].startswith(f"ssh-keyscan -p 2222 {BASE}.11 >> {keys}")
    assert "node-unreachable" not in told.codes
    assert told.exit == 5
