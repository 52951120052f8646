//! `digi._digi.RedisLink`: a connection to Redis for the channel layer, whose formats are written in Python.
//!
//! Commands go out in batches and answers come back in batches: one hop to another thread and back for each of them,
//! not for each command. What Redis pushes to subscribers gathers until Python takes all of it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::exceptions::{PyConnectionError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, IntoConnectionInfo, Pipeline, ProtocolVersion, PushInfo, PushKind, Value};
use tokio::sync::{OnceCell, mpsc, oneshot};
use tokio::task::AbortHandle;
use tracing::warn;

use crate::errors::Failure;
use crate::pending::Pending;
use crate::runtime::{self, Owned};

/// How many messages wait for Python. Beyond, the oldest are dropped.
const INBOX: usize = 100_000;
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

#[derive(Default)]
struct Inbox(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    messages: VecDeque<(Vec<u8>, Vec<u8>)>,
    dropped: u64,
    reader: Option<Waker>,
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
        let mut waiting = self.0.lock();
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
        if let Some(reader) = waiting.reader.take() {
            reader.wake();
        }
    }
}

impl Link {
    async fn manager(&self) -> Result<ConnectionManager, Failure> {
        let made = self.manager.get_or_try_init(|| self.connect()).await.map_err(connection_error)?;
        Ok(made.clone())
    }

    /// The queue of changes, and the task behind it, which ends with the link.
    fn changes(link: &Arc<Owned<Self>>) -> Result<mpsc::Sender<Change>, Failure> {
        let mut known = link.get()?.changes.lock();
        if let Some(changes) = &*known {
            return Ok(changes.clone());
        }
        let (sender, mut changes) = mpsc::channel::<Change>(CHANGES);
        let link = Arc::downgrade(link);
        runtime::handle()?.spawn(async move {
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

fn connection_error(error: redis::RedisError) -> Failure {
    PyConnectionError::new_err(format!("Redis: {error}")).into()
}

#[pymethods]
impl RedisLink {
    #[new]
    #[pyo3(signature = (url, *, waits=false))]
    fn new(url: &str, waits: bool) -> PyResult<Self> {
        // The URL may have a password in it, and what is wrong with it is said without.
        let wrong = |_| PyValueError::new_err("a Redis URL looks like redis://[user:password@]host[:6379][/db]");
        let info = url.into_connection_info().map_err(wrong)?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(settings)).map_err(wrong)?;
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
        let mut pipeline = Pipeline::with_capacity(commands.len());
        for command in &commands {
            let (name, arguments) = command.split_first().ok_or_else(|| PyValueError::new_err("an empty command"))?;
            let name = std::str::from_utf8(name).map_err(|_| PyValueError::new_err("a command has a name"))?;
            pipeline.cmd(name);
            for argument in arguments {
                pipeline.arg(&argument[..]);
            }
        }
        let link = self.0.clone();
        let running = runtime::handle()?.spawn(async move {
            let mut manager = link.get()?.manager().await?;
            pipeline.query_async::<Vec<Value>>(&mut manager).await.map_err(connection_error)
        });
        let work = async move { running.await.map_err(|_| Failure::from(digi_core::Code::Internal))? };
        Ok(Pending::new(work, |py, answers: Vec<Value>| {
            let answers = answers.into_iter().map(|answer| python(py, answer)).collect::<PyResult<Vec<_>>>()?;
            Ok(PyList::new(py, answers)?.into_any().unbind())
        }))
    }

    fn subscribe(&self, channels: Vec<String>) -> PyResult<Pending> {
        self.change(channels, true)
    }

    fn unsubscribe(&self, channels: Vec<String>) -> PyResult<Pending> {
        self.change(channels, false)
    }

    /// Everything that has come since the last time; waits until there is something.
    fn received(&self) -> PyResult<Pending> {
        let inbox = self.0.get()?.inbox.clone();
        let work = poll_fn(move |cx| {
            let mut waiting = inbox.0.lock();
            if waiting.messages.is_empty() {
                waiting.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(Ok(std::mem::take(&mut waiting.messages)))
        });
        Ok(Pending::lazy(work, |py, messages| {
            let pairs =
                messages.iter().map(|(channel, payload)| (PyBytes::new(py, channel), PyBytes::new(py, payload)));
            Ok(PyList::new(py, pairs.collect::<Vec<_>>())?.into_any().unbind())
        }))
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

fn python(py: Python<'_>, value: Value) -> PyResult<Py<PyAny>> {
    Ok(match value {
        Value::Nil => py.None(),
        Value::Int(number) => number.into_pyobject(py)?.into_any().unbind(),
        Value::Double(number) => number.into_pyobject(py)?.into_any().unbind(),
        Value::Boolean(is_so) => is_so.into_pyobject(py)?.to_owned().into_any().unbind(),
        Value::BulkString(bytes) => PyBytes::new(py, &bytes).into_any().unbind(),
        Value::SimpleString(text) => PyBytes::new(py, text.as_bytes()).into_any().unbind(),
        Value::Okay => PyBytes::new(py, b"OK").into_any().unbind(),
        Value::Array(values) | Value::Set(values) => {
            let values = values.into_iter().map(|value| python(py, value)).collect::<PyResult<Vec<_>>>()?;
            PyList::new(py, values)?.into_any().unbind()
        }
        _ => return Err(PyConnectionError::new_err("Redis: an answer of a kind that nobody asked for")),
    })
}
