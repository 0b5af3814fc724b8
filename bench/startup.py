"""
How long the commands take to start, as a multiple of `python -c pass`; all from one interleaved run.

    python bench/startup.py [rounds]

`status` runs on a lab of four nodes and two balancers. Only the ratios of one run mean something.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from drainctl.lab.cluster import Lab

BIN = Path(sys.executable).parent


def wall_s(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began


def measure(ways: dict[str, list[str]], rounds: int) -> dict[str, float]:
    """The median of each, the ways taken in turn so that noise meets them all."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, command in ways.items():
            took[name].append(wall_s(command))
    return {name: sorted(values)[len(values) // 2] for name, values in took.items()}


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with tempfile.TemporaryDirectory(prefix="drainctl-bench-") as folder:
        lab = Lab(folder, base="127.0.72")
        lab.up()
        try:
            drainctl = str(BIN / "drainctl")
            took = measure(
                {
                    "python -c pass": [sys.executable, "-c", "pass"],
                    "python -c 'import click'": [sys.executable, "-c", "import click"],
                    "drainctl --help": [drainctl, "--help"],
                    "drainctl status, 4 nodes": [drainctl, "-c", str(lab.config), "status"],
                },
                rounds,
            )
        finally:
            lab.down()
    base = took["python -c pass"]
    for name, median in took.items():
        print(f"{name:28} {median * 1000:7.1f} ms  {median / base:5.1f} x")
    print(f"largest child: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
