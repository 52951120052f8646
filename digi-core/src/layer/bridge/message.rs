//! What crosses the bridge: the three classic messages, in MessagePack.

use std::borrow::Cow;
use std::io::Cursor;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::event::EventKind;
use crate::frame::{Encoder, Frame};
use crate::id::RoomId;
use crate::store::model::MessageOp;

/// The longest payload that is looked at, in bytes.
pub(super) const LONGEST: usize = 1024 * 1024;

/// How deep values may lie in each other.
const DEPTH: usize = 32;

/// The `type` of each.
const TYPES: [(MessageOp, &str); 3] = [
    (MessageOp::Added, "chat.message"),
    (MessageOp::Edited, "chat.message.edit"),
    (MessageOp::Deleted, "chat.message.delete"),
];

/// What stock consumers are sent, with the keys that they know, and `digi`, by which Digi knows its own.
#[derive(Serialize)]
struct Sent<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    user: &'a str,
    message_id: &'a str,
    digi: &'a str,
    /// Of the core format: for whom it is in the process that gets it.
    #[serde(rename = "__asgi_channel__", skip_serializing_if = "Option::is_none")]
    channels: Option<&'a [String]>,
}

/// The classic keys of a frame for browsers.
#[derive(Deserialize)]
pub(super) struct Classic<'a> {
    #[serde(borrow)]
    message: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user: Cow<'a, str>,
    #[serde(borrow)]
    message_id: Cow<'a, str>,
}

impl<'a> Classic<'a> {
    /// What the frame of a committed change says.
    pub(super) fn of(frame: &'a Frame) -> Option<Self> {
        serde_json::from_str(frame.as_str()).ok()
    }

    /// `node` is the sending node's mark; `channels` for the core format.
    pub(super) fn encode(&self, op: MessageOp, node: &str, channels: Option<&[String]>) -> Vec<u8> {
        let kind = TYPES.into_iter().find(|(of, _)| *of == op).map_or("", |(_, kind)| kind);
        let Self { message, user, message_id } = self;
        let sent = Sent { kind, message: message.as_deref(), user, message_id, digi: node, channels };
        // Writing plain values into memory cannot fail; the readers would drop what is empty.
        rmp_serde::to_vec_named(&sent).unwrap_or_default()
    }
}

/// The operation and the frame of an event, if it is one that crosses.
pub(super) fn crossing(kind: &EventKind) -> Option<(MessageOp, &Frame)> {
    match kind {
        EventKind::Message { op, frame, .. } => Some((*op, frame)),
        EventKind::Member { .. } => None,
    }
}

/// What a stock worker sent to the group of a room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Inbound {
    /// The room.
    pub(crate) room: RoomId,
    said: Said,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Said {
    op: MessageOp,
    message: Option<String>,
    user: Option<Value>,
    message_id: Option<Value>,
}

impl Inbound {
    /// The frame for browsers. A message id that opens is sealed as Digi seals, so that it has the text that other frames
    /// have for it.
    pub(crate) fn frame(&self, encoder: &Encoder) -> Frame {
        let Said { op, message, user, message_id } = &self.said;
        encoder.unnumbered(*op, message.as_deref(), user.as_ref(), message_id.as_ref())
    }
}

/// A payload that is dropped. It says why, and nothing of the content.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("it is longer than {LONGEST} bytes")]
    TooLong,
    #[error(
        "it cannot be decrypted: the stock workers' symmetric_encryption_keys (or serializer_format) are not the bridge's"
    )]
    Key,
    #[error("it is older than the expiry, or from a clock that is ahead")]
    Age,
    #[error(
        "it is no MessagePack map: the stock workers have another serializer_format, or symmetric_encryption_keys that \
         the bridge lacks"
    )]
    Format,
    #[error("it is a chat.message, chat.message.edit or chat.message.delete whose `{0}` is missing or of another type")]
    Field(&'static str),
}

/// A payload's map, as far as it matters.
#[derive(Deserialize)]
struct Received {
    #[serde(rename = "type")]
    kind: Option<Value>,
    message: Option<Value>,
    user: Option<Value>,
    message_id: Option<Value>,
    digi: Option<IgnoredAny>,
    #[serde(rename = "__asgi_channel__")]
    channels: Option<Value>,
}

/// A payload that could be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Payload {
    /// Of the core format: the channels that it is for.
    pub(super) channels: Vec<String>,
    /// None when it is not for Digi: one of its own, or of a type that does not cross.
    said: Option<Said>,
}

impl Payload {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Unreadable> {
        // serde would take an array for the map's values.
        if !matches!(bytes.first(), Some(0x80..=0x8f | 0xde | 0xdf)) {
            return Err(Unreadable::Format);
        }
        let mut reader = rmp_serde::Deserializer::new(Cursor::new(bytes));
        reader.set_max_depth(DEPTH);
        let received = Received::deserialize(&mut reader).map_err(|_| Unreadable::Format)?;
        if reader.position() != bytes.len() as u64 {
            return Err(Unreadable::Format);
        }
        let Received { kind, message, user, message_id, digi, channels } = received;
        let channels = match channels {
            Some(Value::String(channel)) => vec![channel],
            Some(Value::Array(channels)) => {
                channels.into_iter().filter_map(|channel| channel.as_str().map(str::to_owned)).collect()
            }
            _ => Vec::new(),
        };
        let op = kind.as_ref().and_then(Value::as_str).and_then(op_of).filter(|_| digi.is_none());
        let Some(op) = op else { return Ok(Self { channels, said: None }) };
        let message = match (op, message) {
            (MessageOp::Deleted, _) => None,
            (_, Some(Value::String(message))) => Some(message),
            _ => return Err(Unreadable::Field("message")),
        };
        let scalar = |value: Option<Value>, key| match value.unwrap_or_default() {
            Value::Null => Ok(None),
            value @ (Value::String(_) | Value::Number(_)) => Ok(Some(value)),
            _ => Err(Unreadable::Field(key)),
        };
        let (user, message_id) = (scalar(user, "user")?, scalar(message_id, "message_id")?);
        if op != MessageOp::Added && message_id.is_none() {
            return Err(Unreadable::Field("message_id"));
        }
        Ok(Self { channels, said: Some(Said { op, message, user, message_id }) })
    }

    /// What is to be shown in the rooms.
    pub(super) fn into_inbound(self, rooms: impl IntoIterator<Item = RoomId>) -> Vec<Inbound> {
        let Some(said) = self.said else { return Vec::new() };
        rooms.into_iter().map(|room| Inbound { room, said: said.clone() }).collect()
    }
}

fn op_of(kind: &str) -> Option<MessageOp> {
    TYPES.into_iter().find(|(_, known)| *known == kind).map(|(op, _)| op)
}
