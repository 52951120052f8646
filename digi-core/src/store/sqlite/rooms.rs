//! Writes that are no batches: making rooms, raising epochs, purging.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::apply::{commit, find_head, prepare_set_head, raise_above, write_head};
use super::connection::Writer;
use super::error::store_error;
use super::journal::Entry;
use super::overlay;
use super::place;
use super::row::{HEAD, StoredHead, id_range, sql};
use crate::id::{Cursor, MessageId, Millis, RoomId, Seq};
use crate::store::StoreError;
use crate::store::model::{Head, NewRoom};

/// See [`Store::create_room`](crate::store::Store::create_room).
pub(super) fn create(connection: &mut Connection, room: &NewRoom, now: Millis) -> Result<RoomId, StoreError> {
    let transaction = begin(connection)?;
    let next = || transaction.query_row("SELECT coalesce(max(id), 0) + 1 FROM digi_room", [], |row| row.get(0));
    let id = match room.id {
        Some(id) => id.0,
        None => next().map_err(store_error)?,
    };
    if !(1..=RoomId::MAX_OWN).contains(&id) {
        return Err(StoreError::Rejected(format!("room ids lie between 1 and {}, not {id}", RoomId::MAX_OWN)));
    }
    insert(&transaction, id, room, now).map_err(store_error)?.ok_or(StoreError::RoomExists(RoomId(id)))?;
    transaction.commit().map_err(store_error)?;
    Ok(RoomId(id))
}

/// None when there is one already.
fn insert(transaction: &Transaction<'_>, id: i64, room: &NewRoom, now: Millis) -> rusqlite::Result<Option<()>> {
    let now = sql(now.0)?;
    let made = transaction.execute(
        "INSERT INTO digi_room (id, name, kind, created_at) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO NOTHING",
        params![id, room.name, room.kind, now],
    )?;
    if made == 0 {
        return Ok(None);
    }
    transaction.execute(
        "INSERT INTO digi_head (room_id, epoch, last_seq, floor, last_at) VALUES (?1, ?2, 0, 0, ?2)",
        [id, now],
    )?;
    let mut member = transaction.prepare(
        "INSERT OR REPLACE INTO digi_member (room_id, user_key, user_name, role, joined_at) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for (user, name, role) in &room.members {
        member.execute(params![id, user.as_str(), &**name, role.number(), now])?;
    }
    Ok(Some(()))
}

/// See [`Store::raise_epoch`](crate::store::Store::raise_epoch).
pub(super) fn raise(writer: &mut Writer, room: RoomId, seen: Cursor, now: Millis) -> Result<Head, StoreError> {
    let Writer { connection, overlay, .. } = writer;
    let transaction = begin(connection)?;
    let extent = overlay::catch_up(&transaction, overlay).map_err(store_error)?;
    let stored = find_head(&transaction, overlay, room).map_err(store_error)?.ok_or(StoreError::NoSuchRoom(room))?;
    let mut to = stored;
    raise_above(&mut to, seen, now);
    if to != stored {
        sql(to.head.epoch.0).map_err(store_error)?;
        let entry = Entry { heads: vec![(room, to)], messages: Vec::new() };
        commit(transaction, overlay, extent, entry).map_err(store_error)?;
    }
    Ok(to.head)
}

/// See [`Store::raise_all`](crate::store::Store::raise_all).
pub(super) fn raise_all(writer: &mut Writer, now: Millis) -> Result<(), StoreError> {
    let raise = |transaction: &Transaction<'_>| {
        transaction.execute("UPDATE digi_head SET epoch = max(epoch + 1, ?1), floor = last_seq", [sql(now.0)?])
    };
    in_tables(writer, |transaction| raise(transaction).map(drop).map_err(store_error))
}

/// See [`Store::purge`](crate::store::Store::purge).
pub(super) fn purge(writer: &mut Writer, room: RoomId, before: Millis) -> Result<u64, StoreError> {
    in_tables(writer, |transaction| {
        let mut stored = locked_head(transaction, room)?;
        let (removed, last) = remove(transaction, room, before).map_err(store_error)?;
        if let Some(last) = last {
            stored.floor = stored.floor.max(last);
            set_head(transaction, room, &stored).map_err(store_error)?;
        }
        Ok(removed)
    })
}

/// Changes the tables themselves, where for the moment everything is.
fn in_tables<T>(
    writer: &mut Writer,
    change: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
) -> Result<T, StoreError> {
    let Writer { connection, overlay, .. } = writer;
    let transaction = begin(connection)?;
    overlay::catch_up(&transaction, overlay).map_err(store_error)?;
    let placed = place::settle(&transaction, &overlay.read()).map_err(store_error)?;
    let changed = change(&transaction)?;
    transaction.commit().map_err(store_error)?;
    overlay.write().trimmed(placed);
    Ok(changed)
}

/// Removes messages and the log up to the last of them; how many they were and where that was.
fn remove(transaction: &Transaction<'_>, room: RoomId, before: Millis) -> rusqlite::Result<(u64, Option<Seq>)> {
    let (first, last) = id_range(room, Seq(1), Seq(u64::MAX));
    // Times never go back in a room, so what is old enough stands in front of the first that is not.
    let kept = transaction
        .query_row(
            "SELECT id FROM digi_message WHERE id BETWEEN ?1 AND ?2 AND created_at >= ?3 ORDER BY id LIMIT 1",
            [first, last, before.0.min(i64::MAX as u64).cast_signed()],
            |row| row.get::<_, i64>(0),
        )
        .optional()?;
    let last = kept.map_or(last, |kept| kept - 1);
    let newest: Option<i64> =
        transaction.query_row("SELECT max(id) FROM digi_message WHERE id BETWEEN ?1 AND ?2", [first, last], |row| {
            row.get(0)
        })?;
    let Some(newest) = newest else { return Ok((0, None)) };
    let removed = transaction.execute("DELETE FROM digi_message WHERE id BETWEEN ?1 AND ?2", [first, newest])?;
    let (_, pos) = MessageId(newest).split_own();
    transaction.execute("DELETE FROM digi_change WHERE room_id = ?1 AND seq <= ?2", [room.0, sql(pos.0)?])?;
    Ok((removed as u64, Some(pos)))
}

fn begin(connection: &mut Connection) -> Result<Transaction<'_>, StoreError> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store_error)
}

fn locked_head(transaction: &Transaction<'_>, room: RoomId) -> Result<StoredHead, StoreError> {
    let read = transaction.prepare_cached(HEAD).and_then(|mut statement| StoredHead::read(&mut statement, room));
    read.map_err(store_error)?.ok_or(StoreError::NoSuchRoom(room))
}

fn set_head(transaction: &Transaction<'_>, room: RoomId, to: &StoredHead) -> rusqlite::Result<()> {
    write_head(&mut prepare_set_head(transaction)?, room, to)
}
