//! Rooms in Microsoft SQL Server or Azure SQL, over `tiberius` and `rustls`.
//!
//! * A batch is one transaction and usually one round trip (`lane`). Batches of different rooms run side by side: rooms
//!   are spread over [`MssqlOptions::lanes`] lanes, each with a connection of its own.
//! * What [`Store::apply`] has reported is committed. An answer that got lost is [`StoreError::Unknown`], and repeating
//!   the batch is safe: `digi_batch` has what became of it.
//! * Reads share [`MssqlOptions::pool`] connections. A request that is cancelled or runs out of time takes its
//!   connection with it.
//! * While the server is away, everything fails at once with [`StoreError::Unavailable`] until it is found again.
//!
//! SQL Server 2017 or later, or Azure SQL; the database at compatibility level 130 or higher and, for reads that don't
//! wait for writes, with `READ_COMMITTED_SNAPSHOT` on. The tables are in `store/schema/mssql/`.

mod connection;
mod failure;
mod lane;
mod options;
mod read;
mod rooms;
mod rows;
mod schema;
mod server;
mod statements;
mod texts;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Mutex;

use super::contract::{Store, StoreError};
use super::model::{Applied, Batch, BatchId, Changes, Head, History, MemberAnswer, NewRoom};
use crate::id::{Cursor, Millis, RoomId, Seq, UserKey};
use connection::Readers;
use failure::{Failure, Kind};
use lane::Lane;
pub use options::{Encrypt, MssqlOptions, Password, Trust};
use rows::{bits, sets, text_or_null};
pub use schema::{SCRIPTS, VERSION_TABLE};
use server::Server;
use statements::Statements;

/// A [`Store`] in SQL Server. Needs a tokio runtime with time and I/O.
pub struct MssqlStore {
    lanes: Vec<Mutex<Lane>>,
    readers: Readers,
    statements: Arc<Statements>,
    schema: String,
}

impl MssqlStore {
    /// A store that connects when it is first asked. [`Store::migrate`] comes next.
    ///
    /// # Errors
    /// `BadUrl` for options that can't be used.
    pub fn open(options: MssqlOptions) -> Result<Self, StoreError> {
        let schema = options.quoted_schema();
        let statements = Arc::new(Statements::new(&schema));
        let (lanes, pool) = (options.lanes.max(1), options.pool.max(1));
        let server = Server::new(options)?;
        let lane = |_| Mutex::new(Lane::new(Arc::clone(&server), Arc::clone(&statements)));
        let lanes = (0..lanes).map(lane).collect();
        let readers = Readers::new(server, pool).map_err(certain)?;
        Ok(Self { lanes, readers, statements, schema })
    }

    /// Opens what a URL names; see [`MssqlOptions::parse`].
    ///
    /// # Errors
    /// `BadUrl`, naming the part.
    pub fn from_url(url: &str) -> Result<Self, StoreError> {
        Self::open(MssqlOptions::parse(url)?)
    }
}

/// What did not happen, or may be asked again.
fn certain(failure: Failure) -> StoreError {
    failure.into_store_error(false)
}

#[async_trait]
impl Store for MssqlStore {
    fn lanes(&self) -> usize {
        self.lanes.len()
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        schema::migrate(&self.readers, &self.schema).await
    }

    async fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        let room = batch.commands.first().map_or(RoomId(0), |command| command.room);
        let lane = &self.lanes[super::lane_of(room, self.lanes.len())];
        lane.lock().await.apply(batch).await
    }

    async fn void(&self, batch: BatchId) -> Result<(), StoreError> {
        let id = (bits(batch.node), bits(batch.number));
        match self.readers.query(&self.statements.void, &[&id.0, &id.1]).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.kind == Kind::Duplicate => {
                let answer = self.readers.query(&self.statements.outcomes, &[&id.0, &id.1]).await;
                let [rows] = answer.and_then(sets).map_err(certain)?;
                match rows.first().map(|row| text_or_null(row, 0)).transpose().map_err(certain)? {
                    Some(None) => Ok(()),
                    Some(Some(_)) => Err(StoreError::Rejected("the batch has been committed".into())),
                    None => Err(StoreError::Unavailable("the batch's row is there and is not".into())),
                }
            }
            Err(failure) => Err(certain(failure)),
        }
    }

    async fn member(&self, room: RoomId, user: &UserKey) -> Result<MemberAnswer, StoreError> {
        let answer = read::member(&self.readers, &self.statements, room, user).await;
        answer.map_err(certain)?.ok_or(StoreError::NoSuchRoom(room))
    }

    async fn changes(&self, room: RoomId, after: Seq, limit: u64) -> Result<Changes, StoreError> {
        let answer = read::changes(&self.readers, &self.statements, room, after, limit).await;
        answer.map_err(certain)?.ok_or(StoreError::NoSuchRoom(room))
    }

    async fn history(&self, room: RoomId, before: Option<Seq>, limit: u32) -> Result<History, StoreError> {
        let answer = read::history(&self.readers, &self.statements, room, before, limit).await;
        answer.map_err(certain)?.ok_or(StoreError::NoSuchRoom(room))
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<(RoomId, Head)>, StoreError> {
        read::heads(&self.readers, &self.statements, rooms).await.map_err(certain)
    }

    async fn raise_epoch(&self, room: RoomId, seen: Cursor, now: Millis) -> Result<Head, StoreError> {
        let raised = rooms::raise(&self.readers, &self.statements, room, seen, now).await;
        raised.map_err(certain)?.ok_or(StoreError::NoSuchRoom(room))
    }

    async fn raise_all(&self, now: Millis) -> Result<(), StoreError> {
        rooms::raise_all(&self.readers, &self.statements, now).await.map_err(certain)
    }

    async fn create_room(&self, room: &NewRoom, now: Millis) -> Result<RoomId, StoreError> {
        rooms::create(&self.readers, &self.statements, room, now).await
    }

    async fn purge(&self, room: RoomId, before: Millis) -> Result<u64, StoreError> {
        let removed = rooms::purge(&self.readers, &self.statements, room, before).await;
        removed.map_err(certain)?.ok_or(StoreError::NoSuchRoom(room))
    }
}
