//! Two engines on one store, with Redis between them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use digi_core::consumer::{Rate, Scope};
use digi_core::engine::{Engine, Limits, Session};
use digi_core::store::Store;
use digi_core::store::memory::MemoryStore;
use digi_core::store::model::{NewRoom, Role};
use digi_core::store::sqlite::SqliteStore;
use digi_core::token::{Keyring, Kind};
use digi_core::{CloseCode, RoomId};
use serde_json::{Value, json};

use crate::server::{PATIENCE, RedisServer};
use crate::support::until;

const ROOM: RoomId = RoomId(1);

/// Two engines, and one member on each of them; a third on the second.
struct Fleet {
    engines: [Engine; 2],
    clients: [Client; 2],
    carol: Client,
    /// Messages so far.
    count: u64,
}

struct Client {
    session: Session,
}

impl Client {
    async fn enter(engine: &Engine, user: &str) -> Self {
        let token = engine.keys().seal(Kind::Room, ROOM.get());
        let scope = Scope {
            token,
            user: user.into(),
            user_name: user.into(),
            after: None,
            origin: None,
            remote: None,
            login: None,
        };
        let client = Self { session: engine.connect(scope).await.unwrap() };
        assert_eq!(client.next().await["type"], "resumed");
        client
    }

    async fn next(&self) -> Value {
        let frame = tokio::time::timeout(PATIENCE, self.session.next()).await.expect("a frame comes").unwrap();
        serde_json::from_str(frame.as_str()).unwrap()
    }

    async fn closed(&self) -> CloseCode {
        let mut frames = Vec::new();
        let wait = async { while self.session.next_many(&mut frames).await.is_ok() {} };
        tokio::time::timeout(PATIENCE, wait).await.expect("the session is closed");
        self.session.closed().unwrap()
    }
}

impl Fleet {
    async fn start(stores: [Arc<dyn Store>; 2], layer: &str) -> Self {
        let mut engines = Vec::new();
        for store in stores {
            let mut limits = Limits::default();
            limits.consumer.frames = Rate { per_second: 0, burst: 1 };
            let builder = Engine::builder().keys(Keyring::new([9; 32]).unwrap()).limits(limits).layer(layer);
            engines.push(builder.store_object(store).build().await.unwrap());
        }
        let [first, second]: [Engine; 2] = engines.try_into().ok().unwrap();
        let members = ["alice", "bob", "carol"].map(|name| (name.into(), name.into(), Role::Member)).to_vec();
        first.create_room(&NewRoom { id: Some(ROOM), members, ..NewRoom::default() }).await.unwrap();
        let clients = [Client::enter(&first, "alice").await, Client::enter(&second, "bob").await];
        let carol = Client::enter(&second, "carol").await;
        let fleet = Self { engines: [first, second], clients, carol, count: 0 };
        fleet.until_up(true).await;
        fleet
    }

    async fn in_memory(layer: &str) -> Self {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        Self::start([store.clone(), store], layer).await
    }

    async fn until_up(&self, wanted: bool) {
        until("both engines say how the layer is", || {
            self.engines.iter().all(|engine| engine.stats().layer_up == wanted)
        })
        .await;
    }

    /// Messages from both sides in turn; both see all of them, in one order.
    async fn chat(&mut self, messages: u64) {
        for _ in 0..messages {
            self.count += 1;
            let frame = json!({"message": self.count.to_string()}).to_string();
            self.clients[self.count as usize % 2].session.receive(&frame).await.unwrap();
            for client in &self.clients {
                let frame = client.next().await;
                assert_eq!((&frame["seq"], &frame["message"]), (&json!(self.count), &json!(self.count.to_string())));
            }
        }
    }

    /// So many that comparing with the store, every two seconds at the most often, would not bring them in time.
    async fn chat_live(&mut self) {
        let since = Instant::now();
        self.chat(20).await;
        assert!(since.elapsed() < Duration::from_secs(20), "{:?}", since.elapsed());
    }
}

async fn through_an_outage(mut fleet: Fleet, server: &mut RedisServer) {
    fleet.chat_live().await;
    server.kill();
    fleet.until_up(false).await;
    fleet.chat(4).await;
    // Which only the layer carries: it is sent once both nodes are back.
    fleet.engines[0].kick("carol");
    server.restart();
    fleet.until_up(true).await;
    assert_eq!(fleet.carol.closed().await, CloseCode::Kicked);
    fleet.chat_live().await;
    // A server that hangs.
    server.stop();
    fleet.chat(4).await;
    fleet.until_up(false).await;
    server.resume();
    fleet.until_up(true).await;
    fleet.chat_live().await;
    for engine in &fleet.engines {
        assert!(engine.stats().layer_lagged >= 2, "{:?}", engine.stats());
        assert_eq!(engine.stats().layer_undecodable, 0);
    }
}

#[tokio::test]
async fn chat_goes_on_through_an_outage() {
    let mut server = RedisServer::start(&[]);
    let fleet = Fleet::in_memory(&server.url()).await;
    through_an_outage(fleet, &mut server).await;
}

#[tokio::test]
async fn also_on_one_sqlite_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = RedisServer::start(&[]);
    let url = format!("sqlite:{}", dir.path().join("chat.db").display());
    let store = || Arc::new(SqliteStore::from_url(&url).unwrap()) as Arc<dyn Store>;
    let fleet = Fleet::start([store(), store()], &server.url()).await;
    through_an_outage(fleet, &mut server).await;
}

#[tokio::test]
async fn chat_goes_on_while_connections_are_killed() {
    let server = RedisServer::start(&[]);
    let mut fleet = Fleet::in_memory(&server.url()).await;
    let killing = async {
        for kind in ["pubsub", "normal"].into_iter().cycle() {
            // Among the normal ones is the asker's own.
            let _ = server.try_ask(&["CLIENT", "KILL", "TYPE", kind]).await;
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
    };
    tokio::select! {
        () = killing => {}
        () = fleet.chat(100) => {}
    }
    fleet.until_up(true).await;
    fleet.chat_live().await;
}
