"""
Seconds per flip in place against the physical limit; all from one run.

    python bench/flip.py [--rounds N] [STRATEGY …]

The physical limit of a flip is what no controller can save: the new process starts, its pages are asked, the
requests that the old one has begun end, and so does the old one itself; and the watch. It is measured by a
bare script that does these by hand, under the same load, on the same node, between the deploys. What a flip
took is what the journal says between a node's begin and its end.

Compare the ratios; absolute times belong to the machine and the moment.
"""

from __future__ import annotations

import argparse
import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from drainctl.config.load import load
from drainctl.journal.open import open_store
from drainctl.lab.cluster import Lab
from drainctl.lab.load import Load
from drainctl.lab.naive import ctl, link, put
from drainctl.lab.processes import family
from drainctl.nginx import upstream

BASE = "127.0.89"
SLOW_S = 1.0  # many at any time, so that a flip waits about this long for the last one
WATCH_S = 1.0
TARGET = 1.15
WARM = 10  # as the lab's drainctl.yml has it
MIX = "get=60,post=30,slow=10"
LABS = {
    "socket-flip": {},
    "port-flip": {"nginx": "wheel", "keepalive_min": "2s"},
    "backup": {},
    "reload": {},
}


# ---------------------------------------------------------------- by hand


class UnixLink(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)


def get(address, path):
    """One GET of one process: `HOST:PORT`, or a socket's path."""
    door = UnixLink(address) if address.startswith("/") else http.client.HTTPConnection(address, timeout=5)
    try:
        door.request("GET", path, headers={"Host": "shop", "Connection": "close"})
        return door.getresponse().read().decode().strip()
    except OSError:
        return ""
    finally:
        door.close()


def wait(holds):
    while not holds():
        time.sleep(0.002)


def start(lab, address, unit, release):
    ctl(lab, "web1", "start", unit)
    wait(lambda: get(address, "/version") == release)
    for _ in range(WARM):
        get(address, "/")


def used(address):
    """Connections of a process."""
    if address.startswith("/"):
        told = subprocess.run(
            ["ss", "-Hxn", "state", "established"], capture_output=True, text=True, check=True
        )
        return sum(f" {address} " in line for line in told.stdout.splitlines())
    host, _, port = address.rpartition(":")
    told = ["ss", "-Htn", "state", "established", f"( src {host} and sport = :{port} )"]
    return len(subprocess.run(told, capture_output=True, text=True, check=True).stdout.splitlines())


def flip_socket(lab, release):
    run, old = lab.settings.run(lab.folder, "web1"), lab.live_release("web1")
    start(lab, f"{run}/{release}.sock", release, release)
    link(run / "current.sock", f"{release}.sock")
    wait(lambda: not used(f"{run}/{old}.sock"))
    ctl(lab, "web1", "stop", old)


def flip_port(lab, release):
    host, old = lab.settings.host("web1"), lab.live_port("web1")
    new = 8001 if old == 8000 else 8000
    start(lab, f"{host}:{new}", str(new), release)
    servers = [upstream.Server(f"{host}:{new}", "live"), upstream.Server(f"{host}:{old}", "down")]
    file = lab.ctl("web1").with_name("upstream.conf")
    file.with_suffix(".new").write_text(upstream.render("shop", servers, f"{release}:{new}"))
    file.with_suffix(".new").rename(file)
    master = lab.nginx("web1").master()
    workers = family(master) - {master}
    master.send(signal.SIGHUP)
    wait(lambda: not any(worker.alive for worker in workers))
    ctl(lab, "web1", "stop", str(old))


def flip_pair(lab, release):
    for unit in ("backup", "live"):
        path = lab.settings.run(lab.folder, "web1") / f"{unit}.sock"
        path.rename(path.with_suffix(".hidden"))
        path.touch()
        wait(lambda path=path: not used(str(path)))
        ctl(lab, "web1", "stop", unit)
        for left in (path, path.with_suffix(".hidden")):
            left.unlink(missing_ok=True)
        start(lab, str(path), unit, release)


def flip_masters(lab, release):
    pid_file = lab.ctl("web1").with_name("gunicorn.pid")
    first, second = int(pid_file.read_text()), pid_file.with_name("gunicorn.pid.2")
    os.kill(first, signal.SIGUSR2)
    wait(lambda: second.exists() and children(int(second.read_text())) == 2)
    wait(lambda: get(f"{lab.settings.host('web1')}:8000", "/version") == release)
    os.kill(first, signal.SIGTERM)
    wait(lambda: not second.exists() and pid_file.exists())


def children(pid):
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


BY_HAND = {"socket-flip": flip_socket, "port-flip": flip_port, "backup": flip_pair, "reload": flip_masters}


# ---------------------------------------------------------------- measured


def by_hand(lab, strategy, release):
    put(lab, "web1", release)
    began = time.monotonic()
    BY_HAND[strategy](lab, release)
    return time.monotonic() - began + WATCH_S


def deploy(lab, release):
    """Seconds of the node and of the whole command, and of each step."""
    argv = [sys.executable, "-m", "drainctl.cli", "-c", str(lab.config), "deploy"]
    argv = [sys.executable, "-c", "from drainctl.cli import main; main()", *argv[3:]]
    began = time.monotonic()
    done = subprocess.run(
        [*argv, str(lab.folder / f"releases/{release}.tar.gz")], capture_output=True, text=True, check=False
    )
    wall_s = time.monotonic() - began
    if done.returncode:
        sys.exit(f"deploy {release} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    cluster = load(str(lab.config))
    with closing(open_store(cluster.store)) as store:
        events = store.events(store.latest(cluster.app) or "")
    at = {event.kind: event.at_s for event in events}
    steps = {event.step: event.data["took_s"] for event in events if event.kind == "step.seen" and event.node}
    steps.pop("stage")
    return at["node.ended"] - at["node.began"], wall_s, steps


def median(values):
    return sorted(values)[len(values) // 2]


def measure(strategy, rounds):
    with tempfile.TemporaryDirectory(prefix="drainctl-bench-") as folder:
        lab = Lab(folder, base=BASE, nodes=1, balancers=0, strategy=strategy, **LABS[strategy])
        lab.up()
        try:
            deploy(lab, "v2")  # the first one makes the journal and warms the disk
            flips, limits = [], []
            with Load(lab.urls, rate=60.0, mix=MIX, slow_s=SLOW_S) as users:
                time.sleep(SLOW_S)
                for at in range(rounds):
                    release, other = ("v3", "v2") if at % 2 == 0 else ("v2", "v3")
                    flips.append(deploy(lab, release))
                    limits += [by_hand(lab, strategy, other), by_hand(lab, strategy, release)]
        finally:
            lab.down()
    if users.report.failed:
        sys.exit(f"a bench with failed requests measures nothing\n{users.report.table()}")
    return flips, limits


def tell(strategy, flips, limits):
    flip_s, limit_s = median([one[0] for one in flips]), median(limits)
    ratio = flip_s / limit_s
    print(f"{strategy:12} flip {flip_s:6.2f} s   limit {limit_s:6.2f} s   ratio {ratio:.2f}", end="")
    print(f"   whole command {median([one[1] for one in flips]):.2f} s")
    spent = {name: median([one[2].get(name, 0.0) for one in flips]) for name in flips[0][2]}
    print("             " + ", ".join(f"{name} {took_s:.2f}" for name, took_s in spent.items()))
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("strategies", nargs="*", default=list(LABS))
    options = parser.parse_args()
    ratios = {name: tell(name, *measure(name, options.rounds)) for name in options.strategies}
    worst = max(ratios, key=lambda name: ratios[name])
    print(f"worst: {worst} {ratios[worst]:.2f} (target: at most {TARGET})")


if __name__ == "__main__":
    main()
