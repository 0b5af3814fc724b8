"""
Who listens on an address of a node, and how many connections it has, by `ss`. Pure: text in, text out.

An address is `HOST:PORT` or `unix:/PATH`. A wildcard listener counts for every address of its port; a name
stands for what the node resolves it to, for every address where it does not.
"""

from __future__ import annotations

import re
from shlex import quote
from typing import NamedTuple

from drainctl.node.shell import Says

MARK = "drainctl-socket"


class Bound(NamedTuple):
    """listening: somebody does. connections: made there and still open, idle ones too."""

    listening: bool
    connections: int


def bound(address: str) -> str:
    """A line that prints what `parse` reads."""
    if address.startswith("unix:"):
        return f"{_CHECK}path={quote(address.removeprefix('unix:'))}\n{_UNIX}"
    name, _, port = address.rpartition(":")
    return f"{_CHECK}hosts={_hosts(name)}\nport={quote(port)}\n{_TCP}"


def _hosts(name: str) -> str:
    """What the shell is to look for: IP addresses, separated by spaces."""
    if name == "localhost":
        return quote("127.0.0.1 ::1")  # whatever the node's /etc/hosts leaves out
    return quote(name.strip("[]")) if _IP.fullmatch(name) else _RESOLVED.format(host=quote(name))


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

_IP = re.compile(r"[0-9.]+|\[[0-9a-fA-F:.]+\]")
_RESOLVED = """$(getent ahosts {host} | awk '{{ print $1 }}' | sort -u | tr '\\n' ' ')"""

# Without the listeners' own rows of `-a`, whose columns differ: two small questions instead.
_TCP = f"""\
from=
for one in $hosts; do
  case $one in *:*) one="[$one]" ;; esac
  from="${{from:+$from or }}src $one"
done
listening=$(ss -Hltn sport = :"$port" | awk -v hosts="$hosts" '
  BEGIN {{ split(hosts, list, " "); for (i in list) ours[list[i]] }}
  {{ at = $4; sub(/:[0-9]+$/, "", at); gsub(/[][]/, "", at); sub(/%.*/, "", at)
    if (hosts == "" || at in ours || at == "0.0.0.0" || at == "*" || at == "::") n++ }}
  END {{ print n + 0 }}')
connections=$(ss -Htn state established "sport = :$port${{from:+ and ( $from )}}" | awk 'END {{ print NR }}')
printf '%s %s %s\\n' {MARK} "$listening" "$connections"
"""

# The process on the other side has the same line without a path: only ours is counted. Who is connected and
# not accepted yet has no line at all; the listener's Recv-Q counts them.
_UNIX = f"""\
ss -Hxan | awk -v path="$path" '
  index($0, " " path " ") {{ if ($2 == "LISTEN") {{ l++; n += $3 }} else if ($2 == "ESTAB") n++ }}
  END {{ printf "{MARK} %d %d\\n", l, n }}'
"""
