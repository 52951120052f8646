//! `digi.Engine`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use digi_core::consumer::Scope;
use digi_core::engine::{Engine as CoreEngine, Limits, Speaker};
use digi_core::layer::BridgeOptions;
use digi_core::store::model::{MAX_HISTORY, NewRoom, Outcome as CoreOutcome, Role};
use digi_core::token::Keyring;
use digi_core::{ClientId, Code, Error, MessageId, RoomId, Seq, UserKey};
use parking_lot::Mutex;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyMapping, PyString};

use crate::cipher::TokenCipher;
use crate::errors::Failure;
use crate::observer::{Observer, PATIENCE};
use crate::pending::Pending;
use crate::runtime::{self, Owned};
use crate::session::Session;
use crate::store::{self, Message, Outcome};
use crate::{bridge, limits, logging};

#[pyclass(frozen, weakref, module = "digi._digi")]
pub(crate) struct Engine(Arc<Inner>);

struct Inner {
    keyring: Keyring,
    store: Store,
    layer: String,
    bridge: Option<BridgeOptions>,
    strict: bool,
    presence: bool,
    limits: Limits,
    observer: Arc<Observer>,
    state: Mutex<State>,
    /// Held while the engine is being opened.
    opening: tokio::sync::Mutex<()>,
}

enum Store {
    Url(String),
    Python(Py<PyAny>),
}

enum State {
    New,
    Open(Owned<CoreEngine>),
    Ended,
}

impl Inner {
    /// The running engine.
    fn engine(&self) -> Result<CoreEngine, Failure> {
        match &*self.state.lock() {
            State::Open(engine) => Ok(engine.get()?.clone()),
            State::Ended => Err(Code::EngineClosed.into()),
            State::New => {
                Err(Code::EngineClosed.with("the engine is not open: use `async with`, or call open()").into())
            }
        }
    }

    /// Opens the engine, unless it is open.
    async fn open(&self, store: Option<Py<PyAny>>) -> Result<(), Failure> {
        let _opening = self.opening.lock().await;
        match &*self.state.lock() {
            State::New => {}
            State::Open(_) => return Ok(()),
            State::Ended => return Err(Code::EngineClosed.into()),
        }
        let builder = CoreEngine::builder().keys(self.keyring.clone()).layer(&self.layer);
        let builder = builder.limits(self.limits).strict(self.strict).presence(self.presence);
        let observer = self.observer.clone();
        let builder = builder.observer(move |changes| observer.handle_committed(changes));
        let builder = match &self.bridge {
            Some(options) => builder.bridge(options.clone()),
            None => builder,
        };
        let builder = match (&self.store, store) {
            (_, Some(object)) => builder.store_object(store::bridge(object)?),
            (Store::Url(url), None) => builder.store(url),
            (Store::Python(_), None) => return Err(Code::Internal.into()),
        };
        let engine = builder.build().await?;
        {
            let mut state = self.state.lock();
            if matches!(*state, State::New) {
                *state = State::Open(Owned::new(engine));
                return Ok(());
            }
        }
        // Closed in the meantime.
        engine.close().await;
        Err(Code::EngineClosed.into())
    }

    async fn close(&self) {
        let engine = {
            let mut state = self.state.lock();
            match &*state {
                State::Open(engine) => engine.get().ok().cloned(),
                // One that is being opened is not waited for: its store may take long.
                State::New | State::Ended => {
                    *state = State::Ended;
                    None
                }
            }
        };
        if let Some(engine) = engine {
            engine.close().await;
            // What is left of it goes with its last session.
            *self.state.lock() = State::Ended;
            let observer = self.observer.clone();
            if observer.is_wanted() {
                // That it panics is not to be.
                let _ = tokio::task::spawn_blocking(move || observer.end(PATIENCE)).await;
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Nobody can store anything any more; what was stored is told.
        self.observer.end(Duration::ZERO);
    }
}

impl Engine {
    /// The running engine, for the server.
    pub(crate) fn core(&self) -> Result<CoreEngine, Failure> {
        self.0.engine()
    }

    fn act<F>(&self, work: impl FnOnce(CoreEngine) -> F) -> PyResult<Pending>
    where
        F: Future<Output = Result<CoreOutcome, Error>> + Send + 'static,
    {
        // Spawned, so that it is done whoever waits for it.
        let doing = runtime::handle()?.spawn(work(self.0.engine()?));
        let work = async move { Ok(doing.await.map_err(|_| Failure::from(Code::Internal))??) };
        Ok(Pending::new(work, |py, outcome| Ok(Bound::new(py, Outcome::new(outcome))?.into_any().unbind())))
    }
}

fn speaker(user: String, user_name: String, as_host: bool) -> Speaker {
    if as_host { Speaker::host(user, user_name) } else { Speaker::user(user, user_name) }
}

pub(crate) fn role(name: &str) -> PyResult<Role> {
    match name {
        "member" => Ok(Role::Member),
        "moderator" => Ok(Role::Moderator),
        other => Err(PyValueError::new_err(format!("role: \"member\" or \"moderator\", not {other:?}"))),
    }
}

#[pymethods]
impl Engine {
    #[classattr]
    #[allow(non_snake_case)]
    fn LIMITS() -> BTreeMap<&'static str, u64> {
        limits::defaults()
    }

    #[new]
    #[pyo3(signature = (
        cipher, store=None, *, layer="local:".to_owned(), bridge=None, presence=false, strict=false, limits=None
    ))]
    #[pyo3(text_signature = "(cipher, store='memory:', *, layer='local:', bridge=None, presence=False, strict=False, \
                             limits=None)")]
    fn new(
        cipher: &Bound<'_, PyAny>,
        store: Option<&Bound<'_, PyAny>>,
        layer: String,
        bridge: Option<&Bound<'_, PyAny>>,
        presence: bool,
        strict: bool,
        limits: Option<&Bound<'_, PyMapping>>,
    ) -> PyResult<Self> {
        let store = match store {
            None => Store::Url("memory:".to_owned()),
            Some(object) => match object.cast::<PyString>() {
                Ok(url) => Store::Url(url.extract()?),
                Err(_) if object.hasattr("apply")? => Store::Python(object.clone().unbind()),
                Err(_) => {
                    return Err(PyTypeError::new_err(
                        "store: a URL (\"memory:\", \"sqlite:path\", \"mssql://…\") or a digi.Store",
                    ));
                }
            },
        };
        let keyring = TokenCipher::keyring_of(cipher)?;
        let limits = limits::with(limits)?;
        let bridge = bridge.map(bridge::options_of).transpose()?;
        Ok(Self(Arc::new(Inner {
            keyring,
            store,
            layer,
            bridge,
            strict,
            presence,
            limits,
            observer: Arc::default(),
            state: Mutex::new(State::New),
            opening: tokio::sync::Mutex::default(),
        })))
    }

    fn open(slf: Bound<'_, Self>) -> PyResult<Pending> {
        let py = slf.py();
        logging::start(py)?;
        let inner = slf.get().0.clone();
        let store = match &inner.store {
            Store::Url(_) => None,
            Store::Python(object) => Some(object.clone_ref(py)),
        };
        let opening = runtime::handle()?.spawn(async move { inner.open(store).await });
        let work = async move { opening.await.map_err(|_| Failure::from(Code::Internal))? };
        let engine = slf.unbind();
        Ok(Pending::new(work, move |_, ()| Ok(engine.into_any())))
    }

    fn close(&self) -> PyResult<Pending> {
        let inner = self.0.clone();
        // Not only when it is waited for: nothing new is taken in from here on.
        let closing = runtime::handle()?.spawn(async move { inner.close().await });
        let work = async move { closing.await.map_err(|_| Failure::from(Code::Internal)) };
        Ok(Pending::new(work, |py, ()| Ok(py.None())))
    }

    fn __aenter__(slf: Bound<'_, Self>) -> PyResult<Pending> {
        Self::open(slf)
    }

    #[pyo3(signature = (kind, error, trace))]
    fn __aexit__(
        &self,
        kind: Option<Bound<'_, PyAny>>,
        error: Option<Bound<'_, PyAny>>,
        trace: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Pending> {
        let _ = (kind, error, trace);
        self.close()
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Py<PyAny>> {
        let py = slf.py();
        Self::open(slf)?.wait(py, None)
    }

    #[pyo3(signature = (kind, error, trace))]
    fn __exit__(
        &self,
        py: Python<'_>,
        kind: Option<Bound<'_, PyAny>>,
        error: Option<Bound<'_, PyAny>>,
        trace: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = (kind, error, trace);
        self.close()?.wait(py, None).map(drop)
    }

    #[getter]
    fn cipher(&self) -> TokenCipher {
        TokenCipher(self.0.keyring.clone())
    }

    #[getter]
    fn is_closed(&self) -> bool {
        match &*self.0.state.lock() {
            State::New => false,
            State::Open(engine) => engine.get().is_ok_and(CoreEngine::is_closed),
            State::Ended => true,
        }
    }

    #[getter]
    fn is_open(&self) -> bool {
        self.0.engine().is_ok_and(|engine| !engine.is_closed())
    }

    #[expect(clippy::too_many_arguments, reason = "they are the keywords of a call in Python")]
    #[pyo3(signature = (token, user, user_name=None, *, after=None, origin=None, remote=None, login=None))]
    fn connect(
        &self,
        token: String,
        user: String,
        user_name: Option<String>,
        after: Option<String>,
        origin: Option<String>,
        remote: Option<String>,
        login: Option<String>,
    ) -> PyResult<Pending> {
        let engine = self.0.engine()?;
        let user_name = user_name.as_deref().unwrap_or(&user).into();
        let scope = Scope {
            token,
            user: UserKey::from(user.as_str()),
            user_name,
            after,
            origin,
            remote,
            login: login.map(Into::into),
        };
        let work = async move { Ok(engine.connect(scope).await?) };
        Ok(Pending::new(work, |py, session| Ok(Bound::new(py, Session::new(session, user))?.into_any().unbind())))
    }

    #[pyo3(signature = (room, user, user_name, text, *, client_id=None, as_host=false))]
    fn post(
        &self,
        room: i64,
        user: String,
        user_name: String,
        text: String,
        client_id: Option<&str>,
        as_host: bool,
    ) -> PyResult<Pending> {
        let client_id = match client_id {
            Some(id) => Some(ClientId::new(id).ok_or(Failure::from(Code::BadClientId))?),
            None => None,
        };
        let speaker = speaker(user, user_name, as_host);
        self.act(|engine| async move { engine.post(RoomId(room), &speaker, &text, client_id).await })
    }

    #[pyo3(signature = (room, user, user_name, message_id, text, *, as_host=false))]
    fn edit(
        &self,
        room: i64,
        user: String,
        user_name: String,
        message_id: i64,
        text: String,
        as_host: bool,
    ) -> PyResult<Pending> {
        let speaker = speaker(user, user_name, as_host);
        self.act(|engine| async move { engine.edit(RoomId(room), &speaker, MessageId(message_id), &text).await })
    }

    #[pyo3(signature = (room, user, user_name, message_id, *, as_host=false))]
    fn delete(&self, room: i64, user: String, user_name: String, message_id: i64, as_host: bool) -> PyResult<Pending> {
        let speaker = speaker(user, user_name, as_host);
        self.act(|engine| async move { engine.delete(RoomId(room), &speaker, MessageId(message_id)).await })
    }

    #[pyo3(signature = (room, user, user_name, role="member"))]
    fn add_member(&self, room: i64, user: String, user_name: String, role: &str) -> PyResult<Pending> {
        let role = self::role(role)?;
        self.act(|engine| async move { engine.add_member(RoomId(room), user, user_name, role).await })
    }

    fn remove_member(&self, room: i64, user: String) -> PyResult<Pending> {
        self.act(|engine| async move { engine.remove_member(RoomId(room), user).await })
    }

    #[pyo3(signature = (members=Vec::new(), *, name=String::new(), kind=String::new(), id=None))]
    #[pyo3(text_signature = "($self, members=(), *, name='', kind='', id=None)")]
    fn create_room(
        &self,
        members: Vec<(String, String, String)>,
        name: String,
        kind: String,
        id: Option<i64>,
    ) -> PyResult<Pending> {
        let engine = self.0.engine()?;
        let members: PyResult<_> =
            members.into_iter().map(|(key, name, as_)| Ok((key.into(), name.into(), role(&as_)?))).collect();
        let room = NewRoom { id: id.map(RoomId), name, kind, members: members? };
        let work = async move { Ok(engine.create_room(&room).await?) };
        Ok(Pending::new(work, |py, room| Ok(room.get().into_pyobject(py)?.into_any().unbind())))
    }

    #[pyo3(signature = (room, before=None, limit=50))]
    fn history(&self, room: i64, before: Option<u64>, limit: u32) -> PyResult<Pending> {
        if limit > MAX_HISTORY {
            return Err(PyValueError::new_err(format!("limit: at most {MAX_HISTORY}")));
        }
        let engine = self.0.engine()?;
        let reading =
            runtime::handle()?.spawn(async move { engine.store().history(RoomId(room), before.map(Seq), limit).await });
        let work = async move { Ok(reading.await.map_err(|_| Failure::from(Code::Internal))??.messages) };
        Ok(Pending::new(work, |py, messages| {
            let messages: Vec<Message> = messages.into_iter().map(Message::new).collect();
            Ok(messages.into_pyobject(py)?.unbind())
        }))
    }

    fn kick(&self, user: &str) -> PyResult<()> {
        self.0.engine()?.kick(user);
        Ok(())
    }

    fn end_login(&self, user: &str, login: &str) -> PyResult<()> {
        self.0.engine()?.end_login(user, login);
        Ok(())
    }

    fn logins(&self) -> PyResult<Vec<(String, String)>> {
        let logins = self.0.engine()?.logins();
        Ok(logins.into_iter().map(|(user, login)| (user.to_string(), login.to_string())).collect())
    }

    fn observe(&self, py: Python<'_>, observer: Py<PyAny>) -> PyResult<()> {
        if matches!(&*self.0.state.lock(), State::Open(engine) if engine.get().is_err()) {
            return Err(Failure::from(Code::EngineForked).into());
        }
        self.0.observer.start(py, observer)
    }

    fn restored(&self) -> PyResult<Pending> {
        let engine = self.0.engine()?;
        Ok(Pending::new(async move { Ok(engine.restored().await?) }, |py, ()| Ok(py.None())))
    }

    fn stats(&self) -> PyResult<BTreeMap<&'static str, u64>> {
        let stats = self.0.engine()?.stats();
        Ok(BTreeMap::from([
            ("sessions", stats.sessions),
            ("rooms", stats.rooms),
            ("queued", stats.queued),
            ("committed", stats.committed),
            ("refused", stats.refused),
            ("duplicates", stats.duplicates),
            ("batches", stats.batches),
            ("deliveries", stats.deliveries),
            ("layer_up", stats.layer_up.into()),
            ("layer_undecodable", stats.layer_undecodable),
            ("layer_lagged", stats.layer_lagged),
            ("bridge_up", stats.bridge_up.into()),
            ("bridge_sent", stats.bridge_sent),
            ("bridge_received", stats.bridge_received),
            ("bridge_lost", stats.bridge_lost),
            ("bridge_undecodable", stats.bridge_undecodable),
            ("ignored_claims", stats.ignored_claims),
        ]))
    }

    fn __repr__(&self) -> &'static str {
        match &*self.0.state.lock() {
            State::New => "<digi.Engine, not open>",
            State::Open(_) => "<digi.Engine, open>",
            State::Ended => "<digi.Engine, closed>",
        }
    }
}
