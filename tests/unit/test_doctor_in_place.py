"""The traps of the in-place strategies: a picture that shows each, and one next to it that does not."""

from __future__ import annotations

import base64
import gzip
import shlex
from dataclasses import replace
from typing import Any

import pytest
from doctor_kit import CFG, FACTS, NODE, edited, look, picture, server, shop

from drainctl.doctor.examine import examine
from drainctl.doctor.finding import Severity
from drainctl.doctor.in_place_line import InPlaceAsked, dump_of, line, parse, read
from drainctl.doctor.picture import Command, Gunicorn, InPlace
from drainctl.model import (
    Amount,
    Answer,
    DrainPolicy,
    Health,
    Nginx,
    Reload,
    RolloutPolicy,
    Said,
    Service,
    Socket,
)
from drainctl.nginx.settings import Member, Pass, Settings
from drainctl.nginx.upstream import Server, render
from drainctl.node.ask import MARK as ANSWER
from drainctl.node.gunicorn import MARK as MASTERS

R, L, S, A = Severity

FILE = "/etc/nginx/drainctl/shop.conf"
AT = f"{FILE}:3"
GENERATION = "http://{host}/-/generation"
NGINX = Nginx("shop", FILE, generation=GENERATION)
TEXT = render("shop", [Server("127.0.0.1:8000", "live"), Server("127.0.0.1:8001", "down")], "v1:8000")
PASS = Pass("/etc/nginx/nginx.conf:9", "proxy", 1.0, 900.0, ("error",), "close")
CONF = Settings(
    at=AT,
    servers=(Member("127.0.0.1:8000", False, False, 0, 10.0), Member("127.0.0.1:8001", True, False, 0, 10.0)),
    keepalive=None,
    keepalive_requests=1,
    keepalive_timeout_s=60.0,
    passes=(PASS,),
    client_header_timeout_s=10.0,
    worker_shutdown_timeout_s=None,
    keeps_clients=False,
)
FLIPPED = InPlace("writable", version=(1, 31, 3), conf=CONF)
RUNS = "master 7\nworker 8:100 5 serving -\nports seen\nlisten LISTEN 0 9 127.0.0.1:8000 0.0.0.0:*\n"


SOCKETS = ("/run/shop/live.sock", "/run/shop/backup.sock")
BOUND = "drainctl-socket 1 0\n"


# ---------------------------------------------------------------- pictures


def config(strategy, *, beside=(), **changes: Any):
    """A cluster whose nodes go by `strategy` alone, or by it after `beside`."""
    base = shop()
    values: dict[str, Any] = {
        "nodes": tuple(replace(node, strategy=(*beside, strategy)) for node in base.nodes),
        "health": Health(version="http://{host}/version"),
        "service": Service(start="s {port}", stop="stop {port}", ports=(8000, 8001)),
        "rollout": RolloutPolicy(keep_up=Amount(0)),
    }
    if strategy == "port-flip":
        values["nginx"] = NGINX
    if strategy == "socket-flip":
        values["socket"] = Socket("/run/shop/current.sock", "/run/shop/{release}.sock")
    if strategy == "backup":
        values["nginx"] = NGINX._replace(file=None, generation=None, fail_timeout_s=0.0)
        values["service"] = Service(start="s {socket}", stop="stop {socket}", sockets=SOCKETS)
    if strategy == "reload":
        values["service"] = Service(reload=Reload(gunicorn="/run/g.pid"))
    if beside:
        values["health"] = base.health
        values["service"] = values["service"]._replace(restart="restart")
    return replace(base, **(values | changes))


def answered(body, status=200):
    return f"{body}\n{ANSWER} {status} 0.001\n"


def flip_said(text=TEXT, generation="v1:8000", status=200, runs=RUNS, code=0, err=""):
    out = f"{answered(generation, status)}drainctl-nginx\n{runs}" + (
        f"file\n{text}" if text is not None else ""
    )
    return Said(code, out, err)


GOOD = {
    "socket-flip": Said(0, "/run/shop/v1.sock\n"),
    "backup": Said(
        0, "drainctl-next\n".join(f"{answered('v1')}{BOUND}drainctl-path socket -\n" for _ in range(2))
    ),
    "reload": Said(0, f"{MASTERS} first 7 8:1\n{MASTERS} second 0\n"),
    "port-flip": flip_said(),
}
PAIR = tuple(
    Member(f"unix:{path}", False, backup, 0, 10.0)
    for path, backup in zip(SOCKETS, (False, True), strict=True)
)
MARKED = tuple(one._replace(max_fails=1) for one in PAIR)
GUNICORN = Gunicorn(7, ("python", "gunicorn", "-c", "g.py"), "/srv/shop/releases/v1", "/srv/shop/current")
IN_PLACE = {
    "port-flip": FLIPPED,
    "socket-flip": replace(
        FLIPPED, conf=CONF._replace(at="x:1"), sockets=frozenset({"/run/shop/current.sock"})
    ),
    "backup": replace(FLIPPED, conf=CONF._replace(at="x:1", servers=PAIR)),
    "reload": replace(FLIPPED, gunicorn=GUNICORN),
}


def calm(
    strategy, *looks, said=None, in_place=None, conf=None, cluster=None, tools=None, cfg=None, **facts: Any
):
    """A picture of nodes that go by one strategy and are well; what is given changes web1."""
    cluster = cluster or config(strategy)
    looked = {
        node.name: NODE._replace(check=None, inspected={strategy: GOOD[strategy]}) for node in cluster.nodes
    }
    if cluster.health.check:
        looked = {name: one._replace(check=Answer(200)) for name, one in looked.items()}
    if said is not None:
        looked["web1"] = looked["web1"]._replace(inspected={strategy: said})
    found = dict.fromkeys(cluster.names, IN_PLACE[strategy])
    found["web1"] = replace(found["web1"], **(in_place or {}))
    if conf is not None:
        found["web1"] = replace(found["web1"], conf=found["web1"].conf._replace(**conf))
    tools = FACTS.tools | {"curl"} if tools is None else tools
    all_facts = dict.fromkeys(cluster.names, replace(FACTS, tools=FACTS.tools | {"curl"}))
    all_facts["web1"] = replace(FACTS, tools=tools, **facts)
    shown = picture(*looks, config=cluster, nodes=looked, cfg=cfg, in_place=found)
    return replace(shown, facts=all_facts)


def with_nginx(strategy="port-flip", **changes: Any):
    return config(strategy, nginx=NGINX._replace(**changes))


def on_ports(clients):
    service = Service(start="s {port}", stop="stop {port}", ports=(8000, 8001))
    return config("backup", service=service, nginx=NGINX._replace(clients=clients, fail_timeout_s=0.0))


def alone(cluster):
    return replace(cluster, balancers=())


def reload(how):
    return config("reload", service=Service(reload=how))


HUP = Reload(gunicorn="/run/g.pid", by="hup")
COMMAND = Reload(command="kill -HUP 1")
CLOSES = edited(("    option httpchk", "    option http-server-close\n    option httpchk"))
RETRIES = edited(("    retries 3", "    retries 3\n    retry-on all-retryable-errors"))
SLOW = look("lb1", server("web1", slowest_s=30))

# code: (severity, a picture that shows it, one next to it that does not)
CASES: dict[str, tuple[Severity, Any, Any]] = {
    "command-missing": (
        R,
        calm("port-flip", in_place={"commands": (Command("service.start", "s 8000", there=False),)}),
        calm("port-flip", in_place={"commands": (Command("service.start", "s 8000", there=True),)}),
    ),
    "socket-not-link": (
        R,
        calm("socket-flip", said=Said(0, "not a link\n")),
        calm("socket-flip", said=Said(1, "", "no shell")),
    ),
    "upstream-not-socket": (
        R,
        calm("socket-flip", in_place={"sockets": frozenset({"/run/shop/v1.sock"})}),
        calm("socket-flip", in_place={"sockets": frozenset(), "conf": None}),
    ),
    "nginx-not-running": (
        R,
        calm("port-flip", said=flip_said(runs="trouble there is no /run/nginx.pid\nports seen\n")),
        calm("port-flip"),
    ),
    "upstream-file-missing": (R, calm("port-flip", said=flip_said(text=None)), calm("port-flip")),
    "upstream-file-foreign": (
        R,
        calm("port-flip", said=flip_said(text=TEXT.partition("\n")[2])),
        calm("port-flip"),
    ),
    "upstream-file-unreadable": (
        R,
        calm("port-flip", said=flip_said(text="upstream shop {\n")),
        calm("port-flip"),
    ),
    "upstream-folder-not-writable": (
        R,
        calm("port-flip", in_place={"folder": "there"}),
        calm("port-flip", in_place={"folder": None}),
    ),
    "upstream-not-included": (
        R,
        calm("port-flip", conf={"at": "/etc/nginx/conf.d/shop.conf:1"}),
        calm("port-flip", in_place={"conf": None}),
    ),
    "generation-silent": (R, calm("port-flip", said=flip_said(status=404)), calm("port-flip")),
    "generation-other": (R, calm("port-flip", said=flip_said(generation="<html>")), calm("port-flip")),
    "port-taken": (
        R,
        calm(
            "port-flip",
            said=flip_said(
                runs=RUNS + 'listen LISTEN 0 9 127.0.0.1:8001 0.0.0.0:* users:(("java",pid=5,fd=3))\n'
            ),
        ),
        calm("port-flip", said=flip_said(runs=RUNS + "listen LISTEN 0 9 127.0.0.9:8001 0.0.0.0:*\n")),
    ),
    "nginx-test-fails": (
        R,
        calm("port-flip", in_place={"conf": None, "conf_error": "nginx: [emerg] unknown directive"}),
        calm("port-flip", in_place={"conf": None, "conf_error": "sudo: a password is required"}),
    ),
    "nginx-unread": (
        A,
        calm("backup", in_place={"conf": None, "conf_error": "nginx: [emerg] permission denied"}),
        calm("backup", in_place={"conf": None, "conf_error": "nginx does not run by /run/nginx.pid"}),
    ),
    "clients-lost": (
        L,
        calm("port-flip", cluster=with_nginx(clients="lost")),
        calm("port-flip"),
    ),
    "clients-not-kept": (
        L,
        calm("port-flip", cluster=with_nginx(clients="kept"), cfg=CFG),
        calm("port-flip", cluster=config("port-flip")),
    ),
    "shutdown-cuts": (
        L,
        calm("port-flip", conf={"worker_shutdown_timeout_s": 600.0}),
        calm("port-flip", conf={"worker_shutdown_timeout_s": 900.0}),
    ),
    "silent-clients": (
        S,
        calm("port-flip", conf={"client_header_timeout_s": 61.0}),
        calm("port-flip", conf={"client_header_timeout_s": 60.0}),
    ),
    "upstream-keeps-connections": (
        L,
        calm("socket-flip", conf={"keepalive_requests": 1000}),
        calm("socket-flip", conf={"keepalive_requests": 1000}, in_place={"version": (1, 22, 1)}),
    ),
    "posts-twice": (
        L,
        calm("backup", conf={"passes": (PASS._replace(next_upstream=("error", "non_idempotent")),)}),
        calm("backup", conf={"passes": (PASS._replace(next_upstream=("error", "timeout")),)}),
    ),
    "slow-counts-as-failed": (
        L,
        calm("backup", conf={"servers": MARKED, "passes": (PASS._replace(read_timeout_s=1.0),)}),
        calm("backup", conf={"servers": PAIR, "passes": (PASS._replace(read_timeout_s=1.0),)}),
    ),
    "fail-timeout-differs": (
        L,
        calm("backup", conf={"servers": MARKED}),
        calm("backup", conf={"servers": tuple(one._replace(fail_timeout_s=0.0) for one in MARKED)}),
    ),
    "marks-failed": (A, calm("backup", conf={"servers": MARKED}), calm("backup")),
    "no-backup-server": (
        L,
        calm("backup", conf={"servers": PAIR[:1]}),
        calm("backup"),
    ),
    "backup-on-ports": (
        R,
        calm("backup", cluster=on_ports("nudge")),
        calm("backup", cluster=on_ports("kept")),
    ),
    "socket-not-hideable": (
        R,
        calm(
            "backup", said=GOOD["backup"]._replace(out=GOOD["backup"].out.replace("path socket", "path link"))
        ),
        calm("backup", cluster=on_ports("kept")),
    ),
    "gunicorn-not-running": (
        R,
        calm("reload", said=Said(0, f"{MASTERS} first 0\n{MASTERS} second 0\n")),
        calm("reload", said=Said(1, "", "no shell")),
    ),
    "gunicorn-two-masters": (
        R,
        calm("reload", said=Said(0, f"{MASTERS} first 7 8:1\n{MASTERS} second 9 10:1\n")),
        calm("reload"),
    ),
    "reload-keeps-release": (
        R,
        calm("reload", in_place={"gunicorn": replace(GUNICORN, pwd="")}),
        calm("reload", in_place={"gunicorn": replace(GUNICORN, pwd=None)}),
    ),
    "reload-by-hup": (A, calm("reload", cluster=reload(HUP)), calm("reload", cluster=reload(COMMAND))),
    "usr2-ends-unit": (
        L,
        calm("reload", in_place={"gunicorn": replace(GUNICORN, unit="shop.service")}),
        calm("reload", cluster=reload(HUP), in_place={"gunicorn": replace(GUNICORN, unit="shop.service")}),
    ),
    "reload-server": (
        L,
        calm("reload", cluster=reload(COMMAND), in_place={"servers": frozenset({"granian"})}),
        calm("reload", in_place={"servers": frozenset({"granian"})}),
    ),
}


def codes(findings):
    return {finding.code for finding in findings}


def of(shown, code):
    return [finding for finding in examine(shown) if finding.code == code]


def severities(shown, code):
    return {finding.severity for finding in of(shown, code)}


# ---------------------------------------------------------------- each of them


@pytest.mark.parametrize("strategy", sorted(GOOD))
def test_nothing_is_said_of_nodes_that_are_well(strategy):
    assert examine(calm(strategy)) == []
    assert examine(calm(strategy, cluster=config(strategy, beside=("http-check",)))) == []


@pytest.mark.parametrize("code", sorted(CASES))
def test_it_is_found(code):
    severity, loud, _ = CASES[code]
    found = of(loud, code)
    assert {finding.severity for finding in found} == {severity}
    for finding in found:
        assert finding.where
        assert finding.seen
        assert finding.change


@pytest.mark.parametrize("code", sorted(CASES))
def test_it_is_quiet(code):
    assert code not in codes(examine(CASES[code][2]))


# ---------------------------------------------------------------- how bad it is


def test_a_closed_way_is_advice_where_there_is_another():
    both = config("port-flip", beside=("http-check",))
    shown = calm("port-flip", cluster=both, said=flip_said(text=None))
    assert severities(shown, "upstream-file-missing") == {A}
    assert "deploy-refused" not in codes(examine(shown))


def test_what_plan_would_refuse_is_among_the_findings():
    shown = calm("port-flip", said=flip_said(text=None))
    assert "deploy-refused" not in codes(examine(shown))
    assert severities(shown, "upstream-file-missing") == {R}


def test_keep_up_is_advice_where_a_node_may_stay_in_rotation():
    two_down = look("lb1", server("web2", "DOWN"), server("web3", "DOWN"))
    cluster = config("reload", beside=("http-check",), rollout=RolloutPolicy())
    cluster = replace(
        cluster,
        service=Service(restart="restart", reload=Reload(gunicorn="/run/g.pid")),
        health=shop().health,
    )
    assert severities(calm("reload", two_down, cluster=cluster), "keep-up") == {A}
    assert severities(calm("reload", two_down), "keep-up") == set()


# ---------------------------------------------------------------- clients at a reload


def test_what_will_be_lost_is_said_in_numbers_of_this_nginx():
    lost = with_nginx(clients="lost")
    (new,) = of(calm("port-flip", cluster=lost), "clients-lost")[:1]
    assert "2 of 116,000" in new.seen
    assert new.change.startswith("keepalive_min_timeout 2s;")
    (old,) = of(calm("port-flip", cluster=lost, in_place={"version": (1, 22, 1)}), "clients-lost")[:1]
    assert "10 of 102,000 and 17 of 15,000" in old.seen


def test_lost_is_quiet_where_nginx_keeps_its_clients():
    shown = calm("port-flip", cluster=with_nginx(clients="lost"), conf={"keeps_clients": True})
    assert [one.where for one in of(shown, "clients-lost")] == ["web2", "web3"]


def test_nobody_to_nudge_closes_the_way():
    shown = calm("port-flip", cluster=alone(config("port-flip")))
    assert severities(shown, "clients-lost") == {R}
    reader = look("lb1", can_change=False)
    assert "lb1 cannot be told" in of(calm("port-flip", reader), "clients-lost")[0].seen


@pytest.mark.parametrize(("cfg", "found"), [(CFG, {L}), (CLOSES, {A}), (RETRIES, {A}), (None, {A})])
def test_kept_is_held_against_haproxys_configuration(cfg, found):
    shown = calm("port-flip", cluster=with_nginx(clients="kept"), cfg=cfg)
    assert severities(shown, "clients-not-kept") == found  # lb2's file is not given, so some doubt is left


def test_kept_is_believed_where_all_of_haproxy_says_so():
    shown = calm("port-flip", cluster=with_nginx(clients="kept"), cfg=CLOSES)
    shown = replace(shown, cfgs=dict.fromkeys(("lb1", "lb2"), shown.cfgs["lb1"]))
    assert severities(shown, "clients-not-kept") == set()


def test_kept_without_a_balancer_stands_on_nginx_alone():
    cluster = alone(with_nginx(clients="kept"))
    assert severities(calm("port-flip", cluster=cluster), "clients-not-kept") == {L}
    keeps = replace(calm("port-flip", cluster=cluster, conf={"keeps_clients": True}))
    assert [one.where for one in of(keeps, "clients-not-kept")] == ["web2", "web3"]


# ---------------------------------------------------------------- others that depend on something


def test_a_generation_that_is_only_behind_is_advice():
    shown = calm("port-flip", said=flip_said(generation="v0:8000"))
    assert severities(shown, "generation-other") == {A}
    assert "answers v0:8000" in of(shown, "generation-other")[0].seen


def test_a_folder_that_may_not_be_entered():
    shown = calm("port-flip", said=Said(83, "", "this user may not enter /etc/nginx/drainctl"))
    assert severities(shown, "upstream-file-unreadable") == {R}


def test_silent_clients_are_cut_where_a_drain_is_forced():
    forced = config("port-flip", drain=DrainPolicy(60, then="force"))
    shown = calm("port-flip", cluster=forced, conf={"client_header_timeout_s": 61.0})
    assert severities(shown, "silent-clients") == {L}


def test_the_longest_request_counts_where_the_balancers_know_it():
    conf = {"passes": (PASS._replace(read_timeout_s=20.0),), "worker_shutdown_timeout_s": 25.0}
    assert severities(calm("port-flip", conf=conf), "shutdown-cuts") == set()
    assert severities(calm("port-flip", SLOW, conf=conf), "shutdown-cuts") == {L}
    conf = {"servers": MARKED, "passes": (PASS._replace(read_timeout_s=20.0),)}
    assert severities(calm("backup", conf=conf), "slow-counts-as-failed") == set()
    assert severities(calm("backup", SLOW, conf=conf), "slow-counts-as-failed") == {L}


@pytest.mark.parametrize(
    ("version", "conf", "found"),
    [
        ((1, 29, 6), {"keepalive": None}, False),
        ((1, 29, 7), {"keepalive": None}, True),
        ((1, 29, 7), {"keepalive": 0}, False),
        ((1, 22, 1), {"keepalive": 32}, False),  # `Connection: close` is sent
        ((1, 22, 1), {"keepalive": 32, "passes": (PASS._replace(connection=""),)}, True),
        ((1, 22, 1), {"keepalive": 32, "passes": (PASS._replace(protocol="uwsgi", connection=None),)}, True),
    ],
)
def test_which_nginx_uses_a_connection_twice(version, conf, found):
    shown = calm("port-flip", conf={"keepalive_requests": 1000} | conf, in_place={"version": version})
    assert ("upstream-keeps-connections" in codes(examine(shown))) is found


def test_a_fail_timeout_that_is_longer_than_nginxs_only_waits():
    waits = calm("backup", cluster=with_nginx("backup", fail_timeout_s=10.0))
    assert severities(waits, "fail-timeout-differs") == {S}
    assert "fail_timeout: 0s" in of(waits, "fail-timeout-differs")[0].change


def test_a_pair_of_ports_is_known_by_them_and_its_losses_are_told():
    ports = tuple(Member(f"localhost:{port}", False, port == 8001, 0, 10.0) for port in (8000, 8001))
    shown = calm("backup", cluster=on_ports("lost"), conf={"servers": ports})
    assert "web1" not in [one.where for one in of(shown, "no-backup-server")]
    assert severities(shown, "backup-on-ports") == {L}
    assert "65 of 53,024" in of(shown, "backup-on-ports")[0].seen


def test_two_live_servers_are_no_pair():
    shown = calm("backup", conf={"servers": (PAIR[0], PAIR[1]._replace(backup=False))})
    assert severities(shown, "no-backup-server") == {A}


# ---------------------------------------------------------------- gunicorn


@pytest.mark.parametrize(
    ("changes", "keeps"),
    [
        ({}, False),  # $PWD goes by the link
        ({"pwd": "/srv/shop/releases/v1"}, True),
        ({"pwd": ""}, True),  # a service manager sets none
        ({"pwd": "", "cwd": "/srv/shop"}, False),  # the app is not found by the folder
        ({"pwd": "", "words": ("gunicorn: master [shop]",)}, False),  # its options cannot be seen
        ({"pwd": "", "words": ("gunicorn", "--chdir", "/srv/shop/current")}, False),
        ({"pwd": "", "words": ("gunicorn", "--chdir=/srv/shop/current", "x")}, False),
        ({"pwd": "", "words": ("gunicorn", "--chdir", "/srv/shop/releases/v1")}, True),
        ({"pwd": "", "config": ('pythonpath = "/srv/shop/current"',)}, False),
        ({"pwd": "", "config": ('chdir = "/srv/shop/releases/v1"',)}, True),
        ({"config": ("preload_app = True",)}, False),  # by USR2 it is loaded anew
    ],
)
def test_which_gunicorn_loads_the_old_release_again(changes, keeps):
    shown = calm("reload", in_place={"gunicorn": replace(GUNICORN, **changes)})
    assert ("reload-keeps-release" in codes(examine(shown))) is keeps


@pytest.mark.parametrize("how", [{"config": ("preload_app = True",)}, {"words": ("gunicorn", "--preload")}])
def test_preloading_and_hup(how):
    shown = calm("reload", cluster=reload(HUP), in_place={"gunicorn": replace(GUNICORN, **how)})
    assert severities(shown, "reload-keeps-release") == {R}


def test_a_pid_file_of_something_else():
    shown = calm("reload", in_place={"gunicorn": replace(GUNICORN, words=("nginx", "-g"))})
    assert "is no gunicorn but: nginx -g" in of(shown, "gunicorn-not-running")[0].seen


def test_uvicorn_loses_a_little():
    shown = calm("reload", cluster=reload(COMMAND), in_place={"servers": frozenset({"uvicorn"})})
    assert severities(shown, "reload-server") == {L}


# ---------------------------------------------------------------- programs and rights


@pytest.mark.parametrize(
    ("tools", "ask", "missing"),
    [
        ({"ss", "awk", "curl"}, None, ""),
        ({"ss", "awk", "python3"}, None, ""),
        ({"ss", "awk"}, None, "curl (nor python3)"),
        ({"ss", "awk"}, "ask {path}", ""),
        ({"curl", "awk"}, None, "ss"),
    ],
)
def test_programs_that_a_flip_needs_on_the_node(tools, ask, missing):
    cluster = config("socket-flip")
    cluster = replace(cluster, service=cluster.service._replace(ask=ask))
    shown = calm("socket-flip", cluster=cluster, tools=frozenset(tools | {"tar", "sha256sum"}))
    found = [one.seen for one in of(shown, "tool-missing")]
    assert [text.rpartition(": ")[2] for text in found] == ([missing] if missing else [])


def test_a_command_of_a_flip_that_sudo_would_ask_for():
    one = Command("nginx.test", "sudo nginx -t", there=True, may=False)
    (found,) = of(calm("port-flip", in_place={"commands": (one,)}), "sudo-asks")
    assert found.seen.startswith("nginx.test = `sudo nginx -t`")
    assert found.change.startswith("deploy ALL=(root) NOPASSWD: nginx -t")
    may = replace(one, may=True)
    assert of(calm("port-flip", in_place={"commands": (may,)}), "sudo-asks") == []


# ---------------------------------------------------------------- the line and its answer

DUMP = """\
# configuration file /etc/nginx/nginx.conf:
http {
  upstream shop { server unix:/run/shop/current.sock max_fails=0; keepalive_requests 1; }
  server { location / { proxy_pass http://shop; } location /b { proxy_pass http://unix:/run/b.sock:/; } }
}
"""


def packed(text):
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def test_the_answer_of_a_node():
    out = f"""Welcome!
drainctl-in-place
folder there
there service.start
absent service.stop
asks nginx.test
there nginx.test
version nginx/1.22.1
conf {packed(DUMP)}
error nginx: configuration file test is successful
pid 7
cwd /srv/shop/releases/v1
word python
word gunicorn
environ read
pwd /srv/shop/current
args --preload --chdir /x
config chdir = "/x"
server granian
"""
    keys = {"service.start": "a", "service.stop": "b", "nginx.test": "sudo nginx -t", "nginx.reload": "$X"}
    facts, conf = parse(out, InPlaceAsked(keys, test="sudo nginx -t"))
    assert (facts.folder, facts.version, facts.servers) == ("there", (1, 22, 1), {"granian"})
    assert [(one.there, one.may) for one in facts.commands] == [
        (True, None),
        (False, None),
        (True, False),
        (None, None),
    ]
    assert facts.gunicorn == Gunicorn(
        7,
        ("python", "gunicorn", "--preload", "--chdir", "/x"),
        "/srv/shop/releases/v1",
        "/srv/shop/current",
        ('chdir = "/x"',),
    )
    known = read(facts, conf, "shop")
    assert known.conf_error == ""
    assert known.conf is not None
    assert known.conf.at == "/etc/nginx/nginx.conf:2"
    assert known.sockets == {"/run/shop/current.sock", "/run/b.sock"}


@pytest.mark.parametrize(
    ("conf", "error", "told"),
    [
        (packed(""), "sudo: a password is required", "sudo: a password is required"),
        (packed(DUMP)[:-9], "", "it printed nothing"),  # cut short
        ("", "nginx does not run by /run/nginx.pid", "nginx does not run by /run/nginx.pid"),
    ],
)
def test_a_configuration_that_cannot_be_had(conf, error, told):
    out = f"drainctl-in-place\nconf {conf}\n" + (f"error {error}\n" if error else "")
    facts, text = parse(out, InPlaceAsked(test="nginx -t"))
    assert (facts.conf_error, text) == (told, "")


def test_a_configuration_that_is_none_is_told_not_judged():
    facts = read(InPlace(), "hello", "shop")
    assert facts.conf is None
    assert "nginx -T" in facts.conf_error


def test_an_answer_of_something_else_is_none():
    with pytest.raises(ValueError, match="did not answer"):
        parse("This account is not available.\n", InPlaceAsked())


@pytest.mark.parametrize(
    ("test", "dump"),
    [
        ("sudo nginx -t", "sudo nginx -T"),
        ("nginx -t -q -c /a-t", "nginx -T -q -c /a-t"),
        ("service nginx configtest", ""),
    ],
)
def test_how_the_whole_configuration_is_asked_for(test, dump):
    assert dump_of(test) == dump
    assert f"dump={shlex.quote(dump)}\n" in line(InPlaceAsked(test=test))
