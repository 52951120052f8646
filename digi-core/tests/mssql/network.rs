//! What a store makes of the network between it and the server.

use std::time::Duration;

use digi_core::store::mssql::{MssqlOptions, MssqlStore};
use digi_core::store::{Store, StoreError};
use tokio::time::timeout;

use crate::peer::{Answer, Cell, Column, DEADLINE, Peer, Reply, Request, Setup};
use crate::proxy::Proxy;
use crate::script::{self, APPLY, MEMBER, ROOM, batch, first};

async fn through_a_proxy() -> (Peer, Proxy, MssqlStore) {
    to(|request| script::server(request).into()).await
}

async fn to(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> (Peer, Proxy, MssqlStore) {
    let peer = Peer::start(Setup::new(script));
    let proxy = Proxy::start(&peer.address.to_string()).await;
    let store = MssqlStore::open(MssqlOptions { port: proxy.address.port(), ..peer.options() }).unwrap();
    (peer, proxy, store)
}

#[tokio::test]
async fn the_answer_to_a_batch_that_was_carried_out_gets_lost() {
    let (peer, proxy, store) = through_a_proxy().await;
    store.apply(&batch(1, "hello")).await.unwrap();
    let mut caught = proxy.lose_answer(APPLY);
    let answer = store.apply(&batch(2, "hello")).await;
    assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
    caught.caught().await;
    assert_eq!(peer.requests_with(APPLY).len(), 2);
    // Once only.
    store.apply(&batch(2, "hello")).await.unwrap();
    assert_eq!(peer.requests_with(APPLY).len(), 3);
}

#[tokio::test]
async fn a_batch_comes_to_the_server_after_its_repeat() {
    let (peer, proxy, store) = through_a_proxy().await;
    let mut late = proxy.hold_back(APPLY);
    let answer = store.apply(&batch(1, "hello")).await;
    assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
    late.caught().await;
    assert_eq!(peer.requests_with(APPLY).len(), 0);
    store.apply(&batch(1, "hello")).await.unwrap();
    assert_eq!(peer.requests_with(APPLY).len(), 1);
    late.release().await;
    let [first, second] = &peer.requests_with(APPLY)[..] else { panic!("two") };
    assert_eq!(first.values[..3], second.values[..3]);
    assert!(first.connection > second.connection);
}

/// Where another process has written, the commit is a request of its own.
#[tokio::test]
async fn a_commit_comes_to_the_server_late() {
    const COMMIT: &str = "COMMIT TRANSACTION";
    let moved = |_: &Request| Answer::rows(&[Column::Int], &[&[Cell::Int(1)]]).into();
    let (peer, proxy, store) = to(first(1, APPLY, moved)).await;
    let mut late = proxy.hold_back_whole(COMMIT);
    let answer = store.apply(&batch(1, "hello")).await;
    assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
    late.caught().await;
    let commits = || peer.look(|seen| seen.requests.iter().filter(|request| request.text == COMMIT).count());
    assert_eq!(commits(), 0);
    late.release().await;
    assert_eq!(commits(), 1);
}

#[tokio::test]
async fn a_network_that_is_cut_is_used_again_when_it_is_there() {
    let (peer, proxy, store) = through_a_proxy().await;
    proxy.delay(Duration::from_millis(5));
    store.apply(&batch(1, "hello")).await.unwrap();
    store.member(ROOM, &"alice".into()).await.unwrap();
    proxy.cut();
    peer.until(|seen| seen.open == 0).await;
    let answer = store.member(ROOM, &"alice".into()).await;
    assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
    proxy.pass();
    let again = async {
        while store.member(ROOM, &"alice".into()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, again).await.expect("found again by itself");
    assert_eq!(peer.requests_with(MEMBER).len(), 2);
}

#[tokio::test]
async fn a_network_that_carries_nothing_is_not_waited_for_for_ever() {
    let (peer, proxy, store) = through_a_proxy().await;
    store.apply(&batch(1, "hello")).await.unwrap();
    proxy.hang();
    let answer = timeout(DEADLINE, store.apply(&batch(2, "hello"))).await.expect("an answer in time");
    assert!(matches!(answer, Err(StoreError::Unknown(_))), "{answer:?}");
    assert_eq!(peer.requests_with(APPLY).len(), 1);
}
