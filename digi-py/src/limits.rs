//! An engine's bounds by name.

use std::collections::BTreeMap;

use digi_core::engine::Limits;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyMapping;

/// Every name once, with the field that it stands for.
macro_rules! limits {
    ($($name:literal => $($field:ident).+;)+) => {
        fn set(limits: &mut Limits, name: &str, value: u64) -> Result<(), String> {
            match name {
                $($name => {
                    limits.$($field).+ = value.try_into().map_err(|_| format!("limits: {name} is too large: {value}"))?;
                    Ok(())
                })+
                other => Err(format!("limits: there is no {other:?}; there are {}", NAMES.join(", "))),
            }
        }

        const NAMES: &[&str] = &[$($name),+];

        /// Every bound by name, with its default.
        #[allow(clippy::useless_conversion, reason = "the fields have several types")]
        pub(crate) fn defaults() -> BTreeMap<&'static str, u64> {
            let limits = Limits::default();
            BTreeMap::from([$(($name, u64::try_from(limits.$($field).+).unwrap_or(u64::MAX))),+])
        }
    };
}

limits! {
    "frame_bytes" => consumer.frame_bytes;
    "body_bytes" => consumer.body_bytes;
    "in_flight" => consumer.in_flight;
    "history" => consumer.reset_history;
    "replay_bytes" => consumer.replay_bytes;
    "frames_per_second" => consumer.frames.per_second;
    "frames_burst" => consumer.frames.burst;
    "refusals_per_second" => consumer.refusals.per_second;
    "refusals_burst" => consumer.refusals.burst;
    "outbox_frames" => outbox.frames;
    "outbox_bytes" => outbox.bytes;
    "room_sessions" => room.sessions;
    "sessions" => sessions;
    "sessions_per_user" => sessions_per_user;
    "queued" => queued;
    "batch" => batch;
    "close_spread_ms" => close_spread;
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
        set(&mut limits, &name, number).map_err(PyValueError::new_err)?;
    }
    Ok(limits)
}
