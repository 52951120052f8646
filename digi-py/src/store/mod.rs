//! Stores that are written in Python, and the words in which they are spoken to.

mod batch;
mod bridge;
mod failure;
mod model;
mod planner;
mod room;
mod testing;
mod threads;

use std::sync::Arc;

use digi_core::store::{Store, mssql};
use pyo3::prelude::*;

pub(crate) use batch::{Applied, Batch, BatchId, Command};
pub(crate) use model::{Message, Outcome};
pub(crate) use planner::{Plan, Planner};
pub(crate) use room::{ChangeRow, Changes, Head, History, MemberAnswer, NewRoom};
pub(crate) use testing::{Subject, run_store_test, store_suite_tests};

/// A store around a Python object that follows `digi.Store`.
pub(crate) fn bridge(object: Py<PyAny>) -> PyResult<Arc<dyn Store>> {
    Ok(Arc::new(bridge::PythonStore::new(object)?))
}

/// The scripts that make the tables of a backend: version and SQL, in order. On SQL Server the first, of version 0, makes
/// the table that holds the version.
#[pyfunction]
pub(crate) fn schema(backend: &str) -> PyResult<Vec<(u32, &'static str)>> {
    match backend {
        "sqlite" => Ok((1..).zip(digi_core::store::sqlite::SCRIPTS.iter().copied()).collect()),
        "mssql" => {
            let scripts = std::iter::once(&mssql::VERSION_TABLE).chain(mssql::SCRIPTS);
            Ok((0..).zip(scripts.copied()).collect())
        }
        other => Err(pyo3::exceptions::PyValueError::new_err(format!("there is no schema for {other:?}"))),
    }
}
