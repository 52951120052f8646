"""How the tables come into being: on SQLite and SQL Server by the native stores' scripts, elsewhere from the models."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.backends.utils import CursorWrapper
from django.db.migrations.operations import SeparateDatabaseAndState
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from digi._digi import schema
from digi.django import conf, mssql
from digi.errors import ConfigError

TABLES = ("digi_room", "digi_head", "digi_member", "digi_message", "digi_change", "digi_batch")
#: What the native store on SQLite has beside them.
JOURNAL_TABLES = ("digi_journal", "digi_placed")
#: Beside messages in a table of the project's own.
LOG_TABLE = "digi_log"
#: The numbers of the project's own rooms, where their keys are no whole numbers.
ROOM_KEY_TABLE = "digi_room_key"
#: What waits for a transaction of the project's.
POST_TABLE = "digi_post"


class Tables(SeparateDatabaseAndState):
    """Makes tables so that Django and the native stores agree about them.

    Where there is a native store, its scripts are executed up to its version in `versions`, those that the database
    says are missing: tables that a native store has made are taken over as they are.
    """

    def __init__(self, operations: Sequence[Operation], versions: Mapping[str, int]) -> None:
        super().__init__(database_operations=operations, state_operations=operations)
        self.versions = versions

    def deconstruct(self) -> tuple[str, list[object], dict[str, object]]:
        """For Django's writer of migrations."""
        return type(self).__name__, [self.database_operations, self.versions], {}

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Make what is missing."""
        scripts = _NATIVE.get(schema_editor.connection.vendor)
        if scripts is None:
            super().database_forwards(app_label, schema_editor, from_state, to_state)
        else:
            with schema_editor.connection.cursor() as cursor:
                scripts(cursor).apply(self.versions)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Drop the tables, with everything in them."""
        scripts = _NATIVE.get(schema_editor.connection.vendor)
        if scripts is None:
            super().database_backwards(app_label, schema_editor, from_state, to_state)
        else:
            with schema_editor.connection.cursor() as cursor:
                scripts(cursor).drop()


class _Sqlite:
    """`PRAGMA user_version` says how many scripts have been applied."""

    def __init__(self, cursor: CursorWrapper) -> None:
        self.cursor = cursor

    def apply(self, versions: Mapping[str, int]) -> None:
        self.cursor.execute("PRAGMA user_version")
        for number, script in _missing("sqlite", self.cursor.fetchone()[0], versions, "PRAGMA user_version"):
            # One after the other: what runs a whole script would commit the migration's transaction.
            for statement in _statements(script):
                self.cursor.execute(statement)
            self._set_version(number)

    def drop(self) -> None:
        for table in (*TABLES, *JOURNAL_TABLES):
            self.cursor.execute(f"DROP TABLE IF EXISTS {table}")
        self._set_version(0)

    def _set_version(self, version: int) -> None:
        # A pragma takes no parameters.
        self.cursor.execute(f"PRAGMA user_version = {version:d}")


class _SqlServer:
    """The one row of the table `digi_schema` says it."""

    def __init__(self, cursor: CursorWrapper) -> None:
        self.cursor = cursor
        self.schema = mssql.quoted(mssql.schema_of(conf.get().sql_server))

    def apply(self, versions: Mapping[str, int]) -> None:
        begin, *_ = schema("mssql")
        self._execute(begin[1])
        self._execute("SELECT version FROM {schema}.digi_schema WHERE id = 1")
        [applied] = self.cursor.fetchone() or (None,)
        if applied is None:
            self._execute("INSERT INTO {schema}.digi_schema (id, version) VALUES (1, 0)")
        for number, script in _missing("mssql", applied or 0, versions, "the table digi_schema"):
            for statement in _statements(script):
                self._execute(statement)
            self._execute(f"UPDATE {{schema}}.digi_schema SET version = {number:d} WHERE id = 1")

    def drop(self) -> None:
        for table in (*TABLES, "digi_schema"):
            self._execute(f"DROP TABLE IF EXISTS {{schema}}.{table}")

    def _execute(self, statement: str) -> None:
        self.cursor.execute(statement.replace("{schema}", self.schema))


_NATIVE: dict[str, type[_Sqlite] | type[_SqlServer]] = {"sqlite": _Sqlite, mssql.VENDOR: _SqlServer}


def _missing(
    backend: Literal["sqlite", "mssql"], applied: int, versions: Mapping[str, int], place: str
) -> list[tuple[int, str]]:
    scripts = schema(backend)
    newest, _ = scripts[-1]
    if applied > newest:
        raise ConfigError(
            f"the database has version {applied}, this Digi knows up to {newest}: it belongs to a newer Digi, or "
            f"{place} is used by another program",
            code="schema",
            number=163,
        )
    return [(number, script) for number, script in scripts if applied < number <= versions[backend]]


def _statements(script: str) -> Iterator[str]:
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
