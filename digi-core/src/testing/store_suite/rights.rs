//! Who may do what, asked inside the transaction.

use super::Subject;
use super::tools::{
    add, command, delete, edit, host, join, last_seq, leave, message, one, outcomes, refused, room, seqs,
};
use crate::error::Code;
use crate::id::{MessageId, RoomId};
use crate::store::model::{Action, Authority, Outcome, Role};

/// Members add, edit and delete; nobody else does.
pub async fn only_members_write(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let first = message(store, add(room, "alice", "one")).await;
    let commands = vec![
        add(room, "nobody", "no"),
        edit(room, "nobody", first.id, "no"),
        delete(room, "nobody", first.id),
        add(room, "Alice", "keys differ by case"),
        add(room, "alice ", "and by spaces"),
    ];
    assert!(outcomes(store, commands).await.iter().all(|outcome| *outcome == refused(Code::NotAMember)));
    assert_eq!(last_seq(store, room).await, 1);
}

/// Also for the host.
pub async fn unknown_rooms_are_refused(subject: Subject) {
    let store = &*subject.store;
    let known = room(store).await;
    for nowhere in [known.0 + 1, 0, -1, RoomId::MAX_OWN + 1, i64::MAX, i64::MIN] {
        let nowhere = RoomId(nowhere);
        let commands =
            vec![add(nowhere, "alice", "no"), host(nowhere, Action::RemoveMember { member: "alice".into() })];
        assert_eq!(outcomes(store, commands).await, [refused(Code::NoSuchRoom), refused(Code::NoSuchRoom)]);
    }
}

/// Not even a moderator edits what others wrote.
pub async fn only_the_sender_edits(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let first = message(store, add(room, "alice", "one")).await;
    assert_eq!(one(store, edit(room, "bob", first.id, "no")).await, refused(Code::NotSender));
    assert_eq!(one(store, edit(room, "mona", first.id, "no")).await, refused(Code::NotSender));
    assert_eq!(message(store, edit(room, "alice", first.id, "yes")).await.body.as_deref(), Some("yes"));
}

/// But no other member.
pub async fn the_sender_or_a_moderator_deletes(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let first = message(store, add(room, "alice", "one")).await;
    let second = message(store, add(room, "alice", "two")).await;
    assert_eq!(one(store, delete(room, "bob", first.id)).await, refused(Code::NotSender));
    message(store, delete(room, "alice", first.id)).await;
    message(store, delete(room, "mona", second.id)).await;
}

/// The host writes without being a member, and edits and deletes what others wrote.
pub async fn the_host_is_not_asked(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let notice = message(store, host(room, Action::Add { body: "notice".into(), client_id: None })).await;
    assert_eq!((notice.sender.as_str(), &*notice.sender_name), ("host", "host's name"));
    let first = message(store, add(room, "alice", "one")).await;
    let edited = message(store, host(room, Action::Edit { message: first.id, body: "***".into() })).await;
    assert_eq!((edited.sender.as_str(), edited.body.as_deref()), ("alice", Some("***")));
    message(store, host(room, Action::Delete { message: first.id })).await;
}

/// Whoever the user is.
pub async fn membership_needs_the_host(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    for user in ["alice", "mona"] {
        let join = Action::AddMember { member: "carol".into(), name: "C".into(), role: Role::Member };
        let leave = Action::RemoveMember { member: "bob".into() };
        let refusals = outcomes(store, vec![command(room, user, join), command(room, user, leave)]).await;
        assert_eq!(refusals, [refused(Code::Refused), refused(Code::Refused)]);
    }
    assert_eq!(store.member(room, &"carol".into()).await.unwrap().membership, None);
    assert!(store.member(room, &"bob".into()).await.unwrap().membership.is_some());
}

/// An id of another room's message, or of none, is not found, whoever asks.
pub async fn a_message_belongs_to_its_room(subject: Subject) {
    let store = &*subject.store;
    let (here, there) = (room(store).await, room(store).await);
    let first = message(store, add(here, "alice", "one")).await;
    for (room, id) in [
        (there, first.id),
        (here, MessageId(first.id.0 + 1)),
        (here, MessageId(0)),
        (here, MessageId(-1)),
        (here, MessageId(i64::MAX)),
        (here, MessageId(i64::MIN)),
    ] {
        assert_eq!(one(store, edit(room, "alice", id, "no")).await, refused(Code::NoSuchMessage), "{id:?}");
        assert_eq!(one(store, delete(room, "mona", id)).await, refused(Code::NoSuchMessage), "{id:?}");
        let by_host = Action::Delete { message: id };
        assert_eq!(one(store, host(room, by_host)).await, refused(Code::NoSuchMessage), "{id:?}");
    }
}

/// In the same batch and in later ones; and back again.
pub async fn a_removed_member_is_refused_at_once(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let commands = vec![
        add(room, "bob", "one"),
        leave(room, "bob"),
        add(room, "bob", "no"),
        join(room, "bob", Role::Moderator),
        add(room, "bob", "again"),
        leave(room, "bob"),
    ];
    let first = outcomes(store, commands).await;
    assert_eq!(seqs(&first), [Some(1), Some(2), None, Some(3), Some(4), Some(5)]);
    assert_eq!(first[2], refused(Code::NotAMember));
    assert_eq!(one(store, add(room, "bob", "no")).await, refused(Code::NotAMember));
    let Outcome::Message { message: own, .. } = &first[0] else { panic!("{first:?}") };
    assert_eq!(one(store, edit(room, "bob", own.id, "no")).await, refused(Code::NotAMember));
}

/// What one handle has seen of a member does not outlive a removal, or a new role, through another.
pub async fn a_member_removed_elsewhere_is_refused(subject: Subject) {
    let Some(other) = subject.another().await else { return };
    let store = &*subject.store;
    let room = room(store).await;
    let first = message(store, add(room, "alice", "one")).await;
    message(store, add(room, "bob", "two")).await;
    one(&*other, leave(room, "bob")).await;
    assert_eq!(one(store, add(room, "bob", "no")).await, refused(Code::NotAMember));
    one(&*other, join(room, "bob", Role::Moderator)).await;
    message(store, delete(room, "bob", first.id)).await;
    one(store, leave(room, "bob")).await;
    let mut by_host = add(room, "bob", "for bob");
    by_host.authority = Authority::Host;
    message(&*other, by_host).await;
    assert_eq!(one(&*other, add(room, "bob", "no")).await, refused(Code::NotAMember));
}
