//! Who hears of what an engine has stored: a callable of Python's, in a thread of its own.
//!
//! The engine never waits for it: it puts copies into a bounded queue, and the thread takes all that is there at once.
//! As long as nobody wants to hear, nothing is copied and Python isn't troubled.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use digi_core::RoomId;
use digi_core::store::model::Outcome as CoreOutcome;
use parking_lot::{Condvar, Mutex};
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyList};
use tracing::warn;

use crate::store::Outcome;

/// Changes that wait for Python. A batch that finds so many is left out, and counted.
const WAITING: usize = 100_000;
/// How long the end of an engine, or of the interpreter, waits until Python has heard.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

type Changes = Vec<(RoomId, CoreOutcome)>;

#[derive(Default)]
pub(crate) struct Observer {
    /// The process that wants to hear: its thread does not exist in a child.
    wanted: AtomicU32,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: Changes,
    left_out: u64,
    /// Python is being told.
    telling: bool,
    ended: bool,
}

impl Observer {
    /// What is stored from now on is told to `callback`. Only the first one is taken.
    pub(crate) fn start(self: &Arc<Self>, py: Python<'_>, callback: Py<PyAny>) -> PyResult<()> {
        let process = std::process::id();
        if self.wanted.swap(process, Ordering::SeqCst) == process {
            return Ok(());
        }
        let observer = self.clone();
        std::thread::Builder::new().name("digi-observer".to_owned()).spawn(move || observer.run(&callback))?;
        let observer = Arc::downgrade(self);
        let at_exit = PyCFunction::new_closure(py, None, None, move |args, _| {
            if let Some(observer) = observer.upgrade() {
                args.py().detach(|| observer.end(PATIENCE));
            }
        })?;
        py.import("atexit")?.call_method1("register", (at_exit,))?;
        Ok(())
    }

    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst) == std::process::id()
    }

    /// Called by the engine.
    pub(crate) fn handle_committed(&self, changes: &[(RoomId, &CoreOutcome)]) {
        if !self.is_wanted() {
            return;
        }
        let mut queue = self.queue.lock();
        if queue.waiting.len() >= WAITING {
            queue.left_out += changes.len() as u64;
            let left_out = queue.left_out;
            drop(queue);
            warn!(left_out, "the observer is slower than what is stored, and isn't told of everything");
            return;
        }
        queue.waiting.extend(changes.iter().map(|(room, outcome)| (*room, (*outcome).clone())));
        self.changed.notify_all();
    }

    /// Waits until Python has heard of everything, and ends the thread. Python must not be held.
    pub(crate) fn end(&self, patience: Duration) {
        if !self.is_wanted() {
            return;
        }
        let mut queue = self.queue.lock();
        queue.ended = true;
        self.changed.notify_all();
        let is_busy = |queue: &mut Queue| queue.telling || !queue.waiting.is_empty();
        self.changed.wait_while_for(&mut queue, is_busy, patience);
    }

    /// The life of the thread, which stays attached to Python: coming and going takes a lock of the interpreter's that a
    /// fork may find held.
    fn run(&self, callback: &Py<PyAny>) {
        Python::try_attach(|py| {
            while let Some(changes) = py.detach(|| self.next()) {
                if let Err(error) = tell(py, callback, changes) {
                    error.write_unraisable(py, Some(callback.bind(py)));
                }
            }
        });
    }

    fn next(&self) -> Option<Changes> {
        let mut queue = self.queue.lock();
        queue.telling = false;
        self.changed.notify_all();
        self.changed.wait_while(&mut queue, |queue| queue.waiting.is_empty() && !queue.ended);
        queue.telling = !queue.waiting.is_empty();
        queue.telling.then(|| std::mem::take(&mut queue.waiting))
    }
}

fn tell(py: Python<'_>, callback: &Py<PyAny>, changes: Changes) -> PyResult<()> {
    let pairs = changes.into_iter().map(|(room, outcome)| (room.get(), Outcome::new(outcome)));
    callback.call1(py, (PyList::new(py, pairs.collect::<Vec<_>>())?,)).map(drop)
}
