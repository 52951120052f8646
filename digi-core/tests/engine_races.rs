//! The engine on stores that fail, answer late or not at all, and hosts that do things at once.
#![cfg(feature = "engine")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use digi_core::consumer::{Rate, Scope};
use digi_core::engine::{Engine, EngineBuilder, Limits, Session, Speaker};
use digi_core::event::{Envelope, Group};
use digi_core::layer::{ChannelLayer, Incoming, LayerError};
use digi_core::store::memory::MemoryStore;
use digi_core::store::model::{Applied, Batch, BatchId, Changes, Head, History, MemberAnswer, NewRoom, Role};
use digi_core::store::{Store, StoreError};
use digi_core::token::{Keyring, Kind};
use digi_core::{CloseCode, Code, Cursor, Millis, RoomId, Seq, UserKey};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

const ROOM: RoomId = RoomId(1);

/// Ends a test that would otherwise hang.
async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("this should not take so long")
}

/// What the store does with the next `apply`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Unavailable,
    /// Nothing is done, and nobody knows.
    LostBefore,
    /// It is done, and nobody knows.
    LostAfter,
    Panic,
}

/// A memory store behind gates.
struct Gated {
    inner: MemoryStore,
    applies: watch::Sender<bool>,
    members: watch::Sender<bool>,
    /// A permit for every answer that waits at the gate of `members`.
    members_read: Semaphore,
    away: AtomicBool,
    faults: parking_lot::Mutex<Vec<Fault>>,
    heads_asked: Semaphore,
    heads_hidden: AtomicBool,
    batches: AtomicUsize,
}

impl Gated {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(),
            applies: watch::Sender::new(true),
            members: watch::Sender::new(true),
            members_read: Semaphore::new(0),
            away: AtomicBool::new(false),
            faults: parking_lot::Mutex::default(),
            heads_asked: Semaphore::new(0),
            heads_hidden: AtomicBool::new(false),
            batches: AtomicUsize::new(0),
        })
    }

    fn there(&self) -> Result<(), StoreError> {
        let away = self.away.load(Ordering::SeqCst);
        if away { Err(StoreError::Unavailable("a cable was pulled".into())) } else { Ok(()) }
    }

    async fn messages(&self) -> Vec<String> {
        let page = self.inner.history(ROOM, None, 1_000).await.unwrap();
        page.messages.iter().map(|message| message.body.as_deref().unwrap().to_owned()).collect()
    }
}

async fn pass(gate: &watch::Sender<bool>) {
    gate.subscribe().wait_for(|open| *open).await.unwrap();
}

#[async_trait]
impl Store for Gated {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.inner.migrate().await
    }

    async fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        self.batches.fetch_add(1, Ordering::SeqCst);
        pass(&self.applies).await;
        self.there()?;
        let fault = self.faults.lock().pop();
        let lost = || StoreError::Unknown("the answer was lost".into());
        match fault {
            None => self.inner.apply(batch).await,
            Some(Fault::Unavailable) => Err(StoreError::Unavailable("not now".into())),
            Some(Fault::LostBefore) => Err(lost()),
            Some(Fault::LostAfter) => {
                self.inner.apply(batch).await?;
                Err(lost())
            }
            Some(Fault::Panic) => panic!("a host's store may have bugs"),
        }
    }

    async fn void(&self, batch: BatchId) -> Result<(), StoreError> {
        self.there()?;
        self.inner.void(batch).await
    }

    async fn member(&self, room: RoomId, user: &UserKey) -> Result<MemberAnswer, StoreError> {
        self.there()?;
        let answer = self.inner.member(room, user).await;
        self.members_read.add_permits(1);
        pass(&self.members).await;
        answer
    }

    async fn changes(&self, room: RoomId, after: Seq, limit: u64) -> Result<Changes, StoreError> {
        self.there()?;
        self.inner.changes(room, after, limit).await
    }

    async fn history(&self, room: RoomId, before: Option<Seq>, limit: u32) -> Result<History, StoreError> {
        self.there()?;
        self.inner.history(room, before, limit).await
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<(RoomId, Head)>, StoreError> {
        self.heads_asked.add_permits(1);
        self.there()?;
        if self.heads_hidden.load(Ordering::SeqCst) { Ok(Vec::new()) } else { self.inner.heads(rooms).await }
    }

    async fn raise_epoch(&self, room: RoomId, seen: Cursor, now: Millis) -> Result<Head, StoreError> {
        self.there()?;
        self.inner.raise_epoch(room, seen, now).await
    }

    async fn raise_all(&self, now: Millis) -> Result<(), StoreError> {
        self.there()?;
        self.inner.raise_all(now).await
    }

    async fn create_room(&self, room: &NewRoom, now: Millis) -> Result<RoomId, StoreError> {
        self.inner.create_room(room, now).await
    }

    async fn purge(&self, room: RoomId, before: Millis) -> Result<u64, StoreError> {
        self.inner.purge(room, before).await
    }
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.consumer.frames = Rate { per_second: 0, burst: 1 };
    limits
}

fn builder(store: &Arc<Gated>) -> EngineBuilder {
    Engine::builder().keys(Keyring::new([9; 32]).unwrap()).store_object(store.clone()).limits(limits())
}

async fn with_room(engine: Engine) -> Engine {
    let members = ["alice", "bob"].map(|name| (name.into(), name.into(), Role::Member)).to_vec();
    engine.create_room(&NewRoom { id: Some(ROOM), members, ..NewRoom::default() }).await.unwrap();
    engine
}

async fn start() -> (Arc<Gated>, Engine) {
    let store = Gated::new();
    let engine = with_room(builder(&store).build().await.unwrap()).await;
    (store, engine)
}

fn scope(engine: &Engine, user: &str) -> Scope {
    Scope {
        token: engine.keys().seal(Kind::Room, ROOM.get()),
        user: user.into(),
        user_name: user.into(),
        after: None,
        origin: None,
        remote: None,
    }
}

async fn enter(engine: &Engine, user: &str) -> Session {
    let session = soon(engine.connect(scope(engine, user))).await.unwrap();
    assert_eq!(next(&session).await["type"], "resumed");
    session
}

async fn send(session: &Session, frame: Value) {
    soon(session.receive(&frame.to_string())).await.unwrap();
}

async fn next(session: &Session) -> Value {
    serde_json::from_str(soon(session.next()).await.expect("the session is open").as_str()).unwrap()
}

/// Whether a session has nothing to read just now.
fn is_silent(session: &Session) -> bool {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    session.poll_frames(&mut cx, &mut Vec::new()).is_pending()
}

async fn applying(store: &Gated, batches: usize) {
    soon(async {
        while store.batches.load(Ordering::SeqCst) < batches {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_sees_a_message_before_it_is_committed() {
    let (store, engine) = start().await;
    let (alice, bob) = (enter(&engine, "alice").await, enter(&engine, "bob").await);
    store.applies.send_replace(false);
    send(&alice, json!({"message": "one", "client_id": "a-1"})).await;
    applying(&store, 1).await;
    // What comes while a transaction runs forms the next batch.
    for number in 2..=5 {
        send(&alice, json!({"message": number.to_string(), "client_id": format!("a-{number}")})).await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(is_silent(&alice) && is_silent(&bob));
    assert_eq!(engine.stats().committed, 0);
    store.applies.send_replace(true);
    for seq in 1..=5 {
        assert_eq!(next(&bob).await["seq"], seq);
    }
    let kinds = kinds(&alice, 10).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "ack").count(), 5);
    assert_eq!(engine.stats().batches, 2);
}

async fn kinds(session: &Session, count: usize) -> Vec<String> {
    let mut kinds = Vec::new();
    for _ in 0..count {
        kinds.push(next(session).await["type"].as_str().unwrap().to_owned());
    }
    kinds
}

#[tokio::test]
async fn a_failing_store_is_the_senders_news_and_chat_goes_on_afterwards() {
    let (store, engine) = start().await;
    let (alice, bob) = (enter(&engine, "alice").await, enter(&engine, "bob").await);
    store.away.store(true, Ordering::SeqCst);
    send(&alice, json!({"message": "lost", "client_id": "a-1"})).await;
    let refused = next(&alice).await;
    assert_eq!((&refused["code"], &refused["client_id"]), (&json!("store_unavailable"), &json!("a-1")));
    assert!(is_silent(&bob));
    assert_eq!(engine.connect(scope(&engine, "carol")).await.err(), Some(CloseCode::Unavailable));
    let post = engine.post(ROOM, &Speaker::host("system", "System"), "lost", None).await;
    assert_eq!(post.unwrap_err().code(), Code::StoreUnavailable);
    store.away.store(false, Ordering::SeqCst);

    // The client sends it again, and one answer after the other gets lost.
    *store.faults.lock() =
        vec![Fault::LostBefore, Fault::Unavailable, Fault::LostAfter, Fault::Panic, Fault::LostBefore];
    send(&alice, json!({"message": "kept", "client_id": "a-1", "resend": true})).await;
    for client in [&alice, &bob] {
        let seen = next(client).await;
        assert_eq!((&seen["type"], &seen["message"], &seen["seq"]), (&json!("add"), &json!("kept"), &json!(1)));
    }
    assert_eq!(next(&alice).await["type"], "ack");
    send(&bob, json!({"message": "and on"})).await;
    for client in [&alice, &bob] {
        assert_eq!(next(client).await["seq"], 2);
    }
    assert!(is_silent(&alice) && is_silent(&bob));
    assert_eq!(store.messages().await, ["kept", "and on"]);
}

/// All answers to a commit that took place get lost: the sender is told that it could not be stored, everybody sees it
/// when heads are compared, and a resend is recognised.
#[tokio::test]
async fn a_commit_nobody_heard_of_shows_and_is_not_doubled() {
    let (store, engine) = start().await;
    let (alice, bob) = (enter(&engine, "alice").await, enter(&engine, "bob").await);
    *store.faults.lock() = vec![Fault::LostAfter; 8];
    send(&alice, json!({"message": "once", "client_id": "a-1"})).await;
    assert_eq!(next(&bob).await["message"], "once");
    let (mut shown, mut refused) = (0, 0);
    while shown < 1 || refused < 1 {
        match next(&alice).await {
            frame if frame["type"] == "add" => shown += 1,
            frame => {
                assert_eq!(frame["code"], "store_unavailable");
                refused += 1;
            }
        }
    }
    send(&alice, json!({"message": "once", "client_id": "a-1", "resend": true})).await;
    assert_eq!(next(&alice).await["type"], "ack");
    assert!(is_silent(&bob));
    assert_eq!(store.messages().await, ["once"]);
}

#[tokio::test]
async fn a_store_that_is_away_is_not_asked_without_a_pause() {
    let (store, engine) = start().await;
    let alice = enter(&engine, "alice").await;
    store.away.store(true, Ordering::SeqCst);
    let began = Instant::now();
    send(&alice, json!({"message": "lost"})).await;
    assert_eq!(next(&alice).await["code"], "store_unavailable");
    store.heads_asked.forget_permits(usize::MAX);
    soon(store.heads_asked.acquire_many(3)).await.unwrap().forget();
    assert!(began.elapsed() > Duration::from_secs(2), "{:?}", began.elapsed());
    store.away.store(false, Ordering::SeqCst);
    send(&alice, json!({"message": "back"})).await;
    assert_eq!(next(&alice).await["message"], "back");
}

/// A change is committed after a newcomer's membership and the head were read, and before its room is loaded.
#[tokio::test]
async fn what_is_committed_while_a_room_is_being_loaded_is_shown() {
    let (store, engine) = start().await;
    // The comparison of heads would find it, too, but only after up to half a minute.
    store.heads_hidden.store(true, Ordering::SeqCst);
    store.members.send_replace(false);
    let connecting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.connect(scope(&engine, "bob")).await }
    });
    soon(store.members_read.acquire()).await.unwrap().forget();
    engine.post(ROOM, &Speaker::host("system", "System"), "meanwhile", None).await.unwrap();
    store.members.send_replace(true);
    let bob = soon(connecting).await.unwrap().unwrap();
    assert_eq!(next(&bob).await["type"], "resumed");
    assert_eq!(next(&bob).await["message"], "meanwhile");
}

#[tokio::test]
async fn a_batch_of_any_size_closes_nobody_who_reads() {
    let store = Gated::new();
    let mut few = limits();
    few.outbox.frames = 16;
    let engine = with_room(builder(&store).limits(few).build().await.unwrap()).await;
    let (alice, bob) = (enter(&engine, "alice").await, enter(&engine, "bob").await);
    store.applies.send_replace(false);
    for number in 1..=200 {
        send(&alice, json!({"message": number.to_string()})).await;
    }
    store.applies.send_replace(true);
    let read = |session: Session| async move {
        for seq in 1..=200 {
            assert_eq!(next(&session).await["seq"], seq);
        }
    };
    tokio::join!(read(alice), read(bob));
}

#[tokio::test]
async fn a_closed_engine_has_nothing_under_way() {
    let (store, engine) = start().await;
    store.members.send_replace(false);
    let spawned = |user: &'static str| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.connect(scope(&engine, user)).await })
    };
    let connecting = spawned("alice");
    let posting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.post(ROOM, &Speaker::user("bob", "bob"), "late", None).await }
    });
    soon(store.members_read.acquire_many(2)).await.unwrap().forget();
    soon(engine.close()).await;
    assert_eq!(soon(connecting).await.unwrap().err(), Some(CloseCode::Restart));
    store.members.send_replace(true);
    assert_eq!(soon(posting).await.unwrap().unwrap_err().code(), Code::EngineClosed);
    assert!(store.messages().await.is_empty());
    assert_eq!((engine.stats().sessions, engine.stats().rooms), (0, 0));
}

#[tokio::test]
async fn closing_goes_on_when_it_is_not_waited_for() {
    let (store, engine) = start().await;
    let alice = enter(&engine, "alice").await;
    store.applies.send_replace(false);
    send(&alice, json!({"message": "queued", "client_id": "a-1"})).await;
    applying(&store, 1).await;
    assert!(tokio::time::timeout(Duration::from_millis(1), engine.close()).await.is_err());
    // What comes too late is not taken, and its sender is told so.
    let late = alice.receive(r#"{"message": "late", "client_id": "a-2"}"#).await;
    assert_eq!(late.unwrap_err().code(), Code::EngineClosed);
    let refused = next(&alice).await;
    assert_eq!((&refused["code"], &refused["client_id"]), (&json!("engine_closed"), &json!("a-2")));
    store.applies.send_replace(true);
    assert_eq!(kinds(&alice, 2).await, ["add", "ack"]);
    assert_eq!(soon(alice.next()).await.err(), Some(CloseCode::Restart));
}

/// Whoever gets a session while the engine closes sees it closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_slips_in_while_the_engine_closes() {
    for _ in 0..300 {
        let (_store, engine) = start().await;
        let mut connecting = tokio::task::JoinSet::new();
        for user in ["alice", "bob"] {
            for _ in 0..8 {
                let engine = engine.clone();
                connecting.spawn(async move { engine.connect(scope(&engine, user)).await });
            }
        }
        engine.close().await;
        while let Some(connected) = connecting.join_next().await {
            if let Ok(session) = connected.unwrap() {
                soon(async { while session.next().await.is_ok() {} }).await;
            }
        }
        assert_eq!(engine.stats().sessions, 0);
    }
}

/// A host's own threads and loops wait on the engine with whatever they have.
#[test]
fn an_engine_can_be_used_from_outside_its_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = Gated::new();
    let engine = runtime.block_on(builder(&store).build()).unwrap();
    block_on(async {
        let engine = with_room(engine).await;
        let bob = engine.connect(scope(&engine, "bob")).await.unwrap();
        assert!(bob.next().await.unwrap().as_str().contains("resumed"));
        engine.post(ROOM, &Speaker::user("alice", "alice"), "hello", None).await.unwrap();
        assert!(bob.next().await.unwrap().as_str().contains("hello"));
        bob.receive(r#"{"message":"hi"}"#).await.unwrap();
        assert!(bob.next().await.unwrap().as_str().contains("hi"));
        engine.restored().await.unwrap();
        engine.close().await;
        while bob.next().await.is_ok() {}
        assert_eq!(bob.closed(), Some(CloseCode::Restart));
    });
    drop(runtime);
}

/// The least that a future needs, without tokio.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        std::thread::park_timeout(Duration::from_secs(20));
    }
}

/// A layer on which publishing takes as long as the test wants.
struct SlowLayer {
    open: watch::Sender<bool>,
    now: AtomicUsize,
    most: AtomicUsize,
    published: parking_lot::Mutex<Vec<u64>>,
}

#[async_trait]
impl ChannelLayer for SlowLayer {
    async fn subscribe(&self, _: Group) -> Result<(), LayerError> {
        Ok(())
    }

    async fn unsubscribe(&self, _: Group) -> Result<(), LayerError> {
        Ok(())
    }

    async fn publish(&self, envelopes: &[Envelope]) -> Result<(), LayerError> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        pass(&self.open).await;
        for envelope in envelopes {
            if let Envelope::Event(event) = envelope {
                self.published.lock().push(event.at.seq.0);
            }
        }
        self.now.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    async fn next(&self) -> Option<Incoming> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_slow_layer_gets_one_batch_after_the_other_and_holds_nobody_up() {
    let store = Gated::new();
    let layer = Arc::new(SlowLayer {
        open: watch::Sender::new(false),
        now: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        published: parking_lot::Mutex::default(),
    });
    let engine = with_room(builder(&store).layer_object(layer.clone()).build().await.unwrap()).await;
    let (alice, bob) = (enter(&engine, "alice").await, enter(&engine, "bob").await);
    for seq in 1..=20 {
        send(&alice, json!({"message": "x"})).await;
        assert_eq!(next(&bob).await["seq"], seq);
    }
    layer.open.send_replace(true);
    soon(async {
        while layer.published.lock().len() < 20 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(*layer.published.lock(), (1..=20).collect::<Vec<_>>());
    assert_eq!(layer.most.load(Ordering::SeqCst), 1);
}
