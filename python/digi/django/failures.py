"""What the errors of a database mean for a store."""

from __future__ import annotations

from django.db import DataError, IntegrityError, InterfaceError, OperationalError, ProgrammingError
from django.db.backends.base.base import BaseDatabaseWrapper

from digi.errors import (
    ConfigError,
    DigiError,
    StoreFullError,
    StoreRejectedError,
    StoreUnavailableError,
    StoreUnknownError,
)

#: PostgreSQL's class 53100; MySQL's and MariaDB's numbers.
_FULL_STATES = frozenset({"53100"})
_FULL_NUMBERS = frozenset({28, 1021, 1114})
_FULL_TEXTS = ("database or disk is full",)
#: A deadlock or a conflict of snapshots, in which this transaction was the one that was given up.
_GAVE_WAY_STATES = frozenset({"40001", "40P01"})
_GAVE_WAY_NUMBERS = frozenset({1205, 1213})


class Lost(Exception):
    """A commit failed; carries what that means."""

    def __init__(self, meaning: DigiError) -> None:
        super().__init__(str(meaning))
        self.meaning = meaning


def schema_error(text: str) -> ConfigError:
    """The tables are not there."""
    return ConfigError(f"{text}; run `manage.py migrate`", code="schema", number=163)


def as_store_error(connection: BaseDatabaseWrapper, error: Exception, committing: bool = False) -> DigiError:
    """The exception out of `digi.errors` for one of the database's.

    Texts of rejected rows stay out of it: databases quote what was to be stored.
    """
    text = _text(error)
    if isinstance(error, (DataError, IntegrityError, OverflowError, ValueError)):
        return StoreRejectedError(f"{type(error).__name__}: the database {connection.alias!r} does not take this")
    if isinstance(error, ProgrammingError) or text.startswith(("no such table", "no such column")):
        return schema_error(text)
    if _is_full(error, text):
        return StoreFullError(text)
    # SQLite's answer to a commit cannot get lost on the way.
    if committing and connection.vendor != "sqlite":
        return StoreUnknownError(text)
    if isinstance(error, (OperationalError, InterfaceError)):
        return StoreUnavailableError(text)
    return StoreUnavailableError(f"{type(error).__name__}: {text}")


def _text(error: Exception) -> str:
    """The first line: what follows may quote the statement."""
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def has_given_way(error: DigiError) -> bool:
    """Whether the database has rolled this transaction back in favour of another: it may simply be done again."""
    state, numbers = _codes(error.__cause__)
    return state in _GAVE_WAY_STATES or bool(numbers & _GAVE_WAY_NUMBERS)


def _is_full(error: Exception, text: str) -> bool:
    state, numbers = _codes(error)
    return state in _FULL_STATES or bool(numbers & _FULL_NUMBERS) or any(full in text for full in _FULL_TEXTS)


def _codes(error: BaseException | None) -> tuple[str | None, set[int]]:
    """PostgreSQL's code, and the numbers that the drivers of other databases give."""
    if error is None:
        return None, set()
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return state, {argument for argument in error.args if isinstance(argument, int)}
