//! The embedded store: rooms in one SQLite file.
//!
//! * The write-ahead log is on and `synchronous` is `FULL`: what [`Store::apply`] has reported survives a crash of the
//!   process, of the system and of the power supply, as far as the disk keeps its promises.
//! * One thread owns the one connection that writes; reads run beside it, each in a snapshot of its own.
//! * Several stores, in this process or in others of the same machine, may have one file open; a network file system is
//!   no place for it. **Never two copies of SQLite in one process on one file**: [`SqliteStore::open`] refuses what is
//!   open already. It cannot see one that comes later.
//! * A row has at most 1 MiB. A longer text is refused with [`StoreError::Rejected`].
//!
//! The tables are in `store/schema/sqlite/`.

mod apply;
mod connection;
mod error;
mod in_use;
mod options;
mod read;
mod rooms;
mod row;
mod schema;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;

use super::contract::{Store, StoreError};
use super::model::{Applied, Batch, Changes, Head, History, MemberAnswer, NewRoom};
use crate::id::{Cursor, Millis, RoomId, Seq, UserKey};
use connection::{Readers, WriterHandle};
use error::store_error;
use in_use::InUse;
pub use options::SqliteOptions;
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
    /// descriptor of it, whose closing would remove the file's locks. `Unavailable` when it can't be opened.
    pub fn open(path: impl AsRef<Path>, options: &SqliteOptions) -> Result<Self, StoreError> {
        let path = path.as_ref();
        // In full, because SQLite takes some names (`file:…`) for more than a path.
        let path = std::path::absolute(path)
            .map_err(|error| StoreError::Unavailable(format!("cannot open {}: {error}", path.display())))?;
        let file = Arc::new(InUse::claim(&path)?);
        let writer = WriterHandle::open(&path, options, Arc::clone(&file))?;
        let readers = Arc::new(Readers::open(&path, options, file)?);
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
        self.writer.run(|writer| schema::migrate(&mut writer.connection)).await
    }

    async fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        let batch = batch.clone();
        self.writer.run(move |writer| apply::apply(&mut writer.connection, &mut writer.recent, &batch)).await
    }

    async fn member(&self, room: RoomId, user: &UserKey) -> Result<MemberAnswer, StoreError> {
        let user = user.clone();
        let answer = self.readers.run(move |connection| read::member(connection, room, &user)).await?;
        answer.ok_or(StoreError::NoSuchRoom(room))
    }

    async fn changes(&self, room: RoomId, after: Seq, limit: u64) -> Result<Changes, StoreError> {
        let answer = self.readers.run(move |connection| read::changes(connection, room, after, limit)).await?;
        answer.ok_or(StoreError::NoSuchRoom(room))
    }

    async fn history(&self, room: RoomId, before: Option<Seq>, limit: u32) -> Result<History, StoreError> {
        let answer = self.readers.run(move |connection| read::history(connection, room, before, limit)).await?;
        answer.ok_or(StoreError::NoSuchRoom(room))
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<(RoomId, Head)>, StoreError> {
        let rooms = rooms.to_vec();
        self.readers.run(move |connection| read::heads(connection, &rooms)).await
    }

    /// SQLite's `data_version` on the writing connection: it changes when another connection has written, in another
    /// process or through another store object, and not by what this store writes.
    async fn change_marker(&self) -> Result<Option<u64>, StoreError> {
        let read = |writer: &mut connection::Writer| {
            let version = writer.connection.pragma_query_value(None, "data_version", |row| row::number(row, 0));
            version.map(Some).map_err(store_error)
        };
        self.writer.run(read).await
    }

    async fn raise_epoch(&self, room: RoomId, seen: Cursor, now: Millis) -> Result<Head, StoreError> {
        self.writer.run(move |writer| rooms::raise(&mut writer.connection, room, seen, now)).await
    }

    async fn raise_all(&self, now: Millis) -> Result<(), StoreError> {
        self.writer.run(move |writer| rooms::raise_all(&mut writer.connection, now)).await
    }

    async fn create_room(&self, room: &NewRoom, now: Millis) -> Result<RoomId, StoreError> {
        let room = room.clone();
        self.writer.run(move |writer| rooms::create(&mut writer.connection, &room, now)).await
    }

    async fn purge(&self, room: RoomId, before: Millis) -> Result<u64, StoreError> {
        self.writer.run(move |writer| rooms::purge(&mut writer.connection, room, before)).await
    }
}
