//! The suite that every store passes.

use digi_core::store::Store;
use digi_core::store::model::Action;
use digi_core::store::mssql::MssqlStore;
use digi_core::testing::store_suite::{self, Subject};
use libtest_mimic::Trial;

use crate::database::Schema;
use crate::trial;

pub(crate) fn trials(url: Option<&str>) -> Vec<Trial> {
    let each = |(name, test): &(&str, store_suite::Test)| {
        let test = *test;
        trial(format!("mssql_server::suite::{name}"), url, move |url| {
            let url = url.to_owned();
            store_suite::run(|| subject(url), test);
        })
    };
    store_suite::all().iter().map(each).collect()
}

async fn subject(url: String) -> Subject {
    let schema = Schema::make(&url).await;
    let options = schema.options.clone();
    let open = move || {
        let options = options.clone();
        async move {
            let store = MssqlStore::open(options).unwrap();
            store.migrate().await.unwrap();
            store
        }
    };
    let offender = Action::AddMember {
        member: "u".repeat(1_000).as_str().into(),
        name: "Too long".into(),
        role: digi_core::store::model::Role::Member,
    };
    Subject::new(open().await)
        .second_handle(open.clone())
        .reopened_by(open)
        .offender(offender)
        .remembers_batches()
        .keeping(schema)
}
