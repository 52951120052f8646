"""The suite that every store passes, over Django's connections."""

from collections.abc import Iterator
from itertools import count

import pytest
from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from digi.django.mapping import Mapped, look_up
from digi.django.store import OrmStore
from digi.testing import Subject, run_store_test, store_suite_tests
from django_store.planned_ids import PlannedIds
from django_store.project.models import CIRCLES, HALLS, NOTED_CIRCLES, TOPICS

TOO_LONG = 2 << 20
MESSAGES = ("project_post", "project_call", "project_remark", "project_note")
#: Digi's own tables, and the project's: with whole numbers as keys, and with UUIDs.
TABLES = {"own": None, "project": CIRCLES, "uuids": HALLS}
#: Texts for rooms alone, and for messages alone.
MIXED = {"topics": TOPICS, "notes": NOTED_CIRCLES}


def limit_sqlite(connection: BaseDatabaseWrapper, **_: object) -> None:
    """What another database has by its column types, or an operator sets: a longest text, and a largest file."""
    if connection.vendor == "sqlite":
        import sqlite3

        if hasattr(connection.connection, "setlimit"):
            connection.connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, TOO_LONG // 2)
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA max_page_count = {(4 << 20) // 4096}")


#: Tests that know what ids messages have in Digi's own tables, or compare with a store that has those.
ABOUT_IDS = {
    "members::room_ids_are_chosen_or_given",
    "messages::an_added_message_is_read_as_it_was_written",
    "reference::it_answers_as_the_reference_does",
}


@pytest.fixture
def limited(database: str) -> Iterator[str]:
    connection_created.connect(limit_sqlite)
    connection = connections[database]
    if connection.vendor != "sqlite":
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE digi_message ADD CONSTRAINT short CHECK (length(body) < {TOO_LONG})")
            for table in MESSAGES:
                cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT brief CHECK (length(text) < {TOO_LONG})")
    yield database
    if connection.vendor != "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE digi_message DROP CONSTRAINT short")
            for table in MESSAGES:
                cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT brief")
    connection_created.disconnect(limit_sqlite)


@pytest.fixture(autouse=True)
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite takes rooms to be numbered as they are made; those with other keys get their numbers by chance."""
    numbers = count()
    monkeypatch.setattr("digi.django.project_rooms.secrets.randbelow", lambda _: next(numbers))


@pytest.mark.parametrize("mapped", [setting and look_up(setting) for setting in TABLES.values()], ids=list(TABLES))
@pytest.mark.parametrize("name", store_suite_tests())
def test_the_store_suite(name: str, mapped: Mapped | None, limited: str) -> None:
    run(name, mapped, limited)


# What differs between databases is seen above; here it is one combination more of the same statements.
@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize("mapped", [look_up(setting) for setting in MIXED.values()], ids=list(MIXED))
@pytest.mark.parametrize("name", store_suite_tests())
def test_the_store_suite_over_mixed_keys(name: str, mapped: Mapped, limited: str) -> None:
    run(name, mapped, limited)


def run(name: str, mapped: Mapped | None, limited: str) -> None:
    is_translated = mapped is not None and mapped.message_key.is_number
    kind = PlannedIds if is_translated and name in ABOUT_IDS else OrmStore

    def factory() -> Subject:
        return Subject(
            kind(limited, mapped),
            second=lambda: kind(limited, mapped),
            reopen=lambda: kind(limited, mapped),
            offender="x" * TOO_LONG,
            bounded=limited == "default",
            remembers_batches=True,
        )

    print(*run_store_test(name, factory), sep="\n")
