//! Nodes that die, layers that part, members that go, backups that come back.

use super::*;

impl World {
    pub(super) fn fault(&mut self) {
        if self.is_quiet() {
            return;
        }
        self.after(100, 600, Happening::Fault);
        if self.chance(self.faults.kill) {
            let node = self.rng.usize(0..self.slots.len());
            self.kill(node);
        }
        if self.chance(self.faults.cut) {
            let partitioned = self.profile == Profile::RestorePartitioned;
            let node = if partitioned { 2 } else { self.rng.usize(0..self.slots.len()) };
            let heal = self.slots[node].deaf || self.slots[node].mute;
            if heal && !partitioned {
                self.rejoin(node);
            } else if !heal {
                let (deaf, mute) = [(true, true), (true, false), (false, true)][self.rng.usize(0..3)];
                self.cut(node, partitioned || deaf, partitioned || mute);
            }
        }
        if self.chance(self.faults.outage) {
            for node in 0..self.slots.len() {
                self.cut(node, true, true);
            }
        }
        if self.chance(self.faults.kick) {
            self.kick();
        }
        if self.chance(self.faults.membership) {
            self.change_membership();
        }
        if self.backup.is_none() && self.rng.bool() {
            self.backup = Some(self.store.clone());
            self.trace.note(|| Step::BackedUp);
        }
        if self.chance(self.faults.restore) {
            self.restore();
        }
    }

    pub(super) fn kill(&mut self, node: usize) {
        if self.slots[node].node.take().is_none() {
            return;
        }
        self.report.kills += 1;
        self.slots[node].life += 1;
        self.slots[node].retelling = false;
        self.slots[node].ticks.clear();
        for at in 0..self.clients.len() {
            if let Some(session) = self.clients[at].connection.as_ref().filter(|c| c.node == node).map(|c| c.session) {
                self.sessions.remove(&session);
                self.after(1, 300, Happening::ConnectionLost(at, session));
            }
        }
        self.after(200, 2_000, Happening::Restart(node));
    }

    pub(super) fn restart(&mut self, node: usize) {
        if self.slots[node].node.is_none() {
            self.next_number += 1;
            self.slots[node].node = Some(Node::new(self.rules.clone(), self.next_number));
            self.begin_comparing(node);
        }
    }

    pub(super) fn begin_comparing(&mut self, node: usize) {
        if self.profile != Profile::Layer {
            let life = self.slots[node].life;
            self.after(0, COMPARE_EVERY, Happening::CompareHeads(node, life));
        }
    }

    pub(super) fn cut(&mut self, node: usize, deaf: bool, mute: bool) {
        self.report.outages += 1;
        self.slots[node].deaf |= deaf;
        self.slots[node].mute |= mute;
    }

    /// The layer carries for the node again, in both directions.
    pub(super) fn rejoin(&mut self, node: usize) {
        let was_deaf = std::mem::take(&mut self.slots[node].deaf);
        self.slots[node].mute = false;
        // A subscriber that comes back says so; one whose connection looked alive all the time does not.
        if was_deaf && self.rng.u32(0..1_000) < self.faults.layer_honest {
            self.after(0, 100, Happening::Lagged(node, self.slots[node].life));
        }
    }

    pub(super) fn kick(&mut self) {
        let node = self.rng.usize(0..self.slots.len());
        if self.slots[node].node.is_none() {
            return;
        }
        self.report.kicks += 1;
        let user = self.clients[self.rng.usize(0..self.clients.len())].user.clone();
        let theirs = self.clients.iter().filter(|client| client.user == user);
        self.kicked.extend(theirs.filter_map(|client| Some(client.connection.as_ref()?.session)));
        let (life, now) = (self.slots[node].life, self.now);
        self.on_node(node, life, |node| node.kick(&user, now));
    }

    pub(super) fn change_membership(&mut self) {
        let up: Vec<_> = (0..self.slots.len()).filter(|node| self.slots[*node].node.is_some()).collect();
        if up.is_empty() {
            return;
        }
        let node = up[self.rng.usize(0..up.len())];
        let at = self.rng.usize(0..self.clients.len());
        let (room, member) = (self.clients[at].room, self.clients[at].user.clone());
        let is_member = self.store.member(room, &member).is_ok_and(|answer| answer.membership.is_some());
        let remove = Action::RemoveMember { member: member.clone() };
        let role = if self.rng.bool() { Role::Member } else { Role::Moderator };
        let add = Action::AddMember { member, name: "again".into(), role };
        let actions = match (is_member, self.rng.bool()) {
            (true, true) => vec![remove, add],
            (true, false) => vec![remove],
            (false, _) => vec![add],
        };
        let (life, now) = (self.slots[node].life, self.now);
        for action in actions {
            let (user, user_name) = (UserKey::from("host"), "host".into());
            let command = Command { room, user, user_name, authority: Authority::Host, action };
            self.on_node(node, life, |node| node.host(command, now));
        }
    }

    /// The database comes back as it was at the time of the backup.
    pub(super) fn restore(&mut self) {
        let Some(mut backup) = self.backup.take() else { return };
        self.report.restores += 1;
        self.trace.note(|| Step::Restored);
        let old = std::mem::take(&mut self.store);
        for room in &self.rooms {
            for message in old.history(*room, None, u32::MAX).map(|page| page.messages).unwrap_or_default() {
                self.lost.extend(message.client_id.map(|id| id.as_str().to_owned()));
            }
        }
        // What the fleet notices by itself: every node that serves the room has seen well beyond what is there.
        let noticed = self.rooms.iter().all(|room| {
            let head = backup.heads(&[*room])[0].1;
            let up = || self.slots.iter().filter_map(|slot| slot.node.as_ref());
            let far_behind = |node: &Node| node.highest(*room).is_some_and(|seen| seen.seq.0 > head.last_seq.0 + 5);
            up().next().is_some() && up().all(far_behind)
        });
        if !noticed || self.rng.bool() {
            // Otherwise the operator says so.
            backup.raise_all(self.now);
            self.trace.note(|| Step::RaisedAll(self.now));
            self.report.resets += 1;
        } else {
            self.report.noticed += 1;
        }
        for room in &self.rooms {
            for message in backup.history(*room, None, u32::MAX).map(|page| page.messages).unwrap_or_default() {
                if let Some(id) = message.client_id {
                    self.lost.remove(id.as_str());
                }
            }
        }
        self.store = backup;
        self.store_life += 1;
        // The connections broke, and a node whose store comes back compares at once.
        for node in 0..self.slots.len() {
            let life = self.slots[node].life;
            self.on_node(node, life, Node::compare_heads);
        }
        self.unbar_members();
    }

    pub(super) fn unbar_members(&mut self) {
        for client in &mut self.clients {
            let answer = self.store.member(client.room, &client.user);
            if answer.is_ok_and(|answer| answer.membership.is_some()) {
                client.barred = false;
            }
        }
    }

    /// From here on nothing new goes wrong.
    pub(super) fn quiet(&mut self) {
        for node in 0..self.slots.len() {
            self.restart(node);
            self.rejoin(node);
        }
        self.unbar_members();
    }
}
