//! What came in and waits for the node.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::warn;

use crate::event::Envelope;
use crate::layer::{Incoming, wire};

/// How many envelopes wait at the most, and how many bytes of payload. What comes beyond is lost, and the node hears of
/// that.
const WAITING: (usize, usize) = (100_000, 32 * 1024 * 1024);

/// Between two warnings of unreadable payloads.
const WARN: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Inbox {
    /// This node's number on the wire.
    node: u64,
    waiting: Mutex<Waiting>,
    filled: Notify,
    undecodable: AtomicU64,
    warned: Mutex<Option<Instant>>,
}

#[derive(Default, Debug)]
struct Waiting {
    envelopes: Vec<Envelope>,
    bytes: usize,
    lagged: bool,
    /// The last that the node was given is `Lagged`.
    said_lagged: bool,
}

impl Inbox {
    pub(super) fn new(node: u64) -> Arc<Self> {
        Arc::new(Self {
            node,
            waiting: Mutex::default(),
            filled: Notify::new(),
            undecodable: AtomicU64::new(0),
            warned: Mutex::default(),
        })
    }

    pub(super) fn undecodable(&self) -> u64 {
        self.undecodable.load(Ordering::Relaxed)
    }

    /// Something may have been lost.
    pub(super) fn lag(&self) {
        self.waiting.lock().lagged = true;
        self.filled.notify_one();
    }

    /// Takes in a payload.
    pub(super) fn receive(&self, payload: Vec<u8>) {
        let payload = Bytes::from(payload);
        let mut envelopes = match wire::decode(self.node, &payload) {
            Ok(envelopes) => envelopes,
            Err(reason) => return self.unreadable(&reason),
        };
        if envelopes.is_empty() {
            return;
        }
        let mut waiting = self.waiting.lock();
        let was_empty = waiting.envelopes.is_empty();
        if waiting.envelopes.len() + envelopes.len() > WAITING.0 || waiting.bytes + payload.len() > WAITING.1 {
            waiting.lagged = true;
        } else {
            waiting.bytes += payload.len();
            match was_empty {
                true => waiting.envelopes = envelopes,
                false => waiting.envelopes.append(&mut envelopes),
            }
        }
        drop(waiting);
        if was_empty {
            self.filled.notify_one();
        }
    }

    fn unreadable(&self, reason: &wire::Unreadable) {
        let count = self.undecodable.fetch_add(1, Ordering::Relaxed) + 1;
        let mut warned = self.warned.lock();
        if warned.is_none_or(|at| at.elapsed() >= WARN) {
            *warned = Some(Instant::now());
            warn!(count, "a payload from Redis cannot be read: {reason}");
        }
        drop(warned);
        self.lag();
    }

    /// What is there, as soon as something is. Dropping the future loses nothing.
    pub(super) async fn next(&self) -> Incoming {
        loop {
            if let Some(incoming) = self.take() {
                return incoming;
            }
            self.filled.notified().await;
        }
    }

    fn take(&self) -> Option<Incoming> {
        let mut waiting = self.waiting.lock();
        // In turn, so that neither holds up the other however often it comes.
        let (is_lagged, has_envelopes) = (waiting.lagged, !waiting.envelopes.is_empty());
        if is_lagged && !(waiting.said_lagged && has_envelopes) {
            waiting.lagged = false;
            waiting.said_lagged = true;
            return Some(Incoming::Lagged);
        }
        waiting.said_lagged = false;
        waiting.bytes = 0;
        has_envelopes.then(|| Incoming::Arrived(std::mem::take(&mut waiting.envelopes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Signal;
    use crate::id::RoomId;

    fn missed(room: i64) -> Envelope {
        Envelope::Signal(Signal::Missed { room: Some(RoomId(room)) })
    }

    fn payload(rooms: &[i64]) -> Vec<u8> {
        let envelopes: Vec<_> = rooms.iter().map(|room| missed(*room)).collect();
        // All in one, although each group has its own on the wire.
        let mut payloads = wire::encode(1, &envelopes).into_iter().map(|(_, payload)| payload);
        let mut whole = payloads.next().unwrap();
        whole.extend(payloads.flat_map(|payload| payload[2..].to_vec()));
        whole
    }

    fn arrived(rooms: &[i64]) -> Incoming {
        Incoming::Arrived(rooms.iter().map(|room| missed(*room)).collect())
    }

    #[tokio::test]
    async fn all_that_waits_comes_together_and_in_order() {
        let inbox = Inbox::new(2);
        inbox.receive(payload(&[1, 2]));
        inbox.receive(payload(&[3]));
        assert_eq!(inbox.next().await, arrived(&[1, 2, 3]));
        assert_eq!(inbox.take(), None);
    }

    #[tokio::test]
    async fn a_reader_that_gave_up_loses_nothing() {
        let inbox = Inbox::new(2);
        let mut waiting = Box::pin(inbox.next());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        inbox.receive(payload(&[1]));
        drop(waiting);
        assert_eq!(inbox.next().await, arrived(&[1]));
        let mut waiting = Box::pin(inbox.next());
        assert!(futures_util::poll!(&mut waiting).is_pending());
        inbox.lag();
        assert_eq!(waiting.await, Incoming::Lagged);
    }

    #[test]
    fn neither_loss_nor_news_holds_up_the_other() {
        let inbox = Inbox::new(2);
        for round in 0..5 {
            inbox.lag();
            inbox.receive(payload(&[round]));
            assert_eq!(inbox.take(), Some(Incoming::Lagged));
            // Again, before the news was taken.
            inbox.lag();
            assert_eq!(inbox.take(), Some(arrived(&[round])));
        }
        assert_eq!(inbox.take(), Some(Incoming::Lagged));
        assert_eq!(inbox.take(), None);
    }

    #[test]
    fn ones_own_and_the_unreadable() {
        let inbox = Inbox::new(1);
        inbox.receive(payload(&[1]));
        assert_eq!((inbox.take(), inbox.undecodable()), (None, 0));
        inbox.receive(b"nonsense".to_vec());
        assert_eq!((inbox.take(), inbox.undecodable()), (Some(Incoming::Lagged), 1));
    }

    #[test]
    fn what_does_not_fit_is_lost_and_said() {
        let rooms: Vec<_> = (0..1_000).collect();
        let inbox = Inbox::new(2);
        for _ in 0..200 {
            inbox.receive(payload(&rooms));
        }
        assert_eq!(inbox.take(), Some(Incoming::Lagged));
        let Some(Incoming::Arrived(envelopes)) = inbox.take() else { panic!("what fits arrives") };
        assert_eq!(envelopes.len(), WAITING.0);
        assert_eq!(inbox.take(), None);
        inbox.receive(payload(&[1]));
        assert_eq!(inbox.take(), Some(arrived(&[1])));
    }
}
