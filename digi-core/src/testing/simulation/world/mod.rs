//! The world around the nodes: virtual time, network, layer, store, and everything that goes wrong with them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use fastrand::Rng;

use super::Report;
use super::client::Client;
use super::node::{Answer, Ask, Effect, Node};
use super::oracle;
use super::trace::{Step, Trace};
use crate::consumer::{ConsumerLimits, Rate, Rules, Scope};
use crate::error::CloseCode;
use crate::event::{Envelope, Event, Signal};
use crate::frame::{Encoder, Frame};
use crate::id::{Cursor, Millis, RoomId, Seq, UserKey};
use crate::room::SessionId;
use crate::store::StoreError;
use crate::store::memory::MemoryState;
use crate::store::model::{Action, Authority, Batch, Command, LOG_WINDOW, MemberOp, NewRoom, Outcome, Role};
use crate::token::{Keyring, Kind};

mod mishaps;
mod people;
mod storage;

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
    /// The layer is away for some or all, wholly or in one direction, and says so; heads are not compared, so that
    /// only what nodes say of it heals.
    Layer,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Everything, Self::StalledResend, Self::RestorePartitioned, Self::Membership, Self::Layer];
}

/// How often things go wrong, in thousandths.
struct Faults {
    layer_lost: u32,
    layer_doubled: u32,
    /// An old event comes once more, long after.
    layer_stale: u32,
    layer_delay: u64,
    /// A layer that does not take something says so.
    layer_honest: u32,
    read_failed: u32,
    apply_failed: u32,
    apply_unknown: u32,
    apply_stalled: u32,
    kill: u32,
    cut: u32,
    outage: u32,
    kick: u32,
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
    Subscribed(usize, u64, RoomId),
    Lagged(usize, u64),
    Retell(usize, u64),
    Tick(usize, u64, RoomId),
    CompareHeads(usize, u64),
    Execute { node: usize, life: u64, store_life: u64, ask: Ask, lost: bool },
    Answer(usize, u64, Ask, Answer),
    PauseOver(usize, u64),
    Fault,
    Restart(usize),
    Quiet,
}

/// When a membership began or ended, and the number of that change.
type MemberChange = (Millis, MemberOp, Seq);

struct Slot {
    node: Option<Node>,
    /// Counts the lives: what was meant for an earlier one is dropped.
    life: u64,
    /// The layer brings nothing.
    deaf: bool,
    /// The layer takes nothing.
    mute: bool,
    retelling: bool,
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
    member_changes: HashMap<(RoomId, UserKey), Vec<MemberChange>>,
    /// Sessions that were open when their user was kicked.
    kicked: HashSet<SessionId>,
    quiet_at: Millis,
    next_number: u64,
    report: Report,
    trace: Trace,
}

const START: Millis = Millis(1_000_000);

/// After the last fault and message, everything must be in order within this time.
const SETTLING: u64 = 40_000;

/// The same where nodes need not wait for a comparison of heads.
const SETTLING_BY_LAYER: u64 = 12_000;

const COMPARE_EVERY: u64 = 2_000;

impl World {
    pub(super) fn new(seed: u64, profile: Profile, mut trace: Trace) -> Self {
        let mut rng = Rng::with_seed(seed ^ (profile as u64) << 56);
        let everything = profile == Profile::Everything;
        let layer = profile == Profile::Layer;
        let some = |rng: &mut Rng, most: u32| if rng.bool() { rng.u32(0..=most) } else { 0 };
        let faults = Faults {
            layer_lost: if layer { 0 } else { some(&mut rng, 300) },
            layer_doubled: some(&mut rng, 200),
            layer_stale: some(&mut rng, 100),
            layer_honest: if layer { 1_000 } else { rng.u32(0..=1_000) },
            layer_delay: if rng.bool() { rng.u64(1..600) } else { 5 },
            read_failed: if everything { some(&mut rng, 50) } else { 0 },
            apply_failed: if everything { some(&mut rng, 80) } else { 0 },
            apply_unknown: if everything { some(&mut rng, 150) } else { 0 },
            apply_stalled: if profile == Profile::StalledResend { 250 } else { some(&mut rng, 60) },
            kill: if everything { some(&mut rng, 150) } else { 0 },
            cut: match profile {
                Profile::RestorePartitioned => 400,
                Profile::Layer => rng.u32(0..=500),
                _ => some(&mut rng, 200),
            },
            outage: if layer || everything { some(&mut rng, 100) } else { 0 },
            kick: if layer { some(&mut rng, 100) } else { 0 },
            membership: if profile == Profile::Membership { 600 } else { some(&mut rng, 200) },
            restore: match profile {
                Profile::RestorePartitioned => 300,
                Profile::Layer => 0,
                _ => some(&mut rng, 60),
            },
        };
        let nodes = match profile {
            Profile::RestorePartitioned => 3,
            Profile::StalledResend => 2,
            Profile::Layer => rng.usize(2..=3),
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
            trace.note(|| Step::Room(new, START));
        }
        let slots = (0..nodes)
            .map(|at| Slot {
                node: Some(Node::new(rules.clone(), at as u64)),
                life: 0,
                deaf: false,
                mute: false,
                retelling: false,
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
            kicked: HashSet::new(),
            quiet_at,
            next_number: 1_000,
            report: Report::default(),
            trace,
        };
        for client in 0..world.clients.len() {
            world.after(0, 50, Happening::Act(client));
        }
        for node in 0..nodes {
            world.begin_comparing(node);
        }
        world.after(100, 300, Happening::Fault);
        world.schedule(quiet_at, Happening::Quiet);
        world
    }

    pub(super) fn run(&mut self) -> Result<Report, String> {
        let by_layer = self.profile == Profile::Layer;
        let end = self.quiet_at.plus(if by_layer { SETTLING_BY_LAYER } else { SETTLING });
        while let Some(((at, _), happening)) = self.agenda.pop_first() {
            if at > end {
                break;
            }
            self.now = at;
            self.happen(happening).map_err(|what| format!("at {} ms: {what}", at.0 - START.0))?;
        }
        let lost = &self.lost;
        oracle::check(&self.clients, &self.store, &self.rooms, &self.rules.encoder, |id| lost.contains(id))?;
        if let Some(client) =
            self.clients.iter().find(|c| c.connection.as_ref().is_some_and(|c| self.kicked.contains(&c.session)))
        {
            return Err(format!("{} was kicked and is still connected", client.name));
        }
        self.report.frames = self.clients.iter().map(|client| client.frames).sum();
        Ok(self.report)
    }

    /// What was done to the store, and at the end what is in it.
    pub(super) fn into_steps(mut self) -> Vec<Step> {
        self.read_all();
        self.trace.into_steps()
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
            Happening::Subscribed(node, life, room) => self.on_node(node, life, |node| node.subscribed(room, now)),
            Happening::Lagged(node, life) => self.on_node(node, life, Node::compare_heads),
            Happening::Retell(node, life) => {
                if self.slots[node].life == life {
                    self.slots[node].retelling = false;
                    self.on_node(node, life, Node::retell);
                }
            }
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
            // While a node is deaf, it subscribes in vain and is told to look at the log once it hears again.
            Effect::Subscribe(room) => {
                self.after(1, self.faults.layer_delay.max(1), Happening::Subscribed(at, life, room))
            }
            Effect::Publish(envelope) => self.publish(at, node, envelope),
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

    fn publish(&mut self, from: usize, node: &mut Node, envelope: Envelope) {
        if self.slots[from].mute {
            if self.rng.u32(0..1_000) < self.faults.layer_honest {
                node.missed.note(vec![envelope]);
                if !std::mem::replace(&mut self.slots[from].retelling, true) {
                    self.after(50, 2_000, Happening::Retell(from, self.slots[from].life));
                }
            }
            return;
        }
        for to in 0..self.slots.len() {
            let hears = self.slots[to].node.as_ref().is_some_and(|node| node.hears(envelope.group()));
            if let (Envelope::Signal(Signal::Kick { user, .. }), true) = (&envelope, self.slots[to].deaf) {
                // Nobody says it again: it reaches whom the layer reaches.
                let there = self.clients.iter().filter(|client| &client.user == user);
                let there = there.filter_map(|client| client.connection.as_ref()).filter(|c| c.node == to);
                there.for_each(|connection| _ = self.kicked.remove(&connection.session));
            }
            if to == from || self.slots[to].deaf || !hears || self.chance(self.faults.layer_lost) {
                continue;
            }
            let life = self.slots[to].life;
            let copies = if self.chance(self.faults.layer_doubled) { 2 } else { 1 };
            for _ in 0..copies {
                self.after(1, self.faults.layer_delay.max(1), Happening::Layer(to, life, envelope.clone()));
            }
            if self.chance(self.faults.layer_stale) {
                self.after(1_000, 8_000, Happening::Layer(to, life, envelope.clone()));
            }
        }
    }
}
