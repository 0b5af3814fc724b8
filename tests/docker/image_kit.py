"""Nodes that are containers with addresses of their own, behind a HAProxy on this machine, and load."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from drainctl.config.load import load
from drainctl.wire import Wired
from tests.conftest import SLOW, need, until

SOAK = os.environ.get("DRAINCTL_SOAK") == "1"
SUBNET = "10.77.131"
LB = "127.0.113.1"
PORT = 8080
FLAG = "/run/drain"
# drainctl with a short lease, also before an act that may take long: a killed one is not waited for long.
PROGRAM = """
from drainctl import controller
from drainctl.cli import main
from drainctl.journal.lease import Keeper
check = Keeper.check
controller.LEASE_S = 2.0
Keeper.check = lambda self, need_s: check(self, min(need_s, 0.5))
main()
"""
CLI_LIMIT_S = 90.0

# An app of what is in Debian's smallest image: perl. A process per connection; TERM lets each end its answer.
# MODE of the image: crash (does not start), hungry (takes memory until it is killed), ill (never healthy).
APP = r"""
use strict; use warnings; use IO::Socket::INET; use POSIX ":sys_wait_h";
my ($version, $mode) = ($ENV{VERSION} // "?", $ENV{MODE} // "");
$| = 1; print "app $version begins\n";
if ($mode eq "crash") { print STDERR "no database\n"; exit 3 }
my $end = 0;
$SIG{TERM} = sub { $end = 1 };
my $door = IO::Socket::INET->new(LocalPort => 8080, Listen => 128, ReuseAddr => 1) or die "bind: $!";
my @much;
until ($end) {
  while ($mode eq "hungry") { push @much, "x" x 10_000_000; }
  my $client = $door->accept or next;
  1 while waitpid(-1, WNOHANG) > 0;
  next if fork;
  $SIG{TERM} = "IGNORE"; close $door;
  my $head = <$client> // exit; while (my $line = <$client>) { last if $line =~ /^\r?$/ }
  my ($path) = $head =~ m{^\S+ (\S+)}; $path //= "/";
  my ($code, $body) = (200, "$version\n");
  $code = 404 if $path eq "/http-check" and -e "/run/drain";
  $code = 503 if $path eq "/healthz" and $mode eq "ill";
  if ($path =~ m{^/slow\?s=([\d.]+)}) { select undef, undef, undef, $1 }
  $body = join("", map { "$_=$ENV{$_}\n" } sort keys %ENV) if $path eq "/env";
  print $client "HTTP/1.1 $code X\r\nX-Release: $version\r\nConnection: close\r\nContent-Length: ",
    length $body, "\r\n\r\n$body";
  close $client; exit;
}
close $door; 1 while wait > 0;
"""

DOCKERFILE = """\
FROM {base}
COPY app.pl /app.pl
ENV VERSION={version} MODE={mode} COLOUR={colour}
EXPOSE 8080
{more}
CMD ["perl", "/app.pl"]
"""


def build(
    engine: Any, version: str, mode: str = "", repository: str = "shop", colour: str = "red", more: str = ""
) -> str:
    """An image `shop:VERSION` of that app; its name."""
    text = DOCKERFILE.format(base=engine.base_image(), version=version, mode=mode, colour=colour, more=more)
    ref = f"{repository}:{version}"
    with tempfile.TemporaryDirectory() as context:
        (Path(context) / "Dockerfile").write_text(text, encoding="utf-8")
        (Path(context) / "app.pl").write_text(APP, encoding="utf-8")
        engine.docker("build", "--quiet", "--tag", ref, context)
    return ref


class Site:
    """Some nodes on a bridge, a HAProxy before them, and a drainctl.yml."""

    def __init__(self, engine: Any, folder: Path, names: tuple[str, ...], block: int) -> None:
        self.engine = engine
        self.folder = folder
        self.names = names
        self.block = block
        self.network = f"drainctl-{block}"
        self.config = folder / "drainctl.yml"
        self._lb: subprocess.Popen[bytes] | None = None

    def host(self, name: str) -> str:
        return f"{SUBNET}.{self.block + 2 + self.names.index(name)}"

    @property
    def url(self) -> str:
        return f"{LB}:{8000 + self.block}"

    def run(self, name: str, image: str, *words: str) -> None:
        """A node's first container, as a person would start it."""
        argv = ["--network", self.network, "--ip", self.host(name), "--network-alias", f"{name}-alias"]
        argv += ["--restart", "always", "--env", "GREETING=hello", "--label", "team=web", *words]
        self.engine.docker("run", "--detach", "--name", name, *argv, image)

    def up(self, image: str, *words: str) -> None:
        self.engine.docker("network", "create", "--subnet", f"{SUBNET}.{self.block}/28", self.network)
        for name in self.names:
            self.run(name, image, *words)
        self._balance()
        self.config.write_text(self._configured(), encoding="utf-8")
        self.wait_up()

    def _configured(self) -> str:
        nodes = "\n".join(f"  {name}: {{host: {self.host(name)}}}" for name in self.names)
        return f"""\
app: shop
balancers: {{lb1: {{runtime: "unix:{self.folder}/lb.sock"}}}}
connect: {{via: docker, engine: "{self.engine.host}"}}
release: {{image: shop, keep: 3}}
nodes:
{nodes}
health:
  check: http://{{host}}:{PORT}/http-check
  flag: {FLAG}
  ready: http://{{host}}:{PORT}/healthz
  version: http://{{host}}:{PORT}/version
service: {{limit: 20s}}
warm: [{{get: /, times: 3}}]
checks: {{inter: 500ms}}
watch: {{for: 300ms}}
drain: {{limit: 20s}}
store: "sqlite:///{self.folder}/journal.db"
"""

    def change(self, old: str, new: str) -> None:
        """A text of drainctl.yml replaced; it must be there."""
        text = self.config.read_text(encoding="utf-8")
        assert old in text
        self.config.write_text(text.replace(old, new), encoding="utf-8")

    def _balance(self) -> None:
        servers = "\n".join(
            f"    server {name} {self.host(name)}:{PORT} check inter 500ms fall 2 rise 1"
            for name in self.names
        )
        conf = self.folder / "haproxy.cfg"
        conf.write_text(
            f"""\
global
    stats socket {self.folder}/lb.sock mode 600 level admin
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server 30s
    option redispatch
    retries 0
frontend web
    bind {self.url}
    default_backend shop
backend shop
    option httpchk GET /http-check
    http-check disable-on-404
{servers}
""",
            encoding="utf-8",
        )
        self._lb = subprocess.Popen([need("haproxy"), "-db", "-f", str(conf)], stderr=subprocess.DEVNULL)

    def down(self) -> None:
        if self._lb:
            self._lb.terminate()
            self._lb.wait()
        names = [line.split()[0] for line in self.containers()]
        if names:
            self.engine.docker("rm", "--force", "--volumes", *names)
        self.engine.docker("network", "rm", self.network)

    # -------------------------------------------------------- looking

    def inspect(self, name: str) -> dict[str, Any]:
        return dict(json.loads(self.engine.docker("inspect", "--type", "container", name))[0])

    def containers(self) -> list[str]:
        """Every container of these nodes, as `name state`."""
        told = self.engine.docker("ps", "--all", "--format", "{{.Names}} {{.State}}")
        return sorted(line for line in told.splitlines() if line.startswith(self.names))

    def ask(self, name: str, path: str = "/version") -> tuple[int, str]:
        return get(f"{self.host(name)}:{PORT}", path)

    def versions(self) -> dict[str, str]:
        return {name: self.ask(name)[1].strip() for name in self.names}

    def shown(self) -> dict[str, str]:
        """Each server's status at the balancer."""
        with self.wired() as wired:
            look = wired.fleet.overview()["lb1"]
        return {row.server: str(row.status) for row in look.rows}

    def wait_up(self) -> None:
        until("every server is UP", lambda: set(self.shown().values()) == {"UP"}, 20)

    @contextmanager
    def wired(self) -> Iterator[Wired]:
        with Wired(load(str(self.config))) as wired:
            yield wired

    # -------------------------------------------------------- drainctl

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-c", PROGRAM, "-c", str(self.config), *words]

    def drainctl(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """The real command line; its exit code must be `code`."""
        done = subprocess.run(
            self.argv(*words), capture_output=True, text=True, check=False, timeout=CLI_LIMIT_S * SLOW
        )
        assert done.returncode == code, f"{words} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done


@contextmanager
def site(
    engine: Any, image: str, *words: str, block: int, names: tuple[str, ...] = ("web1", "web2", "web3")
) -> Iterator[Site]:
    """A site that is up; down afterwards in any case. block: the first of its 16 addresses."""
    need("haproxy")
    folder = Path(tempfile.mkdtemp(prefix="di-"))
    it = Site(engine, folder, tuple(f"{name}-{block}" for name in names), block)
    try:
        it.up(image, *words)
        yield it
    finally:
        it.down()
        shutil.rmtree(folder)


def long(test: Any) -> Any:
    """A test that takes long is one with DRAINCTL_SOAK=1 only; else there is none of its name."""
    return test if SOAK else None


def get(address: str, path: str, limit_s: float = 10.0) -> tuple[int, str]:
    """One GET; (0, why) where there was no answer."""
    door = http.client.HTTPConnection(address, timeout=limit_s * SLOW)
    try:
        door.request("GET", path)
        answer = door.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error) or type(error).__name__
    finally:
        door.close()


class Load:
    """Clients that ask without a pause and count what they get, by (status, first 40 of the body)."""

    def __init__(self, address: str, clients: int = 4) -> None:
        self.address = address
        self.seen: dict[tuple[int, str], int] = {}
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _ask(self) -> None:
        while not self._end.is_set():
            status, body = get(self.address, "/version")
            with self._lock:
                key = (status, body.strip()[:40] if status == 200 else body[:80])
                self.seen[key] = self.seen.get(key, 0) + 1
            time.sleep(0.002)

    @property
    def total(self) -> int:
        return sum(self.seen.values())

    @property
    def failed(self) -> Mapping[tuple[int, str], int]:
        return {key: count for key, count in self.seen.items() if key[0] != 200}
