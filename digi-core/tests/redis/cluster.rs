//! Slots of a cluster move, and masters die.

use digi_core::layer::{ChannelLayer, Incoming, RedisLayer};

use crate::fleet::ClusterSet;
use crate::server::RedisServer;
use crate::support::{added, group, lags_until, next, reaches, until, until_async, up};

fn channel(room: i64) -> String {
    format!("asgi__digi__chat_{room}")
}

async fn slot_of(node: &RedisServer, room: i64) -> String {
    match node.ask(&["CLUSTER", "KEYSLOT", &channel(room)]).await {
        redis::Value::Int(slot) => slot.to_string(),
        other => panic!("{other:?}"),
    }
}

/// How many connections are subscribed to the room's channel at a node.
async fn subscribers(node: &RedisServer, room: i64) -> i64 {
    match node.ask(&["PUBSUB", "SHARDNUMSUB", &channel(room)]).await {
        redis::Value::Array(parts) => match parts[1] {
            redis::Value::Int(count) => count,
            ref other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

/// Which of the nodes has a subscriber.
async fn at(set: &ClusterSet, room: i64) -> Vec<usize> {
    let mut found = Vec::new();
    for (number, node) in set.nodes.iter().enumerate() {
        if subscribers(node, room).await > 0 {
            found.push(number);
        }
    }
    found
}

/// As `redis-cli --cluster reshard` does it, for one slot without keys.
async fn move_slot(set: &ClusterSet, slot: &str, from: usize, to: usize) {
    let source = set.nodes[from].text(&["CLUSTER", "MYID"]).await;
    let target = set.nodes[to].text(&["CLUSTER", "MYID"]).await;
    set.nodes[to].ask(&["CLUSTER", "SETSLOT", slot, "IMPORTING", &source]).await;
    set.nodes[from].ask(&["CLUSTER", "SETSLOT", slot, "MIGRATING", &target]).await;
    for node in [to, from] {
        set.nodes[node].ask(&["CLUSTER", "SETSLOT", slot, "NODE", &target]).await;
    }
}

#[tokio::test]
async fn groups_are_spread_over_the_masters() {
    let set = ClusterSet::start(0).await;
    let (a, b) = (up(&set.url()).await, up(&set.url()).await);
    let rooms: Vec<_> = (1..=3_000).map(group).collect();
    b.subscribe(&rooms).await.unwrap();
    let wanted: Vec<_> = (1..=3_000).map(|room| added(room, 1)).collect();
    a.publish(&wanted).await.unwrap();
    let mut arrived = 0;
    while arrived < wanted.len() {
        match next(&b).await {
            Incoming::Lagged => panic!("nothing was lost"),
            Incoming::Arrived(envelopes) => arrived += envelopes.len(),
        }
    }
    let mut owners = std::collections::HashSet::new();
    for room in 1..=50 {
        let at = at(&set, room).await;
        assert_eq!(at.len(), 1, "room {room}");
        owners.extend(at);
    }
    assert_eq!(owners.len(), 3);
}

#[tokio::test]
async fn a_slot_that_moves_takes_its_groups_along() {
    let set = ClusterSet::start(0).await;
    // One seed suffices.
    let url = format!("redis+cluster://{}", set.nodes[2].address());
    let (a, b) = (up(&url).await, up(&url).await);
    // 4831, of the first master; 7808, of the second.
    b.subscribe(&[group(42), group(1)]).await.unwrap();
    assert_eq!((at(&set, 42).await, at(&set, 1).await), (vec![0], vec![1]));
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        move_slot(&set, &slot_of(&set.nodes[0], 42).await, from, to).await;
        assert!(reaches(&a, &b, 42).await >= 1);
        assert_eq!(at(&set, 42).await, [to]);
        // The others stay where they were.
        a.publish(&[added(1, to as u64)]).await.unwrap();
        lags_until(&b, &added(1, to as u64)).await;
        assert!(a.status().is_up && b.status().is_up);
    }
    b.unsubscribe(&[group(42)]).await.unwrap();
    assert!(at(&set, 42).await.is_empty());
}

#[tokio::test]
async fn a_master_that_dies_is_followed_by_its_replica() {
    let mut set = ClusterSet::start(1).await;
    let (a, b) = (up(&set.url()).await, up(&set.url()).await);
    b.subscribe(&[group(42), group(1)]).await.unwrap();
    set.nodes[0].kill();
    until("the nodes notice", || !a.status().is_up && !b.status().is_up).await;
    // The rest of the cluster works on.
    reaches(&a, &b, 1).await;
    assert!(a.publish(&[added(42, 1)]).await.is_err());
    reaches(&a, &b, 42).await;
    until("all is well again", || a.status().is_up && b.status().is_up).await;
    assert_eq!(subscribers(&set.nodes[3], 42).await, 1);
}

#[tokio::test]
async fn all_of_it_dies_and_comes_back() {
    let mut set = ClusterSet::start(0).await;
    let (a, b) = (up(&set.url()).await, up(&set.url()).await);
    b.subscribe(&[group(42), group(1)]).await.unwrap();
    set.nodes.iter_mut().for_each(RedisServer::kill);
    until("the nodes notice", || !a.status().is_up && !b.status().is_up).await;
    assert!(b.subscribe(&[group(3)]).await.is_err());
    set.nodes.iter_mut().for_each(RedisServer::restart);
    for room in [42, 1, 3] {
        reaches(&a, &b, room).await;
    }
    until("all is well again", || a.status().is_up && b.status().is_up).await;
}

#[tokio::test]
async fn a_layer_that_was_dropped_leaves_nothing() {
    let set = ClusterSet::start(0).await;
    let clients = async || {
        let mut count = 0;
        for node in &set.nodes {
            count += node.text(&["CLIENT", "LIST", "TYPE", "normal"]).await.lines().count() - 1;
            count += node.text(&["CLIENT", "LIST", "TYPE", "pubsub"]).await.lines().count();
        }
        count
    };
    let layer = up(&set.url()).await;
    layer.subscribe(&[group(42), group(1)]).await.unwrap();
    until_async("two connections to each master", async || clients().await == 6).await;
    drop(layer);
    until_async("the connections are closed", async || clients().await == 0).await;
    let tasks = tokio::runtime::Handle::current().metrics();
    until("the tasks end", || tasks.num_alive_tasks() == 0).await;
}

#[tokio::test]
async fn a_server_that_is_no_cluster_is_named() {
    let server = RedisServer::start(&[]);
    let layer = RedisLayer::from_url(&server.url().replace("redis:", "redis+cluster:")).unwrap();
    assert!(layer.subscribe(&[group(1)]).await.is_err());
    assert!(layer.publish(&[added(1, 1)]).await.is_err());
    until_async("it was asked", async || server.text(&["INFO", "errorstats"]).await.contains("errorstat_ERR:count"))
        .await;
    assert!(!layer.status().is_up);
}
