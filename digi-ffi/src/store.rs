//! A store of the host's: the interface. `transaction` calls the host's functions, `rooms` is what the engine sees.

mod rooms;
#[cfg(test)]
mod tests;
mod transaction;

use std::ffi::c_void;

use digi_core::store::model::{Head, Message, MessageOp, Role};
use digi_core::store::planner::{Logged, RoomHead};
use digi_core::{Epoch, MessageId, Millis, RoomId, Seq, UserKey};

pub(crate) use rooms::HostStore;

use crate::handle::{borrow, digi_text};
use crate::model::{
    DIGI_CHANGE_DELETE, DIGI_CHANGE_EDIT, DIGI_CHANGE_JOIN, DIGI_CHANGE_LEAVE, DIGI_ROW_BATCH, DIGI_ROW_HEAD,
    DIGI_ROW_LOG, DIGI_ROW_MEMBER, DIGI_ROW_MESSAGE, digi_row, role,
};
use crate::result::{DIGI_OK, Failure, bad_argument, digi_error, digi_result, guard};

/// The heads (`DIGI_ROW_HEAD`) of the `rooms`, or of all rooms where `room_count` is 0. In a writing transaction they
/// stay as they are, for everybody else, until it ends.
pub const DIGI_QUERY_HEADS: u32 = 0;
/// The head of the room with the highest id, if there is any room.
pub const DIGI_QUERY_LAST_HEAD: u32 = 1;
/// The membership (`DIGI_ROW_MEMBER`) of `user` in `room`, if there is one.
pub const DIGI_QUERY_MEMBER: u32 = 2;
/// The message (`DIGI_ROW_MESSAGE`) with `message_id`, if there is one.
pub const DIGI_QUERY_MESSAGE: u32 = 3;
/// The messages of `room` with a `pos` above `after` and up to `through`; where `limit` is not 0, only those of them with
/// the `limit` highest. In any order.
pub const DIGI_QUERY_MESSAGES: u32 = 4;
/// The rows of the log (`DIGI_ROW_LOG`) of `room` with a `seq` above `after` and up to `through`. In any order.
pub const DIGI_QUERY_LOG: u32 = 5;
/// The batch (`DIGI_ROW_BATCH`) with `node` and `number`, if there is one.
pub const DIGI_QUERY_BATCH: u32 = 6;

/// What a store is asked; which members a kind uses is told at its `DIGI_QUERY_…`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct digi_query {
    /// `DIGI_QUERY_…`.
    pub kind: u32,
    /// A room's id.
    pub room: i64,
    /// Several, ascending.
    pub rooms: *const i64,
    /// How many they are.
    pub room_count: usize,
    /// A user's key.
    pub user: digi_text,
    /// A message's id.
    pub message_id: i64,
    /// Above this number.
    pub after: u64,
    /// Up to this number; `UINT64_MAX` for no bound.
    pub through: u64,
    /// At most so many; 0: all.
    pub limit: u64,
    /// Names a batch, with `number`.
    pub node: u64,
    /// Names a batch, with `node`.
    pub number: u64,
}

impl digi_query {
    fn new(kind: u32, room: RoomId) -> Self {
        Self {
            kind,
            room: room.0,
            rooms: std::ptr::null(),
            room_count: 0,
            user: digi_text::NONE,
            message_id: 0,
            after: 0,
            through: 0,
            limit: 0,
            node: 0,
            number: 0,
        }
    }

    fn range(kind: u32, room: RoomId, after: Seq, through: Seq) -> Self {
        Self { after: after.0, through: through.0, ..Self::new(kind, room) }
    }
}

/// Where a store puts the rows that it was asked for. Lives until `read` returns.
pub struct digi_answer {
    rows: Vec<Row>,
}

/// A store of the host's own: five functions over tables of six kinds of rows (`DIGI_ROW_…`). What becomes of a command,
/// which numbers it takes and who may do what is Digi's business; a store keeps rows and has transactions.
///
/// All functions answer `DIGI_OK` or one of `DIGI_ERR_STORE_UNAVAILABLE` (whoever waits is told so, and may ask again),
/// `DIGI_ERR_STORE_FULL` and `DIGI_ERR_STORE_REJECTED` (a row can't be stored; Digi finds out whose it is, and refuses that
/// one); any other number counts as the first. Where `digi_answer_add` fails, `read` answers with its result.
///
/// **Transactions.** Each that `begin` gave ends with one call of `commit` or `rollback`, and `commit` ends it also where
/// it fails: release everything there. After an error of `read` or `write` Digi calls `rollback`; after one of `begin`
/// nothing. If `commit` fails, Digi looks by the batch's row whether it was committed after all, and repeats it otherwise,
/// for some seconds: so it is safe not to know.
///
/// **Must hold.** A transaction is all or nothing, and committed is on stable storage, as far as the store has one. The
/// heads that a writing transaction has read nobody else changes before it ends. A reading transaction sees what was
/// committed before it began; it may see of what is committed meanwhile, but not a head without the rows up to it.
///
/// **Threads.** Called in threads of Digi's. Writing transactions of one engine come one at a time, and calls within one
/// transaction one after the other, but not always in the same thread. Reading ones may come beside them and each
/// other. The functions may block, for as long as a request may take. They must not call Digi but for `digi_answer_add`.
#[repr(C)]
pub struct digi_store {
    /// `sizeof(digi_store)`.
    pub size: usize,
    /// The host's own; NULL is fine.
    pub ctx: *mut c_void,
    /// Called once with `ctx` when nothing will use it any more; may be NULL.
    pub destroy: Option<unsafe extern "C" fn(ctx: *mut c_void)>,
    /// Begins a transaction, for writing or only for reading. What is put into `transaction` comes back in the other
    /// calls; NULL is fine.
    pub begin:
        Option<unsafe extern "C" fn(ctx: *mut c_void, writes: bool, transaction: *mut *mut c_void) -> digi_result>,
    /// Commits a transaction that wrote, and ends it, whatever it answers.
    pub commit: Option<unsafe extern "C" fn(ctx: *mut c_void, transaction: *mut c_void) -> digi_result>,
    /// Ends a transaction without its writes, and every one that only read.
    pub rollback: Option<unsafe extern "C" fn(ctx: *mut c_void, transaction: *mut c_void)>,
    /// Answers a query by calling `digi_answer_add` for every row.
    pub read: Option<
        unsafe extern "C" fn(
            ctx: *mut c_void,
            transaction: *mut c_void,
            query: *const digi_query,
            answer: *mut digi_answer,
        ) -> digi_result,
    >,
    /// Writes rows, each in place of one with the same key where there is one; or removes them.
    pub write: Option<
        unsafe extern "C" fn(
            ctx: *mut c_void,
            transaction: *mut c_void,
            rows: *const digi_row,
            count: usize,
        ) -> digi_result,
    >,
}

/// Adds a row to an answer; it is copied.
///
/// Errors: `DIGI_ERR_BAD_ARGUMENT` where the row is none that was asked for, or lacks something.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_answer_add(
    answer: *mut digi_answer,
    row: *const digi_row,
    error: *mut *mut digi_error,
) -> digi_result {
    guard(error, || {
        // SAFETY: the header's conventions; the answer is this thread's while `read` runs.
        unsafe {
            borrow(answer, "answer")?;
            let row = Row::read(borrow(row, "row")?)?;
            (*answer).rows.push(row);
        }
        Ok(DIGI_OK)
    })
}

/// A row that was read.
enum Row {
    Head(RoomId, RoomHead),
    Member(Role),
    Message(Message),
    Log(Seq, Logged),
    Batch(Option<String>),
}

impl Row {
    unsafe fn read(row: &digi_row) -> Result<Self, Failure> {
        let room = RoomId(row.room);
        // SAFETY: the caller's promise.
        unsafe {
            Ok(match row.kind {
                DIGI_ROW_HEAD => {
                    let head = Head { epoch: Epoch(row.epoch), last_seq: Seq(row.seq) };
                    Self::Head(room, RoomHead { head, floor: Seq(row.floor), last_at: Millis(row.at) })
                }
                DIGI_ROW_MEMBER => Self::Member(role(row.role, "row.role")?),
                DIGI_ROW_MESSAGE => Self::Message(row.read_message()?),
                DIGI_ROW_LOG => {
                    let user = || -> Result<UserKey, Failure> { Ok(row.user.needed("row.user")?.into()) };
                    let message = MessageId(row.message_id);
                    let what = match row.change {
                        DIGI_CHANGE_EDIT => Logged::Message(MessageOp::Edited, message),
                        DIGI_CHANGE_DELETE => Logged::Message(MessageOp::Deleted, message),
                        DIGI_CHANGE_JOIN => Logged::Joined(user()?),
                        DIGI_CHANGE_LEAVE => Logged::Left(user()?),
                        _ => return Err(bad_argument("row.change", "it is none that stands in the log")),
                    };
                    Self::Log(Seq(row.seq), what)
                }
                DIGI_ROW_BATCH => Self::Batch(row.text.get("row.text")?.map(str::to_owned)),
                _ => return Err(bad_argument("row.kind", "it is none that is asked for")),
            })
        }
    }
}

impl Row {
    fn head(self) -> Option<(RoomId, RoomHead)> {
        if let Self::Head(room, head) = self { Some((room, head)) } else { None }
    }

    fn message(self) -> Option<Message> {
        if let Self::Message(message) = self { Some(message) } else { None }
    }
}
