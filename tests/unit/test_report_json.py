from __future__ import annotations

import io
import json
from importlib.resources import files
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker, ValidationError

from drainctl.journal.events import Event
from drainctl.report.jsonl import JsonReport, as_json
from tests.unit import events_kit as kit

SCHEMA = json.loads(files("drainctl.report").joinpath("event.schema.json").read_text(encoding="utf-8"))
VALID = Draft202012Validator(SCHEMA, format_checker=FormatChecker())


def written(events: list[Event]) -> list[dict[str, Any]]:
    out = io.StringIO()
    report = JsonReport(out)
    for event in events:
        report.event(event)
        report.progress({"web1": "idle: 3 requests"})
    report.close()
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("story", [kit.done, kit.put_back, kit.interrupted])
def test_every_line_is_valid_and_there_is_one_per_event(story) -> None:
    events = story()
    lines = written(events)
    for line in lines:
        VALID.validate(line)
    assert [line["seq"] for line in lines] == [event.seq for event in events]


def test_the_form_of_a_line() -> None:
    event = Event(7, kit.BEGAN_S + 0.25, "r1", "step.seen", "web1", "idle", "a\nb → \udcff", {"took_s": 0.3})
    (line,) = written([event])
    assert line.pop("at") == "2026-05-04T14:02:11.250Z"
    assert line.pop("text") == "a\nb → \udcff"
    about = {"rollout": "r1", "kind": "step.seen", "node": "web1", "step": "idle"}
    assert line == {"v": 1, "seq": 7, "data": {"took_s": 0.3}} | about


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"seq": 0},
        {"at": "2026-05-04 14:02:11"},
        {"kind": "Step Seen"},
        {"node": None},
        {"data": {}},
        {"kind": "node.ended", "data": {"outcome": "perfect"}},
        {"kind": "rollout.ended", "data": {"outcome": "done"}},
    ],
)
def test_the_schema_refuses_what_is_wrong(change: dict[str, Any]) -> None:
    line = as_json(Event(7, kit.BEGAN_S, "r1", "step.seen", "web1", "idle", "", {"took_s": 0.3}))
    VALID.validate(line)
    with pytest.raises(ValidationError):
        VALID.validate(line | change)


def test_new_kinds_and_fields_are_valid() -> None:
    VALID.validate(as_json(Event(1, kit.BEGAN_S, "r1", "rollout.staged")) | {"new": 1})
