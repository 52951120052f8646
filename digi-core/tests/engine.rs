//! The engine as a host uses it: sessions in, frames out, on real stores.
#![cfg(all(feature = "engine", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use digi_core::consumer::{Rate, Scope, Verdict};
use digi_core::engine::{Engine, EngineBuilder, Limits, Session, Speaker};
use digi_core::layer::LocalLayer;
use digi_core::store::model::{Action, Command, Membership, NewRoom, Outcome, Role};
use digi_core::token::{Keyring, Kind};
use digi_core::{ClientId, CloseCode, Code, RoomId};
use serde_json::{Value, json};

const ROOM: RoomId = RoomId(1);

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.consumer.frames = Rate { per_second: 0, burst: 1 };
    limits
}

fn builder(dir: &Path) -> EngineBuilder {
    let url = format!("sqlite:{}", dir.join("chat.db").display());
    Engine::builder().keys(Keyring::new([9; 32]).unwrap()).store(&url).limits(limits())
}

async fn with_room(engine: Engine) -> Engine {
    let member = |name: &str, role| (name.into(), name.into(), role);
    let members = vec![member("alice", Role::Member), member("bob", Role::Member), member("mona", Role::Moderator)];
    engine.create_room(&NewRoom { id: Some(ROOM), members, ..NewRoom::default() }).await.unwrap();
    engine
}

/// A session that sends and receives JSON.
struct Client {
    session: Session,
}

impl Client {
    async fn connect(engine: &Engine, user: &str, after: Option<&str>) -> Result<Self, CloseCode> {
        let scope = Scope {
            token: engine.keys().seal(Kind::Room, ROOM.get()),
            user: user.into(),
            user_name: user.into(),
            after: after.map(str::to_owned),
            origin: None,
            remote: None,
            login: None,
        };
        Ok(Self { session: engine.connect(scope).await? })
    }

    /// Connects and takes the first frame, which says where the room stands.
    async fn enter(engine: &Engine, user: &str) -> Self {
        let client = Self::connect(engine, user, None).await.unwrap();
        assert_eq!(client.next().await["type"], "resumed");
        client
    }

    async fn send(&self, frame: Value) {
        self.session.receive(&frame.to_string()).await.unwrap();
    }

    async fn next(&self) -> Value {
        let frame = tokio::time::timeout(Duration::from_secs(20), self.session.next()).await;
        serde_json::from_str(frame.expect("a frame comes").expect("the session is open").as_str()).unwrap()
    }

    /// The next frame of that type; others are passed over.
    async fn next_of(&self, kind: &str) -> Value {
        loop {
            let frame = self.next().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    async fn closed(&self) -> CloseCode {
        let mut frames = Vec::new();
        let wait = async { while self.session.next_many(&mut frames).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the session is closed");
        self.session.closed().unwrap()
    }
}

#[tokio::test]
async fn two_people_chat() {
    let dir = tempfile::tempdir().unwrap();
    let engine = with_room(builder(dir.path()).build().await.unwrap()).await;
    let (alice, bob) = (Client::enter(&engine, "alice").await, Client::enter(&engine, "bob").await);
    alice.send(json!({"message": "hello", "client_id": "a-1", "user": "bob"})).await;
    let seen = bob.next().await;
    assert_eq!(seen["type"], "add");
    assert_eq!(
        (&seen["message"], &seen["user"], &seen["seq"], &seen["pos"]),
        (&json!("hello"), &json!("alice"), &json!(1), &json!(1))
    );
    assert_eq!(alice.next_of("add").await, seen, "everybody gets the same frame");
    let ack = alice.next_of("ack").await;
    assert_eq!((&ack["client_id"], &ack["message_id"]), (&json!("a-1"), &seen["message_id"]));

    alice.send(json!({"type": "edit", "message_id": seen["message_id"], "message": "hello!"})).await;
    let edited = bob.next().await;
    assert_eq!(
        (&edited["type"], &edited["message"], &edited["seq"], &edited["pos"]),
        (&json!("edit"), &json!("hello!"), &json!(2), &json!(1))
    );
    bob.send(json!({"type": "delete", "message_id": seen["message_id"], "client_id": "b-1"})).await;
    let refused = bob.next().await;
    assert_eq!((&refused["code"], &refused["client_id"]), (&json!("not_sender"), &json!("b-1")));
    alice.send(json!({"action": "delete", "message_id": seen["message_id"]})).await;
    assert_eq!(bob.next().await["type"], "delete");
    alice.send(json!({"type": "edit", "message_id": seen["message_id"], "message": "again"})).await;
    assert_eq!(alice.next_of("error").await["code"], "message_deleted");
    drop(alice);
    assert_eq!(engine.stats().ignored_claims, 1);
}

#[tokio::test]
async fn who_comes_back_gets_what_was_missed_and_a_resend_makes_no_second_message() {
    let dir = tempfile::tempdir().unwrap();
    let engine = with_room(builder(dir.path()).build().await.unwrap()).await;
    let alice = Client::enter(&engine, "alice").await;
    let bob = Client::connect(&engine, "bob", None).await.unwrap();
    let cursor = bob.next().await["cursor"].as_str().unwrap().to_owned();
    drop(bob);
    for number in 1..=3 {
        alice.send(json!({"message": number.to_string(), "client_id": format!("a-{number}")})).await;
        alice.next_of("ack").await;
    }
    engine.close().await;
    assert_eq!(alice.closed().await, CloseCode::Restart);
    drop((alice, engine));

    let engine = builder(dir.path()).build().await.unwrap();
    let bob = Client::connect(&engine, "bob", Some(&cursor)).await.unwrap();
    for number in 1..=3 {
        let frame = bob.next().await;
        assert_eq!((&frame["type"], &frame["message"]), (&json!("add"), &json!(number.to_string())));
    }
    assert_eq!(bob.next().await["type"], "resumed");
    let alice = Client::enter(&engine, "alice").await;
    alice.send(json!({"message": "2", "client_id": "a-2", "resend": true})).await;
    assert_eq!(
        alice.next().await,
        json!({"type": "ack", "client_id": "a-2", "message_id": alice_message(&engine, 2), "seq": 2, "pos": 2})
    );
    alice.send(json!({"message": "4", "client_id": "a-4"})).await;
    assert_eq!(bob.next().await["seq"], 4, "the resend took no number and was shown to nobody");

    // A cursor of another numbering is void.
    let lost = Client::connect(&engine, "bob", Some("1.1")).await.unwrap();
    assert_eq!(lost.next().await["type"], "reset");
    let history = lost.next().await;
    assert_eq!((&history["type"], history["messages"].as_array().unwrap().len()), (&json!("history"), 4));
    lost.send(json!({"type": "history", "before": 4, "limit": 2})).await;
    let page = lost.next().await;
    let places: Vec<_> =
        page["messages"].as_array().unwrap().iter().map(|entry| entry["pos"].as_u64().unwrap()).collect();
    assert_eq!((places, &page["more"]), (vec![2, 3], &json!(true)));
}

#[tokio::test]
async fn a_room_whose_members_left_goes_on_when_they_return() {
    let dir = tempfile::tempdir().unwrap();
    let engine = with_room(builder(dir.path()).build().await.unwrap()).await;
    for round in 1..=5 {
        let (alice, bob) = (Client::enter(&engine, "alice").await, Client::enter(&engine, "bob").await);
        alice.send(json!({"message": "hello", "client_id": format!("a-{round}")})).await;
        assert_eq!(alice.next().await["seq"], round);
        assert_eq!(alice.next().await["type"], "ack");
        assert_eq!(bob.next().await["seq"], round);
    }
}

fn alice_message(engine: &Engine, pos: u64) -> String {
    let id = digi_core::MessageId::own(ROOM, digi_core::Seq(pos)).unwrap();
    engine.keys().seal(Kind::Message, id.get())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_everybody_sees_everything_once_in_one_order() {
    let dir = tempfile::tempdir().unwrap();
    let engine = with_room(builder(dir.path()).build().await.unwrap()).await;
    let (senders, each) = (8, 60);
    let mut tasks = tokio::task::JoinSet::new();
    // All before the first message: whoever comes later is not shown what was before.
    let mut clients = Vec::new();
    for sender in 0..senders {
        clients.push(Client::enter(&engine, if sender % 2 == 0 { "alice" } else { "bob" }).await);
    }
    for (sender, client) in clients.into_iter().enumerate() {
        tasks.spawn(async move {
            let (mut seen, mut acked) = (Vec::new(), 0);
            for number in 0..each {
                client.send(json!({"message": "x", "client_id": format!("{sender}-{number}")})).await;
            }
            while seen.len() < senders * each || acked < each {
                let frame = client.next().await;
                match frame["type"].as_str().unwrap() {
                    "add" => seen.push(frame["seq"].as_u64().unwrap()),
                    "ack" => acked += 1,
                    other => panic!("{other}: {frame}"),
                }
            }
            seen
        });
    }
    let all: Vec<u64> = (1..=(senders * each) as u64).collect();
    while let Some(seen) = tasks.join_next().await {
        assert_eq!(seen.unwrap(), all);
    }
    let stats = engine.stats();
    assert_eq!(stats.committed, all.len() as u64);
    assert!(stats.batches < stats.committed, "batches form by themselves: {stats:?}");
}

/// Two engines on one file: with a layer between them, and with nothing but the file.
#[tokio::test]
async fn two_engines_on_one_database_show_the_same() {
    for with_layer in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let layer = LocalLayer::new();
        let mut first = builder(dir.path());
        let mut second = builder(dir.path());
        if with_layer {
            second = second.layer_object(Arc::new(layer.another_node()));
            first = first.layer_object(Arc::new(layer));
        }
        let first = with_room(first.build().await.unwrap()).await;
        let second = second.build().await.unwrap();
        let (alice, bob) = (Client::enter(&first, "alice").await, Client::enter(&second, "bob").await);
        for number in 1..=20 {
            let sender = if number % 2 == 0 { &alice } else { &bob };
            sender.send(json!({"message": number.to_string()})).await;
            for client in [&alice, &bob] {
                assert_eq!(client.next().await["seq"], number, "with_layer: {with_layer}");
            }
        }
        second.remove_member(ROOM, "alice").await.unwrap();
        assert_eq!(alice.closed().await, CloseCode::Removed);
        assert_eq!(Client::connect(&first, "alice", None).await.err(), Some(CloseCode::NotAMember));
    }
}

#[tokio::test]
async fn memberships_end_and_begin_while_sessions_are_open() {
    let dir = tempfile::tempdir().unwrap();
    let engine = with_room(builder(dir.path()).build().await.unwrap()).await;
    let (alice, bob) = (Client::enter(&engine, "alice").await, Client::enter(&engine, "bob").await);
    engine.remove_member(ROOM, "bob").await.unwrap();
    assert_eq!(bob.closed().await, CloseCode::Removed);
    assert_eq!(bob.session.receive("{}").await.unwrap_err().code(), Code::SessionClosed);
    let bob = Speaker::user("bob", "bob");
    assert_eq!(engine.post(ROOM, &bob, "still here?", None).await.unwrap_err().code(), Code::NotAMember);
    engine.add_member(ROOM, "bob", "bob", Role::Member).await.unwrap();
    assert_eq!(engine.add_member(ROOM, "bob", "bob", Role::Member).await.unwrap(), Outcome::Unchanged);
    let again = Client::enter(&engine, "bob").await;
    alice.send(json!({"message": "welcome back"})).await;
    assert_eq!(again.next().await["message"], "welcome back");
    engine.kick("bob");
    assert_eq!(again.closed().await, CloseCode::Kicked);
    assert_eq!(alice.session.closed(), None);
}

#[tokio::test]
async fn a_host_speaks_for_users_and_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let engine = with_room(builder(dir.path()).build().await.unwrap()).await;
    let bob = Client::enter(&engine, "bob").await;
    let alice = Speaker::user("alice", "Alice");
    let id = ClientId::new("task-1");
    let Outcome::Message { message, .. } = engine.post(ROOM, &alice, "from a view", id.clone()).await.unwrap() else {
        panic!("a message was added")
    };
    assert_eq!(bob.next().await["user"], "Alice");
    let repeated = engine.post(ROOM, &alice, "from a view", id).await.unwrap();
    assert_eq!(repeated, Outcome::Duplicate { message: message.id, pos: message.pos });
    engine.edit(ROOM, &alice, message.id, "edited").await.unwrap();
    assert_eq!(bob.next().await["message"], "edited");
    let refused = engine.delete(ROOM, &Speaker::user("bob", "bob"), message.id).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotSender);
    engine.delete(ROOM, &Speaker::host("system", "System"), message.id).await.unwrap();
    assert_eq!(bob.next().await["type"], "delete");
    for (body, code) in [("", Code::EmptyBody), (" \n", Code::EmptyBody), ("a\0b", Code::BadBody)] {
        assert_eq!(engine.post(ROOM, &alice, body, None).await.unwrap_err().code(), code);
    }
    let long = "x".repeat(16 * 1024 + 1);
    assert_eq!(engine.post(ROOM, &alice, &long, None).await.unwrap_err().code(), Code::BodyTooLong);
}

#[tokio::test]
async fn the_policy_is_asked_before_anything_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let policy = |command: &Command, membership: &Membership| match &command.action {
        Action::Add { body, .. } if body.contains("spam") => Verdict::Refuse(Code::Refused.with("No spam.")),
        Action::Add { body, .. } if membership.role == Role::Moderator => Verdict::Replace(format!("★ {body}")),
        _ => Verdict::Allow,
    };
    let engine = with_room(builder(dir.path()).policy(policy).build().await.unwrap()).await;
    let (alice, mona) = (Client::enter(&engine, "alice").await, Client::enter(&engine, "mona").await);
    alice.send(json!({"message": "buy spam", "client_id": "a-1"})).await;
    let refused = alice.next().await;
    assert_eq!(
        (&refused["code"], &refused["detail"], &refused["client_id"]),
        (&json!("refused"), &json!("No spam."), &json!("a-1"))
    );
    mona.send(json!({"message": "hello"})).await;
    assert_eq!(alice.next().await["message"], "★ hello");
    let spam = engine.post(ROOM, &Speaker::user("alice", "alice"), "spam", None).await;
    assert_eq!(spam.unwrap_err().code(), Code::Refused);
}

#[tokio::test]
async fn an_observer_hears_what_was_stored_before_whoever_asked_does() {
    let dir = tempfile::tempdir().unwrap();
    let (heard, told) = std::sync::mpsc::channel();
    let observer = move |changes: &[(RoomId, &Outcome)]| {
        assert!(!changes.is_empty());
        for (room, outcome) in changes {
            heard.send((*room, (*outcome).clone())).unwrap();
            let panics =
                matches!(outcome, Outcome::Message { message, .. } if message.body.as_deref() == Some("panic"));
            assert!(!panics, "as asked");
        }
    };
    let engine = with_room(builder(dir.path()).observer(observer).build().await.unwrap()).await;
    let alice = Speaker::user("alice", "alice");
    let id = ClientId::new("1").unwrap();
    let mut wanted = vec![engine.post(ROOM, &alice, "hello", Some(id.clone())).await.unwrap()];
    // What changes nothing is no news.
    engine.post(ROOM, &alice, "hello", Some(id)).await.unwrap();
    engine.post(ROOM, &Speaker::user("eve", "eve"), "let me in", None).await.unwrap_err();
    wanted.push(engine.remove_member(ROOM, "bob").await.unwrap());
    wanted.push(engine.post(ROOM, &alice, "panic", None).await.unwrap());
    wanted.push(engine.post(ROOM, &alice, "and it goes on", None).await.unwrap());
    assert_eq!(told.try_iter().collect::<Vec<_>>(), wanted.into_iter().map(|one| (ROOM, one)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_disk_is_the_senders_news_and_nobody_else_s() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}?max_mb=1", dir.path().join("chat.db").display());
    let engine = with_room(builder(dir.path()).store(&url).build().await.unwrap()).await;
    let (alice, bob) = (Client::enter(&engine, "alice").await, Client::enter(&engine, "bob").await);
    let body = "x".repeat(16_000);
    let mut stored = 0;
    let refused = loop {
        alice.send(json!({"message": body, "client_id": format!("a-{stored}")})).await;
        let answer = loop {
            let frame = alice.next().await;
            if frame["type"] != "add" {
                break frame;
            }
        };
        if answer["type"] == "error" {
            break answer;
        }
        stored += 1;
        assert!(stored < 200, "1 MiB does not hold that much");
    };
    assert_eq!((&refused["code"], &refused["client_id"]), (&json!("store_full"), &json!(format!("a-{stored}"))));
    for seq in 1..=stored {
        assert_eq!(bob.next().await["seq"], seq);
    }
    // The connection stays, reading works, and nothing partial was stored.
    alice.send(json!({"type": "history", "limit": 200})).await;
    assert_eq!(alice.next_of("history").await["messages"].as_array().unwrap().len(), stored);
    assert_eq!(engine.stats().committed, stored as u64);
    assert_eq!(engine.stats().refused, 1);
}

#[tokio::test]
async fn who_does_not_read_is_closed_and_the_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut few = limits();
    few.outbox.frames = 16;
    let engine = with_room(builder(dir.path()).limits(few).build().await.unwrap()).await;
    let (alice, slow) = (Client::enter(&engine, "alice").await, Client::enter(&engine, "bob").await);
    for number in 1..=17 {
        alice.send(json!({"message": number.to_string()})).await;
        assert_eq!(alice.next().await["seq"], number);
    }
    assert_eq!(slow.closed().await, CloseCode::TooSlow);
    assert_eq!(engine.stats().sessions, 1);
}

#[tokio::test]
async fn sessions_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let few = Limits { sessions: 3, sessions_per_user: 2, ..limits() };
    let engine = with_room(builder(dir.path()).limits(few).build().await.unwrap()).await;
    let first = Client::enter(&engine, "alice").await;
    let _second = Client::enter(&engine, "alice").await;
    assert_eq!(Client::connect(&engine, "alice", None).await.err(), Some(CloseCode::TooManySessions));
    let _third = Client::enter(&engine, "bob").await;
    assert_eq!(Client::connect(&engine, "mona", None).await.err(), Some(CloseCode::Overloaded));
    drop(first);
    Client::enter(&engine, "mona").await;
}

#[tokio::test]
async fn a_closed_engine_commits_what_it_took_and_takes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let engine = with_room(builder(dir.path()).build().await.unwrap()).await;
    let alice = Client::enter(&engine, "alice").await;
    for number in 0..100 {
        alice.send(json!({"message": "x", "client_id": format!("a-{number}")})).await;
    }
    engine.close().await;
    let mut acked = BTreeSet::new();
    while let Ok(frame) = alice.session.next().await {
        let frame: Value = serde_json::from_str(frame.as_str()).unwrap();
        if frame["type"] == "ack" {
            acked.insert(frame["client_id"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(acked.len(), 100, "everything that was taken in was stored and acknowledged");
    assert_eq!(alice.session.closed(), Some(CloseCode::Restart));
    assert_eq!(alice.session.receive("{}").await.unwrap_err().code(), Code::EngineClosed);
    assert_eq!(Client::connect(&engine, "bob", None).await.err(), Some(CloseCode::Restart));
    let late = engine.post(ROOM, &Speaker::user("alice", "alice"), "late", None).await;
    assert_eq!(late.unwrap_err().code(), Code::EngineClosed);
    engine.close().await;
}

#[tokio::test]
async fn an_engine_that_is_dropped_frees_its_database() {
    let dir = tempfile::tempdir().unwrap();
    let engine = with_room(builder(dir.path()).build().await.unwrap()).await;
    let store = Arc::downgrade(engine.store());
    let alice = Client::enter(&engine, "alice").await;
    drop(engine);
    // A session keeps its engine alive.
    alice.send(json!({"message": "still here"})).await;
    assert_eq!(alice.next().await["message"], "still here");
    drop(alice);
    let gone = async {
        while store.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("nothing keeps the store alive");
}

#[tokio::test]
async fn a_restored_backup_resets_everybody() {
    let dir = tempfile::tempdir().unwrap();
    let engine = with_room(builder(dir.path()).build().await.unwrap()).await;
    let alice = Client::enter(&engine, "alice").await;
    alice.send(json!({"message": "kept"})).await;
    alice.next_of("add").await;
    engine.restored().await.unwrap();
    let reset = alice.next_of("reset").await;
    let history = alice.next().await;
    assert_eq!(history["cursor"], reset["cursor"]);
    assert_eq!(history["messages"][0]["message"], "kept");
    alice.send(json!({"message": "new"})).await;
    assert_eq!(alice.next().await["seq"], 2);
}

#[tokio::test]
async fn wrong_settings_are_named() {
    let keys = || Keyring::new([9; 32]).unwrap();
    let code = |result: Result<Engine, digi_core::Error>| result.unwrap_err().code();
    assert_eq!(code(Engine::builder().build().await), Code::Config);
    assert_eq!(code(Engine::builder().keys(keys()).store("postgres://x").build().await), Code::BadUrl);
    assert_eq!(code(Engine::builder().keys(keys()).store("memory:x").build().await), Code::BadUrl);
    assert_eq!(code(Engine::builder().keys(keys()).layer("amqp://x").build().await), Code::BadUrl);
}
