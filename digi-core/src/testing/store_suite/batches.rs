//! A batch is committed or not, and stays so.

use super::Subject;
use super::tools::{
    add, add_with, apply, batch, bodies, changes, command, delete, edit, fill, head, join, last_seq, leave, message,
    one, outcomes, room, seqs,
};
use crate::store::model::{Outcome, Role};
use crate::store::{Store, StoreError};

/// Nothing of its batch is committed, wherever it stands; the rest goes through without it, and what the store
/// remembers is what was committed.
pub async fn an_offender_stops_its_batch_and_no_other(subject: Subject) {
    let Some(offender) = subject.offender.clone().or_else(|| subject.inapplicable("names no offender")) else { return };
    let store = &*subject.store;
    let (here, there) = (room(store).await, room(store).await);
    let first = message(store, add_with(here, "alice", "one", "first")).await;
    let before = (head(store, here).await, head(store, there).await, rows_of(store, here).await);
    let good = [
        add_with(here, "alice", "two", "second"),
        edit(here, "alice", first.id, "one, edited"),
        join(here, "carol", Role::Member),
        leave(here, "bob"),
        add(there, "bob", "elsewhere"),
        delete(here, "mona", first.id),
    ];
    for place in 0..=good.len() {
        let mut commands = good.to_vec();
        commands.insert(place, command(here, "alice", offender.clone()));
        let answer = store.apply(&batch(commands)).await;
        assert!(matches!(answer, Err(StoreError::Rejected(_))), "at {place}: {answer:?}");
        let after = (head(store, here).await, head(store, there).await, rows_of(store, here).await);
        assert_eq!(after, before, "at {place}");
        assert!(store.member(here, &"carol".into()).await.unwrap().membership.is_none());
    }
    // The client id of a batch that failed is not used up, and one of a batch before is.
    let outcomes = outcomes(store, vec![add_with(here, "alice", "x", "first"), good[0].clone()]).await;
    assert_eq!(seqs(&outcomes), [None, Some(2)]);
    // Who was removed by a batch that failed is a member.
    assert_eq!(seqs(&[one(store, add(here, "bob", "still here")).await]), [Some(3)]);
    assert_eq!(seqs(&apply(store, good[1..].to_vec()).await.outcomes), [4, 5, 6, 1, 7].map(Some));
}

async fn rows_of(store: &dyn Store, room: crate::id::RoomId) -> crate::store::model::Changes {
    changes(store, room, 0, 1_000).await
}

/// Nothing of the batch that did not fit is there, and everything before is.
pub async fn a_full_store_says_so_and_stays_readable(subject: Subject) {
    if !subject.bounded {
        return subject.inapplicable("sets no bound to fill").unwrap_or_default();
    }
    let store = &*subject.store;
    let room = room(store).await;
    let body = "x".repeat(16 << 10);
    let mut stored = 0;
    let error = loop {
        let commands = (0..10).map(|n| add_with(room, "alice", &body, &format!("{stored} {n}"))).collect();
        match store.apply(&batch(commands)).await {
            Ok(applied) => stored += applied.outcomes.len() as u64,
            Err(error) => break error,
        }
        assert!(stored < 100_000, "the bound is too far off to be reached");
    };
    assert!(matches!(error, StoreError::Full(_)), "{error:?}");
    assert!(stored > 0);
    assert_eq!(last_seq(store, room).await, stored);
    assert_eq!(changes(store, room, 0, u64::MAX).await.rows.len() as u64, stored);
    assert_eq!(bodies(store, room, None, 1).await, [body]);
    assert!(store.member(room, &"alice".into()).await.unwrap().membership.is_some());
    // A repeat of what was stored needs no space.
    let repeat = outcomes(store, vec![add_with(room, "alice", "x", &format!("{} 9", stored - 10))]).await;
    assert!(matches!(repeat[0], Outcome::Duplicate { .. }), "{repeat:?}");
}

/// Messages, memberships and heads.
pub async fn everything_is_there_after_reopening(mut subject: Subject) {
    let room = room(&*subject.store).await;
    fill(&*subject.store, room, 3).await;
    let first = message(&*subject.store, add(room, "alice", "four")).await;
    outcomes(&*subject.store, vec![delete(room, "alice", first.id), join(room, "carol", Role::Moderator)]).await;
    let before = (changes(&*subject.store, room, 0, 100).await, head(&*subject.store, room).await);
    if subject.reopen().await.is_none() {
        return;
    }
    let store = &*subject.store;
    store.migrate().await.unwrap();
    assert_eq!((changes(store, room, 0, 100).await, head(store, room).await), before);
    let outcomes = outcomes(store, vec![add(room, "carol", "seven"), add(room, "nobody", "no")]).await;
    assert_eq!(seqs(&outcomes), [Some(7), None]);
}

/// A repeat gives the outcomes of the first time.
pub async fn a_remembered_batch_is_not_done_twice(subject: Subject) {
    if !subject.remembers {
        return subject.inapplicable("says that it remembers no batches").unwrap_or_default();
    }
    let store = &*subject.store;
    let room = room(store).await;
    let batch = batch(vec![add(room, "alice", "one"), add(room, "nobody", "no"), join(room, "carol", Role::Member)]);
    let applied = store.apply(&batch).await.unwrap();
    fill(store, room, 3).await;
    assert_eq!(store.apply(&batch).await.unwrap(), applied);
    assert_eq!(last_seq(store, room).await, 5);
    assert!(matches!(store.void(batch.id).await, Err(StoreError::Rejected(_))));
}

/// Once it was made void.
pub async fn a_void_batch_is_never_done(subject: Subject) {
    if !subject.remembers {
        return subject.inapplicable("says that it remembers no batches").unwrap_or_default();
    }
    let store = &*subject.store;
    let room = room(store).await;
    let batch = batch(vec![add(room, "alice", "one")]);
    store.void(batch.id).await.unwrap();
    store.void(batch.id).await.unwrap();
    assert!(store.apply(&batch).await.is_err());
    assert_eq!(last_seq(store, room).await, 0);
}
