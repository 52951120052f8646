//! What is written and read of a message.

use super::Subject;
use super::tools::{NOW, add, add_with, batch_at, changes, delete, edit, last_seq, message, one, refused, room};
use crate::error::Code;
use crate::id::{ClientId, MessageId, Millis, Seq};
use crate::store::Store;
use crate::store::model::{Change, Message, MessageOp, Outcome};

/// In the outcome, the history and the log.
pub async fn an_added_message_is_read_as_it_was_written(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let added = message(store, add_with(room, "alice", " one\n", "id")).await;
    let expected = Message {
        id: MessageId::own(room, Seq(1)).unwrap(),
        room,
        pos: Seq(1),
        sender: "alice".into(),
        sender_name: "alice's name".into(),
        body: Some(" one\n".into()),
        client_id: ClientId::new("id"),
        created_at: NOW,
        edited_at: None,
        deleted_at: None,
    };
    assert_eq!(added, expected);
    expect_stored(store, &expected).await;
}

async fn expect_stored(store: &dyn Store, expected: &Message) {
    let page = store.history(expected.room, None, 100).await.unwrap();
    assert!(page.messages.contains(expected), "{page:?}");
    let log = changes(store, expected.room, 0, 100).await;
    assert!(log.rows.iter().any(|row| row.change == Change::Message(expected.clone())), "{log:?}");
}

/// And tells when; everything else stays.
pub async fn an_edit_replaces_the_text_in_its_place(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let added = message(store, add_with(room, "alice", "one", "id")).await;
    message(store, add(room, "bob", "two")).await;
    let later = batch_at(NOW.0 + 5, vec![edit(room, "alice", added.id, "eins")]);
    let outcome = store.apply(&later).await.unwrap().outcomes.remove(0);
    let Outcome::Message { op: MessageOp::Edited, at, message: edited } = outcome else { panic!("{outcome:?}") };
    assert_eq!(at.seq, Seq(3));
    assert_eq!(edited, Message { body: Some("eins".into()), edited_at: Some(NOW.plus(5)), ..added });
    expect_stored(store, &edited).await;
}

/// Without the text, for good.
pub async fn a_deleted_message_leaves_a_tombstone(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let added = message(store, add_with(room, "alice", "one", "id")).await;
    let later = batch_at(NOW.0 + 5, vec![delete(room, "mona", added.id)]);
    let outcome = store.apply(&later).await.unwrap().outcomes.remove(0);
    let Outcome::Message { op: MessageOp::Deleted, at, message: deleted } = outcome else { panic!("{outcome:?}") };
    assert_eq!(at.seq, Seq(2));
    assert_eq!(deleted, Message { body: None, deleted_at: Some(NOW.plus(5)), ..added.clone() });
    expect_stored(store, &deleted).await;
    assert_eq!(one(store, edit(room, "alice", added.id, "back")).await, refused(Code::MessageDeleted));
    assert_eq!(one(store, delete(room, "alice", added.id)).await, refused(Code::MessageDeleted));
    assert_eq!(last_seq(store, room).await, 2);
}

/// Byte for byte: nothing is normalised, trimmed or cut.
pub async fn texts_of_all_scripts_come_back(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let texts = [
        "👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪 👍🏽",
        "שלום עולם, مرحبا بالعالم",
        "e\u{301} \u{e9} n\u{303} \u{1100}\u{1161} Z\u{351}\u{36b}a",
        "\u{202e}right to left override\u{202c}",
        "漢字 かな 한글 ภาษาไทย हिन्दी",
        "\u{1}\u{7f}\u{80}\u{feff}\u{fffd}\u{ffff}\u{10ffff}",
        " \t\r\n leading and trailing \u{a0}\u{2003} ",
        "'; DROP TABLE digi_message; -- \" ` [x] % _ \\ {0} ?1 @p1",
        "",
    ];
    for text in texts {
        let mut command = add(room, "alice", text);
        command.user_name = text.into();
        let added = message(store, command).await;
        assert_eq!((added.body.as_deref(), &*added.sender_name), (Some(text), text));
        expect_stored(store, &added).await;
        let edited = message(store, edit(room, "alice", added.id, &format!("{text}{text}"))).await;
        expect_stored(store, &edited).await;
    }
    // Keys and client ids as well, and none stands for another.
    let users = ["é", "e\u{301}", "É", "ß", "ss", "👍", "👍🏽", "a", "A", "a "];
    for user in users {
        assert_eq!(one(store, add(room, user, "no")).await, refused(Code::NotAMember));
        one(store, super::tools::join(room, user, crate::store::model::Role::Member)).await;
        let first = message(store, add_with(room, user, "yes", "id")).await;
        assert_eq!(first.sender.as_str(), user);
        let second = message(store, add_with(room, user, "yes", user)).await;
        assert_eq!(second.client_id.as_ref().map(ClientId::as_str), Some(user));
        expect_stored(store, &second).await;
    }
    let other = subject.another().await;
    for (store, user) in [Some(store), other.as_deref()].into_iter().flatten().zip(users.iter().cycle()) {
        assert!(matches!(one(store, add_with(room, user, "yes", user)).await, Outcome::Duplicate { .. }));
    }
}

/// Wherever it stands, in new and in edited texts.
pub async fn nul_is_refused(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let added = message(store, add(room, "alice", "one")).await;
    for text in ["\0", "a\0b", "\0a", "a\0"] {
        assert_eq!(one(store, add(room, "alice", text)).await, refused(Code::BadBody));
        assert_eq!(one(store, edit(room, "alice", added.id, text)).await, refused(Code::BadBody));
    }
    expect_stored(store, &added).await;
    assert_eq!(last_seq(store, room).await, 1);
}

/// The longest text that Digi takes by default, in characters of one and of four bytes, also many at once.
pub async fn sixteen_kib_come_back(subject: Subject) {
    let store = &*subject.store;
    let room = room(store).await;
    let (narrow, wide) = ("x".repeat(16 << 10), "🙂".repeat(4 << 10));
    let added = message(store, add(room, "alice", &narrow)).await;
    expect_stored(store, &added).await;
    expect_stored(store, &message(store, edit(room, "alice", added.id, &wide)).await).await;
    let outcomes = super::tools::outcomes(store, vec![add(room, "bob", &wide); 20]).await;
    for outcome in outcomes {
        let Outcome::Message { message, .. } = outcome else { panic!("{outcome:?}") };
        expect_stored(store, &message).await;
    }
}

/// A change's time is the later of the batch's and the last change's, through every handle.
pub async fn times_never_go_back(subject: Subject) {
    let other = subject.another().await;
    let store = &*subject.store;
    let (here, there) = (room(store).await, room(store).await);
    let at = |now: u64, store| async move {
        let applied = Store::apply(store, &batch_at(now, vec![add(here, "alice", "x")])).await.unwrap();
        let Outcome::Message { message, .. } = &applied.outcomes[0] else { panic!("{applied:?}") };
        message.clone()
    };
    let t = NOW.0;
    assert_eq!(at(t + 100, store).await.created_at, Millis(t + 100));
    let second = at(t + 50, store).await;
    assert_eq!(second.created_at, Millis(t + 100));
    assert_eq!(at(t + 70, other.as_deref().unwrap_or(store)).await.created_at, Millis(t + 100));
    assert_eq!(at(t + 200, other.as_deref().unwrap_or(store)).await.created_at, Millis(t + 200));
    let commands = vec![edit(here, "alice", second.id, "y"), delete(here, "alice", second.id), add(there, "bob", "z")];
    let applied = store.apply(&batch_at(t + 150, commands)).await.unwrap();
    let [
        Outcome::Message { message: edited, .. },
        Outcome::Message { message: deleted, .. },
        Outcome::Message { message: elsewhere, .. },
    ] = &applied.outcomes[..]
    else {
        panic!("{applied:?}")
    };
    assert_eq!(edited.edited_at, Some(Millis(t + 200)));
    assert_eq!(deleted.deleted_at, Some(Millis(t + 200)));
    assert_eq!(elsewhere.created_at, Millis(t + 150));
}
