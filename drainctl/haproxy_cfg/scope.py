"""
The settings of one section while it is read: what its defaults section gives, then line by line.

Source: HAProxy configuration.txt, "4. Proxies" and "4.2. Alphabetically sorted keywords reference".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from drainctl.haproxy_cfg.check import KINDS, Check
from drainctl.haproxy_cfg.model import At, Settings, Stats
from drainctl.haproxy_cfg.values import seconds, whole

Words = tuple[str, ...]

# Keywords whose words are the value, and how they become it.
VALUES: dict[str, Callable[[list[str]], Any]] = {
    "mode": lambda words: words[0],
    "load-server-state-from-file": lambda words: words[0],
    "http-reuse": lambda words: words[0],
    "balance": " ".join,
    "hash-type": " ".join,
    "retries": lambda words: whole(words[0]),
    "retry-on": tuple,
    "cookie": tuple,
    "disabled": lambda _: True,
}
STATS = {"uri": "uri", "hide-version": "hide_version", "admin": "admin"}


class Scope:
    """
    The settings that a section's lines add up to. `take` reads a line and says whether it knew it.

    inherited: the scope of its defaults section, which stays as it is.
    """

    def __init__(self, note: Callable[[str], None], inherited: Scope | None = None) -> None:
        self.check: Check = Check(inherited.check if inherited else None)
        self.default_server: dict[str, At[Any]] = dict(inherited.default_server) if inherited else {}
        self._said: dict[str, Any] = dict(inherited._said) if inherited else {}  # noqa: SLF001  # of this class
        self._options: dict[str, At[bool]] = dict(inherited._options) if inherited else {}  # noqa: SLF001
        self._timeouts: dict[str, At[float]] = dict(inherited._timeouts) if inherited else {}  # noqa: SLF001
        self._stats: dict[str, Any] = dict(inherited._stats) if inherited else {}  # noqa: SLF001
        self._note = note

    def settings(self) -> Settings:
        return Settings(
            check_kind=self.check.kind,
            httpchk=self.check.request,
            disable_on_404=self.check.disable_on_404,
            send_state=self.check.send_state,
            expect=self.check.expect,
            timeouts=dict(self._timeouts),
            options=dict(self._options),
            stats=Stats(**self._stats) if self._stats else None,
            **self._said,
        )

    def take(self, words: Words, line: int) -> bool:
        """One line; False where it says nothing that Settings has. A value that cannot be read is noted."""
        try:
            return self._take(words, line)
        except ValueError as error:
            self._note(f"`{words[0]}`: {error}")
            return False

    def _take(self, words: Words, line: int) -> bool:
        match words:
            case ("no", "option", name, *_):
                self._option(("option", name), line, on=False)
            case ("option", _, *_):
                self._option(words, line, on=True)
            case ("http-check", _, *_):
                self.check.rule(words, line)
            case ("timeout", name, text, *_):
                self._timeouts[name] = At(seconds(text), line)
            case ("stats", _, *_):
                return self._stats_line(words, line)
            case ("stick-table" | "stick", *_):
                self._said["stick"] = (*self._said.get("stick", ()), At(" ".join(words), line))
            case ("enabled",):
                self._said.pop("disabled", None)
            case (name, *rest) if name in VALUES and (rest or name == "disabled"):
                self._said[name.replace("-", "_").removesuffix("_from_file")] = At(VALUES[name](rest), line)
            case _:
                return False
        return True

    def _option(self, words: Words, line: int, *, on: bool) -> None:
        name = words[1]
        self._options[name] = At(on, line)
        if name == "redispatch":
            interval = whole(words[2]) if len(words) > 2 else -1
            self._said["redispatch"] = At(interval if on else 0, line)
        elif name in KINDS:
            for other in KINDS:
                if other != name:
                    self._options.pop(other, None)
            if on:
                self.check.option(words, line)
            else:
                self.check.kind = None

    def _stats_line(self, words: Words, line: int) -> bool:
        """Any `stats` line of a proxy turns its page on. A password is left behind here."""
        name, rest = words[1], words[2:]
        self._stats.setdefault("line", line)
        if name == "auth" and rest:
            self._more("users", At(rest[0].partition(":")[0], line))
        elif name == "scope" and rest:
            self._more("scope", At(rest[0], line))
        elif name in STATS:
            self._stats[STATS[name]] = At(" ".join(rest) if rest else True, line)
        return name in {"auth", "scope", "enable", *STATS}

    def _more(self, name: str, found: At[str]) -> None:
        self._stats[name] = (*self._stats.get(name, ()), found)
