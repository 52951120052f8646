//! The journal: what a transaction did to messages and heads, as one row that is appended.
//!
//! Rows of one batch scattered over many rooms touch a page each, and pages are what SQLite's commits cost. So a batch
//! appends its messages and heads here, and `place` brings them into their tables in runs. Until then they are in memory
//! too ([`Overlay`](super::overlay::Overlay)), where reads and later batches find them; whoever opens the file anew, and
//! every other process that has it open, reads the journal into its own. An entry says how messages and heads *are*, not
//! what was done to them, so it does no harm to take one in twice or to place it early.
//!
//! A row is a version byte and two lists in [postcard](https://postcard.jamesmunns.com/wire-format)'s form.

use std::borrow::Cow;
use std::sync::Arc;

use rusqlite::types::Type;
use rusqlite::{Connection, Error, Result, ffi};
use serde::{Deserialize, Serialize};

use super::connection::MAX_ROW;
use super::row::StoredHead;
use crate::id::{ClientId, Epoch, MessageId, Millis, RoomId, Seq};
use crate::store::model::{Head, Message};

/// The form of the rows.
const VERSION: u8 = 1;
/// A batch of long texts becomes several rows of about so many bytes.
const PART: usize = 256 << 10;
/// What a message takes beside its texts, at most.
const BESIDE_TEXTS: usize = 256;

const STATE: &str = "SELECT n, (SELECT max(n) FROM digi_journal) FROM digi_placed";
const APPEND: &str = "INSERT INTO digi_journal (n, batch) VALUES (?1, ?2)";
const AFTER: &str = "SELECT n, batch FROM digi_journal WHERE n > ?1 ORDER BY n";
const REMOVE: &str = "DELETE FROM digi_journal WHERE n <= ?1";
const SET_PLACED: &str = "UPDATE digi_placed SET n = ?1";

/// How far the journal goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extent {
    /// Up to here everything is in the tables.
    pub(super) placed: i64,
    /// The last number that was used.
    pub(super) last: i64,
}

impl Extent {
    pub(super) fn read(connection: &Connection) -> Result<Self> {
        let read = |row: &rusqlite::Row<'_>| {
            let (placed, last): (i64, Option<i64>) = (row.get(0)?, row.get(1)?);
            Ok(Self { placed, last: last.unwrap_or_default().max(placed) })
        };
        connection.prepare_cached(STATE)?.query_one([], read)
    }
}

/// What a transaction has changed: the state after it.
#[derive(Default)]
pub(super) struct Entry {
    pub(super) heads: Vec<(RoomId, StoredHead)>,
    pub(super) messages: Vec<Arc<Message>>,
}

#[derive(Serialize, Deserialize)]
struct Part<'a> {
    heads: Vec<HeadRow>,
    #[serde(borrow)]
    messages: Vec<MessageRow<'a>>,
}

#[derive(Serialize, Deserialize)]
struct HeadRow {
    room: i64,
    epoch: u64,
    last_seq: u64,
    floor: u64,
    last_at: u64,
}

#[derive(Serialize, Deserialize)]
struct MessageRow<'a> {
    id: i64,
    #[serde(borrow)]
    sender: Cow<'a, str>,
    #[serde(borrow)]
    sender_name: Cow<'a, str>,
    client_id: Option<&'a str>,
    created_at: u64,
    edited_at: Option<u64>,
    deleted_at: Option<u64>,
    body: Option<&'a str>,
}

impl HeadRow {
    fn of(room: RoomId, StoredHead { head, floor, last_at }: &StoredHead) -> Self {
        Self { room: room.0, epoch: head.epoch.0, last_seq: head.last_seq.0, floor: floor.0, last_at: last_at.0 }
    }

    fn head(&self) -> (RoomId, StoredHead) {
        let head = Head { epoch: Epoch(self.epoch), last_seq: Seq(self.last_seq) };
        (RoomId(self.room), StoredHead { head, floor: Seq(self.floor), last_at: Millis(self.last_at) })
    }
}

impl<'a> MessageRow<'a> {
    fn of(message: &'a Message) -> Self {
        Self {
            id: message.id.0,
            sender: Cow::Borrowed(message.sender.as_str()),
            sender_name: Cow::Borrowed(&message.sender_name),
            client_id: message.client_id.as_ref().map(ClientId::as_str),
            created_at: message.created_at.0,
            edited_at: message.edited_at.map(Millis::get),
            deleted_at: message.deleted_at.map(Millis::get),
            body: message.body.as_deref(),
        }
    }

    fn message(&self) -> Message {
        let id = MessageId(self.id);
        let (room, pos) = id.split_own();
        Message {
            id,
            room,
            pos,
            sender: (&*self.sender).into(),
            sender_name: Arc::from(&*self.sender_name),
            body: self.body.map(Arc::from),
            client_id: self.client_id.and_then(ClientId::new),
            created_at: Millis(self.created_at),
            edited_at: self.edited_at.map(Millis),
            deleted_at: self.deleted_at.map(Millis),
        }
    }
}

/// How many bytes a message takes, about.
pub(super) fn size(message: &Message) -> usize {
    let client_id = message.client_id.as_ref().map_or(0, |id| id.as_str().len());
    let body = message.body.as_ref().map_or(0, |body| body.len());
    BESIDE_TEXTS + message.sender.as_str().len() + message.sender_name.len() + client_id + body
}

/// Refuses what would not fit into a row of its table.
pub(super) fn check(message: &Message) -> Result<()> {
    if size(message) > MAX_ROW as usize {
        let text = "a message is longer than a row may be".to_owned();
        return Err(Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_TOOBIG), Some(text)));
    }
    Ok(())
}

impl Entry {
    pub(super) fn is_empty(&self) -> bool {
        self.heads.is_empty() && self.messages.is_empty()
    }

    /// Appends it behind `last`; the last number that it took.
    pub(super) fn append(&self, connection: &Connection, last: i64) -> Result<i64> {
        let mut append = connection.prepare_cached(APPEND)?;
        let mut heads: Vec<_> = self.heads.iter().map(|(room, head)| HeadRow::of(*room, head)).collect();
        let (mut n, mut rest) = (last, &*self.messages);
        loop {
            let mut bytes = 0;
            let fits = |message: &&Arc<Message>| {
                let first = bytes == 0;
                bytes += size(message);
                first || bytes <= PART
            };
            let (now, later) = rest.split_at(rest.iter().take_while(fits).count());
            let part = Part {
                heads: std::mem::take(&mut heads),
                messages: now.iter().map(|message| MessageRow::of(message)).collect(),
            };
            n += 1;
            append.execute((n, encode(&part)?))?;
            rest = later;
            if rest.is_empty() {
                return Ok(n);
            }
        }
    }
}

fn encode(part: &Part<'_>) -> Result<Vec<u8>> {
    postcard::to_extend(part, vec![VERSION]).map_err(|error| Error::ToSqlConversionFailure(error.into()))
}

fn decode(bytes: &[u8]) -> Result<Entry> {
    let damaged = |why: String| Error::FromSqlConversionFailure(1, Type::Blob, why.into());
    let part: Part<'_> = match bytes.split_first() {
        Some((&VERSION, part)) => postcard::from_bytes(part).map_err(|error| damaged(error.to_string()))?,
        Some((version, _)) => {
            return Err(damaged(format!("the journal has rows in form {version}: it belongs to a newer Digi")));
        }
        None => return Err(damaged("the journal has an empty row".into())),
    };
    Ok(Entry {
        heads: part.heads.iter().map(HeadRow::head).collect(),
        messages: part.messages.iter().map(|row| Arc::new(row.message())).collect(),
    })
}

/// Hands out the entries above a number, in order.
pub(super) fn read_after(connection: &Connection, after: i64, mut take: impl FnMut(i64, Entry)) -> Result<()> {
    let mut read = connection.prepare_cached(AFTER)?;
    let mut rows = read.query([after])?;
    while let Some(row) = rows.next()? {
        take(row.get(0)?, decode(row.get_ref(1)?.as_blob()?)?);
    }
    Ok(())
}

/// Everything up to there is in the tables.
pub(super) fn trim(connection: &Connection, placed: i64) -> Result<()> {
    connection.prepare_cached(REMOVE)?.execute([placed])?;
    connection.prepare_cached(SET_PLACED)?.execute([placed])?;
    Ok(())
}
