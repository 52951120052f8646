//! What joins an engine to the bridge to stock Channels.
//!
//! The engine never waits for it: what was committed goes into a bounded queue, and what comes in goes to the rooms.

use std::sync::{Arc, Weak};

use tokio::sync::mpsc;
use tracing::warn;

use super::core::Core;
use crate::event::Event;
use crate::id::{RoomId, UserKey};
use crate::layer::bridge::Bridge;

/// How many batches wait to be sent. What comes beyond, stock processes miss.
const WAITING: usize = 256;

/// How many of them are sent together.
const TOGETHER: usize = 32;

/// The engine's end.
pub(super) struct BridgeEnd {
    bridge: Arc<Bridge>,
    queue: mpsc::Sender<Vec<Event>>,
}

impl BridgeEnd {
    pub(super) fn new(bridge: Bridge) -> (Self, mpsc::Receiver<Vec<Event>>) {
        let (queue, outgoing) = mpsc::channel(WAITING);
        (Self { bridge: Arc::new(bridge), queue }, outgoing)
    }

    pub(super) fn bridge(&self) -> &Arc<Bridge> {
        &self.bridge
    }

    /// What this node has committed.
    pub(super) fn send(&self, events: &[Event]) {
        let events: Vec<_> = events.iter().filter(|event| event.frame().is_some()).cloned().collect();
        if events.is_empty() {
            return;
        }
        if let Err(mpsc::error::TrySendError::Full(events)) = self.queue.try_send(events) {
            if self.bridge.dropped() == 0 {
                warn!("the bridge is too slow; stock processes miss messages");
            }
            self.bridge.note_dropped(events.len());
        }
    }

    /// Rooms that were loaded and unloaded.
    pub(super) fn changed(&self, loaded: &[RoomId], unloaded: &[RoomId]) {
        self.bridge.enter(loaded);
        self.bridge.leave(unloaded);
    }
}

/// Sends until the engine is gone.
pub(super) async fn send(bridge: Arc<Bridge>, mut outgoing: mpsc::Receiver<Vec<Event>>) {
    let mut batches = Vec::new();
    while outgoing.recv_many(&mut batches, TOGETHER).await > 0 {
        let events: Vec<_> = batches.drain(..).flatten().collect();
        bridge.send(&events).await;
    }
}

/// Keeps the groups joined.
pub(super) async fn keep(bridge: Weak<Bridge>) {
    let Some(changed) = bridge.upgrade().map(|bridge| bridge.changed()) else { return };
    while let Some(here) = bridge.upgrade() {
        here.keep().await;
        drop(here);
        let _ = tokio::time::timeout(Bridge::pause(), changed.notified()).await;
    }
}

/// Hands what comes in to the rooms. It has no number and is stored by whoever sent it, so it is shown as a signal is:
/// to whoever is there, the sender's own pages among them, as stock Channels would.
pub(super) async fn receive(core: Weak<Core>, bridge: Weak<Bridge>) {
    while let Some(here) = bridge.upgrade() {
        let Some(keys) = core.upgrade().map(|core| core.rules.encoder.keyring().clone()) else { return };
        let frames = here.next(&keys).await;
        drop(here);
        let Some(core) = core.upgrade() else { return };
        let nobody = UserKey::from("");
        for (room, frame) in frames {
            core.at_room(room, |room, wakes| room.signal(&nobody, &frame, wakes));
        }
    }
}
