//! The journal and the tables behind it, step by step and without the thread that otherwise decides when.

use std::path::Path;

use fastrand::Rng;

use super::connection::open_for_reading;
use super::journal::Extent;
use super::*;
use crate::error::Code;
use crate::id::{ClientId, MessageId};
use crate::store::model::{Action, Authority, BatchId, Command, Outcome, Role};

const NOW: Millis = Millis(1_700_000_000_000);

/// One process with the file open.
struct Process {
    writer: Writer,
    reader: Connection,
}

impl Process {
    fn open(path: &Path) -> Self {
        let path = std::path::absolute(path).unwrap();
        let options = SqliteOptions::default();
        let file = Arc::new(InUse::claim(&path).unwrap());
        let overlay = Arc::new(RwLock::new(Overlay::new()));
        let mut writer = Writer::open(&path, &options, file, overlay).unwrap();
        schema::migrate(&mut writer.connection).unwrap();
        Self { writer, reader: open_for_reading(&path, &options).unwrap() }
    }

    fn apply(&mut self, commands: Vec<Command>) -> Vec<Outcome> {
        let batch = Batch { id: BatchId { node: 0, number: 0 }, commands, known: Vec::new(), now: NOW };
        apply::apply(&mut self.writer, &batch).unwrap().outcomes
    }

    fn room(&self, room: RoomId) -> (Changes, History, Vec<(RoomId, Head)>, MemberAnswer) {
        let overlay = &self.writer.overlay;
        let take = |overlay: &Overlay| overlay.room(room).cloned();
        let (snapshot, unplaced) = overlay::snapshot(&self.reader, overlay, take).unwrap();
        let head = unplaced.as_ref().and_then(|unplaced| unplaced.head());
        (
            read::changes(&snapshot, unplaced.clone(), room, Seq(0), u64::MAX).unwrap().unwrap(),
            read::history(&snapshot, unplaced, room, None, 7).unwrap().unwrap(),
            read::heads(&snapshot, &[room], vec![head]).unwrap(),
            read::member(&snapshot, head, room, &"alice".into()).unwrap().unwrap(),
        )
    }

    fn extent(&self) -> Extent {
        Extent::read(&self.reader).unwrap()
    }
}

fn command(room: RoomId, action: Action) -> Command {
    Command { room, user: "alice".into(), user_name: "Alice".into(), authority: Authority::Member, action }
}

fn add(room: RoomId, client_id: &str) -> Command {
    command(room, Action::Add { body: client_id.into(), client_id: ClientId::new(client_id) })
}

fn edit(message: MessageId, body: &str) -> Command {
    command(message.split_own().0, Action::Edit { message, body: body.into() })
}

fn rooms(process: &mut Process, count: i64) -> Vec<RoomId> {
    let members = vec![("alice".into(), "Alice".into(), Role::Moderator)];
    let room = NewRoom { members, ..NewRoom::default() };
    (0..count).map(|_| rooms::create(&mut process.writer.connection, &room, NOW).unwrap()).collect()
}

fn count(process: &Process, table: &str) -> i64 {
    process.reader.query_one(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

#[test]
fn a_message_is_the_same_wherever_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.db");
    let mut one = Process::open(&path);
    let room = rooms(&mut one, 1)[0];
    one.apply((0..20).map(|n| add(room, &n.to_string())).collect());
    let message = |pos| MessageId::own(room, Seq(pos)).unwrap();
    // Of the same batch, and of one before.
    one.apply(vec![add(room, "20"), edit(message(21), "edited"), edit(message(3), "edited")]);
    one.apply(vec![command(room, Action::Delete { message: message(4) })]);
    assert_eq!((count(&one, "digi_message"), count(&one, "digi_journal")), (0, 3));
    let before = one.room(room);
    assert_eq!(before.0.head.last_seq, Seq(24));
    assert_eq!(
        before.1.messages.iter().map(|message| message.pos.0).collect::<Vec<_>>(),
        (15..=21).collect::<Vec<_>>()
    );
    // Somebody who has begun to read goes on to see it so while it is placed.
    let take = |overlay: &Overlay| overlay.room(room).cloned();
    let other = open_for_reading(&path, &SqliteOptions::default()).unwrap();
    let (snapshot, unplaced) = overlay::snapshot(&other, &one.writer.overlay, take).unwrap();
    one.writer.place_all().unwrap();
    assert_eq!((count(&one, "digi_message"), count(&one, "digi_journal")), (21, 0));
    assert_eq!(one.room(room), before);
    let log = read::changes(&snapshot, unplaced, room, Seq(0), u64::MAX).unwrap().unwrap();
    assert_eq!(log, before.0);
    // Edited after it was placed, and deleted in the journal again.
    one.apply(vec![edit(message(5), "later"), add(room, "21"), add(room, "3")]);
    let later = one.room(room);
    assert_eq!(later.0.rows.len(), before.0.rows.len() + 1);
    assert_eq!(Process::open(&path).room(room), later);
    one.writer.place_all().unwrap();
    assert_eq!(one.room(room), later);
    assert_eq!(one.extent(), Extent { placed: 4, last: 4 });
}

#[test]
fn whoever_opens_the_file_finds_what_was_not_placed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.db");
    let mut one = Process::open(&path);
    let room = rooms(&mut one, 1)[0];
    one.apply(vec![add(room, "a"), add(room, "b")]);
    let before = one.room(room);
    drop(one);
    let mut two = Process::open(&path);
    assert_eq!(two.room(room), before);
    let outcomes = two.apply(vec![add(room, "b"), add(room, "c")]);
    assert!(matches!(outcomes[..], [Outcome::Duplicate { pos: Seq(2), .. }, Outcome::Message { .. }]), "{outcomes:?}");
    two.writer.place_all().unwrap();
    assert_eq!((count(&two, "digi_message"), count(&two, "digi_journal")), (3, 0));
}

/// A sweep that has come by a room goes on while a batch of several rows of the journal comes to it: those rows stay.
#[test]
fn a_sweep_removes_nothing_of_what_came_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.db");
    let mut one = Process::open(&path);
    let ids = rooms(&mut one, 2);
    for part in 0..3 {
        one.apply((0..700).map(|n| add(ids[0], &format!("{part} {n}"))).collect());
    }
    one.apply(vec![add(ids[1], "b")]);
    // More than a piece is in the first room.
    one.writer.place_piece().unwrap();
    assert_eq!(count(&one, "digi_message"), 2_100);
    let long = |n: u8| Action::Add { body: char::from(n).to_string().repeat(200 << 10).into(), client_id: None };
    one.apply((b'a'..b'd').map(|n| command(ids[0], long(n))).collect());
    one.writer.place_piece().unwrap();
    assert_eq!(count(&one, "digi_message"), 2_101);
    let now = one.room(ids[0]);
    assert_eq!(now.0.head.last_seq, Seq(2_103));
    // Whoever opens the file, now or when this process is gone, has the same.
    let mut two = Process::open(&path);
    assert_eq!(two.room(ids[0]), now);
    drop(one);
    assert_eq!(two.room(ids[0]), now);
    two.writer.place_all().unwrap();
    assert_eq!((two.room(ids[0]), count(&two, "digi_message"), count(&two, "digi_journal")), (now, 2_104, 0));
}

#[test]
fn purging_and_raising_leave_nothing_behind_in_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.db");
    let (mut one, two) = (Process::open(&path), Process::open(&path));
    let ids = rooms(&mut one, 2);
    for room in &ids {
        one.apply((0..5).map(|n| add(*room, &n.to_string())).collect());
        two.room(*room);
    }
    assert_eq!(rooms::purge(&mut one.writer, ids[0], Millis(NOW.0 + 1)).unwrap(), 5);
    for process in [&one, &two] {
        let (changes, history, ..) = process.room(ids[0]);
        assert_eq!((changes.head.last_seq, changes.floor, history.messages.len()), (Seq(5), Seq(5), 0));
        assert_eq!(process.room(ids[1]).1.messages.len(), 5);
    }
    one.apply(vec![add(ids[0], "next")]);
    rooms::raise_all(&mut one.writer, Millis(NOW.0 + 7)).unwrap();
    for process in [&one, &two] {
        let (changes, ..) = process.room(ids[0]);
        assert_eq!((changes.head.epoch.0, changes.head.last_seq, changes.floor), (NOW.0 + 7, Seq(6), Seq(6)));
    }
    let seen = Cursor::new(one.room(ids[1]).0.head.epoch, Seq(9));
    let raised = rooms::raise(&mut one.writer, ids[1], seen, Millis(NOW.0 + 9)).unwrap();
    assert_eq!((two.room(ids[1]).0.head, one.room(ids[1]).0.head), (raised, raised));
}

#[test]
fn long_texts_take_several_rows_and_the_longest_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Process::open(&dir.path().join("chat.db"));
    let room = rooms(&mut one, 1)[0];
    let long = |bytes: usize| command(room, Action::Add { body: "x".repeat(bytes).into(), client_id: None });
    one.apply((0..20).map(|_| long(100 << 10)).collect());
    assert!(count(&one, "digi_journal") > 5);
    let before = one.room(room);
    one.writer.place_all().unwrap();
    assert_eq!(one.room(room), before);
    let commands = vec![add(room, "a"), long(connection::MAX_ROW as usize)];
    let batch = Batch { id: BatchId { node: 0, number: 0 }, commands, known: Vec::new(), now: NOW };
    assert!(matches!(apply::apply(&mut one.writer, &batch), Err(StoreError::Rejected(_))));
    assert_eq!(one.room(room), before);
    // What fits into a row of the journal fits into one of the table.
    one.apply(vec![long(connection::MAX_ROW as usize - 400)]);
    one.writer.place_all().unwrap();
}

#[test]
fn a_room_with_a_long_run_is_placed_without_a_sweep() {
    let dir = tempfile::tempdir().unwrap();
    let mut one = Process::open(&dir.path().join("chat.db"));
    let ids = rooms(&mut one, 2);
    for n in 0..11 {
        one.apply((0..100).map(|m| add(ids[0], &format!("{n} {m}"))).collect());
        one.apply(vec![add(ids[1], &n.to_string())]);
        one.writer.place_due().unwrap();
    }
    assert_eq!(count(&one, "digi_message"), 1_100);
    assert_eq!(one.extent(), Extent { placed: 0, last: 22 });
    let before = ids.iter().map(|room| one.room(*room)).collect::<Vec<_>>();
    one.writer.place_piece().unwrap();
    assert_eq!(one.extent(), Extent { placed: 22, last: 22 });
    assert_eq!(ids.iter().map(|room| one.room(*room)).collect::<Vec<_>>(), before);
}

/// Processes that write, place and read in any order, some of which end without a word, all see the same.
#[test]
fn every_process_sees_the_same_at_any_time() {
    for seed in 0..8 {
        let mut random = Rng::with_seed(seed);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chat.db");
        let mut processes = [Process::open(&path), Process::open(&path)];
        let ids = rooms(&mut processes[0], 5);
        let mut texts = Vec::new();
        for step in 0..100 {
            let one = random.usize(0..2);
            match random.u8(0..10) {
                0 => processes[one].writer.place_piece().unwrap(),
                1 => processes[one].writer.place_all().unwrap(),
                2 => processes[one] = Process::open(&path),
                _ => {
                    let mut commands = Vec::new();
                    for n in 0..random.usize(1..20) {
                        let room = ids[random.usize(0..ids.len())];
                        let message = MessageId::own(room, Seq(random.u64(1..30))).unwrap();
                        commands.push(match random.u8(0..6) {
                            0 => edit(message, &format!("{step}")),
                            1 => command(room, Action::Delete { message }),
                            2 => add(room, &format!("{}", random.u64(0..40))),
                            _ => add(room, &format!("{step} {n}")),
                        });
                    }
                    let outcomes = processes[one].apply(commands.clone());
                    for (command, outcome) in commands.iter().zip(&outcomes) {
                        match (&command.action, outcome) {
                            (Action::Add { body, .. }, Outcome::Message { message, .. }) => {
                                texts.push((message.id, Some(body.clone())));
                            }
                            (Action::Edit { message, body }, Outcome::Message { .. }) => {
                                texts.push((*message, Some(body.clone())));
                            }
                            (Action::Delete { message }, Outcome::Message { .. }) => texts.push((*message, None)),
                            (_, Outcome::Duplicate { .. }) => {}
                            (_, Outcome::Refused(code)) => {
                                assert!(matches!(code, Code::NoSuchMessage | Code::MessageDeleted), "{code:?}");
                            }
                            other => panic!("{other:?}"),
                        }
                    }
                }
            }
            let room = ids[random.usize(0..ids.len())];
            assert_eq!(processes[0].room(room), processes[1].room(room), "seed {seed}, step {step}");
        }
        processes[0].writer.place_all().unwrap();
        let fresh = Process::open(&path);
        let mut expected: std::collections::BTreeMap<_, _> = texts.into_iter().collect();
        for room in ids {
            let shown = fresh.room(room);
            assert_eq!(processes[1].room(room), shown, "seed {seed}");
            let numbers: Vec<_> = shown.0.rows.iter().map(|row| row.seq).collect();
            assert!(numbers.is_sorted() && numbers.len() <= shown.0.head.last_seq.0 as usize, "seed {seed}");
            for row in shown.0.rows {
                let crate::store::model::Change::Message(message) = row.change else { panic!("seed {seed}") };
                assert_eq!(expected.remove(&message.id), Some(message.body), "seed {seed}: {}", message.id);
            }
        }
        assert!(expected.is_empty(), "seed {seed}");
        assert_eq!(count(&fresh, "digi_journal"), 0);
    }
}
