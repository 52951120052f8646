//! What a room is told: numbered changes that were committed, and signals that are never stored.

use std::fmt;

use crate::frame::{Encoder, Frame};
use crate::id::{ClientId, Cursor, MessageId, RoomId, Seq, UserKey};
use crate::store::model::{MemberOp, MessageOp, Outcome};

/// A committed change of a room, encoded once by the node that committed it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The room that changed.
    pub room: RoomId,
    /// The change's number.
    pub at: Cursor,
    /// What changed.
    pub kind: EventKind,
}

/// What an [`Event`] tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EventKind {
    /// A message was added, edited or deleted.
    Message {
        /// Which of the three.
        op: MessageOp,
        /// The message.
        message: MessageId,
        /// Its place.
        pos: Seq,
        /// Who sent it.
        sender: UserKey,
        /// The sender's own name for it.
        client_id: Option<ClientId>,
        /// What browsers get.
        frame: Frame,
    },
    /// A membership began or ended.
    Member {
        /// Which of the two.
        op: MemberOp,
        /// Whose.
        member: UserKey,
    },
}

impl Event {
    /// The event that tells of a command's outcome in `room`; none when nothing changed.
    pub fn of(room: RoomId, outcome: &Outcome, encoder: &Encoder) -> Option<Self> {
        let (at, kind) = match outcome {
            Outcome::Message { op, at, message } => {
                let kind = EventKind::Message {
                    op: *op,
                    message: message.id,
                    pos: message.pos,
                    sender: message.sender.clone(),
                    client_id: message.client_id.clone(),
                    frame: encoder.change(*op, at.seq, message),
                };
                (*at, kind)
            }
            Outcome::Member { op, at, member } => (*at, EventKind::Member { op: *op, member: member.clone() }),
            Outcome::Duplicate { .. } | Outcome::Unchanged | Outcome::Refused(_) => return None,
        };
        Some(Self { room, at, kind })
    }

    /// The event's `type` in a Channels group message.
    pub fn channels_type(&self) -> &'static str {
        match &self.kind {
            EventKind::Message { op: MessageOp::Added, .. } => "chat.message",
            EventKind::Message { op: MessageOp::Edited, .. } => "chat.message.edit",
            EventKind::Message { op: MessageOp::Deleted, .. } => "chat.message.delete",
            EventKind::Member { op: MemberOp::Joined, .. } => "chat.member.joined",
            EventKind::Member { op: MemberOp::Left, .. } => "chat.member.left",
        }
    }

    /// The frame for browsers, where there is one.
    pub fn frame(&self) -> Option<&Frame> {
        match &self.kind {
            EventKind::Message { frame, .. } => Some(frame),
            EventKind::Member { .. } => None,
        }
    }
}

/// A signal that takes no number and is never stored. Losing one costs nothing that lasts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Signal {
    /// A frame for the present members of a room, but not for `from` (typing, read marks, presence).
    Room {
        /// The room.
        room: RoomId,
        /// Who caused it.
        from: UserKey,
        /// What the others get.
        frame: Frame,
    },
    /// Close every session of a user.
    Kick {
        /// The user.
        user: UserKey,
    },
}

/// What a channel layer carries between nodes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Envelope {
    /// A committed change. Whoever misses it reads it from the store's log.
    Event(Event),
    /// A signal.
    Signal(Signal),
}

/// The name of a room on the channel layer, `chat_<room id>`, or of all nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Group {
    /// The nodes with sessions in a room.
    Room(RoomId),
    /// Every node.
    Nodes,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Room(room) => write!(f, "chat_{room}"),
            Self::Nodes => f.write_str("digi_nodes"),
        }
    }
}

impl Envelope {
    /// Where it is published.
    pub fn group(&self) -> Group {
        match self {
            Self::Event(event) => Group::Room(event.room),
            Self::Signal(Signal::Room { room, .. }) => Group::Room(*room),
            Self::Signal(Signal::Kick { .. }) => Group::Nodes,
        }
    }
}
