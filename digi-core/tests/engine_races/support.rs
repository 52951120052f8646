//! A memory store behind gates, and an engine on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use digi_core::consumer::{Rate, Scope};
use digi_core::engine::{Engine, EngineBuilder, Limits, Session};
use digi_core::store::memory::MemoryStore;
use digi_core::store::model::{Applied, Batch, BatchId, Changes, Head, History, MemberAnswer, NewRoom, Role};
use digi_core::store::{Store, StoreError, lane_of};
use digi_core::token::{Keyring, Kind};
use digi_core::{Cursor, Millis, RoomId, Seq, UserKey};
use serde_json::Value;
use tokio::sync::{Semaphore, watch};

pub(crate) const ROOM: RoomId = RoomId(1);

/// Ends a test that would otherwise hang.
pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("this should not take so long")
}

/// What the store does with the next `apply`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Unavailable,
    /// Nothing is done, and nobody knows.
    LostBefore,
    /// It is done, and nobody knows.
    LostAfter,
    /// It is done, nobody knows, and from then on the store is away.
    Cut,
    Panic,
    /// No batch of more than one command is taken.
    Rejected,
}

/// A memory store behind gates.
pub(crate) struct Gated {
    inner: MemoryStore,
    /// One per lane.
    applies: Vec<watch::Sender<bool>>,
    pub(crate) members: watch::Sender<bool>,
    /// A permit for every answer that waits at the gate of `members`.
    pub(crate) members_read: Semaphore,
    pub(crate) away: AtomicBool,
    /// How many milliseconds `apply` takes to find that the store is away.
    pub(crate) reaching: AtomicU64,
    pub(crate) faults: parking_lot::Mutex<Vec<Fault>>,
    pub(crate) void_panics: AtomicBool,
    pub(crate) heads_asked: Semaphore,
    pub(crate) heads_hidden: AtomicBool,
    /// Of every call of `apply`: the batch's id and rooms.
    pub(crate) batches: parking_lot::Mutex<Vec<(BatchId, Vec<RoomId>)>>,
}

impl Gated {
    pub(crate) fn new(lanes: usize) -> Arc<Self> {
        Arc::new(Self {
            inner: MemoryStore::new(),
            applies: (0..lanes).map(|_| watch::Sender::new(true)).collect(),
            members: watch::Sender::new(true),
            members_read: Semaphore::new(0),
            away: AtomicBool::new(false),
            reaching: AtomicU64::new(0),
            faults: parking_lot::Mutex::default(),
            void_panics: AtomicBool::new(false),
            heads_asked: Semaphore::new(0),
            heads_hidden: AtomicBool::new(false),
            batches: parking_lot::Mutex::default(),
        })
    }

    /// Whether batches of a lane get through.
    pub(crate) fn open(&self, lane: usize, open: bool) {
        self.applies[lane].send_replace(open);
    }

    fn there(&self) -> Result<(), StoreError> {
        let away = self.away.load(Ordering::SeqCst);
        if away { Err(StoreError::Unavailable("a cable was pulled".into())) } else { Ok(()) }
    }

    pub(crate) async fn messages(&self) -> Vec<String> {
        self.messages_of(ROOM).await
    }

    pub(crate) async fn messages_of(&self, room: RoomId) -> Vec<String> {
        let page = self.inner.history(room, None, 1_000).await.unwrap();
        page.messages.iter().map(|message| message.body.as_deref().unwrap().to_owned()).collect()
    }
}

pub(crate) async fn pass(gate: &watch::Sender<bool>) {
    gate.subscribe().wait_for(|open| *open).await.unwrap();
}

#[async_trait]
impl Store for Gated {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.inner.migrate().await
    }

    fn lanes(&self) -> usize {
        self.applies.len()
    }

    async fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        let rooms: Vec<_> = batch.commands.iter().map(|command| command.room).collect();
        let gate = &self.applies[lane_of(rooms[0], self.lanes())];
        self.batches.lock().push((batch.id, rooms));
        pass(gate).await;
        if self.away.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(self.reaching.load(Ordering::SeqCst))).await;
        }
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
            Some(Fault::Cut) => {
                self.inner.apply(batch).await?;
                self.away.store(true, Ordering::SeqCst);
                Err(lost())
            }
            Some(Fault::Panic) => panic!("a host's store may have bugs"),
            Some(Fault::Rejected) if batch.commands.len() > 1 => Err(StoreError::Rejected("too many".into())),
            Some(Fault::Rejected) => self.inner.apply(batch).await,
        }
    }

    async fn void(&self, batch: BatchId) -> Result<(), StoreError> {
        self.there()?;
        assert!(!self.void_panics.swap(false, Ordering::SeqCst), "here as well");
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

pub(crate) fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.consumer.frames = Rate { per_second: 0, burst: 1 };
    limits
}

pub(crate) fn builder(store: &Arc<Gated>) -> EngineBuilder {
    Engine::builder().keys(Keyring::new([9; 32]).unwrap()).store_object(store.clone()).limits(limits())
}

pub(crate) async fn with_room(engine: Engine) -> Engine {
    with_rooms(engine, &[ROOM]).await
}

pub(crate) async fn with_rooms(engine: Engine, rooms: &[RoomId]) -> Engine {
    for room in rooms {
        let members = ["alice", "bob"].map(|name| (name.into(), name.into(), Role::Member)).to_vec();
        engine.create_room(&NewRoom { id: Some(*room), members, ..NewRoom::default() }).await.unwrap();
    }
    engine
}

pub(crate) async fn start() -> (Arc<Gated>, Engine) {
    let store = Gated::new(1);
    let engine = with_room(builder(&store).build().await.unwrap()).await;
    (store, engine)
}

pub(crate) fn scope(engine: &Engine, user: &str) -> Scope {
    scope_in(engine, ROOM, user)
}

fn scope_in(engine: &Engine, room: RoomId, user: &str) -> Scope {
    Scope {
        token: engine.keys().seal(Kind::Room, room.get()),
        user: user.into(),
        user_name: user.into(),
        after: None,
        origin: None,
        remote: None,
        login: None,
    }
}

pub(crate) async fn enter(engine: &Engine, user: &str) -> Session {
    enter_room(engine, ROOM, user).await
}

pub(crate) async fn enter_room(engine: &Engine, room: RoomId, user: &str) -> Session {
    let session = soon(engine.connect(scope_in(engine, room, user))).await.unwrap();
    assert_eq!(next(&session).await["type"], "resumed");
    session
}

pub(crate) async fn send(session: &Session, frame: Value) {
    soon(session.receive(&frame.to_string())).await.unwrap();
}

pub(crate) async fn next(session: &Session) -> Value {
    serde_json::from_str(soon(session.next()).await.expect("the session is open").as_str()).unwrap()
}

/// Whether a session has nothing to read just now.
pub(crate) fn is_silent(session: &Session) -> bool {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    session.poll_frames(&mut cx, &mut Vec::new()).is_pending()
}

/// Waits until `apply` has been called so many times.
pub(crate) async fn applying(store: &Gated, batches: usize) {
    soon(async {
        while store.batches.lock().len() < batches {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

pub(crate) async fn kinds(session: &Session, count: usize) -> Vec<String> {
    let mut kinds = Vec::new();
    for _ in 0..count {
        kinds.push(next(session).await["type"].as_str().unwrap().to_owned());
    }
    kinds
}
