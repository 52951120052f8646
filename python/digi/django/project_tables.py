"""`Tables` over models of the project's own: its rooms, members and messages, and beside them Digi's heads and log.

To `OrmStore` and the planner a message has the id that it would have in Digi's own table, `room * 2^32 + pos`; here it
is turned into the project's key and back. `digi_log` has a row for every change, adds among them, so that a message has
its place, sender and times whatever columns the project's table has. What others wrote into that table gets its row,
and with it a number, when it is found (`number`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from django.conf import settings
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Exists, Max, OuterRef, QuerySet

from digi._digi import Applied, Batch, Command, Message, Outcome, Plan
from digi.django.mapping import Mapped
from digi.django.models import Head, Log
from digi.django.tables import LAST_POS, LAST_ROOM, HeadRow, MessageRow, Tables
from digi.errors import StoreRejectedError

ADDED, EDITED, DELETED, JOINED, LEFT, ADOPTED = range(6)
#: Written by Digi, and by others.
ADDS = (ADDED, ADOPTED)
#: Keys that one query names.
CHUNK = 500
#: Among so many of a room's newest messages, and of the whole table's, what has no number is looked for by itself.
#: What lies further back, `manage.py digi adopt` finds.
RECENT, RECENT_OF_ALL = 200, 2_000

_LOG = ("room_id", "seq", "kind", "message_id", "pos", "user_key", "sender_name", "client_id", "at")
LogRow = tuple[int, int, int, "int | None", "int | None", "str | None", "str | None", "str | None", int]


class ProjectTables(Tables):
    """The tables of one transaction, or of one reading."""

    def __init__(self, connection: BaseDatabaseWrapper, mapped: Mapped) -> None:
        super().__init__(connection)
        self._using = connection.alias
        self._mapped = mapped
        #: The project's keys of the messages that have been met, by the ids that the planner knows.
        self._keys: dict[int, int] = {}

    def _all(self, model: Any) -> QuerySet[Any]:
        return QuerySet(model, using=self._using)

    # Ids.

    def message_id(self, planned: int) -> int:
        """As in `Tables`."""
        return self._key(planned)

    def _key(self, planned: int) -> int:
        if planned not in self._keys:
            self._meet([planned])
        return self._keys[planned]

    def _meet(self, planned: Sequence[int]) -> list[Any]:
        """The adds with these ids: room, pos, key, sender's key and name, client id, time."""
        rows: list[Any] = []
        by_room: dict[int, list[int]] = {}
        for number in planned:
            by_room.setdefault(number >> 32, []).append(number & LAST_POS)
        for room, places in by_room.items():
            for start in range(0, len(places), CHUNK):
                rows += self._adds(room).filter(seq__in=places[start : start + CHUNK]).values_list(*_ADD)
        return self._met(rows)

    def _met(self, rows: Iterable[Any]) -> list[Any]:
        found = list(rows)
        self._keys |= {(room << 32) + pos: key for room, pos, key, *_ in found}
        return found

    def _adds(self, room: int) -> QuerySet[Any]:
        return self._all(Log).filter(room_id=room, kind__in=ADDS)

    def planned(self, batch: Batch, number: bool = True) -> Batch:
        """As in `Tables`."""
        keys = {command.message_id for command in batch.commands if command.message_id is not None}
        if not keys:
            return batch
        known = self._numbered(keys)
        if number and (missing := keys - known.keys()):
            model, room = self._mapped.message_model, self._mapped.room
            rooms = set(self._all(model).filter(pk__in=missing).values_list(f"{room}_id", flat=True))
            if rooms:
                self.heads(sorted(rooms), lock=True)
                self.number(sorted(rooms), keys=missing)
                known |= self._numbered(missing)
        # No message has the place 0.
        commands = [
            command
            if command.message_id is None
            else _with_id(command, known.get(command.message_id, command.room << 32))
            for command in batch.commands
        ]
        return Batch(batch.id, commands, now=batch.now, known=batch.known)

    def _numbered(self, keys: Iterable[int]) -> dict[int, int]:
        rows = (
            self._all(Log).filter(message_id__in=list(keys), kind__in=ADDS).values_list("message_id", "room_id", "pos")
        )
        return {key: (room << 32) + pos for key, room, pos in rows}

    def shown(self, applied: Applied) -> Applied:
        """The outcomes with the project's keys."""
        asked = [number for outcome in applied.outcomes if (number := outcome.message_id) not in (None, *self._keys)]
        self._meet([number for number in asked if number is not None])
        return Applied([self._shown(outcome) for outcome in applied.outcomes], applied.heads)

    def _shown(self, outcome: Outcome) -> Outcome:
        kind, message, planned = outcome.kind, outcome.message, outcome.message_id
        if planned is None:
            return outcome
        key = self._keys.get(planned)
        if key is None:
            return outcome  # A batch of long ago, and the message was purged since.
        if kind == "duplicate":
            return Outcome.duplicate(key, outcome.pos or 0)
        if message is None or kind not in ("added", "edited", "deleted"):
            return outcome
        message = Message(
            id=key,
            room=message.room,
            pos=message.pos,
            sender=message.sender,
            sender_name=message.sender_name,
            body=message.body,
            client_id=message.client_id,
            created_at=message.created_at,
            edited_at=message.edited_at,
            deleted_at=message.deleted_at,
        )
        return Outcome.changed(kind, outcome.epoch or 0, outcome.seq or 0, message)

    # Heads.

    def heads(self, rooms: Sequence[int], lock: bool = False) -> list[HeadRow]:
        """As in `Tables`; with `lock`, a room of the project's that Digi meets for the first time gets its head here,
        and its messages their numbers.
        """
        found = super().heads(rooms, lock)
        missing = set(rooms) - {row[0] for row in found}
        if not (lock and missing):
            return found
        known = self._all(self._mapped.room_model).filter(pk__in=missing, pk__gte=1, pk__lte=LAST_ROOM)
        new = sorted(known.values_list("pk", flat=True))
        if not new:
            return found
        now = _now()
        rows = [Head(room_id=room, epoch=now, last_seq=0, floor=0, last_at=0) for room in new]
        # Another process may have been first; it has numbered the messages, then, by the time the lock is ours.
        self._all(Head).bulk_create(rows, ignore_conflicts=True)
        super().heads(new, lock=True)
        self.number(new)
        return super().heads(rooms, lock=True)

    def number(self, rooms: Sequence[int], keys: Iterable[int] | None = None) -> int:
        """Gives messages that have none their numbers: the rooms', or those with the keys. Under the heads' lock."""
        mapped, count = self._mapped, 0
        times = [mapped.created_at] if mapped.created_at else []
        columns = ("pk", f"{mapped.room}_id", self._sender_column(), mapped.sender_name, *times)
        for row in super().heads(rooms):
            room, epoch, seq, floor, at = row
            missing = self._without_number().filter(**{mapped.room: room}).order_by("pk")
            if keys is not None:
                missing = missing.filter(pk__in=list(keys))
            log: list[LogRow] = []
            for key, _, sender, name, *created in missing.values_list(*columns):
                seq += 1
                at = max(at, _millis(created[0]) if created and created[0] else _now())
                log.append((room, seq, ADOPTED, key, seq, _text(sender), _text(name), None, at))
            self._insert("digi_log", _LOG, log)
            if log:
                self.set_heads([(room, epoch, seq, floor, at)])
            count += len(log)
        return count

    def _without_number(self) -> QuerySet[Any]:
        known = self._all(Log).filter(message_id=OuterRef("pk"), kind__in=ADDS)
        return self._all(self._mapped.message_model).filter(~Exists(known))

    def rooms_to_number(self, rooms: Sequence[int], above: int) -> list[int]:
        """Which of the rooms have messages without a number, among those with a key above `above`."""
        room, found = f"{self._mapped.room}_id", set[int]()
        for start in range(0, len(rooms), CHUNK):
            some = self._without_number().filter(pk__gt=above, **{f"{room}__in": rooms[start : start + CHUNK]})
            found |= set(some.values_list(room, flat=True).distinct())
        return sorted(found)

    def has_recent_without_number(self, room: int) -> bool:
        """Whether one of a room's newest messages has no number."""
        model, name = self._mapped.message_model, self._mapped.room
        newest = self._all(model).filter(**{name: room}).order_by("-pk").values_list("pk", flat=True)[:RECENT]
        keys = list(newest)
        return bool(keys) and self._all(Log).filter(message_id__in=keys, kind__in=ADDS).count() < len(keys)

    def newest_key(self) -> int:
        """The highest key in the project's table; 0 where it is empty."""
        return self._all(self._mapped.message_model).aggregate(newest=Max("pk"))["newest"] or 0

    # The log.

    def gaps(
        self, gaps: Sequence[tuple[int, int, int]]
    ) -> tuple[list[tuple[int, int, str, str]], list[tuple[int, str]]]:
        """As in `Tables`."""
        adds: list[Any] = []
        members: list[Any] = []
        for room, after, through in gaps:
            log = self._all(Log).filter(room_id=room, seq__gt=after, seq__lte=through)
            given = log.filter(kind=ADDED, client_id__isnull=False)
            adds += given.values_list("room_id", "seq", "user_key", "client_id")
            members += log.filter(kind__in=(JOINED, LEFT)).values_list("room_id", "user_key")
        return adds, members

    def log(self, room: int, after: int, through: int) -> list[Any]:
        """As in `Tables`."""
        log = (
            self._all(Log).filter(room_id=room, seq__gt=after, seq__lte=through).exclude(kind__in=ADDS).order_by("seq")
        )
        rows = log.values_list("seq", "kind", "pos", "user_key")
        return [(seq, kind, None if pos is None else (room << 32) + pos, user) for seq, kind, pos, user in rows]

    def adopted(self, room: int, after: int, through: int) -> set[int]:
        """The places of messages that others have written."""
        log = self._all(Log).filter(room_id=room, seq__gt=after, seq__lte=through, kind=ADOPTED)
        return set(log.values_list("seq", flat=True))

    # Messages.

    def messages(self, ids: Sequence[int]) -> list[MessageRow]:
        """As in `Tables`."""
        return self._whole(self._meet(ids))

    def messages_between(self, room: int, after: int, through: int) -> list[MessageRow]:
        """As in `Tables`."""
        adds = self._adds(room).filter(seq__gt=after, seq__lte=through).order_by("seq")
        return self._whole(self._met(adds.values_list(*_ADD)))

    def newest(self, room: int, before: int, limit: int) -> list[MessageRow]:
        """As in `Tables`."""
        found: list[MessageRow] = []
        # What a column cannot hold, not every Django compares with it.
        before = min(before, LAST_POS + 1)
        # Where somebody else has deleted messages, a page takes more than one look.
        while len(found) < limit and before > 1:
            wanted = min(limit - len(found), LAST_ROOM)
            adds = self._adds(room).filter(seq__lt=before).order_by("-seq").values_list(*_ADD)
            met = self._met(reversed(list(adds[:wanted])))
            if not met:
                break
            found = self._whole(met) + found
            before = met[0][1]
        return found

    def _whole(self, adds: Sequence[Any]) -> list[MessageRow]:
        """The messages that were added so, as they are now. Whom somebody else has deleted is not among them."""
        keys = [key for _, _, key, *_ in adds]
        times, present = self._times(keys), self._present(keys)
        rows: list[MessageRow] = []
        for room, pos, key, sender, name, client_id, at in adds:
            deleted_at = times.get((key, DELETED))
            edited_at = times.get((key, EDITED))
            body: str | None = None
            if deleted_at is None:
                if key not in present:
                    continue
                body, deleted_at = present[key]
                body = None if deleted_at is not None else body
            rows.append(((room << 32) + pos, sender or "", name or "", client_id, at, edited_at, deleted_at, body))
        return rows

    def _times(self, keys: Sequence[int]) -> dict[tuple[int, int], int]:
        """When messages were last edited, and deleted."""
        found: dict[tuple[int, int], int] = {}
        for start in range(0, len(keys), CHUNK):
            log = self._all(Log).filter(message_id__in=keys[start : start + CHUNK], kind__in=(EDITED, DELETED))
            for key, kind, at in log.values_list("message_id", "kind").annotate(last=Max("at")):
                found[key, kind] = at
        return found

    def _present(self, keys: Sequence[int]) -> dict[int, tuple[str, int | None]]:
        """By key: text, and when the project's own column says it was deleted."""
        mapped = self._mapped
        columns = ("pk", mapped.body, *([mapped.deleted_at] if mapped.deleted_at else []))
        found: dict[int, tuple[str, int | None]] = {}
        for start in range(0, len(keys), CHUNK):
            rows = self._all(mapped.message_model).filter(pk__in=keys[start : start + CHUNK]).values_list(*columns)
            for key, body, *deleted in rows:
                found[key] = (_text(body), _millis(deleted[0]) if deleted and deleted[0] else None)
        return found

    def remove_messages(self, room: int, before: int) -> tuple[int, int]:
        """As in `Tables`."""
        kept = self._adds(room).filter(at__gte=before).order_by("seq").values_list("seq", flat=True).first()
        old = self._adds(room) if kept is None else self._adds(room).filter(seq__lt=kept)
        last = old.aggregate(last=Max("seq"))["last"]
        if last is None:
            return 0, 0
        keys = list(old.values_list("message_id", flat=True))
        for start in range(0, len(keys), CHUNK):
            self._all(self._mapped.message_model).filter(pk__in=keys[start : start + CHUNK]).delete()
        self._delete("digi_log", ["room_id = %s", "seq <= %s"], (room, last))
        return len(keys), last

    # Rooms and members.

    def roles(self, asked: Sequence[tuple[int, str]]) -> list[tuple[int, str, int]]:
        """As in `Tables`."""
        rooms = sorted({room for room, _ in asked})
        found: dict[tuple[int, str], int] = {}
        membership = self._mapped.membership
        for start in range(0, len(rooms), CHUNK):
            some = rooms[start : start + CHUNK]
            if membership is None:
                columns = [_column(self._mapped.room_model, name) for name in self._mapped.members]
                for room, *users in self._all(self._mapped.room_model).filter(pk__in=some).values_list("pk", *columns):
                    found |= {(room, _text(user)): 0 for user in users if user is not None}
            else:
                room_column = _column(membership.model, membership.room)
                keys = [user for _, user in asked if _fits(membership.model, membership.user, user)]
                user_column = _column(membership.model, membership.user)
                role = [membership.role] if membership.role else []
                rows = self._all(membership.model).filter(**{f"{room_column}__in": some, f"{user_column}__in": keys})
                for room, user, *roles in rows.values_list(room_column, user_column, *role):
                    found[room, _text(user)] = roles[0] if roles else 0
        return [(room, user, found[room, user]) for room, user in asked if (room, user) in found]

    def create_room(
        self,
        id: int,
        name: str,  # noqa: ARG002
        kind: str,  # noqa: ARG002
        members: Sequence[tuple[str, str, int]],
        now: int,
    ) -> None:
        """As in `Tables`. Name and kind have no place in the project's model."""
        self._mapped.room_model(pk=id).save(using=self._using, force_insert=True)
        self._insert("digi_head", ("room_id", "epoch", "last_seq", "floor", "last_at"), [(id, now, 0, 0, now)])
        self._add_members([(id, user, role) for user, _, role in members])

    def next_room(self) -> int:
        """As in `Tables`."""
        return (self._all(self._mapped.room_model).aggregate(last=Max("pk"))["last"] or 0) + 1

    def _add_members(self, members: Sequence[tuple[int, str, int]]) -> None:
        if not members:
            return
        membership = self._mapped.membership
        if membership is None:
            raise StoreRejectedError(f"who is in a {self._mapped.room_model._meta.label} is the project's to say")
        room_column = _column(membership.model, membership.room)
        user_column = _column(membership.model, membership.user)
        rows = []
        for room, user, role in members:
            roles = {membership.role: role} if membership.role else {}
            rows.append(membership.model(**{room_column: room, user_column: user, **roles}))
        self._all(membership.model).bulk_create(rows)

    def write(self, plan: Plan) -> None:
        """As in `Tables`."""
        log = self._insert_messages(plan)
        for planned, body, edited_at, deleted_at in plan.updated:
            self._change(self._key(planned), body, edited_at, deleted_at)
        for room, seq, kind, message, user, at in plan.log:
            key, pos = (None, None) if message is None else (self._key(message), message & LAST_POS)
            log.append((room, seq, kind, key, pos, user, None, None, at))
        self._insert("digi_log", _LOG, log)
        membership = self._mapped.membership
        if membership is None and (plan.left or plan.joined):
            raise StoreRejectedError(f"who is in a {self._mapped.room_model._meta.label} is the project's to say")
        if membership is not None:
            room_column = _column(membership.model, membership.room)
            user_column = _column(membership.model, membership.user)
            for room, user in plan.left:
                self._all(membership.model).filter(**{room_column: room, user_column: user}).delete()
            self._add_members([(room, user, role) for room, user, _, role, _, is_new in plan.joined if is_new])
            if membership.role:
                for room, user, _, role, _, is_new in plan.joined:
                    if not is_new:
                        rows = self._all(membership.model).filter(**{room_column: room, user_column: user})
                        rows.update(**{membership.role: role})
        self.set_heads(plan.heads)

    def _insert_messages(self, plan: Plan) -> list[LogRow]:
        mapped = self._mapped
        log: list[LogRow] = []
        made: list[Any] = []
        for _, room, _, sender, _, _, created_at, edited_at, deleted_at, body in plan.inserted:
            times = {mapped.created_at: created_at, mapped.edited_at: edited_at, mapped.deleted_at: deleted_at}
            given = {name: _moment(at) for name, at in times.items() if name and at is not None}
            message = mapped.message_model(**{f"{mapped.room}_id": room, self._sender_column(): sender, **given})
            setattr(message, mapped.body, body or "")
            made.append(message)
        if self._connection.features.can_return_rows_from_bulk_insert:
            self._all(mapped.message_model).bulk_create(made)
        else:
            for message in made:
                message.save(using=self._using, force_insert=True)
        gone = []
        for message, row in zip(made, plan.inserted, strict=True):
            planned, room, pos, sender, name, client_id, created_at, _, deleted_at, _ = row
            self._keys[planned] = message.pk
            log.append((room, pos, ADDED, message.pk, pos, sender, name, client_id, created_at))
            if deleted_at is not None:
                gone.append(message.pk)
        if gone and not mapped.deleted_at:
            self._all(mapped.message_model).filter(pk__in=gone).delete()
        return log

    def _change(self, key: int, body: str | None, edited_at: int | None, deleted_at: int | None) -> None:
        mapped, row = self._mapped, self._all(self._mapped.message_model).filter(pk=key)
        if deleted_at is not None:
            if mapped.deleted_at:
                row.update(**{mapped.deleted_at: _moment(deleted_at)})
            else:
                row.delete()
            return
        changes: dict[str, Any] = {mapped.body: body or ""}
        if mapped.edited_at and edited_at is not None:
            changes[mapped.edited_at] = _moment(edited_at)
        row.update(**changes)

    def _sender_column(self) -> str:
        return _column(self._mapped.message_model, self._mapped.sender)


_ADD = ("room_id", "seq", "message_id", "user_key", "sender_name", "client_id", "at")


def _with_id(command: Command, planned: int) -> Command:
    """An edit or a deletion, of another id."""
    return Command(
        command.kind,
        command.room,
        command.user,
        command.user_name,
        is_host=command.is_host,
        body=command.body,
        message_id=planned,
    )


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


def _millis(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _moment(millis: int) -> datetime:
    moment = datetime.fromtimestamp(millis / 1000, timezone.utc)
    return moment if settings.USE_TZ else moment.astimezone().replace(tzinfo=None)
