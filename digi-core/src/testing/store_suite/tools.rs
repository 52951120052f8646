//! What the tests share.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Code;
use crate::id::{ClientId, Cursor, MessageId, Millis, RoomId, Seq};
use crate::store::Store;
use crate::store::model::{
    Action, Applied, Authority, Batch, BatchId, Change, Changes, Command, MemberOp, Message, NewRoom, Outcome, Role,
};

/// The clock of the tests.
pub(super) const NOW: Millis = Millis(1_700_000_000_000);

pub(super) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().expect("a runtime").block_on(future)
}

/// A room with the members `alice` and `bob` and the moderator `mona`.
pub(super) async fn room(store: &dyn Store) -> RoomId {
    let member = |name: &str, role| (name.into(), name.into(), role);
    let members = vec![member("alice", Role::Member), member("bob", Role::Member), member("mona", Role::Moderator)];
    let room = NewRoom { id: None, name: "Room".into(), kind: "direct".into(), members };
    store.create_room(&room, NOW).await.unwrap()
}

pub(super) fn command(room: RoomId, user: &str, action: Action) -> Command {
    Command {
        room,
        user: user.into(),
        user_name: format!("{user}'s name").into(),
        authority: Authority::Member,
        action,
    }
}

pub(super) fn host(room: RoomId, action: Action) -> Command {
    Command { authority: Authority::Host, ..command(room, "host", action) }
}

pub(super) fn add(room: RoomId, user: &str, body: &str) -> Command {
    command(room, user, Action::Add { body: body.into(), client_id: None })
}

pub(super) fn add_with(room: RoomId, user: &str, body: &str, client_id: &str) -> Command {
    let client_id = Some(ClientId::new(client_id).expect("a client id"));
    command(room, user, Action::Add { body: body.into(), client_id })
}

pub(super) fn edit(room: RoomId, user: &str, message: MessageId, body: &str) -> Command {
    command(room, user, Action::Edit { message, body: body.into() })
}

pub(super) fn delete(room: RoomId, user: &str, message: MessageId) -> Command {
    command(room, user, Action::Delete { message })
}

pub(super) fn join(room: RoomId, member: &str, role: Role) -> Command {
    host(room, Action::AddMember { member: member.into(), name: member.into(), role })
}

pub(super) fn leave(room: RoomId, member: &str) -> Command {
    host(room, Action::RemoveMember { member: member.into() })
}

pub(super) fn batch(commands: Vec<Command>) -> Batch {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    Batch { id: BatchId { node: 1, number }, commands, known: Vec::new(), now: NOW }
}

pub(super) fn batch_at(now: u64, commands: Vec<Command>) -> Batch {
    Batch { now: Millis(now), ..batch(commands) }
}

pub(super) async fn apply(store: &dyn Store, commands: Vec<Command>) -> Applied {
    store.apply(&batch(commands)).await.unwrap()
}

pub(super) async fn outcomes(store: &dyn Store, commands: Vec<Command>) -> Vec<Outcome> {
    apply(store, commands).await.outcomes
}

/// The outcome of a command that stands alone.
pub(super) async fn one(store: &dyn Store, command: Command) -> Outcome {
    outcomes(store, vec![command]).await.remove(0)
}

/// Carries out a command that has to succeed with a message.
pub(super) async fn message(store: &dyn Store, command: Command) -> Message {
    match one(store, command).await {
        Outcome::Message { message, .. } => message,
        other => panic!("no message but {other:?}"),
    }
}

/// Adds so many messages of one sender.
pub(super) async fn fill(store: &dyn Store, room: RoomId, count: u64) {
    let adds = (0..count).map(|n| add(room, "alice", &format!("{n}"))).collect();
    assert!(seqs(&outcomes(store, adds).await).iter().all(Option::is_some));
}

/// The numbers that were given; none where nothing changed.
pub(super) fn seqs(outcomes: &[Outcome]) -> Vec<Option<u64>> {
    let seq = |outcome: &Outcome| match outcome {
        Outcome::Message { at, .. } | Outcome::Member { at, .. } => Some(at.seq.0),
        _ => None,
    };
    outcomes.iter().map(seq).collect()
}

pub(super) fn refused(code: Code) -> Outcome {
    Outcome::Refused(code)
}

pub(super) async fn last_seq(store: &dyn Store, room: RoomId) -> u64 {
    head(store, room).await.seq.0
}

pub(super) async fn head(store: &dyn Store, room: RoomId) -> Cursor {
    let heads = store.heads(&[room]).await.unwrap();
    let [(_, head)] = heads[..] else { panic!("{heads:?}") };
    head.cursor()
}

pub(super) async fn changes(store: &dyn Store, room: RoomId, after: u64, limit: u64) -> Changes {
    store.changes(room, Seq(after), limit).await.unwrap()
}

/// The rows in short: number, and place and text of the message, or member and whether he joined.
pub(super) fn rows(changes: &Changes) -> Vec<(u64, String)> {
    let text = |change: &Change| match change {
        Change::Message(message) | Change::Adopted(message) => {
            format!("{} {}", message.pos, message.body.as_deref().unwrap_or("-"))
        }
        Change::Member { op: MemberOp::Joined, member } => format!("+{member}"),
        Change::Member { op: MemberOp::Left, member } => format!("-{member}"),
    };
    changes.rows.iter().map(|row| (row.seq.0, text(&row.change))).collect()
}

/// The texts of a page of history; `-` for a tombstone.
pub(super) async fn bodies(store: &dyn Store, room: RoomId, before: Option<u64>, limit: u32) -> Vec<String> {
    let page = store.history(room, before.map(Seq), limit).await.unwrap();
    page.messages.iter().map(|message| message.body.as_deref().unwrap_or("-").to_owned()).collect()
}
