"""
A process taken out of nginx's sight by its socket's path, so that it can end without losing anybody. Pure.

An app that is told to end may go on listening until its last request is over (gunicorn does): who connects
meanwhile waits, and is reset; nginx then asks the other server for a GET, but not for a POST, since it was
sent. Where the path leads nowhere, connecting fails before anything is sent, and every request goes over.

A plain file takes the socket's place, and refuses as a dead socket does. Without it gunicorn's master fails
at its end, while its workers still work: it unlinks the path that it has bound (sock.py, close_sockets).
"""

from __future__ import annotations

from shlex import quote
from typing import NamedTuple

from drainctl.node import sockets
from drainctl.steps import Expectation, Holds, NotYet, OnNode, Seen, Step
from drainctl.strategies.beside import Beside
from drainctl.strategies.expect import Judgement

MARK = "drainctl-path"


class At(NamedTuple):
    """
    What is at a path: socket, link, nothing, file; locked, a socket in a folder that drainctl's user may not
    rename in; one, where both processes have the same socket; unknown. aside: one is hidden beside it.
    """

    what: str
    aside: bool


def look(process: Beside, other: Beside) -> str:
    """A line that prints what `parse` reads."""
    return f"at={quote(process.path)}\nother={quote(other.path)}\n{_LOOK}"


def parse(out: str) -> At:
    """What `look` printed, wherever it stands in a longer output."""
    for line in out.splitlines():
        if line.startswith(f"{MARK} "):
            _, what, beside = line.split()
            return At(what, beside == "aside")
    return At("unknown", aside=False)


def why_not(process: Beside, out: str) -> str | None:
    """Why it cannot be hidden, or not be seen to be idle afterwards; None where it can."""
    at, where = parse(out), process.path
    match at.what:
        case "socket":
            bound = sockets.parse(out)
            if bound and bound.listening:
                return None
            return (
                f"nobody listens at {where} by that name, so its connections cannot be counted: the app is "
                f"to bind the path that service.sockets names"
            )
        case "link":
            return f"{where} is a link, and connections to what it points at cannot be counted"
        case "locked":
            return f"drainctl's user may not rename in the folder of {where}"
        case "one":
            return f"{where} and the other of service.sockets are one socket"
    left = (
        f": a rollout has hidden it; resume or abort that, or rename {where}.hidden back" if at.aside else ""
    )
    return f"{where} is no socket{left}"


def is_hidden(process: Beside) -> Expectation:
    """Whoever connects is refused: a file is there, or nothing and nobody who would miss it at its end."""

    def judge(seen: Seen) -> Judgement:
        out = seen.host.probe.out if seen.host.probe else ""
        what, bound = parse(out).what, sockets.parse(out)
        if what == "file" or (what == "nothing" and bound and not bound.listening):
            return Holds(f"no socket is at {process.path}")
        return NotYet(f"{process.path} is {what}")

    return judge


def hide(process: Beside, name: str, expects: Expectation, requires: Expectation, probe: str) -> Step:
    """From now on nobody connects to it; who is connected stays."""
    at = process.path
    return Step(
        name=name,
        act=OnNode(f"at={quote(at)}\n{_HIDE}", f"{at} -> {at}.hidden, by rename", 10.0),
        seen_when=f"no socket is at {at}: nginx asks the other one",
        expects=expects,
        looks=frozenset(),
        limit_s=5.0,
        requires=requires,
        probe=probe,
        look_first=True,
        changes=True,
    )


def cleared(process: Beside, start: str) -> str:
    """`service.start`, after what hiding has left is taken away."""
    at = process.path
    return f"rm -f -- {quote(at)} {quote(f'{at}.hidden')}; {start}"


_LOOK = f"""\
if [ -L "$at" ]; then what=link
elif [ -S "$at" ] && [ "$at" -ef "$other" ]; then what=one
elif [ -S "$at" ] && [ ! -w "$(dirname -- "$at")" ]; then what=locked
elif [ -S "$at" ]; then what=socket
elif [ -e "$at" ]; then what=file
else what=nothing; fi
[ -S "$at.hidden" ] && aside=aside || aside=-
echo "{MARK} $what $aside"
"""

_HIDE = """\
[ ! -S "$at" ] || mv -fT -- "$at" "$at.hidden" || exit 1
[ -e "$at" ] || echo "drainctl has hidden this socket, since its process is to end: $at.hidden" >"$at"
"""
