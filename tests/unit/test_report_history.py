from __future__ import annotations

from drainctl.report.history import Head, head, history_table, show_rollout
from drainctl.report.story import Story
from tests.unit import events_kit as kit


def test_a_head_is_one_rollout_in_a_line() -> None:
    events = kit.put_back()
    assert head(events) == Head(
        rollout=kit.ROLLOUT,
        began_s=kit.BEGAN_S,
        verb="deploy",
        release="42",
        outcome="put-back",
        exit=1,
        done=0,
        nodes=4,
        took_s=events[-1].at_s - kit.BEGAN_S,
        why=events[-1].data["why"],
    )
    assert (head(kit.done()).done, head(kit.done()).outcome) == (4, "done")
    assert (head(kit.interrupted()[:-1]).outcome, head(kit.interrupted()[:-1]).exit) == ("open", None)


def test_history_fits_into_its_width() -> None:
    heads = [head(story()) for story in (kit.interrupted, kit.put_back, kit.done)]
    lines = history_table(heads, width=110).splitlines()
    assert lines[0].split() == [
        "began",
        "(UTC)",
        "rollout",
        "verb",
        "release",
        "nodes",
        "took",
        "outcome",
        "why",
    ]
    assert lines[3].split() == [
        "2026-05-04",
        "14:02",
        kit.ROLLOUT,
        "deploy",
        "42",
        "4/4",
        "54.3",
        "s",
        "done",
        "(0)",
    ]
    assert "1/4" in lines[1]
    assert "put-back (1)" in lines[2]
    assert lines[2].endswith("…")
    assert max(map(len, lines)) <= 110
    assert history_table([]) == "no rollout yet"


def test_show_has_each_steps_seconds_outcome_and_why() -> None:
    text = show_rollout(kit.put_back())
    lines = text.splitlines()
    assert (
        lines[0]
        == f"rollout {kit.ROLLOUT}: deploy 42 over shop: 4 nodes in 3 waves, by deploy@ops1 (pid 4711)"
    )
    assert lines[1].startswith(
        "began 2026-05-04 14:02:11 UTC, took 1 min 42 s, put-back (exit 1): web2: restart:"
    )
    assert "web2  forward  http-check  41 -> 42  turned back in 60.4 s" in lines
    assert "web2  back  http-check  42 -> 41  put-back in 12.8 s" in lines
    assert "      restart 60.0 s (failed)" in lines
    assert any(
        line.startswith("      restart failed: health.version answers '41', not '42'") for line in lines
    )
    assert "      hint: see `systemctl status shop` on web2" in lines
    assert "web3  staged" in lines
    assert "proof: inconclusive: lb2 was reloaded at 14:02:31" in lines
    assert "0 failed" not in text
    steps = [line for line in lines if line.startswith("      stage")]
    assert len(steps) == 4
    assert steps[0].split("  ")[3:6] == ["stage 0.80 s", "guard 0.00 s", "flag 0.02 s"]


def test_show_of_an_open_rollout_says_so() -> None:
    text = show_rollout(kit.interrupted()[:-1])
    assert "open: its journal has no end" in text
    assert "restart (not over)" in text
    assert show_rollout([]) == "no events"


def test_show_lists_notes_with_their_time() -> None:
    lines = show_rollout(kit.done()).splitlines()
    at = lines.index("notes")
    assert lines[at + 1] == "  14:02:26 lb2 has a new process (pid 811, before 402): looked at afresh"


def test_a_resumed_journey_goes_on_in_the_same_one() -> None:
    script = kit.Script()
    script.began()
    script.wave(1, 3, ["web1"])
    script.node("web1", "forward", "42")
    script.steps("web1", "42", kit.FORWARD[:6])
    script.tell("step.intended", "restart", node="web1", step="restart", act="restart", limit_s=60)
    script.tell("rollout.ended", "stopped", outcome="interrupted", exit=130, why="stopped", lines=[])
    script.tell("rollout.resumed", "resumed", token=8, holder="deploy@ops2 (pid 9)")
    assert Story(script.events).outcome is None
    script.node("web1", "forward", "42")
    script.tell("step.skipped", "done before the interruption, and still so", node="web1", step="switch")
    script.steps("web1", "42", kit.FORWARD[6:])
    script.ended("web1", "done", "on 42")
    (way,) = Story(script.events).ways("web1")
    assert way.outcome == "done"
    assert [run.name for run in way.steps].count("restart") == 1
    assert all(run.state != "running" for run in way.steps)
    assert "switch (done before)" in show_rollout(script.events)
