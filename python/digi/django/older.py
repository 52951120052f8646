"""What Django has had since 5.0, 5.1 and 5.2, for the versions before: once those are given up, this file goes.

`fields` and `sqlite` choose between Django's own and this. Tables and migrations are the same with either, so that a
database may be used under both, one after the other. A key of several columns is a key here, too: in whatever Django
looks up, changes or deletes by the `pk` of an object, all of its columns are compared. A migration that would have
Django copy `digi_log` on SQLite fails there (it asks for two primary keys): such a one has to make the table by itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import NotSupportedError, models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import Expression
from django.db.models.lookups import Lookup

#: Keys that stand beside each other in a condition: SQLite bounds how deep an expression may be.
TOGETHER = 100


class CompositePrimaryKey(models.Field):  # type: ignore[type-arg]
    """A key of several columns, as in Django 5.2; it has no column of its own, and is looked up by `exact` and `in`."""

    def __init__(self, *names: str, **options: Any) -> None:
        super().__init__(**{"primary_key": True, "editable": False, "blank": True} | options)
        self.names = names
        # An object gets its values in this order: `pk`, where it is given, comes behind what it is made of.
        self.creation_counter += 1 << 30

    def deconstruct(self) -> Any:
        """For migrations."""
        name, path, _, options = super().deconstruct()
        return name, path, self.names, options

    def contribute_to_class(self, cls: Any, name: str, private_only: bool = False) -> None:
        """With what Django would have a column for, and a manager that knows what to order by."""
        super().contribute_to_class(cls, name, private_only=private_only)
        setattr(cls, name, _Attribute(self.names))
        if not any(isinstance(constraint, _Constraint) for constraint in cls._meta.constraints):
            # The list that Meta gave is the migrations'.
            cls._meta.constraints = [*cls._meta.constraints, _Constraint(self.names, f"{cls._meta.db_table}_pkey")]
        if not cls._meta.local_managers:
            cls.add_to_class("objects", models.Manager.from_queryset(_QuerySet)())

    def get_attname_column(self) -> tuple[str, Any]:
        """There is no column."""
        return self.get_attname(), None

    def db_type(self, connection: BaseDatabaseWrapper) -> None:  # noqa: ARG002
        """There is no column."""
        return

    def _check_field_name(self) -> list[Any]:
        return []

    def get_col(self, alias: str, output_field: Any = None) -> Any:  # noqa: ARG002
        """What lookups compare."""
        meta: Any = self.model._meta
        return _Columns([meta.get_field(name).get_col(alias) for name in self.names], self)

    def get_lookup(self, lookup_name: str) -> Any:
        """No other than these."""
        return {"exact": _Exact, "in": _In}.get(lookup_name)

    def to_python(self, value: Any) -> Any:
        """From a fixture."""
        if not isinstance(value, str):
            return value
        meta: Any = self.model._meta
        values = zip(self.names, json.loads(value), strict=True)
        return tuple(meta.get_field(name).to_python(part) for name, part in values)

    def value_to_string(self, obj: Any) -> str:
        """For a fixture."""
        return json.dumps(self.value_from_object(obj), ensure_ascii=False)


class _Attribute:
    """`pk`, a tuple."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names

    def __get__(self, instance: Any, _: type | None = None) -> Any:
        return self if instance is None else tuple(getattr(instance, name) for name in self.names)

    def __set__(self, instance: Any, values: Sequence[Any] | None) -> None:
        values = (None,) * len(self.names) if values is None else values
        for name, value in zip(self.names, values, strict=True):
            setattr(instance, name, value)


class _QuerySet(models.QuerySet[Any]):
    def order_by(self, *field_names: Any) -> Any:
        """`pk`, by which `first` and `last` order, stands for the key's columns."""
        names: list[Any] = []
        for name in field_names:
            if name in ("pk", "-pk"):
                key: Any = self.model._meta.pk
                names += [name.removesuffix("pk") + column for column in key.names]
            else:
                names.append(name)
        return super().order_by(*names)

    def only(self, *fields: Any) -> Any:
        """No row comes without its key."""
        key: Any = self.model._meta.pk
        return super().only(*key.names, *fields)

    def defer(self, *fields: Any) -> Any:
        """No row comes without its key."""
        key: Any = self.model._meta.pk
        return super().defer(*(name for name in fields if name not in key.names))


class _Columns(Expression):
    """The columns of a key."""

    def __init__(self, columns: Sequence[Any], field: CompositePrimaryKey) -> None:
        super().__init__(output_field=field)
        self.columns = columns

    def get_source_expressions(self) -> Any:
        return self.columns

    def set_source_expressions(self, exprs: Sequence[Any]) -> None:
        self.columns = exprs

    def as_sql(self, *_: Any, **__: Any) -> Any:
        raise NotSupportedError("before Django 5.2 a key of several columns is there to find rows by, and nothing else")


class _Exact(Lookup):
    lookup_name = "exact"
    prepare_rhs = False

    def keys(self) -> list[Any]:
        return [self.rhs]

    def get_prep_lookup(self) -> Any:
        wanted = len(self.lhs.columns)
        if hasattr(self.rhs, "resolve_expression"):
            raise NotSupportedError("before Django 5.2 a key of several columns is compared with plain values")
        for key in self.keys():
            if not isinstance(key, (list, tuple)) or len(key) != wanted:
                raise ValueError(f"the key of a row has {wanted} values")
        return self.rhs

    def as_sql(self, compiler: Any, connection: Any) -> Any:  # noqa: ARG002
        ors, parameters = [], []
        for key in self.keys():
            ands = []
            for column, value in zip(self.lhs.columns, key, strict=True):
                sql, given = compiler.compile(column.output_field.get_lookup("exact")(column, value))
                ands.append(sql)
                parameters += given
            ors.append(f"({' AND '.join(ands)})")
        groups = [" OR ".join(ors[start : start + TOGETHER]) for start in range(0, len(ors), TOGETHER)]
        return " OR ".join(f"({group})" for group in groups) or "1 = 0", parameters


class _In(_Exact):
    lookup_name = "in"

    def keys(self) -> list[Any]:
        return list(self.rhs)


class _Constraint(models.BaseConstraint):
    """Puts the key into `CREATE TABLE`. Migrations do not see it: they have the field."""

    def __init__(self, names: Sequence[str], name: str) -> None:
        super().__init__(name=name)
        self.names = names

    def constraint_sql(self, model: Any, schema_editor: Any) -> str:
        columns = (schema_editor.quote_name(model._meta.get_field(name).column) for name in self.names)
        return f"PRIMARY KEY ({', '.join(columns)})"

    def create_sql(self, model: Any, schema_editor: Any) -> str:
        table = schema_editor.quote_name(model._meta.db_table)
        return f"ALTER TABLE {table} ADD {self.constraint_sql(model, schema_editor)}"

    def validate(self, *_: Any, **__: Any) -> None:
        """Django does so by the field."""

    def deconstruct(self) -> Any:
        path, _, options = super().deconstruct()
        return path, (self.names,), options


class IntegerFromZero(models.BigIntegerField):  # type: ignore[type-arg]
    """A number that is 0 where a row is written without it: `db_default=0`, which Django has since 5.0.

    Until 5.2 this does: it puts no parameter into `CREATE TABLE`, beside which Django writes no constraints there.
    """

    def db_type_suffix(self, connection: BaseDatabaseWrapper) -> str:  # noqa: ARG002
        """Stands behind the type."""
        return "DEFAULT 0"


@contextmanager
def beginning(connection: Any, mode: str | None) -> Iterator[None]:
    """On SQLite, transactions that begin inside begin in this mode: `transaction_mode`, which Django has since 5.1."""
    begin = f"BEGIN {mode or ''}".rstrip()
    connection._start_transaction_under_autocommit = lambda: connection.cursor().execute(begin)
    try:
        yield
    finally:
        del connection._start_transaction_under_autocommit
