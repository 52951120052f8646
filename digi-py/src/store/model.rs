//! `Message` and `Outcome`.

use digi_core::store::model::{self, MemberOp, MessageOp, Role};
use digi_core::{ClientId, Code, Cursor, Epoch, MessageId, Millis, RoomId, Seq};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// `digi.Message`.
#[derive(Clone, PartialEq)]
#[pyclass(frozen, eq, from_py_object, module = "digi._digi")]
pub(crate) struct Message(pub(crate) model::Message);

impl Message {
    pub(crate) fn new(message: model::Message) -> Self {
        Self(message)
    }
}

pub(super) fn client_id(text: Option<&str>) -> PyResult<Option<ClientId>> {
    let read = |text: &str| {
        let bad = || PyValueError::new_err("client_id: 1 to 64 bytes of UTF-8 without U+0000");
        ClientId::new(text).ok_or_else(bad)
    };
    text.map(read).transpose()
}

pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Member => "member",
        Role::Moderator => "moderator",
    }
}

#[pymethods]
impl Message {
    #[new]
    #[pyo3(signature = (*, id, room, pos, sender, sender_name, body, client_id, created_at, edited_at, deleted_at))]
    #[allow(clippy::too_many_arguments, reason = "each has a name in Python")]
    fn make(
        id: i64,
        room: i64,
        pos: u64,
        sender: String,
        sender_name: String,
        body: Option<String>,
        client_id: Option<&str>,
        created_at: u64,
        edited_at: Option<u64>,
        deleted_at: Option<u64>,
    ) -> PyResult<Self> {
        Ok(Self(model::Message {
            id: MessageId(id),
            room: RoomId(room),
            pos: Seq(pos),
            sender: sender.into(),
            sender_name: sender_name.into(),
            body: body.map(Into::into),
            client_id: self::client_id(client_id)?,
            created_at: Millis(created_at),
            edited_at: edited_at.map(Millis),
            deleted_at: deleted_at.map(Millis),
        }))
    }

    #[getter]
    fn id(&self) -> i64 {
        self.0.id.0
    }

    #[getter]
    fn room(&self) -> i64 {
        self.0.room.0
    }

    #[getter]
    fn pos(&self) -> u64 {
        self.0.pos.0
    }

    #[getter]
    fn sender(&self) -> &str {
        self.0.sender.as_str()
    }

    #[getter]
    fn sender_name(&self) -> &str {
        &self.0.sender_name
    }

    #[getter]
    fn body(&self) -> Option<&str> {
        self.0.body.as_deref()
    }

    #[getter]
    fn client_id(&self) -> Option<&str> {
        self.0.client_id.as_ref().map(ClientId::as_str)
    }

    #[getter]
    fn created_at(&self) -> u64 {
        self.0.created_at.0
    }

    #[getter]
    fn edited_at(&self) -> Option<u64> {
        self.0.edited_at.map(Millis::get)
    }

    #[getter]
    fn deleted_at(&self) -> Option<u64> {
        self.0.deleted_at.map(Millis::get)
    }

    /// Without the text, which has no business in logs.
    fn __repr__(&self) -> String {
        format!("<digi.Message {} of room {} by {:?}>", self.0.id, self.0.room, self.0.sender.as_str())
    }
}

/// `digi.Outcome`.
#[derive(Clone, PartialEq)]
#[pyclass(frozen, eq, from_py_object, module = "digi._digi")]
pub(crate) struct Outcome(pub(crate) model::Outcome);

impl Outcome {
    pub(crate) fn new(outcome: model::Outcome) -> Self {
        Self(outcome)
    }

    fn at(&self) -> Option<Cursor> {
        match &self.0 {
            model::Outcome::Message { at, .. } | model::Outcome::Member { at, .. } => Some(*at),
            _ => None,
        }
    }
}

#[pymethods]
impl Outcome {
    #[staticmethod]
    fn changed(kind: &str, epoch: u64, seq: u64, message: Message) -> PyResult<Self> {
        let op = match kind {
            "added" => MessageOp::Added,
            "edited" => MessageOp::Edited,
            "deleted" => MessageOp::Deleted,
            other => return Err(one_of("added, edited, deleted", other)),
        };
        Ok(Self(model::Outcome::Message { op, at: Cursor::new(Epoch(epoch), Seq(seq)), message: message.0 }))
    }

    #[staticmethod]
    fn member(kind: &str, epoch: u64, seq: u64, user: String) -> PyResult<Self> {
        let (op, at) = (member_op(kind)?, Cursor::new(Epoch(epoch), Seq(seq)));
        Ok(Self(model::Outcome::Member { op, at, member: user.into() }))
    }

    #[staticmethod]
    fn duplicate(message_id: i64, pos: u64) -> Self {
        Self(model::Outcome::Duplicate { message: MessageId(message_id), pos: Seq(pos) })
    }

    #[staticmethod]
    fn unchanged() -> Self {
        Self(model::Outcome::Unchanged)
    }

    #[staticmethod]
    fn refused(code: &str) -> PyResult<Self> {
        let known = Code::ALL.iter().find(|known| known.name() == code);
        let unknown = || PyValueError::new_err(format!("code: {code:?} is not in the table of docs/errors.md"));
        Ok(Self(model::Outcome::Refused(*known.ok_or_else(unknown)?)))
    }

    #[getter]
    fn kind(&self) -> &'static str {
        match &self.0 {
            model::Outcome::Message { op: MessageOp::Added, .. } => "added",
            model::Outcome::Message { op: MessageOp::Edited, .. } => "edited",
            model::Outcome::Message { op: MessageOp::Deleted, .. } => "deleted",
            model::Outcome::Member { op: MemberOp::Joined, .. } => "joined",
            model::Outcome::Member { op: MemberOp::Left, .. } => "left",
            model::Outcome::Duplicate { .. } => "duplicate",
            model::Outcome::Unchanged => "unchanged",
            model::Outcome::Refused(_) => "refused",
        }
    }

    #[getter]
    fn seq(&self) -> Option<u64> {
        self.at().map(|at| at.seq.0)
    }

    #[getter]
    fn epoch(&self) -> Option<u64> {
        self.at().map(|at| at.epoch.0)
    }

    #[getter]
    fn message_id(&self) -> Option<i64> {
        match &self.0 {
            model::Outcome::Message { message, .. } => Some(message.id.0),
            model::Outcome::Duplicate { message, .. } => Some(message.0),
            _ => None,
        }
    }

    #[getter]
    fn pos(&self) -> Option<u64> {
        match &self.0 {
            model::Outcome::Message { message, .. } => Some(message.pos.0),
            model::Outcome::Duplicate { pos, .. } => Some(pos.0),
            _ => None,
        }
    }

    #[getter]
    fn message(&self) -> Option<Message> {
        match &self.0 {
            model::Outcome::Message { message, .. } => Some(Message(message.clone())),
            _ => None,
        }
    }

    #[getter]
    fn user(&self) -> Option<&str> {
        match &self.0 {
            model::Outcome::Member { member, .. } => Some(member.as_str()),
            _ => None,
        }
    }

    #[getter]
    fn code(&self) -> Option<&'static str> {
        match &self.0 {
            model::Outcome::Refused(code) => Some(code.name()),
            _ => None,
        }
    }

    fn __repr__(&self) -> String {
        let kind = self.kind();
        match (self.seq(), self.code()) {
            (Some(seq), _) => format!("<digi.Outcome {kind} {seq}>"),
            (_, Some(code)) => format!("<digi.Outcome {kind} {code}>"),
            _ => format!("<digi.Outcome {kind}>"),
        }
    }
}

pub(super) fn member_op(kind: &str) -> PyResult<MemberOp> {
    match kind {
        "joined" => Ok(MemberOp::Joined),
        "left" => Ok(MemberOp::Left),
        other => Err(one_of("joined, left", other)),
    }
}

pub(super) fn one_of(kinds: &str, other: &str) -> PyErr {
    PyValueError::new_err(format!("kind: one of {kinds}, not {other:?}"))
}
