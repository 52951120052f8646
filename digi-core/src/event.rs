//! What a room is told: numbered changes that were committed, and signals that are never stored.

use std::fmt;
use std::sync::Arc;

use crate::frame::{Encoder, Frame};
use crate::id::{ClientId, Cursor, MessageId, RoomId, Seq, UserKey};
use crate::room::presence::Users;
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
    /// Who is in a room on a node, all of them.
    Presence {
        /// The room.
        room: RoomId,
        /// The node's number.
        node: u64,
        /// Keys and names.
        users: Users,
        /// Whether other nodes are to answer with theirs.
        asks: bool,
    },
    /// Close sessions of a user.
    Kick {
        /// The user.
        user: UserKey,
        /// Those by this log-in; none: all.
        login: Option<Arc<str>>,
    },
    /// Changes were committed whose events could not be published: compare with the store.
    Missed {
        /// Of which room; none: of so many that they were not kept.
        room: Option<RoomId>,
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
            Self::Signal(
                Signal::Room { room, .. } | Signal::Presence { room, .. } | Signal::Missed { room: Some(room) },
            ) => Group::Room(*room),
            Self::Signal(Signal::Kick { .. } | Signal::Missed { room: None }) => Group::Nodes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use crate::id::{Epoch, Millis};
    use crate::store::model::Message;
    use crate::token::Keyring;

    fn event_of(outcome: &Outcome) -> Option<Event> {
        let encoder = Encoder::new(Keyring::new("a secret for tests, long enough!").unwrap());
        Event::of(RoomId(1), outcome, &encoder)
    }

    fn message(op: MessageOp) -> Outcome {
        let message = Message {
            id: MessageId(3),
            room: RoomId(1),
            pos: Seq(3),
            sender: UserKey::from("7"),
            sender_name: "alice".into(),
            body: (op != MessageOp::Deleted).then(|| "hi".into()),
            client_id: ClientId::new("c1"),
            created_at: Millis(1),
            edited_at: None,
            deleted_at: None,
        };
        Outcome::Message { op, at: Cursor::new(Epoch(9), Seq(4)), message }
    }

    #[test]
    fn changes_have_the_types_that_stock_consumers_know() {
        let types = [
            (MessageOp::Added, "chat.message", r#"{"type":"add","#),
            (MessageOp::Edited, "chat.message.edit", r#"{"type":"edit","#),
            (MessageOp::Deleted, "chat.message.delete", r#"{"type":"delete","#),
        ];
        for (op, channels_type, frame) in types {
            let event = event_of(&message(op)).unwrap();
            assert_eq!(event.channels_type(), channels_type);
            assert!(event.frame().unwrap().as_str().starts_with(frame));
            assert_eq!((event.room, event.at.to_string()), (RoomId(1), "9.4".to_owned()));
            let EventKind::Message { sender, client_id, pos, .. } = event.kind else { panic!("a message's") };
            assert_eq!((sender.as_str(), client_id, pos), ("7", ClientId::new("c1"), Seq(3)));
        }
        for (op, channels_type) in [(MemberOp::Joined, "chat.member.joined"), (MemberOp::Left, "chat.member.left")] {
            let at = Cursor::new(Epoch(9), Seq(4));
            let event = event_of(&Outcome::Member { op, at, member: "8".into() }).unwrap();
            assert_eq!((event.channels_type(), event.frame()), (channels_type, None));
        }
    }

    #[test]
    fn what_changed_nothing_is_no_event() {
        let duplicate = Outcome::Duplicate { message: MessageId(3), pos: Seq(3) };
        for outcome in [duplicate, Outcome::Unchanged, Outcome::Refused(Code::NotSender)] {
            assert_eq!(event_of(&outcome), None);
        }
    }

    #[test]
    fn everything_has_its_group() {
        let event = event_of(&message(MessageOp::Added)).unwrap();
        assert_eq!(Envelope::Event(event).group().to_string(), "chat_1");
        let frame = Frame::from_text("{}".into());
        let typing = Signal::Room { room: RoomId(2), from: "7".into(), frame };
        assert_eq!(Envelope::Signal(typing).group().to_string(), "chat_2");
        assert_eq!(Envelope::Signal(Signal::Kick { user: "7".into(), login: None }).group().to_string(), "digi_nodes");
        let missed = |room| Envelope::Signal(Signal::Missed { room }).group();
        assert_eq!((missed(Some(RoomId(3))), missed(None)), (Group::Room(RoomId(3)), Group::Nodes));
    }
}
