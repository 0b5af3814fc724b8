"""
drainctl.yml as text: to a plain tree of dict, list, str and None, and where each key and value stands.

Every scalar stays the text that the file has: `022`, `1:30` and `on` are what they look like, and not what
YAML 1.1 makes of them. Only an empty value, `~` and `null` are None. What a text means is for the schema.
"""

from __future__ import annotations

from typing import Any

import yaml

from drainctl.config.problems import Path, Problem
from drainctl.errors import ConfigError

Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Mark = tuple[int, int]

CORE = "tag:yaml.org,2002:"
PLAIN = frozenset({"map", "seq", "str", "null", "bool", "int", "float", "timestamp", "merge", "value"})
DEEPEST = 20  # levels; the file has four, and a chain of aliases could have any number
MOST = 200_000  # keys and values, aliases counted each time they are used


class Document:
    """
    One file. keys and values: line and column, from 1, where the key or the value at that path begins.

    problems: duplicate keys, and keys that are no text; the first of two keys is the one in the tree.
    """

    def __init__(self, file: str) -> None:
        self.file = file
        self.tree: Any = None
        self.keys: dict[Path, Mark] = {}
        self.values: dict[Path, Mark] = {}
        self.problems: list[Problem] = []

    def where(self, key: Path, *, on_key: bool = False) -> Mark:
        """
        Where a message about `key` points: to its value, to the key itself where that has no value or
        `on_key` is asked, and to what it should stand in where it is not there at all.
        """
        if key in self.values and not on_key:
            return self.values[key]
        while key:
            if mark := self.keys.get(key) or self.values.get(key):
                return mark
            key = key[:-1]
        return (1, 1)


def read(path: str) -> Document:
    """
    Read one file.

    Raises: ConfigError when it cannot be read, is not UTF-8, or is not YAML; with line and column.
    """
    document = Document(path)
    root = _compose(path, _text(path))
    if root is not None:
        document.tree = _Tree(document).take(root, ())
    return document


def _text(path: str) -> str:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # pathlib costs start-up time and adds nothing here
            data = file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        why = (getattr(error, "strerror", None) or str(error)).lower()
        raise ConfigError(f"{path}: {why}", hint="name the file with -c FILE") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode("utf-8", "replace")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        byte = error.object[error.start]
        raise ConfigError(f"{path}:{line}:{column}: found byte 0x{byte:02x}, expected UTF-8") from None


def _compose(path: str, text: str) -> Any:
    try:
        return yaml.compose(text, Loader=Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        why = ", ".join(part for part in (error.context, error.problem) if part)
        hint = None
        if _is_tab(text, line, column):
            hint = "indent with spaces, not tabs"
        elif error.context == "while parsing a flow mapping":
            hint = "a text with { } or , in it needs quotes here"
        raise ConfigError(f"{path}:{line}:{column}: not YAML: {why}", hint=hint) from None
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise ConfigError(f"{path}:{line}:{column}: not YAML: {error.reason}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}:1:1: not YAML: {error}") from None


def _is_tab(text: str, line: int, column: int) -> bool:
    lines = text.splitlines()
    return line <= len(lines) and lines[line - 1][column - 1 : column] == "\t"


class _Tree:
    """Walks YAML's nodes; an alias is walked again wherever it is used."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.left = MOST

    def take(self, node: yaml.Node, key: Path) -> Any:
        self.left -= 1
        if len(key) > DEEPEST or self.left < 0:
            raise self.error(
                node, f"found more than {DEEPEST} levels or {MOST} values, expected a smaller file"
            )
        self.document.values[key] = _mark(node)
        if node.tag.removeprefix(CORE) not in PLAIN:
            raise self.error(
                node, f"found the tag {node.tag.replace(CORE, '!!')}, expected a value without one"
            )
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.take(item, (*key, place)) for place, item in enumerate(node.value)]
        if node.tag == CORE + "null":
            del self.document.values[key]  # nothing stands there: a message points to the key
            return None
        return node.value

    def mapping(self, node: yaml.MappingNode, key: Path) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        for name_node, value in node.value:
            if not isinstance(name_node, yaml.ScalarNode):
                raise self.error(name_node, "found a mapping or a list as a key, expected a name")
            name = str(name_node.value)
            path = (*key, name)
            if name in tree:
                self.again(path, name_node)
                continue
            self.document.keys[path] = _mark(name_node)
            tree[name] = self.take(value, path)
        return tree

    def again(self, key: Path, node: yaml.Node) -> None:
        line, _ = self.document.keys[key]
        self.document.problems.append(
            Problem(key, f"found a second time (first on line {line}), expected once", at=_mark(node))
        )

    def error(self, node: yaml.Node, text: str) -> ConfigError:
        line, column = _mark(node)
        return ConfigError(f"{self.document.file}:{line}:{column}: {text}")


def _mark(node: yaml.Node) -> Mark:
    return node.start_mark.line + 1, node.start_mark.column + 1
