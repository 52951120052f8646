//! The SQL Server store without a server: against a peer that speaks the protocol and does what a test has written down
//! for it. It answers, refuses, cuts and keeps silent at a given place, which a real server can't be made to do. What a
//! real server makes of the statements is tested in the target `mssql_server`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

mod connecting;
mod failing;
mod network;
mod peer;
mod proxy;
mod script;
mod secrets;
mod statements;
