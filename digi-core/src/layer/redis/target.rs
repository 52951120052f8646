//! Where a host is.

use std::fmt;

use super::connect::{Connector, Open};
use super::url::{Address, Login};

/// A server under a fixed address.
pub(super) enum Target {
    Fixed(Address, Login),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address, _) => address.fmt(f),
        }
    }
}

impl Target {
    pub(super) fn login(&self) -> &Login {
        match self {
            Self::Fixed(_, login) => login,
        }
    }

    /// # Errors
    /// Why it cannot be said.
    pub(super) async fn find(&self, _: &Connector) -> Result<Address, String> {
        match self {
            Self::Fixed(address, _) => Ok(address.clone()),
        }
    }

    /// Whether the server that was found is the right one.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn check(&self, _: &mut Open) -> Result<(), String> {
        match self {
            Self::Fixed(..) => Ok(()),
        }
    }

    /// Waits until the host is elsewhere; how that is known.
    pub(super) async fn changes(&self, _: &Connector) -> String {
        match self {
            Self::Fixed(..) => std::future::pending().await,
        }
    }
}
