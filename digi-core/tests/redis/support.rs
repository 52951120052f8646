//! Layers that are up, and waiting for what is to come.

use std::time::{Duration, Instant};

use digi_core::event::{Envelope, Event, EventKind, Group};
use digi_core::frame::Frame;
use digi_core::layer::{ChannelLayer, Incoming, RedisLayer};
use digi_core::store::model::MessageOp;
use digi_core::{Cursor, Epoch, MessageId, RoomId, Seq};

use crate::server::PATIENCE;

/// Waits until it is so.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    until_async(what, async || condition()).await;
}

/// Waits until it is so.
pub(crate) async fn until_async(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let since = Instant::now();
    while !condition().await {
        assert!(since.elapsed() < PATIENCE, "not within {} s: {what}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A layer that has reached its servers.
pub(crate) async fn up(url: &str) -> RedisLayer {
    let layer = RedisLayer::from_url(url).unwrap();
    until("the layer is up", || layer.status().is_up).await;
    layer
}

pub(crate) fn group(room: i64) -> Group {
    Group::Room(RoomId(room))
}

pub(crate) fn added(room: i64, seq: u64) -> Envelope {
    let kind = EventKind::Message {
        op: MessageOp::Added,
        message: MessageId(room << 32 | 5),
        pos: Seq(seq),
        sender: "7".into(),
        client_id: None,
        frame: Frame::from_text(format!("{{\"n\":{seq}}}")),
    };
    Envelope::Event(Event { room: RoomId(room), at: Cursor::new(Epoch(1), Seq(seq)), kind })
}

/// What comes in next, within the patience that a test has.
pub(crate) async fn next(layer: &RedisLayer) -> Incoming {
    tokio::time::timeout(PATIENCE, layer.next()).await.expect("something comes in").unwrap()
}

/// How many times `Lagged` comes until the envelope does, behind which others may follow.
pub(crate) async fn lags_until(layer: &RedisLayer, wanted: &Envelope) -> usize {
    let mut lags = 0;
    loop {
        match next(layer).await {
            Incoming::Lagged => lags += 1,
            Incoming::Arrived(envelopes) if envelopes.contains(wanted) => return lags,
            Incoming::Arrived(_) => {}
        }
    }
}

/// Publishes new envelopes to the room until one arrives; how many times `Lagged` came before.
pub(crate) async fn reaches(from: &RedisLayer, to: &RedisLayer, room: i64) -> usize {
    let mut lags = 0;
    let since = Instant::now();
    for seq in 1.. {
        assert!(since.elapsed() < PATIENCE, "room {room} is not reached");
        let _ = from.publish(&[added(room, seq)]).await;
        let soon = tokio::time::sleep(Duration::from_millis(50));
        tokio::pin!(soon);
        loop {
            tokio::select! {
                incoming = to.next() => match incoming.unwrap() {
                    Incoming::Lagged => lags += 1,
                    Incoming::Arrived(envelopes) if envelopes.iter().any(|it| it.group() == group(room)) => return lags,
                    Incoming::Arrived(_) => {}
                },
                () = &mut soon => break,
            }
        }
    }
    unreachable!()
}
