"""Screens in a real terminal, 80 and 200 columns wide: what a person on call must find on each of them."""

from __future__ import annotations

import json
import os
import signal
from itertools import pairwise

import pytest
from rollout_kit import cli, flags, running, wait_up
from screens import BASE, WIDTHS, capture
from tmux_kit import Tmux, wide

from drainctl.lab.load import Load
from tests.conftest import until

pytestmark = [pytest.mark.real, pytest.mark.slow]

# What each screen must say, wherever its lines break.
FACTS = {
    "config-errors": ("checks.intr", "rollout.keep_up: found 500%", "broken.yml:23"),
    "doctor": ("2 balancers, 4 nodes", "a deploy may begin"),
    "plan": ("deploy v2 over 4 nodes in 4 waves", "v1 -> v2", "wave 4: web4", "expected:"),
    "status": ("web4 v1 200 UP",),
    "status-running": ("is run by", "deploy v2: ", " done", " at ", "web4 v1 200 UP"),
    "status-watch": ("shop · 4 nodes, 2 balancers", "q leaves", "requests/s", "failed/s", "is run by"),
    "lease-held": ("the lease on shop is held by", "nothing was changed", "hint: `drainctl show"),
    "deploy-middle": (
        "deploy v2 · rollout",
        "wave 2 of 4",
        "1 done, 1 in flight, 2 to go",
        "p pauses, q leaves the view",
        "> idle for",
        "s left",
        "web4 v1, staged",
        "web2 NOLB",
        "requests/s",
        "failed/s",
    ),
    "deploy-done": (
        "· done ·",
        "4 done",
        "proof: 0 failed of",
        "(exit 0",
        "web1, web2, web3, web4: in rotation, on v2",
    ),
    "put-back": ("restart failed: health.version answers 502", "limit 4 s", "(exit 1", "in rotation, on v2"),
    "halt": (
        "OUT OF ROTATION by its flag",
        "restart!:",
        "web2, web3, web4: not begun, on v2",
        "go on: drainctl -c halting.yml resume",
        "take back: drainctl -c halting.yml abort",
        "by hand: drainctl -c halting.yml restore web1 --steal",
        "(exit 3",
    ),
    "status-halted": ("is not finished: halted", "web1 v4 404 NOLB", "take back: drainctl abort"),
    "abort": ("abort was asked", "(exit 0", "web1: in rotation, on v2"),
    "status-open": ("is not finished: its controller died", "404 NOLB", "go on: drainctl resume"),
    "deploy-refused": ("was not finished: its controller died", "goes on with it"),
    "history": ("done (0)", "put-back (1)", "open", "took"),
    "resume": ("resumed by", "4 done", "(exit 0", "in rotation, on v3"),
    "show": ("done (exit 0)", "restart", "proof: 0 failed of", "in rotation, on v3"),
}


@pytest.fixture(scope="module")
def screens():
    return capture()


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("name", FACTS)
def test_a_screen_says_what_a_person_needs(screens, name):
    found = [key for key in screens.lines if key[0] == name]
    assert found
    for key in found:
        told = flat(screens[key])
        assert [fact for fact in FACTS[name] if fact not in told] == [], screens[key]


def test_every_captured_screen_has_its_facts(screens):
    assert {name for name, _ in screens.lines} == set(FACTS)
    assert {width for _, width in screens.lines} == set(WIDTHS)


def test_no_line_is_wider_than_the_screen_nor_broken_by_the_terminal(screens):
    for (name, width), lines in screens.lines.items():
        assert wide(lines, width) == [], name
        # A terminal breaks a line that is too wide in its last column, wherever that is in a word.
        broken = [
            (line, after)
            for line, after in pairwise(lines)
            if len(line) == width and line[-1].isalnum() and after[:1].isalnum()
        ]
        assert broken == [], name


# ---------------------------------------------------------------- keys, on a lab of their own


@pytest.fixture(scope="module")
def lab():
    with running(BASE, nodes=2, inter="300ms") as it:
        yield it


@pytest.fixture
def shop(lab):
    """Every server UP, nothing open; requests long enough that a node has to wait to be idle."""
    if cli(lab.config, "history").out.splitlines()[1:2]:
        cli(lab.config, "abort")
    wait_up(lab)
    with Load(lab.urls, rate=40, mix="get=1,slow=1"):
        yield lab


def outcome(lab) -> str:
    return str(json.loads(cli(lab.config, "status", "--output", "json").out)["rollout"]["outcome"])


def is_sane(tmux) -> bool:
    """Whether the terminal echoes and reads lines, as a shell wants it."""
    tmux.clear()
    told = " ".join(tmux.run("stty -a"))
    return " icanon" in told and " -icanon" not in told and " echo " in told


def test_q_leaves_the_view_and_the_rollout_goes_on_in_plain_lines(shop):
    with Tmux(shop.folder) as tmux:
        tmux.enter("drainctl restart; echo code $?")
        tmux.until("the view", "q leaves the view", "> idle")
        tmux.key("q")
        lines = tmux.until("plain lines", "left the view; the rollout goes on", "web1  idle")
        assert not any("q leaves the view" in line for line in lines)
        tmux.until("the end", "code 0")
        told = flat("\n".join(tmux.scrollback()))
        assert "web2 up" in told
        assert "done: 2 of 2 nodes done (exit 0" in told
        assert wide(tmux.scrollback(), 80) == []
        assert is_sane(tmux)


def test_p_pauses_after_the_node_in_flight_and_writes_the_event(shop):
    with Tmux(shop.folder) as tmux:
        tmux.enter("drainctl restart; echo code $?")
        tmux.until("the view", "p pauses", "> idle")
        tmux.key("p")
        tmux.until("an answer", "pausing after the nodes in flight")
        tmux.key("p")
        tmux.until("the end", "code ", "paused:")
        assert "1 done, 0 in flight, 1 to go" in tmux.text()
        assert is_sane(tmux)
    asked = [
        line
        for line in cli(shop.config, "show", "--output", "json").out.splitlines()
        if "rollout.asked" in line
    ]
    assert len(asked) == 1
    assert json.loads(asked[0])["data"]["ask"] == "pause"
    assert outcome(shop) == "paused"
    assert flags(shop) == []


@pytest.mark.parametrize("how", ["C-c", "TERM"])
def test_an_interrupted_rollout_says_so_in_the_view_and_gives_the_terminal_back(shop, how):
    with Tmux(shop.folder) as tmux:
        tmux.enter("drainctl restart & echo $! > pid; fg; echo code $?")
        tmux.until("the view", "> idle")
        if how == "C-c":
            tmux.key("C-c")
        else:
            os.kill(int((shop.folder / "pid").read_text()), signal.SIGTERM)
        tmux.until("the end", "code 130")
        assert "interrupted: the nodes in flight were settled (exit 130" in flat("\n".join(tmux.scrollback()))
        assert is_sane(tmux)
    assert flags(shop) == []


def test_in_the_background_it_never_reads_the_terminal(shop):
    """A process in the background that reads or changes its terminal is stopped by the system."""
    with Tmux(shop.folder) as tmux:
        tmux.enter("drainctl restart & wait; echo code $?")
        tmux.until("the end", "code 0", limit_s=60)
        assert "q leaves the view" not in "\n".join(tmux.scrollback())


def test_no_colour_where_none_is_wanted(shop):
    with Tmux(shop.folder, env={"NO_COLOR": "1"}) as tmux:
        tmux.enter("drainctl restart")
        tmux.until("the view", "> idle", "requests/s")
        raw = tmux.coloured()
        assert "requests/s" in raw
        assert not [
            code for code in ("\x1b[3", "\x1b[9") for number in range(1, 8) if f"{code}{number}m" in raw
        ]
        tmux.until("the end", "done:", limit_s=60)


def test_status_watch_refreshes_fits_any_size_and_leaves_silently(shop):
    with Tmux(shop.folder, 100, 30) as tmux:
        tmux.clear()
        tmux.enter("drainctl status --watch; echo code $?")
        first = tmux.until("traffic", "requests/s ", "▁▁")[0]
        until("a later look", lambda: tmux.lines()[0] != first)
        for width, height in ((80, 24), (40, 10), (120, 40)):
            tmux.resize(width, height)
            until(
                "the new size",
                lambda height=height: tmux.text().startswith("shop · 2") and len(tmux.lines()) <= height,
            )
            assert wide(tmux.lines(), width) == []
        tmux.key("C-c")
        tmux.until("its end", "code 0")
        assert tmux.lines() == ["$ drainctl status --watch; echo code $?", "code 0", "$"]
        assert is_sane(tmux)


def test_without_a_terminal_text_is_plain_lines_on_stderr(shop):
    said = cli(shop.config, "--output", "text", "restart")
    assert said.code == 0
    assert said.out == ""
    assert "\x1b" not in said.err
    assert "web1  up " in said.err
