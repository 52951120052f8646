//! What is between the protocol and the kernel.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Chat, soon};

#[tokio::test]
async fn what_comes_in_one_piece_is_taken_frame_by_frame() {
    let chat = Chat::start().await;
    let mut ana = chat.enter("1").await;
    let body = |number: u64| format!("{number} {}", "x".repeat(400));
    for number in 1..=100 {
        ana.0.feed(Message::text(json!({ "message": body(number) }).to_string())).await.unwrap();
    }
    ana.0.flush().await.unwrap();
    for number in 1..=100 {
        let frame = ana.json().await;
        assert_eq!((frame["seq"].as_u64(), frame["message"].as_str()), (Some(number), Some(&*body(number))));
    }
}

/// Ben reads nothing until more waits for him than the sockets hold, and pings meanwhile.
#[tokio::test]
async fn pongs_come_between_frames_and_never_within_one() {
    let chat = Chat::start().await;
    let (mut ana, mut ben) = (chat.enter("1").await, chat.enter("2").await);
    // Each such character takes six in JSON.
    let body = "\u{1}".repeat(16 * 1024);
    for seq in 1..=35 {
        ana.send(&json!({ "message": body })).await;
        assert_eq!(ana.json().await["seq"], seq);
        ben.0.send(Message::Ping(vec![seq].into())).await.unwrap();
    }
    let (mut seen, mut last_pong) = (0, 0);
    while seen < 35 || last_pong < 35 {
        match ben.message().await {
            Message::Text(text) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                seen += 1;
                assert_eq!((frame["seq"].as_u64(), frame["message"].as_str()), (Some(seen), Some(&*body)));
            }
            Message::Pong(payload) => {
                assert!(payload[0] > last_pong, "{} behind {last_pong}", payload[0]);
                last_pong = payload[0];
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What waits for somebody who only writes is bounded.
#[tokio::test]
async fn of_many_pongs_that_nobody_takes_few_are_kept() {
    const PINGS: u32 = 200_000;
    let chat = Chat::start().await;
    let (mut sink, mut stream) = chat.enter("1").await.0.split();
    for number in 0..PINGS {
        let mut payload = number.to_be_bytes().to_vec();
        payload.resize(125, 0);
        soon(sink.feed(Message::Ping(payload.into()))).await.unwrap();
    }
    sink.flush().await.unwrap();
    let (mut count, mut last) = (0, 0);
    while last < PINGS - 1 {
        let Message::Pong(payload) = soon(stream.next()).await.unwrap().unwrap() else { panic!("a pong") };
        last = u32::from_be_bytes(payload[..4].try_into().unwrap());
        count += 1;
    }
    assert!(count < PINGS / 2, "{count} of {PINGS}");
}
