//! The state machine of one connection.
//!
//! A [`Consumer`] decides everything about one connection and does nothing itself. It is told what happened by its
//! `handle_*` methods and says what is to be done through [`Consumer::poll_output`], in order. What needs an answer
//! carries a [`Ticket`], and the answer comes back with it; meanwhile the consumer goes on. It reads no clock, asks no
//! store and never waits, so the same code runs behind tokio and in the simulation.
//!
//! ```text
//! Connecting ──AskMember──▶ Joining ──Join──▶ Open (replay or history, then live) ──▶ Closed
//!                  ▲                             │
//!                  └──── `resume`, reset ────────┘
//! ```
//!
//! Every way into a room is one path: ask for the membership, join (the room holds live frames back), send what the
//! mode needs, go live. A first visit sends nothing but the cursor, a resume the changes since the client's cursor, a
//! reset the newest history. Broadcasts do not pass through here: the room hands them to the outboxes.

mod entering;
mod limiter;
mod output;
mod policy;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use entering::{Mode, Step};
use limiter::Limiter;
pub use limiter::Rate;
pub use output::{Output, Scope, Ticket};
pub use policy::{Policy, Verdict};
pub use rules::{ConsumerLimits, Rules};

use crate::error::{CloseCode, Code, Error};
use crate::event::Signal;
use crate::frame::{ClientFrame, Frame, Request};
use crate::id::{ClientId, Epoch, MessageId, Millis, RoomId, Seq};
use crate::store::model::{Action, Authority, Command, History, MAX_HISTORY, Membership, Outcome};
use crate::token::Kind;

/// A room that this connection is in, or on its way into.
struct Attachment {
    room: RoomId,
    membership: Option<Membership>,
    epoch: Epoch,
    step: Step,
}

enum State {
    Connecting,
    /// Not accepted yet.
    Joining(Attachment),
    Open(Attachment),
    Closed,
}

/// What waits for an answer.
enum Pending {
    Command(Option<ClientId>),
    History { client_id: Option<ClientId>, before: Option<Seq>, limit: u32 },
}

/// The state machine of one connection; see the module's text.
pub struct Consumer {
    rules: Arc<Rules>,
    scope: Scope,
    state: State,
    next_ticket: u64,
    pending: VecDeque<(Ticket, Pending)>,
    outputs: VecDeque<Output>,
    frames: Limiter,
    refusals: Limiter,
    typing: Limiter,
    /// Whether the client has shown that it knows more than the classic frames.
    listens: bool,
    ignored_claims: u64,
    /// How often in a row the store answered with less than the room has seen.
    asked_again: u32,
}

impl Consumer {
    /// A consumer for a connection with this scope, under the engine's rules.
    pub fn new(rules: Arc<Rules>, scope: Scope) -> Self {
        let (frames, refusals) = (Limiter::new(rules.limits.frames), Limiter::new(rules.limits.refusals));
        let rules_typing = rules.limits.typing;
        Self {
            rules,
            scope,
            state: State::Connecting,
            next_ticket: 0,
            pending: VecDeque::new(),
            outputs: VecDeque::new(),
            frames,
            refusals,
            typing: Limiter::new(rules_typing),
            listens: false,
            ignored_claims: 0,
            asked_again: 0,
        }
    }

    /// What the connection started with.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The room, once its token has opened.
    pub fn room(&self) -> Option<RoomId> {
        self.attachment().map(|attachment| attachment.room)
    }

    /// Whether the connection has been accepted and not closed.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// Whether the connection is closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// How many frames claimed to come from somebody else, and were not believed.
    pub fn ignored_claims(&self) -> u64 {
        self.ignored_claims
    }

    /// What the driver has to do next.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The answer to [`Output::LoadHistory`].
    pub fn handle_history(&mut self, ticket: Ticket, answer: Result<History, Code>) {
        let Some(attachment) = self.attachment() else { return };
        let (room, epoch) = (attachment.room, attachment.epoch);
        if let Step::Resetting { ticket: asked, position } = attachment.step
            && asked == ticket
        {
            let Ok(mut page) = answer else { return self.close(CloseCode::Unavailable) };
            let at = page.head.cursor();
            if at < position {
                let again = self.may_ask_again();
                return if again { self.load_newest(room, position) } else { self.close(CloseCode::Unavailable) };
            }
            let more = take_more(&mut page, self.rules.limits.reset_history);
            self.send(self.rules.encoder.reset(at));
            self.send(self.rules.encoder.history(&page, more, None));
            self.go_live(room, at);
            return;
        }
        let Some(Pending::History { client_id, before, limit }) = self.take_pending(ticket) else { return };
        match answer {
            Ok(page) if page.head.epoch < epoch => {
                if self.may_ask_again() {
                    self.ask_history(room, client_id, before, limit);
                } else {
                    self.refuse(&Code::StoreUnavailable.into(), client_id.as_ref());
                }
            }
            // A reset of this room is on its way and brings a history of its own.
            Ok(page) if page.head.epoch > epoch => {}
            Ok(mut page) => {
                self.asked_again = 0;
                let more = take_more(&mut page, limit);
                self.send(self.rules.encoder.history(&page, more, client_id.as_ref()));
            }
            Err(code) => self.refuse(&code.into(), client_id.as_ref()),
        }
    }

    /// The answer to [`Output::Submit`].
    pub fn handle_outcome(&mut self, ticket: Ticket, outcome: &Outcome) {
        let Some(Pending::Command(client_id)) = self.take_pending(ticket) else { return };
        let encoder = &self.rules.encoder;
        let ack = match (outcome, &client_id) {
            (Outcome::Message { at, message, .. }, Some(client_id)) => {
                Some(encoder.ack(client_id, message.id, at.seq, message.pos))
            }
            (Outcome::Duplicate { message, pos }, Some(client_id)) => {
                Some(encoder.ack(client_id, *message, *pos, *pos))
            }
            (Outcome::Refused(code), _) => return self.refuse(&(*code).into(), client_id.as_ref()),
            _ => None,
        };
        if let Some(frame) = ack {
            self.send(frame);
        }
    }

    /// The room says that what this session was shown is void.
    pub fn handle_reset(&mut self, room: RoomId) {
        if self.attachment().is_some_and(|attachment| attachment.room == room) {
            self.enter(Mode::Reset);
        }
    }

    /// The room or the host has ended the session; it is in the room no longer.
    pub fn handle_closed(&mut self, code: CloseCode) {
        self.close(code);
    }

    /// The client has gone.
    pub fn handle_disconnect(&mut self) {
        if let Some(attachment) = self.attachment() {
            let room = attachment.room;
            self.outputs.push_back(Output::Leave { room });
        }
        // Answers that are still on their way come to nothing.
        self.pending.clear();
        self.state = State::Closed;
    }

    /// The transport received what is no text frame (binary, too large, not UTF-8).
    pub fn handle_unreadable(&mut self, code: Code, now: Millis) {
        if self.is_open() {
            self.refuse_counted(&code.into(), None, now);
        }
    }

    /// The client sent a text frame, and the host takes none any more: the client is told, so that it sends the frame
    /// again elsewhere.
    pub fn handle_unwanted(&mut self, text: &str, code: Code) {
        if self.is_open() {
            let client_id = ClientFrame::parse(text).map_or_else(|bad| bad.client_id, |frame| frame.client_id);
            self.refuse(&code.into(), client_id.as_ref());
        }
    }

    /// The client sent a text frame.
    pub fn handle_frame(&mut self, text: &str, now: Millis) {
        if !self.is_open() {
            return;
        }
        if text.len() > self.rules.limits.frame_bytes {
            let most = self.rules.limits.frame_bytes;
            let detail = format!("The frame has {} bytes; this server takes {most}.", text.len());
            return self.refuse_counted(&Code::FrameTooLarge.with(detail), None, now);
        }
        let frame = match ClientFrame::parse(text) {
            Ok(frame) => frame,
            Err(bad) => return self.refuse_counted(&bad.error, bad.client_id.as_ref(), now),
        };
        if !self.frames.take(now) {
            return self.refuse_counted(&Code::RateLimited.into(), frame.client_id.as_ref(), now);
        }
        let client_id = frame.client_id.clone();
        if !frame.is_classic() {
            self.listen();
        }
        if let Err(error) = self.obey(frame, now) {
            self.refuse_counted(&error, client_id.as_ref(), now);
        }
    }

    fn obey(&mut self, frame: ClientFrame<'_>, now: Millis) -> Result<(), Error> {
        let State::Open(attachment) = &self.state else { return Err(Code::NotJoined.into()) };
        let room = attachment.room;
        let keyring = self.rules.encoder.keyring();
        if let Some(token) = &frame.room {
            let meant = keyring.open(Kind::Room, token).map_err(|_| Code::BadToken)?;
            if RoomId(meant) != room {
                return Err(Code::NotJoined.into());
            }
        }
        if let Some(claim) = &frame.user
            && **claim != *self.scope.user_name
            && **claim != *self.scope.user.as_str()
        {
            if self.rules.strict {
                return Err(Code::UserMismatch.into());
            }
            self.ignored_claims += 1;
        }
        let message_id = |token: &str| {
            let id = keyring.open(Kind::Message, token);
            id.map(MessageId).map_err(|_| Error::from(Code::BadToken))
        };
        let action = match frame.request {
            Request::Add { message, resend: _ } => {
                self.rules.check_body(&message)?;
                Action::Add { body: message.into(), client_id: frame.client_id.clone() }
            }
            Request::Edit { message_id: token, message } => {
                self.rules.check_body(&message)?;
                Action::Edit { message: message_id(&token)?, body: message.into() }
            }
            Request::Delete { message_id: token } => Action::Delete { message: message_id(&token)? },
            Request::Resume { after } => {
                let cursor = after.parse().map_err(|_| Code::BadCursor)?;
                self.enter(Mode::Resume(cursor));
                return Ok(());
            }
            Request::History { before, limit } => {
                let limit = limit.unwrap_or(self.rules.limits.reset_history).clamp(1, MAX_HISTORY);
                self.room_for_one_more()?;
                self.ask_history(room, frame.client_id, before, limit);
                return Ok(());
            }
            Request::Typing => {
                if self.typing.take(now) {
                    let (from, frame) = (self.scope.user.clone(), Frame::typing(&self.scope.user_name));
                    self.outputs.push_back(Output::Signal(Signal::Room { room, from, frame }));
                }
                return Ok(());
            }
            Request::Read { .. } => return Err(Code::Unsupported.into()),
        };
        self.submit(room, action, frame.client_id)
    }

    /// Classic pages would take a `typing` for a message, so it is told to those only who know it.
    fn listen(&mut self) {
        if let State::Open(Attachment { room, .. }) = self.state
            && !std::mem::replace(&mut self.listens, true)
        {
            self.outputs.push_back(Output::Listen { room });
        }
    }

    fn submit(&mut self, room: RoomId, action: Action, client_id: Option<ClientId>) -> Result<(), Error> {
        let mut command = Command {
            room,
            user: self.scope.user.clone(),
            user_name: self.scope.user_name.clone(),
            authority: Authority::Member,
            action,
        };
        if let State::Open(Attachment { membership: Some(membership), .. }) = &self.state {
            self.rules.ask_policy(&mut command, membership)?;
        }
        self.room_for_one_more()?;
        let ticket = self.ticket();
        self.pending.push_back((ticket, Pending::Command(client_id)));
        self.outputs.push_back(Output::Submit { ticket, command });
        Ok(())
    }

    fn room_for_one_more(&self) -> Result<(), Error> {
        if self.pending.len() < self.rules.limits.in_flight { Ok(()) } else { Err(Code::Busy.into()) }
    }

    fn ask_history(&mut self, room: RoomId, client_id: Option<ClientId>, before: Option<Seq>, limit: u32) {
        let ticket = self.ticket();
        self.pending.push_back((ticket, Pending::History { client_id, before, limit }));
        self.outputs.push_back(Output::LoadHistory { ticket, room, before, limit: limit + 1 });
    }

    fn refuse_counted(&mut self, error: &Error, client_id: Option<&ClientId>, now: Millis) {
        self.refuse(error, client_id);
        if !self.refusals.take(now) {
            self.leave_and_close(CloseCode::Abuse);
        }
    }

    fn refuse(&mut self, error: &Error, client_id: Option<&ClientId>) {
        self.send(self.rules.encoder.error(error, client_id));
    }

    fn leave_and_close(&mut self, code: CloseCode) {
        self.handle_disconnect();
        self.outputs.push_back(Output::Close(code));
    }

    fn close(&mut self, code: CloseCode) {
        if !self.is_closed() {
            self.leave_and_close(code);
        }
    }

    fn send(&mut self, frame: Frame) {
        self.outputs.push_back(Output::Send(frame));
    }

    fn ticket(&mut self) -> Ticket {
        self.next_ticket += 1;
        Ticket(self.next_ticket)
    }

    /// Answers mostly come in the order of the questions, so the one that is looked for stands in front.
    fn take_pending(&mut self, ticket: Ticket) -> Option<Pending> {
        let index = self.pending.iter().position(|(asked, _)| *asked == ticket)?;
        self.pending.remove(index).map(|(_, pending)| pending)
    }

    fn attachment(&self) -> Option<&Attachment> {
        match &self.state {
            State::Joining(attachment) | State::Open(attachment) => Some(attachment),
            State::Connecting | State::Closed => None,
        }
    }

    fn attachment_mut(&mut self) -> Option<&mut Attachment> {
        match &mut self.state {
            State::Joining(attachment) | State::Open(attachment) => Some(attachment),
            State::Connecting | State::Closed => None,
        }
    }
}

/// One message more than wanted was asked for: it only says that there is more.
fn take_more(page: &mut History, limit: u32) -> bool {
    let surplus = page.messages.len().saturating_sub(limit as usize);
    page.messages.drain(..surplus);
    surplus > 0
}
