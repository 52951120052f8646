//! `digi.serve` and `digi.Server`: the Rust server, with a login that Python checks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use digi_core::UserKey;
use digi_core::server::{
    AuthError, Authenticator, Identity, Origins as CoreOrigins, Server as CoreServer, ServerHandle,
};
use http::request::Parts;
use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyCFunction, PyDict};
use tokio::sync::{Semaphore, oneshot};
use tracing::warn;

use crate::engine::Engine;
use crate::errors::Failure;
use crate::hub::{self, Errand, Hub};
use crate::pending::Pending;
use crate::runtime::{self, Owned};

/// Plain functions that run at once. Further ones wait, and those who wait too long are answered 4001.
const THREADS: usize = 32;

#[pyclass(frozen, weakref, module = "digi._digi")]
pub(crate) struct Server {
    address: SocketAddr,
    handle: Mutex<Option<Owned<ServerHandle>>>,
}

#[pyclass(frozen, module = "digi._digi")]
pub(crate) struct Handshake {
    #[pyo3(get)]
    path: String,
    #[pyo3(get)]
    query: String,
    #[pyo3(get)]
    headers: Vec<(String, String)>,
    #[pyo3(get)]
    remote: String,
}

impl Handshake {
    fn new(request: &Parts, remote: SocketAddr) -> Self {
        let latin_1 = |value: &[u8]| value.iter().map(|byte| char::from(*byte)).collect();
        let headers = request.headers.iter();
        Self {
            path: request.uri.path().to_owned(),
            query: request.uri.query().unwrap_or_default().to_owned(),
            headers: headers.map(|(name, value)| (name.to_string(), latin_1(value.as_bytes()))).collect(),
            remote: remote.to_string(),
        }
    }
}

#[pymethods]
impl Handshake {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn cookies<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let cookies = PyDict::new(py);
        let lines = self.headers.iter().filter(|(name, _)| name == "cookie");
        for (name, value) in lines.flat_map(|(_, line)| line.split(';')).filter_map(|part| part.split_once('=')) {
            cookies.set_item(name.trim(), value.trim().trim_matches('"'))?;
        }
        Ok(cookies)
    }
}

/// `digi.Origins`: the server's own check, for those who serve WebSockets otherwise.
#[pyclass(frozen, module = "digi._digi")]
pub(crate) struct Origins(CoreOrigins);

#[pymethods]
impl Origins {
    #[new]
    #[pyo3(signature = (origins=None))]
    fn new(origins: Option<Vec<String>>) -> Self {
        Self(origins.map_or_else(CoreOrigins::default, CoreOrigins::new))
    }

    #[pyo3(signature = (origin, host))]
    fn allow(&self, origin: Option<&str>, host: Option<&str>) -> bool {
        // Who sends none is no browser, and could write there whatever it likes.
        origin.is_none_or(|origin| self.0.allow_origin(origin, host))
    }
}

#[pymethods]
impl Server {
    #[getter]
    fn address(&self) -> String {
        self.address.to_string()
    }

    fn shutdown(&self) -> PyResult<Pending> {
        let handle = self.handle.lock().take();
        let runtime = runtime::handle()?;
        let stopping = match handle.map(Owned::into_inner) {
            Some(handle) => Some(runtime.spawn(handle?.shutdown())),
            None => None,
        };
        let work = async move {
            if let Some(stopping) = stopping {
                stopping.await.map_err(|_| Failure::from(digi_core::Code::Internal))?;
            }
            Ok(())
        };
        Ok(Pending::new(work, |py, ()| Ok(py.None())))
    }

    fn __aenter__(slf: Bound<'_, Self>) -> Pending {
        let server = slf.unbind();
        Pending::ready(move |_| Ok(server.into_any()))
    }

    #[pyo3(signature = (kind, error, trace))]
    fn __aexit__(
        &self,
        kind: Option<Bound<'_, PyAny>>,
        error: Option<Bound<'_, PyAny>>,
        trace: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Pending> {
        let _ = (kind, error, trace);
        self.shutdown()
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
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
        self.shutdown()?.wait(py, None).map(drop)
    }

    fn __repr__(&self) -> String {
        format!("<digi.Server on {}>", self.address)
    }
}

#[pyfunction]
#[pyo3(signature = (
    engine, listen="127.0.0.1:9001", *, authenticator, route="/ws/chat/", origins=None, reuse_port=false
))]
pub(crate) fn serve(
    py: Python<'_>,
    engine: &Bound<'_, Engine>,
    listen: &str,
    authenticator: Bound<'_, PyAny>,
    route: &str,
    origins: Option<Vec<String>>,
    reuse_port: bool,
) -> PyResult<Pending> {
    let mut builder = CoreServer::builder(engine.get().core()?).listen(listen).reuse_port(reuse_port).route(route);
    builder = builder.authenticator(PythonLogin::new(py, authenticator)?);
    if let Some(origins) = origins {
        builder = builder.origins(origins);
    }
    let starting = runtime::handle()?.spawn(builder.start());
    let work = async move { Ok(starting.await.map_err(|_| Failure::from(digi_core::Code::Internal))??) };
    Ok(Pending::new(work, |py, handle: ServerHandle| {
        let address = handle.local_addr();
        let server = Server { address, handle: Mutex::new(Some(Owned::new(handle))) };
        Ok(Bound::new(py, server)?.into_any().unbind())
    }))
}

/// Asks a Python function who a connection is.
struct PythonLogin {
    function: Arc<Py<PyAny>>,
    /// Where coroutines run; none for a plain function.
    event_loop: Option<(Arc<Hub>, Arc<Py<PyAny>>)>,
    threads: Arc<Semaphore>,
}

impl PythonLogin {
    fn new(py: Python<'_>, function: Bound<'_, PyAny>) -> PyResult<Self> {
        if !function.is_callable() {
            return Err(PyTypeError::new_err("authenticator: a function or coroutine function of one digi.Handshake"));
        }
        let is_async = |object: &Bound<'_, PyAny>| -> PyResult<bool> {
            py.import("inspect")?.call_method1("iscoroutinefunction", (object,))?.is_truthy()
        };
        let is_async = is_async(&function)? || is_async(&function.getattr("__call__")?)?;
        let event_loop = if is_async {
            let here = hub::current(py).map_err(|_| {
                PyRuntimeError::new_err("an async authenticator needs serve() to be called on its event loop")
            })?;
            Some((here.hub, Arc::new(here.event_loop.unbind())))
        } else {
            register_end(py)?;
            None
        };
        Ok(Self { function: Arc::new(function.unbind()), event_loop, threads: Arc::new(Semaphore::new(THREADS)) })
    }
}

#[async_trait]
impl Authenticator for PythonLogin {
    async fn authenticate(&self, request: &Parts, remote: SocketAddr) -> Result<Identity, AuthError> {
        let handshake = Handshake::new(request, remote);
        let function = self.function.clone();
        let answer = match &self.event_loop {
            Some((hub, event_loop)) => on_loop(hub, event_loop.clone(), function, handshake).await,
            None => in_thread(&self.threads, function, handshake).await,
        };
        answer.unwrap_or_else(|why| {
            warn!("the authenticator gave no answer: {why}");
            Err(AuthError::Unavailable)
        })
    }
}

type Answer = Result<Result<Identity, AuthError>, String>;

/// Plain functions that run now, in all servers, and whether the interpreter is about to end.
static RUNNING: AtomicUsize = AtomicUsize::new(0);
static ENDING: AtomicBool = AtomicBool::new(false);
/// How long the end of the interpreter waits for them: a thread that comes back to an interpreter that is gone takes the
/// process with it.
const PATIENCE: Duration = Duration::from_secs(10);

/// One of them.
struct Asking;

impl Asking {
    fn begin() -> Option<Self> {
        RUNNING.fetch_add(1, Ordering::SeqCst);
        let asking = Self;
        (!ENDING.load(Ordering::SeqCst)).then_some(asking)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        RUNNING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What the interpreter calls before it ends.
fn end() {
    ENDING.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + PATIENCE;
    while RUNNING.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn register_end(py: Python<'_>) -> PyResult<()> {
    static REGISTERED: PyOnceLock<()> = PyOnceLock::new();
    REGISTERED.get_or_try_init(py, || {
        let at_exit = PyCFunction::new_closure(py, None, None, |args, _| args.py().detach(end))?;
        py.import("atexit")?.call_method1("register", (at_exit,)).map(drop)
    })?;
    Ok(())
}

async fn in_thread(threads: &Arc<Semaphore>, function: Arc<Py<PyAny>>, handshake: Handshake) -> Answer {
    // It is never closed.
    let Ok(permit) = threads.clone().acquire_owned().await else { return Err("no thread".to_owned()) };
    let asked = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let _asking = Asking::begin()?;
        Python::try_attach(|py| {
            let answer = function.bind(py).call1((handshake,)).and_then(|answer| identity(&answer));
            answer.map_err(|error| error.to_string())
        })
    });
    asked.await.ok().flatten().unwrap_or_else(|| Err("the interpreter has ended".to_owned()))
}

/// A coroutine on its way; cancelled when nobody waits for it any more.
struct Running {
    hub: Arc<Hub>,
    task: Arc<Mutex<Option<Py<PyAny>>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let task = self.task.clone();
        self.hub.push(Errand::Call(Box::new(move |py| {
            if let Some(task) = task.lock().take() {
                // Does nothing to one that has ended.
                let _ = task.call_method0(py, "cancel");
            }
        })));
    }
}

async fn on_loop(hub: &Arc<Hub>, event_loop: Arc<Py<PyAny>>, function: Arc<Py<PyAny>>, handshake: Handshake) -> Answer {
    let (sender, answer) = oneshot::channel::<Answer>();
    let running = Running { hub: hub.clone(), task: Arc::default() };
    let slot = running.task.clone();
    hub.push(Errand::Call(Box::new(move |py| {
        let sender = Arc::new(Mutex::new(Some(sender)));
        let failed = sender.clone();
        let begin = || -> PyResult<()> {
            let task = event_loop.bind(py).call_method1("create_task", (function.bind(py).call1((handshake,))?,))?;
            let done = PyCFunction::new_closure(py, None, None, move |args, _| -> PyResult<()> {
                let answer = args.get_item(0)?.call_method0("result").and_then(|answer| identity(&answer));
                if let Some(sender) = sender.lock().take() {
                    let _ = sender.send(answer.map_err(|error| error.to_string()));
                }
                Ok(())
            })?;
            task.call_method1("add_done_callback", (done,))?;
            *slot.lock() = Some(task.unbind());
            Ok(())
        };
        if let Err(error) = begin()
            && let Some(sender) = failed.lock().take()
        {
            let _ = sender.send(Err(error.to_string()));
        }
    })));
    answer.await.unwrap_or_else(|_| Err("its event loop is closed".to_owned()))
}

/// What an authenticator may answer: nobody, a user's key, or key and name.
fn identity(answer: &Bound<'_, PyAny>) -> PyResult<Result<Identity, AuthError>> {
    let named = |user: String, name: &str, login: Option<String>| {
        let (name, login) = (name.into(), login.map(Into::into));
        Ok(Ok(Identity { user: UserKey::from(user), name, subprotocol: None, login }))
    };
    if answer.is_none() {
        Ok(Err(AuthError::Unauthenticated))
    } else if let Ok(user) = answer.extract::<String>() {
        let name = user.clone();
        named(user, &name, None)
    } else if let Ok((user, name)) = answer.extract::<(String, String)>() {
        named(user, &name, None)
    } else if let Ok((user, name, login)) = answer.extract::<(String, String, String)>() {
        named(user, &name, Some(login))
    } else {
        let kind = answer.get_type().name()?;
        Err(PyTypeError::new_err(format!(
            "an authenticator answers None, a key, (key, name) or (key, name, login), all str; not {kind}"
        )))
    }
}
