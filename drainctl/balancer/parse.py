"""
HAProxy's words into values: `show stat`, `show info`, `show proc`, and every kind of refusal.

Nothing here does I/O or knows which balancer answered; callers put its name in front. Columns are found by
their header, since versions insert new ones in the middle (128 in 2.6, 138 in 2.8).
Source: HAProxy management.txt, "9.1. CSV format" and "9.3. Unix Socket commands".
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter

from drainctl.balancer.door import Server
from drainctl.errors import BalancerRefused, UnexpectedReply
from drainctl.model import BackendRow, Counters, Process, ServerRow, Status

FRONTEND, BACKEND, SERVER = "0", "1", "2"  # column `type`; 3 is a listener, which nobody asks for

_COUNTERS = (
    "stot", "hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "econ", "eresp",
    "wretr", "wredis", "cli_abrt", "srv_abrt", "chkfail",
)  # fmt: skip
_NUMBERS = ("scur", "qcur", "iid", "weight", "act", "bck", "sid", "lastchg")
_TEXTS = ("type", "status", "check_status", "check_code", "last_chk", "addr", "cookie")
_MORE = ("ttime_max", "agent_status", "tracked")  # of whole tables only; versions before 2.0 lack the first
_cached_status = lru_cache(maxsize=256)(Status.parse)


@dataclass(frozen=True, slots=True)
class Shown:
    """The rows of one `show stat`, by type."""

    servers: tuple[ServerRow, ...] = ()
    backends: tuple[BackendRow, ...] = ()
    frontends: tuple[BackendRow, ...] = ()


@dataclass(frozen=True, slots=True)
class OldProcess:
    """A line below `# old workers` of `show proc`; uptime in HAProxy's words (`0d00h03m10s`)."""

    pid: int
    uptime: str


class _Columns:
    """Where one HAProxy version puts the columns we read. One per header text; see `_columns`."""

    def __init__(self, header: str) -> None:
        names = header.removeprefix("# ").split(",")
        where = {name: place for place, name in enumerate(names)}
        if not header.startswith("# ") or "pxname" not in where:
            raise UnexpectedReply(f"no `show stat` header, but {_start(header)}")
        for name in ("pxname", "svname", *_COUNTERS, *_NUMBERS, *_TEXTS):
            if name not in where:
                raise UnexpectedReply(f"`show stat` has no column `{name}`")
        self.width = len(names)
        self.type = where["type"]
        self.counters = itemgetter(*(where[name] for name in _COUNTERS))
        self.numbers = itemgetter(*(where[name] for name in _NUMBERS))
        self.texts = itemgetter(*(where[name] for name in _TEXTS))
        self.more = tuple(where.get(name) for name in _MORE)


_columns = lru_cache(maxsize=8)(_Columns)


def show_stat(text: str, wanted: Collection[Server] | None = None) -> Shown:
    """
    Read the CSV of `show stat` or of a stats page.

    Args:
        text: the header line and the rows; only the header when nothing matched HAProxy's filter.
        wanted: keep these servers and no BACKEND or FRONTEND; None keeps all.
    Raises: UnexpectedReply for a missing column, a line cut short, or a value HAProxy is not known to write.
    """
    header, _, body = text.strip("\n").partition("\n")
    columns = _columns(header)
    servers: list[ServerRow] = []
    backends: list[BackendRow] = []
    frontends: list[BackendRow] = []
    for fields in _lines(body, wanted):
        if len(fields) != columns.width:
            raise UnexpectedReply(f"`show stat` line cut short: {len(fields)} of {columns.width} fields")
        kind = fields[columns.type]
        if kind == SERVER:
            servers.append(_server(fields, columns, whole=wanted is None))
        elif kind == BACKEND and wanted is None:
            backends.append(_backend(fields, columns))
        elif kind == FRONTEND and wanted is None:
            frontends.append(_backend(fields, columns))
    return Shown(tuple(servers), tuple(backends), tuple(frontends))


def _lines(body: str, wanted: Collection[Server] | None) -> Iterator[list[str]]:
    """The fields of each line; a quoted field may hold commas and line ends, so quotes take the slow way."""
    rows: Iterable[list[str]]
    if '"' in body:
        rows = csv.reader(body.splitlines(keepends=True))
        return (row for row in rows if row and (wanted is None or (row[0], row[1]) in wanted))
    lines = body.split("\n") if body else []
    if wanted is None:
        return (line.split(",") for line in lines)
    return (line.split(",") for line in lines if tuple(line.split(",", 2)[:2]) in wanted)


def _server(fields: list[str], columns: _Columns, *, whole: bool) -> ServerRow:
    _, status, check, code, last_check, address, cookie = columns.texts(fields)
    where = f"{fields[0]}/{fields[1]}"
    scur, qcur, iid, weight, active, _, sid, since = _numbers(columns.numbers(fields), where)
    checking = check.startswith("* ")
    row = ServerRow(
        backend=fields[0],
        server=fields[1],
        status=_status(status, where),
        check=check[2:] if checking else check,
        checking=checking,
        check_code=int(code) if code.isdigit() and code != "0" and not checking else None,
        last_check=last_check,
        weight=weight,
        role="active" if active else "backup",
        scur=scur,
        qcur=qcur,
        counters=Counters(*_numbers(columns.counters(fields), where)),
        iid=iid,
        sid=sid,
        address=address,
        cookie=cookie,
        since_s=since,
    )
    return _with_more(row, fields, columns, where) if whole else row


def _with_more(row: ServerRow, fields: list[str], columns: _Columns, where: str) -> ServerRow:
    """The columns that only an overview needs; the looks of a rollout do without their cost."""
    slowest, agent, tracks = ("" if at is None else fields[at] for at in columns.more)
    if not (slowest or agent or tracks):
        return row
    (slowest_ms,) = _numbers((slowest,), where)
    return row._replace(slowest_s=slowest_ms / 1000, agent=agent, tracks=tracks)


def _backend(fields: list[str], columns: _Columns) -> BackendRow:
    where = f"{fields[0]}/{fields[1]}"
    scur, qcur, iid, _, active, backup, _, _ = _numbers(columns.numbers(fields), where)
    counters = Counters(*_numbers(columns.counters(fields), where))
    status = columns.texts(fields)[1]
    return BackendRow(fields[0], status, active, backup, scur, qcur, counters, iid)


def _status(text: str, where: str) -> Status:
    try:
        return _cached_status(text)
    except ValueError as error:
        raise UnexpectedReply(f"{where}: {error}") from None


def _numbers(values: tuple[str, ...], where: str) -> list[int]:
    try:
        return [int(value or 0) for value in values]
    except ValueError:
        raise UnexpectedReply(f"{where}: a `show stat` number is none: {', '.join(values)}") from None


def show_info(text: str) -> Process:
    """Which process answered `show info`. Raises: UnexpectedReply where `Pid` is missing."""
    pid = _info(text, "Pid")
    if not pid.isdigit():
        raise UnexpectedReply(f"no `show info`, but {_start(text)}")
    started, uptime = _info(text, "Start_time_sec"), _info(text, "Uptime_sec")
    return Process(
        pid=int(pid),
        started_at_s=int(started) if started.isdigit() else None,
        uptime_s=int(uptime) if uptime.isdigit() else None,
        version=_info(text, "Version"),
        stopping=_info(text, "Stopping") == "1",
    )


def _info(text: str, name: str) -> str:
    """One value of `show info`; searching is several times cheaper than taking its 70 lines apart."""
    at = text.find(f"\n{name}: ")
    if at < 0:
        return ""
    begin = at + len(name) + 3
    return text[begin : text.find("\n", begin)]


def show_proc(text: str) -> tuple[OldProcess, ...]:
    """The old workers of the master CLI's `show proc`. Raises: UnexpectedReply for anything else."""
    if not text.startswith("#<PID>"):
        raise UnexpectedReply(f"no `show proc`, but {_start(text)}")
    _, _, old = text.partition("# old workers\n")
    found = []
    for line in old.splitlines():
        if line.startswith("#"):  # the next section: `# programs`
            break
        words = line.split()
        if len(words) < 4 or not words[0].isdigit():
            raise UnexpectedReply(f"`show proc` has a line `{line}` among the old workers")
        found.append(OldProcess(int(words[0]), words[3]))
    return tuple(found)


def sessions(text: str, backend: str, server: str) -> tuple[str, ...]:
    """The ids of the sessions of one server, out of `show sess`."""
    wanted = f" be={backend} srv={server} "
    return tuple(line.partition(":")[0] for line in text.splitlines() if wanted in line)


def cli_level(text: str) -> str:
    """The answer to `show cli level`: user, operator or admin. Raises: UnexpectedReply for anything else."""
    level = text.strip()
    if level not in ("user", "operator", "admin"):
        raise UnexpectedReply(f"no `show cli level`, but {_start(text)}")
    return level


def answers(text: str, count: int) -> list[str]:
    """
    Cut what a socket sent for `count` commands joined by `;` into one text per command.

    Each answer ends in a blank line, and so does the whole; a command that has nothing to say (a `set` that
    worked) sends that blank line alone, so such a command must be sent alone.

    Raises: EOFError, with what came, when the text ends before its last blank line.
    """
    if count == 1 and text == "\n":
        return [""]
    if not text.endswith("\n\n"):  # the master's own complaints about a worker that is gone end like this
        raise EOFError(f"answer cut short after {len(text)} bytes, {_start(text)}")
    if count == 1:
        return [text[:-1]]
    parts = [f"{part}\n" for part in _unquoted_blank_lines(text[:-2])]
    if len(parts) != count:
        raise EOFError(f"answer cut short: {len(parts)} of {count} answers came")
    return parts


def _unquoted_blank_lines(text: str) -> list[str]:
    """Split at blank lines, but not inside a quoted field, where a check's answer may have one."""
    parts = text.split("\n\n")
    if '"' not in text:
        return parts
    whole: list[str] = []
    for part in parts:
        if whole and whole[-1].count('"') % 2:
            whole[-1] += f"\n\n{part}"
        else:
            whole.append(part)
    return whole


# What HAProxy's refusals begin with, and what helps. `{level}` is the level that the command needs.
_HINTS = (
    ("Permission denied", "the command needs `level {level}` on the `stats socket` line"),
    ("Unknown command", "this HAProxy does not know it, or the socket is the master's and not a worker's"),
    ("No such server", "names are case sensitive; `drainctl status` lists them"),
    ("No such backend", "names are case sensitive; `drainctl status` lists them"),
    ("Can't find backend", "names are case sensitive; `drainctl status` lists them"),
    ("Can't find the target PID", "that worker has ended; look again"),
    (
        "Proxy is disabled",
        "a worker that a reload left behind answered, or the backend is stopped; look again",
    ),
    ("cannot change health on a tracking server", "change the server that it tracks"),
)
_REFUSALS = tuple(start for start, _ in _HINTS)
_OPERATOR = ("show sess", "show env", "show errors", "clear counters")


def refused(name: str, command: str, text: str) -> BalancerRefused:
    """The error for a command that HAProxy answered with `text`; of its long help the first line is kept."""
    level = "operator" if command.startswith(_OPERATOR) and command != "clear counters all" else "admin"
    words = text.strip()
    if words.startswith("Unknown command"):
        words = words.partition("\n")[0]
    hint = next((hint for start, hint in _HINTS if words.startswith(start)), None)
    return BalancerRefused(f"{name} refused `{command}`: {words}", hint=hint and hint.format(level=level))


def checked(name: str, commands: Sequence[str], texts: list[str]) -> list[str]:
    """The answers to `show` commands. Raises: BalancerRefused where one of them is a refusal."""
    for command, text in zip(commands, texts, strict=True):
        if text.startswith(_REFUSALS):
            raise refused(name, command, text)
    return texts


def _start(text: str) -> str:
    line = text.strip().partition("\n")[0]
    return f"`{line[:60]}{'…' if len(line) > 60 else ''}`" if line else "nothing"
