//! What a store makes of a server that gives way, breaks off, keeps silent or goes away.

use std::time::Duration;

use digi_core::id::{Cursor, Epoch, Seq};
use digi_core::store::model::{Applied, Batch, Outcome};
use digi_core::store::planner::record;
use digi_core::store::{Store, StoreError};
use tokio::time::timeout;

use crate::peer::{Answer, Cell, Column, DEADLINE, Peer, Reply, Request, Reserved, Setup};
use crate::script::{self, APPLY, EPOCH, MEMBER, OUTCOMES, ROLLBACK, ROOM, batch, first};

fn error(number: u32) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    move |_| Answer::error(number, 16, "what somebody wrote").into()
}

fn added(applied: &Applied) -> u64 {
    match &applied.outcomes[..] {
        [Outcome::Message { at, .. }] => at.seq.0,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_batch_that_gave_way_is_done_again_on_the_same_connection() {
    for number in [1205, 3960, 41302] {
        let peer = Peer::start(Setup::new(first(3, APPLY, error(number))));
        let applied = peer.store().apply(&batch(1, "hello")).await.unwrap();
        assert_eq!(added(&applied), 1);
        let tries = peer.requests_with(APPLY);
        assert_eq!(tries.len(), 4, "{number}");
        assert!(tries.iter().all(|request| request.values == tries[0].values));
        // Nothing of the transaction is left before the next try.
        assert_eq!(peer.requests_with(ROLLBACK).len() - tries.len(), 3, "{number}");
        assert_eq!(peer.look(|seen| seen.connections), 1);
    }
}

#[tokio::test]
async fn a_batch_that_gives_way_for_ever_is_given_up() {
    let peer = Peer::start(Setup::new(first(usize::MAX, APPLY, error(1205))));
    let answer = timeout(DEADLINE, peer.store().apply(&batch(1, "hello"))).await.unwrap();
    let Err(StoreError::Unavailable(text)) = answer else { panic!("{answer:?}") };
    assert!(text.contains("1205") && !text.contains("somebody"), "{text}");
}

/// One answer each: done for certain or not, and whether it may be asked again.
#[tokio::test]
async fn errors_of_the_server_become_the_stores() {
    type Is = fn(&StoreError) -> bool;
    let cases: [(u32, Is); 6] = [
        (1222, |error| matches!(error, StoreError::Unavailable(_))),
        (2628, |error| matches!(error, StoreError::Rejected(_))),
        (9002, |error| matches!(error, StoreError::Full(_))),
        (208, |error| matches!(error, StoreError::Schema(_))),
        (229, |error| matches!(error, StoreError::Schema(_))),
        (40613, |error| matches!(error, StoreError::Unknown(_))),
    ];
    for (number, is_expected) in cases {
        // For a lock it is asked twice.
        let times = if number == 1222 { 2 } else { 1 };
        let peer = Peer::start(Setup::new(first(times, APPLY, error(number))));
        let store = peer.store();
        let answer = store.apply(&batch(1, "hello")).await.unwrap_err();
        assert!(is_expected(&answer), "{number}: {answer:?}");
        assert!(answer.to_string().contains(&number.to_string()), "{answer}");
        assert_eq!(added(&store.apply(&batch(1, "hello")).await.unwrap()), 1);
    }
}

/// The answer to the commit is lost, and the repeat finds the batch's row.
#[tokio::test]
async fn a_lost_answer_is_unknown_and_the_repeat_finds_the_outcomes() {
    let replies: [fn(&Request) -> Reply; 2] =
        [|_| Reply::Cut, |_| Reply::CutWithin(Answer::rows(&[Column::Int], &[&[Cell::Int(0)]]))];
    for lose in replies {
        let repeated = batch(1, "hello");
        let outcomes = record(&outcomes_of(&repeated));
        let lost = first(1, APPLY, lose);
        let peer = Peer::start(Setup::new(move |request| {
            if request.text.contains(OUTCOMES) {
                return Answer::rows(&[Column::Text], &[&[Cell::Text(&outcomes)]]).into();
            }
            match lost(request) {
                // From the second time on the batch's row is there.
                Reply::Answer(_) if request.text.contains(APPLY) => Answer::error(2627, 14, "").into(),
                reply => reply,
            }
        }));
        let store = peer.store();
        let answer = store.apply(&repeated).await;
        assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
        let applied = store.apply(&repeated).await.unwrap();
        assert_eq!(added(&applied), 9);
        assert_eq!(peer.look(|seen| seen.connections), 2);
        peer.until(|seen| seen.open == 1).await;
    }
}

/// As another try has stored them: with number 9.
fn outcomes_of(batch: &Batch) -> Applied {
    let room = ROOM;
    let at = Cursor::new(Epoch(EPOCH.cast_unsigned()), Seq(9));
    let command = &batch.commands[0];
    let digi_core::store::model::Action::Add { body, .. } = &command.action else { panic!("an add") };
    let message = digi_core::store::model::Message {
        id: digi_core::id::MessageId::own(room, at.seq).unwrap(),
        room,
        pos: at.seq,
        sender: command.user.clone(),
        sender_name: command.user_name.clone(),
        body: Some(body.clone()),
        client_id: None,
        created_at: batch.now,
        edited_at: None,
        deleted_at: None,
    };
    let outcome = Outcome::Message { op: digi_core::store::model::MessageOp::Added, at, message };
    let head = digi_core::store::model::Head { epoch: at.epoch, last_seq: at.seq };
    Applied { outcomes: vec![outcome], heads: vec![(room, head)] }
}

#[tokio::test]
async fn a_batch_that_was_made_void_is_rejected() {
    let peer = Peer::start(Setup::new(|request| {
        if request.text.contains(APPLY) {
            Answer::error(2627, 14, "").into()
        } else if request.text.contains(OUTCOMES) {
            Answer::rows(&[Column::Text], &[&[Cell::Null]]).into()
        } else {
            script::server(request).into()
        }
    }));
    let answer = peer.store().apply(&batch(1, "hello")).await;
    assert!(matches!(&answer, Err(StoreError::Rejected(text)) if text.contains("void")), "{answer:?}");
}

/// Whoever stops waiting takes the connection along; the next one gets another, and the answer to the right question.
#[tokio::test]
async fn a_request_that_is_not_awaited_takes_its_connection_with_it() {
    let peer = Peer::start(Setup::new(first(1, APPLY, |_| Reply::Hang)));
    let store = peer.store();
    let (first_batch, second_batch) = (batch(1, "first"), batch(2, "second"));
    {
        let apply = store.apply(&first_batch);
        tokio::select! {
            answer = apply => panic!("{answer:?}"),
            () = peer.until(|seen| seen.requests.iter().any(|request| request.text.contains(APPLY))) => {}
        }
    }
    peer.until(|seen| seen.open == 0).await;
    assert_eq!(added(&store.apply(&second_batch).await.unwrap()), 1);
    assert_eq!(peer.look(|seen| (seen.connections, seen.open)), (2, 1));

    let peer = Peer::start(Setup::new(first(1, MEMBER, |_| Reply::Hang)));
    let store = peer.store();
    let alice = "alice".into();
    {
        let read = store.member(ROOM, &alice);
        tokio::select! {
            answer = read => panic!("{answer:?}"),
            () = peer.until(|seen| seen.requests.iter().any(|request| request.text.contains(MEMBER))) => {}
        }
    }
    peer.until(|seen| seen.open == 0).await;
    // The pool has one connection, and its place is free again.
    store.member(ROOM, &alice).await.unwrap().membership.unwrap();
    assert_eq!(peer.look(|seen| (seen.connections, seen.open)), (2, 1));
}

#[tokio::test]
async fn a_connection_that_breaks_in_a_read_is_replaced() {
    let replies: [fn(&Request) -> Reply; 2] = [|_| Reply::Cut, |request| Reply::CutWithin(script::server(request))];
    for lose in replies {
        let peer = Peer::start(Setup::new(first(1, MEMBER, lose)));
        peer.store().member(ROOM, &"alice".into()).await.unwrap().membership.unwrap();
        assert_eq!(peer.look(|seen| seen.connections), 2);
        // For ever it isn't tried.
        let peer = Peer::start(Setup::new(first(usize::MAX, MEMBER, lose)));
        let answer = timeout(DEADLINE, peer.store().member(ROOM, &"alice".into())).await.unwrap();
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    }
}

/// A server that has taken the request and says nothing: both kinds of calls end, with what is known of them.
#[tokio::test]
async fn a_server_that_falls_silent_is_not_waited_for_for_ever() {
    let peer = Peer::start(Setup::new(|request| {
        if request.text.contains(APPLY) || request.text.contains(MEMBER) {
            Reply::Hang
        } else {
            script::server(request).into()
        }
    }));
    let store = peer.store();
    let (batch, alice) = (batch(1, "hello"), "alice".into());
    let both = async { tokio::join!(store.apply(&batch), store.member(ROOM, &alice)) };
    let (applied, read) = timeout(DEADLINE, both).await.expect("an answer in time");
    assert!(matches!(applied, Err(StoreError::Unknown(_))), "{applied:?}");
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    peer.until(|seen| seen.open == 0).await;
}

#[tokio::test]
async fn a_server_that_is_away_is_told_at_once_and_found_again() {
    let reserved = Reserved::new();
    let mut options = digi_core::store::mssql::MssqlOptions::new("127.0.0.1", "chat", "digi", crate::peer::PASSWORD);
    options.port = reserved.address().port();
    options.trust = digi_core::store::mssql::Trust::Anything;
    let store = digi_core::store::mssql::MssqlStore::open(options).unwrap();
    // Never there so far.
    assert_away(&store).await;
    let peer = reserved.start(Setup::new(|request| script::server(request).into()));
    found_again(&store).await;
    // Gone, with all connections.
    peer.go_down();
    peer.until(|seen| seen.open == 0).await;
    let answer = store.apply(&batch(1, "hello")).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_) | StoreError::Unknown(_))), "{answer:?}");
    assert_away(&store).await;
    peer.come_up();
    found_again(&store).await;
    assert_eq!(added(&store.apply(&batch(2, "hello")).await.unwrap()), 1);
}

/// Many calls, each of which is told so without being kept waiting.
async fn assert_away(store: &impl Store) {
    // The first may find it out the slow way.
    let _ = store.member(ROOM, &"alice".into()).await.unwrap_err();
    let all = async {
        for number in 0..200 {
            let answer = store.apply(&batch(number, "hello")).await;
            assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
            let answer = store.member(ROOM, &"alice".into()).await;
            assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
        }
    };
    timeout(Duration::from_secs(10), all).await.expect("400 answers within 10 s");
}

async fn found_again(store: &impl Store) {
    let again = async {
        while store.member(ROOM, &"alice".into()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, again).await.expect("found again by itself");
}

/// Only who asks first finds out the slow way that nobody answers.
#[tokio::test]
async fn a_server_that_lets_nobody_in_is_told_at_once_to_all_but_the_first() {
    let mut setup = Setup::new(|_| panic!("nobody was let in"));
    setup.login = None;
    let peer = Peer::start(setup);
    assert_away(&peer.store()).await;
}
