//! Rooms, memberships and their numbers.

use super::Subject;
use super::tools::{NOW, add, apply, changes, head, join, last_seq, leave, one, outcomes, room, rows};
use crate::id::{Cursor, Epoch, RoomId, Seq, UserKey};
use crate::store::model::{MemberAnswer, MemberOp, Membership, NewRoom, Outcome, Role};
use crate::store::{Store, StoreError};

async fn role(store: &dyn Store, room: RoomId, user: &str) -> Option<Role> {
    let answer = store.member(room, &user.into()).await.unwrap();
    answer.membership.map(|membership| membership.role)
}

/// Its head stands at 0, in the epoch of its making; its first members are no changes.
pub async fn a_new_room_has_its_members(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    assert_eq!(head(store, room).await, Cursor::new(Epoch(NOW.0), Seq(0)));
    assert_eq!(role(store, room, "alice").await, Some(Role::Member));
    assert_eq!(role(store, room, "mona").await, Some(Role::Moderator));
    assert_eq!(role(store, room, "carol").await, None);
    let log = changes(store, room, 0, 10).await;
    assert_eq!((log.floor, log.through, log.rows.len()), (Seq(0), Seq(0), 0));
    assert!(store.history(room, None, 10).await.unwrap().messages.is_empty());
}

/// From 1 to `RoomId::MAX_OWN`, each once.
pub async fn room_ids_are_chosen_or_given(subject: Subject) {
    let store = &*subject.store;
    let make = |id: Option<i64>| {
        let room = NewRoom { id: id.map(RoomId), ..NewRoom::default() };
        async move { store.create_room(&room, NOW).await }
    };
    let first = make(None).await.unwrap();
    let second = make(None).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(make(Some(second.0)).await, Err(StoreError::RoomExists(second)));
    assert_eq!(make(Some(1_000)).await, Ok(RoomId(1_000)));
    let next = make(None).await.unwrap();
    assert!(![first, second, RoomId(1_000)].contains(&next));
    for outside in [0, -1, RoomId::MAX_OWN + 1, i64::MAX, i64::MIN] {
        assert!(matches!(make(Some(outside)).await, Err(StoreError::Rejected(_))), "{outside}");
    }
    let last = RoomId(RoomId::MAX_OWN);
    assert_eq!(make(Some(last.0)).await, Ok(last));
    apply(store, vec![join(last, "alice", Role::Member), add(last, "alice", "at the end")]).await;
    assert_eq!(store.history(last, None, 10).await.unwrap().messages[0].id.split_own(), (last, Seq(2)));
    let none = RoomId(2_000);
    assert_eq!(store.member(none, &"alice".into()).await, Err(StoreError::NoSuchRoom(none)));
}

/// With a number each, and in effect.
pub async fn joining_and_leaving_are_changes(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let commands = vec![
        join(room, "carol", Role::Member),
        add(room, "carol", "hello"),
        join(room, "carol", Role::Moderator),
        leave(room, "carol"),
    ];
    let outcomes = outcomes(store, commands).await;
    let epoch = head(store, room).await.epoch;
    let changed = |seq, op| Outcome::Member { op, at: Cursor::new(epoch, Seq(seq)), member: UserKey::from("carol") };
    assert_eq!(outcomes[0], changed(1, MemberOp::Joined));
    assert_eq!(outcomes[2], changed(3, MemberOp::Joined));
    assert_eq!(outcomes[3], changed(4, MemberOp::Left));
    assert_eq!(role(store, room, "carol").await, None);
    one(store, join(room, "carol", Role::Moderator)).await;
    assert_eq!(role(store, room, "carol").await, Some(Role::Moderator));
    one(store, join(room, "carol", Role::Member)).await;
    assert_eq!(role(store, room, "carol").await, Some(Role::Member));
    let expected = ["+carol", "2 hello", "+carol", "-carol", "+carol", "+carol"];
    let expected: Vec<_> = (1..).zip(expected.map(str::to_owned)).collect();
    assert_eq!(rows(&changes(store, room, 0, 10).await), expected);
}

/// A member who joins with the same role, and a leaver who is none.
pub async fn what_is_so_already_is_unchanged(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let commands = vec![join(room, "bob", Role::Member), join(room, "mona", Role::Moderator), leave(room, "nobody")];
    assert_eq!(outcomes(store, commands).await, vec![Outcome::Unchanged; 3]);
    assert_eq!(last_seq(store, room).await, 0);
}

/// The answer's head is the one that the membership belongs to, or an earlier one.
pub async fn a_membership_comes_with_the_head_before_it(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    for n in 0..10 {
        let before = last_seq(store, room).await;
        let command = if n % 2 == 0 { leave(room, "bob") } else { join(room, "bob", Role::Member) };
        one(store, command).await;
        let MemberAnswer { membership, head } = store.member(room, &"bob".into()).await.unwrap();
        assert_eq!(head.last_seq.0, before + 1);
        assert_eq!(membership, (n % 2 == 1).then_some(Membership { role: Role::Member }));
    }
}
