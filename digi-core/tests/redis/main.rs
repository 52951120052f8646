//! The layer on Redis, against real servers that the tests start.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[cfg(feature = "bridge")]
mod bridge;
mod cluster;
mod engines;
mod faults;
mod fleet;
mod input;
mod proxy;
mod secrets;
mod sentinel;
mod server;
mod suites;
mod support;
mod tls;
mod urls;
