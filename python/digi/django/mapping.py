"""Which of the project's models are the rooms, the members and the messages: `ROOM_MODEL` and the keys beside it.

    DIGI = {
        "ROOM_MODEL": "chat.Connection",
        "MEMBERS": ["user_one", "user_two"],
        "MESSAGE_MODEL": "chat.Message",
        "FIELDS": {"room": "connection", "sender": "sender", "body": "text", "created_at": "sent_at"},
    }

`MEMBERS` names fields of the room's model that lead to its users, or a model of memberships:
`{"model": "chat.Membership", "room": "chat", "user": "person"}`, with `"role"` where it has one that is 0 for a member
and 1 for a moderator. With `ROOM_NUMBERS` rooms get numbers of Digi's, as they do where their keys are UUIDs or texts,
although these are whole numbers: beyond 2^31 - 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import FieldDoesNotExist, ImproperlyConfigured
from django.db import router
from django.db.models import DateTimeField, Field, ForeignKey, ManyToManyField, Model, TextField

from digi.django.project_keys import Key, check_made, key_of

#: The settings' keys that belong together.
KEYS = ("ROOM_MODEL", "ROOM_NUMBERS", "MEMBERS", "MESSAGE_MODEL", "FIELDS")
_NEEDED = ("room", "sender", "body")
_TIMES = ("created_at", "edited_at", "deleted_at")


@dataclass(frozen=True)
class Membership:
    """A model with a row for every member of every room."""

    model: type[Model]
    room: str
    user: str
    role: str | None = None


@dataclass(frozen=True)
class Mapped:
    """The project's models, looked up. Names are those of fields."""

    room_model: type[Model]
    room_key: Key
    #: Fields of the room's model, each a user.
    members: tuple[str, ...]
    membership: Membership | None
    message_model: type[Model]
    message_key: Key
    room: str
    sender: str
    body: str
    created_at: str | None
    edited_at: str | None
    deleted_at: str | None

    @property
    def sender_name(self) -> str:
        """What gives the sender's name, as a path for a query."""
        field = self.message_model._meta.get_field(self.sender)
        if isinstance(field, ForeignKey):
            user_model: Any = field.related_model
            return f"{self.sender}__{getattr(user_model, 'USERNAME_FIELD', user_model._meta.pk.name)}"
        return self.sender

    @property
    def room_column(self) -> str:
        """What has the key of a message's room."""
        field: Any = self.message_model._meta.get_field(self.room)
        return str(field.attname)

    @property
    def database(self) -> str:
        """The alias that the project's routers give."""
        return router.db_for_write(self.message_model)


def look_up(given: Mapping[str, Any]) -> Mapped | None:
    """What the setting maps; None where it maps nothing. Raises `ImproperlyConfigured`, naming the key."""
    named = [key for key in KEYS if key in given]
    if not named:
        return None
    for key in ("ROOM_MODEL", "MEMBERS", "MESSAGE_MODEL"):
        if key not in given:
            raise ImproperlyConfigured(f"DIGI[{key!r}]: needed beside {', '.join(named)}")
    room_model, message_model = (
        _model("ROOM_MODEL", given["ROOM_MODEL"]),
        _model("MESSAGE_MODEL", given["MESSAGE_MODEL"]),
    )
    room_key = key_of("ROOM_MODEL", room_model, is_large=bool(given.get("ROOM_NUMBERS")))
    message_key = key_of("MESSAGE_MODEL", message_model)
    check_made("MESSAGE_MODEL", message_model)
    members, membership = _members(room_model, given["MEMBERS"])
    fields: Any = _fields(message_model, room_model, given.get("FIELDS", {}))
    return Mapped(room_model, room_key, members, membership, message_model, message_key, **fields)


def _model(key: str, name: object) -> type[Model]:
    if not isinstance(name, str) or name.count(".") != 1:
        raise ImproperlyConfigured(f"DIGI[{key!r}]: a model as 'application.Model', not {name!r}")
    try:
        return apps.get_model(name)
    except LookupError as error:
        raise ImproperlyConfigured(f"DIGI[{key!r}]: {error}") from error


def _field(key: str, model: type[Model], name: object) -> Field[Any, Any]:
    try:
        found = model._meta.get_field(str(name))
    except FieldDoesNotExist as error:
        raise ImproperlyConfigured(f"DIGI[{key!r}]: {error}") from error
    if not isinstance(found, Field):
        raise ImproperlyConfigured(f"DIGI[{key!r}]: {name!r} is no field of {model._meta.label} itself")
    return found


def _members(room_model: type[Model], given: object) -> tuple[tuple[str, ...], Membership | None]:
    if isinstance(given, dict):
        unknown = given.keys() - {"model", "room", "user", "role"}
        if unknown or not {"model", "room", "user"} <= given.keys():
            raise ImproperlyConfigured("DIGI['MEMBERS']: a dict with 'model', 'room', 'user' and perhaps 'role'")
        model = _plain_model(given["model"])
        names = {name: _field("MEMBERS", model, given[name]).name for name in ("room", "user", "role") if name in given}
        return (), Membership(model, **names)
    if not isinstance(given, (list, tuple)) or not given or not all(isinstance(name, str) for name in given):
        raise ImproperlyConfigured("DIGI['MEMBERS']: a list of fields of ROOM_MODEL, or a dict with 'model'")
    fields = [_field("MEMBERS", room_model, name) for name in given]
    if any(isinstance(field, ManyToManyField) for field in fields):
        if len(fields) != 1:
            raise ImproperlyConfigured("DIGI['MEMBERS']: one field to many users, or several to one each")
        return (), _through(fields[0])
    return tuple(field.name for field in fields), None


def _plain_model(name: object) -> type[Model]:
    try:
        return apps.get_model(str(name))
    except (LookupError, ValueError) as error:
        raise ImproperlyConfigured(f"DIGI['MEMBERS']: {error}") from error


def _through(field: Any) -> Membership:
    return Membership(field.remote_field.through, field.m2m_field_name(), field.m2m_reverse_field_name())


def _fields(model: type[Model], room_model: type[Model], given: object) -> dict[str, str | None]:
    if not isinstance(given, dict) or given.keys() - {*_NEEDED, *_TIMES}:
        raise ImproperlyConfigured(f"DIGI['FIELDS']: a dict with {', '.join((*_NEEDED, *_TIMES))}")
    found: dict[str, str | None] = dict.fromkeys(_TIMES)
    for name in (*_NEEDED, *_TIMES):
        if name in given:
            found[name] = _field("FIELDS", model, given[name]).name
        elif name in _NEEDED:
            found[name] = _only(model, name, _candidates(model, room_model, name))
    room: Any = model._meta.get_field(found["room"] or "")
    if isinstance(room, ForeignKey) and not room.target_field.primary_key:
        raise ImproperlyConfigured(f"DIGI['FIELDS']['room']: {room.name!r} does not lead to a primary key")
    for name in _TIMES:
        if found[name] and not isinstance(model._meta.get_field(found[name] or ""), DateTimeField):
            raise ImproperlyConfigured(f"DIGI['FIELDS'][{name!r}]: {found[name]!r} is no DateTimeField")
    return found


def _candidates(model: type[Model], room_model: type[Model], name: str) -> list[str]:
    fields = [field for field in model._meta.get_fields() if isinstance(field, Field)]
    if name == "body":
        return [field.name for field in fields if isinstance(field, TextField)]
    wanted = room_model if name == "room" else apps.get_model(settings.AUTH_USER_MODEL)
    return [field.name for field in fields if isinstance(field, ForeignKey) and field.related_model is wanted]


def _only(model: type[Model], name: str, found: Sequence[str]) -> str:
    if len(found) != 1:
        choice = f"one of {', '.join(found)}" if found else "no field looks like it"
        raise ImproperlyConfigured(f"DIGI['FIELDS'][{name!r}]: which field of {model._meta.label} is it? ({choice})")
    return found[0]
