"""The same behaviour as configuration, for clients in other languages: HAProxy's or nginx's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from drainctl.arb.policy import Policy
from drainctl.arb.shards import Shard, shards_of

KINDS = {"arb-haproxy": "haproxy/arb.cfg.j2", "arb-nginx": "nginx/arb.conf.j2"}


def render_arb(
    kind: str,
    shards: Mapping[str, Sequence[str]],
    *,
    listen: str = "127.0.0.1:9100",
    policy: Policy | None = None,
) -> str:
    """
    A configuration that offers each shard on a port of its own and fails over by itself.

    Args:
        kind: "arb-haproxy" (whole file, 2.6 or newer) or "arb-nginx" (for the http context, 1.22 or newer).
        shards: shard → its machines' URLs, http only.
        listen: address and port of the first shard; each further one has the next port.
        policy: `connect_s`, `read_s`, `dead_s`, `probe_path`, `probe_s`, `every_s`,
            `rise`, `fall`; nginx, which probes nobody, takes `hold_s` instead.
    Raises: ValueError for another kind, shards that cannot be, or https machines.
    """
    if kind not in KINDS:
        raise ValueError(f"{kind!r} is none of {', '.join(KINDS)}")
    known = shards_of(shards)
    for shard in known.values():
        if shard.machines[0].tls:
            raise ValueError(f"shard {shard.name}: https is not rendered; terminate TLS by hand")
    from drainctl.templates import render

    policy = policy or Policy()
    host, _, port = listen.rpartition(":")
    limits = {
        name: round(getattr(policy, f"{name}_s") * 1000)
        for name in ("connect", "read", "dead", "probe", "every")
    }
    return render(
        KINDS[kind],
        shards=[_shown(shard, f"{host}:{int(port) + at}") for at, shard in enumerate(known.values())],
        ms=limits,
        seconds=max(1, round(policy.dead_s / 2)),
        path=policy.probe_path,
        hold=max(1, round(policy.hold_s)),
        rise=policy.rise,
        fall=policy.fall,
    )


def _shown(shard: Shard, listen: str) -> dict[str, object]:
    return {"name": shard.name, "listen": listen, "machines": shard.machines}
