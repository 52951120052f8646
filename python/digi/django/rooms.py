"""Rooms and memberships from views, commands and shells, on the caller's own database connection.

What is done here is part of the caller's transaction. Engines that run hear of it by looking at the database: on SQLite
within about a tenth of a second, elsewhere when they next compare (2 to 30 seconds). Whoever was removed can write
nothing from the commit on. Where it has to be seen at once, ask the engine: `get_engine().remove_member(...)`.

Over the project's own tables (`DIGI["ROOM_MODEL"]`) a room is made, and joined, where `MEMBERS` is a model of
memberships, or by the project itself. Rooms are given by their ids, or as objects or keys of the project's
(`digi.django.keys`).

On SQL Server it is this process's engine that writes, in a transaction of its own: when a function returns, its work is
committed, and stays so if the caller's transaction is rolled back.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from django.contrib.auth.models import AbstractBaseUser
from django.core.exceptions import ImproperlyConfigured
from django.db.models import F, OuterRef, Subquery
from django.utils.asyncio import async_unsafe

from digi._digi import Batch, BatchId, Command, Engine, NewRoom, Outcome
from digi.django import conf, mssql
from digi.django.engine import get_engine
from digi.django.keys import Thing, room_number
from digi.django.models import Head, Member, Message, Room
from digi.django.store import ROLE_NAMES, OrmStore
from digi.errors import NoSuchRoomError, RefusedError
from digi.types import Role

#: A user, or a key and a name, and perhaps a role behind.
Someone: TypeAlias = "AbstractBaseUser | tuple[str, str] | tuple[str, str, Role]"

_PLACES = 2**32


def user_key(user: AbstractBaseUser) -> str:
    """A Django user's key: what never changes."""
    return str(user.pk)


def create_room(members: Iterable[Someone] = (), *, name: str = "", kind: str = "", id: Any = None) -> Any:
    """Make a room with its first members; gives its id, or over the project's own tables its key. Raises
    `RoomExistsError`, `StoreError`.
    """
    people = [_member(member) for member in members]
    using = _using()
    if mssql.is_sql_server(using):
        return _engine().create_room(people, name=name, kind=kind, id=id).result()
    mapped = conf.mapped()
    store = OrmStore(using, mapped)
    if mapped is None or mapped.room_key.is_number:
        return store.create_room(NewRoom(people, name=name, kind=kind, id=id), _now())
    return store.room_key(store.create_room(NewRoom(people, name=name, kind=kind), _now(), key=id))


def add_member(room: Thing, user: Someone, role: Role = "member") -> Outcome:
    """Make a user a member of a room, or change the role. Raises `NoSuchRoomError`, `RefusedError`, `StoreError`."""
    key, name, role = _member(user, role)
    using, room = _using(), room_number(room)
    if mssql.is_sql_server(using):
        return _engine().add_member(room, key, name, role).result()
    return _one(using, Command("add_member", room, "", is_host=True, member=key, member_name=name, role=role))


def remove_member(room: Thing, user: AbstractBaseUser | str) -> Outcome:
    """End a membership, given the user or the key. Raises as `add_member`."""
    key = user if isinstance(user, str) else user_key(user)
    using, room = _using(), room_number(room)
    if mssql.is_sql_server(using):
        return _engine().remove_member(room, key).result()
    return _one(using, Command("remove_member", room, "", is_host=True, member=key))


@dataclass(frozen=True)
class RoomEntry:
    """A room in a user's list."""

    id: int
    name: str
    kind: str
    role: Role
    #: When something last changed there, in milliseconds since 1970.
    last_at: int
    last_message: Message | None


def rooms_of(user: AbstractBaseUser | str) -> list[RoomEntry]:
    """The rooms in which a user is a member, the one with the latest change first. Two queries."""
    key = user if isinstance(user, str) else user_key(user)
    using = _using()
    if conf.mapped() is not None:
        raise ImproperlyConfigured("DIGI['ROOM_MODEL']: the rooms are the project's own, and so is their list")
    begin = OuterRef("id") * _PLACES
    newest = Message.objects.filter(id__gt=begin, id__lt=begin + _PLACES).order_by("-id").values("id")[:1]
    membership = Member.objects.filter(room_id=OuterRef("id"), user_key=key)
    rooms = (
        Room.objects.using(using)
        .filter(id__in=Member.objects.filter(user_key=key).values("room_id"))
        .annotate(
            role=Subquery(membership.values("role")[:1]),
            last_at=Subquery(Head.objects.filter(room_id=OuterRef("id")).values("last_at")[:1]),
            newest=Subquery(newest),
        )
        .order_by(F("last_at").desc(), "-id")
    )
    found: list[Any] = list(rooms)
    messages = Message.objects.using(using).in_bulk([room.newest for room in found if room.newest is not None])
    return [
        RoomEntry(room.pk, room.name, room.kind, _role(room.role), room.last_at, messages.get(room.newest))
        for room in found
    ]


def _role(number: int) -> Any:
    return ROLE_NAMES.get(number, "member")


def _using() -> str:
    """The alias of the project's database, where the rooms are."""
    config = conf.get()
    if config.store != "orm":
        raise ImproperlyConfigured(
            "DIGI['STORE'] is not \"orm\": rooms outside of the project's database are made by the engine, "
            "digi.django.engine.get_engine().create_room(...)"
        )
    return config.database


@async_unsafe
def _engine() -> Engine:
    return get_engine().open().result()


def _now() -> int:
    return time.time_ns() // 1_000_000


def _member(user: Someone, role: Role = "member") -> tuple[str, str, Role]:
    if isinstance(user, tuple):
        return user if len(user) == 3 else (*user, role)
    return user_key(user), user.get_username(), role


def _one(using: str, command: Command) -> Outcome:
    # A store of its own for every call: what it remembers may be rolled back with the caller's transaction. And an id
    # that nobody else has: this batch comes once.
    batch = Batch(BatchId(secrets.randbits(64), secrets.randbits(63)), [command], now=_now())
    [outcome] = OrmStore(using, conf.mapped()).apply(batch).outcomes
    if outcome.code == "no_such_room":
        raise NoSuchRoomError(f"there is no room {command.room}")
    if outcome.code is not None:
        raise RefusedError(f"room {command.room} refuses this", code=outcome.code)
    return outcome
