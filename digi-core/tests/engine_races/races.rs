//! What happens at the same time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use digi_core::engine::{Session, Speaker};
use digi_core::event::{Envelope, Group};
use digi_core::layer::{ChannelLayer, Incoming, LayerError};
use digi_core::{CloseCode, Code};
use serde_json::json;
use tokio::sync::watch;

use crate::support::*;

#[tokio::test]
async fn nobody_sees_a_message_before_it_is_committed() {
    let (store, engine) = start().await;
    let (alice, bob) = (enter(&engine, "alice").await, enter(&engine, "bob").await);
    store.open(0, false);
    send(&alice, json!({"message": "one", "client_id": "a-1"})).await;
    applying(&store, 1).await;
    // What comes while a transaction runs forms the next batch.
    for number in 2..=5 {
        send(&alice, json!({"message": number.to_string(), "client_id": format!("a-{number}")})).await;
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(is_silent(&alice) && is_silent(&bob));
    assert_eq!(engine.stats().committed, 0);
    store.open(0, true);
    for seq in 1..=5 {
        assert_eq!(next(&bob).await["seq"], seq);
    }
    let kinds = kinds(&alice, 10).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "ack").count(), 5);
    assert_eq!(engine.stats().batches, 2);
}

/// A change is committed after a newcomer's membership and the head were read, and before its room is loaded.
#[tokio::test]
async fn what_is_committed_while_a_room_is_being_loaded_is_shown() {
    let (store, engine) = start().await;
    // The comparison of heads would find it, too, but only after up to half a minute.
    store.heads_hidden.store(true, Ordering::SeqCst);
    store.members.send_replace(false);
    let connecting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.connect(scope(&engine, "bob")).await }
    });
    soon(store.members_read.acquire()).await.unwrap().forget();
    engine.post(ROOM, &Speaker::host("system", "System"), "meanwhile", None).await.unwrap();
    store.members.send_replace(true);
    let bob = soon(connecting).await.unwrap().unwrap();
    assert_eq!(next(&bob).await["type"], "resumed");
    assert_eq!(next(&bob).await["message"], "meanwhile");
}

#[tokio::test]
async fn a_batch_of_any_size_closes_nobody_who_reads() {
    let store = Gated::new(1);
    let mut few = limits();
    few.outbox.frames = 16;
    let engine = with_room(builder(&store).limits(few).build().await.unwrap()).await;
    let (alice, bob) = (enter(&engine, "alice").await, enter(&engine, "bob").await);
    store.open(0, false);
    for number in 1..=200 {
        send(&alice, json!({"message": number.to_string()})).await;
    }
    store.open(0, true);
    let read = |session: Session| async move {
        for seq in 1..=200 {
            assert_eq!(next(&session).await["seq"], seq);
        }
    };
    tokio::join!(read(alice), read(bob));
}

#[tokio::test]
async fn a_closed_engine_has_nothing_under_way() {
    let (store, engine) = start().await;
    store.members.send_replace(false);
    let spawned = |user: &'static str| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.connect(scope(&engine, user)).await })
    };
    let connecting = spawned("alice");
    let posting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.post(ROOM, &Speaker::user("bob", "bob"), "late", None).await }
    });
    soon(store.members_read.acquire_many(2)).await.unwrap().forget();
    soon(engine.close()).await;
    assert_eq!(soon(connecting).await.unwrap().err(), Some(CloseCode::Restart));
    store.members.send_replace(true);
    assert_eq!(soon(posting).await.unwrap().unwrap_err().code(), Code::EngineClosed);
    assert!(store.messages().await.is_empty());
    assert_eq!((engine.stats().sessions, engine.stats().rooms), (0, 0));
}

#[tokio::test]
async fn closing_goes_on_when_it_is_not_waited_for() {
    let (store, engine) = start().await;
    let alice = enter(&engine, "alice").await;
    store.open(0, false);
    send(&alice, json!({"message": "queued", "client_id": "a-1"})).await;
    applying(&store, 1).await;
    assert!(tokio::time::timeout(Duration::from_millis(1), engine.close()).await.is_err());
    // What comes too late is not taken, and its sender is told so.
    let late = alice.receive(r#"{"message": "late", "client_id": "a-2"}"#).await;
    assert_eq!(late.unwrap_err().code(), Code::EngineClosed);
    let refused = next(&alice).await;
    assert_eq!((&refused["code"], &refused["client_id"]), (&json!("engine_closed"), &json!("a-2")));
    store.open(0, true);
    assert_eq!(kinds(&alice, 2).await, ["add", "ack"]);
    assert_eq!(soon(alice.next()).await.err(), Some(CloseCode::Restart));
}

/// Whoever gets a session while the engine closes sees it closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_slips_in_while_the_engine_closes() {
    for _ in 0..300 {
        let (_store, engine) = start().await;
        let mut connecting = tokio::task::JoinSet::new();
        for user in ["alice", "bob"] {
            for _ in 0..8 {
                let engine = engine.clone();
                connecting.spawn(async move { engine.connect(scope(&engine, user)).await });
            }
        }
        engine.close().await;
        while let Some(connected) = connecting.join_next().await {
            if let Ok(session) = connected.unwrap() {
                soon(async { while session.next().await.is_ok() {} }).await;
            }
        }
        assert_eq!(engine.stats().sessions, 0);
    }
}

/// A host's own threads and loops wait on the engine with whatever they have.
#[test]
fn an_engine_can_be_used_from_outside_its_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = Gated::new(1);
    let engine = runtime.block_on(builder(&store).build()).unwrap();
    block_on(async {
        let engine = with_room(engine).await;
        let bob = engine.connect(scope(&engine, "bob")).await.unwrap();
        assert!(bob.next().await.unwrap().as_str().contains("resumed"));
        engine.post(ROOM, &Speaker::user("alice", "alice"), "hello", None).await.unwrap();
        assert!(bob.next().await.unwrap().as_str().contains("hello"));
        bob.receive(r#"{"message":"hi"}"#).await.unwrap();
        assert!(bob.next().await.unwrap().as_str().contains("hi"));
        engine.restored().await.unwrap();
        engine.close().await;
        while bob.next().await.is_ok() {}
        assert_eq!(bob.closed(), Some(CloseCode::Restart));
    });
    drop(runtime);
}

/// The least that a future needs, without tokio.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut cx = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
        std::thread::park_timeout(Duration::from_secs(20));
    }
}

/// A layer on which publishing takes as long as the test wants.
struct SlowLayer {
    open: watch::Sender<bool>,
    now: AtomicUsize,
    most: AtomicUsize,
    published: parking_lot::Mutex<Vec<u64>>,
}

#[async_trait]
impl ChannelLayer for SlowLayer {
    async fn subscribe(&self, _: &[Group]) -> Result<(), LayerError> {
        Ok(())
    }

    async fn unsubscribe(&self, _: &[Group]) -> Result<(), LayerError> {
        Ok(())
    }

    async fn publish(&self, envelopes: &[Envelope]) -> Result<(), LayerError> {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        pass(&self.open).await;
        for envelope in envelopes {
            if let Envelope::Event(event) = envelope {
                self.published.lock().push(event.at.seq.0);
            }
        }
        self.now.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    async fn next(&self) -> Option<Incoming> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_slow_layer_gets_one_batch_after_the_other_and_holds_nobody_up() {
    let store = Gated::new(1);
    let layer = Arc::new(SlowLayer {
        open: watch::Sender::new(false),
        now: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
        published: parking_lot::Mutex::default(),
    });
    let engine = with_room(builder(&store).layer_object(layer.clone()).build().await.unwrap()).await;
    let (alice, bob) = (enter(&engine, "alice").await, enter(&engine, "bob").await);
    for seq in 1..=20 {
        send(&alice, json!({"message": "x"})).await;
        assert_eq!(next(&bob).await["seq"], seq);
    }
    layer.open.send_replace(true);
    soon(async {
        while layer.published.lock().len() < 20 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(*layer.published.lock(), (1..=20).collect::<Vec<_>>());
    assert_eq!(layer.most.load(Ordering::SeqCst), 1);
}
