//! What handing one change to a room's members costs: `cargo bench -p digi-core --bench room`.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;

use digi_core::event::{Event, EventKind};
use digi_core::frame::{Frame, Run};
use digi_core::room::{JoinAnswer, Room, RoomLimits, SessionId};
use digi_core::store::model::{Head, Membership, MessageOp, Role};
use digi_core::{Cursor, Epoch, MessageId, Millis, RoomId, Seq};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

const ROOM: RoomId = RoomId(4_711);
const EPOCH: Epoch = Epoch(1);
const NOW: Millis = Millis(1);

fn main() {
    divan::main();
}

/// Counts frames and bytes: what is left is the room's own work.
type Outbox = Cell<(u64, usize)>;

fn count(outbox: &Outbox, run: &Run) -> bool {
    let (frames, bytes) = outbox.get();
    outbox.set((frames + run.frames().len() as u64, bytes + run.bytes()));
    true
}

fn room(members: u64) -> Room<Outbox> {
    let head = Head { epoch: EPOCH, last_seq: Seq(0) };
    let mut room = Room::new(ROOM, head, RoomLimits::default());
    for number in 0..members {
        let (session, user) = (SessionId(number), format!("user {number}").into());
        let joined = room.join(session, user, Membership { role: Role::Member }, head, Outbox::default(), NOW);
        assert_eq!(joined, JoinAnswer::Joined(head.cursor()));
        room.go_live(session, head.cursor(), NOW, &mut count);
    }
    room
}

fn event(seq: u64, frame: &Frame) -> Event {
    let pos = Seq(seq);
    Event {
        room: ROOM,
        at: Cursor::new(EPOCH, pos),
        kind: EventKind::Message {
            op: MessageOp::Added,
            message: MessageId::own(ROOM, pos).unwrap_or_default(),
            pos,
            sender: "17".into(),
            client_id: None,
            frame: frame.clone(),
        },
    }
}

/// One change, in order, to so many members.
#[divan::bench(args = [2, 100, 1_000])]
fn fan_out(bencher: Bencher<'_, '_>, members: u64) {
    let mut room = room(members);
    let frame = Frame::from_text("x".repeat(250));
    let mut seq = 0;
    bencher.counter(ItemsCount::new(members)).bench_local(|| {
        seq += 1;
        room.handle_event(black_box(event(seq, &frame)), NOW, &mut count);
        assert_eq!(room.shown().seq, Seq(seq));
    });
}

/// Ten changes that come in the opposite order and wait for the first of them.
#[divan::bench(args = [2, 100])]
fn reordered(bencher: Bencher<'_, '_>, members: u64) {
    let mut room = room(members);
    let frame = Frame::from_text("x".repeat(250));
    let mut seq = 0;
    bencher.counter(ItemsCount::new(10 * members)).bench_local(|| {
        for late in (1..=10).rev() {
            room.handle_event(black_box(event(seq + late, &frame)), NOW, &mut count);
        }
        seq += 10;
        assert_eq!(room.shown().seq, Seq(seq));
    });
}
