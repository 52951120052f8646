//! What the simulated clients do, and what they must never see.

use super::*;

impl World {
    pub(super) fn act(&mut self, at: usize) {
        let pace = if self.is_quiet() { (300, 900) } else { (10, 300) };
        self.after(pace.0, pace.1, Happening::Act(at));
        let now = self.now;
        let client = &mut self.clients[at];
        if client.connection.is_none() {
            if !client.barred {
                self.connect(at);
            }
            return;
        }
        let tired = client.pending.front().is_some_and(|pending| pending.since.plus(1_500) < now);
        if tired {
            return self.hang_up(at);
        }
        if self.is_quiet() {
            return;
        }
        let texts = match self.rng.u32(0..100) {
            0..60 => {
                let some = self.rng.usize(1..4);
                (0..some).filter_map(|_| self.clients[at].write(now)).collect()
            }
            60..78 => self.change_something(at).into_iter().collect(),
            78..84 => self.clients[at].ask_older().into_iter().collect(),
            84..88 => self.clients[at].ask_resume().into_iter().collect(),
            88..91 => vec!["{\"type\":\"add\",\"message\":7}".to_owned()],
            91..95 => return self.hang_up(at),
            _ => Vec::new(),
        };
        for text in texts {
            self.send_up(at, text);
        }
    }

    /// An edit or a deletion, mostly of an own message.
    pub(super) fn change_something(&mut self, at: usize) -> Option<String> {
        let client = &self.clients[at];
        if !client.connection.as_ref().is_some_and(|connection| connection.live) || client.messages.is_empty() {
            return None;
        }
        let index = self.rng.usize(0..client.messages.len());
        let (pos, view) = client.messages.iter().nth(index)?;
        let frame = if self.rng.u32(0..3) == 0 {
            serde_json::json!({"type": "delete", "message_id": view.token})
        } else {
            let text = format!("{pos} edited {}", self.rng.u32(0..1_000_000));
            serde_json::json!({"type": "edit", "message_id": view.token, "message": text})
        };
        Some(frame.to_string())
    }

    pub(super) fn connect(&mut self, at: usize) {
        let up: Vec<_> = (0..self.slots.len()).filter(|node| self.slots[*node].node.is_some()).collect();
        if up.is_empty() {
            return;
        }
        let node = up[self.rng.usize(0..up.len())];
        self.next_number += 1;
        let session = SessionId(self.next_number);
        let now = self.now;
        let client = &mut self.clients[at];
        client.connected(session, node, now);
        let scope = Scope {
            token: self.rules.encoder.keyring().seal(Kind::Room, client.room.get()),
            user: client.user.clone(),
            user_name: format!("user{}", client.user).into(),
            after: client.cursor.filter(|_| !client.classic).map(|cursor| cursor.to_string()),
            origin: None,
            remote: None,
            login: None,
        };
        self.sessions.insert(session, (at, node));
        self.report.connections += 1;
        let life = self.slots[node].life;
        self.on_node(node, life, |node| node.connect(session, scope, now));
    }

    pub(super) fn send_up(&mut self, at: usize, text: String) {
        let arrives = self.now.plus(self.rng.u64(1..30));
        if let Some(connection) = &mut self.clients[at].connection {
            connection.up_until = connection.up_until.max(arrives);
            let (when, session) = (connection.up_until, connection.session);
            self.schedule(when, Happening::Up(session, text));
        }
    }

    /// The client's side of the connection ends; the node hears of it sooner or later.
    pub(super) fn hang_up(&mut self, at: usize) {
        if let Some(connection) = self.clients[at].connection.take() {
            self.after(1, 1_500, Happening::Hangup(connection.session));
        }
    }

    pub(super) fn closed(&mut self, at: usize, session: SessionId, code: CloseCode) -> Result<(), String> {
        if !self.connection_is(at, session) {
            return Ok(());
        }
        let client = &mut self.clients[at];
        let Some(connection) = client.connection.take() else { return Ok(()) };
        if code == CloseCode::Kicked && self.report.kicks > 0 {
            // Whoever was kicked comes back, as after a new log-in.
        } else if matches!(code, CloseCode::Removed | CloseCode::NotAMember) {
            let key = (client.room, client.user.clone());
            let changes = self.member_changes.get(&key).map_or(&[][..], Vec::as_slice);
            // A node may let somebody in by a membership that it remembers, read at what it has shown, and hear only
            // then of a removal from before: at most as late as its next comparison.
            let compared = if self.profile == Profile::Layer { SETTLING_BY_LAYER } else { 2 * COMPARE_EVERY };
            let remembered = Millis(connection.opened.0.saturating_sub(compared));
            let gone = changes.iter().any(|(at, op, _)| *op == MemberOp::Left && *at >= remembered);
            let gone_before =
                changes.iter().rfind(|(at, ..)| *at < connection.opened).is_some_and(|c| c.1 == MemberOp::Left);
            if !gone && !gone_before && self.report.restores == 0 {
                return Err(format!("{} was closed with {code} and is a member", client.name));
            }
            let is_member =
                self.store.member(client.room, &client.user).is_ok_and(|answer| answer.membership.is_some());
            client.barred = !is_member;
        } else if !code.may_reconnect() {
            return Err(format!("{} was closed with {code}", client.name));
        }
        Ok(())
    }

    /// Nobody reads live what came after the end of the membership under which the session was opened.
    pub(super) fn check_membership_of_reader(&self, at: usize, frame: &Frame) -> Result<(), String> {
        let client = &self.clients[at];
        let Some(connection) = client.connection.as_ref().filter(|c| c.live) else { return Ok(()) };
        let frame: serde_json::Value = serde_json::from_str(frame.as_str()).map_err(|error| error.to_string())?;
        let is_change = matches!(frame["type"].as_str(), Some("add" | "edit" | "delete"));
        let Some(seq) = frame["seq"].as_u64().filter(|_| is_change && self.report.restores == 0) else { return Ok(()) };
        let changes = self.member_changes.get(&(client.room, client.user.clone())).map_or(&[][..], Vec::as_slice);
        // A replay on this connection may have read the membership anew, so one that was given again counts.
        let removed = changes.iter().any(|(at, op, removed)| {
            let given_again = changes.iter().any(|(at, op, given)| {
                *op == MemberOp::Joined && given > removed && (given.0 <= seq || *at < connection.live_since)
            });
            *op == MemberOp::Left && *at > connection.opened && removed.0 < seq && !given_again
        });
        if removed { Err(format!("{} reads change {seq} after its removal", client.name)) } else { Ok(()) }
    }
}
