//! The trait that a backend implements, and what it may fail with.

use std::hash::{DefaultHasher, Hash, Hasher};

use async_trait::async_trait;

use super::model::{Applied, Batch, BatchId, Changes, Head, History, MemberAnswer, NewRoom};
use crate::error::{Code, Error};
use crate::id::{Cursor, Millis, RoomId, Seq, UserKey};

/// A database that holds rooms. The guarantees, each of them a test of `store_suite!`:
///
/// 1. [`apply`](Store::apply) is atomic: all of a batch's accepted commands are committed, or none. When it returns
///    `Ok`, they are on stable storage (as far as the backend has one).
/// 2. The numbers of a room's accepted changes are 1, 2, 3 … without gaps, also under concurrent callers and
///    processes. Refused, duplicate and unchanged commands take none.
/// 3. Reads are linearizable: `head` in an answer is read before the rows and is never older than a batch whose
///    `apply` returned before the read began. So a replica behind the primary is not good enough.
/// 4. Times of a room never go back: a change's time is the later of the batch's `now` and the last change's.
/// 5. Repeating a batch under the same [`BatchId`] after [`StoreError::Unknown`] is safe and gives the outcomes of the
///    one execution that was committed.
///
/// Calls may come concurrently; a backend bounds what it runs at once. A future that is dropped may or may not have
/// taken effect.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Creates or updates the schema; does nothing when it is up to date; safe when several nodes start at once.
    ///
    /// # Errors
    /// `Schema` when a newer version of Digi made it.
    async fn migrate(&self) -> Result<(), StoreError>;

    /// How many batches the store carries out side by side, at least 1. Asked once, when an engine is built: the engine
    /// then has one batch per lane under way, and in it only rooms of that lane, as [`lane_of`] says. (Others who call
    /// [`apply`](Store::apply) may mix rooms.) Several pay where a transaction is mostly waiting for a network.
    fn lanes(&self) -> usize {
        1
    }

    /// Carries out a batch in one transaction:
    ///
    /// * the heads of its rooms are locked in ascending order; where a head lies below what `known` says was seen, the
    ///   data was restored: epoch, `last_seq` and floor become those of [`raised`](super::model::raised) first;
    /// * per command, in order: the room exists; the user is a member, the sender, or a moderator (not asked under
    ///   [`Authority::Host`](super::model::Authority::Host)); an `Add` whose `client_id` the sender has used within the room's last
    ///   [`LOG_WINDOW`](super::model::LOG_WINDOW) changes is a `Duplicate`, whoever stored the first; texts containing
    ///   NUL are refused with `bad_body`, a room that has used up its numbers with `room_full`;
    /// * only what is accepted takes a number and is written.
    ///
    /// The engine waits for the answer however long it takes: a backend that can lose its answer bounds the wait itself
    /// and says `Unknown`. Senders wait for it, and for one more try: five seconds are a good bound.
    ///
    /// # Errors
    /// `Unavailable` and `Full`: not committed. `Unknown`: perhaps committed; repeat the same batch. `Rejected`: not
    /// committed, and the batch as it is never will be, because one of its commands cannot be stored.
    async fn apply(&self, batch: &Batch) -> Result<Applied, StoreError>;

    /// Makes sure that a batch which has not been committed never will be, even if an earlier attempt is still on its
    /// way. Stores whose errors are always definite need not do anything.
    ///
    /// # Errors
    /// As [`Store::apply`]. `Rejected` when it has been committed after all.
    async fn void(&self, batch: BatchId) -> Result<(), StoreError> {
        let _ = batch;
        Ok(())
    }

    /// A user's membership, and the head read before it.
    ///
    /// # Errors
    /// `NoSuchRoom`, `Unavailable`.
    async fn member(&self, room: RoomId, user: &UserKey) -> Result<MemberAnswer, StoreError>;

    /// The log after a number: the head is read first, then the present state of every message that changed in
    /// `(after, through]`, one row each, and every membership change, where `through` is the head or `after + limit`
    /// if that is less. Rows come in order of `seq`, the last change that they stand for; messages that were purged
    /// have no row.
    ///
    /// # Errors
    /// `NoSuchRoom`, `Unavailable`.
    async fn changes(&self, room: RoomId, after: Seq, limit: u64) -> Result<Changes, StoreError>;

    /// The newest `limit` messages placed before `before` (or the newest of all), oldest first, tombstones included.
    ///
    /// # Errors
    /// `NoSuchRoom`, `Unavailable`.
    async fn history(&self, room: RoomId, before: Option<Seq>, limit: u32) -> Result<History, StoreError>;

    /// The heads of many rooms; rooms that do not exist are left out.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<(RoomId, Head)>, StoreError>;

    /// A number that changes whenever another process may have changed anything: while it stays the same, heads need
    /// not be compared. None when the backend has nothing that cheap.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn change_marker(&self) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }

    /// Finishes what it does behind its answers, if anything, so that others find the tables as they are. Asked when an
    /// engine is closed; nothing is lost without it.
    ///
    /// # Errors
    /// `Unavailable`, `Full`: it is done later.
    async fn settle(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// If the stored head lies below `seen`, raises the epoch as [`raised`](super::model::raised) says, under the
    /// head's lock; gives the head after.
    ///
    /// # Errors
    /// `NoSuchRoom`, `Unavailable`.
    async fn raise_epoch(&self, room: RoomId, seen: Cursor, now: Millis) -> Result<Head, StoreError>;

    /// Raises the epoch of every room, whatever was seen: for the operator who has restored a backup.
    ///
    /// # Errors
    /// `Unavailable`.
    async fn raise_all(&self, now: Millis) -> Result<(), StoreError>;

    /// Makes a room with its first members; its head stands at 0, in epoch `now`.
    ///
    /// # Errors
    /// `RoomExists`, `Unavailable`; `Rejected` for an id out of range.
    async fn create_room(&self, room: &NewRoom, now: Millis) -> Result<RoomId, StoreError>;

    /// Removes the messages created before a time, and the log up to the last of them; the floor moves there. The
    /// numbering goes on. Gives the number of messages removed.
    ///
    /// # Errors
    /// `NoSuchRoom`, `Unavailable`.
    async fn purge(&self, room: RoomId, before: Millis) -> Result<u64, StoreError>;
}

/// The lane, counted from 0, in which a room's commands are stored where there are so many lanes. The engine and the
/// store ask this same function. It may change between versions of Digi.
pub fn lane_of(room: RoomId, lanes: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    room.hash(&mut hasher);
    (hasher.finish() % lanes.max(1) as u64) as usize
}

/// Why a store could not do what it was asked. The text says which part and what to do; it names no secrets and no
/// message.
#[non_exhaustive]
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// Not done; later it may work.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// Not done: no space left.
    #[error("the store is full: {0}")]
    Full(String),
    /// Perhaps done: the answer to the commit was lost.
    #[error("it is unknown whether the store has committed: {0}")]
    Unknown(String),
    /// Not done, and repeating it does not help.
    #[error("the store rejects this: {0}")]
    Rejected(String),
    /// There is no such room.
    #[error("there is no room {0}")]
    NoSuchRoom(RoomId),
    /// There is a room with that id.
    #[error("there is a room {0} already")]
    RoomExists(RoomId),
    /// The schema is not one that this version works on.
    #[error("the store's schema does not fit: {0}")]
    Schema(String),
    /// Another copy of SQLite in this process has the file open.
    #[error("{0}")]
    FileInUse(String),
    /// The URL or one of its options is wrong.
    #[error("{0}")]
    BadUrl(String),
}

impl StoreError {
    /// The code that stands for it in frames and results.
    pub fn code(&self) -> Code {
        match self {
            Self::Unavailable(_) | Self::Unknown(_) => Code::StoreUnavailable,
            Self::Full(_) => Code::StoreFull,
            Self::Rejected(_) => Code::StoreRejected,
            Self::NoSuchRoom(_) => Code::NoSuchRoom,
            Self::RoomExists(_) => Code::RoomExists,
            Self::Schema(_) => Code::Schema,
            Self::FileInUse(_) => Code::FileInUse,
            Self::BadUrl(_) => Code::BadUrl,
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        error.code().with(error.to_string())
    }
}
