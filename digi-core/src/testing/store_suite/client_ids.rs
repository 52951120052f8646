//! `client_id` makes `add` idempotent per room and sender.

use super::Subject;
use super::tools::{add, add_with, apply, delete, edit, fill, join, last_seq, message, one, outcomes, room, seqs};
use crate::id::Seq;
use crate::store::model::{Authority, LOG_WINDOW, Message, Outcome, Role};

fn duplicate_of(first: &Message) -> Outcome {
    Outcome::Duplicate { message: first.id, pos: first.pos }
}

/// Also when the text differs: the first one counts.
pub async fn a_repeat_in_the_same_batch_is_a_duplicate(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let commands =
        vec![add_with(room, "alice", "one", "id"), add(room, "bob", "two"), add_with(room, "alice", "other", "id")];
    let outcomes = outcomes(store, commands).await;
    let Outcome::Message { message: first, .. } = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!(outcomes[2], duplicate_of(first));
    assert_eq!(store.history(room, None, 10).await.unwrap().messages.len(), 2);
}

/// As a resend comes.
pub async fn a_repeat_in_a_later_batch_is_a_duplicate(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let first = message(store, add_with(room, "alice", "one", "id")).await;
    fill(store, room, 5).await;
    assert_eq!(one(store, add_with(room, "alice", "one", "id")).await, duplicate_of(&first));
    assert_eq!(one(store, add_with(room, "alice", "one", "id")).await, duplicate_of(&first));
    assert_eq!(last_seq(store, room).await, 6);
}

/// As a resend comes through another node, and then the late original.
pub async fn a_repeat_through_another_handle_is_a_duplicate(subject: Subject) {
    let Some(other) = subject.another().await else { return };
    let store = &*subject.store;
    let room = room(store).await;
    fill(store, room, 3).await;
    fill(&*other, room, 3).await;
    let first = message(store, add_with(room, "alice", "one", "id")).await;
    assert_eq!(one(&*other, add_with(room, "alice", "one", "id")).await, duplicate_of(&first));
    let second = message(&*other, add_with(room, "alice", "two", "id 2")).await;
    assert_eq!(one(store, add_with(room, "alice", "two", "id 2")).await, duplicate_of(&second));
}

/// What a store object remembers is no more than what the store holds.
pub async fn a_repeat_after_reopening_is_a_duplicate(mut subject: Subject) {
    let room = room(&*subject.store).await;
    let first = message(&*subject.store, add_with(room, "alice", "one", "id")).await;
    if subject.reopen().await.is_some() {
        assert_eq!(one(&*subject.store, add_with(room, "alice", "one", "id")).await, duplicate_of(&first));
    }
}

/// Within the last `LOG_WINDOW` changes of all kinds it is recognised, one change later it is new: with what one
/// handle remembers, and with what another reads.
pub async fn a_client_id_counts_for_exactly_the_window(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let first = message(store, add_with(room, "alice", "one", "id")).await;
    // Changes that are no adds count as well.
    let edits = (0..10).map(|n| edit(room, "alice", first.id, &n.to_string())).collect();
    apply(store, edits).await;
    apply(store, vec![join(room, "carol", Role::Member)]).await;
    fill(store, room, LOG_WINDOW - 1 - 11).await;
    assert_eq!(last_seq(store, room).await, LOG_WINDOW);
    assert_eq!(one(store, add_with(room, "alice", "one", "id")).await, duplicate_of(&first));
    if let Some(other) = subject.another().await {
        assert_eq!(one(&*other, add_with(room, "alice", "one", "id")).await, duplicate_of(&first));
    }
    // The repeat stands behind the change that moves the window past the first.
    let commands = vec![
        add_with(room, "alice", "one", "id"),
        add(room, "bob", "window moves"),
        add_with(room, "alice", "one", "id"),
        add_with(room, "alice", "one", "id"),
    ];
    let last = outcomes(store, commands).await;
    assert_eq!(seqs(&last), [None, Some(LOG_WINDOW + 1), Some(LOG_WINDOW + 2), None]);
    let Outcome::Message { message: second, .. } = &last[2] else { panic!("{last:?}") };
    assert_eq!(last[3], duplicate_of(second));
    if let Some(other) = subject.another().await {
        assert_eq!(one(&*other, add_with(room, "alice", "one", "id")).await, duplicate_of(second));
    }
}

/// The id is the sender's own, per room.
pub async fn another_sender_or_room_is_not_confused(subject: Subject) {
    let store = &*subject.store;
    let (here, there) = (room(store).await, room(store).await);
    let commands = vec![
        add_with(here, "alice", "one", "id"),
        add_with(here, "bob", "two", "id"),
        add_with(there, "alice", "three", "id"),
        add_with(here, "alice", "four", "id "),
        add_with(here, "alice", "five", "ID"),
        add_with(here, "alice", "six", "íd"),
        add_with(here, "alice", "one again", "id"),
    ];
    let outcomes = outcomes(store, commands).await;
    assert_eq!(seqs(&outcomes), [Some(1), Some(2), Some(1), Some(3), Some(4), Some(5), None]);
}

/// A host that speaks for a user may repeat as well, and is the same sender.
pub async fn the_host_repeats_too(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let by_host = |body: &str| {
        let mut command = add_with(room, "alice", body, "id");
        command.authority = Authority::Host;
        command
    };
    let first = message(store, by_host("one")).await;
    assert_eq!(one(store, by_host("one")).await, duplicate_of(&first));
    assert_eq!(one(store, add_with(room, "alice", "one", "id")).await, duplicate_of(&first));
}

/// A late original must not bring back what its resend added and somebody deleted.
pub async fn a_deleted_message_is_still_the_first(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let first = message(store, add_with(room, "alice", "one", "id")).await;
    message(store, delete(room, "mona", first.id)).await;
    assert_eq!(one(store, add_with(room, "alice", "one", "id")).await, duplicate_of(&first));
    assert_eq!(first.pos, Seq(1));
    if let Some(other) = subject.another().await {
        assert_eq!(one(&*other, add_with(room, "alice", "one", "id")).await, duplicate_of(&first));
    }
}
