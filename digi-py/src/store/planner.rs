//! `Planner` for stores in Python: rows are tuples.

use digi_core::store::model::{self, Role};
use digi_core::store::planner::{self as core, Logged, NotedAdd, OutOfOrder, RoomHead};
use digi_core::{Cursor, MessageId, Millis, RoomId, Seq, UserKey};
use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use super::batch::{Applied, Batch, head};
use super::model::client_id;

/// room, epoch, last_seq, floor, last_at
type HeadRow = (i64, u64, u64, u64, u64);
/// id, sender_key, sender_name, client_id, created_at, edited_at, deleted_at, body
type MessageRow = (i64, String, String, Option<String>, u64, Option<u64>, Option<u64>, Option<String>);
/// id, room, pos, sender_key, sender_name, client_id, created_at, edited_at, deleted_at, body
type InsertRow<'a> = (i64, i64, u64, &'a str, &'a str, Option<&'a str>, u64, Option<u64>, Option<u64>, Option<&'a str>);

fn wrong(error: OutOfOrder) -> PyErr {
    PyRuntimeError::new_err(error.to_string())
}

fn head_row((room, stored): (RoomId, RoomHead)) -> HeadRow {
    (room.0, stored.head.epoch.0, stored.head.last_seq.0, stored.floor.0, stored.last_at.0)
}

fn read_head((room, epoch, last_seq, floor, last_at): HeadRow) -> (RoomId, RoomHead) {
    (RoomId(room), RoomHead { head: head(epoch, last_seq), floor: Seq(floor), last_at: Millis(last_at) })
}

fn read_message(row: MessageRow) -> PyResult<model::Message> {
    let (id, sender, sender_name, given, created_at, edited_at, deleted_at, body) = row;
    let (room, pos) = MessageId(id).split_own();
    Ok(model::Message {
        id: MessageId(id),
        room,
        pos,
        sender: sender.into(),
        sender_name: sender_name.into(),
        body: body.map(Into::into),
        client_id: client_id(given.as_deref())?,
        created_at: Millis(created_at),
        edited_at: edited_at.map(Millis),
        deleted_at: deleted_at.map(Millis),
    })
}

fn insert_row(message: &model::Message) -> InsertRow<'_> {
    let model::Message { id, room, pos, sender, sender_name, body, client_id, .. } = message;
    (
        id.0,
        room.0,
        pos.0,
        sender.as_str(),
        sender_name,
        client_id.as_ref().map(digi_core::ClientId::as_str),
        message.created_at.0,
        message.edited_at.map(Millis::get),
        message.deleted_at.map(Millis::get),
        body.as_deref(),
    )
}

/// `digi.Planner`.
#[pyclass(frozen, module = "digi._digi")]
pub(crate) struct Planner(Mutex<core::Planner>);

#[pymethods]
impl Planner {
    #[new]
    fn new() -> Self {
        Self(Mutex::new(core::Planner::new()))
    }

    fn begin(&self, batch: &Batch) -> Vec<i64> {
        self.0.lock().begin(batch.0.clone()).into_iter().map(RoomId::get).collect()
    }

    fn lock(&self, heads: Vec<HeadRow>) -> PyResult<Vec<(i64, u64, u64)>> {
        let gaps = self.0.lock().lock(heads.into_iter().map(read_head)).map_err(wrong)?;
        Ok(gaps.into_iter().map(|gap| (gap.room.0, gap.after.0, gap.through.0)).collect())
    }

    #[allow(clippy::type_complexity, reason = "tuples are what Python gets")]
    fn note(
        &self,
        adds: Vec<(i64, u64, String, String)>,
        members: Vec<(i64, String)>,
    ) -> PyResult<(Vec<(i64, String)>, Vec<i64>)> {
        let add = |(room, pos, sender, given): (i64, u64, String, String)| {
            // What is no client id can't be asked for either.
            let client_id = digi_core::ClientId::new(&given)?;
            Some(NotedAdd { room: RoomId(room), pos: Seq(pos), sender: sender.into(), client_id })
        };
        let adds = adds.into_iter().filter_map(add).collect();
        let members = members.into_iter().map(|(room, user)| (RoomId(room), UserKey::from(user)));
        let needs = self.0.lock().note(adds, members).map_err(wrong)?;
        let roles = needs.roles.into_iter().map(|(room, user)| (room.0, user.to_string())).collect();
        Ok((roles, needs.messages.into_iter().map(MessageId::get).collect()))
    }

    fn decide(&self, roles: Vec<(i64, String, i64)>, messages: Vec<MessageRow>) -> PyResult<Plan> {
        let role = |(room, user, role)| (RoomId(room), UserKey::from(user), Role::from_number(role));
        let messages = messages.into_iter().map(read_message).collect::<PyResult<Vec<_>>>()?;
        let mut plan = self.0.lock().decide(roles.into_iter().map(role), messages).map_err(wrong)?;
        let applied =
            model::Applied { outcomes: std::mem::take(&mut plan.outcomes), heads: std::mem::take(&mut plan.heads) };
        Ok(Plan { plan, applied })
    }

    fn committed(&self) -> PyResult<()> {
        self.0.lock().committed().map_err(wrong)
    }

    fn rolled_back(&self) {
        self.0.lock().rolled_back();
    }

    #[staticmethod]
    fn replay(batch: &Batch, record: &str) -> PyResult<Applied> {
        core::replay(&batch.0, record).map(Applied).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    #[staticmethod]
    fn raised(stored: HeadRow, seen: (u64, u64), now: u64) -> HeadRow {
        let (room, mut stored) = read_head(stored);
        stored.raise_above(Cursor::new(digi_core::Epoch(seen.0), Seq(seen.1)), Millis(now));
        head_row((room, stored))
    }
}

/// `digi.Plan`.
#[pyclass(frozen, module = "digi._digi")]
pub(crate) struct Plan {
    plan: core::Plan,
    applied: model::Applied,
}

#[pymethods]
impl Plan {
    #[getter]
    fn applied(&self) -> Applied {
        Applied(self.applied.clone())
    }

    #[getter]
    fn record(&self) -> String {
        core::record(&self.applied)
    }

    #[getter]
    fn heads(&self) -> Vec<HeadRow> {
        self.plan.changed.iter().copied().map(head_row).collect()
    }

    #[getter]
    fn inserted(&self) -> Vec<InsertRow<'_>> {
        self.plan.inserted.iter().map(insert_row).collect()
    }

    #[getter]
    #[allow(clippy::type_complexity, reason = "tuples are what Python gets")]
    fn updated(&self) -> Vec<(i64, Option<&str>, Option<u64>, Option<u64>)> {
        let rows = self.plan.updated.iter().map(|model::Message { id, body, edited_at, deleted_at, .. }| {
            (id.0, body.as_deref(), edited_at.map(Millis::get), deleted_at.map(Millis::get))
        });
        rows.collect()
    }

    #[getter]
    #[allow(clippy::type_complexity, reason = "tuples are what Python gets")]
    fn log(&self) -> Vec<(i64, u64, i64, Option<i64>, Option<&str>, u64)> {
        let rows = self.plan.log.iter().map(|core::LogRow { room, seq, what, at }| {
            let (message, user) = match what {
                Logged::Message(_, id) => (Some(id.0), None),
                Logged::Joined(user) | Logged::Left(user) => (None, Some(user.as_str())),
            };
            (room.0, seq.0, what.kind(), message, user, at.0)
        });
        rows.collect()
    }

    #[getter]
    fn left(&self) -> Vec<(i64, &str)> {
        self.plan.left.iter().map(|(room, user)| (room.0, user.as_str())).collect()
    }

    #[getter]
    fn joined(&self) -> Vec<(i64, &str, &str, i64, u64, bool)> {
        let rows = self.plan.joined.iter().map(|core::MemberRow { room, user, name, role, at, is_new }| {
            (room.0, user.as_str(), &**name, role.number(), at.0, *is_new)
        });
        rows.collect()
    }
}
