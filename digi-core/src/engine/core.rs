//! What sessions, writer and background tasks share.
//!
//! Locks: a session's and a room's are held for pure work only, never across I/O and never one inside the other.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::limits::Limits;
use super::presence;
use super::publisher::Publisher;
use super::registry::Registry;
use super::session::SessionCore;
use super::stats::Counters;
use super::timers::Timers;
use super::writer::{Observer, WriterHandle};
use crate::consumer::Rules;
use crate::error::{CloseCode, Code, Error};
use crate::event::{Envelope, Event, Signal};
use crate::frame::Run;
use crate::id::{Cursor, Millis, RoomId};
use crate::layer::ChannelLayer;
#[cfg(feature = "bridge")]
use crate::layer::bridge::Bridge;
use crate::room::{Deliver, Room, RoomOutput};
use crate::store::model::Head;
use crate::store::{Store, StoreError};

const ROOM_SHARDS: usize = 64;

/// How long the store may take for an answer. Beyond it is taken for unavailable.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);

/// What says the time.
pub(super) type Clock = Arc<dyn Fn() -> Millis + Send + Sync>;

pub(super) type LiveRoom = Room<Arc<SessionCore>>;

pub(super) struct Core {
    pub(super) rules: Arc<Rules>,
    pub(super) limits: Limits,
    pub(super) store: Arc<dyn Store>,
    pub(super) layer: Arc<dyn ChannelLayer>,
    pub(super) writer: WriterHandle,
    pub(super) registry: Registry,
    pub(super) counters: Counters,
    pub(super) timers: Timers,
    /// Rooms whose subscription on the layer has to be looked at.
    pub(super) subscriptions: tokio::sync::mpsc::UnboundedSender<RoomId>,
    pub(super) publisher: Publisher,
    /// None: the engine does not tell who is there.
    pub(super) presence: Option<presence::Rooms>,
    /// To stock Channels workers, if there are any.
    #[cfg(feature = "bridge")]
    pub(super) bridge: Option<Arc<Bridge>>,
    /// Asks for a comparison of all heads with the store, now.
    pub(super) compare: Arc<Notify>,
    rooms: [Mutex<HashMap<RoomId, LiveRoom>>; ROOM_SHARDS],
    /// Rooms whose epoch is being raised.
    pub(super) raising: Mutex<HashSet<RoomId>>,
    pub(super) observer: Option<Observer>,
    pub(super) runtime: Handle,
    clock: Clock,
    closing: AtomicBool,
    store_was_away: AtomicBool,
    process: u32,
}

pub(super) struct Parts {
    pub(super) rules: Arc<Rules>,
    pub(super) limits: Limits,
    pub(super) store: Arc<dyn Store>,
    pub(super) layer: Arc<dyn ChannelLayer>,
    pub(super) writer: WriterHandle,
    pub(super) subscriptions: tokio::sync::mpsc::UnboundedSender<RoomId>,
    pub(super) publisher: Publisher,
    pub(super) presence: Option<presence::Rooms>,
    #[cfg(feature = "bridge")]
    pub(super) bridge: Option<Arc<Bridge>>,
    pub(super) observer: Option<Observer>,
    pub(super) runtime: Handle,
    pub(super) clock: Clock,
}

/// Puts frames into outboxes and remembers whom to wake: once per session and piece of work.
#[derive(Default)]
pub(super) struct Wakes {
    sessions: Vec<Arc<SessionCore>>,
    pub(super) delivered: u64,
}

impl Deliver<Arc<SessionCore>> for Wakes {
    fn deliver(&mut self, to: &Arc<SessionCore>, run: &Run) -> bool {
        use super::outbox::Push;
        self.delivered += run.frames().len() as u64;
        match to.outbox.push(run.clone()) {
            Push::First => {
                self.sessions.push(to.clone());
                true
            }
            Push::Queued | Push::Closed => true,
            Push::Full => false,
        }
    }
}

impl Wakes {
    pub(super) fn wake(&mut self) {
        for session in self.sessions.drain(..) {
            session.outbox.wake();
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // The background tasks look whether there is still an engine.
        self.compare.notify_one();
        self.timers.earlier.notify_one();
    }
}

impl Core {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            rules,
            limits,
            store,
            layer,
            writer,
            subscriptions,
            publisher,
            presence,
            observer,
            runtime,
            clock,
            ..
        } = parts;
        Self {
            rules,
            store,
            layer,
            writer,
            registry: Registry::new(limits.sessions, limits.sessions_per_user),
            limits,
            counters: Counters::default(),
            timers: Timers::default(),
            subscriptions,
            publisher,
            presence,
            #[cfg(feature = "bridge")]
            bridge: parts.bridge,
            compare: Arc::default(),
            rooms: std::array::from_fn(|_| Mutex::default()),
            raising: Mutex::default(),
            observer,
            runtime,
            clock,
            closing: AtomicBool::new(false),
            store_was_away: AtomicBool::new(false),
            process: std::process::id(),
        }
    }

    pub(super) fn now(&self) -> Millis {
        (self.clock)()
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    pub(super) fn start_closing(&self) {
        self.closing.store(true, Ordering::SeqCst);
    }

    /// Whether this is another process than the one that made the engine: its threads do not exist here.
    pub(super) fn is_forked(&self) -> bool {
        self.process != std::process::id()
    }

    pub(super) fn shard(&self, room: RoomId) -> &Mutex<HashMap<RoomId, LiveRoom>> {
        // Fibonacci hashing: consecutive ids spread over the shards.
        let spread = (room.0 as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 58;
        &self.rooms[spread as usize % ROOM_SHARDS]
    }

    /// What the room has heard of, to be noted before the store is asked.
    pub(super) fn seen(&self, room: RoomId) -> Option<Cursor> {
        self.shard(room).lock().get(&room).map(Room::seen)
    }

    pub(super) fn is_loaded(&self, room: RoomId) -> bool {
        self.shard(room).lock().contains_key(&room)
    }

    pub(super) fn loaded_rooms(&self) -> Vec<(RoomId, Cursor)> {
        self.rooms
            .iter()
            .flat_map(|shard| shard.lock().iter().map(|(id, room)| (*id, room.seen())).collect::<Vec<_>>())
            .collect()
    }

    pub(super) fn room_count(&self) -> usize {
        self.rooms.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Works on a room that is loaded, then does what the room wants done.
    pub(super) fn with_room<T>(
        self: &Arc<Self>,
        id: RoomId,
        wakes: &mut Wakes,
        work: impl FnOnce(&mut LiveRoom, &mut Wakes) -> T,
    ) -> Option<T> {
        let mut shard = self.shard(id).lock();
        let room = shard.get_mut(&id)?;
        let result = work(room, wakes);
        let outputs = self.outputs_of(room);
        drop(shard);
        self.carry_out_room(id, outputs);
        Some(result)
    }

    pub(super) fn outputs_of(&self, room: &mut LiveRoom) -> Vec<RoomOutput> {
        if let Some(wakeup) = room.next_wakeup() {
            self.timers.plan(room.id(), wakeup);
        }
        std::iter::from_fn(|| room.poll_output()).collect()
    }

    /// Works on a room and wakes whom that gave something to read.
    pub(super) fn at_room<T>(
        self: &Arc<Self>,
        id: RoomId,
        work: impl FnOnce(&mut LiveRoom, &mut Wakes) -> T,
    ) -> Option<T> {
        let mut wakes = Wakes::default();
        let result = self.with_room(id, &mut wakes, work);
        wakes.wake();
        self.counters.delivered(wakes.delivered);
        result
    }

    /// Tells a room of a head that was read after `seen` was noted.
    pub(super) fn observe(self: &Arc<Self>, id: RoomId, head: Head, seen: Cursor) {
        let now = self.now();
        self.at_room(id, |room, _| room.handle_head(head, seen, now));
    }

    /// Runs on the engine's runtime, whatever the caller waits on, and goes on if the caller does not wait.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        if self.is_forked() {
            return Err(Code::EngineForked.into());
        }
        let ended = self.runtime.spawn(work).await;
        ended.map_err(|error| if error.is_panic() { Code::Internal } else { Code::EngineClosed }.into())
    }

    /// Asks the store for something that may be asked again, and does not wait for ever. (`apply` is not among those:
    /// only the store knows whether a commit that takes long may be repeated.)
    pub(super) async fn ask<T>(&self, question: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        self.noted(in_time(question).await)
    }

    /// What changes whenever another process may have changed anything, where the store has such a thing.
    pub(super) async fn change_marker(&self) -> Result<Option<u64>, StoreError> {
        match in_time(self.store.change_marker()).await {
            // Nobody was asked, so this does not say that the store is there.
            Ok(None) => Ok(None),
            answer => self.noted(answer),
        }
    }

    /// Notes whether the store is there. When it comes back, heads are compared at once.
    pub(super) fn noted<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        match &answer {
            Ok(_) => {
                if self.store_was_away.load(Ordering::Relaxed) && self.store_was_away.swap(false, Ordering::AcqRel) {
                    self.compare.notify_one();
                }
            }
            Err(StoreError::Unavailable(_) | StoreError::Unknown(_)) => {
                if !self.store_was_away.swap(true, Ordering::AcqRel) {
                    warn!(error = %answer.as_ref().err().map(ToString::to_string).unwrap_or_default(), "the store is away");
                }
            }
            Err(error) => debug!(%error, "the store refused"),
        }
        answer
    }

    /// Events of one room, of this node or another.
    pub(super) fn events(self: &Arc<Self>, room: RoomId, events: Vec<Event>, wakes: &mut Wakes) {
        let now = self.now();
        self.with_room(room, wakes, |room, wakes| room.handle_events(events, now, wakes));
    }

    pub(super) fn signal(self: &Arc<Self>, signal: &Signal) {
        match signal {
            Signal::Room { room, from, frame } => {
                self.at_room(*room, |room, wakes| room.signal(Some(from), frame, wakes));
            }
            Signal::Presence { room, node, users, asks } => {
                if let Some(presence) = &self.presence {
                    presence.hear(self, *room, *node, users, *asks);
                }
            }
            Signal::Missed { room: Some(room) } => {
                let now = self.now();
                self.at_room(*room, |room, _| room.handle_lagged(now));
            }
            Signal::Missed { room: None } => self.compare.notify_one(),
            Signal::Kick { user, login } => {
                let code = if login.is_some() { CloseCode::Unauthenticated } else { CloseCode::Kicked };
                for session in self.registry.of_user(user) {
                    if login.is_none() || session.login == *login {
                        session.tell(self, |consumer| consumer.handle_closed(code));
                    }
                }
            }
        }
    }

    pub(super) fn publish(&self, envelopes: Vec<Envelope>) {
        if envelopes.is_empty() || self.layer.is_alone() {
            return;
        }
        self.publisher.publish(envelopes);
    }

    /// Unloads rooms that were without sessions at this call and the last.
    pub(super) fn unload_idle(&self, idle: &mut HashSet<RoomId>) {
        let mut now_idle = HashSet::new();
        for shard in &self.rooms {
            shard.lock().retain(|id, room| {
                if room.sessions() > 0 {
                    return true;
                }
                if idle.contains(id) {
                    let _ = self.subscriptions.send(*id);
                    return false;
                }
                now_idle.insert(*id);
                true
            });
        }
        *idle = now_idle;
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(work);
    }
}

async fn in_time<T>(question: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let seconds = STORE_TIMEOUT.as_secs();
    let late = |_| Err(StoreError::Unavailable(format!("no answer within {seconds} s")));
    tokio::time::timeout(STORE_TIMEOUT, question).await.unwrap_or_else(late)
}
