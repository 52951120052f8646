//! The threads on which engines run: one tokio runtime per process, made at first use and kept.

use std::future::pending;
use std::io;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

use digi_core::Code;

use crate::errors::Failure;

/// More would only take turns: what Python does with the frames costs more than what Digi does for them.
const MOST_THREADS: usize = 4;

/// A runtime and the process that its threads belong to.
type Known = Mutex<Option<(u32, &'static Runtime)>>;

static RUNTIME: Known = Mutex::new(None);
static REDIS: Known = Mutex::new(None);

/// The runtime of this process. A forked child gets one of its own.
pub(crate) fn handle() -> Result<&'static Handle, Failure> {
    get(&RUNTIME, || {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
        let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name("digi").enable_all().build()?;
        Ok(Box::leak(Box::new(runtime)))
    })
}

/// The same for the channel layer's connections to Redis: one thread, because what goes from one task to another on its
/// way costs a wake-up of the other's thread where there are several.
pub(crate) fn redis() -> Result<&'static Handle, Failure> {
    get(&REDIS, || {
        let runtime: &'static Runtime = Box::leak(Box::new(Builder::new_current_thread().enable_all().build()?));
        std::thread::Builder::new().name("digi-redis".into()).spawn(|| runtime.block_on(pending::<()>()))?;
        Ok(runtime)
    })
}

/// What is made is kept for good: at the end of the process nobody waits for it, and a child must not try to end its
/// parent's.
fn get(known: &Known, make: impl FnOnce() -> io::Result<&'static Runtime>) -> Result<&'static Handle, Failure> {
    let mut known = known.lock();
    let process = std::process::id();
    if let Some((of, runtime)) = *known
        && of == process
    {
        return Ok(runtime.handle());
    }
    let runtime = make().map_err(|error| Code::Config.with(format!("threads could not be started: {error}")))?;
    *known = Some((process, runtime));
    Ok(runtime.handle())
}

/// Something that belongs to the process that made it: another one, forked from it, must neither use nor drop it.
/// Its locks may have been held at the fork, and its threads do not exist there.
#[derive(Debug)]
pub(crate) struct Owned<T> {
    process: u32,
    value: Option<T>,
}

impl<T> Owned<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { process: std::process::id(), value: Some(value) }
    }

    /// Gives the value away, in the process that made it.
    pub(crate) fn into_inner(mut self) -> Result<T, Failure> {
        self.get()?;
        self.value.take().ok_or(Code::EngineForked.into())
    }

    /// The value, in the process that made it.
    pub(crate) fn get(&self) -> Result<&T, Failure> {
        match &self.value {
            Some(value) if self.process == std::process::id() => Ok(value),
            _ => Err(Code::EngineForked.into()),
        }
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        if self.process != std::process::id() {
            std::mem::forget(self.value.take());
        }
    }
}
