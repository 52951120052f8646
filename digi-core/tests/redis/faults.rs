//! Redis dies, hangs, comes back, or the network does.

use std::time::{Duration, Instant};

use digi_core::layer::{ChannelLayer, Incoming, RedisLayer};

use crate::proxy::Proxy;
use crate::server::RedisServer;
use crate::support::{added, group, lags_until, next, reaches, until, until_async, up};

/// What a call may take that has to fail at once.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What a call may take when nobody answers.
const SOON: Duration = Duration::from_secs(5);

async fn timed<T>(limit: Duration, call: impl Future<Output = T>) -> T {
    let since = Instant::now();
    let result = call.await;
    assert!(since.elapsed() < limit, "a call took {:?}", since.elapsed());
    result
}

fn is_up(layer: &RedisLayer) -> bool {
    layer.status().is_up
}

async fn both_back(a: &RedisLayer, b: &RedisLayer) {
    until("both nodes are back", || is_up(a) && is_up(b)).await;
}

#[tokio::test]
async fn a_redis_that_was_not_there_at_first() {
    let mut server = RedisServer::start(&[]);
    server.kill();
    let (a, b) = (RedisLayer::from_url(&server.url()).unwrap(), RedisLayer::from_url(&server.url()).unwrap());
    let error = timed(AT_ONCE, b.subscribe(&[group(1)])).await.unwrap_err();
    assert!(error.to_string().contains(&server.address()), "{error}");
    assert!(timed(AT_ONCE, a.publish(&[added(1, 1)])).await.is_err());
    assert!(!is_up(&a));
    server.restart();
    both_back(&a, &b).await;
    assert_eq!(next(&b).await, Incoming::Lagged);
    a.publish(&[added(1, 2)]).await.unwrap();
    assert_eq!(next(&b).await, Incoming::Arrived(vec![added(1, 2)]));
}

#[tokio::test]
async fn a_redis_that_was_killed_and_started_again() {
    let mut server = RedisServer::start(&[]);
    let (a, b) = (up(&server.url()).await, up(&server.url()).await);
    let rooms: Vec<_> = (1..=2_500).map(group).collect();
    b.subscribe(&rooms).await.unwrap();
    for _ in 0..2 {
        server.kill();
        until("both nodes notice", || !is_up(&a) && !is_up(&b)).await;
        assert!(timed(AT_ONCE, a.publish(&[added(1, 1)])).await.is_err());
        assert!(timed(AT_ONCE, b.subscribe(&[group(3_000)])).await.is_err());
        assert!(timed(AT_ONCE, b.unsubscribe(&[group(2)])).await.is_err());
        server.restart();
        both_back(&a, &b).await;
        // Once, however many groups there are.
        a.publish(&[added(2, 1), added(1, 2), added(2_500, 2), added(3_000, 2)]).await.unwrap();
        assert_eq!(next(&b).await, Incoming::Lagged);
        let mut arrived = Vec::new();
        while arrived.len() < 3 {
            match next(&b).await {
                Incoming::Lagged => panic!("one gap was reported twice"),
                Incoming::Arrived(envelopes) => arrived.extend(envelopes),
            }
        }
        assert_eq!(arrived, [added(1, 2), added(2_500, 2), added(3_000, 2)]);
    }
}

#[tokio::test]
async fn a_redis_that_hangs() {
    let server = RedisServer::start(&[]);
    let (a, b) = (up(&server.url()).await, up(&server.url()).await);
    b.subscribe(&[group(1)]).await.unwrap();
    server.stop();
    assert!(timed(SOON, a.publish(&[added(1, 1)])).await.is_err());
    assert!(timed(AT_ONCE, a.publish(&[added(1, 1)])).await.is_err());
    assert!(timed(SOON, b.subscribe(&[group(2)])).await.is_err());
    assert!(timed(AT_ONCE, b.subscribe(&[group(2)])).await.is_err());
    until("both nodes notice", || !is_up(&a) && !is_up(&b)).await;
    server.resume();
    assert!(reaches(&a, &b, 1).await >= 1);
    reaches(&a, &b, 2).await;
    both_back(&a, &b).await;
}

#[tokio::test]
async fn a_redis_that_hangs_while_nobody_asks_anything() {
    let server = RedisServer::start(&[]);
    let layer = up(&server.url()).await;
    layer.subscribe(&[group(1)]).await.unwrap();
    server.stop();
    until("the node notices by itself", || !is_up(&layer)).await;
    server.resume();
    until("and comes back", || is_up(&layer)).await;
    assert_eq!(next(&layer).await, Incoming::Lagged);
}

#[tokio::test]
async fn connections_that_were_killed() {
    let server = RedisServer::start(&[]);
    let (a, b) = (up(&server.url()).await, up(&server.url()).await);
    b.subscribe(&[group(1)]).await.unwrap();
    for round in 0..3 {
        // Those that subscribe, and have a gap.
        server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        assert_eq!(next(&b).await, Incoming::Lagged);
        until("the node is back", || is_up(&b)).await;
        a.publish(&[added(1, round)]).await.unwrap();
        assert_eq!(lags_until(&b, &added(1, round)).await, 0);
    }
    // Those that publish, and have none. A subscriber without subscriptions, as that of `a`, is a normal client.
    server.ask(&["CLIENT", "KILL", "TYPE", "normal"]).await;
    until_async("it is published again", async || a.publish(&[added(1, 9)]).await.is_ok()).await;
    assert_eq!(lags_until(&b, &added(1, 9)).await, 0);
}

#[tokio::test]
async fn a_network_that_is_cut_in_the_middle_of_things() {
    let server = RedisServer::start(&[]);
    let proxy = Proxy::start(server.address()).await;
    let (a, b) = (up(&server.url()).await, up(&proxy.url()).await);
    b.subscribe(&[group(1)]).await.unwrap();
    for round in 1..=5 {
        let many: Vec<_> = (1..=5_000).map(|seq| added(1, round * 10_000 + seq)).collect();
        a.publish(&many).await.unwrap();
        proxy.cut();
        until("the node notices", || !is_up(&b)).await;
        proxy.pass();
        until("the node is back", || is_up(&b)).await;
        a.publish(&[added(1, round)]).await.unwrap();
        assert_eq!(lags_until(&b, &added(1, round)).await, 1, "of one gap");
        assert_eq!(b.status().undecodable, 0);
    }
}

#[tokio::test]
async fn a_network_that_swallows_everything() {
    let server = RedisServer::start(&["client-output-buffer-limit pubsub 100kb 0 0"]);
    let proxy = Proxy::start(server.address()).await;
    let (a, b) = (up(&server.url()).await, up(&proxy.url()).await);
    b.subscribe(&[group(1)]).await.unwrap();
    proxy.hang();
    assert!(timed(SOON, b.publish(&[added(1, 1)])).await.is_err());
    // Redis drops a subscriber that does not read.
    let subscribers = async || server.text(&["CLIENT", "LIST", "TYPE", "pubsub"]).await.lines().count();
    assert_eq!(subscribers().await, 1);
    let large: Vec<_> = (1..=20_000).map(|seq| added(1, seq)).collect();
    until_async("Redis drops the slow subscriber", async || {
        a.publish(&large).await.unwrap();
        subscribers().await == 0
    })
    .await;
    until("the node notices", || !is_up(&b)).await;
    proxy.pass();
    while next(&b).await != Incoming::Lagged {}
    reaches(&a, &b, 1).await;
    until("the node is back", || is_up(&b)).await;
}

#[tokio::test]
async fn a_network_that_is_slow() {
    let server = RedisServer::start(&[]);
    let proxy = Proxy::start(server.address()).await;
    let (a, b) = (up(&proxy.url()).await, up(&proxy.url()).await);
    proxy.delay(Duration::from_millis(100));
    b.subscribe(&[group(1)]).await.unwrap();
    let wanted: Vec<_> = (1..=20).map(|seq| added(1, seq)).collect();
    let (first, second) = wanted.split_at(10);
    // Side by side, and in their order all the same.
    let (one, two) = tokio::join!(a.publish(first), a.publish(second));
    assert_eq!((one, two), (Ok(()), Ok(())));
    let mut arrived = Vec::new();
    while arrived.len() < wanted.len() {
        match next(&b).await {
            Incoming::Lagged => panic!("nothing was lost"),
            Incoming::Arrived(envelopes) => arrived.extend(envelopes),
        }
    }
    assert_eq!(arrived, wanted);
}

#[tokio::test]
async fn a_subscription_that_was_given_up_half_way() {
    let server = RedisServer::start(&[]);
    let proxy = Proxy::start(server.address()).await;
    let (a, b) = (up(&server.url()).await, up(&proxy.url()).await);
    proxy.delay(Duration::from_millis(300));
    let given_up = tokio::time::timeout(Duration::from_millis(100), b.subscribe(&[group(1)])).await;
    assert!(given_up.is_err());
    proxy.delay(Duration::ZERO);
    reaches(&a, &b, 1).await;
}

#[tokio::test]
async fn a_redis_that_does_not_allow_the_channels() {
    let server = RedisServer::start(&["user default on nopass ~* resetchannels &other__* +@all"]);
    let layer = up(&server.url()).await;
    let error = layer.subscribe(&[group(1)]).await.unwrap_err();
    assert!(error.to_string().contains("permission"), "{error}");
    let error = layer.publish(&[added(1, 1)]).await.unwrap_err();
    assert!(error.to_string().contains("permission"), "{error}");
    until("the node says that it is not well", || !is_up(&layer)).await;
    server.ask(&["ACL", "SETUSER", "default", "allchannels"]).await;
    until("it heals by itself", || is_up(&layer)).await;
}

#[tokio::test]
async fn a_layer_that_was_dropped_leaves_nothing() {
    let server = RedisServer::start(&[]);
    let clients = async || server.text(&["CLIENT", "LIST"]).await.lines().count();
    let layer = up(&server.url()).await;
    layer.subscribe(&[group(1)]).await.unwrap();
    layer.publish(&[added(1, 1)]).await.unwrap();
    // With the one that asks.
    assert_eq!(clients().await, 3);
    drop(layer);
    until_async("the connections are closed", async || clients().await == 1).await;
    let tasks = tokio::runtime::Handle::current().metrics();
    until("the tasks end", || tasks.num_alive_tasks() == 0).await;
}
