//! The numbers of a room's changes are 1, 2, 3 … without gaps, whoever writes.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::Subject;
use super::tools::{
    NOW, add, add_with, apply, batch, changes, command, delete, edit, head, join, last_seq, leave, message, one,
    outcomes, refused, room, seqs,
};
use crate::error::Code;
use crate::id::{Cursor, Epoch, RoomId, Seq};
use crate::store::Store;
use crate::store::model::{Action, Outcome, Role};

/// Every kind of change takes the next number.
pub async fn changes_are_numbered_without_gaps(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    assert_eq!(head(store, room).await, Cursor::new(Epoch(NOW.0), Seq(0)));
    let first = message(store, add(room, "alice", "one")).await;
    assert_eq!(first.pos, Seq(1));
    let rest = vec![
        add(room, "bob", "two"),
        edit(room, "alice", first.id, "one, edited"),
        join(room, "carol", Role::Member),
        delete(room, "alice", first.id),
        leave(room, "carol"),
        add(room, "bob", "seven"),
    ];
    let applied = apply(store, rest).await;
    assert_eq!(seqs(&applied.outcomes), [2, 3, 4, 5, 6, 7].map(Some));
    let epoch = head(store, room).await.epoch;
    for outcome in &applied.outcomes {
        let (Outcome::Message { at, .. } | Outcome::Member { at, .. }) = outcome else { panic!("{outcome:?}") };
        assert_eq!(at.epoch, epoch);
    }
}

/// Refused, duplicate and unchanged commands take no number.
pub async fn what_changes_nothing_takes_no_number(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let commands = vec![
        add(room, "nobody", "no"),
        add_with(room, "alice", "one", "a"),
        add(room, "alice", "NUL \0"),
        add_with(room, "alice", "one", "a"),
        leave(room, "nobody"),
        add(room, "alice", "two"),
        join(room, "mona", Role::Moderator),
        command(room, "alice", Action::RemoveMember { member: "bob".into() }),
        add(RoomId(room.0 + 1), "alice", "nowhere"),
        add(room, "bob", "three"),
    ];
    let outcomes = outcomes(store, commands).await;
    let expected = [None, Some(1), None, None, None, Some(2), None, None, None, Some(3)];
    assert_eq!(seqs(&outcomes), expected, "{outcomes:?}");
    assert_eq!(last_seq(store, room).await, 3);
}

/// A batch over several rooms counts in each, and its answer has each touched room's head once, in ascending order.
pub async fn rooms_count_apart_and_heads_come_in_order(subject: Subject) {
    let store = &*subject.store;
    let (a, b, c) = (room(store).await, room(store).await, room(store).await);
    let nowhere = RoomId(c.0 + 1);
    let commands = vec![
        add(c, "alice", "c1"),
        add(a, "alice", "a1"),
        add(nowhere, "alice", "x"),
        add(c, "bob", "c2"),
        add(b, "nobody", "x"),
        add(a, "bob", "a2"),
    ];
    let applied = apply(store, commands).await;
    assert_eq!(seqs(&applied.outcomes), [Some(1), Some(1), None, Some(2), None, Some(2)]);
    let heads: Vec<_> = applied.heads.iter().map(|(room, head)| (*room, head.last_seq.0)).collect();
    assert_eq!(heads, [(a, 2), (b, 0), (c, 2)]);
    assert_eq!(store.heads(&[a, b, c]).await.unwrap(), applied.heads);
}

/// Concurrent callers of one handle.
pub async fn concurrent_writers_leave_no_gap(subject: Subject) {
    let room = room(&*subject.store).await;
    write_concurrently(vec![subject.store.clone(), subject.store.clone(), subject.store.clone()], room).await;
    expect_complete(&*subject.store, room, 3).await;
}

/// Concurrent callers of two handles, as two processes have them.
pub async fn two_handles_leave_no_gap(subject: Subject) {
    let Some(other) = subject.another().await else { return };
    let room = room(&*subject.store).await;
    write_concurrently(vec![subject.store.clone(), other.clone()], room).await;
    expect_complete(&*subject.store, room, 2).await;
    expect_complete(&*other, room, 2).await;
}

const BATCHES: u64 = 40;

/// One thread per handle applies [`BATCHES`] batches of two adds, and every resend is sent by all. What the stores have
/// on this test's runtime stays there.
async fn write_concurrently(handles: Vec<Arc<dyn Store>>, room: RoomId) {
    let runtime = Handle::current();
    let writers = handles.into_iter().enumerate().map(|(writer, store)| {
        let runtime = runtime.clone();
        spawn_blocking(move || {
            runtime.block_on(async {
                for n in 0..BATCHES {
                    let own = add(room, "alice", &format!("{writer} {n}"));
                    let shared = add_with(room, "bob", "shared", &format!("shared {n}"));
                    apply(&*store, vec![own, shared]).await;
                }
            });
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

/// One's own messages are all there, the shared ones once each, and the numbers are complete.
async fn expect_complete(store: &dyn Store, room: RoomId, writers: u64) {
    let count = BATCHES * (writers + 1);
    let log = changes(store, room, 0, u64::MAX).await;
    let seqs: Vec<_> = log.rows.iter().map(|row| row.seq.0).collect();
    assert_eq!(seqs, (1..=count).collect::<Vec<_>>());
    assert_eq!(log.head.last_seq, Seq(count));
}

/// What was applied before a read began is in its answer, through every handle.
pub async fn reads_show_what_was_applied_before(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let other = subject.another().await;
    for n in 1..=20 {
        let added = message(store, add(room, "alice", &n.to_string())).await;
        for store in [Some(store), other.as_deref()].into_iter().flatten() {
            assert_eq!(last_seq(store, room).await, n);
            assert_eq!(changes(store, room, n - 1, 10).await.rows.len(), 1);
            let page = store.history(room, None, 1).await.unwrap();
            assert_eq!((page.head.last_seq.0, page.messages), (n, vec![added.clone()]));
            assert_eq!(store.member(room, &"alice".into()).await.unwrap().head.last_seq.0, n);
        }
    }
}

/// Where no number is left, what needs one is refused, and a repeat still gets its answer.
pub async fn a_room_ends_with_its_numbers(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let epoch = head(store, room).await.epoch;
    let end = u64::from(u32::MAX);
    store.raise_epoch(room, Cursor::new(epoch, Seq(end - 1)), NOW).await.unwrap();
    let commands = vec![add_with(room, "alice", "last", "id"), add(room, "alice", "one more")];
    let last = outcomes(store, commands).await;
    assert_eq!(seqs(&last), [Some(end), None]);
    assert_eq!(last[1], refused(Code::RoomFull));
    let Outcome::Message { message: last, .. } = &last[0] else { panic!("{last:?}") };
    assert_eq!(one(store, edit(room, "alice", last.id, "edited")).await, refused(Code::RoomFull));
    assert_eq!(one(store, join(room, "carol", Role::Member)).await, refused(Code::RoomFull));
    assert_eq!(last_seq(store, room).await, end);
    assert_eq!(store.history(room, None, 10).await.unwrap().messages, std::slice::from_ref(last));
    let log = changes(store, room, end - 1, 10).await;
    assert_eq!((log.through, log.rows.len()), (Seq(end), 1));
    assert!(changes(store, room, end, 10).await.rows.is_empty());
    let repeat = store.apply(&batch(vec![add_with(room, "alice", "last", "id")])).await.unwrap();
    assert_eq!(repeat.outcomes, [Outcome::Duplicate { message: last.id, pos: Seq(end) }]);
}
