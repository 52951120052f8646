"""Text columns that are compared exactly: no case, accent or width is folded, on any database."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper

# Where a database's own default compares exactly, it stays.
_COLLATIONS = {"mysql": "utf8mb4_bin", "microsoft": "Latin1_General_100_BIN2"}


class _Exact:
    def db_parameters(self, connection: BaseDatabaseWrapper) -> dict[str, Any]:
        parameters: dict[str, Any] = super().db_parameters(connection)  # type: ignore[misc]
        collation = _COLLATIONS.get(connection.vendor)
        return parameters | {"collation": collation} if collation else parameters


class ExactCharField(_Exact, models.CharField):  # type: ignore[type-arg]
    """A bounded text: a key, a client id."""


class ExactTextField(_Exact, models.TextField):  # type: ignore[type-arg]
    """A text of any length: a name, a message, whatever script it is in."""
