"""
What a container that takes another's place is made of. Pure: what `docker inspect` answers goes in, what the
API wants comes out.

Everything that was said when the old container was made is said again; what came from its image is left to
the new image. The API does not tell the two apart: a setting that equals the old image's own counts as the
image's, and one that differs as said. Source: Docker Engine API, "Create a container".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Json = dict[str, Any]

RELEASE, ROLLOUT, TOKEN = "drainctl.release", "drainctl.rollout", "drainctl.token"
CREATED = "drainctl.created"  # of a parked container: when the one that it stands for was made
PARKED_OF, PARKED = "drainctl.parked-of", "drainctl.parked."
COMPOSE = "com.docker.compose."

# Said or not as a whole; an equal value is the image's.
_WHOLE = ("User", "WorkingDir", "Healthcheck", "StopSignal", "Shell")
_SAID = ("Domainname", "Tty", "OpenStdin", "StdinOnce", "MacAddress", "StopTimeout", "NetworkDisabled")


class Recipe(NamedTuple):
    """config: what the container is created with. networks: those that it is connected to afterwards."""

    config: Json
    networks: Mapping[str, Json]


def release_of(container: Json) -> str:
    """A container's release: drainctl's label, else its image's tag, else the image's id, shortened."""
    config = container["Config"]
    if label := (config.get("Labels") or {}).get(RELEASE):
        return str(label)
    ref = str(config["Image"])
    if "@" not in ref and ":" in ref.rpartition("/")[2] and not ref.startswith("sha256:"):
        return ref.rpartition(":")[2]
    if "@" in ref or ref.startswith("sha256:") or ref == container["Image"]:
        return "sha256-" + str(container["Image"]).rpartition(":")[2][:12]
    return "latest"


def recipe(container: Json, image: Json | None, ref: str, labels: Mapping[str, str]) -> Recipe:
    """
    What makes a container like this one of the image `ref`.

    image: the one that the container was made of; None where it is gone, and then all counts as said.
    labels: what the new one has besides.
    """
    config, own = container["Config"], (image or {}).get("Config") or {}
    made: Json = {name: config[name] for name in _SAID if config.get(name) is not None}
    made |= {name: config[name] for name in _WHOLE if config.get(name) and config[name] != own.get(name)}
    made |= _command(config, own)
    made["Image"] = ref
    made["Env"] = _env(config.get("Env") or [], own.get("Env") or [])
    made["Labels"] = _without(config.get("Labels"), own.get("Labels")) | dict(labels)
    made["Volumes"] = _without(config.get("Volumes"), own.get("Volumes"))
    shared = _mode(container).startswith("container:")
    if not shared:
        made["ExposedPorts"] = _without(config.get("ExposedPorts"), own.get("ExposedPorts"))
        if not container["Id"].startswith(config.get("Hostname") or ""):
            made["Hostname"] = config["Hostname"]
    made["HostConfig"] = _host_config(container, own)
    networks = _networks(container)
    first = next((name for name in networks if _is_mode(name, container)), next(iter(networks), None))
    if first is not None:  # older engines take one at the creation only
        made["NetworkingConfig"] = {"EndpointsConfig": {first: networks.pop(first)}}
    return Recipe(made, networks)


def parked(container: Json, ref: str) -> Recipe:
    """
    What stands for a container of a Compose project while it is kept: the same, but not Compose's.

    Compose takes every container with its labels for the service's own: `up` would start the kept one and
    delete the live one. Labels cannot be changed, so another container, never started, holds what it is made
    of, its anonymous volumes, and its labels under names of ours. ref: its own image.
    """
    labels = _labels(container)
    ours = {PARKED + name: value for name, value in labels.items() if name.startswith(COMPOSE)}
    ours |= {PARKED_OF: container["Id"], CREATED: container["Created"], RELEASE: release_of(container)}
    made = recipe(container, None, ref, ours)
    made.config["Labels"] = {
        name: value for name, value in made.config["Labels"].items() if not name.startswith(COMPOSE)
    }
    made.config["HostConfig"]["RestartPolicy"] = {"Name": "no"}
    return made


def unparked(container: Json, ref: str, labels: Mapping[str, str]) -> Recipe:
    """What makes the container again that a parked one stands for. ref: its own image."""
    made = recipe(container, None, ref, {})
    found = {
        name.removeprefix(PARKED): value
        for name, value in made.config["Labels"].items()
        if name not in (PARKED_OF, CREATED)
    }
    made.config["Labels"] = found | dict(labels)
    return made


def is_parked(container: Json) -> bool:
    return PARKED_OF in _labels(container)


def is_compose(container: Json) -> bool:
    return any(name.startswith(COMPOSE) for name in _labels(container))


def differences(container: Json, old: Json | None, new: Json) -> tuple[str, ...]:
    """What a container of image `new` in this one's place will have that it has not, a line each."""
    return tuple(_differences(container, (old or {}).get("Config") or {}, new))


def _differences(container: Json, own: Json, new: Json) -> Iterator[str]:
    config, given = container["Config"], new.get("Config") or {}
    yield f"image {_short(container['Image'])} -> {_short(new['Id'])}"
    env = _pairs(given.get("Env") or []) | _pairs(_env(config.get("Env") or [], own.get("Env") or []))
    then = {key: value for key, value in env.items() if value is not None}
    yield from _changes("variable", _pairs(config.get("Env") or []), then)
    stays = {name for name in _WHOLE if config.get(name) and config[name] != own.get(name)}
    stays |= _command(config, own).keys()
    for name, word in _WORDS.items():
        if name not in stays and (config.get(name) or None) != (given.get(name) or None):
            yield f"{word} {_said(config.get(name))} -> {_said(given.get(name))}"
    for name, word in (
        ("Labels", "label"),
        ("ExposedPorts", "exposed port"),
        ("Volumes", "anonymous volume"),
    ):
        yield from _changes(word, own.get(name) or {}, given.get(name) or {})


_WORDS = {
    "Entrypoint": "entrypoint",
    "Cmd": "command",
    "User": "user",
    "WorkingDir": "working directory",
    "StopSignal": "stop signal",
    "Healthcheck": "health check",
}


def _changes(word: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """By name only: some values are secrets."""
    for key in sorted({*before, *after}):
        if key not in after:
            yield f"{word} {key} goes"
        elif key not in before:
            yield f"{word} {key} comes"
        elif before[key] != after[key]:
            yield f"{word} {key} changes"


def _said(value: Any) -> str:
    if not value:
        return "none"
    if isinstance(value, dict):
        return " ".join(value.get("Test") or ["none"])
    return " ".join(value) if isinstance(value, list) else str(value)


def _short(image: str) -> str:
    return image.removeprefix("sha256:")[:12]


# ---------------------------------------------------------------- what was said, and what was the image's


def _without(said: Any, own: Any) -> Json:
    """The entries that are not the image's own."""
    own = own or {}
    return {key: value for key, value in (said or {}).items() if key not in own or own[key] != value}


def _env(said: list[str], own: list[str]) -> list[str]:
    """A variable of the image that the container lacks was taken away; its bare name says so again."""
    there = _pairs(said)
    return [each for each in said if each not in own] + [key for key in _pairs(own) if key not in there]


def _pairs(env: list[str]) -> dict[str, str | None]:
    return {key: value if equals else None for key, equals, value in (each.partition("=") for each in env)}


def _command(config: Json, own: Json) -> Json:
    """Whoever said an entrypoint said the command with it: then the image's own is not used."""
    if (config.get("Entrypoint") or None) != (own.get("Entrypoint") or None):
        return {"Entrypoint": config.get("Entrypoint") or [], "Cmd": config.get("Cmd")}
    if (config.get("Cmd") or None) != (own.get("Cmd") or None):
        return {"Cmd": config.get("Cmd")}
    return {}


def _host_config(container: Json, own: Json) -> Json:
    """As it was; links as they are told, not as they are shown. `docker run --cidfile` is not meant again."""
    host: Json = dict(container["HostConfig"])
    host.pop("ContainerIDFile", None)
    host["Links"] = [_link(each) for each in host.get("Links") or []] or None
    host["Binds"] = [*(host.get("Binds") or []), *_anonymous(container, own)] or None
    return host


def _link(text: str) -> str:
    """`/db:/web/postgres` is container db, here called postgres."""
    other, _, alias = text.partition(":")
    return f"{other.removeprefix('/')}:{alias.rpartition('/')[2]}"


def _anonymous(container: Json, own: Json) -> Iterator[str]:
    """Volumes without a name that were asked for: their data stays. An image's own begins anew."""
    asked = _without(container["Config"].get("Volumes"), own.get("Volumes"))
    host = container["HostConfig"]
    named = {bind.split(":")[1] for bind in host.get("Binds") or [] if ":" in bind}
    named |= {mount["Target"] for mount in host.get("Mounts") or []}
    for mount in container.get("Mounts") or []:
        at = mount["Destination"]
        if mount["Type"] == "volume" and at in asked and at not in named:
            yield f"{mount['Name']}:{at}"


def _mode(container: Json) -> str:
    return str(container["HostConfig"].get("NetworkMode") or "default")


def _is_mode(name: str, container: Json) -> bool:
    mode = _mode(container)
    return name == mode or (name == "bridge" and mode == "default")


def _networks(container: Json) -> dict[str, Json]:
    """Its networks with what was said of each. The engine adds the short id to the aliases by itself."""
    if _mode(container).startswith(("container:", "host", "none")):
        return {}
    found = {}
    for name, there in (container["NetworkSettings"].get("Networks") or {}).items():
        aliases = [each for each in there.get("Aliases") or [] if each != container["Id"][:12]]
        found[name] = {
            "IPAMConfig": there.get("IPAMConfig") or {},
            "Aliases": aliases or None,
            "Links": there.get("Links"),
            "DriverOpts": there.get("DriverOpts"),
        }
    return found


def _labels(container: Json) -> Mapping[str, str]:
    return container["Config"].get("Labels") or {}


# ---------------------------------------------------------------- what cannot be replaced


def irreplaceable(container: Json, flag: str) -> str | None:
    """Why a container cannot be replaced without harm, in words; None where it can."""
    host = container["HostConfig"]
    if host.get("AutoRemove"):
        return "it was started with --rm: stopped, it would be gone, and nothing could be put back"
    if mount_at(container, flag) == "tmpfs":
        return f"the flag {flag} is on a tmpfs: a new container would begin without it, and serve unwarmed"
    return None


def mount_at(container: Json, path: str) -> str | None:
    """The kind of the mount that a path is on (`bind`, `volume`, `tmpfs`); None: the container's own disk."""
    mounts = {mount["Destination"]: mount["Type"] for mount in container.get("Mounts") or []}
    mounts |= dict.fromkeys(container["HostConfig"].get("Tmpfs") or {}, "tmpfs")
    over = [at for at in mounts if path == at or path.startswith(at.rstrip("/") + "/")]
    return str(mounts[max(over, key=len)]) if over else None
