"""
The kinds of values in drainctl.yml: how each is read, what its message expects, how an editor checks it.

A kind gets the text that the file has, after `${VAR}`; so `port: ${PORT}` works, and so does `"22"`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from drainctl.config.expand import change
from drainctl.model import Amount, Secret

UNITS = {"ms": (1, 1000), "s": (1, 1), "m": (60, 1), "h": (3600, 1)}
LONGEST_H = 168  # a week: below every limit of the timers that these numbers end in
ANYTHING = r"\S"


class Kind(NamedTuple):
    """
    One kind of value.

    name: in the reference's tables. expected: ends the sentence "found X, expected …". read: the text to
    what it means; ValueError refuses it. json: JSON Schema of the text or number in the file.
    words: the values there are, where they can be listed.
    """

    name: str
    expected: str
    read: Callable[[str], Any]
    json: Mapping[str, Any]
    words: tuple[str, ...] = ()


def _like(pattern: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):  # compiled when it is first needed: most kinds are not
            raise ValueError
        return text

    return read


def _as_it_is(text: str) -> str:
    return text


def _filled(text: str) -> str:
    if not text.strip():
        raise ValueError
    return text


def _text(name: str, expected: str, pattern: str, **more: Any) -> Kind:
    """A kind of text by one pattern, for the loader and the editor alike."""
    return Kind(name, expected, _like(pattern), {"type": "string", "pattern": f"^(?:{pattern})$"}, **more)


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise ValueError
        return int(text)

    return read


def _count(expected: str, least: int, most: int = 999_999_999) -> Kind:
    json = {"type": "integer", "minimum": least, "maximum": most}
    return Kind("count", expected, _whole(least, most), json)


def _seconds(*, least_ms: int) -> Callable[[str], float]:
    def read(text: str) -> float:
        found = re.fullmatch(r"([0-9]{1,9})(ms|s|m|h)", text)
        if not found:
            raise ValueError
        times, by = UNITS[found[2]]
        seconds = int(found[1]) * times / by
        if not least_ms / 1000 <= seconds <= LONGEST_H * 3600:
            raise ValueError
        return seconds

    return read


def _amount(least: int) -> Callable[[str], Amount]:
    def read(text: str) -> Amount:
        percent = text.endswith("%")
        number = _whole(least, 100 if percent else 999_999_999)(text.removesuffix("%"))
        return Amount(number, percent)

    return read


def _relative(text: str) -> str:
    if not re.fullmatch(r"[^\s/][^\n]*", text) or {"", ".", ".."} & set(text.rstrip("/").split("/")):
        raise ValueError
    return change(text, lambda path: path.rstrip("/"))


def _auth(text: str) -> Secret:
    if not re.fullmatch(r"[^:\s]+:.+", text):
        raise ValueError
    return Secret(str(text))


def _runtime(text: str) -> str:
    at = re.fullmatch(r"tcp://(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})", text)
    if at:
        _whole(1, 65535)(at[1])
        return text
    return _like(r"unix:\S+")(text)


def _ssh(text: str) -> str:
    at = re.fullmatch(
        r"(?:[^\s@:-][^\s@:]*@)?(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9._-]*)(?::([0-9]{1,5}))?", text
    )
    if not at:
        raise ValueError
    if at[1]:
        _whole(1, 65535)(at[1])
    return text


def choice(*words: str) -> Kind:
    """One of some words."""
    expected = f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]
    pattern = "|".join(words)
    return Kind("word", expected, _like(pattern), {"enum": list(words)}, words)


TEXT = Kind("text", "a text", _filled, {"type": "string", "pattern": ANYTHING})
APP = _text("name", "a name of letters, digits, . _ and -", r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
NAME = _text("name", "a name of letters, digits, . _ : and -", r"[A-Za-z0-9_][A-Za-z0-9._:-]{0,62}")
HOST = _text(
    "host",
    "a host name or an address",
    r"[A-Za-z0-9_][A-Za-z0-9._-]*|[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9]+)?",
)
ADDRESS = _text("host", "an address, or {host}", r"\{[A-Za-z_][A-Za-z0-9_]*\}|[A-Za-z0-9_:][A-Za-z0-9._:-]*")
USER = _text("name", "a user's name", r"[^\s:@-][^\s:@]*")
WORD = _text("name", "a name of letters, digits and _, as in {name}", r"[A-Za-z_][A-Za-z0-9_]*")
VALUE = Kind("text", "a text", _as_it_is, {"type": ["string", "number", "boolean"]})
PORT = _count("a port from 1 to 65535", 1, 65535)
COUNT = _count("a whole number, 0 or more", 0)
AT_LEAST_ONE = _count("a whole number, 1 or more", 1)
SPREAD = _count("a percentage from 0 to 50", 0, 50)
DURATION = Kind(
    "duration",
    "a duration such as 300ms, 10s or 5m (168h at most)",
    _seconds(least_ms=0),
    {"type": "string", "pattern": r"^[0-9]{1,9}(?:ms|s|m|h)$"},
)
LIMIT = Kind(
    "duration",
    "a duration such as 300ms, 10s or 5m (above 0, 168h at most)",
    _seconds(least_ms=1),
    {"type": "string", "pattern": r"^0*[1-9][0-9]{0,8}(?:ms|s|m|h)$"},
)
_PERCENT = r"(?:100|[1-9]?[0-9])%"
KEEP = Kind(
    "amount",
    "a count such as 2 or a share from 0% to 100%",
    _amount(0),
    {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": f"^(?:{_PERCENT})$"}]},
)
TAKE = Kind(
    "amount",
    "a count from 1 or a share from 1% to 100%",
    _amount(1),
    {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^(?!0%)(?:{_PERCENT})$"}]},
)
FILE = _text("path", "a path", r"[^\s\0][^\n\0]*")
ABSOLUTE = _text("path", "an absolute path", r"[/{][^\n\0]*")
RELATIVE = Kind(
    "path",
    "a path relative to shared/ without ..",
    _relative,
    {"type": "string", "pattern": r"^(?!/)(?!(?:.*/)?\.\.?(?:/|$))\S"},
)
PAGE = _text("path", "a path such as / or /search?q=a", r"/\S*")
COMMAND = Kind("command", "a command", _filled, {"type": "string", "pattern": ANYTHING})
URL = _text("URL", "a URL such as http://{host}:8080/http-check", r"https?://[^\s/?#@]+(?:[/?][^\s#]*)?")
STATS = _text("URL", "a URL such as http://10.0.0.8:8404/stats", r"https?://[^\s/?#@]+(?:[/?][^\s#]*)?")
AUTH = Kind("secret", "USER:PASSWORD", _auth, {"type": "string"})
RUNTIME = Kind(
    "address",
    "unix:/PATH or tcp://HOST:PORT",
    _runtime,
    {"type": "string", "pattern": r"^(?:unix:\S+|tcp://\S+:[0-9]{1,5})$"},
)
MASTER = _text("address", "unix:/PATH", r"unix:\S+")
SSH = Kind(
    "address",
    "HOST, USER@HOST or USER@HOST:PORT",
    _ssh,
    {"type": "string", "pattern": r"^(?:[^\s@]+@)?[^\s@]+$"},
)
STORE = _text(
    "URL",
    "sqlite:///PATH, postgresql://… or etcd://HOST:PORT/PREFIX",
    r"sqlite:///[^\s\0][^\n\0]*|(?:postgres(?:ql)?|etcd)://[^\s\0]+",
)
ENGINE = _text(
    "URL",
    "unix:///PATH, ssh://[USER@]HOST[:PORT] or tcp://HOST:PORT",
    r"unix:///\S+|ssh://[^\s/]+|tcp://[^\s/]+:[0-9]{1,5}|\{[A-Za-z_][A-Za-z0-9_]*\}",
)
CONTAINER = _text("name", "a container's name", r"[A-Za-z0-9][A-Za-z0-9_.-]{1,62}")
REPOSITORY = _text(
    "image",
    "an image without a tag, such as registry.example.com/shop",
    r"(?:[^\s/@:]+(?::[0-9]+)?/)?[^\s:@]+",
)
STRATEGY = choice("http-check", "socket-flip", "port-flip", "backup", "reload", "arb")
BOARD = _text(
    "URL",
    "file:///PATH, postgresql://… or etcd://HOST:PORT/PREFIX",
    r"(?:file:///|postgres(?:ql)?://|etcd://)[^\s\0]*",
)
