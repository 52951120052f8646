"""Digi's store over a database of the Django project, through Django's own connections.

One transaction per batch. What becomes of a command is decided by `digi.Planner`, the same code as behind every store;
what tables and columns there are is known to `digi.django.tables`. Here is when what is read and written, and what an
error of the database means.

On SQLite the tables are those of Digi's native store, which must not have the file open in the same process: two copies
of SQLite in one process remove each other's file locks. On SQL Server the native store keeps the rooms, beside Django's
connections; this one refuses (`digi.django.engine` chooses).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

from django.db import Error, IntegrityError, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from digi._digi import (
    Applied,
    Batch,
    BatchId,
    ChangeRow,
    Changes,
    Head,
    History,
    MemberAnswer,
    Message,
    NewRoom,
    Plan,
    Planner,
)
from digi.django import signals
from digi.django.failures import Lost, as_store_error, has_given_way, schema_error
from digi.django.mapping import Mapped
from digi.django.mssql import is_sql_server
from digi.django.project_keys import Stored
from digi.django.project_tables import ProjectTables
from digi.django.schema import LOG_TABLE, ROOM_KEY_TABLE, TABLES
from digi.django.sqlite import beginning, marker, prepare, refuse_memory, refuse_unplaced
from digi.django.tables import LAST_POS, LAST_ROOM, HeadRow, MessageRow, Tables
from digi.errors import (
    ConfigError,
    NoSuchRoomError,
    RoomExistsError,
    StoreRejectedError,
    StoreUnavailableError,
    StoreUnknownError,
)

T = TypeVar("T")

#: What the columns hold at most.
HIGHEST = 2**63 - 1
ROLES = {"member": 0, "moderator": 1}
ROLE_NAMES = {0: "member", 1: "moderator"}
EDITED, DELETED, JOINED, LEFT = 1, 2, 3, 4

#: After so many batches the old ones are forgotten: those of this process but the newest, all after an hour.
FORGET_EVERY = 256
KEPT_BATCHES = 1_000
KEPT_MS = 3_600_000
#: How often a transaction is begun again that had to give way or met a closed connection.
TRIES = 4
#: With DEBUG Django keeps every statement, and no request ends here that would forget them.
LOGGED_QUERIES = 100
#: How often an id is looked for that no other process has taken in between.
ROOM_TRIES = 20


class _RepeatedError(Exception):
    """The batch is known."""


class OrmStore:
    """A `digi.Store` in the database `using` of the settings' DATABASES, in Digi's own tables or over models of the
    project's (`mapped`). `others_show`: what others write there they show to their pages themselves.
    """

    def __init__(self, using: str = "default", mapped: Mapped | None = None, *, others_show: bool = False) -> None:
        if is_sql_server(using):
            raise ConfigError(
                f"the database {using!r} is SQL Server, where Digi's native store keeps the rooms: use "
                "digi.django.engine.get_engine() or digi.django.rooms",
                code="config",
                number=160,
            )
        self.using = using
        self._mapped = mapped
        self._others_show = others_show
        self._planner = Planner()
        #: Whether an engine has it, and its calls come in threads of their own.
        self._is_an_engines = False
        #: Of the last look at what is new in the project's own table.
        self._mark = 0
        #: Keys of the project's rooms, by number.
        self._rooms: dict[int, Stored] = {}

    def __repr__(self) -> str:
        return f"OrmStore({self.using!r})"

    # Connections and transactions.

    @property
    def _connection(self) -> BaseDatabaseWrapper:
        """The present thread's connection, ready for Digi."""
        return connections[self.using]

    def _tables(self, connection: BaseDatabaseWrapper) -> Tables:
        return Tables(connection) if self._mapped is None else ProjectTables(connection, self._mapped, self._rooms)

    def _write(self, work: Callable[[Tables], T]) -> T:
        """Runs `work` in a transaction, or in the one that the caller is in."""
        return self._attempt(lambda connection: self._transact(connection, work))

    def _attempt(self, run: Callable[[BaseDatabaseWrapper], T]) -> T:
        connection = self._connection
        if connection.in_atomic_block:
            # What failed is the caller's to roll back, and the connection is the caller's.
            try:
                return run(connection)
            except (Error, OverflowError, ValueError) as error:
                raise as_store_error(connection, error) from error
        if self._is_an_engines and len(connection.queries_log) > LOGGED_QUERIES:
            connection.queries_log.clear()
        for _ in range(TRIES):
            before = connection.connection
            try:
                return self._once(connection, run)
            except StoreUnavailableError as unavailable:
                # Neither a connection that was closed while nothing was asked nor having had to give way to another
                # transaction is a reason to refuse what comes next.
                was_closed = before not in (None, connection.connection)
                if isinstance(unavailable, StoreUnknownError) or not (was_closed or has_given_way(unavailable)):
                    raise
        return self._once(connection, run)

    def _once(self, connection: BaseDatabaseWrapper, run: Callable[[BaseDatabaseWrapper], T]) -> T:
        try:
            return run(connection)
        except (Error, OverflowError, ValueError, Lost) as error:
            if connection.connection is None or not connection.is_usable():
                # The next call makes one; where Django has noticed by itself, it has done so already.
                connection.close()
            if isinstance(error, Lost):
                raise error.meaning from error.__cause__
            raise as_store_error(connection, error) from error

    def _transact(self, connection: BaseDatabaseWrapper, work: Callable[[Tables], T]) -> T:
        is_outermost = not connection.in_atomic_block
        if connection.vendor == "sqlite" and is_outermost:
            prepare(connection)
        committing = False
        try:
            with beginning(connection, "IMMEDIATE"), transaction.atomic(using=self.using):
                if connection.vendor == "sqlite":
                    refuse_unplaced(connection)
                done = work(self._tables(connection))
                committing = True
        except Error as error:
            if committing and is_outermost:
                raise Lost(as_store_error(connection, error, committing=True)) from error
            raise
        return done

    def _read(self, work: Callable[[Tables], T]) -> T:
        def run(connection: BaseDatabaseWrapper) -> T:
            if connection.vendor == "sqlite":
                # One snapshot: there a transaction costs nothing.
                with beginning(connection, None), transaction.atomic(using=self.using):
                    return work(self._tables(connection))
            return work(self._tables(connection))

        return self._attempt(run)

    # What others write into the project's own tables.

    def _of_room(self, room: int, read: Callable[[Tables], T]) -> T:
        """Reads; a room of the project's that Digi has not met yet gets its head first."""
        try:
            return self._read(read)
        except NoSuchRoomError:
            if self._mapped is None:
                raise
        self._write(lambda tables: tables.heads([room], lock=True))
        return self._read(read)

    def _number_recent(self, room: int) -> None:
        """Before somebody enters a room."""
        if self._read(lambda tables: isinstance(tables, ProjectTables) and tables.has_recent_without_number(room)):
            self.number([room])

    def _number_new(self, rooms: Sequence[int]) -> None:
        """When rooms are looked after."""

        def find(tables: Tables) -> tuple[list[int], int]:
            return tables.with_new(rooms, self._mark) if isinstance(tables, ProjectTables) else ([], 0)

        found, mark = self._read(find)
        if found:
            self.number(found)
        self._mark = mark

    def number(self, rooms: Sequence[int]) -> int:
        """Gives messages that others have written into the project's own table their numbers: how many."""

        def write(tables: Tables) -> int:
            if not isinstance(tables, ProjectTables):
                return 0
            tables.heads(rooms, lock=True)
            tables.number(rooms)
            return tables.numbered

        return self._write(write)

    def adopt(self, keys: Sequence[Any]) -> int:
        """The same for rooms by the project's keys, whether Digi has met them or not."""
        return self._write(lambda tables: tables.adopt(keys) if isinstance(tables, ProjectTables) else 0)

    # From the project's keys to what the engine knows, and back.

    def room_number(self, key: Any) -> int:
        """The number of a room of the project's, which gets one if it has none. Raises `NoSuchRoomError`."""

        def read(tables: Tables) -> dict[Any, int]:
            return tables.room_numbers([key]) if isinstance(tables, ProjectTables) else {key: key}

        def write(tables: Tables) -> dict[Any, int]:
            return tables.meet([key]) if isinstance(tables, ProjectTables) else {key: key}

        found = self._read(read) or self._write(write)
        if key not in found:
            raise NoSuchRoomError(f"there is no room {key}")
        return found[key]

    def room_key(self, number: int) -> Any:
        """The project's key of a room with such a number. Raises `NoSuchRoomError`."""
        found = self._read(lambda tables: tables.room_keys([number]))
        if number not in found:
            raise NoSuchRoomError(f"there is no room with the number {number}")
        return found[number]

    def message_id(self, key: Any) -> int | None:
        """The id by which the world knows a message of the project's, which gets one if it has none; None: there is no
        such message.
        """
        if self._mapped is None or self._mapped.message_key.is_number:
            return int(key)
        found = self._read(lambda tables: cast("ProjectTables", tables).find(key))
        return found or self._write(lambda tables: cast("ProjectTables", tables).find_or_number(key))

    def message_key(self, id: int) -> Any:
        """The project's key of a message that the world knows by such an id; None: there is none."""
        if self._mapped is None or self._mapped.message_key.is_number:
            return id
        return self._read(lambda tables: cast("ProjectTables", tables).message_key(id))

    # The methods of `digi.Store`; they are documented there.

    def migrate(self) -> None:
        """Nothing is made here, only looked whether `manage.py migrate` was run."""
        self._is_an_engines = True
        connection = self._connection
        if not connection.settings_dict["AUTOCOMMIT"]:
            raise ConfigError(
                f"the database {self.using!r} has AUTOCOMMIT off: nothing would be committed", code="config", number=160
            )
        try:
            if connection.vendor == "sqlite":
                refuse_memory(connection)
                prepare(connection)
                refuse_unplaced(connection)
            present = set(connection.introspection.table_names())
        except Error as error:
            raise as_store_error(connection, error) from error
        wanted = TABLES if self._mapped is None else (*TABLES, LOG_TABLE, ROOM_KEY_TABLE)
        missing = [table for table in wanted if table not in present]
        if missing:
            raise schema_error(f"the database {self.using!r} has no table {missing[0]}")

    def apply(self, batch: Batch) -> Applied:
        """One transaction: claim the id, lock the heads, read, decide, write."""
        try:
            applied, rooms = self._write(lambda tables: self._apply(tables, batch))
        except _RepeatedError:
            self._planner.rolled_back()
            return self._repeated(batch)
        except BaseException:
            self._planner.rolled_back()
            raise
        self._planner.committed()
        signals.tell(type(self), self.using, rooms, applied.outcomes)
        return applied

    def _apply(self, tables: Tables, batch: Batch) -> tuple[Applied, list[Any]]:
        """What became of the batch, and the room of each command as the project knows it."""
        try:
            tables.insert_batch(batch.id, batch.now, "")
        except IntegrityError as error:
            raise _RepeatedError from error
        plan = self._plan(tables, tables.planned(batch))
        tables.write(plan)
        tables.set_outcomes(batch.id, plan.record)
        if batch.id.number % FORGET_EVERY == 0:
            tables.forget_batches(batch.id.node, batch.id.number - KEPT_BATCHES)
            tables.forget_batches_before(batch.now - KEPT_MS)
        keys = tables.room_keys({command.room for command in batch.commands})
        return tables.shown(plan.applied), [keys.get(command.room) for command in batch.commands]

    def _plan(self, tables: Tables, batch: Batch) -> Plan:
        planner = self._planner
        gaps = planner.lock(tables.heads(planner.begin(batch), lock=True))
        adds, members = tables.gaps(gaps)
        # Who is in a room of the project's may have changed without a word to Digi.
        doubtful = [] if self._mapped is None else [(command.room, command.user) for command in batch.commands]
        roles, messages = planner.note(adds, [*members, *doubtful])
        return planner.decide(tables.roles(roles), tables.messages(messages))

    def _repeated(self, batch: Batch) -> Applied:
        def read(tables: Tables) -> Applied:
            match tables.outcomes(batch.id):
                case [None]:
                    raise StoreRejectedError("the batch was made void")
                case [str(record)]:
                    return tables.shown(Planner.replay(tables.planned(batch, number=False), record))
                case _:
                    raise StoreUnavailableError("the batch's outcomes were removed while it came again")

        return self._read(read)

    def void(self, batch_id: BatchId) -> None:
        """Claims the id, so that no transaction under it can be committed."""

        def claim(tables: Tables) -> None:
            try:
                tables.insert_batch(batch_id, time.time_ns() // 1_000_000, None)
            except IntegrityError as error:
                raise _RepeatedError from error

        try:
            self._write(claim)
        except _RepeatedError:
            if self._read(lambda tables: tables.outcomes(batch_id)) != [None]:
                raise StoreRejectedError("the batch has been committed") from None

    def member(self, room: int, user: str) -> MemberAnswer:
        """The head first, then the membership."""

        def read(tables: Tables) -> MemberAnswer:
            head = _head(_one(tables, room))
            roles = tables.roles([(room, user)])
            found = [role for _, key, role in roles if key == user]
            return MemberAnswer(head, _role_name(found[0]) if found else None)

        self._number_recent(room)
        return self._of_room(room, read)

    def changes(self, room: int, after: int, limit: int) -> Changes:
        """The head first, then the rows, then the floor again where a purge may have come between."""
        return self._of_room(room, lambda tables: self._changes(tables, room, after, limit))

    def _changes(self, tables: Tables, room: int, after: int, limit: int) -> Changes:
        stored = _one(tables, room)
        _, _, last_seq, floor, _ = stored
        through = min(after + limit, last_seq)
        rows: list[ChangeRow] = []
        if after < through:
            changed: dict[int, int] = {}
            for seq, kind, message_id, user in tables.log(room, after, through):
                if kind in (EDITED, DELETED):
                    changed[message_id] = seq
                else:
                    rows.append(ChangeRow.member(seq, "joined" if kind == JOINED else "left", user))
            found = tables.messages_between(room, after, through)
            # Those that were added before; what was purged since has nothing to tell.
            found += tables.messages(sorted(changed.keys() - {row[0] for row in found}))
            # Where others show to their pages what they write, nobody is to see it twice.
            adopted = tables.adopted(room, after, through) if self._others_show else set()
            for row in found:
                pos = row[0] & LAST_POS
                make = ChangeRow.adopted if pos in adopted else ChangeRow.changed
                rows.append(make(changed.get(row[0], pos), _message(tables, row)))
            rows.sort(key=lambda row: row.seq)
            if self._connection.vendor != "sqlite":
                floor = _one(tables, room)[3]
        return Changes(_head(stored), floor, through, rows)

    def history(self, room: int, before: int | None, limit: int) -> History:
        """The head first."""

        def read(tables: Tables) -> History:
            head = _head(_one(tables, room))
            rows = tables.newest(room, LAST_POS + 1 if before is None else before, limit)
            return History(head, [_message(tables, row) for row in rows])

        return self._of_room(room, read)

    def heads(self, rooms: Sequence[int]) -> list[tuple[int, int, int]]:
        """A few statements, however many rooms."""
        self._number_new(rooms)
        found = self._read(lambda tables: tables.heads(rooms))
        return [(room, epoch, last_seq) for room, epoch, last_seq, _, _ in found]

    def change_marker(self) -> int | None:
        """SQLite's `data_version`; other databases have nothing that cheap."""
        connection = self._connection
        return self._attempt(marker) if connection.vendor == "sqlite" else None

    def raise_epoch(self, room: int, seen: tuple[int, int], now: int) -> Head:
        """Under the head's lock."""

        def write(tables: Tables) -> Head:
            stored = _one(tables, room, lock=True)
            to = Planner.raised(stored, seen, now)
            if to != stored:
                tables.set_heads([to])
            return _head(to)

        return self._write(write)

    def raise_all(self, now: int) -> None:
        """One statement."""
        self._write(lambda tables: tables.raise_all(now))

    def create_room(self, room: NewRoom, now: int, key: Any = None) -> int:
        """Where the store chooses the id, it is the next one. `key`: over the project's own tables, where that is not
        the id.
        """
        # The last entry of a user counts, as everywhere.
        members = {user: (user, name, ROLES[role]) for user, name, role in room.members}

        def write(tables: Tables) -> int:
            number = tables.next_room() if room.id is None else room.id
            if not 1 <= number <= LAST_ROOM:
                raise StoreRejectedError(f"room ids lie between 1 and {LAST_ROOM}, not {number}")
            if tables.heads([number]):
                raise _RepeatedError
            try:
                tables.create_room(number, room.name, room.kind, list(members.values()), now, key)
            except IntegrityError as error:
                raise _RepeatedError from error
            return number

        for _ in range(ROOM_TRIES):
            with suppress(_RepeatedError):
                return self._write(write)
            if (given := room.id if key is None else key) is not None:
                raise RoomExistsError(f"there is a room {given} already")
        raise StoreUnavailableError("other processes took every room id that was tried")

    def purge(self, room: int, before: int) -> int:
        """Under the head's lock."""

        def write(tables: Tables) -> int:
            _, epoch, last_seq, floor, last_at = _one(tables, room, lock=True)
            removed, last = tables.remove_messages(room, min(before, HIGHEST))
            if last > floor:
                tables.set_heads([(room, epoch, last_seq, last, last_at)])
            return removed

        return self._write(write)

    def release(self) -> None:
        """The thread ends: its connection is closed."""
        self._connection.close()


def _one(tables: Tables, room: int, lock: bool = False) -> HeadRow:
    heads = tables.heads([room], lock)
    if not heads:
        raise NoSuchRoomError(f"there is no room {room}")
    return tuple(heads[0])  # type: ignore[return-value]


def _head(row: HeadRow) -> Head:
    return Head(row[1], row[2])


def _role_name(role: int) -> Any:
    return ROLE_NAMES.get(role, "member")


def _message(tables: Tables, row: MessageRow) -> Message:
    number, sender, sender_name, client_id, created_at, edited_at, deleted_at, body = row
    return Message(
        id=tables.message_id(number),
        room=number >> 32,
        pos=number & LAST_POS,
        sender=sender,
        sender_name=sender_name,
        body=body,
        client_id=client_id,
        created_at=created_at,
        edited_at=edited_at,
        deleted_at=deleted_at,
    )
