from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console

from drainctl.errors import ConfigError
from drainctl.journal.events import Event
from drainctl.report.terminal import TerminalReport
from tests.unit import events_kit as kit

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Screen:
    """A terminal of 80 columns that keeps all that was written to it."""

    def __init__(self, height: int = 30, past: Sequence[Event] = ()) -> None:
        self.out = io.StringIO()
        self.now = kit.BEGAN_S
        console = Console(width=80, height=height, file=self.out, force_terminal=True)
        self.report = TerminalReport(console=console, clock=lambda: self.now, past=past)

    def tell(self, events: Sequence[Event], waits: Mapping[str, str] | None = None) -> None:
        for event in events:
            self.report.event(event)
            self.now = event.at_s
        self.report.progress(waits or {})

    def frame(self) -> list[str]:
        plain = Console(width=80, height=self.report.console.size.height, file=io.StringIO())
        with plain.capture() as capture:
            plain.print(self.report.frame())
        return [line.rstrip() for line in capture.get().splitlines()]

    def text(self) -> list[str]:
        return [ESCAPE.sub("", line).rstrip() for line in re.split(r"[\r\n]+", self.out.getvalue())]


def upto(events: Sequence[Event], kind: str, node: str) -> list[Event]:
    last = max(number for number, event in enumerate(events) if (event.kind, event.node) == (kind, node))
    return list(events[: last + 1])


def test_a_node_in_flight_shows_its_steps_and_what_it_waits_for() -> None:
    screen = Screen()
    events = kit.interrupted()
    idle = next(n for n, e in enumerate(events) if (e.kind, e.node, e.step) == ("step.seen", "web2", "out"))
    screen.tell(events[: idle + 1], {"web2": "idle: 3 requests on lb1, 1 on lb2; 58 s left"})
    screen.now += 12.25
    frame = screen.frame()
    assert frame[0] == f"deploy 42 · rollout {kit.ROLLOUT} · wave 2 of 3 · 28.2 s"
    assert frame[1] == "1 done, 1 in flight, 2 to go"
    assert frame[2] == ""
    assert frame[3] == "web1  http-check 41 -> 42  done 12.8 s: watch:10.0 restart:2.1 stage:0.8"
    assert frame[4] == "web2  http-check 41 -> 42  stage:0.8 guard flag out"
    assert frame[5] == "  > idle for 12 s: 3 requests on lb1, 1 on lb2; 58 s left"
    assert frame[6] == "web3  41, staged"
    screen.report.close()


def test_a_running_act_is_shown_without_any_progress() -> None:
    screen = Screen()
    screen.tell(kit.interrupted()[:-1])
    screen.now += 3
    assert any(line.strip() == "> restart for 3 s" for line in screen.frame())
    screen.report.close()


def test_a_way_back_is_shown_as_such() -> None:
    screen = Screen()
    screen.tell(upto(kit.put_back(), "node.began", "web2"))
    assert any(line.split()[:5] == ["web2", "back", "42", "->", "41"] for line in screen.frame())
    screen.report.close()


def test_notes_and_failures_stand_above_the_table_and_the_end_below() -> None:
    screen = Screen()
    screen.tell(kit.put_back())
    screen.report.close()
    screen.report.close()
    text = screen.text()
    joined = " ".join(" ".join(text).split())
    assert "restart failed: health.version answers '41', not '42' 60 s after it began" in joined
    assert "hint: see `systemctl status shop` on web2" in joined
    last = max(number for number, line in enumerate(text) if line.startswith("deploy 42"))
    tail = " ".join(" ".join(text[last:]).split())
    assert "0 done, 0 in flight, 2 to go, 2 put-back" in tail
    assert "web2 back 42 -> 41 put-back 12.8 s: flag out idle:0.3 quiet switch restart:2.1" in tail
    assert "proof: inconclusive: lb2 was reloaded at 14:02:31" in tail
    assert tail.endswith("every node runs 41 again `drainctl show` says what each step saw")
    assert tail.count("(exit 1, 1 min 42 s)") == 1
    for on, off in (("\x1b[?25l", "\x1b[?25h"), ("\x1b[?1049h", "\x1b[?1049l")):
        assert screen.out.getvalue().count(on) == screen.out.getvalue().count(off) == 1


def test_every_line_fits_into_80_columns() -> None:
    for events in (kit.done(), kit.put_back(), kit.interrupted(), kit.large(60)):
        screen = Screen()
        screen.tell(events, {"web2": "idle: " + "3 requests on a-balancer-with-a-long-name " * 4})
        wide = [line for line in screen.frame() if len(line) > 80]
        screen.report.close()
        assert wide == []
        assert [line for line in screen.text() if len(line) > 80] == []


def test_long_names_are_cut_and_the_steps_stay() -> None:
    screen = Screen()
    node, release = "web-" + "x" * 40, "2026-05-04T140211-" + "f" * 40
    began = {"waves": [[node]], "previous": {node: release}, "targets": {node: release}, "verb": "deploy"}
    way = {"way": "forward", "strategy": "http-check", "target": release}
    screen.tell(
        [
            Event(1, kit.BEGAN_S, "r", "rollout.began", data=began),
            Event(2, kit.BEGAN_S, "r", "node.began", node, data=way),
            Event(3, kit.BEGAN_S, "r", "step.seen", node, "flag", "404", {"took_s": 0.2}),
        ],
        {node: "idle: 3 requests"},
    )
    row = screen.frame()[3:]
    assert max(map(len, row)) <= 80
    assert row[0].startswith("web-xxxxxxxxx…  http-check -> 2026-05-04T140…  flag:0.2")
    assert row[1].strip() == "> idle for 0 s: 3 requests"
    screen.report.close()


def test_many_nodes_or_few_rows_show_only_those_in_flight() -> None:
    for screen, events in ((Screen(height=100), kit.large(60)), (Screen(height=10), kit.large(8))):
        screen.tell(events)
        frame = screen.frame()
        assert len(frame) == 4
        assert re.match(r"\d+ done, 1 in flight, 1 to go", frame[1])
        assert frame[3].startswith(f"web{len(events[0].data['waves']) - 1:03}  http-check 41 -> 42")
        screen.report.close()


def test_a_failed_node_is_never_hidden() -> None:
    screen = Screen(height=12)
    events = kit.large(8)
    failed = {"outcome": "failed", "why": "restart: exit 1; left out of rotation"}
    screen.tell([*events, Event(999, events[-1].at_s, "r", "node.ended", "web007", data=failed)])
    assert any("web007" in line and "failed" in line for line in screen.frame())
    screen.report.close()


def test_a_resumed_rollout_shows_what_was_done_before() -> None:
    events = kit.done()
    half = next(number for number, event in enumerate(events) if event.kind == "note")
    screen = Screen(past=events[:half])
    screen.tell(events[half : half + 1])
    assert screen.frame()[3].startswith("web1  http-check 41 -> 42  done 12.8 s")
    screen.report.close()


def test_markup_in_texts_is_printed_as_it_is() -> None:
    screen = Screen()
    screen.tell([Event(1, kit.BEGAN_S, "r", "note", None, None, "got [bold]x[/bold] \x1b[2J")])
    screen.report.close()
    assert any("got [bold]x[/bold] [2J" in line for line in screen.text())
    assert "\x1b[2J" not in screen.out.getvalue()


def test_a_report_that_never_began_closes_quietly() -> None:
    screen = Screen()
    screen.report.close()
    assert screen.out.getvalue() == ""


class NoKeys:
    """Keys that a test presses."""

    def __init__(self, pressed: Callable[[str], object]) -> None:
        self.press = pressed
        self.stops = 0

    def start(self) -> bool:
        return True

    def stop(self) -> None:
        self.stops += 1


def with_keys(pause: Callable[[], object]) -> tuple[Screen, NoKeys]:
    screen, made = Screen(), []

    def keys(pressed: Callable[[str], object]) -> NoKeys:
        made.append(NoKeys(pressed))
        return made[0]

    screen.report = TerminalReport(console=screen.report.console, clock=lambda: screen.now, keys=keys)
    screen.report.pause = pause
    return screen, made[0]


def test_p_asks_once_and_says_so() -> None:
    asked: list[str] = []
    screen, keys = with_keys(lambda: asked.append("pause"))
    screen.tell(kit.interrupted()[:-1])
    assert screen.frame()[1].endswith("p pauses, q leaves the view")
    for key in "xpp":
        keys.press(key)
    assert asked == ["pause"]
    assert screen.frame()[2] == "pausing after the nodes in flight; `drainctl resume` goes on then"
    screen.report.close()
    assert keys.stops


def test_p_that_is_refused_says_why_and_may_be_pressed_again() -> None:
    def refuse() -> None:
        raise ConfigError("no rollout of shop is running")

    screen, keys = with_keys(refuse)
    screen.tell(kit.interrupted()[:-1])
    keys.press("p")
    assert screen.frame()[2] == "p: no rollout of shop is running"
    screen.report.pause = lambda: None
    keys.press("p")
    assert screen.frame()[2].startswith("pausing after")
    screen.report.close()


def test_q_leaves_and_what_comes_then_is_plain_lines() -> None:
    screen, keys = with_keys(lambda: None)
    events = kit.done()
    screen.tell(events[:30])
    keys.press("q")
    assert not screen.report.on
    assert keys.stops
    left = len(screen.out.getvalue())
    keys.press("q")
    assert len(screen.out.getvalue()) == left
    screen.tell(events[30:])
    screen.report.close()
    after = screen.out.getvalue()[left:]
    assert "\x1b" not in after
    assert "done: 4 nodes done (exit 0, 54.3 s)" in after
    assert after.count("proof: 0 failed of 48210 requests") == 1


def test_an_interruption_is_shown_in_the_view_only_while_it_is_on() -> None:
    screen = Screen()
    assert not screen.report.say("interrupted: settling")
    screen.tell(kit.interrupted()[:-1])
    assert screen.report.say("interrupted: settling")
    assert screen.frame()[2] == "interrupted: settling"
    screen.report.close()
    assert not screen.report.say("interrupted: settling")
