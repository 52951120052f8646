//! One batch, one transaction, and usually one round trip.
//!
//! A batch is planned on the heads as this lane remembers them, without a lock. One statement then begins, claims the
//! batch's id, takes the heads' locks while it writes them, writes the rows and commits, on the condition that every
//! head is as remembered: then nothing has happened in those rooms since, and what the planner knows of members and
//! client ids is true. So no lock is held across the network, and the time in which a room is locked is the server's
//! own. Rooms that are not remembered are read first.
//!
//! Where another process has written, the statement has changed nothing, and the batch comes once more the other way:
//! claim and lock first, then read, plan, write and commit. That one waits for the others and always gets through.
//!
//! Batches are remembered in `digi_batch`. Its row comes first in the transaction, so that a repeat waits for an
//! earlier try which is still on its way, and then finds its outcomes.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use tiberius::Row;

use super::connection::{Answer, Connection, Slot};
use super::failure::{Failure, Kind};
use super::rows::{
    Rows, bigint, bits, check_key, gaps_json, integer, json, message, moves_json, noted_add, role, roles_of, room_head,
    sets, text_or_null, user,
};
use super::server::Server;
use super::statements::{BEGIN, COMMIT, Statements};
use super::texts::{MOST, Value};
use crate::id::RoomId;
use crate::store::StoreError;
use crate::store::model::{Action, Applied, Batch, BatchId};
use crate::store::planner::{OutOfOrder, Plan, Planner, RoomHead, record, replay};

/// How many heads a lane remembers; about 100 bytes each.
const MAX_HEADS: usize = 16_384;

/// How often a transaction is done again that the server has rolled back in favour of another.
const TRIES: u32 = 5;

/// The first pause between two tries, doubled each time.
const PAUSE: Duration = Duration::from_millis(5);

/// After so many batches old ones are forgotten: this lane's but the newest [`KEPT`] and, every [`FORGET_OLD_EVERY`],
/// some of all nodes' that are older than an hour. A batch is repeated for seconds.
const FORGET_EVERY: u32 = 256;
const FORGET_OLD_EVERY: u32 = 4 * FORGET_EVERY;
const KEPT: u64 = 1_000;

/// Carries out the batches of its rooms, one after the other.
pub(super) struct Lane {
    server: Arc<Server>,
    statements: Arc<Statements>,
    planner: Planner,
    /// Heads as this lane has left or found them.
    heads: IndexMap<RoomId, RoomHead>,
    slot: Slot,
    batches: u32,
}

/// What stopped a batch.
struct Stop {
    failure: Failure,
    /// The transaction may have been committed if the answer got lost.
    is_committing: bool,
}

impl Stop {
    fn is_lost_before_commit(&self) -> bool {
        let Failure { kind, is_silence, .. } = self.failure;
        kind == Kind::LockTimeout || (kind == Kind::Broken && !is_silence && !self.is_committing)
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self { failure, is_committing: false }
    }
}

impl From<OutOfOrder> for Stop {
    fn from(error: OutOfOrder) -> Self {
        Failure::new(Kind::Rejected, None, error.to_string()).into()
    }
}

fn committing(failure: Failure) -> Stop {
    Stop { failure, is_committing: true }
}

impl Lane {
    pub(super) fn new(server: Arc<Server>, statements: Arc<Statements>) -> Self {
        let (planner, heads, slot) = (Planner::new(), IndexMap::new(), Slot::default());
        Self { server, statements, planner, heads, slot, batches: 0 }
    }

    /// See [`Store::apply`](crate::store::Store::apply).
    pub(super) async fn apply(&mut self, batch: &Batch) -> Result<Applied, StoreError> {
        check(batch).map_err(|failure| failure.into_store_error(false))?;
        let mut pause = PAUSE;
        let mut is_again = false;
        self.forget(batch).await;
        for _ in 1..TRIES {
            match self.attempt(batch).await {
                Err(stop) if stop.failure.kind == Kind::GaveWay => tokio::time::sleep(pause).await,
                // Another server, or the same after a restart, may be there already.
                Err(stop) if stop.is_lost_before_commit() && !is_again => is_again = true,
                answer => return self.answer(batch, answer).await,
            }
            pause *= 2;
        }
        let answer = self.attempt(batch).await;
        self.answer(batch, answer).await
    }

    async fn attempt(&mut self, batch: &Batch) -> Result<Applied, Stop> {
        let mut connection = self.slot.take(&self.server).await?;
        let mut done = self.as_remembered(&mut connection, batch).await;
        if matches!(done, Ok(None)) {
            done = self.under_locks(&mut connection, batch).await.map(Some);
        }
        let is_clean = match &done {
            Ok(_) => true,
            Err(stop) => connection.is_clean_after(&stop.failure).await,
        };
        if is_clean {
            self.slot.put(connection);
        }
        match done {
            Ok(Some(applied)) => Ok(applied),
            Ok(None) => Err(Failure::new(Kind::GaveWay, None, "the heads moved under their locks").into()),
            Err(stop) => {
                self.planner.rolled_back();
                Err(stop)
            }
        }
    }

    /// None when a head is not as it was when the batch was planned; then nothing was done.
    async fn as_remembered(&mut self, connection: &mut Connection, batch: &Batch) -> Result<Option<Applied>, Stop> {
        let rooms = self.planner.begin(batch.clone());
        let remembered = rooms.iter().map(|room| Some((*room, *self.heads.get(room)?))).collect();
        let heads = match remembered {
            Some(heads) => heads,
            None => heads(connection.query(&self.statements.heads, &[&room_ids(&rooms)?]).await?)?,
        };
        // Remembered again when it is certain what has become of the batch.
        for room in &rooms {
            self.heads.swap_remove(room);
        }
        let (plan, applied) = self.plan(connection, &heads).await?;
        let mut parts = Rows::parts(&plan)?;
        let (Some(rows), true) = (parts.pop(), parts.is_empty()) else {
            // Too much for one statement.
            self.planner.rolled_back();
            return Ok(None);
        };
        let values = vec![
            Value::Number(bits(batch.id.node)),
            Value::Number(bits(batch.id.number)),
            Value::Made(record(&applied)),
            Value::Made(moves_json(&heads, &plan)?),
        ];
        let statement = if rows.are_adds() {
            rows.adds_with(&self.statements.apply_adds, values)?
        } else {
            rows.with(&self.statements.apply, values)?
        };
        let (text, values) = statement.parts();
        let answer = connection.query(text, &values).await;
        if moved(answer.map_err(committing)?).map_err(committing)? {
            self.planner.rolled_back();
            return Ok(None);
        }
        self.remember(&heads, &plan)?;
        Ok(Some(applied))
    }

    /// The way that always gets through, in a transaction of several statements.
    async fn under_locks(&mut self, connection: &mut Connection, batch: &Batch) -> Result<Applied, Stop> {
        let rooms = room_ids(&self.planner.begin(batch.clone()))?;
        let (node, number) = (bits(batch.id.node), bits(batch.id.number));
        connection.batch(BEGIN).await?;
        let heads = heads(connection.query(&self.statements.claim, &[&node, &number, &rooms]).await?)?;
        let (plan, applied) = self.plan(connection, &heads).await?;
        for rows in Rows::parts(&plan)? {
            if rows.is_empty() {
                continue;
            }
            let statement = rows.with(&self.statements.write, Vec::new())?;
            let (text, values) = statement.parts();
            connection.query(text, &values).await?;
        }
        let (outcomes, moves) = (record(&applied), moves_json(&heads, &plan)?);
        let answer = connection.query(&self.statements.finish, &[&node, &number, &outcomes, &moves]).await?;
        if moved(answer)? {
            return Err(Failure::new(Kind::GaveWay, None, "a head moved under its lock").into());
        }
        // Whatever it says instead: only its yes is certain.
        let committed = connection.batch(COMMIT).await;
        committed.map_err(|failure| committing(failure.with_kind(Kind::Broken)))?;
        // The heads are not remembered: somebody else writes to these rooms as well.
        self.planner.committed()?;
        Ok(applied)
    }

    /// What becomes of the batch on these heads. Reads what neither they nor the planner's memory say.
    async fn plan(
        &mut self,
        connection: &mut Connection,
        heads: &[(RoomId, RoomHead)],
    ) -> Result<(Plan, Applied), Stop> {
        let gaps = self.planner.lock(heads.iter().copied())?;
        let (mut adds, mut members) = (Vec::new(), Vec::new());
        if !gaps.is_empty() {
            let [found, changed] = sets(connection.query(&self.statements.gaps, &[&gaps_json(&gaps)?]).await?)?;
            adds = found.iter().filter_map(|row| noted_add(row).transpose()).collect::<Result<_, _>>()?;
            members = changed.iter().map(user).collect::<Result<_, _>>()?;
        }
        let needs = self.planner.note(adds, members)?;
        let (mut roles, mut messages) = (Vec::new(), Vec::new());
        for users in needs.roles.chunks(MOST) {
            let statement = roles_of(&self.statements.roles, users)?;
            let (text, values) = statement.parts();
            let [found] = sets(connection.query(text, &values).await?)?;
            for row in &found {
                let found = role(row)?;
                // Trailing blanks made no difference to the server.
                if users.binary_search_by(|asked| (asked.0, &asked.1).cmp(&(found.0, &found.1))).is_ok() {
                    roles.push(found);
                }
            }
        }
        if !needs.messages.is_empty() {
            let ids = json(needs.messages.iter().map(|id| id.0))?;
            let [stored] = sets(connection.query(&self.statements.messages, &[&ids]).await?)?;
            messages = stored.iter().map(message).collect::<Result<_, _>>()?;
        }
        let plan = self.planner.decide(roles, messages)?;
        let applied = Applied { outcomes: plan.outcomes.clone(), heads: plan.heads.clone() };
        Ok((plan, applied))
    }

    /// It was committed.
    fn remember(&mut self, before: &[(RoomId, RoomHead)], plan: &Plan) -> Result<(), Stop> {
        self.planner.committed()?;
        self.heads.extend(before.iter().copied());
        self.heads.extend(plan.changed.iter().copied());
        if self.heads.len() > MAX_HEADS {
            // About those that were not used for longest; several at once, because the others move up.
            self.heads.drain(..MAX_HEADS / 8);
        }
        Ok(())
    }

    async fn answer(&mut self, batch: &Batch, answer: Result<Applied, Stop>) -> Result<Applied, StoreError> {
        match answer {
            Ok(applied) => Ok(applied),
            Err(Stop { failure, .. }) if failure.kind == Kind::Duplicate => {
                let text = match self.outcomes(batch.id).await {
                    Ok(Some(Some(text))) => text,
                    Ok(Some(None)) => return Err(StoreError::Rejected("the batch was made void".into())),
                    Ok(None) => return Err(failure.into_store_error(false)),
                    // It has been done, or something else is in its way.
                    Err(failure) => return Err(StoreError::Unknown(failure.to_string())),
                };
                replay(batch, &text).map_err(|error| StoreError::Rejected(error.to_string()))
            }
            Err(Stop { failure, is_committing }) => Err(failure.into_store_error(is_committing)),
        }
    }

    /// What became of a batch: none when it is not known, none inside when it was made void.
    async fn outcomes(&mut self, id: BatchId) -> Result<Option<Option<String>>, Failure> {
        let answer = self.query(|statements| &statements.outcomes, &[&bits(id.node), &bits(id.number)]).await;
        let [rows] = sets(answer?)?;
        rows.first().map(|row| Ok(text_or_null(row, 0)?.map(ToOwned::to_owned))).transpose()
    }

    /// Removes the batches that nobody repeats any more, every now and then. It may as well fail.
    async fn forget(&mut self, batch: &Batch) {
        self.batches = self.batches.wrapping_add(1);
        if !self.batches.is_multiple_of(FORGET_EVERY) {
            return;
        }
        let below = bits(batch.id.number.saturating_sub(KEPT));
        let mut done = self.query(|statements| &statements.forget, &[&bits(batch.id.node), &below]).await;
        if self.batches.is_multiple_of(FORGET_OLD_EVERY) {
            done = done.and(self.query(|statements| &statements.forget_old, &[]).await);
        }
        if let Err(failure) = done {
            tracing::debug!(%failure, "old batches were not removed");
        }
    }

    async fn query(&mut self, text: impl Fn(&Statements) -> &String, values: &[&dyn tiberius::ToSql]) -> Answer {
        let mut connection = self.slot.take(&self.server).await?;
        let answer = connection.query(text(&self.statements), values).await;
        let is_clean = match &answer {
            Ok(_) => true,
            Err(failure) => connection.is_clean_after(failure).await,
        };
        if is_clean {
            self.slot.put(connection);
        }
        answer
    }
}

/// Refuses what the columns do not hold.
fn check(batch: &Batch) -> Result<(), Failure> {
    bigint(batch.id.number)?;
    batch.commands.iter().try_for_each(|command| match &command.action {
        Action::Add { .. } => check_key(&command.user),
        Action::AddMember { member, .. } => check_key(member),
        _ => Ok(()),
    })
}

fn room_ids(rooms: &[RoomId]) -> Result<String, Failure> {
    json(rooms.iter().map(|room| room.0))
}

fn heads(answer: Vec<Vec<Row>>) -> Result<Vec<(RoomId, RoomHead)>, Failure> {
    let [rows] = sets(answer)?;
    rows.iter().map(room_head).collect()
}

fn moved(answer: Vec<Vec<Row>>) -> Result<bool, Failure> {
    let [rows] = sets(answer)?;
    let row = rows.first().ok_or_else(|| Failure::new(Kind::Broken, None, "the answer to a commit was empty"))?;
    Ok(integer(row, 0)? != 0)
}
