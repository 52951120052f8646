//! The store suite for stores in Python; `digi.testing` documents it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use digi_core::store::model::Action;
use digi_core::testing::store_suite as suite;
use parking_lot::Mutex;
use pyo3::exceptions::{PyAssertionError, PyKeyError, PyRuntimeError};
use pyo3::prelude::*;

use super::bridge::PythonStore;
use super::threads::Threads;

/// How long a store's threads may take to end after a test.
const PATIENCE: Duration = Duration::from_secs(60);

/// The threads of the stores that a test has opened.
type Opened = Arc<Mutex<Vec<Arc<Threads>>>>;

/// `digi.testing.Subject`.
#[pyclass(frozen, module = "digi.testing")]
pub(crate) struct Subject {
    store: Py<PyAny>,
    second: Option<Py<PyAny>>,
    reopen: Option<Py<PyAny>>,
    offender: Option<String>,
    bounded: bool,
    remembers_batches: bool,
}

#[pymethods]
impl Subject {
    #[new]
    #[pyo3(signature = (store, *, second = None, reopen = None, offender = None, bounded = false,
                        remembers_batches = false))]
    fn new(
        store: Py<PyAny>,
        second: Option<Py<PyAny>>,
        reopen: Option<Py<PyAny>>,
        offender: Option<String>,
        bounded: bool,
        remembers_batches: bool,
    ) -> Self {
        Self { store, second, reopen, offender, bounded, remembers_batches }
    }
}

impl Subject {
    fn core(&self, py: Python<'_>, opened: &Opened, told: &Arc<Mutex<Vec<String>>>) -> PyResult<suite::Subject> {
        let told = told.clone();
        let mut subject = suite::Subject::new(open(self.store.clone_ref(py), opened)?);
        subject = subject.telling(move |why| told.lock().push(why.to_owned()));
        if let Some(factory) = &self.second {
            subject = subject.second_handle(opener(factory.clone_ref(py), opened));
        }
        if let Some(factory) = &self.reopen {
            subject = subject.reopened_by(opener(factory.clone_ref(py), opened));
        }
        if let Some(body) = &self.offender {
            subject = subject.offender(Action::Add { body: body.as_str().into(), client_id: None });
        }
        if self.bounded {
            subject = subject.bounded();
        }
        Ok(if self.remembers_batches { subject.remembers_batches() } else { subject })
    }
}

fn open(store: Py<PyAny>, opened: &Opened) -> PyResult<PythonStore> {
    let store = PythonStore::new(store)?;
    opened.lock().push(store.threads());
    Ok(store)
}

#[allow(clippy::panic, reason = "this is how a test of the suite fails")]
fn opener(factory: Py<PyAny>, opened: &Opened) -> impl Fn() -> std::future::Ready<PythonStore> + Send + Sync + 'static {
    let opened = opened.clone();
    move || {
        let store = Python::attach(|py| open(factory.call0(py)?, &opened));
        std::future::ready(store.unwrap_or_else(|error| panic!("the store could not be opened: {error}")))
    }
}

#[pyfunction]
pub(crate) fn store_suite_tests() -> Vec<&'static str> {
    suite::all().iter().map(|(name, _)| *name).collect()
}

#[pyfunction]
pub(crate) fn run_store_test(py: Python<'_>, name: &str, factory: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let test = suite::all().iter().find(|(known, _)| *known == name);
    let (_, test) = test.ok_or_else(|| PyKeyError::new_err(format!("the store suite has no test {name:?}")))?;
    let (opened, told) = (Opened::default(), Arc::default());
    let made = factory.call0()?;
    let subject = made.cast::<Subject>()?.get().core(py, &opened, &told)?;
    // From here on only the suite holds the store, so that it can reopen it.
    drop(made);
    py.detach(|| {
        let run = AssertUnwindSafe(|| suite::run(|| std::future::ready(subject), test));
        let outcome = catch_unwind(run).map_err(|panic| PyAssertionError::new_err(text(&*panic)));
        let deadline = Instant::now() + PATIENCE;
        for threads in opened.lock().drain(..) {
            if !threads.end(deadline) {
                return Err(PyRuntimeError::new_err("the store's threads do not end"));
            }
        }
        outcome
    })?;
    Ok(std::mem::take(&mut *told.lock()))
}

fn text(panic: &(dyn Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().cloned();
    owned.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_else(|| "it panicked".into())
}
