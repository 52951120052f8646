//! placeholder
use digi_core::store::{Store, model};
use pyo3::prelude::*;
use std::sync::Arc;
#[pyclass(frozen, module = "digi._digi")]
pub(crate) struct Message(pub(crate) model::Message);
impl Message {
    pub(crate) fn new(m: model::Message) -> Self {
        Self(m)
    }
}
#[pyclass(frozen, module = "digi._digi")]
pub(crate) struct Outcome(pub(crate) model::Outcome);
impl Outcome {
    pub(crate) fn new(m: model::Outcome) -> Self {
        Self(m)
    }
}
pub(crate) fn bridge(_o: Py<PyAny>) -> PyResult<Arc<dyn Store>> {
    Ok(Arc::new(digi_core::store::memory::MemoryStore::new()))
}
