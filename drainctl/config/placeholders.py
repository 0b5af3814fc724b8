"""
Placeholders in commands, paths and URLs: `{host} {node} {port} {release} {root}` and a node's own `vars`.

Only a name in bare braces is one: `{host}`. The shell's `${x}`, awk's `{print $1}` and a template's
`{{.State}}` stay as they are; `{{host}}` is a literal `{host}`.

| placeholder | what it is |
|-------------|------------|
| {node}      | the node's name |
| {host}      | nodes.NODE.host |
| {port}      | nodes.NODE.port, else connect.port; unknown where neither is set |
| {root}      | release.root, its own placeholders filled in; unknown where there is no `release` |
| {release}   | id of the release that the node is to get; in service.restart only |
| {text}      | the flag's text, quoted for the shell; in health.flag.set |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from drainctl.config.expand import Expanded, shown
from drainctl.errors import ConfigError
from drainctl.model import Cluster, Node

OWN = ("host", "node", "port", "release", "root")
BRACES = re.compile(
    r"(?P<shell>\$\{[^}]*\})|\{\{(?P<literal>[A-Za-z_][A-Za-z0-9_]*)\}\}|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)\}"
)


def names_in(template: str) -> list[str]:
    """The placeholders of a template, in order."""
    return [found["name"] for found in BRACES.finditer(template) if found["name"]]


def listed(names: Iterable[str]) -> str:
    """Placeholders as a message lists them: `{host} {node}`."""
    return " ".join(f"{{{name}}}" for name in names)


def fill(template: str, values: Mapping[str, str]) -> str:
    """
    The template with every placeholder replaced; values are taken as they are, without quoting.

    What came from the environment is hidden in the repr of the outcome, as it is in that of its parts.

    Raises: ConfigError for a name that `values` does not have.
    """
    if "{" not in template:
        return template
    for name in names_in(template):
        if name not in values:
            raise ConfigError(
                f"found {{{name}}} in {shown(template)}, expected one of {listed(values)}",
                hint=f"write {{{{{name}}}}} for a literal {{{name}}}",
            )
    filled = _put(template, values)
    safe = _put(shown(template), {name: shown(value) for name, value in values.items()})
    return filled if filled == safe else Expanded(filled, safe)


def _put(template: str, values: Mapping[str, str]) -> str:
    def one(found: re.Match[str]) -> str:
        if found["name"]:
            return values.get(found["name"], found[0])
        return f"{{{found['literal']}}}" if found["literal"] else found[0]

    return BRACES.sub(one, template)


def values_of(cluster: Cluster, node: Node, release: str | None) -> dict[str, str]:
    """What the placeholders are on one node; `release` is missing where none is given."""
    values = {"host": node.host, "node": node.name}
    port = node.port or cluster.connect.port
    if port:
        values["port"] = str(port)
    values |= node.vars
    if cluster.release:
        values["root"] = fill(cluster.release.root, values)
    if release is not None:
        values["release"] = release
    return values
