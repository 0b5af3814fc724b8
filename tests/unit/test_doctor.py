"""Every trap that doctor knows: a picture that shows it, one next to it that does not, and its page."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doctor_kit import ABOVE, CFG, NOBODY, NODE, edited, look, picture, server, shop
from test_doctor_in_place import CASES as IN_PLACE_CASES

from drainctl.balancer.parse import show_stat
from drainctl.doctor.examine import RULES, examine
from drainctl.doctor.finding import WHY, Finding, Severity, worst
from drainctl.doctor.node_line import Asked, line, parse
from drainctl.doctor.picture import Folder, User
from drainctl.doctor.show import findings_json, findings_text
from drainctl.journal.door import Holder, Lease
from drainctl.journal.replay import RolloutState
from drainctl.model import (
    Amount,
    Answer,
    Balancer,
    Checks,
    Disk,
    DrainPolicy,
    FlagFile,
    Health,
    OldWorker,
    Process,
    RolloutPolicy,
    Service,
)

DOCS = Path(__file__).parents[2] / "docs" / "doctor.md"
R, L, S, A = Severity


def disk(**changes: Any) -> Any:
    return NODE._replace(disk=Disk("v1", ("v1",))._replace(**changes))


def state(**changes: Any) -> RolloutState:
    return RolloutState(id="r1", verb="deploy")._replace(**changes)


def stats_page(url: str = "http://lb1/stats") -> Any:
    return shop(balancers=(Balancer("lb1", stats=url), shop().balancers[1]))


WAIT, MOVE, FORCE = DrainPolicy(60), DrainPolicy(60, sticky="move"), DrainPolicy(60, then="force")
COOKIE = look("lb1", server("web1", cookie="a"))
READER = {"can_change": False}
CUT, CUT_UP = "on-marked-down shutdown-sessions", "on-marked-up shutdown-backup-sessions"
BACKUP = ("web3 10.0.0.13:80", "web3 10.0.0.13:80 backup")
STICK = ("    option httpchk", "    stick-table type ip size 1m\n    stick on src\n    option httpchk")
IDLE = "option idle-close-on-response"
PERSIST = ("    option httpchk", "    option persist\n    option httpchk")
ADMIN_TRACK = "backend admin\n    {}server a1 10.0.0.11:80 track shop/web1\n"
DRAINS = "option httpchk GET /http-check\n    http-check disable-on-404\n    "
SCOPE = "stats uri /stats\n    stats scope {}"

# code: (severity, a picture that shows it, one next to it that does not)
CASES: dict[str, tuple[Severity, Any, Any]] = {
    "balancer-unreachable": (R, picture(look("lb1", rows=(), error="lb1: connection refused")), picture()),
    "server-unknown": (R, picture(unknown=("nodes.web9: lb1 has no server web9; it has: web1",)), picture()),
    "stats-page-hides": (
        R,
        picture(config=stats_page(), unknown=("nodes.web1: lb1 has no server web1; it has: other",)),
        picture(config=stats_page(), unknown=("nodes.web1: lb2 has no server web1; it has: other",)),
    ),
    "server-out-by-hand": (
        R,
        picture(look("lb1", server("web1", "MAINT"))),
        picture(look("lb1", server("web1", "DOWN"))),
    ),
    "no-check": (R, picture(look("lb1", server("web1", "no check", check=""))), picture()),
    "first-check-pending": (
        R,
        picture(look("lb1", server("web1", "UP 1/3", check="INI"))),
        picture(look("lb1", server("web1", "UP 1/3"))),
    ),
    "keep-up": (
        R,
        picture(look("lb1", server("web2", "DOWN"), server("web3", "DOWN"))),
        picture(look("lb1", server("web2", "DOWN")), config=shop(rollout=RolloutPolicy(keep_up=Amount(1)))),
    ),
    "deploy-refused": (
        R,
        picture(nodes={"web1": None}),
        picture(),
    ),
    "server-down": (
        A,
        picture(look("lb1", server("web1", "DOWN"))),
        picture(look("lb1", server("web1", "NOLB"))),
    ),
    "weight-zero": (
        A,
        picture(look("lb1", server("web1", weight=0))),
        picture(look("lb1", server("web1", "NOLB", weight=0))),
    ),
    "one-usable-server": (
        L,
        picture(look("lb1", server("web2", "DOWN"), server("web3", weight=0))),
        picture(look("lb1", server("web2", "DOWN"))),
    ),
    "backups-only": (
        L,
        picture(look("lb1", server("web1", "DOWN"), server("web2", "DOWN"), server("web3", role="backup"))),
        picture(look("lb1", server("web1", "DOWN"), server("web3", role="backup"))),
    ),
    "balancers-disagree": (
        L,
        picture(look("lb1", server("web1", "DOWN"))),
        picture(look("lb1", server("web1", "DOWN")), look("lb2", server("web1", "DOWN"))),
    ),
    "socket-not-admin": (S, picture(look("lb1", **READER)), picture(look("lb1", can_change=True))),
    "no-master-socket": (
        A,
        picture(config=shop(balancers=(Balancer("lb1", runtime="unix:/run/a"),))),
        picture(config=shop(balancers=(Balancer("lb1", runtime="unix:/run/a", master="unix:/run/m"),))),
    ),
    "old-workers": (
        A,
        picture(look("lb1", old_workers=(OldWorker(9, "0d00h03m10s", (server("web1", scur=2),)),))),
        picture(),
    ),
    "reloaded-recently": (
        A,
        picture(look("lb1", process=Process(7, 0, 59, "2.6.12"))),
        picture(look("lb1", process=Process(7, 0, 60, "2.6.12"))),
    ),
    "process-changes": (
        L,
        picture(again={"lb1": Process(8, 0, 86400)}),
        picture(again={"lb1": Process(None, None, None)}),
    ),
    "versions-differ": (
        A,
        picture(look("lb1", process=Process(7, 0, 999, "2.8.25"))),
        picture(look("lb1", process=Process(7, 0, 999))),
    ),
    "sticky-clients": (L, picture(COOKIE), picture(COOKIE, config=shop(drain=MOVE))),
    "agent-check": (A, picture(look("lb1", server("web1", agent="L4OK"))), picture()),
    "backend-not-listed": (
        L,
        picture(look("lb1", server("api1", backend="api", tracks="shop/web1", address="10.0.0.11:81"))),
        picture(look("lb1", server("api1", backend="api", tracks="other/web1", address="10.0.0.11:81"))),
    ),
    "slow-requests": (
        S,
        picture(look("lb1", server("web1", slowest_s=61)), config=shop(drain=WAIT)),
        picture(look("lb1", server("web1", slowest_s=59)), config=shop(drain=WAIT)),
    ),
    "no-version": (
        A,
        picture(
            config=shop(
                health=Health("http://{host}/http-check", FlagFile("/drain"), ready="http://{host}/ok")
            )
        ),
        picture(),
    ),
    "no-restart": (A, picture(config=shop(service=Service())), picture()),
    "journal-unusable": (R, picture(journal_error="/var/lib/x.db: permission denied"), picture()),
    "lease-held": (
        R,
        picture(lease=Lease("shop", "r1", Holder("ci", "box", 7, 1, "b"), 3, 0.0, 15.0)),
        picture(),
    ),
    "rollout-open": (R, picture(rollout=state(ended="halted")), picture(rollout=state(ended="done"))),
    "node-unreachable": (
        R,
        picture(errors={"web1": "web1: connection refused"}),
        picture(errors={"web1": "no known key"}, unknown_keys={"web1": "ssh-keyscan"}),
    ),
    "host-key-unknown": (
        R,
        picture(errors={"web1": "web1: no known key"}, unknown_keys={"web1": "ssh-keyscan 10.0.0.11"}),
        picture(unknown_keys={"web1": "ssh-keyscan 10.0.0.11"}),
    ),
    "node-not-examined": (A, picture(unlooked={"web1": "no answer within 20 s"}), picture()),
    "node-flagged": (
        R,
        picture(nodes={"web1": disk(flag="by hand")}),
        picture(nodes={"web1": disk(flag=None)}),
    ),
    "check-not-200": (
        R,
        picture(nodes={"web1": NODE._replace(check=Answer(503))}),
        picture(
            look("lb1", server("web1", "DOWN")),
            look("lb2", server("web1", "DOWN")),
            nodes={"web1": NODE._replace(check=Answer(503))},
        ),
    ),
    "version-silent": (R, picture(nodes={"web1": NODE._replace(version=Answer(500))}), picture()),
    "version-not-current": (
        A,
        picture(nodes={"web1": NODE._replace(version=Answer(200, "v0\n"))}),
        picture(nodes={"web1": disk(current=None)._replace(version=Answer(200, "v0\n"))}),
    ),
    "releases-differ": (
        A,
        picture(nodes={"web1": disk(current="v2")._replace(version=Answer(200, "v2"))}),
        picture(),
    ),
    "check-asks-other": (
        A,
        picture(look("lb1", server("web1", address="10.0.0.99:80"))),
        picture(look("lb1", server("web1", address=""))),
    ),
    "flag-folder-missing": (
        R,
        picture(facts={"flag_folder": "missing"}),
        picture(facts={"flag_folder": None}),
    ),
    "flag-folder-not-writable": (
        R,
        picture(facts={"flag_folder": "there"}),
        picture(facts={"flag_folder": None}),
    ),
    "flag-hidden": (
        R,
        picture(facts={"flag_path": (replace(ABOVE[0], mode="rwx------"), ABOVE[1])}),
        picture(facts={"flag_path": (replace(ABOVE[0], mode="rwx------", uid=NOBODY.uid), ABOVE[1])}),
    ),
    "tool-missing": (
        R,
        picture(facts={"tools": frozenset({"tar", "sha256sum", "awk"})}),
        picture(facts={"tools": frozenset({"tar", "shasum", "awk", "ss"})}),
    ),
    "current-not-link": (R, picture(facts={"current": "real"}), picture(facts={"current": "none"})),
    "root-not-writable": (R, picture(facts={"unwritable": ("/srv/shop/releases",)}), picture()),
    "fence-not-kept": (A, picture(facts={"unfenced": ("/srv/shop/.drainctl-log",)}), picture()),
    "disk-full": (R, picture(facts={"free_kb": 19_999}), picture(facts={"free_kb": 20_000})),
    "shared-missing": (R, picture(facts={"lacks": (".env",)}), picture()),
    "restart-missing": (R, picture(facts={"restart": False}), picture(facts={"restart": None})),
    "sudo-asks": (R, picture(facts={"sudo": False}), picture(facts={"sudo": None})),
    "clock-skew": (A, picture(facts={"now_s": 1004}), picture(facts={"now_s": 1002})),
    "cfg-unread": (A, picture(cfg=edited(("inter 1s", "inter 1parsec"))), picture(cfg=CFG)),
    "no-httpchk": (
        R,
        picture(
            cfg=edited(("    option httpchk GET /http-check\n", ""), ("    http-check disable-on-404\n", ""))
        ),
        picture(cfg=CFG),
    ),
    "no-disable-on-404": (L, picture(cfg=edited(("    http-check disable-on-404\n", ""))), picture(cfg=CFG)),
    "track-without-httpchk": (
        L,
        picture(cfg=CFG + ADMIN_TRACK.format("")),
        picture(cfg=CFG + ADMIN_TRACK.format(DRAINS)),
    ),
    "marked-down-cuts": (
        L,
        picture(cfg=edited(("check inter 1s", f"check inter 1s {CUT}"))),
        picture(cfg=edited(("check inter 1s", "check inter 1s on-error mark-down"))),
    ),
    "marked-up-cuts": (
        L,
        picture(cfg=edited(("check inter 1s", f"check inter 1s {CUT_UP}"), BACKUP)),
        picture(cfg=edited(("check inter 1s", f"check inter 1s {CUT_UP}"))),
    ),
    "option-persist": (L, picture(cfg=edited(STICK, PERSIST)), picture(cfg=edited(PERSIST))),
    "no-redispatch": (
        L,
        picture(cfg=edited(("    option redispatch\n", ""))),
        picture(cfg=edited(("    option redispatch\n", "    retry-on conn-failure\n"))),
    ),
    "retries-zero": (
        L,
        picture(cfg=edited(("retries 3", "retries 0"))),
        picture(cfg=edited(("retries 3", "retries 1"))),
    ),
    "state-lost-at-reload": (
        A,
        picture(cfg=edited(("    load-server-state-from-file global\n", ""))),
        picture(cfg=edited(("from-file global", "from-file local"))),
    ),
    "idle-cut-at-reload": (
        A,
        picture(cfg=f"{CFG}frontend www\n    bind :80\n    default_backend shop\n"),
        picture(cfg=f"{CFG}frontend www\n    bind :80\n    default_backend shop\n    {IDLE}\n"),
    ),
    "check-not-the-app": (
        L,
        picture(cfg=edited(("web1 10.0.0.11:80", "web1 10.0.0.11:80 port 9000"))),
        picture(cfg=edited(("web1 10.0.0.11:80", "web1 10.0.0.11:80 port 80"))),
    ),
    "checks-differ": (
        A,
        picture(cfg=edited(("inter 1s", "inter 500ms"))),
        picture(cfg=edited(("inter 1s", "inter 1000ms"))),
    ),
    "checks-outlast-drain": (
        S,
        picture(config=shop(checks=Checks(20.1), drain=WAIT)),
        picture(config=shop(checks=Checks(20.0), drain=WAIT)),
    ),
    "no-timeout-check": (
        A,
        picture(cfg=edited(("    timeout check 4s\n", ""))),
        picture(cfg=CFG),
    ),
    "slowstart-outlasts-watch": (
        S,
        picture(cfg=edited(("inter 1s", "inter 1s slowstart 2s"))),
        picture(cfg=edited(("inter 1s", "inter 1s slowstart 1s"))),
    ),
    "timeout-server-hit": (
        L,
        picture(look("lb1", server("web1", slowest_s=60.02)), cfg=CFG, config=shop(drain=DrainPolicy(99))),
        picture(look("lb1", server("web1", slowest_s=300)), cfg=CFG, config=shop(drain=DrainPolicy(999))),
    ),
}


def codes(findings):
    return {finding.code for finding in findings}


def severities(findings, code):
    return {finding.severity for finding in findings if finding.code == code}


def test_nothing_is_said_of_a_cluster_that_is_well():
    assert examine(picture()) == []
    assert examine(picture(cfg=CFG)) == []


def test_every_code_has_a_case():
    assert sorted([*CASES, *IN_PLACE_CASES]) == sorted(WHY)


@pytest.mark.parametrize("code", sorted(CASES))
def test_it_is_found(code):
    severity, loud, _ = CASES[code]
    found = [finding for finding in examine(loud) if finding.code == code]
    assert {finding.severity for finding in found} == {severity}
    for finding in found:
        assert finding.where
        assert finding.seen
        assert finding.change
        assert finding.docs == f"docs/doctor.md#{code}"


@pytest.mark.parametrize("code", sorted(CASES))
def test_it_is_quiet(code):
    assert code not in codes(examine(CASES[code][2]))


def test_the_page_has_a_section_for_every_code_and_no_other():
    text = DOCS.read_text(encoding="utf-8")
    sections = dict(re.findall(r"^### ([\w-]+)\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))
    assert sorted(sections) == sorted(WHY)
    assert [code for code, body in sections.items() if len(body.split()) < 15] == []


# ---------------------------------------------------------------- severities that depend on something


def test_without_admin_what_only_waits_may_lose_requests():
    without_state = edited(("    load-server-state-from-file global\n", ""))
    slower = edited(("inter 1s", "inter 3s"))
    reader = look("lb1", **READER)
    assert severities(examine(picture(reader, cfg=without_state)), "state-lost-at-reload") == {L}
    assert severities(examine(picture(reader, cfg=slower)), "checks-differ") == {R}
    failing = edited(("    http-check disable-on-404\n", ""))
    assert severities(examine(picture(reader, cfg=failing)), "no-disable-on-404") == {R}
    assert severities(examine(picture(cfg=slower)), "checks-differ") == {S}
    assert severities(
        examine(picture(reader, COOKIE._replace(can_change=False), config=shop(drain=MOVE))), "sticky-clients"
    ) == {S}


def test_a_forced_end_of_the_drain_loses_requests():
    assert severities(examine(picture(COOKIE, config=shop(drain=FORCE))), "sticky-clients") == {L}
    slow = look("lb1", server("web1", slowest_s=99))
    assert severities(examine(picture(slow, config=shop(drain=FORCE))), "slow-requests") == {L}
    assert (
        severities(examine(picture(slow, config=shop(drain=DrainPolicy(60, then="wait")))), "slow-requests")
        == set()
    )


def test_nobody_counts_old_workers():
    health = shop().health._replace(active="none")
    config = shop(health=health, balancers=(Balancer("lb1", runtime="unix:/run/a"),))
    assert severities(examine(picture(config=config)), "no-master-socket") == {L}


def test_a_check_elsewhere_that_drainctl_knows_of_is_advice():
    config = shop(health=shop().health._replace(check="http://{host}:9000/http-check"))
    cfg = edited(("web1 10.0.0.11:80", "web1 10.0.0.11:80 port 9000"))
    assert severities(examine(picture(config=config, cfg=cfg)), "check-not-the-app") == {A}


def test_findings_of_the_file_name_its_line():
    def where(code, cfg, **more):
        return [finding.where for finding in examine(picture(cfg=cfg, **more)) if finding.code == code]

    assert where("no-disable-on-404", edited(("    http-check disable-on-404\n", ""))) == ["haproxy.cfg:13"]
    assert where("marked-down-cuts", edited(("web2 10.0.0.12:80", f"web2 10.0.0.12:80 {CUT}"))) == [
        "haproxy.cfg:18"
    ]
    assert where("checks-differ", edited(("inter 1s", "inter 500ms"))) == ["haproxy.cfg:16"]
    assert where("option-persist", edited(STICK, PERSIST)) == ["haproxy.cfg:16"]
    assert where("sticky-clients", edited(STICK)) == ["haproxy.cfg:15"]
    assert where("no-check", edited(("default-server check", "default-server"))) == [
        f"haproxy.cfg:{at}" for at in (17, 18, 19)
    ]


def test_both_values_of_a_timing_are_named():
    (found,) = [
        one for one in examine(picture(cfg=edited(("inter 1s", "inter 3s")))) if one.code == "checks-differ"
    ]
    assert "checks.inter = 1 s" in found.seen
    assert "3 s in backend shop" in found.seen
    assert found.change.startswith("checks: {inter: 3s}")


def test_how_long_a_socket_without_admin_waits_is_said():
    (found,) = [one for one in examine(picture(look("lb1", **READER))) if one.code == "socket-not-admin"]
    assert "up to 11 s to leave" in found.seen  # inter 1 s + 2 × (inter 1 s + timeout 4 s)
    assert found.change == "stats socket /run/lb1.sock level admin expose-fd listeners"


def test_a_filtered_stats_url_is_found():
    found = examine(picture(config=stats_page("http://lb1/stats;up")))
    assert "stats-page-hides" in codes(found)
    assert "stats-page-hides" not in codes(examine(picture(config=stats_page())))


@pytest.mark.parametrize(("scope", "loud"), [("other", True), ("shop", False)])
def test_the_scope_of_the_stats_page(scope, loud):
    cfg = edited(("stats uri /stats", SCOPE.format(scope)))
    assert ("stats-page-hides" in codes(examine(picture(config=stats_page(), cfg=cfg)))) is loud
    assert "stats-page-hides" not in codes(examine(picture(cfg=cfg)))  # nobody reads that page


def test_the_same_server_in_another_backend_by_its_address():
    other = server("w", backend="api", address="10.0.0.11:80")
    (found,) = [one for one in examine(picture(look("lb1", other))) if one.code == "backend-not-listed"]
    assert found.change == "backends: [shop, api]"


def test_a_tracking_backend_of_ours_needs_no_check_of_its_own():
    cfg = CFG + ADMIN_TRACK.format(DRAINS).replace("a1", "web1")
    assert codes(examine(picture(config=shop(backends=()), cfg=cfg))) == set()


def test_what_plan_would_refuse_is_said_once():
    found = examine(picture(look("lb1", server("web1", "MAINT"))))
    assert "server-out-by-hand" in codes(found)
    assert "deploy-refused" not in codes(found)


def test_the_worst_come_first():
    found = examine(picture(look("lb1", server("web1", "MAINT"), server("web2", weight=0), **READER)))
    order = [finding.severity for finding in found]
    assert order == sorted(order, key=list(Severity).index)
    assert worst(found) is R
    assert worst([]) is None


# ---------------------------------------------------------------- who may search a folder


@pytest.mark.parametrize(
    ("mode", "user", "may"),
    [
        ("rwx------", User(0), True),
        ("rwx------", User(5, frozenset({5})), True),
        ("rw-rwxrwx", User(5, frozenset({7})), False),  # the owner's own bits count, and no others
        ("rwxr-x---", User(6, frozenset({6, 7})), True),
        ("rwx---r-x", User(6, frozenset({7})), False),
        ("rwxr-x--x", User(6, frozenset({6})), True),
        ("rwxrwxrwt", User(6), True),
        ("rwxrwxrwT", User(6), False),
    ],
)
def test_who_may_search_a_folder(mode, user, may):
    assert Folder("/x", mode, 5, 7).lets_in(user) is may


# ---------------------------------------------------------------- the node's line


def test_the_answer_of_a_node():
    out = """Welcome!
drainctl-doctor
now 1000
user deploy
tool tar
tool ss
restart no
sudo yes
flag writable
above drwxr-x---+ 33 7 /srv/my shop
above drwxr-xr-x 0 0 /
serves 33 33 33 4
serves 33 33 33 4
serves 0 0
unwritable /srv/shop/releases
unfenced /srv/shop/.drainctl-log
current link
free 5000
release 20
lacks .env
"""
    facts = parse(out, 999.0, 1001.0)
    assert facts.tools == {"tar", "ss"}
    assert (facts.now_s, facts.user, facts.restart, facts.sudo) == (1000, "deploy", False, True)
    assert facts.flag_path[0] == Folder("/srv/my shop", "rwxr-x---", 33, 7)
    assert facts.serving == (User(33, frozenset({33, 4})), User(0, frozenset({0})))
    assert (facts.unwritable, facts.current, facts.lacks) == (("/srv/shop/releases",), "link", (".env",))
    assert (facts.free_kb, facts.release_kb, facts.unfenced) == (5000, 20, ("/srv/shop/.drainctl-log",))


def test_an_answer_of_something_else_is_none():
    with pytest.raises(ValueError, match="did not answer"):
        parse("This account is not available.\n")


@pytest.mark.parametrize(
    ("restart", "program", "allowed"),
    [
        ("systemctl restart shop", "systemctl", ""),
        ("sudo systemctl restart shop", "systemctl", "sudo -n -l -- systemctl restart shop"),
        ("sudo -n -u app /srv/ctl 'a b'", "/srv/ctl", "sudo -n -u app -l -- /srv/ctl 'a b'"),
        ("RAILS_ENV=x ./ctl restart && sleep 1", "./ctl", ""),
        ("$HOME/ctl", "", ""),
        ("touch 'x", "", ""),
        ("sudo", "sudo", ""),
    ],
)
def test_the_program_of_the_restart(restart, program, allowed):
    given = dict(
        shlex.split(line(Asked(None, None, restart)).split("\nPATH=")[0])[at : at + 1][0].partition("=")[::2]
        for at in range(3, 10)
    )
    assert (given["program"], given["allowed"]) == (program, allowed)


# ---------------------------------------------------------------- columns that only an overview reads


NAMES = [
    "pxname",
    "svname",
    "qcur",
    "scur",
    "stot",
    "econ",
    "eresp",
    "wretr",
    "wredis",
    "status",
    "weight",
    "act",
    "bck",
    "chkfail",
    "lastchg",
    "iid",
    "sid",
    "type",
    "check_status",
    "check_code",
    "last_chk",
    "addr",
    "cookie",
    "cli_abrt",
    "srv_abrt",
    "hrsp_1xx",
    "hrsp_2xx",
    "hrsp_3xx",
    "hrsp_4xx",
    "hrsp_5xx",
    "ttime_max",
    "agent_status",
    "tracked",
]


def shown(names, wanted=None, **values):
    given = {"pxname": "api", "svname": "a1", "status": "UP", "type": "2", **values}
    table = f"# {','.join(names)}\n{','.join(given.get(name, '') for name in names)}\n"
    return show_stat(table, wanted).servers[0]


def test_a_whole_table_tells_the_slowest_request_the_agent_and_what_is_tracked():
    values = {"ttime_max": "61500", "agent_status": "L7OK", "tracked": "shop/web1"}
    row = shown(NAMES, **values)
    assert (row.slowest_s, row.agent, row.tracks) == (61.5, "L7OK", "shop/web1")
    row = shown(NAMES, {("api", "a1")}, **values)
    assert (row.slowest_s, row.agent, row.tracks) == (0.0, "", "")


def test_a_haproxy_without_those_columns_is_read_too():
    row = shown(NAMES[:-3])
    assert (row.slowest_s, row.agent, row.tracks) == (0.0, "", "")


# ---------------------------------------------------------------- the screen

LONG = "x" * 30 + " "


def test_the_screen_fits_eighty_columns():
    findings = examine(picture(look("lb1", server("web1", "MAINT"), **READER), cfg=edited(STICK), errors={}))
    findings.append(Finding("no-check", R, LONG * 5, LONG * 9, LONG * 9))
    text = findings_text(findings, "2 balancers, 3 nodes")
    assert max(map(len, text.splitlines())) <= 80
    assert text.endswith("a deploy\nwould be refused or stop")


def test_a_finding_in_several_places_is_told_once():
    looks = [look(name, server("web1", "MAINT")) for name in ("lb1", "lb2")]
    text = findings_text(examine(picture(*looks)), "2 balancers, 3 nodes")
    assert text.count(WHY["server-out-by-hand"].split()[0]) == 1
    assert "lb1 shop/web1, lb2 shop/web1" in text


def test_what_a_node_says_cannot_move_the_cursor():
    text = findings_text(examine(picture(nodes={"web1": disk(flag="\x1b[2Jx")})), "3 nodes")
    assert "\x1b" not in text


def test_nothing_found_is_said():
    assert (
        findings_text([], "2 balancers, 3 nodes") == "2 balancers, 3 nodes: nothing found; a deploy may begin"
    )


def test_the_json_says_the_same():
    told = json.loads(findings_json(examine(picture(look("lb1", server("web1", "MAINT")))), may_begin=False))
    assert (told["v"], told["may_begin"]) == (1, False)
    assert {one["code"] for one in told["findings"]} >= {"server-out-by-hand"}
    assert set(told["findings"][0]) == {"code", "severity", "where", "seen", "change", "why", "docs"}


def test_a_reload_between_the_two_looks_is_no_second_process():
    again = {"lb1": Process(8, 0, 1)}
    assert "process-changes" not in codes(examine(picture(again=again)))


def test_every_rule_is_asked():
    from drainctl.doctor import balancers, cluster, flips, haproxy, nodes, reloads, timings, upstreams

    public = {
        rule
        for module in (balancers, cluster, flips, haproxy, nodes, reloads, timings, upstreams)
        for name, rule in vars(module).items()
        if getattr(rule, "__module__", "") == module.__name__ and not name.startswith("_")
    }
    assert public - set(RULES) == {balancers.sticky_finding, cluster.others, timings.checks_of}


def test_at_once_is_judged_with_its_wave():
    policy = RolloutPolicy(at_once=Amount(2))
    assert "keep-up" in codes(examine(picture(config=shop(rollout=policy))))
