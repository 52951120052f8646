//! The server over real sockets, with tokio-tungstenite's client or bare bytes on the other side.

// What clippy.toml allows in tests it does not allow in their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod chat;
mod frames;
mod handshake;
mod life;
mod socket;
mod support;
