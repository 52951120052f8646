"""The kinds of columns. Texts are compared exactly: no case, accent or width is folded, on any database."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper


def _collation(connection: BaseDatabaseWrapper) -> str | None:
    """Where a database's own default compares exactly, it stays."""
    if connection.vendor == "mysql":
        # Of the binary ones, those that take no notice of trailing spaces are the default.
        return "utf8mb4_nopad_bin" if connection.mysql_is_mariadb else "utf8mb4_0900_bin"  # type: ignore[attr-defined]
    # SQL Server ignores trailing spaces whatever the collation.
    return "Latin1_General_100_BIN2" if connection.vendor == "microsoft" else None


class _Exact:
    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        parameters: dict[str, Any] = super().db_parameters(connection)  # type: ignore[misc]
        collation = _collation(connection)
        return parameters | {"collation": collation} if collation else parameters


class ExactCharField(_Exact, models.CharField):  # type: ignore[type-arg]
    """A bounded text: a key, a client id."""


class ExactTextField(_Exact, models.TextField):  # type: ignore[type-arg]
    """A text of any length: a name, a message, whatever script it is in."""


def integer(**options: Any) -> models.BigIntegerField[int, int]:
    """A number of 64 bits."""
    return models.BigIntegerField(**options)


def integer_or_null() -> models.BigIntegerField[int | None, int | None]:
    """A number of 64 bits, or nothing."""
    return models.BigIntegerField(null=True)
