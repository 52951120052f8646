//! The embedded store: rooms in one SQLite file.
//!
//! * The write-ahead log is on and `synchronous` is `FULL`: what [`Store::apply`] has reported survives a crash of the
//!   process, of the system and of the power supply, as far as the disk keeps its promises. That holds for placing (see
//!   below), too, though it only moves what is safe already: of a write that failed, Linux says so once and takes the
//!   bytes for written from then on, and a hole in the log below later commits would end them all.
//! * One thread owns the one connection that writes; reads run beside it, each in a snapshot of its own.
//! * Several stores, in this process or in others of the same machine, may have one file open; a network file system is
//!   no place for it. **Never two copies of SQLite in one process on one file**: [`SqliteStore::open`] refuses what is
//!   open already. It cannot see one that comes later.
//! * A batch is appended to a journal, which is what makes it durable, and placed in the tables of messages and heads a
//!   little later: within a tenth of a second where nothing else is to be done, within some seconds under load, and before
//!   the store is closed. Whoever reads the tables with another program sees what has been placed.
//! * A row has at most 1 MiB. A longer text is refused with [`StoreError::Rejected`].
//!
//! The tables are in `store/schema/sqlite/`.

mod apply;
mod connection;
mod error;
mod in_use;
mod journal;
mod options;
mod overlay;
mod place;
mod read;
mod rooms;
mod row;
mod schema;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::RwLock;
use rusqlite::Connection;

use super::contract::{Store, StoreError};
use super::model::{Applied, Batch, Changes, Head, History, MemberAnswer, NewRoom};
use crate::id::{Cursor, Millis, RoomId, Seq, UserKey};
use connection::{Readers, Writer, WriterHandle};
use error::store_error;
use in_use::InUse;
pub use options::SqliteOptions;
use overlay::Overlay;
pub use schema::SCRIPTS;

/// A [`Store`] in a SQLite file. Needs a tokio runtime. Dropping it carries out what is queued and closes the file,
/// which may take as long as a commit.
pub struct SqliteStore {
    writer: WriterHandle,
    readers: Arc<Readers>,
}

impl SqliteStore {
    /// Opens a file, or makes it; its directory has to be there. Blocks for some milliseconds, and up to
    /// [`SqliteOptions::busy_ms`] while another process holds the file. [`Store::migrate`] comes next.
    ///
    /// # Errors
    /// `FileInUse` when something else in this process has the file open: another copy of SQLite, or whatever holds a
    /// descriptor of it, whose closing would remove the file's locks. `BadUrl` when its directory isn't there or
    /// it is one itself, `Unavailable` when it can't be opened.
    pub fn open(path: impl AsRef<Path>, options: &SqliteOptions) -> Result<Self, StoreError> {
        let path = path.as_ref();
        // In full, because SQLite takes some names (`file:…`) for more than a path.
        let path = std::path::absolute(path)
            .map_err(|error| StoreError::Unavailable(format!("cannot open {}: {error}", path.display())))?;
        let wrong = |path: &Path, what| {
            let text = format!("{} {what}: give the database a name in a directory that is there", path.display());
            Err(StoreError::BadUrl(text))
        };
        match path.parent() {
            Some(directory) if !directory.is_dir() => return wrong(directory, "is no directory"),
            _ if path.is_dir() => return wrong(&path, "is a directory"),
            _ => {}
        }
        let file = Arc::new(InUse::claim(&path)?);
        let overlay = Arc::new(RwLock::new(Overlay::new()));
        let writer = WriterHandle::open(&path, options, Arc::clone(&file), Arc::clone(&overlay))?;
        let readers = Arc::new(Readers::open(&path, options, file, overlay)?);
        Ok(Self { writer, readers })
    }

    /// Opens what a URL names: `sqlite:path?max_mb=…&readers=…&busy_ms=…`, all options optional; see
    /// [`SqliteOptions`]. The path ends at the first `?`; it is not percent-decoded.
    ///
    /// # Errors
    /// `BadUrl`, naming the part; and as [`SqliteStore::open`].
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        let (path, options) = options::parse_url(url)?;
        Self::open(path, &options)
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.writer.run(|writer| schema::migrate(&mut writer.connection)).await?;
        // What a process that ended unexpectedly has left in the journal is placed before long.
        self.writer.run(Writer::look).await
    }

    async fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        let batch = batch.clone();
        self.writer.run(move |writer| apply::apply(writer, &batch)).await
    }

    async fn member(&self, room: RoomId, user: &UserKey) -> Result<MemberAnswer, StoreError> {
        let user = user.clone();
        let answer = self
            .readers
            .run(move |overlay| overlay.head(room), move |connection, head| read::member(connection, head, room, &user))
            .await?;
        answer.ok_or(StoreError::NoSuchRoom(room))
    }

    async fn changes(&self, room: RoomId, after: Seq, limit: u64) -> Result<Changes, StoreError> {
        let read = move |connection: &Connection, unplaced| read::changes(connection, unplaced, room, after, limit);
        let answer = self.readers.run(move |overlay| overlay.room(room).cloned(), read).await?;
        answer.ok_or(StoreError::NoSuchRoom(room))
    }

    async fn history(&self, room: RoomId, before: Option<Seq>, limit: u32) -> Result<History, StoreError> {
        let read = move |connection: &Connection, unplaced| read::history(connection, unplaced, room, before, limit);
        let answer = self.readers.run(move |overlay| overlay.room(room).cloned(), read).await?;
        answer.ok_or(StoreError::NoSuchRoom(room))
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<(RoomId, Head)>, StoreError> {
        let rooms: Arc<[RoomId]> = rooms.into();
        let asked = Arc::clone(&rooms);
        let take = move |overlay: &Overlay| asked.iter().map(|room| overlay.head(*room)).collect::<Vec<_>>();
        self.readers.run(take, move |connection, known| read::heads(connection, &rooms, known)).await
    }

    /// SQLite's `data_version` on the writing connection: it changes when another connection has written, in another
    /// process or through another store object, and not by what this store writes.
    async fn change_marker(&self) -> Result<Option<u64>, StoreError> {
        let read = |writer: &mut Writer| {
            let version = writer.connection.pragma_query_value(None, "data_version", |row| row::number(row, 0));
            version.map(Some).map_err(store_error)
        };
        self.writer.run(read).await
    }

    async fn settle(&self) -> Result<(), StoreError> {
        self.writer.run(|writer| writer.place_all().map_err(store_error)).await
    }

    async fn raise_epoch(&self, room: RoomId, seen: Cursor, now: Millis) -> Result<Head, StoreError> {
        self.writer.run(move |writer| rooms::raise(writer, room, seen, now)).await
    }

    async fn raise_all(&self, now: Millis) -> Result<(), StoreError> {
        self.writer.run(move |writer| rooms::raise_all(writer, now)).await
    }

    async fn create_room(&self, room: &NewRoom, now: Millis) -> Result<RoomId, StoreError> {
        let room = room.clone();
        self.writer.run(move |writer| rooms::create(&mut writer.connection, &room, now)).await
    }

    async fn purge(&self, room: RoomId, before: Millis) -> Result<u64, StoreError> {
        self.writer.run(move |writer| rooms::purge(writer, room, before)).await
    }
}
