//! How Rust threads wake an event loop: one byte through a socket pair for everything that is ready at that time.
//!
//! Each event loop has a hub. Whoever has something for the loop puts it into the hub's queue; only the first one since
//! the loop last looked writes the byte. No Rust thread takes the GIL for that.

use std::cell::RefCell;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};

/// What the loop is to do.
pub(crate) enum Errand {
    /// Complete this future, so that what awaits it looks again.
    Wake(Py<PyAny>),
    /// Call this.
    Call(Box<dyn FnOnce(Python<'_>) + Send>),
}

/// The sending end of an event loop's hub.
pub(crate) struct Hub {
    /// Bounded by what waits on the loop: one errand each.
    queue: Mutex<Vec<Errand>>,
    signal: UnixStream,
    /// The loop is closed: nothing is done any more.
    closed: AtomicBool,
}

impl Hub {
    /// Drops the errand where the loop is closed; whether it isn't.
    pub(crate) fn push(&self, errand: Errand) -> bool {
        if self.closed.load(Ordering::Acquire) {
            return false;
        }
        let is_first = {
            let mut queue = self.queue.lock();
            queue.push(errand);
            queue.len() == 1
        };
        // Without the lock, which the loop wants as soon as it is awake.
        if is_first && matches!((&self.signal).write(&[1]), Err(error) if error.kind() != ErrorKind::WouldBlock) {
            // The other end went with the loop.
            self.closed.store(true, Ordering::Release);
            let errands = std::mem::take(&mut *self.queue.lock());
            drop(errands);
            return false;
        }
        true
    }
}

/// The receiving end: what the event loop calls when the socket is readable.
#[pyclass(frozen, weakref, module = "digi._digi")]
struct HubReader {
    hub: Arc<Hub>,
    socket: UnixStream,
}

#[pymethods]
impl HubReader {
    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        // Rarely more than one byte is under way.
        let _ = (&self.socket).read(&mut [0; 8]);
        let errands = std::mem::take(&mut *self.hub.queue.lock());
        let mut first_error = Ok(());
        for errand in errands {
            // One that fails must not keep the others asleep.
            let done = match errand {
                Errand::Wake(future) => wake(future.bind(py)),
                Errand::Call(call) => {
                    call(py);
                    Ok(())
                }
            };
            first_error = first_error.and(done);
        }
        first_error
    }
}

fn wake(future: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = future.py();
    if !future.call_method0(intern!(py, "done"))?.is_truthy()? {
        future.call_method1(intern!(py, "set_result"), (py.None(),))?;
    }
    Ok(())
}

/// An event loop and its hub.
pub(crate) struct Loop<'py> {
    pub(crate) event_loop: Bound<'py, PyAny>,
    pub(crate) hub: Arc<Hub>,
}

thread_local! {
    /// The hub of the loop that this thread asked for last.
    static LAST: RefCell<Option<(Py<PyWeakrefReference>, Arc<Hub>)>> = const { RefCell::new(None) };
}

/// The event loop that runs in this thread, if one does.
pub(crate) fn running_loop<'py>(py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
    static GET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let found = GET.import(py, "asyncio", "_get_running_loop")?.call0()?;
    Ok((!found.is_none()).then_some(found))
}

/// The running loop and its hub.
pub(crate) fn current(py: Python<'_>) -> PyResult<Loop<'_>> {
    let event_loop = running_loop(py)?
        .ok_or_else(|| PyRuntimeError::new_err("no asyncio event loop runs here; in a plain thread, call result()"))?;
    let known = LAST.with_borrow(|last| match last {
        Some((of, hub)) if of.bind(py).upgrade().is_some_and(|of| of.is(&event_loop)) => Some(hub.clone()),
        _ => None,
    });
    let hub = match known {
        Some(hub) => hub,
        None => {
            let hub = hub_of(&event_loop)?;
            let of = PyWeakrefReference::new(&event_loop)?.unbind();
            LAST.set(Some((of, hub.clone())));
            hub
        }
    };
    Ok(Loop { event_loop, hub })
}

fn hub_of(event_loop: &Bound<'_, PyAny>) -> PyResult<Arc<Hub>> {
    static HUBS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = event_loop.py();
    let hubs = HUBS.get_or_try_init(py, || {
        let hubs = py.import("weakref")?.getattr("WeakKeyDictionary")?.call0()?;
        PyResult::Ok(hubs.unbind())
    })?;
    let hubs = hubs.bind(py);
    let known = hubs.call_method1("get", (event_loop,))?;
    if let Ok(known) = known.cast::<PyWeakrefReference>()
        && let Some(reader) = known.upgrade_as::<HubReader>()?
    {
        return Ok(reader.get().hub.clone());
    }
    let (socket, signal) = UnixStream::pair()?;
    socket.set_nonblocking(true)?;
    signal.set_nonblocking(true)?;
    let hub = Arc::new(Hub { queue: Mutex::default(), signal, closed: AtomicBool::new(false) });
    let descriptor = socket.as_raw_fd();
    let reader = Bound::new(py, HubReader { hub: hub.clone(), socket })?;
    // The loop alone keeps the reader: when it is closed the socket is, and the hub notices.
    event_loop.call_method1("add_reader", (descriptor, &reader))?;
    hubs.set_item(event_loop, PyWeakrefReference::new(&reader)?)?;
    Ok(hub)
}
