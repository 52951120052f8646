//! `changes`: what a client missed.

use super::Subject;
use super::tools::{add, changes, delete, edit, fill, join, leave, message, one, outcomes, room, rows};
use crate::id::{RoomId, Seq};
use crate::store::StoreError;
use crate::store::model::Role;

fn texts(rows: &[(u64, &str)]) -> Vec<(u64, String)> {
    rows.iter().map(|(seq, text)| (*seq, (*text).to_owned())).collect()
}

/// One row with the present state, at the number of its last change; a message added and deleted is one tombstone.
pub async fn a_message_changed_often_is_one_row(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let one = message(store, add(room, "alice", "a")).await.id;
    let two = message(store, add(room, "alice", "b")).await.id;
    let commands = vec![
        edit(room, "alice", one, "a2"),
        edit(room, "alice", one, "a3"),
        edit(room, "alice", two, "b2"),
        edit(room, "alice", one, "a4"),
        delete(room, "alice", two),
    ];
    outcomes(store, commands).await;
    let expected = texts(&[(6, "1 a4"), (7, "2 -")]);
    for after in 0..=5 {
        assert_eq!(rows(&changes(store, room, after, 100).await), expected, "after {after}");
    }
    assert_eq!(rows(&changes(store, room, 6, 100).await), texts(&[(7, "2 -")]));
}

/// However often a user comes and goes.
pub async fn memberships_are_rows_of_their_own(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let commands = vec![
        join(room, "carol", Role::Member),
        leave(room, "carol"),
        add(room, "alice", "a"),
        join(room, "carol", Role::Moderator),
        leave(room, "carol"),
    ];
    outcomes(store, commands).await;
    let expected = [(1, "+carol"), (2, "-carol"), (3, "3 a"), (4, "+carol"), (5, "-carol")];
    for after in 0..5 {
        assert_eq!(rows(&changes(store, room, after, 100).await), texts(&expected[after as usize..]));
    }
}

/// Wherever the messages stand.
pub async fn rows_come_in_order_of_their_last_change(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    fill(store, room, 10).await;
    let ids: Vec<_> = store.history(room, None, 10).await.unwrap().messages.iter().map(|m| m.id).collect();
    let mut commands: Vec<_> = ids.iter().rev().map(|id| edit(room, "alice", *id, "edited")).collect();
    commands.insert(5, add(room, "bob", "between"));
    outcomes(store, commands).await;
    let log = changes(store, room, 0, 100).await;
    let places: Vec<_> = rows(&log).into_iter().map(|(seq, _)| seq).collect();
    assert_eq!(places, (11..=21).collect::<Vec<_>>());
    assert_eq!(rows(&log)[0].1, "10 edited");
    assert_eq!(rows(&log)[5].1, "16 between");
    assert_eq!(rows(&log)[10].1, "1 edited");
}

/// Covering every number up to it, however few the rows are.
pub async fn through_is_the_limit_or_the_head(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let first = message(store, add(room, "alice", "a")).await.id;
    outcomes(store, (0..9).map(|n| edit(room, "alice", first, &format!("a{n}"))).collect()).await;
    for (after, limit, through) in
        [(0, 1, 1), (0, 5, 5), (4, 5, 9), (4, 6, 10), (4, 7, 10), (0, u64::MAX, 10), (9, u64::MAX, 10), (3, 0, 3)]
    {
        let log = changes(store, room, after, limit).await;
        assert_eq!((log.through, log.head.last_seq, log.floor), (Seq(through), Seq(10), Seq(0)), "{after} {limit}");
        let expected = if limit == 0 { vec![] } else { texts(&[(through, "1 a8")]) };
        assert_eq!(rows(&log), expected, "{after} {limit}");
    }
}

/// Whoever goes on from `through` until the head misses nothing.
pub async fn pages_cover_everything(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    for n in 0..10 {
        let id = message(store, add(room, "alice", &format!("m{n}"))).await.id;
        one(store, join(room, &format!("user {n}"), Role::Member)).await;
        if n % 3 == 0 {
            one(store, edit(room, "alice", id, &format!("m{n} edited"))).await;
        }
    }
    let whole = rows(&changes(store, room, 0, 1_000).await);
    for limit in [1, 2, 3, 7, 24, 25] {
        let (mut after, mut all) = (0, Vec::new());
        loop {
            let page = changes(store, room, after, limit).await;
            all.extend(rows(&page));
            after = page.through.0;
            if page.through == page.head.last_seq {
                break;
            }
        }
        // A page that ends between two changes of a message has it, and the next one has it again.
        for row in &whole {
            assert!(all.contains(row), "limit {limit}: {row:?} in {all:?}");
        }
        assert!(all.is_sorted_by_key(|(seq, _)| *seq), "limit {limit}");
    }
}

/// At the head, and for a client that claims to be beyond it.
pub async fn nothing_comes_after_the_head(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    fill(store, room, 3).await;
    for after in [3, 4, 1_000, u64::from(u32::MAX) + 1, i64::MAX as u64, u64::MAX] {
        let log = changes(store, room, after, 100).await;
        assert_eq!((log.through, log.head.last_seq, log.rows.len()), (Seq(3), Seq(3), 0), "after {after}");
    }
}

/// It is said which room is not there.
pub async fn a_room_that_is_not_there_has_no_log(subject: Subject) {
    for room in [1, 0, -1, i64::MAX].map(RoomId) {
        let answer = subject.store.changes(room, Seq(0), 10).await;
        assert_eq!(answer, Err(StoreError::NoSuchRoom(room)));
    }
}
