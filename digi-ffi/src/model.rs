//! What stands in the structs of the header, to and from what digi-core knows.

use digi_core::store::model::{Action, Authority, Command, MemberOp, Message, MessageOp, Outcome, Role};
use digi_core::{ClientId, Code, Cursor, MessageId, Millis, RoomId, Seq};

use crate::handle::digi_text;
use crate::result::{Failure, bad_argument, number};

/// A plain member.
pub const DIGI_ROLE_MEMBER: i32 = 0;
/// A member who may also delete the messages of others.
pub const DIGI_ROLE_MODERATOR: i32 = 1;
/// In answers about a membership: there is none.
pub const DIGI_ROLE_NONE: i32 = -1;

/// A message was added, or is to be.
pub const DIGI_CHANGE_ADD: u32 = 0;
/// A message's text was replaced, or is to be.
pub const DIGI_CHANGE_EDIT: u32 = 1;
/// A message was deleted, or is to be.
pub const DIGI_CHANGE_DELETE: u32 = 2;
/// A user has become a member or got another role, or is to.
pub const DIGI_CHANGE_JOIN: u32 = 3;
/// A membership has ended, or is to.
pub const DIGI_CHANGE_LEAVE: u32 = 4;
/// In outcomes: an add whose `client_id` the sender had used already; nothing changed.
pub const DIGI_CHANGE_DUPLICATE: u32 = 5;
/// In outcomes: it was so already; nothing changed.
pub const DIGI_CHANGE_NONE: u32 = 6;

/// One change that is asked for. What a kind of change doesn't need stays zero.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct digi_command {
    /// `sizeof(digi_command)`.
    pub size: usize,
    /// `DIGI_CHANGE_ADD` to `DIGI_CHANGE_LEAVE`.
    pub change: u32,
    /// Whether the host's rights count, not the user's. Joins and leaves need it: only the host changes memberships.
    pub as_host: bool,
    /// The room's id.
    pub room: i64,
    /// Who does it: an immutable key. For joins and leaves: whose membership it is.
    pub user: digi_text,
    /// The name that others see.
    pub user_name: digi_text,
    /// The message's text, to add and to edit.
    pub text: digi_text,
    /// To add: makes it safe to ask again, as long as the first message is among the room's last 1,000 changes and not
    /// purged. 1 to 64 bytes, of the user's own in this room. May be left out.
    pub client_id: digi_text,
    /// The message's id, to edit and to delete.
    pub message_id: i64,
    /// To join: `DIGI_ROLE_…`.
    pub role: i32,
}

/// What became of a change.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct digi_outcome {
    /// `DIGI_CHANGE_…`.
    pub change: u32,
    /// `DIGI_OK`; where an outcome is told to a consumer, also the code with which it was refused.
    pub code: i32,
    /// The generation of the room's numbering. 0 where nothing changed.
    pub epoch: u64,
    /// The change's number in the room. 0 where nothing changed.
    pub seq: u64,
    /// The message's id; of a duplicate, the first one's.
    pub message_id: i64,
    /// The message's place in the room: the number of the change that added it.
    pub pos: u64,
}

pub(crate) fn role(number: i32, name: &str) -> Result<Role, Failure> {
    match number {
        DIGI_ROLE_MEMBER => Ok(Role::Member),
        DIGI_ROLE_MODERATOR => Ok(Role::Moderator),
        _ => Err(bad_argument(name, "it is neither DIGI_ROLE_MEMBER nor DIGI_ROLE_MODERATOR")),
    }
}

pub(crate) fn role_number(role: Role) -> i32 {
    match role {
        Role::Member => DIGI_ROLE_MEMBER,
        Role::Moderator => DIGI_ROLE_MODERATOR,
    }
}

pub(crate) fn client_id(text: Option<&str>) -> Result<Option<ClientId>, Failure> {
    text.map(|text| ClientId::new(text).ok_or_else(|| Code::BadClientId.into())).transpose()
}

impl digi_command {
    /// # Safety
    /// The texts are as the header says.
    pub(crate) unsafe fn read(&self) -> Result<Command, Failure> {
        // SAFETY: the caller's promise.
        unsafe {
            let user = self.user.needed("command.user")?;
            let user_name = self.user_name.get("command.user_name")?.unwrap_or(user);
            let text = || self.text.needed("command.text");
            let message = MessageId(self.message_id);
            let action = match self.change {
                DIGI_CHANGE_ADD => Action::Add {
                    body: text()?.into(),
                    client_id: client_id(self.client_id.get("command.client_id")?)?,
                },
                DIGI_CHANGE_EDIT => Action::Edit { message, body: text()?.into() },
                DIGI_CHANGE_DELETE => Action::Delete { message },
                DIGI_CHANGE_JOIN => Action::AddMember {
                    member: user.into(),
                    name: user_name.into(),
                    role: role(self.role, "command.role")?,
                },
                DIGI_CHANGE_LEAVE => Action::RemoveMember { member: user.into() },
                _ => return Err(bad_argument("command.change", "it is none of DIGI_CHANGE_ADD to DIGI_CHANGE_LEAVE")),
            };
            let authority = if self.as_host { Authority::Host } else { Authority::Member };
            Ok(Command { room: RoomId(self.room), user: user.into(), user_name: user_name.into(), authority, action })
        }
    }

    /// To be used while the command lives.
    pub(crate) fn of(command: &Command) -> Self {
        let mut shown = Self {
            size: size_of::<Self>(),
            change: DIGI_CHANGE_ADD,
            as_host: command.authority == Authority::Host,
            room: command.room.0,
            user: digi_text::of(command.user.as_str()),
            user_name: digi_text::of(&command.user_name),
            text: digi_text::NONE,
            client_id: digi_text::NONE,
            message_id: 0,
            role: DIGI_ROLE_MEMBER,
        };
        match &command.action {
            Action::Add { body, client_id } => {
                shown.text = digi_text::of(body);
                shown.client_id = digi_text::of_option(client_id.as_ref().map(ClientId::as_str));
            }
            Action::Edit { message, body } => {
                (shown.change, shown.message_id, shown.text) = (DIGI_CHANGE_EDIT, message.0, digi_text::of(body));
            }
            Action::Delete { message } => (shown.change, shown.message_id) = (DIGI_CHANGE_DELETE, message.0),
            Action::AddMember { member, name, role } => {
                (shown.change, shown.role) = (DIGI_CHANGE_JOIN, role_number(*role));
                (shown.user, shown.user_name) = (digi_text::of(member.as_str()), digi_text::of(name));
            }
            Action::RemoveMember { member } => {
                (shown.change, shown.user) = (DIGI_CHANGE_LEAVE, digi_text::of(member.as_str()));
            }
        }
        shown
    }
}

pub(crate) fn message_change(op: MessageOp) -> u32 {
    match op {
        MessageOp::Added => DIGI_CHANGE_ADD,
        MessageOp::Edited => DIGI_CHANGE_EDIT,
        MessageOp::Deleted => DIGI_CHANGE_DELETE,
    }
}

pub(crate) fn message_op(change: u32, name: &str) -> Result<MessageOp, Failure> {
    match change {
        DIGI_CHANGE_ADD => Ok(MessageOp::Added),
        DIGI_CHANGE_EDIT => Ok(MessageOp::Edited),
        DIGI_CHANGE_DELETE => Ok(MessageOp::Deleted),
        _ => Err(bad_argument(name, "it is none of DIGI_CHANGE_ADD, DIGI_CHANGE_EDIT and DIGI_CHANGE_DELETE")),
    }
}

impl digi_outcome {
    pub(crate) fn of(outcome: &Outcome) -> Self {
        let at = |change: u32, at: Cursor| Self { change, epoch: at.epoch.0, seq: at.seq.0, ..Self::default() };
        match outcome {
            Outcome::Message { op, at: cursor, message } => {
                Self { message_id: message.id.0, pos: message.pos.0, ..at(message_change(*op), *cursor) }
            }
            Outcome::Member { op: MemberOp::Joined, at: cursor, .. } => at(DIGI_CHANGE_JOIN, *cursor),
            Outcome::Member { op: MemberOp::Left, at: cursor, .. } => at(DIGI_CHANGE_LEAVE, *cursor),
            Outcome::Duplicate { message, pos } => {
                Self { change: DIGI_CHANGE_DUPLICATE, message_id: message.0, pos: pos.0, ..Self::default() }
            }
            Outcome::Unchanged => Self { change: DIGI_CHANGE_NONE, ..Self::default() },
            Outcome::Refused(code) => Self { change: DIGI_CHANGE_NONE, code: number(*code), ..Self::default() },
        }
    }
}

/// A room's head: `room` (the key), `epoch`, `seq` (the last number), `floor`, `at` (of the last change).
pub const DIGI_ROW_HEAD: u32 = 0;
/// A room: `room` (the key), `name`, `text` (its kind), `at`.
pub const DIGI_ROW_ROOM: u32 = 1;
/// A membership: `room` and `user` (the key), `name`, `role`, `at`.
pub const DIGI_ROW_MEMBER: u32 = 2;
/// A message: `message_id` (the key; `room << 32 | pos`), `room`, `pos`, `user`, `name`, `text` (none: deleted), `client_id`,
/// `at`, `edited_at`, `deleted_at`.
pub const DIGI_ROW_MESSAGE: u32 = 3;
/// A row of the log, which has every change but the adds: `room` and `seq` (the key), `change`, `message_id` or `user`, `at`.
pub const DIGI_ROW_LOG: u32 = 4;
/// A batch that was carried out: `node` and `number` (the key), `text` (none: it never will be), `at`. The text names users
/// and `client_id`s; the row is removed after an hour or so, while others are written.
pub const DIGI_ROW_BATCH: u32 = 5;

/// A row of the tables behind a chat; which members a kind of row uses is told at its `DIGI_ROW_…`, the others are zero.
/// Times are milliseconds since 1970-01-01T00:00:00Z, 0 for none. A text that is none (`data` NULL) comes back as none, an
/// empty one as empty. `node` uses all 64 bits: where a table has signed numbers only, keep the bits. All other numbers are
/// below 2^63.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct digi_row {
    /// `DIGI_ROW_…`.
    pub kind: u32,
    /// In writes: rows are to be removed. Of memberships the one with this key; of messages and log rows those of `room`
    /// with a `pos` (messages) or `seq` (log) up to this row's; of batches those with `at` before this row's.
    pub removes: bool,
    /// The room's id.
    pub room: i64,
    /// A number in the room.
    pub seq: u64,
    /// The generation of the numbering.
    pub epoch: u64,
    /// Numbers up to here can no longer be read.
    pub floor: u64,
    /// The message's id.
    pub message_id: i64,
    /// The message's place.
    pub pos: u64,
    /// `DIGI_CHANGE_…`.
    pub change: u32,
    /// `DIGI_ROLE_…`.
    pub role: i32,
    /// A user's key.
    pub user: digi_text,
    /// A name.
    pub name: digi_text,
    /// A text.
    pub text: digi_text,
    /// The sender's own name for a message.
    pub client_id: digi_text,
    /// When it began or happened.
    pub at: u64,
    /// When it was edited last.
    pub edited_at: u64,
    /// When it was deleted.
    pub deleted_at: u64,
    /// Names a batch, with `number`.
    pub node: u64,
    /// Names a batch, with `node`.
    pub number: u64,
}

impl digi_row {
    pub(crate) fn new(kind: u32, room: RoomId) -> Self {
        Self {
            kind,
            removes: false,
            room: room.0,
            seq: 0,
            epoch: 0,
            floor: 0,
            message_id: 0,
            pos: 0,
            change: 0,
            role: 0,
            user: digi_text::NONE,
            name: digi_text::NONE,
            text: digi_text::NONE,
            client_id: digi_text::NONE,
            at: 0,
            edited_at: 0,
            deleted_at: 0,
            node: 0,
            number: 0,
        }
    }

    /// To be used while the message lives.
    pub(crate) fn message(message: &Message) -> Self {
        Self {
            message_id: message.id.0,
            pos: message.pos.0,
            user: digi_text::of(message.sender.as_str()),
            name: digi_text::of(&message.sender_name),
            text: digi_text::of_option(message.body.as_deref()),
            client_id: digi_text::of_option(message.client_id.as_ref().map(ClientId::as_str)),
            at: message.created_at.0,
            edited_at: message.edited_at.map_or(0, Millis::get),
            deleted_at: message.deleted_at.map_or(0, Millis::get),
            ..Self::new(DIGI_ROW_MESSAGE, message.room)
        }
    }

    /// # Safety
    /// The texts are as the header says.
    pub(crate) unsafe fn read_message(&self) -> Result<Message, Failure> {
        let time = |millis: u64| (millis > 0).then_some(Millis(millis));
        // SAFETY: the caller's promise.
        unsafe {
            Ok(Message {
                id: MessageId(self.message_id),
                room: RoomId(self.room),
                pos: Seq(self.pos),
                sender: self.user.needed("row.user")?.into(),
                sender_name: self.name.get("row.name")?.unwrap_or_default().into(),
                body: self.text.get("row.text")?.map(Into::into),
                client_id: client_id(self.client_id.get("row.client_id")?)?,
                created_at: Millis(self.at),
                edited_at: time(self.edited_at),
                deleted_at: time(self.deleted_at),
            })
        }
    }
}
