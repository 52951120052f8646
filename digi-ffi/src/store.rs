//! A store of the host's: its tables, and over them what digi-core decides.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Arc;

use async_trait::async_trait;
use digi_core::store::model::{
    Applied, Batch, BatchId, Change, ChangeRow, Changes, Head, History, MemberAnswer, MemberOp, Membership, Message,
    MessageOp, NewRoom, Role, raised,
};
use digi_core::store::planner::{Gap, Logged, NotedAdd, Plan, Planner, RoomHead, record, replay};
use digi_core::store::{Store, StoreError};
use digi_core::{Code, Cursor, Epoch, MessageId, Millis, RoomId, Seq, UserKey};
use parking_lot::Mutex;

use crate::callback::inside;
use crate::handle::{Context, borrow, digi_text};
use crate::model::{
    DIGI_CHANGE_DELETE, DIGI_CHANGE_EDIT, DIGI_CHANGE_JOIN, DIGI_CHANGE_LEAVE, DIGI_ROW_BATCH, DIGI_ROW_HEAD,
    DIGI_ROW_LOG, DIGI_ROW_MEMBER, DIGI_ROW_MESSAGE, DIGI_ROW_ROOM, digi_row, message_change, role, role_number,
};
use crate::result::{DIGI_OK, Failure, bad_argument, code_of, digi_error, digi_result, guard};

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
    /// Up to this number, which may be the highest that there is.
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
/// All functions answer `DIGI_OK` or one of `DIGI_ERR_STORE_UNAVAILABLE` (later it may work), `DIGI_ERR_STORE_FULL` and
/// `DIGI_ERR_STORE_REJECTED` (this row can't be stored; Digi finds out which message it is, and refuses that one); any
/// other number counts as the first. After an error Digi calls `rollback`.
///
/// **Must hold.** A transaction is all or nothing, and committed is on stable storage, as far as the store has one. What a
/// transaction has read of heads in a writing transaction nobody changes before it ends. A reading transaction sees
/// what was committed before it began. If `commit` fails, Digi asks later, by the batch's row, whether it was committed
/// after all, and repeats it otherwise: so it is safe not to know.
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
    /// Commits and ends a transaction that wrote.
    pub commit: Option<unsafe extern "C" fn(ctx: *mut c_void, transaction: *mut c_void) -> digi_result>,
    /// Ends a transaction without its writes; also every one that only read.
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

/// The host's functions.
struct Tables {
    ctx: Context,
    begin: unsafe extern "C" fn(*mut c_void, bool, *mut *mut c_void) -> digi_result,
    commit: unsafe extern "C" fn(*mut c_void, *mut c_void) -> digi_result,
    rollback: unsafe extern "C" fn(*mut c_void, *mut c_void),
    read: unsafe extern "C" fn(*mut c_void, *mut c_void, *const digi_query, *mut digi_answer) -> digi_result,
    write: unsafe extern "C" fn(*mut c_void, *mut c_void, *const digi_row, usize) -> digi_result,
}

/// The store that an engine gets.
pub(crate) struct HostStore {
    tables: Arc<Tables>,
    /// Whoever writes has it.
    planner: Arc<Mutex<Planner>>,
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
/// How many places are looked through at once for what is to be purged.
const PAGE: u64 = 1_000;
/// Batches are forgotten after so many milliseconds; looked after every so many batches.
const KEPT_MS: u64 = 3_600_000;
const FORGET_EVERY: u64 = 256;

/// A transaction of the host's; rolled back unless it was committed.
struct Transaction<'a> {
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
    fn begin(&self, writes: bool) -> Result<Transaction<'_>, StoreError> {
        let mut pointer = std::ptr::null_mut();
        let _inside = inside(NAME);
        // SAFETY: the host's function; the place lives while it runs.
        meaning(unsafe { (self.begin)(self.ctx.pointer, writes, &raw mut pointer) }, "begin")?;
        Ok(Transaction { tables: self, pointer, is_open: true })
    }
}

impl Transaction<'_> {
    fn read(&self, query: &digi_query) -> Result<Vec<Row>, StoreError> {
        let mut answer = digi_answer { rows: Vec::new() };
        let _inside = inside(NAME);
        // SAFETY: the host's function; query and answer live while it runs.
        let result = unsafe { (self.tables.read)(self.tables.ctx.pointer, self.pointer, query, &raw mut answer) };
        meaning(result, "read")?;
        Ok(answer.rows)
    }

    fn write(&self, rows: &[digi_row]) -> Result<(), StoreError> {
        if rows.is_empty() {
            return Ok(());
        }
        let _inside = inside(NAME);
        // SAFETY: the host's function; the rows live while it runs.
        let result = unsafe { (self.tables.write)(self.tables.ctx.pointer, self.pointer, rows.as_ptr(), rows.len()) };
        meaning(result, "write")
    }

    fn commit(mut self) -> Result<(), StoreError> {
        self.is_open = false;
        let _inside = inside(NAME);
        // SAFETY: the host's function and its own pointers.
        let result = unsafe { (self.tables.commit)(self.tables.ctx.pointer, self.pointer) };
        // Whatever it says, whether it was committed is found out by the batch's row.
        meaning(result, "commit").map_err(|error| StoreError::Unknown(error.to_string()))
    }

    fn heads(&self, rooms: &[RoomId]) -> Result<Vec<(RoomId, RoomHead)>, StoreError> {
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

    fn head(&self, room: RoomId) -> Result<RoomHead, StoreError> {
        let head = self.heads(&[room])?.into_iter().find(|(found, _)| *found == room);
        head.map(|(_, head)| head).ok_or(StoreError::NoSuchRoom(room))
    }

    fn role(&self, room: RoomId, user: &UserKey) -> Result<Option<Role>, StoreError> {
        let user = digi_text::of(user.as_str());
        let rows = self.read(&digi_query { user, ..digi_query::new(DIGI_QUERY_MEMBER, room) })?;
        Ok(rows.into_iter().find_map(|row| if let Row::Member(role) = row { Some(role) } else { None }))
    }

    fn message(&self, id: MessageId) -> Result<Option<Message>, StoreError> {
        let query = digi_query { message_id: id.0, ..digi_query::new(DIGI_QUERY_MESSAGE, id.split_own().0) };
        Ok(self.read(&query)?.into_iter().find_map(Row::message))
    }

    fn messages(&self, room: RoomId, after: Seq, through: Seq, limit: u64) -> Result<Vec<Message>, StoreError> {
        if after >= through {
            return Ok(Vec::new());
        }
        let query = digi_query { limit, ..digi_query::range(DIGI_QUERY_MESSAGES, room, after, through) };
        let mut messages: Vec<_> = self.read(&query)?.into_iter().filter_map(Row::message).collect();
        messages.sort_unstable_by_key(|message| message.pos);
        Ok(messages)
    }

    fn log(&self, room: RoomId, after: Seq, through: Seq) -> Result<Vec<(Seq, Logged)>, StoreError> {
        if after >= through {
            return Ok(Vec::new());
        }
        let rows = self.read(&digi_query::range(DIGI_QUERY_LOG, room, after, through))?;
        let logged = |row| if let Row::Log(seq, what) = row { Some((seq, what)) } else { None };
        Ok(rows.into_iter().filter_map(logged).collect())
    }

    /// None: unknown. A batch without a text never will be carried out.
    fn batch(&self, id: BatchId) -> Result<Option<Option<String>>, StoreError> {
        let query = digi_query { node: id.node, number: id.number, ..digi_query::new(DIGI_QUERY_BATCH, RoomId(0)) };
        let batch = |row| if let Row::Batch(text) = row { Some(text) } else { None };
        Ok(self.read(&query)?.into_iter().find_map(batch))
    }

    fn plan(&self, planner: &mut Planner, batch: &Batch) -> Result<Plan, StoreError> {
        let broken = |error: digi_core::store::planner::OutOfOrder| StoreError::Unavailable(error.to_string());
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

impl Row {
    fn head(self) -> Option<(RoomId, RoomHead)> {
        if let Self::Head(room, head) = self { Some((room, head)) } else { None }
    }

    fn message(self) -> Option<Message> {
        if let Self::Message(message) = self { Some(message) } else { None }
    }
}

fn head_row(room: RoomId, head: &RoomHead) -> digi_row {
    digi_row {
        epoch: head.head.epoch.0,
        seq: head.head.last_seq.0,
        floor: head.floor.0,
        at: head.last_at.0,
        ..digi_row::new(DIGI_ROW_HEAD, room)
    }
}

fn batch_row(id: BatchId, text: Option<&str>, now: Millis) -> digi_row {
    let text = digi_text::of_option(text);
    digi_row { node: id.node, number: id.number, text, at: now.0, ..digi_row::new(DIGI_ROW_BATCH, RoomId(0)) }
}

fn member_row(room: RoomId, user: &UserKey, name: &str, role: Role, at: Millis) -> digi_row {
    digi_row {
        user: digi_text::of(user.as_str()),
        name: digi_text::of(name),
        role: role_number(role),
        at: at.0,
        ..digi_row::new(DIGI_ROW_MEMBER, room)
    }
}

/// The rows of a plan; to be used while it lives.
fn rows_of(plan: &Plan) -> Vec<digi_row> {
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

impl HostStore {
    pub(crate) fn new(store: digi_store) -> Result<Self, Failure> {
        let missing = |name: &str| bad_argument(name, "it is NULL");
        let begin = store.begin.ok_or_else(|| missing("store.begin"))?;
        let commit = store.commit.ok_or_else(|| missing("store.commit"))?;
        let rollback = store.rollback.ok_or_else(|| missing("store.rollback"))?;
        let read = store.read.ok_or_else(|| missing("store.read"))?;
        let write = store.write.ok_or_else(|| missing("store.write"))?;
        // Last: from here on `destroy` is Digi's to call.
        let ctx = Context::new(store.ctx, store.destroy);
        let tables = Arc::new(Tables { ctx, begin, commit, rollback, read, write });
        Ok(Self { tables, planner: Arc::new(Mutex::new(Planner::new())) })
    }

    async fn reading<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let tables = self.tables.clone();
        in_thread(move || work(&tables.begin(false)?)).await
    }

    /// With the one planner, so that those who write come one after the other.
    async fn writing<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tables, &mut Planner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tables, planner) = (self.tables.clone(), self.planner.clone());
        in_thread(move || work(&tables, &mut planner.lock())).await
    }
}

async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let ended = |_| StoreError::Unavailable("the engine's threads have ended".into());
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}

/// One batch in a transaction, without its end.
fn apply(transaction: &Transaction<'_>, planner: &mut Planner, batch: &Batch) -> Result<Applied, StoreError> {
    let plan = transaction.plan(planner, batch)?;
    let mut rows = rows_of(&plan);
    let applied = Applied { outcomes: plan.outcomes.clone(), heads: plan.heads.clone() };
    let text = record(&applied);
    rows.push(batch_row(batch.id, Some(&text), batch.now));
    if batch.id.number.is_multiple_of(FORGET_EVERY) {
        let at = batch.now.0.saturating_sub(KEPT_MS);
        rows.push(digi_row { removes: true, at, ..digi_row::new(DIGI_ROW_BATCH, RoomId(0)) });
    }
    transaction.write(&rows)?;
    Ok(applied)
}

#[async_trait]
impl Store for HostStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        let batch = batch.clone();
        self.writing(move |tables, planner| {
            let transaction = tables.begin(true)?;
            match transaction.batch(batch.id)? {
                Some(Some(text)) => {
                    let other = |error: digi_core::store::planner::BadRecord| StoreError::Rejected(error.to_string());
                    return replay(&batch, &text).map_err(other);
                }
                Some(None) => return Err(StoreError::Rejected("the batch was made void".into())),
                None => {}
            }
            let done = apply(&transaction, planner, &batch).and_then(|applied| {
                transaction.commit()?;
                Ok(applied)
            });
            if done.is_ok() {
                // It was decided just now.
                let _ = planner.committed();
            } else {
                planner.rolled_back();
            }
            done
        })
        .await
    }

    async fn void(&self, id: BatchId) -> Result<(), StoreError> {
        self.writing(move |tables, _| {
            let transaction = tables.begin(true)?;
            match transaction.batch(id)? {
                Some(Some(_)) => Err(StoreError::Rejected("the batch has been committed".into())),
                Some(None) => Ok(()),
                None => {
                    // Kept as long as any other: its time is not that of the host's clock, but later is no harm.
                    transaction.write(&[batch_row(id, None, Millis(u64::MAX >> 1))])?;
                    transaction.commit()
                }
            }
        })
        .await
    }

    async fn member(&self, room: RoomId, user: &UserKey) -> Result<MemberAnswer, StoreError> {
        let user = user.clone();
        self.reading(move |transaction| {
            let head = transaction.head(room)?.head;
            let membership = transaction.role(room, &user)?.map(|role| Membership { role });
            Ok(MemberAnswer { membership, head })
        })
        .await
    }

    async fn changes(&self, room: RoomId, after: Seq, limit: u64) -> Result<Changes, StoreError> {
        self.reading(move |transaction| {
            let RoomHead { head, floor, .. } = transaction.head(room)?;
            let through = Seq(after.0.saturating_add(limit)).min(head.last_seq);
            let mut rows = Vec::new();
            let mut messages: BTreeMap<_, _> = transaction
                .messages(room, after, through, 0)?
                .into_iter()
                .map(|message| (message.id, (message.pos, message)))
                .collect();
            let mut log = transaction.log(room, after, through)?;
            log.sort_unstable_by_key(|(seq, _)| *seq);
            for (seq, what) in log {
                let (op, member) = match what {
                    Logged::Message(_, id) => {
                        if let Some(known) = messages.get_mut(&id) {
                            known.0 = seq;
                        } else if let Some(message) = transaction.message(id)? {
                            messages.insert(id, (seq, message));
                        }
                        continue;
                    }
                    Logged::Joined(user) => (MemberOp::Joined, user),
                    Logged::Left(user) => (MemberOp::Left, user),
                };
                rows.push(ChangeRow { seq, change: Change::Member { op, member } });
            }
            let message = |(seq, message)| ChangeRow { seq, change: Change::Message(message) };
            rows.extend(messages.into_values().map(message));
            rows.sort_unstable_by_key(|row| row.seq);
            Ok(Changes { head, floor, through, rows })
        })
        .await
    }

    async fn history(&self, room: RoomId, before: Option<Seq>, limit: u32) -> Result<History, StoreError> {
        self.reading(move |transaction| {
            let head = transaction.head(room)?.head;
            let through = before.map_or(Seq(u64::MAX), |before| Seq(before.0.saturating_sub(1)));
            let messages =
                if limit == 0 { Vec::new() } else { transaction.messages(room, Seq(0), through, limit.into())? };
            Ok(History { head, messages })
        })
        .await
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<(RoomId, Head)>, StoreError> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let rooms = rooms.to_vec();
        let heads = self.reading(move |transaction| transaction.heads(&rooms)).await?;
        Ok(heads.into_iter().map(|(room, head)| (room, head.head)).collect())
    }

    async fn raise_epoch(&self, room: RoomId, seen: Cursor, now: Millis) -> Result<Head, StoreError> {
        self.writing(move |tables, _| {
            let transaction = tables.begin(true)?;
            let stored = transaction.head(room)?;
            let mut head = stored;
            head.raise_above(seen, now);
            if head != stored {
                transaction.write(&[head_row(room, &head)])?;
                transaction.commit()?;
            }
            Ok(head.head)
        })
        .await
    }

    async fn raise_all(&self, now: Millis) -> Result<(), StoreError> {
        self.writing(move |tables, _| {
            let transaction = tables.begin(true)?;
            let rows: Vec<_> = transaction
                .heads(&[])?
                .into_iter()
                .map(|(room, stored)| {
                    let head = raised(stored.head, stored.head.cursor(), now);
                    head_row(room, &RoomHead { head, floor: head.last_seq, last_at: stored.last_at })
                })
                .collect();
            transaction.write(&rows)?;
            transaction.commit()
        })
        .await
    }

    async fn create_room(&self, room: &NewRoom, now: Millis) -> Result<RoomId, StoreError> {
        let room = room.clone();
        self.writing(move |tables, _| {
            let transaction = tables.begin(true)?;
            let id = match room.id {
                Some(id) => id,
                None => {
                    let last = transaction.read(&digi_query::new(DIGI_QUERY_LAST_HEAD, RoomId(0)))?;
                    RoomId(last.into_iter().find_map(Row::head).map_or(0, |(id, _)| id.0) + 1)
                }
            };
            if !(1..=RoomId::MAX_OWN).contains(&id.0) {
                return Err(StoreError::Rejected(format!("room ids lie between 1 and {}", RoomId::MAX_OWN)));
            }
            if !transaction.heads(&[id])?.is_empty() {
                return Err(StoreError::RoomExists(id));
            }
            let head = RoomHead { head: Head { epoch: Epoch(now.0), last_seq: Seq(0) }, floor: Seq(0), last_at: now };
            let (name, text) = (digi_text::of(&room.name), digi_text::of(&room.kind));
            let mut rows = vec![digi_row { name, text, at: now.0, ..digi_row::new(DIGI_ROW_ROOM, id) }];
            rows.extend(room.members.iter().map(|(user, name, role)| member_row(id, user, name, *role, now)));
            rows.push(head_row(id, &head));
            transaction.write(&rows)?;
            transaction.commit()?;
            Ok(id)
        })
        .await
    }

    async fn purge(&self, room: RoomId, before: Millis) -> Result<u64, StoreError> {
        self.writing(move |tables, _| {
            let transaction = tables.begin(true)?;
            let mut head = transaction.head(room)?;
            let (mut removed, mut last, mut after) = (0, None, Seq(0));
            // Times never go back in a room, so what is old enough comes first.
            while after < head.head.last_seq {
                let through = Seq(after.0.saturating_add(PAGE));
                let page = transaction.messages(room, after, through, 0)?;
                let old = page.iter().take_while(|message| message.created_at < before).count();
                removed += old as u64;
                last = old.checked_sub(1).map(|newest| page[newest].pos).or(last);
                if old < page.len() {
                    break;
                }
                after = through;
            }
            let Some(last) = last else { return Ok(0) };
            head.floor = head.floor.max(last);
            let removal = |kind| digi_row { removes: true, seq: last.0, pos: last.0, ..digi_row::new(kind, room) };
            transaction.write(&[removal(DIGI_ROW_MESSAGE), removal(DIGI_ROW_LOG), head_row(room, &head)])?;
            transaction.commit()?;
            Ok(removed)
        })
        .await
    }
}

#[cfg(test)]
mod tests;
