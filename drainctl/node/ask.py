"""
One process of a node asked on the node itself, past nginx and the balancers. Pure: text in, text out.

HTTP over TCP or a unix socket needs `curl` or `python3` on the node. A process that speaks something else
is asked by a command of the user's, whose output is the body and whose exit code 0 is a 200.
"""

from __future__ import annotations

from collections.abc import Sequence
from shlex import quote
from typing import NamedTuple

from drainctl.model import Answer, WarmUp
from drainctl.node.shell import Says

MARK = "drainctl-answer"


class Process(NamedTuple):
    """
    How a process is reached. address: `HOST:PORT` or `unix:/PATH`. host: what `Host:` says to it. command:
    for each path the command line that asks for it, where it does not speak HTTP; else None.
    """

    address: str
    host: str
    commands: tuple[tuple[str, str], ...] = ()

    def command(self, path: str) -> str | None:
        return dict(self.commands).get(path)


def ask(process: Process, paths: Sequence[str], limit_s: float) -> str:
    """A line that asks for each of `paths`, and prints what `parse` reads. It exits 0 whatever it gets."""
    if not process.commands and paths:
        return _line(process, limit_s, f"each {' '.join(map(quote, paths))}\n")
    return _line(process, limit_s, "".join(f"{_once(process, path)}\nsay\n" for path in paths))


def parse(out: str) -> list[Answer]:
    """The answers that `ask` printed, in order; one that is missing was not reached."""
    found, body = [], []
    for line in out.splitlines():
        if not line.startswith(f"{MARK} "):
            body.append(line)
            continue
        _, status, took_s = line.split(" ", 2)
        code = int(status) if status.isdigit() and int(status) else None
        error = None if code else "no answer"
        found.append(Answer(code, "\n".join(body).rstrip("\n"), float(took_s), error))
        body = []
    return found


def warm(process: Process, pages: Sequence[WarmUp], limit_s: float) -> str:
    """
    A line that warms the process up: each page `times` times, or until one answer was quick enough.

    Prints what was done; exits 1, saying why on stderr, at the first answer of 500 or more, at none, or
    where no answer was quick enough.
    """
    return _line(process, limit_s, "".join(_WARM.format(**_page(process, page)) for page in pages))


def _page(process: Process, page: WarmUp) -> dict[str, str]:
    return {
        "path": quote(page.path),
        "times": str(page.times),
        "most_ms": str(round(page.under_s * 1000)) if page.under_s is not None else "0",
        "once": _once(process, page.path),
    }


def _once(process: Process, path: str) -> str:
    command = process.command(path)
    return f"http {quote(path)}" if command is None else f"by_command {quote(command)}"


def _line(process: Process, limit_s: float, body: str) -> str:
    unix = process.address.removeprefix("unix:") if process.address.startswith("unix:") else ""
    values = {
        "unix": unix,
        "address": "localhost" if unix else process.address,
        "host": process.host,
        "limit": f"{limit_s:g}",
    }
    given = "".join(f"{name}={quote(value)}\n" for name, value in values.items())
    return f"LC_ALL=C; export LC_ALL\n{given}{_ASK}{body}"


# `http PATH` and `by_command LINE` set $body, $status (0: no answer) and $took (seconds); `say` prints them.
# `each PATH …` asks for them all and says so, by one curl: starting one takes longer than an answer does.
_ASK = f"""\
each() {{
  if command -v curl >/dev/null; then
    for path; do set -- "$@" "http://$address$path"; shift; done
    curl -sg --http1.1 --max-time "$limit" ${{unix:+--unix-socket "$unix"}} -H "Host: $host" \
      -w '\n{MARK} %{{http_code}} %{{time_total}}\n' -- "$@" || :
  else for path; do http "$path"; say; done; fi
}}
http() {{
  if command -v curl >/dev/null; then
    got=$(curl -sg --http1.1 --max-time "$limit" ${{unix:+--unix-socket "$unix"}} -H "Host: $host" \\
      -w '\\n%{{http_code}} %{{time_total}}' -- "http://$address$1")
  elif command -v python3 >/dev/null; then
    got=$(python3 -c "$by_python" "$unix" "$address" "$host" "$1" "$limit")
  else echo 'neither curl nor python3 is on this node' >&2; exit {Says.NO_TOOL}; fi
  [ -n "$got" ] || got="
0 0"
  last=${{got##*
}}
  body=${{got%
*}}
  status=${{last% *}} took=${{last#* }}
}}
by_command() {{
  began=$(date +%s%N)
  if body=$(sh -c "$1" </dev/null); then status=200; else status=0; fi
  took=$(( ($(date +%s%N) - began) / 1000000 ))
  took=$((took / 1000)).$(printf %03d $((took % 1000)))
}}
say() {{ printf '%s\\n{MARK} %s %s\\n' "$body" "$status" "$took"; }}
by_python='
import http.client, socket, sys, time
unix, address, host, path, limit = sys.argv[1:]
class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(unix)
began, status, body = time.monotonic(), 0, b""
try:
    door = (Unix if unix else http.client.HTTPConnection)(address, timeout=float(limit))
    door.request("GET", path, headers={{"Host": host, "Connection": "close"}})
    answer = door.getresponse()
    status, body = answer.status, answer.read(4096)
except (OSError, http.client.HTTPException):
    pass
sys.stdout.write("%s\\n%03d %.6f\\n" % (body.decode("utf-8", "replace"), status, time.monotonic() - began))
'
"""

_WARM = """\
asked=0
while [ "$asked" -lt {times} ]; do
  {once}
  asked=$((asked + 1))
  case $status in
    [1-4]??) ;;
    *) printf 'GET %s answers %s\\n' {path} "$status" >&2; exit 1 ;;
  esac
  ms=${{took%.*}}$(printf %.3s "${{took#*.}}000")
  ms=${{ms#"${{ms%%[!0]*}}"}}
  [ {most_ms} -gt 0 ] && [ "${{ms:-0}}" -le {most_ms} ] && break
done
if [ {most_ms} -gt 0 ] && [ "${{ms:-0}}" -gt {most_ms} ]; then
  printf 'GET %s still takes %s ms after %s asks, under = {most_ms} ms\\n' {path} "$ms" "$asked" >&2; exit 1
fi
printf '%s × %s, last %s ms; ' {path} "$asked" "${{ms:-0}}"
"""
