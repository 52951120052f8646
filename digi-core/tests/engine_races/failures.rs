//! Stores that fail.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use digi_core::engine::Speaker;
use digi_core::{CloseCode, Code};
use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn a_failing_store_is_the_senders_news_and_chat_goes_on_afterwards() {
    let (store, engine) = start().await;
    let (alice, bob) = (enter(&engine, "alice").await, enter(&engine, "bob").await);
    store.away.store(true, Ordering::SeqCst);
    send(&alice, json!({"message": "lost", "client_id": "a-1"})).await;
    let refused = next(&alice).await;
    assert_eq!((&refused["code"], &refused["client_id"]), (&json!("store_unavailable"), &json!("a-1")));
    assert!(is_silent(&bob));
    assert_eq!(engine.connect(scope(&engine, "carol")).await.err(), Some(CloseCode::Unavailable));
    let post = engine.post(ROOM, &Speaker::host("system", "System"), "lost", None).await;
    assert_eq!(post.unwrap_err().code(), Code::StoreUnavailable);
    store.away.store(false, Ordering::SeqCst);

    // The client sends it again, and one answer after the other gets lost.
    *store.faults.lock() =
        vec![Fault::LostBefore, Fault::Unavailable, Fault::LostAfter, Fault::Panic, Fault::LostBefore];
    send(&alice, json!({"message": "kept", "client_id": "a-1", "resend": true})).await;
    for client in [&alice, &bob] {
        let seen = next(client).await;
        assert_eq!((&seen["type"], &seen["message"], &seen["seq"]), (&json!("add"), &json!("kept"), &json!(1)));
    }
    assert_eq!(next(&alice).await["type"], "ack");
    send(&bob, json!({"message": "and on"})).await;
    for client in [&alice, &bob] {
        assert_eq!(next(client).await["seq"], 2);
    }
    assert!(is_silent(&alice) && is_silent(&bob));
    assert_eq!(store.messages().await, ["kept", "and on"]);
}

/// All answers to a commit that took place get lost: the sender is told that it could not be stored, everybody sees it
/// when heads are compared, and a resend is recognised.
#[tokio::test]
async fn a_commit_nobody_heard_of_shows_and_is_not_doubled() {
    let (store, engine) = start().await;
    let (alice, bob) = (enter(&engine, "alice").await, enter(&engine, "bob").await);
    *store.faults.lock() = vec![Fault::LostAfter; 8];
    send(&alice, json!({"message": "once", "client_id": "a-1"})).await;
    assert_eq!(next(&bob).await["message"], "once");
    let (mut shown, mut refused) = (0, 0);
    while shown < 1 || refused < 1 {
        match next(&alice).await {
            frame if frame["type"] == "add" => shown += 1,
            frame => {
                assert_eq!(frame["code"], "store_unavailable");
                refused += 1;
            }
        }
    }
    send(&alice, json!({"message": "once", "client_id": "a-1", "resend": true})).await;
    assert_eq!(next(&alice).await["type"], "ack");
    assert!(is_silent(&bob));
    assert_eq!(store.messages().await, ["once"]);
}

#[tokio::test]
async fn a_store_that_is_away_is_not_asked_without_a_pause() {
    let (store, engine) = start().await;
    let alice = enter(&engine, "alice").await;
    store.away.store(true, Ordering::SeqCst);
    let began = Instant::now();
    send(&alice, json!({"message": "lost"})).await;
    assert_eq!(next(&alice).await["code"], "store_unavailable");
    store.heads_asked.forget_permits(usize::MAX);
    soon(store.heads_asked.acquire_many(3)).await.unwrap().forget();
    assert!(began.elapsed() > Duration::from_secs(2), "{:?}", began.elapsed());
    store.away.store(false, Ordering::SeqCst);
    send(&alice, json!({"message": "back"})).await;
    assert_eq!(next(&alice).await["message"], "back");
}

/// It takes the store five seconds to find that its database is away, and batches are small. Time is virtual here.
#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_store_that_is_away_hears_within_ten_seconds() {
    let store = Gated::new(1);
    let mut small = limits();
    small.batch = 10;
    let engine = with_room(builder(&store).limits(small).build().await.unwrap()).await;
    store.away.store(true, Ordering::SeqCst);
    store.reaching.store(5_000, Ordering::SeqCst);
    let mut senders = tokio::task::JoinSet::new();
    for at in 0..400 {
        let engine = engine.clone();
        senders.spawn(async move {
            // Many at once, and more all the time.
            tokio::time::sleep(Duration::from_millis(100) * (at % 200)).await;
            let began = tokio::time::Instant::now();
            let refused = engine.post(ROOM, &Speaker::host("system", "System"), "lost", None).await.unwrap_err();
            (refused.code(), began.elapsed())
        });
    }
    while let Some(heard) = senders.join_next().await {
        let (code, after) = heard.unwrap();
        assert_eq!(code, Code::StoreUnavailable);
        assert!(after < Duration::from_millis(10_100), "{after:?}");
    }
    store.away.store(false, Ordering::SeqCst);
    engine.post(ROOM, &Speaker::host("system", "System"), "back", None).await.unwrap();
    assert_eq!(store.messages().await, ["back"]);
}

/// The answer to a commit is lost because the database goes away, and each further try takes five seconds.
#[tokio::test(start_paused = true)]
async fn a_sender_does_not_wait_long_to_hear_that_nobody_knows() {
    let (store, engine) = start().await;
    let alice = enter(&engine, "alice").await;
    store.faults.lock().push(Fault::Cut);
    store.reaching.store(5_000, Ordering::SeqCst);
    let began = tokio::time::Instant::now();
    send(&alice, json!({"message": "once", "client_id": "a-1"})).await;
    assert_eq!(next(&alice).await["code"], "store_unavailable");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // Rooms wait for what is missing by the system's clock.
    tokio::time::resume();
    store.away.store(false, Ordering::SeqCst);
    send(&alice, json!({"message": "once", "client_id": "a-1", "resend": true})).await;
    // Either may come first: the message shows when heads are compared.
    let mut kinds = kinds(&alice, 2).await;
    kinds.sort();
    assert_eq!(kinds, ["ack", "add"]);
    assert_eq!(store.messages().await, ["once"]);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_lets_nobody_in_and_says_so() {
    let (store, engine) = start().await;
    store.members.send_replace(false);
    let began = tokio::time::Instant::now();
    assert_eq!(engine.connect(scope(&engine, "alice")).await.err(), Some(CloseCode::Unavailable));
    assert!(began.elapsed() <= Duration::from_secs(11), "{:?}", began.elapsed());
    store.members.send_replace(true);
    enter(&engine, "alice").await;
}
