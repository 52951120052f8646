//! The host's own say in what may be stored.

use crate::error::Error;
use crate::store::model::{Command, Membership};

/// What a [`Policy`] says of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// As it is.
    Allow,
    /// With another text. Means nothing for a deletion.
    Replace(String),
    /// Not at all; the sender gets the error.
    Refuse(Error),
}

/// A plain function, asked before anything is stored; it must not block. The command names user and room.
/// Implemented by every `Fn(&Command, &Membership) -> Verdict`.
pub trait Policy: Send + Sync {
    /// Judges one command of a member.
    fn judge(&self, command: &Command, membership: &Membership) -> Verdict;
}

impl<F: Fn(&Command, &Membership) -> Verdict + Send + Sync> Policy for F {
    fn judge(&self, command: &Command, membership: &Membership) -> Verdict {
        self(command, membership)
    }
}
