"""What the reader takes from a haproxy.cfg. That HAProxy agrees is in tests/real/test_haproxy_cfg.py."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drainctl.errors import ConfigError
from drainctl.haproxy_cfg.conditions import holds_true
from drainctl.haproxy_cfg.model import At, ServerSettings, value
from drainctl.haproxy_cfg.read import read_cfg, read_file
from drainctl.haproxy_cfg.values import address, seconds
from drainctl.haproxy_cfg.words import Variables, split


def cfg(text, **environ):
    return read_cfg(textwrap.dedent(text).lstrip("\n"), environ=environ)


def words(text, **environ):
    return split(text, Variables(environ, "haproxy.cfg"))


def said(cfg):
    return [(note.line, note.text) for note in cfg.notes]


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("  server  s1\t10.0.0.1:80 ", ("server", "s1", "10.0.0.1:80")),
        ("a b#c d", ("a", "b")),
        (r"a \#b \  c\ d", ("a", "#b", " ", "c d")),
        ("a 'b # c' \"d # e\"", ("a", "b # c", "d # e")),
        ("a '' \"\"", ("a", "", "")),
        (r"""a "it's" 'a "b"' \"c\" \'d\'""", ("a", "it's", 'a "b"', '"c"', "'d'")),
        (r"a \x41\t\\ '\x41\\'", ("a", "A\t\\", r"\x41\\")),
        ('a "$X" "${X}y" $X ${X}', ("a", "1 2", "1 2y", "$X", "${X}")),
        (r'a "\$X" \$X ', ("a", "$X", "$X")),
        ('a "${NO-x y}" "${X-z}" "${E-z}"', ("a", "x y", "1 2", "")),
        ('a "${X[*]}" b', ("a", "1", "2", "b")),
        (r'a\d "b\d"', (r"a\d", r"b\d")),
        ("# nothing", ()),
    ],
)
def test_words(line, found):
    assert words(line, X="1 2", E="") == found


def test_a_variable_that_is_not_set_stays_and_is_noted():
    read = cfg(
        """
        backend app
          server s1 "${WEB1}:80" check
          server s2 $WEB2:80
        """
    )
    assert [server.address.text for _, server in read.servers()] == ["${WEB1}:80", "$WEB2:80"]
    assert [line for line, text in said(read) if "is not set here" in text] == [2, 3]


def test_pseudo_variables_and_setenv():
    read = cfg(
        """
        global
          setenv HOST 10.0.0.1
          presetenv PORT 81
          unsetenv GONE
        backend app
          server "${.SECTION}-${.LINE}" ${HOST}:80
          server two "${HOST}:${PORT}" cookie "${GONE-none}"
        """,
        PORT="82",
        GONE="here",
    )
    one, two = read.backends[0].servers
    assert (one.name, one.address.host) == ("app-6", "10.0.0.1")
    assert (two.address.port, two.settings.cookie) == (82, At("none", 7))


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("text", "found"),
    [("1500", 1.5), ("250us", 0.00025), ("3s", 3), ("2m", 120), ("1h", 3600), ("1d", 86400), ("0", 0)],
)
def test_durations(text, found):
    assert seconds(text) == pytest.approx(found)


@pytest.mark.parametrize("text", ["1.5s", "s", "-1", "1 s", "1w", ""])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match="expected a duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "kind", "host", "port"),
    [
        ("10.0.0.1:80", "ip", "10.0.0.1", 80),
        ("10.0.0.1", "ip", "10.0.0.1", None),
        ("[2001:db8::1]:80", "ip", "2001:db8::1", 80),
        ("[2001:db8::1]", "ip", "2001:db8::1", None),
        ("2001:db8::1:80", "ip", "2001:db8::1", 80),
        ("ipv6@[::1]:80", "ip", "::1", 80),
        ("ipv4@10.0.0.1:80", "ip", "10.0.0.1", 80),
        ("web.internal:8080", "ip", "web.internal", 8080),
        ("*:80", "ip", "", 80),
        (":80", "ip", "", 80),
        ("10.0.0.1:+1000", "ip", "10.0.0.1", None),
        ("10.0.0.1:8000-8010", "ip", "10.0.0.1", None),
        ("/run/app.sock", "unix", "/run/app.sock", None),
        ("unix@/run/app.sock", "unix", "/run/app.sock", None),
        ("abns@app", "other", "", None),
        ("fd@3", "other", "", None),
    ],
)
def test_addresses(text, kind, host, port):
    found = address(text)
    assert (found.kind, found.host, found.port) == (kind, host, port)


# ---------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("", False),
        ("0", False),
        ("1", True),
        ("-3", True),
        ("defined(SET)", True),
        ("defined(EMPTY)", True),
        ("defined(NO)", False),
        ("!defined(NO)", True),
        ("defined(HAPROXY_MWORKER)", None),
        ("streq(a,a)", True),
        ("streq(a, b)", False),
        ("strneq(a,b)", True),
        ("feature(OPENSSL)", None),
        ("version_atleast(2.4)", None),
        ("feature(X) && 0", False),
        ("feature(X) || 1", True),
        ("feature(X) && 1", None),
        ("!feature(X)", None),
        ("1 || 0 && 0", True),
        ("(1 || 0) && 0", False),
        ("!(1 && 0)", True),
        ("! 1", False),
        ("1 1", None),
        ("(1", None),
        ("&&", None),
        ("what is this", None),
    ],
)
def test_conditions(condition, holds):
    variables = Variables({"SET": "x", "EMPTY": ""}, "haproxy.cfg")
    assert holds_true(condition, variables) is holds


def taken(text, **environ):
    """The servers whose lines count."""
    return [server.name for _, server in cfg("backend app\n" + textwrap.dedent(text), **environ).servers()]


CHAIN = """
    .if defined(A)
      server a 10.0.0.1:80
    .elif defined(B)
      server b 10.0.0.1:80
    .else
      server c 10.0.0.1:80
    .endif
    server d 10.0.0.1:80
"""


def test_one_side_of_a_block_counts():
    assert taken(CHAIN, A="1", B="1") == ["a", "d"]
    assert taken(CHAIN, B="1") == ["b", "d"]
    assert taken(CHAIN) == ["c", "d"]


def test_both_sides_count_where_only_haproxy_knows():
    text = """
        .if feature(X)
          server a 10.0.0.1:80
        .elif streq(a,a)
          server b 10.0.0.1:80
        .else
          server c 10.0.0.1:80
        .endif
    """
    assert taken(text) == ["a", "b"]
    assert "both sides are read" in str(said(cfg(text)))


def test_a_block_inside_one_that_does_not_count():
    assert taken(".if 0\n.if 1\nserver a 10.0.0.1:80\n.else\nserver b 10.0.0.1:80\n.endif\n.endif") == []


def test_an_unset_variable_is_empty_in_a_condition():
    assert taken('.if streq("${STAGE}","")\nserver a 10.0.0.1:80\n.endif') == ["a"]
    assert taken('.if "${ON-1}"\nserver a 10.0.0.1:80\n.endif') == ["a"]


# ---------------------------------------------------------------- sections and inheritance


def test_the_defaults_in_force_are_the_last_ones_and_each_starts_afresh():
    read = cfg(
        """
        defaults
          retries 5
          timeout connect 3s
        backend one
        defaults
          timeout connect 500
          option redispatch 2
        backend two
          no option redispatch
          timeout connect 9s
        """
    )
    one, two = read.backends
    assert (one.settings.retries, one.defaults) == (At(5, 2), 1)
    assert (two.settings.retries, two.defaults) == (None, 5)
    assert two.settings.timeouts == {"connect": At(9.0, 10)}
    assert one.settings.redispatch is None
    assert two.settings.redispatch == At(0, 9)
    assert two.settings.option("redispatch") is None


def test_named_defaults_and_from():
    read = cfg(
        """
        defaults base
          mode http
          option persist
          timeout check 2s
        defaults web from base
          balance source
          default-server inter 1s
        defaults other
        backend a from web
          server s 10.0.0.1:80 check
        backend b
        backend c from nowhere
        """
    )
    a, b, c = (read.backend(name) for name in "abc")
    assert a.settings.mode == At("http", 2)
    assert a.settings.persist == At(True, 3)
    assert a.settings.balance == At("source", 6)
    assert a.servers[0].settings.inter == At(1.0, 7)
    assert [(one.name, one.base) for one in read.defaults] == [
        ("base", None),
        ("web", "base"),
        ("other", None),
    ]
    assert b.settings.mode is None
    assert c.defaults is None
    assert "no defaults section is named nowhere" in str(said(read))


def test_default_server_holds_for_the_lines_after_it():
    read = cfg(
        """
        defaults
          default-server rise 5
        backend app
          server one 10.0.0.1:80
          default-server check inter 300ms backup
          server two 10.0.0.2:80 no-backup fall 7
          server three 10.0.0.3:80 no-check disabled
          server four 10.0.0.4:80 enabled
        """
    )
    one, two, three, four = (server.settings for server in read.backends[0].servers)
    assert one == ServerSettings(rise=At(5, 2))
    assert two == ServerSettings(rise=At(5, 2), check=At(True, 5), inter=At(0.3, 5), fall=At(7, 6))
    assert (three.check, three.disabled) == (None, At(True, 7))
    assert (four.disabled, four.backup) == (None, At(True, 5))


def test_a_word_that_is_an_argument_is_not_a_setting():
    line = "server s 10.0.0.1:80 check sni check-ssl source backup usesrc disabled odd ssl verify none"
    (server,) = read_cfg(f"backend app\n{line}").backends[0].servers
    settings = server.settings
    assert (settings.check_ssl, settings.backup, settings.disabled) == (None, None, None)
    assert (settings.ssl, settings.verify, server.raw[-1]) == (At(True, 2), At("none", 2), "odd")
    assert server.raw[:2] == ("sni", "check-ssl")


def test_a_template_is_its_slots():
    read = cfg(
        """
        backend app
          server-template web 3-4 app.internal:8080 check
          server-template one 2 10.0.0.9:80
          server-template many 1-100000 10.0.0.9:80
        """
    )
    web, one, many = read.backends[0].templates
    assert [(slot.name, slot.template, slot.address.host) for slot in web.servers] == [
        ("web3", "web", "app.internal"),
        ("web4", "web", "app.internal"),
    ]
    assert [slot.name for slot in one.servers] == ["one1", "one2"]
    assert len(many.servers) == 1000
    assert said(read) == [(4, "100000 slots; the first 1000 are read")]


def test_where_a_check_goes():
    read = cfg(
        """
        backend app
          server plain 10.0.0.1:80 check
          server port 10.0.0.1:443 check port 81 ssl
          server addr 10.0.0.1:443 check addr 10.0.1.1 ssl check-ssl
          server tls 10.0.0.1:443 check ssl
        """
    )
    found = [(one.check_host, one.check_port, one.checks_with_tls) for one in read.backends[0].servers]
    assert found == [
        ("10.0.0.1", 80, False),
        ("10.0.0.1", 81, False),
        ("10.0.1.1", 443, True),
        ("10.0.0.1", 443, True),
    ]


def test_the_rest_of_a_backend():
    read = cfg(
        """
        backend app
          cookie SRV insert indirect
          stick-table type ip size 1m
          stick on src
          retry-on conn-failure 503
          http-reuse always
          load-server-state-from-file local
          monitor fail if { nbsrv(app) lt 3 }
          force-persist if { path /x }
          bogus
          timeout check soon
        listen stats
          bind 10.0.0.1:80,[::1]:81
          stats auth ops:s3cret
          stats uri /s
          stats scope .
          default_backend app
        """
    )
    settings = read.backend("app").settings
    assert settings.cookie == At(("SRV", "insert", "indirect"), 2)
    assert settings.stick == (At("stick-table type ip size 1m", 3), At("stick on src", 4))
    assert settings.retry_on == At(("conn-failure", "503"), 5)
    assert (settings.http_reuse, settings.load_server_state) == (At("always", 6), At("local", 7))
    assert [raw.line for raw in read.backend("app").raw] == [8, 9, 10, 11]
    assert said(read) == [(11, "`timeout`: found 'soon', expected a duration")]
    stats = read.backend("stats")
    assert stats.settings.stats.users == (At("ops", 14),)
    assert (stats.settings.stats.line, stats.settings.stats.uri) == (14, At("/s", 15))
    assert [(at.value.host, at.value.port) for at in stats.binds] == [("10.0.0.1", 80), ("::1", 81)]
    assert stats.default_backend == At("app", 17)
    assert "s3cret" not in repr(read)


def test_the_global_section():
    read = cfg(
        """
        global
          stats socket /run/a.sock level admin mode 660
          stats socket ipv4@127.0.0.1:9999
          server-state-base /var/lib/haproxy
          server-state-file state
          spread-checks 5
          hard-stop-after 30s
          nbproc 2
          maxconn 5
        peers mine
          server lb1 10.0.0.1:1024
        """
    )
    one, two = read.global_.sockets
    assert (one.address.host, one.level, one.mode, one.line) == ("/run/a.sock", "admin", "660", 2)
    assert (two.address.host, two.address.port, two.level) == ("127.0.0.1", 9999, "operator")
    assert read.global_.state_file == At("/var/lib/haproxy/state", 5)
    assert (read.global_.spread_checks, read.global_.hard_stop_after) == (At(5, 6), At(30.0, 7))
    assert value(read.global_.nbproc, 1) == 2
    assert [(one.kind, one.name, len(one.raw)) for one in read.sections] == [("peers", "mine", 1)]
    assert list(read.servers()) == []


def test_a_proxy_that_is_there_twice_is_noted():
    assert said(cfg("backend a\nfrontend a\nbackend a")) == [(3, "backend a is also in line 1")]


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        read_file(str(tmp_path / "none.cfg"))


LINES = r"""
backend a
defaults b from a
global
frontend 'a b
.if defined(a) && (1
.elif !
.else
.endif
server a [::1]:80 check inter 1x port
server "${a}" "${b[*]}" track a/b
server-template a 1-3 a:80
option httpchk GET /a
no option
http-check send meth
http-check connect port x
stats socket
stats auth
timeout check
# \
""".strip().split("\n")


@given(
    st.lists(st.sampled_from(LINES)).map("\n".join)
    | st.lists(st.sampled_from(LINES)).map(" ".join)
    | st.text()
)
def test_no_text_is_an_error(text):
    read = read_cfg(text, "x.cfg", {"a": "b"})
    assert all(0 < note.line <= text.count("\n") + 1 for note in read.notes)
