//! The store that forgets: the reference for what every backend does, for tests, demos and the simulation.
//!
//! [`MemoryState`] is the whole of it, without locks or async; [`MemoryStore`] is a [`Store`] around one.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::contract::{Store, StoreError};
use super::model::{
    Action, Applied, Authority, Batch, BatchId, Change, ChangeRow, Changes, Command, Head, History, LOG_WINDOW,
    MemberAnswer, MemberOp, Membership, Message, MessageOp, NewRoom, Outcome, Role, raised,
};
use crate::error::Code;
use crate::id::{ClientId, Cursor, Epoch, MessageId, Millis, RoomId, Seq, UserKey};

/// How many batches are remembered for repeats after an unknown commit.
const REMEMBERED_BATCHES: usize = 10_000;

/// Everything that a memory store holds.
#[derive(Clone, Debug, Default)]
pub struct MemoryState {
    rooms: BTreeMap<RoomId, StoredRoom>,
    /// Outcomes of the newest batches; none for a batch that was made void.
    batches: HashMap<BatchId, Option<Applied>>,
    batch_order: VecDeque<BatchId>,
}

#[derive(Clone, Debug)]
struct StoredRoom {
    head: Head,
    floor: Seq,
    last_at: Millis,
    members: HashMap<UserKey, Role>,
    messages: BTreeMap<Seq, Message>,
    log: BTreeMap<Seq, LogEntry>,
}

#[derive(Clone, Debug)]
enum LogEntry {
    /// The message at that place was added, edited or deleted.
    Message(Seq),
    Member(MemberOp, UserKey),
}

impl MemoryState {
    /// See [`Store::apply`].
    pub fn apply(&mut self, batch: &Batch) -> Result<Applied, StoreError> {
        match self.batches.get(&batch.id) {
            Some(Some(applied)) => return Ok(applied.clone()),
            Some(None) => return Err(StoreError::Rejected("the batch was made void".into())),
            None => {}
        }
        let known: BTreeMap<_, _> = batch.known.iter().copied().collect();
        let touched: BTreeMap<_, _> = batch.commands.iter().map(|command| (command.room, ())).collect();
        let mut heads = Vec::with_capacity(touched.len());
        for room in touched.keys() {
            if let (Some(stored), Some(seen)) = (self.rooms.get_mut(room), known.get(room)) {
                stored.raise_above(*seen, batch.now);
            }
        }
        let outcomes = batch
            .commands
            .iter()
            .map(|command| match self.rooms.get_mut(&command.room) {
                Some(room) => room.apply(command, batch.now).unwrap_or_else(Outcome::Refused),
                None => Outcome::Refused(Code::NoSuchRoom),
            })
            .collect();
        heads.extend(touched.keys().filter_map(|id| Some((*id, self.rooms.get(id)?.head))));
        let applied = Applied { outcomes, heads };
        self.remember(batch.id, Some(applied.clone()));
        Ok(applied)
    }

    /// See [`Store::void`].
    pub fn void(&mut self, batch: BatchId) -> Result<(), StoreError> {
        match self.batches.get(&batch) {
            Some(Some(_)) => Err(StoreError::Rejected("the batch has been committed".into())),
            Some(None) => Ok(()),
            None => {
                self.remember(batch, None);
                Ok(())
            }
        }
    }

    fn remember(&mut self, id: BatchId, applied: Option<Applied>) {
        self.batches.insert(id, applied);
        self.batch_order.push_back(id);
        if self.batch_order.len() > REMEMBERED_BATCHES
            && let Some(oldest) = self.batch_order.pop_front()
        {
            self.batches.remove(&oldest);
        }
    }

    /// See [`Store::member`].
    pub fn member(&self, room: RoomId, user: &UserKey) -> Result<MemberAnswer, StoreError> {
        let stored = self.room(room)?;
        let membership = stored.members.get(user).map(|role| Membership { role: *role });
        Ok(MemberAnswer { membership, head: stored.head })
    }

    /// See [`Store::changes`].
    pub fn changes(&self, room: RoomId, after: Seq, limit: u64) -> Result<Changes, StoreError> {
        let stored = self.room(room)?;
        let through = Seq(after.0.saturating_add(limit)).min(stored.head.last_seq);
        let mut last = HashMap::new();
        let mut rows = Vec::new();
        if after < through {
            for (seq, entry) in stored.log.range(after.next()..=through) {
                match entry {
                    LogEntry::Message(pos) => {
                        last.insert(*pos, *seq);
                    }
                    LogEntry::Member(op, member) => {
                        rows.push(ChangeRow { seq: *seq, change: Change::Member { op: *op, member: member.clone() } });
                    }
                }
            }
        }
        let messages = last.into_iter().filter_map(|(pos, seq)| {
            let message = stored.messages.get(&pos)?.clone();
            Some(ChangeRow { seq, change: Change::Message(message) })
        });
        rows.extend(messages);
        rows.sort_by_key(|row| row.seq);
        Ok(Changes { head: stored.head, floor: stored.floor, through, rows })
    }

    /// See [`Store::history`].
    pub fn history(&self, room: RoomId, before: Option<Seq>, limit: u32) -> Result<History, StoreError> {
        let stored = self.room(room)?;
        let before = before.unwrap_or(Seq(u64::MAX));
        let newest = stored.messages.range(..before).rev().take(limit as usize);
        let mut messages: Vec<_> = newest.map(|(_, message)| message.clone()).collect();
        messages.reverse();
        Ok(History { head: stored.head, messages })
    }

    /// See [`Store::heads`].
    pub fn heads(&self, rooms: &[RoomId]) -> Vec<(RoomId, Head)> {
        rooms.iter().filter_map(|id| Some((*id, self.rooms.get(id)?.head))).collect()
    }

    /// See [`Store::raise_epoch`].
    pub fn raise_epoch(&mut self, room: RoomId, seen: Cursor, now: Millis) -> Result<Head, StoreError> {
        let stored = self.rooms.get_mut(&room).ok_or(StoreError::NoSuchRoom(room))?;
        stored.raise_above(seen, now);
        Ok(stored.head)
    }

    /// See [`Store::raise_all`].
    pub fn raise_all(&mut self, now: Millis) {
        for stored in self.rooms.values_mut() {
            let head = stored.head;
            stored.raise(head.cursor(), now);
        }
    }

    /// See [`Store::create_room`].
    pub fn create_room(&mut self, room: &NewRoom, now: Millis) -> Result<RoomId, StoreError> {
        let next = || RoomId(self.rooms.last_key_value().map_or(0, |(id, _)| id.0) + 1);
        let id = room.id.unwrap_or_else(next);
        if !(1..=RoomId::MAX_OWN).contains(&id.0) {
            return Err(StoreError::Rejected(format!("room ids lie between 1 and {}", RoomId::MAX_OWN)));
        }
        if self.rooms.contains_key(&id) {
            return Err(StoreError::RoomExists(id));
        }
        let stored = StoredRoom {
            head: Head { epoch: Epoch(now.0), last_seq: Seq(0) },
            floor: Seq(0),
            last_at: now,
            members: room.members.iter().map(|(user, _, role)| (user.clone(), *role)).collect(),
            messages: BTreeMap::new(),
            log: BTreeMap::new(),
        };
        self.rooms.insert(id, stored);
        Ok(id)
    }

    /// See [`Store::purge`].
    pub fn purge(&mut self, room: RoomId, before: Millis) -> Result<u64, StoreError> {
        let stored = self.rooms.get_mut(&room).ok_or(StoreError::NoSuchRoom(room))?;
        // Times never go back in a room, so what is old enough is a prefix.
        let old = stored.messages.values().take_while(|message| message.created_at < before);
        let Some(last) = old.last().map(|message| message.pos) else { return Ok(0) };
        let kept = stored.messages.split_off(&last.next());
        let removed = std::mem::replace(&mut stored.messages, kept).len();
        stored.log = stored.log.split_off(&last.next());
        stored.floor = stored.floor.max(last);
        Ok(removed as u64)
    }

    /// A number of a room's log that is missing, or stands above the head; for the simulation's oracle.
    #[cfg(feature = "testing")]
    pub(crate) fn hole(&self, room: RoomId) -> Option<Seq> {
        let stored = self.rooms.get(&room)?;
        let wanted = stored.floor.0 + 1..=stored.head.last_seq.0;
        let missing = wanted.map(Seq).find(|seq| !stored.log.contains_key(seq));
        missing.or_else(|| stored.log.keys().next_back().copied().filter(|seq| *seq > stored.head.last_seq))
    }

    fn room(&self, room: RoomId) -> Result<&StoredRoom, StoreError> {
        self.rooms.get(&room).ok_or(StoreError::NoSuchRoom(room))
    }
}

impl StoredRoom {
    fn raise_above(&mut self, seen: Cursor, now: Millis) {
        if self.head.cursor() < seen {
            self.raise(seen, now);
        }
    }

    fn raise(&mut self, seen: Cursor, now: Millis) {
        let epoch = self.head.epoch;
        self.head = raised(self.head, seen, now);
        self.floor = self.head.last_seq;
        if testing_bug!(ReuseEpochAfterRestore) {
            self.head.epoch = epoch.max(seen.epoch);
        }
    }

    fn apply(&mut self, command: &Command, now: Millis) -> Result<Outcome, Code> {
        if testing_bug!(NumberBeforeRefusing) {
            let before = self.head.last_seq;
            self.head.last_seq = before.next();
            let outcome = self.decide(command, now, self.head.last_seq);
            if !matches!(outcome, Err(_) | Ok(Outcome::Message { .. } | Outcome::Member { .. })) {
                self.head.last_seq = before;
            }
            return outcome;
        }
        let next = self.head.last_seq.next();
        let outcome = self.decide(command, now, next)?;
        if matches!(outcome, Outcome::Message { .. } | Outcome::Member { .. }) {
            self.head.last_seq = next;
            self.last_at = self.last_at.max(now);
        }
        Ok(outcome)
    }

    /// What becomes of a command if its number is `seq`.
    fn decide(&mut self, command: &Command, now: Millis, seq: Seq) -> Result<Outcome, Code> {
        let role = match command.authority {
            Authority::Host => Role::Moderator,
            Authority::Member => *self.members.get(&command.user).ok_or(Code::NotAMember)?,
        };
        let is_host = command.authority == Authority::Host;
        let now = now.max(self.last_at);
        let at = Cursor::new(self.head.epoch, seq);
        // Asked only where a number is needed: a repeat gets its answer in a full room too.
        let id = || MessageId::own(command.room, seq).ok_or(Code::RoomFull);
        let (op, pos) = match &command.action {
            Action::Add { body, client_id } => {
                if body.contains('\0') {
                    return Err(Code::BadBody);
                }
                if let Some(first) = client_id.as_ref().and_then(|id| self.first_use(&command.user, id)) {
                    return Ok(Outcome::Duplicate { message: first.id, pos: first.pos });
                }
                let message = Message {
                    id: id()?,
                    room: command.room,
                    pos: seq,
                    sender: command.user.clone(),
                    sender_name: command.user_name.clone(),
                    body: Some(body.clone()),
                    client_id: client_id.clone(),
                    created_at: now,
                    edited_at: None,
                    deleted_at: None,
                };
                self.messages.insert(seq, message);
                (MessageOp::Added, seq)
            }
            Action::Edit { message, body } => {
                if body.contains('\0') {
                    return Err(Code::BadBody);
                }
                let stored = self.changeable(command.room, *message)?;
                if stored.sender != command.user && !is_host {
                    return Err(Code::NotSender);
                }
                id()?;
                stored.body = Some(body.clone());
                stored.edited_at = Some(now);
                (MessageOp::Edited, stored.pos)
            }
            Action::Delete { message } => {
                let stored = self.changeable(command.room, *message)?;
                if stored.sender != command.user && role != Role::Moderator {
                    return Err(Code::NotSender);
                }
                id()?;
                stored.body = None;
                stored.deleted_at = Some(now);
                (MessageOp::Deleted, stored.pos)
            }
            Action::AddMember { .. } | Action::RemoveMember { .. } if !is_host => return Err(Code::Refused),
            Action::AddMember { member, name: _, role } => {
                if self.members.get(member) == Some(role) {
                    return Ok(Outcome::Unchanged);
                }
                id()?;
                self.members.insert(member.clone(), *role);
                return Ok(self.log_member(MemberOp::Joined, at, member));
            }
            Action::RemoveMember { member } => {
                if !self.members.contains_key(member) {
                    return Ok(Outcome::Unchanged);
                }
                id()?;
                self.members.remove(member);
                return Ok(self.log_member(MemberOp::Left, at, member));
            }
        };
        self.log.insert(seq, LogEntry::Message(pos));
        let message = self.messages.get(&pos).ok_or(Code::Internal)?.clone();
        Ok(Outcome::Message { op, at, message })
    }

    fn log_member(&mut self, op: MemberOp, at: Cursor, member: &UserKey) -> Outcome {
        self.log.insert(at.seq, LogEntry::Member(op, member.clone()));
        Outcome::Member { op, at, member: member.clone() }
    }

    fn first_use(&self, sender: &UserKey, client_id: &ClientId) -> Option<&Message> {
        let oldest = Seq(self.head.last_seq.0.saturating_sub(LOG_WINDOW)).next();
        let mut recent = self.messages.range(oldest..).map(|(_, message)| message);
        recent.find(|message| &message.sender == sender && message.client_id.as_ref() == Some(client_id))
    }

    fn changeable(&mut self, room: RoomId, id: MessageId) -> Result<&mut Message, Code> {
        let (of, pos) = id.split_own();
        let stored = self.messages.get_mut(&pos).filter(|_| of == room).ok_or(Code::NoSuchMessage)?;
        if stored.body.is_none() { Err(Code::MessageDeleted) } else { Ok(stored) }
    }
}

/// A [`Store`] around a [`MemoryState`]: fast, complete, and empty after a restart.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<MemoryState>>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Another handle on the same data, as a second node of one process would have it.
    #[must_use]
    pub fn another_handle(&self) -> Self {
        Self { state: self.state.clone() }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        self.state.lock().apply(batch)
    }

    async fn void(&self, batch: BatchId) -> Result<(), StoreError> {
        self.state.lock().void(batch)
    }

    async fn member(&self, room: RoomId, user: &UserKey) -> Result<MemberAnswer, StoreError> {
        self.state.lock().member(room, user)
    }

    async fn changes(&self, room: RoomId, after: Seq, limit: u64) -> Result<Changes, StoreError> {
        self.state.lock().changes(room, after, limit)
    }

    async fn history(&self, room: RoomId, before: Option<Seq>, limit: u32) -> Result<History, StoreError> {
        self.state.lock().history(room, before, limit)
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<(RoomId, Head)>, StoreError> {
        Ok(self.state.lock().heads(rooms))
    }

    async fn raise_epoch(&self, room: RoomId, seen: Cursor, now: Millis) -> Result<Head, StoreError> {
        self.state.lock().raise_epoch(room, seen, now)
    }

    async fn raise_all(&self, now: Millis) -> Result<(), StoreError> {
        self.state.lock().raise_all(now);
        Ok(())
    }

    async fn create_room(&self, room: &NewRoom, now: Millis) -> Result<RoomId, StoreError> {
        self.state.lock().create_room(room, now)
    }

    async fn purge(&self, room: RoomId, before: Millis) -> Result<u64, StoreError> {
        self.state.lock().purge(room, before)
    }
}
