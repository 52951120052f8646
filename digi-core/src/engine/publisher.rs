//! What goes out to the other nodes, and what could not.
//!
//! One batch is published after the other: what goes out side by side arrives in disorder, and the others would wait
//! for what seems to be missing. What gathers meanwhile goes out together. An event that could not be published is not
//! kept, because it stands in the store; what is kept, and said as soon as the layer works again, is that its room has
//! something to read there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tracing::debug;

use super::missed::Missed;
use crate::event::Envelope;
use crate::layer::ChannelLayer;

/// How many batches wait to be published. What comes beyond counts as missed.
const WAITING: usize = 256;

/// How many of them are published together.
const TOGETHER: usize = 32;

/// After a failure, how long until the others are told what they missed: doubled up to the second figure.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// How long the layer has to work again before kept kicks are sent: by then the others listen again as well.
const KICKS: Duration = Duration::from_secs(5);

/// How long the end of an engine waits for what is still to be said.
const END: Duration = Duration::from_secs(1);

/// The end at which envelopes go in.
pub(super) struct Publisher {
    queue: mpsc::Sender<Vec<Envelope>>,
    common: Arc<Common>,
}

/// The end at which they come out.
pub(super) struct Outgoing {
    queue: mpsc::Receiver<Vec<Envelope>>,
    common: Arc<Common>,
}

#[derive(Default)]
struct Common {
    missed: Mutex<Missed>,
    /// Batches that wait or are on their way.
    under_way: AtomicUsize,
    settled: Notify,
}

impl Common {
    fn is_settled(&self) -> bool {
        self.under_way.load(Ordering::Acquire) == 0 && self.missed.lock().is_empty()
    }
}

pub(super) fn publisher() -> (Publisher, Outgoing) {
    let (sender, queue) = mpsc::channel(WAITING);
    let common = Arc::<Common>::default();
    (Publisher { queue: sender, common: common.clone() }, Outgoing { queue, common })
}

impl Publisher {
    /// Never waits.
    pub(super) fn publish(&self, envelopes: Vec<Envelope>) {
        self.common.under_way.fetch_add(1, Ordering::AcqRel);
        if let Err(error) = self.queue.try_send(envelopes) {
            if let mpsc::error::TrySendError::Full(envelopes) = error {
                debug!("the layer is too slow; the others read the log");
                self.common.missed.lock().note(envelopes);
            }
            self.common.under_way.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Waits until everything has been said, though not for long: the layer may be away.
    pub(super) async fn settle(&self) {
        let settled = async {
            loop {
                let notified = self.common.settled.notified();
                if self.common.is_settled() {
                    return;
                }
                notified.await;
            }
        };
        // What was not said by then, the others find in the store.
        let _ = tokio::time::timeout(END, settled).await;
    }
}

/// Publishes until the engine is gone.
pub(super) async fn run(layer: Arc<dyn ChannelLayer>, mut outgoing: Outgoing) {
    let mut batches = Vec::new();
    let mut pause = RETRY.0;
    let mut retry_at = Instant::now();
    let mut up_since = None;
    // A layer that has not failed yet has nobody who would have to come back.
    let mut has_worked = false;
    loop {
        if outgoing.common.is_settled() {
            outgoing.common.settled.notify_waiters();
        }
        let next = outgoing.queue.recv_many(&mut batches, TOGETHER);
        let ended = if outgoing.common.missed.lock().is_empty() {
            next.await == 0
        } else {
            tokio::time::timeout_at(retry_at, next).await == Ok(0)
        };
        if ended {
            return;
        }
        let taken = batches.len();
        let now = Instant::now();
        let is_time = now >= retry_at;
        let mut envelopes = Vec::new();
        if is_time {
            let mut missed = outgoing.common.missed.lock();
            envelopes = missed.take_rooms();
            up_since = if layer.status().is_up { up_since.or(Some(now)) } else { None };
            if up_since.is_some_and(|since| !has_worked || now - since >= KICKS) {
                envelopes.extend(missed.take_kicks());
            }
            if !missed.is_empty() {
                retry_at = now + if has_worked { pause.max(KICKS / 20) } else { RETRY.0 };
            }
        }
        let told = !envelopes.is_empty();
        envelopes.extend(batches.drain(..).flatten());
        if envelopes.is_empty() {
            continue;
        }
        match layer.publish(&envelopes).await {
            Ok(()) => {
                has_worked = true;
                if told {
                    pause = RETRY.0;
                }
            }
            Err(error) => {
                debug!(%error, "not published; the others read the log");
                outgoing.common.missed.lock().note(envelopes);
                up_since = None;
                if is_time {
                    retry_at = Instant::now() + pause;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
        outgoing.common.under_way.fetch_sub(taken, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, EventKind, Signal};
    use crate::id::{Cursor, Epoch, RoomId, Seq};
    use crate::layer::{Incoming, LayerError};
    use crate::store::model::MemberOp;
    use async_trait::async_trait;

    fn event(room: i64) -> Envelope {
        let kind = EventKind::Member { op: MemberOp::Joined, member: "7".into() };
        Envelope::Event(Event { room: RoomId(room), at: Cursor::new(Epoch(1), Seq(1)), kind })
    }

    fn missed(room: i64) -> Envelope {
        Envelope::Signal(Signal::Missed { room: Some(RoomId(room)) })
    }

    fn kick(user: &str) -> Envelope {
        Envelope::Signal(Signal::Kick { user: user.into(), login: None })
    }

    /// A layer that fails as often as it is told, and keeps what came through.
    #[derive(Default)]
    struct Failing {
        failures: Mutex<usize>,
        published: Mutex<Vec<Envelope>>,
    }

    #[async_trait]
    impl ChannelLayer for Failing {
        async fn subscribe(&self, _: &[crate::event::Group]) -> Result<(), LayerError> {
            Ok(())
        }

        async fn unsubscribe(&self, _: &[crate::event::Group]) -> Result<(), LayerError> {
            Ok(())
        }

        async fn publish(&self, envelopes: &[Envelope]) -> Result<(), LayerError> {
            let mut failures = self.failures.lock();
            if *failures > 0 {
                *failures -= 1;
                return Err(LayerError("away".into()));
            }
            self.published.lock().extend_from_slice(envelopes);
            Ok(())
        }

        async fn next(&self) -> Option<Incoming> {
            std::future::pending().await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_is_told_once_the_layer_works_again() {
        let layer = Arc::new(Failing { failures: Mutex::new(5), ..Failing::default() });
        let (publisher, outgoing) = publisher();
        let running = tokio::spawn(run(layer.clone(), outgoing));
        publisher.publish(vec![event(1), event(2), kick("7")]);
        tokio::time::sleep(Duration::from_secs(60)).await;
        publisher.publish(vec![event(3)]);
        drop(publisher);
        running.await.unwrap();
        let mut told: Vec<_> = layer.published.lock().iter().map(|envelope| format!("{envelope:?}")).collect();
        let last = told.pop();
        told.sort();
        let mut wanted = [missed(1), missed(2), kick("7")].map(|envelope| format!("{envelope:?}"));
        wanted.sort();
        assert_eq!((told, last), (wanted.to_vec(), Some(format!("{:?}", event(3)))));
    }
}
