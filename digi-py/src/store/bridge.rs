//! `digi_core::store::Store` over an object that follows `digi.Store`.

use std::sync::Arc;

use async_trait::async_trait;
use digi_core::store::model;
use digi_core::store::{Store, StoreError};
use digi_core::{Cursor, Millis, RoomId, Seq, UserKey};
use pyo3::call::PyCallArgs;
use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use super::batch::head;
use super::failure::Call;
use super::threads::{Hands, Threads};
use super::{Applied, Batch, BatchId, Changes, Head, History, MemberAnswer, NewRoom};

/// The methods without which an object is no store.
const METHODS: [&str; 12] = [
    "migrate",
    "apply",
    "void",
    "member",
    "changes",
    "history",
    "heads",
    "change_marker",
    "raise_epoch",
    "raise_all",
    "create_room",
    "purge",
];

pub(super) struct PythonStore {
    threads: Arc<Threads>,
}

impl PythonStore {
    pub(super) fn new(object: Py<PyAny>) -> PyResult<Self> {
        Python::attach(|py| {
            let store = object.bind(py);
            let missing = METHODS.iter().find(|name| !store.getattr(**name).is_ok_and(|method| method.is_callable()));
            missing.map_or(Ok(()), |name| {
                let class = store.get_type();
                Err(PyTypeError::new_err(format!("{class} is no digi.Store: it has no method {name}()")))
            })
        })?;
        Ok(Self { threads: Threads::start(object)? })
    }

    /// For whoever has to wait for their end.
    pub(super) fn threads(&self) -> Arc<Threads> {
        self.threads.clone()
    }

    /// Calls a method on the threads that are meant for it and reads its answer as `R`.
    async fn call<A, R, T>(
        &self,
        hands: Hands,
        call: Call,
        args: A,
        expected: &'static str,
        read: fn(R) -> T,
    ) -> Result<T, StoreError>
    where
        A: for<'py> PyCallArgs<'py> + Send + 'static,
        R: for<'py> FromPyObjectOwned<'py> + 'static,
        T: Send + 'static,
    {
        let run = move |store: &Bound<'_, PyAny>| {
            let answer = store.getattr(call.method).and_then(|method| method.call1(args));
            let answer = answer.map_err(|error| call.raised(store.py(), &error))?;
            let typed = answer.extract::<R>().map_err(|error| call.answered(&answer, expected, &error.into()))?;
            Ok(read(typed))
        };
        self.threads.run(hands, call.otherwise, run).await
    }
}

#[async_trait]
impl Store for PythonStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.call(Hands::Writer, Call::new("migrate"), (), "None", nothing).await
    }

    async fn apply(&self, batch: &model::Batch) -> Result<model::Applied, StoreError> {
        let (call, args) = (Call::new("apply").unknown(), (Batch(batch.clone()),));
        self.call(Hands::Writer, call, args, "digi.Applied", |applied: Applied| applied.0).await
    }

    async fn void(&self, batch: model::BatchId) -> Result<(), StoreError> {
        self.call(Hands::Writer, Call::new("void").unknown(), (BatchId(batch),), "None", nothing).await
    }

    async fn member(&self, room: RoomId, user: &UserKey) -> Result<model::MemberAnswer, StoreError> {
        let args = (room.0, user.to_string());
        let read = |answer: MemberAnswer| answer.0;
        self.call(Hands::Readers, Call::new("member").on(room), args, "digi.MemberAnswer", read).await
    }

    async fn changes(&self, room: RoomId, after: Seq, limit: u64) -> Result<model::Changes, StoreError> {
        let args = (room.0, after.0, limit);
        let read = |changes: Changes| changes.0;
        self.call(Hands::Readers, Call::new("changes").on(room), args, "digi.Changes", read).await
    }

    async fn history(&self, room: RoomId, before: Option<Seq>, limit: u32) -> Result<model::History, StoreError> {
        let args = (room.0, before.map(Seq::get), limit);
        let read = |history: History| history.0;
        self.call(Hands::Readers, Call::new("history").on(room), args, "digi.History", read).await
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<(RoomId, model::Head)>, StoreError> {
        let args = (rooms.iter().map(|room| room.0).collect::<Vec<_>>(),);
        let read = |heads: Vec<(i64, u64, u64)>| {
            heads.into_iter().map(|(room, epoch, seq)| (RoomId(room), head(epoch, seq))).collect()
        };
        self.call(Hands::Readers, Call::new("heads"), args, "a list of (room, epoch, last_seq)", read).await
    }

    async fn change_marker(&self) -> Result<Option<u64>, StoreError> {
        self.call(Hands::Writer, Call::new("change_marker"), (), "int or None", |marker: Option<u64>| marker).await
    }

    async fn raise_epoch(&self, room: RoomId, seen: Cursor, now: Millis) -> Result<model::Head, StoreError> {
        let args = (room.0, (seen.epoch.0, seen.seq.0), now.0);
        let read = |head: Head| head.0;
        self.call(Hands::Writer, Call::new("raise_epoch").on(room), args, "digi.Head", read).await
    }

    async fn raise_all(&self, now: Millis) -> Result<(), StoreError> {
        self.call(Hands::Writer, Call::new("raise_all"), (now.0,), "None", nothing).await
    }

    async fn create_room(&self, room: &model::NewRoom, now: Millis) -> Result<RoomId, StoreError> {
        let call = Call::new("create_room").on(room.id.unwrap_or_default());
        self.call(Hands::Writer, call, (NewRoom(room.clone()), now.0), "int", RoomId).await
    }

    async fn purge(&self, room: RoomId, before: Millis) -> Result<u64, StoreError> {
        let args = (room.0, before.0);
        self.call(Hands::Writer, Call::new("purge").on(room), args, "int", |removed: u64| removed).await
    }
}

/// What a method returns that has nothing to say.
fn nothing(_: Py<PyAny>) {}
