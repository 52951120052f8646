//! The store that an engine gets: `Store` over the host's transactions, with the planner's decisions.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use digi_core::store::model::{
    Applied, Batch, BatchId, Change, ChangeRow, Changes, Head, History, MemberAnswer, MemberOp, Membership, NewRoom,
    raised,
};
use digi_core::store::planner::{BadRecord, Logged, Planner, RoomHead, record, replay};
use digi_core::store::{Store, StoreError};
use digi_core::{Cursor, Epoch, Millis, RoomId, Seq, UserKey};
use parking_lot::Mutex;

use super::digi_store;
use super::transaction::{Tables, Transaction, batch_row, head_row, member_row, rows_of};
use crate::handle::digi_text;
use crate::model::{DIGI_ROW_BATCH, DIGI_ROW_LOG, DIGI_ROW_MESSAGE, DIGI_ROW_ROOM, digi_row};
use crate::result::Failure;

/// How many places are looked through at once for what is to be purged.
const PAGE: u64 = 1_000;
/// Batches are forgotten after so many milliseconds; looked after every so many batches.
const KEPT_MS: u64 = 3_600_000;
const FORGET_EVERY: u64 = 256;

/// The store that an engine gets.
pub(crate) struct HostStore {
    tables: Arc<Tables>,
    /// Whoever writes has it.
    planner: Arc<Mutex<Planner>>,
}

impl HostStore {
    pub(crate) fn new(store: digi_store) -> Result<Self, Failure> {
        Ok(Self { tables: Arc::new(Tables::new(store)?), planner: Arc::new(Mutex::new(Planner::new())) })
    }

    async fn reading<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let tables = self.tables.clone();
        in_thread(move || work(&tables.begin(false)?)).await
    }

    /// With the one planner, so that those who write come one after the other.
    async fn writing<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tables, &mut Planner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (tables, planner) = (self.tables.clone(), self.planner.clone());
        in_thread(move || work(&tables, &mut planner.lock())).await
    }
}

async fn in_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let ended = |_| StoreError::Unavailable("the engine's threads have ended".into());
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}

/// One batch in a transaction, without its end.
fn apply(transaction: &Transaction<'_>, planner: &mut Planner, batch: &Batch) -> Result<Applied, StoreError> {
    let plan = transaction.plan(planner, batch)?;
    let mut rows = rows_of(&plan);
    let applied = Applied { outcomes: plan.outcomes.clone(), heads: plan.heads.clone() };
    let text = record(&applied);
    rows.push(batch_row(batch.id, Some(&text), batch.now));
    if batch.id.number.is_multiple_of(FORGET_EVERY) {
        let at = batch.now.0.saturating_sub(KEPT_MS);
        rows.push(digi_row { removes: true, at, ..digi_row::new(DIGI_ROW_BATCH, RoomId(0)) });
    }
    transaction.write(&rows)?;
    Ok(applied)
}

#[async_trait]
impl Store for HostStore {
    async fn migrate(&self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn apply(&self, batch: &Batch) -> Result<Applied, StoreError> {
        let batch = batch.clone();
        self.writing(move |tables, planner| {
            let transaction = tables.begin(true)?;
            match transaction.batch(batch.id)? {
                Some(Some(text)) => {
                    let other = |error: BadRecord| StoreError::Rejected(error.to_string());
                    return replay(&batch, &text).map_err(other);
                }
                Some(None) => return Err(StoreError::Rejected("the batch was made void".into())),
                None => {}
            }
            let done = apply(&transaction, planner, &batch).and_then(|applied| {
                transaction.commit()?;
                Ok(applied)
            });
            if done.is_ok() {
                // It was decided just now.
                let _ = planner.committed();
            } else {
                planner.rolled_back();
            }
            done
        })
        .await
    }

    async fn void(&self, id: BatchId) -> Result<(), StoreError> {
        self.writing(move |tables, _| {
            let transaction = tables.begin(true)?;
            match transaction.batch(id)? {
                Some(Some(_)) => Err(StoreError::Rejected("the batch has been committed".into())),
                Some(None) => Ok(()),
                None => {
                    // Kept as long as any other: its time is not that of the host's clock, but later is no harm.
                    transaction.write(&[batch_row(id, None, Millis(u64::MAX >> 1))])?;
                    transaction.commit()
                }
            }
        })
        .await
    }

    async fn member(&self, room: RoomId, user: &UserKey) -> Result<MemberAnswer, StoreError> {
        let user = user.clone();
        self.reading(move |transaction| {
            let head = transaction.head(room)?.head;
            let membership = transaction.role(room, &user)?.map(|role| Membership { role });
            Ok(MemberAnswer { membership, head })
        })
        .await
    }

    async fn changes(&self, room: RoomId, after: Seq, limit: u64) -> Result<Changes, StoreError> {
        self.reading(move |transaction| {
            let RoomHead { head, floor, .. } = transaction.head(room)?;
            let through = Seq(after.0.saturating_add(limit)).min(head.last_seq);
            let mut rows = Vec::new();
            let mut messages: BTreeMap<_, _> = transaction
                .messages(room, after, through, 0)?
                .into_iter()
                .map(|message| (message.id, (message.pos, message)))
                .collect();
            let mut log = transaction.log(room, after, through)?;
            log.sort_unstable_by_key(|(seq, _)| *seq);
            for (seq, what) in log {
                let (op, member) = match what {
                    Logged::Message(_, id) => {
                        if let Some(known) = messages.get_mut(&id) {
                            known.0 = seq;
                        } else if let Some(message) = transaction.message(id)? {
                            messages.insert(id, (seq, message));
                        }
                        continue;
                    }
                    Logged::Joined(user) => (MemberOp::Joined, user),
                    Logged::Left(user) => (MemberOp::Left, user),
                };
                rows.push(ChangeRow { seq, change: Change::Member { op, member } });
            }
            let message = |(seq, message)| ChangeRow { seq, change: Change::Message(message) };
            rows.extend(messages.into_values().map(message));
            rows.sort_unstable_by_key(|row| row.seq);
            Ok(Changes { head, floor, through, rows })
        })
        .await
    }

    async fn history(&self, room: RoomId, before: Option<Seq>, limit: u32) -> Result<History, StoreError> {
        self.reading(move |transaction| {
            let head = transaction.head(room)?.head;
            let through = before.map_or(Seq(u64::MAX), |before| Seq(before.0.saturating_sub(1)));
            let messages =
                if limit == 0 { Vec::new() } else { transaction.messages(room, Seq(0), through, limit.into())? };
            Ok(History { head, messages })
        })
        .await
    }

    async fn heads(&self, rooms: &[RoomId]) -> Result<Vec<(RoomId, Head)>, StoreError> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let rooms = rooms.to_vec();
        let heads = self.reading(move |transaction| transaction.heads(&rooms)).await?;
        Ok(heads.into_iter().map(|(room, head)| (room, head.head)).collect())
    }

    async fn raise_epoch(&self, room: RoomId, seen: Cursor, now: Millis) -> Result<Head, StoreError> {
        self.writing(move |tables, _| {
            let transaction = tables.begin(true)?;
            let stored = transaction.head(room)?;
            let mut head = stored;
            head.raise_above(seen, now);
            if head != stored {
                transaction.write(&[head_row(room, &head)])?;
                transaction.commit()?;
            }
            Ok(head.head)
        })
        .await
    }

    async fn raise_all(&self, now: Millis) -> Result<(), StoreError> {
        self.writing(move |tables, _| {
            let transaction = tables.begin(true)?;
            let rows: Vec<_> = transaction
                .heads(&[])?
                .into_iter()
                .map(|(room, stored)| {
                    let head = raised(stored.head, stored.head.cursor(), now);
                    head_row(room, &RoomHead { head, floor: head.last_seq, last_at: stored.last_at })
                })
                .collect();
            transaction.write(&rows)?;
            transaction.commit()
        })
        .await
    }

    async fn create_room(&self, room: &NewRoom, now: Millis) -> Result<RoomId, StoreError> {
        let room = room.clone();
        self.writing(move |tables, _| {
            let transaction = tables.begin(true)?;
            let id = match room.id {
                Some(id) => id,
                None => RoomId(transaction.last_room()? + 1),
            };
            if !(1..=RoomId::MAX_OWN).contains(&id.0) {
                return Err(StoreError::Rejected(format!("room ids lie between 1 and {}", RoomId::MAX_OWN)));
            }
            if !transaction.heads(&[id])?.is_empty() {
                return Err(StoreError::RoomExists(id));
            }
            let head = RoomHead { head: Head { epoch: Epoch(now.0), last_seq: Seq(0) }, floor: Seq(0), last_at: now };
            let (name, text) = (digi_text::of(&room.name), digi_text::of(&room.kind));
            let mut rows = vec![digi_row { name, text, at: now.0, ..digi_row::new(DIGI_ROW_ROOM, id) }];
            rows.extend(room.members.iter().map(|(user, name, role)| member_row(id, user, name, *role, now)));
            rows.push(head_row(id, &head));
            transaction.write(&rows)?;
            transaction.commit()?;
            Ok(id)
        })
        .await
    }

    async fn purge(&self, room: RoomId, before: Millis) -> Result<u64, StoreError> {
        self.writing(move |tables, _| {
            let transaction = tables.begin(true)?;
            let mut head = transaction.head(room)?;
            let (mut removed, mut last, mut after) = (0, None, Seq(0));
            // Times never go back in a room, so what is old enough comes first.
            while after < head.head.last_seq {
                let through = Seq(after.0.saturating_add(PAGE));
                let page = transaction.messages(room, after, through, 0)?;
                let old = page.iter().take_while(|message| message.created_at < before).count();
                removed += old as u64;
                last = old.checked_sub(1).map(|newest| page[newest].pos).or(last);
                if old < page.len() {
                    break;
                }
                after = through;
            }
            let Some(last) = last else { return Ok(0) };
            head.floor = head.floor.max(last);
            let removal = |kind| digi_row { removes: true, seq: last.0, pos: last.0, ..digi_row::new(kind, room) };
            transaction.write(&[removal(DIGI_ROW_MESSAGE), removal(DIGI_ROW_LOG), head_row(room, &head)])?;
            transaction.commit()?;
            Ok(removed)
        })
        .await
    }
}
