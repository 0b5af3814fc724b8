"""drainctl init as somebody new uses it: three haproxy.cfg, a running lab, and questions on a terminal."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import pytest

from drainctl.config.load import load
from drainctl.init.answers import listed
from drainctl.init.text import marks
from drainctl.lab.cluster import Lab
from drainctl.model import Checks, FlagFile
from tests.conftest import SLOW, need
from tests.real.cfg_kit import Running

pytestmark = pytest.mark.real

CFGS = Path(__file__).parent / "cfg"
BASE = "127.0.81"
MAIN = [sys.executable, "-c", "from drainctl.cli import main; main()"]


def drainctl(folder, *args, **environ):
    """One command, without a terminal, in `folder`."""
    known = {name: text for name, text in os.environ.items() if name not in ("STAGE", "EIGHT", "RUN_DIR")}
    return subprocess.run(
        [*MAIN, *map(str, args)],
        cwd=folder,
        env={**known, **environ},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60 * SLOW,
    )


def init(folder, name, *args, **environ):
    """`init` on one of our files; returns what it said and the text that it wrote."""
    done = drainctl(folder, "init", "--haproxy-cfg", CFGS / f"{name}.cfg", *args, **environ)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    return done.stderr, (folder / "drainctl.yml").read_text()


def hosts(cluster):
    return {node.name: node.host for node in cluster.nodes}


# ---------------------------------------------------------------- three files


def test_a_shop_of_three_backends(tmp_path):
    said, text = init(tmp_path, "shop", RUN_DIR="/run/none")
    cluster = load(str(tmp_path / "drainctl.yml"))
    assert (cluster.app, cluster.backends, cluster.match) == ("shop", ("shop", "api", "static"), "name")
    assert hosts(cluster) == {
        "web1": "127.0.81.211",
        "web2": "127.0.81.212",
        "web3": "127.0.81.213",
        "spare": "127.0.81.214",
    }
    assert "# old is left out, disabled in cfg/shop.cfg:51:" in text
    assert cluster.health.check == "http://{host}:8080/http-check"
    assert cluster.balancers[0].runtime == "unix:/run/none/admin.sock"  # admin before user
    assert cluster.checks == Checks(
        inter_s=4, timeout_s=1.5, fall=4, rise=3, downinter_s=5, spread_percent=5, slowstart_s=20
    )
    assert cluster.watch.for_s == 20  # not shorter than slowstart
    assert cluster.drain.sticky == "wait"  # the socket did not answer, so nobody knows whether it may move
    assert "inter: 4s  # cfg/shop.cfg:49, the slowest of several" in text
    assert "mysql: 2 servers" in said
    assert "no such socket" in said


def test_slots_ipv6_variables_and_blocks(tmp_path):
    said, text = init(tmp_path, "dynamic", "--app", "scaled", RUN_DIR="/run/none", STAGE="test")
    cluster = load(str(tmp_path / "drainctl.yml"))
    assert cluster.app == "scaled"
    assert hosts(cluster) == {
        "six": "2001:db8::16",
        "seven": "2001:db8::17",
        "eight": "eight.set-this.invalid",
        "nine": "2001:db8::19",
        "ten": "2001:db8::1a",
    }
    assert "SET THIS: HAProxy's address is ${EIGHT}:8443 (cfg/dynamic.cfg:46); which machine is that?" in text
    assert "# app2 is left out, an empty slot: HAProxy shows no address for it (app.internal:8443):" in text
    assert cluster.health.check == "https://{check_host}:8443/up?from=haproxy"
    assert cluster.nodes[0].vars == {"check_host": "[2001:db8::16]"}
    assert "`.if feature(OPENSSL)`: only HAProxy knows" in text
    assert "this check speaks TLS" in " ".join(said.split())
    assert cluster.connect.via == "ssh"


def test_a_variable_that_is_set_is_used(tmp_path):
    _, text = init(tmp_path, "dynamic", EIGHT="10.0.0.8", RUN_DIR="/run/none")
    cluster = load(str(tmp_path / "drainctl.yml"))
    assert hosts(cluster)["eight"] == "10.0.0.8"
    assert "ten" not in hosts(cluster)  # `.if … streq("${STAGE}",test)` does not hold without STAGE
    assert "which machine is that" not in text


def test_several_apps_and_only_a_stats_page(tmp_path):
    said, _ = init(tmp_path, "many")
    file = str(tmp_path / "drainctl.yml")
    assert "export LB1_AUTH=USER:PASSWORD" in said
    assert "not yet: drainctl.yml:" in said  # it says that the variable is missing
    cluster = load(file, {"LB1_AUTH": "ops:x", "HOME": "/nowhere"})
    assert (cluster.app, cluster.backends, cluster.match) == ("blog", ("blog", "blog-admin"), "address")
    assert hosts(cluster) == {"b1": "127.0.81.231", "b2": "127.0.81.232", "b3": "127.0.81.233"}
    assert cluster.balancers[0].stats == "http://127.0.81.203:8481/lb?stats"
    assert cluster.health.check == "http://{check_host}:9100/http-check"
    assert [dict(node.vars)["check_host"] for node in cluster.nodes] == [
        "127.0.81.231",
        "127.0.81.242",  # its check has an `addr`
        "127.0.81.233",
    ]
    assert "sorry (a backup without a check, so hardly the app)" in " ".join(said.split())
    assert "wiki: 2 servers; smtp: 1 server" in " ".join(said.split())
    assert "not-a-secret" not in said
    assert "with a blank" not in said


def test_another_app_of_the_same_file(tmp_path):
    said, text = init(tmp_path, "many", "--backend", "wiki", "--app", "docs")
    cluster = load(str(tmp_path / "drainctl.yml"), {"LB1_AUTH": "ops:x", "HOME": "/nowhere"})
    assert (cluster.app, cluster.backends, list(hosts(cluster))) == ("docs", ("wiki",), ["w1", "w2"])
    assert "SET THIS: no backend here has `option httpchk`" in text
    assert "the checks of wiki ask nothing" in " ".join(said.split())


# ---------------------------------------------------------------- what it refuses


def test_it_never_overwrites(tmp_path):
    for name in ("file.yml", "link.yml"):
        target = tmp_path / name
        if name == "file.yml":
            target.write_text("mine")
        else:
            target.symlink_to(tmp_path / "nowhere.yml")
        done = drainctl(tmp_path, "init", "--haproxy-cfg", CFGS / "shop.cfg", "--out", name)
        assert done.returncode == 2
        assert done.stderr.startswith(f"error: {name} is already there; it was not touched\nhint: --out FILE")
    assert (tmp_path / "file.yml").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.yml", "link.yml"]


def test_which_app_is_asked_for_where_nothing_tells(tmp_path):
    cfg = tmp_path / "haproxy.cfg"
    cfg.write_text("backend a\n server s 10.0.0.1:80\nbackend b\n server s 10.0.0.2:80\n")
    done = drainctl(tmp_path, "init", "--haproxy-cfg", "haproxy.cfg")
    assert done.returncode == 2
    assert "found 2 apps that share no server:\n  a: 1 server\n  b: 1 server\n" in done.stderr
    assert "--backend a" in done.stderr
    assert not (tmp_path / "drainctl.yml").exists()
    done = drainctl(tmp_path, "init", "--haproxy-cfg", "haproxy.cfg", "--backend", "c")
    assert "has no backend c with servers; it has: a, b" in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--haproxy-cfg", "none.cfg"), "error: none.cfg: no such file or directory"),
        (
            ("--haproxy-cfg", "empty.cfg"),
            "error: empty.cfg: found no backend with servers; nothing was written",
        ),
        (("--haproxy-cfg", "a=x.cfg", "--haproxy-cfg", "a=y.cfg"), "found a a second time"),
        (
            ("--haproxy-cfg", str(CFGS / "shop.cfg"), "--out", "no/x.yml"),
            "error: no/x.yml: no such file or dir",
        ),
    ],
)
def test_what_cannot_be_read_or_written(tmp_path, args, said):
    (tmp_path / "empty.cfg").write_text("global\n")
    done = drainctl(tmp_path, "init", *args)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "drainctl.yml").exists()


def test_out_to_stdout(tmp_path):
    done = drainctl(tmp_path, "init", "--haproxy-cfg", CFGS / "shop.cfg", "--out", "-")
    assert done.stdout.startswith("# Written by `drainctl init`")
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_a_socket_whose_path_nobody_knows(tmp_path):
    _, text = init(tmp_path, "shop")  # without RUN_DIR
    assert "SET THIS: which socket? haproxy.cfg says ${RUN_DIR}/admin.sock" in text
    assert load(str(tmp_path / "drainctl.yml")).balancers[0].runtime == "unix:/run/haproxy/admin.sock"


@pytest.mark.parametrize("text", ["", "web1", "web1=", "=10.0.0.1"])
def test_a_list_of_servers_that_cannot_be_read(text):
    with pytest.raises(ValueError, match="expected"):
        listed(text, 80)


def test_a_list_of_servers():
    assert listed("a=10.0.0.1, b=10.0.0.2:81 c=::1", 80) == {
        "a": "10.0.0.1:80",
        "b": "10.0.0.2:81",
        "c": "[::1]:80",
    }


# ---------------------------------------------------------------- a running lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    for program in ("haproxy", "nginx"):
        need(program)
    lab = Lab(
        tmp_path_factory.mktemp("l"),
        base=BASE,
        nodes=3,
        balancers=2,
        haproxy="path",
        nginx="path",
        cookie=True,
    )
    lab.up()
    try:
        yield lab
    finally:
        lab.down()


def fill_in(text, lab):
    """What somebody does who reads the marks: each of them is answered, and nothing else is touched."""
    own = f"{lab.folder}/nodes/{{node}}"
    answers = {
        "# release:": f'release: {{root: "{own}/srv", keep: 5}}',
        "# service:": f'service: {{restart: "{own}/ctl restart"}}',
        "  flag:": f'  flag: "{own}/srv/shared/drain"',
        "  ready:": '  ready: "http://{host}:8080/healthz"',
    }
    for begin, line in answers.items():
        text, times = re.subn(rf"^{re.escape(begin)}.*$", line, text, flags=re.MULTILINE)
        assert times == 1, begin
    return text


def test_from_nothing_to_a_plan_that_passes(lab, tmp_path):
    began = time.monotonic()
    cfgs = [part for name in ("lb1", "lb2") for part in ("--haproxy-cfg", lab.folder / name / "haproxy.cfg")]
    done = drainctl(tmp_path, "init", *cfgs)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "drainctl.yml"
    text = file.read_text()
    assert [what.partition(" ")[0] for _, what in marks(text)] == ["where", "the", "a"]
    for number, what in marks(text):
        assert f"line {number}" in done.stderr
        assert what in " ".join(done.stderr.split())
    as_written = load(str(file))  # it loads as it is; what acts on nodes is not guessed
    assert (as_written.release, as_written.service.restart) == (None, None)
    refused = drainctl(tmp_path, "plan", lab.folder / "releases" / "v2.tar.gz")
    assert refused.returncode == 2
    assert "release.root and service.restart are needed" in refused.stderr

    file.write_text(fill_in(text, lab))
    cluster = load(str(file))
    assert [balancer.name for balancer in cluster.balancers] == ["lb1", "lb2"]
    assert cluster.balancers[0].master == f"unix:{lab.folder}/lb1/master.sock"  # found, and it is this one's
    assert hosts(cluster) == {f"web{at}": f"{BASE}.{10 + at}" for at in (1, 2, 3)}
    assert (cluster.connect.via, cluster.drain.sticky) == ("local", "move")
    assert cluster.checks == Checks(inter_s=1, timeout_s=4)
    assert isinstance(cluster.health.flag, FlagFile)
    next_line = done.stderr.splitlines()[-1]
    assert next_line.startswith("next: drainctl doctor --haproxy-cfg lb1=")
    doctor = drainctl(tmp_path, *next_line.split()[2:])
    assert doctor.returncode == 0, doctor.stdout
    plan = drainctl(tmp_path, "plan", lab.folder / "releases" / "v2.tar.gz", XDG_STATE_HOME=str(tmp_path))
    assert plan.returncode == 0, plan.stdout + plan.stderr
    took = time.monotonic() - began
    print(f"\nfrom nothing to a passing doctor and plan: {took:.1f} s of drainctl's own time")
    assert took < 60 * SLOW


def test_a_master_of_another_haproxy_is_not_taken(lab, tmp_path):
    """lb2's file with lb1's master beside its socket: its list does not have lb2's worker."""
    (tmp_path / "runtime.sock").symlink_to(lab.socket("lb2"))
    (tmp_path / "master.sock").symlink_to(lab.folder / "lb1" / "master.sock")
    text = (lab.folder / "lb2" / "haproxy.cfg").read_text()
    (tmp_path / "haproxy.cfg").write_text(
        text.replace(str(lab.socket("lb2")), str(tmp_path / "runtime.sock"))
    )
    done = drainctl(tmp_path, "init", "--haproxy-cfg", "haproxy.cfg")
    assert done.returncode == 0, done.stderr
    (balancer,) = load(str(tmp_path / "drainctl.yml")).balancers
    assert (balancer.runtime, balancer.master) == (f"unix:{tmp_path}/runtime.sock", None)


SLOTS = """
global
    stats socket {folder}/admin.sock level admin
defaults
    mode http
    timeout connect 1s
    timeout client 1s
    timeout server 1s
    option httpchk GET /http-check
    http-check disable-on-404
backend app
    server-template web 1-3 0.0.0.0:0 check disabled
backend api
    server one 127.0.81.31:8081 check port 8080
    server two [::1]:8081 check port 8080
"""


def test_slots_have_the_addresses_that_haproxy_shows(tmp_path):
    """Two of three slots are taken at runtime; the machines have other names in the second backend."""
    cfg = tmp_path / "haproxy.cfg"
    cfg.write_text(SLOTS.format(folder=tmp_path))
    with Running(need("haproxy"), str(cfg), tmp_path, tmp_path / "admin.sock") as haproxy:
        for slot, address in ((1, "127.0.81.31"), (3, "::1")):
            haproxy.said(f"set server app/web{slot} addr {address} port 8080")
            haproxy.said(f"set server app/web{slot} state ready")
        done = drainctl(tmp_path, "init", "--haproxy-cfg", "haproxy.cfg")
    assert done.returncode == 0, done.stderr
    cluster = load(str(tmp_path / "drainctl.yml"))
    assert hosts(cluster) == {"web1": "127.0.81.31", "web3": "::1"}
    assert (cluster.match, cluster.backends) == ("address", ("app", "api"))
    assert cluster.health.check == "http://{check_host}:8080/http-check"
    assert [dict(node.vars)["check_host"] for node in cluster.nodes] == ["127.0.81.31", "[::1]"]
    said = " ".join(done.stderr.split())
    assert "web2 (an empty slot: HAProxy shows no address for it (0.0.0.0:0))" in said


class Terminal:
    """drainctl on a terminal of its own."""

    def __init__(self, folder, *args):
        self.said = ""
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.chdir(folder)
            os.execv(MAIN[0], [*MAIN, *args])  # noqa: S606  # a list, and no shell is wanted

    def until(self, what):
        """Reads until `what` is on the screen."""
        deadline = time.monotonic() + 20 * SLOW
        while what not in self.said:
            assert time.monotonic() < deadline, f"waited 20 s for {what!r}; the screen: {self.said}"
            if select.select([self._fd], [], [], 0.1)[0]:
                try:
                    self.said += os.read(self._fd, 65536).decode()
                except OSError:  # the other side has ended
                    assert what in self.said, f"it ended without {what!r}; the screen: {self.said}"
        self.said = self.said.partition(what)[2]

    def answer(self, question, text):
        self.until(question)
        os.write(self._fd, f"{text}\n".encode())

    def end(self):
        """The exit code."""
        _, status = os.waitpid(self._pid, 0)
        os.close(self._fd)
        return os.waitstatus_to_exitcode(status)


@pytest.fixture
def no_usual_cfg():
    """The questions come only where the system's own haproxy.cfg has no servers."""
    from drainctl.cli.init import USUAL
    from drainctl.haproxy_cfg.read import read_file

    if os.access(USUAL, os.R_OK) and any(read_file(USUAL).servers()):
        pytest.fail(f"{USUAL} has servers: this machine balances something, and init would read that")


@pytest.mark.usefixtures("no_usual_cfg")
def test_without_a_haproxy_cfg_it_asks_and_looks(lab, tmp_path):
    screen = Terminal(tmp_path, "init")
    screen.answer("The app's name [shop]: ", "my shop")
    screen.until("found 'my shop', expected a name of letters, digits, . _ and -")
    screen.answer("The app's name [shop]: ", "")
    screen.answer("lb1: unix:/PATH or tcp://HOST:PORT", f"unix:{lab.socket('lb1')}")
    screen.until("it answered")
    screen.answer("lb2: ", "")
    screen.answer("The page that HAProxy's check asks [/http-check]: ", "")
    screen.answer("Where releases live", "/srv/shop")
    screen.answer("The command that restarts", "sudo systemctl restart shop")
    screen.answer("answer 404 while it exists", "/srv/shop/shared/drain")
    screen.answer("answers 200 when the app can serve", "healthz")
    screen.until("next: drainctl doctor")
    assert screen.end() == 0
    cluster = load(str(tmp_path / "drainctl.yml"))
    assert hosts(cluster) == {f"web{at}": f"{BASE}.{10 + at}" for at in (1, 2, 3)}
    assert cluster.health.check == "http://{host}:8080/http-check"
    assert cluster.health.ready == "http://{host}:8080/healthz"
    assert cluster.service.restart == "sudo systemctl restart shop"
    assert marks((tmp_path / "drainctl.yml").read_text()) == []


@pytest.mark.usefixtures("no_usual_cfg")
def test_without_anything_it_asks_for_the_servers_too(tmp_path):
    screen = Terminal(tmp_path, "init", "--app", "wiki")
    screen.answer("lb1: ", "10.0.0.6:9999")
    screen.until("expected unix:/PATH or tcp://HOST:PORT")
    screen.answer("lb1: ", f"tcp://{BASE}.99:9")
    screen.until("connection refused")
    screen.answer("lb2: ", "")
    screen.answer("The page that HAProxy's check asks", "/up")
    screen.answer("Its backend's name", "pages")
    screen.answer("The port of the app", "8000")
    screen.answer("Its servers", "w1=10.0.0.11 w2")
    screen.until("found 'w2', expected NAME=ADDRESS")
    screen.answer("Its servers", "w1=10.0.0.11 w2=10.0.0.12")
    for question in (
        "Where releases live",
        "that restarts the app",
        "404 while it exists",
        "answers 200 when",
    ):
        screen.answer(question, "")
    screen.until("next: drainctl doctor")
    assert screen.end() == 0
    cluster = load(str(tmp_path / "drainctl.yml"))
    assert (cluster.app, cluster.backends) == ("wiki", ("pages",))
    assert hosts(cluster) == {"w1": "10.0.0.11", "w2": "10.0.0.12"}
    assert cluster.balancers[0].runtime == f"tcp://{BASE}.99:9"
    assert cluster.health.check == "http://{host}:8000/up"
    assert len(marks((tmp_path / "drainctl.yml").read_text())) == 5


def test_without_a_terminal_it_says_what_to_give(tmp_path):
    done = drainctl(tmp_path, "init")
    assert done.returncode == 2
    assert "--haproxy-cfg FILE" in done.stderr
    assert not (tmp_path / "drainctl.yml").exists()
