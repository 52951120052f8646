//! What is sent: the same text whatever is stored, and everything else bound to it.

use std::collections::HashSet;

use digi_core::id::{ClientId, Cursor, Epoch, MessageId, Millis, RoomId, Seq};
use digi_core::store::Store;
use digi_core::store::model::{Action, Authority, BatchId, NewRoom, Role};

use crate::peer::{Peer, Request, Setup, Value};
use crate::script::{self, NOW, ROOM, SESSION, batch_of, command};

const HOSTILE: &str = "'; DROP TABLE digi_message; -- ]] @P1 \u{1F600} {schema} %s";

/// Every call of the trait, with this text wherever a text can be.
async fn everything(text: &str, schema: &str) -> Vec<Request> {
    let peer = Peer::start(Setup::new(|request| script::server(request).into()));
    let mut options = peer.options();
    options.schema = schema.into();
    let store = digi_core::store::mssql::MssqlStore::open(options).unwrap();
    let message = MessageId::own(ROOM, Seq(1)).unwrap();
    let host = |action| digi_core::store::model::Command { authority: Authority::Host, ..command(action) };
    let actions = vec![
        command(Action::Add { body: text.into(), client_id: ClientId::new(&text[..8]) }),
        command(Action::Edit { message, body: text.into() }),
        command(Action::Delete { message }),
        host(Action::AddMember { member: text.into(), name: text.into(), role: Role::Moderator }),
        host(Action::RemoveMember { member: "alice".into() }),
    ];
    // What the answers make of it isn't the question here, nor whether they fit.
    let _ = store.migrate().await;
    store.apply(&batch_of(1, actions)).await.unwrap();
    let _ = store.void(BatchId { node: 5, number: 2 }).await;
    let _ = store.member(ROOM, &text.into()).await;
    let _ = store.changes(ROOM, Seq(0), 100).await;
    let _ = store.history(ROOM, Some(Seq(9)), 50).await;
    let _ = store.heads(&[ROOM, RoomId(2)]).await;
    let _ = store.raise_epoch(ROOM, Cursor::new(Epoch(9), Seq(3)), NOW).await;
    let _ = store.raise_all(NOW).await;
    let members = vec![(text.into(), text.into(), Role::Member)];
    let room = NewRoom { name: text.into(), kind: text.into(), members, ..NewRoom::default() };
    let _ = store.create_room(&room, NOW).await;
    let _ = store.purge(ROOM, Millis(5)).await;
    peer.look(|seen| seen.requests.clone())
}

#[tokio::test]
async fn values_are_bound_and_never_part_of_a_text() {
    let hostile = everything(HOSTILE, "dbo").await;
    assert!(hostile.len() >= 12, "{hostile:?}");
    for Request { text, values, .. } in &hostile {
        assert!(!text.contains("DROP") && !text.contains('\u{1F600}') && !text.contains("{schema}"), "{text}");
        // The schema's name is all that was put in.
        assert!(!text.contains("digi_") || text.contains("[dbo].digi_"), "{text}");
        assert!(values.len() <= 2_100, "{text}");
        for number in 1..=values.len() {
            assert!(text.contains(&format!("@P{number}")), "@P{number} is used in: {text}");
        }
        assert!(!text.contains(&format!("@P{}", values.len() + 1)), "{text}");
    }
    let carries = |value: &Value| matches!(value, Value::Text(text) if text.contains("DROP TABLE"));
    let carriers = hostile.iter().filter(|request| request.values.iter().any(carries)).count();
    // The batch, the member that is asked for, the new room.
    assert!(carriers >= 3, "{carriers}");
    // The server compiles nothing twice, whatever the texts.
    let texts = |requests: &[Request]| requests.iter().map(|request| request.text.clone()).collect::<HashSet<_>>();
    assert_eq!(texts(&hostile), texts(&everything("a harmless text", "dbo").await));
}

#[tokio::test]
async fn the_schema_is_quoted_wherever_it_stands() {
    let requests = everything("a harmless text", "my chat]; DROP TABLE x; --").await;
    for Request { text, .. } in &requests {
        let rest = text.replace("[my chat]]; DROP TABLE x; --]", "");
        assert!(!rest.contains("DROP") && !rest.contains("dbo"), "{text}");
    }
}

#[tokio::test]
async fn a_connection_begins_with_what_the_guarantees_rest_on() {
    let requests = everything("a harmless text", "dbo").await;
    let mut seen = HashSet::new();
    for request in &requests {
        if seen.insert(request.connection) {
            assert!(request.text.contains(SESSION) && request.text.contains("READ COMMITTED"), "{request:?}");
        }
    }
    // One of the lane, one that reads.
    assert_eq!(seen.len(), 2);
}

/// A thousand messages in one room: as many requests as for one, and no more parameters than the server takes.
#[tokio::test]
async fn a_batch_on_a_remembered_head_is_one_request() {
    let peer = Peer::start(Setup::new(|request| script::server(request).into()));
    let store = peer.store();
    let messages = |number: u64, count: usize| {
        let add = |n| command(Action::Add { body: format!("message {n}").into(), client_id: None });
        batch_of(number, (0..count).map(add).collect())
    };
    store.apply(&messages(1, 1)).await.unwrap();
    for (number, count) in [(2, 1), (3, 100), (4, 1_000)] {
        let before = peer.look(|seen| seen.requests.len());
        store.apply(&messages(number, count)).await.unwrap();
        let made = peer.look(|seen| seen.requests[before..].to_vec());
        assert_eq!(made.len(), 1, "{made:?}");
        assert!((count..2_100).contains(&made[0].values.len()), "{}", made[0].values.len());
    }
}
