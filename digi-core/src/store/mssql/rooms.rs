//! Writes that are no batches: making rooms, raising epochs, purging.

use tiberius::Row;

use super::connection::Readers;
use super::failure::{Failure, Kind};
use super::rows::{Rows, bigint, datetime, head, id_range, integer, integer_or_null, sets};
use super::statements::Statements;
use super::texts::{Bound, Value};
use crate::id::{Cursor, MessageId, Millis, RoomId, Seq};
use crate::store::StoreError;
use crate::store::model::{Head, NewRoom, raised};

/// How often an id is looked for that nobody else takes in between.
const TRIES: usize = 100;

/// How many places of a room are removed in one transaction. Beyond 5,000 locks SQL Server locks the whole table.
const PIECE: i64 = 1_000;

/// See [`Store::create_room`](crate::store::Store::create_room).
pub(super) async fn create(
    readers: &Readers,
    statements: &Statements,
    room: &NewRoom,
    now: Millis,
) -> Result<RoomId, StoreError> {
    let certain = |failure: Failure| failure.into_store_error(false);
    let mut is_again = false;
    for _ in 0..TRIES {
        let id = match room.id {
            Some(id) => id.0,
            None => highest(readers, statements).await.map_err(certain)? + 1,
        };
        if !(1..=RoomId::MAX_OWN).contains(&id) {
            return Err(StoreError::Rejected(format!("room ids lie between 1 and {}, not {id}", RoomId::MAX_OWN)));
        }
        let made = make(readers, statements, id, room, now).await;
        match made {
            Ok(_) => return Ok(RoomId(id)),
            Err((failure, _)) if failure.kind == Kind::GaveWay => {}
            Err((failure, false)) if failure.kind == Kind::Broken && !failure.is_silence && !is_again => {
                is_again = true
            }
            Err((failure, _)) if failure.kind == Kind::Duplicate => {
                if room.id.is_some() {
                    return Err(StoreError::RoomExists(RoomId(id)));
                }
            }
            Err((failure, is_committing)) => return Err(failure.into_store_error(is_committing)),
        }
    }
    Err(StoreError::Unavailable("others kept taking the ids for new rooms".into()))
}

async fn make(
    readers: &Readers,
    statements: &Statements,
    id: i64,
    room: &NewRoom,
    now: Millis,
) -> Result<(), (Failure, bool)> {
    let statements = making(statements, id, room, now).map_err(|failure| (failure, false))?;
    readers.transact(&statements).await
}

fn making<'r>(statements: &Statements, id: i64, room: &'r NewRoom, now: Millis) -> Result<Vec<Bound<'r>>, Failure> {
    let first = vec![
        Value::Number(id),
        Value::Text(&room.name),
        Value::Text(&room.kind),
        Value::Made(datetime(now)?),
        Value::Number(bigint(now.0)?),
    ];
    let mut all = vec![Bound::new(&statements.create_room, first)];
    for part in Rows::of_room(id, room, now)? {
        all.push(part.with(&statements.write, Vec::new())?);
    }
    Ok(all)
}

async fn highest(readers: &Readers, statements: &Statements) -> Result<i64, Failure> {
    let [rows] = sets(readers.query(&statements.highest_room, &[]).await?)?;
    rows.first().map_or(Ok(0), |row| integer(row, 0))
}

/// See [`Store::raise_epoch`](crate::store::Store::raise_epoch). None when there is no such room.
pub(super) async fn raise(
    readers: &Readers,
    statements: &Statements,
    room: RoomId,
    seen: Cursor,
    now: Millis,
) -> Result<Option<Head>, Failure> {
    loop {
        let Some(stored) = stored_head(readers, statements, room).await? else { return Ok(None) };
        if stored.cursor() >= seen {
            return Ok(Some(stored));
        }
        let to = raised(stored, seen, now);
        let (epoch, seq) = (bigint(to.epoch.0)?, bigint(to.last_seq.0)?);
        let (was_epoch, was_seq) = (bigint(stored.epoch.0)?, bigint(stored.last_seq.0)?);
        let values: [&dyn tiberius::ToSql; 6] = [&room.0, &was_epoch, &was_seq, &epoch, &seq, &seq];
        let [rows] = sets(readers.query(&statements.raise, &values).await?)?;
        // None: it has moved in between.
        if rows.first().map_or(Ok(0), |row| integer(row, 0))? > 0 {
            return Ok(Some(to));
        }
    }
}

async fn stored_head(readers: &Readers, statements: &Statements, room: RoomId) -> Result<Option<Head>, Failure> {
    let [rows] = sets(readers.query(&statements.heads, &[&format!("[{room}]")]).await?)?;
    rows.first().map(|row| head(row, 1)).transpose()
}

/// See [`Store::raise_all`](crate::store::Store::raise_all).
pub(super) async fn raise_all(readers: &Readers, statements: &Statements, now: Millis) -> Result<(), Failure> {
    readers.query(&statements.raise_all, &[&bigint(now.0)?]).await?;
    Ok(())
}

/// See [`Store::purge`](crate::store::Store::purge). None when there is no such room.
pub(super) async fn purge(
    readers: &Readers,
    statements: &Statements,
    room: RoomId,
    before: Millis,
) -> Result<Option<u64>, Failure> {
    if stored_head(readers, statements, room).await?.is_none() {
        return Ok(None);
    }
    let (first, last) = id_range(room, Seq(1), Seq(u64::MAX));
    // Later than every time that a column holds is as good as the last one.
    let before = datetime(before).or_else(|_| datetime(Millis(253_402_300_799_999)))?;
    let [rows] = sets(readers.query(&statements.old, &[&first, &last, &before]).await?)?;
    let Some(row) = rows.first() else { return Ok(Some(0)) };
    let (Some(oldest), Some(newest)) = (integer_or_null(row, 0)?, integer_or_null(row, 1)?) else { return Ok(Some(0)) };
    let floor = bigint(MessageId(newest).split_own().1.0)?;
    // First the floor, then the rows: who reads in between knows that below it some are missing.
    readers.query(&statements.raise_floor, &[&room.0, &floor]).await?;
    let mut removed = 0;
    let mut from = oldest;
    while from <= newest {
        let to = newest.min(from.saturating_add(PIECE - 1));
        removed += count(readers.query(&statements.remove, &[&from, &to]).await?)?;
        from = to + 1;
    }
    while count(readers.query(&statements.remove_log, &[&room.0, &floor]).await?)? > 0 {}
    Ok(Some(removed))
}

fn count(answer: Vec<Vec<Row>>) -> Result<u64, Failure> {
    let [rows] = sets(answer)?;
    rows.first().map_or(Ok(0), |row| integer(row, 0)).map(|count| count.max(0).cast_unsigned())
}
