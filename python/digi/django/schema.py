"""How the tables come into being: on SQLite by the scripts of the native store, elsewhere from the models."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.operations import SeparateDatabaseAndState
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ProjectState

from digi._digi import schema
from digi.errors import ConfigError

TABLES = ("digi_room", "digi_head", "digi_member", "digi_message", "digi_change", "digi_batch")


class Tables(SeparateDatabaseAndState):
    """Makes tables so that Django and the native stores agree about them.

    On SQLite the scripts up to `version` are executed that `PRAGMA user_version` says are missing: a file that a native
    store has made is taken over as it is.
    """

    def __init__(self, operations: Sequence[Operation], version: int) -> None:
        super().__init__(database_operations=operations, state_operations=operations)
        self.version = version

    def deconstruct(self) -> tuple[str, list[object], dict[str, object]]:
        """For Django's writer of migrations."""
        return type(self).__name__, [self.database_operations, self.version], {}

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Make what is missing."""
        if schema_editor.connection.vendor == "sqlite":
            _run_scripts(schema_editor.connection, self.version)
        else:
            super().database_forwards(app_label, schema_editor, from_state, to_state)

    def database_backwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: ProjectState, to_state: ProjectState
    ) -> None:
        """Drop the tables, with everything in them."""
        if schema_editor.connection.vendor == "sqlite":
            with schema_editor.connection.cursor() as cursor:
                for table in TABLES:
                    cursor.execute(f"DROP TABLE IF EXISTS {table}")
                cursor.execute("PRAGMA user_version = 0")
        else:
            super().database_backwards(app_label, schema_editor, from_state, to_state)


def _run_scripts(connection: BaseDatabaseWrapper, version: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA user_version")
        (applied,) = cursor.fetchone()
        known = len(schema("sqlite"))
        if applied > known:
            raise ConfigError(
                f"the database has version {applied}, this Digi knows up to {known}: it belongs to a newer Digi, or "
                "PRAGMA user_version is used by another program",
                code="schema",
                number=163,
            )
        for number, script in schema("sqlite"):
            if applied < number <= version:
                for statement in _statements(script):
                    cursor.execute(statement)
                # A pragma takes no parameters.
                cursor.execute(f"PRAGMA user_version = {number:d}")


def _statements(script: str) -> Iterator[str]:
    """One after the other: what runs a whole script would commit the migration's transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
