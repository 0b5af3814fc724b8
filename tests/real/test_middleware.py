"""/http-check inside the app, served by gunicorn, and in front of it, by the nginx snippet."""

from __future__ import annotations

import asyncio
import http.client
import os
import subprocess
import sys
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from drainctl.middleware import HttpCheck, HttpCheckASGI
from tests.conftest import SLOW, until
from tests.real import nginx_kit
from tests.real.node_kit import serving
from tests.real.sshd_kit import free_port, listens

pytestmark = pytest.mark.real
HOST = "127.0.22.40"
SNIPPET = Path(__file__).parents[2] / "nginx" / "http-check.conf"
TEXT = '{"rollout": "7f2c"}\nset by ops, größer'

APPS = """
import os
from drainctl.middleware import HttpCheck, HttpCheckASGI

FLAG, SICK = os.environ["FLAG"], os.environ["SICK"]

def health():
    if os.path.exists(SICK + ".raises"):
        raise OSError("no database")
    return not os.path.exists(SICK)

async def async_health():
    return health()

def site(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"the app: " + environ["PATH_INFO"].encode()]

async def asgi_site(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            open(SICK + "." + message["type"], "w").close()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"the app: " + scope["path"].encode()})

wsgi = HttpCheck(site, flag=FLAG, health=health)
asgi = HttpCheckASGI(asgi_site, flag=FLAG, health=async_health)
"""


def ask(port: int, path: str = "/http-check", method: str = "GET") -> tuple[int, str, dict[str, str]]:
    connection = http.client.HTTPConnection(HOST, port, timeout=20 * SLOW)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), {k.lower(): v for k, v in answer.getheaders()}
    finally:
        connection.close()


@contextmanager
def gunicorn(folder: Path, kind: str):
    (folder / "served.py").write_text(APPS)
    port = free_port(HOST)
    worker = ["-k", "asgi"] if kind == "asgi" else []
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-b",
        f"{HOST}:{port}",
        "--no-control-socket",
        "--chdir",
        str(folder),
    ]
    env = {**os.environ, "FLAG": str(folder / "flag"), "SICK": str(folder / "sick")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([*command, *worker, f"served:{kind}"], env=env, stderr=log)
    try:
        until("gunicorn listens", lambda: process.poll() is not None or listens(HOST, port), limit_s=20)
        assert process.poll() is None, (folder / "log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.parametrize("kind", ["wsgi", "asgi"])
def test_the_check_follows_flag_and_health_and_the_rest_is_the_apps(tmp_path, kind):
    flag, sick = tmp_path / "flag", tmp_path / "sick"
    with gunicorn(tmp_path, kind) as port:
        assert ask(port)[:2] == (200, "ok\n")
        assert ask(port, "/")[:2] == (200, "the app: /")
        assert ask(port, "/http-check/")[:2] == (200, "the app: /http-check/")
        flag.write_text(TEXT)
        status, body, headers = ask(port)
        assert (status, body) == (404, TEXT)
        assert headers["cache-control"] == "no-store"
        assert headers["content-length"] == str(len(TEXT.encode()))
        assert ask(port, method="HEAD")[:2] == (404, "")
        assert ask(port, method="OPTIONS")[0] == 404
        assert ask(port, "/")[0] == 200
        sick.touch()
        assert ask(port)[0] == 404  # the flag comes first
        flag.unlink()
        assert ask(port)[:2] == (503, "not healthy\n")
        (tmp_path / "sick.raises").touch()
        assert ask(port)[:2] == (503, "not healthy: OSError\n")
    if kind == "asgi":
        assert (tmp_path / "sick.lifespan.startup").exists()


def wsgi_ask(app: HttpCheck) -> tuple[str, dict[str, str], bytes]:
    said = []
    body = b"".join(app({"PATH_INFO": "/http-check", "REQUEST_METHOD": "GET"}, lambda *a: said.append(a)))
    return said[0][0], dict(said[0][1]), body


def test_a_flag_that_cannot_be_looked_for_counts_as_not_set_and_says_so(tmp_path):
    too_long = str(tmp_path / ("x" * 300))  # an error that root meets as well
    status, headers, body = wsgi_ask(HttpCheck(lambda *_: [], flag=too_long))
    assert (status, headers["X-Drainctl-Flag"], body) == ("200 OK", "unreadable", b"ok\n")
    assert wsgi_ask(HttpCheck(lambda *_: [], flag=f"{tmp_path}/no/flag"))[1].get("X-Drainctl-Flag") is None


def test_a_flag_whose_text_cannot_be_read_is_set(tmp_path):
    assert wsgi_ask(HttpCheck(lambda *_: [], flag=str(tmp_path)))[::2] == ("404 Not Found", b"")


def test_websockets_go_to_the_app():
    seen = []

    async def app(scope, _receive, _send):
        seen.append(scope["type"])

    check = HttpCheckASGI(app, flag="/no/flag")
    for scope in ({"type": "websocket", "path": "/http-check"}, {"type": "lifespan"}):
        asyncio.run(check(scope, None, None))
    assert seen == ["websocket", "lifespan"]


# ---------------------------------------------------------------- the same by nginx


def snippet(folder: Path, port: int, app: str) -> str:
    text = SNIPPET.read_text().replace("/srv/shop/shared/drain", str(folder / "flag"))
    assert str(folder / "flag") in text
    (folder / "http-check.conf").write_text(text)
    return f"""
    upstream shop {{ server {app}; }}
    server {{
        listen {HOST}:{port};
        include {folder}/http-check.conf;
        location / {{ return 200 "page"; }}
    }}"""


@pytest.mark.parametrize("which", ["system", "wheel"])
def test_the_nginx_snippet_follows_flag_and_app(tmp_path, which):
    program = nginx_kit.binary(which)
    answers = {"status": 200}

    class App(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            assert self.path == "/healthz"
            self.send_response(answers["status"])
            self.send_header("Content-Length", "0")
            self.end_headers()

    port = free_port(HOST)
    with serving(App) as url:
        text = snippet(tmp_path, port, url.removeprefix("http://"))
        code, said = nginx_kit.tested(program, tmp_path, text)
        assert code == 0, said
        assert "warn" not in said
        with nginx_kit.nginx(program, tmp_path, text):
            assert ask(port)[0] == 200
            answers["status"] = 503
            assert ask(port)[0] == 503
            answers["status"] = 200
            (tmp_path / "flag").touch()
            assert ask(port)[0] == 404
            assert ask(port, "/")[0] == 200
            (tmp_path / "flag").unlink()
            assert ask(port)[0] == 200


def test_the_nginx_snippet_without_an_app_is_no_success(tmp_path):
    port = free_port(HOST)
    text = snippet(tmp_path, port, f"{HOST}:{free_port(HOST)}")
    with nginx_kit.nginx(nginx_kit.binary("system"), tmp_path, text):
        assert ask(port)[0] == 502
