//! A store of plain tables over the planner: the suite's comparison with the reference shows that it decides as that.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use std::collections::{BTreeMap, HashMap};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use digi_core::store::model::{
    Action, Applied, Batch, BatchId, Change, ChangeRow, Changes, Head, History, MemberAnswer, MemberOp, Membership,
    Message, NewRoom, Role, raised,
};
use digi_core::store::planner::{LogRow, Logged, NotedAdd, OutOfOrder, Plan, Planner, RoomHead, record, replay};
use digi_core::store::{Store, StoreError};
use digi_core::testing::store_suite::Subject;
use digi_core::{Cursor, Epoch, MessageId, Millis, RoomId, Seq, UserKey};

/// The longest text that the tables take.
const LONGEST: usize = 1 << 20;

#[derive(Clone, Default)]
struct Tables {
    heads: BTreeMap<RoomId, RoomHead>,
    members: BTreeMap<(RoomId, UserKey), Role>,
    messages: BTreeMap<MessageId, Message>,
    log: BTreeMap<(RoomId, Seq), LogRow>,
    /// None: made void.
    batches: HashMap<BatchId, Option<String>>,
}

struct TableStore {
    tables: Arc<Mutex<Tables>>,
    planner: Mutex<Planner>,
}

impl TableStore {
    fn over(tables: Arc<Mutex<Tables>>) -> Self {
        Self { tables, planner: Mutex::new(Planner::new()) }
    }
}

fn ids(room: RoomId, after: Seq, through: Seq) -> RangeInclusive<MessageId> {
    let id = |seq: u64| MessageId::own(room, Seq(seq.min(u32::MAX.into())));
    match (id(after.0.saturating_add(1)), id(through.0)) {
        (Some(first), Some(last)) if after < through => first..=last,
        _ => MessageId(1)..=MessageId(0),
    }
}

impl Tables {
    fn head(&self, room: RoomId) -> Result<RoomHead, StoreError> {
        self.heads.get(&room).copied().ok_or(StoreError::NoSuchRoom(room))
    }

    fn between(&self, room: RoomId, after: Seq, through: Seq) -> impl Iterator<Item = &Message> {
        let range = ids(room, after, through);
        let range = (!range.is_empty()).then(|| self.messages.range(range));
        range.into_iter().flatten().map(|(_, message)| message)
    }

    fn log(&self, room: RoomId, after: Seq, through: Seq) -> impl Iterator<Item = &LogRow> {
        let range = (after < through).then(|| self.log.range((room, after.next())..=(room, through)));
        range.into_iter().flatten().map(|(_, row)| row)
    }

    fn plan(&self, planner: &mut Planner, batch: &Batch) -> Result<Plan, OutOfOrder> {
        let rooms = planner.begin(batch.clone());
        assert!(rooms.is_sorted());
        let gaps = planner.lock(rooms.iter().filter_map(|room| Some((*room, *self.heads.get(room)?))))?;
        let (mut adds, mut members) = (Vec::new(), Vec::new());
        for gap in gaps {
            adds.extend(self.between(gap.room, gap.after, gap.through).filter_map(|message| {
                let client_id = message.client_id.clone()?;
                Some(NotedAdd { room: gap.room, pos: message.pos, sender: message.sender.clone(), client_id })
            }));
            members.extend(self.log(gap.room, gap.after, gap.through).filter_map(|row| match &row.what {
                Logged::Joined(user) | Logged::Left(user) => Some((gap.room, user.clone())),
                Logged::Message(..) => None,
            }));
        }
        // In any order.
        adds.reverse();
        let needs = planner.note(adds, members)?;
        assert!(needs.roles.is_sorted() && needs.messages.is_sorted());
        let roles = needs.roles.into_iter().filter_map(|(room, user)| {
            let role = *self.members.get(&(room, user.clone()))?;
            Some((room, user, role))
        });
        planner.decide(roles, needs.messages.iter().filter_map(|id| self.messages.get(id).cloned()))
    }

    /// Every row once, and none that is there already or not yet.
    fn write(&mut self, plan: Plan) -> Result<(), StoreError> {
        let too_long = |message: &Message| message.body.as_ref().is_some_and(|body| body.len() > LONGEST);
        if plan.inserted.iter().chain(&plan.updated).any(too_long) {
            return Err(StoreError::Rejected("too long".into()));
        }
        for message in plan.inserted {
            assert!(self.messages.insert(message.id, message).is_none());
        }
        for message in plan.updated {
            assert!(self.messages.insert(message.id, message).is_some());
        }
        for row in plan.log {
            assert!(self.log.insert((row.room, row.seq), row).is_none());
        }
        for key in plan.left {
            assert!(self.members.remove(&key).is_some());
        }
        for row in plan.joined {
            assert_eq!(self.members.insert((row.room, row.user), row.role).is_none(), row.is_new);
        }
        for (room, head) in plan.changed {
            assert_ne!(self.heads.insert(room, head), Some(head));
        }
        Ok(())
    }
}

#[async_trait]
impl Store for TableStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        let (mut planner, mut tables) = (self.planner.lock().unwrap(), self.tables.lock().unwrap());
        match tables.batches.get(&batch.id) {
            Some(Some(text)) => return replay(batch, text).map_err(|error| StoreError::Rejected(error.to_string())),
            Some(None) => return Err(StoreError::Rejected("the batch was made void".into())),
            None => {}
        }
        let plan = tables.plan(&mut planner, batch).unwrap();
        let applied = Applied { outcomes: plan.outcomes.clone(), heads: plan.heads.clone() };
        assert_eq!(replay(batch, &record(&applied)), Ok(applied.clone()));
        if let Err(error) = tables.write(plan) {
            planner.rolled_back();
            return Err(error);
        }
        tables.batches.insert(batch.id, Some(record(&applied)));
        planner.committed().unwrap();
        Ok(applied)
    }

    async fn void(&self, batch: BatchId) -> Result<(), StoreError> {
        match self.tables.lock().unwrap().batches.entry(batch).or_insert(None) {
            Some(_) => Err(StoreError::Rejected("the batch has been committed".into())),
            None => Ok(()),
        }
    }

    async fn member(&self, room: RoomId, user: &UserKey) -> Result<MemberAnswer, StoreError> {
        let tables = self.tables.lock().unwrap();
        let head = tables.head(room)?.head;
        let role = tables.members.get(&(room, user.clone()));
        Ok(MemberAnswer { membership: role.map(|role| Membership { role: *role }), head })
    }

    async fn changes(&self, room: RoomId, after: Seq, limit: u64) -> Result<Changes, StoreError> {
        let tables = self.tables.lock().unwrap();
        let RoomHead { head, floor, .. } = tables.head(room)?;
        let through = Seq(after.0.saturating_add(limit)).min(head.last_seq);
        let (mut last, mut rows) = (BTreeMap::new(), Vec::new());
        last.extend(tables.between(room, after, through).map(|message| (message.id, message.pos)));
        for row in tables.log(room, after, through) {
            let (op, member) = match &row.what {
                Logged::Message(_, id) => {
                    last.insert(*id, row.seq);
                    continue;
                }
                Logged::Joined(user) => (MemberOp::Joined, user.clone()),
                Logged::Left(user) => (MemberOp::Left, user.clone()),
            };
            rows.push(ChangeRow { seq: row.seq, change: Change::Member { op, member } });
        }
        rows.extend(last.into_iter().filter_map(|(id, seq)| {
            Some(ChangeRow { seq, change: Change::Message(tables.messages.get(&id)?.clone()) })
        }));
        rows.sort_by_key(|row| row.seq);
        Ok(Changes { head, floor, through, rows })
    }

    async fn history(&self, room: RoomId, before: Option<Seq>, limit: u32) -> Result<History, StoreError> {
        let tables = self.tables.lock().unwrap();
        let head = tables.head(room)?.head;
        let through = before.map_or(Seq(u64::MAX), |before| Seq(before.0.saturating_sub(1)));
        let mut messages: Vec<_> = tables.between(room, Seq(0), through).cloned().collect();
        messages.drain(..messages.len().saturating_sub(limit as usize));
        Ok(History { head, messages })
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<(RoomId, Head)>, StoreError> {
        let tables = self.tables.lock().unwrap();
        Ok(rooms.iter().filter_map(|room| Some((*room, tables.heads.get(room)?.head))).collect())
    }

    async fn raise_epoch(&self, room: RoomId, seen: Cursor, now: Millis) -> Result<Head, StoreError> {
        let mut tables = self.tables.lock().unwrap();
        let stored = tables.heads.get_mut(&room).ok_or(StoreError::NoSuchRoom(room))?;
        stored.raise_above(seen, now);
        Ok(stored.head)
    }

    async fn raise_all(&self, now: Millis) -> Result<(), StoreError> {
        for stored in self.tables.lock().unwrap().heads.values_mut() {
            stored.head = raised(stored.head, stored.head.cursor(), now);
            stored.floor = stored.head.last_seq;
        }
        Ok(())
    }

    async fn create_room(&self, room: &NewRoom, now: Millis) -> Result<RoomId, StoreError> {
        let mut tables = self.tables.lock().unwrap();
        let id = room.id.unwrap_or_else(|| RoomId(tables.heads.keys().last().map_or(0, |id| id.0) + 1));
        if !(1..=RoomId::MAX_OWN).contains(&id.0) {
            return Err(StoreError::Rejected("out of range".into()));
        }
        if tables.heads.contains_key(&id) {
            return Err(StoreError::RoomExists(id));
        }
        let head = Head { epoch: Epoch(now.0), last_seq: Seq(0) };
        tables.heads.insert(id, RoomHead { head, floor: Seq(0), last_at: now });
        tables.members.extend(room.members.iter().map(|(user, _, role)| ((id, user.clone()), *role)));
        Ok(id)
    }

    async fn purge(&self, room: RoomId, before: Millis) -> Result<u64, StoreError> {
        let mut tables = self.tables.lock().unwrap();
        tables.head(room)?;
        let all = tables.between(room, Seq(0), Seq(u64::MAX));
        let old: Vec<_> = all.take_while(|message| message.created_at < before).map(|message| message.id).collect();
        let Some(last) = old.last().map(|id| id.split_own().1) else { return Ok(0) };
        tables.messages.retain(|id, _| !old.contains(id));
        tables.log.retain(|(of, seq), _| *of != room || *seq > last);
        if let Some(stored) = tables.heads.get_mut(&room) {
            stored.floor = stored.floor.max(last);
        }
        Ok(old.len() as u64)
    }
}

digi_core::store_suite!(tables, || async {
    let tables = Arc::new(Mutex::new(Tables::default()));
    let open = move || std::future::ready(TableStore::over(tables.clone()));
    let offender = Action::Add { body: "x".repeat(2 << 20).into(), client_id: None };
    let subject = Subject::new(open().await).second_handle(open.clone()).reopened_by(open);
    subject.offender(offender).remembers_batches()
});

#[test]
fn steps_come_in_their_order() {
    let mut planner = Planner::new();
    assert_eq!(planner.committed(), Err(OutOfOrder));
    assert_eq!(planner.lock([]), Err(OutOfOrder));
    let batch =
        || Batch { id: BatchId { node: 1, number: 1 }, commands: Vec::new(), known: Vec::new(), now: Millis(1) };
    assert!(planner.begin(batch()).is_empty());
    assert_eq!(planner.note(Vec::new(), []), Err(OutOfOrder));
    assert_eq!(planner.lock([]), Ok(Vec::new()));
    assert_eq!(planner.committed(), Err(OutOfOrder));
    planner.rolled_back();
    assert_eq!(planner.note(Vec::new(), []), Err(OutOfOrder));
    planner.begin(batch());
    assert_eq!(planner.lock([]), Ok(Vec::new()));
    planner.note(Vec::new(), []).unwrap();
    assert_eq!(planner.decide([], []), Ok(Plan::default()));
    assert_eq!(planner.committed(), Ok(()));
    assert_eq!(planner.committed(), Err(OutOfOrder));
}

#[test]
fn outcomes_of_another_batch_are_no_answer() {
    let batch = Batch { id: BatchId { node: 1, number: 1 }, commands: Vec::new(), known: Vec::new(), now: Millis(1) };
    let applied = Applied { outcomes: vec![digi_core::store::model::Outcome::Unchanged], heads: Vec::new() };
    for text in ["", "{}", "[1", &record(&applied)] {
        replay(&batch, text).unwrap_err();
    }
}
