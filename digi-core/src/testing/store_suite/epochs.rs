//! Restored data and purged history.

use super::Subject;
use super::tools::{
    NOW, add, add_with, apply, batch, bodies, changes, edit, fill, head, join, last_seq, message, one, room, rows, seqs,
};
use crate::id::{Cursor, Epoch, Millis, RoomId, Seq};
use crate::store::StoreError;
use crate::store::model::{Batch, LOG_WINDOW, Outcome, Role};

fn cursor(epoch: u64, seq: u64) -> Cursor {
    Cursor::new(Epoch(epoch), Seq(seq))
}

/// The new epoch lies above both, the numbers go on above both, and what was before can't be resumed from.
pub async fn a_head_below_what_was_seen_is_raised(subject: Subject) {
    let store = &*subject.store;
    let t = NOW.0;
    for (seen, now, expected) in [
        (cursor(t, 9), t + 50, cursor(t + 50, 9)),
        (cursor(t, 9), t - 50, cursor(t + 1, 9)),
        (cursor(t + 70, 9), t + 50, cursor(t + 71, 9)),
        // Of a later epoch, though its number is lower.
        (cursor(t + 70, 1), t + 50, cursor(t + 71, 3)),
    ] {
        let room = room(store).await;
        fill(store, room, 3).await;
        let raised = store.raise_epoch(room, seen, Millis(now)).await.unwrap();
        assert_eq!(raised.cursor(), expected);
        assert_eq!(head(store, room).await, expected);
        assert_eq!(changes(store, room, 0, 10).await.floor, expected.seq);
        let next = apply(store, vec![add(room, "alice", "next")]).await;
        assert_eq!(
            next.heads,
            [(room, crate::store::model::Head { epoch: expected.epoch, last_seq: expected.seq.next() })]
        );
        assert_eq!(bodies(store, room, None, 10).await, ["0", "1", "2", "next"]);
        let log = changes(store, room, expected.seq.0, 10).await;
        assert_eq!(rows(&log), [(expected.seq.0 + 1, format!("{} next", expected.seq.0 + 1))]);
    }
}

/// At or above what was seen, in the same epoch or a later one: nothing was restored.
pub async fn a_head_that_is_not_below_stays(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    fill(store, room, 3).await;
    let t = NOW.0;
    for seen in [cursor(t, 3), cursor(t, 0), cursor(t - 1, 100), cursor(0, 0)] {
        assert_eq!(store.raise_epoch(room, seen, Millis(t + 50)).await.unwrap().cursor(), cursor(t, 3));
    }
    assert_eq!(changes(store, room, 0, 10).await.floor, Seq(0));
    let none = RoomId(room.0 + 1);
    assert_eq!(store.raise_epoch(none, cursor(t, 9), NOW).await, Err(StoreError::NoSuchRoom(none)));
}

/// Before anything is numbered, and also when nothing will be.
pub async fn a_batch_raises_a_restored_room_first(subject: Subject) {
    let store = &*subject.store;
    let (here, there, untouched) = (room(store).await, room(store).await, room(store).await);
    for room in [here, there, untouched] {
        fill(store, room, 3).await;
    }
    let t = NOW.0;
    let known = vec![(here, cursor(t, 10)), (there, cursor(t, 20)), (untouched, cursor(t, 30))];
    let commands = vec![add(here, "alice", "one"), add(there, "nobody", "no"), add(here, "bob", "two")];
    let batch = Batch { known, now: Millis(t + 50), ..batch(commands) };
    let applied = store.apply(&batch).await.unwrap();
    assert_eq!(seqs(&applied.outcomes), [Some(11), None, Some(12)]);
    let Outcome::Message { at, .. } = applied.outcomes[0] else { panic!("{applied:?}") };
    assert_eq!(at, cursor(t + 50, 11));
    assert_eq!(head(store, here).await, cursor(t + 50, 12));
    assert_eq!(changes(store, here, 0, 10).await.floor, Seq(10));
    assert_eq!(head(store, there).await, cursor(t + 50, 20));
    assert_eq!(head(store, untouched).await, cursor(t, 3));
}

/// A node that has seen less than the store has only missed something.
pub async fn a_batch_that_knows_less_raises_nothing(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    fill(store, room, 3).await;
    for known in [cursor(NOW.0, 3), cursor(NOW.0, 1), cursor(NOW.0 - 1, 100)] {
        let before = last_seq(store, room).await;
        let batch = Batch { known: vec![(room, known)], now: NOW.plus(50), ..batch(vec![add(room, "alice", "x")]) };
        store.apply(&batch).await.unwrap();
        assert_eq!(head(store, room).await, cursor(NOW.0, before + 1));
    }
}

/// Whatever was seen of them; the numbers stay.
pub async fn all_rooms_are_raised(subject: Subject) {
    let store = &*subject.store;
    let (full, empty) = (room(store).await, room(store).await);
    fill(store, full, 3).await;
    store.raise_all(Millis(NOW.0 + 50)).await.unwrap();
    assert_eq!(head(store, full).await, cursor(NOW.0 + 50, 3));
    assert_eq!(head(store, empty).await, cursor(NOW.0 + 50, 0));
    assert_eq!(changes(store, full, 3, 10).await.floor, Seq(3));
    store.raise_all(Millis(NOW.0)).await.unwrap();
    assert_eq!(head(store, full).await, cursor(NOW.0 + 51, 3));
    assert_eq!(seqs(&apply(store, vec![add(full, "alice", "x")]).await.outcomes), [Some(4)]);
}

/// What was in the backup and comes again is no second message, as long as the window reaches it.
pub async fn client_ids_survive_a_raise(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let first = message(store, add_with(room, "alice", "one", "id")).await;
    store.raise_epoch(room, cursor(NOW.0, LOG_WINDOW), NOW).await.unwrap();
    let repeat = one(store, add_with(room, "alice", "one", "id")).await;
    assert_eq!(repeat, Outcome::Duplicate { message: first.id, pos: first.pos });
    store.raise_epoch(room, cursor(NOW.0 + 5, LOG_WINDOW + 1), NOW).await.unwrap();
    assert_eq!(message(store, add_with(room, "alice", "one", "id")).await.pos, Seq(LOG_WINDOW + 2));
}

/// What is old goes, and the log up to the last of it; numbers and epoch go on.
pub async fn a_purge_moves_the_floor(subject: Subject) {
    let store = &*subject.store;
    let (here, there) = (room(store).await, room(store).await);
    let at = |ms, commands| async move {
        store.apply(&Batch { now: NOW.plus(ms), ..batch(commands) }).await.unwrap();
    };
    at(10, vec![add(here, "alice", "a"), add(here, "alice", "b"), join(here, "carol", Role::Member)]).await;
    at(20, vec![add(here, "carol", "c"), add(there, "alice", "other room")]).await;
    at(30, vec![add(here, "alice", "d"), join(here, "dan", Role::Member)]).await;
    assert_eq!(store.purge(here, NOW.plus(30)).await, Ok(3));
    let log = changes(store, here, 0, 100).await;
    assert_eq!((log.floor, log.through, log.head.cursor()), (Seq(4), Seq(6), cursor(NOW.0, 6)));
    assert_eq!(rows(&log), [(5, "5 d".into()), (6, "+dan".into())]);
    assert_eq!(bodies(store, here, None, 10).await, ["d"]);
    assert_eq!(bodies(store, there, None, 10).await, ["other room"]);
    // Memberships stay, whatever becomes of the log.
    assert_eq!(seqs(&apply(store, vec![add(here, "carol", "e")]).await.outcomes), [Some(7)]);
    assert_eq!(store.purge(here, Millis(u64::MAX)).await, Ok(2));
    let log = changes(store, here, 0, 100).await;
    assert_eq!((log.floor, log.through, log.rows.len()), (Seq(7), Seq(7), 0));
    assert!(bodies(store, here, None, 10).await.is_empty());
    assert_eq!(seqs(&apply(store, vec![add(here, "alice", "f")]).await.outcomes), [Some(8)]);
    let none = RoomId(there.0 + 1);
    assert_eq!(store.purge(none, NOW).await, Err(StoreError::NoSuchRoom(none)));
}

/// What was created at the very time stays.
pub async fn a_purge_without_anything_old_changes_nothing(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    assert_eq!(store.purge(room, NOW.plus(1_000)).await, Ok(0));
    apply(store, vec![join(room, "carol", Role::Member)]).await;
    fill(store, room, 3).await;
    assert_eq!(store.purge(room, NOW).await, Ok(0));
    let log = changes(store, room, 0, 100).await;
    assert_eq!((log.floor, log.rows.len()), (Seq(0), 4));
}

/// Their later changes are in the log, but there is nothing to show.
pub async fn purged_messages_have_no_row(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let old = message(store, add(room, "alice", "old")).await;
    let later = vec![add(room, "alice", "new"), edit(room, "alice", old.id, "edited")];
    store.apply(&Batch { now: NOW.plus(10), ..batch(later) }).await.unwrap();
    assert_eq!(store.purge(room, NOW.plus(10)).await, Ok(1));
    let log = changes(store, room, 1, 100).await;
    assert_eq!((log.floor, log.through, rows(&log)), (Seq(1), Seq(3), vec![(2, "2 new".into())]));
    let gone = edit(room, "alice", old.id, "again");
    assert_eq!(one(store, gone).await, Outcome::Refused(crate::error::Code::NoSuchMessage));
}
