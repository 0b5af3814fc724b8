"""
Wall time, CPU and memory of a roll over four nodes, against the physical limit; all from one run.

    python bench/roll.py [--ssh] [--rounds N]

The physical limit of a roll is what no controller can save: stage once, and per node the longest request in
flight, the app's own stop and boot, the warm-up and the watch. All of these are measured here, under the
same load, by a bare script that does nothing else (`bare`). A read-only balancer cannot be told of the flag:
there the limit is that plus the balancer's own checks, out and back.

Compare the ratios; absolute times belong to the machine and the moment.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from drainctl.balancer.open import open_balancer
from drainctl.config.load import load
from drainctl.errors import BalancerError
from drainctl.journal.open import open_store
from drainctl.lab.cluster import Lab
from drainctl.lab.load import Load

SLOW_S = 0.5  # many at any time, so one that has just begun is in flight whenever a node leaves
INTER_S = 0.5
WATCH_S = 1.0
# Runs the real command and says, at its end, what this process alone used (not the node's commands).
MEASURED = """
import atexit, json, os, resource, sys
def told():
    used = resource.getrusage(resource.RUSAGE_SELF)
    told = {"cpu_s": used.ru_utime + used.ru_stime, "rss_mb": used.ru_maxrss / 1024}
    with open(os.environ["BENCH_TOLD"], "w") as file:
        json.dump(told, file)
atexit.register(told)
from drainctl.cli import main
main()
"""


@dataclass
class Roll:
    wall_s: float
    cpu_s: float
    rss_mb: float
    steps: dict[str, float]
    nodes: int


def deploy(lab: Lab, release: str) -> Roll:
    told = lab.folder / "bench.json"
    env = dict(os.environ, BENCH_TOLD=str(told))
    command = [sys.executable, "-c", MEASURED, "-c", str(lab.config), "--output", "json", "deploy"]
    began = time.monotonic()
    archive = str(lab.folder / f"releases/{release}.tar.gz")
    done = subprocess.run([*command, archive], capture_output=True, text=True, env=env, check=False)
    wall_s = time.monotonic() - began
    if done.returncode:
        sys.exit(f"deploy {release} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    cluster = load(str(lab.config))
    with closing(open_store(cluster.store)) as store:
        events = store.events(store.latest(cluster.app) or "")
    steps: dict[str, float] = {}
    for event in events:
        if event.kind == "step.seen":
            steps[event.step or ""] = steps.get(event.step or "", 0.0) + event.data["took_s"]
    used = json.loads(told.read_text())
    return Roll(wall_s, used["cpu_s"], used["rss_mb"], steps, len(cluster.nodes))


def bare(lab: Lab, release: str) -> dict[str, float]:
    """One node's physics, by hand: stop and boot, warm-up. Drained by nudges, so under the same load."""
    cluster = load(str(lab.config))
    node = cluster.nodes[0]
    doors = [open_balancer(balancer) for balancer in cluster.balancers]
    root, flag = lab.root(node.name), lab.flag(node.name)
    try:
        flag.write_text("bench")
        nudge(doors, node.server, "stopping")
        time.sleep(SLOW_S + 0.1)
        began = time.monotonic()
        target = root / "releases" / release
        temporary = root / "current.new"
        temporary.symlink_to(target)
        temporary.rename(root / "current")
        subprocess.run([str(lab.ctl(node.name)), "restart"], check=True, capture_output=True)
        answers = f"http://{node.host}:8080/version"
        while fetch(answers) != release:
            time.sleep(0.002)
        restart_s = time.monotonic() - began
        began = time.monotonic()
        for page in cluster.warm:
            for _ in range(page.times):
                fetch(f"http://{node.host}:8080{page.path}")
        warm_s = time.monotonic() - began
    finally:
        flag.unlink(missing_ok=True)
        nudge(doors, node.server, "up")
        for door in doors:
            door.close()
    return {"restart": restart_s, "warm": warm_s}


def nudge(doors: list, server: str, health: str) -> None:
    for door in doors:
        try:
            door.set_health("shop", server, health)
        except BalancerError:  # a read-only one: wait for its check instead
            time.sleep(2 * INTER_S)


def fetch(url: str) -> str:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - the lab's own address
            return answer.read().decode().strip()
    except OSError:
        return ""


def measured(lab: Lab, rounds: int) -> tuple[list[Roll], dict[str, float]]:
    """Deploys v2, v3, v2, … under load; the bare restart is measured between them, on the same lab."""
    deploy(lab, "v2")  # the first one makes the journal and warms the disk
    rolls, physics = [], []
    mix = "get=50,post=20,slow=25,stream=5"
    with Load(lab.urls, rate=250.0, mix=mix, slow_s=SLOW_S) as users:
        time.sleep(1.0)
        for at in range(rounds):
            release, other = ("v3", "v2") if at % 2 == 0 else ("v2", "v3")
            rolls.append(deploy(lab, release))
            physics += [bare(lab, other), bare(lab, release)]
            time.sleep(1.0)
    report = users.report
    print(f"  load: {report.requests} requests, {report.failed} failed")
    if report.failed:
        sys.exit("a bench with failed requests measures nothing")
    return rolls, {name: median([one[name] for one in physics]) for name in physics[0]}


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def tell(title: str, rolls: list[Roll], physics: dict[str, float], checks_s: float = 0.0) -> None:
    nodes = rolls[0].nodes
    wall_s = median([roll.wall_s for roll in rolls])
    stage_s = median([roll.steps["stage"] for roll in rolls]) / nodes
    per_node = SLOW_S + physics["restart"] + physics["warm"] + WATCH_S
    limit_s = stage_s + nodes * (per_node + checks_s)
    print(f"{title}")
    print(f"  wall {wall_s:6.2f} s   limit {limit_s:6.2f} s   ratio {wall_s / limit_s:.2f}")
    cpu_s, rss_mb = median([roll.cpu_s for roll in rolls]), median([roll.rss_mb for roll in rolls])
    print(f"  cpu  {cpu_s:6.2f} s   rss {rss_mb:.0f} MB")
    print(
        f"  limit per node: longest request {SLOW_S:.2f} + stop and boot {physics['restart']:.2f} + "
        f"warm {physics['warm']:.2f} + watch {WATCH_S:.2f} + checks {checks_s:.2f} s; stage {stage_s:.2f} s"
    )
    shares = {name: median([roll.steps.get(name, 0) for roll in rolls]) / nodes for name in rolls[0].steps}
    spent = sum(shares.values()) * nodes
    print("  per node: " + ", ".join(f"{name} {took_s:.3f}" for name, took_s in shares.items()))
    print(f"  outside the steps (start, survey, journal, proof): {wall_s - spent:.2f} s")


def run(title: str, rounds: int, change: Callable[[Lab], None] = lambda _: None, **settings: object) -> None:
    checks_s = float(settings.pop("checks_s", 0.0))  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory(prefix="drainctl-bench-") as folder:
        lab = Lab(folder, base="127.0.71", inter=f"{INTER_S * 1000:.0f}ms", **settings)
        lab.up()
        try:
            change(lab)
            tell(title, *measured(lab, rounds), checks_s)
        finally:
            lab.down()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ssh", action="store_true", help="reach the nodes through real sshd")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    via = "ssh" if options.ssh else "local"
    run(f"with nudge, {via}", options.rounds, ssh=options.ssh)
    # One mean check interval each way: a check is due at any moment within `inter`.
    run(f"read-only, {via}", options.rounds, ssh=options.ssh, level="user", checks_s=2 * INTER_S)


if __name__ == "__main__":
    main()
