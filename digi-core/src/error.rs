//! The one table of error codes and close codes, for programs, browsers and operators.
//!
//! `docs/errors.md` shows the same table; a test compares the two. A number, once released, keeps its meaning.

use std::fmt;

macro_rules! table {
    ($(#[$doc:meta])* $table:ident { $($variant:ident = $number:literal, $name:literal, $text:literal;)+ }) => {
        $(#[$doc])*
        #[non_exhaustive]
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        pub enum $table {
            $(#[doc = $text] $variant = $number,)+
        }

        impl $table {
            /// All of them, in order of number.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable number.
            pub const fn number(self) -> u16 {
                self as u16
            }

            /// The stable name: the `code` of a frame, the reason of a close.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it means, and the way out where there is one, in a sentence.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }
    };
}

table! {
    /// Why something was refused: the `code` of an `error` frame, and of every [`Error`].
    Code {
        BadJson = 100, "bad_json", "The frame is not a JSON object.";
        BadFrame = 101, "bad_frame", "A key of the frame is missing or has the wrong type; the detail names it.";
        UnknownType = 102, "unknown_type", "The frame's `type` is none that Digi knows.";
        BadToken = 103, "bad_token", "A token does not open; ask the application for a new link.";
        EmptyBody = 104, "empty_body", "A message needs at least one character that is not white space.";
        BodyTooLong = 105, "body_too_long", "The message is longer than this server takes; shorten it.";
        BadBody = 106, "bad_body", "A message must not contain the character U+0000.";
        BadClientId = 107, "bad_client_id", "A `client_id` has 1 to 64 bytes and no U+0000.";
        FrameTooLarge = 108, "frame_too_large", "The frame is larger than this server takes.";
        NotText = 109, "not_text", "Frames are JSON text; binary frames are not understood.";
        BadCursor = 110, "bad_cursor", "A cursor is `<epoch>.<seq>` as a frame gave it.";
        Unsupported = 111, "unsupported", "This server does not offer that frame type.";
        UserMismatch = 120, "user_mismatch", "The frame speaks for another user than the one who is logged in.";
        NotAMember = 121, "not_a_member", "The user is not a member of the room.";
        NotSender = 122, "not_sender", "Only its sender may edit a message, only its sender or a moderator delete it.";
        NoSuchMessage = 123, "no_such_message", "The room has no such message.";
        MessageDeleted = 124, "message_deleted", "The message has been deleted.";
        NoSuchRoom = 125, "no_such_room", "There is no such room.";
        NotJoined = 126, "not_joined", "This session is not in that room (or not yet, or no longer).";
        Refused = 127, "refused", "The host's policy refuses this.";
        RoomExists = 128, "room_exists", "There is a room with that id already.";
        RoomFull = 129, "room_full", "The room has used up its message numbers.";
        RateLimited = 130, "rate_limited", "Too many frames; wait a moment.";
        Busy = 131, "busy", "Too much is waiting to be stored; try again in a moment.";
        StoreUnavailable = 140, "store_unavailable", "The store cannot be reached just now; try again in a moment.";
        StoreRejected = 141, "store_rejected", "The database refuses this message; sending it again will not help.";
        StoreFull = 142, "store_full", "The database has no room left; nothing was stored.";
        EngineClosed = 150, "engine_closed", "The engine is closed or closing.";
        EngineForked = 151, "engine_forked", "The engine was made before a fork; make one in this process.";
        SessionClosed = 152, "session_closed", "The session is closed.";
        InCallback = 153, "in_callback", "A callback called back into Digi where it may not; the detail says which.";
        Config = 160, "config", "A setting is missing or wrong; the detail names it.";
        BadKey = 161, "bad_key", "A key or secret is unusable; the detail says why, never the key.";
        BadUrl = 162, "bad_url", "A store or layer URL is wrong; the detail names the part.";
        Schema = 163, "schema", "The database's schema is not one that this version works on.";
        FileInUse = 164, "file_in_use", "Another copy of SQLite in this process has the database file open.";
        BadArgument = 165, "bad_argument", "An argument is missing, not UTF-8 or out of range; the detail names it.";
        Internal = 199, "internal", "A bug in Digi; please report it.";
    }
}

table! {
    /// Why a connection was closed, as WebSocket close code. 4000–4499: the client may reconnect;
    /// 4500–4999: it must not. Below 4000 the meanings are RFC 6455's and IANA's.
    CloseCode {
        Normal = 1000, "normal", "The session was closed on request.";
        Restart = 1012, "restart", "The server is restarting; reconnect in a moment.";
        TooSlow = 4000, "too_slow", "The client did not read fast enough; reconnect and resume.";
        Unavailable = 4001, "unavailable", "The store could not be asked; reconnect in a moment.";
        PingTimeout = 4002, "ping_timeout", "The client answered no ping; reconnect and resume.";
        Overloaded = 4003, "overloaded", "This server or room holds as many sessions as it may; reconnect in a moment.";
        BadToken = 4500, "bad_token", "The token in the URL does not open.";
        NotAMember = 4501, "not_a_member", "The user is not a member of the room.";
        Removed = 4502, "removed", "The user was removed from the room.";
        Unauthenticated = 4503, "unauthenticated", "Nobody is logged in on this connection, or no longer.";
        Kicked = 4504, "kicked", "The host closed this user's sessions.";
        TooManySessions = 4505, "too_many_sessions", "This user has as many sessions open as one may.";
        Abuse = 4506, "abuse", "Too many frames were refused on this connection.";
        ProtocolViolation = 4507, "protocol_violation", "The client broke the WebSocket protocol or its limits.";
    }
}

impl CloseCode {
    /// Whether a client may reconnect after it.
    pub const fn may_reconnect(self) -> bool {
        let number = self.number();
        number != 1000 && number < 4500
    }
}

impl Code {
    /// The code with a number or text of its own circumstances.
    pub fn with(self, detail: impl Into<String>) -> Error {
        Error { code: self, detail: detail.into() }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.number(), self.name())
    }
}

/// What Digi's operations fail with: a code out of the table and the detail of this case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    code: Code,
    detail: String,
}

impl Error {
    /// Which of the table's codes it is.
    pub const fn code(&self) -> Code {
        self.code
    }

    /// The sentence for a person: what was wrong in this case and what to do.
    pub fn detail(&self) -> &str {
        if self.detail.is_empty() { self.code.text() } else { &self.detail }
    }
}

impl From<Code> for Error {
    fn from(code: Code) -> Self {
        Self { code, detail: String::new() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.detail())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn numbers_and_names_are_unique_and_in_order() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
        assert!(CloseCode::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
        let names: HashSet<_> = Code::ALL.iter().map(|code| code.name()).collect();
        assert_eq!(names.len(), Code::ALL.len());
    }

    #[test]
    fn the_ranges_say_whether_to_reconnect() {
        for code in CloseCode::ALL {
            let expected = matches!(code.number(), 1012 | 4000..=4499);
            assert_eq!(code.may_reconnect(), expected, "{code}");
        }
    }

    #[test]
    fn the_documented_table_is_this_table() {
        let documented = include_str!("../../docs/errors.md");
        let rows: Vec<&str> = documented.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
        let row = |number: u16, name: &str, text: &str| format!("| {number} | `{name}` | {text} |");
        let codes = Code::ALL.iter().map(|code| row(code.number(), code.name(), code.text()));
        let closes = CloseCode::ALL.iter().map(|code| row(code.number(), code.name(), code.text()));
        let expected: Vec<String> = codes.chain(closes).collect();
        assert_eq!(
            rows,
            expected,
            "docs/errors.md differs from error.rs; the rows it should have:\n{}",
            expected.join("\n")
        );
    }
}
