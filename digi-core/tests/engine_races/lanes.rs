//! Stores that carry out several batches side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};

use digi_core::engine::{Engine, Session, Speaker};
use digi_core::store::lane_of;
use digi_core::{CloseCode, RoomId};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::*;

const LANES: usize = 4;

/// One room per lane.
fn rooms() -> [RoomId; LANES] {
    std::array::from_fn(|lane| (1..).map(RoomId).find(|room| lane_of(*room, LANES) == lane).unwrap())
}

async fn start() -> (Arc<Gated>, Engine) {
    let store = Gated::new(LANES);
    let engine = with_rooms(builder(&store).build().await.unwrap(), &rooms()).await;
    (store, engine)
}

fn post(engine: &Engine, room: RoomId, text: &'static str) -> JoinHandle<()> {
    let engine = engine.clone();
    tokio::spawn(async move {
        engine.post(room, &Speaker::host("system", "System"), text, None).await.unwrap();
    })
}

#[test]
fn rooms_spread_evenly_over_lanes() {
    assert!((1..100).all(|room| lane_of(RoomId(room), 1) == 0 && lane_of(RoomId(room), 0) == 0));
    for step in [1, 4, 64, 1_000] {
        let mut rooms = [0; LANES];
        for room in 1..=1_000 {
            rooms[lane_of(RoomId(room * step), LANES)] += 1;
        }
        assert!(rooms.iter().all(|rooms| (200..300).contains(rooms)), "every {step}th: {rooms:?}");
    }
}

#[tokio::test]
async fn lanes_commit_side_by_side_and_one_that_hangs_holds_no_other_up() {
    let (store, engine) = start().await;
    for lane in 0..LANES {
        store.open(lane, false);
    }
    let posts = rooms().map(|room| post(&engine, room, "first"));
    // None of them has an answer yet, and each is under way.
    applying(&store, LANES).await;
    for lane in 1..LANES {
        store.open(lane, true);
    }
    let [hanging, others @ ..] = posts;
    for posted in others {
        soon(posted).await.unwrap();
    }
    for room in &rooms()[1..] {
        soon(post(&engine, *room, "second")).await.unwrap();
        assert_eq!(store.messages_of(*room).await, ["first", "second"]);
    }
    assert!(!hanging.is_finished());
    assert!(store.messages_of(rooms()[0]).await.is_empty());
    store.open(0, true);
    soon(hanging).await.unwrap();
    assert_eq!(store.messages_of(rooms()[0]).await, ["first"]);
}

/// What a session sends is stored in that order, everybody sees a room in one order, and lanes keep apart.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_room_keeps_its_order_and_its_lane() {
    let rooms: Vec<_> = (1..=8).map(RoomId).collect();
    let (users, each) = (["alice", "bob", "alice"], 60);
    let store = Gated::new(LANES);
    let engine = with_rooms(builder(&store).build().await.unwrap(), &rooms).await;
    let mut sessions = Vec::new();
    for room in &rooms {
        for (sender, user) in users.iter().enumerate() {
            sessions.push((sender, enter_room(&engine, *room, user).await));
        }
    }
    let mut tasks = tokio::task::JoinSet::new();
    for (sender, session) in sessions {
        tasks.spawn(async move {
            for number in 0..each {
                send(&session, json!({"message": format!("{sender} {number:02}")})).await;
            }
            for seq in 1..=users.len() * each {
                assert_eq!(next(&session).await["seq"], seq);
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    for room in rooms {
        let messages = store.messages_of(room).await;
        for sender in 0..users.len() {
            let prefix = format!("{sender} ");
            let sent: Vec<_> = messages.iter().filter(|text| text.starts_with(&prefix)).collect();
            assert!(sent.is_sorted() && sent.len() == each, "{sent:?}");
        }
    }
    let (mut numbers, mut ids) = (BTreeMap::new(), BTreeSet::new());
    for (id, rooms) in store.batches.lock().iter() {
        let lanes: BTreeSet<_> = rooms.iter().map(|room| lane_of(*room, LANES)).collect();
        assert_eq!(lanes.len(), 1, "{rooms:?}");
        numbers.entry(lanes.first().copied().unwrap()).or_insert_with(BTreeSet::new).insert(id.node);
        assert!(ids.insert((id.node, id.number)), "twice: {id:?}");
    }
    assert_eq!(numbers.len(), LANES);
    assert!(numbers.values().all(|numbers| numbers.len() == 1), "{numbers:?}");
    assert_eq!(numbers.into_values().flatten().collect::<BTreeSet<_>>().len(), LANES);
}

async fn enter_all(engine: &Engine) -> Vec<Session> {
    let mut sessions = Vec::new();
    for room in rooms() {
        sessions.push(enter_room(engine, room, "alice").await);
    }
    sessions
}

/// Every lane has a batch under way, and one more command queued behind it.
async fn fill(store: &Gated, sessions: &[Session]) {
    for (lane, session) in sessions.iter().enumerate() {
        store.open(lane, false);
        send(session, json!({"message": "under way"})).await;
    }
    applying(store, LANES).await;
    for session in sessions {
        send(session, json!({"message": "queued"})).await;
    }
}

#[tokio::test]
async fn the_queues_are_bounded_together() {
    let store = Gated::new(LANES);
    let mut few = limits();
    few.queued = LANES;
    let engine = with_rooms(builder(&store).limits(few).build().await.unwrap(), &rooms()).await;
    let sessions = enter_all(&engine).await;
    fill(&store, &sessions).await;
    assert_eq!(engine.stats().queued, LANES as u64);
    let mut one_more = pin!(sessions[0].receive(r#"{"message": "one more"}"#));
    assert!(one_more.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    // Whichever lane makes space.
    store.open(LANES - 1, true);
    soon(one_more).await.unwrap();
    for lane in 0..LANES {
        store.open(lane, true);
    }
    for text in ["under way", "queued", "one more"] {
        assert_eq!(next(&sessions[0]).await["message"], text);
    }
}

#[tokio::test]
async fn closing_waits_for_every_lane() {
    let (store, engine) = start().await;
    let sessions = enter_all(&engine).await;
    fill(&store, &sessions).await;
    let closing = tokio::spawn({
        let engine = engine.clone();
        async move { engine.close().await }
    });
    for (lane, session) in sessions.iter().enumerate() {
        assert!(!closing.is_finished());
        store.open(lane, true);
        for text in ["under way", "queued"] {
            assert_eq!(next(session).await["message"], text);
        }
    }
    soon(closing).await.unwrap();
    for session in &sessions {
        assert_eq!(soon(session.next()).await.err(), Some(CloseCode::Restart));
    }
}

#[tokio::test]
async fn a_lane_survives_a_store_that_panics_and_so_do_the_others() {
    let (store, engine) = start().await;
    let [room, other, ..] = rooms();
    store.open(1, false);
    let elsewhere = post(&engine, other, "elsewhere");
    applying(&store, 1).await;
    store.faults.lock().push(Fault::Panic);
    soon(post(&engine, room, "first")).await.unwrap();

    // Two in a batch that is refused, so that it has to be voided.
    store.open(0, false);
    let alone = post(&engine, room, "second");
    applying(&store, 4).await;
    *store.faults.lock() = vec![Fault::Rejected, Fault::Rejected];
    store.void_panics.store(true, Ordering::SeqCst);
    let queued = [post(&engine, room, "third"), post(&engine, room, "fourth")];
    soon(async {
        while engine.stats().queued < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    store.open(0, true);
    soon(alone).await.unwrap();
    for posted in queued {
        soon(posted).await.unwrap();
    }
    assert_eq!(store.messages_of(room).await, ["first", "second", "third", "fourth"]);
    assert!(!store.void_panics.load(Ordering::SeqCst), "it was voided");
    assert!(!elsewhere.is_finished());
    store.open(1, true);
    soon(elsewhere).await.unwrap();
}
