"""What stands in the way of a drain, as far as a configuration tells; `doctor` looks closer. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from drainctl.haproxy_cfg.model import HaproxyCfg
from drainctl.init.asked import asked
from drainctl.init.sight import Sight, Spot


def warnings(sights: Sequence[Sight], spots: Sequence[Spot], match: str) -> tuple[str, ...]:
    """Sentences, each once. spots: the servers of the chosen backends."""
    found = [
        *_from_lines(sights, spots),
        *_elsewhere(sights, spots),
        *_addresses(sights, match),
        *_tls(spots),
    ]
    return tuple(dict.fromkeys(found))


def _from_lines(sights: Sequence[Sight], spots: Sequence[Spot]) -> list[str]:
    """What the reader could not know, and what keeps a server from leaving on a 404."""
    mine = {spot.proxy.name for spot in spots}
    found = [
        f"{sight.where(note.line)}: {note.text}"
        for sight in sights
        for note in sight.cfg.notes
        if not _of_another(sight.cfg, note.line, mine)
    ]
    for spot in spots:
        settings = spot.proxy.settings
        at = f"{spot.sight.where(spot.proxy.line)}: {spot.proxy.kind} {spot.proxy.name}"
        if settings.check_kind is None or settings.check_kind.value != "httpchk":
            found.append(f"{at} has no `option httpchk`: its servers cannot leave by their health page")
        elif settings.disable_on_404 is None:
            found.append(f"{at} has no `http-check disable-on-404`: a 404 counts as a failed check there")
        if settings.persist is not None:
            line = spot.sight.where(settings.persist.line)
            found.append(f"{line}: `option persist` sends bound clients even to a server in MAINT")
        if not (spot.checked or spot.server.settings.backup):
            found.append(f"{spot.line}: {spot.server.name} has no `check`: it never leaves by a 404")
    return found


def _of_another(cfg: HaproxyCfg, line: int, mine: set[str]) -> bool:
    """Whether a line is in a backend of another app. Notes about the end of a file are nobody's."""
    before = [proxy for proxy in cfg.proxies if proxy.line <= line]
    return bool(before) and before[-1].has_servers and before[-1].name not in mine


def _elsewhere(sights: Sequence[Sight], spots: Sequence[Spot]) -> list[str]:
    """A node has to be at every balancer."""
    names: dict[str, set[str]] = {sight.name: set() for sight in sights}
    for spot in spots:
        names[spot.sight.name].add(spot.server.name)
    everywhere = set().union(*names.values())
    return [
        f"{name} has no server {', '.join(sorted(everywhere - have))}, which another balancer has"
        for name, have in names.items()
        if everywhere - have
    ]


def _addresses(sights: Sequence[Sight], match: str) -> list[str]:
    """`match: address` needs what a socket at level user hides, and a page without `stats show-legends`."""
    hidden = [
        sight.name
        for sight in sights
        if match == "address"
        and (not any(row.address for row in sight.look.rows) if sight.look else sight.balancer.stats)
    ]
    return [
        f"{name}: nodes are found by their addresses here; a stats page shows those only with `stats "
        f"show-legends`, a socket from level operator on"
        for name in hidden
    ]


def _tls(spots: Sequence[Spot]) -> list[str]:
    """A node's answers are read by drainctl too, and it trusts the system's authorities only."""
    lines = [
        spot.line
        for spot in spots
        if (found := asked(spot.sight.cfg, spot.proxy, spot.server)) is not None and found.tls
    ]
    text = "this check speaks TLS; drainctl verifies certificates, also where HAProxy does not"
    return [f"{lines[0]}: {text}"] if lines else []
