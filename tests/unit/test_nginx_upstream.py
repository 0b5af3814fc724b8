"""The upstream file as text: what is written is read back, and what cannot be read is named with its line."""

from __future__ import annotations

import pytest

from drainctl.errors import ConfigError
from drainctl.nginx.parse import parse_dump
from drainctl.nginx.upstream import Found, Server, diff, live, read, render, variable

FLIP = (Server("127.0.0.1:8000", "down"), Server("127.0.0.1:8001", "live"))
NAME = "/etc/nginx/conf.d/shop.conf"


@pytest.mark.parametrize(
    "servers",
    [
        FLIP,
        (Server("unix:/run/shop/current.sock", "live"),),
        (Server("[::1]:8000", "live"), Server("[::1]:8001", "backup")),
    ],
)
def test_what_is_rendered_is_read_back(servers):
    text = render("my-shop.v2", servers, "v2:8001")
    assert read(text, "my-shop.v2", name=NAME) == Found(True, "v2:8001", servers)
    assert live(read(text, "my-shop.v2", name=NAME)) == next(a for a, state in servers if state == "live")
    assert 'map "" $drainctl_generation_my_shop_v2 { default "v2:8001"; }\n' in text
    assert text.splitlines()[0].startswith("# drainctl upstream my-shop.v2 generation v2:8001: ")


def test_no_server_is_marked_failed():
    text = render("shop", FLIP, "v2:8001")
    assert "server 127.0.0.1:8001 max_fails=0;" in text
    assert "server 127.0.0.1:8000 max_fails=0 down;" in text


@pytest.mark.parametrize(
    ("upstream", "address", "generation"),
    [
        ("a b", "127.0.0.1:1", "v1:1"),
        ("shop; }", "127.0.0.1:1", "v1:1"),
        ("shop", "127.0.0.1:1;", "v1:1"),
        ("shop", "127.0.0.1:1 down", "v1:1"),
        ("shop", "127.0.0.1:1", "v$1:1"),
        ("shop", "127.0.0.1:1", "v1\n"),
        ("shop", "127.0.0.1:1", 'v"1'),
    ],
)
def test_a_value_that_is_no_single_word_is_refused(upstream, address, generation):
    with pytest.raises(ConfigError, match="no single word"):
        render(upstream, (Server(address, "live"),), generation)


@pytest.mark.parametrize(
    "states", [(), ("down",), ("backup",), ("live", "live")], ids=lambda states: "+".join(states) or "none"
)
def test_exactly_one_server_is_live(states):
    with pytest.raises(ValueError, match="one server must be live"):
        render("shop", [Server(f"127.0.0.1:{at}", state) for at, state in enumerate(states)], "v1:1")


def test_a_file_of_somebody_else_is_not_ours_but_is_read():
    text = "upstream shop {\n  ip_hash;\n  server 10.0.0.1:8000 weight=2 max_fails=3;\n}\n"
    found = read(text, "shop", name=NAME)
    assert found == Found(False, None, (Server("10.0.0.1:8000", "live"),))
    other = render("cart", FLIP, "v2:8001") + text
    assert not read(other, "shop", name=NAME).ours


def test_what_a_newer_nginx_takes_is_no_error():
    text = "upstream shop {\n  keepalive 32 local;\n  new_thing a b c { d e; }\n  server a:1 route=x;\n}\n"
    assert read(text, "shop", name=NAME).servers == (Server("a:1", "live"),)


def test_with_two_servers_none_is_the_one_that_serves():
    found = read("upstream shop { server a:1; server b:1; server c:1 backup; }", "shop", name=NAME)
    assert [state for _, state in found.servers] == ["live", "live", "backup"]
    assert live(found) is None
    assert live(read("upstream shop { server a:1 down; }", "shop", name=NAME)) is None


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("upstream shop {\n  server a:1;\n", 2, 'unexpected end of file, expecting "}"'),
        ("upstream shop {\n  server a:1\n}\n", 2, 'directive "server" is not terminated by ";"'),
        ("upstream shop { server a:1; }\n}\n", 2, 'unexpected "}"'),
        ("upstream shop { server a:1; }\nmap x", 2, "the file ends in the middle of a directive"),
        ("upstream shop;\n", 1, 'directive "upstream" has no opening "{"'),
        ("upstream shop { server a:1; keepalive 3 }\n", 1, 'directive "keepalive" is not terminated'),
        ("\0\xff{", 1, "unexpected end of file"),
        ("", 1, "no upstream shop at the top level of this file; found none"),
        ("upstream cart { server a:1; }", 1, "found upstream cart in line 1"),
        ("http {\nupstream shop { server a:1; }\n}", 1, "no upstream shop at the top level"),
        ("upstream shop { server a:1; }\n\nupstream shop { server b:1; }", 3, "the first is in line 1"),
        ("upstream shop {\n  include servers.d/*;\n}", 2, "include servers.d/*"),
        ("include more.conf;\nupstream shop { server a:1; }", 1, "cannot be seen from here"),
        ("upstream shop {\n  keepalive 3;\n}", 1, "has no server"),
        ("upstream shop {\n  server a:1\n  server b:1;\n}", 2, "`server` is not understood"),
        ("upstream shop {\n  server $who;\n}", 2, "this is not understood"),
        ("upstream shop {\n  server;\n}", 2, "this is not understood"),
        ("upstream shop {\n  server a:1 sideways;\n}", 2, "`sideways` is not understood"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text, line, words):
    with pytest.raises(ConfigError) as caught:
        read(text, "shop", name=NAME)
    assert str(caught.value).startswith(f"{NAME}:{line}: ")
    assert words in str(caught.value)


OWN = """\
upstream {{ upstream }} {
  zone {{ upstream }} 64k;
{% for server in servers if server.state != "down" %}
  server {{ server.address }};
{% endfor %}
}
map "" ${{ variable }} { default "{{ generation }}"; }
"""


def test_a_template_of_ones_own_gets_the_mark(tmp_path):
    own = tmp_path / "own.j2"
    own.write_text(OWN)
    text = render("shop", FLIP, "v2:8001", template=str(own))
    assert text.startswith("# drainctl upstream shop generation v2:8001: ")
    assert "zone shop 64k;" in text
    assert read(text, "shop", name=NAME) == Found(True, "v2:8001", (Server("127.0.0.1:8001", "live"),))


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for %}", "own.j2:1: "),
        ("upstream {{ name }} {}", "'name' is undefined"),
        ("upstream {{ upstream }} { server a:1 }", "own.j2, filled in:2: "),
        (OWN.replace("{{ server.address }}", "127.0.0.1:9"), "127.0.0.1:9 serves, not 127.0.0.1:8001"),
        (OWN.replace('!= "down"', '!= "x"'), "no single server serves, not 127.0.0.1:8001"),
        (OWN.replace('map ""', "map $host"), 'no `map "" $drainctl_generation_shop`'),
    ],
)
def test_a_template_that_says_something_else_is_refused(tmp_path, template, words):
    own = tmp_path / "own.j2"
    own.write_text(template)
    with pytest.raises(ConfigError) as caught:
        render("shop", FLIP, "v2:8001", template=str(own))
    assert words in str(caught.value)


def test_a_template_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        render("shop", FLIP, "v2:8001", template=str(tmp_path / "none.j2"))


def test_adopting_shows_what_changes():
    old, new = "upstream shop {\n  server a:1;\n}", "upstream shop {\n  server b:1;\n}\n"
    assert diff(old, new, "f").splitlines() == [
        "--- f (now)",
        "+++ f (drainctl)",
        "@@ -1,3 +1,3 @@",
        " upstream shop {",
        "-  server a:1;",
        "+  server b:1;",
        " }",
    ]
    assert diff(new, new, "f") == ""


def test_each_upstream_has_a_variable_of_its_own():
    assert variable("shop") == "drainctl_generation_shop"
    assert variable("a-b.c") == "drainctl_generation_a_b_c"


def test_what_is_no_dump_is_said():
    with pytest.raises(ConfigError, match="nginx -T"):
        parse_dump("events {}")
