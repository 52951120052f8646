//! How one batch is carried through a store that may fail, answer "unknown", or choke on one command. Pure: the
//! writer and the simulation drive the same code.

use super::contract::StoreError;
use super::model::{Applied, Batch, BatchId, Outcome};
use crate::error::Code;
use crate::id::Millis;

/// How often a batch whose fate is unknown is repeated before its senders are told that it could not be stored.
const TRIES: u32 = 8;

/// How many milliseconds senders wait for a store that is away. After that, a batch whose fate is unknown is not
/// repeated any more (once it is, however long the first try took), and what has waited behind it is not tried at all.
pub const PATIENCE: u64 = 5_000;

/// The first pause between two tries, in milliseconds; doubled each time.
const FIRST_PAUSE: u64 = 10;

/// Gives batches their ids: a random number and a counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchIds {
    node: u64,
    used: u64,
}

impl BatchIds {
    /// Ids under a number that nobody else has used, ever: no other node, and no other lane of this one.
    pub fn new(node: u64) -> Self {
        Self { node, used: 0 }
    }

    /// The next id.
    pub fn next_id(&mut self) -> BatchId {
        self.used += 1;
        BatchId { node: self.node, number: self.used }
    }
}

/// A batch on its way. Ask [`Attempt::step`] what to do, do it, and report with the method that the step names. Every
/// `now` is read from one clock, the batch's own being the first.
#[derive(Debug)]
pub struct Attempt {
    /// What is still to do, the next part last.
    parts: Vec<Batch>,
    outcomes: Vec<Outcome>,
    tries: u32,
    /// When the senders have waited long enough.
    late: Millis,
    /// An earlier try of the present part may have been committed.
    uncertain: bool,
    next: Next,
}

#[derive(Debug)]
enum Next {
    Apply,
    Pause,
    Void,
}

/// What to do next for an [`Attempt`].
#[derive(Debug)]
pub enum Step<'a> {
    /// Call `apply`, report with [`Attempt::handle_applied`].
    Apply(&'a Batch),
    /// Call `void`, report with [`Attempt::handle_void`].
    Void(BatchId),
    /// Wait so many milliseconds, then call [`Attempt::handle_pause_over`].
    Pause(u64),
    /// All parts are through: take [`Attempt::into_outcomes`].
    Done,
}

impl Attempt {
    /// Begins with a batch.
    pub fn new(batch: Batch) -> Self {
        let outcomes = Vec::with_capacity(batch.commands.len());
        let late = Millis(batch.now.0.saturating_add(PATIENCE));
        Self { parts: vec![batch], outcomes, tries: 0, late, uncertain: false, next: Next::Apply }
    }

    /// What to do next.
    pub fn step(&self) -> Step<'_> {
        match (self.parts.last(), &self.next) {
            (None, _) => Step::Done,
            (Some(part), Next::Apply) => Step::Apply(part),
            (Some(part), Next::Void) => Step::Void(part.id),
            (Some(_), Next::Pause) => Step::Pause(FIRST_PAUSE << self.tries.min(TRIES)),
        }
    }

    /// One outcome per command of the batch, in its order; fewer while it is not done.
    pub fn into_outcomes(self) -> Vec<Outcome> {
        self.outcomes
    }

    /// What `apply` said.
    pub fn handle_applied(&mut self, answer: Result<Applied, StoreError>, now: Millis) {
        let Some(part) = self.parts.last() else { return };
        let size = part.commands.len();
        match answer {
            Ok(applied) if applied.outcomes.len() == size => {
                self.outcomes.extend(applied.outcomes);
                self.part_done();
            }
            Ok(_) => self.give_up(Code::Internal, now),
            Err(StoreError::Unknown(_)) => {
                self.uncertain = true;
                self.again(now);
            }
            // Nothing new was done, but an earlier try may have been.
            Err(StoreError::Unavailable(_) | StoreError::Full(_)) if self.uncertain => self.again(now),
            Err(StoreError::Rejected(_)) if size > 1 => self.next = Next::Void,
            Err(error) => self.give_up(error.code(), now),
        }
    }

    /// What `void` said; `ids` names the halves.
    pub fn handle_void(&mut self, answer: Result<(), StoreError>, ids: &mut BatchIds, now: Millis) {
        match answer {
            Ok(()) => {
                if let Some(mut first) = self.parts.pop() {
                    let rest = first.commands.split_off(first.commands.len() / 2);
                    let second =
                        Batch { id: ids.next_id(), commands: rest, known: first.known.clone(), now: first.now };
                    first.id = ids.next_id();
                    self.parts.extend([second, first]);
                    self.fresh_part();
                }
            }
            // It was committed after all, and applying it again gives the outcomes; or the store is away.
            Err(_) => self.again(now),
        }
    }

    /// The pause is over.
    pub fn handle_pause_over(&mut self) {
        self.next = Next::Apply;
    }

    fn again(&mut self, now: Millis) {
        self.tries += 1;
        if self.tries >= TRIES || (self.tries > 1 && now >= self.late) {
            self.give_up(Code::StoreUnavailable, now);
        } else {
            self.next = Next::Pause;
        }
    }

    fn give_up(&mut self, code: Code, now: Millis) {
        // Parts that were not tried yet need not find out one by one that the store is away.
        let all = code == Code::StoreUnavailable && now >= self.late;
        let given_up = if all { 0 } else { self.parts.len().saturating_sub(1) };
        let size = self.parts.drain(given_up..).map(|part| part.commands.len()).sum();
        self.outcomes.extend(std::iter::repeat_n(Outcome::Refused(code), size));
        self.fresh_part();
    }

    fn part_done(&mut self) {
        self.parts.pop();
        self.fresh_part();
    }

    fn fresh_part(&mut self) {
        self.tries = 0;
        self.uncertain = false;
        self.next = Next::Apply;
    }
}

#[cfg(test)]
mod tests;
