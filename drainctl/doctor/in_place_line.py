"""
What doctor asks of a node with in-place strategies: a second command line that changes nothing. Pure.

nginx is asked for its whole configuration (`nginx.test` with -T for -t), and only where it runs: otherwise
testing would leave an empty pid file behind. It comes compressed, since a transport keeps the last 64 kB.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from shlex import quote

from drainctl.doctor.node_line import program_of, words_after
from drainctl.doctor.picture import Command, Gunicorn, InPlace
from drainctl.errors import ConfigError

MARK = "drainctl-in-place"
CONF_MAX = 60000  # bytes of the packed configuration; some 500 kB of plain text


@dataclass(frozen=True, slots=True)
class InPlaceAsked:
    """
    What one node is asked; placeholders are filled in, and "" is not asked. commands: key → line. file:
    nginx's upstream file. test: nginx.test. pid: nginx's pid file. gunicorn: its pid file. root: below which
    app servers are looked for.
    """

    commands: Mapping[str, str] = field(default_factory=dict)
    file: str = ""
    test: str = ""
    pid: str = ""
    gunicorn: str = ""
    root: str = ""


def line(asked: InPlaceAsked) -> str:
    """The command. It always ends with 0, unless it could not run at all."""
    values = {
        "file": asked.file,
        "dump": dump_of(asked.test),
        "nginx": program_of(asked.test)[0],
        "pid_file": asked.pid,
        "gunicorn": asked.gunicorn,
        "root": asked.root,
    }
    given = "".join(f"{name}={quote(value)}\n" for name, value in values.items())
    checks = ""
    for key, command in asked.commands.items():
        program, allowed = program_of(command)
        if program:
            checks += f"check {quote(key)} {quote(program)} {quote(allowed)}\n"
    return f"LC_ALL=C; export LC_ALL\n{given}{_HEAD}{checks}{_LOOK}"


def dump_of(test: str) -> str:
    """`sudo nginx -t` → `sudo nginx -T`; "" where the line has no -t of its own."""
    dump, found = re.subn(r"(?<=\s)-t(?=\s|$)", "-T", test)
    return dump if found else ""


def parse(out: str, asked: InPlaceAsked) -> tuple[InPlace, str]:
    """
    What the line printed, and nginx's configuration as text, "" where it could not be had.

    Raises: ValueError where it is not that line's answer.
    """
    said = words_after(out, MARK)
    facts = InPlace(
        folder=said["folder"][0] if said["folder"] else None,
        commands=tuple(_command(key, text, said) for key, text in asked.commands.items()),
        version=_version("".join(said["version"])),
        gunicorn=_gunicorn(said),
        servers=frozenset(said["server"]),
    )
    conf = _unpacked("".join(said["conf"]))
    error = "" if conf else " ".join(said["error"]).strip()
    if not conf and asked.test:
        error = error or (
            "it runs nginx in a way of its own" if not dump_of(asked.test) else "it printed nothing"
        )
    return replace(facts, conf_error=error), conf


def read(facts: InPlace, conf: str, upstream: str) -> InPlace:
    """The facts with what the configuration says."""
    from drainctl.nginx.parse import parse_dump, walk
    from drainctl.nginx.settings import settings

    if not conf:
        return facts
    try:
        words = [word for one, _ in walk(parse_dump(conf)) if _asks(one.name) for word in one.args[:1]]
        found = settings(conf, upstream)
    except (ConfigError, ValueError) as error:
        return replace(facts, conf_error=str(error))
    paths = (re.search(r"unix:([^\s:;]+)", word) for word in words)
    return replace(facts, conf=found, sockets=frozenset(path[1] for path in paths if path))


def _asks(name: str) -> bool:
    return name == "server" or name.endswith("_pass")


def _command(key: str, text: str, said: Mapping[str, list[str]]) -> Command:
    def told(yes: str, no: str) -> bool | None:
        return True if key in said.get(yes, ()) else False if key in said.get(no, ()) else None

    return Command(key, text, told("there", "absent"), told("may", "asks"))


def _version(text: str) -> tuple[int, ...]:
    found = re.search(r"/(\d+(?:\.\d+)*)", text)
    return tuple(int(word) for word in found[1].split(".")) if found else ()


def _gunicorn(said: Mapping[str, list[str]]) -> Gunicorn | None:
    if not said.get("pid"):
        return None
    words = [*said.get("word", ()), *" ".join(said.get("args", ())).split()]
    pwd = "".join(said.get("pwd", ())) if said.get("environ") else None
    return Gunicorn(
        int(said["pid"][0]),
        tuple(words),
        "".join(said.get("cwd", ())),
        pwd,
        tuple(said.get("config", ())),
        "".join(said.get("unit", ())),
    )


def _unpacked(text: str) -> str:
    """Text out of base64 of gzip; "" where it came cut short."""
    try:
        return zlib.decompress(base64.b64decode(text, validate=True), wbits=31).decode(errors="replace")
    except (ValueError, zlib.error):
        return ""


_HEAD = f"""\
PATH=$PATH:/usr/sbin:/sbin
echo {MARK}
there() {{ case $1 in */*) [ -f "$1" ] && [ -x "$1" ] ;; *) command -v "$1" >/dev/null ;; esac; }}
check() {{
  if there "$2"; then echo "there $1"; else echo "absent $1"; fi
  [ -n "$3" ] || return 0
  if eval "$3" >/dev/null 2>&1 </dev/null; then echo "may $1"; else echo "asks $1"; fi
}}
"""

# nginx's words go straight to our stdout (descriptors 4, 3), its configuration packed past them (5).
# gunicorn's command line may name its configuration file; else it is gunicorn.conf.py in its folder. This
# very line is among the processes and holds the servers' names, so it is passed by.
_LOOK = f"""\
if [ -n "$file" ]; then
  folder=$(dirname -- "$file")
  if ! [ -d "$folder" ]; then echo 'folder missing'
  elif [ -w "$folder" ] && [ -x "$folder" ]; then echo 'folder writable'
  else echo 'folder there'; fi
fi
if [ -n "$dump" ]; then
  pid=; {{ read -r pid < "$pid_file"; }} 2>/dev/null
  if [ -z "$pid" ] || ! [ -d "/proc/$pid" ]; then echo "error nginx does not run by $pid_file"
  elif ! command -v gzip >/dev/null || ! command -v base64 >/dev/null; then echo 'error no gzip or base64'
  else
    {{ "$nginx" -v 2>&1 || command nginx -v 2>&1; }} </dev/null | sed -n 's/^nginx version: */version /p'
    {{ packed=$({{ {{ sh -c "$dump" </dev/null 2>&4 | gzip -c | base64 | tr -d '\\n'; }} 4>&1 >&5 |
      tail -n 3 | sed 's/^/error /' >&3; }} 5>&1); }} 3>&1
    if [ "${{#packed}}" -le {CONF_MAX} ]; then echo "conf $packed"
    else echo "error it is too long to be brought here: ${{#packed}} bytes, packed"; fi
  fi
fi
if [ -n "$gunicorn" ]; then
  pid=; {{ read -r pid < "$gunicorn"; }} 2>/dev/null
  if [ -n "$pid" ] && [ -d "/proc/$pid" ]; then
    echo "pid $pid"
    cwd=$(readlink "/proc/$pid/cwd" 2>/dev/null) && echo "cwd $cwd"
    tr '\\0' '\\n' < "/proc/$pid/cmdline" 2>/dev/null | sed 's/^/word /'
    if [ -r "/proc/$pid/environ" ]; then
      echo 'environ read'
      tr '\\0' '\\n' < "/proc/$pid/environ" 2>/dev/null |
        sed -n 's/^PWD=/pwd /p; s/^GUNICORN_CMD_ARGS=/args /p'
    fi
    unit=$(sed -n 's|.*/\\([^/]*\\.service\\)$|\\1|p' "/proc/$pid/cgroup" 2>/dev/null | tail -n 1)
    main=; [ -n "$unit" ] && main=$(systemctl show -p MainPID "$unit" 2>/dev/null)
    [ "$main" = "MainPID=$pid" ] && echo "unit $unit"
    config=$(tr '\\0' '\\n' < "/proc/$pid/cmdline" 2>/dev/null | sed -n '
      s/^--config=//p; s/^-c\\(..*\\)/\\1/p; /^-c$/{{ n; p; }}; /^--config$/{{ n; p; }}' | tail -n 1)
    config=${{config#file:}}; config=${{config:-gunicorn.conf.py}}
    case $config in /*) ;; *) config=$cwd/$config ;; esac
    [ -r "$config" ] && sed -n '/^[ ]*\\(chdir\\|pythonpath\\|preload_app\\)[ ]*=/s/^ */config /p' "$config"
  fi
fi
if [ -n "$root" ]; then
  for process in /proc/[0-9]*; do
    title=; {{ read -r title < "$process/cmdline"; }} 2>/dev/null
    case $title in
      *{MARK}*) continue ;;
      *uvicorn*) name=uvicorn ;;
      *granian*) name=granian ;;
      *) continue ;;
    esac
    case $(readlink "$process/cwd" 2>/dev/null) in "$root"/*) echo "server $name" ;; esac
  done
fi
exit 0
"""
