//! The room, driven by hand.

mod members;
#[cfg(feature = "engine")]
mod order;
mod repair;

use super::*;
use crate::id::{Epoch, MessageId};
use crate::store::model::{ChangeRow, Message, Role};
use crate::token::Keyring;

pub(super) const ROOM: RoomId = RoomId(1);
pub(super) const EPOCH: u64 = 9;

pub(super) fn encoder() -> Encoder {
    Encoder::new(Keyring::new("a secret for tests, long enough!").unwrap())
}

pub(super) fn at(seq: u64) -> Cursor {
    Cursor::new(Epoch(EPOCH), Seq(seq))
}

pub(super) fn head(seq: u64) -> Head {
    head_of(EPOCH, seq)
}

pub(super) fn head_of(epoch: u64, seq: u64) -> Head {
    Head { epoch: Epoch(epoch), last_seq: Seq(seq) }
}

fn message(pos: u64) -> Message {
    Message {
        id: MessageId::own(ROOM, Seq(pos)).unwrap(),
        room: ROOM,
        pos: Seq(pos),
        sender: UserKey::from("7"),
        sender_name: "alice".into(),
        body: Some("text".into()),
        client_id: None,
        created_at: Millis(pos),
        edited_at: None,
        deleted_at: None,
    }
}

/// The event that added message `seq`.
pub(super) fn added(seq: u64) -> Event {
    let frame = encoder().change(MessageOp::Added, Seq(seq), &message(seq));
    let kind = EventKind::Message {
        op: MessageOp::Added,
        message: message(seq).id,
        pos: Seq(seq),
        sender: UserKey::from("7"),
        client_id: None,
        frame,
    };
    Event { room: ROOM, at: at(seq), kind }
}

pub(super) fn member_event(seq: u64, op: MemberOp, member: &str) -> Event {
    Event { room: ROOM, at: at(seq), kind: EventKind::Member { op, member: member.into() } }
}

/// The log from `after` to `through`, of added messages, in a store that stands at `last`.
pub(super) fn log(after: u64, through: u64, last: u64) -> Changes {
    let row = |seq| ChangeRow { seq: Seq(seq), change: Change::Message(message(seq)) };
    Changes { head: head(last), floor: Seq(0), through: Seq(through), rows: (after + 1..=through).map(row).collect() }
}

/// A room, the frames that its members got, and what it said, in short words.
pub(super) struct Driven {
    pub(super) room: Room<u64>,
    /// Session and number of each frame.
    pub(super) got: Vec<(u64, u64)>,
    /// Sessions without space.
    pub(super) slow: Vec<u64>,
    pub(super) now: Millis,
}

impl Driven {
    pub(super) fn new(seq: u64, limits: RoomLimits) -> Self {
        Self { room: Room::new(ROOM, head(seq), limits), got: Vec::new(), slow: Vec::new(), now: Millis(1_000) }
    }

    /// A room at 5 with a live member, session 1 of user "1".
    pub(super) fn with_member() -> Self {
        let mut driven = Self::new(5, RoomLimits::default());
        driven.enter(1, 5);
        driven
    }

    /// Lets a session of the user of the same number in.
    pub(super) fn join(&mut self, session: u64, read_at: u64) -> JoinAnswer {
        self.join_as(session, &session.to_string(), head(read_at))
    }

    pub(super) fn join_as(&mut self, session: u64, user: &str, head: Head) -> JoinAnswer {
        let membership = Membership { role: Role::Member };
        self.room.join(SessionId(session), user.into(), membership, head, session, self.now)
    }

    /// As [`Driven::join`], and live at once.
    pub(super) fn enter(&mut self, session: u64, read_at: u64) {
        let JoinAnswer::Joined(position) = self.join(session, read_at) else { panic!("not joined") };
        self.go_live(session, position);
    }

    fn with(&mut self, work: impl FnOnce(&mut Room<u64>, &mut dyn FnMut(&u64, &Run) -> bool, Millis)) {
        let Self { room, got, slow, now } = self;
        let mut deliver = |to: &u64, run: &Run| {
            let has_space = !slow.contains(to);
            for frame in run.frames().iter().filter(|_| has_space) {
                let value: serde_json::Value = serde_json::from_str(frame.as_str()).unwrap();
                got.push((*to, value["seq"].as_u64().unwrap_or_default()));
            }
            has_space
        };
        work(room, &mut deliver, *now);
    }

    pub(super) fn go_live(&mut self, session: u64, at: Cursor) {
        self.with(|room, mut deliver, now| room.go_live(SessionId(session), at, now, &mut deliver));
    }

    pub(super) fn event(&mut self, event: Event) {
        self.with(|room, mut deliver, now| room.handle_event(event, now, &mut deliver));
    }

    pub(super) fn events(&mut self, seqs: impl IntoIterator<Item = u64>) {
        seqs.into_iter().for_each(|seq| self.event(added(seq)));
    }

    pub(super) fn changes(&mut self, changes: Option<Changes>, seen: Cursor) {
        self.with(|room, mut deliver, now| room.handle_changes(changes, seen, &encoder(), now, &mut deliver));
    }

    pub(super) fn signal(&mut self, from: &str, frame: &Frame) {
        self.with(|room, mut deliver, _| room.signal(Some(&from.into()), frame, &mut deliver));
    }

    pub(super) fn head(&mut self, head: Head, seen: Cursor) {
        self.room.handle_head(head, seen, self.now);
    }

    /// Lets time pass until the room wants to be woken, and wakes it.
    pub(super) fn wake(&mut self) {
        self.now = self.now.max(self.room.next_wakeup().expect("the room waits for nothing"));
        self.room.handle_tick(self.now);
    }

    /// In how many milliseconds the room wants to be woken.
    pub(super) fn wakes_in(&self) -> Option<u64> {
        self.room.next_wakeup().map(|at| at.0 - self.now.0)
    }

    pub(super) fn said(&mut self) -> Vec<String> {
        let said = std::iter::from_fn(|| self.room.poll_output()).map(|output| match output {
            RoomOutput::ReadLog { after, seen } => format!("read after {after}, seen {seen}"),
            RoomOutput::RaiseEpoch { seen } => format!("raise above {seen}"),
            RoomOutput::Reset { session } => format!("reset {}", session.0),
            RoomOutput::Close { session, code } => format!("close {} {}", session.0, code.number()),
        });
        said.collect()
    }

    /// The numbers that a session got since.
    pub(super) fn got(&mut self, session: u64) -> Vec<u64> {
        let (its, rest) = std::mem::take(&mut self.got).into_iter().partition(|(to, _)| *to == session);
        self.got = rest;
        its.into_iter().map(|(_, seq)| seq).collect()
    }
}
