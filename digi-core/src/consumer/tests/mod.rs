//! The consumer, driven by hand.

mod entering;
mod requests;
#[cfg(feature = "engine")]
mod together;

use super::*;
use crate::frame::Encoder;
use crate::id::{Cursor, UserKey};
use crate::room::JoinAnswer;
use crate::store::model::{
    Change, ChangeRow, Changes, Head, LOG_WINDOW, MemberAnswer, MemberOp, Message, MessageOp, Role,
};
use crate::token::Keyring;

pub(super) const ROOM: RoomId = RoomId(1);
pub(super) const EPOCH: u64 = 9;

pub(super) fn rules() -> Rules {
    Rules::new(Encoder::new(Keyring::new("a secret for tests, long enough!").unwrap()))
}

pub(super) fn at(seq: u64) -> Cursor {
    Cursor::new(Epoch(EPOCH), Seq(seq))
}

pub(super) fn head(seq: u64) -> Head {
    Head { epoch: Epoch(EPOCH), last_seq: Seq(seq) }
}

/// A message in its present state; without `body`: deleted.
pub(super) fn message(pos: u64, body: Option<&str>) -> Message {
    Message {
        id: MessageId::own(ROOM, Seq(pos)).unwrap(),
        room: ROOM,
        pos: Seq(pos),
        sender: UserKey::from("7"),
        sender_name: "alice".into(),
        body: body.map(Into::into),
        client_id: None,
        created_at: Millis(pos * 1_000),
        edited_at: None,
        deleted_at: None,
    }
}

pub(super) fn row(seq: u64, pos: u64, body: Option<&str>) -> ChangeRow {
    ChangeRow { seq: Seq(seq), change: Change::Message(message(pos, body)) }
}

pub(super) fn changes(last: u64, through: u64, rows: Vec<ChangeRow>) -> Changes {
    Changes { head: head(last), floor: Seq(0), through: Seq(through), rows }
}

/// A page of as many messages, the newest at `last`.
pub(super) fn page(last: u64, messages: u64) -> History {
    let messages = (last + 1 - messages..=last).map(|pos| message(pos, Some("text"))).collect();
    History { head: head(last), messages }
}

/// A consumer and what it said, in short words.
pub(super) struct Driven {
    pub(super) consumer: Consumer,
    pub(super) rules: Arc<Rules>,
    /// The newest ticket that was handed out.
    pub(super) ticket: Ticket,
    /// The newest command that was submitted.
    pub(super) command: Option<Command>,
    /// How often it began to listen.
    pub(super) listens: usize,
}

impl Driven {
    pub(super) fn new(rules: Rules, after: Option<&str>) -> Self {
        let token = rules.encoder.keyring().seal(Kind::Room, ROOM.get());
        Self::with_token(rules, after, token)
    }

    pub(super) fn with_token(rules: Rules, after: Option<&str>, token: String) -> Self {
        let rules = Arc::new(rules);
        let scope = Scope {
            token,
            user: UserKey::from("7"),
            user_name: "alice".into(),
            after: after.map(str::to_owned),
            origin: None,
            remote: None,
            login: None,
        };
        let consumer = Consumer::new(rules.clone(), scope);
        Self { consumer, rules, ticket: Ticket(0), command: None, listens: 0 }
    }

    /// A first visit to a room that has shown everything up to 5.
    pub(super) fn open(rules: Rules) -> Self {
        let mut driven = Self::new(rules, None);
        driven.consumer.handle_connect();
        driven.said();
        assert_eq!(driven.member(5), ["join"]);
        assert_eq!(driven.joined(5), ["accept", "resumed 9.5", "live 9.5"]);
        driven
    }

    /// What it said since, one word or two each.
    pub(super) fn said(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Some(output) = self.consumer.poll_output() {
            said.push(match output {
                Output::AskMember { ticket, room } => {
                    assert_eq!(room, ROOM);
                    self.new_ticket(ticket);
                    "ask member".to_owned()
                }
                Output::Join { ticket, room, answer } => {
                    assert!(room == ROOM && answer.membership.is_some());
                    self.new_ticket(ticket);
                    "join".to_owned()
                }
                Output::Accept => "accept".to_owned(),
                Output::Submit { ticket, command } => {
                    self.new_ticket(ticket);
                    self.command = Some(command);
                    "submit".to_owned()
                }
                Output::LoadChanges { ticket, after, limit, .. } => {
                    assert_eq!(limit, LOG_WINDOW);
                    self.new_ticket(ticket);
                    format!("changes after {after}")
                }
                Output::LoadHistory { ticket, before, limit, .. } => {
                    self.new_ticket(ticket);
                    before.map_or(format!("newest {limit}"), |before| format!("{limit} before {before}"))
                }
                Output::Send(frame) => shown(&frame),
                Output::GoLive { room, at } => {
                    assert_eq!(room, ROOM);
                    format!("live {at}")
                }
                Output::Signal(_) => "signal".to_owned(),
                Output::Listen { .. } => {
                    self.listens += 1;
                    continue;
                }
                Output::Leave { .. } => "leave".to_owned(),
                Output::Close(code) => {
                    assert_eq!(self.consumer.poll_output(), None, "closing is the last output");
                    format!("close {}", code.number())
                }
            });
        }
        said
    }

    fn new_ticket(&mut self, ticket: Ticket) {
        assert!(ticket > self.ticket, "tickets are never used twice");
        self.ticket = ticket;
    }

    pub(super) fn member(&mut self, seq: u64) -> Vec<String> {
        let membership = Some(Membership { role: Role::Member });
        self.consumer.handle_member(self.ticket, Ok(MemberAnswer { membership, head: head(seq) }));
        self.said()
    }

    pub(super) fn joined(&mut self, seq: u64) -> Vec<String> {
        self.consumer.handle_joined(self.ticket, JoinAnswer::Joined(at(seq)));
        self.said()
    }

    pub(super) fn changes(&mut self, answer: Changes) -> Vec<String> {
        self.consumer.handle_changes(self.ticket, Ok(answer));
        self.said()
    }

    pub(super) fn history(&mut self, answer: History) -> Vec<String> {
        self.consumer.handle_history(self.ticket, Ok(answer));
        self.said()
    }

    pub(super) fn frame(&mut self, text: &str) -> Vec<String> {
        self.frame_at(text, 1_000)
    }

    pub(super) fn frame_at(&mut self, text: &str, now: u64) -> Vec<String> {
        self.consumer.handle_frame(text, Millis(now));
        self.said()
    }

    /// The token of the message at a place.
    pub(super) fn token(&self, pos: u64) -> String {
        self.rules.encoder.keyring().seal(Kind::Message, message(pos, None).id.get())
    }
}

/// A frame in short: what a client needs of it.
fn shown(frame: &Frame) -> String {
    let value: serde_json::Value = serde_json::from_str(frame.as_str()).unwrap();
    let text = |key: &str| match &value[key] {
        serde_json::Value::String(text) => format!(" {text}"),
        serde_json::Value::Null => String::new(),
        other => format!(" {other}"),
    };
    let client_id = text("client_id");
    match value["type"].as_str().unwrap() {
        "error" => format!("error{}{client_id}", text("code")),
        "ack" => format!("ack{client_id}{}/{}", text("seq"), value["pos"]),
        "history" => {
            let messages = value["messages"].as_array().unwrap();
            let more = if value["more"] == true { " more" } else { "" };
            format!("history of {}{}{client_id}{more}", messages.len(), text("cursor"))
        }
        kind @ ("resumed" | "reset") => format!("{kind}{}", text("cursor")),
        kind => format!("{kind}{}/{}{}", text("seq"), value["pos"], text("message")),
    }
}
