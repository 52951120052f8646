//! The suite that every channel layer passes. [`layer_suite!`](crate::layer_suite) runs it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::event::{Envelope, Event, EventKind, Group, Signal};
use crate::frame::Frame;
use crate::id::{Cursor, Epoch, MessageId, RoomId, Seq, UserKey};
use crate::layer::{ChannelLayer, Incoming};
use crate::store::model::{MemberOp, MessageOp};

/// Runs every test of the suite over a layer: a module of that name, with one `#[test]` each.
///
/// The factory is called once per test, without arguments, and gives a future of three nodes' ends of one new layer.
///
/// ```
/// use digi_core::layer::LocalLayer;
///
/// digi_core::layer_suite!(local, || async {
///     let first = LocalLayer::new();
///     [first.another_node(), first.another_node(), first]
/// });
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! layer_suite {
    ($name:ident, $factory:expr) => {
        $crate::layer_suite! { @tests $name, $factory,
            what_is_published_arrives_at_every_subscriber,
            every_kind_of_envelope_arrives_as_it_was,
            groups_do_not_mix,
            after_unsubscribing_nothing_arrives,
            subscribing_twice_is_as_once,
            a_node_that_was_dropped_is_no_obstacle,
            what_is_lost_is_reported,
            concurrent_publishers_reach_everybody,
        }
    };
    (@tests $name:ident, $factory:expr, $($test:ident,)+) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            $(#[test]
            fn $test() {
                $crate::testing::layer_suite::run($factory, $crate::testing::layer_suite::$test);
            })+
        }
    };
}

type Node = Arc<dyn ChannelLayer>;

/// Runs one test on a layer of its own. What [`layer_suite!`](crate::layer_suite) expands to.
pub fn run<L: ChannelLayer, F: Future<Output = [L; 3]>, T: Future<Output = ()>>(
    factory: impl FnOnce() -> F,
    test: impl FnOnce([Node; 3]) -> T,
) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let nodes = factory().await.map(|node| Arc::new(node) as Node);
        // A layer that delivers nothing must not make the test wait for ever.
        tokio::time::timeout(Duration::from_secs(30), test(nodes)).await.unwrap();
    });
}

fn added(room: i64, seq: u64) -> Envelope {
    let frame = Frame::from_text(format!("{{\"type\":\"add\",\"message\":\"👋 {seq}\"}}"));
    let (sender, client_id) = (UserKey::from("7"), crate::id::ClientId::new("c-1"));
    let kind = EventKind::Message {
        op: MessageOp::Added,
        message: MessageId(room << 32 | 5),
        pos: Seq(seq),
        sender,
        client_id,
        frame,
    };
    Envelope::Event(Event { room: RoomId(room), at: Cursor::new(Epoch(1_700_000_000_000), Seq(seq)), kind })
}

/// What other nodes have sent and comes in next; what the layer reports is passed over.
async fn arrived(node: &Node) -> Vec<Envelope> {
    loop {
        match node.next().await.unwrap() {
            Incoming::Arrived(envelopes) => return envelopes,
            Incoming::Lagged => {}
        }
    }
}

/// The next envelope, where it comes alone.
async fn arrival(node: &Node) -> Envelope {
    let mut envelopes = arrived(node).await;
    assert_eq!(envelopes.len(), 1, "one was published");
    envelopes.remove(0)
}

/// Receives until all of `wanted` have come, and nothing else came.
async fn arrivals(node: &Node, wanted: &[Envelope]) {
    let mut missing: Vec<_> = wanted.iter().collect();
    while !missing.is_empty() {
        for envelope in arrived(node).await {
            assert!(wanted.contains(&envelope), "{envelope:?} was not published for this node");
            missing.retain(|wanted| **wanted != envelope);
        }
    }
}

/// What is published to a group arrives at every other subscribed node.
pub async fn what_is_published_arrives_at_every_subscriber([a, b, c]: [Node; 3]) {
    for node in [&a, &b, &c] {
        node.subscribe(&[Group::Room(RoomId(1))]).await.unwrap();
    }
    let wanted = [added(1, 1), added(1, 2), added(1, 3)];
    a.publish(&wanted).await.unwrap();
    arrivals(&b, &wanted).await;
    arrivals(&c, &wanted).await;
}

/// Events and signals of every kind come out as they went in.
pub async fn every_kind_of_envelope_arrives_as_it_was([a, b, _]: [Node; 3]) {
    b.subscribe(&[Group::Room(RoomId(1))]).await.unwrap();
    b.subscribe(&[Group::Nodes]).await.unwrap();
    let at = Cursor::new(Epoch(3), Seq(u64::from(u32::MAX)));
    let member = |op| {
        let kind = EventKind::Member { op, member: UserKey::from("ключ") };
        Envelope::Event(Event { room: RoomId(1), at, kind })
    };
    let message = |op| {
        let Envelope::Event(mut event) = added(1, 9) else { unreachable!() };
        if let EventKind::Message { op: present, client_id, .. } = &mut event.kind {
            *present = op;
            *client_id = None;
        }
        Envelope::Event(event)
    };
    let typing = Signal::Room { room: RoomId(1), from: "7".into(), frame: Frame::from_text("{}".into()) };
    let wanted = [
        added(1, 1),
        message(MessageOp::Edited),
        message(MessageOp::Deleted),
        member(MemberOp::Joined),
        member(MemberOp::Left),
        Envelope::Signal(typing),
        Envelope::Signal(Signal::Presence {
            room: RoomId(1),
            node: 5,
            users: vec![("7".into(), "Seven".into())],
            asks: false,
        }),
        Envelope::Signal(Signal::Kick { user: "7".into(), login: Some("a login".into()) }),
        Envelope::Signal(Signal::Missed { room: Some(RoomId(1)) }),
        Envelope::Signal(Signal::Missed { room: None }),
    ];
    a.publish(&wanted).await.unwrap();
    arrivals(&b, &wanted).await;
}

/// A node hears of the groups that it is subscribed to, and of no others.
pub async fn groups_do_not_mix([a, b, c]: [Node; 3]) {
    b.subscribe(&[Group::Room(RoomId(1))]).await.unwrap();
    c.subscribe(&[Group::Room(RoomId(11))]).await.unwrap();
    a.publish(&[added(1, 1), added(11, 1), added(111, 1)]).await.unwrap();
    arrivals(&b, &[added(1, 1)]).await;
    arrivals(&c, &[added(11, 1)]).await;
    a.publish(&[added(1, 2), added(11, 2)]).await.unwrap();
    assert_eq!(arrival(&b).await, added(1, 2));
    assert_eq!(arrival(&c).await, added(11, 2));
}

/// After unsubscribing from one group, only the others arrive.
pub async fn after_unsubscribing_nothing_arrives([a, b, _]: [Node; 3]) {
    b.subscribe(&[Group::Room(RoomId(1))]).await.unwrap();
    b.subscribe(&[Group::Room(RoomId(2))]).await.unwrap();
    b.unsubscribe(&[Group::Room(RoomId(1))]).await.unwrap();
    b.unsubscribe(&[Group::Room(RoomId(77))]).await.unwrap();
    a.publish(&[added(1, 1), added(2, 1)]).await.unwrap();
    assert_eq!(arrival(&b).await, added(2, 1));
}

/// Subscribing twice neither doubles what arrives nor needs two unsubscriptions.
pub async fn subscribing_twice_is_as_once([a, b, _]: [Node; 3]) {
    let group = Group::Room(RoomId(1));
    b.subscribe(&[Group::Room(RoomId(2))]).await.unwrap();
    b.subscribe(&[group]).await.unwrap();
    b.subscribe(&[group]).await.unwrap();
    a.publish(&[added(1, 1), added(2, 1)]).await.unwrap();
    arrivals(&b, &[added(1, 1), added(2, 1)]).await;
    b.unsubscribe(&[group]).await.unwrap();
    a.publish(&[added(1, 2), added(2, 2)]).await.unwrap();
    assert_eq!(arrival(&b).await, added(2, 2));
}

/// A node that has gone does not keep the others from hearing.
pub async fn a_node_that_was_dropped_is_no_obstacle([a, b, c]: [Node; 3]) {
    b.subscribe(&[Group::Room(RoomId(1))]).await.unwrap();
    c.subscribe(&[Group::Room(RoomId(1))]).await.unwrap();
    drop(b);
    a.publish(&[added(1, 1)]).await.unwrap();
    assert_eq!(arrival(&c).await, added(1, 1));
}

/// Publishing does not wait for a node that does not read; what that one loses is reported to it.
pub async fn what_is_lost_is_reported([a, b, _]: [Node; 3]) {
    b.subscribe(&[Group::Room(RoomId(1))]).await.unwrap();
    // More than any bounded queue holds, in pieces as a writer would send them.
    const PIECES: u64 = 400;
    const PIECE: u64 = 500;
    for piece in 0..PIECES {
        let envelopes: Vec<_> = (1..=PIECE).map(|at| added(1, piece * PIECE + at)).collect();
        a.publish(&envelopes).await.unwrap();
    }
    let (mut arrived, mut lagged) = (HashSet::new(), false);
    while !lagged && arrived.len() < (PIECES * PIECE) as usize {
        match b.next().await.unwrap() {
            Incoming::Lagged => lagged = true,
            Incoming::Arrived(envelopes) => arrived.extend(envelopes.iter().map(|envelope| match envelope {
                Envelope::Event(event) => event.at.seq,
                other => panic!("{other:?} was never published"),
            })),
        }
    }
    assert!(lagged || arrived.len() == (PIECES * PIECE) as usize, "something was lost and nobody said so");
    // And it goes on.
    while !matches!(b.next().await.unwrap(), Incoming::Arrived(_)) {
        a.publish(&[added(1, 1)]).await.unwrap();
    }
}

/// Several nodes publishing at once reach each other.
pub async fn concurrent_publishers_reach_everybody([a, b, c]: [Node; 3]) {
    for node in [&a, &b, &c] {
        node.subscribe(&[Group::Room(RoomId(1))]).await.unwrap();
    }
    let piece = |from: u64| (from..from + 100).map(|seq| added(1, seq)).collect::<Vec<_>>();
    let (of_a, of_b, of_c) = (piece(1_000), piece(2_000), piece(3_000));
    let sent = tokio::join!(a.publish(&of_a), b.publish(&of_b), c.publish(&of_c));
    assert_eq!(sent, (Ok(()), Ok(()), Ok(())));
    for (node, own) in [(&a, &of_a), (&b, &of_b), (&c, &of_c)] {
        let others: Vec<_> = [&of_a, &of_b, &of_c].into_iter().filter(|of| *of != own).flatten().cloned().collect();
        let mut missing: HashSet<_> = others.iter().map(|envelope| format!("{envelope:?}")).collect();
        while !missing.is_empty() {
            for envelope in arrived(node).await {
                // A node's own echo may come, too.
                missing.remove(&format!("{envelope:?}"));
            }
        }
    }
}
