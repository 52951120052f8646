//! The suite of every store, over tables that are reached by the functions of a host.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use digi_core::Code;
use digi_core::store::model::{Action, Authority, Batch, BatchId, Command, NewRoom};
use digi_core::store::{Store, StoreError};
use digi_core::testing::store_suite::Subject;
use parking_lot::Mutex;

use super::*;
use crate::model::{DIGI_ROLE_MEMBER, role_number};
use crate::result::{DIGI_OK, number};

/// The longest text that the tables take.
const LONGEST: usize = 1 << 20;

/// A row whose texts are its own.
#[derive(Clone)]
struct Kept {
    row: digi_row,
    texts: [Option<String>; 4],
}

// SAFETY: the pointers in the row are not used; `shown` puts those of its own texts in their place.
unsafe impl Send for Kept {}

impl Kept {
    unsafe fn new(row: &digi_row) -> Self {
        // SAFETY: the row lives.
        let own = |text: digi_text| unsafe { text.get("text") }.unwrap().map(str::to_owned);
        Self { row: *row, texts: [own(row.user), own(row.name), own(row.text), own(row.client_id)] }
    }

    fn shown(&self) -> digi_row {
        let [user, name, text, client_id] = self.texts.each_ref().map(|text| digi_text::of_option(text.as_deref()));
        digi_row { user, name, text, client_id, ..self.row }
    }
}

type Key = (u32, i64, u64, String);

#[derive(Clone, Default)]
struct Rows(BTreeMap<Key, Kept>);

fn key(kept: &Kept) -> Key {
    let row = &kept.row;
    match row.kind {
        DIGI_ROW_MEMBER => (row.kind, row.room, 0, kept.texts[0].clone().unwrap()),
        DIGI_ROW_MESSAGE => (row.kind, row.room, row.pos, String::new()),
        DIGI_ROW_LOG => (row.kind, row.room, row.seq, String::new()),
        DIGI_ROW_BATCH => (row.kind, row.node.cast_signed(), row.number, String::new()),
        kind => (kind, row.room, 0, String::new()),
    }
}

/// What `ctx` points to.
#[derive(Default)]
struct HostTables {
    rows: Mutex<Rows>,
    is_writing: AtomicBool,
    /// The next commit is carried out, and denied.
    denies: AtomicBool,
    destroyed: Arc<AtomicBool>,
}

/// A transaction: the tables as they are for it.
struct Open {
    rows: Rows,
    writes: bool,
}

unsafe extern "C" fn begin(ctx: *mut c_void, writes: bool, transaction: *mut *mut c_void) -> digi_result {
    // SAFETY: `ctx` is the tables, and lives until `destroy`.
    let tables = unsafe { &*ctx.cast::<HostTables>() };
    assert!(!writes || !tables.is_writing.swap(true, Ordering::SeqCst), "two write at once");
    let open = Box::new(Open { rows: tables.rows.lock().clone(), writes });
    // SAFETY: the place is Digi's, and lives.
    unsafe { transaction.write(Box::into_raw(open).cast()) };
    DIGI_OK
}

unsafe fn end(ctx: *mut c_void, transaction: *mut c_void) -> (&'static HostTables, Open) {
    // SAFETY: what `begin` gave.
    let (tables, open) = unsafe { (&*ctx.cast::<HostTables>(), Box::from_raw(transaction.cast::<Open>())) };
    assert!(!open.writes || tables.is_writing.swap(false, Ordering::SeqCst));
    (tables, *open)
}

unsafe extern "C" fn commit(ctx: *mut c_void, transaction: *mut c_void) -> digi_result {
    // SAFETY: as above.
    let tables = unsafe {
        let tables = &*ctx.cast::<HostTables>();
        *tables.rows.lock() = (*transaction.cast::<Open>()).rows.clone();
        end(ctx, transaction).0
    };
    if tables.denies.swap(false, Ordering::SeqCst) { number(Code::StoreUnavailable) } else { DIGI_OK }
}

unsafe extern "C" fn rollback(ctx: *mut c_void, transaction: *mut c_void) {
    // SAFETY: as above.
    drop(unsafe { end(ctx, transaction) });
}

unsafe extern "C" fn read(
    _: *mut c_void,
    transaction: *mut c_void,
    query: *const digi_query,
    answer: *mut digi_answer,
) -> digi_result {
    // SAFETY: what `begin` gave; the query lives.
    let (Open { rows, .. }, query) = unsafe { (&*transaction.cast::<Open>(), &*query) };
    // SAFETY: as above.
    let (rooms, user) = unsafe {
        (crate::handle::list(query.rooms, query.room_count, "rooms").unwrap(), query.user.get("user").unwrap())
    };
    let in_range = |number: u64| number > query.after && number <= query.through;
    let is_wanted = |(kind, room, number, name): &Key, row: &digi_row| match query.kind {
        DIGI_QUERY_HEADS => *kind == DIGI_ROW_HEAD && (rooms.is_empty() || rooms.contains(room)),
        DIGI_QUERY_LAST_HEAD => *kind == DIGI_ROW_HEAD,
        DIGI_QUERY_MEMBER => *kind == DIGI_ROW_MEMBER && *room == query.room && Some(name.as_str()) == user,
        DIGI_QUERY_MESSAGE => *kind == DIGI_ROW_MESSAGE && row.message_id == query.message_id,
        DIGI_QUERY_MESSAGES => *kind == DIGI_ROW_MESSAGE && *room == query.room && in_range(*number),
        DIGI_QUERY_LOG => *kind == DIGI_ROW_LOG && *room == query.room && in_range(*number),
        DIGI_QUERY_BATCH => *kind == DIGI_ROW_BATCH && row.node == query.node && row.number == query.number,
        other => panic!("query {other}"),
    };
    let limit = match (query.kind, query.limit) {
        (DIGI_QUERY_LAST_HEAD, _) => 1,
        (_, 0) => usize::MAX,
        (_, limit) => usize::try_from(limit).unwrap(),
    };
    for (_, kept) in rows.0.iter().rev().filter(|(key, kept)| is_wanted(key, &kept.row)).take(limit) {
        let row = kept.shown();
        // SAFETY: both live.
        let added = unsafe { digi_answer_add(answer, &raw const row, std::ptr::null_mut()) };
        assert_eq!(added, DIGI_OK);
    }
    DIGI_OK
}

unsafe extern "C" fn write(
    _: *mut c_void,
    transaction: *mut c_void,
    rows: *const digi_row,
    count: usize,
) -> digi_result {
    // SAFETY: what `begin` gave; the rows live.
    let (open, rows) = unsafe { (&mut *transaction.cast::<Open>(), std::slice::from_raw_parts(rows, count)) };
    assert!(open.writes);
    for row in rows {
        // SAFETY: as above.
        let kept = unsafe { Kept::new(row) };
        if kept.texts[2].as_ref().is_some_and(|text| row.kind == DIGI_ROW_MESSAGE && text.len() > LONGEST) {
            return number(Code::StoreRejected);
        }
        match (row.removes, row.kind) {
            (false, _) => drop(open.rows.0.insert(key(&kept), kept)),
            (true, DIGI_ROW_MESSAGE | DIGI_ROW_LOG) => {
                let through = if row.kind == DIGI_ROW_LOG { row.seq } else { row.pos };
                open.rows
                    .0
                    .retain(|(kind, room, number, _), _| *kind != row.kind || *room != row.room || *number > through);
            }
            (true, DIGI_ROW_BATCH) => open.rows.0.retain(|(kind, ..), kept| *kind != row.kind || kept.row.at >= row.at),
            (true, _) => assert!(open.rows.0.remove(&key(&kept)).is_some()),
        }
    }
    DIGI_OK
}

unsafe extern "C" fn destroy(ctx: *mut c_void) {
    // SAFETY: `Arc::into_raw` gave it.
    let tables = unsafe { Arc::from_raw(ctx.cast::<HostTables>()) };
    tables.destroyed.store(true, Ordering::SeqCst);
}

fn over(tables: &Arc<HostTables>) -> HostStore {
    HostStore::new(digi_store {
        size: size_of::<digi_store>(),
        ctx: Arc::into_raw(tables.clone()).cast_mut().cast(),
        destroy: Some(destroy),
        begin: Some(begin),
        commit: Some(commit),
        rollback: Some(rollback),
        read: Some(read),
        write: Some(write),
    })
    .unwrap()
}

digi_core::store_suite!(host, || async {
    // One handle at a time writes there, so the second one is the same.
    let tables = Arc::new(HostTables::default());
    let offender = Action::Add { body: "x".repeat(2 << 20).into(), client_id: None };
    let subject = Subject::new(over(&tables)).reopened_by(move || std::future::ready(over(&tables)));
    subject.offender(offender).remembers_batches()
});

#[test]
fn what_was_committed_without_an_answer_is_found_again() {
    let tables = Arc::new(HostTables::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = over(&tables);
    runtime.block_on(async {
        let room = NewRoom { members: vec![("7".into(), "alice".into(), Role::Member)], ..NewRoom::default() };
        let room = store.create_room(&room, Millis(5)).await.unwrap();
        let command = Command {
            room,
            user: "7".into(),
            user_name: "alice".into(),
            authority: Authority::Member,
            action: Action::Add { body: "hello".into(), client_id: None },
        };
        let id = BatchId { node: 1, number: 1 };
        let batch = Batch { id, commands: vec![command], known: Vec::new(), now: Millis(6) };
        tables.denies.store(true, Ordering::SeqCst);
        assert!(matches!(store.apply(&batch).await, Err(StoreError::Unknown(_))));
        let applied = store.apply(&batch).await.unwrap();
        assert_eq!(applied.heads[0].1.last_seq, Seq(1));
        assert_eq!(store.history(room, None, 10).await.unwrap().messages.len(), 1);
        assert_eq!(
            store.member(room, &"7".into()).await.unwrap().membership.map(|member| role_number(member.role)),
            Some(DIGI_ROLE_MEMBER)
        );
    });
    assert!(!tables.destroyed.load(Ordering::SeqCst));
    drop(store);
    assert!(tables.destroyed.load(Ordering::SeqCst));
}
