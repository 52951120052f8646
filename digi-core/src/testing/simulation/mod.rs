//! The seeded simulation: whole fleets of nodes and clients in virtual time, over a layer that loses, doubles and
//! reorders and a store that fails, stalls, forgets its answers and is restored from backups.
//!
//! Consumer, room, batch handling and the store's rules are the real ones; the simulation stands in for tokio, sockets
//! and databases. A run is decided by its seed alone: a failing seed replays the same way each time.
//!
//! ```
//! use digi_core::testing::simulation::{Profile, run};
//! run(42, Profile::Everything).expect("the run's guarantees hold");
//! ```
//!
//! What the nodes of a run asked of their store can be [recorded](record) and [asked again](Recording::replay) of a
//! real one, which has to answer the same.

#![allow(clippy::expect_used, reason = "a simulation that cannot be set up has nothing to report")]

mod client;
mod names;
mod node;
mod oracle;
mod replay;
mod trace;
mod world;

use std::fmt;

pub use replay::{Difference, Recording, Replayed, record};
pub use world::Profile;

/// What a run did, to see that it did anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    /// Changes that the store committed.
    pub committed: u64,
    /// Frames that clients received.
    pub frames: u64,
    /// Connections that clients opened.
    pub connections: u64,
    /// Nodes that were killed.
    pub kills: u64,
    /// Times that the layer was away for a node.
    pub outages: u64,
    /// Users that were kicked.
    pub kicks: u64,
    /// Backups that were restored.
    pub restores: u64,
    /// Restores of which no operator told the fleet: it had to notice.
    pub noticed: u64,
    /// Times that epochs were raised, by the operator or in a batch.
    pub resets: u64,
    /// Transactions whose answer was lost.
    pub unknown_commits: u64,
    /// Adds that the store recognised as resends.
    pub duplicates: u64,
}

impl std::ops::AddAssign for Report {
    fn add_assign(&mut self, other: Self) {
        self.committed += other.committed;
        self.frames += other.frames;
        self.connections += other.connections;
        self.kills += other.kills;
        self.outages += other.outages;
        self.kicks += other.kicks;
        self.restores += other.restores;
        self.noticed += other.noticed;
        self.resets += other.resets;
        self.unknown_commits += other.unknown_commits;
        self.duplicates += other.duplicates;
    }
}

/// A guarantee that did not hold, with the seed that shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// Run it again with this.
    pub seed: u64,
    /// And this.
    pub profile: Profile,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} of {:?}: {}", self.seed, self.profile, self.what)
    }
}

impl std::error::Error for Failure {}

/// Runs one seed.
///
/// # Errors
/// The first guarantee that did not hold.
pub fn run(seed: u64, profile: Profile) -> Result<Report, Failure> {
    world::World::new(seed, profile, trace::Trace::default()).run().map_err(|what| Failure { seed, profile, what })
}
