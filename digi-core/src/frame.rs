//! What browsers send and receive: JSON text frames.
//!
//! `docs/protocol.md` describes them for writers of clients. The classic frames stay valid; keys are only added.
//! [`ClientFrame::parse`] reads what a client sent, [`Encoder`] writes what it gets.

mod run;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::io::Write as _;

use bytes::Bytes;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

pub use run::Run;

use crate::error::{Code, Error};
use crate::id::{ClientId, Cursor, Millis, Seq};
use crate::store::model::{History, Message, MessageOp};
use crate::token::{Keyring, Kind};

/// An encoded frame for a browser: UTF-8 text, cheap to clone, so that a recipient costs a pointer.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame(Bytes);

impl Frame {
    /// The JSON text as bytes; always UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The shared bytes themselves; always UTF-8.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// The JSON text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// A frame out of a text that another node or a host has encoded.
    pub fn from_text(text: String) -> Self {
        Self(text.into())
    }

    /// The frame whose text is `text`, which lies in `whole`: shares its memory.
    #[cfg(feature = "redis")]
    pub(crate) fn part_of(whole: &Bytes, text: &str) -> Self {
        Self(whole.slice_ref(text.as_bytes()))
    }

    /// `typing`: somebody writes a message.
    pub fn typing(user: &str) -> Self {
        Self::encode(&UserFrame { kind: "typing", user, online: None }, 64)
    }

    /// `presence`: somebody has come into the room, or has gone.
    pub fn presence(user: &str, online: bool) -> Self {
        Self::encode(&UserFrame { kind: "presence", user, online: Some(online) }, 64)
    }

    fn encode(value: &impl Serialize, capacity: usize) -> Self {
        let mut out = Vec::with_capacity(capacity);
        // Writing plain structs into memory cannot fail; an empty frame would be ignored by every client.
        if serde_json::to_writer(&mut out, value).is_err() {
            out.clear();
        }
        Self(out.into())
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Bodies are the users' own: a log gets the size.
        write!(f, "Frame({} bytes)", self.0.len())
    }
}

/// What a client sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientFrame<'a> {
    /// The token of the room it means; absent: the room of the URL.
    pub room: Option<Cow<'a, str>>,
    /// The user it claims to come from. Believed by nobody.
    pub user: Option<Cow<'a, str>>,
    /// The client's own name for the request, given back in `ack` and `error`.
    pub client_id: Option<ClientId>,
    /// What it asks for.
    pub request: Request<'a>,
}

/// What a [`ClientFrame`] asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request<'a> {
    /// Store a message and tell all members.
    Add {
        /// The text.
        message: Cow<'a, str>,
        /// Whether the client has sent it before.
        resend: bool,
    },
    /// Replace the text of an own message.
    Edit {
        /// The message's token.
        message_id: Cow<'a, str>,
        /// The new text.
        message: Cow<'a, str>,
    },
    /// Delete a message.
    Delete {
        /// The message's token.
        message_id: Cow<'a, str>,
    },
    /// Replay what came after the cursor, then go on live.
    Resume {
        /// The cursor, as text.
        after: Cow<'a, str>,
    },
    /// Older messages.
    History {
        /// Only messages before this place; absent: the newest.
        before: Option<Seq>,
        /// At most so many.
        limit: Option<u32>,
    },
    /// The user is typing.
    Typing,
    /// The user has read up to `seq`.
    Read {
        /// The last change that was read.
        seq: Seq,
    },
}

/// Why a frame was not understood, with what the `error` frame needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadFrame {
    /// The code and the detail that names the key.
    pub error: Error,
    /// The frame's `client_id`, if it could be read.
    pub client_id: Option<ClientId>,
}

/// A string that borrows from the frame where it has no escapes (serde does not do so inside `Option` by itself).
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// The classic `user` key: some pages send the name, some the numeric key.
struct Claim<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Claim<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ClaimVisitor;

        impl<'de> Visitor<'de> for ClaimVisitor {
            type Value = Claim<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a user's name or number")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Claim(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Claim(Cow::Owned(text.to_owned())))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Claim(Cow::Owned(number.to_string())))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Claim(Cow::Owned(number.to_string())))
            }
        }

        deserializer.deserialize_any(ClaimVisitor)
    }
}

#[derive(Deserialize)]
struct Raw<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    action: Option<Text<'a>>,
    #[serde(borrow)]
    room: Option<Text<'a>>,
    #[serde(borrow)]
    user: Option<Claim<'a>>,
    #[serde(borrow)]
    message: Option<Text<'a>>,
    #[serde(borrow)]
    message_id: Option<Text<'a>>,
    #[serde(borrow)]
    client_id: Option<Text<'a>>,
    resend: Option<bool>,
    #[serde(borrow)]
    after: Option<Text<'a>>,
    before: Option<u64>,
    limit: Option<u32>,
    seq: Option<u64>,
}

impl<'a> ClientFrame<'a> {
    /// Whether a page of the classic app may have sent it: it adds, edits or deletes, and waits for no answer.
    pub fn is_classic(&self) -> bool {
        let changes = matches!(self.request, Request::Add { .. } | Request::Edit { .. } | Request::Delete { .. });
        changes && self.client_id.is_none()
    }

    /// Reads one text frame.
    ///
    /// # Errors
    /// `bad_json`, `bad_frame` (names the key), `unknown_type`, `bad_client_id`.
    pub fn parse(text: &'a str) -> Result<Self, BadFrame> {
        // serde would take an array for the object's values.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(explain(text));
        }
        let raw: Raw<'a> = serde_json::from_str(text).map_err(|_| explain(text))?;
        let client_id = match &raw.client_id {
            None => None,
            Some(id) => match ClientId::new(&id.0) {
                Some(id) => Some(id),
                None => return Err(BadFrame { error: Code::BadClientId.into(), client_id: None }),
            },
        };
        let fail = |error: Error| BadFrame { error, client_id: client_id.clone() };
        let missing = |key: &str| fail(Code::BadFrame.with(format!("The key `{key}` is missing.")));
        let text = |value: Option<Text<'a>>, key: &str| value.map(|text| text.0).ok_or_else(|| missing(key));

        let kind = raw.kind.or(raw.action).map_or(Cow::Borrowed("add"), |kind| kind.0);
        let request = match &*kind {
            "add" => Request::Add { message: text(raw.message, "message")?, resend: raw.resend.unwrap_or_default() },
            "edit" => Request::Edit {
                message_id: text(raw.message_id, "message_id")?,
                message: text(raw.message, "message")?,
            },
            "delete" => Request::Delete { message_id: text(raw.message_id, "message_id")? },
            "resume" => Request::Resume { after: text(raw.after, "after")? },
            "history" => Request::History { before: raw.before.map(Seq), limit: raw.limit },
            "typing" => Request::Typing,
            "read" => Request::Read { seq: Seq(raw.seq.ok_or_else(|| missing("seq"))?) },
            _ => {
                let shown: String = kind.chars().take(40).collect();
                return Err(fail(Code::UnknownType.with(format!(
                    "The type {shown:?} is none of add, edit, delete, resume, history, typing, read."
                ))));
            }
        };
        Ok(Self { room: raw.room.map(|room| room.0), user: raw.user.map(|user| user.0), client_id, request })
    }
}

/// Reads a frame that did not fit once more, slowly, to name what is wrong with it.
fn explain(text: &str) -> BadFrame {
    let fields = match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => {
            return BadFrame { error: Code::BadJson.with("The frame is JSON, but not an object."), client_id: None };
        }
        Err(error) => {
            let place = format!("The frame is not JSON: line {}, column {}.", error.line(), error.column());
            return BadFrame { error: Code::BadJson.with(place), client_id: None };
        }
    };
    let client_id = fields.get("client_id").and_then(Value::as_str).and_then(ClientId::new);
    let number = |value: &Value, max: u64| value.as_u64().is_some_and(|number| number <= max);
    let detail = fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .find_map(|(key, value)| {
            let (fits, wanted) = match key.as_str() {
                "type" | "action" | "room" | "message" | "message_id" | "client_id" | "after" => {
                    (value.is_string(), "a string")
                }
                "user" => (value.is_string() || value.is_i64() || value.is_u64(), "a string"),
                "resend" => (value.is_boolean(), "true or false"),
                "before" | "seq" => (number(value, u64::MAX), "a whole number, 0 or more"),
                "limit" => (number(value, u32::MAX.into()), "a whole number, 0 or more"),
                _ => return None,
            };
            (!fits).then(|| format!("The key `{key}` must be {wanted}."))
        })
        // What is left is a key that stands twice.
        .unwrap_or_else(|| "A key stands twice in the frame.".to_owned());
    BadFrame { error: Code::BadFrame.with(detail), client_id }
}

/// Writes the frames that browsers get. Sealing message ids is part of it, so it holds the keys.
#[derive(Clone, Debug)]
pub struct Encoder {
    keyring: Keyring,
}

/// An RFC 3339 time that is written without an allocation of its own.
struct At(Millis);

impl Serialize for At {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.rfc3339())
    }
}

/// The classic frame, of a message that has no number here.
#[cfg(feature = "bridge")]
#[derive(Serialize)]
struct UnnumberedFrame<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<&'a Value>,
}

#[derive(Serialize)]
struct HistoryEntry<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    user: &'a str,
    message_id: String,
    pos: u64,
    at: At,
    #[serde(skip_serializing_if = "Option::is_none")]
    edited_at: Option<At>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

#[derive(Serialize)]
struct HistoryFrame<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    messages: Vec<HistoryEntry<'a>>,
    more: bool,
    through: u64,
    cursor: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
}

#[derive(Serialize)]
struct AckFrame<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    client_id: &'a str,
    message_id: &'a str,
    seq: u64,
    pos: u64,
}

#[derive(Serialize)]
struct CursorFrame {
    #[serde(rename = "type")]
    kind: &'static str,
    cursor: String,
}

#[derive(Serialize)]
struct UserFrame<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    online: Option<bool>,
}

#[derive(Serialize)]
struct ErrorFrame<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    code: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<&'a str>,
}

/// Writing plain values into memory cannot fail.
fn write_json(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) {
    let _ = serde_json::to_writer(out, value);
}

impl Encoder {
    /// An encoder that seals message ids with `keyring`.
    pub fn new(keyring: Keyring) -> Self {
        Self { keyring }
    }

    /// The keys it seals with.
    pub fn keyring(&self) -> &Keyring {
        &self.keyring
    }

    /// `add`, `edit` or `delete` for the change `seq` of a message.
    pub fn change(&self, op: MessageOp, seq: Seq, message: &Message) -> Frame {
        let (kind, at) = match op {
            MessageOp::Added => (&b"{\"type\":\"add\""[..], message.created_at),
            MessageOp::Edited => (&b"{\"type\":\"edit\""[..], message.edited_at.unwrap_or(message.created_at)),
            MessageOp::Deleted => (&b"{\"type\":\"delete\""[..], message.deleted_at.unwrap_or(message.created_at)),
        };
        let message_id = self.keyring.seal(Kind::Message, message.id.get());
        let body = message.body.as_deref();
        let capacity = 160 + message_id.len() + message.sender_name.len() + body.map_or(0, str::len);
        // By hand: every message comes through here, and beside sealing the id this takes half the instructions.
        let mut out = Vec::with_capacity(capacity);
        out.extend_from_slice(kind);
        if let Some(body) = body {
            out.extend_from_slice(b",\"message\":");
            write_json(&mut out, body);
        }
        out.extend_from_slice(b",\"user\":");
        write_json(&mut out, &*message.sender_name);
        out.extend_from_slice(b",\"message_id\":\"");
        out.extend_from_slice(message_id.as_bytes());
        out.extend_from_slice(b"\",\"seq\":");
        write_json(&mut out, &seq.0);
        out.extend_from_slice(b",\"pos\":");
        write_json(&mut out, &message.pos.0);
        out.extend_from_slice(b",\"at\":\"");
        let _ = write!(out, "{}", at.rfc3339());
        out.extend_from_slice(b"\"}");
        Frame(out.into())
    }

    /// `add`, `edit` or `delete` of a message that a stock Channels worker has stored: without a number, and with its
    /// `message_id` sealed anew where it opens.
    #[cfg(feature = "bridge")]
    pub(crate) fn unnumbered(
        &self,
        op: MessageOp,
        message: Option<&str>,
        user: Option<&Value>,
        message_id: Option<&Value>,
    ) -> Frame {
        let kind = match op {
            MessageOp::Added => "add",
            MessageOp::Edited => "edit",
            MessageOp::Deleted => "delete",
        };
        let opened = message_id.and_then(Value::as_str).and_then(|token| self.keyring.open(Kind::Message, token).ok());
        let sealed = opened.map(|id| Value::String(self.keyring.seal(Kind::Message, id)));
        let message_id = sealed.as_ref().or(message_id);
        Frame::encode(&UnnumberedFrame { kind, message, user, message_id }, 192 + message.map_or(0, str::len))
    }

    /// A page of history; `more` when there are older messages.
    pub fn history<'a>(&self, page: &'a History, more: bool, client_id: Option<&ClientId>) -> Frame {
        let entry = |message: &'a Message| HistoryEntry {
            message: message.body.as_deref(),
            user: &message.sender_name,
            message_id: self.keyring.seal(Kind::Message, message.id.get()),
            pos: message.pos.0,
            at: At(message.created_at),
            edited_at: message.edited_at.map(At),
            deleted: message.body.is_none(),
        };
        let messages = page.messages.iter().map(entry).collect();
        Frame::encode(
            &HistoryFrame {
                kind: "history",
                messages,
                more,
                through: page.head.last_seq.0,
                cursor: page.head.cursor().to_string(),
                client_id: client_id.map(ClientId::as_str),
            },
            256 * (page.messages.len() + 1),
        )
    }

    /// The answer to a stored command that gave a `client_id`.
    pub fn ack(&self, client_id: &ClientId, message: crate::id::MessageId, seq: Seq, pos: Seq) -> Frame {
        let message_id = self.keyring.seal(Kind::Message, message.get());
        let frame =
            AckFrame { kind: "ack", client_id: client_id.as_str(), message_id: &message_id, seq: seq.0, pos: pos.0 };
        Frame::encode(&frame, 160 + message_id.len())
    }

    /// The end of a replay: from here every frame of the room moves the cursor.
    pub fn resumed(&self, cursor: Cursor) -> Frame {
        Frame::encode(&CursorFrame { kind: "resumed", cursor: cursor.to_string() }, 64)
    }

    /// What the client holds is void; a `history` follows.
    pub fn reset(&self, cursor: Cursor) -> Frame {
        Frame::encode(&CursorFrame { kind: "reset", cursor: cursor.to_string() }, 64)
    }

    /// Something was refused; the connection stays.
    pub fn error(&self, error: &Error, client_id: Option<&ClientId>) -> Frame {
        let frame = ErrorFrame {
            kind: "error",
            code: error.code().name(),
            detail: error.detail(),
            client_id: client_id.map(ClientId::as_str),
        };
        Frame::encode(&frame, 192)
    }
}
