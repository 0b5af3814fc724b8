"""The command lines as text: quoting, and reading what they print."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainctl.model import Disk
from drainctl.node import shell

anything = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)


@given(anything, anything, anything)
def test_a_value_from_outside_stays_one_word(path, text, rollout):
    for line, values in (
        (shell.set_flag(path, text), {"flag": path, "text": text}),
        (shell.clear_flag(path, rollout), {"flag": path, "rollout": rollout}),
        (shell.switch(path, rollout), {"root": path, "id": rollout}),
        (shell.disk(path, rollout), {"root": path, "flag": rollout}),
    ):
        head = line.removeprefix("LC_ALL=C; export LC_ALL; umask 022\n")
        for name, value in values.items():
            given_ = f"{name}={shlex.quote(value)}\n"
            assert head.startswith(given_)
            assert shlex.split(given_) == [f"{name}={value}"]
            head = head.removeprefix(given_)


def test_disk_is_read_past_a_greeting_and_ignores_what_is_no_release():
    out = (
        "Welcome!\nflag\ndrainctl-disk\n"
        "current /srv/shop/releases/r2\n"
        "release releases/r1\nrelease releases/r2/.drainctl-release\nrelease releases/not a release\n"
        'flag\n{"rollout": "a"}\nflag\nwhy\n'
    )
    assert shell.parse_disk(out) == Disk("r2", ("r1", "r2"), '{"rollout": "a"}\nflag\nwhy')


@pytest.mark.parametrize("target", ["/opt/shop", "r2", "releases/..", "releases/.r2.12.partial"])
def test_current_that_points_elsewhere_is_no_release(target):
    assert shell.parse_disk(f"drainctl-disk\ncurrent {target}\n") == Disk()


def test_an_empty_flag_is_a_flag():
    assert shell.parse_disk("drainctl-disk\nflag\n").flag == ""
    assert shell.parse_disk("drainctl-disk\n").flag is None


@pytest.mark.parametrize(
    ("text", "who"),
    [
        ('{"rollout": "7f2c", "token": 3}\nset by ops', "7f2c"),
        ("by hand", None),
        ("", None),
        ('["7f2c"]', None),
        ('{"rollout": 7}', None),
        ('x\n{"rollout": "7f2c"}', None),
    ],
)
def test_a_flag_names_its_rollout_in_its_first_line(text, who):
    assert shell.holder(text) == who


@pytest.mark.parametrize("bad", ["", ".", "..", ".hidden", "a/b", "a b", "a\n", "-rf", "é", "a" * 129])
def test_unsafe_ids(bad):
    assert not shell.SAFE_ID.fullmatch(bad)


@pytest.mark.parametrize("good", ["42", "shop-1.2.3+build_7", "2024.01.31", "a" * 128])
def test_safe_ids(good):
    assert shell.SAFE_ID.fullmatch(good)


def test_the_deleted_are_read_from_what_prune_printed():
    assert shell.parse_pruned("Welcome\ndeleted r1\ndeleted r2\n") == ("r1", "r2")


def test_a_count_is_the_last_line_and_nothing_else_will_do():
    assert shell.parse_active("Welcome\n12\n") == 12
    with pytest.raises(ValueError, match="invalid literal"):
        shell.parse_active("Welcome\n")


def test_an_address_narrows_the_count():
    assert "'sport = :80 and src 127.0.0.2'" in shell.active_requests(80, "127.0.0.2")
    assert "'sport = :80 and src [::1]'" in shell.active_requests(80, "::1")
    assert "'sport = :80'" in shell.active_requests(80)


def test_a_current_that_is_no_link_is_told():
    assert shell.parse_disk("drainctl-disk\nblocked\nrelease releases/v1\n") == Disk(
        None, ("v1",), None, True
    )
