//! What a store is to carry out, and its answer.

use digi_core::store::model::{self, Action, Authority};
use digi_core::{ClientId, Cursor, Epoch, MessageId, Millis, RoomId, Seq};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::model::{Outcome, client_id, one_of, role_name};
use crate::engine::role;

/// `digi.BatchId`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[pyclass(frozen, eq, hash, from_py_object, module = "digi._digi")]
pub(crate) struct BatchId(pub(super) model::BatchId);

#[pymethods]
impl BatchId {
    #[new]
    fn new(node: u64, number: u64) -> Self {
        Self(model::BatchId { node, number })
    }

    #[getter]
    fn node(&self) -> u64 {
        self.0.node
    }

    #[getter]
    fn number(&self) -> u64 {
        self.0.number
    }

    fn __repr__(&self) -> String {
        format!("BatchId({}, {})", self.0.node, self.0.number)
    }
}

/// `digi.Command`.
#[derive(Clone)]
#[pyclass(frozen, from_py_object, module = "digi._digi")]
pub(crate) struct Command(model::Command);

#[pymethods]
impl Command {
    #[new]
    #[pyo3(signature = (kind, room, user, user_name = None, *, is_host = false, body = None, client_id = None,
                        message_id = None, member = None, member_name = None, role = "member"))]
    #[allow(clippy::too_many_arguments, reason = "each has a name in Python")]
    fn new(
        kind: &str,
        room: i64,
        user: String,
        user_name: Option<String>,
        is_host: bool,
        body: Option<String>,
        client_id: Option<&str>,
        message_id: Option<i64>,
        member: Option<String>,
        member_name: Option<String>,
        role: &str,
    ) -> PyResult<Self> {
        let missing = |name: &str| PyValueError::new_err(format!("a command of kind {kind:?} needs {name}"));
        let body = body.map(Into::into).ok_or_else(|| missing("body"));
        let message = message_id.map(MessageId).ok_or_else(|| missing("message_id"));
        let key = member.clone().map(Into::into).ok_or_else(|| missing("member"));
        let action = match kind {
            "add" => Action::Add { body: body?, client_id: self::client_id(client_id)? },
            "edit" => Action::Edit { message: message?, body: body? },
            "delete" => Action::Delete { message: message? },
            "add_member" => Action::AddMember {
                member: key?,
                name: member_name.or(member).unwrap_or_default().into(),
                role: self::role(role)?,
            },
            "remove_member" => Action::RemoveMember { member: key? },
            other => return Err(one_of("add, edit, delete, add_member, remove_member", other)),
        };
        let user_name = user_name.unwrap_or_else(|| user.clone()).into();
        let authority = if is_host { Authority::Host } else { Authority::Member };
        Ok(Self(model::Command { room: RoomId(room), user: user.into(), user_name, authority, action }))
    }

    #[getter]
    fn kind(&self) -> &'static str {
        match &self.0.action {
            Action::Add { .. } => "add",
            Action::Edit { .. } => "edit",
            Action::Delete { .. } => "delete",
            Action::AddMember { .. } => "add_member",
            Action::RemoveMember { .. } => "remove_member",
        }
    }

    #[getter]
    fn room(&self) -> i64 {
        self.0.room.0
    }

    #[getter]
    fn user(&self) -> &str {
        self.0.user.as_str()
    }

    #[getter]
    fn user_name(&self) -> &str {
        &self.0.user_name
    }

    #[getter]
    fn is_host(&self) -> bool {
        self.0.authority == Authority::Host
    }

    #[getter]
    fn body(&self) -> Option<&str> {
        match &self.0.action {
            Action::Add { body, .. } | Action::Edit { body, .. } => Some(body),
            _ => None,
        }
    }

    #[getter]
    fn client_id(&self) -> Option<&str> {
        match &self.0.action {
            Action::Add { client_id, .. } => client_id.as_ref().map(ClientId::as_str),
            _ => None,
        }
    }

    #[getter]
    fn message_id(&self) -> Option<i64> {
        match &self.0.action {
            Action::Edit { message, .. } | Action::Delete { message } => Some(message.0),
            _ => None,
        }
    }

    #[getter]
    fn member(&self) -> Option<&str> {
        match &self.0.action {
            Action::AddMember { member, .. } | Action::RemoveMember { member } => Some(member.as_str()),
            _ => None,
        }
    }

    #[getter]
    fn member_name(&self) -> Option<&str> {
        match &self.0.action {
            Action::AddMember { name, .. } => Some(name),
            _ => None,
        }
    }

    #[getter]
    fn role(&self) -> Option<&'static str> {
        match &self.0.action {
            Action::AddMember { role, .. } => Some(role_name(*role)),
            _ => None,
        }
    }

    fn __repr__(&self) -> String {
        format!("<digi.Command {} in room {} by {:?}>", self.kind(), self.0.room, self.0.user.as_str())
    }
}

/// `digi.Batch`.
#[derive(Clone)]
#[pyclass(frozen, from_py_object, module = "digi._digi")]
pub(crate) struct Batch(pub(super) model::Batch);

#[pymethods]
impl Batch {
    #[new]
    #[pyo3(signature = (id, commands, *, now, known = Vec::new()))]
    #[pyo3(text_signature = "(id, commands, *, now, known=())")]
    fn new(id: BatchId, commands: Vec<Command>, now: u64, known: Vec<(i64, u64, u64)>) -> Self {
        let known = known.into_iter().map(|(room, epoch, seq)| (RoomId(room), Cursor::new(Epoch(epoch), Seq(seq))));
        let commands = commands.into_iter().map(|command| command.0).collect();
        Self(model::Batch { id: id.0, commands, known: known.collect(), now: Millis(now) })
    }

    #[getter]
    fn id(&self) -> BatchId {
        BatchId(self.0.id)
    }

    #[getter]
    fn commands(&self) -> Vec<Command> {
        self.0.commands.iter().cloned().map(Command).collect()
    }

    #[getter]
    fn known(&self) -> Vec<(i64, u64, u64)> {
        self.0.known.iter().map(|(room, seen)| (room.0, seen.epoch.0, seen.seq.0)).collect()
    }

    #[getter]
    fn now(&self) -> u64 {
        self.0.now.0
    }

    fn __len__(&self) -> usize {
        self.0.commands.len()
    }

    fn __repr__(&self) -> String {
        format!("<digi.Batch {}/{} of {}>", self.0.id.node, self.0.id.number, self.0.commands.len())
    }
}

/// `digi.Applied`.
#[derive(Clone, PartialEq)]
#[pyclass(frozen, eq, from_py_object, module = "digi._digi")]
pub(crate) struct Applied(pub(super) model::Applied);

#[pymethods]
impl Applied {
    #[new]
    fn new(outcomes: Vec<Outcome>, heads: Vec<(i64, u64, u64)>) -> Self {
        let outcomes = outcomes.into_iter().map(|outcome| outcome.0).collect();
        let heads = heads.into_iter().map(|(room, epoch, seq)| (RoomId(room), head(epoch, seq))).collect();
        Self(model::Applied { outcomes, heads })
    }

    #[getter]
    fn outcomes(&self) -> Vec<Outcome> {
        self.0.outcomes.iter().cloned().map(Outcome::new).collect()
    }

    #[getter]
    fn heads(&self) -> Vec<(i64, u64, u64)> {
        self.0.heads.iter().map(|(room, head)| (room.0, head.epoch.0, head.last_seq.0)).collect()
    }

    fn __repr__(&self) -> String {
        format!("<digi.Applied {} outcomes, {} heads>", self.0.outcomes.len(), self.0.heads.len())
    }
}

pub(super) fn head(epoch: u64, seq: u64) -> model::Head {
    model::Head { epoch: Epoch(epoch), last_seq: Seq(seq) }
}
