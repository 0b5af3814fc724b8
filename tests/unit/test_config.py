"""drainctl.yml: what a good file becomes, and the exact words for each way to be wrong."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import textwrap

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from drainctl.config.expand import Expanded, shown
from drainctl.config.explain import explain
from drainctl.config.json_schema import schema as json_schema
from drainctl.config.load import load
from drainctl.config.placeholders import fill, names_in, values_of
from drainctl.config.schema import FILE
from drainctl.config.shapes import sections
from drainctl.config.walk import take
from drainctl.errors import ConfigError, Exit
from drainctl.model import (
    Amount,
    Balancer,
    Cluster,
    Connect,
    DrainPolicy,
    FlagCommands,
    FlagFile,
    FlagHttp,
    Health,
    ImageReleases,
    Node,
    ReleaseLayout,
    RolloutPolicy,
    Secret,
    Service,
    WarmUp,
    WatchPolicy,
)

STORES = "sqlite:///PATH, postgresql://… or etcd://HOST:PORT/PREFIX"
HUSH = "swordfish-4711"

FULL = """\
app: shop
balancers:
  lb1: {runtime: unix:/run/haproxy/admin.sock, master: unix:/run/haproxy/master.sock}
  lb2: {runtime: tcp://10.0.0.6:9999}
  lb3: {runtime: unix:/run/haproxy/admin.sock, ssh: ops@10.0.0.7}
  lb4: {stats: https://10.0.0.8:8404/stats, auth: "${LB4_AUTH}", ca: ca.pem}
backends: [shop]
nodes:
  web1: {host: 10.0.0.11}
  web2: {host: 10.0.0.12, server: w2}
  web3: {host: 10.0.0.13, strategy: [http-check], port: 2222, user: ops, vars: {app_port: 8001}}
connect: {via: ssh, user: deploy, port: 22, key: ~/.ssh/deploy, known_hosts: known_hosts, timeout: 5s}
release: {root: /srv/shop, keep: 7, shared: [media, .env, log/]}
service: {restart: "sudo systemctl restart shop@{release}", limit: 2m}
health:
  check: http://{host}:8080/http-check
  flag: /srv/shop/shared/drain
  ready: http://{host}:8080/healthz
  version: http://{host}:8080/version
  active: none
  timeout: 500ms
warm: [{get: /, times: 20}, {get: "/search?q=a", times: 5, under: 300ms}]
strategy: [http-check]
rollout: {at_once: 1, canary: 1, keep_up: 50%, max_failed: 1, on_failure: halt, patience: 1h}
drain: {limit: 90s, then: force, sticky: move, move_after: 0s}
checks: {inter: 1s, timeout: 500ms, fall: 4, rise: 3, downinter: 5s, spread: 10, slowstart: 20s}
watch: {for: 30s, errors: 2}
store: sqlite:///~/state/shop.db
"""
ENVIRON = {"LB4_AUTH": f"ops:{HUSH}"}

MINIMAL = """\
app: shop
balancers: {lb1: {runtime: unix:admin.sock}}
nodes:
  web1: {host: 10.0.0.11}
  web2: {host: 10.0.0.12}
health:
  check: http://{host}:8080/http-check
  flag: /srv/shop/drain
  ready: http://{host}:8080/healthz
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ops")
    return tmp_path


def from_text(text, environ=None):
    with open("drainctl.yml", "w", encoding="utf-8", newline="") as file:  # noqa: PTH123
        file.write(text)
    return load("drainctl.yml", environ or {})


def problems_of(text, environ=None):
    """The lines of the refusal, without the file's name; and it is exit code 2."""
    with pytest.raises(ConfigError) as caught:
        from_text(text, environ)
    assert caught.value.exit is Exit.USAGE
    return [line.removeprefix("drainctl.yml:") for line in str(caught.value).splitlines()]


def outcome_of(text):
    """The Cluster or the refusal, as text."""
    try:
        return repr(from_text(text, ENVIRON))
    except ConfigError as error:
        return str(error)


def with_lines(old, new, text=MINIMAL):
    assert old in text
    return text.replace(old, new)


# ---------------------------------------------------------------- what a good file becomes


def test_a_full_file(folder):
    cluster = from_text(FULL, ENVIRON)
    file = str(folder / "drainctl.yml")
    one = ("http-check",)
    assert cluster == Cluster(
        app="shop",
        file=file,
        balancers=(
            Balancer("lb1", "unix:/run/haproxy/admin.sock", "unix:/run/haproxy/master.sock"),
            Balancer("lb2", "tcp://10.0.0.6:9999"),
            Balancer("lb3", "unix:/run/haproxy/admin.sock", ssh="ops@10.0.0.7"),
            Balancer(
                "lb4",
                stats="https://10.0.0.8:8404/stats",
                auth=Secret(f"ops:{HUSH}"),
                ca=str(folder / "ca.pem"),
            ),
        ),
        nodes=(
            Node("web1", "10.0.0.11", "web1", one),
            Node("web2", "10.0.0.12", "w2", one),
            Node("web3", "10.0.0.13", "web3", one, "ops", 2222, {"app_port": "8001"}),
        ),
        connect=Connect("ssh", "deploy", 22, "/home/ops/.ssh/deploy", str(folder / "known_hosts"), 5.0),
        release=ReleaseLayout("/srv/shop", 7, ("media", ".env", "log")),
        service=Service("sudo systemctl restart shop@{release}", 120.0),
        health=Health(
            "http://{host}:8080/http-check",
            FlagFile("/srv/shop/shared/drain"),
            "http://{host}:8080/healthz",
            "http://{host}:8080/version",
            "none",
            0.5,
        ),
        store="sqlite:////home/ops/state/shop.db",
        backends=("shop",),
        warm=(WarmUp("/", 20), WarmUp("/search?q=a", 5, 0.3)),
        rollout=RolloutPolicy(Amount(1), 1, Amount(50, percent=True), 1, "halt", 3600.0),
        drain=DrainPolicy(90.0, "force", "move", 0.0),
        checks=cluster.checks,
        watch=WatchPolicy(30.0, 2),
    )
    checks = cluster.checks
    assert (checks.inter_s, checks.timeout_s, checks.fall, checks.rise) == (1.0, 0.5, 4, 3)
    assert (checks.downinter_s, checks.spread_percent, checks.slowstart_s) == (5.0, 10, 20.0)


def test_what_is_left_out_is_what_the_model_says(folder):
    cluster = from_text(MINIMAL)
    assert cluster == Cluster(
        app="shop",
        file=str(folder / "drainctl.yml"),
        balancers=(Balancer("lb1", f"unix:{folder}/admin.sock"),),
        nodes=(
            Node("web1", "10.0.0.11", "web1", ("http-check",)),
            Node("web2", "10.0.0.12", "web2", ("http-check",)),
        ),
        connect=Connect(),
        release=None,
        service=Service(),
        health=Health(
            "http://{host}:8080/http-check", FlagFile("/srv/shop/drain"), "http://{host}:8080/healthz"
        ),
        store="sqlite:////home/ops/.local/state/drainctl/shop.db",
    )


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("/srv/drain", FlagFile("/srv/drain")),
        ("{path: /srv/drain}", FlagFile("/srv/drain")),
        (
            '{set: "echo {text} > /run/d", clear: rm /run/d}',
            FlagCommands("echo {text} > /run/d", "rm /run/d"),
        ),
        ('{url: "http://{host}/flag"}', FlagHttp("http://{host}/flag")),
    ],
)
def test_the_flag_is_a_file_two_commands_or_a_url(flag, expected):
    assert from_text(with_lines("flag: /srv/shop/drain", f"flag: {flag}")).health.flag == expected


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        ("sqlite:////var/lib/shop.db", "sqlite:////var/lib/shop.db"),
        ("sqlite:///var/lib/shop.db", "sqlite:////var/lib/shop.db"),
        ("sqlite:///~/shop.db", "sqlite:////home/ops/shop.db"),
    ],
)
def test_the_store_is_absolute(store, expected):
    assert from_text(f"{MINIMAL}store: {store}\n").store == expected


@pytest.mark.parametrize(
    "store",
    [
        "postgresql://shop@db1,db2:5433/drainctl?sslmode=verify-full",
        "postgres:///drainctl",
        "etcd://etcd1:2379,etcd2:2379/drainctl?cacert=/etc/etcd/ca.pem",
    ],
)
def test_the_url_of_a_server_is_left_as_it_is(store):
    assert from_text(f"{MINIMAL}store: {store}\n", {"XDG_STATE_HOME": "/x"}).store == store


def test_a_stores_password_comes_from_the_environment_and_is_not_shown():
    cluster = from_text(f"{MINIMAL}store: 'postgresql://shop:${{PW}}@db/drainctl'\n", {"PW": HUSH})
    assert cluster.store == f"postgresql://shop:{HUSH}@db/drainctl"
    assert HUSH not in repr(cluster)
    assert "postgresql://shop:${PW}@db/drainctl" in repr(cluster)


def test_the_default_store_follows_xdg_and_ignores_a_relative_one():
    assert from_text(MINIMAL, {"XDG_STATE_HOME": "/x"}).store == "sqlite:////x/drainctl/shop.db"
    assert from_text(MINIMAL, {"XDG_STATE_HOME": "x"}).store.startswith("sqlite:////home/ops/")


def test_values_are_what_the_file_looks_like_not_what_yaml_makes_of_them():
    vars_ = "vars: {a: 022, b: 1:30, c: on, d: 2024-01-01, e: 1.10}"
    node = from_text(with_lines("{host: 10.0.0.12}", f"{{host: 10.0.0.12, server: 0x1, {vars_}}}")).node(
        "web2"
    )
    assert node.vars == {"a": "022", "b": "1:30", "c": "on", "d": "2024-01-01", "e": "1.10"}
    assert node.server == "0x1"


def test_an_alias_is_the_same_again():
    text = with_lines("{host: 10.0.0.11}", "{host: 10.0.0.11, vars: &v {a: x}}")
    cluster = from_text(text.replace("{host: 10.0.0.12}", "{host: 10.0.0.12, vars: *v}"))
    assert [node.vars for node in cluster.nodes] == [{"a": "x"}, {"a": "x"}]


@pytest.mark.parametrize(
    ("text", "seconds"), [("300ms", 0.3), ("10s", 10.0), ("5m", 300.0), ("1h", 3600.0), ("168h", 604800.0)]
)
def test_durations(text, seconds):
    assert from_text(f"{MINIMAL}service: {{limit: {text}}}\n").service.limit_s == seconds


# ---------------------------------------------------------------- ${VAR}


def test_a_variable_fills_any_value():
    text = FULL.replace("port: 22,", 'port: "${P}",').replace("at_once: 1", "at_once: '${A}'")
    cluster = from_text(text, ENVIRON | {"P": "2022", "A": "25%"})
    assert (cluster.connect.port, cluster.rollout.at_once) == (2022, Amount(25, percent=True))


def test_two_dollars_are_for_the_shell():
    cluster = from_text(f"{MINIMAL}service: {{restart: 'a=1; echo $${{a}} $HOME $$'}}\n")
    assert cluster.service.restart == "a=1; echo ${a} $HOME $$"


def test_a_value_from_the_environment_is_in_no_repr():
    text = FULL.replace('restart: "sudo', 'restart: "TOKEN=${T} sudo').replace("app_port: 8001", "k: '${T}'")
    text = text.replace("known_hosts: known_hosts", "known_hosts: '${T}/k'").replace("~/state", "/${T}")
    text = text.replace("unix:/run/haproxy/admin.sock, ssh", "'unix:/${T}', ssh")
    cluster = from_text(text, ENVIRON | {"T": HUSH})
    assert cluster.service.restart.startswith(f"TOKEN={HUSH} sudo")
    assert cluster.store == f"sqlite:////{HUSH}/shop.db"
    assert HUSH not in repr(cluster)
    assert HUSH not in str(cluster)
    filled = fill(cluster.service.restart, values_of(cluster, cluster.node("web1"), "v2"))
    assert filled == f"TOKEN={HUSH} sudo systemctl restart shop@v2"
    assert repr(filled) == repr("TOKEN=${T} sudo systemctl restart shop@v2")
    assert HUSH not in repr(copy.deepcopy(cluster))
    assert pickle.loads(pickle.dumps(filled)).shown == filled.shown  # noqa: S301  our own bytes


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("app: shop", "app: '${T}!'", "1:6: app: found ${T}!, expected a name of letters, digits, . _ and -"),
        (
            "host: 10.0.0.12",
            "host: '${T} '",
            "5:16: nodes.web2.host: found '${T} ', expected a host name or an address",
        ),
        (
            "flag: /srv/shop/drain",
            "flag: '/${T}/{x}'",
            "8:9: health.flag: found {x}, expected one of {host} {node}",
        ),
    ],
)
def test_a_value_from_the_environment_is_in_no_message(old, new, line):
    assert problems_of(with_lines(old, new), {"T": HUSH}) == [line]


def test_a_placeholder_out_of_the_environment_is_not_named():
    found = problems_of(with_lines("flag: /srv/shop/drain", "flag: '/${T}'"), {"T": "{hush}"})
    assert found == ["8:9: health.flag: found /${T}, expected one of {host} {node}"]


def test_a_secret_is_not_shown():
    cluster = from_text(FULL, ENVIRON)
    assert cluster.balancers[3].auth.value == f"ops:{HUSH}"
    assert HUSH not in f"{cluster!r} {cluster.balancers[3].auth}"
    wrong = FULL.replace('"${LB4_AUTH}"', HUSH)
    assert problems_of(wrong) == ["6:51: balancers.lb4.auth: found ***, expected USER:PASSWORD"]


def test_a_password_in_a_url_is_not_shown():
    line = (
        "2:26: balancers.lb1.stats: found http://***@lb/, expected a URL such as http://10.0.0.8:8404/stats"
    )
    assert problems_of(with_lines("runtime: unix:admin.sock", f"stats: 'http://ops:{HUSH}@lb/'")) == [line]


def test_a_missing_variable():
    line = (
        "6:51: balancers.lb4.auth: found ${LB4_AUTH}, which is not set in the environment, expected a value"
    )
    assert problems_of(FULL) == [line]


@pytest.mark.parametrize("text", ["${LB4-x}", "${LB4", "${}"])
def test_a_variable_that_is_none(text):
    expected = "expected ${NAME} with letters, digits and _ ($${ stands for a literal ${)"
    found = problems_of(with_lines("app: shop", f"app: '{text}'"))
    assert found == [f"1:6: app: found {text}, {expected}"]


# ---------------------------------------------------------------- files that are no file, or no YAML


def test_no_such_file():
    with pytest.raises(ConfigError) as caught:
        load("drainctl.yml", {})
    assert str(caught.value) == "drainctl.yml: no such file or directory"
    assert caught.value.hint == "name the file with -c FILE"


def test_a_folder():
    with pytest.raises(ConfigError, match=r"^\.: is a directory$"):
        load(".", {})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("app: a: b\n", "1:7: not YAML: mapping values are not allowed in this context"),
        (
            "app: shop\nnodes:\n\tweb1: x\n",
            "3:1: not YAML: while scanning for the next token, found character that cannot start any token",
        ),
        ("app: *x\n", "1:6: not YAML: found undefined alias"),
        (
            "app: shop\n---\napp: shop\n",
            "2:1: not YAML: expected a single document in the stream, but found another document",
        ),
        ("app: sh\x01op\n", "1:8: not YAML: control characters are not allowed"),
        ("app: !shop x\n", "1:6: found the tag !shop, expected a value without one"),
        ("app: !!binary x\n", "1:6: found the tag !!binary, expected a value without one"),
        ("? [a]\n: b\n", "1:3: found a mapping or a list as a key, expected a name"),
        ("", "1:1: found nothing, expected keys: app, nodes, health, …"),
        ("# only\n\n- a\n", "3:1: found a list, expected keys: app, nodes, health, …"),
        ("just text", "1:1: found just text, expected keys: app, nodes, health, …"),
    ],
)
def test_no_yaml(text, line):
    assert problems_of(text) == [line]


def test_a_tab_has_a_hint():
    with pytest.raises(ConfigError) as caught:
        from_text("app: shop\n\tnodes: x\n")
    assert caught.value.hint == "indent with spaces, not tabs"


def test_braces_without_quotes_have_a_hint():
    with pytest.raises(ConfigError) as caught:
        from_text("service: {restart: restart shop@{release}}\n")
    assert caught.value.hint == "a text with { } or , in it needs quotes here"


def test_bytes_that_are_no_text(folder):
    (folder / "drainctl.yml").write_bytes(b"app: shop\nnodes: \xff\n")
    with pytest.raises(ConfigError, match=r"^drainctl\.yml:2:8: found byte 0xff, expected UTF-8$"):
        load("drainctl.yml", {})


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [*a]",
        "a: " + "[" * 30 + "]" * 30,
        "\n".join(["x0: &x0 [a]", *(f"x{n}: &x{n} [{', '.join([f'*x{n - 1}'] * 9)}]" for n in range(1, 9))]),
    ],
)
def test_a_file_that_would_never_end(text):
    (line,) = problems_of(text)
    assert line.endswith("found more than 20 levels or 200000 values, expected a smaller file")


# ---------------------------------------------------------------- keys that are wrong for themselves


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("app: shop\n", "", ["1:1: app: found nothing, expected a name of letters, digits, . _ and -"]),
        (
            "app: shop",
            "app: [shop]",
            ["1:6: app: found a list, expected a name of letters, digits, . _ and -"],
        ),
        ("app: shop", "app: ", ["1:1: app: found nothing, expected a name of letters, digits, . _ and -"]),
        (
            "app: shop",
            "app: shop\n'[key]': x",
            [f"2:1: [key]: found an unknown key, expected one of {', '.join(FILE.keys)}"],
        ),
        ("app: shop", "app: ../x", ["1:6: app: found ../x, expected a name of letters, digits, . _ and -"]),
        (
            "app: shop",
            "app: shop\nrollot: {}",
            ["2:1: rollot: found an unknown key, expected rollout (the nearest known one)"],
        ),
        (
            "{host: 10.0.0.11}",
            "{host: 10.0.0.11, hots: x}",
            ["4:27: nodes.web1.hots: found an unknown key, expected host (the nearest known one)"],
        ),
        (
            "{host: 10.0.0.11}",
            "{host: 10.0.0.11, qqq: x}",
            [
                (
                    "4:27: nodes.web1.qqq: found an unknown key"
                    ", expected one of host, server, strategy, container, port, user, vars"
                ),
            ],
        ),
        (
            "{host: 10.0.0.11}",
            "{}",
            ["4:3: nodes.web1.host: found nothing, expected a host name or an address"],
        ),
        ("{host: 10.0.0.11}", "10.0.0.11", ["4:9: nodes.web1: found 10.0.0.11, expected keys below it"]),
        (
            "  web1: {host: 10.0.0.11}\n  web2: {host: 10.0.0.12}\n",
            "  {}\n",
            ["4:3: nodes: found an empty mapping, expected at least one"],
        ),
        (
            "balancers: {lb1: {runtime: unix:admin.sock}}\n",
            "",
            ["1:1: balancers: found nothing, expected a value: strategy http-check needs it"],
        ),
        (
            "{lb1: {runtime: unix:admin.sock}}",
            "{}",
            ["2:12: balancers: found nothing, expected a value: strategy http-check needs it"],
        ),
        (
            "health:\n",
            "drain: {limit: 10}\nhealth:\n",
            [
                (
                    "6:16: drain.limit: found 10"
                    ", expected a duration such as 300ms, 10s or 5m (above 0, 168h at most)"
                ),
            ],
        ),
        (
            "health:\n",
            "drain: {limit: 0s}\nhealth:\n",
            [
                (
                    "6:16: drain.limit: found 0s"
                    ", expected a duration such as 300ms, 10s or 5m (above 0, 168h at most)"
                ),
            ],
        ),
        (
            "health:\n",
            "watch: {for: 200h}\nhealth:\n",
            ["6:14: watch.for: found 200h, expected a duration such as 300ms, 10s or 5m (168h at most)"],
        ),
        (
            "health:\n",
            "connect: {port: 65536}\nhealth:\n",
            ["6:17: connect.port: found 65536, expected a port from 1 to 65535"],
        ),
        (
            "health:\n",
            "rollout: {keep_up: 101%}\nhealth:\n",
            ["6:20: rollout.keep_up: found 101%, expected a count such as 2 or a share from 0% to 100%"],
        ),
        (
            "health:\n",
            "rollout: {at_once: 0}\nhealth:\n",
            ["6:20: rollout.at_once: found 0, expected a count from 1 or a share from 1% to 100%"],
        ),
        (
            "health:\n",
            "rollout: {on_failure: roll}\nhealth:\n",
            ["6:23: rollout.on_failure: found roll, expected roll-back or halt"],
        ),
        (
            "health:\n",
            "checks: {spread: 51}\nhealth:\n",
            ["6:18: checks.spread: found 51, expected a percentage from 0 to 50"],
        ),
        ("health:\n", "warm: {get: /}\nhealth:\n", ["6:7: warm: found a mapping, expected a list"]),
        (
            "health:\n",
            "warm: [{get: x}]\nhealth:\n",
            ["6:14: warm[0].get: found x, expected a path such as / or /search?q=a"],
        ),
        (
            "health:\n",
            "strategy: []\nhealth:\n",
            ["6:11: strategy: found an empty list, expected at least one"],
        ),
        ("health:\n", "release:\nhealth:\n", ["6:1: release: found nothing, expected keys below it"]),
        (
            "health:\n",
            "release: {root: srv}\nhealth:\n",
            ["6:17: release.root: found srv, expected an absolute path"],
        ),
        (
            "health:\n",
            "release: {root: /srv, shared: [/etc, a/../b]}\nhealth:\n",
            [
                "6:32: release.shared[0]: found /etc, expected a path relative to shared/ without ..",
                "6:38: release.shared[1]: found a/../b, expected a path relative to shared/ without ..",
            ],
        ),
        (
            "flag: /srv/shop/drain",
            "flag: drain",
            ["8:9: health.flag: found drain, expected an absolute path"],
        ),
        (
            "check: http://{host}:8080/http-check",
            "check: /http-check",
            ["7:10: health.check: found /http-check, expected a URL such as http://{host}:8080/http-check"],
        ),
        (
            "runtime: unix:admin.sock",
            "runtime: /run/admin.sock",
            ["2:28: balancers.lb1.runtime: found /run/admin.sock, expected unix:/PATH or tcp://HOST:PORT"],
        ),
        (
            "runtime: unix:admin.sock",
            "runtime: tcp://lb:99999",
            ["2:28: balancers.lb1.runtime: found tcp://lb:99999, expected unix:/PATH or tcp://HOST:PORT"],
        ),
        (
            "web2: {",
            "we b2: {",
            ["5:3: nodes.we b2: found this name, expected a name of letters, digits, . _ : and -"],
        ),
        (
            "health:\n",
            "store: mysql://x\nhealth:\n",
            [f"6:8: store: found mysql://x, expected {STORES}"],
        ),
        (
            "health:\n",
            "store: 'postgresql://shop:a b/c@d@db/x'\nhealth:\n",
            [f"6:8: store: found postgresql://***@db/x, expected {STORES}"],
        ),
    ],
)
def test_a_key_that_is_wrong(old, new, lines):
    assert problems_of(with_lines(old, new)) == lines


def test_a_long_value_is_cut():
    (line,) = problems_of(with_lines("app: shop", "app: " + "x" * 70))
    assert line == f"1:6: app: found {'x' * 59}…, expected a name of letters, digits, . _ and -"


def test_a_key_given_twice():
    text = f"{MINIMAL}app: blog\n"
    assert problems_of(text) == ["10:1: app: found a second time (first on line 1), expected once"]


def test_a_key_of_a_later_version():
    text = with_lines("app: shop", "app: shop\nnotify: [x]")
    assert problems_of(text) == ["2:1: notify: not available in this version"]


# ---------------------------------------------------------------- containers


DOCKER = """\
app: shop
connect: {via: docker, engine: "ssh://deploy@{host}"}
release: {image: "registry.example.com:5000/shop", keep: 3}
balancers: {lb1: {runtime: unix:admin.sock}}
nodes:
  web1: {host: 10.0.0.11, container: shop}
  web2: {host: 10.0.0.12}
health:
  check: http://{host}:8080/http-check
  flag: /run/drain
  ready: http://{host}:8080/healthz
"""


def test_containers_and_their_image():
    cluster = from_text(DOCKER)
    assert cluster.release is None
    assert cluster.images == ImageReleases("registry.example.com:5000/shop", 3)
    assert [node.container for node in cluster.nodes] == ["shop", ""]
    assert (cluster.connect.via, cluster.connect.engine) == ("docker", "ssh://deploy@{host}")


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        (
            "{image: ",
            "{root: /srv/shop, image: ",
            ["3:1: release: found both root and image, expected one of them"],
        ),
        (
            '{image: "registry.example.com:5000/shop", keep: 3}',
            "{keep: 3}",
            ["3:1: release: found neither root nor image, expected one of them"],
        ),
        (
            "5000/shop",
            "5000/shop:1.4.2",
            [
                (
                    "3:18: release.image: found registry.example.com:5000/shop:1.4.2, expected an image "
                    "without a tag, such as registry.example.com/shop"
                )
            ],
        ),
        (
            "keep: 3",
            "shared: [x]",
            ["3:52: release.shared: found it with image, expected it with root only"],
        ),
        (
            'via: docker, engine: "ssh://deploy@{host}"',
            "via: ssh",
            ["3:18: release.image: found connect.via = ssh, expected docker with an image"],
        ),
        (
            "via: docker, engine",
            "engine",
            [
                "2:11: connect.engine: found via: ssh, expected docker with engine",
                "3:18: release.image: found connect.via = ssh, expected docker with an image",
            ],
        ),
        (
            "flag: /run/drain",
            "flag: {url: 'http://{host}:8080/flag'}",
            [
                (
                    "10:3: health.flag: found no path, expected one: with release.image it is put into a "
                    "container before that starts"
                )
            ],
        ),
        (
            '"ssh://deploy@{host}"',
            "unix:///run/docker.sock, ca: ca.pem",
            ["2:57: connect.ca: found engine unix:///run/docker.sock, expected tcp://HOST:PORT with ca"],
        ),
        (
            '"ssh://deploy@{host}"',
            '"tcp://{host}:2376", cert: cert.pem',
            ["2:53: connect.cert: found cert alone, expected ca and key with it"],
        ),
        (
            'engine: "ssh://deploy@{host}"}',
            "engine: unix:///run/docker.sock}\n# one engine: containers of one name are one",
            [],
        ),
    ],
)
def test_what_is_wrong_with_containers(old, new, lines):
    text = DOCKER.replace(old, new)
    assert text != DOCKER
    if lines:
        assert problems_of(text) == lines
    else:
        from_text(text)


def test_one_container_is_one_node():
    one_engine = DOCKER.replace('"ssh://deploy@{host}"', "unix:///run/docker.sock")
    text = one_engine.replace("{host: 10.0.0.12}", "{host: 10.0.0.12, container: shop}")
    assert problems_of(text) == [
        "7:38: nodes.web2.container: found shop, which is nodes.web1's, expected a container of its own"
    ]


# ---------------------------------------------------------------- what no key can tell alone


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        (
            "{host: 10.0.0.12}",
            "{host: 10.0.0.12, server: web1}",
            ["5:35: nodes.web2.server: found web1, which is nodes.web1's, expected a server of its own"],
        ),
        (
            "{host: 10.0.0.12}",
            "{host: 10.0.0.11}",
            ["5:16: nodes.web2.host: found 10.0.0.11 port 22, which is nodes.web1's, expected another"],
        ),
        (
            "{runtime: unix:admin.sock}",
            "{runtime: unix:/a, stats: 'http://lb/'}",
            ["2:13: balancers.lb1: found both runtime and stats, expected one of them"],
        ),
        (
            "{runtime: unix:admin.sock}",
            "{master: unix:/a}",
            ["2:13: balancers.lb1: found neither runtime nor stats, expected one of them"],
        ),
        (
            "{runtime: unix:admin.sock}",
            "{runtime: unix:/a, auth: 'a:b'}",
            ["2:37: balancers.lb1.auth: found auth without stats, expected it with stats only"],
        ),
        (
            "{runtime: unix:admin.sock}",
            "{stats: 'http://lb/', ca: /x}",
            ["2:40: balancers.lb1.ca: found ca with a stats page without TLS, expected it with https only"],
        ),
        (
            "{runtime: unix:admin.sock}",
            "{stats: 'http://lb/', ssh: lb}",
            ["2:40: balancers.lb1.ssh: found ssh without runtime, expected it with runtime only"],
        ),
        (
            "{runtime: unix:admin.sock}",
            "{runtime: unix:~/a, ssh: lb}",
            ["2:28: balancers.lb1.runtime: found unix:~/a, expected an absolute path on the ssh host"],
        ),
        (
            "app: shop",
            "app: shop\nbackends: [a, b, a]",
            ["2:18: backends[2]: found a a second time, expected once"],
        ),
        (
            "{host: 10.0.0.12}",
            "{host: 10.0.0.12, vars: {node: x}}",
            [
                (
                    "5:34: nodes.web2.vars.node: found {node}, which drainctl fills in"
                    ", expected a name of your own"
                ),
            ],
        ),
        (
            "flag: /srv/shop/drain",
            "flag: {set: x}",
            ["8:3: health.flag: found set, expected path, or set and clear, or url"],
        ),
        (
            "flag: /srv/shop/drain",
            "flag: {}",
            ["8:3: health.flag: found none of its keys, expected path, or set and clear, or url"],
        ),
        (
            "flag: /srv/shop/drain",
            "flag: '/srv/{app}/drain'",
            ["8:9: health.flag: found {app}, expected one of {host} {node}"],
        ),
        (
            "flag: /srv/shop/drain",
            "flag: '{node}/drain'",
            ["8:9: health.flag: found {node}/drain, no absolute path on nodes.web1, expected one"],
        ),
        (
            "app: shop",
            "app: shop\nservice: {restart: \"awk '{print}' {root} {release}\"}",
            ["2:20: service.restart: found {print}, expected one of {host} {node} {release}"],
        ),
        (
            "app: shop",
            "app: shop\nrelease: {root: '/srv/{root}'}",
            ["2:17: release.root: found {root}, expected one of {host} {node}"],
        ),
        (
            "app: shop",
            "app: shop\nservice: {sockets: [/run/a.sock, /run/a.sock]}",
            ["2:20: service.sockets: found /run/a.sock twice, expected two different paths"],
        ),
        (
            "app: shop",
            "app: shop\nservice: {sockets: [/run/a.sock]}",
            ["2:20: service.sockets: found 1 of them, expected two different paths"],
        ),
        (
            "app: shop",
            "app: shop\nservice: {ports: [8000, 8000]}",
            ["2:18: service.ports: found 8000 twice, expected two different ports"],
        ),
        (
            "app: shop",
            "app: shop\nservice: {sockets: [/run/a.sock, b.sock]}",
            ["2:34: service.sockets[1]: found b.sock, expected an absolute path"],
        ),
        (
            "app: shop",
            "app: shop\nservice: {sockets: [/run/a.sock, '/run/{release}.sock']}",
            ["2:34: service.sockets[1]: found {release}, expected one of {host} {node}"],
        ),
        (
            "app: shop",
            "app: shop\nservice: {sockets: [/run/a.sock, '{node}.sock']}",
            [("2:34: service.sockets[1]: found {node}.sock, no absolute path on nodes.web1, expected one")],
        ),
        (
            "app: shop",
            "app: shop\nservice: {ports: [1, 2], sockets: [/run/a.sock, /run/b.sock]}",
            ["2:1: service: found both ports and sockets, expected one of them"],
        ),
        (
            "app: shop",
            "app: shop\nservice: {sockets: [/run/a.sock, /run/b.sock], start: 'up shop@{port}'}",
            [
                (
                    "2:55: service.start: found up shop@{port}, expected {socket} in it"
                    ": it is for one process of several"
                )
            ],
        ),
        (
            "app: shop",
            (
                "app: shop\nstrategy: [backup]\nnginx: {upstream: shop}\n"
                "service: {start: 'up {socket}', stop: 'down {socket}'}"
            ),
            [("4:1: service.sockets: found nothing, expected it or service.ports: strategy backup needs it")],
        ),
        (
            "host: 10.0.0.12",
            "host: 10.0.0.12, vars: {dc: a}}\n  web3: {host: '10.0.0.13{dc}'",
            ["6:16: nodes.web3.host: found 10.0.0.13{dc}, expected a host name or an address"],
        ),
        (
            "{host}:8080/http-check",
            "lb:8080/http-check",
            [
                (
                    "7:10: health.check: found http://lb:8080/http-check for 2 nodes"
                    ", expected one that differs, by {host}"
                ),
            ],
        ),
    ],
)
def test_keys_that_do_not_fit_together(old, new, lines):
    assert problems_of(with_lines(old, new)) == lines


def test_a_variable_of_one_node_is_asked_of_all():
    text = with_lines("host: 10.0.0.12", "host: 10.0.0.12, vars: {dc: a}")
    found = problems_of(with_lines("flag: /srv/shop/drain", "flag: '/srv/{dc}'", text))
    assert found == ["8:9: health.flag: found {dc} on nodes.web1, expected one of {host} {node}"]


def test_a_root_and_a_flag_of_each_node():
    text = with_lines("flag: /srv/shop/drain", "flag: '{root}/shared/drain'")
    cluster = from_text(f"{text}release: {{root: '/srv/{{node}}'}}\n")
    values = values_of(cluster, cluster.node("web2"), None)
    assert (values["root"], fill(cluster.health.flag.path, values)) == ("/srv/web2", "/srv/web2/shared/drain")


def test_one_machine_may_be_all_nodes_without_ssh():
    text = with_lines("{host: 10.0.0.12}", "{host: 10.0.0.11}")
    assert from_text(f"{text}connect: {{via: local}}\n").connect.via == "local"


def test_the_rules_speak_with_line_and_column():
    text = f"{MINIMAL}rollout: {{at_once: 2}}\n"
    (line,) = problems_of(text)
    assert line.startswith("10:20: rollout.at_once: found 2 (2 of 2 nodes), expected at most 1")


def test_a_rule_about_a_default_points_to_the_nearest_key_that_is_there(monkeypatch):
    def problems(_cluster):
        return [("rollout.canary", "a"), ("drain.limit", "b"), ("nodes.web.1.host", "c"), ("health", "d")]

    monkeypatch.setattr("drainctl.rollout.rules.problems", problems)
    text = with_lines("web1:", "web.1:") + "rollout: {at_once: 1}\n"
    assert problems_of(text) == [
        "1:1: drain.limit: b",
        "4:17: nodes.web.1.host: c",
        "7:3: health: d",
        "10:1: rollout.canary: a",
    ]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (
            "checks: {slowstart: 20s}",
            "10:21: watch.for: found 10 s, expected at least checks.slowstart = 20 s",
        ),
        (
            "checks: {slowstart: 20s}\nwatch: {errors: 1}",
            "10:21: watch.for: found 10 s, expected at least checks.slowstart = 20 s",
        ),
        (
            "checks: {slowstart: 20s}\nwatch: {for: 19s}",
            "11:14: watch.for: found 19 s, expected at least checks.slowstart = 20 s",
        ),
        ("rollout: {keep_up: 2}", "10:20: rollout.at_once: found 1 (1 of 2 nodes), expected at most 0"),
        (
            "drain: {limit: 5s, sticky: move}",
            "10:16: drain.move_after: found 10 s, expected less than drain.limit = 5 s",
        ),
    ],
)
def test_a_default_that_does_not_hold_is_shown_at_the_value_that_broke_it(lines, problem):
    (line,) = problems_of(f"{MINIMAL}{lines}\n")
    assert line.startswith(problem)


def test_every_problem_at_once_in_the_files_order():
    text = """\
watch: {for: ten}
app: shop
balancers:
  lb1: {stats: "http://lb/", auth: "${NOPE}"}
  lb2: {}
nodes:
  web1: {host: 10.0.0.11}
  web2: {host: 10.0.0.12, servr: x, server: web1}
notify: []
health:
  check: http://{hots}:8080/http-check
  flag: drain
app: blog
"""
    assert problems_of(text) == [
        "1:14: watch.for: found ten, expected a duration such as 300ms, 10s or 5m (168h at most)",
        "4:36: balancers.lb1.auth: found ${NOPE}, which is not set in the environment, expected a value",
        "5:3: balancers.lb2: found neither runtime nor stats, expected one of them",
        "8:27: nodes.web2.servr: found an unknown key, expected server (the nearest known one)",
        "8:45: nodes.web2.server: found web1, which is nodes.web1's, expected a server of its own",
        "9:1: notify: not available in this version",
        "11:10: health.check: found {hots}, expected one of {host} {node}",
        "12:9: health.flag: found drain, expected an absolute path",
        "13:1: app: found a second time (first on line 2), expected once",
    ]


# ---------------------------------------------------------------- placeholders


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("http://{host}:8080/", "http://h:8080/"),
        ("{host}{host}", "hh"),
        ("echo ${host} {{host}}", "echo ${host} {host}"),
        ("awk '{print $1}' a.{b,c} {{.State}} {} }} {{", "awk '{print $1}' a.{b,c} {{.State}} {} }} {{"),
    ],
)
def test_only_a_name_in_bare_braces_is_a_placeholder(template, filled):
    assert fill(template, {"host": "h"}) == filled


def test_an_unknown_placeholder():
    with pytest.raises(ConfigError) as caught:
        fill("a {print} b", {"host": "h", "node": "n"})
    assert str(caught.value) == "found {print} in a {print} b, expected one of {host} {node}"
    assert caught.value.hint == "write {{print}} for a literal {print}"


def test_a_value_is_not_a_template():
    assert fill("{a}", {"a": "{b}", "b": "x"}) == "{b}"


def test_what_the_placeholders_are():
    cluster = from_text(FULL, ENVIRON)
    assert values_of(cluster, cluster.node("web3"), "v2") == {
        "host": "10.0.0.13",
        "node": "web3",
        "port": "2222",
        "app_port": "8001",
        "root": "/srv/shop",
        "release": "v2",
    }
    assert values_of(cluster, cluster.node("web1"), None)["port"] == "22"
    plain = from_text(MINIMAL)
    assert values_of(plain, plain.node("web1"), None) == {"host": "10.0.0.11", "node": "web1"}


@given(st.text(alphabet="{}$ab /.", max_size=30))
def test_filling_is_the_identity_where_nothing_is_known_and_no_name_is_asked(text):
    if "{{a" not in text and "{{b" not in text and not names_in(text):
        assert fill(text, {}) == text


# ---------------------------------------------------------------- JSON Schema


def validator():
    found = json_schema()
    jsonschema.Draft202012Validator.check_schema(found)
    return jsonschema.Draft202012Validator(found)


@pytest.mark.parametrize("text", [FULL, MINIMAL])
def test_the_json_schema_takes_what_the_loader_takes(text):
    assert list(validator().iter_errors(yaml.safe_load(text))) == []


def test_the_json_schema_takes_variables_anywhere():
    text = FULL.replace("port: 22,", 'port: "${P}",').replace("limit: 90s", "limit: '${L}'")
    assert list(validator().iter_errors(yaml.safe_load(text))) == []


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ("app: shop", "app: shop\nrollot: {}", "$"),
        ("{host: 10.0.0.11}", "{host: 10.0.0.11, hots: x}", "$.nodes.web1"),
        ("{host: 10.0.0.11}", "{}", "$.nodes.web1"),
        ("app: shop", "app: [shop]", "$.app"),
        ("app: shop", "app: shop\nnginx: {}", "$.nginx"),
        ("app: shop", "app: shop\nstrategy: [blue-green]", "$.strategy[0]"),
        ("app: shop", "app: shop\ndrain: {limit: 10}", "$.drain.limit"),
        ("app: shop", "app: shop\nrollout: {keep_up: 101%}", "$.rollout.keep_up"),
        ("app: shop", "app: shop\nrelease:", "$.release"),
        ("runtime: unix:admin.sock", "master: unix:/x", "$.balancers.lb1"),
        ("flag: /srv/shop/drain", "flag: drain", "$.health.flag"),
    ],
)
def test_the_json_schema_refuses(old, new, where):
    text = with_lines(old, new)
    assert where in [error.json_path for error in validator().iter_errors(yaml.safe_load(text))]
    problems_of(text)  # and so does the loader


def test_every_key_is_described():
    for path, section in sections(FILE).items():
        assert section.meaning
        assert section.example
        for name, key in section.keys.items():
            assert key.meaning, (*path, name)
            assert key.meaning.endswith("."), (*path, name)


def test_every_default_and_example_of_the_table_is_one_that_the_loader_takes():
    for path, section in sections(FILE).items():
        for name, key in section.keys.items():
            for value in (*key.examples, key.default):
                wrong = []
                if value is not None:
                    take(key.holds, as_read(value), (*path, name), wrong)
                assert [problem for problem in wrong if "${" not in str(value)] == []


def as_read(value):
    """A value as the reader of the file hands it on: every scalar is a text."""
    match value:
        case dict():
            return {name: as_read(item) for name, item in value.items()}
        case list():
            return [as_read(item) for item in value]
    return str(value)


# ---------------------------------------------------------------- drainctl explain


def test_a_key_is_explained():
    assert (
        explain("drain.limit")
        == """\
drain.limit
  Most time that a node may take to become idle.
  type:     a duration such as 300ms, 10s or 5m (above 0, 168h at most)
  default:  60s
  example:  limit: 60s"""
    )


def test_a_section_is_explained_by_its_keys():
    assert (
        explain("watch")
        == """\
watch
  How a restored node is watched.
  type:     keys
  default:  none

  How a restored node is watched before the next one is taken.
  keys:
    for         duration
    errors      count
  example:
    watch: {for: 10s, errors: 0}"""
    )


@pytest.mark.parametrize(
    ("key", "title"),
    [
        ("", "drainctl.yml"),
        ("app", "app"),
        ("balancers", "balancers"),
        ("balancers.lb1", "balancers.NAME"),
        ("balancers.lb1.auth", "balancers.NAME.auth"),
        ("nodes.web1.vars", "nodes.NAME.vars"),
        ("nodes.NAME.host", "nodes.NAME.host"),
        ("nodes.host", "nodes.NAME.host"),
        ("warm[0].get", "warm[].get"),
        ("warm[].get", "warm[].get"),
        ("warm.get", "warm[].get"),
        ("health.flag.set", "health.flag.set"),
    ],
)
def test_a_key_is_found_as_messages_and_the_reference_write_it(key, title):
    assert explain(key).splitlines()[0] == title


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("dran.limit", "dran.limit: found no such key, expected drain.limit (the nearest known one)"),
        ("limit", "limit: found no such key, expected drain.limit (the nearest known one)"),
        (
            "nodes.web1.hots",
            "nodes.web1.hots: found no such key, expected nodes.NAME.host (the nearest known one)",
        ),
        ("zzz", f"zzz: found no such key, expected one of {', '.join(FILE.keys)}"),
        ("notify", "notify: not available in this version"),
    ],
)
def test_a_key_that_cannot_be_explained(key, message):
    with pytest.raises(ConfigError) as caught:
        explain(key)
    assert str(caught.value) == message


def test_the_example_of_every_key_is_yaml():
    for path, section in sections(FILE).items():
        for name in section.keys:
            example = explain(".".join((*path, name))).partition("example:")[2]
            assert isinstance(yaml.safe_load(textwrap.dedent(example)), dict), (*path, name)


# ---------------------------------------------------------------- whatever a file holds

WORDS = st.sampled_from(
    [
        *"{}[]:,#&*!|>'\"%@`?-\t\n ",
        "${X}",
        "$${",
        "{host}",
        "null",
        "~",
        "&a ",
        "*a",
        "- ",
        "? ",
        "!!int ",
        "0",
        "é",
        "\x00",
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.sampled_from([FULL, MINIMAL]),
    edits=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), WORDS), min_size=1, max_size=6),
)
@example(text="", edits=[])
@example(text=FULL, edits=[(0.38019192127415946, 0, "\n"), (0.380859375, 1, "\n")])  # a line end in a key
def test_a_mangled_file_is_a_cluster_or_a_config_error(text, edits):
    for at, cut, word in edits:
        place = int(at * len(text))
        text = text[:place] + word + text[place + cut :]
    outcome = outcome_of(text)
    assert HUSH not in outcome
    assert outcome.startswith("Cluster(") or all(
        line.startswith("drainctl.yml:") for line in outcome.splitlines()
    )


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_value_of_any_shape_anywhere_is_a_cluster_or_a_config_error(data):
    tree = yaml.safe_load(FULL)
    at, key = tree, data.draw(st.sampled_from(list(tree)))
    while isinstance(at[key], dict | list) and at[key] and data.draw(st.booleans()):
        at = at[key]
        key = data.draw(st.sampled_from(list(at) if isinstance(at, dict) else range(len(at))))
    leaf = st.none() | st.integers() | st.booleans() | st.text(max_size=8)
    at[key] = data.draw(
        st.recursive(
            leaf,
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
            ),
        )
    )
    outcome = outcome_of(yaml.safe_dump(tree, allow_unicode=True))
    assert outcome.startswith(("Cluster(", "drainctl.yml:"))


def loaded_by(module):
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_placeholders_and_variables_do_not_load_the_schema():
    assert not loaded_by("drainctl.config.placeholders") & {"drainctl.config.schema", "yaml"}


def test_a_good_file_loads_nothing_that_only_messages_and_pages_need():
    heavy = {"difflib", "textwrap", "importlib.metadata", "json", "pathlib", "subprocess"}
    loaded = loaded_by("drainctl.config.load")
    assert "yaml" in loaded
    assert not loaded & (heavy | {"drainctl.config.explain", "drainctl.config.reference"})


def test_shown():
    assert (shown("a"), shown(Expanded("secret", "${A}"))) == ("a", "${A}")
