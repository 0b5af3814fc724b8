"""From the `store:` of drainctl.yml to a Store. What a store needs is loaded where it is used only."""

from __future__ import annotations

from pathlib import Path

from drainctl.errors import ConfigError
from drainctl.journal.door import Store

SQLITE = "sqlite:///"
POSTGRESQL = ("postgresql://", "postgres://")
ETCD = "etcd://"


def open_store(url: str) -> Store:
    """
    Opens the journal at `sqlite:///path`, `postgresql://…` or `etcd://…`, and makes in it what is missing.

    A file's path is absolute (`sqlite:///var/lib/drainctl/shop.db`, with or without one more slash) or begins
    with `~`. It is never relative to the current folder: the lease would then depend on where drainctl
    was called.

    Raises: ConfigError for another kind of store, or where the package that it needs is not installed;
    JournalError where it cannot be opened. Neither shows a password.
    """
    if url.startswith(SQLITE):
        from drainctl.journal.sqlite import SqliteStore

        return SqliteStore(_path(url))
    if url.startswith(POSTGRESQL):
        try:
            from drainctl.journal.postgres import PostgresStore
        except ImportError as error:
            raise _missing("PostgreSQL", "postgres", error) from error
        return PostgresStore(url)
    if url.startswith(ETCD):
        try:
            from drainctl.journal.etcd import EtcdStore
        except ImportError as error:
            raise _missing("etcd", "etcd", error) from error
        return EtcdStore(url)
    kind = url.partition(":")[0]
    raise ConfigError(
        f"store {kind}: is none that drainctl knows",
        hint="use sqlite:///path/to/journal.db, postgresql://… or etcd://…",
    )


def _missing(what: str, extra: str, error: ImportError) -> ConfigError:
    return ConfigError(
        f"a store in {what} needs a package that is not installed: {str(error).splitlines()[0]}",
        hint=f"pip install 'drainctl[{extra}]'",
    )


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
