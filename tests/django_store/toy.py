"""A store in a few Python containers, as a host might begin with."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from threading import Lock
from typing import Any

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
    Planner,
)
from digi.errors import NoSuchRoomError, RoomExistsError, StoreRejectedError

ROLES = {"member": 0, "moderator": 1}


class ToyStore:
    """Follows `digi.Store`. `fail_in` names a step of `apply` that raises once."""

    def __init__(self, tables: dict[str, dict[Any, Any]] | None = None, lock: Lock | None = None) -> None:
        names = ("heads", "members", "messages", "log", "batches")
        self.tables: dict[str, dict[Any, Any]] = {name: {} for name in names} if tables is None else tables
        self.lock = lock or Lock()
        self.planner = Planner()
        self.released = 0
        self.fail_in = ""

    def migrate(self) -> None:
        pass

    def _step(self, name: str) -> None:
        if self.fail_in == name:
            self.fail_in = ""
            raise OSError(f"the disk is gone in {name}")

    def apply(self, batch: Batch) -> Applied:
        with self.lock:
            return self._committed(batch)

    def _committed(self, batch: Batch) -> Applied:
        key = (batch.id.node, batch.id.number)
        if key in self.tables["batches"]:
            if (record := self.tables["batches"][key]) is None:
                raise StoreRejectedError("made void")
            return Planner.replay(batch, record)
        before = deepcopy(self.tables)
        try:
            applied = self._apply(batch)
        except BaseException:
            self.planner.rolled_back()
            self.tables.update(before)
            raise
        self.planner.committed()
        self._step("after")
        return applied

    def _apply(self, batch: Batch) -> Applied:
        heads, members, messages, log, batches = self.tables.values()
        rooms = self.planner.begin(batch)
        gaps = self.planner.lock([(room, *heads[room]) for room in rooms if room in heads])
        adds, changed = [], []
        for room, after, through in gaps:
            first, last = (room << 32) + after, (room << 32) + through
            found = (row for row in messages.values() if first < row[0] <= last and row[3])
            adds += [(room, row[0] & 0xFFFF_FFFF, row[1], row[3]) for row in found]
            changed += [(room, row[4]) for (of, seq), row in log.items() if of == room and after < seq and row[4]]
        roles, wanted = self.planner.note(adds, changed)
        known = [(*key, members[key]) for key in roles if key in members]
        plan = self.planner.decide(known, [messages[key] for key in wanted if key in messages])
        for key, _, _, *rest in plan.inserted:
            messages[key] = (key, *rest)
        self._step("middle")
        for key, body, edited_at, deleted_at in plan.updated:
            messages[key] = (*messages[key][:5], edited_at, deleted_at, body)
        log.update({row[:2]: row for row in plan.log})
        for membership in plan.left:
            del members[membership]
        members.update({(room, user): role for room, user, _, role, _, _ in plan.joined})
        heads.update({row[0]: row[1:] for row in plan.heads})
        batches[(batch.id.node, batch.id.number)] = plan.record
        return plan.applied

    def void(self, batch_id: BatchId) -> None:
        if self.tables["batches"].setdefault((batch_id.node, batch_id.number), None) is not None:
            raise StoreRejectedError("committed")

    def _head(self, room: int) -> tuple[int, int, int, int]:
        if room not in self.tables["heads"]:
            raise NoSuchRoomError(f"no room {room}")
        head: tuple[int, int, int, int] = self.tables["heads"][room]
        return head

    def member(self, room: int, user: str) -> MemberAnswer:
        head = Head(*self._head(room)[:2])
        role = self.tables["members"].get((room, user))
        return MemberAnswer(head, None if role is None else "moderator" if role else "member")

    def changes(self, room: int, after: int, limit: int) -> Changes:
        epoch, last_seq, floor, _ = self._head(room)
        through = min(after + limit, last_seq)
        last: dict[int, int] = {}
        rows = []
        for message in self._messages(room):
            if after < message.pos <= through:
                last[message.id] = message.pos
        for (of, seq), (_, _, kind, message_id, user, _) in sorted(self.tables["log"].items()):
            if of == room and after < seq <= through:
                if user is None:
                    last[message_id] = seq
                else:
                    rows.append(ChangeRow.member(seq, "joined" if kind == 3 else "left", user))
        rows += [ChangeRow.changed(last[message.id], message) for message in self._messages(room) if message.id in last]
        return Changes(Head(epoch, last_seq), floor, through, sorted(rows, key=lambda row: row.seq))

    def _messages(self, room: int) -> list[Message]:
        names = ("id", "sender", "sender_name", "client_id", "created_at", "edited_at", "deleted_at", "body")
        rows = (row for key, row in sorted(self.tables["messages"].items()) if key >> 32 == room)
        return [Message(room=room, pos=row[0] & 0xFFFF_FFFF, **dict(zip(names, row, strict=True))) for row in rows]

    def history(self, room: int, before: int | None, limit: int) -> History:
        head = Head(*self._head(room)[:2])
        messages = [message for message in self._messages(room) if before is None or message.pos < before]
        return History(head, messages[max(0, len(messages) - limit) :])

    def heads(self, rooms: Sequence[int]) -> list[tuple[int, int, int]]:
        return [(room, *self._head(room)[:2]) for room in rooms if room in self.tables["heads"]]

    def change_marker(self) -> int | None:
        return None

    def raise_epoch(self, room: int, seen: tuple[int, int], now: int) -> Head:
        self.tables["heads"][room] = Planner.raised((room, *self._head(room)), seen, now)[1:]
        return Head(*self._head(room)[:2])

    def raise_all(self, now: int) -> None:
        for room, (epoch, last_seq, _, last_at) in self.tables["heads"].items():
            self.tables["heads"][room] = (max(epoch + 1, now), last_seq, last_seq, last_at)

    def create_room(self, room: NewRoom, now: int) -> int:
        number = max(self.tables["heads"], default=0) + 1 if room.id is None else room.id
        if not 1 <= number < 2**31:
            raise StoreRejectedError("out of range")
        if number in self.tables["heads"]:
            raise RoomExistsError(f"room {number}")
        self.tables["heads"][number] = (now, 0, 0, now)
        self.tables["members"].update({(number, user): ROLES[role] for user, _, role in room.members})
        return number

    def purge(self, room: int, before: int) -> int:
        epoch, last_seq, floor, last_at = self._head(room)
        old = []
        for message in self._messages(room):
            if message.created_at >= before:
                break
            old.append(message)
        for message in old:
            del self.tables["messages"][message.id]
        if old:
            last = old[-1].pos
            for key in [key for key in self.tables["log"] if key[0] == room and key[1] <= last]:
                del self.tables["log"][key]
            self.tables["heads"][room] = (epoch, last_seq, max(floor, last), last_at)
        return len(old)

    def release(self) -> None:
        self.released += 1
