//! The simulation's questions, asked of real stores. How often the runs fail on their own is `simulation.rs`'s business.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use async_trait::async_trait;
use digi_core::store::memory::MemoryStore;
use digi_core::store::model::{Applied, Batch, BatchId, Changes, Head, History, MemberAnswer, NewRoom, Role};
use digi_core::store::sqlite::{SqliteOptions, SqliteStore};
use digi_core::store::{Store, StoreError};
use digi_core::testing::simulation::{Difference, Profile, Replayed, record};
use digi_core::{Cursor, Millis, RoomId, Seq, UserKey};

/// Replays so many seeds of every profile on one pair of handles.
async fn replay_all(handles: [&dyn Store; 2], remembers_batches: bool, seeds: u64) -> Replayed {
    let mut total = Replayed::default();
    for profile in Profile::ALL {
        for seed in 0..seeds {
            match record(seed, profile).unwrap().replay(handles, remembers_batches).await {
                Ok(replayed) => total += replayed,
                Err(difference) => panic!("{difference}"),
            }
        }
    }
    println!("{total:?}");
    total
}

#[tokio::test]
async fn the_memory_store_answers_as_in_the_simulation() {
    let store = MemoryStore::new();
    let second = store.another_handle();
    // A room that was there before is in nobody's way.
    let other = NewRoom { members: vec![("alice".into(), "Alice".into(), Role::Member)], ..NewRoom::default() };
    store.create_room(&other, Millis(1)).await.unwrap();
    let total = replay_all([&store, &second], true, 40).await;
    // A replay of nothing would agree as well.
    assert!(total.asked > 10_000 && total.batches > 1_000 && total.repeats > 10 && total.restores > 10, "{total:?}");
    assert_eq!(total.left_out, 0);
}

#[tokio::test]
async fn the_sqlite_store_answers_as_in_the_simulation() {
    let dir = tempfile::tempdir().unwrap();
    let open = || SqliteStore::open(dir.path().join("chat.db"), &SqliteOptions::default()).unwrap();
    let (first, second) = (open(), open());
    first.migrate().await.unwrap();
    let total = replay_all([&first, &second], false, 4).await;
    assert!(total.asked > 1_000 && total.restores > 1 && total.left_out == total.repeats, "{total:?}");
}

/// What somebody who writes a store could get wrong.
#[derive(Clone, Copy, Debug)]
enum Mistake {
    None,
    /// A repeat is carried out again.
    ForgetsBatches,
    /// A batch does not raise a room that lies below what was seen.
    IgnoresWhatWasSeen,
    /// The heads of the last batch stand for those of the rooms.
    RemembersHeads,
    /// What is deleted goes from the history.
    DropsTombstones,
}

struct Mistaken {
    store: MemoryStore,
    mistake: Mistake,
    seen: parking_lot::Mutex<Vec<(RoomId, Head)>>,
}

impl Mistaken {
    fn new(store: MemoryStore, mistake: Mistake) -> Self {
        Self { store, mistake, seen: parking_lot::Mutex::default() }
    }
}

async fn replay_mistaken(seed: u64, mistake: Mistake) -> Result<Replayed, Difference> {
    let store = MemoryStore::new();
    let [first, second] = [store.another_handle(), store].map(|store| Mistaken::new(store, mistake));
    record(seed, Profile::Everything).unwrap().replay([&first, &second], true).await
}

async fn first_difference(mistake: Mistake) -> Option<Difference> {
    for seed in 0..1_000 {
        if let Err(difference) = replay_mistaken(seed, mistake).await {
            return Some(difference);
        }
    }
    None
}

#[tokio::test]
async fn mistakes_show() {
    for mistake in
        [Mistake::ForgetsBatches, Mistake::IgnoresWhatWasSeen, Mistake::RemembersHeads, Mistake::DropsTombstones]
    {
        let difference = first_difference(mistake).await.unwrap_or_else(|| panic!("{mistake:?} does not show"));
        println!("{mistake:?} shows: {difference}");
        // The seed that it names shows it again, at the same step, and nothing without the mistake.
        let again = replay_mistaken(difference.seed, mistake).await.unwrap_err();
        assert_eq!(again.step, difference.step, "{again}");
        replay_mistaken(difference.seed, Mistake::None).await.unwrap();
    }
}

#[async_trait]
impl Store for Mistaken {
    async fn migrate(&self) -> Result<(), StoreError> {
        self.store.migrate().await
    }

    async fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        let mut batch = batch.clone();
        match self.mistake {
            Mistake::ForgetsBatches => batch.id.number = fresh(),
            Mistake::IgnoresWhatWasSeen => batch.known.clear(),
            _ => {}
        }
        let applied = self.store.apply(&batch).await?;
        self.seen.lock().clone_from(&applied.heads);
        Ok(applied)
    }

    async fn void(&self, batch: BatchId) -> Result<(), StoreError> {
        self.store.void(batch).await
    }

    async fn member(&self, room: RoomId, user: &UserKey) -> Result<MemberAnswer, StoreError> {
        self.store.member(room, user).await
    }

    async fn changes(&self, room: RoomId, after: Seq, limit: u64) -> Result<Changes, StoreError> {
        self.store.changes(room, after, limit).await
    }

    async fn history(&self, room: RoomId, before: Option<Seq>, limit: u32) -> Result<History, StoreError> {
        let mut page = self.store.history(room, before, limit).await?;
        if matches!(self.mistake, Mistake::DropsTombstones) {
            page.messages.retain(|message| message.body.is_some());
        }
        Ok(page)
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<(RoomId, Head)>, StoreError> {
        let mut heads = self.store.heads(rooms).await?;
        if matches!(self.mistake, Mistake::RemembersHeads) {
            let seen = self.seen.lock();
            for (room, head) in &mut heads {
                *head = seen.iter().find(|(seen, _)| seen == room).map_or(*head, |(_, seen)| *seen);
            }
        }
        Ok(heads)
    }

    async fn raise_epoch(&self, room: RoomId, seen: Cursor, now: Millis) -> Result<Head, StoreError> {
        self.store.raise_epoch(room, seen, now).await
    }

    async fn raise_all(&self, now: Millis) -> Result<(), StoreError> {
        self.store.raise_all(now).await
    }

    async fn create_room(&self, room: &NewRoom, now: Millis) -> Result<RoomId, StoreError> {
        self.store.create_room(room, now).await
    }

    async fn purge(&self, room: RoomId, before: Millis) -> Result<u64, StoreError> {
        self.store.purge(room, before).await
    }
}

fn fresh() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static LAST: AtomicU64 = AtomicU64::new(1 << 32);
    LAST.fetch_add(1, Ordering::Relaxed)
}
