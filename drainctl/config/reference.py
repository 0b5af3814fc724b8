"""docs/configuration.md, out of the schema: `python -m drainctl.config.reference > docs/configuration.md`."""

from __future__ import annotations

import re
from inspect import cleandoc

from drainctl.config.schema import FILE
from drainctl.config.shapes import Key, Section, default_of, sections, title, type_of

HEAD = """\
# drainctl.yml

<!-- Written by `python -m drainctl.config.reference`; edit drainctl/config/schema.py instead. -->

One file describes one app, its balancers and its nodes. drainctl reads `drainctl.yml` in the current folder,
or the file that `-c FILE` names.

All problems of a file are shown at once, each as `file:line:column: key: found X, expected Y`; the exit
code is 2 then, and nothing was touched. A key that is not in these tables is refused, with the nearest one
that is.
"""

FOOT = """\
## How values are written

- A **duration** is a whole number and a unit: `300ms`, `10s`, `5m`, `1h`.
- An **amount** is a count (`2`) or a share (`50%`) of the nodes.
- `${NAME}` is the environment variable of that name; one that is not set is a problem of the file. Its value
  is not shown again. `$${` is a literal `${`, for the shell.
- `~` in paths is the home folder; other relative paths start at the file's folder. The store's path is
  absolute or begins with `~`.
- YAML's aliases may be used; its tags and merge keys (`<<`) may not.

## Placeholders

Commands, and paths and URLs on a node, may hold these:

| placeholder | what it is |
|---|---|
| `{node}` | the node's name |
| `{host}` | the node's `host` |
| `{port}` | the node's `port`, else `connect.port`; unknown where neither is set |
| `{root}` | `release.root` |
| `{release}` | the id of the release that the node is to get; in `service.restart` only |
| `{text}` | the flag's text, quoted for the shell; in `health.flag.set` only |
| `{NAME}` | a name in the node's own `vars` |

Only a name in bare braces is a placeholder: the shell's `$${x}` (as the file writes it), awk's `{print $1}`
and `{{.State}}` stay as they are. `{{host}}` is a literal `{host}`.
"""


def markdown() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_section(path, section) for path, section in sections(FILE).items()), FOOT])


def _section(path: tuple[str, ...], section: Section) -> str:
    heading = f"## {title(path)}" if path else "## The top level"
    rows = [_row(path, key) for key in section.keys.values()]
    table = "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows])
    return (
        f"{heading}\n\n{cleandoc(section.meaning)}\n\n{table}\n\n```yaml\n{cleandoc(section.example)}\n```\n"
    )


def _row(path: tuple[str, ...], key: Key) -> str:
    meaning = key.meaning.replace("|", "\\|")
    default = "**needed**" if key.needed else f"`{default_of(key)}`".replace("``", "")
    return f"| `{key.name}` | {_type(path, key)} | {default} | {meaning} |"


def _type(path: tuple[str, ...], key: Key) -> str:
    """`duration`, `list of names`, or a link to the section's own table."""
    for below in {(*path, key.name), (*path, key.name, "*")} & sections(FILE).keys():
        link = f"[keys](#{re.sub('[^a-z]', '', title(below).lower())})"
        return type_of(key.holds).replace("keys", link)
    return type_of(key.holds)


if __name__ == "__main__":
    import sys

    sys.stdout.write(markdown())
