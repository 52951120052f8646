//! What happened to the simulated store, in the order in which it happened: what a [`Recording`](super::Recording)
//! replays.

use super::node::{Answer, Ask};
use crate::id::Millis;
use crate::store::model::NewRoom;

/// One thing that was done to the store.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A room was made.
    Room(NewRoom, Millis),
    /// A node's question was carried out at that time and got that answer, whether or not the node ever heard it.
    Asked { node: usize, ask: Ask, at: Millis, answer: Answer },
    /// A backup was made.
    BackedUp,
    /// The last backup took the place of what was there.
    Restored,
    /// The operator said that a backup had been restored.
    RaisedAll(Millis),
}

/// Takes the steps down, or does not.
#[derive(Default)]
pub(super) struct Trace(Option<Vec<Step>>);

impl Trace {
    /// One that takes them down.
    pub(super) fn on() -> Self {
        Self(Some(Vec::new()))
    }

    pub(super) fn note(&mut self, step: impl FnOnce() -> Step) {
        if let Some(steps) = &mut self.0 {
            steps.push(step());
        }
    }

    pub(super) fn into_steps(self) -> Vec<Step> {
        self.0.unwrap_or_default()
    }
}
