//! Every failure of Digi becomes one of the classes in `digi.errors`.

use digi_core::store::StoreError;
use digi_core::{CloseCode, Code, Error};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// What a call on the Rust side fails with.
#[derive(Debug)]
pub(crate) enum Failure {
    Digi(Error),
    /// The connection is closed, or was not taken.
    Closed(CloseCode),
    Python(PyErr),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Digi(error)
    }
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Self::Digi(code.into())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Digi(error.into())
    }
}

impl From<CloseCode> for Failure {
    fn from(code: CloseCode) -> Self {
        Self::Closed(code)
    }
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Python(error)
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        let (number, name, detail) = match failure {
            Failure::Digi(error) => (error.code().number(), error.code().name(), error.detail().to_owned()),
            Failure::Closed(code) => (code.number(), code.name(), code.text().to_owned()),
            Failure::Python(error) => return error,
        };
        Python::attach(|py| {
            static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
            let make = MAKE.import(py, "digi.errors", "_make");
            match make.and_then(|make| make.call1((number, name, detail))) {
                Ok(error) => PyErr::from_value(error),
                Err(error) => error,
            }
        })
    }
}
