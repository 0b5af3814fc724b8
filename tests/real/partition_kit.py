"""
A network between this machine and servers, that can be cut and healed.

For root it is one of the kernel's: relays in a network namespace of their own, reached over a pair of veth
devices, one of which is taken down. What was sent meanwhile comes late, new connections get no answer, and
nobody is told. Others get relays in this process that do the same as well as they can (jepsen_kit.Relay).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from tests.conftest import need
from tests.real.jepsen_kit import Relay

HOST = "127.0.115.202"
# Two addresses that no network routes (RFC 3927), on devices that are here for one test.
NEAR, FAR = "169.254.115.1", "169.254.115.2"
Network = tuple[list[str], Callable[[], object], Callable[[], object]]

# Listens in its namespace; goes on to a socket that another process passes on, as file systems are shared.
RELAYS = """
import sys, threading
from contextlib import ExitStack, closing
from tests.real.jepsen_kit import Relay
with ExitStack() as stack:
    for path in sys.argv[2:]:
        print(stack.enter_context(closing(Relay(path, sys.argv[1]))).at, flush=True)
    sys.stdin.read()
"""


@contextmanager
def partition(targets: Sequence[tuple[str, int]]) -> Iterator[Network]:
    """HOST:PORT of the way to each of these servers, and what cuts and heals all of them."""
    with _by_kernel(targets) if os.geteuid() == 0 else _by_relays(targets) as network:
        yield network


@contextmanager
def _by_relays(targets: Sequence[tuple[str, int]]) -> Iterator[Network]:
    with ExitStack() as stack:
        ways = [stack.enter_context(closing(Relay(target, HOST))) for target in targets]
        yield (
            [way.at for way in ways],
            lambda: [way.cut(reset=False) for way in ways],
            lambda: [way.heal() for way in ways],
        )


@contextmanager
def _by_kernel(targets: Sequence[tuple[str, int]]) -> Iterator[Network]:
    name, ip = f"dl{os.getpid()}", need("ip")
    near, far = f"{name}n", f"{name}f"

    def run(*words: str) -> None:
        subprocess.run([ip, *words], check=True, capture_output=True, text=True)

    run("netns", "add", name)
    try:
        run("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        for where, device, address in (((), near, NEAR), (("-n", name), far, FAR)):
            run(*where, "addr", "add", f"{address}/30", "dev", device)
            run(*where, "link", "set", device, "up")
        with _relays(name, targets) as ats:
            yield (
                ats,
                lambda: run("-n", name, "link", "set", far, "down"),
                lambda: run("-n", name, "link", "set", far, "up"),
            )
    finally:
        run("netns", "del", name)  # and the devices with it


@contextmanager
def _relays(namespace: str, targets: Sequence[tuple[str, int]]) -> Iterator[list[str]]:
    """From the namespace to these servers, over a unix socket for each."""
    with tempfile.TemporaryDirectory(prefix="dl-") as folder, ExitStack() as stack:
        paths = [f"{folder}/{number}" for number in range(len(targets))]
        for target, path in zip(targets, paths, strict=True):
            stack.enter_context(closing(Relay(target, path)))
        process = subprocess.Popen(
            [need("ip"), "netns", "exec", namespace, sys.executable, "-c", RELAYS, FAR, *paths],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        try:
            assert process.stdout
            ats = [process.stdout.readline().strip() for _ in targets]
            assert all(ats), "the relays in the namespace have not begun"
            yield ats
        finally:
            process.communicate(timeout=30)
