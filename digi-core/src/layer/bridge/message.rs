//! What crosses the bridge: the classic app's three messages, as MessagePack, perhaps encrypted.
//!
//! A payload is what `channels_redis/serializers.py` (4.3) writes: for the core layer twelve random bytes, which make
//! equal messages different members of a sorted set; then a MessagePack map with string keys, or a Fernet token of it.
//! A stock consumer ends on a `type` for which it has no handler, so nothing else is ever sent.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::options::BridgeOptions;
use crate::error::Error;
use crate::event::{Event, EventKind};
use crate::frame::Frame;
use crate::store::model::MessageOp;
use crate::token::{FernetKey, Keyring, Kind};

/// The core layer's `random_prefix_length`.
const RANDOM_PREFIX: usize = 12;

/// How much later than its expiry a message may still be decrypted, in seconds, as in the package.
const LATE: u64 = 10;

/// What all three messages are about. A frame of Digi's has these keys among others, and one that stock processes
/// caused has these alone: it has no number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Classic {
    #[serde(rename = "type", with = "frame_type")]
    pub(super) op: MessageOp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    pub(super) user: String,
    pub(super) message_id: String,
}

mod frame_type {
    use super::{Deserialize, MessageOp};
    use serde::{Deserializer, Serializer, de::Error};
    use std::borrow::Cow;

    pub(super) fn serialize<S: Serializer>(op: &MessageOp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match op {
            MessageOp::Added => "add",
            MessageOp::Edited => "edit",
            MessageOp::Deleted => "delete",
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MessageOp, D::Error> {
        match &*Cow::<str>::deserialize(deserializer)? {
            "add" => Ok(MessageOp::Added),
            "edit" => Ok(MessageOp::Edited),
            "delete" => Ok(MessageOp::Deleted),
            other => Err(D::Error::unknown_variant(other, &["add", "edit", "delete"])),
        }
    }
}

impl Classic {
    /// The frame that Digi's own clients get. A message's id that Digi can open is sealed as Digi seals, so that they
    /// find the message that an edit means.
    pub(super) fn into_frame(mut self, keys: &Keyring) -> Frame {
        if let Ok(id) = keys.open(Kind::Message, &self.message_id) {
            self.message_id = keys.seal(Kind::Message, id);
        }
        Frame::from_text(serde_json::to_string(&self).unwrap_or_default())
    }
}

/// A message on its way to stock consumers.
#[derive(Serialize)]
struct Outgoing<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    user: &'a str,
    message_id: &'a str,
    /// What tells Digi's nodes that they have heard this from another one already.
    digi: &'a str,
    #[serde(rename = "__asgi_channel__", skip_serializing_if = "Option::is_none")]
    channels: Option<&'a [String]>,
}

/// What a stock process sent.
#[derive(Deserialize)]
struct Foreign {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    message: Option<Scalar>,
    #[serde(default)]
    user: Option<Scalar>,
    #[serde(default)]
    message_id: Option<Scalar>,
    #[serde(default)]
    digi: Option<Scalar>,
    #[serde(default, rename = "__asgi_channel__")]
    channels: Option<Channels>,
}

/// What the classic app's keys have as values; some apps send numbers.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(i64),
}

/// One channel where it was sent to one, a list where it was sent to a group.
#[derive(Deserialize)]
#[serde(untagged)]
enum Channels {
    One(String),
    Several(Vec<String>),
}

/// What came in from a stock process.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Incoming {
    pub(super) classic: Classic,
    /// The channels that it was sent to, where the format names them.
    pub(super) channels: Vec<String>,
}

/// Why a payload is dropped.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Undecodable {
    #[error("it is encrypted with another key, too old, or not encrypted")]
    Encryption,
    #[error("it is no MessagePack map with a text as its type")]
    Form,
    #[error("it lacks a key that its type has to have (message, user, message_id)")]
    Key,
}

/// Writes and reads payloads.
pub(super) struct Codec {
    keys: Vec<FernetKey>,
    /// The core layer's format: a random prefix, and messages that grow too old to be decrypted, in seconds.
    core_expiry: Option<u64>,
    node: String,
}

impl Codec {
    pub(super) fn new(options: &BridgeOptions, is_core: bool, node: String) -> Result<Self, Error> {
        // As the package makes a Fernet key of whatever text it is given.
        let key_of = |text: &String| FernetKey::new(&URL_SAFE.encode(Sha256::digest(text.as_bytes())));
        let keys = options.encryption_keys.iter().map(key_of).collect::<Result<_, _>>()?;
        Ok(Self { keys, core_expiry: is_core.then(|| options.expiry.as_secs()), node })
    }

    /// The payload of an event, with the channels that it is for where the format names them. None: it is none of the
    /// three.
    pub(super) fn encode(&self, event: &Event, channels: Option<&[String]>, now: u64) -> Option<Vec<u8>> {
        let EventKind::Message { frame, .. } = &event.kind else { return None };
        let classic: Classic = serde_json::from_str(frame.as_str()).ok()?;
        let outgoing = Outgoing {
            kind: event.channels_type(),
            message: classic.message.as_deref(),
            user: &classic.user,
            message_id: &classic.message_id,
            digi: &self.node,
            channels,
        };
        let packed = rmp_serde::to_vec_named(&outgoing).ok()?;
        let sealed = match self.keys.first() {
            Some(key) => key.seal(now, random()?, &packed).into_bytes(),
            None => packed,
        };
        if self.core_expiry.is_none() {
            return Some(sealed);
        }
        let mut payload = random::<RANDOM_PREFIX>()?.to_vec();
        payload.extend_from_slice(&sealed);
        Some(payload)
    }

    /// What a stock process sent; none when a node of Digi's did, or it is of a type that doesn't concern a room.
    pub(super) fn decode(&self, payload: &[u8], now: u64) -> Result<Option<Incoming>, Undecodable> {
        let mut sealed = payload;
        if self.core_expiry.is_some() {
            sealed = sealed.get(RANDOM_PREFIX..).ok_or(Undecodable::Form)?;
        }
        let decrypted;
        let packed = if self.keys.is_empty() {
            sealed
        } else {
            let text = std::str::from_utf8(sealed).map_err(|_| Undecodable::Encryption)?;
            let since = self.core_expiry.map_or(0, |expiry| now.saturating_sub(expiry + LATE));
            let opened = self.keys.iter().find_map(|key| key.open_text(text, since));
            decrypted = opened.ok_or(Undecodable::Encryption)?;
            &decrypted[..]
        };
        let foreign: Foreign = rmp_serde::from_slice(packed).map_err(|_| Undecodable::Form)?;
        if foreign.digi.is_some() {
            return Ok(None);
        }
        let op = match foreign.kind.as_str() {
            "chat.message" | "chat_message" => MessageOp::Added,
            "chat.message.edit" | "chat_message_edit" => MessageOp::Edited,
            "chat.message.delete" | "chat_message_delete" => MessageOp::Deleted,
            _ => return Ok(None),
        };
        let message = foreign.message.map(Scalar::into_text);
        if message.is_none() && op != MessageOp::Deleted {
            return Err(Undecodable::Key);
        }
        let classic = Classic {
            op,
            message: message.filter(|_| op != MessageOp::Deleted),
            user: foreign.user.map(Scalar::into_text).unwrap_or_default(),
            message_id: foreign.message_id.ok_or(Undecodable::Key)?.into_text(),
        };
        let channels = match foreign.channels {
            None => Vec::new(),
            Some(Channels::One(channel)) => vec![channel],
            Some(Channels::Several(channels)) => channels,
        };
        Ok(Some(Incoming { classic, channels }))
    }
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
}

fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Cursor, Epoch, MessageId, RoomId, Seq};
    use crate::layer::bridge::BridgeFormat;

    const NOW: u64 = 1_800_000_000;

    // Written by `serializers.registry.get_serializer("msgpack", …).serialize(…)` of channels_redis 4.3.0 with
    // msgpack 1.2 for {"type": "chat.message", "message": "hi 👋", "user": "alice", "message_id": "Z0FB"}.
    const PACKED: &str = "84a474797065ac636861742e6d657373616765a76d657373616765a7686920f09f918ba475736572a5616c696365\
                          aa6d6573736167655f6964a45a304642";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn codec(keys: &[&str], is_core: bool) -> Codec {
        let mut options = BridgeOptions::new(BridgeFormat::Core, ["redis://host"]);
        options.encryption_keys = keys.iter().map(|key| (*key).to_owned()).collect();
        Codec::new(&options, is_core, "n1".into()).unwrap()
    }

    fn hi() -> Classic {
        let text = |text: &str| text.to_owned();
        Classic { op: MessageOp::Added, message: Some(text("hi 👋")), user: text("alice"), message_id: text("Z0FB") }
    }

    fn event(op: MessageOp, frame: &str) -> Event {
        let kind = EventKind::Message {
            op,
            message: MessageId(7),
            pos: Seq(7),
            sender: "1".into(),
            client_id: None,
            frame: Frame::from_text(frame.into()),
        };
        Event { room: RoomId(1), at: Cursor::new(Epoch(1), Seq(7)), kind }
    }

    fn other(frame: &str, op: MessageOp) -> serde_json::Value {
        let payload = codec(&[], false).encode(&event(op, frame), None, NOW).unwrap();
        rmp_serde::from_slice(&payload).unwrap()
    }

    #[test]
    fn what_the_package_wrote_is_read() {
        let read = codec(&[], false).decode(&bytes(PACKED), NOW).unwrap().unwrap();
        assert_eq!(read, Incoming { classic: hi(), channels: vec![] });
        let prefixed = [&[9; 12][..], &bytes(PACKED)].concat();
        assert_eq!(codec(&[], true).decode(&prefixed, NOW).unwrap().unwrap().classic, hi());
    }

    #[test]
    fn events_become_the_classic_messages_with_the_classic_keys() {
        let add = r#"{"type":"add","message":"hi","user":"alice","message_id":"AQ","seq":7,"pos":7,"at":"x"}"#;
        let expected = serde_json::json!(
            {"type": "chat.message", "message": "hi", "user": "alice", "message_id": "AQ", "digi": "n1"}
        );
        assert_eq!(other(add, MessageOp::Added), expected);
        let delete = r#"{"type":"delete","user":"alice","message_id":"AQ","seq":7,"pos":7,"at":"x"}"#;
        let expected =
            serde_json::json!({"type": "chat.message.delete", "user": "alice", "message_id": "AQ", "digi": "n1"});
        assert_eq!(other(delete, MessageOp::Deleted), expected);
        let member = EventKind::Member { op: crate::store::model::MemberOp::Joined, member: "1".into() };
        let member = Event { kind: member, ..event(MessageOp::Added, add) };
        assert_eq!(codec(&[], false).encode(&member, None, NOW), None);
    }

    #[test]
    fn ones_own_and_strange_types_are_nothing() {
        let payload = codec(&[], false).encode(
            &event(MessageOp::Added, r#"{"type":"add","message":"","user":"a","message_id":"x"}"#),
            None,
            NOW,
        );
        assert_eq!(codec(&[], false).decode(&payload.unwrap(), NOW), Ok(None));
        let strange = rmp_serde::to_vec_named(&serde_json::json!({"type": "user.status", "online": true})).unwrap();
        assert_eq!(codec(&[], false).decode(&strange, NOW), Ok(None));
    }

    #[test]
    fn numbers_and_channels_are_understood() {
        let sent = serde_json::json!({
            "type": "chat_message_edit", "message": "x", "user": 7, "message_id": 12, "extra": [1, {"a": null}],
            "__asgi_channel__": ["specific.digi1!5"],
        });
        let payload = rmp_serde::to_vec_named(&sent).unwrap();
        let read = codec(&[], false).decode(&payload, NOW).unwrap().unwrap();
        assert_eq!((read.classic.user.as_str(), read.classic.message_id.as_str()), ("7", "12"));
        assert_eq!((read.classic.op, read.channels), (MessageOp::Edited, vec!["specific.digi1!5".to_owned()]));
    }

    #[test]
    fn what_is_encrypted_needs_its_key_and_grows_old() {
        let frame = r#"{"type":"add","message":"hi","user":"a","message_id":"x"}"#;
        let (old, both) = (codec(&["old"], true), codec(&["new", "old"], true));
        let payload = old.encode(&event(MessageOp::Added, frame), None, NOW).unwrap();
        assert_eq!(both.decode(&payload, NOW), Ok(None), "it opens, and is Digi's own");
        assert_eq!(both.decode(&payload, NOW + 70), Ok(None));
        assert_eq!(both.decode(&payload, NOW + 71), Err(Undecodable::Encryption));
        assert_eq!(codec(&["new"], true).decode(&payload, NOW), Err(Undecodable::Encryption));
        let plain = codec(&[], true).encode(&event(MessageOp::Added, frame), None, NOW).unwrap();
        assert_eq!(both.decode(&plain, NOW), Err(Undecodable::Encryption));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let codec = codec(&[], false);
        for (payload, why) in [
            (serde_json::json!(7), Undecodable::Form),
            (serde_json::json!({"message": "no type"}), Undecodable::Form),
            (serde_json::json!({"type": "chat.message", "user": "a", "message_id": "x"}), Undecodable::Key),
            (serde_json::json!({"type": "chat.message.delete", "user": "a"}), Undecodable::Key),
        ] {
            let payload = rmp_serde::to_vec_named(&payload).unwrap();
            assert_eq!(codec.decode(&payload, NOW), Err(why));
        }
        assert_eq!(codec.decode(&[0xc1], NOW), Err(Undecodable::Form));
    }

    #[test]
    fn ids_are_sealed_as_digi_seals_them() {
        const KEY: &str = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
        let classic = crate::token::Keyring::builder().legacy_fernet(KEY).emit(crate::token::Emit::Fernet);
        let classic = classic.build().unwrap();
        let kinds = [Kind::Room, Kind::Message];
        let keys = Keyring::builder().key(0, [7; 32]).legacy_fernet(KEY).legacy_kinds(&kinds).build().unwrap();
        let with_id = |message_id: String| Classic { message_id, ..hi() }.into_frame(&keys);
        let sealed = keys.seal(Kind::Message, 12);
        assert!(with_id(classic.seal(Kind::Message, 12)).as_str().contains(&sealed));
        let frame = with_id("somebody's own".into());
        let expected = r#"{"type":"add","message":"hi 👋","user":"alice","message_id":"somebody's own"}"#;
        assert_eq!(frame.as_str(), expected);
    }
}
