//! The server over real sockets, with tokio-tungstenite's client or bare bytes on the other side.

mod chat;
mod frames;
mod handshake;
mod life;
mod support;
