//! Order over a layer that promises nothing, against the memory store.

use std::collections::BTreeMap as Map;

use proptest::prelude::*;

use super::*;
use crate::store::memory::MemoryState;
use crate::store::model::{Action, Authority, Batch, BatchId, Command, NewRoom};

/// What a page shows: per place the text, or none when deleted.
type View = Map<u64, Option<String>>;

#[derive(Clone, Debug)]
enum Write {
    Add,
    Edit(prop::sample::Index),
    Delete(prop::sample::Index),
    /// Somebody else comes or goes.
    Member(bool),
}

#[derive(Clone, Debug)]
enum Step {
    /// One of the events arrives, whether or not it did before.
    Arrive(prop::sample::Index),
    /// So many that never arrived do, together.
    Next(usize),
    Tick,
    /// The oldest question to the log is answered, with at most so many numbers, or not at all.
    Answer(Option<u64>),
    Lagged,
    /// The head is compared.
    Compare,
    /// A page loads the history and goes live.
    Enter,
}

struct World {
    room: Room<usize>,
    store: MemoryState,
    events: Vec<Event>,
    arrived: usize,
    asked: VecDeque<(Seq, Cursor)>,
    pages: Vec<(Seq, View, Vec<u64>)>,
    now: Millis,
}

impl World {
    fn new(writes: &[Write]) -> Self {
        let mut store = MemoryState::default();
        let members = vec![("7".into(), "alice".into(), Role::Moderator)];
        store.create_room(&NewRoom { id: Some(ROOM), members, ..NewRoom::default() }, Millis(EPOCH)).unwrap();
        let mut events = Vec::new();
        for (number, write) in writes.iter().enumerate() {
            let some =
                |index: &prop::sample::Index| MessageId::own(ROOM, Seq(index.index(number + 1) as u64 + 1)).unwrap();
            let action = match write {
                Write::Add => Action::Add { body: number.to_string().into(), client_id: None },
                Write::Edit(index) => Action::Edit { message: some(index), body: number.to_string().into() },
                Write::Delete(index) => Action::Delete { message: some(index) },
                Write::Member(true) => Action::AddMember { member: "8".into(), name: "bob".into(), role: Role::Member },
                Write::Member(false) => Action::RemoveMember { member: "8".into() },
            };
            let authority = Authority::Host;
            let command = Command { room: ROOM, user: "7".into(), user_name: "alice".into(), authority, action };
            let id = BatchId { node: 1, number: number as u64 };
            let batch = Batch { id, commands: vec![command], known: vec![], now: Millis(EPOCH + number as u64) };
            let applied = store.apply(&batch).unwrap();
            events.extend(Event::of(ROOM, &applied.outcomes[0], &encoder()));
        }
        let room = Room::new(ROOM, head(0), RoomLimits { held_events: 8, ..RoomLimits::default() });
        let mut world =
            Self { room, store, events, arrived: 0, asked: VecDeque::new(), pages: Vec::new(), now: Millis(1_000) };
        world.enter(head(0), View::new());
        world
    }

    fn enter(&mut self, read: Head, view: View) {
        let session = self.pages.len();
        let membership = Membership { role: Role::Member };
        let id = SessionId(session as u64);
        let joined = self.room.join(id, "7".into(), membership, read, session, self.now);
        if joined != JoinAnswer::Stale {
            self.pages.push((read.last_seq, view, Vec::new()));
            self.deliver(|room, deliver, now| room.go_live(id, read.cursor(), now, deliver));
        }
    }

    fn deliver(&mut self, work: impl FnOnce(&mut Room<usize>, &mut Pages<'_>, Millis)) {
        work(&mut self.room, &mut Pages(&mut self.pages), self.now);
        while let Some(output) = self.room.poll_output() {
            let RoomOutput::ReadLog { after, seen } = output else { panic!("{output:?}") };
            self.asked.push_back((after, seen));
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Arrive(index) if !self.events.is_empty() => {
                let event = index.get(&self.events).clone();
                self.deliver(|room, deliver, now| room.handle_event(event, now, deliver));
            }
            Step::Next(count) => {
                let through = self.events.len().min(self.arrived + count);
                let events = self.events[self.arrived..through].to_vec();
                self.arrived = through;
                self.deliver(|room, deliver, now| room.handle_events(events, now, deliver));
            }
            Step::Arrive(_) => {}
            Step::Tick => {
                self.now = self.now.plus(30);
                self.deliver(|room, _, now| room.handle_tick(now));
            }
            Step::Answer(limit) => {
                if let Some((after, seen)) = self.asked.pop_front() {
                    let changes = limit.map(|limit| self.store.changes(ROOM, after, limit).unwrap());
                    self.deliver(|room, deliver, now| room.handle_changes(changes, seen, &encoder(), now, deliver));
                }
            }
            Step::Lagged => self.room.handle_lagged(self.now),
            Step::Compare => {
                let head = self.store.heads(&[ROOM])[0].1;
                self.deliver(|room, _, now| room.handle_head(head, room.seen(), now));
            }
            Step::Enter => {
                let view = self.truth();
                let head = self.store.heads(&[ROOM])[0].1;
                self.enter(head, view);
            }
        }
        assert!(self.asked.len() <= 1, "one read at a time");
        assert!(self.room.held.len() <= 8);
    }

    fn truth(&self) -> View {
        let page = self.store.history(ROOM, None, u32::MAX).unwrap();
        page.messages.into_iter().map(|m| (m.pos.0, m.body.map(|body| body.to_string()))).collect()
    }

    /// Compares and reads until nothing is missing.
    fn settle(&mut self) {
        self.step(&Step::Compare);
        for _ in 0..1_000 {
            if self.asked.is_empty() && self.room.next_wakeup().is_none() {
                return;
            }
            self.now = self.now.max(self.room.next_wakeup().unwrap_or_default());
            self.step(&Step::Tick);
            self.step(&Step::Answer(Some(3)));
        }
        panic!("it never comes to rest");
    }
}

struct Pages<'a>(&'a mut Vec<(Seq, View, Vec<u64>)>);

impl Deliver<usize> for Pages<'_> {
    fn deliver(&mut self, to: &usize, run: &Run) -> bool {
        for frame in run.frames() {
            let value: serde_json::Value = serde_json::from_str(frame.as_str()).unwrap();
            let (_, view, seqs) = &mut self.0[*to];
            seqs.push(value["seq"].as_u64().unwrap());
            view.insert(value["pos"].as_u64().unwrap(), value["message"].as_str().map(str::to_owned));
        }
        true
    }
}

fn writes() -> impl Strategy<Value = Vec<Write>> {
    let write = prop_oneof![
        4 => Just(Write::Add),
        2 => any::<prop::sample::Index>().prop_map(Write::Edit),
        1 => any::<prop::sample::Index>().prop_map(Write::Delete),
        1 => any::<bool>().prop_map(Write::Member),
    ];
    prop::collection::vec(write, 0..40)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => any::<prop::sample::Index>().prop_map(Step::Arrive),
        6 => (1_usize..5).prop_map(Step::Next),
        3 => Just(Step::Tick),
        3 => prop_oneof![Just(None), (1_u64..6).prop_map(Some)].prop_map(Step::Answer),
        1 => Just(Step::Lagged),
        1 => Just(Step::Compare),
        1 => Just(Step::Enter),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn every_page_ends_as_the_store(writes in writes(), steps in steps()) {
        let mut world = World::new(&writes);
        steps.iter().for_each(|step| world.step(step));
        world.settle();
        let truth = world.truth();
        for (from, view, seqs) in &world.pages {
            prop_assert_eq!(view, &truth);
            prop_assert!(seqs.windows(2).all(|pair| pair[0] < pair[1]), "out of order: {:?}", seqs);
            prop_assert!(seqs.first().is_none_or(|first| *first > from.0), "shown before: {:?}", seqs);
        }
    }

    #[test]
    fn every_number_is_shown_once(count in 0_usize..40, steps in steps()) {
        let mut world = World::new(&vec![Write::Add; count]);
        steps.iter().for_each(|step| world.step(step));
        world.settle();
        for (from, _, seqs) in &world.pages {
            let all: Vec<u64> = (from.0 + 1..=count as u64).collect();
            prop_assert_eq!(seqs, &all);
        }
    }
}
