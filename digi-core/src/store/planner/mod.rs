//! What a store over a connection decides within one transaction, without the connection.
//!
//! Stores of this kind differ in how they read and write rows, not in what becomes of a command. So a [`Planner`] takes
//! rows in and gives rows out, and its owner, the one writer of a store, does the reading and writing between:
//!
//! 1. [`begin`](Planner::begin) with a batch. Start a transaction and lock the heads of the rooms that it names, in
//!    that order.
//! 2. [`lock`](Planner::lock) with the heads. For every [`Gap`] read the adds that gave a client id, and the users
//!    whose membership changed.
//! 3. [`note`](Planner::note) with those. Read the roles and messages that it names.
//! 4. [`decide`](Planner::decide) with those. Write what the [`Plan`] says and commit.
//! 5. [`committed`](Planner::committed), or at any point [`rolled_back`](Planner::rolled_back).
//!
//! [`record`] and [`replay`] put the outcomes of a batch into a text and back, for stores that remember their batches.

mod decide;
mod record;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

pub use record::{BadRecord, record, replay};

use super::model::{Action, Authority, Batch, Head, Message, MessageOp, Outcome, Role, raised};
use super::recent::{Recent, RoomMemory};
use crate::id::{ClientId, Cursor, MessageId, Millis, RoomId, Seq, UserKey};

/// What a room's row among the heads holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RoomHead {
    /// Epoch and number of the last change.
    pub head: Head,
    /// Numbers up to here can no longer be read.
    pub floor: Seq,
    /// Time of the last change.
    pub last_at: Millis,
}

impl RoomHead {
    /// Raises a head that lies below what was seen, as restored data does.
    pub fn raise_above(&mut self, seen: Cursor, now: Millis) {
        if self.head.cursor() < seen {
            self.head = raised(self.head, seen, now);
            self.floor = self.head.last_seq;
        }
    }
}

/// A part of a room's log that is not in memory: the numbers in `(after, through]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gap {
    /// The room.
    pub room: RoomId,
    /// The last number that is known.
    pub after: Seq,
    /// The last number to read.
    pub through: Seq,
}

/// A message that was added with a client id, out of a [`Gap`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NotedAdd {
    /// Its room.
    pub room: RoomId,
    /// Its place.
    pub pos: Seq,
    /// Its sender.
    pub sender: UserKey,
    /// The sender's name for it.
    pub client_id: ClientId,
}

/// What [`Planner::decide`] has to be told.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Needs {
    /// Whose role in which room. In order, each once.
    pub roles: Vec<(RoomId, UserKey)>,
    /// Which messages. In order, each once; some may not exist.
    pub messages: Vec<MessageId>,
}

/// A row of the log that is no add.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogRow {
    /// The room.
    pub room: RoomId,
    /// The change's number.
    pub seq: Seq,
    /// What changed.
    pub what: Logged,
    /// When.
    pub at: Millis,
}

/// What a [`LogRow`] tells.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Logged {
    /// A message was edited or deleted.
    Message(MessageOp, MessageId),
    /// A user joined or got another role.
    Joined(UserKey),
    /// A membership ended.
    Left(UserKey),
}

impl Logged {
    /// The stable number in the tables: 1 edited, 2 deleted, 3 member joined, 4 member left.
    pub const fn kind(&self) -> i64 {
        match self {
            Self::Message(MessageOp::Deleted, _) => 2,
            Self::Message(..) => 1,
            Self::Joined(_) => 3,
            Self::Left(_) => 4,
        }
    }
}

/// A membership to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemberRow {
    /// The room.
    pub room: RoomId,
    /// The user.
    pub user: UserKey,
    /// The user's name.
    pub name: Arc<str>,
    /// The role.
    pub role: Role,
    /// When it was given.
    pub at: Millis,
    /// Whether there is no row: none before, or one that is among [`Plan::left`].
    pub is_new: bool,
}

/// What a transaction has to write. No row is in one list twice.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// One per command.
    pub outcomes: Vec<Outcome>,
    /// The heads after the batch of all its rooms, ascending, as [`Applied`](super::model::Applied) has them.
    pub heads: Vec<(RoomId, Head)>,
    /// The rows among them that changed.
    pub changed: Vec<(RoomId, RoomHead)>,
    /// New messages, in the order of their ids within a room.
    pub inserted: Vec<Message>,
    /// Messages whose body, `edited_at` or `deleted_at` changed, as they are now.
    pub updated: Vec<Message>,
    /// New rows of the log.
    pub log: Vec<LogRow>,
    /// Memberships that ended, to be deleted before `joined` is written.
    pub left: Vec<(RoomId, UserKey)>,
    /// Memberships that began or changed.
    pub joined: Vec<MemberRow>,
}

/// A method of a [`Planner`] was called that is not the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a planner's steps are begin, lock, note, decide, and committed or rolled_back")]
pub struct OutOfOrder;

/// Decides batches one after the other and remembers what it needs for the next. Belongs to one writer.
pub struct Planner {
    recent: Recent,
    work: Option<Work>,
}

/// A batch under way.
struct Work {
    batch: Batch,
    step: Step,
    rooms: BTreeMap<RoomId, Locked>,
    /// The roles that count, as they are after the commands so far; none: no member.
    roles: HashMap<(RoomId, UserKey), Option<Role>>,
    /// The messages that count, as they are after the commands so far.
    messages: HashMap<MessageId, Message>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Begun,
    Locked,
    Noted,
    Decided,
}

/// A room while a batch changes it.
struct Locked {
    stored: RoomHead,
    now: RoomHead,
    memory: RoomMemory,
}

impl Default for Planner {
    fn default() -> Self {
        Self::new()
    }
}

impl Planner {
    /// Remembers nothing yet.
    pub fn new() -> Self {
        Self { recent: Recent::new(), work: None }
    }

    /// Begins with a batch and gives the rooms whose heads to lock, ascending. A batch before it that was not ended
    /// counts as rolled back.
    pub fn begin(&mut self, batch: Batch) -> Vec<RoomId> {
        self.rolled_back();
        let rooms: BTreeSet<_> = batch.commands.iter().map(|command| command.room).collect();
        let (roles, messages) = (HashMap::new(), HashMap::new());
        self.work = Some(Work { batch, step: Step::Begun, rooms: BTreeMap::new(), roles, messages });
        rooms.into_iter().collect()
    }

    /// Takes the heads, which nobody else changes from now on, and gives what to read of the rooms' logs. A room
    /// without a head does not exist, and its commands will be refused.
    ///
    /// # Errors
    /// When it is not the next step.
    pub fn lock(&mut self, heads: impl IntoIterator<Item = (RoomId, RoomHead)>) -> Result<Vec<Gap>, OutOfOrder> {
        let work = at(&mut self.work, Step::Begun, Step::Locked)?;
        let known: BTreeMap<_, _> = work.batch.known.iter().copied().collect();
        for (room, stored) in heads {
            let mut now = stored;
            if let Some(seen) = known.get(&room) {
                now.raise_above(*seen, work.batch.now);
            }
            let memory = self.recent.take(room, now.head, now.floor);
            work.rooms.insert(room, Locked { stored, now, memory });
        }
        let gap = |(room, locked): (&RoomId, &Locked)| {
            let (after, through) = (locked.memory.through(), locked.now.head.last_seq);
            (after < through).then_some(Gap { room: *room, after, through })
        };
        Ok(work.rooms.iter().filter_map(gap).collect())
    }

    /// Takes what was found in the gaps, in any order, and gives what else to read.
    ///
    /// # Errors
    /// When it is not the next step.
    pub fn note(
        &mut self,
        mut adds: Vec<NotedAdd>,
        members: impl IntoIterator<Item = (RoomId, UserKey)>,
    ) -> Result<Needs, OutOfOrder> {
        let work = at(&mut self.work, Step::Locked, Step::Noted)?;
        adds.sort_unstable_by_key(|add| add.pos);
        for add in adds {
            if let Some(locked) = work.rooms.get_mut(&add.room) {
                locked.memory.note_add(add.pos, self.recent.key(add.sender.as_str(), add.client_id.as_str()));
            }
        }
        for (room, user) in members {
            if let Some(locked) = work.rooms.get_mut(&room) {
                locked.memory.forget_member(user.as_str());
            }
        }
        for locked in work.rooms.values_mut() {
            locked.memory.advance(locked.now.head);
        }
        Ok(work.needs(&self.recent))
    }

    /// Takes the roles of those who are members, and the messages that exist; decides every command in order.
    ///
    /// # Errors
    /// When it is not the next step.
    pub fn decide(
        &mut self,
        roles: impl IntoIterator<Item = (RoomId, UserKey, Role)>,
        messages: impl IntoIterator<Item = Message>,
    ) -> Result<Plan, OutOfOrder> {
        let work = at(&mut self.work, Step::Noted, Step::Decided)?;
        work.roles.extend(roles.into_iter().map(|(room, user, role)| ((room, user), Some(role))));
        work.messages.extend(messages.into_iter().map(|message| (message.id, message)));
        Ok(decide::decide(work, &self.recent))
    }

    /// The transaction was committed.
    ///
    /// # Errors
    /// When nothing was decided.
    pub fn committed(&mut self) -> Result<(), OutOfOrder> {
        at(&mut self.work, Step::Decided, Step::Decided)?;
        for (room, mut locked) in self.work.take().into_iter().flat_map(|work| work.rooms) {
            locked.memory.advance(locked.now.head);
            self.recent.put(room, locked.memory);
        }
        Ok(())
    }

    /// The transaction was not committed, or perhaps not: forgets what was noted of it.
    pub fn rolled_back(&mut self) {
        for (room, mut locked) in self.work.take().into_iter().flat_map(|work| work.rooms) {
            locked.memory.undo();
            self.recent.put(room, locked.memory);
        }
    }
}

fn at(work: &mut Option<Work>, step: Step, next: Step) -> Result<&mut Work, OutOfOrder> {
    let work = work.as_mut().filter(|work| work.step == step).ok_or(OutOfOrder)?;
    work.step = next;
    Ok(work)
}

impl Work {
    /// What the memories do not answer. What they do is taken out of them, because they may forget on the way.
    fn needs(&mut self, recent: &Recent) -> Needs {
        let (mut roles, mut messages) = (BTreeSet::new(), BTreeSet::new());
        for command in &self.batch.commands {
            let Some(locked) = self.rooms.get(&command.room) else { continue };
            let user = match (&command.action, command.authority) {
                (_, Authority::Member) => Some(&command.user),
                (Action::AddMember { member, .. } | Action::RemoveMember { member }, Authority::Host) => Some(member),
                _ => None,
            };
            if let Some(user) = user {
                let known = locked.memory.member(user);
                if known.is_none() {
                    roles.insert((command.room, user.clone()));
                }
                self.roles.insert((command.room, user.clone()), known.flatten());
            }
            match &command.action {
                Action::Add { client_id: Some(client_id), .. } => {
                    let key = recent.key(command.user.as_str(), client_id.as_str());
                    let place = locked.memory.place(key, locked.now.head.last_seq);
                    messages.extend(place.and_then(|pos| MessageId::own(command.room, pos)));
                }
                Action::Edit { message, .. } | Action::Delete { message } => {
                    messages.extend(Some(*message).filter(|id| id.split_own().0 == command.room));
                }
                _ => {}
            }
        }
        Needs { roles: roles.into_iter().collect(), messages: messages.into_iter().collect() }
    }
}
