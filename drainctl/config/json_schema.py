"""JSON Schema of drainctl.yml, for editors: `# yaml-language-server: $schema=…` or `drainctl schema`."""

from __future__ import annotations

from typing import Any

from drainctl.config.kinds import ANYTHING, Kind
from drainctl.config.schema import FILE
from drainctl.config.shapes import Key, List, Names, Section, Shape

DRAFT = "https://json-schema.org/draft/2020-12/schema"
WITH_VARIABLE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*\}"}
SHORT = {"title": "file", "type": "string", "pattern": r"^[/{]|\$\{", "description": "An absolute path."}


def schema() -> dict[str, Any]:
    """
    The keys, their kinds, defaults and descriptions, as JSON Schema.

    A value with `${VAR}` in it passes, whatever it stands for. What only the loader can tell (references,
    duplicates, timing) is not in it. Source: json-schema.org, draft 2020-12.
    """
    return {"$schema": DRAFT, "title": "drainctl.yml"} | _of(FILE)


def _of(holds: Shape) -> dict[str, Any]:
    match holds:
        case Kind():
            return _kind(holds)
        case Section():
            return _section(holds)
        case List(of=inner, least=least):
            return {"type": "array", "items": _of(inner)} | ({"minItems": least} if least else {})
        case Names(of=inner, least=least):
            many = {"type": "object", "additionalProperties": _of(inner)}
            return many | ({"minProperties": least} if least else {})


def _kind(kind: Kind) -> dict[str, Any]:
    anything = kind.json.get("pattern", ANYTHING) == ANYTHING and kind.json.keys() <= {"type", "pattern"}
    return dict(kind.json) if anything else {"anyOf": [dict(kind.json), dict(WITH_VARIABLE)]}


def _section(section: Section) -> dict[str, Any]:
    found = {
        "type": "object",
        "description": " ".join(section.meaning.split()),
        "additionalProperties": False,
        "properties": {name: _key(key) for name, key in section.keys.items()},
        **section.json,
    }
    if needed := [name for name, key in section.keys.items() if key.needed]:
        found["required"] = needed
    return {"anyOf": [dict(SHORT), found | {"title": "keys"}]} if section.short else found


def _key(key: Key) -> dict[str, Any]:
    found = _of(key.holds) | {"description": key.meaning}
    if key.default not in (None, {}):
        found["default"] = key.default
    if key.examples:
        found["examples"] = list(key.examples)
    return found
