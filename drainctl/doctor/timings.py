"""haproxy.cfg's check timings against those that drainctl reckons with. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from drainctl.doctor.finding import Finding, Severity
from drainctl.doctor.picture import Picture
from drainctl.haproxy_cfg.model import HaproxyCfg, Proxy, Server, value
from drainctl.model import Checks
from drainctl.rollout.rules import routing_tail_s


def checks_of(cfg: HaproxyCfg, proxy: Proxy, server: Server) -> Checks:
    """The check timings of a server as HAProxy has them, its own defaults put in."""
    settings = server.settings
    timeout = proxy.settings.timeouts.get("check")
    return Checks(
        inter_s=value(settings.inter, 2.0),
        timeout_s=timeout.value if timeout else None,
        fall=value(settings.fall, 3),
        rise=value(settings.rise, 2),
        downinter_s=settings.downinter.value if settings.downinter else None,
        spread_percent=value(cfg.global_.spread_checks, 0),
        slowstart_s=value(settings.slowstart, 0.0),
    )


def differing(picture: Picture) -> Iterator[Finding]:
    """
    Timings of drainctl.yml's `checks:` that are not those of haproxy.cfg, each with both values.

    Where HAProxy is the slower one, drainctl's limits are too short: then a rollout stops that only had to
    wait; with a socket of level admin it waits for fewer checks.
    """
    told: set[tuple[str, int, str]] = set()
    for balancer, cfg, proxy, pairs in picture.configured():
        for _, server in pairs:
            if server.settings.track is not None:
                continue
            for key, at, ours, theirs, unit in _differences(picture.cluster.checks, cfg, proxy, server):
                if (cfg.name, at, key) in told:
                    continue
                told.add((cfg.name, at, key))
                longer = _amount(theirs) > _amount(ours)
                its = _said(theirs, unit)
                seen = f"checks.{key} = {_said(ours, unit)} in drainctl.yml, {its} in backend {proxy.name}"
                change = f"checks: {{{key}: {its.replace(' ', '')}}}   (in drainctl.yml)"
                if theirs is None:
                    change = f"take {key} out of checks: in drainctl.yml"
                severity = Severity.ADVICE
                if longer:
                    severity = Severity.SLOWER if picture.can_nudge(balancer) else Severity.REFUSES
                yield Finding("checks-differ", severity, cfg.where(at), seen, change)


def _differences(
    ours: Checks, cfg: HaproxyCfg, proxy: Proxy, server: Server
) -> Iterator[tuple[str, int, float | None, float | None, str]]:
    """(key, line of haproxy.cfg, drainctl.yml's value, haproxy.cfg's, unit)."""
    theirs, settings = checks_of(cfg, proxy, server), server.settings
    timeout = proxy.settings.timeouts.get("check")
    table = (
        ("inter", settings.inter, ours.inter_s, theirs.inter_s, "s"),
        ("timeout", timeout, ours.timeout_s, theirs.timeout_s, "s"),
        ("fall", settings.fall, ours.fall, theirs.fall, ""),
        ("rise", settings.rise, ours.rise, theirs.rise, ""),
        ("downinter", settings.downinter, ours.downinter_s, theirs.downinter_s, "s"),
        ("spread", cfg.global_.spread_checks, ours.spread_percent, theirs.spread_percent, "%"),
        ("slowstart", settings.slowstart, ours.slowstart_s, theirs.slowstart_s, "s"),
    )
    for key, at, mine, its, unit in table:
        if mine != its:
            yield key, at.line if at is not None else server.line, mine, its, unit


def _amount(found: float | None) -> float:
    return -1.0 if found is None else found


def _said(found: float | None, unit: str) -> str:
    if found is None:
        return "unset"
    return f"{found:g}{unit}" if unit == "%" else f"{found:g} {unit}".strip()


def outlasting(picture: Picture) -> Iterator[Finding]:
    """Checks too slow for drain.limit, and a slowstart that outlasts the watch."""
    cluster = picture.cluster
    told: set[tuple[str, int, str]] = set()
    for _, cfg, proxy, pairs in picture.configured():
        for _, server in pairs:
            checks, settings = checks_of(cfg, proxy, server), server.settings
            line = settings.inter.line if settings.inter else server.line
            tail_s = routing_tail_s(checks)
            if tail_s > cluster.drain.limit_s and (cfg.name, line, "drain") not in told:
                told.add((cfg.name, line, "drain"))
                seen = f"a 404 is seen after up to {tail_s:g} s, drain.limit = {cluster.drain.limit_s:g} s"
                change = f"inter 2s, or drain: {{limit: {int(2 * tail_s) + 1}s}}   (in drainctl.yml)"
                yield Finding("checks-outlast-drain", Severity.SLOWER, cfg.where(line), seen, change)
            slow = settings.slowstart
            if (
                slow is not None
                and slow.value > cluster.watch.for_s
                and (cfg.name, slow.line, "") not in told
            ):
                told.add((cfg.name, slow.line, ""))
                seen = f"slowstart = {slow.value:g} s, watch.for = {cluster.watch.for_s:g} s"
                change = f"watch: {{for: {slow.value:g}s}} and checks: {{slowstart: {slow.value:g}s}}"
                yield Finding("slowstart-outlasts-watch", Severity.SLOWER, cfg.where(slow.line), seen, change)


def no_timeout(picture: Picture) -> Iterator[Finding]:
    """No `timeout check`, so that `inter` bounds connecting and answering together."""
    for _, cfg, proxy, pairs in picture.configured():
        if "check" not in proxy.settings.timeouts and any(not server.settings.track for _, server in pairs):
            inter_s = min(value(server.settings.inter, 2.0) for _, server in pairs)
            seen = f"backend {proxy.name} has no `timeout check`; inter = {inter_s:g} s bounds a whole check"
            at = cfg.where(proxy.line)
            yield Finding("no-timeout-check", Severity.ADVICE, at, seen, "timeout check 4s")
