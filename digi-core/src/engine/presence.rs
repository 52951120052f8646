//! Who is in which room, where an engine is to tell ([`EngineBuilder::presence`](super::EngineBuilder::presence)).

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use super::core::Core;
use super::session::SessionCore;
use crate::event::{Envelope, Signal};
use crate::frame::Frame;
use crate::id::{Millis, RoomId, UserKey};
use crate::room::presence::{Presence, PresenceOutput, Users};

/// Between two looks at who has gone.
const TICK: Duration = Duration::from_secs(1);

/// This node's view of all rooms in which it has members.
pub(super) struct Rooms {
    /// What the other nodes know this one by.
    node: u64,
    rooms: Mutex<HashMap<RoomId, Presence>>,
}

impl Rooms {
    pub(super) fn new(node: u64) -> Self {
        Self { node, rooms: Mutex::default() }
    }

    fn with(&self, core: &Arc<Core>, room: RoomId, work: impl FnOnce(&mut Presence, Millis) -> Vec<PresenceOutput>) {
        let outputs = match self.rooms.lock().get_mut(&room) {
            Some(presence) => work(presence, core.now()),
            None => return,
        };
        self.carry_out(core, room, outputs);
    }

    pub(super) fn enter(&self, core: &Arc<Core>, room: RoomId, session: &SessionCore) {
        if session.set_present(true) {
            self.rooms.lock().entry(room).or_default();
            self.with(core, room, |presence, now| presence.enter(&session.user, &session.user_name, now));
        }
    }

    pub(super) fn leave(&self, core: &Arc<Core>, room: RoomId, session: &SessionCore) {
        if session.set_present(false) {
            self.with(core, room, |presence, now| {
                presence.leave(&session.user, now);
                Vec::new()
            });
        }
    }

    /// The layer brings what others announce of the room.
    pub(super) fn heard_of(&self, core: &Arc<Core>, room: RoomId) {
        self.with(core, room, Presence::ask);
    }

    /// What another node announced.
    pub(super) fn hear(&self, core: &Arc<Core>, room: RoomId, node: u64, users: &Users, asks: bool) {
        if node != self.node {
            self.with(core, room, |presence, now| presence.hear(node, users, asks, now));
        }
    }

    /// Tells a session that has begun to listen who is there.
    pub(super) fn tell(&self, room: RoomId, session: &SessionCore) {
        let online = self.rooms.lock().get(&room).map(Presence::online).unwrap_or_default();
        for (user, name) in online {
            if user != session.user && !session.send(Frame::presence(&name, true)) {
                return;
            }
        }
    }

    fn tick(&self, core: &Arc<Core>) {
        let now = core.now();
        let mut outputs = Vec::new();
        self.rooms.lock().retain(|room, presence| {
            outputs.push((*room, presence.tick(now)));
            !presence.is_empty()
        });
        for (room, outputs) in outputs {
            self.carry_out(core, room, outputs);
        }
    }

    fn carry_out(&self, core: &Arc<Core>, room: RoomId, outputs: Vec<PresenceOutput>) {
        for output in outputs {
            match output {
                PresenceOutput::Show { user, name, online } => self.show(core, room, &user, &name, online),
                PresenceOutput::Announce { users, asks } => {
                    core.publish(vec![Envelope::Signal(Signal::Presence { room, node: self.node, users, asks })]);
                }
            }
        }
    }

    fn show(&self, core: &Arc<Core>, room: RoomId, user: &UserKey, name: &str, online: bool) {
        let frame = Frame::presence(name, online);
        core.at_room(room, |room, wakes| room.signal(Some(user), &frame, wakes));
    }
}

/// Notices who has gone, and announces who is here.
pub(super) async fn run(core: Weak<Core>) {
    loop {
        tokio::time::sleep(TICK).await;
        let Some(core) = core.upgrade() else { return };
        if let Some(presence) = &core.presence {
            presence.tick(&core);
        }
    }
}
