use proptest::prelude::*;

use super::super::memory::MemoryState;
use super::super::model::{Action, Authority, Command, NewRoom, Role};
use super::*;
use crate::id::{Millis, RoomId, UserKey};

/// When batches begin.
const NOW: Millis = Millis(1);
/// When their senders have waited long enough.
const LATE: Millis = Millis(NOW.0 + PATIENCE);

fn batch(ids: &mut BatchIds, bodies: &[&str]) -> Batch {
    let command = |body: &&str| Command {
        room: RoomId(1),
        user: UserKey::from("1"),
        user_name: "alice".into(),
        authority: Authority::Member,
        action: Action::Add { body: (*body).into(), client_id: None },
    };
    Batch { id: ids.next_id(), commands: bodies.iter().map(command).collect(), known: vec![], now: NOW }
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
                attempt.handle_applied(answer, NOW);
            }
            Step::Void(_) => attempt.handle_void(Ok(()), &mut ids, NOW),
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
                let error =
                    if tries == 1 { StoreError::Unknown("cut".into()) } else { StoreError::Unavailable("away".into()) };
                attempt.handle_applied(Err(error), NOW);
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
    attempt.handle_applied(Err(StoreError::Full("disk".into())), NOW);
    assert!(matches!(attempt.step(), Step::Done));
    assert_eq!(attempt.into_outcomes(), vec![Outcome::Refused(Code::StoreFull)]);
}

#[test]
fn what_may_have_been_done_is_not_reported_as_not_done() {
    let mut ids = BatchIds::new(7);
    let mut attempt = Attempt::new(batch(&mut ids, &["a"]));
    attempt.handle_applied(Err(StoreError::Unknown("cut".into())), NOW);
    attempt.handle_pause_over();
    // Nothing is stored by this try; the first may still be.
    attempt.handle_applied(Err(StoreError::Full("disk".into())), NOW);
    assert!(matches!(attempt.step(), Step::Pause(_)));
    attempt.handle_pause_over();
    attempt.handle_applied(Ok(Applied { outcomes: vec![Outcome::Unchanged], heads: vec![] }), NOW);
    assert_eq!(attempt.into_outcomes(), [Outcome::Unchanged]);
}

#[test]
fn a_store_that_contradicts_itself_is_given_up() {
    let mut ids = BatchIds::new(7);
    let mut attempt = Attempt::new(batch(&mut ids, &["a", "b"]));
    for _ in 0..1_000 {
        match attempt.step() {
            Step::Apply(_) => attempt.handle_applied(Err(StoreError::Rejected("not committed".into())), NOW),
            Step::Void(_) => attempt.handle_void(Err(StoreError::Rejected("committed".into())), &mut ids, NOW),
            Step::Pause(_) => attempt.handle_pause_over(),
            Step::Done => break,
        }
    }
    assert!(matches!(attempt.step(), Step::Done));
    assert_eq!(attempt.into_outcomes(), vec![Outcome::Refused(Code::StoreUnavailable); 2]);
}

#[test]
fn a_wrong_number_of_outcomes_is_a_bug_of_the_store() {
    let mut ids = BatchIds::new(7);
    let mut attempt = Attempt::new(batch(&mut ids, &["a", "b"]));
    attempt.handle_applied(Ok(Applied { outcomes: vec![Outcome::Unchanged], heads: vec![] }), NOW);
    assert_eq!(attempt.into_outcomes(), vec![Outcome::Refused(Code::Internal); 2]);
}

#[test]
fn an_unknown_commit_is_repeated_once_however_late_it_is() {
    let mut ids = BatchIds::new(7);
    let mut attempt = Attempt::new(batch(&mut ids, &["a"]));
    attempt.handle_applied(Err(StoreError::Unknown("no answer".into())), LATE);
    assert!(matches!(attempt.step(), Step::Pause(_)));
    attempt.handle_pause_over();
    attempt.handle_applied(Err(StoreError::Unavailable("away".into())), LATE);
    assert!(matches!(attempt.step(), Step::Done));
    assert_eq!(attempt.into_outcomes(), [Outcome::Refused(Code::StoreUnavailable)]);
}

/// Each of the tries takes a second; the pauses are not counted.
#[test]
fn an_unknown_commit_is_not_repeated_for_ever() {
    let mut ids = BatchIds::new(7);
    let mut attempt = Attempt::new(batch(&mut ids, &["a"]));
    let mut now = NOW;
    while !matches!(attempt.step(), Step::Done) {
        now.0 += 1_000;
        attempt.handle_applied(Err(StoreError::Unknown("cut".into())), now);
        attempt.handle_pause_over();
    }
    assert_eq!(now, LATE);
}

#[test]
fn when_the_store_is_away_for_long_the_parts_behind_are_not_tried() {
    let mut ids = BatchIds::new(7);
    for (now, tried) in [(NOW, 3), (LATE, 2)] {
        let mut attempt = Attempt::new(batch(&mut ids, &["a", "bad", "c"]));
        let mut applied = 0;
        while let Step::Apply(_) = attempt.step() {
            applied += 1;
            if applied == 1 {
                attempt.handle_applied(Err(StoreError::Rejected("bad".into())), NOW);
                attempt.handle_void(Ok(()), &mut ids, NOW);
            } else {
                attempt.handle_applied(Err(StoreError::Unavailable("away".into())), now);
            }
        }
        assert_eq!(applied, tried);
        assert_eq!(attempt.into_outcomes(), vec![Outcome::Refused(Code::StoreUnavailable); 3]);
    }
}

#[test]
fn pauses_double() {
    let mut ids = BatchIds::new(7);
    let mut attempt = Attempt::new(batch(&mut ids, &["a"]));
    let mut pauses = Vec::new();
    while !matches!(attempt.step(), Step::Done) {
        attempt.handle_applied(Err(StoreError::Unknown("cut".into())), NOW);
        if let Step::Pause(ms) = attempt.step() {
            pauses.push(ms);
            attempt.handle_pause_over();
        }
    }
    assert!(pauses.windows(2).all(|pair| pair[1] == 2 * pair[0]), "{pauses:?}");
    assert!(pauses.iter().sum::<u64>() < 5_000, "the sender hears within seconds: {pauses:?}");
}

/// What goes wrong with one call.
#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Away,
    /// Committed, but the answer is lost.
    AnswerLost,
    /// Not committed, and the answer is lost.
    CommandLost,
    Full,
}

fn faults() -> impl Strategy<Value = Vec<Fault>> {
    let fault = prop_oneof![
        3 => Just(Fault::None),
        1 => Just(Fault::Away),
        2 => Just(Fault::AnswerLost),
        2 => Just(Fault::CommandLost),
        1 => Just(Fault::Full),
    ];
    prop::collection::vec(fault, 0..30)
}

proptest! {
    /// Over a real store that fails in every way: one outcome per command, in order; what is said to be stored is
    /// stored once; what is said to be refused for good is not.
    #[test]
    fn outcomes_are_true(
        bodies in prop::collection::vec(prop_oneof![4 => Just("good"), 1 => Just("bad")], 0..9),
        faults in faults(),
        pace in 0..PATIENCE,
    ) {
        let mut store = MemoryState::default();
        let members = vec![(UserKey::from("1"), "alice".into(), Role::Member)];
        store.create_room(&NewRoom { id: Some(RoomId(1)), members, ..NewRoom::default() }, Millis(1)).unwrap();
        let names: Vec<String> = bodies.iter().enumerate().map(|(at, body)| format!("{body} {at}")).collect();
        let mut ids = BatchIds::new(7);
        let first = batch(&mut ids, &names.iter().map(String::as_str).collect::<Vec<_>>());
        let mut attempt = Attempt::new(first);
        let mut faults = faults.into_iter();
        let is_bad = |part: &Batch| {
            part.commands.iter().any(|c| matches!(&c.action, Action::Add { body, .. } if body.starts_with("bad")))
        };
        let mut calls = 0;
        loop {
            calls += 1;
            prop_assert!(calls < 1_000, "it never ends");
            let now = Millis(NOW.0 + calls * pace);
            let mut fault = || faults.next().unwrap_or(Fault::None);
            match attempt.step() {
                Step::Apply(part) => {
                    let part = part.clone();
                    let answer = match fault() {
                        Fault::Away => Err(StoreError::Unavailable("away".into())),
                        Fault::Full => Err(StoreError::Full("disk".into())),
                        Fault::CommandLost => Err(StoreError::Unknown("cut".into())),
                        _ if is_bad(&part) => Err(StoreError::Rejected("bad".into())),
                        Fault::AnswerLost => store.apply(&part).and(Err(StoreError::Unknown("cut".into()))),
                        Fault::None => store.apply(&part),
                    };
                    attempt.handle_applied(answer, now);
                }
                Step::Void(id) => {
                    let answer = match fault() {
                        Fault::None => store.void(id),
                        Fault::AnswerLost => store.void(id).and(Err(StoreError::Unknown("cut".into()))),
                        _ => Err(StoreError::Unavailable("away".into())),
                    };
                    attempt.handle_void(answer, &mut ids, now);
                }
                Step::Pause(_) => attempt.handle_pause_over(),
                Step::Done => break,
            }
        }
        let stored = store.history(RoomId(1), None, u32::MAX).unwrap().messages;
        let times = |name: &str| stored.iter().filter(|m| m.body.as_deref() == Some(name)).count();
        let outcomes = attempt.into_outcomes();
        prop_assert_eq!(outcomes.len(), names.len());
        for (name, outcome) in names.iter().zip(&outcomes) {
            match outcome {
                Outcome::Message { message, .. } => {
                    prop_assert_eq!(message.body.as_deref(), Some(name.as_str()));
                    prop_assert_eq!(times(name), 1);
                }
                Outcome::Refused(Code::StoreRejected) => {
                    prop_assert!(name.starts_with("bad"));
                    prop_assert_eq!(times(name), 0);
                }
                Outcome::Refused(Code::StoreFull) => prop_assert_eq!(times(name), 0),
                // Nobody knows; a resend finds out.
                Outcome::Refused(Code::StoreUnavailable) => prop_assert!(times(name) <= 1),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
