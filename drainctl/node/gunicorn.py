"""
gunicorn's own ways to take a new release, as command lines. Pure: text in, text out.

A master is known by its pid file. USR2 makes it start a second master, which writes `PIDFILE.2` and renames
that to PIDFILE when the first has ended. Source: gunicorn docs, "Upgrading to a new binary on the fly".
"""

from __future__ import annotations

from shlex import quote
from typing import NamedTuple

MARK = "drainctl-gunicorn"


class Masters(NamedTuple):
    """
    first, second: pids of the masters by PIDFILE and PIDFILE.2, None where none lives. workers: theirs, as
    `pid:start time`.
    """

    first: int | None
    second: int | None
    workers: tuple[frozenset[str], frozenset[str]]


def masters(pid_file: str) -> str:
    """A line that prints what `parse` reads."""
    return f"file={quote(pid_file)}\n{_MASTERS}"


def parse(out: str) -> Masters | None:
    """What `masters` printed, wherever it stands in a longer output; None where it is not there."""
    found: dict[str, tuple[int | None, frozenset[str]]] = {}
    for line in out.splitlines():
        if line.startswith(f"{MARK} "):
            _, which, pid, *workers = line.split()
            found[which] = (int(pid) or None, frozenset(workers))
    if found.keys() != {"first", "second"}:
        return None
    (first, old), (second, new) = found["first"], found["second"]
    # The second master was forked by the first, so it is among its children.
    mine = frozenset(worker for worker in old if worker.partition(":")[0] != str(second))
    return Masters(first, second, (mine, new))


def spawn(pid_file: str) -> str:
    """Start a second master (USR2), unless one lives already; prints the pid of the first."""
    return f"file={quote(pid_file)}\n{_MASTERS_OF}{_SPAWN}"


def retire(pid_file: str) -> str:
    """While two masters live, end the first gracefully (TERM, never QUIT, which cuts requests)."""
    return f"file={quote(pid_file)}\n{_MASTERS_OF}{_RETIRE}"


def dismiss(pid_file: str) -> str:
    """While two masters live, end the second gracefully: the first serves on alone."""
    return f"file={quote(pid_file)}\n{_MASTERS_OF}{_DISMISS}"


def hup(pid_file: str) -> str:
    """Let the master replace its workers; prints `before` and those it has now."""
    return f"file={quote(pid_file)}\n{_MASTERS_OF}{_HUP}"


# master FILE: sets $pid, empty where the file names no living process. workers PID: pid:start of its
# children (a restart of a worker is another start), zombies aside.
_MASTERS_OF = """\
master() {
  pid=
  [ -r "$1" ] && read -r pid <"$1" || pid=
  [ -n "$pid" ] && { read -r stat <"/proc/$pid/stat"; } 2>/dev/null || { pid=; return; }
  case ${stat##*) } in [ZX]*) pid= ;; esac
}
workers() {
  for child in $(cat "/proc/$1/task/$1/children" 2>/dev/null); do
    { read -r stat <"/proc/$child/stat"; } 2>/dev/null || continue
    set -- "$1" ${stat##*) }
    case $2 in [ZX]) ;; *) printf ' %s:%s' "$child" "${21}" ;; esac
  done
}
"""

_MASTERS = f"""\
{_MASTERS_OF}master "$file"; first=$pid
master "$file.2"; second=$pid
printf '%s first %s' {MARK} "${{first:-0}}"; [ -n "$first" ] && workers "$first"
printf '\\n%s second %s' {MARK} "${{second:-0}}"; [ -n "$second" ] && workers "$second"
echo
"""

_SPAWN = """\
master "$file"; first=$pid
[ -n "$first" ] || { echo "gunicorn does not run: $file names no living process" >&2; exit 1; }
master "$file.2"
[ -n "$pid" ] || kill -USR2 "$first" || exit 1
echo "first $first"
"""

_RETIRE = """\
master "$file"; first=$pid
master "$file.2"
[ -n "$first" ] && [ -n "$pid" ] || { echo 'one master only'; exit 0; }
kill -TERM "$first" && echo "TERM to $first"
"""

_DISMISS = """\
master "$file"; first=$pid
master "$file.2"
[ -n "$first" ] && [ -n "$pid" ] || { echo 'one master only'; exit 0; }
kill -TERM "$pid" && echo "TERM to $pid"
"""

_HUP = """\
master "$file"
[ -n "$pid" ] || { echo "gunicorn does not run: $file names no living process" >&2; exit 1; }
before=$(workers "$pid")
kill -HUP "$pid" || exit 1
echo "before$before"
"""
