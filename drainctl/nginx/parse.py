"""
nginx configuration text as directives: crossplane's reading, made whole again.

crossplane reads files, not text, and follows includes on the machine that it runs on; the texts here come
from other machines. So each text is read alone, from a temporary file, and includes in the output of
`nginx -T` are put together from that output.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from drainctl.errors import ConfigError

_MARK = re.compile(r"^# configuration file (.+):\n", re.MULTILINE)  # how `nginx -T` begins each file


class Directive(NamedTuple):
    """One directive: its words, where it stands, and its block (None where it ends with a semicolon)."""

    name: str
    args: tuple[str, ...]
    file: str
    line: int
    block: tuple[Directive, ...] | None = None

    @property
    def inside(self) -> tuple[Directive, ...]:
        return self.block or ()

    @property
    def at(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.line}"

    def __str__(self) -> str:
        return " ".join((self.name, *self.args))


def parse(text: str, name: str) -> tuple[Directive, ...]:
    """
    The directives of one file, includes not followed. `name` is what messages call the file.

    Raises: ConfigError for a text that is no nginx configuration, with its line.
    """
    from tempfile import TemporaryDirectory

    with TemporaryDirectory(prefix="drainctl-nginx-") as folder:
        place = Path(folder) / "text"
        found = _parse(text, name, place)
        # crossplane notices a missing semicolon only where it knows the context, so the text is given one.
        for error in _crossplane(f"http {{ {text}\n}}", place, judge=True)["errors"]:
            if error["error"].startswith('directive "'):  # not terminated, or no block where one is due
                raise ConfigError(_told(error, text, name, place))
        return found


def parse_dump(text: str) -> tuple[Directive, ...]:
    """
    The output of `nginx -T` as one configuration, with each `include` replaced by what it brings in.

    Raises: ConfigError when it is no such output or cannot be parsed.
    """
    from tempfile import TemporaryDirectory

    _, *pieces = _MARK.split(text)
    if not pieces:
        raise ConfigError("no `# configuration file` in what should be the output of `nginx -T`")
    names, texts = pieces[::2], pieces[1::2]
    with TemporaryDirectory(prefix="drainctl-nginx-") as folder:
        place = Path(folder) / "text"
        files = {name: _parse(text, name, place) for name, text in zip(names, texts, strict=True)}
    return tuple(_spliced(files[names[0]], files, PurePosixPath(names[0]).parent))


def walk(
    directives: Sequence[Directive], around: tuple[Directive, ...] = ()
) -> Iterator[tuple[Directive, tuple[Directive, ...]]]:
    """Every directive with the blocks around it, outermost first."""
    for one in directives:
        yield one, around
        yield from walk(one.inside, (*around, one))


def _parse(text: str, name: str, place: Path) -> tuple[Directive, ...]:
    # nginx itself judges contexts and counts of arguments, and knows those of its own version.
    read = _crossplane(text, place, judge=False)
    for error in read["errors"]:
        raise ConfigError(_told(error, text, name, place))
    return tuple(_directive(one, name) for one in read["parsed"])


def _crossplane(text: str, place: Path, *, judge: bool) -> Any:
    import crossplane

    place.write_text(text, encoding="utf-8", errors="surrogateescape")
    return crossplane.parse(str(place), single=True, check_ctx=judge, check_args=judge)["config"][0]


def _told(error: Mapping[str, Any], text: str, name: str, place: Path) -> str:
    """One error of crossplane, which tells no line and no words where the text just ends."""
    said = error["error"].removesuffix(f" in {place}:{error['line']}").removesuffix(f" in {place}")
    line = error["line"] or text.count("\n") + 1
    return f"{name}:{line}: {said or 'the file ends in the middle of a directive'}"


def _directive(one: Mapping[str, Any], file: str) -> Directive:
    block = tuple(_directive(inner, file) for inner in one["block"]) if "block" in one else None
    return Directive(one["directive"], tuple(one["args"]), file, one["line"], block)


def _spliced(
    directives: Sequence[Directive], files: Mapping[str, tuple[Directive, ...]], folder: PurePosixPath
) -> Iterator[Directive]:
    for one in directives:
        if one.name == "include" and len(one.args) == 1:
            pattern = str(folder / one.args[0])  # a relative path begins at the main file's folder
            for name in sorted(name for name in files if _fits(name, pattern)):
                yield from _spliced(files[name], files, folder)
        elif one.block is not None:
            yield one._replace(block=tuple(_spliced(one.block, files, folder)))
        else:
            yield one


def _fits(name: str, pattern: str) -> bool:
    return name == pattern or PurePosixPath(name).match(pattern)
