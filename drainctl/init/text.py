"""A Draft → the text of a drainctl.yml: a comment on what was found, a mark on what is to be set. Pure."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from drainctl.init.draft import BalancerLine, Draft, Known, NodeLine

MARK = "SET THIS"
WIDTH = 100
PLAIN = re.compile(r"(?:unix:)?[A-Za-z_/][A-Za-z0-9_./-]*|\d+\.\d+\.\d+\.\d+")
YAML_WORDS = {"y", "yes", "n", "no", "on", "off", "true", "false", "null"}


def yaml(text: str) -> str:
    """A scalar: plain where YAML cannot take it for something else. `${` is kept from drainctl."""
    plain = PLAIN.fullmatch(text) and text.lower() not in YAML_WORDS
    return text if plain else json.dumps(text.replace("${", "$${"), ensure_ascii=False)


def write(draft: Draft) -> str:
    """The whole file."""
    return "\n".join(
        [
            *_head(draft),
            "",
            f"app: {yaml(draft.app)}",
            "",
            *_balancers(draft.balancers),
            "",
            *_backends(draft),
            *_nodes(draft),
            "",
            *_connect(draft),
            "",
            *_service(draft),
            "",
            *_health(draft),
            "",
            *_checks(draft.checks),
            *_policies(draft),
            "",
        ]
    )


def marks(text: str) -> list[tuple[int, str]]:
    """Every line to set: its number, and what it says."""
    found: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if f"# {MARK}: " in line:
            found.append((number, line.partition(f"# {MARK}: ")[2]))
    return found


def comment(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=f"{indent}# ",
        subsequent_indent=f"{indent}# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def mark(text: str, indent: str = "") -> list[str]:
    """The mark stands on one line, so that it can be listed by its number."""
    return [f"{indent}# {MARK}: {text}"]


def _head(draft: Draft) -> Iterator[str]:
    source = ", ".join(dict.fromkeys(draft.files.values())) or "answers"
    yield from comment(f"Written by `drainctl init` from {source}.")
    yield from comment(
        f"{MARK} above a line: it could not be known. A comment with a file and a number: that line of it "
        f"says so. Every key is in docs/configuration.md. Next: `drainctl doctor`."
    )
    for warning in draft.warnings:
        yield from comment(f"! {warning}")


def _balancers(lines: Sequence[BalancerLine]) -> Iterator[str]:
    yield "balancers:"
    for line in lines:
        balancer = line.balancer
        keys = {
            "runtime": yaml(balancer.runtime) if balancer.runtime else "",
            "master": yaml(balancer.master) if balancer.master else "",
            "stats": yaml(balancer.stats) if balancer.stats else "",
            "auth": json.dumps(balancer.auth.value) if balancer.auth else "",
        }
        if line.why:
            yield from comment(line.why, "  ")
        if line.set_this:
            yield from mark(line.set_this, "  ")
        yield f"  {yaml(balancer.name)}: {_flow(keys)}"


def _flow(keys: Mapping[str, str]) -> str:
    """`{a: b, c: d}` of the keys that have a value, which is YAML already."""
    return "{" + ", ".join(f"{key}: {value}" for key, value in keys.items() if value) + "}"


def _backends(draft: Draft) -> Iterator[str]:
    if draft.others:
        yield from comment(f"Not this app, no server in common: {'; '.join(draft.others)}.")
    yield f"backends: [{', '.join(yaml(name) for name in draft.backends)}]"
    yield ""


def _nodes(draft: Draft) -> Iterator[str]:
    if draft.match == "address":
        yield from comment(
            "A node is found in HAProxy by its address, since names differ between backends or move."
        )
        yield "match: address"
    yield from comment("A rollout takes them in this order.")
    yield "nodes:"
    for node in draft.nodes:
        if node.set_this:
            yield from mark(node.set_this, "  ")
        if node.out:
            yield f"  # {node.name} is left out, {node.out}:"
        yield f"  {'# ' if node.out else ''}{_node(node)}"


def _node(node: NodeLine) -> str:
    own = ", ".join(f"{name}: {yaml(value)}" for name, value in node.vars.items())
    keys = {"host": yaml(node.host), "server": yaml(node.server) if node.server else ""}
    return f"{yaml(node.name)}: {_flow({**keys, 'vars': f'{{{own}}}' if own else ''})}  # {node.why}"


def _connect(draft: Draft) -> Iterator[str]:
    if draft.local:
        yield from comment("Every node is on this machine: commands run here, without SSH.")
        yield "connect: {via: local}"
        return
    yield from mark("the SSH user; key and known_hosts, unless ssh_config and the agent have them")
    yield "connect: {via: ssh}"


def _service(draft: Draft) -> Iterator[str]:
    if draft.root and draft.restart:
        yield f"release: {{root: {yaml(draft.root)}, keep: 5}}"
        yield f"service: {{restart: {yaml(draft.restart)}}}"
        return
    yield from mark("where releases live on a node, and the command that restarts the app; then take away #")
    yield f"# release: {{root: {yaml(f'/srv/{draft.app}')}, keep: 5}}"
    yield f"# service: {{restart: sudo systemctl restart {draft.app}}}"


def _health(draft: Draft) -> Iterator[str]:
    yield "health:"
    if draft.check.why:
        yield from comment(draft.check.why, "  ")
    if draft.check.set_this:
        yield from mark(draft.check.set_this, "  ")
    yield f"  check: {yaml(draft.check.value)}"
    if not draft.flag:
        yield from mark("the file that makes this page answer 404 while it exists (docs/nodes.md)", "  ")
    yield f"  flag: {yaml(draft.flag or f'/srv/{draft.app}/shared/drain')}"
    if not draft.ready:
        yield from mark("a page that answers 200 when the app can serve, flag or no flag", "  ")
    yield f"  ready: {yaml(draft.ready or draft.site + '/')}"
    yield from comment("A page whose body is the release's id proves that the new release answers:", "  ")
    yield f"  # version: {yaml(draft.site + '/version')}"


def _checks(checks: Mapping[str, Known]) -> Iterator[str]:
    yield from comment("HAProxy's check settings; what is not here is HAProxy's default.")
    if not checks:
        yield "checks: {}"
        return
    yield "checks:"
    for key, known in checks.items():
        yield f"  {key}: {known.value}  # {known.why}"


def _policies(draft: Draft) -> Iterator[str]:
    yield ""
    yield from comment("drainctl's own: change what you like.")
    yield "rollout: {at_once: 1, keep_up: 50%, max_failed: 0, on_failure: roll-back}"
    if draft.sticky:
        yield from comment(draft.sticky.why)
    sticky = draft.sticky.value if draft.sticky else "wait"
    yield f"drain: {{limit: 60s, then: fallback, sticky: {sticky}}}"
    yield f"watch: {{for: {draft.watch_s}s, errors: 0}}"
