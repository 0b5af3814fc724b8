"""
What is done on a node, as command lines for /bin/sh: pure text in, pure text out.

Each line does, checks and answers in one go, so each costs one round trip. Values from outside become
shell variables through `shlex.quote`; the text below them is constant. What the lines need: a POSIX shell,
`tar`, `mv -T`, `ls`, `readlink`, `head`, `sed`; for some `ss` and `awk`, or `curl` or `wget`.

The layout below `root` is Capistrano's: `releases/<id>`, `shared/`, `current`. A release is unpacked beside
its place, as `releases/.<id>.<pid>.partial`, and renamed when it is whole, so a folder with a release's
name is always a complete release. `.drainctl-release` inside it holds its id and the sha256 of its archive.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from enum import IntEnum
from shlex import quote
from typing import Any

from drainctl.model import Disk

SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,127}")


class Says(IntEnum):
    """Exit codes by which the lines tell a refusal from a command that failed; stderr or stdout says more."""

    HELD = 70  # a flag of another rollout is there; its text is on stdout
    NO_RELEASE = 71  # the release is not on the node
    NOT_A_LINK = 72  # `current` is a real directory or file
    OTHER_SHA = 73  # the same id is there with another sha256
    BAD_SHA = 74  # what arrived is not what was announced
    NO_SHARED = 75  # a shared file is missing
    NO_TOOL = 76  # a program is missing on the node
    HOSTILE = 77  # a member would be written outside the release


def disk(root: str | None, flag: str | None) -> str:
    """Answers what `parse_disk` reads. Without a root or a flag, that part is left out."""
    return line(_DISK, root=root or "", flag=flag or "")


def parse_disk(out: str) -> Disk:
    """What `disk` printed; lines before it (a login's greeting) do not matter."""
    head, found, flag = after(out, "drainctl-disk").partition("flag\n")
    current, releases = None, []
    blocked = "blocked" in head.splitlines()
    for line in head.splitlines():
        word, _, path = line.partition(" ")
        parts = path.rstrip("/").removesuffix("/.drainctl-release").split("/")
        if len(parts) < 2 or parts[-2] != "releases" or not SAFE_ID.fullmatch(parts[-1]):
            continue
        if word == "current":
            current = parts[-1]
        elif word == "release":
            releases.append(parts[-1])
    return Disk(current, tuple(releases), flag.rstrip("\n") if found else None, blocked)


def set_flag(path: str, text: str) -> str:
    """
    Writes the flag atomically. Refuses with Says.HELD, printing the flag that is there, unless its first
    line is a JSON object whose "rollout" is that of `text`: an operator's `touch` is not ours to take.
    """
    return line(_SET_FLAG, flag=path, text=text, rollout=holder(text) or "")


def clear_flag(path: str, rollout: str, *, steal: bool = False) -> str:
    """Removes our own flag, or with `steal` any; a flag that is not there is fine. Refuses with Says.HELD."""
    return line(_CLEAR_FLAG, flag=path, rollout=rollout, steal="yes" if steal else "")


def flag_facts(text: str) -> Mapping[str, Any]:
    """What a flag tells: rollout, token, by, at, verb; nothing where drainctl did not write it."""
    try:
        first = json.loads(text.partition("\n")[0])
    except ValueError:
        return {}
    return first if isinstance(first, dict) else {}


def holder(text: str) -> str | None:
    """The rollout that a flag's text names in its first line, or None."""
    rollout = flag_facts(text).get("rollout")
    return rollout if isinstance(rollout, str) else None


def switch(root: str, id_: str) -> str:
    """Points `current` at a release by rename, and prints where it points."""
    return line(_SWITCH, root=root, id=id_)


def receive(root: str, id_: str, sha256: str, shared: Collection[str] = ()) -> str:
    """
    Takes the archive (tar, plain or as the node's tar reads it) from stdin: verify, unpack, link, rename.

    `shared` are paths below shared/; one that ends in "/" is made where it is missing, any other must be
    there. Prints "staged" or "already there".
    """
    return _stage('cat > "$archive" || exit', root, id_, sha256, shared)


def pull(root: str, id_: str, url: str, sha256: str, shared: Collection[str] = ()) -> str:
    """The same, with the archive fetched by the node itself (curl or wget)."""
    return _stage(_FETCH, root, id_, sha256, shared, url=url)


def prune(root: str, keep: int, protect: Collection[str] = ()) -> str:
    """
    Deletes the oldest releases beyond `keep`: never the live one, the one before it, or a protected one.
    Prints "deleted <id>" for each.
    """
    return line(_PRUNE, root=root, keep=str(keep), protect=" ".join(protect))


def parse_pruned(out: str) -> tuple[str, ...]:
    """The ids that `prune` deleted."""
    return tuple(line.removeprefix("deleted ") for line in out.splitlines() if line.startswith("deleted "))


def active_requests(port: int, address: str | None = None, *, without_ss: bool = False) -> str:
    """
    Prints how many accepted connections on `port` have a request in flight (see _ACTIVE for the rule).
    `address` narrows it to one of the node's own addresses. without_ss: where there is no `ss`, as in most
    containers, count by /proc what can be counted: connections with bytes that nobody has taken yet.
    """
    mine = f" and src {f'[{address}]' if ':' in address else address}" if address else ""
    by_proc = f"{port:04X}" if without_ss else ""
    return line(_ACTIVE, filter=f"sport = :{port}{mine}", by_proc=by_proc)


def parse_active(out: str) -> int:
    """The number on the last line. Raises: ValueError."""
    return int(out.strip().rpartition("\n")[2])


def after(out: str, mark: str) -> str:
    """What follows the line `mark`; all of it where that is not there."""
    before, found, rest = out.partition(mark + "\n")
    return rest if found else before


def line(body: str, **values: str) -> str:
    """A command line: each value as a shell variable, quoted, then the body."""
    given = "".join(f"{name}={quote(value)}\n" for name, value in values.items())
    return f"LC_ALL=C; export LC_ALL; umask 022\n{given}{body}"


def _stage(bring: str, root: str, id_: str, sha256: str, shared: Collection[str], **more: str) -> str:
    values = {"root": root, "id": id_, "sha256": sha256, "shared": "\n".join(shared), **more}
    return line(f"{_STAGE_BEGIN}{bring}\n{_STAGE_END}", **values)


# Oldest first, by when drainctl finished it (a release of another tool: by its folder's time), one path a
# line: `ls` compares nanoseconds in one process, where `stat` would need one each.
_ORDERED = """\
set --
for d in releases/*/; do
  d=${d%/}
  if [ -e "$d/.drainctl-release" ]; then set -- "$@" "$d/.drainctl-release"
  elif [ -d "$d" ]; then set -- "$@" "$d"; fi
done
ordered=$([ $# -eq 0 ] || ls -1trd -- "$@")
IFS='
'; set -f
"""

_DISK = f"""\
echo drainctl-disk
if [ -n "$root" ] && cd -- "$root" 2>/dev/null; then
  [ -L current ] && echo "current $(readlink current)"
  [ -e current ] && [ ! -L current ] && echo blocked
  {_ORDERED}
  for path in $ordered; do echo "release $path"; done
fi
if [ -n "$flag" ] && [ -e "$flag" ]; then echo flag; head -c 4096 -- "$flag"; fi
exit 0
"""

# The rollout that a flag names; only what drainctl wrote looks like this.
_OWNER = """owner=$(sed -n '1s/^{.*"rollout": *"\\([^"]*\\)".*}$/\\1/p' "$flag" 2>/dev/null)"""

# `ln` creates the name or fails, so of two controllers only one finds no flag.
_SET_FLAG = f"""\
new=$flag.drainctl.$$
trap 'rm -f -- "$new"' EXIT
printf '%s\\n' "$text" > "$new" || exit 1
if ln -- "$new" "$flag" 2>/dev/null; then echo set; exit 0; fi
{_OWNER}
if [ -e "$flag" ] && [ "$owner" != "$rollout" ]; then head -c 4096 -- "$flag"; exit {Says.HELD}; fi
mv -fT -- "$new" "$flag" && echo set
"""

_CLEAR_FLAG = f"""\
[ -e "$flag" ] || {{ echo 'no flag'; exit 0; }}
{_OWNER}
if [ -z "$steal" ] && [ "$owner" != "$rollout" ]; then head -c 4096 -- "$flag"; exit {Says.HELD}; fi
rm -f -- "$flag" && echo cleared
"""

_SWITCH = f"""\
cd -- "$root" || exit 1
[ -d "releases/$id" ] || {{ echo "$root/releases/$id is not there" >&2; exit {Says.NO_RELEASE}; }}
if [ -e current ] && [ ! -L current ]; then
  echo "$root/current is not a link: move it away once, so that releases can be switched" >&2
  exit {Says.NOT_A_LINK}
fi
new=.current.$$
trap 'rm -f -- "$new"' EXIT
ln -sfn -- "releases/$id" "$new" && mv -fT -- "$new" current || exit 1
sync . 2>/dev/null || sync
readlink current
"""

_STAGE_BEGIN = f"""\
mkdir -p -- "$root/releases" "$root/shared" && cd -- "$root" || exit 1
there() {{
  [ -d "releases/$id" ] || return 0
  known=$(cat "releases/$id/.drainctl-release" 2>/dev/null)
  [ "$known" = "$id $sha256" ] && {{ echo 'already there'; exit 0; }}
  known=${{known##* }}
  echo "releases/$id is there with sha256 ${{known:-unknown}}, not $sha256" >&2; exit {Says.OTHER_SHA}
}}
there
IFS='
'
for item in $shared; do
  if [ ! -e "shared/$item" ]; then
    case $item in
      */) mkdir -p -- "shared/$item" || exit 1 ;;
      *) echo "$root/shared/$item is not there" >&2; exit {Says.NO_SHARED} ;;
    esac
  fi
done
for old in releases/."$id".*.partial releases/."$id".*.archive; do
  pid=${{old%.*}}
  [ -d "/proc/${{pid##*.}}" ] || rm -rf -- "$old"
done
archive=releases/.$id.$$.archive
partial=releases/.$id.$$.partial
trap 'rm -rf -- "$archive" "$partial"' EXIT
trap 'exit 1' HUP INT TERM
"""

_FETCH = f"""\
if command -v curl >/dev/null; then curl -fsSL --proto =http,https -o "$archive" -- "$url" || exit 1
elif command -v wget >/dev/null; then wget -q -O "$archive" -- "$url" || exit 1
else echo 'neither curl nor wget is on this node' >&2; exit {Says.NO_TOOL}; fi
if tar -tf "$archive" | grep -E '^/|(^|/)\\.\\.(/|$)' >&2; then
  echo 'these members would be written outside the release' >&2; exit {Says.HOSTILE}
fi
"""

# The file is hashed, not the stream: what a full disk cut short is seen. A second stage of the same
# release, started after the connection of the first was lost, may have finished meanwhile: `mv -T` refuses
# a folder that is not empty, and `there` then knows what it is.
# tar is told of gz, which busybox does not find out by itself in a small archive.
_STAGE_END = f"""\
if command -v sha256sum >/dev/null; then sum=$(sha256sum < "$archive")
elif command -v shasum >/dev/null; then sum=$(shasum -a 256 < "$archive")
else sum=$(openssl dgst -sha256 -r < "$archive") || exit {Says.NO_TOOL}; fi
sum=${{sum%% *}}
[ "$sum" = "$sha256" ] || {{ echo "sha256 of what arrived is $sum, not $sha256" >&2; exit {Says.BAD_SHA}; }}
mkdir -- "$partial" || exit 1
case $(head -c 2 "$archive" | od -An -tx1) in *1f*8b*) gz=z ;; *) gz= ;; esac
tar "-x${{gz}}f" "$archive" --no-same-owner --no-same-permissions -C "$partial" || exit 1
rm -f -- "$archive"
for item in $shared; do
  path=${{item%/}}
  case $path in */*) mkdir -p -- "$partial/${{path%/*}}" || exit 1 ;; esac
  rm -rf -- "$partial/$path" && ln -s -- "$root/shared/$path" "$partial/$path" || exit 1
done
printf '%s %s\\n' "$id" "$sha256" > "$partial/.drainctl-release" || exit 1
{{ sync -f "$partial" || sync; }} 2>/dev/null
mv -T -- "$partial" "releases/$id" || {{ there; exit 1; }}
echo staged
"""

# Renamed first, so that a release which is half deleted does not look complete.
_PRUNE = f"""\
cd -- "$root" || exit 1
live=$(readlink current); live=${{live%/}}; live=${{live##*/}}
{_ORDERED}
total=0; last=; before=
for path in $ordered; do
  path=${{path#releases/}}; name=${{path%%/*}}
  [ "$name" = "$live" ] && before=$last
  last=$name; total=$((total + 1))
done
failed=0
for path in $ordered; do
  [ "$total" -gt "$keep" ] || break
  total=$((total - 1))
  path=${{path#releases/}}; name=${{path%%/*}}
  case " $live $before $protect " in *" $name "*) continue ;; esac
  if mv -T -- "releases/$name" "releases/.$name.$$.partial" && rm -rf -- "releases/.$name.$$.partial"
  then echo "deleted $name"; else failed=1; fi
done
exit $failed
"""

# A connection is idle when the last thing that happened on it was our answer. Measured on nginx behind
# HAProxy (kept-alive and pooled connections, Linux 6): an answer given within one clock tick leaves lastsnd
# and lastrcv equal, and so does a request that arrives together with its connection, but then nothing was
# sent yet. So active is: received and never sent, or received after sending, or sent in the last 50 ms
# (a stream), or bytes queued either way. Not seen: a request within one tick (4 ms) of the previous answer,
# a stream that pauses longer, HTTP/2, and a first request right after a TLS handshake: the balancers'
# counts come first, this one is on top. /proc tells of bytes queued only (proc(5), /proc/net/tcp: tx_queue
# and rx_queue of a socket in state 01): a request that the app has read and works on is not seen there.
_ACTIVE = f"""\
PATH=$PATH:/usr/sbin:/sbin
if ! command -v ss >/dev/null; then
  [ -n "$by_proc" ] || {{ echo 'ss (iproute2) is not on this node' >&2; exit {Says.NO_TOOL}; }}
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null | awk -v port=":$by_proc" '
    substr($2, length($2) - 4) == port && $4 == "01" && $5 != "00000000:00000000" {{ n++ }}
    END {{ print n + 0 }}'
  exit
fi
shown=$(ss -Htin state established "$filter") || exit 1
printf '%s\\n' "$shown" | awk '
  /^[^ \\t]/ {{ queued = $1 + $2; next }}
  NF {{
    split("", of)
    for (i = 1; i <= NF; i++) if (split($i, pair, ":") == 2) of[pair[1]] = pair[2] + 0
    received = of["bytes_received"] > 0; sent = of["bytes_sent"] > 0
    if (queued || (received && (!sent || of["lastrcv"] < of["lastsnd"])) || (sent && of["lastsnd"] < 50)) n++
  }}
  END {{ print n + 0 }}'
"""
