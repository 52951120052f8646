//! An engine with a bridge to stock Channels. What the real package makes of it, and it of the real package, is tested from
//! Python (`tests/bridge`); the payloads here are the real package's.

use std::time::{Duration, Instant};

use digi_core::RoomId;
use digi_core::consumer::{Rate, Scope};
use digi_core::engine::{Engine, Limits, Session, Speaker, Stats};
use digi_core::layer::{BridgeFormat, BridgeOptions};
use digi_core::store::model::{NewRoom, Role};
use digi_core::token::{Keyring, Kind};
use serde_json::{Value, json};

use crate::server::{PATIENCE, RedisServer};
use crate::support::until;
use crate::tls::Authority;

const ROOM: RoomId = RoomId(1);

/// `RedisPubSubChannelLayer(symmetric_encryption_keys=["first key", b"second"]).serialize({"type": "chat.message",
/// "message": "hé", "user": "alice", "message_id": "t1"})` by channels_redis 4.3.0.
const ENCRYPTED: &str = "gAAAAABrCG6zcovn10sE-aAZtWNYwFv2xuQQJol-d1VZHUSZiFQO-DINr6hxjmmc4V7tdnolzEuWegASNY5HDqna_YS6A8WUgXnVIjDcBzwyHu-OCnycmTk8bnahBj-HyrN0KYoBz1Is4CMGf4otDgJAKuWzA6MJlQ==";

/// What commits have to be done in when Redis is of no help.
const SOON: Duration = Duration::from_secs(1);

struct Chat {
    engine: Engine,
    session: Session,
}

impl Chat {
    async fn with(options: BridgeOptions) -> Self {
        let mut limits = Limits::default();
        limits.consumer.frames = Rate { per_second: 0, burst: 1 };
        (limits.outbox.frames, limits.outbox.bytes) = (1_000_000, 1 << 30);
        let builder = Engine::builder().keys(Keyring::new([9; 32]).unwrap()).limits(limits).bridge(options);
        let engine = builder.build().await.unwrap();
        let members = vec![("alice".into(), "alice".into(), Role::Member)];
        engine.create_room(&NewRoom { id: Some(ROOM), members, ..NewRoom::default() }).await.unwrap();
        let token = engine.keys().seal(Kind::Room, ROOM.get());
        let scope = Scope {
            token,
            user: "alice".into(),
            user_name: "alice".into(),
            after: None,
            origin: None,
            remote: None,
            login: None,
        };
        let chat = Self { session: engine.connect(scope).await.unwrap(), engine };
        assert_eq!(chat.next().await["type"], "resumed");
        chat
    }

    async fn next(&self) -> Value {
        let frame = tokio::time::timeout(PATIENCE, self.session.next()).await.expect("a frame comes").unwrap();
        serde_json::from_str(frame.as_str()).unwrap()
    }

    /// Posts, and sees it at once.
    async fn post(&self, text: &str) {
        let since = Instant::now();
        self.engine.post(ROOM, &Speaker::user("alice", "alice"), text, None).await.unwrap();
        assert_eq!(self.next().await["message"], text);
        assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    }

    fn stats(&self) -> Stats {
        self.engine.stats()
    }

    async fn until(&self, what: &str, condition: impl Fn(Stats) -> bool) {
        until(what, || condition(self.stats())).await;
    }

    async fn until_up(&self, wanted: bool) {
        self.until("the bridge says how it is", |stats| stats.bridge_up == wanted).await;
    }
}

async fn subscribed(server: &RedisServer, channel: &str) {
    let count = async || format!("{:?}", server.ask(&["PUBSUB", "NUMSUB", channel]).await).contains("int(1)");
    crate::support::until_async("the bridge has subscribed", count).await;
}

fn to(server: &RedisServer, format: BridgeFormat) -> BridgeOptions {
    BridgeOptions::new(format).host(server.url())
}

#[tokio::test]
async fn groups_may_be_called_otherwise_and_payloads_be_encrypted() {
    let server = RedisServer::start(&[]);
    let options = to(&server, BridgeFormat::PubSub).prefix("site").key("another").key("first key");
    let chat = Chat::with(options.groups_by(|room| format!("room.{}", room.get() + 6))).await;
    subscribed(&server, "site__group__room.7").await;
    server.ask(&["PUBLISH", "site__group__room.7", "not encrypted"]).await;
    server.ask(&["PUBLISH", "site__group__room.7", ENCRYPTED]).await;
    let shown = json!({"type": "add", "message": "hé", "user": "alice", "message_id": "t1"});
    assert_eq!(chat.next().await, shown);
    assert_eq!((chat.stats().bridge_received, chat.stats().bridge_undecodable), (1, 1));
    chat.post("its own comes once").await;
    chat.until("it was sent", |stats| stats.bridge_sent == 1).await;
    server.ask(&["PUBLISH", "site__group__room.7", ENCRYPTED]).await;
    assert_eq!(chat.next().await, shown, "nothing between them");
}

async fn a_redis_that_hangs(format: BridgeFormat) {
    let server = RedisServer::start(&[]);
    let chat = Chat::with(to(&server, format)).await;
    chat.until_up(true).await;
    server.stop();
    for n in 0..5 {
        chat.post(&n.to_string()).await;
    }
    chat.until_up(false).await;
    chat.post("it is known to be away").await;
    server.resume();
    chat.until_up(true).await;
    chat.post("it is back").await;
}

#[tokio::test]
async fn nobody_waits_for_a_redis_that_hangs_with_pubsub() {
    a_redis_that_hangs(BridgeFormat::PubSub).await;
}

#[tokio::test]
async fn nobody_waits_for_a_redis_that_hangs_with_core() {
    a_redis_that_hangs(BridgeFormat::Core).await;
}

#[tokio::test]
async fn what_waits_too_long_is_counted_and_gone() {
    let mut server = RedisServer::start(&[]);
    let chat = Chat::with(to(&server, BridgeFormat::PubSub).expiry(1)).await;
    chat.until_up(true).await;
    server.kill();
    chat.until_up(false).await;
    for n in 0..3 {
        chat.post(&n.to_string()).await;
    }
    let since = Instant::now();
    until("they have expired", || since.elapsed() > Duration::from_millis(1_100)).await;
    server.restart();
    chat.until_up(true).await;
    chat.post("in time").await;
    chat.until("the last was sent", |stats| stats.bridge_sent == 1).await;
    assert_eq!(chat.stats().bridge_lost, 3);
}

#[tokio::test]
async fn more_than_may_wait_is_counted_and_what_waits_is_sent() {
    /// `WAITING` of the bridge.
    const MOST: u64 = 10_000;
    let mut server = RedisServer::start(&[]);
    let chat = Chat::with(to(&server, BridgeFormat::PubSub).expiry(600)).await;
    chat.until_up(true).await;
    server.kill();
    chat.until_up(false).await;
    for n in 0..MOST + 5 {
        chat.engine.post(ROOM, &Speaker::user("alice", "alice"), &n.to_string(), None).await.unwrap();
    }
    chat.until("all were committed", |stats| stats.committed == MOST + 5).await;
    chat.until("the oldest are lost", |stats| stats.bridge_lost == 5).await;
    server.restart();
    chat.until("the others are sent", |stats| stats.bridge_sent == MOST).await;
    assert_eq!(chat.stats().bridge_lost, 5);
}

#[tokio::test]
async fn tls_and_a_password() {
    let authority = Authority::new();
    let server = authority.server("no");
    let url = format!("rediss://localhost:{}?ca={}", server.port, authority.file("ca.pem"));
    let chat = Chat::with(BridgeOptions::new(BridgeFormat::PubSub).host(url)).await;
    chat.until_up(true).await;
    chat.post("hello").await;
    chat.until("it was sent", |stats| stats.bridge_sent == 1).await;
    let server = RedisServer::start(&["requirepass hush"]);
    let url = format!("redis://:wrong@{}", server.address());
    let wrong = Chat::with(BridgeOptions::new(BridgeFormat::Core).host(url)).await;
    let url = format!("redis://:hush@{}", server.address());
    let right = Chat::with(BridgeOptions::new(BridgeFormat::Core).host(url)).await;
    right.until_up(true).await;
    assert!(!wrong.stats().bridge_up);
}

#[tokio::test]
async fn a_payload_of_the_core_format_is_for_the_rooms_that_it_names() {
    let server = RedisServer::start(&[]);
    let chat = Chat::with(to(&server, BridgeFormat::Core)).await;
    let members = async || server.ask(&["ZRANGE", "asgi:group:chat_1", "0", "-1"]).await;
    let joined = async || format!("{:?}", members().await).contains("digi");
    crate::support::until_async("the bridge has joined", joined).await;
    let redis::Value::Array(names) = members().await else { panic!("a list") };
    let redis::Value::BulkString(name) = &names[0] else { panic!("a name") };
    let channel = std::str::from_utf8(name).unwrap();
    assert_eq!((names.len(), channel.split_once('!').unwrap().1), (1, "1"));
    let key = format!("asgi{}", &channel[..=channel.find('!').unwrap()]);
    // 12 bytes, and a map of `type`, `message` and `__asgi_channel__` with two names, of which one is of a room that is
    // not loaded.
    let text = |text: &str| [&[0xd9, text.len() as u8][..], text.as_bytes()].concat();
    let other = channel.replace("!1", "!2");
    let pieces = ["type", "chat.message", "message", "x", "__asgi_channel__"].map(text);
    let payload = [vec![b'r'; 12], vec![0x83], pieces.concat(), vec![0x92], text(channel), text(&other)].concat();
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let count: u64 = redis::cmd("ZADD").arg(&key).arg(1).arg(&payload).query_async(&mut connection).await.unwrap();
    assert_eq!(count, 1);
    assert_eq!(chat.next().await, json!({"type": "add", "message": "x"}));
    chat.engine.close().await;
    assert!(!joined().await, "it has left");
}
