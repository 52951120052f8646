//! Sentinels name another master.

use std::collections::HashMap;

use digi_core::layer::{ChannelLayer, RedisLayer};

use crate::fleet::{PASSWORD, SentinelSet};
use crate::support::{group, reaches, until, up};

async fn at_the_other_server(set: &SentinelSet, layers: [&RedisLayer; 2]) {
    until("the nodes are at the new master", || layers.iter().all(|layer| layer.status().is_up)).await;
    let replica = format!("redis://:{PASSWORD}@{}", set.servers[1].address());
    let client = redis::Client::open(replica).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let role: redis::Value = redis::cmd("ROLE").query_async(&mut connection).await.unwrap();
    assert!(format!("{role:?}").contains("master"), "{role:?}");
    let counts: HashMap<String, i64> =
        redis::cmd("PUBSUB").arg("NUMSUB").arg("asgi__digi__chat_1").query_async(&mut connection).await.unwrap();
    assert_eq!(counts["asgi__digi__chat_1"], 1);
}

#[tokio::test]
async fn after_the_masters_death() {
    let mut set = SentinelSet::start().await;
    let (a, b) = (up(&set.url()).await, up(&set.url()).await);
    b.subscribe(&[group(1), group(2)]).await.unwrap();
    set.servers[0].kill();
    until("the nodes notice", || !a.status().is_up && !b.status().is_up).await;
    assert!(reaches(&a, &b, 1).await >= 1);
    reaches(&a, &b, 2).await;
    at_the_other_server(&set, [&a, &b]).await;
    // The old one comes back as a replica, and nobody goes there.
    set.servers[0].restart();
    reaches(&a, &b, 1).await;
    at_the_other_server(&set, [&a, &b]).await;
}

#[tokio::test]
async fn after_a_master_hung() {
    let set = SentinelSet::start().await;
    let (a, b) = (up(&set.url()).await, up(&set.url()).await);
    b.subscribe(&[group(1)]).await.unwrap();
    set.servers[0].stop();
    until("the nodes notice", || !a.status().is_up && !b.status().is_up).await;
    assert!(reaches(&a, &b, 1).await >= 1);
    // When it goes on, it believes to be the master still.
    set.servers[0].resume();
    for _ in 0..20 {
        reaches(&a, &b, 1).await;
    }
    at_the_other_server(&set, [&a, &b]).await;
}

#[tokio::test]
async fn while_most_sentinels_are_away() {
    let mut set = SentinelSet::start().await;
    set.sentinels[0].kill();
    set.sentinels[1].stop();
    let (a, b) = (up(&set.url()).await, up(&set.url()).await);
    b.subscribe(&[group(1)]).await.unwrap();
    reaches(&a, &b, 1).await;
    set.sentinels[1].resume();
}

#[tokio::test]
async fn sentinels_that_do_not_know_the_name() {
    let set = SentinelSet::start().await;
    let layer = RedisLayer::from_url(&set.url().replace("mymaster", "another")).unwrap();
    let error = layer.subscribe(&[group(1)]).await.unwrap_err();
    assert!(error.to_string().contains("another"), "{error}");
    assert!(!layer.status().is_up);
}
