"""`Tables` over models of the project's own: its rooms, members and messages, and beside them Digi's heads and log.

To `OrmStore` and the planner a message has the id that it would have in Digi's own table, `room * 2^32 + pos`. Where
the project's keys are whole numbers, the world knows a message by its key, and here the one is turned into the other; a
UUID or a text stays here, and the world knows the id. `digi_log` has a row for every change, adds among them, so that a
message has its place, sender and times whatever columns the project's table has. What others wrote into that table gets
its row, and with it a number, when it is found (`adoption`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Max, QuerySet

from digi._digi import Applied, Batch, Command, Message, Outcome, Plan
from digi.django.adoption import (
    ADDED,
    ADDS,
    ADOPTED,
    DELETED,
    EDITED,
    JOINED,
    LEFT,
    Adopting,
    LogRow,
    to_millis,
    to_moment,
)
from digi.django.mapping import Mapped
from digi.django.models import Log
from digi.django.project_keys import Stored
from digi.django.project_rooms import CHUNK, _text
from digi.django.tables import LAST_POS, LAST_ROOM, MessageRow


class ProjectTables(Adopting):
    """The tables of one transaction, or of one reading."""

    def __init__(self, connection: BaseDatabaseWrapper, mapped: Mapped, known: dict[int, Stored] | None = None) -> None:
        super().__init__(connection, mapped, known)
        #: The project's keys of the messages that have been met, by the ids that the planner knows.
        self._keys: dict[int, Stored] = {}

    # Ids.

    @property
    def _translates(self) -> bool:
        """Whether the world knows messages by the project's keys."""
        return self._mapped.message_key.is_number

    def message_id(self, planned: int) -> int:
        """As in `Tables`."""
        return self._number(planned) if self._translates else planned

    def _number(self, planned: int) -> int:
        key = self._key(planned)
        assert isinstance(key, int)
        return key

    def _key(self, planned: int) -> Stored:
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
                rows += self._adds(room).filter(seq__in=places[start : start + CHUNK]).values_list(*self._add_columns)
        return self._met(rows)

    def _met(self, rows: Iterable[Any]) -> list[Any]:
        found = list(rows)
        self._keys |= {(room << 32) + pos: key for room, pos, key, *_ in found}
        return found

    @property
    def _add_columns(self) -> tuple[str, ...]:
        return ("room_id", "seq", self._id, "user_key", "sender_name", "client_id", "at")

    def _adds(self, room: int) -> QuerySet[Any]:
        return self._all(Log).filter(room_id=room, kind__in=ADDS)

    def planned(self, batch: Batch, number: bool = True) -> Batch:
        """As in `Tables`."""
        keys = {command.message_id for command in batch.commands if command.message_id is not None}
        if not keys or not self._translates:
            return batch
        known = self._numbered(keys)
        if number and (missing := keys - known.keys()):
            rows = self._all(self._mapped.message_model).filter(pk__in=missing)
            rooms = self.room_numbers(set(rows.values_list(self._mapped.room_column, flat=True)) - {None})
            if rooms:
                self.heads(sorted(rooms.values()), lock=True)
                self.number(sorted(rooms.values()), keys=missing)
                known |= self._numbered(missing)
        # No message has the place 0.
        commands = [
            command
            if command.message_id is None
            else _with_id(command, known.get(command.message_id, command.room << 32))
            for command in batch.commands
        ]
        return Batch(batch.id, commands, now=batch.now, known=batch.known)

    def _numbered(self, keys: Iterable[Stored]) -> dict[Any, int]:
        rows = self._all(Log).filter(kind__in=ADDS, **{f"{self._id}__in": list(keys)})
        return {key: (room << 32) + pos for key, room, pos in rows.values_list(self._id, "room_id", "pos")}

    def find(self, key: Any) -> int | None:
        """The planner's id of a message of the project's, if it has one."""
        return next(iter(self._numbered([self._mapped.message_key.stored(key)]).values()), None)

    def find_or_number(self, key: Any) -> int | None:
        """The same; a message that others have written gets its number here. None: there is no such message."""
        rows = self._all(self._mapped.message_model).filter(pk=self._mapped.message_key.stored(key))
        row = rows.values_list("pk", self._mapped.room_column).first()
        if row is None or row[1] is None:
            return None
        # As the database writes it, which may take no notice of capitals.
        stored = self._mapped.message_key.stored(row[0])
        rooms = sorted(self.meet([row[1]]).values())
        self.heads(rooms, lock=True)
        self.number(rooms, keys=[stored])
        return self.find(stored)

    def message_key(self, planned: int) -> Any:
        """The project's key of a message with such an id; None: there is none."""
        self._meet([planned])
        key = self._keys.get(planned)
        return None if key is None else self._mapped.message_key.value(key)

    def shown(self, applied: Applied) -> Applied:
        """As in `Tables`."""
        if not self._translates:
            return applied
        asked = [number for outcome in applied.outcomes if (number := outcome.message_id) not in (None, *self._keys)]
        self._meet([number for number in asked if number is not None])
        return Applied([self._shown(outcome) for outcome in applied.outcomes], applied.heads)

    def _shown(self, outcome: Outcome) -> Outcome:
        kind, message, planned = outcome.kind, outcome.message, outcome.message_id
        if planned is None:
            return outcome
        key = self._keys.get(planned)
        if not isinstance(key, int):
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
        return self._whole(self._met(adds.values_list(*self._add_columns)))

    def newest(self, room: int, before: int, limit: int) -> list[MessageRow]:
        """As in `Tables`."""
        found: list[MessageRow] = []
        # What a column cannot hold, not every Django compares with it.
        before = min(before, LAST_POS + 1)
        # Where somebody else has deleted messages, a page takes more than one look.
        while len(found) < limit and before > 1:
            wanted = min(limit - len(found), LAST_ROOM)
            adds = self._adds(room).filter(seq__lt=before).order_by("-seq").values_list(*self._add_columns)
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

    def _times(self, keys: Sequence[Stored]) -> dict[tuple[Stored, int], int]:
        """When messages were last edited, and deleted."""
        found: dict[tuple[Stored, int], int] = {}
        for start in range(0, len(keys), CHUNK):
            some = {f"{self._id}__in": keys[start : start + CHUNK]}
            log = self._all(Log).filter(kind__in=(EDITED, DELETED), **some)
            for key, kind, at in log.values_list(self._id, "kind").annotate(last=Max("at")):
                found[key, kind] = at
        return found

    def _present(self, keys: Sequence[Stored]) -> dict[Stored, tuple[str, int | None]]:
        """By key: text, and when the project's own column says it was deleted."""
        mapped = self._mapped
        columns = ("pk", mapped.body, *([mapped.deleted_at] if mapped.deleted_at else []))
        found: dict[Stored, tuple[str, int | None]] = {}
        for start in range(0, len(keys), CHUNK):
            rows = self._all(mapped.message_model).filter(pk__in=keys[start : start + CHUNK]).values_list(*columns)
            for key, body, *deleted in rows:
                found[mapped.message_key.stored(key)] = (
                    _text(body),
                    to_millis(deleted[0]) if deleted and deleted[0] else None,
                )
        return found

    def remove_messages(self, room: int, before: int) -> tuple[int, int]:
        """As in `Tables`."""
        kept = self._adds(room).filter(at__gte=before).order_by("seq").values_list("seq", flat=True).first()
        old = self._adds(room) if kept is None else self._adds(room).filter(seq__lt=kept)
        last = old.aggregate(last=Max("seq"))["last"]
        if last is None:
            return 0, 0
        keys = list(old.values_list(self._id, flat=True))
        for start in range(0, len(keys), CHUNK):
            self._all(self._mapped.message_model).filter(pk__in=keys[start : start + CHUNK]).delete()
        self._delete("digi_log", ["room_id = %s", "seq <= %s"], (room, last))
        return len(keys), last

    # Writing.

    def write(self, plan: Plan) -> None:
        """As in `Tables`."""
        log = self._insert_messages(plan)
        for planned, body, edited_at, deleted_at in plan.updated:
            self._change(self._key(planned), body, edited_at, deleted_at)
        for room, seq, kind, message, user, at in plan.log:
            key, pos = (None, None) if message is None else (self._key(message), message & LAST_POS)
            log.append((room, seq, kind, key, pos, user, None, None, at))
        self._insert("digi_log", self._log_columns, log)
        self._write_members(plan)
        self.set_heads(plan.heads)

    def _insert_messages(self, plan: Plan) -> list[LogRow]:
        mapped, rooms = self._mapped, self._room_columns(room for _, room, *_ in plan.inserted)
        log: list[LogRow] = []
        made: list[Any] = []
        for _, room, _, sender, _, _, created_at, edited_at, deleted_at, body in plan.inserted:
            times = {mapped.created_at: created_at, mapped.edited_at: edited_at, mapped.deleted_at: deleted_at}
            given = {name: to_moment(at) for name, at in times.items() if name and at is not None}
            message = mapped.message_model(**{mapped.room_column: rooms[room], self._sender_column(): sender, **given})
            setattr(message, mapped.body, body or "")
            made.append(message)
        if self._connection.features.can_return_rows_from_bulk_insert or not self._translates:
            self._all(mapped.message_model).bulk_create(made)
        else:
            for message in made:
                message.save(using=self._using, force_insert=True)
        gone = []
        for message, row in zip(made, plan.inserted, strict=True):
            planned, room, pos, sender, name, client_id, created_at, _, deleted_at, _ = row
            key = self._keys[planned] = mapped.message_key.stored(message.pk)
            log.append((room, pos, ADDED, key, pos, sender, name, client_id, created_at))
            if deleted_at is not None:
                gone.append(message.pk)
        if gone and not mapped.deleted_at:
            self._all(mapped.message_model).filter(pk__in=gone).delete()
        return log

    def _change(self, key: Stored, body: str | None, edited_at: int | None, deleted_at: int | None) -> None:
        mapped, row = self._mapped, self._all(self._mapped.message_model).filter(pk=key)
        if deleted_at is not None:
            if mapped.deleted_at:
                row.update(**{mapped.deleted_at: to_moment(deleted_at)})
            else:
                row.delete()
            return
        changes: dict[str, Any] = {mapped.body: body or ""}
        if mapped.edited_at and edited_at is not None:
            changes[mapped.edited_at] = to_moment(edited_at)
        row.update(**changes)


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
