"""The fence as text: where it is, what it says, and what a refusal means. On a real shell: tests/real."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainctl.node import fence
from drainctl.node.fence import Claim, Fence, Place, Says

BY = "deploy@ops1 (pid 4711)"
LINE = f"1795566712 20261125-003152-0078 2026-11-25T00:31:52Z deploy v2 v1 {BY}"
CLAIM = Claim(1795566712, "20261125-003152-0078", "2026-11-25T00:31:52Z", "deploy", "v2", "v1", BY)
OURS = Fence(1795566713, "20261125-003153-9c3f", "deploy", "v2", BY, "2026-11-25T00:31:53Z")
anything = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


def test_it_lies_below_the_root_or_beside_the_flag_under_its_name():
    root = Place("/srv/shop/.drainctl-fence", "/srv/shop/.drainctl-log", "/srv/shop/current")
    assert fence.place("/srv/shop", "/run/shop/down") == root
    assert fence.place(None, "/run/web/shop.down") == Place(
        "/run/web/.shop.down.drainctl-fence", "/run/web/.shop.down.drainctl-log"
    )
    assert fence.place(None, None) is None


def test_a_line_is_read_with_all_that_it_says():
    assert fence.parse_line(LINE) == CLAIM
    assert str(CLAIM) == (
        f"rollout 20261125-003152-0078 (deploy v2) of {BY} since 2026-11-25T00:31:52Z, token 1795566712"
    )
    drain = fence.parse_line(f"7 r1 2026-11-25T00:31:52Z drain - - {BY}")
    assert drain == Claim(7, "r1", "2026-11-25T00:31:52Z", "drain", None, None, BY)
    assert str(drain).startswith("rollout r1 (drain) of ")


@pytest.mark.parametrize("line", ["", "x", "-1 r1 at deploy v2 v1 me", "7 r1 at deploy v2", "9" * 19 + LINE])
def test_what_is_no_line_of_ours_is_left_out(line):
    assert fence.parse(f"{line}\n{LINE}\n") == (CLAIM,)


def test_a_link_that_leads_nowhere_known_is_no_release():
    found = fence.parse_line(f"7 r1 2026-11-25T00:31:52Z deploy v2 .partial {BY}")
    assert found
    assert found.was is None


@given(anything, anything)
def test_a_value_from_outside_stays_one_word(path, what):
    text = fence.wrap("true", OURS, Place(path, path, path), what)
    head, _, _ = text.partition("\nfence_say()")
    words = dict(word.split("=", 1) for word in shlex.split(head) if "=" in word)
    assert words["fence_file"] == words["fence_log"] == words["fence_current"] == path
    assert words["fence_what"] == " ".join(what.split())[:100]


def test_a_refusal_names_who_is_there():
    err = f"Welcome\ndrainctl-fenced {LINE}\n"
    assert fence.refused(Says.FENCED, err) == f"{CLAIM} has taken it over"
    assert fence.refused(Says.FENCED, "drainctl-fenced 12 odd\n") == "its fence says: 12 odd"
    busy = "drainctl-busy 97.31 begin 7 r1 `restart`\n"
    assert fence.refused(Says.BUSY, busy) == (
        "an act of another controller still runs on it: 97.31 begin 7 r1 `restart`"
    )


def test_the_same_exit_code_of_a_command_is_the_commands():
    assert fence.refused(Says.FENCED, "configuration error\n") is None
    assert fence.refused(Says.BUSY, f"drainctl-fenced {LINE}\n") is None
    assert fence.refused(1, f"drainctl-fenced {LINE}\n") is None


def test_how_a_claim_went_is_its_last_word():
    assert fence.parse_claimed("Welcome\ndrainctl-claimed stolen from 7 r1\n") == "stolen from 7 r1"
    assert fence.parse_claimed("Welcome\n") == "not raised"
