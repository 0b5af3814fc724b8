"""
Who listens on an address of a node, and how many connections it has, by `ss`. Pure: text in, text out.

An address is `HOST:PORT` or `unix:/PATH`. A wildcard listener counts for every address of its port.
"""

from __future__ import annotations

from shlex import quote
from typing import NamedTuple

from drainctl.node.shell import Says

MARK = "drainctl-socket"


class Bound(NamedTuple):
    """listening: somebody does. connections: accepted there and still open, idle ones too."""

    listening: bool
    connections: int


def bound(address: str) -> str:
    """A line that prints what `parse` reads."""
    if address.startswith("unix:"):
        return f"{_CHECK}path={quote(address.removeprefix('unix:'))}\n{_UNIX}"
    host, _, port = address.rpartition(":")
    return f"{_CHECK}host={quote(host)}\nport={quote(port)}\n{_TCP}"


def parse(out: str) -> Bound | None:
    """What `bound` printed, wherever it stands in a longer output; None where it is not there."""
    for line in out.splitlines():
        if line.startswith(f"{MARK} "):
            _, listening, connections = line.split()
            return Bound(listening != "0", int(connections))
    return None


_CHECK = f"""\
PATH=$PATH:/usr/sbin:/sbin
command -v ss >/dev/null || {{ echo 'ss (iproute2) is not on this node' >&2; exit {Says.NO_TOOL}; }}
"""

# Without the listeners' own rows of `-a`, whose columns differ: two small questions instead.
_TCP = f"""\
listening=$(ss -Hltn sport = :"$port" | awk -v host="$host" '
  {{ at = $4; sub(/:[0-9]+$/, "", at); gsub(/[][]/, "", at); sub(/%.*/, "", at)
    if (at == host || at == "0.0.0.0" || at == "*" || at == "::") n++ }} END {{ print n + 0 }}')
case $host in localhost) from= ;; *:*) from="and src [$host]" ;; *) from="and src $host" ;; esac
connections=$(ss -Htn state established "sport = :$port $from" | awk 'END {{ print NR }}')
printf '%s %s %s\\n' {MARK} "$listening" "$connections"
"""

# The process on the other side has the same line without a path: only ours is counted.
_UNIX = f"""\
ss -Hxan | awk -v path="$path" '
  $5 == path {{ if ($2 == "LISTEN") l++; else if ($2 == "ESTAB") n++ }}
  END {{ printf "{MARK} %d %d\\n", l, n }}'
"""
