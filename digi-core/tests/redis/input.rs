//! What comes in from Redis and is not as it should be, or too much.

use digi_core::layer::{ChannelLayer, Incoming};

use crate::server::RedisServer;
use crate::support::{added, group, lags_until, next, up};

#[tokio::test]
async fn what_cannot_be_read_is_counted_and_reported() {
    let server = RedisServer::start(&[]);
    let (a, b) = (up(&server.url()).await, up(&server.url()).await);
    b.subscribe(&[group(1)]).await.unwrap();
    for (count, payload) in ["nonsense", "", "\u{1}", "\u{2}abc"].into_iter().enumerate() {
        server.ask(&["PUBLISH", "asgi__digi__chat_1", payload]).await;
        assert_eq!(next(&b).await, Incoming::Lagged);
        assert_eq!(b.status().undecodable, count as u64 + 1);
    }
    a.publish(&[added(1, 1)]).await.unwrap();
    assert_eq!(next(&b).await, Incoming::Arrived(vec![added(1, 1)]));
    assert!(b.status().is_up);
}

#[tokio::test]
async fn bad_payloads_do_not_keep_good_ones_out() {
    let server = RedisServer::start(&[]);
    let (a, b) = (up(&server.url()).await, up(&server.url()).await);
    b.subscribe(&[group(1)]).await.unwrap();
    let bad = async {
        loop {
            server.ask(&["PUBLISH", "asgi__digi__chat_1", "nonsense"]).await;
        }
    };
    let good = async {
        for seq in 1..=200 {
            a.publish(&[added(1, seq)]).await.unwrap();
            lags_until(&b, &added(1, seq)).await;
        }
    };
    tokio::select! {
        () = bad => {}
        () = good => {}
    }
}

#[tokio::test]
async fn a_node_that_does_not_read_loses_and_hears_of_it() {
    let server = RedisServer::start(&[]);
    let (a, b) = (up(&server.url()).await, up(&server.url()).await);
    b.subscribe(&[group(1)]).await.unwrap();
    let piece: Vec<_> = (1..=10_000).map(|seq| added(1, seq)).collect();
    for _ in 0..15 {
        a.publish(&piece).await.unwrap();
    }
    a.publish(&[added(1, 1_000_000)]).await.unwrap();
    // It does not read until all has come in.
    crate::support::until_async("Redis has nothing left for it", async || {
        let list = server.text(&["CLIENT", "LIST", "TYPE", "pubsub"]).await;
        list.contains(" omem=0 ") && list.contains(" oll=0 ")
    })
    .await;
    assert_eq!(next(&b).await, Incoming::Lagged);
    let Incoming::Arrived(envelopes) = next(&b).await else { panic!("what fitted comes, too") };
    assert!((50_000..=100_000).contains(&envelopes.len()), "{}", envelopes.len());
    assert_eq!(envelopes[..10_000], piece);
    // And it goes on.
    a.publish(&[added(1, 1_000_001)]).await.unwrap();
    lags_until(&b, &added(1, 1_000_001)).await;
}

#[tokio::test]
async fn what_is_ready_comes_at_once() {
    let server = RedisServer::start(&[]);
    let (a, b) = (up(&server.url()).await, up(&server.url()).await);
    let rooms: Vec<_> = (1..=100).map(group).collect();
    b.subscribe(&rooms).await.unwrap();
    let wanted: Vec<_> = (1..=100).map(|room| added(room, 1)).collect();
    a.publish(&wanted).await.unwrap();
    let (mut arrived, mut pieces) = (Vec::new(), 0);
    while arrived.len() < 100 {
        let Incoming::Arrived(envelopes) = next(&b).await else { panic!("nothing was lost") };
        arrived.extend(envelopes);
        pieces += 1;
    }
    assert_eq!(arrived, wanted);
    assert!(pieces < 50, "{pieces} pieces");
}

#[tokio::test]
async fn prefixes_keep_sites_apart() {
    let server = RedisServer::start(&[]);
    let (a, b) = (up(&format!("{}?prefix=one", server.url())).await, up(&format!("{}?prefix=two", server.url())).await);
    let c = up(&format!("{}?prefix=one", server.url())).await;
    b.subscribe(&[group(1)]).await.unwrap();
    c.subscribe(&[group(1)]).await.unwrap();
    assert_eq!(server.ask(&["PUBSUB", "NUMSUB", "one__digi__chat_1"]).await, numsub("one__digi__chat_1", 1));
    a.publish(&[added(1, 1)]).await.unwrap();
    assert_eq!(next(&c).await, Incoming::Arrived(vec![added(1, 1)]));
    let of_b = up(&format!("{}?prefix=two", server.url())).await;
    of_b.publish(&[added(1, 2)]).await.unwrap();
    assert_eq!(next(&b).await, Incoming::Arrived(vec![added(1, 2)]));
}

fn numsub(channel: &str, count: i64) -> redis::Value {
    redis::Value::Array(vec![redis::Value::BulkString(channel.into()), redis::Value::Int(count)])
}
