"""
What is done to nginx on a node, as command lines for /bin/sh, and what they print, read: pure text.

They follow drainctl.node.shell: one round trip each, values as variables on top, constant text below. What
they need: a POSIX shell, /proc, `cmp`, `cp -p`, `mv -T`; for ports and for the connections of old workers,
`ss` and `awk`. They run as any user that may write in the upstream file's folder; looking needs no rights.

Workers are told apart by PID:STARTTICKS (/proc/PID/stat, field 22), since pids come again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from enum import IntEnum
from typing import NamedTuple

from drainctl.node.shell import after, line

TEXT_MAX = 32768  # bytes of an upstream file: a transport keeps the last 64 kB of what a line prints


class Says(IntEnum):
    """Exit codes by which the lines tell a refusal from a command that failed; stderr says more."""

    TEST_FAILED = 80  # the configuration test failed; the old file is back
    NO_NGINX = 81  # the pid file does not lead to a running nginx
    NO_WORKERS = 82  # nginx runs, but its workers cannot be seen
    NO_FOLDER = 83  # the upstream file's folder is missing, or this user may not enter or change it
    UNREADABLE = 84  # the upstream file is there, but cannot be read, or is far too long
    RELOAD_FAILED = 85  # the reload command failed


class Worker(NamedTuple):
    """
    One worker process of nginx.

    age_s: since the process started, not since it was told to stop. stopping: it accepts nothing any more
    and ends with its last connection. connections: TCP connections that it holds, to clients and to the
    app together; None where it is not stopping or where this user cannot see them.
    """

    pid: int
    age_s: int
    stopping: bool
    connections: int | None = None
    started: int = 0

    @property
    def id(self) -> str:
        """PID:STARTTICKS."""
        return f"{self.pid}:{self.started}"


class NginxLook(NamedTuple):
    """
    What `inspect` showed. file_text: the upstream file's, None where there is none. master: pid of the
    running master, None with `trouble` saying why. listeners: {port: who listens there}, ports with nobody
    left out; None where `ss` is not on the node.
    """

    file_text: str | None
    master: int | None
    workers: tuple[Worker, ...]
    listeners: Mapping[int, str] | None
    trouble: str | None = None


def inspect(file: str, pid_file: str, ports: Collection[int]) -> str:
    """
    One look at all of it, for `parse_inspect`: the upstream file, nginx's processes, and who has the ports.
    A stopped nginx and a missing file are no failures. Fails with Says.NO_FOLDER, Says.UNREADABLE.
    """
    among = " or ".join(f"sport = :{port}" for port in ports)
    return line(_INSPECT, file=file, pid_file=pid_file, before="", ports=among)


def parse_inspect(out: str, address: str | None = None) -> NginxLook:
    """
    What `inspect` printed; lines before it do not matter. With `address`, an IP address, listeners on other
    addresses of the node are left out.
    """
    head, found, text = after(out, "drainctl-nginx").partition("file\n")
    master, trouble = None, None
    listeners: dict[int, str] = {}
    for word, rest in _words(head):
        if word == "master":
            master = int(rest)
        elif word == "trouble":
            trouble = rest
        elif word == "listen" and (one := _listener(rest, address)):
            port, who = one
            listeners[port] = f"{listeners[port]}, {who}" if port in listeners else who
    seen = "ports seen\n" in head
    return NginxLook(text if found else None, master, _workers(head), listeners if seen else None, trouble)


def put(file: str, text: str, test: str) -> str:
    """
    Makes `text` the file's whole text, if `test` (a command line) then succeeds; prints "written", or
    "already" where the file had that text and only the test was run.

    Killed at any point, the file is the old one or the new one, whole. When the test fails the old file is
    put back (removed where there was none): Says.TEST_FAILED, with the test's words on stderr. A link is
    followed; mode and owner are kept as far as this user may. Fails with Says.NO_FOLDER too.
    """
    return line(_PUT, file=file, text=text, test=test)


def reload(pid_file: str, command: str) -> str:
    """
    Prints which workers serve now, for `parse_before`, then runs `command`; its output goes to stderr.
    Fails with Says.NO_NGINX, Says.NO_WORKERS (the command was not run) or Says.RELOAD_FAILED. Success says
    that the command succeeded, not that nginx took anything up.
    """
    return line(_RELOAD, pid_file=pid_file, before="", command=command)


def parse_before(out: str) -> tuple[str, ...]:
    """The ids of the workers that served before the reload; () where its line is not in `out`."""
    lines = [rest for word, rest in _words(out) if word == "before"]
    return tuple(lines[-1].split()) if lines else ()


def workers(pid_file: str, before: Collection[str] = ()) -> str:
    """
    Prints nginx's workers for `parse_workers`; also those of `before` that live on under another parent
    (an nginx that was replaced whole). Fails with Says.NO_NGINX, Says.NO_WORKERS.
    """
    return line(_WORKERS, pid_file=pid_file, before=" ".join(before))


def parse_workers(out: str) -> tuple[Worker, ...]:
    """The workers that `workers` printed, those that serve and those that are stopping."""
    return _workers(after(out, "drainctl-workers"))


def replaced(before: Collection[str], now: Sequence[Worker]) -> bool:
    """
    Whether every worker of `before` accepts nothing any more: it is stopping or gone, and there is another
    that serves. False where `before` is empty: then nothing is known.
    """
    serving = {worker.id for worker in now if not worker.stopping}
    return bool(before) and bool(serving) and serving.isdisjoint(before)


def stopping(now: Sequence[Worker]) -> tuple[Worker, ...]:
    """The workers that still end their connections, oldest first."""
    return tuple(sorted((one for one in now if one.stopping), key=lambda one: one.started))


def _words(text: str) -> list[tuple[str, str]]:
    parts = (line.partition(" ") for line in text.splitlines())
    return [(word, rest) for word, _, rest in parts]


_WORKER = re.compile(r"(\d+):(\d+) (-?\d+) (serving|stopping) (\d+|-)")


def _workers(text: str) -> tuple[Worker, ...]:
    found = [_WORKER.fullmatch(rest) for word, rest in _words(text) if word == "worker"]
    return tuple(
        Worker(int(one[1]), max(0, int(one[3])), one[4] == "stopping", _count(one[5]), int(one[2]))
        for one in found
        if one
    )


def _count(text: str) -> int | None:
    return None if text == "-" else int(text)


_PROCESS = re.compile(r'\("((?:[^"\\]|\\.)*)",pid=(\d+)')


def _listener(row: str, address: str | None) -> tuple[int, str] | None:
    """One row of `ss -Hltnp` as (port, who): `gunicorn (pid 12) on 127.0.0.1`."""
    columns = row.split(None, 5)
    if len(columns) < 5:
        return None
    host, _, port = columns[3].rpartition(":")
    host = host.partition("%")[0].strip("[]")
    literal = address is not None and re.fullmatch(r"[0-9.]+|[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", address)
    if not port.isdigit() or (literal and host not in {address, "0.0.0.0", "*", "::"}):  # noqa: S104  read, not bound
        return None
    names: dict[str, list[str]] = {}
    for name, pid in _PROCESS.findall(columns[5] if len(columns) > 5 else ""):
        names.setdefault(name, []).append(pid)
    who = ", ".join(f"{name} (pid {' '.join(sorted(set(pids), key=int))})" for name, pids in names.items())
    return int(port), f"{who or 'a process that this user cannot see'} on {host}"


# Only the shell's own means: no process is started to look at processes, except for the connections of old
# workers; those are found by inode, since `ss -p` would look at every process of the node. Who may not
# follow a worker's descriptors gets a "-". `read` drops the NULs of cmdline; without a newline it fails, and
# has read all the same. A tick is 1/100 s on every Linux that nginx is packaged for. A worker's title
# changes before it stops accepting, in one go: no request comes between.
_LOOK = f"""\
PATH=$PATH:/usr/sbin:/sbin
title() {{ title=; {{ read -r title < "/proc/$1/cmdline"; }} 2>/dev/null; [ -n "$title" ]; }}
find_master() {{
  master=; trouble=
  {{ read -r master < "$pid_file"; }} 2>/dev/null
  case $master in
    '' | *[!0-9]*)
      if [ ! -e "$pid_file" ]; then trouble="there is no $pid_file"
      elif [ ! -r "$pid_file" ]; then trouble="this user may not read $pid_file"
      else trouble="$pid_file holds no process id"; fi ;;
    *)
      if ! title "$master"; then
        trouble="process $master of $pid_file does not run, or this user cannot see it"
      else
        case $title in
          'nginx: master process'*) return 0 ;;
          *) trouble="process $master of $pid_file is no nginx master but: $title" ;;
        esac
      fi ;;
  esac
  master=; return 1
}}
need_master() {{
  find_master && return
  echo "nginx is not running: $trouble" >&2; exit {Says.NO_NGINX}
}}
find_workers() {{
  children=; serving=; old=; found=
  {{ read -r children < "/proc/$master/task/$master/children"; }} 2>/dev/null
  read -r up rest < /proc/uptime
  for pid in $children $before; do
    id=$pid; pid=${{pid%:*}}
    title "$pid" || continue
    case $title in
      'nginx: worker process is shutting down'*) state=stopping ;;
      'nginx: worker process'*) state=serving ;;
      *) continue ;;
    esac
    {{ read -r stat < "/proc/$pid/stat"; }} 2>/dev/null || continue
    set -- ${{stat##*") "}}
    case $id in *:*) [ "$id" = "$pid:${{20}}" ] || continue ;; esac
    id=$pid:${{20}}
    case " $found " in *" $id "*) continue ;; esac
    found="$found $id"
    if [ $state = serving ]; then serving="$serving $id"; else old="$old $id"; fi
  done
}}
need_workers() {{
  find_workers
  [ -n "$serving$old" ] && return
  echo "the workers of nginx (master $master) cannot be seen in /proc/$master/task/$master/children" >&2
  exit {Says.NO_WORKERS}
}}
tell() {{ echo "worker $1 $((${{up%.*}} - ${{1#*:}} / 100)) $2 $3"; }}
tell_workers() {{
  for id in $serving; do tell "$id" serving -; done
  [ -n "$old" ] || return 0
  paths=; held=
  for id in $old; do paths="$paths /proc/${{id%:*}}/fd/*"; done
  command -v ss >/dev/null && held=$(
    {{ ls -ld $paths; ss -Htne state established state close-wait; }} 2>/dev/null | awk '
      match($0, "/proc/[0-9]+/fd/") && / -> / {{
        pid = substr($0, RSTART + 6, RLENGTH - 10); n[pid] += 0
        if (match($0, /socket:\\[[0-9]+\\]/)) of[substr($0, RSTART + 8, RLENGTH - 9)] = pid
        next
      }}
      match($0, /ino:[0-9]+/) {{
        inode = substr($0, RSTART + 4, RLENGTH - 4)
        if (inode in of) n[of[inode]]++
      }}
      END {{ for (pid in n) printf " %s=%s ", pid, n[pid] }}')
  for id in $old; do
    count=-; pid=${{id%:*}}
    case $held in
      *" $pid="*) count=${{held#*" $pid="}}; count=${{count%% *}} ;;
    esac
    tell "$id" stopping "$count"
  done
}}
"""

_FOLDER = f"""\
folder=${{file%/*}}; [ "$folder" = "$file" ] && folder=.; folder=${{folder:-/}}
need_folder() {{
  if [ ! -d "$folder" ]; then echo "$folder is not there, or this user may not see it" >&2
  elif [ ! -x "$folder" ]; then echo "this user may not enter $folder" >&2
  else return; fi
  exit {Says.NO_FOLDER}
}}
need_folder
"""

_INSPECT = f"""\
{_LOOK}{_FOLDER}echo drainctl-nginx
if find_master; then
  echo "master $master"
  find_workers
  tell_workers
else echo "trouble $trouble"; fi
if [ -z "$ports" ]; then echo 'ports seen'
elif command -v ss >/dev/null; then
  shown=$(ss -Hltnp "$ports") && {{
    echo 'ports seen'
    [ -z "$shown" ] || printf '%s\\n' "$shown" | while read -r row; do echo "listen $row"; done
  }}
fi
[ -e "$file" ] || exit 0
[ -f "$file" ] && size=$(wc -c < "$file") || {{ echo "$file cannot be read" >&2; exit {Says.UNREADABLE}; }}
if [ "$size" -gt {TEXT_MAX} ]; then
  echo "$file holds $size bytes; an upstream file of at most {TEXT_MAX} is expected" >&2
  exit {Says.UNREADABLE}
fi
echo file; cat -- "$file"
"""

_WORKERS = f"""\
{_LOOK}need_master
need_workers
echo drainctl-workers
tell_workers
"""

# The workers are told before the command runs: whatever becomes of it, they are on record.
_RELOAD = f"""\
{_LOOK}need_master
need_workers
[ -n "$serving" ] || {{ echo "no worker of nginx (master $master) serves" >&2; exit {Says.NO_WORKERS}; }}
echo "before$serving"
/bin/sh -c "$command" >&2 </dev/null
code=$?
[ $code -eq 0 ] || {{ echo "the reload command ended with code $code" >&2; exit {Says.RELOAD_FAILED}; }}
"""

# The old text has a second name until the test has passed, so a run that was killed in between is known by
# it: its new text was never approved. If it passes the test now the old one is dropped, else put back. An
# empty old file stands for none. Names begin with a dot: nginx's `include conf.d/*` passes them by.
# `cp -p` first, so that the new file has the old one's mode and owner.
_PUT = f"""\
[ -L "$file" ] && {{ file=$(readlink -f -- "$file") || exit {Says.NO_FOLDER}; }}
{_FOLDER}[ -w "$folder" ] || {{ echo "this user may not write in $folder" >&2; exit {Says.NO_FOLDER}; }}
name=${{file##*/}}; new=$folder/.$name.$$.drainctl-new
old=$folder/.$name.drainctl-old; kept=$old.$$
tested() {{ /bin/sh -c "$test" >&2 </dev/null; code=$?; [ $code -eq 0 ]; }}
back() {{
  if [ ! -s "$old" ]; then rm -f -- "$file" "$old"
  elif cmp -s -- "$old" "$file"; then rm -f -- "$old"  # still one file with two names: mv would refuse
  else mv -fT -- "$old" "$file"; fi
}}
synced() {{ sync -- "$1" 2>/dev/null || sync; }}
trap 'rm -f -- "$new"' EXIT
trap 'exit 1' HUP INT TERM
if [ -e "$old" ]; then
  if tested; then rm -f -- "$old"; else back || exit 1; fi
fi
if [ -e "$file" ]; then cp -p -- "$file" "$new" || exit 1; fi
printf '%s' "$text" > "$new" || exit 1
said=written
if cmp -s -- "$new" "$file"; then said=already
else
  synced "$new"
  if [ ! -e "$file" ]; then : > "$old" || exit 1
  elif ! ln -- "$file" "$old" 2>/dev/null; then  # another user's file may not be linked
    cp -p -- "$file" "$kept" && mv -fT -- "$kept" "$old" || exit 1
  fi
  trap 'rm -f -- "$new"; [ ! -e "$old" ] || back' EXIT
  mv -fT -- "$new" "$file" || exit 1
fi
if ! tested; then
  left='the file was not changed'
  if [ $said = written ]; then
    left="$file has the new text"
    back && left='the old file is back'
    synced "$folder"
  fi
  echo "the test ended with code $code; $left" >&2
  exit {Says.TEST_FAILED}
fi
[ $said = already ] || {{ synced "$folder"; rm -f -- "$old"; }}
echo $said
"""
