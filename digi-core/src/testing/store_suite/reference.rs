//! Comparison with the reference, [`MemoryState`], over random batches.

use std::sync::Arc;

use super::Subject;
use super::tools::{NOW, add, add_with, batch, command, delete, edit, host, join, leave};
use crate::id::{Cursor, Epoch, MessageId, Millis, RoomId, Seq};
use crate::store::Store;
use crate::store::memory::MemoryState;
use crate::store::model::{Action, Authority, Batch, Command, NewRoom, Role};

const SEEDS: u64 = 8;
const STEPS: usize = 60;
const USERS: [&str; 5] = ["alice", "bob", "mona", "carol", "dan"];

/// Every answer of the store equals the reference's, whichever handle is asked.
pub async fn it_answers_as_the_reference_does(subject: Subject) {
    let handles: Vec<Arc<dyn Store>> =
        [Some(subject.store.clone()), subject.another().await].into_iter().flatten().collect();
    for seed in 0..SEEDS {
        compare(&handles, seed).await;
    }
}

async fn compare(handles: &[Arc<dyn Store>], seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut reference = MemoryState::default();
    let mut rooms = Vec::new();
    for n in 0..4 {
        let members = USERS[..3].iter().map(|user| ((*user).into(), (*user).into(), role(&mut random))).collect();
        // Ids of their own for every seed: the store keeps the rooms of the seeds before.
        let id = Some(RoomId((seed * 10 + n + 1) as i64));
        let room = NewRoom { id, name: String::new(), kind: String::new(), members };
        let made = handles[0].create_room(&room, NOW).await;
        assert_eq!(made, reference.create_room(&room, NOW), "seed {seed}");
        rooms.extend(made);
    }
    let mut now = NOW.0;
    for step in 0..STEPS {
        let store = &*handles[random.usize(..handles.len())];
        let place = format!("seed {seed}, step {step}");
        now = now + random.u64(0..20) - random.u64(0..5);
        match random.u32(0..20) {
            0 => {
                let (room, before) = (rooms[random.usize(..rooms.len())], Millis(now - random.u64(0..200)));
                assert_eq!(store.purge(room, before).await, reference.purge(room, before), "{place}");
            }
            1 => {
                let room = rooms[random.usize(..rooms.len())];
                let seen = seen(&mut random, &reference, room);
                let raised = store.raise_epoch(room, seen, Millis(now)).await;
                assert_eq!(raised, reference.raise_epoch(room, seen, Millis(now)), "{place}");
            }
            _ => {
                let batch = random_batch(&mut random, &reference, &rooms, Millis(now));
                let expected = reference.apply(&batch);
                assert_eq!(store.apply(&batch).await, expected, "{place}: {batch:?}");
            }
        }
        expect_equal(store, &reference, &rooms, &mut random, &place).await;
    }
}

async fn expect_equal(
    store: &dyn Store,
    reference: &MemoryState,
    rooms: &[RoomId],
    random: &mut fastrand::Rng,
    place: &str,
) {
    assert_eq!(store.heads(rooms).await.unwrap(), reference.heads(rooms), "{place}");
    let room = rooms[random.usize(..rooms.len())];
    let expected = reference.changes(room, Seq(0), 0).unwrap();
    let (floor, last) = (expected.floor.0, expected.head.last_seq.0);
    // Nobody is promised anything below the floor.
    let (after, limit) = (Seq(floor + random.u64(0..=last - floor)), random.u64(0..30));
    assert_eq!(store.changes(room, after, limit).await, reference.changes(room, after, limit), "{place}");
    let before = random.bool().then(|| Seq(random.u64(0..last + 2)));
    let limit = random.u32(0..20);
    assert_eq!(store.history(room, before, limit).await, reference.history(room, before, limit), "{place}");
    let user = USERS[random.usize(..USERS.len())].into();
    assert_eq!(store.member(room, &user).await, reference.member(room, &user), "{place}");
}

fn role(random: &mut fastrand::Rng) -> Role {
    if random.u32(0..3) == 0 { Role::Moderator } else { Role::Member }
}

/// Mostly what was seen indeed, now and then more than is stored.
fn seen(random: &mut fastrand::Rng, reference: &MemoryState, room: RoomId) -> Cursor {
    let head = reference.heads(&[room])[0].1;
    let seq = if random.u32(0..8) == 0 { head.last_seq.0 + random.u64(1..4) } else { random.u64(0..=head.last_seq.0) };
    Cursor::new(Epoch(head.epoch.0), Seq(seq))
}

fn random_batch(random: &mut fastrand::Rng, reference: &MemoryState, rooms: &[RoomId], now: Millis) -> Batch {
    let commands: Vec<_> = (0..random.usize(1..12)).map(|_| random_command(random, reference, rooms)).collect();
    let known = match random.u32(0..4) {
        0 => rooms.iter().map(|room| (*room, seen(random, reference, *room))).collect(),
        _ => Vec::new(),
    };
    Batch { known, now, ..batch(commands) }
}

fn random_command(random: &mut fastrand::Rng, reference: &MemoryState, rooms: &[RoomId]) -> Command {
    let room = rooms[random.usize(..rooms.len())];
    let user = USERS[random.usize(..USERS.len())];
    let last = reference.heads(&[room])[0].1.last_seq.0;
    let any_message = MessageId((room.0 << 32) + random.u64(0..last + 3) as i64);
    let mut command = match random.u32(0..10) {
        0..=2 => add(room, user, &format!("text {}", random.u32(..))),
        // Few ids, so that many are repeats.
        3..=4 => add_with(room, user, "with id", &format!("id {}", random.u32(0..30))),
        5 => edit(room, user, any_message, &format!("edited {}", random.u32(..))),
        6 => delete(room, user, any_message),
        7 => join(room, user, role(random)),
        8 => leave(room, user),
        _ => match random.u32(0..4) {
            0 => add(RoomId(room.0 + 5), user, "no such room"),
            1 => add(room, user, "NUL \0"),
            2 => command(room, user, Action::RemoveMember { member: "bob".into() }),
            _ => host(room, Action::Delete { message: any_message }),
        },
    };
    if random.u32(0..10) == 0 {
        command.authority = Authority::Host;
    }
    command
}
