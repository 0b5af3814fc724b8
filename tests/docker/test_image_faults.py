"""What goes wrong with images, containers and their engine: each with its words, and nobody failed by it."""

from __future__ import annotations

import http.server
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drainctl.lab.engine import Engine as LabEngine
from tests.conftest import need, until
from tests.docker.image_kit import SOAK, Load, Site, build, long, site

REGISTRY = "127.0.113.4"
ILL = "HEALTHCHECK --interval=300ms --retries=2 --timeout=5s CMD perl -e 'print qq(no disk\\n); exit 1'"


@pytest.fixture(scope="module", name="images")
def some_images(engine) -> LabEngine:
    build(engine, "v1")
    return engine


@pytest.fixture(scope="module", name="shop")
def a_site(images) -> Iterator[Site]:
    with site(images, "shop:v1", "--memory", "128m", "--memory-swap", "128m", block=64) as it:
        yield it


@pytest.mark.parametrize(
    ("mode", "more", "words"),
    [
        ("crash", "", ("the container ended", "and the engine starts it again: ", "no database")),
        ("hungry", "", ("the container ended", ": it was out of memory, and the engine starts it again")),
        ("", ILL, ("the container's HEALTHCHECK says unhealthy: no disk",)),
        *([("ill", "", ("health.ready answers 503, ", "(limit 4 s)"))] if SOAK else []),
    ],
)
def test_a_bad_image_is_put_back_and_no_user_meets_it(shop, mode, more, words):
    build(shop.engine, f"bad-{mode or 'checked'}", mode, more=more)
    if mode == "ill":
        shop.change("limit: 20s}\nwarm", "limit: 4s}\nwarm")
    with Load(shop.url, clients=2) as load:
        told = shop.drainctl("deploy", f"bad-{mode or 'checked'}", code=1).stderr
    assert [each for each in words if each not in told] == [], told
    assert load.failed == {}
    shop.wait_up()
    assert set(shop.versions().values()) == {"v1"}
    assert f"{shop.names[0]}.drainctl-bad-{mode or 'checked'} exited" in shop.containers(), (
        "kept for its logs"
    )


@long
def test_a_container_that_ended_by_itself_is_rolled_all_the_same(shop):
    """Nobody answers /http-check, the flag and its fence are read and written through the engine."""
    build(shop.engine, "v5")
    shop.engine.docker("kill", "--signal", "KILL", shop.names[0])  # by hand: it is not started again
    until("it is DOWN", lambda: shop.shown()[shop.names[0]] == "DOWN", 20)
    assert "v1" in shop.drainctl("status").stdout
    told = shop.drainctl("deploy", "--image", "shop:v5", code=5).stderr
    assert f"{shop.names[1]} cannot leave: lb1 shop: 1 other of 3 servers up" in told
    shop.drainctl("deploy", "--image", "shop:v5", "--only", shop.names[0])
    shop.wait_up()
    assert shop.versions()[shop.names[0]] == "v5"
    shop.drainctl("rollback", "--to", "v1", "--only", shop.names[0])
    shop.wait_up()


# ---------------------------------------------------------------- before anything is touched


def test_an_image_that_is_nowhere(shop):
    told = shop.drainctl("deploy", "v404", code=1).stderr
    assert "pull shop:v404: " in told
    assert "no node left rotation" in told
    assert set(shop.versions().values()) == {"v1"}


def test_a_pull_that_is_denied(shop):
    with registry(401) as address:
        shop.change("{image: shop, ", f'{{image: "{address}/shop", ')
        try:
            told = shop.drainctl("deploy", "--image", f"{address}/shop:v2", code=1).stderr
        finally:
            shop.change(f'{{image: "{address}/shop", ', "{image: shop, ")
    assert f"pull {address}/shop:v2: " in told
    assert "no node left rotation" in told


def test_an_archive_of_another_image(shop, tmp_path):
    archive = tmp_path / "other.tar"
    build(shop.engine, "v1", repository="blog")
    shop.engine.docker("save", "--output", str(archive), "blog:v1")
    told = shop.drainctl("deploy", str(archive), code=2).stderr
    assert f"{archive} holds blog:v1, expected one image of shop" in told


def test_one_tag_that_is_another_image_than_the_one_that_runs(shop):
    shop.engine.docker("tag", "shop:v1", "shop:real")
    try:
        build(shop.engine, "v1", colour="green")
        told = shop.drainctl("deploy", "v1", code=1).stderr
        assert "runs v1 already, of another image" in told
        assert "an id names one image for ever" in told
    finally:
        shop.engine.docker("tag", "shop:real", "shop:v1")


@long
def test_a_command_that_hangs(shop):
    shop.change("drain: {limit: 20s}", "drain: {limit: 1s}")
    shop.change("health:\n", "health:\n  active: sleep 300\n")
    shop.change("connect: {", "connect: {timeout: 1s, ")
    try:
        with Load(shop.url, clients=2) as load:
            told = shop.drainctl("deploy", "bad-crash", code=1).stderr
    finally:
        shop.change("drain: {limit: 1s}", "drain: {limit: 20s}")
        shop.change("health:\n  active: sleep 300\n", "health:\n")
        shop.change("timeout: 1s, ", "")
    assert "`sleep 300` was still running at its limit of 11 s; it was killed" in " ".join(told.split())
    assert load.failed == {}
    assert set(shop.versions().values()) == {"v1"}


# ---------------------------------------------------------------- an engine of its own


@pytest.fixture(scope="module", name="own")
def an_engine_of_its_own(images, tmp_path_factory) -> Iterator[LabEngine]:
    """One that may be stopped, with its data on a small disk."""
    need("mount")
    folder = Path(tempfile.mkdtemp(prefix="de-"))
    (folder / "data").mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=330m", "tmpfs", str(folder / "data")]
    subprocess.run(mounted, check=True)
    archive = tmp_path_factory.mktemp("images") / "v1.tar"
    images.docker("save", "--output", str(archive), "shop:v1")
    try:
        with LabEngine.start(folder) as engine:
            engine.docker("load", "--input", str(archive))
            yield engine
    finally:
        subprocess.run(["umount", str(folder / "data")], check=True)
        shutil.rmtree(folder)


@long
def test_a_full_disk_and_an_engine_that_restarts_meanwhile(own, images, tmp_path):
    with site(own, "shop:v1", block=80, names=("web1", "web2")) as shop:
        big = tmp_path / "big.tar"
        build(images, "big", more="RUN head -c 300000000 /dev/urandom > /ballast")
        images.docker("save", "--output", str(big), "shop:big")
        told = shop.drainctl("deploy", str(big), code=1).stderr
        assert "the engine's disk is full" in told
        assert "no node left rotation" in told

        build(images, "v2")
        small = tmp_path / "v2.tar"
        images.docker("save", "--output", str(small), "shop:v2")
        process = subprocess.Popen(shop.argv("deploy", str(small)), stderr=subprocess.PIPE, text=True)
        until("the old one is kept", lambda: f"{shop.names[0]}.drainctl-v1 exited" in shop.containers(), 60)
        own.restart()
        said = process.communicate(timeout=120)[1]
        assert "does not answer" in said
        assert f"{shop.names[0]}.drainctl-v1 exited" in shop.containers() or process.returncode == 1
        until("both are of one release", lambda: len(set(shop.versions().values())) == 1, 60)
        until("a rollout ends it", lambda: settled(shop), 60, every_s=0.5)
        shop.wait_up()


def settled(shop: Site) -> bool:
    told = subprocess.run(shop.argv("resume"), capture_output=True, text=True, check=False, timeout=90)
    return told.returncode == 0 or "there is nothing to go on with" in told.stderr


@contextmanager
def registry(code: int) -> Iterator[str]:
    """Something that answers every question of a registry's client with this."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_GET  # noqa: N815 - as its base class wants it

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer((REGISTRY, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"{REGISTRY}:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
