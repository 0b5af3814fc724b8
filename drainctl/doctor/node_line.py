"""
What doctor asks of a node: one command line for /bin/sh that changes nothing, and its answer. Pure.

What the line needs beyond a POSIX shell is asked for by it (`ss`, `df`, `du`); where one is missing, that
part of the answer is missing. Every line of the answer is a word and its value.
"""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from shlex import quote

from drainctl.doctor.picture import Folder, NodeFacts, User
from drainctl.node import fence

TOOLS = ("tar", "sha256sum", "shasum", "openssl", "ss", "awk", "readlink", "curl", "wget", "python3")
_ENDS = {";", "&&", "||", "|", "&", ">", ">>", "<", "(", ")"}


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What one node is asked about; placeholders are filled in. None: not asked.

    port, address: where its /http-check is answered; an address only where it is one of many on one machine.
    """

    flag: str | None
    root: str | None
    restart: str | None
    shared: Collection[str] = ()
    port: int | None = None
    address: str | None = None


def line(asked: Asked) -> str:
    """The command. It always ends with 0, unless it could not run at all."""
    program, allowed = program_of(asked.restart or "")
    kept = fence.place(asked.root, asked.flag)
    mine = f" and src {asked.address}" if asked.address else ""
    values = {
        "tools": " ".join(TOOLS),
        "flag": asked.flag or "",
        "root": asked.root or "",
        "shared": "\n".join(item for item in asked.shared if not item.endswith("/")),
        "program": program,
        "allowed": allowed,
        "filter": f"sport = :{asked.port}{mine}" if asked.port else "",
        "fence": kept.file if kept else "",
        "log": kept.log if kept else "",
    }
    given = "".join(f"{name}={quote(value)}\n" for name, value in values.items())
    return f"LC_ALL=C; export LC_ALL\n{given}{_LOOK}"


def program_of(command: str) -> tuple[str, str]:
    """
    The program that a command line starts, and the `sudo -l` line that asks whether it may; "" for none.

    Only the first command of the line is looked at, and none where it begins with shell syntax.
    """
    try:
        lexer = shlex.shlex(command, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words = list(lexer)
    except ValueError:
        return "", ""
    end = next((at for at, word in enumerate(words) if word in _ENDS), len(words))
    words = words[:end]
    while words and "=" in words[0]:
        words = words[1:]
    if not words or "$" in words[0] or "`" in words[0]:
        return "", ""
    if words[0] != "sudo":
        return words[0], ""
    options, rest = _sudo(words[1:])
    if not rest:
        return "sudo", ""
    return rest[0], shlex.join(["sudo", "-n", *options, "-l", "--", *rest])


def _sudo(words: list[str]) -> tuple[list[str], list[str]]:
    """The options that say as whom, and what is run."""
    options: list[str] = []
    while words and words[0].startswith("-"):
        if words[0] == "--":
            return options, words[1:]
        if words[0] in {"-u", "-g", "--user", "--group"}:
            options += words[:2]
            words = words[2:]
        else:
            words = words[1:]
    return options, words


def words_after(out: str, mark: str) -> defaultdict[str, list[str]]:
    """What a line of doctor's printed after its mark: by each line's first word, the rest of those lines."""
    _, found, rest = out.partition(f"{mark}\n")
    if not found:
        raise ValueError("it did not answer as /bin/sh would")
    said: defaultdict[str, list[str]] = defaultdict(list)
    for text in rest.splitlines():
        word, _, value = text.partition(" ")
        said[word].append(value)
    return said


def parse(out: str, asked_s: float = 0.0, answered_s: float = 0.0) -> NodeFacts:
    """
    What the line printed; what came before it (a login's greeting) does not matter.

    Raises: ValueError where it is not that line's answer.
    """
    said = words_after(out, "drainctl-doctor")

    def yes(word: str) -> bool | None:
        return said[word][0] == "yes" if said[word] else None

    def number(word: str) -> int | None:
        return int(said[word][0]) if said[word] and said[word][0].isdigit() else None

    return NodeFacts(
        now_s=number("now") or 0,
        asked_s=asked_s,
        answered_s=answered_s,
        user=said["user"][0] if said["user"] else "",
        tools=frozenset(said["tool"]),
        restart=yes("restart"),
        sudo=yes("sudo"),
        flag_folder=said["flag"][0] if said["flag"] else None,
        flag_path=tuple(_folder(text) for text in said["above"]),
        serving=tuple(dict.fromkeys(_user(text) for text in said["serves"])),
        unwritable=tuple(said["unwritable"]),
        current=said["current"][0] if said["current"] else None,
        free_kb=number("free"),
        release_kb=number("release"),
        lacks=tuple(said["lacks"]),
        unfenced=tuple(said["unfenced"]),
    )


def _folder(text: str) -> Folder:
    mode, uid, gid, path = text.split(" ", 3)
    return Folder(path, mode[1:10], int(uid), int(gid))


def _user(text: str) -> User:
    uid, *groups = text.split()
    return User(int(uid), frozenset(int(group) for group in groups))


# `command -v` calls a file that is not executable found in some shells, so paths are tested. The folders
# above the flag are those of its physical path, which is what the kernel searches. Of the processes on the
# check's port only those of the own user are seen, unless that is root. The fence is replaced, which a folder
# like /tmp refuses where it is another's; its log is appended to.
_LOOK = """\
PATH=$PATH:/usr/sbin:/sbin
echo drainctl-doctor
echo "now $(date +%s)"
echo "user $(id -un)"
for tool in $tools; do command -v "$tool" >/dev/null && echo "tool $tool"; done
there() { case $1 in */*) [ -f "$1" ] && [ -x "$1" ] ;; *) command -v "$1" >/dev/null ;; esac; }
if [ -n "$program" ]; then there "$program" && echo 'restart yes' || echo 'restart no'; fi
if [ -n "$allowed" ]; then eval "$allowed" >/dev/null 2>&1 </dev/null && echo 'sudo yes' || echo 'sudo no'; fi
if [ -n "$flag" ]; then
  folder=$(dirname -- "$flag")
  if ! [ -d "$folder" ]; then echo 'flag missing'
  elif [ -w "$folder" ] && [ -x "$folder" ]; then echo 'flag writable'
  else echo 'flag there'; fi
  path=$(cd -P -- "$folder" 2>/dev/null && pwd -P)
  while [ -n "$path" ]; do
    set -- $(ls -ldn -- "$path" 2>/dev/null)
    [ $# -ge 4 ] && echo "above $1 $3 $4 $path"
    [ "$path" = / ] && break
    path=$(dirname -- "$path")
  done
fi
if [ -n "$fence" ]; then
  folder=$(dirname -- "$fence")
  if [ -d "$folder" ]; then
    if ! [ -w "$folder" ]; then echo "unfenced $fence"
    elif [ -e "$fence" ] && [ -k "$folder" ] && ! [ -O "$fence" ]; then echo "unfenced $fence"
    fi
    if [ -e "$log" ]; then [ -w "$log" ] || echo "unfenced $log"; fi
  fi
fi
if [ -n "$filter" ] && command -v ss >/dev/null; then
  for pid in $(ss -Hltnp "$filter" 2>/dev/null | tr ',' '\\n' | sed -n 's/^pid=//p'); do
    [ -r "/proc/$pid/status" ] || continue
    uid=$(sed -n 's/^Uid:[^0-9]*[0-9]*[^0-9]*\\([0-9]*\\).*/\\1/p' "/proc/$pid/status")
    gid=$(sed -n 's/^Gid:[^0-9]*[0-9]*[^0-9]*\\([0-9]*\\).*/\\1/p' "/proc/$pid/status")
    groups=$(sed -n 's/^Groups:[^0-9]*//p' "/proc/$pid/status")
    [ -n "$uid" ] && echo "serves $uid $gid $groups"
  done
fi
if [ -n "$root" ]; then
  near=$root
  while ! [ -e "$near" ] && [ "$near" != / ]; do near=$(dirname -- "$near"); done
  [ -w "$near" ] || echo "unwritable $near"
  for folder in "$root/releases" "$root/shared"; do
    [ -e "$folder" ] && { [ -w "$folder" ] || echo "unwritable $folder"; }
  done
  if [ -L "$root/current" ]; then [ -e "$root/current" ] && echo 'current link' || echo 'current dangling'
  elif [ -e "$root/current" ]; then echo 'current real'
  else echo 'current none'; fi
  set -- $(df -Pk -- "$near" 2>/dev/null | tail -n 1)
  echo "free ${4:-}"
  set -- $(du -sk -- "$root/current/" 2>/dev/null)
  echo "release ${1:-}"
  IFS='
'; set -f
  for item in $shared; do [ -e "$root/shared/$item" ] || echo "lacks $item"; done
fi
exit 0
"""
