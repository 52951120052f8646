//! Consumers, a room and the memory store together, under any sequence of operations.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::event::Event;
use crate::frame::Run;
use crate::room::{Deliver, Room, RoomLimits, RoomOutput, SessionId};
use crate::store::memory::MemoryState;
use crate::store::model::{Batch, BatchId, NewRoom};

const IN_FLIGHT: usize = 4;
const HELD_FRAMES: usize = 20;
/// More than one input may bring about: a replay of everything that is written here, and what was held.
const MOST_OUTPUTS: usize = 400;

#[derive(Clone, Debug)]
enum Op {
    Connect {
        after: Option<u64>,
        epoch: u64,
    },
    Frame(Index, Text),
    Unreadable(Index),
    Disconnect(Index),
    Close(Index),
    /// One of the open questions is answered, by the store or with its failure; an answer may come again later.
    Answer(Index, bool),
    AnswerAgain(Index),
    /// One of the events arrives, whether or not it did before.
    Arrive(Index),
    Tick,
    Lagged,
    Compare,
    AddMember,
    RemoveMember,
    Purge,
    Raise,
    /// Whether outboxes are full.
    Slow(bool),
    Backup,
    /// The data is as it was at the last backup.
    Restore,
}

#[derive(Clone, Debug)]
enum Text {
    Add(u8),
    Edit(u64),
    Delete(u64),
    Resume(u64, u64),
    History(u64, u32),
    Noise(String),
}

impl Text {
    fn render(&self, keyring: &Keyring) -> String {
        let token = |pos: u64| keyring.seal(Kind::Message, message(pos % 50 + 1, None).id.get());
        match self {
            Self::Add(id) => format!(r#"{{"message":"text","client_id":"c{id}","resend":true}}"#),
            Self::Edit(pos) => format!(r#"{{"type":"edit","message":"new","message_id":"{}"}}"#, token(*pos)),
            Self::Delete(pos) => format!(r#"{{"type":"delete","message_id":"{}"}}"#, token(*pos)),
            Self::Resume(epoch, seq) => format!(r#"{{"type":"resume","after":"{epoch}.{seq}"}}"#),
            Self::History(before, limit) => format!(r#"{{"type":"history","before":{before},"limit":{limit}}}"#),
            Self::Noise(text) => text.clone(),
        }
    }
}

/// A question to the store.
#[derive(Clone, Debug)]
enum Ask {
    Member(u64, Ticket, Cursor),
    Changes(u64, Ticket, Cursor, Seq, u64),
    History(u64, Ticket, Cursor, Option<Seq>, u32),
    Apply(u64, Ticket, Command),
    Log(Seq, Cursor),
    Raise(Cursor),
}

#[derive(Default)]
struct Seen {
    accepted: bool,
    left: bool,
    closed: bool,
}

struct World {
    rules: Arc<Rules>,
    room: Room<u64>,
    store: MemoryState,
    backup: MemoryState,
    consumers: BTreeMap<u64, (Consumer, Seen)>,
    asks: Vec<Ask>,
    answered: Vec<Ask>,
    events: Vec<Event>,
    batches: u64,
    outputs: usize,
    is_slow: bool,
    now: Millis,
}

impl World {
    fn new() -> Self {
        let mut rules = rules();
        rules.limits.in_flight = IN_FLIGHT;
        rules.limits.reset_history = 3;
        let mut store = MemoryState::default();
        let members = vec![("7".into(), "alice".into(), Role::Moderator)];
        store.create_room(&NewRoom { id: Some(ROOM), members, ..NewRoom::default() }, Millis(EPOCH)).unwrap();
        let limits = RoomLimits { sessions: 5, held_events: 4, held_frames: HELD_FRAMES, grace: 20 };
        Self {
            rules: Arc::new(rules),
            room: Room::new(ROOM, head(0), limits),
            backup: store.clone(),
            store,
            consumers: BTreeMap::new(),
            asks: Vec::new(),
            answered: Vec::new(),
            events: Vec::new(),
            batches: 0,
            outputs: 0,
            is_slow: false,
            now: Millis(1_000),
        }
    }

    fn run(&mut self, op: &Op) {
        self.outputs = 0;
        self.now = self.now.plus(5);
        let now = self.now;
        match op {
            Op::Connect { after, epoch } => {
                let number = self.consumers.len() as u64;
                let scope = Scope {
                    token: self.rules.encoder.keyring().seal(Kind::Room, ROOM.get()),
                    user: UserKey::from("7"),
                    user_name: "alice".into(),
                    after: after.map(|seq| format!("{epoch}.{seq}")),
                    origin: None,
                    remote: None,
                    login: None,
                };
                self.consumers.insert(number, (Consumer::new(self.rules.clone(), scope), Seen::default()));
                self.tell(number, Consumer::handle_connect);
            }
            Op::Frame(which, text) => {
                let text = text.render(self.rules.encoder.keyring());
                self.tell_one(which, |consumer| consumer.handle_frame(&text, now));
            }
            Op::Unreadable(which) => self.tell_one(which, |consumer| consumer.handle_unreadable(Code::NotText, now)),
            Op::Disconnect(which) => self.tell_one(which, Consumer::handle_disconnect),
            Op::Close(which) => self.tell_one(which, |consumer| consumer.handle_closed(CloseCode::Kicked)),
            Op::Answer(which, works) if !self.asks.is_empty() => {
                let ask = self.asks.remove(which.index(self.asks.len()));
                self.answered.push(ask.clone());
                self.answer(ask, *works);
            }
            Op::AnswerAgain(which) if !self.answered.is_empty() => {
                let ask = which.get(&self.answered).clone();
                // The room asks one question at a time, and its driver gives one answer.
                if !matches!(ask, Ask::Log(..)) {
                    self.answer(ask, true);
                }
            }
            Op::Arrive(which) if !self.events.is_empty() => {
                let event = which.get(&self.events).clone();
                self.with_room(|room, deliver| room.handle_event(event, now, deliver));
            }
            Op::Tick => {
                self.now = now.plus(100);
                self.with_room(|room, _| room.handle_tick(now.plus(100)));
            }
            Op::Lagged => self.room.handle_lagged(now),
            Op::Compare => {
                let (head, seen) = (self.head(), self.room.seen());
                self.with_room(|room, _| room.handle_head(head, seen, now));
            }
            Op::AddMember => {
                self.host(Action::AddMember { member: "7".into(), name: "alice".into(), role: Role::Moderator });
            }
            Op::RemoveMember => self.host(Action::RemoveMember { member: "7".into() }),
            Op::Purge => {
                self.store.purge(ROOM, Millis(now.0.saturating_sub(100))).unwrap();
            }
            Op::Raise => self.store.raise_all(now),
            Op::Slow(is_slow) => self.is_slow = *is_slow,
            Op::Backup => self.backup = self.store.clone(),
            Op::Restore => self.store = self.backup.clone(),
            Op::Answer(..) | Op::AnswerAgain(_) | Op::Arrive(_) => {}
        }
        assert!(self.outputs <= MOST_OUTPUTS, "{} outputs of {op:?}", self.outputs);
        assert!(self.consumers.values().all(|(consumer, _)| consumer.pending.len() <= IN_FLIGHT));
        assert!(self.room.sessions() <= 5);
    }

    /// Answers and compares until nothing is open any more.
    fn settle(&mut self) {
        for _ in 0..5_000 {
            if self.asks.is_empty() && self.room.next_wakeup().is_none() {
                self.run(&Op::Compare);
                if self.asks.is_empty() && self.room.next_wakeup().is_none() {
                    return;
                }
            }
            self.now = self.now.max(self.room.next_wakeup().unwrap_or_default());
            self.run(&Op::Tick);
            if !self.asks.is_empty() {
                let ask = self.asks.remove(0);
                self.answer(ask, true);
            }
        }
        panic!("it never comes to rest: {:?}", self.asks);
    }

    fn head(&self) -> Head {
        self.store.heads(&[ROOM])[0].1
    }

    fn host(&mut self, action: Action) {
        let (user, user_name) = (UserKey::from("host"), "host".into());
        self.apply(Command { room: ROOM, user, user_name, authority: Authority::Host, action });
    }

    fn apply(&mut self, command: Command) -> Outcome {
        self.batches += 1;
        let id = BatchId { node: 1, number: self.batches };
        let known = vec![(ROOM, self.room.seen())];
        let applied = self.store.apply(&Batch { id, commands: vec![command], known, now: self.now }).unwrap();
        self.events.extend(Event::of(ROOM, &applied.outcomes[0], &self.rules.encoder));
        applied.outcomes[0].clone()
    }

    fn answer(&mut self, ask: Ask, works: bool) {
        let away = Code::StoreUnavailable;
        let now = self.now;
        match ask {
            Ask::Member(session, ticket, seen) => {
                let answer = self.store.member(ROOM, &"7".into()).ok().filter(|_| works).ok_or(away);
                self.observe(answer.as_ref().ok().map(|answer| answer.head), seen);
                self.tell(session, |consumer| consumer.handle_member(ticket, answer));
            }
            Ask::Changes(session, ticket, seen, after, limit) => {
                let answer = self.store.changes(ROOM, after, limit.min(7)).ok().filter(|_| works).ok_or(away);
                self.observe(answer.as_ref().ok().map(|answer| answer.head), seen);
                self.tell(session, |consumer| consumer.handle_changes(ticket, answer));
            }
            Ask::History(session, ticket, seen, before, limit) => {
                let answer = self.store.history(ROOM, before, limit).ok().filter(|_| works).ok_or(away);
                self.observe(answer.as_ref().ok().map(|answer| answer.head), seen);
                self.tell(session, |consumer| consumer.handle_history(ticket, answer));
            }
            Ask::Apply(session, ticket, command) => {
                let outcome = if works { self.apply(command) } else { Outcome::Refused(away) };
                self.tell(session, |consumer| consumer.handle_outcome(ticket, &outcome));
            }
            Ask::Log(after, seen) => {
                let answer = self.store.changes(ROOM, after, 5).ok().filter(|_| works);
                let rules = self.rules.clone();
                self.with_room(|room, deliver| room.handle_changes(answer, seen, &rules.encoder, now, deliver));
            }
            Ask::Raise(seen) if works => {
                let head = self.store.raise_epoch(ROOM, seen, now).unwrap();
                self.observe(Some(head), Cursor::default());
            }
            Ask::Raise(_) => {}
        }
    }

    fn observe(&mut self, head: Option<Head>, seen: Cursor) {
        if let Some(head) = head {
            let now = self.now;
            self.with_room(|room, _| room.handle_head(head, seen, now));
        }
    }

    fn tell_one(&mut self, which: &Index, tell: impl FnOnce(&mut Consumer)) {
        if !self.consumers.is_empty() {
            self.tell(which.index(self.consumers.len()) as u64, tell);
        }
    }

    fn tell(&mut self, session: u64, tell: impl FnOnce(&mut Consumer)) {
        tell(&mut self.consumers.get_mut(&session).unwrap().0);
        self.drive(session);
    }

    fn drive(&mut self, session: u64) {
        let id = SessionId(session);
        loop {
            let (consumer, seen) = self.consumers.get_mut(&session).unwrap();
            let Some(output) = consumer.poll_output() else { return };
            assert!(!seen.closed, "{output:?} after the close");
            self.outputs += 1;
            let (now, noted) = (self.now, self.room.seen());
            match output {
                Output::AskMember { ticket, .. } => match self.room.membership(&"7".into()) {
                    Some(answer) => self.tell(session, |consumer| consumer.handle_member(ticket, Ok(answer))),
                    None => self.asks.push(Ask::Member(session, ticket, noted)),
                },
                Output::Join { ticket, answer, .. } => {
                    let membership = answer.membership.unwrap();
                    let joined =
                        self.with_room(|room, _| room.join(id, "7".into(), membership, answer.head, session, now));
                    self.tell(session, |consumer| consumer.handle_joined(ticket, joined));
                }
                Output::Accept => assert!(!std::mem::replace(&mut seen.accepted, true), "accepted twice"),
                Output::Submit { ticket, command } => self.asks.push(Ask::Apply(session, ticket, command)),
                Output::LoadChanges { ticket, after, limit, .. } => {
                    self.asks.push(Ask::Changes(session, ticket, noted, after, limit));
                }
                Output::LoadHistory { ticket, before, limit, .. } => {
                    self.asks.push(Ask::History(session, ticket, noted, before, limit));
                }
                Output::Send(_) => assert!(seen.accepted && !seen.left, "nobody reads that"),
                Output::GoLive { at, .. } => self.with_room(|room, deliver| room.go_live(id, at, now, deliver)),
                Output::Signal(_) => {}
                Output::Listen { .. } => self.room.listen(id),
                Output::Leave { .. } => {
                    assert!(!std::mem::replace(&mut seen.left, true), "left twice");
                    self.room.leave(id);
                }
                Output::Close(_) => seen.closed = true,
            }
        }
    }

    fn with_room<T>(&mut self, work: impl FnOnce(&mut Room<u64>, &mut Sink) -> T) -> T {
        let mut sink = Sink { delivered: 0, is_slow: self.is_slow };
        let result = work(&mut self.room, &mut sink);
        assert!(sink.delivered <= 5 * HELD_FRAMES);
        self.drive_room();
        result
    }

    fn drive_room(&mut self) {
        let said: Vec<_> = std::iter::from_fn(|| self.room.poll_output()).collect();
        assert!(said.len() <= 20, "{said:?}");
        for output in said {
            match output {
                RoomOutput::ReadLog { after, seen } => self.asks.push(Ask::Log(after, seen)),
                RoomOutput::RaiseEpoch { seen } => self.asks.push(Ask::Raise(seen)),
                RoomOutput::Reset { session } => self.tell(session.0, |consumer| consumer.handle_reset(ROOM)),
                RoomOutput::Close { session, code } => self.tell(session.0, |consumer| consumer.handle_closed(code)),
            }
        }
    }
}

struct Sink {
    delivered: usize,
    is_slow: bool,
}

impl Deliver<u64> for Sink {
    fn deliver(&mut self, _: &u64, run: &Run) -> bool {
        self.delivered += run.frames().len();
        !self.is_slow
    }
}

fn text() -> impl Strategy<Value = Text> {
    let epoch = prop_oneof![4 => Just(EPOCH), 1 => any::<u64>()];
    let seq = prop_oneof![8 => 0_u64..40, 1 => any::<u64>()];
    prop_oneof![
        6 => (0_u8..6).prop_map(Text::Add),
        2 => (0_u64..40).prop_map(Text::Edit),
        2 => (0_u64..40).prop_map(Text::Delete),
        3 => (epoch, seq.clone()).prop_map(|(epoch, seq)| Text::Resume(epoch, seq)),
        2 => (seq, any::<u32>()).prop_map(|(before, limit)| Text::History(before, limit)),
        1 => any::<String>().prop_map(Text::Noise),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let which = any::<Index>;
    let after = prop_oneof![1 => Just(None), 2 => (0_u64..40).prop_map(Some), 1 => any::<u64>().prop_map(Some)];
    let epoch = prop_oneof![4 => Just(EPOCH), 1 => any::<u64>()];
    prop_oneof![
        3 => (after, epoch).prop_map(|(after, epoch)| Op::Connect { after, epoch }),
        12 => (which(), text()).prop_map(|(which, text)| Op::Frame(which, text)),
        1 => which().prop_map(Op::Unreadable),
        1 => which().prop_map(Op::Disconnect),
        1 => which().prop_map(Op::Close),
        16 => (which(), prop::bool::weighted(0.95)).prop_map(|(which, works)| Op::Answer(which, works)),
        2 => which().prop_map(Op::AnswerAgain),
        8 => which().prop_map(Op::Arrive),
        4 => Just(Op::Tick),
        1 => Just(Op::Lagged),
        2 => Just(Op::Compare),
        1 => any::<bool>().prop_map(Op::Slow),
        1 => Just(Op::AddMember),
        1 => Just(Op::RemoveMember),
        1 => Just(Op::Purge),
        1 => Just(Op::Raise),
        1 => Just(Op::Backup),
        1 => Just(Op::Restore),
    ]
}

proptest! {
    #[test]
    fn no_sequence_of_operations_breaks_them(ops in prop::collection::vec(op(), 0..150)) {
        let mut world = World::new();
        ops.iter().for_each(|op| world.run(op));
        world.settle();
        prop_assert_eq!(world.room.shown(), world.head().cursor());
        for (consumer, seen) in world.consumers.values() {
            prop_assert!(consumer.pending.is_empty() && consumer.outputs.is_empty());
            let at_rest = match &consumer.state {
                State::Open(attachment) => seen.accepted && matches!(attachment.step, Step::Live),
                State::Closed => true,
                State::Connecting | State::Joining(_) => false,
            };
            prop_assert!(at_rest, "somebody waits forever");
        }
    }
}
