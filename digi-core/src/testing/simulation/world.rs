//! The world around the nodes: virtual time, network, layer, store, and everything that goes wrong with them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use fastrand::Rng;

use super::Report;
use super::client::Client;
use super::node::{Answer, Ask, Effect, Node};
use super::oracle;
use crate::consumer::{ConsumerLimits, Rate, Rules, Scope};
use crate::error::CloseCode;
use crate::event::{Envelope, Event};
use crate::frame::{Encoder, Frame};
use crate::id::{Millis, RoomId, Seq, UserKey};
use crate::room::SessionId;
use crate::store::StoreError;
use crate::store::memory::MemoryState;
use crate::store::model::{Action, Authority, Batch, Command, LOG_WINDOW, MemberOp, NewRoom, Outcome, Role};
use crate::token::{Keyring, Kind};

/// What a run is to dwell on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Profile {
    /// All faults together, each as often as the seed says.
    Everything,
    /// Transactions stall while their senders give up and send again through another node.
    StalledResend,
    /// Three nodes, one of them cut off from the layer, and a backup is restored.
    RestorePartitioned,
    /// Members are removed and let in again while their sessions are open.
    Membership,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Everything, Self::StalledResend, Self::RestorePartitioned, Self::Membership];
}

/// How often things go wrong, in thousandths.
struct Faults {
    layer_lost: u32,
    layer_doubled: u32,
    layer_delay: u64,
    read_failed: u32,
    apply_failed: u32,
    apply_unknown: u32,
    apply_stalled: u32,
    kill: u32,
    cut: u32,
    membership: u32,
    restore: u32,
}

enum Happening {
    Act(usize),
    Up(SessionId, String),
    Hangup(SessionId),
    Down(usize, SessionId, Frame),
    Closed(usize, SessionId, CloseCode),
    ConnectionLost(usize, SessionId),
    Layer(usize, u64, Envelope),
    Tick(usize, u64, RoomId),
    CompareHeads(usize, u64),
    Execute { node: usize, life: u64, store_life: u64, ask: Ask, lost: bool },
    Answer(usize, u64, Ask, Answer),
    PauseOver(usize, u64),
    Fault,
    Restart(usize),
    Quiet,
}

struct Slot {
    node: Option<Node>,
    /// Counts the lives: what was meant for an earlier one is dropped.
    life: u64,
    cut_off: bool,
    ticks: HashMap<RoomId, Millis>,
}

pub(super) struct World {
    rng: Rng,
    profile: Profile,
    faults: Faults,
    now: Millis,
    agenda: BTreeMap<(Millis, u64), Happening>,
    scheduled: u64,
    slots: Vec<Slot>,
    clients: Vec<Client>,
    sessions: HashMap<SessionId, (usize, usize)>,
    rooms: Vec<RoomId>,
    rules: Arc<Rules>,
    store: MemoryState,
    store_life: u64,
    backup: Option<MemoryState>,
    lost: HashSet<String>,
    /// When somebody's membership of a room began or ended.
    member_changes: HashMap<(RoomId, UserKey), Vec<(Millis, MemberOp, Seq)>>,
    quiet_at: Millis,
    next_number: u64,
    report: Report,
}

const START: Millis = Millis(1_000_000);

/// After the last fault and message, everything must be in order within this time.
const SETTLING: u64 = 40_000;

const COMPARE_EVERY: u64 = 2_000;

impl World {
    pub(super) fn new(seed: u64, profile: Profile) -> Self {
        let mut rng = Rng::with_seed(seed ^ (profile as u64) << 56);
        let everything = profile == Profile::Everything;
        let some = |rng: &mut Rng, most: u32| if rng.bool() { rng.u32(0..=most) } else { 0 };
        let faults = Faults {
            layer_lost: some(&mut rng, 300),
            layer_doubled: some(&mut rng, 200),
            layer_delay: if rng.bool() { rng.u64(1..600) } else { 5 },
            read_failed: if everything { some(&mut rng, 50) } else { 0 },
            apply_failed: if everything { some(&mut rng, 80) } else { 0 },
            apply_unknown: if everything { some(&mut rng, 150) } else { 0 },
            apply_stalled: if profile == Profile::StalledResend { 250 } else { some(&mut rng, 60) },
            kill: if everything { some(&mut rng, 150) } else { 0 },
            cut: if profile == Profile::RestorePartitioned { 400 } else { some(&mut rng, 200) },
            membership: if profile == Profile::Membership { 600 } else { some(&mut rng, 200) },
            restore: if profile == Profile::RestorePartitioned { 300 } else { some(&mut rng, 60) },
        };
        let nodes = match profile {
            Profile::RestorePartitioned => 3,
            Profile::StalledResend => 2,
            _ => rng.usize(1..=3),
        };
        let keyring = Keyring::new([7_u8; 32]).expect("32 bytes are a key");
        let mut rules = Rules::new(Encoder::new(keyring));
        rules.limits = ConsumerLimits {
            frames: Rate { per_second: 0, burst: 1 },
            refusals: Rate { per_second: 0, burst: 1 },
            reset_history: 5,
            ..ConsumerLimits::default()
        };
        let rules = Arc::new(rules);
        let rooms: Vec<_> = (1..=rng.i64(1..=2)).map(RoomId).collect();
        let users = rng.usize(2..=4);
        let clients: Vec<_> = (0..rng.usize(2..=6))
            .map(|at| {
                let user = UserKey::from((at % users).to_string());
                Client::new(user, rooms[at % rooms.len()], format!("client{at}"), rng.u32(0..6) == 0)
            })
            .collect();
        let mut store = MemoryState::default();
        for room in &rooms {
            let role = |user: usize| if user == 0 { Role::Moderator } else { Role::Member };
            let members =
                (0..users).map(|user| (UserKey::from(user.to_string()), format!("user{user}").into(), role(user)));
            let new = NewRoom { id: Some(*room), members: members.collect(), ..NewRoom::default() };
            store.create_room(&new, START).expect("the room is new");
        }
        let slots = (0..nodes)
            .map(|at| Slot {
                node: Some(Node::new(rules.clone(), at as u64)),
                life: 0,
                cut_off: false,
                ticks: HashMap::new(),
            })
            .collect();
        let quiet_at = START.plus(rng.u64(2_000..9_000));
        let mut world = Self {
            rng,
            profile,
            faults,
            now: START,
            agenda: BTreeMap::new(),
            scheduled: 0,
            slots,
            clients,
            sessions: HashMap::new(),
            rooms,
            rules,
            store,
            store_life: 0,
            backup: None,
            lost: HashSet::new(),
            member_changes: HashMap::new(),
            quiet_at,
            next_number: 1_000,
            report: Report::default(),
        };
        for client in 0..world.clients.len() {
            world.after(0, 50, Happening::Act(client));
        }
        for node in 0..nodes {
            world.after(0, COMPARE_EVERY, Happening::CompareHeads(node, 0));
        }
        world.after(100, 300, Happening::Fault);
        world.schedule(quiet_at, Happening::Quiet);
        world
    }

    pub(super) fn run(mut self) -> Result<Report, String> {
        let end = self.quiet_at.plus(SETTLING);
        while let Some(((at, _), happening)) = self.agenda.pop_first() {
            if at > end {
                break;
            }
            self.now = at;
            self.happen(happening).map_err(|what| format!("at {} ms: {what}", at.0 - START.0))?;
        }
        let lost = &self.lost;
        oracle::check(&self.clients, &self.store, &self.rooms, &self.rules.encoder, |id| lost.contains(id))?;
        self.report.frames = self.clients.iter().map(|client| client.frames).sum();
        Ok(self.report)
    }

    fn schedule(&mut self, at: Millis, happening: Happening) {
        self.scheduled += 1;
        self.agenda.insert((at, self.scheduled), happening);
    }

    fn after(&mut self, least: u64, most: u64, happening: Happening) {
        let at = self.now.plus(self.rng.u64(least..=most));
        self.schedule(at, happening);
    }

    fn chance(&mut self, thousandths: u32) -> bool {
        self.now < self.quiet_at && self.rng.u32(0..1_000) < thousandths
    }

    fn is_quiet(&self) -> bool {
        self.now >= self.quiet_at
    }

    fn happen(&mut self, happening: Happening) -> Result<(), String> {
        let now = self.now;
        match happening {
            Happening::Act(client) => self.act(client),
            Happening::Up(session, text) => self.on_session(session, |node| node.frame(session, &text, now)),
            Happening::Hangup(session) => {
                self.on_session(session, |node| node.disconnect(session, now));
                self.sessions.remove(&session);
            }
            Happening::Down(client, session, frame) => {
                if self.connection_is(client, session) {
                    self.check_membership_of_reader(client, &frame)?;
                    for reply in self.clients[client].receive(frame.as_str(), now)? {
                        self.send_up(client, reply);
                    }
                }
            }
            Happening::Closed(client, session, code) => self.closed(client, session, code)?,
            Happening::ConnectionLost(client, session) => {
                if self.connection_is(client, session) {
                    self.clients[client].connection = None;
                }
            }
            Happening::Layer(node, life, envelope) => self.on_node(node, life, |node| node.layer(envelope, now)),
            Happening::Tick(node, life, room) => {
                self.slots[node].ticks.remove(&room);
                self.on_node(node, life, |node| node.tick(room, now));
            }
            Happening::CompareHeads(node, life) => {
                if self.slots[node].life == life {
                    self.on_node(node, life, Node::compare_heads);
                    self.schedule(now.plus(COMPARE_EVERY), Happening::CompareHeads(node, life));
                }
            }
            Happening::Execute { node, life, store_life, ask, lost } => self.execute(node, life, store_life, ask, lost),
            Happening::Answer(node, life, ask, answer) => {
                self.on_node(node, life, |node| node.answer(ask, answer, now))
            }
            Happening::PauseOver(node, life) => self.on_node(node, life, |node| node.pause_over(now)),
            Happening::Fault => self.fault(),
            Happening::Restart(node) => self.restart(node),
            Happening::Quiet => self.quiet(),
        }
        Ok(())
    }

    fn connection_is(&self, client: usize, session: SessionId) -> bool {
        self.clients[client].connection.as_ref().is_some_and(|connection| connection.session == session)
    }

    fn on_session(&mut self, session: SessionId, what: impl FnOnce(&mut Node)) {
        if let Some((_, node)) = self.sessions.get(&session).copied() {
            let life = self.slots[node].life;
            self.on_node(node, life, what);
        }
    }

    fn on_node(&mut self, at: usize, life: u64, what: impl FnOnce(&mut Node)) {
        if self.slots[at].life != life {
            return;
        }
        let Some(mut node) = self.slots[at].node.take() else { return };
        what(&mut node);
        while let Some(effect) = node.effects.pop_front() {
            self.effect(at, &mut node, effect);
        }
        for (room, wakeup) in node.wakeups() {
            let planned = self.slots[at].ticks.get(&room).copied();
            if planned.is_none_or(|planned| planned > wakeup) {
                self.slots[at].ticks.insert(room, wakeup);
                self.schedule(wakeup.max(self.now), Happening::Tick(at, life, room));
            }
        }
        self.slots[at].node = Some(node);
    }

    fn effect(&mut self, at: usize, node: &mut Node, effect: Effect) {
        let life = self.slots[at].life;
        match effect {
            Effect::Ask(ask) => self.ask(at, node, ask),
            Effect::Publish(envelope) => self.publish(at, &envelope),
            Effect::ToClient(session, frame) => {
                let Some((client, _)) = self.sessions.get(&session).copied() else { return };
                let arrives = self.now.plus(self.rng.u64(1..30));
                if let Some(connection) = self.clients[client].connection.as_mut().filter(|c| c.session == session) {
                    connection.down_until = connection.down_until.max(arrives);
                    let at = connection.down_until;
                    self.schedule(at, Happening::Down(client, session, frame));
                }
            }
            Effect::CloseClient(session, code) => {
                if let Some((client, _)) = self.sessions.remove(&session) {
                    let at = self.clients[client].connection.as_ref().map_or(self.now, |c| c.down_until.max(self.now));
                    self.schedule(at.plus(1), Happening::Closed(client, session, code));
                }
            }
            Effect::Pause(ms) => self.schedule(self.now.plus(ms), Happening::PauseOver(at, life)),
        }
    }

    fn publish(&mut self, from: usize, envelope: &Envelope) {
        let Envelope::Event(event) = envelope else { return };
        if self.slots[from].cut_off {
            return;
        }
        for to in 0..self.slots.len() {
            let hears = self.slots[to].node.as_ref().is_some_and(|node| node.hears(event.room));
            if to == from || self.slots[to].cut_off || !hears || self.chance(self.faults.layer_lost) {
                continue;
            }
            let copies = if self.chance(self.faults.layer_doubled) { 2 } else { 1 };
            for _ in 0..copies {
                let life = self.slots[to].life;
                self.after(1, self.faults.layer_delay.max(1), Happening::Layer(to, life, envelope.clone()));
            }
        }
    }

    // ── the store ───────────────────────────────────────────────────────────────────────────────────────────────

    fn ask(&mut self, at: usize, node: &mut Node, ask: Ask) {
        let (life, store_life) = (self.slots[at].life, self.store_life);
        let unavailable = || StoreError::Unavailable("simulated".into());
        if let Ask::Apply(batch) = &ask {
            if testing_bug!(BroadcastBeforeCommit) {
                self.announce_early(node, batch);
            }
            if self.chance(self.faults.apply_failed) {
                return self.after(1, 40, Happening::Answer(at, life, ask, Answer::Applied(Err(unavailable()))));
            }
            if self.chance(self.faults.apply_unknown) {
                self.report.unknown_commits += 1;
                let unknown = Answer::Applied(Err(StoreError::Unknown("simulated".into())));
                self.after(1, 200, Happening::Answer(at, life, ask.clone(), unknown));
                let (least, most) = [(0, 1), (100, 3_000)][self.rng.usize(0..2)];
                if self.rng.u32(0..3) > 0 {
                    self.after(least, most, Happening::Execute { node: at, life, store_life, ask, lost: true });
                }
                return;
            }
            if self.chance(self.faults.apply_stalled) {
                return self.after(500, 4_000, Happening::Execute { node: at, life, store_life, ask, lost: false });
            }
        } else if self.chance(self.faults.read_failed) {
            let answer = self.failed(&ask);
            return self.after(1, 40, Happening::Answer(at, life, ask, answer));
        }
        self.after(0, 15, Happening::Execute { node: at, life, store_life, ask, lost: false });
    }

    fn failed(&self, ask: &Ask) -> Answer {
        let error = StoreError::Unavailable("simulated".into());
        match ask {
            Ask::Member { .. } => Answer::Member(Err(error)),
            Ask::Changes { .. } | Ask::Log { .. } => Answer::Changes(Err(error)),
            Ask::History { .. } => Answer::History(Err(error)),
            Ask::Raise { .. } => Answer::Head(Err(error)),
            Ask::Heads { .. } => Answer::Heads(Err(error)),
            Ask::Apply(_) => Answer::Applied(Err(StoreError::Unknown("the database was restored".into()))),
            Ask::Void(_) => Answer::Void(Err(error)),
        }
    }

    /// The moment at which the store does what it was asked.
    fn execute(&mut self, node: usize, life: u64, store_life: u64, ask: Ask, lost: bool) {
        let store = &mut self.store;
        let answer = if store_life != self.store_life {
            self.failed(&ask)
        } else {
            match &ask {
                Ask::Member { room, user, .. } => Answer::Member(store.member(*room, user)),
                Ask::Changes { room, after, limit, .. } => Answer::Changes(store.changes(*room, *after, *limit)),
                Ask::History { room, before, limit, .. } => Answer::History(store.history(*room, *before, *limit)),
                Ask::Log { room, after, .. } => Answer::Changes(store.changes(*room, *after, LOG_WINDOW)),
                Ask::Raise { room, seen } => Answer::Head(store.raise_epoch(*room, *seen, self.now)),
                Ask::Heads { rooms } => {
                    let ids: Vec<_> = rooms.iter().map(|(id, _)| *id).collect();
                    Answer::Heads(Ok(store.heads(&ids)))
                }
                Ask::Void(id) => Answer::Void(store.void(*id)),
                Ask::Apply(batch) => {
                    let before = store.heads(&self.rooms);
                    let answer = store.apply(batch);
                    let after = store.heads(&self.rooms);
                    self.report.resets +=
                        before.iter().zip(&after).filter(|(b, a)| b.1.epoch < a.1.epoch).count() as u64;
                    if let Ok(applied) = &answer {
                        self.note(batch, &applied.outcomes);
                    }
                    Answer::Applied(answer)
                }
            }
        };
        if !lost {
            self.after(0, 15, Happening::Answer(node, life, ask, answer));
        }
    }

    fn note(&mut self, batch: &Batch, outcomes: &[Outcome]) {
        for (command, outcome) in batch.commands.iter().zip(outcomes) {
            match outcome {
                Outcome::Message { .. } => self.report.committed += 1,
                Outcome::Duplicate { .. } => self.report.duplicates += 1,
                Outcome::Member { op, at, member } => {
                    self.report.committed += 1;
                    let key = (command.room, member.clone());
                    self.member_changes.entry(key).or_default().push((self.now, *op, at.seq));
                    if *op == MemberOp::Joined {
                        let back = self.clients.iter_mut().filter(|c| c.room == command.room && &c.user == member);
                        back.for_each(|client| client.barred = false);
                    }
                }
                Outcome::Unchanged | Outcome::Refused(_) => {}
            }
        }
    }

    fn announce_early(&self, node: &mut Node, batch: &Batch) {
        let Ok(applied) = self.store.clone().apply(batch) else { return };
        for (command, outcome) in batch.commands.iter().zip(&applied.outcomes) {
            if let Some(event) = Event::of(command.room, outcome, &self.rules.encoder) {
                node.announce(event, self.now);
            }
        }
    }

    // ── the clients ─────────────────────────────────────────────────────────────────────────────────────────────

    fn act(&mut self, at: usize) {
        let pace = if self.is_quiet() { (300, 900) } else { (10, 300) };
        self.after(pace.0, pace.1, Happening::Act(at));
        let now = self.now;
        let client = &mut self.clients[at];
        if client.connection.is_none() {
            return if client.barred { () } else { self.connect(at) };
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
    fn change_something(&mut self, at: usize) -> Option<String> {
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

    fn connect(&mut self, at: usize) {
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
        };
        self.sessions.insert(session, (at, node));
        self.report.connections += 1;
        let life = self.slots[node].life;
        self.on_node(node, life, |node| node.connect(session, scope, now));
    }

    fn send_up(&mut self, at: usize, text: String) {
        let arrives = self.now.plus(self.rng.u64(1..30));
        if let Some(connection) = &mut self.clients[at].connection {
            connection.up_until = connection.up_until.max(arrives);
            let (when, session) = (connection.up_until, connection.session);
            self.schedule(when, Happening::Up(session, text));
        }
    }

    /// The client's side of the connection ends; the node hears of it sooner or later.
    fn hang_up(&mut self, at: usize) {
        if let Some(connection) = self.clients[at].connection.take() {
            self.after(1, 1_500, Happening::Hangup(connection.session));
        }
    }

    fn closed(&mut self, at: usize, session: SessionId, code: CloseCode) -> Result<(), String> {
        if !self.connection_is(at, session) {
            return Ok(());
        }
        let client = &mut self.clients[at];
        let Some(connection) = client.connection.take() else { return Ok(()) };
        if matches!(code, CloseCode::Removed | CloseCode::NotAMember) {
            let key = (client.room, client.user.clone());
            let changes = self.member_changes.get(&key).map_or(&[][..], Vec::as_slice);
            // A node may let somebody in by a membership that it remembers, read at what it has shown, and hear only
            // then of a removal from before: at most as late as its next comparison.
            let remembered = Millis(connection.opened.0.saturating_sub(2 * COMPARE_EVERY));
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
    fn check_membership_of_reader(&self, at: usize, frame: &Frame) -> Result<(), String> {
        let client = &self.clients[at];
        let Some(connection) = client.connection.as_ref().filter(|c| c.live) else { return Ok(()) };
        let frame: serde_json::Value = serde_json::from_str(frame.as_str()).map_err(|error| error.to_string())?;
        let is_change = matches!(frame["type"].as_str(), Some("add" | "edit" | "delete"));
        let Some(seq) = frame["seq"].as_u64().filter(|_| is_change && self.report.restores == 0) else { return Ok(()) };
        let changes = self.member_changes.get(&(client.room, client.user.clone())).map_or(&[][..], Vec::as_slice);
        // A replay on this connection may have read the membership anew, so one that was given again counts.
        let removed = changes.iter().any(|(at, op, removed)| {
            let given_again =
                changes.iter().any(|(_, op, given)| *op == MemberOp::Joined && given > removed && given.0 <= seq);
            *op == MemberOp::Left && *at > connection.opened && removed.0 < seq && !given_again
        });
        if removed { Err(format!("{} reads change {seq} after its removal", client.name)) } else { Ok(()) }
    }

    // ── what goes wrong ─────────────────────────────────────────────────────────────────────────────────────────

    fn fault(&mut self) {
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
            let heal = self.slots[node].cut_off;
            if !(partitioned && heal) {
                self.cut(node, !heal);
            }
        }
        if self.chance(self.faults.membership) {
            self.change_membership();
        }
        if self.backup.is_none() && self.rng.bool() {
            self.backup = Some(self.store.clone());
        }
        if self.chance(self.faults.restore) {
            self.restore();
        }
    }

    fn kill(&mut self, node: usize) {
        if self.slots[node].node.take().is_none() {
            return;
        }
        self.report.kills += 1;
        self.slots[node].life += 1;
        self.slots[node].ticks.clear();
        for at in 0..self.clients.len() {
            if let Some(session) = self.clients[at].connection.as_ref().filter(|c| c.node == node).map(|c| c.session) {
                self.sessions.remove(&session);
                self.after(1, 300, Happening::ConnectionLost(at, session));
            }
        }
        self.after(200, 2_000, Happening::Restart(node));
    }

    fn restart(&mut self, node: usize) {
        if self.slots[node].node.is_none() {
            self.next_number += 1;
            self.slots[node].node = Some(Node::new(self.rules.clone(), self.next_number));
            let life = self.slots[node].life;
            self.after(0, COMPARE_EVERY, Happening::CompareHeads(node, life));
        }
    }

    fn cut(&mut self, node: usize, cut_off: bool) {
        self.slots[node].cut_off = cut_off;
        // A subscriber that comes back says so; one whose connection looked alive all the time does not.
        if !cut_off && self.rng.bool() {
            let (life, now) = (self.slots[node].life, self.now);
            self.on_node(node, life, |node| node.lagged(now));
        }
    }

    fn change_membership(&mut self) {
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
    fn restore(&mut self) {
        let Some(mut backup) = self.backup.take() else { return };
        self.report.restores += 1;
        let old = std::mem::take(&mut self.store);
        for room in &self.rooms {
            for message in old.history(*room, None, u32::MAX).map(|page| page.messages).unwrap_or_default() {
                self.lost.extend(message.client_id.map(|id| id.as_str().to_owned()));
            }
        }
        // What the fleet notices by itself: every node that serves the room has seen far more than is there.
        let noticed = self.rooms.iter().all(|room| {
            let head = backup.heads(&[*room])[0].1;
            let up = || self.slots.iter().filter_map(|slot| slot.node.as_ref());
            let far_behind = |node: &Node| node.highest(*room).is_some_and(|seen| seen.seq.0 > head.last_seq.0 + 20);
            up().next().is_some() && up().all(far_behind)
        });
        if !noticed || self.rng.bool() {
            // Otherwise the operator says so.
            backup.raise_all(self.now);
            self.report.resets += 1;
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

    fn unbar_members(&mut self) {
        for client in &mut self.clients {
            let answer = self.store.member(client.room, &client.user);
            if answer.is_ok_and(|answer| answer.membership.is_some()) {
                client.barred = false;
            }
        }
    }

    /// From here on nothing new goes wrong.
    fn quiet(&mut self) {
        for node in 0..self.slots.len() {
            self.restart(node);
            if self.slots[node].cut_off {
                self.cut(node, false);
            }
        }
        self.unbar_members();
    }
}
