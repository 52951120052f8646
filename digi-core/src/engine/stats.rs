//! What an engine has done so far.

use std::sync::atomic::{AtomicU64, Ordering};

/// A look at an engine; numbers count since it was made, unless they say "now".
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// Sessions, now.
    pub sessions: u64,
    /// Rooms that are loaded, now.
    pub rooms: u64,
    /// Commands that wait to be stored, now.
    pub queued: u64,
    /// Changes that were committed.
    pub committed: u64,
    /// Commands that were refused by the store's rules or could not be stored.
    pub refused: u64,
    /// Resends that were recognised.
    pub duplicates: u64,
    /// Batches that were given to the store.
    pub batches: u64,
    /// Frames of rooms that were put into outboxes.
    pub deliveries: u64,
    /// Whether the channel layer can be reached, now.
    pub layer_up: bool,
    /// What came in on the layer, could not be read, and was dropped.
    pub layer_undecodable: u64,
    /// Times that the layer said it may have lost something.
    pub layer_lagged: u64,
    /// Whether all Redis servers of the bridge to stock Channels can be reached, now; true also without a bridge.
    pub bridge_up: bool,
    /// Messages that the bridge handed to Redis; in the core format, one for each stock process.
    pub bridge_sent: u64,
    /// Messages of stock workers that came over the bridge.
    pub bridge_received: u64,
    /// Messages that did not get over the bridge, either way: Redis was away or refused, more came than may wait, or a
    /// stock process was at its capacity.
    pub bridge_lost: u64,
    /// What came in on the bridge, could not be read, and was dropped.
    pub bridge_undecodable: u64,
    /// Frames that claimed another user, of sessions that have ended; they were not believed.
    pub ignored_claims: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) committed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) batches: AtomicU64,
    pub(super) deliveries: AtomicU64,
    pub(super) layer_lagged: AtomicU64,
    pub(super) ignored_claims: AtomicU64,
}

impl Counters {
    pub(super) fn delivered(&self, frames: u64) {
        add(&self.deliveries, frames);
    }

    pub(super) fn stats(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            committed: get(&self.committed),
            refused: get(&self.refused),
            duplicates: get(&self.duplicates),
            batches: get(&self.batches),
            deliveries: get(&self.deliveries),
            layer_lagged: get(&self.layer_lagged),
            ignored_claims: get(&self.ignored_claims),
            ..Stats::default()
        }
    }
}

pub(super) fn add(counter: &AtomicU64, by: u64) {
    if by > 0 {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}
