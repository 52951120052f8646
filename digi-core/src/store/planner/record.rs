//! The outcomes of a batch as a text, so that a repeat after an unknown commit finds them.
//!
//! Whoever repeats brings the batch along: bodies and names that stand in its commands are not written again.

use serde::{Deserialize, Serialize};

use crate::error::Code;
use crate::id::{ClientId, Cursor, Epoch, MessageId, Millis, RoomId, Seq};
use crate::store::model::{Action, Applied, Batch, Command, Head, MemberOp, Message, MessageOp, Outcome};

/// A text that [`record`] has not made of this batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the outcomes that are stored under this batch's id are not those of this batch")]
pub struct BadRecord;

#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(rename = "h")]
    heads: Vec<(i64, u64, u64)>,
    #[serde(rename = "o")]
    outcomes: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
enum Entry {
    /// Number and time.
    #[serde(rename = "a")]
    Added(u64, u64),
    #[serde(rename = "e")]
    Edited(u64, u64, Rest),
    #[serde(rename = "d")]
    Deleted(u64, u64, Rest),
    #[serde(rename = "j")]
    Joined(u64),
    #[serde(rename = "l")]
    Left(u64),
    /// The first message.
    #[serde(rename = "s")]
    Duplicate(i64),
    #[serde(rename = "u")]
    Unchanged,
    #[serde(rename = "r")]
    Refused(u16),
}

/// What the command does not say of a message that was there before: sender and name, client id, when it was added and
/// edited.
#[derive(Serialize, Deserialize)]
struct Rest(String, String, Option<String>, u64, Option<u64>);

/// The text for what became of a batch.
pub fn record(applied: &Applied) -> String {
    let heads = applied.heads.iter().map(|(room, head)| (room.0, head.epoch.0, head.last_seq.0)).collect();
    let outcomes = applied.outcomes.iter().map(entry).collect();
    // Numbers and texts only: nothing in it can fail to be written.
    serde_json::to_string(&Record { heads, outcomes }).unwrap_or_default()
}

fn entry(outcome: &Outcome) -> Entry {
    let rest = |message: &Message| {
        let client_id = message.client_id.as_ref().map(ToString::to_string);
        let edited_at = message.edited_at.map(Millis::get);
        Rest(message.sender.to_string(), (*message.sender_name).to_owned(), client_id, message.created_at.0, edited_at)
    };
    match outcome {
        Outcome::Message { op, at, message } => match op {
            MessageOp::Added => Entry::Added(at.seq.0, message.created_at.0),
            MessageOp::Edited => Entry::Edited(at.seq.0, message.edited_at.unwrap_or_default().0, rest(message)),
            MessageOp::Deleted => Entry::Deleted(at.seq.0, message.deleted_at.unwrap_or_default().0, rest(message)),
        },
        Outcome::Member { op: MemberOp::Joined, at, .. } => Entry::Joined(at.seq.0),
        Outcome::Member { op: MemberOp::Left, at, .. } => Entry::Left(at.seq.0),
        Outcome::Duplicate { message, .. } => Entry::Duplicate(message.0),
        Outcome::Unchanged => Entry::Unchanged,
        Outcome::Refused(code) => Entry::Refused(code.number()),
    }
}

/// What became of a batch, out of the text and the batch itself.
///
/// # Errors
/// When they do not belong together.
pub fn replay(batch: &Batch, text: &str) -> Result<Applied, BadRecord> {
    let Record { heads, outcomes } = serde_json::from_str(text).map_err(|_| BadRecord)?;
    if outcomes.len() != batch.commands.len() {
        return Err(BadRecord);
    }
    let head = |(room, epoch, seq)| (RoomId(room), Head { epoch: Epoch(epoch), last_seq: Seq(seq) });
    let heads: Vec<_> = heads.into_iter().map(head).collect();
    let outcomes = batch.commands.iter().zip(outcomes).map(|(command, entry)| {
        // All changes of a batch in a room are of the epoch that the room's head has afterwards.
        let found = heads.binary_search_by_key(&command.room, |(room, _)| *room).ok();
        outcome(command, entry, found.map(|n| heads[n].1.epoch))
    });
    let outcomes = outcomes.collect::<Option<_>>().ok_or(BadRecord)?;
    Ok(Applied { outcomes, heads })
}

fn outcome(command: &Command, entry: Entry, epoch: Option<Epoch>) -> Option<Outcome> {
    let at = |seq| Some(Cursor::new(epoch?, Seq(seq)));
    let changed = |op, seq, message| Some(Outcome::Message { op, at: at(seq)?, message });
    let former = |id: MessageId, rest: Rest| {
        let Rest(sender, name, client_id, created_at, edited_at) = rest;
        Message {
            id,
            room: command.room,
            pos: id.split_own().1,
            sender: sender.into(),
            sender_name: name.into(),
            body: None,
            client_id: client_id.and_then(|id| ClientId::new(&id)),
            created_at: Millis(created_at),
            edited_at: edited_at.map(Millis),
            deleted_at: None,
        }
    };
    match (entry, &command.action) {
        (Entry::Added(seq, time), Action::Add { body, client_id }) => {
            let message = Message {
                id: MessageId::own(command.room, Seq(seq))?,
                room: command.room,
                pos: Seq(seq),
                sender: command.user.clone(),
                sender_name: command.user_name.clone(),
                body: Some(body.clone()),
                client_id: client_id.clone(),
                created_at: Millis(time),
                edited_at: None,
                deleted_at: None,
            };
            changed(MessageOp::Added, seq, message)
        }
        (Entry::Edited(seq, time, rest), Action::Edit { message, body }) => {
            let message = Message { body: Some(body.clone()), edited_at: Some(Millis(time)), ..former(*message, rest) };
            changed(MessageOp::Edited, seq, message)
        }
        (Entry::Deleted(seq, time, rest), Action::Delete { message }) => {
            let message = Message { deleted_at: Some(Millis(time)), ..former(*message, rest) };
            changed(MessageOp::Deleted, seq, message)
        }
        (Entry::Joined(seq), Action::AddMember { member, .. }) => {
            Some(Outcome::Member { op: MemberOp::Joined, at: at(seq)?, member: member.clone() })
        }
        (Entry::Left(seq), Action::RemoveMember { member }) => {
            Some(Outcome::Member { op: MemberOp::Left, at: at(seq)?, member: member.clone() })
        }
        (Entry::Duplicate(id), Action::Add { .. }) => {
            let message = MessageId(id);
            Some(Outcome::Duplicate { message, pos: message.split_own().1 })
        }
        (Entry::Unchanged, Action::AddMember { .. } | Action::RemoveMember { .. }) => Some(Outcome::Unchanged),
        (Entry::Refused(number), _) => {
            Code::ALL.iter().find(|code| code.number() == number).map(|code| Outcome::Refused(*code))
        }
        _ => None,
    }
}
