"""What a container that takes another's place is made of: what was said stays, what was the image's goes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from drainctl.node import recipe
from drainctl.node.recipe import CREATED, PARKED_OF

ID = "0f" * 32
OLD_IMAGE = {
    "Id": "sha256:" + "a" * 64,
    "Config": {
        "Env": ["PATH=/bin", "COLOUR=red", "MODE=prod"],
        "Cmd": ["serve"],
        "Entrypoint": ["/entry"],
        "WorkingDir": "/app",
        "User": "app",
        "Labels": {"maintainer": "me", "built": "1"},
        "ExposedPorts": {"8000/tcp": {}},
        "Volumes": {"/cache": {}},
        "StopSignal": "SIGQUIT",
        "Healthcheck": {"Test": ["CMD", "ok"]},
    },
}
NEW_IMAGE = {
    "Id": "sha256:" + "b" * 64,
    "Config": {
        "Env": ["PATH=/bin:/sbin", "COLOUR=blue"],
        "Cmd": ["serve", "--fast"],
        "Entrypoint": ["/entry"],
    },
}


def container(**config: Any) -> dict[str, Any]:
    """A container as `docker run` without a word makes it of the old image; `config` is what was said."""
    made = copy.deepcopy(OLD_IMAGE["Config"])
    host = config.pop("HostConfig", {})
    more = {name: config.pop(name) for name in ("Mounts", "NetworkSettings") if name in config}
    made |= {"Image": "shop:1.4.1", "Hostname": ID[:12], "Tty": False, **config}
    return {
        "Id": ID,
        "Name": "/web1",
        "Created": "2026-11-25T00:00:00Z",
        "Image": OLD_IMAGE["Id"],
        "Config": made,
        "HostConfig": {"NetworkMode": "default", "RestartPolicy": {"Name": "always"}, **host},
        "Mounts": [],
        "NetworkSettings": {"Networks": {"bridge": {"IPAMConfig": None, "Aliases": None}}},
        **more,
    }


def made_of(it: dict[str, Any]) -> dict[str, Any]:
    return recipe.recipe(it, OLD_IMAGE, "shop:1.4.2", {"drainctl.release": "1.4.2"}).config


def test_nothing_of_the_old_image_is_carried_over():
    config = made_of(container())
    assert config.pop("HostConfig")["RestartPolicy"] == {"Name": "always"}
    assert config.pop("NetworkingConfig")["EndpointsConfig"].keys() == {"bridge"}
    assert config == {
        "Tty": False,
        "Image": "shop:1.4.2",
        "Env": [],
        "Labels": {"drainctl.release": "1.4.2"},
        "Volumes": {},
        "ExposedPorts": {},
    }


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"Env": ["PATH=/bin", "COLOUR=red", "MODE=prod", "A=1"]}, {"Env": ["A=1"]}),
        ({"Env": ["PATH=/bin", "COLOUR=green", "MODE=prod"]}, {"Env": ["COLOUR=green"]}),
        ({"Env": ["PATH=/bin", "COLOUR=red", "EMPTY="]}, {"Env": ["EMPTY=", "MODE"]}),  # MODE was taken away
        ({"Cmd": ["serve", "-v"]}, {"Cmd": ["serve", "-v"]}),
        ({"Entrypoint": ["/mine"], "Cmd": None}, {"Entrypoint": ["/mine"], "Cmd": None}),
        ({"Entrypoint": ["/mine"]}, {"Entrypoint": ["/mine"], "Cmd": ["serve"]}),
        ({"Entrypoint": None, "Cmd": ["sh"]}, {"Entrypoint": [], "Cmd": ["sh"]}),
        ({"User": "root"}, {"User": "root"}),
        ({"WorkingDir": "/srv"}, {"WorkingDir": "/srv"}),
        ({"StopSignal": "SIGINT", "StopTimeout": 30}, {"StopSignal": "SIGINT", "StopTimeout": 30}),
        ({"Healthcheck": {"Test": ["NONE"]}}, {"Healthcheck": {"Test": ["NONE"]}}),
        ({"Hostname": "shop"}, {"Hostname": "shop"}),
        ({"MacAddress": "02:42:ac:11:00:02"}, {"MacAddress": "02:42:ac:11:00:02"}),
        ({"Tty": True, "OpenStdin": True}, {"Tty": True, "OpenStdin": True}),
        (
            {"Labels": {"maintainer": "me", "built": "2", "team": "web"}},
            {"Labels": {"built": "2", "team": "web"}},
        ),
        ({"ExposedPorts": {"8000/tcp": {}, "9000/tcp": {}}}, {"ExposedPorts": {"9000/tcp": {}}}),
        ({"Volumes": {"/cache": {}, "/data": {}}}, {"Volumes": {"/data": {}}}),
    ],
)
def test_what_was_said_is_said_again(said, kept):
    config = made_of(container(**said))
    for name, value in kept.items():
        got = config[name]
        assert (
            {k: v for k, v in got.items() if k != "drainctl.release"} == value
            if name == "Labels"
            else got == value
        )
    plain = made_of(container())
    for name in plain.keys() - kept.keys():
        assert config[name] == plain[name], f"{name} has nothing to do with it"


def test_an_image_that_is_gone_leaves_all_as_said():
    config = recipe.recipe(container(), None, "shop:1.4.2", {}).config
    for name in ("Env", "Cmd", "User", "Labels", "Healthcheck"):
        assert config[name] == OLD_IMAGE["Config"][name]


def test_volumes_that_were_asked_for_keep_their_data_and_the_images_own_begin_anew():
    mounts = [
        {"Type": "volume", "Name": "asked", "Destination": "/data"},
        {"Type": "volume", "Name": "of-the-image", "Destination": "/cache"},
        {"Type": "volume", "Name": "named", "Destination": "/media"},
        {"Type": "bind", "Source": "/etc/shop", "Destination": "/etc/shop"},
        {"Type": "volume", "Name": "by-mount", "Destination": "/log"},
    ]
    host = {
        "Binds": ["named:/media", "/etc/shop:/etc/shop:ro"],
        "Mounts": [{"Type": "volume", "Source": "by-mount", "Target": "/log"}],
    }
    config = made_of(container(Volumes={"/cache": {}, "/data": {}}, Mounts=mounts, HostConfig=host))
    assert config["HostConfig"]["Binds"] == ["named:/media", "/etc/shop:/etc/shop:ro", "asked:/data"]
    assert config["HostConfig"]["Mounts"] == host["Mounts"]


def test_networks_with_their_addresses_and_names():
    networks = {
        "front": {
            "IPAMConfig": {"IPv4Address": "10.1.0.5"},
            "Aliases": ["shop", ID[:12]],
            "Links": ["db:postgres"],
            "DriverOpts": None,
            "IPAddress": "10.1.0.5",
        },
        "back": {"IPAMConfig": None, "Aliases": [ID[:12]], "IPAddress": "10.2.0.9"},
    }
    it = container(HostConfig={"NetworkMode": "back"}, NetworkSettings={"Networks": networks})
    made = recipe.recipe(it, OLD_IMAGE, "shop:1.4.2", {})
    nothing = {"IPAMConfig": {}, "Aliases": None, "Links": None, "DriverOpts": None}
    assert made.config["NetworkingConfig"]["EndpointsConfig"] == {"back": nothing}, (
        "an address it got is not said"
    )
    front = {"IPAMConfig": {"IPv4Address": "10.1.0.5"}, "Aliases": ["shop"], "Links": ["db:postgres"]}
    assert made.networks == {"front": {**front, "DriverOpts": None}}


@pytest.mark.parametrize("mode", ["host", "none", f"container:{'1' * 64}"])
def test_networks_that_are_no_own(mode):
    it = container(HostConfig={"NetworkMode": mode}, Hostname="ops1")
    config = made_of(it)
    assert "NetworkingConfig" not in config
    assert config["HostConfig"]["NetworkMode"] == mode
    assert ("Hostname" in config) == (not mode.startswith("container:"))


def test_links_are_told_as_docker_takes_them():
    config = made_of(container(HostConfig={"Links": ["/db:/web1/postgres"], "ContainerIDFile": "/run/cid"}))
    assert config["HostConfig"]["Links"] == ["db:postgres"]
    assert "ContainerIDFile" not in config["HostConfig"]


@pytest.mark.parametrize(
    ("image", "labels", "release"),
    [
        ("shop:1.4.1", {}, "1.4.1"),
        ("registry:5000/shop:1.4.1", {}, "1.4.1"),
        ("registry:5000/shop", {}, "latest"),
        ("shop", {}, "latest"),
        ("sha256:" + "a" * 64, {}, "sha256-aaaaaaaaaaaa"),
        ("shop@sha256:" + "c" * 64, {}, "sha256-aaaaaaaaaaaa"),
        ("shop:latest", {"drainctl.release": "20261125"}, "20261125"),
    ],
)
def test_a_containers_release(image, labels, release):
    assert recipe.release_of(container(Image=image, Labels=labels)) == release


def test_what_stands_for_a_container_of_compose_is_not_composes_and_can_be_made_that_container_again():
    labels = {"com.docker.compose.project": "p", "com.docker.compose.service": "web", "team": "web"}
    it = container(Labels=labels, Env=["PATH=/bin", "COLOUR=green", "MODE=prod"])
    kept = recipe.parked(it, "shop:1.4.1").config
    assert not [name for name in kept["Labels"] if name.startswith("com.docker.compose.")]
    assert kept["Labels"]["drainctl.release"] == "1.4.1"
    assert (kept["Labels"][PARKED_OF], kept["Labels"][CREATED]) == (ID, it["Created"])
    assert kept["HostConfig"]["RestartPolicy"] == {"Name": "no"}
    assert kept["Image"] == "shop:1.4.1"

    stood = container(**{name: kept[name] for name in ("Labels", "Env")})
    assert recipe.is_parked(stood)
    assert not recipe.is_parked(it)
    again = recipe.unparked(stood, "shop:1.4.1", {"drainctl.token": "7"}).config
    assert again["Labels"] == {**labels, "drainctl.release": "1.4.1", "drainctl.token": "7"}
    assert again["Env"] == it["Config"]["Env"]


# ---------------------------------------------------------------- what plan shows, and what is refused


def test_the_differences_are_those_of_the_images_where_nothing_else_was_said():
    it = container(Env=["PATH=/bin", "COLOUR=red", "MODE=test", "SECRET=x"], User="root")
    assert recipe.differences(it, OLD_IMAGE, NEW_IMAGE) == (
        "image aaaaaaaaaaaa -> bbbbbbbbbbbb",
        "variable COLOUR changes",
        "variable PATH changes",
        "command serve -> serve --fast",
        "working directory /app -> none",
        "stop signal SIGQUIT -> none",
        "health check CMD ok -> none",
        "label built goes",
        "label maintainer goes",
        "exposed port 8000/tcp goes",
        "anonymous volume /cache goes",
    )


def test_the_same_image_differs_in_nothing_but_its_name():
    assert recipe.differences(container(), OLD_IMAGE, OLD_IMAGE) == ("image aaaaaaaaaaaa -> aaaaaaaaaaaa",)


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ({}, None),
        ({"AutoRemove": True}, "--rm"),
        ({"Tmpfs": {"/run": "size=1m"}}, "on a tmpfs"),
        ({"Tmpfs": {"/run/other": ""}}, None),
        ({"Tmpfs": {"/run": ""}, "Mounts": []}, "on a tmpfs"),
    ],
)
def test_what_cannot_be_replaced(host, why):
    found = recipe.irreplaceable(container(HostConfig=host), "/run/drain")
    assert found is None if why is None else why in str(found)


def test_the_nearest_mount_counts():
    it = container(
        HostConfig={"Tmpfs": {"/run": ""}},
        Mounts=[{"Type": "bind", "Destination": "/run/shop"}, {"Type": "volume", "Destination": "/runs"}],
    )
    assert recipe.mount_at(it, "/run/drain") == "tmpfs"
    assert recipe.mount_at(it, "/run/shop/drain") == "bind"
    assert recipe.mount_at(it, "/srv/drain") is None
    assert recipe.irreplaceable(it, "/run/shop/drain") is None
