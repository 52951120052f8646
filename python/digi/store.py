"""What a store of one's own looks like: a class with these methods, given to `digi.Engine(store=...)`.

A store holds rooms. Its methods are plain functions that may block: Digi calls those that write (`migrate`, `apply`,
`void`, `change_marker`, `raise_epoch`, `raise_all`, `create_room`, `purge`) one after the other in a thread of their
own, and those that read (`member`, `changes`, `history`, `heads`) in two others. So a store needs no locks of its own
for writing, and may keep one database connection per thread.

What it guarantees, each of it a test of the suite in `digi.testing`:

1. `apply` is atomic: all of a batch's accepted commands are committed, or none. When it returns, they are on stable
   storage (as far as the backend has one).
2. The numbers of a room's accepted changes are 1, 2, 3 ... without gaps, also under concurrent callers and processes.
   Refused, duplicate and unchanged commands take none.
3. Reads are linearizable: `head` in an answer is read before the rows and is never older than a batch whose `apply`
   returned before the read began. So a replica behind the primary is not good enough.
4. Times of a room never go back: a change's time is the later of the batch's `now` and the last change's.
5. Repeating a batch under the same id after `StoreUnknownError` is safe and gives the outcomes of the one execution
   that was committed.

What it cannot do, it says by an exception of `digi.errors`: `StoreUnavailableError` (not done, later it may work),
`StoreUnknownError` (perhaps done), `StoreFullError`, `StoreRejectedError` (not done, and repeating it does not help),
`NoSuchRoomError`, `RoomExistsError`. Any other exception is logged; out of `apply` and `void` it counts as
`StoreUnknownError`, and the batch is tried again under its id, otherwise as `StoreUnavailableError`.

All times are milliseconds since 1970-01-01T00:00:00Z, all numbers of changes and epochs below 2^63.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from digi._digi import Applied, Batch, BatchId, Changes, Head, History, MemberAnswer, NewRoom


@runtime_checkable
class Store(Protocol):
    """A database that holds rooms.

    It may also have a method `release()` without arguments: Digi calls it in each of its threads when that ends, for
    closing what was opened there.
    """

    def migrate(self) -> None:
        """Create or update the schema; do nothing when it is up to date; safe when several processes start at once.

        Raises `ConfigError` when a newer version made it, or when somebody else has to migrate it first.
        """

    def apply(self, batch: Batch) -> Applied:
        """Carry out a batch in one transaction.

        The heads of its rooms are locked in ascending order. Where a head lies below what `batch.known` says was seen,
        the data was restored: epoch, number and floor are raised first, as `Planner.raised` says.

        Then, per command, in order: the room exists; the user is a member, the sender or a moderator (not asked when
        `is_host`); an `add` whose `client_id` the sender has used within the room's last 1,000 changes is a duplicate,
        whoever stored the first; texts with U+0000 are refused (`bad_body`), and so is what needs a number in a room
        that has used up its numbers (`room_full`). Only what is accepted takes a number and is written.

        `digi.Planner` takes all of these decisions; a store that uses it only reads and writes rows.

        Digi waits for the answer however long it takes. Raises `StoreUnavailableError`, `StoreFullError`: not
        committed. `StoreUnknownError`: perhaps committed; the same batch comes again. `StoreRejectedError`: not
        committed, and the batch as it is never will be, because one of its commands cannot be stored.
        """

    def void(self, batch_id: BatchId) -> None:
        """Make sure that a batch which has not been committed never will be, even if an earlier try is on its way.

        A store whose errors are always definite need not do anything. Raises `StoreRejectedError` when it has been
        committed after all; otherwise as `apply`.
        """

    def member(self, room: int, user: str) -> MemberAnswer:
        """A user's membership, and the head read before it. Raises `NoSuchRoomError`."""

    def changes(self, room: int, after: int, limit: int) -> Changes:
        """The log after a number. Raises `NoSuchRoomError`.

        The head is read first, then the present state of every message that changed in `(after, through]`, one row
        each, and every membership change, where `through` is the head or `after + limit` if that is less. Rows come in
        order of `seq`, the last change that they stand for; messages that were purged have no row. `after` and `limit`
        may be as large as 2^64 - 1.
        """

    def history(self, room: int, before: int | None, limit: int) -> History:
        """The newest `limit` messages placed before `before` (or the newest of all), oldest first, with tombstones.

        Raises `NoSuchRoomError`. `before` may be as large as 2^64 - 1.
        """

    def heads(self, rooms: Sequence[int]) -> list[tuple[int, int, int]]:
        """Room, epoch and last number of many rooms; those that do not exist are left out."""

    def change_marker(self) -> int | None:
        """A number that changes whenever another process may have changed anything; None where there is none so cheap.

        While it stays the same, heads are not compared.
        """

    def raise_epoch(self, room: int, seen: tuple[int, int], now: int) -> Head:
        """If the stored head lies below `seen` (epoch, number), raise it under the head's lock; give the head after.

        Raises `NoSuchRoomError`.
        """

    def raise_all(self, now: int) -> None:
        """Raise the epoch of every room, whatever was seen: for the operator who has restored a backup."""

    def create_room(self, room: NewRoom, now: int) -> int:
        """Make a room with its first members; its head stands at 0, in epoch `now`. Gives its id.

        Raises `RoomExistsError`; `StoreRejectedError` for an id out of range (1 to 2^31 - 1).
        """

    def purge(self, room: int, before: int) -> int:
        """Remove the messages created before a time, and the log up to the last of them; the floor moves there.

        The numbering goes on. Gives the number of messages removed. Raises `NoSuchRoomError`.
        """
