"""
Five ways to give four containers a new image, under the same load: what clients lost, and how long it took.

    python bench/rollout/measure.py [--rate 250] [--runs 3]

    up             docker-compose up -d --force-recreate
    rollout        docker-rollout's way: as many new containers beside the old, wait until all are healthy,
                   stop and remove the old (`scale_and_remove` below is ours; it does what its README says)
    rollout+hook   the same, with its pre-stop hook as its README advises: fail the check, wait 10 s, stop
    drainctl       deploy --image: one container after the other, drained, replaced, watched
    drainctl 2     the same, two at once

The first table of docs/compare.md is made of its output. Needs an engine, and images (`make compose-images`).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from drainctl.lab.compose import BUILT, NODES, RELEASES, TREE, ComposeLab, Place
from drainctl.lab.engine import Engine, cache
from drainctl.lab.halves import under
from drainctl.lab.load import Load
from drainctl.lab.releases import make_release
from drainctl.lab.report import Report

HERE = Path(__file__).parent
HOOK = "touch /srv/shop/shared/drain; sleep 10"
SLOW_S = 1.5


def build(engine: Engine, lab: ComposeLab) -> None:
    lab.build("web1", "lb1", "load")
    for release in RELEASES:
        make_release(BUILT, release)
        words = ("--build-arg", f"VERSION={release}", "-f", str(HERE / "Dockerfile"), str(TREE))
        engine.docker("build", "-q", "--network", "host", "-t", f"shop:{release}", *words)


def wait(what: str, holds: Callable[[], bool], limit_s: float = 90.0) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            sys.exit(f"after {limit_s:g} s not yet: {what}")
        time.sleep(0.1)


def all_up(count: int) -> bool:
    """Whether both balancers have `count` servers that are UP."""
    import socket

    for port in (18291, 18292):
        try:
            with socket.create_connection(("127.0.0.1", port), 2) as link:
                link.sendall(b"show stat shop 4 -1\n")
                link.shutdown(socket.SHUT_WR)
                text = b"".join(iter(lambda link=link: link.recv(65536), b"")).decode()
        except OSError:
            return False
        if sum(row.split(",")[17] == "UP" for row in text.splitlines() if row.startswith("shop,")) != count:
            return False
    return True


def scale_and_remove(lab: ComposeLab, hook: str) -> None:
    """Twice as many, wait for their HEALTHCHECK, then the old ones: hook, stop, remove."""
    docker = lab.engine.docker
    label = ("--filter", f"label=com.docker.compose.project={lab.place.name}")
    mine = ("ps", "--quiet", *label, "--filter", "label=com.docker.compose.service=shop")
    old = docker(*mine).split()
    lab.compose("up", "-d", "--no-deps", "--no-recreate", "--scale", f"shop={2 * len(old)}", "shop")
    wait("healthy", lambda: len(docker(*mine, "--filter", "health=healthy").split()) == 2 * len(old))
    if hook:
        hooks = [subprocess.Popen(["docker", "exec", one, "sh", "-c", hook], env=lab.env) for one in old]
        for one in hooks:
            one.wait()
    docker("stop", *old)
    docker("rm", *old)


def deployed(lab: ComposeLab, at_once: int) -> None:
    nodes = [
        f"  {node}: {{host: {lab.place.net}.{11 + at}, container: {lab.container(node)}}}"
        for at, node in enumerate(NODES)
    ]
    connect = f'{{via: docker, engine: "{lab.engine.host}"}}'
    config = lab.configure("images", nodes, connect, "release: {image: shop, keep: 2}", at_once)
    program = str(Path(sys.executable).with_name("drainctl"))
    argv = [program, "-c", str(config), "deploy", "--image", "shop:v2"]
    done = subprocess.run(argv, env=lab.env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(argv)} ended with {done.returncode}\n{done.stdout}{done.stderr}")


def measured(lab: ComposeLab, rate: float, act: Callable[[], None]) -> tuple[Report, float]:
    load = Load(lab.urls, python=lab.python, rate=rate, slow_s=SLOW_S)
    with under(load, "v2") as seen:
        began = time.monotonic()
        act()
        wait("4 UP", lambda: all_up(4))
        seconds = time.monotonic() - began
    return seen[0], seconds


def one(engine: Engine, folder: Path, way: str, rate: float) -> tuple[Report, float]:
    scaled = way.startswith("rollout")
    files = (HERE / "scaled.yml",) if scaled else (TREE / "compose.yml", HERE / "nodes.yml")
    lab = ComposeLab(engine, folder, Place("rollout", "10.77.32", "182", "supervised"), files)
    try:
        if scaled:
            lab.compose("up", "-d", "--scale", "shop=4")
        else:
            lab.compose("up", "-d", *NODES, "lb1", "lb2", "load")
        wait("4 UP", lambda: all_up(4))
        os.environ["RELEASE"] = "v2"  # for `scaled.yml`; the others name the image themselves
        if scaled:
            return measured(lab, rate, lambda: scale_and_remove(lab, HOOK if way == "rollout+hook" else ""))
        if way == "up":
            later = (TREE / "compose.yml", HERE / "later.yml")
            recreate = ComposeLab(engine, folder, lab.place, later)
            words = ("up", "-d", "--no-deps", "--force-recreate", *NODES)
            return measured(lab, rate, lambda: recreate.compose(*words) and None)
        return measured(lab, rate, lambda: deployed(lab, 2 if way == "drainctl 2" else 1))
    finally:
        os.environ.pop("RELEASE", None)
        lab.down()
        stopped = engine.docker("ps", "-aq", "--filter", "name=rollout-").split()
        if stopped:
            engine.docker("rm", "-f", *stopped)
        lab.compose("down")


def main() -> None:
    parser = argparse.ArgumentParser(description="ways to give containers a new image, under load")
    parser.add_argument("--rate", type=float, default=250.0)
    parser.add_argument("--runs", type=int, default=1)
    ways = ["up", "rollout", "rollout+hook", "drainctl", "drainctl 2"]
    parser.add_argument("ways", nargs="*", default=ways)
    options = parser.parse_args()
    folder = TREE / ".lab" / "rollout"
    folder.mkdir(parents=True, exist_ok=True)
    with Engine.find_or_start(cache() / "engine") as engine:
        engine.base_image()
        build(engine, ComposeLab(engine, folder, Place(init="supervised")))
        print(f"{'way':14}{'requests':>10}{'failed':>8}{'seconds':>9}  how")
        for way in options.ways:
            for _ in range(options.runs):
                report, seconds = one(engine, folder, way, options.rate)
                bins = ", ".join(f"{count} {name}" for name, count in report.bins.items() if name != "ok")
                told = f"{report.requests:10}{report.failed:8}{seconds:9.1f}  {bins}"
                print(f"{way:14}{told} {report.problem or ''}", flush=True)


if __name__ == "__main__":
    main()
