"""drainctl.yml of a lab: the contract as a user would write it, with the lab's paths."""

from __future__ import annotations

import getpass
from pathlib import Path

from drainctl.lab.settings import Settings


def drainctl_yml(folder: Path, settings: Settings) -> str:
    """The text of `folder`/drainctl.yml."""
    nodes = "\n".join(f"  {name}: {{host: {settings.host(name)}}}" for name in settings.node_names)
    balancers = "\n".join(
        f"  {name}: {_balancer(folder, settings, name)}" for name in settings.balancer_names
    )
    own = f"{folder}/nodes/{{node}}"
    return f"""\
# Written by `drainctl lab up`.
app: {settings.app}
balancers:
{balancers}
backends: [{settings.app}]
nodes:
{nodes}
connect: {_connect(folder, settings)}
release: {{root: "{own}/srv", keep: 5}}
service:
  restart: "{own}/ctl restart"
health:
  check: "http://{{host}}:8080/http-check"
  flag: "{own}/srv/shared/drain"
  ready: "http://{{host}}:8080/healthz"
  version: "http://{{host}}:8080/version"
warm: [{{get: /, times: 10}}]
checks: {{inter: {settings.inter}, timeout: 4s}}
rollout: {{at_once: 1, keep_up: 50%, max_failed: 0, on_failure: roll-back}}
drain: {{limit: 30s, then: fallback, sticky: {"move" if settings.cookie else "wait"}}}
watch: {{for: 1s, errors: 0}}
store: "sqlite:///{folder}/{settings.app}.db"
"""


def _balancer(folder: Path, settings: Settings, name: str) -> str:
    if settings.stats_only:
        return f'{{stats: "http://{settings.host(name)}:8404/stats"}}'
    master = f', master: "unix:{folder}/{name}/master.sock"' if settings.master_worker else ""
    return f'{{runtime: "unix:{folder}/{name}/runtime.sock"{master}}}'


def _connect(folder: Path, settings: Settings) -> str:
    if not settings.ssh:
        return "{via: local}"
    key, known = f"{folder}/ssh/id_ed25519", f"{folder}/ssh/known_hosts"
    return f'{{via: ssh, user: {getpass.getuser()}, port: 2222, key: "{key}", known_hosts: "{known}"}}'
