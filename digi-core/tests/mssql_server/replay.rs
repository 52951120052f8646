//! What the simulated nodes asked of their store, asked of SQL Server by two engines' stores.

use digi_core::store::Store;
use digi_core::store::mssql::MssqlStore;
use digi_core::testing::simulation::{Profile, Replayed, record};
use libtest_mimic::Trial;

use crate::database::Schema;
use crate::trial;

/// How many seeds of each profile: together some thousand questions.
const SEEDS: [(Profile, u64); 4] =
    [(Profile::Everything, 8), (Profile::StalledResend, 3), (Profile::RestorePartitioned, 2), (Profile::Membership, 3)];

pub(crate) fn trials(url: Option<&str>) -> Vec<Trial> {
    let each = |(profile, seeds)| {
        let name = format!("mssql_server::replay::it_answers_as_in_the_simulation_of_{profile:?}");
        trial(name, url, move |url| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(replay(url, profile, seeds));
        })
    };
    SEEDS.map(each).into()
}

async fn replay(url: &str, profile: Profile, seeds: u64) {
    let schema = Schema::make(url).await;
    let [first, second] = [(); 2].map(|()| MssqlStore::open(schema.options.clone()).unwrap());
    first.migrate().await.unwrap();
    let mut total = Replayed::default();
    for seed in 0..seeds {
        match record(seed, profile).unwrap().replay([&first, &second], true).await {
            Ok(replayed) => total += replayed,
            Err(difference) => panic!("{difference}"),
        }
    }
    println!("{profile:?}: {total:?}");
    assert!(total.batches > 100 && total.left_out == 0, "{total:?}");
    assert!(total.repeats > 0 || profile != Profile::Everything, "{total:?}");
}
