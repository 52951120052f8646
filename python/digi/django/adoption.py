"""Numbers for the messages that others write into the project's own table.

They are looked for when somebody enters a room and when rooms are compared, which is often: so only among what is new.
Keys that are whole numbers grow, and tell what that is. Other keys do not; then the time does (`created_at`), and where
it is not mapped, all messages of the rooms in question are looked through.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any

from django.conf import settings
from django.db.models import Exists, F, Max, QuerySet

from digi.django.models import Log
from digi.django.project_keys import Stored
from digi.django.project_rooms import CHUNK, ProjectRooms, _column, _now, _text
from digi.django.tables import Tables

ADDED, EDITED, DELETED, JOINED, LEFT, ADOPTED = range(6)
#: Written by Digi, and by others.
ADDS = (ADDED, ADOPTED)
#: Among so many of a room's newest messages, and of the whole table's (or of 500 rooms'), what has no number is looked
#: for by itself. What lies further back, `manage.py digi adopt` finds.
RECENT, RECENT_OF_ALL = 200, 2_000
#: Seconds for which a transaction may have been open, and clocks may differ, where the time tells what is new.
RECENT_TIME = 120

LogRow = tuple[int, int, int, "Stored | None", "int | None", "str | None", "str | None", "str | None", int]


class Adopting(ProjectRooms):
    """The rooms' tables, and the numbers of messages."""

    @property
    def _id(self) -> str:
        """The log's column for the key of a message."""
        return "message_id" if self._mapped.message_key.is_number else "message_key"

    @property
    def _log_columns(self) -> tuple[str, ...]:
        return ("room_id", "seq", "kind", self._id, "pos", "user_key", "sender_name", "client_id", "at")

    #: How many messages this transaction has given their numbers.
    numbered = 0

    def number(self, rooms: Sequence[int], keys: Iterable[Stored] | None = None) -> int:
        """Gives messages that have none their numbers: the rooms', or those with the keys. Under the heads' lock."""
        mapped, count = self._mapped, 0
        times = [mapped.created_at] if mapped.created_at else []
        columns = ("pk", self._sender_column(), mapped.sender_name, *times)
        hosts = self.room_keys(rooms)
        for row in Tables.heads(self, rooms):
            room, epoch, seq, floor, at = row
            if room not in hosts:
                continue
            missing = self._without_number().filter(**{self._mapped.room_column: hosts[room]}).order_by(*self._order())
            if keys is not None:
                missing = missing.filter(pk__in=list(keys))
            log: list[LogRow] = []
            for key, sender, name, *created in missing.values_list(*columns):
                seq += 1
                at = max(at, to_millis(created[0]) if created and created[0] else _now())
                stored = mapped.message_key.stored(key)
                log.append((room, seq, ADOPTED, stored, seq, _text(sender), _text(name), None, at))
            self._insert("digi_log", self._log_columns, log)
            if log:
                self.set_heads([(room, epoch, seq, floor, at)])
            count += len(log)
        self.numbered += count
        return count

    def _order(self) -> list[Any]:
        """Of messages, as they came to be, as far as it can be told."""
        mapped = self._mapped
        if mapped.message_key.is_number or not mapped.created_at:
            return ["pk"]
        return [F(mapped.created_at).asc(nulls_last=True), "pk"]

    def adopt(self, keys: Sequence[Any]) -> int:
        """Gives all messages of the project's rooms with these keys their numbers: how many."""
        rooms = sorted(set(self.meet(keys).values()))
        self.heads(rooms, lock=True)
        self.number(rooms)
        return self.numbered

    def _without_number(self) -> QuerySet[Any]:
        known = self._all(Log).filter(kind__in=ADDS, **{self._id: self._mapped.message_key.in_query()})
        return self._all(self._mapped.message_model).filter(~Exists(known))

    # What is new.

    def with_new(self, rooms: Sequence[int], mark: int) -> tuple[list[int], int]:
        """Which of the rooms have messages without a number, among those that are new since the last look, which has
        given the mark (0: there was none); and the mark for the next one.
        """
        mapped, new = self._mapped, self._all(self._mapped.message_model)
        if mapped.message_key.is_number:
            newest = new.aggregate(newest=Max("pk"))["newest"] or 0
            # Whoever began earlier may commit later.
            new, mark = self._without_number().filter(pk__gt=min(mark or newest, newest) - RECENT_OF_ALL), newest
        elif mapped.created_at:
            since, mark = (mark or _now()) - RECENT_TIME * 1_000, _now()
            new = new.filter(**{f"{mapped.created_at}__gte": to_moment(since)}).order_by(f"-{mapped.created_at}")
        else:
            new = self._without_number()
        found = set[Any]()
        hosts = list(self.room_keys(rooms).values())
        for start in range(0, len(hosts), CHUNK):
            some = new.filter(**{f"{self._mapped.room_column}__in": hosts[start : start + CHUNK]})
            if mapped.message_key.is_number or not mapped.created_at:
                found |= set(some.values_list(self._mapped.room_column, flat=True).distinct())
            else:
                newest_rows = list(some.values_list("pk", self._mapped.room_column)[:RECENT_OF_ALL])
                known = self._with_number(key for key, _ in newest_rows)
                found |= {room for key, room in newest_rows if mapped.message_key.stored(key) not in known}
        return sorted(self.room_numbers(found).values()), mark

    def has_recent_without_number(self, room: int) -> bool:
        """Whether one of a room's newest messages has no number."""
        mapped = self._mapped
        hosts = self.room_keys([room])
        if not hosts:
            return False
        rows = {self._mapped.room_column: hosts[room]}
        if mapped.message_key.is_number:
            newest = self._all(mapped.message_model).filter(**rows).order_by("-pk")
        elif mapped.created_at:
            order = F(mapped.created_at).desc(nulls_last=True)
            newest = self._all(mapped.message_model).filter(**rows).order_by(order)
        else:
            return self._without_number().filter(**rows).exists()
        keys = list(newest.values_list("pk", flat=True)[:RECENT])
        return len(self._with_number(keys)) < len(keys)

    def _with_number(self, keys: Iterable[Any]) -> set[Stored]:
        """Those of the messages that have a number, as their keys stand in the log."""
        stored, found = [self._mapped.message_key.stored(key) for key in keys], set[Stored]()
        for start in range(0, len(stored), CHUNK):
            rows = self._all(Log).filter(kind__in=ADDS, **{f"{self._id}__in": stored[start : start + CHUNK]})
            found |= set(rows.values_list(self._id, flat=True))
        return found

    def _sender_column(self) -> str:
        return _column(self._mapped.message_model, self._mapped.sender)


def to_millis(moment: datetime) -> int:
    """A time out of the project's table."""
    return int(moment.timestamp() * 1000)


def to_moment(millis: int) -> datetime:
    """A time for the project's table."""
    moment = datetime.fromtimestamp(millis / 1000, timezone.utc)
    return moment if settings.USE_TZ else moment.astimezone().replace(tzinfo=None)
