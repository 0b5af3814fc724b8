"""Command lines on a node: on this machine's own shell and through a real sshd alike."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from drainctl.errors import CommandFailed, CommandTimedOut
from drainctl.model import (
    FlagFile,
    Health,
)
from drainctl.node import shell
from tests.conftest import SLOW
from tests.real.node_kit import LIMIT_S, a_shop, a_transport  # noqa: F401 - fixtures

pytestmark = pytest.mark.real


def test_a_command_answers_with_its_code_and_both_streams(transport):
    done = transport.run("echo out; echo err >&2; exit 3", limit_s=LIMIT_S)
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")
    assert 0 < done.took_s < LIMIT_S


def test_a_line_is_shell_text_over_several_lines(transport):
    line = 'cat <<\'E\' | tr a-z A-Z\nit\'s $HOME\nE\n[ -n "$0" ] && echo "$(echo \'nested "quotes"\')"'
    assert transport.run(line, limit_s=LIMIT_S).out == 'IT\'S $HOME\nnested "quotes"\n'


def test_a_syntax_error_is_the_shells_to_tell(transport):
    done = transport.run("if true; then", limit_s=LIMIT_S)
    assert done.code == 2
    assert "yntax error" in done.err


def test_bytes_that_are_no_text_are_replaced(transport):
    done = transport.run(r"printf 'a\377\000b\303\251'", limit_s=LIMIT_S)
    assert done.out == "a\ufffd\0bé"


def test_only_the_end_of_a_flood_is_kept(transport):
    done = transport.run(
        "yes 123456789 | head -n 300000; yes x | head -n 300000 >&2; echo end", limit_s=LIMIT_S
    )
    assert done.out.endswith("123456789\nend\n")
    assert len(done.out) == len(done.err) == 65536


def test_input_and_output_larger_than_any_pipe_flow_at_once(transport):
    sent = os.urandom(3_000_000)
    done = transport.run("tee /dev/stderr | sha256sum", limit_s=LIMIT_S, stdin=io.BytesIO(sent))
    assert done.out.split()[0] == hashlib.sha256(sent).hexdigest()


@pytest.mark.parametrize("stdin", [b"", b"abc", io.BytesIO(b"from a file")], ids=["empty", "bytes", "file"])
def test_input_is_closed_after_its_end(transport, stdin):
    wanted = stdin if isinstance(stdin, bytes) else stdin.getvalue()
    if not isinstance(stdin, bytes):
        stdin.seek(0)
    assert transport.run("cat", limit_s=LIMIT_S, stdin=stdin).out == wanted.decode()


def test_without_input_a_command_that_asks_gets_an_end_of_file(transport):
    assert transport.run("read answer || echo nobody there", limit_s=LIMIT_S).out == "nobody there\n"


def test_a_command_that_dies_early_ends_the_sending(transport):
    with Path("/dev/zero").open("rb") as endless:
        assert transport.run("head -c 10 >/dev/null; exit 4", limit_s=LIMIT_S, stdin=endless).code == 4


def test_a_command_that_closes_its_output_is_still_fed_and_awaited(transport, tmp_path):
    size = tmp_path / "size"
    done = transport.run(f"exec >&- 2>&-; wc -c > {size}; exit 5", limit_s=LIMIT_S, stdin=b"x" * 5_000_000)
    assert done.code == 5
    assert int(size.read_text()) == 5_000_000


def test_what_stays_in_the_background_is_not_waited_for(transport):
    began = time.monotonic()
    done = transport.run("sleep 30 & echo $!", limit_s=LIMIT_S)
    assert time.monotonic() - began < 5 * SLOW
    os.kill(int(done.out), 0)  # it lives on
    os.kill(int(done.out), signal.SIGKILL)


def test_what_a_command_writes_at_its_very_end_is_not_lost(transport):
    """It ends within the tick of a look; asking "ended?" after that look would lose a few."""
    heard: list[str] = []

    def ask() -> None:
        heard.extend(transport.run("sleep 0.05; echo x", limit_s=LIMIT_S).out for _ in range(40))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == ["x\n"] * 320


def test_a_command_at_its_limit_is_killed_with_its_children(transport, tmp_path):
    pids = tmp_path / "pids"
    began = time.monotonic()
    with pytest.raises(CommandTimedOut, match=r"limit of 0.5 s: (?s:.*); it was killed"):
        transport.run(f"sleep 60 & echo $! $$ > {pids}; wait; echo never", limit_s=0.5)
    assert time.monotonic() - began < 5 * SLOW
    for pid in pids.read_text().split():
        stat = Path(f"/proc/{pid}/stat")
        assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_an_endless_flood_is_stopped_at_the_limit(transport):
    with pytest.raises(CommandTimedOut, match="it was killed"):
        transport.run("yes", limit_s=0.5)


def test_a_failed_command_shows_itself_its_code_and_its_last_lines(shop):
    host = shop.host()
    assert host.run("echo {folder}", LIMIT_S).out == "{folder}\n"  # filled by whoever made the line
    with pytest.raises(CommandFailed) as caught:
        host.run("seq 9; echo no such unit >&2; exit 5", LIMIT_S)
    assert str(caught.value) == (
        "web1: `seq 9; echo no such unit >&2; exit 5` ended with code 5:\n  6\n  7\n  8\n  9"
    ).replace("  6", "  5\n  6")
    with pytest.raises(CommandTimedOut) as timed_out:
        host.run("sleep 9", 0.2)
    assert timed_out.value.node == "web1"
    assert str(timed_out.value).startswith(
        "web1: `sleep 9` was still running at its limit of 0.2 s; it was killed"
    )


def test_active_by_a_command_and_not_at_all(shop):
    flag = FlagFile("{folder}/f")
    assert shop.host(health=Health("", flag, active="echo greeting; echo 7")).active() == 7
    assert shop.host(health=Health("", flag, active="none")).active() is None
    with pytest.raises(CommandFailed, match="no number"):
        shop.host(health=Health("", flag, active="echo many")).active()


def test_a_node_without_ss_says_so(shop):
    line = 'command() { [ "$2" != ss ]; }\n' + shell.active_requests(80)
    done = shop.transport.run(line, limit_s=LIMIT_S)
    assert done.code == shell.Says.NO_TOOL
    assert "ss (iproute2) is not on this node" in done.err
