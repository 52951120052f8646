//! A node of the simulated fleet: what the engine does with consumers, rooms and batches, without tokio.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::consumer::{Consumer, Output, Rules, Scope, Ticket};
use crate::engine::missed::Missed;
use crate::error::CloseCode;
use crate::event::{Envelope, Event, Group, Signal};
use crate::frame::{Frame, Run};
use crate::id::{Cursor, Millis, RoomId, Seq, UserKey};
use crate::room::{JoinAnswer, Room, RoomLimits, RoomOutput, SessionId};
use crate::store::StoreError;
use crate::store::attempt::{Attempt, BatchIds, Step};
use crate::store::model::{Applied, Batch, BatchId, Changes, Command, Head, History, MemberAnswer, Outcome};

/// What a node asks of the store, with what it needs to understand the answer.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    Member { session: SessionId, ticket: Ticket, room: RoomId, user: UserKey, seen: Option<Cursor> },
    Changes { session: SessionId, ticket: Ticket, room: RoomId, after: Seq, limit: u64, seen: Option<Cursor> },
    History { session: SessionId, ticket: Ticket, room: RoomId, before: Option<Seq>, limit: u32, seen: Option<Cursor> },
    Log { room: RoomId, after: Seq, seen: Cursor },
    Raise { room: RoomId, seen: Cursor },
    Heads { rooms: Vec<(RoomId, Cursor)> },
    Apply(Batch),
    Void(BatchId),
}

/// The store's answer to an [`Ask`].
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Member(Result<MemberAnswer, StoreError>),
    Changes(Result<Changes, StoreError>),
    History(Result<History, StoreError>),
    Head(Result<Head, StoreError>),
    Heads(Result<Vec<(RoomId, Head)>, StoreError>),
    Applied(Result<Applied, StoreError>),
    Void(Result<(), StoreError>),
}

/// What a node does to the world.
#[derive(Debug)]
pub(super) enum Effect {
    Ask(Ask),
    Subscribe(RoomId),
    Publish(Envelope),
    ToClient(SessionId, Frame),
    CloseClient(SessionId, CloseCode),
    Pause(u64),
}

struct Session {
    consumer: Consumer,
}

type Outbox = SessionId;

/// Who waits for a command's outcome.
#[derive(Clone, Copy, Debug)]
enum Asker {
    Session(SessionId, Ticket),
    Host,
}

const MOST_PER_BATCH: usize = 16;

pub(super) struct Node {
    rules: Arc<Rules>,
    sessions: BTreeMap<SessionId, Session>,
    rooms: BTreeMap<RoomId, Room<Outbox>>,
    /// Of which rooms the layer brings events.
    subscribed: BTreeSet<RoomId>,
    /// What the layer did not take.
    pub(super) missed: Missed,
    queue: VecDeque<(Asker, Command)>,
    attempt: Option<(Attempt, Vec<(Asker, RoomId)>)>,
    ids: BatchIds,
    pub(super) effects: VecDeque<Effect>,
}

impl Node {
    pub(super) fn new(rules: Arc<Rules>, number: u64) -> Self {
        Self {
            rules,
            sessions: BTreeMap::new(),
            rooms: BTreeMap::new(),
            subscribed: BTreeSet::new(),
            missed: Missed::default(),
            queue: VecDeque::new(),
            attempt: None,
            ids: BatchIds::new(number),
            effects: VecDeque::new(),
        }
    }

    pub(super) fn highest(&self, room: RoomId) -> Option<Cursor> {
        self.rooms.get(&room).map(Room::seen)
    }

    pub(super) fn hears(&self, group: Group) -> bool {
        match group {
            Group::Room(room) => self.subscribed.contains(&room),
            Group::Nodes => true,
        }
    }

    pub(super) fn wakeups(&self) -> impl Iterator<Item = (RoomId, Millis)> + '_ {
        self.rooms.iter().filter_map(|(id, room)| Some((*id, room.next_wakeup()?)))
    }

    pub(super) fn connect(&mut self, session: SessionId, scope: Scope, now: Millis) {
        let mut consumer = Consumer::new(self.rules.clone(), scope);
        consumer.handle_connect();
        self.sessions.insert(session, Session { consumer });
        self.drive(session, now);
    }

    pub(super) fn frame(&mut self, session: SessionId, text: &str, now: Millis) {
        if let Some(at) = self.sessions.get_mut(&session) {
            at.consumer.handle_frame(text, now);
            self.drive(session, now);
        }
    }

    pub(super) fn subscribed(&mut self, room: RoomId, now: Millis) {
        if let Some(at) = self.rooms.get_mut(&room) {
            self.subscribed.insert(room);
            at.handle_lagged(now);
        }
    }

    /// Says what could not be published before.
    pub(super) fn retell(&mut self) {
        let missed = self.missed.take_rooms().into_iter().chain(self.missed.take_kicks());
        self.effects.extend(missed.map(Effect::Publish));
    }

    pub(super) fn kick(&mut self, user: &UserKey, now: Millis) {
        self.close_sessions_of(user, now);
        self.effects.push_back(Effect::Publish(Envelope::Signal(Signal::Kick { user: user.clone(), login: None })));
    }

    fn close_sessions_of(&mut self, user: &UserKey, now: Millis) {
        let theirs = self.sessions.iter().filter(|(_, at)| &at.consumer.scope().user == user).map(|(id, _)| *id);
        for session in theirs.collect::<Vec<_>>() {
            self.with_consumer(session, now, |consumer| consumer.handle_closed(CloseCode::Kicked));
        }
    }

    pub(super) fn disconnect(&mut self, session: SessionId, now: Millis) {
        if let Some(at) = self.sessions.get_mut(&session) {
            at.consumer.handle_disconnect();
            self.drive(session, now);
            self.sessions.remove(&session);
        }
    }

    pub(super) fn host(&mut self, command: Command, now: Millis) {
        self.queue.push_back((Asker::Host, command));
        self.write(now);
    }

    pub(super) fn layer(&mut self, envelope: Envelope, now: Millis) {
        match envelope {
            Envelope::Event(event) => self.events(event.room, vec![event], now),
            Envelope::Signal(Signal::Missed { room: Some(room) }) => {
                if let Some(at) = self.rooms.get_mut(&room) {
                    at.handle_lagged(now);
                }
            }
            Envelope::Signal(Signal::Missed { room: None }) => self.compare_heads(),
            Envelope::Signal(Signal::Kick { user, .. }) => self.close_sessions_of(&user, now),
            Envelope::Signal(Signal::Room { .. } | Signal::Presence { .. }) => {}
        }
    }

    pub(super) fn tick(&mut self, room: RoomId, now: Millis) {
        if let Some(at) = self.rooms.get_mut(&room) {
            at.handle_tick(now);
            self.drive_room(room, now);
        }
    }

    pub(super) fn compare_heads(&mut self) {
        self.rooms.retain(|_, room| room.sessions() > 0);
        self.subscribed.retain(|room| self.rooms.contains_key(room));
        let rooms: Vec<_> = self.rooms.iter().map(|(id, room)| (*id, room.seen())).collect();
        if !rooms.is_empty() {
            self.effects.push_back(Effect::Ask(Ask::Heads { rooms }));
        }
    }

    pub(super) fn pause_over(&mut self, now: Millis) {
        if let Some((attempt, _)) = &mut self.attempt {
            attempt.handle_pause_over();
            self.step(now);
        }
    }

    pub(super) fn answer(&mut self, ask: Ask, answer: Answer, now: Millis) {
        match (ask, answer) {
            (Ask::Member { session, ticket, room, seen, .. }, Answer::Member(answer)) => {
                if let Ok(member) = &answer {
                    self.load(room, member.head);
                    self.observe(room, member.head, seen, now);
                }
                self.with_consumer(session, now, |consumer| {
                    consumer.handle_member(ticket, answer.map_err(|error| error.code()));
                });
            }
            (Ask::Changes { session, ticket, room, seen, .. }, Answer::Changes(answer)) => {
                if let Ok(changes) = &answer {
                    self.observe(room, changes.head, seen, now);
                }
                self.with_consumer(session, now, |consumer| {
                    consumer.handle_changes(ticket, answer.map_err(|error| error.code()));
                });
            }
            (Ask::History { session, ticket, room, seen, .. }, Answer::History(answer)) => {
                if let Ok(page) = &answer {
                    self.observe(room, page.head, seen, now);
                }
                self.with_consumer(session, now, |consumer| {
                    consumer.handle_history(ticket, answer.map_err(|error| error.code()));
                });
            }
            (Ask::Log { room, seen, .. }, Answer::Changes(answer)) => {
                let (rules, effects) = (self.rules.clone(), &mut self.effects);
                if let Some(at) = self.rooms.get_mut(&room) {
                    at.handle_changes(answer.ok(), seen, &rules.encoder, now, &mut deliver(effects));
                    self.drive_room(room, now);
                }
            }
            (Ask::Raise { room, .. }, Answer::Head(Ok(head))) => self.observe(room, head, Some(Cursor::default()), now),
            (Ask::Heads { rooms }, Answer::Heads(Ok(heads))) => {
                let seen: BTreeMap<_, _> = rooms.into_iter().collect();
                for (room, head) in heads {
                    self.observe(room, head, seen.get(&room).copied(), now);
                }
            }
            (Ask::Apply(_), Answer::Applied(answer)) => {
                if let Some((attempt, _)) = &mut self.attempt {
                    attempt.handle_applied(answer, now);
                    self.step(now);
                }
            }
            (Ask::Void(_), Answer::Void(answer)) => {
                if let Some((attempt, _)) = &mut self.attempt {
                    attempt.handle_void(answer, &mut self.ids, now);
                    self.step(now);
                }
            }
            // A head that could not be read is read again at the next comparison.
            _ => {}
        }
    }

    fn observe(&mut self, room: RoomId, head: Head, seen: Option<Cursor>, now: Millis) {
        if let Some(at) = self.rooms.get_mut(&room) {
            at.handle_head(head, seen.unwrap_or_default(), now);
            self.drive_room(room, now);
        }
    }

    fn with_consumer(&mut self, session: SessionId, now: Millis, tell: impl FnOnce(&mut Consumer)) {
        if let Some(at) = self.sessions.get_mut(&session) {
            tell(&mut at.consumer);
            self.drive(session, now);
        }
    }

    /// Does what a consumer wants done.
    fn drive(&mut self, session: SessionId, now: Millis) {
        while let Some(output) = self.sessions.get_mut(&session).and_then(|at| at.consumer.poll_output()) {
            match output {
                Output::AskMember { ticket, room } => self.ask_member(session, ticket, room, now),
                Output::Join { ticket, room, answer } => self.join(session, ticket, room, answer, now),
                Output::Accept | Output::Signal(_) | Output::Listen { .. } => {}
                Output::Submit { ticket, command } => {
                    self.queue.push_back((Asker::Session(session, ticket), command));
                    self.write(now);
                }
                Output::LoadChanges { ticket, room, after, limit } => {
                    let seen = self.highest(room);
                    self.effects.push_back(Effect::Ask(Ask::Changes { session, ticket, room, after, limit, seen }));
                }
                Output::LoadHistory { ticket, room, before, limit } => {
                    let seen = self.highest(room);
                    self.effects.push_back(Effect::Ask(Ask::History { session, ticket, room, before, limit, seen }));
                }
                Output::Send(frame) => self.effects.push_back(Effect::ToClient(session, frame)),
                Output::GoLive { room, at } => {
                    let effects = &mut self.effects;
                    if let Some(here) = self.rooms.get_mut(&room) {
                        here.go_live(session, at, now, &mut deliver(effects));
                        self.drive_room(room, now);
                    }
                }
                Output::Leave { room } => {
                    if let Some(here) = self.rooms.get_mut(&room) {
                        here.leave(session);
                    }
                }
                Output::Close(code) => {
                    self.effects.push_back(Effect::CloseClient(session, code));
                    self.sessions.remove(&session);
                }
            }
        }
    }

    fn load(&mut self, room: RoomId, head: Head) -> &mut Room<Outbox> {
        let effects = &mut self.effects;
        self.rooms.entry(room).or_insert_with(|| {
            effects.push_back(Effect::Subscribe(room));
            Room::new(room, head, RoomLimits::default())
        })
    }

    fn ask_member(&mut self, session: SessionId, ticket: Ticket, room: RoomId, now: Millis) {
        let Some(at) = self.sessions.get(&session) else { return };
        let user = at.consumer.scope().user.clone();
        match self.rooms.get(&room).and_then(|room| room.membership(&user)) {
            Some(answer) => self.with_consumer(session, now, |consumer| consumer.handle_member(ticket, Ok(answer))),
            None => {
                let seen = self.highest(room);
                self.effects.push_back(Effect::Ask(Ask::Member { session, ticket, room, user, seen }));
            }
        }
    }

    fn join(&mut self, session: SessionId, ticket: Ticket, room: RoomId, answer: MemberAnswer, now: Millis) {
        let Some(at) = self.sessions.get(&session) else { return };
        let user = at.consumer.scope().user.clone();
        let Some(membership) = answer.membership else { return };
        // The room may have been unloaded since the membership was read.
        let joined: JoinAnswer =
            self.load(room, answer.head).join(session, user, membership, answer.head, session, now);
        self.with_consumer(session, now, |consumer| consumer.handle_joined(ticket, joined));
        self.drive_room(room, now);
    }

    /// Does what a room wants done.
    fn drive_room(&mut self, room: RoomId, now: Millis) {
        while let Some(output) = self.rooms.get_mut(&room).and_then(Room::poll_output) {
            match output {
                RoomOutput::ReadLog { after, seen } => {
                    self.effects.push_back(Effect::Ask(Ask::Log { room, after, seen }));
                }
                RoomOutput::RaiseEpoch { seen } => self.effects.push_back(Effect::Ask(Ask::Raise { room, seen })),
                RoomOutput::Reset { session } => {
                    self.with_consumer(session, now, |consumer| consumer.handle_reset(room));
                }
                RoomOutput::Close { session, code } => {
                    self.with_consumer(session, now, |consumer| consumer.handle_closed(code));
                }
            }
        }
    }

    fn events(&mut self, room: RoomId, events: Vec<Event>, now: Millis) {
        let effects = &mut self.effects;
        if let Some(at) = self.rooms.get_mut(&room) {
            at.handle_events(events, now, &mut deliver(effects));
            self.drive_room(room, now);
        }
    }

    /// Begins a batch, unless one is under way.
    fn write(&mut self, now: Millis) {
        if self.attempt.is_some() || self.queue.is_empty() {
            return;
        }
        let gathered: Vec<_> = self.queue.drain(..self.queue.len().min(MOST_PER_BATCH)).collect();
        let askers = gathered.iter().map(|(asker, command)| (*asker, command.room)).collect();
        let commands: Vec<_> = gathered.into_iter().map(|(_, command)| command).collect();
        let mut known: Vec<_> = commands.iter().filter_map(|c| Some((c.room, self.highest(c.room)?))).collect();
        known.sort_unstable();
        known.dedup();
        let batch = Batch { id: self.ids.next_id(), commands, known, now };
        self.attempt = Some((Attempt::new(batch), askers));
        self.step(now);
    }

    fn step(&mut self, now: Millis) {
        let Some((attempt, _)) = &self.attempt else { return };
        match attempt.step() {
            Step::Apply(batch) => self.effects.push_back(Effect::Ask(Ask::Apply(batch.clone()))),
            Step::Void(id) => self.effects.push_back(Effect::Ask(Ask::Void(id))),
            Step::Pause(ms) => self.effects.push_back(Effect::Pause(ms)),
            Step::Done => {
                if let Some((attempt, askers)) = self.attempt.take() {
                    self.committed(askers, attempt.into_outcomes(), now);
                }
                self.write(now);
            }
        }
    }

    fn committed(&mut self, askers: Vec<(Asker, RoomId)>, outcomes: Vec<Outcome>, now: Millis) {
        let told = askers.iter().zip(&outcomes);
        let events = told.filter_map(|((_, room), outcome)| Event::of(*room, outcome, &self.rules.encoder));
        let mut of_rooms: BTreeMap<RoomId, Vec<Event>> = BTreeMap::new();
        events.for_each(|event| of_rooms.entry(event.room).or_default().push(event));
        for (room, events) in of_rooms {
            self.announce(room, events, now);
        }
        for ((asker, _), outcome) in askers.into_iter().zip(outcomes) {
            match asker {
                Asker::Session(session, ticket) => {
                    self.with_consumer(session, now, |consumer| consumer.handle_outcome(ticket, &outcome));
                }
                Asker::Host => {}
            }
        }
    }

    pub(super) fn announce(&mut self, room: RoomId, events: Vec<Event>, now: Millis) {
        self.events(room, events.clone(), now);
        self.effects.extend(events.into_iter().map(|event| Effect::Publish(Envelope::Event(event))));
    }
}

fn deliver(effects: &mut VecDeque<Effect>) -> impl FnMut(&Outbox, &Run) -> bool + '_ {
    |to: &Outbox, run: &Run| {
        effects.extend(run.frames().iter().map(|frame| Effect::ToClient(*to, frame.clone())));
        true
    }
}
