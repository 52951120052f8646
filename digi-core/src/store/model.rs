//! What is asked of a store and what it answers: plain data, shared by the pure parts and every backend.

use std::sync::Arc;

use crate::error::Code;
use crate::id::{ClientId, Cursor, Epoch, MessageId, Millis, RoomId, Seq, UserKey};

/// The longest list of messages that one `history` request may ask for.
pub const MAX_HISTORY: u32 = 200;

/// How many changes of a room a resume may lie behind the head, and within how many changes a `client_id` is
/// recognised. One number for both, so that a client which can still resume can also still resend.
pub const LOG_WINDOW: u64 = 1_000;

/// The state of a room's numbering.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Head {
    /// The generation of the numbering.
    pub epoch: Epoch,
    /// The number of the room's last change; 0 when there was none.
    pub last_seq: Seq,
}

impl Head {
    /// The cursor of somebody who has seen everything up to this head.
    pub const fn cursor(self) -> Cursor {
        Cursor::new(self.epoch, self.last_seq)
    }
}

/// What a member may do beyond reading and writing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Adds messages, edits and deletes own ones.
    Member,
    /// Also deletes the messages of others.
    Moderator,
}

impl Role {
    /// The stable number in the tables.
    pub const fn number(self) -> i64 {
        match self {
            Self::Member => 0,
            Self::Moderator => 1,
        }
    }

    /// The role with that number in the tables; unknown numbers are plain members.
    pub const fn from_number(number: i64) -> Self {
        if number == 1 { Self::Moderator } else { Self::Member }
    }
}

/// A user's membership of a room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Membership {
    /// What the member may do.
    pub role: Role,
}

/// The answer to "is this user a member?", with the head that was read *before* the membership: a removal
/// numbered above it is not reflected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberAnswer {
    /// The membership, or none.
    pub membership: Option<Membership>,
    /// The room's head at the time.
    pub head: Head,
}

/// A message in its present state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Its id; sealed as `message_id` in frames.
    pub id: MessageId,
    /// Its room.
    pub room: RoomId,
    /// Its place: the number of the change that added it.
    pub pos: Seq,
    /// Who sent it.
    pub sender: UserKey,
    /// The sender's name as it was then; `user` in frames.
    pub sender_name: Arc<str>,
    /// The text; none when deleted.
    pub body: Option<Arc<str>>,
    /// The sender's own name for it.
    pub client_id: Option<ClientId>,
    /// When it was added.
    pub created_at: Millis,
    /// When it was last edited.
    pub edited_at: Option<Millis>,
    /// When it was deleted.
    pub deleted_at: Option<Millis>,
}

/// In whose name a command is carried out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Authority {
    /// The user's own: membership, sender and role are checked inside the transaction.
    Member,
    /// The host's: not checked. Membership commands need it.
    Host,
}

/// One change that somebody asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// The room to change.
    pub room: RoomId,
    /// The acting user.
    pub user: UserKey,
    /// The acting user's name, stored with an added message.
    pub user_name: Arc<str>,
    /// Whose rights count.
    pub authority: Authority,
    /// What to change.
    pub action: Action,
}

/// What a [`Command`] changes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Add a message.
    Add {
        /// The text: not empty, without NUL.
        body: Arc<str>,
        /// Makes the add idempotent per room and sender within [`LOG_WINDOW`] changes.
        client_id: Option<ClientId>,
    },
    /// Replace the text of a message.
    Edit {
        /// Which message.
        message: MessageId,
        /// The new text.
        body: Arc<str>,
    },
    /// Delete a message, leaving a tombstone.
    Delete {
        /// Which message.
        message: MessageId,
    },
    /// Make a user a member, or change the role.
    AddMember {
        /// The user.
        member: UserKey,
        /// The user's name.
        name: Arc<str>,
        /// The role.
        role: Role,
    },
    /// End a membership.
    RemoveMember {
        /// The user.
        member: UserKey,
    },
}

/// The name of a batch, unique over all nodes and time: a random number and a counter. Under one random number batches
/// come one after the other: when the next one is there, the last does not come again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BatchId {
    /// The random number of a node, or of one of its lanes.
    pub node: u64,
    /// Counts the batches under it.
    pub number: u64,
}

/// What one transaction is to do.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Makes repeating the batch after an unknown commit safe.
    pub id: BatchId,
    /// The commands, in the order in which they take numbers.
    pub commands: Vec<Command>,
    /// For rooms of the batch that this node has loaded: the highest cursor it has seen. A stored head below it
    /// means restored data, and the epoch is raised before anything is numbered (see [`Head`]).
    pub known: Vec<(RoomId, Cursor)>,
    /// The node's clock.
    pub now: Millis,
}

/// What became of a batch whose transaction committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// One outcome per command, in the batch's order.
    pub outcomes: Vec<Outcome>,
    /// The head after the transaction of every room that the batch touched, in ascending order.
    pub heads: Vec<(RoomId, Head)>,
}

/// What was done to a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MessageOp {
    /// It was added.
    Added,
    /// Its text was replaced.
    Edited,
    /// It was deleted.
    Deleted,
}

/// What was done to a membership.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemberOp {
    /// The user became a member, or got another role.
    Joined,
    /// The membership ended.
    Left,
}

/// What became of one command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A message changed, with number `at`.
    Message {
        /// What was done.
        op: MessageOp,
        /// The change's number in its epoch.
        at: Cursor,
        /// The message after the change.
        message: Message,
    },
    /// A membership changed, with number `at`.
    Member {
        /// What was done.
        op: MemberOp,
        /// The change's number in its epoch.
        at: Cursor,
        /// Whose membership.
        member: UserKey,
    },
    /// An `add` whose `client_id` this sender has used in this room: nothing changed.
    Duplicate {
        /// The first message.
        message: MessageId,
        /// Its place.
        pos: Seq,
    },
    /// The command asked for what was so already: nothing changed.
    Unchanged,
    /// Not done, and no number was used.
    Refused(Code),
}

impl Outcome {
    /// Whether something was changed.
    pub fn is_change(&self) -> bool {
        matches!(self, Self::Message { .. } | Self::Member { .. })
    }
}

/// A piece of a room's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Changes {
    /// The head that was read before the rows.
    pub head: Head,
    /// Numbers up to this one can no longer be read (purged, or of an earlier epoch).
    pub floor: Seq,
    /// Every number above what was asked for and up to this one is covered by `rows`, however few they are.
    /// Less than the head when the limit was reached.
    pub through: Seq,
    /// In ascending order of `seq`.
    pub rows: Vec<ChangeRow>,
}

/// One row of [`Changes`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangeRow {
    /// The number of the last of the changes that this row stands for.
    pub seq: Seq,
    /// What changed.
    pub change: Change,
}

/// What a [`ChangeRow`] tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The present state of a message that changed, one row however often it did. The state may be newer than
    /// [`Changes::through`].
    Message(Message),
    /// The same of one that others had stored, and shown to whom they could, before it got its number here: clients
    /// that know more than the classic frames recognise it by its id, others are not shown it a second time.
    Adopted(Message),
    /// A membership change; each has its row.
    Member {
        /// What was done.
        op: MemberOp,
        /// Whose membership.
        member: UserKey,
    },
}

/// A page of a room's messages.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    /// The head that was read before the messages: they show every change up to it.
    pub head: Head,
    /// Oldest first; deleted ones are there as tombstones.
    pub messages: Vec<Message>,
}

/// A room to be made.
#[derive(Clone, Debug, Default)]
pub struct NewRoom {
    /// The id, or none to let the store choose.
    pub id: Option<RoomId>,
    /// What it is called; may be empty.
    pub name: String,
    /// The host's own classification; may be empty.
    pub kind: String,
    /// The first members: key, name, role.
    pub members: Vec<(UserKey, Arc<str>, Role)>,
}

/// The head after restored data was found or announced: a new epoch above both the stored and the seen one, and
/// numbers that continue above both, so that none is used twice. `stored` and `seen` are the highest cursors.
pub fn raised(stored: Head, seen: Cursor, now: Millis) -> Head {
    let epoch = stored.epoch.0.max(seen.epoch.0).saturating_add(1).max(now.0);
    Head { epoch: Epoch(epoch), last_seq: stored.last_seq.max(seen.seq) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raised_head_lies_above_everything_that_was_seen() {
        let head = |epoch, seq| Head { epoch: Epoch(epoch), last_seq: Seq(seq) };
        let cases = [
            (head(5, 10), head(5, 30), 100, head(100, 30)),
            (head(5, 30), head(5, 10), 100, head(100, 30)),
            (head(500, 10), head(500, 30), 100, head(501, 30)),
            (head(5, 40), head(500, 30), 100, head(501, 40)),
        ];
        for (stored, seen, now, expected) in cases {
            assert_eq!(raised(stored, seen.cursor(), Millis(now)), expected);
        }
    }

    #[test]
    fn roles_are_stored_by_number() {
        for role in [Role::Member, Role::Moderator] {
            assert_eq!(Role::from_number(role.number()), role);
        }
        assert_eq!(Role::from_number(7), Role::Member, "an unknown one gives no rights");
    }
}
