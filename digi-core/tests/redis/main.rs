//! The layer on Redis, against real servers that the tests start.

mod server;
mod suites;
mod support;
