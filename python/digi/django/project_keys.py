"""The primary keys of the project's own rooms and messages, and how they stand in Digi's tables.

The engine and its tokens know whole numbers. Where the project's keys are such, they are used as they are; a UUID or a
text stands beside a number of Digi's: that of a room in `digi_room_key`, that of a message in `digi_log`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.db.models import CharField, Expression, Field, ForeignKey, IntegerField, Model, OuterRef, UUIDField, Value
from django.db.models.functions import Cast, Replace

from digi.django.fields import HOST_KEY_LENGTH

#: What stands in Digi's tables: a whole number, or a text.
Stored = int | str


@dataclass(frozen=True)
class Key:
    """The primary key of a model."""

    #: `large`: whole numbers beyond those that a room may have.
    kind: Literal["number", "large", "uuid", "text"]
    #: Of a foreign key, the one that it leads to.
    field: Any

    @property
    def is_number(self) -> bool:
        """Whether the engine knows it as it is."""
        return self.kind == "number"

    def stored(self, value: Any) -> Stored:
        """How a key, or a text of it, stands in Digi's tables. Raises `ValueError` where it can be none."""
        try:
            value = self.field.to_python(value)
            if self.kind == "text":
                value = self.field.get_prep_value(value)
        except (ValidationError, TypeError) as error:
            raise ValueError(f"{value!r} is no {type(self.field).__name__}") from error
        if value is None:
            raise ValueError("there is no key yet")
        if self.kind in ("number", "large"):
            return int(value) if self.is_number else str(int(value))
        # Without dashes: as databases write it that have no type for it.
        return str(value.hex) if self.kind == "uuid" else str(value)

    def value(self, stored: Stored) -> Any:
        """The project's key."""
        return self.field.to_python(stored)

    def in_query(self) -> Expression | OuterRef:
        """The outer row's key as it stands in Digi's tables, for a query within a query."""
        if self.kind == "number":
            return OuterRef("pk")
        text = Cast(OuterRef("pk"), CharField(max_length=HOST_KEY_LENGTH))
        return Replace(text, Value("-"), Value("")) if self.kind == "uuid" else text


def key_of(setting: str, model: type[Model], *, is_large: bool = False) -> Key:
    """What a model's primary key is. Raises `ImproperlyConfigured`, naming the setting."""
    field: Any = model._meta.pk
    while isinstance(field, ForeignKey):
        field = field.target_field
    stored_as = field.get_internal_type()
    if isinstance(field, IntegerField):
        return Key("large" if is_large else "number", field)
    if stored_as == UUIDField.__name__:
        return Key("uuid", field)
    of = f"DIGI[{setting!r}]: the primary key of {model._meta.label} is a {type(field).__name__}"
    if not isinstance(field, CharField):
        raise ImproperlyConfigured(f"{of}; Digi takes whole numbers, UUIDs and texts (CharField)")
    if field.max_length is None or field.max_length > HOST_KEY_LENGTH:
        raise ImproperlyConfigured(f"{of} of up to {field.max_length} characters; Digi takes {HOST_KEY_LENGTH}")
    return Key("text", field)


def check_made(setting: str, model: type[Model]) -> None:
    """Raises `ImproperlyConfigured` where a row that is inserted in bulk gets no key."""
    field: Any = model._meta.pk
    if not (isinstance(field, IntegerField) or field.has_default() or type(field).pre_save is not Field.pre_save):
        raise ImproperlyConfigured(
            f"DIGI[{setting!r}]: Digi adds rows to {model._meta.label}: its primary key needs a default, such as uuid4"
        )


_NAMES = {"uuid": "UUIDs", "text": "texts", "large": "other numbers than Digi's"}


def problem(given: Mapping[str, Any], rooms: Key, messages: Key) -> str | None:
    """What else in the setting doesn't go with such keys: what stock workers would have to understand."""
    if rooms.is_number and messages.is_number:
        return None
    whose, kind = ("rooms", rooms.kind) if not rooms.is_number else ("messages", messages.kind)
    keys = f"and the keys of the project's {whose} are {_NAMES[kind]}"
    if given.get("EMIT") == "fernet":
        return f'DIGI[\'EMIT\']: "fernet" seals whole numbers for stock workers, {keys}: leave it at "v1"'
    if given.get("BRIDGE"):
        return f"DIGI['BRIDGE']: stock workers and Digi would have to name them alike, {keys}: leave it out"
    if given.get("LEGACY_FERNET") and not rooms.is_number:
        return f"DIGI['LEGACY_FERNET']: what opens is a whole number, {keys}: leave it out"
    return None
