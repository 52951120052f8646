//! A simulated browser: it keeps what a page would keep, by the rules of the protocol, and notices what must not be.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use serde::Deserialize;

use crate::id::{Cursor, Millis, RoomId, UserKey};
use crate::room::SessionId;

/// A message as the page shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct View {
    /// The change that this state is known to include.
    pub(super) version: u64,
    pub(super) token: String,
    pub(super) body: Option<String>,
    pub(super) user: String,
}

/// An add that has not been acknowledged.
pub(super) struct Pending {
    pub(super) client_id: String,
    text: String,
    pub(super) since: Millis,
    sent: bool,
}

#[derive(Deserialize)]
struct Incoming {
    #[serde(rename = "type")]
    kind: String,
    message: Option<String>,
    user: Option<String>,
    message_id: Option<String>,
    seq: Option<u64>,
    pos: Option<u64>,
    client_id: Option<String>,
    code: Option<String>,
    cursor: Option<String>,
    through: Option<u64>,
    more: Option<bool>,
    messages: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    message: Option<String>,
    user: String,
    message_id: String,
    pos: u64,
}

/// What a page knows of one connection.
pub(super) struct Connection {
    pub(super) session: SessionId,
    pub(super) node: usize,
    pub(super) opened: Millis,
    /// Whether frames move the cursor: after `resumed`, or the history after a `reset`.
    pub(super) live: bool,
    /// When it went live last: its membership had been read then.
    pub(super) live_since: Millis,
    last_live: u64,
    awaiting_reset_page: bool,
    /// When the last frame towards the node arrives: a connection keeps its order.
    pub(super) up_until: Millis,
    pub(super) down_until: Millis,
}

pub(super) struct Client {
    pub(super) user: UserKey,
    pub(super) room: RoomId,
    pub(super) name: String,
    /// A page with the classic script: no `client_id`, no `resume`, appends every `add`.
    pub(super) classic: bool,
    pub(super) connection: Option<Connection>,
    /// A close code said not to come back (until the membership is given again).
    pub(super) barred: bool,
    pub(super) cursor: Option<Cursor>,
    pub(super) messages: BTreeMap<u64, View>,
    /// From here on every message is loaded; 0 when the oldest page has come.
    pub(super) oldest: u64,
    waiting: Option<String>,
    kept: Vec<(u64, View)>,
    pub(super) pending: VecDeque<Pending>,
    pub(super) acked: HashSet<String>,
    seen_adds: HashMap<String, u64>,
    counter: u64,
    pub(super) frames: u64,
}

impl Client {
    pub(super) fn new(user: UserKey, room: RoomId, name: String, classic: bool) -> Self {
        Self {
            user,
            room,
            name,
            classic,
            connection: None,
            barred: false,
            cursor: None,
            messages: BTreeMap::new(),
            oldest: u64::MAX,
            waiting: None,
            kept: Vec::new(),
            pending: VecDeque::new(),
            acked: HashSet::new(),
            seen_adds: HashMap::new(),
            counter: 0,
            frames: 0,
        }
    }

    pub(super) fn connected(&mut self, session: SessionId, node: usize, now: Millis) {
        self.waiting = None;
        self.kept.clear();
        self.seen_adds.clear();
        for pending in &mut self.pending {
            pending.since = now;
        }
        self.connection = Some(Connection {
            session,
            node,
            opened: now,
            live: false,
            live_since: now,
            last_live: 0,
            awaiting_reset_page: false,
            up_until: now,
            down_until: now,
        });
    }

    /// Writes a message; the frame is to be sent if the connection is ready for it.
    pub(super) fn write(&mut self, now: Millis) -> Option<String> {
        self.counter += 1;
        let text = format!("{}-{}", self.name, self.counter);
        let ready = self.connection.as_ref().is_some_and(|connection| connection.live);
        if self.classic {
            return ready.then(|| serde_json::json!({"type": "add", "message": text, "user": "somebody"}).to_string());
        }
        let client_id = format!("c-{text}");
        let frame = add_frame(&client_id, &text, false);
        self.pending.push_back(Pending { client_id, text, since: now, sent: ready });
        ready.then_some(frame)
    }

    pub(super) fn ask_older(&mut self) -> Option<String> {
        let live = self.connection.as_ref().is_some_and(|connection| connection.live);
        if !live || self.waiting.is_some() || self.oldest == 0 || self.classic {
            return None;
        }
        Some(self.ask_page())
    }

    pub(super) fn ask_resume(&mut self) -> Option<String> {
        let connection = self.connection.as_mut().filter(|connection| connection.live)?;
        let cursor = self.cursor.filter(|_| !self.classic)?;
        connection.live = false;
        Some(serde_json::json!({"type": "resume", "after": cursor.to_string()}).to_string())
    }

    fn ask_page(&mut self) -> String {
        self.counter += 1;
        let name = format!("page-{}", self.counter);
        self.waiting = Some(name.clone());
        let mut frame = serde_json::json!({"type": "history", "limit": 7, "client_id": name});
        if self.oldest != u64::MAX {
            frame["before"] = self.oldest.into();
        }
        frame.to_string()
    }

    /// Takes a frame in; gives what to send, or says what must not be.
    pub(super) fn receive(&mut self, text: &str, now: Millis) -> Result<Vec<String>, String> {
        self.frames += 1;
        let frame: Incoming =
            serde_json::from_str(text).map_err(|error| format!("unreadable frame {text}: {error}"))?;
        let missing = || format!("a key is missing in {text}");
        let mut replies = Vec::new();
        match frame.kind.as_str() {
            "resumed" => {
                let cursor: Cursor = frame.cursor.as_deref().and_then(|c| c.parse().ok()).ok_or_else(missing)?;
                if self.cursor.is_some_and(|before| before.epoch == cursor.epoch && before.seq > cursor.seq)
                    && !self.classic
                {
                    return Err(format!("{}: the cursor went back to {cursor}", self.name));
                }
                self.cursor = Some(cursor);
                self.go_live(cursor.seq.0, now);
                self.after_ready(&mut replies, now);
            }
            "reset" => {
                self.cursor = Some(frame.cursor.as_deref().and_then(|c| c.parse().ok()).ok_or_else(missing)?);
                self.messages.clear();
                self.kept.clear();
                self.seen_adds.clear();
                self.oldest = u64::MAX;
                self.waiting = None;
                if let Some(connection) = &mut self.connection {
                    connection.live = false;
                    connection.awaiting_reset_page = true;
                }
            }
            "history" => {
                let through = frame.through.ok_or_else(missing)?;
                let is_reset = frame.client_id.is_none();
                if !is_reset && frame.client_id != self.waiting {
                    return Ok(replies);
                }
                self.waiting = None;
                self.take_page(frame.messages.unwrap_or_default(), through, frame.more.unwrap_or_default());
                let expected = self.connection.as_mut().is_some_and(|c| std::mem::take(&mut c.awaiting_reset_page));
                if is_reset {
                    if !expected {
                        return Err(format!("{}: a history that nobody asked for", self.name));
                    }
                    self.go_live(through, now);
                    self.after_ready(&mut replies, now);
                }
            }
            "add" | "edit" | "delete" => {
                let (seq, pos) = (frame.seq.ok_or_else(missing)?, frame.pos.ok_or_else(missing)?);
                let token = frame.message_id.ok_or_else(missing)?;
                if let Some(connection) = self.connection.as_mut().filter(|connection| connection.live) {
                    if seq <= connection.last_live {
                        let last = connection.last_live;
                        return Err(format!("{}: change {seq} came after {last}", self.name));
                    }
                    connection.last_live = seq;
                    if let Some(cursor) = &mut self.cursor {
                        cursor.seq.0 = seq;
                    }
                }
                if frame.kind == "add" && self.classic {
                    let times = self.seen_adds.entry(token.clone()).or_default();
                    *times += 1;
                    if *times > 1 {
                        return Err(format!("{}: a classic page shows {pos} twice", self.name));
                    }
                }
                let body = if frame.kind == "delete" { None } else { Some(frame.message.ok_or_else(missing)?) };
                let view = View { version: seq, token, body, user: frame.user.ok_or_else(missing)? };
                self.take_change(frame.kind == "add", pos, view);
            }
            "ack" => {
                let client_id = frame.client_id.ok_or_else(missing)?;
                self.pending.retain(|pending| pending.client_id != client_id);
                self.acked.insert(client_id);
            }
            "error" => {
                let code = frame.code.ok_or_else(missing)?;
                if let Some(client_id) = frame.client_id {
                    if self.waiting.as_ref() == Some(&client_id) {
                        replies.push(self.ask_page());
                        return Ok(replies);
                    }
                    match code.as_str() {
                        "store_unavailable" | "busy" => {
                            let again = self.pending.iter_mut().filter(|pending| pending.client_id == client_id);
                            replies.extend(again.map(|pending| add_frame(&pending.client_id, &pending.text, true)));
                        }
                        _ => self.pending.retain(|pending| pending.client_id != client_id),
                    }
                }
            }
            other => return Err(format!("{}: unexpected frame {other}", self.name)),
        }
        Ok(replies)
    }

    /// What a page does once it knows its cursor: load what it lacks, send what waits.
    fn after_ready(&mut self, replies: &mut Vec<String>, now: Millis) {
        if self.classic {
            return;
        }
        if self.oldest == u64::MAX && self.waiting.is_none() {
            replies.push(self.ask_page());
        }
        for pending in &mut self.pending {
            replies.push(add_frame(&pending.client_id, &pending.text, pending.sent));
            pending.sent = true;
            pending.since = now;
        }
    }

    fn go_live(&mut self, from: u64, now: Millis) {
        if let Some(connection) = &mut self.connection {
            connection.live = true;
            connection.live_since = now;
            connection.last_live = from;
        }
    }

    fn take_page(&mut self, entries: Vec<Entry>, through: u64, more: bool) {
        let first = entries.first().map(|entry| entry.pos);
        self.oldest = if more { first.unwrap_or(self.oldest).min(self.oldest) } else { 0 };
        for entry in entries {
            let view = View { version: through, token: entry.message_id, body: entry.message, user: entry.user };
            self.upsert(entry.pos, view);
        }
        for (pos, view) in std::mem::take(&mut self.kept) {
            if view.version > through && pos >= self.oldest {
                self.upsert(pos, view);
            }
        }
    }

    fn take_change(&mut self, is_add: bool, pos: u64, view: View) {
        if is_add || pos >= self.oldest || self.messages.contains_key(&pos) {
            self.upsert(pos, view);
        } else if self.waiting.is_some() {
            self.kept.push((pos, view));
        }
    }

    fn upsert(&mut self, pos: u64, view: View) {
        if self.messages.get(&pos).is_none_or(|known| known.version < view.version) {
            self.messages.insert(pos, view);
        }
    }
}

fn add_frame(client_id: &str, text: &str, resend: bool) -> String {
    serde_json::json!({"type": "add", "message": text, "client_id": client_id, "resend": resend}).to_string()
}
