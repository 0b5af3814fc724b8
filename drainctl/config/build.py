"""The checked keys of a file to the Cluster that all else works on. Paths are made absolute here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from drainctl.config.expand import change
from drainctl.model import (
    Arb,
    Balancer,
    Checks,
    Cluster,
    Connect,
    DrainPolicy,
    Flag,
    FlagCommands,
    FlagFile,
    FlagHttp,
    Health,
    ImageReleases,
    Nginx,
    Node,
    ReleaseLayout,
    Reload,
    RolloutPolicy,
    Service,
    Socket,
    WarmUp,
    WatchPolicy,
)

Keys = dict[str, Any]  # a section as `walk.take` makes it

SQLITE = "sqlite:///"


def build(file: Keys, path: str, environ: Mapping[str, str]) -> Cluster:
    """
    The Cluster of a file whose keys are right one by one.

    Args:
        file: the keys.
        path: of the file; relative paths in it are relative to its folder.
        environ: for XDG_STATE_HOME, where no store is named.
    """
    folder = os.path.dirname(os.path.abspath(path))  # noqa: PTH100, PTH120  # see read.py: no pathlib
    return Cluster(
        app=file["app"],
        file=os.path.abspath(path),  # noqa: PTH100
        balancers=tuple(_balancer(name, keys, folder) for name, keys in (file["balancers"] or {}).items()),
        nodes=tuple(_node(name, keys, file) for name, keys in file["nodes"].items()),
        connect=_connect(file["connect"], folder),
        release=_release(file["release"]),
        images=_images(file["release"]),
        service=_service(file["service"]),
        health=_health(file["health"]),
        store=_store(file["store"], file["app"], folder, environ),
        backends=tuple(file["backends"]),
        match=file["match"],
        warm=tuple(WarmUp(page["get"], page["times"], page["under"]) for page in file["warm"]),
        rollout=_rollout(file["rollout"]),
        drain=_drain(file["drain"]),
        checks=_checks(file["checks"]),
        watch=WatchPolicy(file["watch"]["for"], file["watch"]["errors"]),
        nginx=_nginx(file["nginx"], folder),
        socket=Socket(**file["socket"]) if file["socket"] else None,
        arb=_arb(file["arb"]),
    )


def absolute(path: str, folder: str) -> str:
    """`~` and paths relative to the file's folder, made absolute."""
    return change(path, lambda text: os.path.normpath(os.path.join(folder, os.path.expanduser(text))))  # noqa: PTH111, PTH118


def _address(address: str, folder: str) -> str:
    """The same for a unix socket's address."""
    if not address.startswith("unix:"):
        return address
    return change(address, lambda text: "unix:" + absolute(text.removeprefix("unix:"), folder))


def _balancer(name: str, keys: Keys, folder: str) -> Balancer:
    return Balancer(
        name=name,
        runtime=_address(keys["runtime"], folder) if keys["runtime"] else None,
        master=_address(keys["master"], folder) if keys["master"] else None,
        stats=keys["stats"],
        auth=keys["auth"],
        ca=absolute(keys["ca"], folder) if keys["ca"] else None,
        ssh=keys["ssh"],
    )


def _node(name: str, keys: Keys, file: Keys) -> Node:
    return Node(
        name=name,
        host=keys["host"],
        server=keys["server"] or name,
        strategy=tuple(keys["strategy"] or file["strategy"]),
        user=keys["user"],
        port=keys["port"],
        vars=keys["vars"],
        container=keys["container"] or "",
    )


def _connect(keys: Keys, folder: str) -> Connect:
    return Connect(
        via=keys["via"],
        user=keys["user"],
        port=keys["port"],
        key=absolute(keys["key"], folder) if keys["key"] else None,
        known_hosts=absolute(keys["known_hosts"], folder) if keys["known_hosts"] else None,
        timeout_s=keys["timeout"],
        engine=keys["engine"],
        ca=absolute(keys["ca"], folder) if keys["ca"] else None,
        cert=absolute(keys["cert"], folder) if keys["cert"] else None,
    )


def _release(keys: Keys | None) -> ReleaseLayout | None:
    if not keys or not keys["root"]:
        return None
    return ReleaseLayout(keys["root"], keys["keep"], tuple(keys["shared"]))


def _images(keys: Keys | None) -> ImageReleases | None:
    return ImageReleases(keys["image"], keys["keep"]) if keys and keys["image"] else None


def _service(keys: Keys) -> Service:
    reload = keys["reload"]
    return Service(
        restart=keys["restart"],
        limit_s=keys["limit"],
        start=keys["start"],
        stop=keys["stop"],
        ports=tuple(keys["ports"]),
        address=keys["address"],
        ask=keys["ask"],
        reload=Reload(reload["command"], reload["gunicorn"], reload["by"]) if reload else None,
        sockets=tuple(keys["sockets"]),
    )


def _nginx(keys: Keys | None, folder: str) -> Nginx | None:
    if not keys:
        return None
    return Nginx(
        upstream=keys["upstream"],
        file=keys["file"],
        template=absolute(keys["template"], folder) if keys["template"] else None,
        test=keys["test"],
        reload=keys["reload"],
        pid=keys["pid"],
        generation=keys["generation"],
        worker_limit_s=keys["worker_limit"],
        fail_timeout_s=keys["fail_timeout"],
        clients=keys["clients"],
    )


def _arb(keys: Keys | None) -> Arb | None:
    if not keys:
        return None
    pairs = tuple(tuple(pair) for pair in keys["pairs"])
    return Arb(keys["board"], pairs, keys["check"], keys["lag"], keys["most_lag"], keys["active"])


def _health(keys: Keys) -> Health:
    return Health(
        check=keys["check"] or "",
        flag=_flag(keys["flag"]),
        ready=keys["ready"],
        version=keys["version"],
        active=keys["active"],
        timeout_s=keys["timeout"],
    )


def _flag(keys: Keys | None) -> Flag | None:
    if keys is None:
        return None
    if keys["url"]:
        return FlagHttp(keys["url"])
    if keys["path"]:
        return FlagFile(keys["path"])
    return FlagCommands(keys["set"] or "", keys["clear"] or "")


def _rollout(keys: Keys) -> RolloutPolicy:
    return RolloutPolicy(
        at_once=keys["at_once"],
        canary=keys["canary"],
        keep_up=keys["keep_up"],
        max_failed=keys["max_failed"],
        on_failure=keys["on_failure"],
        patience_s=keys["patience"],
    )


def _drain(keys: Keys) -> DrainPolicy:
    return DrainPolicy(
        limit_s=keys["limit"], then=keys["then"], sticky=keys["sticky"], move_after_s=keys["move_after"]
    )


def _checks(keys: Keys) -> Checks:
    return Checks(
        inter_s=keys["inter"],
        timeout_s=keys["timeout"],
        fall=keys["fall"],
        rise=keys["rise"],
        downinter_s=keys["downinter"],
        spread_percent=keys["spread"],
        slowstart_s=keys["slowstart"],
    )


def _store(named: str | None, app: str, folder: str, environ: Mapping[str, str]) -> str:
    """
    `sqlite:///` and an absolute path. A path that is named is absolute, with or without one more slash, or
    begins with `~`. The URL of a server is left as it is. Source: XDG Base Directory Specification,
    $XDG_STATE_HOME.
    """
    if named and not named.startswith(SQLITE):
        return named
    if named:
        return change(named, lambda text: SQLITE + absolute(text.removeprefix(SQLITE), "/"))
    state = environ.get("XDG_STATE_HOME", "")
    if not state.startswith("/"):  # the specification: a relative path is to be ignored
        state = absolute("~/.local/state", folder)
    return f"{SQLITE}{state}/drainctl/{app}.db"
