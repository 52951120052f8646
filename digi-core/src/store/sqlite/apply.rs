//! One batch, one transaction.
//!
//! Messages and heads go into the journal, all of a batch in one row; what they were before is in the overlay or else in
//! their tables. Memberships and the log of other changes are written where they belong. Who may write and which client
//! ids were used is in the room's memory ([`Recent`]).
//!
//! No batch ids are stored: an answer to `COMMIT` cannot get lost on the way as one over a network can. What failed was
//! rolled back (SQLite's next writer writes over its part of the log), so a batch may simply come again.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;
use rusqlite::{CachedStatement, Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::connection::Writer;
use super::error::store_error;
use super::journal::{self, Entry, Extent};
use super::overlay::{self, Overlay};
use super::row::{self, HEAD, StoredHead, id_range, kind, message_columns, sql};
use crate::error::Code;
use crate::id::{ClientId, Cursor, MessageId, Millis, RoomId, Seq, UserKey};
use crate::store::StoreError;
use crate::store::model::{
    Action, Applied, Authority, Batch, Command, Head, MemberOp, Message, MessageOp, Outcome, Role, raised,
};
use crate::store::recent::{ClientKey, Recent, RoomMemory};

const SET_HEAD: &str = "UPDATE digi_head SET epoch = ?2, last_seq = ?3, floor = ?4, last_at = ?5 WHERE room_id = ?1";
const FIND: &str = concat!("SELECT ", message_columns!(), " FROM digi_message WHERE id = ?1");
const LOG: &str =
    "INSERT INTO digi_change (room_id, seq, kind, message_id, user_key, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
const ROLE: &str = "SELECT role FROM digi_member WHERE room_id = ?1 AND user_key = ?2";
const JOIN: &str = "INSERT INTO digi_member (room_id, user_key, user_name, role, joined_at) VALUES (?1, ?2, ?3, ?4, ?5) \
                    ON CONFLICT (room_id, user_key) DO UPDATE SET user_name = excluded.user_name, role = excluded.role";
const LEAVE: &str = "DELETE FROM digi_member WHERE room_id = ?1 AND user_key = ?2";
const ADDS_BETWEEN: &str =
    "SELECT pos, sender_key, client_id FROM digi_message WHERE id BETWEEN ?1 AND ?2 AND client_id IS NOT NULL";
const MEMBERS_BETWEEN: &str =
    "SELECT user_key FROM digi_change WHERE room_id = ?1 AND seq > ?2 AND seq <= ?3 AND user_key IS NOT NULL";

/// A room while a batch changes it.
struct Locked {
    stored: StoredHead,
    now: StoredHead,
    memory: RoomMemory,
}

/// Why a command is not carried out.
enum Stop {
    /// This command alone.
    Refused(Code),
    /// The whole batch.
    Failed(rusqlite::Error),
}

impl From<Code> for Stop {
    fn from(code: Code) -> Self {
        Self::Refused(code)
    }
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error)
    }
}

/// See [`Store::apply`](crate::store::Store::apply).
pub(super) fn apply(writer: &mut Writer, batch: &Batch) -> Result<Applied, StoreError> {
    writer.make_room().map_err(store_error)?;
    let mut rooms = BTreeMap::new();
    let done = transact(writer, &mut rooms, batch);
    let recent = &mut writer.recent;
    let heads = rooms.iter().map(|(room, locked): (_, &Locked)| (*room, locked.now.head)).collect();
    for (room, mut locked) in rooms {
        match &done {
            Ok(_) => locked.memory.advance(locked.now.head),
            Err(_) => locked.memory.undo(),
        }
        recent.put(room, locked.memory);
    }
    done.map(|outcomes| Applied { outcomes, heads }).map_err(store_error)
}

fn transact(
    Writer { connection, recent, overlay, .. }: &mut Writer,
    rooms: &mut BTreeMap<RoomId, Locked>,
    batch: &Batch,
) -> rusqlite::Result<Vec<Outcome>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let extent = overlay::catch_up(&transaction, overlay)?;
    lock(&transaction, recent, overlay, rooms, batch)?;
    let mut outcomes = Vec::with_capacity(batch.commands.len());
    let mut work = Work { transaction: &transaction, recent, overlay, changed: BTreeMap::new() };
    for command in &batch.commands {
        let outcome = match rooms.get_mut(&command.room) {
            Some(locked) => work.carry_out(locked, command, batch.now),
            None => Err(Code::NoSuchRoom.into()),
        };
        outcomes.push(match outcome {
            Ok(outcome) => outcome,
            Err(Stop::Refused(code)) => Outcome::Refused(code),
            Err(Stop::Failed(error)) => return Err(error),
        });
    }
    let changed = rooms.iter().filter(|(_, locked)| locked.now != locked.stored);
    let heads = changed.map(|(room, locked)| (*room, locked.now)).collect();
    let entry = Entry { heads, messages: work.changed.into_values().collect() };
    commit(transaction, overlay, extent, entry)?;
    Ok(outcomes)
}

/// Appends to the journal, commits, and only then lets others know.
pub(super) fn commit(
    transaction: Transaction<'_>,
    overlay: &RwLock<Overlay>,
    extent: Extent,
    entry: Entry,
) -> rusqlite::Result<()> {
    if entry.is_empty() {
        return transaction.commit();
    }
    let n = entry.append(&transaction, extent.last)?;
    transaction.commit()?;
    overlay.write().put(n, entry);
    Ok(())
}

/// A room's head as it is now.
pub(super) fn find_head(
    connection: &Connection,
    overlay: &RwLock<Overlay>,
    room: RoomId,
) -> rusqlite::Result<Option<StoredHead>> {
    let unplaced = overlay.read().head(room);
    match unplaced {
        None => StoredHead::read(&mut *connection.prepare_cached(HEAD)?, room),
        found => Ok(found),
    }
}

/// Writes a row of `digi_head`.
pub(super) fn write_head(statement: &mut CachedStatement<'_>, room: RoomId, to: &StoredHead) -> rusqlite::Result<()> {
    let StoredHead { head, floor, last_at } = to;
    statement.execute([room.0, sql(head.epoch.0)?, sql(head.last_seq.0)?, sql(floor.0)?, sql(last_at.0)?])?;
    Ok(())
}

/// Raises a head that lies below what was seen, as restored data does.
pub(super) fn raise_above(stored: &mut StoredHead, seen: Cursor, now: Millis) {
    if stored.head.cursor() < seen {
        stored.head = raised(stored.head, seen, now);
        stored.floor = stored.head.last_seq;
    }
}

/// The statement that [`write_head`] runs.
pub(super) fn prepare_set_head(connection: &Connection) -> rusqlite::Result<CachedStatement<'_>> {
    connection.prepare_cached(SET_HEAD)
}

/// Reads the heads of the batch's rooms, which nobody else changes from now on, and brings the memories up to them.
fn lock(
    transaction: &Transaction<'_>,
    recent: &mut Recent,
    overlay: &RwLock<Overlay>,
    rooms: &mut BTreeMap<RoomId, Locked>,
    batch: &Batch,
) -> rusqlite::Result<()> {
    let known: BTreeMap<_, _> = batch.known.iter().copied().collect();
    let mut ids: Vec<_> = batch.commands.iter().map(|command| command.room).collect();
    ids.sort_unstable();
    ids.dedup();
    for room in ids {
        let Some(stored) = find_head(transaction, overlay, room)? else { continue };
        let mut now = stored;
        if let Some(seen) = known.get(&room) {
            raise_above(&mut now, *seen, batch.now);
        }
        let memory = recent.take(room, now.head, now.floor);
        let locked = rooms.entry(room).or_insert(Locked { stored, now, memory });
        catch_up(transaction, recent, overlay, room, locked)?;
    }
    Ok(())
}

/// Reads what was written since the memory was last used: by other processes, or all of the window.
fn catch_up(
    transaction: &Transaction<'_>,
    recent: &Recent,
    overlay: &RwLock<Overlay>,
    room: RoomId,
    locked: &mut Locked,
) -> rusqlite::Result<()> {
    let head = locked.now.head;
    let memory = &mut locked.memory;
    let after = memory.through();
    if after == head.last_seq {
        return Ok(());
    }
    let (first, last) = id_range(room, after.next(), head.last_seq);
    // One that was edited stands in the table and in the overlay.
    let mut places = BTreeMap::new();
    let mut adds = transaction.prepare_cached(ADDS_BETWEEN)?;
    let mut rows = adds.query([first, last])?;
    while let Some(row) = rows.next()? {
        places.insert(Seq(row::number(row, 0)?), recent.key(row::text(row, 1)?, row::text(row, 2)?));
    }
    if let Some(unplaced) = overlay.read().room(room) {
        for message in unplaced.between((first, last)) {
            if let Some(client_id) = &message.client_id {
                places.insert(message.pos, recent.key(message.sender.as_str(), client_id.as_str()));
            }
        }
    }
    for (pos, key) in places {
        memory.note_add(pos, key);
    }
    let mut members = transaction.prepare_cached(MEMBERS_BETWEEN)?;
    let mut rows = members.query([room.0, sql(after.0)?, sql(head.last_seq.0)?])?;
    while let Some(row) = rows.next()? {
        memory.forget_member(row::text(row, 0)?);
    }
    memory.advance(head);
    Ok(())
}

/// What the commands of a batch share.
struct Work<'t> {
    transaction: &'t Transaction<'t>,
    recent: &'t Recent,
    overlay: &'t RwLock<Overlay>,
    /// Messages as they are now.
    changed: BTreeMap<MessageId, Arc<Message>>,
}

impl Work<'_> {
    fn carry_out(&mut self, locked: &mut Locked, command: &Command, now: Millis) -> Result<Outcome, Stop> {
        let is_host = command.authority == Authority::Host;
        let role = match command.authority {
            Authority::Host => Role::Moderator,
            Authority::Member => self.role(locked, command.room, &command.user)?.ok_or(Code::NotAMember)?,
        };
        let at = Cursor::new(locked.now.head.epoch, locked.now.head.last_seq.next());
        let next = Next { room: command.room, at, time: now.max(locked.now.last_at) };
        let outcome = match &command.action {
            Action::Add { body, client_id } => {
                if body.contains('\0') {
                    return Err(Code::BadBody.into());
                }
                let key = client_id.as_ref().map(|id| self.recent.key(command.user.as_str(), id.as_str()));
                if let (Some(key), Some(client_id)) = (key, client_id)
                    && let Some(first) = self.first_use(locked, command, key, client_id)?
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
                    return Err(Code::BadBody.into());
                }
                let mut message = self.changeable(command.room, *message)?;
                if message.sender != command.user && !is_host {
                    return Err(Code::NotSender.into());
                }
                self.log(&next, kind::EDITED, Some(message.id), None)?;
                (message.body, message.edited_at) = (Some(body.clone()), Some(next.time));
                self.change(message.clone())?;
                Outcome::Message { op: MessageOp::Edited, at, message }
            }
            Action::Delete { message } => {
                let mut message = self.changeable(command.room, *message)?;
                if message.sender != command.user && role != Role::Moderator {
                    return Err(Code::NotSender.into());
                }
                self.log(&next, kind::DELETED, Some(message.id), None)?;
                (message.body, message.deleted_at) = (None, Some(next.time));
                self.change(message.clone())?;
                Outcome::Message { op: MessageOp::Deleted, at, message }
            }
            Action::AddMember { .. } | Action::RemoveMember { .. } if !is_host => return Err(Code::Refused.into()),
            Action::AddMember { member, name, role } => {
                if self.role(locked, command.room, member)? == Some(*role) {
                    return Ok(Outcome::Unchanged);
                }
                self.log(&next, kind::JOINED, None, Some(member))?;
                let row = params![next.room.0, member.as_str(), &**name, role.number(), sql(next.time.0)?];
                self.transaction.prepare_cached(JOIN)?.execute(row)?;
                locked.memory.note_member(member.clone(), Some(*role));
                Outcome::Member { op: MemberOp::Joined, at, member: member.clone() }
            }
            Action::RemoveMember { member } => {
                if self.role(locked, command.room, member)?.is_none() {
                    return Ok(Outcome::Unchanged);
                }
                self.log(&next, kind::LEFT, None, Some(member))?;
                self.transaction.prepare_cached(LEAVE)?.execute(params![next.room.0, member.as_str()])?;
                locked.memory.note_member(member.clone(), None);
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
    ) -> Result<Outcome, Stop> {
        let id = next.id()?;
        // What no column of the table holds.
        sql(next.time.0)?;
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
        self.change(message.clone())?;
        Ok(Outcome::Message { op: MessageOp::Added, at: next.at, message })
    }

    fn change(&mut self, message: Message) -> Result<(), Stop> {
        journal::check(&message)?;
        self.changed.insert(message.id, Arc::new(message));
        Ok(())
    }

    /// A message as it is now.
    fn find(&self, id: MessageId) -> rusqlite::Result<Option<Message>> {
        if let Some(changed) = self.changed.get(&id) {
            return Ok(Some(Message::clone(changed)));
        }
        let unplaced = self.overlay.read().room(id.split_own().0).and_then(|room| room.message(id).cloned());
        match unplaced {
            None => self.transaction.prepare_cached(FIND)?.query_row([id.0], row::message).optional(),
            found => Ok(found),
        }
    }

    /// The message that an `add` repeats. The memory says where it may be; the message decides, so that neither
    /// colliding hashes nor a purge make a wrong answer.
    fn first_use(
        &self,
        locked: &Locked,
        command: &Command,
        key: ClientKey,
        client_id: &ClientId,
    ) -> Result<Option<Outcome>, Stop> {
        let Some(pos) = locked.memory.place(key, locked.now.head.last_seq) else { return Ok(None) };
        let Some(message) = MessageId::own(command.room, pos) else { return Ok(None) };
        let found = self.find(message)?;
        let is_it = |found: Message| found.sender == command.user && found.client_id.as_ref() == Some(client_id);
        Ok(found.is_some_and(is_it).then_some(Outcome::Duplicate { message, pos }))
    }

    /// A message of the room that has not been deleted.
    fn changeable(&self, room: RoomId, id: MessageId) -> Result<Message, Stop> {
        if id.split_own().0 != room {
            return Err(Code::NoSuchMessage.into());
        }
        let message = self.find(id)?.ok_or(Code::NoSuchMessage)?;
        if message.body.is_none() { Err(Code::MessageDeleted.into()) } else { Ok(message) }
    }

    fn role(&self, locked: &mut Locked, room: RoomId, user: &UserKey) -> Result<Option<Role>, Stop> {
        if let Some(role) = locked.memory.member(user) {
            return Ok(role);
        }
        let role = find_role(self.transaction, room, user)?;
        locked.memory.note_member(user.clone(), role);
        Ok(role)
    }

    fn log(&self, next: &Next, kind: i64, message: Option<MessageId>, user: Option<&UserKey>) -> Result<(), Stop> {
        next.id()?;
        let (seq, time) = (sql(next.at.seq.0)?, sql(next.time.0)?);
        let (message, user) = (message.map(MessageId::get), user.map(UserKey::as_str));
        let mut log = self.transaction.prepare_cached(LOG)?;
        log.execute(params![next.room.0, seq, kind, message, user, time])?;
        Ok(())
    }
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

/// The role of a user, if it is a member.
pub(super) fn find_role(connection: &Connection, room: RoomId, user: &UserKey) -> rusqlite::Result<Option<Role>> {
    let mut find = connection.prepare_cached(ROLE)?;
    find.query_row(params![room.0, user.as_str()], |row| row.get(0).map(Role::from_number)).optional()
}
