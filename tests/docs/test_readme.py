"""The README's first file is read, its HAProxy and nginx lines are taken, and its recording is a real one."""

from __future__ import annotations

import re
import subprocess

import pytest

from docs.record import filled
from drainctl.config.load import load
from tests.conftest import need
from tests.docs.pages_kit import ROOT, blocks, text_of

README = text_of(ROOT / "README.md")
DEMO = text_of(ROOT / "docs" / "demo.txt")
PAGES = ["README.md", "docs/haproxy-facts.md"]
PROXY_DEFAULTS = (
    "defaults\n    mode http\n    timeout connect 1s\n    timeout client 60s\n    timeout server 60s\n"
)


def test_the_first_file_is_read_and_is_short(tmp_path):
    text, *_ = blocks(README, "yaml")
    assert len(text.splitlines()) <= 15
    file = tmp_path / "drainctl.yml"
    file.write_text(text, encoding="utf-8")
    cluster = load(str(file))
    assert cluster.names == ("web1", "web2", "web3")
    assert [balancer.name for balancer in cluster.balancers] == ["lb1", "lb2"]


@pytest.mark.real
@pytest.mark.parametrize("page", PAGES)
def test_haproxy_takes_the_lines(page, tmp_path):
    (text,) = blocks(text_of(ROOT / page), "haproxy")
    file = tmp_path / "haproxy.cfg"
    file.write_text(text if "defaults" in text else text.replace("backend", f"{PROXY_DEFAULTS}\nbackend", 1))
    done = subprocess.run(
        [need("haproxy"), "-c", "-f", file], capture_output=True, text=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert "disable-on-404" in text


def test_the_backend_of_the_haproxy_lines_has_the_nodes_of_the_file():
    (haproxy,), (yaml, *_) = blocks(README, "haproxy"), blocks(README, "yaml")
    servers = re.findall(r"server (\w+) ([\d.]+):", haproxy)
    assert servers == re.findall(r"(\w+): \{host: ([\d.]+)\}", yaml)


@pytest.mark.parametrize("page", ["README.md", "docs/nodes.md"])
def test_the_nginx_lines_are_those_of_the_snippet(page):
    def lines(text):
        return {line.split("#")[0].strip() for line in text.splitlines()}

    snippet = lines(text_of(ROOT / "nginx" / "http-check.conf"))
    shown = next(block for block in blocks(text_of(ROOT / page), "nginx") if "/http-check" in block)
    assert lines(shown) - snippet == set()


def test_the_recording_and_its_figures_are_those_of_docs_demo_txt():
    assert filled(README, DEMO) == README, "run `make docs`"
    assert len(blocks(README, "text")[0].splitlines()) > 20


def test_another_recording_makes_another_page():
    other = re.sub(r"drainctl lost 0 of \d+", "drainctl lost 0 of 4987", DEMO)
    assert "**0 of 4,987**" in filled(README, other)
    with pytest.raises(ValueError, match="no line that begins with"):
        filled(README, DEMO.replace("3/3 side by side", ""))
    with pytest.raises(ValueError, match="no markers for recording"):
        filled(README.replace("<!-- end of recording -->", ""), DEMO)


def test_the_figures_of_the_first_screen_are_the_recordings():
    naive, drained = re.findall(r"\*\*([\d,]+) of ([\d,]+)", README)[:2]
    for failed, requests in (naive, drained):
        assert f"{failed} of {requests} requests".replace(",", "") in DEMO
    assert drained[0] == "0"
