"""HAProxy's words into values: what it writes, and what no HAProxy writes."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainctl.balancer import parse
from drainctl.errors import BalancerRefused, UnexpectedReply
from drainctl.model import Counters, Word

NEEDED = """
    pxname svname qcur scur stot econ eresp wretr wredis status weight act bck chkfail lastchg iid sid type
    check_status check_code hrsp_1xx hrsp_2xx hrsp_3xx hrsp_4xx hrsp_5xx cli_abrt srv_abrt last_chk addr
    cookie
""".split()  # noqa: SIM905  # thirty quoted names would be harder to compare with the manual


def table(*rows: dict[str, object], columns: list[str] = NEEDED) -> str:
    """`show stat` as HAProxy writes it: a trailing comma on every line, fields quoted where they must be."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=",\n")
    out.write("# ")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([row.get(column, "") for column in columns])
    return out.getvalue()


def server(name: str = "s1", **fields: object) -> dict[str, object]:
    usual = {
        "pxname": "app",
        "svname": name,
        "type": 2,
        "status": "UP",
        "act": 1,
        "bck": 0,
        "weight": 1,
        "sid": 1,
    }
    return usual | fields


def test_a_server_row_has_every_field():
    fields = {
        "status": "NOLB 2/3", "check_status": "L7OKC", "check_code": 404, "last_chk": "Not Found",
        "weight": 50,
        "act": 0, "bck": 1, "scur": 3, "qcur": 2, "iid": 7, "sid": 9, "addr": "127.0.0.1:80", "cookie": "c1",
        "lastchg": 12, "stot": 100, "hrsp_1xx": 1, "hrsp_2xx": 2, "hrsp_3xx": 3, "hrsp_4xx": 4, "hrsp_5xx": 5,
        "econ": 6, "eresp": 7, "wretr": 8, "wredis": 9, "cli_abrt": 10, "srv_abrt": 11, "chkfail": 12,
    }  # fmt: skip
    (row,) = parse.show_stat(table(server(**fields))).servers
    assert (row.backend, row.server, row.role, row.weight) == ("app", "s1", "backup", 50)
    assert (row.status.word, row.status.n, row.status.of) == (Word.NOLB, 2, 3)
    assert (row.check, row.checking, row.check_code, row.last_check) == ("L7OKC", False, 404, "Not Found")
    assert (row.scur, row.qcur, row.iid, row.sid, row.since_s) == (3, 2, 7, 9, 12)
    assert (row.address, row.cookie) == ("127.0.0.1:80", "c1")
    assert row.counters == Counters(100, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)


def test_columns_are_found_by_name_wherever_a_version_puts_them():
    rows = (server(scur=4), server("s2", scur=5, sid=2))
    turned = [*NEEDED[:2], "brand_new", *reversed(NEEDED[2:])]
    assert parse.show_stat(table(*rows, columns=turned)) == parse.show_stat(table(*rows))


@pytest.mark.parametrize(
    ("shown", "code", "check", "checking", "read"),
    [
        ("L7OK", "200", "L7OK", False, 200),
        ("* L7OK", "0", "L7OK", True, None),
        ("* L7OK", "200", "L7OK", True, None),
        ("INI", "", "INI", False, None),
        ("", "", "", False, None),
        ("L7STS", "0", "L7STS", False, None),
    ],
)
def test_a_running_check_has_no_code_yet(shown, code, check, checking, read):
    (row,) = parse.show_stat(table(server(check_status=shown, check_code=code))).servers
    assert (row.check, row.checking, row.check_code) == (check, checking, read)


def test_only_wanted_servers_and_no_other_rows_are_kept():
    text = table(
        {"pxname": "fe", "svname": "FRONTEND", "type": 0, "status": "OPEN", "hrsp_5xx": 4},
        server("s1"),
        server("s2", sid=2),
        {
            "pxname": "app",
            "svname": "BACKEND",
            "type": 1,
            "status": "UP",
            "act": 2,
            "bck": 1,
            "scur": 6,
            "iid": 3,
        },
        {"pxname": "fe", "svname": "listener", "type": 3, "status": "OPEN"},
    )
    narrow = parse.show_stat(text, {("app", "s2"), ("other", "s1")})
    assert [row.server for row in narrow.servers] == ["s2"]
    assert (narrow.backends, narrow.frontends) == ((), ())
    whole = parse.show_stat(text)
    assert [row.server for row in whole.servers] == ["s1", "s2"]
    (backend,), (frontend,) = whole.backends, whole.frontends
    assert (backend.backend, backend.status, backend.active, backend.backup, backend.scur) == (
        "app",
        "UP",
        2,
        1,
        6,
    )
    assert (frontend.backend, frontend.counters.answered_5xx) == ("fe", 4)


def test_a_table_without_rows_is_empty():
    assert parse.show_stat(table()) == parse.Shown()


@given(
    st.text(
        st.characters(exclude_categories=["Cs"], exclude_characters="\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029")
    )
)
def test_quoted_fields_hold_anything(last_check):
    text = table(server(last_chk=last_check), server("s2", sid=2))
    assert [row.last_check for row in parse.show_stat(text).servers] == [last_check, ""]
    assert [row.server for row in parse.show_stat(text, {("app", "s2")}).servers] == ["s2"]
    assert parse.answers(f"{text}\n{text}\n", 2) == [text, text]


@pytest.mark.parametrize("missing", NEEDED)
def test_a_missing_column_is_named(missing):
    with pytest.raises(UnexpectedReply, match=f"no.*{missing}|no `show stat` header"):
        parse.show_stat(table(columns=[name for name in NEEDED if name != missing]))


@pytest.mark.parametrize("cut", range(1, len(table(server()).splitlines()[1])))
def test_a_row_cut_anywhere_is_refused(cut):
    text = table(server())
    with pytest.raises(UnexpectedReply):
        parse.show_stat(text.rstrip("\n")[:-cut])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"status": "SLEEPING"}, "app/s1: unknown server status 'SLEEPING'"),
        ({"scur": "many"}, "number is none.*many"),
    ],
)
def test_an_unknown_value_is_refused_and_named(fields, words):
    with pytest.raises(UnexpectedReply, match=words):
        parse.show_stat(table(server(**fields)))


@pytest.mark.parametrize("text", ["", "\n", "<html>", "Name: HAProxy\n", "pxname,svname\n"])
def test_what_is_no_table_is_refused(text):
    with pytest.raises(UnexpectedReply, match="no `show stat`"):
        parse.show_stat(text)


def test_show_info():
    text = "Name: HAProxy\nVersion: 2.6.12\nPid: 12\nUptime_sec: 7\nStopping: 1\nStart_time_sec: 99\n"
    process = parse.show_info(text)
    assert (process.pid, process.started_at_s, process.uptime_s) == (12, 99, 7)
    assert (process.version, process.stopping) == ("2.6.12", True)
    with pytest.raises(UnexpectedReply, match="no `show info`, but `admin`"):
        parse.show_info("admin\n")


def test_show_proc():
    head = "#<PID>          <type>          <reloads>       <uptime>        <version>      \n"
    head += "1               master          2 [failed: 0]   0d00h01m28s     2.6.12\n# workers\n"
    head += "4               worker          0               0d00h00m10s     2.6.12\n"
    old = "# old workers\n2               worker          2               0d00h01m28s     2.6.12\n"
    old += "3               worker          1               1d00h00m20s     2.6.12\n"
    assert parse.show_proc(f"{head}# programs\n") == ()
    found = (parse.OldProcess(2, "0d00h01m28s"), parse.OldProcess(3, "1d00h00m20s"))
    assert parse.show_proc(f"{head}{old}# programs\n5 worker 0 0d x\n") == found
    with pytest.raises(UnexpectedReply, match="no `show proc`"):
        parse.show_proc("Unknown command\n")
    with pytest.raises(UnexpectedReply, match="line `2 work`"):
        parse.show_proc(f"{head}# old workers\n2 work\n")


def test_answers_are_told_apart():
    assert parse.answers("\n", 1) == [""]
    assert parse.answers("No such server.\n\n", 1) == ["No such server.\n"]
    assert parse.answers("a\nb\n\nc\n\n", 2) == ["a\nb\n", "c\n"]
    assert parse.answers("a\n\nb\n\n", 1) == ["a\n\nb\n"]


@pytest.mark.parametrize(("text", "count"), [("", 1), ("a\n", 1), ("a\n\nb\n", 2), ("a\n\n", 2)])
def test_an_answer_cut_short_is_never_taken_for_a_whole_one(text, count):
    with pytest.raises(EOFError, match="cut short"):
        parse.answers(text, count)


@pytest.mark.parametrize(
    ("command", "said", "kept", "hint"),
    [
        ("set server a/b health up", "Permission denied\n", "Permission denied", "`level admin`"),
        ("clear counters all", "Permission denied\n", "Permission denied", "`level admin`"),
        ("clear counters", "Permission denied\n", "Permission denied", "`level operator`"),
        ("show sess", "Permission denied\n", "Permission denied", "`level operator`"),
        ("set server a/b health up", "No such server.\n", "No such server.", "case sensitive"),
        ("disable server a/b", "No such backend.\n", "No such backend.", "case sensitive"),
        ("show servers state a", "Can't find backend.\n", "Can't find backend.", "case sensitive"),
        ("set server a/b health up", "Proxy is disabled.\n", "Proxy is disabled.", "reload"),
        (
            "x",
            "Unknown command: 'x', but maybe\n  help\n",
            "Unknown command: 'x', but maybe",
            "does not know",
        ),
        ("@!9 show info", "Can't find the target PID matching the prefix '@!9'\n", "prefix '@!9'", "ended"),
        ("set server a/b health x", "'set server <srv> health' expects 'up'.\n", "expects 'up'.", None),
    ],
)
def test_a_refusal_keeps_haproxys_words_and_says_what_helps(command, said, kept, hint):
    error = parse.refused("lb1", command, said)
    assert isinstance(error, BalancerRefused)
    assert str(error).startswith(f"lb1 refused `{command}`: ")
    assert str(error).endswith(kept)
    assert hint in error.hint if hint else error.hint is None


def test_a_refusal_among_answers_is_raised():
    assert parse.checked("lb1", ["a", "b"], ["x\n", "y\n"]) == ["x\n", "y\n"]
    with pytest.raises(BalancerRefused, match="lb1 refused `b`: Permission denied"):
        parse.checked("lb1", ["a", "b"], ["x\n", "Permission denied\n"])
