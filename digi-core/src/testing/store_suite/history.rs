//! `history` and `heads`.

use super::Subject;
use super::tools::{add, bodies, delete, edit, fill, join, message, one, room};
use crate::id::{RoomId, Seq};
use crate::store::StoreError;
use crate::store::model::Role;

/// So many as were asked for, with the head that they show.
pub async fn the_newest_come_oldest_first(subject: Subject) {
    let store = &*subject.store;
    let (here, there) = (room(store).await, room(store).await);
    fill(store, here, 5).await;
    fill(store, there, 2).await;
    assert_eq!(bodies(store, here, None, 3).await, ["2", "3", "4"]);
    assert_eq!(bodies(store, here, None, 5).await, ["0", "1", "2", "3", "4"]);
    assert_eq!(bodies(store, here, None, 200).await.len(), 5);
    assert_eq!(bodies(store, here, None, u32::MAX).await.len(), 5);
    assert!(bodies(store, here, None, 0).await.is_empty());
    assert_eq!(bodies(store, there, None, 10).await, ["0", "1"]);
    assert_eq!(store.history(here, None, 1).await.unwrap().head.last_seq, Seq(5));
}

/// By place: numbers of other changes between them do not matter.
pub async fn pages_go_back_to_the_beginning(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    for n in 0..10 {
        message(store, add(room, "alice", &n.to_string())).await;
        one(store, join(room, &n.to_string(), Role::Member)).await;
    }
    let (mut before, mut all) = (None, Vec::new());
    loop {
        let page = store.history(room, before, 3).await.unwrap();
        let Some(oldest) = page.messages.first() else { break };
        before = Some(oldest.pos);
        let texts = page.messages.iter().map(|message| message.body.as_deref().unwrap().to_owned());
        all.splice(0..0, texts);
    }
    assert_eq!(all, (0..10).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(bodies(store, room, Some(4), 10).await, ["0", "1"]);
    assert_eq!(bodies(store, room, Some(3), 10).await, ["0"]);
    assert!(bodies(store, room, Some(1), 10).await.is_empty());
    assert!(bodies(store, room, Some(0), 10).await.is_empty());
    for beyond in [20, 1_000, u64::from(u32::MAX), u64::from(u32::MAX) + 1, u64::MAX] {
        assert_eq!(bodies(store, room, Some(beyond), 2).await, ["8", "9"]);
    }
}

/// In their place, and counted.
pub async fn tombstones_are_part_of_it(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    fill(store, room, 2).await;
    let gone = message(store, add(room, "alice", "gone")).await.id;
    fill(store, room, 2).await;
    one(store, delete(room, "alice", gone)).await;
    assert_eq!(bodies(store, room, None, 10).await, ["0", "1", "-", "0", "1"]);
    assert_eq!(bodies(store, room, None, 3).await, ["-", "0", "1"]);
    let kept = message(store, add(room, "alice", "kept")).await.id;
    one(store, edit(room, "alice", kept, "edited")).await;
    assert_eq!(bodies(store, room, None, 1).await, ["edited"]);
}

/// It is said which room is not there.
pub async fn a_room_that_is_not_there_has_no_history(subject: Subject) {
    for room in [1, 0, -1, i64::MAX].map(RoomId) {
        assert_eq!(subject.store.history(room, None, 10).await, Err(StoreError::NoSuchRoom(room)));
    }
}

/// Rooms that do not exist are left out.
pub async fn heads_of_many_rooms(subject: Subject) {
    let store = &*subject.store;
    let mut rooms = Vec::new();
    for n in 0..50 {
        let room = room(store).await;
        fill(store, room, n).await;
        rooms.push(room);
    }
    let asked: Vec<_> = [RoomId(-1)].into_iter().chain(rooms.iter().copied()).chain([RoomId(1_000_000)]).collect();
    let mut heads = store.heads(&asked).await.unwrap();
    heads.sort_by_key(|(room, _)| *room);
    let heads: Vec<_> = heads.iter().map(|(room, head)| (*room, head.last_seq.0)).collect();
    assert_eq!(heads, rooms.into_iter().zip(0..50).collect::<Vec<_>>());
    assert!(store.heads(&[]).await.unwrap().is_empty());
}
