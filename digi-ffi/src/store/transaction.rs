//! The host's functions, as transactions with rows.

use std::ffi::c_void;

use digi_core::store::StoreError;
use digi_core::store::model::{Batch, BatchId, Message, Role};
use digi_core::store::planner::{Gap, Logged, NotedAdd, OutOfOrder, Plan, Planner, RoomHead};
use digi_core::{Code, MessageId, Millis, RoomId, Seq, UserKey};

use super::{
    DIGI_QUERY_BATCH, DIGI_QUERY_HEADS, DIGI_QUERY_LAST_HEAD, DIGI_QUERY_LOG, DIGI_QUERY_MEMBER, DIGI_QUERY_MESSAGE,
    DIGI_QUERY_MESSAGES, Row, digi_answer, digi_query, digi_store,
};
use crate::callback::inside;
use crate::handle::{Context, digi_text};
use crate::model::{
    DIGI_CHANGE_JOIN, DIGI_CHANGE_LEAVE, DIGI_ROW_BATCH, DIGI_ROW_HEAD, DIGI_ROW_LOG, DIGI_ROW_MEMBER, digi_row,
    message_change, role_number,
};
use crate::result::{DIGI_OK, Failure, bad_argument, code_of, digi_result};

/// The host's functions.
pub(super) struct Tables {
    ctx: Context,
    begin: unsafe extern "C" fn(*mut c_void, bool, *mut *mut c_void) -> digi_result,
    commit: unsafe extern "C" fn(*mut c_void, *mut c_void) -> digi_result,
    rollback: unsafe extern "C" fn(*mut c_void, *mut c_void),
    read: unsafe extern "C" fn(*mut c_void, *mut c_void, *const digi_query, *mut digi_answer) -> digi_result,
    write: unsafe extern "C" fn(*mut c_void, *mut c_void, *const digi_row, usize) -> digi_result,
}

/// What the host has answered.
fn meaning(result: digi_result, doing: &str) -> Result<(), StoreError> {
    let say = |what: &str| format!("the host's store, {doing}: {what}");
    match code_of(result) {
        _ if result == DIGI_OK => Ok(()),
        Some(Code::StoreFull) => Err(StoreError::Full(say("full"))),
        Some(Code::StoreRejected) => Err(StoreError::Rejected(say("rejected"))),
        Some(code) => Err(StoreError::Unavailable(say(code.name()))),
        None => Err(StoreError::Unavailable(say(&format!("it answered {result}")))),
    }
}

const NAME: &str = "a store";

/// A transaction of the host's; rolled back unless it was committed.
pub(super) struct Transaction<'a> {
    tables: &'a Tables,
    pointer: *mut c_void,
    is_open: bool,
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.is_open {
            let _inside = inside(NAME);
            // SAFETY: the host's function and its own pointers.
            unsafe { (self.tables.rollback)(self.tables.ctx.pointer, self.pointer) };
        }
    }
}

impl Tables {
    pub(super) fn new(store: digi_store) -> Result<Self, Failure> {
        let missing = |name: &str| bad_argument(name, "it is NULL");
        let begin = store.begin.ok_or_else(|| missing("store.begin"))?;
        let commit = store.commit.ok_or_else(|| missing("store.commit"))?;
        let rollback = store.rollback.ok_or_else(|| missing("store.rollback"))?;
        let read = store.read.ok_or_else(|| missing("store.read"))?;
        let write = store.write.ok_or_else(|| missing("store.write"))?;
        // Last: from here on `destroy` is Digi's to call.
        let ctx = Context::new(store.ctx, store.destroy);
        Ok(Self { ctx, begin, commit, rollback, read, write })
    }

    pub(super) fn begin(&self, writes: bool) -> Result<Transaction<'_>, StoreError> {
        let mut pointer = std::ptr::null_mut();
        let _inside = inside(NAME);
        // SAFETY: the host's function; the place lives while it runs.
        meaning(unsafe { (self.begin)(self.ctx.pointer, writes, &raw mut pointer) }, "begin")?;
        Ok(Transaction { tables: self, pointer, is_open: true })
    }
}

impl Transaction<'_> {
    pub(super) fn read(&self, query: &digi_query) -> Result<Vec<Row>, StoreError> {
        let mut answer = digi_answer { rows: Vec::new() };
        let _inside = inside(NAME);
        // SAFETY: the host's function; query and answer live while it runs.
        let result = unsafe { (self.tables.read)(self.tables.ctx.pointer, self.pointer, query, &raw mut answer) };
        meaning(result, "read")?;
        Ok(answer.rows)
    }

    pub(super) fn write(&self, rows: &[digi_row]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let _inside = inside(NAME);
        // SAFETY: the host's function; the rows live while it runs.
        let result = unsafe { (self.tables.write)(self.tables.ctx.pointer, self.pointer, rows.as_ptr(), rows.len()) };
        meaning(result, "write")
    }

    pub(super) fn commit(mut self) -> Result<(), StoreError> {
        self.is_open = false;
        let _inside = inside(NAME);
        // SAFETY: the host's function and its own pointers.
        let result = unsafe { (self.tables.commit)(self.tables.ctx.pointer, self.pointer) };
        // Whatever it says, whether it was committed is found out by the batch's row.
        meaning(result, "commit").map_err(|error| StoreError::Unknown(error.to_string()))
    }

    pub(super) fn heads(&self, rooms: &[RoomId]) -> Result<Vec<(RoomId, RoomHead)>, StoreError> {
        let rooms: Vec<i64> = rooms.iter().map(|room| room.0).collect();
        let query = digi_query {
            rooms: rooms.as_ptr(),
            room_count: rooms.len(),
            ..digi_query::new(DIGI_QUERY_HEADS, RoomId(0))
        };
        let mut heads: Vec<_> = self.read(&query)?.into_iter().filter_map(Row::head).collect();
        heads.sort_unstable_by_key(|(room, _)| *room);
        Ok(heads)
    }

    /// The highest id of a room; 0 where there is none.
    pub(super) fn last_room(&self) -> Result<i64, StoreError> {
        let last = self.read(&digi_query::new(DIGI_QUERY_LAST_HEAD, RoomId(0)))?;
        Ok(last.into_iter().find_map(Row::head).map_or(0, |(id, _)| id.0))
    }

    pub(super) fn head(&self, room: RoomId) -> Result<RoomHead, StoreError> {
        let head = self.heads(&[room])?.into_iter().find(|(found, _)| *found == room);
        head.map(|(_, head)| head).ok_or(StoreError::NoSuchRoom(room))
    }

    pub(super) fn role(&self, room: RoomId, user: &UserKey) -> Result<Option<Role>, StoreError> {
        let user = digi_text::of(user.as_str());
        let rows = self.read(&digi_query { user, ..digi_query::new(DIGI_QUERY_MEMBER, room) })?;
        Ok(rows.into_iter().find_map(|row| if let Row::Member(role) = row { Some(role) } else { None }))
    }

    pub(super) fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        let query = digi_query { message_id: id.0, ..digi_query::new(DIGI_QUERY_MESSAGE, id.split_own().0) };
        Ok(self.read(&query)?.into_iter().find_map(Row::message))
    }

    pub(super) fn messages(
        &self,
        room: RoomId,
        after: Seq,
        through: Seq,
        limit: u64,
    ) -> Result<Vec<Message>, StoreError> {
        if after >= through {
            return Ok(Vec::new());
        }
        let query = digi_query { limit, ..digi_query::range(DIGI_QUERY_MESSAGES, room, after, through) };
        let mut messages: Vec<_> = self.read(&query)?.into_iter().filter_map(Row::message).collect();
        messages.sort_unstable_by_key(|message| message.pos);
        Ok(messages)
    }

    pub(super) fn log(&self, room: RoomId, after: Seq, through: Seq) -> Result<Vec<(Seq, Logged)>, StoreError> {
        if after >= through {
            return Ok(Vec::new());
        }
        let rows = self.read(&digi_query::range(DIGI_QUERY_LOG, room, after, through))?;
        let logged = |row| if let Row::Log(seq, what) = row { Some((seq, what)) } else { None };
        Ok(rows.into_iter().filter_map(logged).collect())
    }

    /// None: unknown. A batch without a text never will be carried out.
    pub(super) fn batch(&self, id: BatchId) -> Result<Option<Option<String>>, StoreError> {
        let query = digi_query { node: id.node, number: id.number, ..digi_query::new(DIGI_QUERY_BATCH, RoomId(0)) };
        let batch = |row| if let Row::Batch(text) = row { Some(text) } else { None };
        Ok(self.read(&query)?.into_iter().find_map(batch))
    }

    pub(super) fn plan(&self, planner: &mut Planner, batch: &Batch) -> Result<Plan, StoreError> {
        let broken = |error: OutOfOrder| StoreError::Unavailable(error.to_string());
        let rooms = planner.begin(batch.clone());
        let heads = if rooms.is_empty() { Vec::new() } else { self.heads(&rooms)? };
        let (mut adds, mut members) = (Vec::new(), Vec::new());
        for Gap { room, after, through } in planner.lock(heads).map_err(broken)? {
            adds.extend(self.messages(room, after, through, 0)?.into_iter().filter_map(|message| {
                let client_id = message.client_id?;
                Some(NotedAdd { room, pos: message.pos, sender: message.sender, client_id })
            }));
            members.extend(self.log(room, after, through)?.into_iter().filter_map(|(_, what)| match what {
                Logged::Joined(user) | Logged::Left(user) => Some((room, user)),
                Logged::Message(..) => None,
            }));
        }
        let needs = planner.note(adds, members).map_err(broken)?;
        let (mut roles, mut messages) = (Vec::new(), Vec::new());
        for (room, user) in needs.roles {
            if let Some(role) = self.role(room, &user)? {
                roles.push((room, user, role));
            }
        }
        for id in needs.messages {
            messages.extend(self.message(id)?);
        }
        planner.decide(roles, messages).map_err(broken)
    }
}

pub(super) fn head_row(room: RoomId, head: &RoomHead) -> digi_row {
    digi_row {
        epoch: head.head.epoch.0,
        seq: head.head.last_seq.0,
        floor: head.floor.0,
        at: head.last_at.0,
        ..digi_row::new(DIGI_ROW_HEAD, room)
    }
}

pub(super) fn batch_row(id: BatchId, text: Option<&str>, now: Millis) -> digi_row {
    let text = digi_text::of_option(text);
    digi_row { node: id.node, number: id.number, text, at: now.0, ..digi_row::new(DIGI_ROW_BATCH, RoomId(0)) }
}

pub(super) fn member_row(room: RoomId, user: &UserKey, name: &str, role: Role, at: Millis) -> digi_row {
    digi_row {
        user: digi_text::of(user.as_str()),
        name: digi_text::of(name),
        role: role_number(role),
        at: at.0,
        ..digi_row::new(DIGI_ROW_MEMBER, room)
    }
}

/// The rows of a plan; to be used while it lives.
pub(super) fn rows_of(plan: &Plan) -> Vec<digi_row> {
    let mut rows: Vec<_> = plan.inserted.iter().chain(&plan.updated).map(digi_row::message).collect();
    rows.extend(plan.log.iter().map(|row| {
        let (change, message_id, user) = match &row.what {
            Logged::Message(op, id) => (message_change(*op), id.0, digi_text::NONE),
            Logged::Joined(user) => (DIGI_CHANGE_JOIN, 0, digi_text::of(user.as_str())),
            Logged::Left(user) => (DIGI_CHANGE_LEAVE, 0, digi_text::of(user.as_str())),
        };
        digi_row { seq: row.seq.0, change, message_id, user, at: row.at.0, ..digi_row::new(DIGI_ROW_LOG, row.room) }
    }));
    rows.extend(plan.left.iter().map(|(room, user)| digi_row {
        removes: true,
        user: digi_text::of(user.as_str()),
        ..digi_row::new(DIGI_ROW_MEMBER, *room)
    }));
    rows.extend(plan.joined.iter().map(|row| member_row(row.room, &row.user, &row.name, row.role, row.at)));
    rows.extend(plan.changed.iter().map(|(room, head)| head_row(*room, head)));
    rows
}
