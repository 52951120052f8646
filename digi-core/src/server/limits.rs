//! The server's bounds.

use std::time::Duration;

use crate::error::{Code, Error};

/// The bounds of a [`Server`](super::Server). Change what you need:
///
/// ```
/// use std::time::Duration;
/// use digi_core::server::ServerLimits;
///
/// let limits = ServerLimits { ping_interval: Duration::from_secs(20), ..ServerLimits::default() };
/// # let _ = limits;
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServerLimits {
    /// Sockets at once, whether still in the handshake or open. One more gets HTTP 503. Each needs a file
    /// descriptor: raise the process's limit to match. Default: 20,000.
    pub max_connections: u32,
    /// How long a client may take to send its HTTP request, and the engine to let it in. Default: 10 s.
    pub handshake_timeout: Duration,
    /// How long an [`Authenticator`](super::Authenticator) may take, before the connection is closed with 4001; and
    /// a fallback, before its client gets HTTP 503. Default: 5 s.
    pub auth_timeout: Duration,
    /// The longest request line and headers together, in bytes; more gets HTTP 431. Default: 16 KiB.
    pub header_bytes: usize,
    /// The longest message from a client that is read at all, in bytes. More gets an `error` frame and then close code
    /// 1009, because the rest of it is not read. Above the consumer's own
    /// [`frame_bytes`](crate::consumer::ConsumerLimits::frame_bytes), so that a message between the two costs an
    /// `error` frame only. Default: 256 KiB.
    pub frame_bytes: usize,
    /// After how much silence a client is pinged. Default: 30 s.
    pub ping_interval: Duration,
    /// How long a pinged client may stay silent, before it is closed with 4002. Default: 20 s.
    pub ping_timeout: Duration,
    /// How long a client may take nothing of what is to be written to it, before it is cut off. Default: 20 s.
    pub write_timeout: Duration,
    /// How long a closed client may take to answer, before it is cut off. Default: 5 s.
    pub close_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            max_connections: 20_000,
            handshake_timeout: Duration::from_secs(10),
            auth_timeout: Duration::from_secs(5),
            header_bytes: 16 * 1024,
            frame_bytes: 256 * 1024,
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
            write_timeout: Duration::from_secs(20),
            close_timeout: Duration::from_secs(5),
        }
    }
}

impl ServerLimits {
    pub(super) fn check(&self) -> Result<(), Error> {
        let zero = [
            ("max_connections", self.max_connections == 0),
            ("handshake_timeout", self.handshake_timeout.is_zero()),
            ("auth_timeout", self.auth_timeout.is_zero()),
            ("header_bytes", self.header_bytes == 0),
            ("frame_bytes", self.frame_bytes == 0),
            ("ping_interval", self.ping_interval.is_zero()),
            ("ping_timeout", self.ping_timeout.is_zero()),
            ("write_timeout", self.write_timeout.is_zero()),
            ("close_timeout", self.close_timeout.is_zero()),
        ];
        match zero.iter().find(|(_, is_zero)| *is_zero) {
            Some((name, _)) => Err(Code::Config.with(format!("the server's limit {name} is zero"))),
            None => Ok(()),
        }
    }
}
