//! What errors mean for a store: whether something was done, whether it may be done again, and what to tell people.
//!
//! The server's own texts quote what was to be stored (a duplicate's key, a text that is too long), so they are handed
//! on only where they name nothing but tables, files and rights.

mod connecting;

use std::fmt;
use std::io::ErrorKind;
use std::time::Duration;

use tiberius::error::Error;

use crate::store::StoreError;

/// Why a request failed, or an attempt to connect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// SQL Server's number of the error.
    pub(super) number: Option<u32>,
    /// Nothing came for as long as it is waited.
    pub(super) is_silence: bool,
    text: String,
}

/// What can be done about a [`Failure`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Rolled back in favour of another transaction; do it again.
    GaveWay,
    /// Rolled back, because a lock wasn't had in time.
    LockTimeout,
    /// Rolled back: there is a row with that key.
    Duplicate,
    /// Rolled back: no space.
    Full,
    /// Rolled back: what was to be stored can't be.
    Rejected,
    /// Rolled back: tables, rights or the server's version aren't what Digi needs.
    Schema,
    /// Not done: the database can't be had at present.
    Away,
    /// The connection is of no use any more, and what was under way may have been done.
    Broken,
}

/// From this severity on, the server closes the connection.
const FATAL: u8 = 20;

/// From this severity on, it is not the request's fault.
const RESOURCES: u8 = 17;

/// The longest text of the server that is handed on, in characters.
const MAX_TEXT: usize = 400;

impl Failure {
    pub(super) fn new(kind: Kind, number: Option<u32>, text: impl Into<String>) -> Self {
        Self { kind, number, is_silence: false, text: text.into() }
    }

    /// Of a request on a connection that was established.
    pub(super) fn of_request(error: &Error) -> Self {
        match error {
            Error::Server(error) => of_server(error.code(), error.class(), error.message()),
            Error::Io { kind: ErrorKind::TimedOut, .. } => Self::silent(super::options::COMMAND_TIMEOUT),
            // Not its text, which may be about anything that was read.
            Error::Io { kind, .. } => Self::new(Kind::Broken, None, format!("the connection broke: {kind}")),
            Error::Conversion(_) => {
                Self::new(Kind::Broken, None, "the server's answer has other columns than Digi's tables give it")
            }
            _ => Self::new(Kind::Broken, None, "the connection is out of step: the server's answer makes no sense"),
        }
    }

    /// Nothing came for so long.
    pub(super) fn silent(limit: Duration) -> Self {
        let text = format!("the server hasn't answered for {} s", limit.as_secs_f32());
        Self { is_silence: true, ..Self::new(Kind::Broken, None, text) }
    }

    /// The server doesn't want this login; asking again soon makes it worse.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.number, Some(18452 | 18456 | 18470 | 18486..=18488 | 40532 | 40615 | 40914 | 47073))
    }

    /// The same, with another meaning.
    pub(super) fn with_kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// The error for the store's caller. `committing`: a transaction that the caller asked for may have been committed
    /// by what failed.
    pub(super) fn into_store_error(self, committing: bool) -> StoreError {
        match self.kind {
            Kind::Broken if committing => StoreError::Unknown(self.text),
            Kind::GaveWay | Kind::LockTimeout | Kind::Away | Kind::Broken => StoreError::Unavailable(self.text),
            Kind::Full => StoreError::Full(self.text),
            Kind::Duplicate | Kind::Rejected => StoreError::Rejected(self.text),
            Kind::Schema => StoreError::Schema(self.text),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn of_server(number: u32, severity: u8, message: &str) -> Failure {
    let (kind, words) = by_number(number).unwrap_or(match severity {
        RESOURCES.. => (Kind::Away, "the server can't do this at present"),
        // Errors from 50,000 on are those of triggers and procedures.
        _ => (Kind::Rejected, "the server refuses this"),
    });
    // Whether a transaction was committed just before the connection died, nobody knows.
    let kind = if severity >= FATAL { Kind::Broken } else { kind };
    let text = match kind {
        Kind::Full | Kind::Schema => format!("{words} (SQL Server error {number}: {})", one_line(message)),
        _ => format!("{words} (SQL Server error {number})"),
    };
    Failure::new(kind, Some(number), text)
}

/// The numbers that say more than their severity. `SqlClient`'s list of transient errors is in here, without those that
/// are of the client's own system (20, 64, 121, 233, 997, 10053, 10054, 10060): from a server they mean other things.
fn by_number(number: u32) -> Option<(Kind, &'static str)> {
    Some(match number {
        1205 => (Kind::GaveWay, "the transaction was rolled back to end a deadlock"),
        3960 | 3961 | 3966 | 41301 | 41302 | 41305 | 41325 | 41839 => {
            (Kind::GaveWay, "the transaction was rolled back because another one changed the same rows")
        }
        1222 => (Kind::LockTimeout, "other transactions held locks for too long"),
        2601 | 2627 => (Kind::Duplicate, "there is a row with the same key"),

        1101 | 1105 | 1121 | 1827 | 40544 => (Kind::Full, "the database has no space left"),
        9002 => (Kind::Full, "the transaction log has no space left"),
        3958 | 3959 | 3967 => (Kind::Full, "tempdb has no space left for versions of rows"),

        220 | 232 | 8115 => (Kind::Rejected, "a number is out of range"),
        241 | 242 | 244 | 245 | 248 | 257 | 295 | 296 | 8114 | 8169 => (Kind::Rejected, "a value has the wrong type"),
        233 | 515 => (Kind::Rejected, "a column takes no NULL"),
        547 => (Kind::Rejected, "a constraint of the database doesn't hold"),
        511 | 1946 | 2628 | 7119 | 7139 | 8152 => (Kind::Rejected, "a text is too long for its column"),
        8016 | 8023 | 9803 | 13609 => (Kind::Rejected, "a value can't be read"),

        207 | 208 | 213 | 1088 | 2812 | 4902 => {
            (Kind::Schema, "a table or column is missing; has migrate() been run, with the same `schema`?")
        }
        2714 | 1913 => (Kind::Schema, "there is a table or index of that name already"),
        229 | 230 | 262 | 297 | 300 | 916 | 15151 | 15247 => (
            Kind::Schema,
            "the login lacks a right: GRANT SELECT, INSERT, UPDATE, DELETE on the schema, and for migrate() ALTER on it \
             and CREATE TABLE",
        ),
        2760 => (Kind::Schema, "the `schema` isn't there, or the login has no right to it: CREATE SCHEMA, or GRANT"),
        102 | 156 | 195 | 319 | 321 | 325 | 1934 | 8003 => (
            Kind::Schema,
            "the server doesn't know a statement: SQL Server 2017 or later is needed, and compatibility level 130 or more",
        ),

        701 | 802 | 845 | 1204 | 8628 | 8645 | 8651 => (Kind::Away, "the server is short of memory"),
        10928 | 10929 | 10936 | 40501 | 49918..=49920 => (Kind::Away, "the server has more to do than it may"),
        3906 | 978 | 3908 => {
            (Kind::Away, "the database can't be written to; after a fail-over, the host must name the new primary")
        }
        615 | 904 | 921..=924 | 926 | 927 | 942 | 945 | 946 | 952 | 954..=956 | 976 | 979 | 981..=983 | 988 => {
            (Kind::Away, "the database is not open")
        }
        3947 | 3948 | 3998 | 4221 | 9001 => (Kind::Away, "the transaction was rolled back"),
        // In the middle of a commit they leave open whether it was done.
        596 | 6005 | 40143 | 40166 | 40197 | 40540 | 40549..=40553 | 40613 | 42108 | 42109 => {
            (Kind::Broken, "the server is stopping, or the database is moving")
        }
        _ => return None,
    })
}

/// A text of the server, fit for a message.
fn one_line(text: &str) -> String {
    let line = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    line.collect::<Vec<_>>().join(" ").chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests;
