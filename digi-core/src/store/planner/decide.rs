//! What becomes of each command, in order; the same as in the memory store, which is the reference.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::{Locked, LogRow, Logged, MemberRow, Plan, Work};
use crate::error::Code;
use crate::id::{ClientId, Cursor, MessageId, Millis, RoomId, UserKey};
use crate::store::model::{Action, Authority, Command, Head, MemberOp, Message, MessageOp, Outcome, Role};
use crate::store::recent::{ClientKey, Recent};

pub(super) fn decide(work: &mut Work, recent: &Recent) -> Plan {
    let Work { batch, rooms, roles, messages, .. } = work;
    for ((room, user), role) in &*roles {
        if let Some(locked) = rooms.get_mut(room) {
            locked.memory.note_member(user.clone(), *role);
        }
    }
    let mut decider = Decider {
        recent,
        roles,
        messages,
        log: Vec::new(),
        inserted: Vec::new(),
        updated: BTreeSet::new(),
        members: BTreeMap::new(),
    };
    let outcomes = batch.commands.iter().map(|command| match rooms.get_mut(&command.room) {
        Some(locked) => decider.carry_out(locked, command, batch.now).unwrap_or_else(Outcome::Refused),
        None => Outcome::Refused(Code::NoSuchRoom),
    });
    let outcomes = outcomes.collect();
    let mut plan = decider.finish();
    plan.outcomes = outcomes;
    plan.heads = rooms.iter().map(|(room, locked)| (*room, locked.now.head)).collect();
    let changed = rooms.iter().filter(|(_, locked)| locked.now != locked.stored);
    plan.changed = changed.map(|(room, locked)| (*room, locked.now)).collect();
    plan
}

struct Decider<'w> {
    recent: &'w Recent,
    roles: &'w mut HashMap<(RoomId, UserKey), Option<Role>>,
    messages: &'w mut HashMap<MessageId, Message>,
    log: Vec<LogRow>,
    inserted: Vec<MessageId>,
    updated: BTreeSet<MessageId>,
    members: BTreeMap<(RoomId, UserKey), MemberChange>,
}

/// What a batch does to one membership, all in all.
struct MemberChange {
    was_member: bool,
    has_left: bool,
    now: Option<(Arc<str>, Role, Millis)>,
}

/// Number and time of the change that a command may become.
struct Next {
    room: RoomId,
    at: Cursor,
    time: Millis,
}

impl Next {
    /// The id of a message with this number; the numbers of a room end with its places.
    fn id(&self) -> Result<MessageId, Code> {
        MessageId::own(self.room, self.at.seq).ok_or(Code::RoomFull)
    }
}

impl Decider<'_> {
    fn carry_out(&mut self, locked: &mut Locked, command: &Command, now: Millis) -> Result<Outcome, Code> {
        let is_host = command.authority == Authority::Host;
        let role = match command.authority {
            Authority::Host => Role::Moderator,
            Authority::Member => self.role(command.room, &command.user).ok_or(Code::NotAMember)?,
        };
        let at = Cursor::new(locked.now.head.epoch, locked.now.head.last_seq.next());
        let next = Next { room: command.room, at, time: now.max(locked.now.last_at) };
        let outcome = match &command.action {
            Action::Add { body, client_id } => {
                if body.contains('\0') {
                    return Err(Code::BadBody);
                }
                let key = client_id.as_ref().map(|id| self.recent.key(command.user.as_str(), id.as_str()));
                if let (Some(key), Some(client_id)) = (key, client_id)
                    && let Some(first) = self.first_use(locked, command, key, client_id)
                {
                    return Ok(first);
                }
                let outcome = self.add(&next, command, body, client_id.as_ref())?;
                if let Some(key) = key {
                    locked.memory.note_add(at.seq, key);
                }
                outcome
            }
            Action::Edit { message, body } => {
                if body.contains('\0') {
                    return Err(Code::BadBody);
                }
                let id = next.id();
                let stored = self.changeable(command.room, *message)?;
                if stored.sender != command.user && !is_host {
                    return Err(Code::NotSender);
                }
                id?;
                (stored.body, stored.edited_at) = (Some(body.clone()), Some(next.time));
                let message = stored.clone();
                self.change(&next, MessageOp::Edited, message)
            }
            Action::Delete { message } => {
                let id = next.id();
                let stored = self.changeable(command.room, *message)?;
                if stored.sender != command.user && role != Role::Moderator {
                    return Err(Code::NotSender);
                }
                id?;
                (stored.body, stored.deleted_at) = (None, Some(next.time));
                let message = stored.clone();
                self.change(&next, MessageOp::Deleted, message)
            }
            Action::AddMember { .. } | Action::RemoveMember { .. } if !is_host => return Err(Code::Refused),
            Action::AddMember { member, name, role } => {
                if self.role(command.room, member) == Some(*role) {
                    return Ok(Outcome::Unchanged);
                }
                self.set_role(locked, &next, member, Some((name, *role)))?;
                Outcome::Member { op: MemberOp::Joined, at, member: member.clone() }
            }
            Action::RemoveMember { member } => {
                if self.role(command.room, member).is_none() {
                    return Ok(Outcome::Unchanged);
                }
                self.set_role(locked, &next, member, None)?;
                Outcome::Member { op: MemberOp::Left, at, member: member.clone() }
            }
        };
        locked.now.head = Head { epoch: at.epoch, last_seq: at.seq };
        locked.now.last_at = next.time;
        Ok(outcome)
    }

    fn add(
        &mut self,
        next: &Next,
        command: &Command,
        body: &Arc<str>,
        client_id: Option<&ClientId>,
    ) -> Result<Outcome, Code> {
        let id = next.id()?;
        let message = Message {
            id,
            room: next.room,
            pos: next.at.seq,
            sender: command.user.clone(),
            sender_name: command.user_name.clone(),
            body: Some(body.clone()),
            client_id: client_id.cloned(),
            created_at: next.time,
            edited_at: None,
            deleted_at: None,
        };
        self.inserted.push(id);
        self.messages.insert(id, message.clone());
        Ok(Outcome::Message { op: MessageOp::Added, at: next.at, message })
    }

    /// The message that an `add` repeats. The memory says where it may be; the message decides, so that neither
    /// colliding hashes nor a purge make a wrong answer.
    fn first_use(&self, locked: &Locked, command: &Command, key: ClientKey, client_id: &ClientId) -> Option<Outcome> {
        let pos = locked.memory.place(key, locked.now.head.last_seq)?;
        let first = self.messages.get(&MessageId::own(command.room, pos)?)?;
        let is_it = first.sender == command.user && first.client_id.as_ref() == Some(client_id);
        is_it.then_some(Outcome::Duplicate { message: first.id, pos })
    }

    /// A message of the room that has not been deleted.
    fn changeable(&mut self, room: RoomId, id: MessageId) -> Result<&mut Message, Code> {
        let message = self.messages.get_mut(&id).filter(|message| message.room == room).ok_or(Code::NoSuchMessage)?;
        if message.body.is_none() { Err(Code::MessageDeleted) } else { Ok(message) }
    }

    fn change(&mut self, next: &Next, op: MessageOp, message: Message) -> Outcome {
        self.updated.insert(message.id);
        self.log(next, Logged::Message(op, message.id));
        Outcome::Message { op, at: next.at, message }
    }

    fn role(&self, room: RoomId, user: &UserKey) -> Option<Role> {
        self.roles.get(&(room, user.clone())).copied().flatten()
    }

    fn set_role(
        &mut self,
        locked: &mut Locked,
        next: &Next,
        user: &UserKey,
        to: Option<(&Arc<str>, Role)>,
    ) -> Result<(), Code> {
        next.id()?;
        let role = to.map(|(_, role)| role);
        let key = (next.room, user.clone());
        let before = self.roles.insert(key.clone(), role).flatten();
        locked.memory.note_member(user.clone(), role);
        let change = self.members.entry(key);
        let change = change.or_insert(MemberChange { was_member: before.is_some(), has_left: false, now: None });
        change.has_left |= to.is_none();
        change.now = to.map(|(name, role)| (name.clone(), role, next.time));
        let user = user.clone();
        self.log(next, if to.is_some() { Logged::Joined(user) } else { Logged::Left(user) });
        Ok(())
    }

    fn log(&mut self, next: &Next, what: Logged) {
        self.log.push(LogRow { room: next.room, seq: next.at.seq, what, at: next.time });
    }

    fn finish(mut self) -> Plan {
        for id in &self.inserted {
            self.updated.remove(id);
        }
        let mut plan = Plan { log: self.log, ..Plan::default() };
        plan.inserted.extend(self.inserted.iter().filter_map(|id| self.messages.get(id).cloned()));
        plan.updated.extend(self.updated.iter().filter_map(|id| self.messages.get(id).cloned()));
        for ((room, user), MemberChange { was_member, has_left, now }) in self.members {
            if was_member && has_left {
                plan.left.push((room, user.clone()));
            }
            if let Some((name, role, at)) = now {
                plan.joined.push(MemberRow { room, user, name, role, at, is_new: !was_member || has_left });
            }
        }
        plan
    }
}
