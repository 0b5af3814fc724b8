"""The rules of failover: every fault, kept or new connection, repeatable or not."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from drainctl.arb.policy import Again, Course, Fault, Policy, Pulse, by_method, judge, order
from drainctl.arb.shards import shards_of

SHARD = shards_of({"users": ["http://a:1", "http://b:2", "http://c:3"]})["users"]


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize(("reused", "repeatable"), list(itertools.product([True, False], repeat=2)))
def test_what_was_or_may_have_been_sent_is_repeated_only_where_twice_does_no_harm(fault, reused, repeatable):
    again = judge(fault, reused=reused, repeatable=repeatable).again
    if fault.sent and not repeatable:
        assert again is Again.NOBODY
    if not fault.sent:
        assert again is Again.NEXT


@pytest.mark.parametrize("fault", Fault)
def test_a_slow_answer_or_this_process_own_trouble_marks_nobody(fault):
    says_so = {Fault.REFUSED, Fault.UNREACHABLE, Fault.CONNECT_LIMIT, Fault.TLS_LIMIT, Fault.VANISHED}
    assert judge(fault, reused=False, repeatable=True).mark == (fault in says_so)


def test_a_stale_kept_connection_is_no_reason_to_leave_the_machine_but_a_second_one_is():
    course = Course(SHARD.machines, repeatable=True)
    course.failed(Fault.CLOSED, reused=True, took_s=0.0)
    assert course.machine.name == "a:1"
    course.failed(Fault.CLOSED, reused=False, took_s=0.0)
    assert course.machine.name == "b:2"


def test_a_query_that_outlived_the_read_limit_is_nobody_elses():
    assert judge(Fault.SILENT, reused=False, repeatable=True).again is Again.NOBODY


@pytest.mark.parametrize(
    "faults", list(itertools.product([Fault.REFUSED, Fault.VANISHED, Fault.CLOSED], repeat=4))
)
def test_a_course_ends_and_tells_the_worst(faults):
    course = Course(SHARD.machines, repeatable=True)
    for fault in faults:
        if course.machine is None:
            break
        course.failed(fault, reused=False, took_s=1.0)
    assert course.machine is None
    assert course.worst.sent == any(one.fault.sent for one in course.tries)


def a_course(*tries, repeatable=True):
    course = Course(SHARD.machines[:2], repeatable)
    for fault, took_s in tries:
        course.failed(fault, reused=False, took_s=took_s)
    course.once_more(SHARD.machines[:2])
    return course


def test_a_query_that_lost_both_machines_is_answered_by_the_one_that_came_back():
    course = a_course((Fault.CLOSED, 0.2), (Fault.CLOSED, 6.0))
    assert course.machine.name == "a:1"
    course.failed(Fault.CLOSED, reused=False, took_s=6.0)
    course.once_more(SHARD.machines[:2])
    assert course.machine is None, "a second chance is not a third one"


def test_a_query_that_fells_whoever_gets_it_does_not_go_round():
    assert a_course((Fault.CLOSED, 0.2), (Fault.CLOSED, 0.2)).machine is None


def test_what_must_not_run_twice_gets_no_second_chance():
    assert a_course((Fault.REFUSED, 0.0), (Fault.CLOSED, 6.0), repeatable=False).machine is None


def test_who_is_up_comes_first_then_faults_then_who_was_taken_down_by_hand():
    names = [one.name for one in order(SHARD, {"a:1": True, "b:2": False})]
    assert names == ["c:3", "b:2", "a:1"]
    assert order(SHARD, {}) is SHARD.machines


@pytest.mark.parametrize(
    ("method", "headers", "twice"),
    [
        ("GET", {}, True),
        ("PUT", {}, True),
        ("POST", {}, False),
        ("PATCH", {}, False),
        ("POST", {"Idempotency-Key": "1"}, True),
    ],
)
def test_what_may_be_sent_twice(method, headers, twice):
    assert by_method(method, "http://users/", headers) is twice


def test_a_machine_comes_back_after_enough_good_probes_in_a_row():
    pulse, policy = Pulse(), Policy(rise=2)
    beats = [pulse.beat(fault, policy, down=True) for fault in (None, Fault.SILENT, None, None)]
    assert beats == ["", "mark", "", "lift"]


def test_a_silent_probe_marks_after_fall_a_refused_one_at_once():
    pulse, policy = Pulse(), Policy(fall=2)
    assert [pulse.beat(Fault.SILENT, policy, down=False) for _ in range(2)] == ["", "mark"]
    assert Pulse().beat(Fault.REFUSED, policy, down=False) == "mark"
    assert Pulse().beat(None, policy, down=False) == ""


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ({"Users": ["http://a"]}, "lower case"),
        ({"users": []}, "wants a list"),
        ({"users": "http://a"}, "wants a list"),
        ({"users": ["http://a:80", "http://a"]}, "named twice"),
        ({"users": ["http://a", "https://b"]}, "mixed"),
        ({"users": ["http://a/path"]}, "more than a scheme"),
        ({"users": ["ftp://a"]}, "is not http"),
    ],
)
def test_shards_that_cannot_be_are_refused_by_name(described, words):
    with pytest.raises(ValueError, match=words):
        shards_of(described)


def test_a_machine_has_a_port_and_a_host_also_in_ipv6():
    machine = shards_of({"u": ["http://[::1]:81/"]})["u"].machines[0]
    assert (machine.name, machine.host, machine.port, machine.url) == (
        "[::1]:81",
        "::1",
        81,
        "http://[::1]:81",
    )


def test_the_library_loads_nothing_of_ours_but_itself_and_no_client_that_was_not_asked_for():
    program = "import sys; from drainctl.arb import {}; print(*sys.modules)"

    def loaded(name):
        code = program.format(name)
        return set(
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            ).stdout.split()
        )

    session = loaded("ReplicaSession")
    assert {"requests"} <= session
    assert (
        session & {"paramiko", "click", "httpx", "jinja2", "yaml", "pydantic", "rich", "sqlite3", "asyncio"}
        == set()
    )
    ours = {name for name in session if name.startswith("drainctl.") and not name.startswith("drainctl.arb")}
    assert ours <= {"drainctl.threads"}
    assert loaded("AsyncReplicaClient") & {"requests", "urllib3", "paramiko", "jinja2"} == set()
    assert loaded("FileBoard") & {"requests", "httpx", "click"} == set()
    assert {"drainctl.arb"} == {name for name in loaded("__all__") if name.startswith("drainctl.")}
