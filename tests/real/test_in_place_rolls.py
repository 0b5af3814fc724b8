"""
The promise, in place: a node that nobody drains gets its release without a failed request.

Real nginx 1.22 and 1.31, real gunicorn, under kept connections, POSTs, WebSockets, connections that say
nothing for a while, and pages that take longer than a flip. Two deploys of each strategy; with
DRAINCTL_SOAK=1 twenty in a row, of every strategy on both versions, and beside them what is lost where one
thing is done wrong. What each one saw is printed at the end.
"""

from __future__ import annotations

import pytest
from in_place_kit import (
    DEPLOYS,
    SOAK,
    Cell,
    Table,
    alone,
    archive,
    base,
    deploy,
    nginx_of,
    no_failure,
    other,
    rolled,
)
from rollout_kit import cli

from drainctl.lab.naive_in_place import (
    naive_backup,
    naive_port_flip,
    naive_reload,
    naive_socket_flip,
    plain_reload,
)

pytestmark = [pytest.mark.real, pytest.mark.slow]

BASE = base("127.0.87")

HUP = {'gunicorn.pid"}': 'gunicorn.pid", by: hup}'}
BEHIND = {"strategy": "port-flip", "nodes": 2, "balancers": 1}
FLAGGED = {"[http-check, port-flip]": "[port-flip]"}  # and the flag is there
FORGETS = {"server_params": "max_fails=1 fail_timeout=2s"}


# At nginx's client side, where no request has reached the app.
RELOAD = frozenset({"closed", "reset"})
# Once its time is over nginx tries a server that had failed with one request, and until that one has ended
# the server stays failed for all others: where it is a slow page, only the backup serves for longer yet.
MARKED = frozenset({"http_502"})


def cells(source: str) -> list[Cell]:
    """On either nginx."""
    at = {"nginx": source}
    on = f"nginx {nginx_of(source)}"
    return [
        Cell(f"socket-flip, {on}", {"strategy": "socket-flip", **at}),
        Cell(f"backup, {on}", {"strategy": "backup", **at}),
        Cell(f"reload by usr2, {on}", {"strategy": "reload", **at}),
        Cell(f"reload by hup, {on}", {"strategy": "reload", **at}, HUP),
        Cell(f"port-flip, nudged, {on}", {**BEHIND, "only": True, **at}),
        Cell(f"port-flip, nudged and flagged, {on}", {**BEHIND, **at}, FLAGGED),
        Cell(f"port-flip alone, {on}", {"strategy": "port-flip", **at}, loses=RELOAD),
        Cell(f"backup marked failed for 2s, {on}", {"strategy": "backup", **FORGETS, **at}, loses=MARKED),
    ]


ALL = [
    *cells("path"),
    *cells("wheel"),
    Cell(
        "port-flip, http-server-close, nginx 1.22",
        {**BEHIND, "only": True, "backend_lines": "option http-server-close"},
        {"clients: nudge": "clients: kept"},
    ),
    Cell(
        "port-flip, keepalive_min_timeout, nginx 1.31",
        {"strategy": "port-flip", "nginx": "wheel", "keepalive_min": "2s"},
    ),
]
# One of each strategy, so that both versions are there.
USUAL = {
    "socket-flip, nginx 1.22",
    "backup, nginx 1.31",
    "reload by usr2, nginx 1.22",
    "port-flip, nudged and flagged, nginx 1.22",
    "port-flip, keepalive_min_timeout, nginx 1.31",
}


@pytest.fixture(scope="module", name="table")
def _table(request):
    """Printed when all are done."""
    found = Table()
    yield found
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(f"\n{found}")


@pytest.mark.parametrize("cell", [cell for cell in ALL if SOAK or cell.name in USUAL], ids=str)
def test_deploys_in_a_row_under_load(cell, table):
    seconds: list[float] = []
    with cell.up(BASE) as lab:
        report = rolled(lab, DEPLOYS, lambda: seconds.append(deploy(lab)))
        alone(lab)
        table.add(cell.name, DEPLOYS, report, seconds)
        no_failure(report, cell.loses)


# ---------------------------------------------------------------- done wrong


def by_hand(lab, how, **more):
    return lambda: how(lab, "web1", other(lab), **more)


WRONG = {
    "port-flip, stopped at the first new answer": (
        {"strategy": "port-flip"},
        lambda lab: by_hand(lab, naive_port_flip, stop="first-answer"),
    ),
    "port-flip, stopped before the old workers end": (
        {"strategy": "port-flip", "nginx": "wheel", "keepalive_min": "2s"},
        lambda lab: by_hand(lab, naive_port_flip, stop="workers-leaving"),
    ),
    "reload of nginx, HAProxy's defaults": (
        {"strategy": "port-flip", "balancers": 1, "only": True},
        lambda lab: lambda: [plain_reload(lab, "web1") for _ in range(10)],
    ),
    "socket-flip, stopped before the swap": (
        {"strategy": "socket-flip"},
        lambda lab: by_hand(lab, naive_socket_flip),
    ),
    "backup, the live one first and no pause": (
        {"strategy": "backup", "server_params": "max_fails=1 fail_timeout=10s"},
        lambda lab: by_hand(lab, naive_backup),
    ),
    "backup, proxy_read_timeout 1s": (
        {"strategy": "backup", "server_params": "max_fails=1", "location_lines": "proxy_read_timeout 1s;"},
        lambda lab: lambda: cli(lab.config, "deploy", str(archive(lab, other(lab)))),
    ),
    "reload by hup, preloaded": (
        {"strategy": "reload", "gunicorn_start": "preload"},
        lambda lab: by_hand(lab, naive_reload, by="hup"),
    ),
    "reload by hup, working directory resolved": (
        {"strategy": "reload", "gunicorn_start": "resolved"},
        lambda lab: by_hand(lab, naive_reload, by="hup"),
    ),
    "restart: TERM, then start": (
        {"strategy": "reload"},
        lambda lab: by_hand(lab, naive_reload, by="restart"),
    ),
}
# A reload loses who asks just then: so many at once that somebody does. The wrong limit is met by slow pages.
MORE = {
    "reload of nginx, HAProxy's defaults": {"rate": 0.0, "clients": 16, "mix": "get=6,post=4"},
    "backup, proxy_read_timeout 1s": {"mix": "get=64,post=34,slow=2"},
}
# The others are in tests/real/test_lab_strategies.py, each with a load made for it.
WRONG_USUAL = {"socket-flip, stopped before the swap"}


@pytest.mark.parametrize("name", [name for name in WRONG if SOAK or name in WRONG_USUAL])
def test_the_same_load_counts_what_is_lost_where_one_thing_is_done_wrong(name, table):
    settings, how = WRONG[name]
    with Cell(name, {"nginx": "path", **settings}).up(BASE) as lab:
        report = rolled(lab, 2, how(lab), **MORE.get(name, {}))
        table.add(f"WRONG: {name}", 2, report, [])
        assert report.failed > 0, report.table()
