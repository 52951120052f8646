//! What sessions, writer and background tasks share, and how a consumer's and a room's outputs are carried out.
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
use super::writer::{Asker, Job, Observer, WriterHandle};
use crate::consumer::{Output, Rules, Ticket};
use crate::error::{CloseCode, Code, Error};
use crate::event::{Envelope, Event, Signal};
use crate::frame::Frame;
use crate::id::{Cursor, Millis, RoomId};
use crate::layer::ChannelLayer;
#[cfg(feature = "bridge")]
use crate::layer::bridge::Bridge;
use crate::room::{Deliver, JoinAnswer, Room, RoomOutput};
use crate::store::model::{Head, LOG_WINDOW, MemberAnswer};
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
    raising: Mutex<HashSet<RoomId>>,
    pub(super) observer: Option<Observer>,
    runtime: Handle,
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
    fn deliver(&mut self, to: &Arc<SessionCore>, frame: &Frame) -> bool {
        use super::outbox::Push;
        self.delivered += 1;
        match to.outbox.push(frame.clone()) {
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

    fn shard(&self, room: RoomId) -> &Mutex<HashMap<RoomId, LiveRoom>> {
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

    fn outputs_of(&self, room: &mut LiveRoom) -> Vec<RoomOutput> {
        if let Some(wakeup) = room.next_wakeup() {
            self.timers.plan(room.id(), wakeup);
        }
        std::iter::from_fn(|| room.poll_output()).collect()
    }

    fn carry_out_room(self: &Arc<Self>, id: RoomId, outputs: Vec<RoomOutput>) {
        for output in outputs {
            match output {
                RoomOutput::ReadLog { after, seen } => {
                    let core = self.clone();
                    self.runtime.spawn(async move {
                        let changes = core.ask(core.store.changes(id, after, LOG_WINDOW)).await;
                        let now = core.now();
                        core.at_room(id, |room, wakes| {
                            room.handle_changes(changes.ok(), seen, &core.rules.encoder, now, wakes);
                        });
                    });
                }
                RoomOutput::RaiseEpoch { seen } => {
                    // Every session that reads finds the same; one question is enough.
                    if !self.raising.lock().insert(id) {
                        continue;
                    }
                    warn!(room = %id, %seen, "the store lies behind what was seen: its data was restored; raising the epoch");
                    let core = self.clone();
                    self.runtime.spawn(async move {
                        let raised = core.ask(core.store.raise_epoch(id, seen, core.now())).await;
                        core.raising.lock().remove(&id);
                        if let Ok(head) = raised {
                            core.observe(id, head, Cursor::default());
                        }
                    });
                }
                RoomOutput::Reset { session } => {
                    if let Some(session) = self.registry.get(session) {
                        session.tell(self, |consumer| consumer.handle_reset(id));
                    }
                }
                RoomOutput::Close { session, code } => {
                    if let Some(session) = self.registry.get(session) {
                        session.tell(self, |consumer| consumer.handle_closed(code));
                    }
                }
            }
        }
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

    /// An event of this node or another.
    pub(super) fn event(self: &Arc<Self>, event: Event, wakes: &mut Wakes) {
        let now = self.now();
        self.with_room(event.room, wakes, |room, wakes| room.handle_event(event, now, wakes));
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

    /// Does what a session's consumer wants done. Called by one task at a time for a session.
    pub(super) fn carry_out(self: &Arc<Self>, session: &Arc<SessionCore>, output: Output) {
        match output {
            Output::AskMember { ticket, room } => self.ask_member(session, ticket, room),
            Output::Join { ticket, room, answer } => self.join(session, ticket, room, answer),
            Output::Accept => session.accept(),
            Output::Submit { ticket, command } => {
                self.writer.submit(Job::new(command, Asker::Session(session.clone(), ticket)));
            }
            Output::LoadChanges { ticket, room, after, limit } => {
                let (core, session, seen) = (self.clone(), session.clone(), self.seen(room).unwrap_or_default());
                self.runtime.spawn(async move {
                    let answer = core.ask(core.store.changes(room, after, limit)).await;
                    if let Ok(changes) = &answer {
                        core.observe(room, changes.head, seen);
                    }
                    let answer = answer.map_err(|error| error.code());
                    session.tell(&core, |consumer| consumer.handle_changes(ticket, answer));
                });
            }
            Output::LoadHistory { ticket, room, before, limit } => {
                let (core, session, seen) = (self.clone(), session.clone(), self.seen(room).unwrap_or_default());
                self.runtime.spawn(async move {
                    let answer = core.ask(core.store.history(room, before, limit)).await;
                    if let Ok(page) = &answer {
                        core.observe(room, page.head, seen);
                    }
                    let answer = answer.map_err(|error| error.code());
                    session.tell(&core, |consumer| consumer.handle_history(ticket, answer));
                });
            }
            Output::Send(frame) => {
                if !session.send(frame) {
                    session.tell(self, |consumer| consumer.handle_closed(CloseCode::TooSlow));
                }
            }
            Output::GoLive { room, at } => {
                let now = self.now();
                let id = session.id;
                self.at_room(room, |room, wakes| room.go_live(id, at, now, wakes));
            }
            Output::Signal(signal) => {
                self.signal(&signal);
                self.publish(vec![Envelope::Signal(signal)]);
            }
            Output::Listen { room } => {
                let id = session.id;
                self.at_room(room, |room, _| room.listen(id));
                if let Some(presence) = &self.presence {
                    presence.tell(room, session);
                }
            }
            Output::Leave { room } => {
                let id = session.id;
                self.at_room(room, |room, _| room.leave(id));
                if let Some(presence) = &self.presence {
                    presence.leave(self, room, session);
                }
            }
            Output::Close(code) => {
                session.closed(code);
                self.registry.remove(session.id, &session.user);
            }
        }
    }

    fn ask_member(self: &Arc<Self>, session: &Arc<SessionCore>, ticket: Ticket, room: RoomId) {
        let remembered = {
            let shard = self.shard(room).lock();
            shard.get(&room).and_then(|room| room.membership(&session.user))
        };
        if let Some(answer) = remembered {
            return session.tell(self, |consumer| consumer.handle_member(ticket, Ok(answer)));
        }
        let (core, session, seen) = (self.clone(), session.clone(), self.seen(room).unwrap_or_default());
        self.runtime.spawn(async move {
            let answer = core.ask(core.store.member(room, &session.user)).await;
            if let Ok(member) = &answer {
                core.observe(room, member.head, seen);
            }
            let answer = answer.map_err(|error| error.code());
            session.tell(&core, |consumer| consumer.handle_member(ticket, answer));
        });
    }

    fn join(self: &Arc<Self>, session: &Arc<SessionCore>, ticket: Ticket, id: RoomId, answer: MemberAnswer) {
        let Some(membership) = answer.membership else { return };
        let now = self.now();
        let mut shard = self.shard(id).lock();
        let mut is_new = false;
        let room = shard.entry(id).or_insert_with(|| {
            is_new = true;
            Room::new(id, answer.head, self.limits.room)
        });
        let joined = room.join(session.id, session.user.clone(), membership, answer.head, session.clone(), now);
        let outputs = self.outputs_of(room);
        drop(shard);
        if is_new {
            if self.room_count() == 1 {
                // Nobody looked at the store while no room was loaded.
                self.compare.notify_one();
            }
            // The task that subscribes looks at the log afterwards: nothing is missed in between.
            let _ = self.subscriptions.send(id);
        }
        if let (Some(presence), JoinAnswer::Joined(_)) = (&self.presence, joined) {
            presence.enter(self, id, session);
        }
        session.tell(self, |consumer| consumer.handle_joined(ticket, joined));
        self.carry_out_room(id, outputs);
    }

    /// The connection has gone.
    pub(super) fn forget(self: &Arc<Self>, session: &Arc<SessionCore>) {
        session.tell(self, crate::consumer::Consumer::handle_disconnect);
        session.outbox.close(CloseCode::Normal);
        super::stats::add(&self.counters.ignored_claims, session.ignored_claims());
        self.registry.remove(session.id, &session.user);
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
