//! Between the model and what the statements take and give.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::Serialize;
use tiberius::{ColumnData, Row};

use super::failure::{Failure, Kind};
use super::texts::{Bound, MOST, Texts, Value};
use crate::id::{ClientId, Epoch, MessageId, Millis, RoomId, Seq, UserKey};
use crate::store::model::{Head, Message, NewRoom, Role};
use crate::store::planner::{Gap, LogRow, Logged, MemberRow, NotedAdd, Plan, RoomHead};

/// The longest user key, in UTF-16 units; what is longer is rejected before anything is sent.
pub(super) const MAX_KEY: usize = 191;

/// 9999-12-31T23:59:59.999Z, the last instant of DATETIME2.
const LAST_INSTANT: u64 = 253_402_300_799_999;

/// From 0001-01-01, where DATETIME2 begins to count, to 1970-01-01.
const DAYS_BEFORE_1970: u64 = 719_162;

const DAY: u64 = 86_400_000;

/// Something that no column holds.
fn out_of_range(what: &str) -> Failure {
    Failure::new(Kind::Rejected, None, format!("{what} is out of the range that the tables hold"))
}

/// A number as a BIGINT.
pub(super) fn bigint(number: u64) -> Result<i64, Failure> {
    i64::try_from(number).map_err(|_| out_of_range("a number"))
}

/// All bits of a number, as a BIGINT.
pub(super) const fn bits(number: u64) -> i64 {
    number.cast_signed()
}

/// An instant as DATETIME2 reads it, whatever the session's language: `2024-08-25T06:12:46.000`.
pub(super) fn datetime(time: Millis) -> Result<String, Failure> {
    if time.0 > LAST_INSTANT {
        return Err(out_of_range("a time"));
    }
    let mut text = time.rfc3339().to_string();
    // Without the zone: the columns have none.
    text.pop();
    Ok(text)
}

/// A list as the statements take it.
pub(super) fn json<T: Serialize>(rows: impl IntoIterator<Item = T>) -> Result<String, Failure> {
    let rows: Vec<T> = rows.into_iter().collect();
    serde_json::to_string(&rows).map_err(|error| Failure::new(Kind::Rejected, None, error.to_string()))
}

/// A list of which making a row can fail.
fn try_json<T: Serialize>(rows: impl Iterator<Item = Result<T, Failure>>) -> Result<String, Failure> {
    json(rows.collect::<Result<Vec<T>, _>>()?)
}

/// The ids that the messages of a room have between two places, both included: first and last, for BETWEEN.
pub(super) fn id_range(room: RoomId, from: Seq, to: Seq) -> (i64, i64) {
    let last = Seq(to.0.min(u32::MAX.into()));
    match (MessageId::own(room, from), MessageId::own(room, last)) {
        (Some(first), Some(last)) => (first.0, last.0),
        _ => (1, 0),
    }
}

/// Refuses a key that the columns do not hold. They would cut trailing blanks off, or fail without saying what it was.
pub(super) fn check_key(key: &UserKey) -> Result<(), Failure> {
    let units = key.as_str().encode_utf16().count();
    if units > MAX_KEY || key.as_str().contains('\0') {
        let text = format!("a user key has at most {MAX_KEY} UTF-16 units, none of them NUL; this one has {units}");
        return Err(Failure::new(Kind::Rejected, None, text));
    }
    Ok(())
}

#[derive(Serialize)]
struct HeadJson {
    r: i64,
    e: i64,
    s: i64,
    f: i64,
    ne: i64,
    ns: i64,
    nf: i64,
    nt: String,
}

#[derive(Serialize)]
struct MessageJson {
    i: i64,
    k: usize,
    n: usize,
    c: Option<usize>,
    t: String,
    e: Option<String>,
    d: Option<String>,
    b: Option<usize>,
}

#[derive(Serialize)]
struct UpdateJson {
    i: i64,
    e: Option<String>,
    d: Option<String>,
    b: Option<usize>,
}

#[derive(Serialize)]
struct LogJson {
    r: i64,
    s: i64,
    w: i64,
    m: Option<i64>,
    u: Option<usize>,
    t: String,
}

#[derive(Serialize)]
struct UserJson {
    r: i64,
    u: usize,
}

#[derive(Serialize)]
struct JoinedJson {
    r: i64,
    u: usize,
    n: usize,
    o: i64,
    t: String,
    fresh: u8,
}

#[derive(Serialize)]
struct GapJson {
    r: i64,
    a: i64,
    t: i64,
    f: i64,
    l: i64,
}

/// Heads, as the statements move them. All on which a batch was planned, changed or not: a refusal, too, holds only as
/// long as nothing else has happened.
pub(super) fn moves_json(before: &[(RoomId, RoomHead)], plan: &Plan) -> Result<String, Failure> {
    try_json(before.iter().map(|(room, was)| {
        let found = plan.changed.binary_search_by_key(room, |(room, _)| *room);
        head_json(*room, was, found.map_or(was, |n| &plan.changed[n].1))
    }))
}

fn head_json(room: RoomId, was: &RoomHead, now: &RoomHead) -> Result<HeadJson, Failure> {
    Ok(HeadJson {
        r: room.0,
        e: bigint(was.head.epoch.0)?,
        s: bigint(was.head.last_seq.0)?,
        f: bigint(was.floor.0)?,
        ne: bigint(now.head.epoch.0)?,
        ns: bigint(now.head.last_seq.0)?,
        nf: bigint(now.floor.0)?,
        nt: datetime(now.last_at)?,
    })
}

/// Rows that one statement writes.
#[derive(Default)]
pub(super) struct Rows<'p> {
    texts: Texts<'p>,
    inserted: Vec<MessageJson>,
    updated: Vec<UpdateJson>,
    log: Vec<LogJson>,
    left: Vec<UserJson>,
    joined: Vec<JoinedJson>,
}

impl<'p> Rows<'p> {
    /// A plan's rows, in one part or, when their texts are too many for one statement, in several to be written in
    /// order.
    pub(super) fn parts(plan: &'p Plan) -> Result<Vec<Self>, Failure> {
        let mut parts = Parts(vec![Self::default()]);
        for message in &plan.inserted {
            parts.with_space_for(4).insert(message)?;
        }
        for message in &plan.updated {
            parts.with_space_for(1).update(message)?;
        }
        for row in &plan.log {
            parts.with_space_for(1).log(row)?;
        }
        for (room, user) in &plan.left {
            let part = parts.with_space_for(1);
            part.left.push(UserJson { r: room.0, u: part.texts.place(user.as_str()) });
        }
        for row in &plan.joined {
            parts.with_space_for(2).join(row)?;
        }
        Ok(parts.0)
    }

    /// New members of a room. As [`Rows::parts`]; of two with the same key the later one counts.
    pub(super) fn of_room(id: i64, room: &'p NewRoom, now: Millis) -> Result<Vec<Self>, Failure> {
        let mut members = IndexMap::new();
        for (user, name, role) in &room.members {
            check_key(user)?;
            members.insert(user.as_str(), (name, role));
        }
        let mut parts = Parts(vec![Self::default()]);
        for (user, (name, role)) in members {
            let part = parts.with_space_for(2);
            let (u, n) = (part.texts.place(user), part.texts.place(name));
            part.joined.push(JoinedJson { r: id, u, n, o: role.number(), t: datetime(now)?, fresh: 1 });
        }
        Ok(parts.0)
    }

    fn insert(&mut self, message: &'p Message) -> Result<(), Failure> {
        let row = MessageJson {
            i: message.id.0,
            k: self.texts.place(message.sender.as_str()),
            n: self.texts.place(&message.sender_name),
            c: message.client_id.as_ref().map(|id| self.texts.place(id.as_str())),
            t: datetime(message.created_at)?,
            e: message.edited_at.map(datetime).transpose()?,
            d: message.deleted_at.map(datetime).transpose()?,
            b: message.body.as_deref().map(|body| self.texts.place(body)),
        };
        self.inserted.push(row);
        Ok(())
    }

    fn update(&mut self, message: &'p Message) -> Result<(), Failure> {
        let row = UpdateJson {
            i: message.id.0,
            e: message.edited_at.map(datetime).transpose()?,
            d: message.deleted_at.map(datetime).transpose()?,
            b: message.body.as_deref().map(|body| self.texts.place(body)),
        };
        self.updated.push(row);
        Ok(())
    }

    fn log(&mut self, row: &'p LogRow) -> Result<(), Failure> {
        let (m, u) = match &row.what {
            Logged::Message(_, message) => (Some(message.0), None),
            Logged::Joined(user) | Logged::Left(user) => (None, Some(self.texts.place(user.as_str()))),
        };
        let (s, t) = (bigint(row.seq.0)?, datetime(row.at)?);
        self.log.push(LogJson { r: row.room.0, s, w: row.what.kind(), m, u, t });
        Ok(())
    }

    fn join(&mut self, row: &'p MemberRow) -> Result<(), Failure> {
        let (u, n) = (self.texts.place(row.user.as_str()), self.texts.place(&row.name));
        let (o, t, fresh) = (row.role.number(), datetime(row.at)?, row.is_new.into());
        self.joined.push(JoinedJson { r: row.room.0, u, n, o, t, fresh });
        Ok(())
    }

    /// Whether there is nothing to write.
    pub(super) fn is_empty(&self) -> bool {
        self.inserted.is_empty() && self.are_adds()
    }

    /// Whether there is nothing but new messages.
    pub(super) fn are_adds(&self) -> bool {
        let Self { texts: _, inserted: _, updated, log, left, joined } = self;
        updated.is_empty() && log.is_empty() && left.is_empty() && joined.is_empty()
    }

    /// [`Rows::with`] of new messages alone: after `values` comes their list, then the texts.
    pub(super) fn adds_with(self, statement: &str, mut values: Vec<Value<'p>>) -> Result<Bound<'p>, Failure> {
        values.push(Value::Made(json(self.inserted)?));
        Ok(self.texts.with(statement, values))
    }

    /// A statement that writes them: after `values` as its parameters come the five lists, then the texts.
    pub(super) fn with(self, statement: &str, mut values: Vec<Value<'p>>) -> Result<Bound<'p>, Failure> {
        values.extend([
            Value::Made(json(self.inserted)?),
            Value::Made(json(self.updated)?),
            Value::Made(json(self.log)?),
            Value::Made(json(self.left)?),
            Value::Made(json(self.joined)?),
        ]);
        Ok(self.texts.with(statement, values))
    }
}

struct Parts<'p>(Vec<Rows<'p>>);

impl<'p> Parts<'p> {
    fn with_space_for(&mut self, texts: usize) -> &mut Rows<'p> {
        let is_full = |part: &Rows<'_>| part.texts.len() + texts > MOST;
        if self.0.last().is_none_or(is_full) {
            self.0.push(Rows::default());
        }
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
}

/// The statement that asks for roles; of not more than [`MOST`] users.
pub(super) fn roles_of<'u>(statement: &str, users: &'u [(RoomId, UserKey)]) -> Result<Bound<'u>, Failure> {
    let mut texts = Texts::default();
    let rows = json(users.iter().map(|(room, user)| UserJson { r: room.0, u: texts.place(user.as_str()) }))?;
    Ok(texts.with(statement, vec![Value::Made(rows)]))
}

/// Gaps, by numbers and by ids.
pub(super) fn gaps_json(gaps: &[Gap]) -> Result<String, Failure> {
    try_json(gaps.iter().map(|gap| {
        let (f, l) = id_range(gap.room, gap.after.next(), gap.through);
        Ok(GapJson { r: gap.room.0, a: bigint(gap.after.0)?, t: bigint(gap.through.0)?, f, l })
    }))
}

/// A row does not hold what its statement asks for: somebody has changed the tables.
fn unexpected(what: &str) -> Failure {
    Failure::new(Kind::Schema, None, format!("{what} is not what Digi has written there"))
}

/// The result sets of an answer, of which there are so many.
pub(super) fn sets<const N: usize>(answer: Vec<Vec<Row>>) -> Result<[Vec<Row>; N], Failure> {
    answer.try_into().map_err(|_| Failure::new(Kind::Broken, None, "an answer has not the results that were asked for"))
}

/// A BIGINT column.
pub(super) fn integer(row: &Row, index: usize) -> Result<i64, Failure> {
    integer_or_null(row, index)?.ok_or_else(|| unexpected("a number"))
}

/// A BIGINT column that may be NULL.
pub(super) fn integer_or_null(row: &Row, index: usize) -> Result<Option<i64>, Failure> {
    match row.get_column_data(index).map_err(|_| unexpected("a number"))? {
        ColumnData::I64(number) => Ok(*number),
        ColumnData::I32(number) => Ok(number.map(i64::from)),
        _ => Err(unexpected("a number")),
    }
}

/// A column that holds no negative numbers.
pub(super) fn number(row: &Row, index: usize) -> Result<u64, Failure> {
    u64::try_from(integer(row, index)?).map_err(|_| unexpected("a number"))
}

/// A text column.
pub(super) fn text(row: &Row, index: usize) -> Result<&str, Failure> {
    text_or_null(row, index)?.ok_or_else(|| unexpected("a text"))
}

/// A text column that may be NULL.
pub(super) fn text_or_null(row: &Row, index: usize) -> Result<Option<&str>, Failure> {
    row.try_get(index).map_err(|_| unexpected("a text"))
}

fn time_or_null(row: &Row, index: usize) -> Result<Option<Millis>, Failure> {
    let ColumnData::DateTime2(value) = row.get_column_data(index).map_err(|_| unexpected("a time"))? else {
        return Err(unexpected("a time"));
    };
    let Some(value) = value else { return Ok(None) };
    let (date, time) = (value.date(), value.time());
    // Increments are tenths of a second to the power of the scale.
    let milliseconds = match u32::from(time.scale()) {
        scale @ 0..=3 => time.increments() * 10_u64.pow(3 - scale),
        scale => time.increments() / 10_u64.pow(scale.min(7) - 3),
    };
    let days = u64::from(date.days()).checked_sub(DAYS_BEFORE_1970);
    days.map(|days| Some(Millis(days * DAY + milliseconds))).ok_or_else(|| unexpected("a time before 1970"))
}

fn time(row: &Row, index: usize) -> Result<Millis, Failure> {
    time_or_null(row, index)?.ok_or_else(|| unexpected("a time"))
}

/// Epoch and number out of two columns.
pub(super) fn head(row: &Row, index: usize) -> Result<Head, Failure> {
    Ok(Head { epoch: Epoch(number(row, index)?), last_seq: Seq(number(row, index + 1)?) })
}

/// A whole head.
pub(super) fn room_head(row: &Row) -> Result<(RoomId, RoomHead), Failure> {
    let stored = RoomHead { head: head(row, 1)?, floor: Seq(number(row, 3)?), last_at: time(row, 4)? };
    Ok((RoomId(integer(row, 0)?), stored))
}

/// A message in the statements' order of columns.
pub(super) fn message(row: &Row) -> Result<Message, Failure> {
    let id = MessageId(integer(row, 0)?);
    let (room, pos) = id.split_own();
    Ok(Message {
        id,
        room,
        pos,
        sender: text(row, 1)?.into(),
        sender_name: text(row, 2)?.into(),
        client_id: text_or_null(row, 3)?.and_then(ClientId::new),
        created_at: time(row, 4)?,
        edited_at: time_or_null(row, 5)?,
        deleted_at: time_or_null(row, 6)?,
        body: text_or_null(row, 7)?.map(Arc::from),
    })
}

/// An add out of a gap.
pub(super) fn noted_add(row: &Row) -> Result<Option<NotedAdd>, Failure> {
    let (room, pos) = MessageId(integer(row, 0)?).split_own();
    let sender = text(row, 1)?.into();
    Ok(ClientId::new(text(row, 2)?).map(|client_id| NotedAdd { room, pos, sender, client_id }))
}

/// A user of a room.
pub(super) fn user(row: &Row) -> Result<(RoomId, UserKey), Failure> {
    Ok((RoomId(integer(row, 0)?), text(row, 1)?.into()))
}

/// A user's role in a room.
pub(super) fn role(row: &Row) -> Result<(RoomId, UserKey, Role), Failure> {
    let (room, user) = user(row)?;
    Ok((room, user, Role::from_number(integer(row, 2)?)))
}

#[cfg(test)]
mod tests {
    use tiberius::time::{Date, DateTime2, Time};

    use super::*;

    #[test]
    fn times_are_written_without_a_zone_and_only_as_far_as_the_column_goes() {
        assert_eq!(datetime(Millis(1_724_566_366_007)).unwrap(), "2024-08-25T06:12:46.007");
        assert_eq!(datetime(Millis(LAST_INSTANT)).unwrap(), "9999-12-31T23:59:59.999");
        assert_eq!(datetime(Millis(LAST_INSTANT + 1)).unwrap_err().kind, Kind::Rejected);
    }

    #[test]
    fn times_are_read_at_any_scale() {
        // 2024-08-25 is day 739,122; 06:12:46.007 is millisecond 22,366,007 of the day.
        for (scale, increments) in [(3, 22_366_007), (7, 223_660_070_000), (4, 223_660_070)] {
            let value = DateTime2::new(Date::new(739_122), Time::new(increments, scale));
            let row = Row::builder()
                .column("at", tiberius::ColumnType::Datetime2, ColumnData::DateTime2(Some(value)))
                .column("none", tiberius::ColumnType::Datetime2, ColumnData::DateTime2(None))
                .build();
            assert_eq!(time(&row, 0).unwrap(), Millis(1_724_566_366_007), "scale {scale}");
            assert_eq!(time_or_null(&row, 1).unwrap(), None);
            assert_eq!(time(&row, 1).unwrap_err().kind, Kind::Schema);
        }
    }

    #[test]
    fn keys_are_measured_as_the_columns_count() {
        check_key(&"é".repeat(191).into()).unwrap();
        assert_eq!(check_key(&"é".repeat(192).into()).unwrap_err().kind, Kind::Rejected);
        check_key(&"😀".repeat(95).into()).unwrap();
        check_key(&"😀".repeat(96).into()).unwrap_err();
        check_key(&"a\0b".into()).unwrap_err();
    }
}
