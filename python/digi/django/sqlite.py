"""What is particular about SQLite: how Digi's transactions begin, and what a connection needs for its promises."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import django
from django.db import OperationalError
from django.db.backends.base.base import BaseDatabaseWrapper

from digi.django import older
from digi.errors import ConfigError

#: Seconds that the switch to the write-ahead log waits for others who use the file.
_PATIENCE = 5.0

_ATTRIBUTE = "_digi_prepared"
_generations = count(1)


def prepare(connection: BaseDatabaseWrapper) -> None:
    """Sees to it that what is committed on a connection survives a power cut and that readers do not hold it up.

    The write-ahead log is a property of the file and stays; `synchronous` belongs to the connection.
    """
    connection.ensure_connection()
    done = getattr(connection, _ATTRIBUTE, None)
    if (done and done[0] is connection.connection) or connection.in_atomic_block:
        return
    with connection.cursor() as cursor:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                cursor.execute("PRAGMA journal_mode = WAL")
                break
            except OperationalError:
                # Two processes that open a new file at once stand in each other's way, and SQLite does not wait here.
                if time.monotonic() > until:
                    raise
                time.sleep(0.002)
        (mode,) = cursor.fetchone()
        if mode not in ("wal", "memory"):
            raise OperationalError(f"the file system allows no write-ahead log (journal_mode stayed {mode})")
        cursor.execute("PRAGMA synchronous = FULL")
    setattr(connection, _ATTRIBUTE, (connection.connection, next(_generations)))


def refuse_unplaced(connection: BaseDatabaseWrapper) -> None:
    """The native store writes to a journal first, and what stands there is in no table yet. To be called within a
    transaction that nobody else writes beside.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'digi_journal')")
        if cursor.fetchone() == (0,):
            return
        cursor.execute("SELECT EXISTS (SELECT 1 FROM digi_journal)")
        if cursor.fetchone() == (1,):
            raise ConfigError(
                "a native store has the file open, or was killed and has left messages in its journal: a file is "
                "written to natively or through Django, not both at once; opened and closed once with the native store "
                "(`sqlite:path`), it has everything in its tables",
                code="schema",
                number=163,
            )


def refuse_memory(connection: BaseDatabaseWrapper) -> None:
    """An engine has several threads, and each would have a database of its own there."""
    if connection.is_in_memory_db():  # type: ignore[attr-defined]
        raise ConfigError(
            f"the database {connection.alias!r} is in memory, where an engine's threads do not find each other's "
            "tables: name a file (for tests: DATABASES[...]['TEST']['NAME'])",
            code="config",
            number=160,
        )


@contextmanager
def beginning(connection: BaseDatabaseWrapper, mode: str | None) -> Iterator[None]:
    """Transactions that begin inside begin so on SQLite, whatever the project's OPTIONS say.

    One that reads first and then writes is turned away when somebody else has written in between: it has to be
    `IMMEDIATE`. One that only reads must not be.
    """
    if connection.vendor != "sqlite":
        yield
        return
    connection.ensure_connection()
    if django.VERSION < (5, 1):
        with older.beginning(connection, mode):
            yield
        return
    before = connection.transaction_mode  # type: ignore[attr-defined]
    connection.transaction_mode = mode  # type: ignore[attr-defined]
    try:
        yield
    finally:
        connection.transaction_mode = before  # type: ignore[attr-defined]


def marker(connection: BaseDatabaseWrapper) -> int:
    """`data_version`: changes when another connection has written. A new connection counts anew."""
    prepare(connection)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA data_version")
        (version,) = cursor.fetchone()
    _, generation = getattr(connection, _ATTRIBUTE, (None, 0))
    return (generation << 32) | int(version)
