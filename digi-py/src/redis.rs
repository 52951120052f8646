//! `digi._digi.RedisLink`: a connection to Redis for the channel layer, whose formats are written in Python.
//!
//! All connections are served by one thread. Commands go out in batches and answers come back in batches: one hop to that
//! thread and back for each of them, not for each command. What Redis pushes to subscribers gathers until Python takes
//! all of it, in the event loop that has subscribed last: most often it comes with an answer, and both are one wake-up.
//! Where that loop is gone, or doesn't come to it, a thread of Python's takes it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::exceptions::{PyConnectionError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{
    Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo, PushKind,
    TlsCertificates, Value,
};
use tokio::sync::{Notify, OnceCell, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::warn;

use crate::errors::Failure;
use crate::hub::{self, Errand, Hub};
use crate::pending::Pending;
use crate::runtime::{self, Owned};

/// How many messages wait for Python. Beyond, the oldest are dropped.
const INBOX: usize = 100_000;
/// How many of them are taken at once: an event loop has other things to do, too.
const TAKEN: usize = 1_000;
/// How long messages wait for the event loop that takes them. Then a thread does.
const PATIENCE: Duration = Duration::from_millis(100);
/// How long an answer may take, but for commands that wait by themselves.
const ANSWER: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(3);
/// How often a connection is used at the least: a broken one is noticed then, and made anew.
const ALIVE: Duration = Duration::from_secs(3);
/// How many changes of subscriptions wait. Beyond, they are refused.
const CHANGES: usize = 10_000;
/// Between two attempts to connect.
const DELAY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

#[pyclass(frozen, weakref, module = "digi._digi")]
pub(crate) struct RedisLink(Arc<Owned<Link>>);

struct Link {
    client: Client,
    /// Whether its commands wait for something to happen: no limit, then.
    waits: bool,
    manager: OnceCell<ConnectionManager>,
    inbox: Arc<Inbox>,
    keeper: Mutex<Option<AbortHandle>>,
    changes: Mutex<Option<mpsc::Sender<Change>>>,
}

/// Channels to be subscribed to, or no longer, and whom to tell. Done one after the other, in the order in which they
/// were asked for: what is subscribed to in the end is what was asked for last.
struct Change {
    channels: Vec<String>,
    subscribe: bool,
    done: oneshot::Sender<Result<(), Failure>>,
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.lock().take() {
            keeper.abort();
        }
    }
}

/// What Redis has pushed. The lock is never held while Python runs.
#[derive(Default)]
struct Inbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<(Vec<u8>, Vec<u8>)>,
    dropped: u64,
    /// The event loop that takes the messages, and what it calls to do so.
    taker: Option<(Arc<Hub>, Arc<Py<PyAny>>)>,
    /// Since when the loop has been told, and has not come to it.
    told: Option<Instant>,
    /// The thread that takes them where no loop does.
    thread: Option<Waker>,
}

impl Inbox {
    fn push(&self, info: PushInfo) {
        if info.kind != PushKind::Message {
            return;
        }
        let mut data = info.data.into_iter();
        let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) = (data.next(), data.next()) else {
            return;
        };
        let mut waiting = self.waiting.lock();
        if waiting.messages.len() >= INBOX {
            waiting.messages.pop_front();
            waiting.dropped += 1;
            if waiting.dropped.is_power_of_two() {
                warn!(
                    dropped = waiting.dropped,
                    "more comes from Redis than the event loop takes; the oldest is dropped"
                );
            }
        }
        waiting.messages.push_back((channel, payload));
        self.arrived.notify_one();
    }

    /// Tells the event loop, once for all that it has not taken yet, or the thread.
    fn tell(&self) {
        let mut waiting = self.waiting.lock();
        if waiting.messages.is_empty() || waiting.told.is_some() {
            return;
        }
        if let Some((hub, take)) = waiting.taker.clone() {
            waiting.told = Some(Instant::now());
            drop(waiting);
            let is_there = hub.push(Errand::Call(Box::new(move |py| {
                if let Err(error) = take.call0(py) {
                    error.write_unraisable(py, Some(take.bind(py)));
                }
            })));
            if !is_there {
                self.give_up_on_the_loop();
            }
        } else if let Some(thread) = waiting.thread.take() {
            thread.wake();
        }
    }

    /// It is closed, or doesn't come to it.
    fn give_up_on_the_loop(&self) {
        let mut waiting = self.waiting.lock();
        if waiting.told.take().is_some() {
            waiting.taker = None;
            if let Some(thread) = waiting.thread.take() {
                thread.wake();
            }
        }
    }

    fn take(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut waiting = self.waiting.lock();
        waiting.told = None;
        if waiting.messages.len() > TAKEN {
            self.arrived.notify_one();
        }
        let count = waiting.messages.len().min(TAKEN);
        waiting.messages.drain(..count).collect()
    }
}

/// Lets the tasks run that are ready. (`yield_now` would look for what has come in the meantime, too.)
async fn behind_the_others() {
    let mut has_been = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_been, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Runs for as long as the link is there.
async fn tell(inbox: Weak<Inbox>) {
    while let Some(inbox) = inbox.upgrade() {
        let told = inbox.waiting.lock().told;
        let until = told.map_or_else(|| Instant::now() + ALIVE, |told| told + PATIENCE);
        if tokio::time::timeout_at(until, inbox.arrived.notified()).await.is_err() {
            inbox.give_up_on_the_loop();
        } else {
            // An answer that came with it goes the same way.
            behind_the_others().await;
            inbox.tell();
        }
    }
}

impl Link {
    async fn manager(&self) -> Result<ConnectionManager, Failure> {
        let made = self.manager.get_or_try_init(|| self.connect()).await.map_err(connection_error)?;
        Ok(made.clone())
    }

    async fn run(link: Arc<Owned<Self>>, pipeline: Pipeline) -> Result<Vec<Value>, Failure> {
        let mut manager = link.get()?.manager().await?;
        pipeline.query_async(&mut manager).await.map_err(connection_error)
    }

    /// The queue of changes, and the task behind it, which ends with the link.
    fn changes(link: &Arc<Owned<Self>>) -> Result<mpsc::Sender<Change>, Failure> {
        let mut known = link.get()?.changes.lock();
        if let Some(changes) = &*known {
            return Ok(changes.clone());
        }
        let (sender, mut changes) = mpsc::channel::<Change>(CHANGES);
        let link = Arc::downgrade(link);
        runtime::redis()?.spawn(async move {
            while let Some(Change { channels, subscribe, done }) = changes.recv().await {
                let Some(link) = link.upgrade() else { return };
                // Nobody may wait for it any more.
                let _ = done.send(link.change(channels, subscribe).await);
            }
        });
        *known = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(&self) -> redis::RedisResult<ConnectionManager> {
        let inbox = self.inbox.clone();
        let push = move |info: PushInfo| -> Result<(), redis::aio::SendError> {
            inbox.push(info);
            Ok(())
        };
        let config = ConnectionManagerConfig::new()
            .set_min_delay(DELAY.0)
            .set_max_delay(DELAY.1)
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout((!self.waits).then_some(ANSWER))
            .set_push_sender(push)
            .set_automatic_resubscription();
        let manager = ConnectionManager::new_with_config(self.client.clone(), config).await?;
        tokio::spawn(tell(Arc::downgrade(&self.inbox)));
        if !self.waits {
            let mut kept = manager.clone();
            let keeper = tokio::spawn(async move {
                loop {
                    tokio::time::sleep(ALIVE).await;
                    // Whether it fails is of no interest: it is made anew then.
                    let _: redis::RedisResult<Value> = redis::cmd("PING").query_async(&mut kept).await;
                }
            });
            *self.keeper.lock() = Some(keeper.abort_handle());
        }
        Ok(manager)
    }
}

impl Owned<Link> {
    async fn change(&self, channels: Vec<String>, subscribe: bool) -> Result<(), Failure> {
        let mut manager = self.get()?.manager().await?;
        let changed = match subscribe {
            true => manager.subscribe(channels).await,
            false => manager.unsubscribe(channels).await,
        };
        changed.map_err(connection_error)
    }
}

fn certificates(ca: Option<&str>, cert: Option<&str>, key: Option<&str>) -> PyResult<TlsCertificates> {
    let read = |path: &str| {
        let unreadable = |error| PyValueError::new_err(format!("Redis: cannot read {path} for TLS: {error}"));
        std::fs::read(path).map_err(unreadable)
    };
    let client_tls = match (cert, key) {
        (Some(cert), Some(key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
        (None, None) => None,
        _ => return Err(PyValueError::new_err("Redis: a client certificate for TLS needs both, cert and key")),
    };
    Ok(TlsCertificates { client_tls, root_cert: ca.map(read).transpose()? })
}

fn connection_error(error: redis::RedisError) -> Failure {
    PyConnectionError::new_err(format!("Redis: {error}")).into()
}

#[pymethods]
impl RedisLink {
    /// `ca`, `cert` and `key` are files in PEM for TLS (`rediss://`): the authority, where it is none of the system's, and
    /// what Redis is shown.
    #[new]
    #[pyo3(signature = (url, *, waits=false, ca=None, cert=None, key=None))]
    fn new(url: &str, waits: bool, ca: Option<&str>, cert: Option<&str>, key: Option<&str>) -> PyResult<Self> {
        // The URL may have a password in it, and what is wrong with it is said without.
        let wrong = |_| PyValueError::new_err("a Redis URL looks like redis://[user:password@]host[:6379][/db]");
        let info = url.into_connection_info().map_err(wrong)?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let info = info.set_redis_settings(settings);
        let client = match info.addr() {
            ConnectionAddr::TcpTls { .. } => {
                let certificates = certificates(ca, cert, key)?;
                let unusable = |_| PyValueError::new_err("Redis: a certificate or key for TLS is not in PEM");
                Client::build_with_tls(info, certificates).map_err(unusable)?
            }
            _ => Client::open(info).map_err(wrong)?,
        };
        let link = Link {
            client,
            waits,
            manager: OnceCell::new(),
            inbox: Arc::default(),
            keeper: Mutex::default(),
            changes: Mutex::default(),
        };
        Ok(Self(Arc::new(Owned::new(link))))
    }

    /// Begins at once; commands of one link are done in their order.
    fn run(&self, commands: Vec<Vec<PyBackedBytes>>) -> PyResult<Pending> {
        let running = runtime::redis()?.spawn(Link::run(self.0.clone(), pipeline(&commands)?));
        let work = async move { running.await.map_err(|_| Failure::from(digi_core::Code::Internal))? };
        Ok(Pending::new(work, |py, answers| Ok(list(py, answers)?.unbind())))
    }

    /// The same, for an event loop that has no task for it: it calls `done` with the answers and None, or with None and
    /// what went wrong.
    fn submit(&self, py: Python<'_>, commands: Vec<Vec<PyBackedBytes>>, done: Py<PyAny>) -> PyResult<()> {
        let hub = hub::current(py)?.hub;
        let running = Link::run(self.0.clone(), pipeline(&commands)?);
        runtime::redis()?.spawn(async move {
            let answers = running.await;
            hub.push(Errand::Call(Box::new(move |py| {
                let answers = answers.map_err(PyErr::from).and_then(|answers| list(py, answers));
                let told = match answers {
                    Ok(answers) => done.call1(py, (answers, py.None())),
                    Err(error) => done.call1(py, (py.None(), error)),
                };
                if let Err(error) = told {
                    error.write_unraisable(py, Some(done.bind(py)));
                }
            })));
        });
        Ok(())
    }

    /// The event loop that runs here calls `take` from now on when something has come.
    fn subscribe(&self, py: Python<'_>, channels: Vec<String>, take: Py<PyAny>) -> PyResult<Pending> {
        let hub = hub::current(py)?.hub;
        let mut waiting = self.0.get()?.inbox.waiting.lock();
        // What the other loop has been told of is still that one's.
        if !matches!(&waiting.taker, Some((taker, _)) if Arc::ptr_eq(taker, &hub)) && waiting.told.is_none() {
            waiting.taker = Some((hub, Arc::new(take)));
        }
        drop(waiting);
        self.change(channels, true)
    }

    fn unsubscribe(&self, channels: Vec<String>) -> PyResult<Pending> {
        self.change(channels, false)
    }

    /// What has come, or the first of it.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let messages = self.0.get()?.inbox.take();
        let pairs = messages.iter().map(|(channel, payload)| (PyBytes::new(py, channel), PyBytes::new(py, payload)));
        PyList::new(py, pairs.collect::<Vec<_>>())
    }

    /// Waits until there is something to take and no event loop that does so.
    fn is_left(&self) -> PyResult<Pending> {
        let inbox = self.0.get()?.inbox.clone();
        let work = poll_fn(move |cx| {
            let mut waiting = inbox.waiting.lock();
            if waiting.messages.is_empty() || waiting.taker.is_some() {
                waiting.thread = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Ok(()))
        });
        Ok(Pending::lazy(work, |py, ()| Ok(py.None())))
    }

    fn __repr__(&self) -> PyResult<String> {
        Ok(format!("<digi.RedisLink to {}>", self.0.get()?.client.get_connection_info().addr()))
    }
}

impl RedisLink {
    fn change(&self, channels: Vec<String>, subscribe: bool) -> PyResult<Pending> {
        let (done, changed) = oneshot::channel();
        let change = Change { channels, subscribe, done };
        Link::changes(&self.0)?
            .try_send(change)
            .map_err(|_| PyConnectionError::new_err("Redis: too many subscriptions wait to be changed"))?;
        let work = async move { changed.await.map_err(|_| Failure::from(digi_core::Code::Internal))? };
        Ok(Pending::new(work, |py, ()| Ok(py.None())))
    }
}

fn pipeline(commands: &[Vec<PyBackedBytes>]) -> PyResult<Pipeline> {
    let mut pipeline = Pipeline::with_capacity(commands.len());
    for command in commands {
        let (name, arguments) = command.split_first().ok_or_else(|| PyValueError::new_err("an empty command"))?;
        let name = std::str::from_utf8(name).map_err(|_| PyValueError::new_err("a command has a name"))?;
        pipeline.cmd(name);
        for argument in arguments {
            pipeline.arg(&argument[..]);
        }
    }
    Ok(pipeline)
}

fn list(py: Python<'_>, values: Vec<Value>) -> PyResult<Bound<'_, PyAny>> {
    let values = values.into_iter().map(|value| python(py, value)).collect::<PyResult<Vec<_>>>()?;
    Ok(PyList::new(py, values)?.into_any())
}

fn python(py: Python<'_>, value: Value) -> PyResult<Py<PyAny>> {
    Ok(match value {
        Value::Nil => py.None(),
        Value::Int(number) => number.into_pyobject(py)?.into_any().unbind(),
        Value::Double(number) => number.into_pyobject(py)?.into_any().unbind(),
        Value::Boolean(is_so) => is_so.into_pyobject(py)?.to_owned().into_any().unbind(),
        Value::BulkString(bytes) => PyBytes::new(py, &bytes).into_any().unbind(),
        Value::SimpleString(text) => PyBytes::new(py, text.as_bytes()).into_any().unbind(),
        Value::Okay => PyBytes::new(py, b"OK").into_any().unbind(),
        Value::Array(values) | Value::Set(values) => list(py, values)?.unbind(),
        _ => return Err(PyConnectionError::new_err("Redis: an answer of a kind that nobody asked for")),
    })
}
