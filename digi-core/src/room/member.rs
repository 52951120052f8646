//! One session in a room.

use std::collections::VecDeque;
use std::fmt;

use crate::frame::{Frame, Run};
use crate::id::{Cursor, Seq, UserKey};

/// A session of this node; the driver gives the numbers and never uses one twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", self.0)
    }
}

/// How a room puts frames into an outbox. Any `FnMut(&O, &Run) -> bool` is one.
pub trait Deliver<O> {
    /// Puts all frames of `run` at the end of `outbox`; false when there is no space, and then nothing was put.
    fn deliver(&mut self, outbox: &O, run: &Run) -> bool;
}

impl<O, F: FnMut(&O, &Run) -> bool> Deliver<O> for F {
    fn deliver(&mut self, outbox: &O, run: &Run) -> bool {
        self(outbox, run)
    }
}

/// What the members are to be handed together, in order.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) seqs: Vec<Seq>,
    pub(super) frames: Vec<Frame>,
    /// Those who don't listen have been shown it by somebody else.
    pub(super) is_known: bool,
}

pub(super) struct Member<O> {
    pub(super) user: UserKey,
    /// The head at which the membership was read: a removal numbered above it ends the session, no other does.
    pub(super) read_at: Cursor,
    pub(super) outbox: O,
    pub(super) phase: Phase,
    /// Whether it gets what is not stored.
    pub(super) listens: bool,
}

pub(super) enum Phase {
    /// Gets every frame numbered above `from`.
    Live { from: Seq },
    /// A replay or a history is under way; live frames wait here.
    Holding(VecDeque<(Seq, Frame)>),
}
