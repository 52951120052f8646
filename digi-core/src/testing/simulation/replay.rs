//! What the simulated nodes asked of their store, asked of a real one.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::mem::discriminant;

use super::names::Names;
use super::node::{Answer, Ask};
use super::trace::{Step, Trace};
use super::world::World;
use super::{Failure, Profile};
use crate::id::{Millis, RoomId};
use crate::store::model::{BatchId, Changes, Head, LOG_WINDOW};
use crate::store::{Store, StoreError};

/// All that the nodes of one seed asked of their store, in the order in which it was carried out, with the answers:
/// repeats after a commit whose answer was lost, attempts that landed late, questions whose node had died.
pub struct Recording {
    seed: u64,
    profile: Profile,
    steps: Vec<Step>,
}

/// What a replay did, to see that it did anything.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Replayed {
    /// Questions that were answered as in the simulation.
    pub asked: u64,
    /// Batches among them.
    pub batches: u64,
    /// Batches, or orders to make one void, whose batch had been committed or made void before.
    pub repeats: u64,
    /// Repeats that were left out, because the store remembers no batches.
    pub left_out: u64,
    /// Backups that were restored.
    pub restores: u64,
}

impl std::ops::AddAssign for Replayed {
    fn add_assign(&mut self, other: Self) {
        self.asked += other.asked;
        self.batches += other.batches;
        self.repeats += other.repeats;
        self.left_out += other.left_out;
        self.restores += other.restores;
    }
}

/// An answer that was another one than in the simulation, with the seed that shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// Record it again with this.
    pub seed: u64,
    /// And this.
    pub profile: Profile,
    /// Which step of the recording it was.
    pub step: usize,
    /// What was asked, what the answer should have been, and what it was.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {} of {:?}, step {}: {}", self.seed, self.profile, self.step, self.what)
    }
}

impl std::error::Error for Difference {}

/// Runs one seed and keeps what its nodes asked of the store.
///
/// # Errors
/// As [`run`](super::run).
pub fn record(seed: u64, profile: Profile) -> Result<Recording, Failure> {
    let mut world = World::new(seed, profile, Trace::on());
    world.run().map_err(|what| Failure { seed, profile, what })?;
    Ok(Recording { seed, profile, steps: world.into_steps() })
}

impl Recording {
    /// Asks the same of a store, one question after the other, and compares every answer. The two are handles on the
    /// same data, one for the nodes with even numbers and one for the others; they may be the same one.
    ///
    /// The store may hold other rooms already, but has to be migrated and serve nobody else meanwhile: where an operator
    /// says that a backup was restored, all its rooms are raised. What the replay makes stays in it. A restore is replayed
    /// by making the rooms anew, with all that had been done to them until the backup.
    ///
    /// A store that `remembers_batches` is asked everything; with any other, repeats of batches are left out. Times are
    /// the simulation's. Of errors only the kind is compared, and of the log only what lies above its floor.
    ///
    /// # Errors
    /// The first answer that was different.
    pub async fn replay(&self, handles: [&dyn Store; 2], remembers_batches: bool) -> Result<Replayed, Difference> {
        let mut player = Player {
            handles,
            remembers_batches,
            names: Names::new(salt()),
            decided: HashSet::new(),
            made: Vec::new(),
            backup: Vec::new(),
            did: Replayed::default(),
        };
        for (at, step) in self.steps.iter().enumerate() {
            let done = match step {
                Step::BackedUp => {
                    player.backup = player.made.clone();
                    Ok(())
                }
                Step::Restored => player.restore(&self.steps).await,
                step => player.step(at, step).await,
            };
            done.map_err(|what| Difference { seed: self.seed, profile: self.profile, step: at, what })?;
        }
        Ok(player.did)
    }
}

struct Player<'a> {
    handles: [&'a dyn Store; 2],
    remembers_batches: bool,
    names: Names,
    /// The batches that have been committed or made void, by the recording's ids.
    decided: HashSet<BatchId>,
    /// The steps by which the present data came about.
    made: Vec<usize>,
    /// Those by which the backup's did.
    backup: Vec<usize>,
    did: Replayed,
}

impl Player<'_> {
    async fn restore(&mut self, steps: &[Step]) -> Result<(), String> {
        self.did.restores += 1;
        self.names = Names::new(salt());
        self.decided.clear();
        self.made.clear();
        for at in std::mem::take(&mut self.backup) {
            if let Some(step) = steps.get(at) {
                self.step(at, step).await.map_err(|what| format!("restoring, at step {at}: {what}"))?;
            }
        }
        Ok(())
    }

    async fn step(&mut self, at: usize, step: &Step) -> Result<(), String> {
        let [first, _] = self.handles;
        match step {
            Step::Room(room, now) => {
                let made = first.create_room(&Names::new_room(room), *now).await;
                self.names.add(made.map_err(|error| format!("a room could not be made: {error}"))?);
            }
            Step::RaisedAll(now) => {
                first.raise_all(*now).await.map_err(|error| format!("rooms could not be raised: {error}"))?;
            }
            Step::Asked { node, ask, at: now, answer } => {
                if self.is_left_out(ask) {
                    return Ok(());
                }
                let ask = self.names.ask(ask);
                let (expected, got) = (self.names.answer(answer), put(self.handles[node % 2], &ask, *now).await);
                if !agree(&expected, &got) {
                    return Err(format!("{ask:?} should be answered with {expected:?} and is with {got:?}"));
                }
                self.did.asked += 1;
                if !matches!(ask, Ask::Apply(_) | Ask::Void(_) | Ask::Raise { .. }) {
                    return Ok(());
                }
            }
            Step::BackedUp | Step::Restored => {}
        }
        self.made.push(at);
        Ok(())
    }

    /// Notes what is decided by a question, and whether the store would not know that it was before.
    fn is_left_out(&mut self, ask: &Ask) -> bool {
        let id = match ask {
            Ask::Apply(batch) => batch.id,
            Ask::Void(id) => *id,
            _ => return false,
        };
        self.did.batches += u64::from(matches!(ask, Ask::Apply(_)));
        if self.decided.insert(id) {
            return false;
        }
        self.did.repeats += 1;
        self.did.left_out += u64::from(!self.remembers_batches);
        !self.remembers_batches
    }
}

/// Another one each time.
fn salt() -> u64 {
    RandomState::new().build_hasher().finish()
}

async fn put(store: &dyn Store, ask: &Ask, now: Millis) -> Answer {
    match ask {
        Ask::Member { room, user, .. } => Answer::Member(store.member(*room, user).await),
        Ask::Changes { room, after, limit, .. } => Answer::Changes(store.changes(*room, *after, *limit).await),
        Ask::History { room, before, limit, .. } => Answer::History(store.history(*room, *before, *limit).await),
        Ask::Log { room, after, .. } => Answer::Changes(store.changes(*room, *after, LOG_WINDOW).await),
        Ask::Raise { room, seen } => Answer::Head(store.raise_epoch(*room, *seen, now).await),
        Ask::Heads { rooms } => {
            let rooms: Vec<_> = rooms.iter().map(|(room, _)| *room).collect();
            Answer::Heads(store.heads(&rooms).await)
        }
        Ask::Apply(batch) => Answer::Applied(store.apply(batch).await),
        Ask::Void(id) => Answer::Void(store.void(*id).await),
    }
}

fn agree(expected: &Answer, got: &Answer) -> bool {
    match (expected, got) {
        (Answer::Member(a), Answer::Member(b)) => same(a, b),
        (Answer::Changes(Ok(a)), Answer::Changes(Ok(b))) => promised(a) == promised(b),
        (Answer::Changes(a), Answer::Changes(b)) => same(a, b),
        (Answer::History(a), Answer::History(b)) => same(a, b),
        (Answer::Head(a), Answer::Head(b)) => same(a, b),
        // Nobody is promised an order.
        (Answer::Heads(Ok(a)), Answer::Heads(Ok(b))) => by_room(a) == by_room(b),
        (Answer::Heads(a), Answer::Heads(b)) => same(a, b),
        (Answer::Applied(a), Answer::Applied(b)) => same(a, b),
        (Answer::Void(a), Answer::Void(b)) => same(a, b),
        _ => false,
    }
}

fn same<T: PartialEq>(a: &Result<T, StoreError>, b: &Result<T, StoreError>) -> bool {
    match (a, b) {
        (Ok(a), Ok(b)) => a == b,
        (Err(a), Err(b)) => discriminant(a) == discriminant(b),
        _ => false,
    }
}

fn by_room(heads: &[(RoomId, Head)]) -> Vec<(RoomId, Head)> {
    let mut heads = heads.to_vec();
    heads.sort_by_key(|(room, _)| *room);
    heads
}

/// Without what lies at the floor or below it.
fn promised(changes: &Changes) -> Changes {
    let mut changes = changes.clone();
    changes.rows.retain(|row| row.seq > changes.floor);
    changes
}
