"""
Which way leads to a balancer: the sockets that its haproxy.cfg names are asked, and nothing else.

The only part of init that touches the world beside the files.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from dataclasses import replace

from drainctl.balancer.exchange import UnixExchange
from drainctl.balancer.open import open_balancer
from drainctl.errors import BalancerError, ConfigError
from drainctl.haproxy_cfg.model import HaproxyCfg, Proxy, StatsSocket, value
from drainctl.init.sight import Sight, in_url
from drainctl.model import Balancer, BalancerLook, Secret

LEVELS = ("admin", "operator", "user")  # the more it allows, the better: only admin can nudge
MASTERS = ("/run/haproxy-master.sock", "/run/haproxy/master.sock")
USUAL = "unix:/run/haproxy/admin.sock"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,62}")


def named(given: Sequence[str]) -> list[tuple[str, str]]:
    """
    `[LB=]FILE` → a name for each balancer, and its file.

    Without LB=: the file's folder or name where that tells several apart, else lb1, lb2, …
    Raises: ConfigError where two have one name.
    """
    pairs = [text.partition("=") for text in given]
    own = [name if equals and _NAME.fullmatch(name) else "" for name, equals, _ in pairs]
    paths = [pair[2] if name else text for name, pair, text in zip(own, pairs, given, strict=True)]
    names = [name or usual for name, usual in zip(own, _usual(paths), strict=True)]
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise ConfigError(f"--haproxy-cfg: found {twice} a second time, expected a name for each balancer")
    return list(zip(names, paths, strict=True))


def _usual(paths: Sequence[str]) -> list[str]:
    full = [os.path.realpath(path) for path in paths]
    folders = [path.rpartition("/")[0].rpartition("/")[2] for path in full]
    files = [path.rpartition("/")[2].removesuffix(".cfg") for path in full]
    for found in (folders, files):
        if 1 < len(set(found)) == len(found) and all(_NAME.fullmatch(name) for name in found):
            return found
    return [f"lb{number}" for number in range(1, len(paths) + 1)]


def reach(name: str, cfg: HaproxyCfg, timeout_s: float = 2.0) -> Sight:
    """The balancer with what it shows; one that does not answer is described as far as its file goes."""
    sockets = [socket for socket in cfg.global_.sockets if socket.address.kind != "other"]
    sockets.sort(key=lambda socket: (LEVELS.index(socket.level), socket.address.kind != "unix"))
    sights = []
    for socket in sockets:
        sight = _by_socket(name, cfg, socket, timeout_s)
        if sight.look is not None:
            return sight
        sights.append(sight)
    pages = [proxy for proxy in cfg.proxies if proxy.settings.stats and proxy.binds]
    if sights:
        return sights[0]
    if pages:
        return _by_page(name, cfg, pages[0], timeout_s)
    todo = "no `stats socket` in haproxy.cfg: add `stats socket /run/haproxy/admin.sock mode 660 level admin`"
    return Sight(cfg, Balancer(name, runtime=USUAL), set_this=f"{todo} to its global section")


def _by_socket(name: str, cfg: HaproxyCfg, socket: StatsSocket, timeout_s: float) -> Sight:
    address = socket.address
    if "$" in address.text or (address.kind == "ip" and address.port is None):
        todo = f"which socket? haproxy.cfg says {address.text}"
        return Sight(cfg, Balancer(name, runtime=USUAL), set_this=todo, error="its address is not known here")
    runtime = (
        f"unix:{address.host}" if address.kind == "unix" else f"tcp://{_here(address.host)}:{address.port}"
    )
    sight = Sight(cfg, Balancer(name, runtime=runtime))
    seen, error = _look(sight.balancer, timeout_s)
    level = "admin" if seen is not None and seen.can_change else socket.level
    why = f"{sight.where(socket.line)}: level {level}, "
    why += (
        "so that drainctl can nudge"
        if level == "admin"
        else "which watches but cannot nudge: admin is quicker"
    )
    if seen is None or seen.process is None:
        todo = f"did not answer ({error}); on another machine? add `ssh: USER@HOST`"
        return replace(sight, why=why, set_this=todo, error=error)
    why += f"; HAProxy {seen.process.version} answered"
    master = _master(address.host if address.kind == "unix" else "", seen.process.pid, timeout_s)
    if master:
        return replace(sight, balancer=Balancer(name, runtime, master), why=why, look=seen)
    why += ". With `master: unix:/PATH` (haproxy -S) it also sees old workers after a reload"
    return replace(sight, why=why, look=seen)


def _by_page(name: str, cfg: HaproxyCfg, proxy: Proxy, timeout_s: float) -> Sight:
    """The stats page: reading only."""
    stats, bind = proxy.settings.stats, proxy.binds[0].value
    uri = value(stats.uri if stats else None, "/haproxy?stats")
    variable = f"{name.upper().replace('-', '_').replace('.', '_')}_AUTH"
    auth = Secret(f"${{{variable}}}") if stats and stats.users else None
    url = f"http://{_here(bind.host)}:{bind.port or 80}{uri}"
    sight = Sight(cfg, Balancer(name, stats=url, auth=auth))
    why = f"{sight.where(stats.line if stats else 0)}: a stats page, which watches but cannot nudge"
    if auth:
        todo = f"export {variable}=USER:PASSWORD, as `stats auth` has it"
        return replace(sight, why=why, set_this=todo)
    seen, error = _look(sight.balancer, timeout_s)
    todo = "" if seen else f"did not answer ({error})"
    return replace(sight, why=why, look=seen, set_this=todo, error=error)


def _here(host: str) -> str:
    """Who listens on any address is reached by the loopback one."""
    return in_url({"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host))  # noqa: S104  # no bind


def _look(balancer: Balancer, timeout_s: float) -> tuple[BalancerLook | None, str]:
    """Everything that it shows, or why it could not be read."""
    try:
        door = open_balancer(balancer, timeout_s=timeout_s)
        try:
            return door.look(None), ""
        finally:
            door.close()
    except BalancerError as error:
        return None, str(error).removeprefix(f"{balancer.name}: ")


def _master(socket: str, pid: int | None, timeout_s: float) -> str:
    """The master's socket, if one of the usual ones says that this worker is its own; else ""."""
    beside = [f"{socket.rpartition('/')[0]}/master.sock"] if socket else []
    for path in dict.fromkeys([*beside, *MASTERS]):
        if _is_socket(path) and _has_worker(path, pid, timeout_s):
            return f"unix:{path}"
    return ""


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)  # noqa: PTH116  # pathlib costs start-up
    except OSError:
        return False


def _has_worker(path: str, pid: int | None, timeout_s: float) -> bool:
    try:
        said = UnixExchange("master", path, half_close=True, timeout_s=timeout_s).ask(["show proc"])[0]
    except BalancerError:
        return False
    return any(line.split()[:2] == [str(pid), "worker"] for line in said.splitlines())
