"""The in-place strategies without a node: what they do in which order, and when they say that they cannot."""

from __future__ import annotations

from dataclasses import replace

import pytest
from world_kit import cluster

from drainctl.model import Health, Nginx, Node, NodeLook, Reload, Said, Service, Socket
from drainctl.nginx import upstream
from drainctl.node import ask, gunicorn, sockets
from drainctl.steps import Holds, Job, Never, NotYet, Seen
from drainctl.strategies import backup, beside, port_flip, reload, socket_flip

SERVICE = Service(start="start {port}", stop="stop {port}", ports=(8000, 8001), address="127.0.0.1")
NGINX = Nginx(
    "shop", file="/conf/up.conf", generation="http://{host}/g", fail_timeout_s=2.0, clients="lost", pid="/pid"
)
NODE = Node("web1", "10.0.0.11", "web1", ("port-flip",))
ALONE = cluster(
    nodes=1,
    balancers=0,
    service=SERVICE,
    nginx=NGINX,
    socket=Socket("/run/current.sock", "/run/{release}.sock"),
)


def job(verb="deploy", live="8000", **more):
    target, leaving = ("v1", "v2") if verb == "put-back" else ("v2", "v1")
    return Job(verb, target, leaving=leaving, live=live, **more)


def names(strategy, what, at=ALONE):
    return [step.name for step in strategy.journey(at, NODE, what)]


def seen(name, out, code=0):
    return Seen(NODE, (), {}, NodeLook(inspected={name: Said(code, out, "")}))


# ---------------------------------------------------------------- order


def test_a_pair_is_replaced_backup_first_and_put_back_live_first():
    forth, back = names(backup, job()), names(backup, job("put-back"))
    live, spare = ([f"{act}-{name}" for act in ("stop", "start", "warm")] for name in ("live", "backup"))
    live.append("settle")
    assert forth == ["switch", *spare, *live, "watch"]
    assert back == ["switch", *live, *spare, "watch"], "the live one may be the one that does not run"


def test_a_socket_flips_before_current_is_needed_by_anybody_and_stops_last():
    assert names(socket_flip, job(live="/run/v1.sock")) == [
        *("start", "warm", "switch", "flip", "quiet", "stop", "watch")
    ]


@pytest.mark.parametrize(("verb", "new", "old"), [("deploy", "8001", "8000"), ("put-back", "8000", "8001")])
def test_the_way_back_of_a_port_flip_has_its_ports_exchanged(verb, new, old):
    steps = {step.name: step for step in port_flip.journey(ALONE, NODE, job(verb))}
    assert steps["rewrite"].act.servers == ((f"127.0.0.1:{old}", "down"), (f"127.0.0.1:{new}", "live"))
    assert dict(steps["start"].act.more) == {"port": new}
    assert dict(steps["stop"].act.more) == {"port": old}
    assert list(steps)[:5] == ["switch", "start", "warm", "rewrite", "reload"]


def test_gunicorns_second_master_is_dismissed_only_on_the_way_back():
    usr2 = cluster(nodes=1, balancers=0, service=Service(reload=Reload(gunicorn="/run/g.pid")))
    assert names(reload, job(), usr2) == ["switch", "spawn", "retire", "watch"]
    assert names(reload, job("put-back"), usr2) == ["switch", "dismiss", "spawn", "retire", "watch"]
    hup = cluster(nodes=1, balancers=0, service=Service(reload=Reload(gunicorn="/run/g.pid", by="hup")))
    assert names(reload, job("put-back"), hup) == ["switch", "reload", "watch"]


# ---------------------------------------------------------------- the upstream file on the way back


def told(text, ports="ports seen\n"):
    return f"drainctl-nginx\nmaster 7\nworker 8:1 5 serving -\n{ports}file\n{text}"


def file_of(generation, mark=True):
    first, second = upstream.Server("127.0.0.1:8000", "live"), upstream.Server("127.0.0.1:8001", "down")
    text = upstream.render("shop", (first, second), generation)
    return text if mark else text.partition("\n")[2]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        (file_of("v1:8000"), True),
        (file_of("v2:8001"), False),
        (file_of("v1:8000", mark=False), False),
        ("upstream shop {", False),
    ],
)
def test_on_the_way_back_a_file_that_is_as_it_was_is_not_tested_again(text, holds):
    [rewrite] = [s for s in port_flip.journey(ALONE, NODE, job("put-back")) if s.name == "rewrite"]
    now = rewrite.expects(Seen(NODE, (), {}, NodeLook(probe=Said(0, told(text), ""))))
    assert rewrite.look_first
    assert isinstance(now, Holds) == holds, now


# ---------------------------------------------------------------- who cannot


def answer(version, status=200):
    return f"{version}\n{ask.MARK} {status} 0.001\n{sockets.MARK} {int(status > 0)} 0\n"


def inspected(text, *, first="v1", second="", listeners=""):
    """What port-flip's question prints: two processes asked, the generation, and nginx."""
    asked = "".join(answer(version, 200 if version else 0) + beside.NEXT for version in (first, second))
    rows = "".join(f"listen LISTEN 0 128 {row}\n" for row in listeners.splitlines())
    return f"{asked}v1:8000\n{ask.MARK} 200 0.001\n{told(text, f'ports seen{chr(10)}{rows}')}"


STRANGER = '127.0.0.1:8001 0.0.0.0:* users:(("redis",pid=77,fd=3))'
ELSEWHERE = '127.0.0.9:8001 0.0.0.0:* users:(("redis",pid=77,fd=3))'


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({}, None),
        ({"listeners": STRANGER}, "port 8001 is taken already: redis (pid 77) on 127.0.0.1"),
        ({"listeners": STRANGER, "second": "v0"}, "port 8001 is taken already: redis (pid 77) on 127.0.0.1"),
        ({"listeners": STRANGER, "second": "v2"}, None),  # it is what an earlier run has started
        ({"listeners": ELSEWHERE}, None),
    ],
)
def test_the_other_port_must_be_free_or_the_new_release_s_own(more, why):
    out = inspected(file_of("v1:8000"), **more)
    assert port_flip.live(ALONE, NODE, NodeLook(inspected={"port-flip": Said(0, out, "")})) == "8000"
    assert port_flip.cannot(ALONE, NODE, job(), seen("port-flip", out)) == why


def test_a_link_s_target_is_what_serves_and_a_node_that_is_there_keeps_its_process():
    found = NodeLook(inspected={"socket-flip": Said(0, "/run/v1.sock\n", "")})
    assert socket_flip.live(ALONE, NODE, found) == "/run/v1.sock"
    nothing = NodeLook(inspected={"socket-flip": Said(0, "not a link\n", "")})
    assert socket_flip.live(ALONE, NODE, nothing) is None
    same = Job("deploy", "v1", leaving="v1", live="/run/v1.sock")
    assert socket_flip.cannot(ALONE, NODE, same, seen("socket-flip", "/run/v1.sock\n")) is None
    assert "stop" not in [step.name for step in socket_flip.journey(ALONE, NODE, same)]
    other = Job("deploy", "v2", leaving="v1", live="/run/v1.sock")
    assert "stop" in [step.name for step in socket_flip.journey(ALONE, NODE, other)]


# ---------------------------------------------------------------- gunicorn's masters


def masters(first, second, workers=("", "")):
    rows = zip(("first", "second"), (first, second), workers, strict=True)
    return "".join(f"{gunicorn.MARK} {which} {pid} {theirs}\n" for which, pid, theirs in rows)


@pytest.mark.parametrize(
    ("out", "kind"),
    [
        (masters(5, 9, ("6:1 7:1 9:1", "10:2 11:2")), Holds),
        (masters(5, 9, ("6:1 7:1 9:1", "10:2")), NotYet),
        (masters(5, 0, ("6:1 7:1", "")), Never),
    ],
)
def test_a_second_master_has_come_up_is_coming_or_has_ended(out, kind):
    service = Service(reload=Reload(gunicorn="/g.pid"))
    bare = cluster(nodes=1, balancers=0, service=service, health=Health())
    [spawn] = [step for step in reload.journey(bare, NODE, job()) if step.name == "spawn"]
    assert isinstance(spawn.expects(Seen(NODE, (), {}, NodeLook(probe=Said(0, out, "")))), kind)


def test_a_backup_whose_servers_nginx_marks_must_be_accepted():
    marked = replace(ALONE, nginx=ALONE.nginx._replace(clients="kept", fail_timeout_s=10.0))
    why = backup.cannot(marked, NODE, job(), seen("backup", ""))
    assert why.startswith("nginx marks a server that refused it")
    assert "found fail_timeout = 10 s" in why
