//! What gets lost between a store and the server, and what comes late. The proxy in between has to understand the
//! requests, so the server must not insist on encryption.

use std::pin::Pin;
use std::time::Duration;

use digi_core::id::{Millis, RoomId, Seq};
use digi_core::store::model::{Action, Applied, Authority, Batch, BatchId, Command, NewRoom, Outcome, Role};
use digi_core::store::mssql::{Encrypt, MssqlOptions, MssqlStore, Trust};
use digi_core::store::{Store, StoreError};
use libtest_mimic::Trial;
use tokio::time::timeout;

use crate::database::Schema;
use crate::proxy::Proxy;
use crate::trial;

const NOW: Millis = Millis(1_724_566_366_007);
const DEADLINE: Duration = Duration::from_secs(120);

/// In the statement that carries out a batch, and in the one that ends a batch of several statements.
const COMMIT: &str = "COMMIT TRANSACTION";

pub(crate) fn trials(url: Option<&str>) -> Vec<Trial> {
    type Test = fn(Scene) -> Pin<Box<dyn Future<Output = ()>>>;
    let all: [(&str, Test); 5] = [
        ("the_answer_to_a_commit_gets_lost", |scene| Box::pin(lost(scene))),
        ("a_batch_comes_after_its_repeat", |scene| Box::pin(late(scene))),
        ("a_commit_comes_while_its_batch_is_repeated", |scene| Box::pin(late_commit(scene))),
        ("a_batch_that_was_given_up_gets_through", |scene| Box::pin(given_up(scene))),
        ("the_network_is_cut_and_comes_back", |scene| Box::pin(cut(scene))),
    ];
    let each = |(name, test): (&str, Test)| {
        trial(format!("mssql_server::faults::{name}"), url, move |url| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { test(Scene::new(url).await).await });
        })
    };
    all.into_iter().map(each).collect()
}

/// A room on the server, a store that reaches it through the proxy, and one that reaches it directly.
struct Scene {
    proxy: Proxy,
    store: MssqlStore,
    direct: MssqlStore,
    room: RoomId,
    _schema: Schema,
}

impl Scene {
    async fn new(url: &str) -> Self {
        let schema = Schema::make(url).await;
        let direct = MssqlStore::open(schema.options.clone()).unwrap();
        direct.migrate().await.unwrap();
        let members = vec![("alice".into(), "Alice".into(), Role::Member)];
        let room = direct.create_room(&NewRoom { members, ..NewRoom::default() }, NOW).await.unwrap();
        let proxy = Proxy::start(&format!("{}:{}", schema.options.host, schema.options.port)).await;
        let store = MssqlStore::open(MssqlOptions {
            host: proxy.address.ip().to_string(),
            port: proxy.address.port(),
            encrypt: Encrypt::Off,
            trust: Trust::Anything,
            lanes: 1,
            pool: 1,
            ..schema.options.clone()
        });
        Self { proxy, store: store.unwrap(), direct, room, _schema: schema }
    }

    fn batch(&self, node: u64, number: u64) -> Batch {
        let action = Action::Add { body: format!("{node}.{number}").into(), client_id: None };
        let (user, user_name) = ("alice".into(), "Alice".into());
        let command = Command { room: self.room, user, user_name, authority: Authority::Member, action };
        Batch { id: BatchId { node, number }, commands: vec![command], known: vec![], now: NOW }
    }

    /// What the room holds, in order, without gaps.
    async fn bodies(&self) -> Vec<String> {
        let changes = self.direct.changes(self.room, Seq(0), 1_000).await.unwrap();
        let history = self.direct.history(self.room, None, 200).await.unwrap();
        assert_eq!(changes.through, Seq(history.messages.len() as u64));
        history.messages.iter().map(|message| message.body.as_deref().unwrap().to_owned()).collect()
    }
}

fn added(applied: &Applied) -> u64 {
    match &applied.outcomes[..] {
        [Outcome::Message { at, .. }] => at.seq.0,
        other => panic!("{other:?}"),
    }
}

/// Repeats a batch until it is through.
async fn repeat(store: &MssqlStore, batch: &Batch) -> Applied {
    let through = async {
        loop {
            if let Ok(applied) = store.apply(batch).await {
                return applied;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, through).await.expect("through in time")
}

async fn lost(scene: Scene) {
    for number in 1..=5 {
        let batch = scene.batch(1, number);
        let mut caught = scene.proxy.lose_answer(COMMIT);
        let answer = scene.store.apply(&batch).await;
        assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
        caught.caught().await;
        assert_eq!(scene.bodies().await.len() as u64, number);
        assert_eq!(added(&repeat(&scene.store, &batch).await), number);
    }
    assert_eq!(scene.bodies().await, ["1.1", "1.2", "1.3", "1.4", "1.5"]);
}

async fn late(scene: Scene) {
    for number in 1..=5 {
        let batch = scene.batch(1, number);
        let mut held = scene.proxy.hold_back(COMMIT);
        let answer = scene.store.apply(&batch).await;
        assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
        held.caught().await;
        assert_eq!(scene.bodies().await.len() as u64, number - 1);
        // Either the repeat is there first, or the two meet.
        let (applied, ()) = if number % 2 == 0 {
            let applied = repeat(&scene.store, &batch).await;
            (applied, held.release().await)
        } else {
            tokio::join!(repeat(&scene.store, &batch), held.release())
        };
        assert_eq!(added(&applied), number);
    }
    assert_eq!(scene.bodies().await, ["1.1", "1.2", "1.3", "1.4", "1.5"]);
}

/// Another node has written, so the batch goes the long way, and its commit is a request of its own. While that is on
/// its way the batch's locks are held.
async fn late_commit(scene: Scene) {
    repeat(&scene.store, &scene.batch(1, 1)).await;
    repeat(&scene.direct, &scene.batch(2, 1)).await;
    let batch = scene.batch(1, 2);
    let mut held = scene.proxy.hold_back_whole(COMMIT);
    let answer = scene.store.apply(&batch).await;
    assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
    held.caught().await;
    // The repeat waits for the locks, or gives up waiting and comes again.
    let (applied, ()) = tokio::join!(repeat(&scene.store, &batch), held.release());
    assert_eq!(added(&applied), 3);
    assert_eq!(scene.bodies().await, ["1.1", "2.1", "1.2"]);
}

/// Nobody waits for it any more when the network lets it through.
async fn given_up(scene: Scene) {
    scene.proxy.delay(Duration::from_millis(1));
    repeat(&scene.store, &scene.batch(1, 1)).await;
    for number in 2..=5 {
        scene.proxy.hang();
        let batch = scene.batch(1, number);
        let answer = timeout(Duration::from_millis(100), scene.store.apply(&batch)).await;
        assert!(answer.is_err(), "{answer:?}");
        scene.proxy.pass();
        assert_eq!(added(&repeat(&scene.store, &batch).await), number);
    }
    assert_eq!(scene.bodies().await, ["1.1", "1.2", "1.3", "1.4", "1.5"]);
}

async fn cut(scene: Scene) {
    repeat(&scene.store, &scene.batch(1, 1)).await;
    scene.proxy.cut();
    let batch = scene.batch(1, 2);
    assert!(scene.store.apply(&batch).await.is_err());
    assert!(scene.store.member(scene.room, &"alice".into()).await.is_err());
    scene.proxy.pass();
    assert_eq!(added(&repeat(&scene.store, &batch).await), 2);
    assert_eq!(scene.bodies().await, ["1.1", "1.2"]);
}
