"""Releases that are images: containers are replaced, put back, and gone on with after a crash."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from drainctl.errors import CommandFailed, Fenced
from drainctl.lab.engine import Engine as LabEngine
from drainctl.node.container import By, Container
from drainctl.node.engine import Engine
from drainctl.node.fence import Fence
from tests.conftest import need, until
from tests.docker.image_kit import FLAG, SOAK, Load, Site, build, site

BY = "ops@laptop (pid 1)"


@pytest.fixture(scope="module", name="images")
def some_images(engine) -> LabEngine:
    build(engine, "v1")
    build(engine, "v2", colour="blue", more='LABEL built="today"')
    return engine


@pytest.fixture(scope="module", name="shop")
def a_site(images) -> Iterator[Site]:
    words = ["--ulimit", "nofile=4096", "--cap-add", "NET_ADMIN", "--memory", "256m", "--hostname", "shop"]
    with site(images, "shop:v1", *words, block=16, names=("web1", "web2")) as it:
        yield it


def said(container: dict[str, Any]) -> dict[str, Any]:
    """What a person said when they made the container."""
    config, networks = container["Config"], container["NetworkSettings"]["Networks"]
    return {
        "host": {**container["HostConfig"], "RestartPolicy": None},
        "hostname": config["Hostname"],
        "env": [each for each in config["Env"] if each.startswith("GREETING=")],
        "team": config["Labels"]["team"],
        "networks": {
            name: (each["IPAMConfig"], [alias for alias in each["Aliases"] if alias.endswith("-alias")])
            for name, each in networks.items()
        },
    }


def test_a_roll_and_a_roll_back_under_load_fail_nobody(shop):
    web1 = shop.names[0]
    before = shop.inspect(web1)
    plan = " ".join(shop.drainctl("plan", "--image", "shop:v2").stdout.split())
    assert f"{shop.names[0]}, {shop.names[1]} (2 nodes): v1 -> v2" in plan
    assert f"create {web1} of shop:v2, flagged" in plan
    for line in ("variable COLOUR changes", "variable VERSION changes", "label built comes"):
        assert line in plan
    assert "GREETING" not in plan
    with Load(shop.url) as load:
        shop.drainctl("deploy", "--image", "shop:v2")
        assert set(shop.versions().values()) == {"v2"}
        shop.wait_up()
        after = shop.inspect(web1)
        kept = shop.inspect(f"{web1}.drainctl-v1")
        shop.drainctl("rollback")
        assert set(shop.versions().values()) == {"v1"}
    assert load.failed == {}
    assert load.total > 300

    assert said(after) == said(before)
    assert after["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert {"COLOUR=blue", "VERSION=v2"} <= set(after["Config"]["Env"])
    assert after["Config"]["Labels"]["drainctl.release"] == "v2"
    assert kept["Id"] == before["Id"]
    assert (kept["State"]["Status"], kept["HostConfig"]["RestartPolicy"]["Name"]) == ("exited", "no")
    again = shop.inspect(web1)
    assert again["Id"] == before["Id"]
    assert again["HostConfig"]["RestartPolicy"]["Name"] == "always"
    assert f"{web1}.drainctl-v2 exited" in shop.containers()
    assert "rollback" in shop.drainctl("history").stdout


def test_replacing_containers_one_by_one_without_draining_fails_somebody(shop):
    """The control: the same load, `docker rm -f` and `docker run`."""
    with Load(shop.url) as load:
        for name in shop.names:
            shop.engine.docker("rm", "--force", name)
            shop.run(name, "shop:v1", "--stop-timeout", "5")
            until(f"{name} answers", lambda name=name: shop.ask(name)[0] == 200)
            shop.wait_up()
    assert load.failed


def test_a_restart_and_the_same_release_again_keep_the_container(shop):
    before = {name: shop.inspect(name) for name in shop.names}
    with Load(shop.url) as load:
        shop.drainctl("restart", "--only", shop.names[0])
        shop.wait_up()
        shop.drainctl("deploy", "v1", "--only", shop.names[1])
    assert load.failed == {}
    for name in shop.names:
        now = shop.inspect(name)
        assert now["Id"] == before[name]["Id"]
        assert now["State"]["StartedAt"] > before[name]["State"]["StartedAt"]


def test_the_new_container_is_drained_from_its_start(shop):
    """Whatever asks /http-check first finds a 404: no user meets a container that is not warm."""
    shop.drainctl("drain", shop.names[0])
    with shop.wired() as wired:
        host = wired.hosts[shop.names[0]]
        text = host.disk().flag
        assert text
        host.replace("v2", "shop:v2", text + "\n")
        until("v2 answers", lambda: shop.ask(shop.names[0])[1] == "v2\n")
        assert shop.ask(shop.names[0], "/http-check")[0] == 404
        assert host.disk().flag == text
        host.replace("v1", None, text + "\n")
        until("v1 answers", lambda: shop.ask(shop.names[0])[1] == "v1\n")
        assert shop.ask(shop.names[0], "/http-check")[0] == 404
    shop.drainctl("restore", shop.names[0])
    shop.wait_up()


MOMENTS = ("next is made", "old is kept", "new runs")
KILLS = [(moment, way) for moment in MOMENTS for way in ("resume", "abort")]


@pytest.mark.parametrize(("moment", "way"), KILLS if SOAK else [KILLS[2], KILLS[5]])
def test_killed_around_the_replacement(shop, moment, way):
    """kill -9 of drainctl as soon as the engine shows this; then another drainctl goes on, or back."""
    web1 = shop.names[0]
    seen = {
        "next is made": lambda: any(f"{web1}.drainctl.next" in each for each in shop.containers()),
        "old is kept": lambda: f"{web1} running" not in shop.containers(),
        "new runs": lambda: shop.ask(web1)[1] == "v2\n",
    }[moment]
    with Load(shop.url, clients=2) as load:
        process = subprocess.Popen(
            shop.argv("deploy", "v2"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(moment, seen, 60, every_s=0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        until("the dead one's lease has ended", lambda: done(shop, way), 90, every_s=0.5)
    assert load.failed == {}
    want = "v2" if way == "resume" else "v1"
    assert set(shop.versions().values()) == {want}
    assert not [each for each in shop.containers() if ".next" in each]
    if want == "v2":
        shop.drainctl("rollback", "--to", "v1")


def done(shop: Site, way: str) -> bool:
    told = subprocess.run(shop.argv(way), capture_output=True, text=True, check=False, timeout=90)
    assert told.returncode in (0, 4), told.stderr
    return told.returncode == 0


# ---------------------------------------------------------------- one container, step by step


class CutShort(Exception):
    """The process is gone."""


class Mortal(Engine):
    """An engine whose caller dies after `left` more changes."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.left = 1000

    def _die(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise CutShort


for change in ("create", "start", "stop", "rename", "remove", "restart_policy", "put"):

    def dying(self: Mortal, *words: Any, _change: str = change, **more: Any) -> None:
        getattr(super(Mortal, self), _change)(*words, **more)
        self._die()

    setattr(Mortal, change, dying)


@pytest.mark.parametrize("compose", [False, True])
def test_a_replacement_that_is_cut_short_anywhere_is_gone_on_with(images, compose):
    name = "drainctl-cut"
    labels = {"com.docker.compose.project": "p", "com.docker.compose.service": "s"} if compose else {}
    words = [f"--label={key}={value}" for key, value in labels.items()]
    images.docker("run", "--detach", "--name", name, "--restart", "always", "-v", "/data", *words, "shop:v1")
    engine = Mortal(images.host)
    it = Container(engine, name, FLAG)

    def replaced(release: str, ref: str | None, token: int) -> int:
        """Cut short after each change; the number of changes that it took."""
        for after in range(40):
            engine.left = after
            try:
                it.replace(release, ref, By("r1", token), "flag\n")
            except CutShort:
                continue
            return after
        raise AssertionError("it never came to its end")

    def all_of() -> dict[str, str]:
        told = images.docker("ps", "--all", "--filter", f"name=^/{name}", "--format", "{{.Names}} {{.State}}")
        return dict(line.split() for line in told.splitlines())

    def shown() -> dict[str, Any]:
        return dict(json.loads(images.docker("inspect", name))[0])

    try:
        volume = shown()["Mounts"][0]["Name"]
        for release, ref, other in (("v2", "shop:v2", "v1"), ("v1", None, "v2"), ("v2", None, "v1")):
            assert replaced(release, ref, 7) > 3
            kept = "created" if compose else "exited"
            assert all_of() == {name: "running", f"{name}.drainctl-{other}": kept}
            live = shown()
            assert live["HostConfig"]["RestartPolicy"]["Name"] == "always"
            assert live["Mounts"][0]["Name"] == volume, "a volume that was asked for keeps its data"
            assert {key: live["Config"]["Labels"].get(key) for key in labels} == labels
            held = images.docker("ps", "-aq", "--filter", "label=com.docker.compose.project=p").split()
            assert len(held) == len(labels) // 2, "Compose sees the live one alone"
            assert it.disk().flag == "flag"
            assert it.disk().current == release
            assert set(it.disk().releases) == {"v1", "v2"}
    finally:
        images.docker("rm", "--force", "--volumes", *all_of())
        engine.close()


def test_compose_takes_the_new_container_for_its_own_and_leaves_it(images, tmp_path):
    name = "drainctl-composed"
    (tmp_path / "compose.yml").write_text(
        f"services:\n  web:\n    image: shop:v1\n    container_name: {name}\n    restart: always\n"
    )

    def compose(*words: str) -> str:
        line = [need("docker-compose"), "-p", name, "-f", str(tmp_path / "compose.yml"), *words]
        done = subprocess.run(line, capture_output=True, text=True, check=True, env=images.env, timeout=90)
        return done.stdout + done.stderr

    def live() -> str:
        return images.docker("inspect", "--format", "{{.Id}} {{.Config.Image}} {{.State.Status}}", name)

    try:
        compose("up", "--detach")
        engine = Engine(images.host)
        Container(engine, name, FLAG).replace("v2", "shop:v2", By("r1", 1), "flag\n")
        engine.close()
        before = live()
        assert before.endswith(" shop:v2 running\n")
        assert "drainctl-v1" not in compose("ps")
        compose("up", "--detach")
        assert live() == before
        told = images.docker("ps", "--all", "--filter", f"name={name}.drainctl-v1", "--format", "{{.State}}")
        assert told == "created\n"
    finally:
        compose("down")
        images.docker("rm", "--force", f"{name}.drainctl-v1")


def test_what_cannot_be_replaced_is_refused_before_anything_is_touched(images):
    tmpfs = site(images, "shop:v1", "--tmpfs", "/run", block=48, names=("web1", "web2"))
    with tmpfs as it:
        told = it.drainctl("deploy", "--image", "shop:v2", code=5).stderr
        assert "the flag /run/drain is on a tmpfs: a new container would begin without it" in told
        assert set(it.versions().values()) == {"v1"}
        it.engine.docker("rm", "--force", it.names[0])
        it.change("flag: /run/drain", "flag: /drain")
        gone = it.drainctl("deploy", "--image", "shop:v2", code=5).stderr
        assert f"{it.names[0]} cannot be reached: no container {it.names[0]} on engine" in gone


def test_an_older_controller_is_refused_also_by_a_new_container(shop):
    web1 = shop.names[0]
    with shop.wired() as wired:
        newer = wired.hosts[web1].fenced(Fence(2 * 10**16, "r2", "deploy", "v2", BY, "2026-11-25T00:00:00Z"))
        older = wired.hosts[web1].fenced(Fence(10**16, "r1", "deploy", "v2", BY, "2026-11-25T00:00:00Z"))
        assert older.claim(5) == "raised"
        assert newer.claim(5) == "raised"
        newer.replace("v2", "shop:v2", '{"rollout": "r2"}\n')
        until("v2 answers", lambda: shop.ask(web1)[1] == "v2\n")
        assert [claim.rollout for claim in newer.claims()][:2] == ["r2", "r1"], "the fence came along"
        assert newer.claims()[0].was == "v1"
        for act in (
            lambda: older.replace("v1", None, "x"),
            older.restart_container,
            lambda: older.set_flag('{"rollout": "r1"}\n'),
            lambda: older.prune(1),
        ):
            with pytest.raises(Fenced, match="was refused"):
                act()
        shop.engine.docker("stop", web1)
        with pytest.raises(Fenced, match="rollout r2, token"):
            older.replace("v1", None, "x")
        with pytest.raises(Fenced):
            older.claim(5)
        newer.replace("v1", None, '{"rollout": "r2"}\n')
        until("v1 answers", lambda: shop.ask(web1)[1] == "v1\n")
        newer.clear_flag("r2")
    shop.wait_up()


def test_old_containers_go_but_never_the_one_before(images, shop):
    web1 = shop.names[0]
    with shop.wired() as wired:
        host = wired.hosts[web1]
        for release in ("a", "b", "c"):
            host.replace(release, "shop:v2", "x\n")
        assert host.disk().releases[-3:] == ("a", "b", "c")
        assert host.prune(1, {"v1", "v2", "a"}) == ()
        gone = host.prune(2, {"v1"})
        assert "a" in gone
        assert "b" in host.disk().releases
        assert host.disk().current == "c"
        host.replace("v1", None, "x\n")
        host.prune(1, {"v1"})
        with pytest.raises(CommandFailed, match="no container of release a is kept"):
            host.replace("a", None, "x\n")
    images.docker("exec", web1, "rm", "-f", FLAG)
    shop.wait_up()
