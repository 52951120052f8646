//! A bridge to stock Channels, as Python describes it.

use digi_core::layer::{BridgeFormat, BridgeOptions};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyMapping, PyString};

use crate::cipher::Secret;

const KEYS: &str = "format, hosts, prefix, symmetric_encryption_keys, group, capacity, expiry and group_expiry";

/// The options out of a format's name, or a mapping with `format` and what else is not as it is by default.
pub(crate) fn options_of(given: &Bound<'_, PyAny>) -> PyResult<BridgeOptions> {
    if let Ok(name) = given.cast::<PyString>() {
        return Ok(BridgeOptions::new(format_of(&name.to_cow()?)?));
    }
    let wrong = || PyTypeError::new_err("bridge: \"pubsub\", \"core\", or a mapping with the key \"format\"");
    let given = given.cast::<PyMapping>().map_err(|_| wrong())?;
    let items: Vec<(String, Bound<'_, PyAny>)> = given.items()?.extract().map_err(|_| wrong())?;
    let format = items.iter().find(|(key, _)| key == "format").ok_or_else(wrong)?;
    let format: String = format.1.extract().map_err(|_| wrong())?;
    let mut options = BridgeOptions::new(format_of(&format)?);
    for (key, value) in items {
        let type_error = |wanted: &str| PyTypeError::new_err(format!("bridge: {key} is {wanted}"));
        let number = || value.extract::<u32>().map_err(|_| type_error("an int, 1 or more"));
        let text = || value.extract::<String>().map_err(|_| type_error("a str"));
        options = match key.as_str() {
            "format" => options,
            "hosts" => {
                let hosts = value.extract::<Vec<String>>().map_err(|_| type_error("a list of URLs"))?;
                hosts.into_iter().fold(options, BridgeOptions::host)
            }
            "prefix" => options.prefix(text()?),
            "symmetric_encryption_keys" => {
                let keys = value.extract::<Vec<Secret>>().map_err(|_| type_error("a list of str or bytes"))?;
                keys.iter().fold(options, |options, key| options.key(&key.0))
            }
            "group" => options.groups(text()?),
            "capacity" => options.capacity(number()?),
            "expiry" => options.expiry(number()?),
            "group_expiry" => options.group_expiry(number()?),
            other => return Err(PyValueError::new_err(format!("bridge: there is no {other:?}; there are {KEYS}"))),
        };
    }
    Ok(options)
}

fn format_of(name: &str) -> PyResult<BridgeFormat> {
    match name {
        "pubsub" => Ok(BridgeFormat::PubSub),
        "core" => Ok(BridgeFormat::Core),
        other => Err(PyValueError::new_err(format!("bridge: the format is \"pubsub\" or \"core\", not {other:?}"))),
    }
}
