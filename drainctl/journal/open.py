"""From the `store:` of drainctl.yml to a Store."""

from __future__ import annotations

from pathlib import Path

from drainctl.errors import ConfigError
from drainctl.journal.door import Store

SQLITE = "sqlite:///"


def open_store(url: str) -> Store:
    """
    Opens the journal at `sqlite:///path`, creating file and folders.

    The path is absolute (`sqlite:///var/lib/drainctl/shop.db`, with or without one more slash) or begins
    with `~`. It is never relative to the current folder: the lease would then depend on where drainctl
    was called.

    Raises: ConfigError for another kind of store, JournalError where it cannot be opened.
    """
    if not url.startswith(SQLITE):
        kind = url.partition(":")[0]
        raise ConfigError(
            f"store {kind}: is not available in this version", hint="use sqlite:///path/to/journal.db"
        )
    from drainctl.journal.sqlite import SqliteStore

    return SqliteStore(_path(url))


def _path(url: str) -> Path:
    text = url.removeprefix(SQLITE).lstrip("/")
    if not text or text.endswith("/"):
        raise ConfigError(f"store {url} names no file", hint="use sqlite:///path/to/journal.db")
    if not text.startswith("~"):
        return Path("/", text)
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"store {url}: there is no such home folder") from error
