"""docs/configuration.md, out of the schema: `python -m drainctl.config.reference > docs/configuration.md`."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic.fields import FieldInfo

from drainctl.config import schema, walk

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
    parts = [HEAD, *(_section(path, section) for path, section in walk.sections().items()), FOOT]
    return "\n".join(parts)


def _section(path: tuple[str, ...], section: type[schema.Section]) -> str:
    title = ".".join("NAME" if part == "*" else part for part in path)
    if path and path[0] == "warm":
        title = "warm[]"
    heading = f"## {title}" if path else "## The top level"
    rows = [_row(path, name, info) for name, info in walk.keys(section)]
    table = "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows])
    return f"{heading}\n\n{_doc(section)}\n\n{table}\n\n```yaml\n{section.example}```\n"


def _doc(section: type[schema.Section]) -> str:
    return inspect.cleandoc(section.__doc__ or "")


def _row(path: tuple[str, ...], name: str, info: FieldInfo) -> str:
    meaning = (info.description or "").replace("|", "\\|")
    return f"| `{name}` | {_type(path, name, info)} | {_default(info)} | {meaning} |"


def _type(path: tuple[str, ...], name: str, info: FieldInfo) -> str:
    """`duration`, `list of names`, or what the section's own table says."""
    below = {(*path, name), (*path, name, "*")} & walk.sections().keys()
    shape = getattr(info.annotation, "__origin__", None)
    if below:
        there = f"[keys](#{_anchor(next(iter(below)))})"
        if shape is dict:
            return f"names with {there}"
        return f"list of {there}" if shape is list else there
    kind = walk.kind_of(info)
    if not kind or shape is dict:
        return "names with texts"
    one = " or ".join(f"`{word}`" for word in kind.words) or kind.name
    return f"list of {one if kind.words else one + 's'}" if shape is list else one


def _anchor(path: tuple[str, ...]) -> str:
    return "".join(part.replace("*", "name") for part in path if path[0] != "warm" or part != "*")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "**needed**"
    default: Any = info.default
    if default in (None, [], {}):
        return ""
    text = f"[{', '.join(default)}]" if isinstance(default, list) else str(default)
    return f"`{text}`"


if __name__ == "__main__":
    import sys

    sys.stdout.write(markdown())
