"""JSON Schema of drainctl.yml, for editors: `# yaml-language-server: $schema=…` or `drainctl schema`."""

from __future__ import annotations

from typing import Any

from drainctl.config.schema import File

DRAFT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """
    The keys, their kinds, defaults and descriptions, as JSON Schema.

    A value with `${VAR}` in it passes, whatever it stands for. What only the loader can tell (references,
    duplicates, timing) is not in it. Source: json-schema.org, draft 2020-12.
    """
    found: dict[str, Any] = _tidy(File.model_json_schema(by_alias=True))
    flag = found["$defs"]["FlagKeys"]
    file = {"title": "file", "type": "string", "pattern": r"^[/{]|\$\{", "description": "An absolute path."}
    found["$defs"]["FlagKeys"] = {"title": flag["title"], "anyOf": [file, flag | {"title": "keys"}]}
    return {"$schema": DRAFT} | found | {"title": "drainctl.yml"}


def _tidy(part: Any) -> Any:
    """Without titles that repeat a key's name, without `null` (a key is left out instead)."""
    if isinstance(part, list):
        return [_tidy(item) for item in part]
    if not isinstance(part, dict):
        return part
    tidy = {name: _tidy(value) for name, value in part.items() if not (name == "default" and value is None)}
    if isinstance(tidy.get("description"), str):
        tidy["description"] = " ".join(tidy["description"].split())
    if isinstance(tidy.get("properties"), dict):
        for value in tidy["properties"].values():
            value.pop("title", None)
    choices = tidy.get("anyOf")
    if isinstance(choices, list) and {"type": "null"} in choices:
        rest = [choice for choice in choices if choice != {"type": "null"}]
        tidy.pop("anyOf")
        tidy |= rest[0] if len(rest) == 1 else {"anyOf": rest}
    return tidy
