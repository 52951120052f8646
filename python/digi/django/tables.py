"""The only place that knows the names of tables and columns: what `OrmStore` reads and writes, as SQL.

Every method is one statement, or one per chunk where the database bounds a statement's parameters. The SQL is what
SQLite, PostgreSQL, MySQL and MariaDB have in common; where they differ, it is here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeAlias

from django.db.backends.base.base import BaseDatabaseWrapper

from digi._digi import Applied, Batch, BatchId, Plan

#: room, epoch, last_seq, floor, last_at
HeadRow: TypeAlias = tuple[int, int, int, int, int]
#: id, sender_key, sender_name, client_id, created_at, edited_at, deleted_at, body
MessageRow: TypeAlias = tuple[int, str, str, "str | None", int, "int | None", "int | None", "str | None"]
Row: TypeAlias = Sequence[Any]

#: Parameters of one statement: below what every database takes (SQLite built long ago: 999).
PARAMETERS = 900
#: Ranges or rooms that one statement asks for.
TERMS = 100
#: The highest place in a room.
LAST_POS = 2**32 - 1
LAST_ROOM = 2**31 - 1

_HEAD = ("room_id", "epoch", "last_seq", "floor", "last_at")
_MESSAGE = ("id", "sender_key", "sender_name", "client_id", "created_at", "edited_at", "deleted_at", "body")
_INSERT = (
    "id",
    "room_id",
    "pos",
    "sender_key",
    "sender_name",
    "client_id",
    "created_at",
    "edited_at",
    "deleted_at",
    "body",
)
_LOG = ("room_id", "seq", "kind", "message_id", "user_key", "at")
_MEMBER = ("room_id", "user_key", "user_name", "role", "joined_at", "read_seq")


def message_ids(room: int, first: int, last: int) -> tuple[int, int]:
    """The ids that messages of a room have from one place to another, both included, for BETWEEN."""
    if not 1 <= room <= LAST_ROOM or first > LAST_POS:
        return 1, 0
    return (room << 32) + first, (room << 32) + min(last, LAST_POS)


def _signed(number: int) -> int:
    """A node's number, which has 64 bits, as the column holds it."""
    return number - 2**64 if number >= 2**63 else number


def _chunks(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    return (rows[start : start + size] for start in range(0, len(rows), size))


class Tables:
    """Digi's own tables over one connection of Django's."""

    def __init__(self, connection: BaseDatabaseWrapper) -> None:
        self._connection = connection
        self._quote = connection.ops.quote_name

    # How SQL is put together and run.

    def _columns(self, names: Iterable[str]) -> str:
        return ", ".join(map(self._quote, names))

    def _where(self, *conditions: str) -> str:
        """`name op` each, and a parameter behind."""
        parts = (condition.split(" ", 1) for condition in conditions)
        return " AND ".join(f"{self._quote(name)} {rest}" for name, rest in parts)

    def _select(
        self, columns: Sequence[str], table: str, where: str, order: str = "", lock: bool = False, limit: int = 0
    ) -> str:
        locking = " FOR UPDATE" if lock and self._connection.features.has_select_for_update else ""
        end = f" LIMIT {limit:d}" if limit else ""
        order = f" ORDER BY {order}" if order else ""
        return f"SELECT {self._columns(columns)} FROM {self._quote(table)} WHERE {where}{order}{end}{locking}"

    def _rows(self, sql: str, parameters: Sequence[Any]) -> list[Any]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())

    def _run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return int(cursor.rowcount)

    def _run_many(self, sql: str, rows: Sequence[Row]) -> None:
        if rows:
            with self._connection.cursor() as cursor:
                cursor.executemany(sql, rows)

    def _insert(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        # Many rows a statement: over a network each one is a round trip.
        one = f"({', '.join(['%s'] * len(columns))})"
        begin = f"INSERT INTO {self._quote(table)} ({self._columns(columns)}) VALUES "
        for chunk in _chunks(rows, PARAMETERS // len(columns)):
            self._run(begin + ", ".join([one] * len(chunk)), [value for row in chunk for value in row])

    def _update(self, table: str, columns: Sequence[str], key: Sequence[str], rows: Sequence[Row]) -> None:
        setting = ", ".join(f"{self._quote(name)} = %s" for name in columns)
        where = self._where(*(f"{name} = %s" for name in key))
        self._run_many(f"UPDATE {self._quote(table)} SET {setting} WHERE {where}", rows)

    def _delete(self, table: str, conditions: Sequence[str], parameters: Sequence[Any]) -> int:
        return self._run(f"DELETE FROM {self._quote(table)} WHERE {self._where(*conditions)}", parameters)

    def _in(self, columns: Sequence[str], table: str, key: str, keys: Sequence[int], lock: bool = False) -> list[Any]:
        rows: list[Any] = []
        for chunk in _chunks(keys, PARAMETERS):
            places = ", ".join(["%s"] * len(chunk))
            rows += self._rows(
                self._select(columns, table, f"{self._quote(key)} IN ({places})", self._quote(key), lock), chunk
            )
        return rows

    def _any(self, columns: Sequence[str], table: str, condition: str, terms: Sequence[Row], rest: str) -> list[Any]:
        """The rows to which one of many conditions applies."""
        rows: list[Any] = []
        for chunk in _chunks(terms, TERMS):
            where = f"({' OR '.join([f'({condition})'] * len(chunk))}){rest}"
            rows += self._rows(self._select(columns, table, where), [value for term in chunk for value in term])
        return rows

    # Ids.

    def room_keys(self, rooms: Iterable[int]) -> dict[int, Any]:
        """The project's keys of rooms, by the numbers that the engine knows."""
        return {room: room for room in rooms}

    def message_id(self, planned: int) -> int:
        """The id under which the world knows the message that the planner knows under `planned`."""
        return planned

    def planned(self, batch: Batch, number: bool = True) -> Batch:  # noqa: ARG002
        """The batch with the ids that the planner knows; `number`: whether what has none yet may get one."""
        return batch

    def shown(self, applied: Applied) -> Applied:
        """The outcomes with the ids that the world knows."""
        return applied

    # Batches.

    def insert_batch(self, batch: BatchId, at: int, outcomes: str | None) -> None:
        """Claims a batch's id; waits for whoever else is about to. Raises `IntegrityError` when it is taken."""
        row = (_signed(batch.node), _signed(batch.number), at, outcomes)
        self._insert("digi_batch", ("node", "number", "at", "outcomes"), [row])

    def set_outcomes(self, batch: BatchId, outcomes: str) -> None:
        """Writes what became of a batch."""
        row = (outcomes, _signed(batch.node), _signed(batch.number))
        self._update("digi_batch", ["outcomes"], ["node", "number"], [row])

    def outcomes(self, batch: BatchId) -> list[str | None]:
        """What became of a batch: nothing when it is not known, None when it is void."""
        where = self._where("node = %s", "number = %s")
        rows = self._rows(self._select(["outcomes"], "digi_batch", where), (_signed(batch.node), _signed(batch.number)))
        return [outcomes for (outcomes,) in rows]

    def forget_batches(self, node: int, below: int) -> None:
        """Removes a process's old batches."""
        if below > 0:
            self._delete("digi_batch", ["node = %s", "number < %s"], (_signed(node), min(below, 2**63 - 1)))

    def forget_batches_before(self, at: int) -> None:
        """Removes the old batches of all processes."""
        self._delete("digi_batch", ["at < %s"], (at,))

    # Heads.

    def heads(self, rooms: Sequence[int], lock: bool = False) -> list[HeadRow]:
        """Heads in ascending order; locked until the end of the transaction if asked for."""
        return self._in(_HEAD, "digi_head", "room_id", rooms, lock)

    def set_heads(self, heads: Sequence[HeadRow]) -> None:
        """Writes heads."""
        self._update("digi_head", _HEAD[1:], _HEAD[:1], [(*head[1:], head[0]) for head in heads])

    def raise_all(self, now: int) -> None:
        """Raises every epoch to above itself and at least to `now`, and closes the log below."""
        epoch, table = self._quote("epoch"), self._quote("digi_head")
        self._run(
            f"UPDATE {table} SET {self._quote('floor')} = {self._quote('last_seq')}, "
            f"{epoch} = CASE WHEN {epoch} + 1 > %s THEN {epoch} + 1 ELSE %s END",
            (now, now),
        )

    # The log.

    def gaps(
        self, gaps: Sequence[tuple[int, int, int]]
    ) -> tuple[list[tuple[int, int, str, str]], list[tuple[int, str]]]:
        """In gaps (room, after, through): the adds with client ids, and whose membership changed."""
        ranges = [message_ids(room, after + 1, through) for room, after, through in gaps]
        given = f" AND {self._quote('client_id')} IS NOT NULL"
        names = ("room_id", "pos", "sender_key", "client_id")
        adds = self._any(names, "digi_message", self._where("id BETWEEN %s AND %s"), ranges, given)
        spans = [(room, after, through) for room, after, through in gaps]
        members = self._any(
            ("room_id", "user_key"),
            "digi_change",
            self._where("room_id = %s", "seq > %s", "seq <= %s"),
            spans,
            f" AND {self._quote('user_key')} IS NOT NULL",
        )
        return [tuple(row) for row in adds], [tuple(row) for row in members]

    def log(self, room: int, after: int, through: int) -> list[Any]:
        """Seq, kind, message_id and user_key of the changes in (after, through] that are no adds, in order."""
        where = self._where("room_id = %s", "seq > %s", "seq <= %s")
        sql = self._select(("seq", "kind", "message_id", "user_key"), "digi_change", where, self._quote("seq"))
        return self._rows(sql, (room, after, through))

    def adopted(self, room: int, after: int, through: int) -> set[int]:  # noqa: ARG002
        """The places of messages that others have written, where others can."""
        return set()

    # Messages.

    def messages(self, ids: Sequence[int]) -> list[MessageRow]:
        """Messages by id."""
        return [tuple(row) for row in self._in(_MESSAGE, "digi_message", "id", ids)]

    def messages_between(self, room: int, after: int, through: int) -> list[MessageRow]:
        """The messages placed in (after, through], in order."""
        sql = self._select(_MESSAGE, "digi_message", self._where("id BETWEEN %s AND %s"), self._quote("id"))
        return [tuple(row) for row in self._rows(sql, message_ids(room, after + 1, through))]

    def newest(self, room: int, before: int, limit: int) -> list[MessageRow]:
        """The newest messages placed before `before`, oldest first."""
        if limit <= 0:
            return []
        where, order = self._where("id BETWEEN %s AND %s"), f"{self._quote('id')} DESC"
        sql = self._select(_MESSAGE, "digi_message", where, order, limit=min(limit, LAST_ROOM))
        return [tuple(row) for row in reversed(self._rows(sql, message_ids(room, 1, before - 1)))]

    def remove_messages(self, room: int, before: int) -> tuple[int, int]:
        """Removes the messages created before a time, and the log up to the last of them: how many, and its place."""
        # Times never go back in a room, so what is old enough stands in front of the first that is not.
        first, last = message_ids(room, 1, LAST_POS)
        key, table = self._quote("id"), self._quote("digi_message")
        where = self._where("id BETWEEN %s AND %s", "created_at >= %s")
        kept = self._rows(self._select(["id"], "digi_message", where, key, limit=1), (first, last, before))
        last = kept[0][0] - 1 if kept else last
        where = self._where("id BETWEEN %s AND %s")
        [(newest,)] = self._rows(f"SELECT MAX({key}) FROM {table} WHERE {where}", (first, last))
        if newest is None:
            return 0, 0
        removed = self._delete("digi_message", ["id BETWEEN %s AND %s"], (first, newest))
        pos = newest & LAST_POS
        self._delete("digi_change", ["room_id = %s", "seq <= %s"], (room, pos))
        return removed, pos

    # Rooms and members.

    def roles(self, asked: Sequence[tuple[int, str]]) -> list[tuple[int, str, int]]:
        """The roles of those who are members."""
        rows: list[Any] = []
        names = ("room_id", "user_key", "role")
        for chunk in _chunks(asked, PARAMETERS // 2):
            terms, parameters = [], []
            for room, pairs in groupby(chunk, itemgetter(0)):
                users = [user for _, user in pairs]
                places = ", ".join(["%s"] * len(users))
                terms.append(f"({self._where('room_id = %s', f'user_key IN ({places})')})")
                parameters += [room, *users]
            # The depth of an expression is bounded as well.
            rows += self._rows(self._select(names, "digi_member", " OR ".join(terms)), parameters)
        return [tuple(row) for row in rows]

    def create_room(
        self,
        id: int,
        name: str,
        kind: str,
        members: Sequence[tuple[str, str, int]],
        now: int,
        key: Any = None,  # noqa: ARG002
    ) -> None:
        """Makes a room. Raises `IntegrityError` when there is one."""
        self._insert("digi_room", ("id", "name", "kind", "created_at"), [(id, name, kind, now)])
        self._insert("digi_head", _HEAD, [(id, now, 0, 0, now)])
        self._insert("digi_member", _MEMBER, [(id, user, called, role, now, 0) for user, called, role in members])

    def next_room(self) -> int:
        """An id above all that are there."""
        [(highest,)] = self._rows(f"SELECT MAX({self._quote('id')}) FROM {self._quote('digi_room')}", ())
        return (highest or 0) + 1

    def write(self, plan: Plan) -> None:
        """Writes what was planned."""
        self._insert("digi_message", _INSERT, plan.inserted)
        updated = [(*rest, message) for message, *rest in plan.updated]
        self._update("digi_message", ("body", "edited_at", "deleted_at"), ["id"], updated)
        self._insert("digi_change", _LOG, plan.log)
        where = self._where("room_id = %s", "user_key = %s")
        self._run_many(f"DELETE FROM {self._quote('digi_member')} WHERE {where}", plan.left)
        new, known = [], []
        for room, user, name, role, at, is_new in plan.joined:
            if is_new:
                new.append((room, user, name, role, at, 0))
            else:
                known.append((name, role, room, user))
        self._insert("digi_member", _MEMBER, new)
        self._update("digi_member", ("user_name", "role"), ("room_id", "user_key"), known)
        self.set_heads(plan.heads)
