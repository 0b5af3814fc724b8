from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from drainctl.journal.events import Event
from drainctl.report.junit import JunitReport, refused
from tests.unit import events_kit as kit


def read_back(path: Path, events: Sequence[Event]) -> ET.Element:
    report = JunitReport(path)
    for event in events:
        report.event(event)
    report.progress({"web1": "idle: 1 request"})
    assert not path.exists(), "nothing is written before the end"
    report.close()
    return ET.parse(path).getroot()  # noqa: S314 (our own file)


def case(root: ET.Element, suite: str, name: str) -> ET.Element:
    found = root.find(f"testsuite[@name='{suite}']/testcase[@name='{name}']")
    assert found is not None, f"{suite} / {name}"
    return found


def test_a_rollout_that_went_well(tmp_path: Path) -> None:
    root = read_back(tmp_path / "reports" / "junit.xml", kit.done())
    counts = {"tests": "48", "failures": "0", "errors": "0", "skipped": "0"}
    assert root.attrib == {"name": "drainctl deploy 42", "time": "54.264"} | counts
    assert [suite.get("name") for suite in root] == list(kit.NODES)
    assert case(root, "web1", "restart").attrib == {"name": "restart", "classname": "web1", "time": "2.104"}
    assert root[0].get("timestamp") == "2026-05-04T14:02:14.200"
    assert float(root[0].get("time", "0")) == pytest.approx(0.8 + sum(row[3] for row in kit.FORWARD))
    facts = {each.get("name"): each.get("value") for each in root[0].iter("property")}
    assert facts == {
        "rollout": kit.ROLLOUT,
        "strategy": "http-check",
        "release": "41 -> 42",
        "outcome": "done",
    }


def test_a_failed_step_says_why(tmp_path: Path) -> None:
    root = read_back(tmp_path / "junit.xml", kit.put_back())
    failure = case(root, "web2", "restart").find("failure")
    assert failure is not None
    assert str(failure.get("message")).startswith("health.version answers '41', not '42'")
    assert str(failure.text).endswith("hint: see `systemctl status shop` on web2")
    assert case(root, "web2 (back)", "restart").find("failure") is None
    put_back = case(root, "web1 (back)", "end").find("failure")
    assert put_back is not None
    assert str(put_back.get("message")).startswith("back on 41: web2: restart")
    assert (root.get("failures"), root.get("errors")) == ("3", "0")


def test_a_failed_step_shows_what_the_balancers_showed(tmp_path: Path) -> None:
    rows = ["lb1 shop/web1: NOLB, L7STS 404, 2 in flight", "lb2 shop/web1: cannot be read: \x1bno"]
    data = {"why": "2 requests on lb1", "hint": "wait", "rows": rows}
    event = Event(1, 1.0, "r", "step.failed", "web1", "idle", "2 requests on lb1", data)
    failure = case(read_back(tmp_path / "junit.xml", [event]), "web1", "idle").find("failure")
    assert failure is not None
    assert str(failure.text).splitlines() == [
        "2 requests on lb1",
        "the balancers showed last:",
        "  lb1 shop/web1: NOLB, L7STS 404, 2 in flight",
        "  lb2 shop/web1: cannot be read: no",
        "hint: wait",
    ]


def test_a_rollout_that_did_not_begin_is_one_error(tmp_path: Path) -> None:
    refused(tmp_path / "junit.xml", "lb1: no answer\nlb2: no answer", "start them", 5)
    root = ET.parse(tmp_path / "junit.xml").getroot()  # noqa: S314 (our own file)
    assert (root.get("tests"), root.get("errors"), root.get("failures")) == ("1", "1", "0")
    error = case(root, "drainctl", "begin").find("error")
    assert error is not None
    assert error.get("message") == "refused (exit 5): lb1: no answer"
    assert str(error.text).splitlines()[1:] == ["lb2: no answer", "hint: start them"]


def test_an_interrupted_rollout_has_an_error_where_it_stood(tmp_path: Path) -> None:
    root = read_back(tmp_path / "junit.xml", kit.interrupted())
    error = case(root, "web2", "restart").find("error")
    assert error is not None
    assert error.get("message") == "not over when the rollout ended (interrupted)"
    assert case(root, "web2", "restart").get("time") == "12.000"
    assert (root.get("failures"), root.get("errors")) == ("0", "1")


def test_a_journal_without_an_end_is_written_too(tmp_path: Path) -> None:
    root = read_back(tmp_path / "junit.xml", kit.interrupted()[:-1])
    assert root.get("errors") == "1"


def test_nodes_that_were_not_reached_are_skipped(tmp_path: Path) -> None:
    events = [event for event in kit.interrupted() if event.node != "web4"]
    root = read_back(tmp_path / "junit.xml", events)
    assert case(root, "web4", "not begun").find("skipped") is not None
    assert root.get("skipped") == "1"


def test_no_event_at_all_is_valid_too(tmp_path: Path) -> None:
    assert read_back(tmp_path / "junit.xml", []).get("tests") == "0"


def test_what_xml_cannot_hold_is_replaced(tmp_path: Path) -> None:
    why = "got \x00\x1b[31m <&\"'> \ud800 \ufffe"
    root = read_back(
        tmp_path / "junit.xml", [Event(1, 1.0, "r", "step.failed", "w\x01<1>", "restart", why, {"why": why})]
    )
    failure = root.find("testsuite/testcase/failure")
    assert failure is not None
    assert failure.get("message") == "got [31m <&\"'>"
    assert root[0].get("name") == "w <1>"


def test_the_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "junit.xml"
    path.write_text("old")
    report = JunitReport(path)
    monkeypatch.setattr(
        Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space"):
        report.close()
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["junit.xml"]


def test_a_resumed_rollout_has_all_its_steps(tmp_path: Path) -> None:
    events = kit.done()
    report = JunitReport(tmp_path / "junit.xml", past=events[:60])
    for event in events[60:]:
        report.event(event)
    report.close()
    root = ET.parse(tmp_path / "junit.xml").getroot()  # noqa: S314 (our own file)
    assert root.get("tests") == "48"
