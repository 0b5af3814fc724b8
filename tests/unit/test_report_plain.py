from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import UTC

from drainctl.journal.events import Event
from drainctl.report.plain import PlainReport
from tests.unit import events_kit as kit


class Clock:
    def __init__(self) -> None:
        self.now = kit.BEGAN_S

    def __call__(self) -> float:
        return self.now


def plain(events: Iterable[Event], *, verbose: bool = False) -> list[str]:
    out = io.StringIO()
    report = PlainReport(out, verbose=verbose, zone=UTC, clock=Clock())
    for event in events:
        report.event(event)
    report.close()
    return out.getvalue().splitlines()


def test_a_journey_is_about_ten_lines_of_eighty_columns() -> None:
    lines = [
        line for line in plain(kit.done()) if " web3 " in line and "stage" not in line and "wave" not in line
    ]
    assert [line.split()[2] for line in lines] == [
        "flag", "out", "idle", "switch", "restart", "warm", "restore", "up", "watch", "done",
    ]  # fmt: skip
    assert lines[2] == "14:02:40 web3  idle      0 requests on lb1, lb2                           0.31 s"
    assert lines[-1] == "14:02:52 web3  done      on 42                                            12.8 s"
    assert max(map(len, lines)) <= 80


def test_the_frame_of_a_rollout() -> None:
    lines = plain(kit.done())
    assert lines[0] == f"14:02:11 rollout {kit.ROLLOUT}, 2026-05-04 14:02:11 UTC"
    assert lines[1].startswith("14:02:11 deploy 42 over shop: 4 nodes in 3 waves")
    assert max(map(len, lines[:1])) <= 80
    assert "14:02:14 wave 1 of 3: web1" in lines
    assert "14:02:26 lb2 has a new process (pid 811, before 402): looked at afresh" in lines
    assert "14:03:05 proof: 0 failed of 48210 requests in 41.2 s" in lines
    assert lines[-1] == "14:03:05 done: 4 nodes done (exit 0, 54.3 s)"


def test_a_failure_says_why_what_next_and_how_it_ended() -> None:
    lines = plain(kit.put_back())
    at = next(number for number, line in enumerate(lines) if "failed:" in line)
    assert lines[at].startswith(
        "14:03:27 web2  restart   failed: health.version answers '41', not '42' 60 s after"
    )
    assert lines[at + 1].strip() == "hint: see `systemctl status shop` on web2"
    assert lines[at + 2] == "14:03:27 web2  back      put-back 41"
    assert any(
        line.startswith("14:03:40 web2  put-back  back on 41: restart: health.version") for line in lines
    )
    assert "14:03:52 proof: inconclusive: lb2 was reloaded at 14:02:31" in lines
    assert not any("0 failed" in line for line in lines)
    assert "(exit 1, 1 min 42 s)" in lines[-3]
    assert lines[-2:] == ["every node runs 41 again", "`drainctl show` says what each step saw"]


def test_verbose_also_says_what_is_intended_and_every_step() -> None:
    lines = plain(kit.done(), verbose=True)
    assert any("web1  flag      will set the flag: /http-check answers 404" in line for line in lines)
    assert any("web1  guard     enough others are up (keep_up = 50%)" in line for line in lines)
    assert any("web1  forward   deploy 42" in line for line in lines)
    assert len(lines) > len(plain(kit.done())) + 40


def test_a_guard_that_had_to_wait_is_said() -> None:
    event = Event(1, kit.BEGAN_S, "r", "step.seen", "web1", "guard", "enough others are up", {"took_s": 4.0})
    assert plain([event]) == [
        "14:02:11 web1  guard     enough others are up                             4.00 s"
    ]


def test_lines_hold_no_control_characters() -> None:
    text = "\x1b[31mgone\nweb9  done\r"
    lines = plain(
        [
            Event(1, kit.BEGAN_S, "r", "note", None, None, text),
            Event(2, kit.BEGAN_S, "r", "note", "web1", None, text),
        ]
    )
    assert lines == ["14:02:11 [31mgone web9 done", "14:02:11 web1  note      [31mgone web9 done"]


def test_no_colour_at_all() -> None:
    assert "\x1b" not in "".join(plain(kit.put_back(), verbose=True))


def test_the_heartbeat_comes_when_nothing_else_was_printed_for_30_s() -> None:
    out, clock = io.StringIO(), Clock()
    report = PlainReport(out, zone=UTC, clock=clock)
    report.event(Event(1, clock.now, "r", "note", "web1", None, "x"))
    begin = len(out.getvalue())
    waits = {"web1": "idle: 3 requests on lb1; 20 s left"}
    clock.now += 29.9
    report.progress(waits)
    assert len(out.getvalue()) == begin
    clock.now += 0.1
    report.progress(waits)
    report.progress(waits)
    assert out.getvalue()[begin:] == "14:02:41 web1  idle      waits: 3 requests on lb1; 20 s left\n"
    clock.now += 20
    report.event(Event(2, clock.now, "r", "note", "web1", None, "y"))
    begin = len(out.getvalue())
    clock.now += 29
    report.progress(waits)
    assert len(out.getvalue()) == begin
    clock.now += 60
    report.progress({})
    assert len(out.getvalue()) == begin


def test_the_heartbeat_of_many_nodes_is_short() -> None:
    out, clock = io.StringIO(), Clock()
    report = PlainReport(out, zone=UTC, clock=clock)
    clock.now += 31
    report.progress({f"web{number}": "idle: 1 request on lb1" for number in range(9)})
    lines = out.getvalue().splitlines()
    assert len(lines) == 5
    assert lines[-1] == "14:02:42 and 5 more in flight"
