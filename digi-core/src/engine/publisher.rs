//! What goes out to the other nodes, and what could not.
//!
//! One batch is published after the other: what goes out side by side arrives in disorder, and the others would wait
//! for what seems to be missing. What gathers meanwhile goes out together. An event that could not be published is not
//! kept, because it stands in the store; what is kept, and said as soon as the layer works again, is that its room has
//! something to read there.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::event::{Envelope, Signal};
use crate::id::{RoomId, UserKey};
use crate::layer::ChannelLayer;

/// How many batches wait to be published. What comes beyond counts as missed.
const WAITING: usize = 256;

/// How many of them are published together.
const TOGETHER: usize = 32;

/// Of how many rooms it is known that the others missed something. Beyond, they are told to compare all of theirs.
const MISSED_ROOMS: usize = 1_000;

/// How many kicks are kept for a layer that is away. Beyond, the oldest is forgotten.
const MISSED_KICKS: usize = 1_000;

/// After a failure, how long until the others are told what they missed: doubled up to the second figure.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The end at which envelopes go in.
pub(super) struct Publisher {
    queue: mpsc::Sender<Vec<Envelope>>,
    missed: Arc<Mutex<Missed>>,
}

/// The end at which they come out.
pub(super) struct Outgoing {
    queue: mpsc::Receiver<Vec<Envelope>>,
    missed: Arc<Mutex<Missed>>,
}

pub(super) fn publisher() -> (Publisher, Outgoing) {
    let (sender, queue) = mpsc::channel(WAITING);
    let missed = Arc::<Mutex<Missed>>::default();
    (Publisher { queue: sender, missed: missed.clone() }, Outgoing { queue, missed })
}

impl Publisher {
    /// Never waits.
    pub(super) fn publish(&self, envelopes: Vec<Envelope>) {
        if let Err(mpsc::error::TrySendError::Full(envelopes)) = self.queue.try_send(envelopes) {
            debug!("the layer is too slow; the others read the log");
            self.missed.lock().note(envelopes);
        }
    }
}

#[derive(Debug, Default)]
struct Missed {
    rooms: HashSet<RoomId>,
    /// More rooms than are kept.
    many: bool,
    kicks: VecDeque<UserKey>,
}

impl Missed {
    fn is_empty(&self) -> bool {
        self.rooms.is_empty() && !self.many && self.kicks.is_empty()
    }

    fn note(&mut self, envelopes: Vec<Envelope>) {
        for envelope in envelopes {
            match envelope {
                Envelope::Event(event) => self.note_room(event.room),
                Envelope::Signal(Signal::Missed { room: Some(room) }) => self.note_room(room),
                Envelope::Signal(Signal::Missed { room: None }) => self.note_many(),
                Envelope::Signal(Signal::Kick { user }) => {
                    if self.kicks.len() >= MISSED_KICKS {
                        let forgotten = self.kicks.pop_front();
                        warn!(user = ?forgotten, "the layer is away, and a kick does not reach the other nodes");
                    }
                    self.kicks.push_back(user);
                }
                // Losing it costs nothing that lasts.
                Envelope::Signal(Signal::Room { .. }) => {}
            }
        }
    }

    fn note_room(&mut self, room: RoomId) {
        if !self.many {
            self.rooms.insert(room);
            if self.rooms.len() > MISSED_ROOMS {
                self.note_many();
            }
        }
    }

    fn note_many(&mut self) {
        self.many = true;
        self.rooms = HashSet::new();
    }

    fn take(&mut self) -> Vec<Envelope> {
        let Self { rooms, many, kicks } = std::mem::take(self);
        let rooms = rooms.into_iter().map(Some).chain(many.then_some(None));
        let missed = rooms.map(|room| Signal::Missed { room });
        missed.chain(kicks.into_iter().map(|user| Signal::Kick { user })).map(Envelope::Signal).collect()
    }
}

/// Publishes until the engine is gone.
pub(super) async fn run(layer: Arc<dyn ChannelLayer>, mut outgoing: Outgoing) {
    let mut batches = Vec::new();
    let mut pause = RETRY.0;
    let mut retry_at = Instant::now();
    loop {
        let next = outgoing.queue.recv_many(&mut batches, TOGETHER);
        let ended = if outgoing.missed.lock().is_empty() {
            next.await == 0
        } else {
            tokio::time::timeout_at(retry_at, next).await == Ok(0)
        };
        if ended {
            return;
        }
        let is_time = Instant::now() >= retry_at;
        let mut envelopes = if is_time { outgoing.missed.lock().take() } else { Vec::new() };
        let told = !envelopes.is_empty();
        envelopes.extend(batches.drain(..).flatten());
        if envelopes.is_empty() {
            continue;
        }
        match layer.publish(&envelopes).await {
            Ok(()) if told => pause = RETRY.0,
            Ok(()) => {}
            Err(error) => {
                debug!(%error, "not published; the others read the log");
                outgoing.missed.lock().note(envelopes);
                if is_time {
                    retry_at = Instant::now() + pause;
                    pause = (pause * 2).min(RETRY.1);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, EventKind};
    use crate::frame::Frame;
    use crate::id::{Cursor, Epoch, Seq};
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
        Envelope::Signal(Signal::Kick { user: user.into() })
    }

    #[test]
    fn what_was_missed_is_one_word_per_room_and_every_kick() {
        let mut all = Missed::default();
        let typing = Signal::Room { room: RoomId(5), from: "7".into(), frame: Frame::from_text("{}".into()) };
        all.note(vec![event(1), event(1), missed(1), kick("7"), Envelope::Signal(typing), kick("8")]);
        assert_eq!(all.take(), [missed(1), kick("7"), kick("8")]);
        assert!(all.is_empty());
        assert_eq!(all.take(), []);
    }

    #[test]
    fn too_many_rooms_become_all() {
        let mut all = Missed::default();
        all.note((0..=MISSED_ROOMS as i64).map(event).collect());
        all.note(vec![event(1)]);
        assert_eq!(all.take(), [Envelope::Signal(Signal::Missed { room: None })]);
        all.note((0..=MISSED_KICKS).map(|user| kick(&user.to_string())).collect());
        let kicks = all.take();
        assert_eq!((kicks.len(), &kicks[0]), (MISSED_KICKS, &kick("1")));
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
