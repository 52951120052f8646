//! The suite over every store of this crate.

use digi_core::store::Store;
use digi_core::store::memory::MemoryStore;
use digi_core::store::model::Action;
use digi_core::store::sqlite::{SqliteOptions, SqliteStore};
use digi_core::testing::store_suite::Subject;

// It cannot be reopened, filled up or offended: those tests do not apply to it.
digi_core::store_suite!(memory, || async {
    let store = MemoryStore::new();
    let second = store.another_handle();
    let another = move || std::future::ready(second.another_handle());
    Subject::new(store).second_handle(another).remembers_batches()
});

digi_core::store_suite!(sqlite, || async {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.db");
    let open = move || {
        let path = path.clone();
        async move {
            let options = SqliteOptions { max_mb: Some(4), ..SqliteOptions::default() };
            let store = SqliteStore::open(path, &options).unwrap();
            store.migrate().await.unwrap();
            store
        }
    };
    let offender = Action::Add { body: "x".repeat(2 << 20).into(), client_id: None };
    Subject::new(open().await).second_handle(open.clone()).reopened_by(open).offender(offender).bounded().keeping(dir)
});
