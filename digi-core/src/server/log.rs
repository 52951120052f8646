//! The lines that operators know from Django's `runserver` and Daphne, under the target `digi::server`.
//!
//! A line shows the first characters of a token, never the whole: whoever reads a log must not get links out of it.
//! Queries and headers, which may carry a login, are not shown at all.

use std::fmt;
use std::net::SocketAddr;

use http::HeaderValue;
use tracing::info;

use crate::error::CloseCode;

const TARGET: &str = "digi::server";
/// Characters of a token that are shown.
const SHOWN: usize = 8;

/// How a connection is named in the log: `/ws/chat/AQBq3Vxd… [127.0.0.1:50312]`.
pub(super) struct Label {
    path: Box<str>,
    peer: SocketAddr,
}

impl Label {
    pub(super) fn new(route: &str, token: &str, peer: SocketAddr) -> Self {
        // A decoded token may contain anything, line ends included.
        let shown = token.chars().take(SHOWN).map(|c| if c.is_ascii_graphic() { c } else { '?' });
        let path: String = route.chars().chain(shown).chain(['…']).collect();
        Self { path: path.into(), peer }
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} [{}]", self.path, self.peer)
    }
}

pub(super) fn handshaking(label: &Label) {
    info!(target: TARGET, "HANDSHAKING {label}");
}

pub(super) fn connect(label: &Label) {
    info!(target: TARGET, "CONNECT {label}");
}

pub(super) fn reject(label: &Label, code: CloseCode) {
    info!(target: TARGET, "REJECT {label} {code}");
}

pub(super) fn disconnect(label: &Label, why: &impl fmt::Display) {
    info!(target: TARGET, "DISCONNECT {label} {why}");
}

pub(super) fn refused_origin(label: &Label, origin: Option<&HeaderValue>) {
    // Debug: the header is whatever the client wrote.
    info!(target: TARGET, ?origin, "REJECT {label} 403 origin");
}

pub(super) fn cannot_accept(error: &std::io::Error) {
    tracing::error!(target: TARGET, %error, "no connection can be accepted");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_shortened_and_tamed() {
        let peer = SocketAddr::from(([127, 0, 0, 1], 9));
        let label = |token| Label::new("/ws/chat/", token, peer).to_string();
        assert_eq!(label("AQBq3VxdSecretSecret"), "/ws/chat/AQBq3Vxd… [127.0.0.1:9]");
        assert_eq!(label("a\nb\u{1b}[31mX"), "/ws/chat/a?b?[31m… [127.0.0.1:9]");
    }
}
