//! The newtypes that everything else speaks in: one per kind of number or key, so that a room's id cannot be
//! passed where a message's is meant.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl $name {
            /// The bare number.
            pub const fn get(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

number! {
    /// A room. In Digi's own tables between 1 and [`RoomId::MAX_OWN`]; over a host's tables the host's key.
    RoomId(i64)
}
number! {
    /// A message. In Digi's own tables `room · 2³² + pos`, so that an id names its room and history is a range
    /// of the primary key; over a host's tables the host's key.
    MessageId(i64)
}
number! {
    /// The number of a change in its room: 1, 2, 3 … without gaps; 0 is "before the first". The *pos* of a
    /// message is the `Seq` of the change that added it.
    Seq(u64)
}
number! {
    /// The generation of a room's numbering, raised whenever its history was reset (restored data).
    Epoch(u64)
}
number! {
    /// Milliseconds since 1970-01-01T00:00:00Z. The engine passes time in; no pure part reads a clock.
    Millis(u64)
}

impl RoomId {
    /// The highest room id in Digi's own tables: what fits above the 32 bits of a message's `pos` in an `i64`.
    pub const MAX_OWN: i64 = (1 << 31) - 1;
}

impl MessageId {
    /// The id in Digi's own tables of the message whose place in `room` is `pos`; none when either is out of
    /// range.
    pub fn own(room: RoomId, pos: Seq) -> Option<Self> {
        let pos = u32::try_from(pos.0).ok()?;
        (1..=RoomId::MAX_OWN).contains(&room.0).then(|| Self((room.0 << 32) | i64::from(pos)))
    }

    /// The room and place that an id of Digi's own tables names.
    pub fn split_own(self) -> (RoomId, Seq) {
        (RoomId(self.0 >> 32), Seq((self.0 & 0xffff_ffff) as u64))
    }
}

impl Seq {
    /// The number after this one; the last one stays where it is.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Millis {
    /// This instant moved by `ms` milliseconds into the future.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// RFC 3339 in UTC with milliseconds, as frames carry it: `2024-08-25T06:12:46.000Z`.
    pub fn rfc3339(self) -> impl fmt::Display {
        // humantime refuses years beyond 9999; a clock that far off is shown as the last instant it can print.
        const LAST: u64 = 253_402_300_799_999;
        humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(self.0.min(LAST)))
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &self.0)
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

text! {
    /// The immutable identity of a user (in Django the user's primary key as text). Never shown to others.
    UserKey
}
text! {
    /// A sender's own name for a message it adds: at most [`ClientId::MAX_BYTES`] bytes, not empty, no NUL.
    /// Within a room and sender it makes `add` idempotent.
    ClientId
}

impl From<&str> for UserKey {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for UserKey {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl ClientId {
    /// The longest client id, in bytes of UTF-8.
    pub const MAX_BYTES: usize = 64;

    /// A client id, or none when `text` is empty, too long or contains NUL.
    pub fn new(text: &str) -> Option<Self> {
        let ok = !text.is_empty() && text.len() <= Self::MAX_BYTES && !text.contains('\0');
        ok.then(|| Self(text.into()))
    }
}

/// How far a client has seen a room, written `<epoch>.<seq>`. Ordered by epoch, then number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Cursor {
    /// The generation of the numbering in which `seq` counts.
    pub epoch: Epoch,
    /// The last change that was seen.
    pub seq: Seq,
}

impl Cursor {
    /// The cursor at `seq` of `epoch`.
    pub const fn new(epoch: Epoch, seq: Seq) -> Self {
        Self { epoch, seq }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
        let (epoch, seq) = text.split_once('.').ok_or(BadCursor)?;
        Ok(Self::new(Epoch(digits(epoch).ok_or(BadCursor)?), Seq(digits(seq).ok_or(BadCursor)?)))
    }
}

/// A text that is no cursor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a cursor is <epoch>.<seq>, two decimal numbers")]
pub struct BadCursor;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_message_ids_name_their_room_and_place() {
        let id = MessageId::own(RoomId(RoomId::MAX_OWN), Seq(u32::MAX.into())).unwrap();
        assert_eq!(id.split_own(), (RoomId(RoomId::MAX_OWN), Seq(u32::MAX.into())));
        assert_eq!(MessageId::own(RoomId(1), Seq(1)).unwrap().get(), (1 << 32) + 1);
        assert_eq!(MessageId::own(RoomId(RoomId::MAX_OWN + 1), Seq(1)), None);
        assert_eq!(MessageId::own(RoomId(0), Seq(1)), None);
        assert_eq!(MessageId::own(RoomId(1), Seq(1 << 32)), None);
    }

    #[test]
    fn cursors_are_read_as_they_are_written() {
        let cursor = Cursor::new(Epoch(1_700_000_000_000), Seq(42));
        assert_eq!(cursor.to_string(), "1700000000000.42");
        assert_eq!("1700000000000.42".parse(), Ok(cursor));
        for bad in ["", ".", "1", "1.", ".1", "1.2.3", "+1.2", "1.-2", "a.b", " 1.2", "99999999999999999999.1"] {
            assert_eq!(bad.parse::<Cursor>(), Err(BadCursor), "{bad:?}");
        }
    }

    #[test]
    fn times_are_rfc_3339_with_milliseconds() {
        assert_eq!(Millis(1_724_566_366_007).rfc3339().to_string(), "2024-08-25T06:12:46.007Z");
        assert_eq!(Millis(u64::MAX).rfc3339().to_string(), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn client_ids_are_bounded() {
        assert!(ClientId::new(&"x".repeat(64)).is_some());
        assert!(ClientId::new(&"x".repeat(65)).is_none());
        assert!(ClientId::new("").is_none());
        assert!(ClientId::new("a\0b").is_none());
    }
}
