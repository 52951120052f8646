//! What one message costs its sender's connection, stores and sockets apart:
//! `cargo bench -p digi-core --bench consumer`.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use digi_core::consumer::{Consumer, ConsumerLimits, Output, Rate, Rules, Scope, Ticket};
use digi_core::frame::{Encoder, Frame};
use digi_core::room::JoinAnswer;
use digi_core::store::model::{Action, Head, MemberAnswer, Membership, Message, MessageOp, Outcome, Role};
use digi_core::token::{Keyring, Kind};
use digi_core::{Cursor, Epoch, MessageId, Millis, RoomId, Seq};
use divan::{Bencher, black_box};

const ROOM: RoomId = RoomId(4_711);
const NOW: Millis = Millis(1_724_566_366_007);

fn main() {
    divan::main();
}

/// A connection that is in its room.
fn open() -> Consumer {
    let keys = Keyring::new("a secret for benchmarks, long enough").unwrap();
    let token = keys.seal(Kind::Room, ROOM.get());
    let unlimited = ConsumerLimits { frames: Rate { per_second: 0, burst: 0 }, ..ConsumerLimits::default() };
    let rules = Rules { limits: unlimited, ..Rules::new(Encoder::new(keys)) };
    let scope = Scope {
        token,
        user: "17".into(),
        user_name: "Ana".into(),
        after: None,
        origin: None,
        remote: None,
        login: None,
    };
    let mut consumer = Consumer::new(Arc::new(rules), scope);
    consumer.handle_connect();
    let head = Head { epoch: Epoch(1), last_seq: Seq(0) };
    while let Some(output) = consumer.poll_output() {
        match output {
            Output::AskMember { ticket, .. } => {
                let membership = Some(Membership { role: Role::Member });
                consumer.handle_member(ticket, Ok(MemberAnswer { membership, head }));
            }
            Output::Join { ticket, .. } => consumer.handle_joined(ticket, JoinAnswer::Joined(head.cursor())),
            Output::Accept | Output::Send(_) | Output::GoLive { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(consumer.is_open());
    consumer
}

fn submitted(consumer: &mut Consumer) -> (Ticket, Action) {
    loop {
        match consumer.poll_output() {
            // With its first `client_id` it shows that it is no classic page.
            Some(Output::Listen { .. }) => {}
            Some(Output::Submit { ticket, command }) => return (ticket, command.action),
            other => panic!("{other:?}"),
        }
    }
}

/// The outcome of an `add`, as a store gives it.
fn added(pos: u64, action: Action) -> Outcome {
    let Action::Add { body, client_id } = action else { panic!("{action:?}") };
    let message = Message {
        id: MessageId::own(ROOM, Seq(pos)).unwrap(),
        room: ROOM,
        pos: Seq(pos),
        sender: "17".into(),
        sender_name: "Ana".into(),
        body: Some(body),
        client_id,
        created_at: NOW,
        edited_at: None,
        deleted_at: None,
    };
    Outcome::Message { op: MessageOp::Added, at: Cursor::new(Epoch(1), Seq(pos)), message }
}

/// From the frame to the command.
#[divan::bench]
fn add_to_submit(bencher: Bencher<'_, '_>) {
    let mut consumer = open();
    let text = r#"{"type":"add","message":"See you at seven in front of the station"}"#;
    bencher.bench_local(|| {
        consumer.handle_frame(black_box(text), NOW);
        let (ticket, _) = submitted(&mut consumer);
        consumer.handle_outcome(ticket, &Outcome::Unchanged);
    });
}

/// From the frame to the command, and from its outcome to the `ack`.
#[divan::bench]
fn add_to_ack(bencher: Bencher<'_, '_>) {
    let mut consumer = open();
    let text = r#"{"type":"add","message":"See you at seven in front of the station","client_id":"0b6c2d1e-7f3a"}"#;
    let mut pos = 0;
    bencher.bench_local(|| -> Frame {
        consumer.handle_frame(black_box(text), NOW);
        let (ticket, action) = submitted(&mut consumer);
        pos = pos % u64::from(u32::MAX) + 1;
        consumer.handle_outcome(ticket, &added(pos, action));
        match consumer.poll_output() {
            Some(Output::Send(ack)) => ack,
            other => panic!("{other:?}"),
        }
    });
}

/// The whole way in: token, membership, join, cursor.
#[divan::bench]
fn connect(bencher: Bencher<'_, '_>) {
    bencher.bench_local(open);
}
