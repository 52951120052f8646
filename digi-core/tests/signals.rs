//! What isn't stored, on two nodes: typing, presence, kicks.
#![cfg(all(feature = "engine", feature = "sqlite"))]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use digi_core::consumer::Scope;
use digi_core::engine::{Engine, Session};
use digi_core::layer::LocalLayer;
use digi_core::store::model::{NewRoom, Role};
use digi_core::token::{Keyring, Kind};
use digi_core::{CloseCode, RoomId};
use serde_json::{Value, json};

const ROOM: RoomId = RoomId(1);

async fn engine(dir: &Path, layer: LocalLayer, presence: bool) -> Engine {
    let store = format!("sqlite:{}", dir.join("chat.db").display());
    let builder = Engine::builder().keys(Keyring::new([9; 32]).unwrap()).store(&store);
    builder.layer_object(Arc::new(layer)).presence(presence).build().await.unwrap()
}

/// Two nodes, and a room of alice, bob and carol.
async fn nodes(dir: &Path, presence: bool) -> [Engine; 2] {
    let layer = LocalLayer::new();
    let nodes = [engine(dir, layer.another_node(), presence).await, engine(dir, layer, presence).await];
    let members = ["alice", "bob", "carol"].map(|name| (name.into(), name.to_uppercase().into(), Role::Member));
    nodes[0].create_room(&NewRoom { id: Some(ROOM), members: members.into(), ..NewRoom::default() }).await.unwrap();
    nodes
}

struct Client(Session);

impl Client {
    /// As a page of the classic app comes.
    async fn classic(engine: &Engine, user: &str) -> Self {
        Self::by_login(engine, user, None).await
    }

    async fn by_login(engine: &Engine, user: &str, login: Option<&str>) -> Self {
        let scope = Scope {
            token: engine.keys().seal(Kind::Room, ROOM.get()),
            user: user.into(),
            user_name: user.to_uppercase().into(),
            after: None,
            origin: None,
            remote: None,
            login: login.map(Into::into),
        };
        let client = Self(engine.connect(scope).await.unwrap());
        assert_eq!(client.next().await["type"], "resumed");
        client
    }

    /// As digi.js does.
    async fn enter(engine: &Engine, user: &str) -> Self {
        let client = Self::classic(engine, user).await;
        client.send(json!({"type": "history", "client_id": "page-1"})).await;
        client
    }

    async fn closed(&self) -> Option<CloseCode> {
        let mut frames = Vec::new();
        let wait = async { while self.0.next_many(&mut frames).await.is_ok() {} };
        tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap();
        self.0.closed()
    }

    async fn send(&self, frame: Value) {
        self.0.receive(&frame.to_string()).await.unwrap();
    }

    /// The next frame that is no page of history.
    async fn next(&self) -> Value {
        loop {
            let frame = tokio::time::timeout(Duration::from_secs(20), self.0.next()).await;
            let frame = frame.expect("a frame comes").expect("the session is open");
            let frame: Value = serde_json::from_str(frame.as_str()).unwrap();
            if frame["type"] != "history" {
                return frame;
            }
        }
    }
}

fn presence(user: &str, online: bool) -> Value {
    json!({"type": "presence", "user": user, "online": online})
}

#[tokio::test]
async fn typing_reaches_those_who_know_it_on_every_node() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = nodes(dir.path(), false).await;
    let (alice, other_page) = (Client::enter(&first, "alice").await, Client::enter(&second, "alice").await);
    let (bob, carol) = (Client::enter(&second, "bob").await, Client::classic(&first, "carol").await);
    // The layer's subscription follows shortly after the entering, and what comes before is lost.
    loop {
        alice.send(json!({"type": "typing"})).await;
        if let Ok(frame) = tokio::time::timeout(Duration::from_millis(300), bob.next()).await {
            assert_eq!(frame, json!({"type": "typing", "user": "ALICE"}));
            break;
        }
    }
    alice.send(json!({"message": "done"})).await;
    for client in [&alice, &other_page, &carol] {
        let frame = client.next().await;
        assert_eq!(frame["message"], "done", "neither who types nor a classic page is told");
    }
    while bob.next().await["message"] != "done" {}
}

#[tokio::test]
async fn who_comes_and_goes_is_told_on_every_node() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = nodes(dir.path(), true).await;
    let alice = Client::enter(&first, "alice").await;
    let bob = Client::enter(&second, "bob").await;
    assert_eq!(alice.next().await, presence("BOB", true));
    assert_eq!(bob.next().await, presence("ALICE", true));
    let carol = Client::enter(&first, "carol").await;
    assert_eq!(alice.next().await, presence("CAROL", true));
    assert_eq!(bob.next().await, presence("CAROL", true));
    let mut there = [carol.next().await, carol.next().await];
    there.sort_by_key(|frame| frame["user"].to_string());
    assert_eq!(there, [presence("ALICE", true), presence("BOB", true)]);
    // A second page of bob's, and one of them goes.
    let again = Client::enter(&first, "bob").await;
    drop(again);
    drop(carol);
    assert_eq!(alice.next().await, presence("CAROL", false));
    assert_eq!(bob.next().await, presence("CAROL", false));
    drop(bob);
    assert_eq!(alice.next().await, presence("BOB", false));
}

#[tokio::test]
async fn nobody_is_told_where_it_is_off() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = nodes(dir.path(), false).await;
    let alice = Client::enter(&first, "alice").await;
    let bob = Client::enter(&second, "bob").await;
    bob.send(json!({"message": "hello"})).await;
    assert_eq!(alice.next().await["message"], "hello");
}

#[tokio::test]
async fn a_kick_closes_sessions_on_every_node() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = nodes(dir.path(), false).await;
    let (here, there) = (Client::enter(&first, "bob").await, Client::enter(&second, "bob").await);
    let alice = Client::enter(&second, "alice").await;
    first.kick("bob");
    for client in [here, there] {
        assert_eq!(client.closed().await, Some(CloseCode::Kicked));
    }
    assert_eq!(alice.0.closed(), None);
}

#[tokio::test]
async fn the_end_of_a_login_closes_its_sessions_on_every_node_and_no_others() {
    let dir = tempfile::tempdir().unwrap();
    let [first, second] = nodes(dir.path(), false).await;
    let here = Client::by_login(&first, "bob", Some("laptop")).await;
    let there = Client::by_login(&second, "bob", Some("laptop")).await;
    let others = [
        Client::by_login(&second, "bob", Some("phone")).await,
        Client::by_login(&second, "bob", None).await,
        Client::by_login(&second, "alice", Some("laptop")).await,
    ];
    let logins = second.logins();
    let logins: Vec<_> = logins.iter().map(|(user, login)| (user.as_str(), &**login)).collect();
    assert_eq!(logins, [("alice", "laptop"), ("bob", "laptop"), ("bob", "phone")]);
    first.end_login("bob", "laptop");
    for client in [here, there] {
        assert_eq!(client.closed().await, Some(CloseCode::Unauthenticated));
    }
    assert_eq!(others.map(|client| client.0.closed()), [None; 3]);
}
