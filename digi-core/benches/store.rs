//! Batches of 1 to 1,000 messages over 100 rooms, on a file: commits and all.
#![allow(clippy::expect_used, reason = "a bench that cannot run says so by panicking")]

use std::sync::atomic::{AtomicU64, Ordering};

use digi_core::store::Store;
use digi_core::store::model::{Action, Authority, Batch, BatchId, Command, NewRoom, Role};
use digi_core::store::sqlite::{SqliteOptions, SqliteStore};
use digi_core::{ClientId, Millis, RoomId};
use divan::Bencher;
use divan::counter::ItemsCount;
use tokio::runtime::{Builder, Runtime};

const ROOMS: i64 = 100;

fn main() {
    divan::main();
}

struct Bed {
    runtime: Runtime,
    store: SqliteStore,
    count: AtomicU64,
    _dir: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        // Beside the build's output, because the directory for temporary files is often none on a disk.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let store = SqliteStore::open(dir.path().join("chat.db"), &SqliteOptions::default()).expect("a store");
        runtime.block_on(async {
            store.migrate().await.expect("tables");
            for id in 1..=ROOMS {
                let members = vec![("alice".into(), "Alice".into(), Role::Member)];
                let room = NewRoom { id: Some(RoomId(id)), members, ..NewRoom::default() };
                store.create_room(&room, Millis(1)).await.expect("a room");
            }
        });
        Self { runtime, store, count: AtomicU64::new(0), _dir: dir }
    }

    fn batch(&self, size: u64) -> Batch {
        let command = |_| {
            let n = self.count.fetch_add(1, Ordering::Relaxed);
            let action = Action::Add {
                body: format!("A message of a length as people write them, number {n}").into(),
                client_id: ClientId::new(&format!("client-{n:016x}")),
            };
            Command {
                // Neighbours in a batch are no neighbours in the file.
                room: RoomId(1 + (n * 37 % ROOMS as u64) as i64),
                user: "alice".into(),
                user_name: "Alice".into(),
                authority: Authority::Member,
                action,
            }
        };
        let commands = (0..size).map(command).collect();
        Batch { id: BatchId { node: 0, number: 0 }, commands, known: Vec::new(), now: Millis(1) }
    }
}

#[divan::bench(args = [1, 10, 100, 1_000])]
fn apply(bencher: Bencher<'_, '_>, size: u64) {
    let bed = Bed::new();
    bencher
        .counter(ItemsCount::new(size))
        .with_inputs(|| bed.batch(size))
        .bench_local_refs(|batch| bed.runtime.block_on(bed.store.apply(batch)).expect("applied"));
}
