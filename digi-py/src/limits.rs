//! An engine's bounds by name.

use std::collections::BTreeMap;

use digi_core::engine::Limits;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyMapping;

/// Every bound by name, with its default.
pub(crate) fn defaults() -> BTreeMap<&'static str, u64> {
    Limits::default().named().into_iter().collect()
}

/// The bounds with those of a mapping put in.
pub(crate) fn with(changes: Option<&Bound<'_, PyMapping>>) -> PyResult<Limits> {
    let mut limits = Limits::default();
    let Some(changes) = changes else { return Ok(limits) };
    for item in changes.items()? {
        let (name, value) = item.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
        let name: String = name.extract().map_err(|_| PyTypeError::new_err("limits: names are str"))?;
        let number = value.extract::<u64>();
        let number = number.map_err(|_| PyTypeError::new_err(format!("limits: {name} is an int, 0 or more")))?;
        limits.set(&name, number).map_err(|error| PyValueError::new_err(error.detail().to_owned()))?;
    }
    Ok(limits)
}
