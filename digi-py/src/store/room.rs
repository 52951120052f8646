//! What is read of a room.

use digi_core::store::model::{self, Change, MemberOp, Membership};
use digi_core::{RoomId, Seq};
use pyo3::prelude::*;

use super::batch::head;
use super::model::{Message, member_op, role_name};
use crate::engine::role;

/// `digi.Head`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[pyclass(frozen, eq, from_py_object, module = "digi._digi")]
pub(crate) struct Head(pub(super) model::Head);

#[pymethods]
impl Head {
    #[new]
    fn new(epoch: u64, last_seq: u64) -> Self {
        Self(head(epoch, last_seq))
    }

    #[getter]
    fn epoch(&self) -> u64 {
        self.0.epoch.0
    }

    #[getter]
    fn last_seq(&self) -> u64 {
        self.0.last_seq.0
    }

    fn __repr__(&self) -> String {
        format!("Head({}, {})", self.0.epoch, self.0.last_seq)
    }
}

/// `digi.MemberAnswer`.
#[derive(Clone)]
#[pyclass(frozen, from_py_object, module = "digi._digi")]
pub(crate) struct MemberAnswer(pub(super) model::MemberAnswer);

#[pymethods]
impl MemberAnswer {
    #[new]
    #[pyo3(signature = (head, role = None))]
    fn new(head: Head, role: Option<&str>) -> PyResult<Self> {
        let membership = role.map(|name| Ok::<_, PyErr>(Membership { role: self::role(name)? })).transpose()?;
        Ok(Self(model::MemberAnswer { membership, head: head.0 }))
    }

    #[getter]
    fn head(&self) -> Head {
        Head(self.0.head)
    }

    #[getter]
    fn role(&self) -> Option<&'static str> {
        self.0.membership.as_ref().map(|membership| role_name(membership.role))
    }
}

/// `digi.ChangeRow`.
#[derive(Clone)]
#[pyclass(frozen, from_py_object, module = "digi._digi")]
pub(crate) struct ChangeRow(model::ChangeRow);

#[pymethods]
impl ChangeRow {
    #[staticmethod]
    fn changed(seq: u64, message: Message) -> Self {
        Self(model::ChangeRow { seq: Seq(seq), change: Change::Message(message.0) })
    }

    #[staticmethod]
    fn adopted(seq: u64, message: Message) -> Self {
        Self(model::ChangeRow { seq: Seq(seq), change: Change::Adopted(message.0) })
    }

    #[staticmethod]
    fn member(seq: u64, kind: &str, user: String) -> PyResult<Self> {
        let change = Change::Member { op: member_op(kind)?, member: user.into() };
        Ok(Self(model::ChangeRow { seq: Seq(seq), change }))
    }

    #[getter]
    fn seq(&self) -> u64 {
        self.0.seq.0
    }

    #[getter]
    fn kind(&self) -> &'static str {
        match &self.0.change {
            Change::Message(_) | Change::Adopted(_) => "message",
            Change::Member { op: MemberOp::Joined, .. } => "joined",
            Change::Member { op: MemberOp::Left, .. } => "left",
        }
    }

    #[getter]
    fn message(&self) -> Option<Message> {
        match &self.0.change {
            Change::Message(message) | Change::Adopted(message) => Some(Message::new(message.clone())),
            Change::Member { .. } => None,
        }
    }

    #[getter]
    fn user(&self) -> Option<&str> {
        match &self.0.change {
            Change::Message(_) | Change::Adopted(_) => None,
            Change::Member { member, .. } => Some(member.as_str()),
        }
    }

    fn __repr__(&self) -> String {
        format!("<digi.ChangeRow {} {}>", self.0.seq, self.kind())
    }
}

/// `digi.Changes`.
#[derive(Clone)]
#[pyclass(frozen, from_py_object, module = "digi._digi")]
pub(crate) struct Changes(pub(super) model::Changes);

#[pymethods]
impl Changes {
    #[new]
    fn new(head: Head, floor: u64, through: u64, rows: Vec<ChangeRow>) -> Self {
        let rows = rows.into_iter().map(|row| row.0).collect();
        Self(model::Changes { head: head.0, floor: Seq(floor), through: Seq(through), rows })
    }

    #[getter]
    fn head(&self) -> Head {
        Head(self.0.head)
    }

    #[getter]
    fn floor(&self) -> u64 {
        self.0.floor.0
    }

    #[getter]
    fn through(&self) -> u64 {
        self.0.through.0
    }

    #[getter]
    fn rows(&self) -> Vec<ChangeRow> {
        self.0.rows.iter().cloned().map(ChangeRow).collect()
    }
}

/// `digi.History`.
#[derive(Clone)]
#[pyclass(frozen, from_py_object, module = "digi._digi")]
pub(crate) struct History(pub(super) model::History);

#[pymethods]
impl History {
    #[new]
    fn new(head: Head, messages: Vec<Message>) -> Self {
        let messages = messages.into_iter().map(|message| message.0).collect();
        Self(model::History { head: head.0, messages })
    }

    #[getter]
    fn head(&self) -> Head {
        Head(self.0.head)
    }

    #[getter]
    fn messages(&self) -> Vec<Message> {
        self.0.messages.iter().cloned().map(Message::new).collect()
    }
}

/// `digi.NewRoom`.
#[derive(Clone)]
#[pyclass(frozen, from_py_object, module = "digi._digi")]
pub(crate) struct NewRoom(pub(super) model::NewRoom);

#[pymethods]
impl NewRoom {
    #[new]
    #[pyo3(signature = (members = Vec::new(), *, name = "", kind = "", id = None))]
    #[pyo3(text_signature = "(members=(), *, name='', kind='', id=None)")]
    fn new(members: Vec<(String, String, String)>, name: &str, kind: &str, id: Option<i64>) -> PyResult<Self> {
        let member = |(user, name, role): (String, String, String)| Ok((user.into(), name.into(), self::role(&role)?));
        let members = members.into_iter().map(member).collect::<PyResult<_>>()?;
        Ok(Self(model::NewRoom { id: id.map(RoomId), name: name.into(), kind: kind.into(), members }))
    }

    #[getter]
    fn id(&self) -> Option<i64> {
        self.0.id.map(RoomId::get)
    }

    #[getter]
    fn name(&self) -> &str {
        &self.0.name
    }

    #[getter]
    fn kind(&self) -> &str {
        &self.0.kind
    }

    #[getter]
    fn members(&self) -> Vec<(&str, &str, &'static str)> {
        self.0.members.iter().map(|(user, name, role)| (user.as_str(), &**name, role_name(*role))).collect()
    }
}
