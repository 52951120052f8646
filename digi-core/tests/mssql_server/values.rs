//! What columns have to hold that few databases are asked for.

use digi_core::id::Millis;
use digi_core::store::Store;
use digi_core::store::model::{Action, Authority, Batch, BatchId, Command, NewRoom, Outcome, Role};
use digi_core::store::mssql::MssqlStore;
use libtest_mimic::Trial;

use crate::database::Schema;
use crate::trial;

const NOW: Millis = Millis(1_724_566_366_007);

pub(crate) fn trials(url: Option<&str>) -> Vec<Trial> {
    let test = |url: &str| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(long_texts_beside_short_ones(url));
    };
    vec![trial("mssql_server::values::long_texts_beside_short_ones".into(), url, test)]
}

/// A million characters, among messages of a few: added, edited, and read again, blanks at the end and all.
async fn long_texts_beside_short_ones(url: &str) {
    let schema = Schema::make(url).await;
    let store = MssqlStore::open(schema.options.clone()).unwrap();
    store.migrate().await.unwrap();
    let members = vec![("alice".into(), "Alice".into(), Role::Member)];
    let room = store.create_room(&NewRoom { members, ..NewRoom::default() }, NOW).await.unwrap();
    let long = format!("{}  \n ", "é漢😀\"\\".repeat(200_000));
    let bodies: Vec<String> = (0..200).map(|n| if n % 50 == 7 { long.clone() } else { format!("{n} ") }).collect();
    let batch = |number, actions: Vec<Action>| {
        let command = |action| {
            let (user, user_name, authority) = ("alice".into(), "Alice".into(), Authority::Member);
            Command { room, user, user_name, authority, action }
        };
        let commands = actions.into_iter().map(command).collect();
        Batch { id: BatchId { node: 9, number }, commands, known: Vec::new(), now: NOW }
    };
    let adds = bodies.iter().map(|body| Action::Add { body: body.as_str().into(), client_id: None }).collect();
    let applied = store.apply(&batch(1, adds)).await.unwrap();
    let Outcome::Message { message: first, .. } = &applied.outcomes[0] else { panic!("{:?}", applied.outcomes[0]) };
    let edit = Action::Edit { message: first.id, body: long.as_str().into() };
    store.apply(&batch(2, vec![edit])).await.unwrap();
    let stored = store.history(room, None, 200).await.unwrap().messages;
    let expected = std::iter::once(&long).chain(&bodies[1..]);
    assert_eq!(stored.len(), bodies.len());
    for (message, body) in stored.iter().zip(expected) {
        assert!(message.body.as_deref() == Some(body), "at {}", message.pos);
    }
}
