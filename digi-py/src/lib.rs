//! The module `digi._digi`: thin classes over digi-core. Documentation for its users stands in `_digi.pyi`.
#![allow(missing_docs, reason = "the stubs document what Python sees")]

mod bridge;
mod cipher;
mod engine;
mod errors;
mod hub;
mod limits;
mod logging;
mod observer;
mod pending;
mod redis;
mod runtime;
mod server;
mod session;
mod store;

use pyo3::prelude::*;

#[pymodule]
mod _digi {
    #[allow(non_upper_case_globals)]
    #[pymodule_export]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_export]
    use crate::cipher::TokenCipher;
    #[pymodule_export]
    use crate::engine::Engine;
    #[pymodule_export]
    use crate::pending::Pending;
    #[pymodule_export]
    use crate::redis::RedisLink;
    #[pymodule_export]
    use crate::server::{Handshake, Origins, Server, serve};
    #[pymodule_export]
    use crate::session::Session;
    #[pymodule_export]
    use crate::store::{
        Applied, Batch, BatchId, ChangeRow, Changes, Command, Head, History, MemberAnswer, Message, NewRoom, Outcome,
        Plan, Planner, Subject, run_store_test, schema, store_suite_tests,
    };
}
