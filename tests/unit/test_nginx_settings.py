"""What is read of a whole configuration: inheritance, defaults, times; real output is in tests/real."""

from __future__ import annotations

import pytest

from drainctl.nginx.settings import Member, Pass, keeps_clients, seconds, settings


def dump(main, **files):
    texts = {"/etc/nginx/nginx.conf": main, **{f"/etc/nginx/{name}": text for name, text in files.items()}}
    return "".join(f"# configuration file {name}:\n{text}\n" for name, text in texts.items())


@pytest.mark.parametrize(
    ("text", "value"), [("90", 90), ("1m30s", 90), ("1m 30s", 90), ("500ms", 0.5), ("2h", 7200), ("0", 0)]
)
def test_times(text, value):
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "0.01s", "s", "5x", "-1"])
def test_no_times(text):
    with pytest.raises(ValueError, match="no time"):
        seconds(text)


def test_what_nothing_says_is_nginxs_default():
    found = settings(
        dump("http { upstream shop { server a:1; } server { location / { proxy_pass http://shop; } } }"),
        "shop",
    )
    assert found.servers == (Member("a:1", down=False, backup=False, max_fails=1, fail_timeout_s=10),)
    (one,) = found.passes
    assert one == Pass("/etc/nginx/nginx.conf:1", "proxy", 60, 60, ("error", "timeout"), None)
    assert (found.keepalive, found.client_header_timeout_s, found.worker_shutdown_timeout_s) == (
        None,
        60,
        None,
    )
    assert (found.keepalive_requests, found.keepalive_timeout_s) == (1000, 60)
    assert found.keeps_clients is False


def test_an_inner_value_replaces_an_outer_one_and_includes_are_followed():
    conf = dump(
        "worker_shutdown_timeout 30s;\n"
        "http {\n"
        "  proxy_read_timeout 900; proxy_connect_timeout 1s; proxy_set_header Connection close;\n"
        "  client_header_timeout 5s;\n"
        "  include conf.d/*.conf;\n"
        "  include /etc/nginx/last;\n"
        "}",
        **{
            "conf.d/a.conf": (
                "upstream shop {\n  server a:1 max_fails=0;\n  server b:1 backup fail_timeout=1s;\n"
                "  keepalive 8;\n  keepalive_timeout 4s;\n}"
            ),
            "conf.d/b.conf": (
                "server {\n  client_header_timeout 9s;\n  location / {\n"
                "    include proxy.inc;\n    proxy_pass http://shop/x;\n    location /u {\n"
                "      proxy_set_header Host $host; uwsgi_read_timeout 7;\n"
                "      uwsgi_pass uwsgi://shop;\n    }\n  }\n}"
            ),
            "proxy.inc": "proxy_next_upstream error non_idempotent;",
            "last": (
                "server { location / { proxy_read_timeout 3m; proxy_set_header X y;\n"
                "proxy_pass http://shop; } }"
            ),
        },
    )
    found = settings(conf, "shop")
    assert found.at == "/etc/nginx/conf.d/a.conf:1"
    assert (found.keepalive, found.keepalive_requests, found.keepalive_timeout_s) == (8, 1000, 4)
    assert found.servers == (
        Member("a:1", down=False, backup=False, max_fails=0, fail_timeout_s=10),
        Member("b:1", down=False, backup=True, max_fails=1, fail_timeout_s=1),
    )
    assert found.passes == (
        Pass("/etc/nginx/conf.d/b.conf:5", "proxy", 1, 900, ("error", "non_idempotent"), "close"),
        Pass("/etc/nginx/conf.d/b.conf:8", "uwsgi", 60, 7, ("error", "timeout"), None),
        Pass("/etc/nginx/last:2", "proxy", 1, 180, ("error", "timeout"), None),
    )
    assert (found.client_header_timeout_s, found.worker_shutdown_timeout_s) == (9, 30)


def test_an_upstream_that_nginx_has_not_got():
    found = settings(dump("http { server { location / { proxy_pass http://$up; } } }"), "shop")
    assert (found.at, found.servers, found.passes) == (None, (), ())


@pytest.mark.parametrize(
    ("http", "kept"),
    [
        ("keepalive_min_timeout 2s; server { location / { } } server { }", True),
        ("server { keepalive_min_timeout 2s; location / { } }", True),
        ("server { location / { } }", False),
        ("keepalive_min_timeout 0; server { }", False),
        ("server { keepalive_min_timeout 2s; } server { }", None),
        ("keepalive_min_timeout 2s; server { location / { keepalive_min_timeout 0; } }", None),
        ("keepalive_min_timeout 2s;", None),
        ("keepalive_min_timeout 2s; upstream shop { server a:1; } server { }", True),
    ],
)
def test_who_keeps_idle_clients(http, kept):
    assert keeps_clients(dump(f"http {{ {http} }}")) is kept
