"""The suite that every store passes, over Django's connections."""

from collections.abc import Iterator

import pytest
from digi.django.store import OrmStore
from digi.testing import Subject, run_store_test, store_suite_tests
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

TOO_LONG = 2 << 20


def limit_sqlite(connection: BaseDatabaseWrapper, **_: object) -> None:
    """What another database has by its column types, or an operator sets: a longest text, and a largest file."""
    if connection.vendor == "sqlite":
        import sqlite3

        if hasattr(connection.connection, "setlimit"):
            connection.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, TOO_LONG // 2)
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA max_page_count = {(4 << 20) // 4096}")


@pytest.fixture
def limited(database: str) -> Iterator[str]:
    connection_created.connect(limit_sqlite)
    connection = connections[database]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE digi_message ADD CONSTRAINT short CHECK (length(body) < {TOO_LONG})")
    yield database
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE digi_message DROP CONSTRAINT short")
    connection_created.disconnect(limit_sqlite)


@pytest.mark.parametrize("name", store_suite_tests())
def test_the_store_suite(name: str, limited: str) -> None:
    def factory() -> Subject:
        return Subject(
            OrmStore(limited),
            second=lambda: OrmStore(limited),
            reopen=lambda: OrmStore(limited),
            offender="x" * TOO_LONG,
            bounded=limited == "default",
            remembers_batches=True,
        )

    print(*run_store_test(name, factory), sep="\n")
