//! The C ABI of Digi: `libdigi.so` and `libdigi.a`, with `include/digi.h` generated from here.
//!
//! One file per object of the header. Its conventions, which every function keeps, are told at the header's top
//! (`header/top.h`); the functions' comments are the header's text. Every function runs inside `result::guard`, so that
//! no panic crosses.
#![allow(unsafe_code, reason = "every argument comes from C; each use says why it is sound")]
#![allow(clippy::missing_safety_doc, reason = "the header's conventions are the safety contract of every function")]
#![allow(non_camel_case_types, reason = "the names are C's")]

pub mod callback;
pub mod cipher;
pub mod config;
pub mod consumer;
pub mod engine;
pub mod fork;
pub mod frame;
pub mod handle;
pub mod host;
pub mod log;
pub mod model;
pub mod ready;
pub mod result;
#[cfg(feature = "server")]
pub mod server;
pub mod session;
pub mod store;
pub mod wait;
