"""The kinds of columns. Texts are compared exactly: no case, accent or width is folded, on any database."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import django
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.sql.compiler import SQLCompiler

from digi.django import older
from digi.django.mssql import VENDOR as SQL_SERVER

if TYPE_CHECKING or django.VERSION >= (5, 2):
    from django.db.models import CompositePrimaryKey
else:
    from digi.django.older import CompositePrimaryKey

__all__ = [
    "HOST_KEY_LENGTH",
    "CompositePrimaryKey",
    "ExactCharField",
    "ExactTextField",
    "MillisField",
    "integer",
    "integer_from_zero",
    "integer_or_null",
    "millis",
    "millis_or_null",
    "to_datetime",
]

#: The longest key of a room or a message of the project's own: as long as a text may be that is unique everywhere.
HOST_KEY_LENGTH = 255

_EPOCH = datetime(1970, 1, 1)
_MILLISECOND = timedelta(milliseconds=1)
#: What a DATETIME2 holds.
_FIRST = (datetime.min - _EPOCH) // _MILLISECOND
_LAST = (datetime.max - _EPOCH) // _MILLISECOND


def _collation(connection: BaseDatabaseWrapper) -> str | None:
    """Where a database's own default compares exactly, it stays."""
    if connection.vendor == "mysql":
        # Of the binary ones, those that take no notice of trailing spaces are the default.
        return "utf8mb4_nopad_bin" if connection.mysql_is_mariadb else "utf8mb4_0900_bin"  # type: ignore[attr-defined]
    # SQL Server ignores trailing spaces whatever the collation.
    return "Latin1_General_100_BIN2" if connection.vendor == SQL_SERVER else None


class _Exact:
    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        parameters: dict[str, Any] = super().db_parameters(connection)  # type: ignore[misc]
        collation = _collation(connection)
        return parameters | {"collation": collation} if collation else parameters


class ExactCharField(_Exact, models.CharField):  # type: ignore[type-arg]
    """A bounded text: a key, a client id."""


class ExactTextField(_Exact, models.TextField):  # type: ignore[type-arg]
    """A text of any length: a name, a message, whatever script it is in."""


class MillisField(models.BigIntegerField):  # type: ignore[type-arg]
    """A time: milliseconds since 1970-01-01T00:00:00Z. On SQL Server the column is a DATETIME2(3) in UTC."""

    def db_type(self, connection: BaseDatabaseWrapper) -> str | None:
        """The column's type."""
        return "datetime2(3)" if connection.vendor == SQL_SERVER else super().db_type(connection)

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        """For the database."""
        value = super().get_db_prep_value(value, connection, prepared)
        return to_datetime(value) if connection.vendor == SQL_SERVER and isinstance(value, int) else value

    def select_format(self, compiler: SQLCompiler, sql: str, params: Any) -> Any:
        """From the database, where it leaves it: within a query the column stays as it is."""
        if compiler.connection.vendor == SQL_SERVER and not compiler.query.subquery:
            sql = f"DATEDIFF_BIG(MILLISECOND, CAST('1970-01-01' AS DATETIME2(3)), {sql})"
        return sql, params


def to_datetime(millis: int) -> datetime:
    """A time in UTC, without a time zone; the first or last that there is for one beyond."""
    return _EPOCH + _MILLISECOND * min(max(millis, _FIRST), _LAST)


def integer(**options: Any) -> models.BigIntegerField[int, int]:
    """A number of 64 bits."""
    return models.BigIntegerField(**options)


def integer_from_zero() -> models.BigIntegerField[int, int]:
    """A number of 64 bits: 0 where nobody says otherwise, in the database as well."""
    return (
        models.BigIntegerField(default=0, db_default=0)
        if django.VERSION >= (5, 2)
        else older.IntegerFromZero(default=0)
    )


def integer_or_null() -> models.BigIntegerField[int | None, int | None]:
    """A number of 64 bits, or nothing."""
    return models.BigIntegerField(null=True)


def millis() -> models.BigIntegerField[int, int]:
    """A time."""
    return MillisField()


def millis_or_null() -> models.BigIntegerField[int | None, int | None]:
    """A time, or nothing."""
    return MillisField(null=True)
