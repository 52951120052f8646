"""The rooms and members of `ProjectTables`: the project's own models.

To the engine a room is a number. Where the project's keys are UUIDs or texts, each room gets one when Digi first meets
it, out of the whole range by chance: so processes that meet different rooms don't wait for each other, and a link whose
room a restored backup doesn't have leads nowhere, and not into the next room that is met.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any

from django.db import IntegrityError, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import AutoField, Max, QuerySet

from digi._digi import Plan
from digi.django.mapping import Mapped
from digi.django.models import Head, RoomKey
from digi.django.project_keys import Stored
from digi.django.tables import LAST_ROOM, HeadRow, Tables
from digi.errors import NoSuchRoomError, StoreRejectedError, StoreUnavailableError

#: Keys that one query names.
CHUNK = 500
#: Rooms' keys that are remembered.
KEPT_KEYS = 10_000
#: How often a number is looked for that no other room has.
TRIES = 20

_HEAD = ("room_id", "epoch", "last_seq", "floor", "last_at")


class ProjectRooms(Tables):
    """The rooms' tables; `known`: keys of rooms by number, as other transactions have found them."""

    def __init__(self, connection: BaseDatabaseWrapper, mapped: Mapped, known: dict[int, Stored] | None = None) -> None:
        super().__init__(connection)
        self._using = connection.alias
        self._mapped = mapped
        self._known_rooms: dict[int, Stored] = {} if known is None else known

    def _all(self, model: Any) -> QuerySet[Any]:
        return QuerySet(model, using=self._using)

    def number(self, rooms: Sequence[int], keys: Iterable[Stored] | None = None) -> int:
        """Gives messages their numbers; see `Adopting`."""
        raise NotImplementedError

    # Numbers and keys.

    def room_keys(self, rooms: Iterable[int]) -> dict[int, Any]:
        """As in `Tables`."""
        found = self._stored_keys(rooms)
        return {room: self._mapped.room_key.value(key) for room, key in found.items()}

    def _stored_keys(self, rooms: Iterable[int]) -> dict[int, Stored]:
        """The project's keys of rooms, as they stand in Digi's tables."""
        if self._mapped.room_key.is_number:
            return {room: room for room in rooms}
        rooms = set(rooms)
        missing = [room for room in rooms if room not in self._known_rooms]
        if missing and len(self._known_rooms) + len(missing) > KEPT_KEYS:
            self._known_rooms.clear()
            missing = list(rooms)
        for start in range(0, len(missing), CHUNK):
            rows = self._all(RoomKey).filter(room_id__in=missing[start : start + CHUNK])
            self._known_rooms |= dict(rows.values_list("room_id", "host_key"))
        return {room: self._known_rooms[room] for room in rooms if room in self._known_rooms}

    def room_numbers(self, keys: Iterable[Any], lock: bool = False) -> dict[Any, int]:
        """The numbers of rooms that Digi has met, by the project's keys. With `lock`, as they are now, whatever this
        transaction has seen before.
        """
        if self._mapped.room_key.is_number:
            return {key: key for key in keys}
        stored = {self._mapped.room_key.stored(key): key for key in keys}
        found: dict[Any, int] = {}
        texts = list(stored)
        for start in range(0, len(texts), CHUNK):
            rows = self._all(RoomKey).filter(host_key__in=texts[start : start + CHUNK])
            if lock and self._connection.features.has_select_for_update:
                rows = rows.select_for_update()
            found |= {stored[text]: room for text, room in rows.values_list("host_key", "room_id")}
        return found

    def meet(self, keys: Sequence[Any]) -> dict[Any, int]:
        """The numbers of the project's rooms with these keys, where there are such. Those that Digi meets for the first
        time get them here, and their heads, and their messages theirs.
        """
        found = self.room_numbers(keys)
        if self._mapped.room_key.is_number:
            present = {row[0] for row in self.heads(sorted(found), lock=True)}
            return {key: room for key, room in found.items() if room in present}
        missing = [key for key in keys if key not in found]
        for start in range(0, len(missing), CHUNK):
            some = {self._mapped.room_key.stored(key): key for key in missing[start : start + CHUNK]}
            rooms = self._all(self._mapped.room_model).filter(pk__in=list(some))
            for exact in rooms.values_list("pk", flat=True):
                # The database may fold what is upper or lower case, and has the last word on how it is written.
                found[some.get(self._mapped.room_key.stored(exact), exact)] = self._give_number(exact)
        if len(keys) == 1 and found and keys[0] not in found:
            found[keys[0]] = next(iter(found.values()))
        return found

    def _give_number(self, key: Any) -> int:
        stored, now = self._mapped.room_key.stored(key), _now()
        known = self.room_numbers([key])
        for _ in range(TRIES):
            if known:
                return known[key]
            room = self.next_room()
            try:
                # Whoever meets the room at the same time waits here.
                with transaction.atomic(using=self._using):
                    self._insert("digi_room_key", ("host_key", "room_id"), [(stored, room)])
                    self._insert("digi_head", _HEAD, [(room, now, 0, 0, 0)])
            except IntegrityError:
                # Another process was first, or another room has the number.
                known = self.room_numbers([key], lock=True)
                continue
            self.number([room])
            return room
        raise StoreUnavailableError("other rooms had every number that was tried")

    # Heads.

    def heads(self, rooms: Sequence[int], lock: bool = False) -> list[HeadRow]:
        """As in `Tables`; with `lock`, a room of the project's that Digi meets for the first time gets its head here,
        and its messages their numbers.
        """
        found = super().heads(rooms, lock)
        missing = set(rooms) - {row[0] for row in found}
        if not (lock and missing):
            return found
        keys = self._stored_keys(room for room in missing if 1 <= room <= LAST_ROOM)
        rows = self._all(self._mapped.room_model).filter(pk__in=list(keys.values())).values_list("pk", flat=True)
        present = {self._mapped.room_key.stored(key) for key in rows}
        new = sorted(room for room, key in keys.items() if key in present)
        if not new:
            return found
        now = _now()
        heads = [Head(room_id=room, epoch=now, last_seq=0, floor=0, last_at=0) for room in new]
        # Another process may have been first; it has numbered the messages, then, by the time the lock is ours.
        self._all(Head).bulk_create(heads, ignore_conflicts=True)
        super().heads(new, lock=True)
        self.number(new)
        return super().heads(rooms, lock=True)

    # Rooms and members.

    def roles(self, asked: Sequence[tuple[int, str]]) -> list[tuple[int, str, int]]:
        """As in `Tables`."""
        keys = self._stored_keys(room for room, _ in asked)
        rooms = {key: room for room, key in keys.items()}
        found: dict[tuple[int, str], int] = {}
        names, stored = list(rooms), self._mapped.room_key.stored
        for start in range(0, len(names), CHUNK):
            for key, user, role in self._roles(names[start : start + CHUNK], [user for _, user in asked]):
                if (room := rooms.get(stored(key))) is not None:
                    found[room, _text(user)] = role
        return [(room, user, found[room, user]) for room, user in asked if (room, user) in found]

    def _roles(self, keys: Sequence[Stored], users: Sequence[str]) -> Iterable[tuple[Any, Any, int]]:
        membership = self._mapped.membership
        if membership is None:
            columns = [_column(self._mapped.room_model, name) for name in self._mapped.members]
            for key, *some in self._all(self._mapped.room_model).filter(pk__in=keys).values_list("pk", *columns):
                yield from ((key, user, 0) for user in some if user is not None)
            return
        room_column = _column(membership.model, membership.room)
        user_column = _column(membership.model, membership.user)
        fitting = [user for user in users if _fits(membership.model, membership.user, user)]
        role = [membership.role] if membership.role else []
        rows = self._all(membership.model).filter(**{f"{room_column}__in": keys, f"{user_column}__in": fitting})
        for key, user, *roles in rows.values_list(room_column, user_column, *role):
            yield key, user, roles[0] if roles else 0

    def create_room(
        self,
        id: int,
        name: str,  # noqa: ARG002
        kind: str,  # noqa: ARG002
        members: Sequence[tuple[str, str, int]],
        now: int,
        key: Any = None,
    ) -> None:
        """As in `Tables`. Name and kind have no place in the project's model; `key`: the project's, where it is not the
        number and the model does not make one.
        """
        room_key = self._mapped.room_key
        given = id if room_key.is_number else key
        made = self._mapped.room_model(**({} if given is None else {"pk": given}))
        # Of a model that extends another one, the other's key.
        is_made = isinstance(room_key.field, AutoField) or getattr(made, room_key.field.attname, made.pk) not in (
            None,
            "",
        )
        if not is_made:
            raise StoreRejectedError(f"a {self._mapped.room_model._meta.label} has to be given its key")
        made.save(using=self._using, force_insert=True)
        if not room_key.is_number:
            self._insert("digi_room_key", ("host_key", "room_id"), [(room_key.stored(made.pk), id)])
        self._insert("digi_head", _HEAD, [(id, now, 0, 0, now)])
        self._add_members([(id, user, role) for user, _, role in members])

    def next_room(self) -> int:
        """As in `Tables`."""
        if not self._mapped.room_key.is_number:
            return secrets.randbelow(LAST_ROOM) + 1
        return (self._all(self._mapped.room_model).aggregate(last=Max("pk"))["last"] or 0) + 1

    def _add_members(self, members: Sequence[tuple[int, str, int]]) -> None:
        if not members:
            return
        membership = self._membership()
        room_column = _column(membership.model, membership.room)
        user_column = _column(membership.model, membership.user)
        keys = self._room_columns(room for room, _, _ in members)
        rows = []
        for room, user, role in members:
            roles = {membership.role: role} if membership.role else {}
            rows.append(membership.model(**{room_column: keys[room], user_column: user, **roles}))
        self._all(membership.model).bulk_create(rows)

    def _room_columns(self, rooms: Iterable[int]) -> dict[int, Any]:
        """What stands in columns that lead to rooms."""
        rooms = set(rooms)
        keys = self.room_keys(rooms)
        if missing := rooms - keys.keys():
            raise NoSuchRoomError(f"there is no room {min(missing)}")
        return keys

    def _write_members(self, plan: Plan) -> None:
        if not (plan.left or plan.joined):
            return
        membership = self._membership()
        room_column = _column(membership.model, membership.room)
        user_column = _column(membership.model, membership.user)
        keys = self._room_columns([room for room, _ in plan.left] + [room for room, *_ in plan.joined])
        for room, user in plan.left:
            self._all(membership.model).filter(**{room_column: keys[room], user_column: user}).delete()
        self._add_members([(room, user, role) for room, user, _, role, _, is_new in plan.joined if is_new])
        if membership.role:
            for room, user, _, role, _, is_new in plan.joined:
                if not is_new:
                    rows = self._all(membership.model).filter(**{room_column: keys[room], user_column: user})
                    rows.update(**{membership.role: role})

    def _membership(self) -> Any:
        if self._mapped.membership is None:
            raise StoreRejectedError(f"who is in a {self._mapped.room_model._meta.label} is the project's to say")
        return self._mapped.membership


def _column(model: Any, name: str) -> str:
    """What sets and gives a field's plain value: of a foreign key, the key."""
    attname: str = model._meta.get_field(name).attname
    return attname


def _fits(model: Any, name: str, value: str) -> bool:
    """Whether a user's key is one that the field can hold."""
    try:
        model._meta.get_field(name).to_python(value)
    except Exception:
        return False
    return True


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _now() -> int:
    return time.time_ns() // 1_000_000
