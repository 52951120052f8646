//! Reads, each one statement: the head first, then the rows, so that they show everything up to it.

use std::collections::{BTreeSet, HashMap};

use super::connection::Readers;
use super::failure::Failure;
use super::rows::{
    bigint, head, id_range, integer, integer_or_null, json, message, number, room_head, sets, text, text_or_null,
};
use super::statements::Statements;
use crate::id::{MessageId, RoomId, Seq, UserKey};
use crate::store::model::{Change, ChangeRow, Changes, Head, History, MemberAnswer, MemberOp, Membership, Role};

/// The highest number that a column holds.
const HIGHEST: u64 = i64::MAX as u64;

/// An answer, or none when there is no such room.
type Answer<T> = Result<Option<T>, Failure>;

/// See [`Store::member`](crate::store::Store::member).
pub(super) async fn member(
    readers: &Readers,
    statements: &Statements,
    room: RoomId,
    user: &UserKey,
) -> Answer<MemberAnswer> {
    let [heads, members] = sets(readers.query(&statements.member, &[&room.0, &user.as_str()]).await?)?;
    let Some(row) = heads.first() else { return Ok(None) };
    let head = head(row, 0)?;
    let mut membership = None;
    for row in &members {
        // Trailing blanks made no difference to the server.
        if text(row, 0)? == user.as_str() {
            membership = Some(Membership { role: Role::from_number(integer(row, 1)?) });
        }
    }
    Ok(Some(MemberAnswer { membership, head }))
}

/// See [`Store::changes`](crate::store::Store::changes).
pub(super) async fn changes(
    readers: &Readers,
    statements: &Statements,
    room: RoomId,
    after: Seq,
    limit: u64,
) -> Answer<Changes> {
    // No number is higher.
    let (after, most) = (after.0.min(HIGHEST), after.0.saturating_add(limit).min(HIGHEST));
    let (first, last) = id_range(room, Seq(after).next(), Seq(most));
    let (from, to) = (bigint(after)?, bigint(most)?);
    let answer = readers.query(&statements.changes, &[&room.0, &from, &to, &first, &last]).await?;
    let [heads, log, added, changed] = sets(answer)?;
    let Some(row) = heads.first().filter(|row| integer_or_null(row, 0).is_ok_and(|epoch| epoch.is_some())) else {
        return Ok(None);
    };
    let (head, floor) = (head(row, 0)?, Seq(number(row, 2)?));
    let through = Seq(most).min(head.last_seq);
    let mut rows = Vec::with_capacity(log.len() + added.len());
    let mut last_change = HashMap::new();
    for row in &log {
        let seq = Seq(number(row, 0)?);
        let op = match integer(row, 1)? {
            kind::JOINED => MemberOp::Joined,
            kind::LEFT => MemberOp::Left,
            _ => {
                let last = last_change.entry(MessageId(integer(row, 2)?)).or_insert(seq);
                *last = seq.max(*last);
                continue;
            }
        };
        let member = text_or_null(row, 3)?.unwrap_or_default().into();
        rows.push(ChangeRow { seq, change: Change::Member { op, member } });
    }
    for row in added.iter().chain(&changed) {
        let message = message(row)?;
        let seq = last_change.get(&message.id).copied().unwrap_or(message.pos);
        rows.push(ChangeRow { seq, change: Change::Message(message) });
    }
    rows.sort_unstable_by_key(|row| row.seq);
    Ok(Some(Changes { head, floor, through, rows }))
}

/// The kinds of rows in `digi_change` that are no message's.
mod kind {
    pub(super) const JOINED: i64 = 3;
    pub(super) const LEFT: i64 = 4;
}

/// See [`Store::history`](crate::store::Store::history).
pub(super) async fn history(
    readers: &Readers,
    statements: &Statements,
    room: RoomId,
    before: Option<Seq>,
    limit: u32,
) -> Answer<History> {
    let last = before.map_or(u64::MAX, |before| before.0.saturating_sub(1));
    let (first, last) = id_range(room, Seq(1), Seq(last));
    let answer = readers.query(&statements.history, &[&room.0, &first, &last, &i64::from(limit)]).await?;
    let [heads, newest] = sets(answer)?;
    let Some(row) = heads.first() else { return Ok(None) };
    let messages = newest.iter().rev().map(message).collect::<Result<_, _>>()?;
    Ok(Some(History { head: head(row, 0)?, messages }))
}

/// See [`Store::heads`](crate::store::Store::heads).
pub(super) async fn heads(
    readers: &Readers,
    statements: &Statements,
    rooms: &[RoomId],
) -> Result<Vec<(RoomId, Head)>, Failure> {
    let ids: BTreeSet<_> = rooms.iter().map(|room| room.0).collect();
    let [rows] = sets(readers.query(&statements.heads, &[&json(ids)?]).await?)?;
    let found: HashMap<_, _> = rows.iter().map(room_head).collect::<Result<_, _>>()?;
    Ok(rooms.iter().filter_map(|room| Some((*room, found.get(room)?.head))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::planner::Logged;

    #[test]
    fn the_kinds_are_those_that_the_planner_writes() {
        assert_eq!(Logged::Joined(UserKey::from("a")).kind(), kind::JOINED);
        assert_eq!(Logged::Left(UserKey::from("a")).kind(), kind::LEFT);
    }
}
