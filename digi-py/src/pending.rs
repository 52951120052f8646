//! What is under way: awaited in an event loop, or waited for in a plain thread.
//!
//! A Rust future is polled by whoever waits for it, in Python's thread; nothing is spawned for it. While it is not
//! ready the awaiting task waits for an asyncio future, which the loop's hub completes when the Rust future is to be
//! polled again. The result is taken only then, so a cancelled await takes nothing.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyStopIteration, PyTimeoutError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;

use crate::errors::Failure;
use crate::hub::{self, Errand, Hub};
use crate::runtime;

/// Between two looks whether a signal has come, while a plain thread waits.
const SIGNALS: Duration = Duration::from_millis(100);

/// Makes the Python object out of a result; called with the GIL.
pub(crate) type Make = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;
type Work = Pin<Box<dyn Future<Output = Result<Make, Failure>> + Send>>;

/// `digi.Pending`.
#[pyclass(frozen, generic, module = "digi._digi")]
pub(crate) struct Pending {
    state: Mutex<State>,
    alarm: Arc<Alarm>,
}

enum State {
    Working(Work),
    /// An awaiting task was told to wait for the asyncio future behind this iterator.
    Waiting(Work, Py<PyAny>),
    Ready(Result<Make, Failure>),
    Taken,
}

/// Wakes the task that awaits a [`Pending`].
#[derive(Default)]
struct Alarm(Mutex<Bell>);

#[derive(Default)]
enum Bell {
    #[default]
    Quiet,
    Rung,
    Task(Arc<Hub>, Py<PyAny>),
}

impl Alarm {
    fn set(&self, bell: Bell) -> Bell {
        std::mem::replace(&mut *self.0.lock(), bell)
    }

    /// Nobody is to be woken any more. Who still waits is woken now, and finds that somebody else took over.
    fn hand_over(&self) {
        if let Bell::Task(hub, future) = self.set(Bell::Quiet) {
            hub.push(Errand::Wake(future));
        }
    }

    /// Has the future completed by the hub when the alarm rings; false if it has rung already.
    fn wake_later(&self, hub: Arc<Hub>, future: Py<PyAny>) -> bool {
        let mut bell = self.0.lock();
        if matches!(*bell, Bell::Rung) {
            return false;
        }
        *bell = Bell::Task(hub, future);
        true
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        if let Bell::Task(hub, future) = self.set(Bell::Rung) {
            hub.push(Errand::Wake(future));
        }
    }
}

impl Pending {
    /// Begins with the work, which is polled once here, and makes its result into what `make` gives.
    pub(crate) fn new<T, M>(work: impl Future<Output = Result<T, Failure>> + Send + 'static, make: M) -> Self
    where
        T: Send + 'static,
        M: FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    {
        let pending = Self::lazy(work, make);
        let waker = Waker::from(pending.alarm.clone());
        let polled = match pending.take() {
            State::Working(mut work) => match work.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(result) => State::Ready(result),
                Poll::Pending => State::Working(work),
            },
            state => state,
        };
        pending.put(polled);
        pending
    }

    /// Begins only when somebody waits: for work whose result must not be taken by nobody.
    pub(crate) fn lazy<T, M>(work: impl Future<Output = Result<T, Failure>> + Send + 'static, make: M) -> Self
    where
        T: Send + 'static,
        M: FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    {
        let work = async move {
            let result = work.await?;
            Ok(Box::new(move |py: Python<'_>| make(py, result)) as Make)
        };
        Self { state: Mutex::new(State::Working(Box::pin(work))), alarm: Arc::default() }
    }

    /// Something that is done already.
    pub(crate) fn ready(make: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send + 'static) -> Self {
        Self { state: Mutex::new(State::Ready(Ok(Box::new(make)))), alarm: Arc::default() }
    }

    /// What is there, for as long as it takes: the lock is never held while Python runs.
    fn take(&self) -> State {
        std::mem::replace(&mut *self.state.lock(), State::Taken)
    }

    fn put(&self, state: State) {
        *self.state.lock() = state;
    }

    /// Polls the work; if it isn't done, gives the asyncio future to wait for.
    fn step(&self, py: Python<'_>, mut work: Work) -> PyResult<Py<PyAny>> {
        let waker = Waker::from(self.alarm.clone());
        loop {
            self.alarm.hand_over();
            if let Poll::Ready(result) = work.as_mut().poll(&mut Context::from_waker(&waker)) {
                return Err(stop(result?(py)?));
            }
            match self.suspend(py) {
                Ok(Some((waiting, future))) => {
                    self.put(State::Waiting(work, waiting));
                    return Ok(future);
                }
                // The alarm has rung in the meantime.
                Ok(None) => {}
                Err(error) => {
                    self.put(State::Working(work));
                    return Err(error);
                }
            }
        }
    }

    /// An asyncio future that the alarm completes: its iterator, and what that gives for the loop to wait for.
    fn suspend(&self, py: Python<'_>) -> PyResult<Option<(Py<PyAny>, Py<PyAny>)>> {
        let here = hub::current(py)?;
        let future = here.event_loop.call_method0(intern!(py, "create_future"))?;
        let waiting = future.call_method0(intern!(py, "__await__"))?;
        let yielded = waiting.call_method0(intern!(py, "__next__"))?;
        let will_ring = self.alarm.wake_later(here.hub, future.unbind());
        Ok(will_ring.then(|| (waiting.unbind(), yielded.unbind())))
    }

    /// Waits without an event loop.
    pub(crate) fn wait(&self, py: Python<'_>, timeout: Option<Duration>) -> PyResult<Py<PyAny>> {
        if hub::running_loop(py)?.is_some() {
            return Err(PyRuntimeError::new_err(
                "an event loop runs in this thread, which result() would block: await it",
            ));
        }
        let runtime = runtime::handle()?;
        // Beyond what the clock can tell is for ever.
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut work = match self.take() {
            State::Working(work) | State::Waiting(work, _) => work,
            State::Ready(result) => return result?(py),
            State::Taken => return Err(taken()),
        };
        self.alarm.hand_over();
        loop {
            let left = until.map_or(SIGNALS, |until| until.saturating_duration_since(Instant::now()).min(SIGNALS));
            let waited = py.detach(|| runtime.block_on(async { tokio::time::timeout(left, &mut work).await }));
            if let Ok(result) = waited {
                return result?(py);
            }
            let interrupted = py.check_signals();
            let late = until.is_some_and(|until| until <= Instant::now());
            if interrupted.is_err() || late {
                self.put(State::Working(work));
                interrupted?;
                return Err(PyTimeoutError::new_err("not done in that time; it goes on"));
            }
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Whoever is to ring keeps the alarm, and with it what it would wake: a future, its loop.
        drop(self.alarm.set(Bell::Quiet));
    }
}

fn taken() -> PyErr {
    PyRuntimeError::new_err("this was awaited already, or is being waited for elsewhere")
}

#[pymethods]
impl Pending {
    fn __await__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        let this = slf.get();
        this.put(match this.take() {
            // An earlier await was cancelled.
            State::Waiting(work, _) => State::Working(work),
            state => state,
        });
        slf
    }

    /// For `yield from`, by which asyncio wraps awaitables into tasks.
    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        Self::__await__(slf)
    }

    /// One step of an await: gives an asyncio future to wait for, or raises `StopIteration` with the result.
    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let work = match self.take() {
            State::Ready(result) => return Err(stop(result?(py)?)),
            State::Taken => return Err(taken()),
            State::Working(work) => work,
            State::Waiting(work, waiting) => match waiting.call_method0(py, intern!(py, "__next__")) {
                // Asked again before it was time.
                Ok(future) => {
                    self.put(State::Waiting(work, waiting));
                    return Ok(future);
                }
                Err(error) if error.is_instance_of::<PyStopIteration>(py) => work,
                Err(error) => {
                    self.put(State::Working(work));
                    return Err(error);
                }
            },
        };
        self.step(py, work)
    }

    #[pyo3(signature = (timeout=None))]
    fn result(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let timeout = timeout.filter(|seconds| *seconds != f64::INFINITY);
        let timeout = timeout.map(Duration::try_from_secs_f64).transpose();
        let timeout = timeout.map_err(|_| PyValueError::new_err("timeout: a number of seconds, 0 or more, or None"))?;
        self.wait(py, timeout)
    }
}

fn stop(value: Py<PyAny>) -> PyErr {
    PyStopIteration::new_err((value,))
}
