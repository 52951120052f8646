//! What could not be published.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use tracing::warn;

use crate::event::{Envelope, Signal};
use crate::id::{RoomId, UserKey};

/// Of how many rooms it is known that the others missed something. Beyond, they are told to compare all of theirs.
const MISSED_ROOMS: usize = 1_000;

/// How many kicks are kept for a layer that is away. Beyond, the oldest is forgotten.
const MISSED_KICKS: usize = 1_000;

/// What the other nodes are yet to be told.
#[derive(Debug, Default)]
pub(crate) struct Missed {
    rooms: BTreeSet<RoomId>,
    /// More rooms than are kept.
    many: bool,
    kicks: VecDeque<(UserKey, Option<Arc<str>>)>,
}

impl Missed {
    pub(crate) fn is_empty(&self) -> bool {
        self.rooms.is_empty() && !self.many && self.kicks.is_empty()
    }

    pub(crate) fn note(&mut self, envelopes: Vec<Envelope>) {
        for envelope in envelopes {
            match envelope {
                Envelope::Event(event) => self.note_room(event.room),
                Envelope::Signal(Signal::Missed { room: Some(room) }) => self.note_room(room),
                Envelope::Signal(Signal::Missed { room: None }) => self.note_many(),
                Envelope::Signal(Signal::Kick { user, login }) => {
                    if self.kicks.len() >= MISSED_KICKS {
                        let forgotten = self.kicks.pop_front().map(|(user, _)| user);
                        warn!(user = ?forgotten, "the layer is away, and a kick does not reach the other nodes");
                    }
                    self.kicks.push_back((user, login));
                }
                // Losing it costs nothing that lasts.
                Envelope::Signal(Signal::Room { .. } | Signal::Presence { .. }) => {}
            }
        }
    }

    fn note_room(&mut self, room: RoomId) {
        if !self.many && !testing_bug!(ForgetMissed) {
            self.rooms.insert(room);
            if self.rooms.len() > MISSED_ROOMS {
                self.note_many();
            }
        }
    }

    fn note_many(&mut self) {
        self.many = true;
        self.rooms = BTreeSet::new();
    }

    /// Word for the rooms.
    pub(crate) fn take_rooms(&mut self) -> Vec<Envelope> {
        let rooms = std::mem::take(&mut self.rooms).into_iter().map(Some);
        let many = std::mem::take(&mut self.many).then_some(None);
        rooms.chain(many).map(|room| Envelope::Signal(Signal::Missed { room })).collect()
    }

    /// The kicks. A node that doesn't hear of one won't later.
    pub(crate) fn take_kicks(&mut self) -> Vec<Envelope> {
        self.kicks.drain(..).map(|(user, login)| Envelope::Signal(Signal::Kick { user, login })).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, EventKind};
    use crate::frame::Frame;
    use crate::id::{Cursor, Epoch, Seq};
    use crate::store::model::MemberOp;

    fn event(room: i64) -> Envelope {
        let kind = EventKind::Member { op: MemberOp::Joined, member: "7".into() };
        Envelope::Event(Event { room: RoomId(room), at: Cursor::new(Epoch(1), Seq(1)), kind })
    }

    fn missed(room: i64) -> Envelope {
        Envelope::Signal(Signal::Missed { room: Some(RoomId(room)) })
    }

    fn kick(user: &str) -> Envelope {
        Envelope::Signal(Signal::Kick { user: user.into(), login: None })
    }

    #[test]
    fn what_was_missed_is_one_word_per_room_and_every_kick() {
        let mut all = Missed::default();
        let typing = Signal::Room { room: RoomId(5), from: "7".into(), frame: Frame::from_text("{}".into()) };
        all.note(vec![event(1), event(1), missed(1), kick("7"), Envelope::Signal(typing), kick("8")]);
        assert_eq!(all.take_rooms(), [missed(1)]);
        assert_eq!(all.take_kicks(), [kick("7"), kick("8")]);
        assert!(all.is_empty());
        assert_eq!((all.take_rooms(), all.take_kicks()), (vec![], vec![]));
    }

    #[test]
    fn too_many_rooms_become_all() {
        let mut all = Missed::default();
        all.note((0..=MISSED_ROOMS as i64).map(event).collect());
        all.note(vec![event(1)]);
        assert_eq!(all.take_rooms(), [Envelope::Signal(Signal::Missed { room: None })]);
        all.note((0..=MISSED_KICKS).map(|user| kick(&user.to_string())).collect());
        let kicks = all.take_kicks();
        assert_eq!((kicks.len(), &kicks[0]), (MISSED_KICKS, &kick("1")));
    }
}
