//! What it means when a Python store raises, or answers with something else than it should.

use digi_core::RoomId;
use digi_core::store::StoreError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// A call of one method: what its failures are told with.
#[derive(Clone, Copy)]
pub(super) struct Call {
    pub(super) method: &'static str,
    /// The room that it is about.
    pub(super) room: RoomId,
    /// What a failure is that says nothing about itself.
    pub(super) otherwise: fn(String) -> StoreError,
}

impl Call {
    /// A method that changes nothing, or only what may be done again.
    pub(super) const fn new(method: &'static str) -> Self {
        Self { method, room: RoomId(0), otherwise: StoreError::Unavailable }
    }

    /// After which nobody knows what was done.
    pub(super) const fn unknown(self) -> Self {
        Self { otherwise: StoreError::Unknown, ..self }
    }

    pub(super) const fn on(self, room: RoomId) -> Self {
        Self { room, ..self }
    }

    /// The store's error for an exception.
    pub(super) fn raised(self, py: Python<'_>, error: &PyErr) -> StoreError {
        let value = error.value(py);
        match class_of(py, error) {
            Ok(Some(make)) => {
                make(self, value.getattr("detail").map_or_else(|_| String::new(), |text| text.to_string()))
            }
            Ok(None) => self.failed(format!("{}: {value}", name(error.get_type(py).as_any()))),
            Err(broken) => self.failed(broken.to_string()),
        }
    }

    /// The store's error for an answer of the wrong type.
    pub(super) fn answered(self, answer: &Bound<'_, PyAny>, expected: &str, error: &PyErr) -> StoreError {
        let got = name(answer.get_type().as_any());
        self.failed(format!("it has to return {expected}, not {got} ({error})"))
    }

    fn failed(self, text: String) -> StoreError {
        tracing::warn!("the store's {}() failed: {text}", self.method);
        (self.otherwise)(format!("{}(): {text}", self.method))
    }
}

fn name(class: &Bound<'_, PyAny>) -> String {
    class.getattr("__qualname__").map_or_else(|_| "?".into(), |name| name.to_string())
}

type Make = fn(Call, String) -> StoreError;

/// What an exception of `digi.errors` stands for.
fn class_of(py: Python<'_>, error: &PyErr) -> PyResult<Option<Make>> {
    static CLASSES: PyOnceLock<Vec<(Py<PyAny>, Make)>> = PyOnceLock::new();
    let classes = CLASSES.get_or_try_init(py, || {
        let errors = py.import("digi.errors")?;
        // A class stands before the one that it is derived from.
        let makes: [(&str, Make); 7] = [
            ("NoSuchRoomError", |call, _| StoreError::NoSuchRoom(call.room)),
            ("RoomExistsError", |call, _| StoreError::RoomExists(call.room)),
            ("StoreUnknownError", |_, detail| StoreError::Unknown(detail)),
            ("StoreUnavailableError", |_, detail| StoreError::Unavailable(detail)),
            ("StoreFullError", |_, detail| StoreError::Full(detail)),
            ("StoreRejectedError", |_, detail| StoreError::Rejected(detail)),
            ("ConfigError", |_, detail| StoreError::Schema(detail)),
        ];
        let class = |(name, make)| Ok::<_, PyErr>((errors.getattr(name)?.unbind(), make));
        makes.into_iter().map(class).collect::<PyResult<_>>()
    })?;
    Ok(classes.iter().find(|(class, _)| error.is_instance(py, class.bind(py))).map(|(_, make)| *make))
}
