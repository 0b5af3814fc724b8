"""The command lines for nginx as text: quoting, what they print, and what is judged of it."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainctl.nginx import lines
from drainctl.nginx.lines import Worker
from drainctl.node import shell

anything = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60)
NEW, OLD, ENDING = (
    Worker(30, 1, False, None, 900),
    Worker(20, 9, False, None, 100),
    Worker(20, 9, True, 2, 100),
)


@given(anything, anything, anything)
def test_a_value_from_outside_stays_one_word(path, text, command):
    for line, values in (
        (lines.put(path, text, command), {"file": path, "text": text, "test": command}),
        (lines.reload(path, command), {"pid_file": path, "before": "", "command": command}),
        (lines.inspect(path, text, (80, 81)), {"file": path, "pid_file": text, "before": ""}),
        (lines.workers(path, (text,)), {"pid_file": path, "before": text}),
    ):
        head = line.removeprefix("LC_ALL=C; export LC_ALL; umask 022\n")
        for name, value in values.items():
            given_ = f"{name}={shlex.quote(value)}\n"
            assert head.startswith(given_)
            assert shlex.split(given_) == [f"{name}={value}"]
            head = head.removeprefix(given_)


def test_an_exit_code_means_one_thing():
    assert not {*lines.Says} & {*shell.Says}


def test_a_look_is_read_past_a_greeting():
    out = (
        "Welcome!\nmaster 3\ndrainctl-nginx\nmaster 12\n"
        "worker 30:900 1 serving -\nworker 20:100 9 stopping 2\nworker 21:100 -3 stopping -\n"
        "ports seen\n"
        'listen LISTEN 0 5 127.0.0.1:8000 0.0.0.0:* users:(("python3",pid=9,fd=3),("python3",pid=8,fd=3))\n'
        "listen LISTEN 0 5 [::]:8001 [::]:*\n"
        "file\nupstream shop {\n}\nmaster 13\nworker 1:1 1 serving -\n"
    )
    look = lines.parse_inspect(out)
    assert look.file_text == "upstream shop {\n}\nmaster 13\nworker 1:1 1 serving -\n"
    assert (look.master, look.trouble) == (12, None)
    assert look.workers == (NEW, ENDING, Worker(21, 0, True, None, 100))
    assert look.listeners == {
        8000: "python3 (pid 8 9) on 127.0.0.1",
        8001: "a process that this user cannot see on ::",
    }


def test_listeners_on_another_address_of_the_node_are_nobodys_business():
    out = "drainctl-nginx\nports seen\n" + "".join(
        f'listen LISTEN 0 5 {where} 0.0.0.0:* users:(("{name}",pid=9,fd=3))\n'
        for name, where in (
            ("a", "127.0.0.1:80"), ("b", "127.0.0.2:80"), ("c", "0.0.0.0:80"), ("d", "*:81"),
            ("e", "[::1]:82"), ("f", "127.0.0.1%lo:83"),
        )
    )  # fmt: skip
    assert lines.parse_inspect(out, "127.0.0.2").listeners == {
        80: "b (pid 9) on 127.0.0.2, c (pid 9) on 0.0.0.0",
        81: "d (pid 9) on *",
    }
    assert set(lines.parse_inspect(out, "127.0.0.1").listeners or ()) == {80, 81, 83}
    assert set(lines.parse_inspect(out, "::1").listeners or ()) == {80, 81, 82}
    assert set(lines.parse_inspect(out, "web1.example").listeners or ()) == {80, 81, 82, 83}


def test_what_was_not_seen_is_not_there():
    look = lines.parse_inspect("drainctl-nginx\ntrouble there is no /run/nginx.pid\n")
    assert look == (None, None, (), None, "there is no /run/nginx.pid")
    assert lines.parse_inspect("drainctl-nginx\nports seen\nfile\n").file_text == ""
    assert lines.parse_inspect("drainctl-nginx\nports seen\n").listeners == {}


def test_workers_before_and_after():
    assert lines.parse_before("Welcome\nbefore 20:100 21:101\nbye\n") == ("20:100", "21:101")
    assert lines.parse_before("Welcome\n") == ()
    assert lines.parse_workers("worker 1:1 1 serving -\ndrainctl-workers\nworker 30:900 1 serving -\n") == (
        NEW,
    )


@pytest.mark.parametrize(
    ("before", "now", "is_over"),
    [
        (("20:100",), (OLD,), False),
        (("20:100",), (OLD, NEW), False),
        (("20:100",), (ENDING, NEW), True),
        (("20:100",), (NEW,), True),
        (("20:100", "30:900"), (ENDING, NEW), False),
        (("20:99",), (OLD,), True),  # the pid came again
        (("20:100",), (), False),  # nobody serves
        (("20:100",), (ENDING,), False),
        ((), (NEW,), False),  # nothing is known
    ],
)
def test_replaced(before, now, is_over):
    assert lines.replaced(before, now) is is_over


def test_the_stopping_are_told_oldest_first():
    older = Worker(40, 99, True, 0, 50)
    assert lines.stopping((ENDING, NEW, older)) == (older, ENDING)
