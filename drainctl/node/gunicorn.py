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
    first, second: pids of the masters by PIDFILE and PIDFILE.2, None where none lives; a second one is known
    from its start, also while it has no PIDFILE.2 yet. workers: theirs, as `pid:start time`.
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
    """Start a second master (USR2), unless one lives already; prints both pids. Fails where none starts."""
    return f"file={quote(pid_file)}\n{_MASTERS_OF}{_SPAWN}"


def retire(pid_file: str) -> str:
    """While two masters live, end the first gracefully (TERM, never QUIT, which cuts requests)."""
    return f"file={quote(pid_file)}\n{_MASTERS_OF}{_RETIRE}"


def dismiss(pid_file: str) -> str:
    """
    While two masters live, end the second gracefully: the first serves on alone. Where the first was told to
    end already, the second is left: nobody else would serve.
    """
    return f"file={quote(pid_file)}\n{_MASTERS_OF}{_DISMISS}"


def hup(pid_file: str) -> str:
    """Let the master replace its workers; prints `before` and those it has now."""
    return f"file={quote(pid_file)}\n{_MASTERS_OF}{_HUP}"


# master FILE: sets $pid, empty where the file names no living process. masters: sets $first and $second. A
# second master has no pid file before its interpreter runs and (preload_app) the app is loaded; until then
# it is known by GUNICORN_PID, which gunicorn sets for it. At a HUP, and when the second becomes the first,
# gunicorn removes its pid file and writes it anew: that is waited for. workers PID: pid:start of its
# children (a restart of a worker is another start), zombies aside.
_MASTERS_OF = """\
master() {
  pid=
  [ -r "$1" ] && read -r pid <"$1" || pid=
  [ -n "$pid" ] && { read -r stat <"/proc/$pid/stat"; } 2>/dev/null || { pid=; return; }
  case ${stat##*) } in [ZX]*) pid= ;; esac
}
masters() {
  for try in 1 2 3 4 5 6 7 8 9 10; do
    master "$file"; first=$pid
    master "$file.2"; second=$pid
    [ -z "$first$second" ] || break
    sleep 0.05
  done
  [ -n "$first" ] && [ -z "$second" ] || return 0
  for child in $(cat "/proc/$first/task/$first/children" 2>/dev/null); do
    grep -qszx "GUNICORN_PID=$first" "/proc/$child/environ" && second=$child
  done
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
{_MASTERS_OF}masters
printf '%s first %s' {MARK} "${{first:-0}}"; [ -n "$first" ] && workers "$first"
printf '\\n%s second %s' {MARK} "${{second:-0}}"; [ -n "$second" ] && workers "$second"
echo
"""

_SPAWN = """\
masters
[ -n "$first" ] || { echo "gunicorn does not run: $file names no living process" >&2; exit 1; }
[ -n "$second" ] || kill -USR2 "$first" || exit 1
tries=100
until [ -n "$second" ]; do
  tries=$((tries - 1))
  [ $tries -gt 0 ] || { echo "gunicorn $first was sent USR2 and started no second master" >&2; exit 1; }
  sleep 0.02
  masters
done
echo "first $first, second $second"
"""

_RETIRE = """\
masters
[ -n "$first" ] && [ -n "$second" ] || { echo 'one master only'; exit 0; }
kill -TERM "$first" && echo "TERM to $first"
"""

# Masters have but what they listen on in common; descriptors 0 to 2 may be a log's. From TERM on, the first
# one does not listen any more.
_DISMISS = """\
masters
[ -n "$first" ] && [ -n "$second" ] || { echo 'one master only'; exit 0; }
both=$(ls -l "/proc/$first/fd" "/proc/$second/fd" 2>/dev/null | awk '
  /^\\/proc/ { of = $1 }
  $NF ~ /^socket:/ && $(NF - 2) > 2 { if ($NF in by && by[$NF] != of) n++; by[$NF] = of }
  END { print n + 0 }')
[ "$both" -gt 0 ] || { echo "the first, $first, ends already"; exit 0; }
kill -TERM "$second" && echo "TERM to $second"
"""

_HUP = """\
masters
[ -n "$first" ] || { echo "gunicorn does not run: $file names no living process" >&2; exit 1; }
before=$(workers "$first")
kill -HUP "$first" || exit 1
echo "before$before"
"""
