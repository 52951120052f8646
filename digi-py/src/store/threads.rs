//! The threads on which a Python store runs: one that writes and two that read, so that a slow read holds up no commit
//! and every thread may keep a database connection of its own.
//!
//! What is asked waits in bounded queues; whoever brings more waits. A thread keeps its Python state while it waits,
//! and with it what libraries keep per thread.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver as Ended, RecvTimeoutError, Sender as Alive, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use digi_core::store::StoreError;
use parking_lot::{Mutex, RwLock};
use pyo3::intern;
use pyo3::prelude::*;
use tokio::sync::{mpsc, oneshot};

/// What waits for the writer, and for the readers, at most.
const QUEUE: usize = 64;
const READERS: usize = 2;

/// How long the end of the interpreter waits for what a store is doing.
const PATIENCE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce(&Bound<'_, PyAny>) + Send>;
type Jobs = Arc<Mutex<mpsc::Receiver<Job>>>;

/// Which threads do something.
#[derive(Clone, Copy)]
pub(super) enum Hands {
    Writer,
    Readers,
}

/// The ways to a store's threads. They end when it is dropped, once they have done what waits. Nobody waits for that:
/// they need Python, which whoever drops this may be holding.
pub(super) struct Threads {
    /// None once the interpreter ends.
    queues: RwLock<Option<[mpsc::Sender<Job>; 2]>>,
    ended: Mutex<Ended<()>>,
    /// Threads do not follow into a forked child.
    process: u32,
}

/// All that there are, for the end of the interpreter.
static ALL: Mutex<Vec<Weak<Threads>>> = Mutex::new(Vec::new());

/// The threads that have not ended, those of dropped stores too, and the process in which they run.
static ALIVE: AtomicUsize = AtomicUsize::new(0);
static PROCESS: AtomicU32 = AtomicU32::new(0);

/// One of them. It has left Python when this is dropped.
struct Living;

impl Living {
    fn begin() -> Self {
        let process = std::process::id();
        if PROCESS.swap(process, Ordering::SeqCst) != process {
            // The parent's are not here.
            ALIVE.store(0, Ordering::SeqCst);
        }
        ALIVE.fetch_add(1, Ordering::SeqCst);
        Self
    }

    fn are_gone() -> bool {
        PROCESS.load(Ordering::SeqCst) != std::process::id() || ALIVE.load(Ordering::SeqCst) == 0
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Threads {
    pub(super) fn start(object: Py<PyAny>) -> PyResult<Arc<Self>> {
        let object = Arc::new(object);
        let (alive, ended) = channel();
        let hands = |name: &str, count: usize| -> PyResult<mpsc::Sender<Job>> {
            let (queue, jobs) = mpsc::channel(QUEUE);
            let jobs: Jobs = Arc::new(Mutex::new(jobs));
            for _ in 0..count {
                let (object, jobs, alive) = (object.clone(), jobs.clone(), (alive.clone(), Living::begin()));
                std::thread::Builder::new().name(name.into()).spawn(move || serve(object, &jobs, alive))?;
            }
            Ok(queue)
        };
        let queues = [hands("digi-store-writer", 1)?, hands("digi-store-reader", READERS)?];
        let (queues, ended) = (RwLock::new(Some(queues)), Mutex::new(ended));
        let threads = Arc::new(Self { queues, ended, process: std::process::id() });
        remember(&threads)?;
        Ok(threads)
    }

    /// Runs a call with the store on one of the threads. `lost` is what it fails with when the thread ends before its
    /// answer.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        hands: Hands,
        lost: fn(String) -> StoreError,
        call: impl FnOnce(&Bound<'_, PyAny>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let gone = |why: &str| StoreError::Unavailable(why.into());
        if self.process != std::process::id() {
            return Err(gone("the store was opened before a fork; open one in this process"));
        }
        let queue = self.queues.read().as_ref().map(|queues| queues[hands as usize].clone());
        let queue = queue.ok_or_else(|| gone("the interpreter is shutting down"))?;
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |store| {
            // A question that nobody waits for any more is not asked. What writes is done in any case.
            if matches!(hands, Hands::Readers) && answer.is_closed() {
                return;
            }
            let _ = answer.send(call(store));
        });
        queue.send(job).await.map_err(|_| gone("the store's thread has ended"))?;
        answered.await.map_err(|_| lost("the store's thread has ended".into()))?
    }

    /// Lets the threads do what waits and end; whether they have ended by the deadline. Python must not be held.
    pub(super) fn end(&self, deadline: Instant) -> bool {
        if self.process != std::process::id() {
            return true;
        }
        drop(self.queues.write().take());
        let patience = deadline.saturating_duration_since(Instant::now());
        self.ended.lock().recv_timeout(patience) != Err(RecvTimeoutError::Timeout)
    }
}

/// The life of a thread; `_alive` tells its end.
fn serve(object: Arc<Py<PyAny>>, jobs: &Jobs, _alive: (Alive<()>, Living)) {
    let served = Python::try_attach(|py| {
        let store = object.bind(py);
        while let Some(job) = py.detach(|| jobs.lock().blocking_recv()) {
            job(store);
        }
        release(store);
        drop(object);
    });
    if served.is_none() {
        tracing::debug!("a store's thread has no interpreter to run in");
    }
}

/// Lets the store close what it keeps for this thread.
fn release(store: &Bound<'_, PyAny>) {
    let method = intern!(store.py(), "release");
    let released = match store.getattr_opt(method) {
        Ok(Some(release)) => release.call0().map(drop),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = released {
        tracing::warn!("a store's release() failed: {error}");
    }
}

fn remember(threads: &Arc<Threads>) -> PyResult<()> {
    let is_first = {
        let mut all = ALL.lock();
        all.retain(|known| known.strong_count() > 0);
        let is_first = all.capacity() == 0;
        all.push(Arc::downgrade(threads));
        is_first
    };
    if is_first {
        Python::attach(|py| {
            let end = wrap_pyfunction!(end_all, py)?;
            py.import(intern!(py, "atexit"))?.call_method1(intern!(py, "register"), (end,)).map(drop)
        })?;
    }
    Ok(())
}

/// What the interpreter calls while threads can still run Python.
#[pyfunction]
fn end_all(py: Python<'_>) {
    py.detach(|| {
        let deadline = Instant::now() + PATIENCE;
        let all: Vec<_> = ALL.lock().drain(..).filter_map(|known| known.upgrade()).collect();
        for threads in all {
            if !threads.end(deadline) {
                tracing::warn!("a store is still busy while the interpreter shuts down");
            }
        }
        // Those of stores that were dropped just before are on their way out: a thread that comes back to an interpreter
        // that is gone takes the process with it.
        while !Living::are_gone() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}
