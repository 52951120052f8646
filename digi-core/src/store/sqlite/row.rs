//! Between rows and the model.

use std::sync::Arc;

use rusqlite::types::Type;
use rusqlite::{Error, OptionalExtension, Result, Row, Statement};

use crate::id::{ClientId, Epoch, MessageId, Millis, RoomId, Seq};
use crate::store::model::{Head, Message};

/// The kinds of rows in `digi_change`.
pub(super) mod kind {
    pub(in super::super) const EDITED: i64 = 1;
    pub(in super::super) const DELETED: i64 = 2;
    pub(in super::super) const JOINED: i64 = 3;
    pub(in super::super) const LEFT: i64 = 4;
}

/// The columns of `digi_head` that [`StoredHead::read`] takes.
pub(super) const HEAD: &str = "SELECT epoch, last_seq, floor, last_at FROM digi_head WHERE room_id = ?1";

/// A row of `digi_head`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct StoredHead {
    pub(super) head: Head,
    pub(super) floor: Seq,
    pub(super) last_at: Millis,
}

impl StoredHead {
    /// Runs [`HEAD`].
    pub(super) fn read(statement: &mut Statement<'_>, room: RoomId) -> Result<Option<Self>> {
        let read = |row: &Row<'_>| {
            Ok(Self {
                head: Head { epoch: Epoch(number(row, 0)?), last_seq: Seq(number(row, 1)?) },
                floor: Seq(number(row, 2)?),
                last_at: Millis(number(row, 3)?),
            })
        };
        statement.query_row([room.0], read).optional()
    }
}

/// The columns of `digi_message` in the order of [`message`]; a macro, so that statements are made by `concat!`.
macro_rules! message_columns {
    () => {
        "id, sender_key, sender_name, client_id, created_at, edited_at, deleted_at, body"
    };
}
pub(super) use message_columns;

/// A message out of a row of [`message_columns`].
pub(super) fn message(row: &Row<'_>) -> Result<Message> {
    let id = MessageId(row.get(0)?);
    let (room, pos) = id.split_own();
    let sender: &str = text(row, 1)?;
    let client_id = row.get_ref(3)?.as_str_or_null()?.and_then(ClientId::new);
    Ok(Message {
        id,
        room,
        pos,
        sender: sender.into(),
        sender_name: text(row, 2)?.into(),
        body: row.get_ref(7)?.as_str_or_null()?.map(Arc::from),
        client_id,
        created_at: Millis(number(row, 4)?),
        edited_at: row.get::<_, Option<i64>>(5)?.map(|at| Millis(at.cast_unsigned())),
        deleted_at: row.get::<_, Option<i64>>(6)?.map(|at| Millis(at.cast_unsigned())),
    })
}

/// A text column, borrowed from the row.
pub(super) fn text<'row>(row: &'row Row<'_>, index: usize) -> Result<&'row str> {
    Ok(row.get_ref(index)?.as_str()?)
}

/// A column that holds no negative numbers.
pub(super) fn number(row: &Row<'_>, index: usize) -> Result<u64> {
    let number: i64 = row.get(index)?;
    u64::try_from(number).map_err(|error| Error::FromSqlConversionFailure(index, Type::Integer, error.into()))
}

/// A number as SQLite holds it: up to 2⁶³ − 1.
pub(super) fn sql(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|error| Error::ToSqlConversionFailure(error.into()))
}

/// The ids that the messages of a room have between two places, both included: first and last, for BETWEEN.
pub(super) fn id_range(room: RoomId, from: Seq, to: Seq) -> (i64, i64) {
    let last = Seq(to.0.min(u32::MAX.into()));
    match (MessageId::own(room, from), MessageId::own(room, last)) {
        (Some(first), Some(last)) => (first.0, last.0),
        _ => (1, 0),
    }
}
