//! How one batch is carried through a store that may fail, answer "unknown", or choke on one command. Pure: the
//! writer and the simulation drive the same code.

use super::contract::StoreError;
use super::model::{Applied, Batch, BatchId, Outcome};
use crate::error::Code;

/// How often a batch whose fate is unknown is repeated before its senders are told that it could not be stored.
const TRIES: u32 = 8;

/// The first pause between two tries, in milliseconds; doubled each time.
const FIRST_PAUSE: u64 = 10;

/// Gives batches their ids: the node's random number and a counter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BatchIds {
    node: u64,
    used: u64,
}

impl BatchIds {
    /// Ids under a number that no other node has used, ever.
    pub fn new(node: u64) -> Self {
        Self { node, used: 0 }
    }

    /// The next id.
    pub fn next_id(&mut self) -> BatchId {
        self.used += 1;
        BatchId { node: self.node, number: self.used }
    }
}

/// A batch on its way. Ask [`Attempt::step`] what to do, do it, and report with the method that the step names.
#[derive(Debug)]
pub struct Attempt {
    /// What is still to do, the next part last.
    parts: Vec<Batch>,
    outcomes: Vec<Outcome>,
    tries: u32,
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
        Self { parts: vec![batch], outcomes, tries: 0, uncertain: false, next: Next::Apply }
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
    pub fn handle_applied(&mut self, answer: Result<Applied, StoreError>) {
        let Some(part) = self.parts.last() else { return };
        let size = part.commands.len();
        match answer {
            Ok(applied) if applied.outcomes.len() == size => {
                self.outcomes.extend(applied.outcomes);
                self.part_done();
            }
            Ok(_) => self.give_up(Code::Internal),
            Err(StoreError::Unknown(_)) => {
                self.uncertain = true;
                self.again();
            }
            // Nothing new was done, but an earlier try may have been.
            Err(StoreError::Unavailable(_)) if self.uncertain => self.again(),
            Err(StoreError::Rejected(_)) if size > 1 => self.next = Next::Void,
            Err(error) => self.give_up(error.code()),
        }
    }

    /// What `void` said; `ids` names the halves.
    pub fn handle_void(&mut self, answer: Result<(), StoreError>, ids: &mut BatchIds) {
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
            // It was committed after all: applying it again gives the outcomes.
            Err(StoreError::Rejected(_)) => self.next = Next::Apply,
            Err(_) => self.again(),
        }
    }

    /// The pause is over.
    pub fn handle_pause_over(&mut self) {
        self.next = Next::Apply;
    }

    fn again(&mut self) {
        self.tries += 1;
        if self.tries >= TRIES {
            self.give_up(Code::StoreUnavailable);
        } else {
            self.next = Next::Pause;
        }
    }

    fn give_up(&mut self, code: Code) {
        let size = self.parts.last().map_or(0, |part| part.commands.len());
        self.outcomes.extend((0..size).map(|_| Outcome::Refused(code)));
        self.part_done();
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
mod tests {
    use super::super::model::{Action, Authority, Command};
    use super::*;
    use crate::id::{Millis, RoomId, UserKey};

    fn batch(ids: &mut BatchIds, bodies: &[&str]) -> Batch {
        let command = |body: &&str| Command {
            room: RoomId(1),
            user: UserKey::from("1"),
            user_name: "alice".into(),
            authority: Authority::Member,
            action: Action::Add { body: (*body).into(), client_id: None },
        };
        Batch { id: ids.next_id(), commands: bodies.iter().map(command).collect(), known: vec![], now: Millis(1) }
    }

    /// A store that rejects any batch with "bad" in it and accepts the others as unchanged.
    fn run(bodies: &[&str]) -> (Vec<Outcome>, Vec<BatchId>) {
        let mut ids = BatchIds::new(7);
        let mut attempt = Attempt::new(batch(&mut ids, bodies));
        let mut applied = Vec::new();
        loop {
            match attempt.step() {
                Step::Apply(part) => {
                    applied.push(part.id);
                    let is_bad =
                        |command: &Command| matches!(&command.action, Action::Add { body, .. } if &**body == "bad");
                    let answer = if part.commands.iter().any(is_bad) {
                        Err(StoreError::Rejected("bad".into()))
                    } else {
                        Ok(Applied { outcomes: vec![Outcome::Unchanged; part.commands.len()], heads: vec![] })
                    };
                    attempt.handle_applied(answer);
                }
                Step::Void(_) => attempt.handle_void(Ok(()), &mut ids),
                Step::Pause(_) => attempt.handle_pause_over(),
                Step::Done => return (attempt.into_outcomes(), applied),
            }
        }
    }

    #[test]
    fn an_offender_is_refused_alone() {
        let (outcomes, applied) = run(&["a", "b", "bad", "c", "d", "e", "f"]);
        let expected: Vec<_> =
            (0..7).map(|at| if at == 2 { Outcome::Refused(Code::StoreRejected) } else { Outcome::Unchanged }).collect();
        assert_eq!(outcomes, expected);
        let unique: std::collections::HashSet<_> = applied.iter().collect();
        assert_eq!(unique.len(), applied.len(), "every part has an id of its own");
    }

    #[test]
    fn an_unknown_commit_is_repeated_under_its_id_and_given_up_in_the_end() {
        let mut ids = BatchIds::new(7);
        let first = batch(&mut ids, &["a", "b"]);
        let id = first.id;
        let mut attempt = Attempt::new(first);
        let mut tries = 0;
        loop {
            match attempt.step() {
                Step::Apply(part) => {
                    assert_eq!(part.id, id);
                    tries += 1;
                    attempt.handle_applied(Err(if tries == 1 {
                        StoreError::Unknown("cut".into())
                    } else {
                        StoreError::Unavailable("away".into())
                    }));
                }
                Step::Pause(_) => attempt.handle_pause_over(),
                Step::Void(_) => unreachable!("nothing was rejected"),
                Step::Done => break,
            }
        }
        assert_eq!(tries, TRIES);
        assert_eq!(attempt.into_outcomes(), vec![Outcome::Refused(Code::StoreUnavailable); 2]);
    }

    #[test]
    fn what_was_certainly_not_done_is_refused_at_once() {
        let mut ids = BatchIds::new(7);
        let mut attempt = Attempt::new(batch(&mut ids, &["a"]));
        attempt.handle_applied(Err(StoreError::Full("disk".into())));
        assert!(matches!(attempt.step(), Step::Done));
        assert_eq!(attempt.into_outcomes(), vec![Outcome::Refused(Code::StoreFull)]);
    }
}
