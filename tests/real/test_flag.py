"""The flag on a node: a file, two commands, or the app's own over HTTP."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler

import pytest

from drainctl.errors import CommandFailed, ConnectFailed
from drainctl.http import Http
from drainctl.model import FlagCommands, FlagFile, FlagHttp
from drainctl.node.host import Host
from drainctl.node.local import LocalTransport
from tests.real.node_kit import NODE, OURS, THEIRS, a_shop, a_transport, serving  # noqa: F401 - fixtures

pytestmark = pytest.mark.real


def test_a_flag_is_set_seen_and_cleared(shop):
    host = shop.host()
    host.set_flag(OURS)
    assert host.disk().flag == OURS
    assert shop.flag.stat().st_mode & 0o777 == 0o644
    host.set_flag(OURS + ", again")
    assert host.disk().flag == OURS + ", again"
    host.clear_flag("7f2c")
    host.clear_flag("7f2c")
    assert host.disk().flag is None
    assert [path.name for path in shop.folder.iterdir() if "flag" in path.name] == []


def test_a_flag_of_another_rollout_stays_and_its_holder_is_named(shop):
    host = shop.host()
    host.set_flag(THEIRS)
    for act in (lambda: host.set_flag(OURS), lambda: host.clear_flag("7f2c")):
        with pytest.raises(
            CommandFailed, match=r"held by rollout 9e1d: .*set by another; it stays"
        ) as caught:
            act()
        assert "drainctl show 9e1d" in caught.value.hint
        assert host.disk().flag == THEIRS
    host.clear_flag("7f2c", steal=True)
    assert host.disk().flag is None


def test_a_flag_set_by_hand_is_not_cleared_but_by_force(shop):
    shop.flag.write_text("maintenance until six")
    host = shop.host()
    with pytest.raises(CommandFailed, match="held by somebody else: maintenance until six"):
        host.clear_flag("7f2c")
    host.clear_flag("7f2c", steal=True)
    assert not shop.flag.exists()


def test_of_two_controllers_only_one_gets_the_flag(shop):
    hosts = {
        text: Host(NODE, shop.host()._cluster, LocalTransport(), Http(), shop.host()._fill)
        for text in (OURS, THEIRS)
    }
    for _ in range(10):
        won = []

        def take(text: str, won=won) -> None:
            with contextlib.suppress(CommandFailed):
                hosts[text].set_flag(text)
                won.append(text)

        threads = [threading.Thread(target=take, args=(text,)) for text in hosts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert shop.flag.read_text() == won[0] + "\n"
        shop.flag.unlink()


def test_a_flag_whose_folder_is_missing_fails(shop):
    with pytest.raises(CommandFailed, match=r"(?s)set the flag .* ended with code 1:.*no/flag"):
        shop.host(FlagFile("{folder}/no/flag")).set_flag(OURS)


def test_flag_commands_get_the_text_as_one_word(shop):
    host = shop.host(FlagCommands(set="printf %s {text} > {folder}/f", clear="rm {folder}/f"))
    host.set_flag(OURS + " it's {folder} $HOME")
    assert (shop.folder / "f").read_text() == OURS + " it's {folder} $HOME"
    assert host.disk().flag is None
    host.clear_flag("7f2c")
    with pytest.raises(CommandFailed, match="clear the flag ended with code 1"):
        host.clear_flag("7f2c")


def test_a_flag_over_http(shop):
    state: dict[str, str] = {}

    class App(BaseHTTPRequestHandler):
        def log_message(self, *_args) -> None:
            pass

        def answer(self, status: int, text: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def do_GET(self) -> None:
            self.answer(200, state["flag"]) if "flag" in state else self.answer(404)

        def do_PUT(self) -> None:
            state["flag"] = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.answer(state.get("status", 204))

        def do_DELETE(self) -> None:
            self.answer(204 if state.pop("flag", None) else 404)

    with serving(App) as url:
        host = shop.host(FlagHttp(f"{url}/flag"))
        host.set_flag(OURS)
        assert host.disk().flag == OURS
        host.clear_flag("7f2c")
        host.clear_flag("7f2c")
        assert host.disk().flag is None
        state["flag"] = THEIRS
        for act in (lambda: host.set_flag(OURS), lambda: host.clear_flag("7f2c")):
            with pytest.raises(CommandFailed, match="held by rollout 9e1d"):
                act()
        host.clear_flag("7f2c", steal=True)
        state["status"] = 500
        with pytest.raises(CommandFailed, match=r"PUT .* answered 500"):
            host.set_flag(OURS)
        host._http.close()
    with pytest.raises(ConnectFailed, match="whether the flag changed is unknown") as caught:
        host._send("PUT", FlagHttp(f"{url}/flag"), OURS)
    assert caught.value.node == "web1"
