//! What a server says to the store's statements. A test takes it for what it isn't about.

use std::sync::atomic::{AtomicUsize, Ordering};

use digi_core::id::{Millis, RoomId};
use digi_core::store::model::{Action, Authority, Batch, BatchId, Command};

use crate::peer::{Answer, Cell, Column, Reply, Request};

/// The only room. Its only member is alice, and nothing has happened in it.
pub(crate) const ROOM: RoomId = RoomId(1);
pub(crate) const EPOCH: i64 = 7;
pub(crate) const NOW: Millis = Millis(1_724_566_366_007);

/// Pieces of the statements, each in one of them only.
pub(crate) const SESSION: &str = "XACT_ABORT";
pub(crate) const ROLLBACK: &str = "ROLLBACK TRANSACTION";
pub(crate) const APPLY: &str = "SELECT @moved";
pub(crate) const OUTCOMES: &str = "SELECT outcomes";
pub(crate) const MEMBER: &str = "SELECT user_key, role";

const MESSAGE: &[Column] =
    &[Column::Int, Column::Text, Column::Text, Column::Text, Column::Time, Column::Time, Column::Time, Column::Text];

/// The answer of a server where everything goes well.
pub(crate) fn server(request: &Request) -> Answer {
    use Cell::{Int, Null, Text, Time};
    let text = request.text.as_str();
    let has = |piece: &str| text.contains(piece);
    let numbers = |count: usize| vec![Column::Int; count];
    let (head, whole_head) = ([Int(EPOCH), Int(0), Int(0)], [Int(1), Int(EPOCH), Int(0), Int(0), Time(NOW.0)]);
    let head_columns = [numbers(4), vec![Column::Time]].concat();
    if has(APPLY) {
        Answer::rows(&numbers(1), &[&[Int(0)]])
    } else if has("SELECT h.room_id") {
        Answer::rows(&head_columns, &[&whole_head])
    } else if has("AS g") {
        Answer::sets(&[(&[Column::Int, Column::Text, Column::Text], &[]), (&[Column::Int, Column::Text], &[])])
    } else if has("@through") {
        let log = [numbers(3), vec![Column::Text]].concat();
        Answer::sets(&[(&numbers(3), &[&head]), (&log, &[]), (MESSAGE, &[]), (MESSAGE, &[])])
    } else if has("u.n = w.u") {
        let roles = [Column::Int, Column::Text, Column::Int];
        Answer::rows(&roles, &[&[Int(1), Text("alice"), Int(0)]])
    } else if has("AS w") {
        Answer::rows(MESSAGE, &[])
    } else if has(OUTCOMES) {
        Answer::rows(&[Column::Text], &[])
    } else if has(MEMBER) {
        let members = [Column::Text, Column::Int];
        Answer::sets(&[(&numbers(2), &[&head[..2]]), (&members, &[&[Text("alice"), Int(0)]])])
    } else if has("SELECT TOP") {
        Answer::sets(&[(&numbers(2), &[&head[..2]]), (MESSAGE, &[])])
    } else if has("MIN(id) AS oldest") {
        Answer::rows(&numbers(2), &[&[Null, Null]])
    } else if has("SELECT value FROM OPENJSON") {
        Answer::rows(&[Column::Text], &[&[Text("1")]])
    } else if ["AS is_there", "SELECT version", "AS changed", "is_read_committed", "MAX(id)"].into_iter().any(has) {
        Answer::rows(&numbers(1), &[&[Int(1)]])
    } else {
        Answer::done()
    }
}

/// A server where the first so many requests with this piece in their text meet something, and the others go well.
pub(crate) fn first(
    count: usize,
    piece: &'static str,
    reply: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    let met = AtomicUsize::new(0);
    move |request| {
        if request.text.contains(piece) && met.fetch_add(1, Ordering::Relaxed) < count {
            reply(request)
        } else {
            server(request).into()
        }
    }
}

/// A batch of one message from alice.
pub(crate) fn batch(number: u64, body: &str) -> Batch {
    let action = Action::Add { body: body.into(), client_id: None };
    batch_of(number, vec![command(action)])
}

pub(crate) fn batch_of(number: u64, commands: Vec<Command>) -> Batch {
    Batch { id: BatchId { node: 5, number }, commands, known: vec![], now: NOW }
}

pub(crate) fn command(action: Action) -> Command {
    Command { room: ROOM, user: "alice".into(), user_name: "Alice".into(), authority: Authority::Member, action }
}
