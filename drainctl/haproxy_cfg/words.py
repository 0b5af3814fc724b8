"""
A line of haproxy.cfg cut into words: quotes, escapes, comments and environment variables.

Source: HAProxy configuration.txt, "2.2. Quoting and escaping" and "2.3. Environment variables".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+) | (?P<comment>\#.*) | '(?P<strong>[^']*)'
    | "(?P<weak>(?:[^"\\]|\\.)*)" | (?P<escape>\\(?:x[0-9A-Fa-f]{2}|.)) | (?P<plain>[^ \t\r\n\#'"\\]+|.)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = r"\\(?P<escape>x[0-9A-Fa-f]{2}|.)"
_VARIABLE = r"\$(?:(?P<short>\.?[A-Za-z_]\w*)|\{(?P<long>\.?\w+)(?:-(?P<default>[^}]*?))?(?P<many>\[\*\])?\})"
_IN_QUOTES = re.compile(rf"{_ESCAPE}|{_VARIABLE}", re.DOTALL)
_ANYWHERE = re.compile(_VARIABLE)
_PRINTED = {"n": "\n", "r": "\r", "t": "\t"}
_CUT = "\0"  # stands where "${NAME[*]}" begins another word; no line of a configuration can hold it

# HAProxy sets these for itself, so what a reader sees says nothing about them.
OWN = "HAPROXY_"


class Variables:
    """
    What `$NAME` is, line by line; `setenv` and its like change it as they do in HAProxy.

    strict: a variable that is not set is empty, as in HAProxy; otherwise it stays as it is written, since
    HAProxy's environment may well be another one. missing: (line, name) of each that was not set.
    """

    def __init__(self, environ: Mapping[str, str], file: str) -> None:
        self.known = dict(environ)
        self.missing: dict[tuple[int, str], None] = {}
        self.line = 0
        self.section = ""
        self._file = file

    def get(self, name: str) -> str | None:
        own = {".FILE": self._file, ".LINE": str(self.line), ".SECTION": self.section}
        return own.get(name, self.known.get(name))

    def expanded(self, found: re.Match[str], *, strict: bool) -> str:
        """What stands for one `$NAME`, `${NAME}`, `${NAME-default}` or `${NAME[*]}`."""
        name = found["short"] or found["long"]
        text = self.get(name)
        if text is None:
            text = found["default"]
        if text is None:
            self.missing[self.line, name] = None
            return "" if strict else found[0]
        return _CUT.join(text.split()) if found["many"] else text

    def change(self, words: tuple[str, ...]) -> bool:
        """`setenv`, `presetenv`, `unsetenv`, `resetenv` of the global section; False for any other line."""
        match words:
            case ("setenv", name, text, *_):
                self.known[name] = text
            case ("presetenv", name, text, *_):
                self.known.setdefault(name, text)
            case ("unsetenv", *names):
                for name in names:
                    self.known.pop(name, None)
            case ("resetenv", *names):
                self.known = {name: text for name, text in self.known.items() if name in names}
            case _:
                return False
        return True


def split(text: str, variables: Variables, *, strict: bool = False) -> tuple[str, ...]:
    """The words of one line; none for a blank line or a comment."""
    words: list[str] = []
    word: str | None = None

    def inside(found: re.Match[str]) -> str:
        if found["escape"]:
            return _escaped(found["escape"])
        return variables.expanded(found, strict=strict)

    for token in _TOKEN.finditer(text):
        kind, part = token.lastgroup, token[token.lastgroup or 0]
        if kind == "comment":
            break
        if kind == "space":
            words += [] if word is None else word.split(_CUT)
            word = None
            continue
        if kind == "weak":
            part = _IN_QUOTES.sub(inside, part)
        elif kind == "escape":
            part = _escaped(part[1:])
        word = (word or "") + part
    words += [] if word is None else word.split(_CUT)
    return tuple(words)


def in_address(text: str, variables: Variables) -> str:
    """HAProxy puts variables into addresses even outside quotes (measured, 2.6)."""
    return _ANYWHERE.sub(lambda found: variables.expanded(found, strict=False), text)


def _escaped(after: str) -> str:
    """What a backslash and the characters after it stand for."""
    if len(after) == 3:
        return chr(int(after[1:], 16))
    if after in _PRINTED:
        return _PRINTED[after]
    return after if after in " #\\'\"$\t" else f"\\{after}"
