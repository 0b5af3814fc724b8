"""
The fence: what makes a node refuse a controller that another one has replaced. Pure text in, pure text out.

A lease binds whoever looks at its store. A controller that was paused between its look and its act, or one
with a store of its own, does not look. So the node itself remembers the highest token that acted on it, and
`wrap` puts a check in front of a line that changes the node, into the same line: a higher token there, and
the line is not run; a lower one, or none, and ours takes its place.

What lies on a node, below `release.root` (or beside the flag file, where there is no root):

| file | |
|---|---|
| `.drainctl-fence` | a line per rollout that came here, the latest first (`Claim`), ten at most |
| `.drainctl-log` | a line when an act begins, when it ends, and when one is refused; about 64 kB at most |

A line of the log begins with the seconds since the node was booted, whoever sets its clock: `97.31 begin
TOKEN ROLLOUT WHAT`, `97.84 end TOKEN ROLLOUT CODE WHAT`, `99.02 refused TOKEN ROLLOUT WHAT`, and with the
time of day `97.30 raised TOKEN ROLLOUT TIME HOW`.

While a line runs it holds a shared lock on the log; to raise the token the lock must be had alone. So the
first act of a new controller waits for the last one of the old. Where there is no `flock` (util-linux,
busybox) the token is checked and nothing waits. Where this user may not write, the token is read as far as it
can be, and not raised.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from shlex import quote
from typing import NamedTuple

from drainctl.node.shell import SAFE_ID

FENCE, LOG = ".drainctl-fence", ".drainctl-log"
KEPT = 10  # rollouts in the fence file
LOG_MOST, LOG_LINES = 65536, 300  # bytes at which the log is shortened, lines that stay
TICK_S = 0.2  # how often a lock that is held is tried again
SHORT_WAIT_S = 2.0
WHAT_MAX = 100


class Says(IntEnum):
    """Exit codes by which a wrapped line tells that it was not run; stderr names who is there."""

    FENCED = 78
    BUSY = 79


@dataclass(frozen=True, slots=True)
class Fence:
    """
    Who acts on a node, and for what. token, by: of the lease. to: the release that the node is to get. at:
    when this controller came, UTC. steal: a higher token that is there does not count.
    """

    token: int
    rollout: str
    verb: str
    to: str | None
    by: str
    at: str
    steal: bool = False


class Place(NamedTuple):
    """
    Where a node keeps its fence. current: the link to the live release, "" where there is none. had: that
    release itself, where no link tells.
    """

    file: str
    log: str
    current: str = ""
    had: str = ""


class Claim(NamedTuple):
    """One rollout that came to a node. was: the release that the node had when it came; None: not known."""

    token: int
    rollout: str
    at: str
    verb: str
    to: str | None
    was: str | None
    by: str

    def __str__(self) -> str:
        what = f"{self.verb} {self.to}" if self.to else self.verb
        return f"rollout {self.rollout} ({what}) of {self.by} since {self.at}, token {self.token}"


def place(root: str | None, flag: str | None) -> Place | None:
    """Below the root, else beside the flag file under its name; None where a node has neither."""
    if root:
        return Place(f"{root}/{FENCE}", f"{root}/{LOG}", f"{root}/current")
    if flag:
        folder, _, name = flag.rpartition("/")
        return Place(f"{folder}/.{name}{FENCE}", f"{folder}/.{name}{LOG}")
    return None


def wrap(line: str, fence: Fence, at: Place, what: str, wait_s: float = SHORT_WAIT_S) -> str:
    """
    `line`, run only where no higher token is, and with its output and its exit code. what: names it in the
    log. wait_s: how long an act that still runs there is waited for, where ours is the first of its token.

    Ends with Says.FENCED or Says.BUSY where the line was not run; `refused` reads why.
    """
    values = {
        "file": at.file,
        "log": at.log,
        "current": at.current,
        "had": at.had,
        "token": str(fence.token),
        "rollout": fence.rollout,
        "head": " ".join([fence.at, fence.verb, fence.to or "-"]),
        "by": " ".join(fence.by.split()) or "-",
        "steal": "yes" if fence.steal else "",
        "tries": str(max(1, round(wait_s / TICK_S))),
        "what": " ".join(what.split())[:WHAT_MAX],
    }
    given = "".join(f"fence_{name}={quote(value)}\n" for name, value in values.items())
    return f"{given}{_CHECK}(\n{line}\n) 9>&-\n{_END}"


def claim(fence: Fence, at: Place, wait_s: float) -> str:
    """A line that raises the token and does nothing else; prints what `parse_claimed` reads."""
    return wrap(f'echo "{_CLAIMED} $fence_is"', fence, at, "claim", wait_s)


def parse_claimed(out: str) -> str:
    """How it went, in words: "raised", "held", "stolen from …" or "not raised …"."""
    lines = [line for line in out.splitlines() if line.startswith(f"{_CLAIMED} ")]
    return lines[-1].removeprefix(f"{_CLAIMED} ") if lines else "not raised"


def refused(code: int, err: str) -> str | None:
    """Why a wrapped line was not run, in words; None where it was."""
    if code not in {Says.FENCED, Says.BUSY}:
        return None
    for line in err.splitlines():
        word, _, rest = line.partition(" ")
        if word == _FENCED and code == Says.FENCED:
            there = parse_line(rest)
            return f"{there} has taken it over" if there else f"its fence says: {rest[:200]}"
        if word == _BUSY and code == Says.BUSY:
            return f"an act of another controller still runs on it: {rest[:200]}"
    return None


def look(at: Place) -> str:
    """A line that prints the fence file, for `parse`. No file is an empty one."""
    return f"cat -- {quote(at.file)} 2>/dev/null || :"


def parse(text: str) -> tuple[Claim, ...]:
    """The rollouts that came to a node, the latest first; lines that say nothing are left out."""
    return tuple(found for line in text.splitlines() if (found := parse_line(line)))


def parse_line(line: str) -> Claim | None:
    """One line of the fence file."""
    found = _LINE.fullmatch(line.strip())
    if not found:
        return None
    token, rollout, at, verb, to, was, by = found.groups()
    return Claim(int(token), rollout, at, verb, _known(to), _known(was), by)


def _known(release: str) -> str | None:
    return release if SAFE_ID.fullmatch(release) else None  # "-" is none


_CLAIMED, _FENCED, _BUSY = "drainctl-claimed", "drainctl-fenced", "drainctl-busy"
_LINE = re.compile(r"(\d{1,18}) (\S+) (\S+) (\S+) (\S+) (\S+) (.+)")

# What is ours is named fence_…: the line that follows may be a user's, and must find the rest as it was. The
# lock is held by descriptor 9, which the line does not get: a daemon that it starts would hold it for ever.
# `flock -n` in a loop, since busybox has no -w; a failed try lets go of the shared lock, so two that raise
# at the same time do not block each other. A token that was on top and is no more was stolen: for good.
_CHECK = f"""\
fence_say() {{
  [ -n "$fence_open" ] || return 0
  fence_up=-; read -r fence_up fence_idle < /proc/uptime
  printf '%s %s %s\\n' "$fence_up" "$1" "$2" >&9
}} 2>/dev/null
fence_read() {{
  fence_there=; fence_of=; fence_rest=
  {{ read -r fence_there fence_of fence_rest < "$fence_file"; }} 2>/dev/null
  case $fence_there in '' | *[!0-9]*) fence_there=0; fence_of= ;; esac
}}
fence_refuse() {{
  fence_say refused "$fence_token $fence_rollout $fence_what"
  echo "{_FENCED} $fence_there $fence_of $fence_rest" >&2; exit {Says.FENCED}
}}
fence_ours() {{
  [ "$fence_there" -ge "$fence_token" ] || return 1
  [ "$fence_there" = "$fence_token" ] && [ "$fence_of" = "$fence_rollout" ] && return 0
  [ -n "$fence_steal" ] && return 1
  fence_refuse
}}
fence_alone() {{
  until flock -n -x 9; do
    fence_tries=$((fence_tries - 1))
    if [ "$fence_tries" -le 0 ]; then
      echo "{_BUSY} $(grep ' begin ' "$fence_log" | tail -n 1)" >&2; exit {Says.BUSY}
    fi
    sleep {TICK_S}
  done
}}
fence_write() {{
  fence_was=-
  set -f; set -- $(grep -F -m 1 -- " $fence_rollout " "$fence_file" 2>/dev/null); set +f
  if [ $# -ge 6 ]; then fence_was=$6
  elif [ -n "$fence_had" ]; then fence_was=$fence_had
  elif [ -n "$fence_current" ]; then
    fence_was=$(readlink -- "$fence_current"); fence_was=${{fence_was%/}}; fence_was=${{fence_was##*/}}
  fi
  ( umask 022
    {{ printf '%s %s %s %s %s\\n' "$fence_token" "$fence_rollout" "$fence_head" "${{fence_was:--}}" \\
        "$fence_by" &&
      {{ grep -v -F -- " $fence_rollout " "$fence_file" 2>/dev/null | head -n {KEPT - 1}; }}
    }} > "$fence_file.$$" && mv -f -- "$fence_file.$$" "$fence_file"
  ) 2>/dev/null || {{ rm -f -- "$fence_file.$$"; return 1; }}
}}
fence_shorten() {{
  [ "$(wc -c < "$fence_log")" -gt {LOG_MOST} ] || return 0
  tail -n {LOG_LINES} -- "$fence_log" > "$fence_log.$$" && cat -- "$fence_log.$$" > "$fence_log"
  rm -f -- "$fence_log.$$"
}}
fence_raise() {{
  [ -z "$fence_lock" ] || fence_alone
  fence_read
  if ! fence_ours; then
    if [ -z "$fence_steal" ] && grep -q "^$fence_token $fence_rollout " "$fence_file" 2>/dev/null
    then fence_refuse; fi
    fence_is=raised
    [ "$fence_there" -lt "$fence_token" ] || fence_is="stolen from $fence_there $fence_of $fence_rest"
    if fence_write; then
      fence_shorten
      fence_say raised "$fence_token $fence_rollout $(date -u +%Y-%m-%dT%H:%M:%SZ) $fence_is"
    else fence_is="not raised: $fence_file cannot be written"; fi
  fi
  [ -z "$fence_lock" ] || flock -s 9
  case $fence_is in not*) return 1 ;; esac
}}
fence_open=; fence_lock=; fence_is=held
if [ -w "$fence_log" ] || ( : >> "$fence_log" ) 2>/dev/null; then
  exec 9>>"$fence_log"; fence_open=yes
  command -v flock >/dev/null && flock -s 9 2>/dev/null && fence_lock=yes
fi
fence_read
until fence_ours; do fence_raise || break; fence_read; done
fence_say begin "$fence_token $fence_rollout $fence_what"
"""

_END = """\
fence_code=$?
fence_say end "$fence_token $fence_rollout $fence_code $fence_what"
exit $fence_code
"""
