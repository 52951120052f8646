//! Why no connection came about, and which setting would change that.

use std::io;

use tiberius::error::{Error, IoErrorKind};

use super::{Failure, Kind, by_number};
use crate::store::mssql::options::{Encrypt, HANDSHAKE_TIMEOUT, MssqlOptions, Trust};

impl Failure {
    /// The TCP connection didn't come about.
    pub(in crate::store::mssql) fn of_tcp(error: &io::Error, options: &MssqlOptions) -> Self {
        let address = options.address();
        let text = match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                format!("nothing listens on {address}: check host and port, and that the server takes TCP connections")
            }
            io::ErrorKind::TimedOut => {
                format!("{address} doesn't answer: check host and port, and the firewalls on the way")
            }
            // Among them names that can't be resolved.
            _ => format!("{address} can't be reached ({error}): check host and port"),
        };
        Self::new(Kind::Away, None, text)
    }

    /// The server was reached, but the login failed, or what comes before it.
    pub(in crate::store::mssql) fn of_login(error: &Error, options: &MssqlOptions) -> Self {
        let number = error.code();
        let address = options.address();
        let text = match error {
            Error::Server(_) => refused(number.unwrap_or_default(), options),
            Error::Io { kind, message } => interrupted(*kind, message, options),
            Error::Protocol(text) if text.contains("encryption level") => format!(
                "{address} offers no encryption: set up a certificate there, or, if it encrypts logins alone, write \
                 `encrypt=off`"
            ),
            Error::Tls(text) => untrusted(text, options),
            Error::Routing { .. } => format!("{address} sends connections on to another server, which does so too"),
            _ => format!("{address} doesn't answer as SQL Server does: check host and port"),
        };
        Self::new(Kind::Away, number, text)
    }
}

/// The server's own refusals. Their texts aren't used: they come before anybody is known to be entitled to them.
pub(super) fn refused(number: u32, options: &MssqlOptions) -> String {
    let MssqlOptions { user, database, .. } = options;
    let address = options.address();
    match number {
        18456 | 18452 | 40532 => format!("{address} refuses the login `{user}` ({number}): check user and password"),
        18470 | 18486 => {
            format!("on {address} the login `{user}` is disabled or locked out ({number}): unlock it there")
        }
        18487 | 18488 => {
            format!("on {address} the password of `{user}` has expired ({number}): change it there, then the setting")
        }
        911 | 916 | 4060 | 4063 | 4064 => format!(
            "{address} opens no database `{database}` for the login `{user}` ({number}): check the database's name, and \
             that the login has a user in it"
        ),
        40615 | 40914 | 47073 => {
            format!("the firewall of {address} refuses this machine ({number}): allow its address there")
        }
        _ => {
            let words = by_number(number).map_or("it takes no logins at present", |(_, words)| words);
            format!("no connection to {address}: {words} (SQL Server error {number})")
        }
    }
}

fn interrupted(kind: IoErrorKind, message: &str, options: &MssqlOptions) -> String {
    let address = options.address();
    // Two that the driver finds before it sends anything.
    if message.contains("CA source") || message.contains("CA bundle") {
        let path = match &options.trust {
            Trust::Authority(path) => path.display().to_string(),
            Trust::System | Trust::Anything => String::new(),
        };
        return format!("`{path}`, the store's `trust_ca`, holds no certificate that can be read");
    }
    if kind == IoErrorKind::NotFound {
        return "this machine has no certificates of authorities: name one for the server with `trust_ca`".into();
    }
    let what = match kind {
        IoErrorKind::TimedOut => format!("{address} hasn't let us in for {} s", HANDSHAKE_TIMEOUT.as_secs()),
        // The TLS library's, about the peer's bytes.
        IoErrorKind::InvalidData => format!("{address} doesn't speak TLS as expected ({})", super::one_line(message)),
        _ => format!("{address} closed the connection before the login was through"),
    };
    let way_out = match options.encrypt {
        Encrypt::Strict => "without SQL Server 2022 or Azure SQL there, write `encrypt=required`",
        Encrypt::Required | Encrypt::Off if kind == IoErrorKind::InvalidData || message.contains("handshake eof") => {
            "set up a certificate there; if it takes nothing but TLS from the first byte on, write `encrypt=strict`"
        }
        Encrypt::Required | Encrypt::Off => {
            "is it SQL Server, and is it up? If it takes nothing but TLS from the first byte on, write `encrypt=strict`"
        }
    };
    format!("{what}: {way_out}")
}

fn untrusted(text: &str, options: &MssqlOptions) -> String {
    let address = options.address();
    let names = text.contains("valid for name") || text.contains("NotValidForName") || text.contains("dns name");
    if names {
        return format!(
            "the certificate of {address} is made out to another name: write that name as the host, or \
             `trust_cert=true`, which takes any certificate"
        );
    }
    let reason = ["expired", "not valid yet", "Revoked", "UnsupportedCertVersion", "UnknownIssuer"]
        .into_iter()
        .find(|reason| text.contains(reason))
        .map(|reason| format!(" ({reason})"))
        .unwrap_or_default();
    format!(
        "the certificate of {address} is not trusted{reason}: name its authority's file with `trust_ca`, or write \
         `trust_cert=true`, which takes any certificate"
    )
}
