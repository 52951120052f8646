//! What is read: each answer out of one snapshot, the head first.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::apply::find_role;
use super::overlay::Unplaced;
use super::row::{self, HEAD, StoredHead, id_range, kind, message_columns, sql};
use crate::id::{MessageId, RoomId, Seq, UserKey};
use crate::store::model::{Change, ChangeRow, Changes, Head, History, MemberAnswer, MemberOp, Membership, Message};

const LOG: &str = "SELECT seq, kind, message_id, user_key FROM digi_change \
                   WHERE room_id = ?1 AND seq > ?2 AND seq <= ?3 ORDER BY seq";
const BETWEEN: &str =
    concat!("SELECT ", message_columns!(), " FROM digi_message WHERE id BETWEEN ?1 AND ?2 ORDER BY id");
const ONE: &str = concat!("SELECT ", message_columns!(), " FROM digi_message WHERE id = ?1");
const NEWEST: &str =
    concat!("SELECT ", message_columns!(), " FROM digi_message WHERE id BETWEEN ?1 AND ?2 ORDER BY id DESC LIMIT ?3");

/// An answer, or none when there is no such room.
type Answer<T> = rusqlite::Result<Option<T>>;

/// See [`Store::member`](crate::store::Store::member). `unplaced` is the room's head, here as everywhere if the overlay
/// has one.
pub(super) fn member(
    connection: &Connection,
    unplaced: Option<StoredHead>,
    room: RoomId,
    user: &UserKey,
) -> Answer<MemberAnswer> {
    let Some(StoredHead { head, .. }) = head(connection, unplaced, room)? else { return Ok(None) };
    let membership = find_role(connection, room, user)?.map(|role| Membership { role });
    Ok(Some(MemberAnswer { membership, head }))
}

/// See [`Store::changes`](crate::store::Store::changes).
pub(super) fn changes(
    connection: &Connection,
    unplaced: Option<Arc<Unplaced>>,
    room: RoomId,
    after: Seq,
    limit: u64,
) -> Answer<Changes> {
    let unplaced = unplaced.unwrap_or_default();
    let Some(StoredHead { head, floor, .. }) = head(connection, unplaced.head(), room)? else { return Ok(None) };
    let through = Seq(after.0.saturating_add(limit)).min(head.last_seq);
    let mut rows = Vec::new();
    if after < through {
        let mut last_change = HashMap::new();
        let mut log = connection.prepare_cached(LOG)?;
        let mut logged = log.query([room.0, sql(after.0)?, sql(through.0)?])?;
        while let Some(row) = logged.next()? {
            let seq = Seq(row::number(row, 0)?);
            let op = match row.get(1)? {
                kind::JOINED => MemberOp::Joined,
                kind::LEFT => MemberOp::Left,
                _ => {
                    last_change.insert(MessageId(row.get(2)?), seq);
                    continue;
                }
            };
            let member = row::text(row, 3)?.into();
            rows.push(ChangeRow { seq, change: Change::Member { op, member } });
        }
        let (first, last) = id_range(room, after.next(), through);
        let mut between = connection.prepare_cached(BETWEEN)?;
        let placed = between.query_map([first, last], row::message)?;
        for message in with(placed, &unplaced, (first, last))? {
            let seq = last_change.remove(&message.id).unwrap_or(message.pos);
            rows.push(ChangeRow { seq, change: Change::Message(message) });
        }
        // What is left was added before; when it was purged since, there is nothing to tell.
        let mut one = connection.prepare_cached(ONE)?;
        for (id, seq) in last_change {
            let message = match unplaced.message(id) {
                Some(message) => Some(message.clone()),
                None => one.query_row([id.0], row::message).optional()?,
            };
            rows.extend(message.map(|message| ChangeRow { seq, change: Change::Message(message) }));
        }
        rows.sort_unstable_by_key(|row| row.seq);
    }
    Ok(Some(Changes { head, floor, through, rows }))
}

/// See [`Store::history`](crate::store::Store::history).
pub(super) fn history(
    connection: &Connection,
    unplaced: Option<Arc<Unplaced>>,
    room: RoomId,
    before: Option<Seq>,
    limit: u32,
) -> Answer<History> {
    let unplaced = unplaced.unwrap_or_default();
    let Some(StoredHead { head, .. }) = head(connection, unplaced.head(), room)? else { return Ok(None) };
    let last = before.map_or(u64::MAX, |before| before.0.saturating_sub(1));
    let (first, last) = id_range(room, Seq(1), Seq(last));
    let mut placed = connection.prepare_cached(NEWEST)?;
    let placed = placed.query_map([first, last, limit.into()], row::message)?;
    let mut messages = with(placed, &unplaced, (first, last))?;
    // Of the table's and the overlay's newest, the newest.
    messages.drain(..messages.len().saturating_sub(limit as usize));
    Ok(Some(History { head, messages }))
}

/// See [`Store::heads`](crate::store::Store::heads). `unplaced` has one for each of the rooms.
pub(super) fn heads(
    connection: &Connection,
    rooms: &[RoomId],
    unplaced: Vec<Option<StoredHead>>,
) -> rusqlite::Result<Vec<(RoomId, Head)>> {
    let mut statement = connection.prepare_cached(HEAD)?;
    let mut heads = Vec::with_capacity(rooms.len());
    for (room, unplaced) in rooms.iter().zip(unplaced) {
        let stored = match unplaced {
            None => StoredHead::read(&mut statement, *room)?,
            found => found,
        };
        heads.extend(stored.map(|stored| (*room, stored.head)));
    }
    Ok(heads)
}

fn head(connection: &Connection, unplaced: Option<StoredHead>, room: RoomId) -> Answer<StoredHead> {
    match unplaced {
        None => StoredHead::read(&mut *connection.prepare_cached(HEAD)?, room),
        found => Ok(found),
    }
}

/// Messages out of the table, and those of the overlay in that range, which are the later state, in order.
fn with(
    placed: impl Iterator<Item = rusqlite::Result<Message>>,
    unplaced: &Unplaced,
    range: (i64, i64),
) -> rusqlite::Result<Vec<Message>> {
    let mut messages: BTreeMap<MessageId, Message> = BTreeMap::new();
    for message in placed {
        let message = message?;
        messages.insert(message.id, message);
    }
    for message in unplaced.between(range) {
        messages.insert(message.id, message.clone());
    }
    Ok(messages.into_values().collect())
}
