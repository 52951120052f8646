//! The module `digi._digi`: thin classes over digi-core. Documentation for its users stands in `_digi.pyi`.
#![allow(missing_docs, reason = "the stubs document what Python sees")]

mod errors;

use pyo3::prelude::*;

#[pymodule]
mod _digi {
    #[allow(non_upper_case_globals)]
    #[pymodule_export]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
