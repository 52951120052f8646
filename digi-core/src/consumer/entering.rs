//! The one way into a room: ask for the membership, join, send what the mode needs, go live.

use super::{Attachment, Consumer, Output, State, Ticket};
use crate::error::{CloseCode, Code};
use crate::id::{Cursor, Epoch, RoomId, Seq};
use crate::room::JoinAnswer;
use crate::store::model::{Change, Changes, LOG_WINDOW, MemberAnswer, MessageOp};
use crate::token::Kind;

/// How often in a row a store that lies behind the room is asked again. While restored data gets its new epoch that is a
/// matter of milliseconds; where it lasts, the client reconnects after a pause of its own.
const MAX_ASKED_AGAIN: u32 = 100;

/// How a session enters a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    /// Sees only what comes from now on, and learns the cursor.
    Fresh,
    /// Gets what changed after the cursor.
    Resume(Cursor),
    /// Gets the newest history.
    Reset,
}

/// How far the way into the room has gone.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Asking(Ticket, Mode),
    Joining(Ticket, Mode),
    Replaying {
        ticket: Ticket,
        /// What was asked for lies above.
        after: Seq,
        /// Where the client stood: messages placed above it are new to it.
        original: Seq,
        /// What the room had shown when it began to hold frames back: the replay must reach it.
        position: Cursor,
        /// How much has been replayed.
        bytes: usize,
    },
    Resetting {
        ticket: Ticket,
        position: Cursor,
    },
    Live,
}

impl Consumer {
    /// The connection has begun.
    pub fn handle_connect(&mut self) {
        if !matches!(self.state, State::Connecting) {
            return;
        }
        let Ok(room) = self.rules.encoder.keyring().open(Kind::Room, &self.scope.token) else {
            return self.close(CloseCode::BadToken);
        };
        let mode = match self.scope.after.as_deref().map(str::parse) {
            None => Mode::Fresh,
            Some(Ok(cursor)) => Mode::Resume(cursor),
            // The client gets an error once it is in: see `handle_joined`.
            Some(Err(_)) => Mode::Reset,
        };
        let ticket = self.ticket();
        self.state = State::Joining(Attachment {
            room: RoomId(room),
            membership: None,
            epoch: Epoch(0),
            step: Step::Asking(ticket, mode),
        });
        self.outputs.push_back(Output::AskMember { ticket, room: RoomId(room) });
    }

    /// The answer to [`Output::AskMember`].
    pub fn handle_member(&mut self, ticket: Ticket, answer: Result<MemberAnswer, Code>) {
        let Some(attachment) = self.attachment_mut() else { return };
        let Step::Asking(asked, mode) = attachment.step else { return };
        if asked != ticket {
            return;
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(Code::NoSuchRoom) => return self.close(CloseCode::NotAMember),
            Err(_) => return self.close(CloseCode::Unavailable),
        };
        if answer.membership.is_none() {
            let code = if self.is_open() { CloseCode::Removed } else { CloseCode::NotAMember };
            return self.close(code);
        }
        let ticket = self.ticket();
        if let Some(attachment) = self.attachment_mut() {
            attachment.membership.clone_from(&answer.membership);
            attachment.step = Step::Joining(ticket, mode);
            let room = attachment.room;
            self.outputs.push_back(Output::Join { ticket, room, answer });
        }
    }

    /// The answer to [`Output::Join`].
    pub fn handle_joined(&mut self, ticket: Ticket, answer: JoinAnswer) {
        let Some(attachment) = self.attachment_mut() else { return };
        let Step::Joining(asked, mode) = attachment.step else { return };
        if asked != ticket {
            return;
        }
        let position = match answer {
            JoinAnswer::Joined(position) => position,
            JoinAnswer::Stale => {
                let again = self.may_ask_again();
                return if again { self.enter(mode) } else { self.close(CloseCode::Unavailable) };
            }
            JoinAnswer::Full => return self.close(CloseCode::Overloaded),
        };
        attachment.epoch = position.epoch;
        let room = attachment.room;
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Joining(attachment) => {
                self.outputs.push_back(Output::Accept);
                State::Open(attachment)
            }
            entered => entered,
        };
        if let Some(after) = self.scope.after.take() {
            self.listen();
            if after.parse::<Cursor>().is_err() {
                self.refuse(&Code::BadCursor.into(), None);
            }
        }
        match mode {
            Mode::Fresh => self.resumed(room, position),
            Mode::Resume(cursor) if cursor == position => self.resumed(room, position),
            Mode::Resume(cursor) if cursor.epoch == position.epoch => {
                self.load_changes(room, cursor.seq, cursor.seq, position, 0);
            }
            Mode::Resume(_) | Mode::Reset => self.load_newest(room, position),
        }
    }

    /// The answer to [`Output::LoadChanges`].
    pub fn handle_changes(&mut self, ticket: Ticket, answer: Result<Changes, Code>) {
        let Some(attachment) = self.attachment() else { return };
        let Step::Replaying { ticket: asked, after, original, position, mut bytes } = attachment.step else { return };
        if asked != ticket {
            return;
        }
        let room = attachment.room;
        let Ok(Changes { head, floor, through, rows }) = answer else { return self.close(CloseCode::Unavailable) };
        let behind = head.last_seq.0.checked_sub(original.0);
        if head.epoch != position.epoch || floor > original || behind.is_none_or(|behind| behind > LOG_WINDOW) {
            // Frames of a first page may be out already; what follows makes them void.
            return self.load_newest(room, position);
        }
        let mut frames = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Change::Message(message) | Change::Adopted(message) = &row.change {
                let op = match &message.body {
                    None => MessageOp::Deleted,
                    Some(_) if message.pos > original => MessageOp::Added,
                    Some(_) => MessageOp::Edited,
                };
                let frame = self.rules.encoder.change(op, row.seq, message);
                bytes += frame.as_bytes().len();
                frames.push(Output::Send(frame));
            }
        }
        if bytes > self.rules.limits.replay_bytes {
            return self.load_newest(room, position);
        }
        self.outputs.extend(frames);
        if through >= position.seq {
            self.resumed(room, Cursor::new(position.epoch, through));
        } else if through > after || self.may_ask_again() {
            self.load_changes(room, through, original, position, bytes);
        } else {
            self.close(CloseCode::Unavailable);
        }
    }

    /// Whether the store is asked once more, after it has answered with less than the room has seen.
    pub(super) fn may_ask_again(&mut self) -> bool {
        self.asked_again += 1;
        self.asked_again <= MAX_ASKED_AGAIN
    }

    /// Starts on the one way into the room, whatever was under way before.
    pub(super) fn enter(&mut self, mode: Mode) {
        let ticket = self.ticket();
        if let Some(attachment) = self.attachment_mut() {
            attachment.step = Step::Asking(ticket, mode);
            let room = attachment.room;
            self.outputs.push_back(Output::AskMember { ticket, room });
        }
    }

    fn load_changes(&mut self, room: RoomId, after: Seq, original: Seq, position: Cursor, bytes: usize) {
        let ticket = self.ticket();
        self.step(Step::Replaying { ticket, after, original, position, bytes });
        self.outputs.push_back(Output::LoadChanges { ticket, room, after, limit: LOG_WINDOW });
    }

    pub(super) fn load_newest(&mut self, room: RoomId, position: Cursor) {
        let ticket = self.ticket();
        self.step(Step::Resetting { ticket, position });
        let limit = self.rules.limits.reset_history.saturating_add(1);
        self.outputs.push_back(Output::LoadHistory { ticket, room, before: None, limit });
    }

    fn resumed(&mut self, room: RoomId, at: Cursor) {
        self.send(self.rules.encoder.resumed(at));
        self.go_live(room, at);
    }

    pub(super) fn go_live(&mut self, room: RoomId, at: Cursor) {
        self.asked_again = 0;
        if let Some(attachment) = self.attachment_mut() {
            attachment.epoch = at.epoch;
            attachment.step = Step::Live;
        }
        self.outputs.push_back(Output::GoLive { room, at });
    }

    fn step(&mut self, step: Step) {
        if let Some(attachment) = self.attachment_mut() {
            attachment.step = step;
        }
    }
}
