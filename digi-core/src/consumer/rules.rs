//! What holds for every connection of an engine.

use std::fmt;
use std::sync::Arc;

use super::limiter::Rate;
use super::policy::{Policy, Verdict};
use crate::error::{Code, Error};
use crate::frame::Encoder;
use crate::store::model::{Action, Command, Membership};

/// The bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct ConsumerLimits {
    /// The longest text frame, in bytes. Beyond: `frame_too_large`.
    pub frame_bytes: usize,
    /// The longest message, in bytes of UTF-8. Beyond: `body_too_long`.
    pub body_bytes: usize,
    /// Commands and questions of one connection that wait for an answer. Beyond: `busy`.
    pub in_flight: usize,
    /// Messages in the history after a reset, and in a page whose `limit` the client left open.
    pub reset_history: u32,
    /// The most that is replayed, in bytes of frames; it has to fit into the outbox. Beyond: `reset`.
    pub replay_bytes: usize,
    /// `typing` frames of one connection that are passed on. Beyond: they are not, and nothing is said.
    pub typing: Rate,
    /// Frames of one connection. Beyond: `rate_limited`.
    pub frames: Rate,
    /// Refused frames of one connection. Beyond: closed as abuse.
    pub refusals: Rate,
}

impl Default for ConsumerLimits {
    fn default() -> Self {
        Self {
            frame_bytes: 128 * 1024,
            body_bytes: 16 * 1024,
            in_flight: 256,
            reset_history: 50,
            replay_bytes: 1024 * 1024,
            typing: Rate { per_second: 1, burst: 2 },
            frames: Rate { per_second: 50, burst: 200 },
            refusals: Rate { per_second: 2, burst: 100 },
        }
    }
}

/// What holds for every connection of an engine: keys, bounds, the host's policy.
#[derive(Clone)]
pub struct Rules {
    /// Writes the frames; holds the keys.
    pub encoder: Encoder,
    /// The bounds.
    pub limits: ConsumerLimits,
    /// Whether a frame that claims another user than the one logged in is refused instead of corrected.
    pub strict: bool,
    /// The host's own say.
    pub policy: Option<Arc<dyn Policy>>,
}

impl Rules {
    /// The default rules with these keys.
    pub fn new(encoder: Encoder) -> Self {
        Self { encoder, limits: ConsumerLimits::default(), strict: false, policy: None }
    }

    /// Whether a text may be stored as a message.
    ///
    /// # Errors
    /// `empty_body`, `body_too_long`, `bad_body`.
    pub fn check_body(&self, body: &str) -> Result<(), Error> {
        let most = self.limits.body_bytes;
        if body.len() > most {
            return Err(
                Code::BodyTooLong.with(format!("The message has {} bytes; this server takes {most}.", body.len()))
            );
        }
        if body.contains('\0') {
            return Err(Code::BadBody.into());
        }
        if body.trim().is_empty() {
            return Err(Code::EmptyBody.into());
        }
        Ok(())
    }

    /// Lets the policy judge a command, and change its text.
    ///
    /// # Errors
    /// What the policy refuses with, or what is wrong with the text that it put in place.
    pub fn ask_policy(&self, command: &mut Command, membership: &Membership) -> Result<(), Error> {
        let Some(policy) = &self.policy else { return Ok(()) };
        match policy.judge(command, membership) {
            Verdict::Allow => Ok(()),
            Verdict::Refuse(error) => Err(error),
            Verdict::Replace(text) => {
                self.check_body(&text)?;
                if let Action::Add { body, .. } | Action::Edit { body, .. } = &mut command.action {
                    *body = text.into();
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policy = if self.policy.is_some() { "set" } else { "none" };
        f.debug_struct("Rules")
            .field("limits", &self.limits)
            .field("strict", &self.strict)
            .field("policy", &policy)
            .finish_non_exhaustive()
    }
}
