//! What a consumer starts with, and what it says.

use std::fmt;
use std::sync::Arc;

use crate::error::CloseCode;
use crate::event::Signal;
use crate::frame::Frame;
use crate::id::{Cursor, RoomId, Seq, UserKey};
use crate::store::model::{Command, MemberAnswer};

/// What is known of a connection at its start.
#[derive(Clone)]
pub struct Scope {
    /// The room's token, out of the URL.
    pub token: String,
    /// Who is logged in.
    pub user: UserKey,
    /// The name that others see.
    pub user_name: Arc<str>,
    /// Where the client stopped last time (`?after=`).
    pub after: Option<String>,
    /// The page's origin, for the log.
    pub origin: Option<String>,
    /// The peer's address, for the log.
    pub remote: Option<String>,
    /// By what the host knows this log-in of the user's again, to end it (`Engine::end_login`). Other nodes are told of
    /// it, so of what is a secret, such as a session's key, give a hash.
    pub login: Option<Arc<str>>,
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever has the whole token has the link; a log gets enough of it to tell links apart.
        let token: String = self.token.chars().take(8).collect();
        f.debug_struct("Scope")
            .field("token", &format_args!("{token}…"))
            .field("user", &self.user)
            .field("after", &self.after)
            .field("origin", &self.origin)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// Names a question, so that its answer finds back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

/// What the driver has to do for a consumer, in this order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Ask room or store whether the user is a member; answer with [`Consumer::handle_member`](super::Consumer::handle_member).
    AskMember {
        /// Comes back with the answer.
        ticket: Ticket,
        /// Which room.
        room: RoomId,
    },
    /// Put the session into the room, on hold; answer with [`Consumer::handle_joined`](super::Consumer::handle_joined).
    Join {
        /// Comes back with the answer.
        ticket: Ticket,
        /// Which room.
        room: RoomId,
        /// The membership and the head at which it was read.
        answer: MemberAnswer,
    },
    /// Accept the connection.
    Accept,
    /// Have a command stored; answer with [`Consumer::handle_outcome`](super::Consumer::handle_outcome).
    Submit {
        /// Comes back with the answer.
        ticket: Ticket,
        /// What to store.
        command: Command,
    },
    /// Read the log; answer with [`Consumer::handle_changes`](super::Consumer::handle_changes).
    LoadChanges {
        /// Comes back with the answer.
        ticket: Ticket,
        /// Which room.
        room: RoomId,
        /// Changes numbered above.
        after: Seq,
        /// At most so many numbers.
        limit: u64,
    },
    /// Read messages; answer with [`Consumer::handle_history`](super::Consumer::handle_history).
    LoadHistory {
        /// Comes back with the answer.
        ticket: Ticket,
        /// Which room.
        room: RoomId,
        /// Messages placed before; none: the newest.
        before: Option<Seq>,
        /// At most so many.
        limit: u32,
    },
    /// Put a frame into this session's outbox.
    Send(Frame),
    /// Let the room go on with this session above the cursor.
    GoLive {
        /// Which room.
        room: RoomId,
        /// Everything up to here has been sent.
        at: Cursor,
    },
    /// Tell the others something that is not stored.
    Signal(Signal),
    /// From now on hand this session what is not stored, too: its client knows more than the classic frames.
    Listen {
        /// Which room.
        room: RoomId,
    },
    /// Take the session out of the room.
    Leave {
        /// Which room.
        room: RoomId,
    },
    /// Close the connection. The last output.
    Close(CloseCode),
}
