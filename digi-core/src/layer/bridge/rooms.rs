//! Which rooms' groups a host should have Digi in, and which it has.

use std::collections::{HashMap, HashSet};

use super::options::BridgeFormat;
use crate::id::RoomId;

#[derive(Default)]
pub(super) struct Rooms {
    known: HashMap<RoomId, Known>,
    /// Where something may have to be done.
    dirty: HashSet<RoomId>,
    /// By the name of the group.
    by_group: HashMap<String, RoomId>,
}

struct Known {
    group: String,
    is_wanted: bool,
    is_joined: bool,
}

/// A room and its group.
pub(super) type Named = (RoomId, String);

#[derive(Default, PartialEq, Eq, Debug)]
pub(super) struct Changes {
    pub(super) join: Vec<Named>,
    pub(super) leave: Vec<Named>,
}

impl Rooms {
    pub(super) fn want(&mut self, room: RoomId, group: String) {
        self.by_group.insert(group.clone(), room);
        let known = self.known.entry(room).or_insert(Known { group, is_wanted: true, is_joined: false });
        known.is_wanted = true;
        self.dirty.insert(room);
    }

    pub(super) fn unwant(&mut self, room: RoomId) {
        if let Some(known) = self.known.get_mut(&room) {
            known.is_wanted = false;
            self.dirty.insert(room);
        }
    }

    pub(super) fn unwant_all(&mut self) {
        self.known.values_mut().for_each(|known| known.is_wanted = false);
        self.dirty = self.known.keys().copied().collect();
    }

    /// The room of a group.
    pub(super) fn of_group(&self, group: &str) -> Option<RoomId> {
        self.by_group.get(group).copied()
    }

    pub(super) fn is_settled(&self) -> bool {
        self.dirty.is_empty()
    }

    /// What to do next; about `most` rooms. To be followed by [`Rooms::joined`] and [`Rooms::left`], or by
    /// [`Rooms::begin_anew`].
    pub(super) fn take_changes(&mut self, most: usize) -> Changes {
        let mut changes = Changes::default();
        let rooms: Vec<_> = self.dirty.iter().copied().take(most).collect();
        for room in rooms {
            self.dirty.remove(&room);
            let Some(known) = self.known.get(&room) else { continue };
            match (known.is_wanted, known.is_joined) {
                (true, false) => changes.join.push((room, known.group.clone())),
                (false, true) => changes.leave.push((room, known.group.clone())),
                (false, false) => self.forget(room),
                (true, true) => {}
            }
        }
        changes
    }

    pub(super) fn joined(&mut self, rooms: &[Named]) {
        for (room, _) in rooms {
            if let Some(known) = self.known.get_mut(room) {
                known.is_joined = true;
            }
        }
    }

    pub(super) fn left(&mut self, rooms: &[Named]) {
        for (room, _) in rooms {
            match self.known.get_mut(room) {
                Some(known) if known.is_wanted => known.is_joined = false,
                _ => self.forget(*room),
            }
        }
    }

    fn forget(&mut self, room: RoomId) {
        if let Some(known) = self.known.remove(&room)
            && self.by_group.get(&known.group) == Some(&room)
        {
            self.by_group.remove(&known.group);
        }
    }

    /// On a new connection, or to renew all memberships: with pub/sub nothing is joined then; in the core format what was
    /// joined may still be, and is joined again.
    pub(super) fn begin_anew(&mut self, format: BridgeFormat) {
        for known in self.known.values_mut() {
            known.is_joined &= format == BridgeFormat::Core && !known.is_wanted;
        }
        self.dirty = self.known.keys().copied().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(room: i64) -> Named {
        (RoomId(room), format!("chat_{room}"))
    }

    fn with_joined(room: i64) -> Rooms {
        let mut rooms = Rooms::default();
        rooms.want(RoomId(room), named(room).1);
        let changes = rooms.take_changes(9);
        assert_eq!(changes, Changes { join: vec![named(room)], leave: vec![] });
        rooms.joined(&changes.join);
        assert!(rooms.is_settled());
        rooms
    }

    #[test]
    fn a_room_is_joined_once_and_left_once() {
        let mut rooms = with_joined(1);
        rooms.want(RoomId(1), named(1).1);
        assert_eq!(rooms.take_changes(9), Changes::default());
        assert_eq!(rooms.of_group("chat_1"), Some(RoomId(1)));
        rooms.unwant(RoomId(1));
        let changes = rooms.take_changes(9);
        assert_eq!(changes, Changes { join: vec![], leave: vec![named(1)] });
        rooms.left(&changes.leave);
        assert_eq!((rooms.of_group("chat_1"), rooms.known.len()), (None, 0));
    }

    #[test]
    fn what_changes_meanwhile_is_done_next() {
        let mut rooms = with_joined(1);
        rooms.unwant(RoomId(1));
        let leaving = rooms.take_changes(9);
        rooms.want(RoomId(1), named(1).1);
        rooms.left(&leaving.leave);
        assert_eq!(rooms.take_changes(9).join, [named(1)]);
        rooms.unwant(RoomId(1));
        rooms.joined(&[named(1)]);
        assert_eq!(rooms.take_changes(9).leave, [named(1)]);
    }

    #[test]
    fn a_new_connection_begins_with_everything_that_is_wanted() {
        for (format, leave) in [(BridgeFormat::PubSub, vec![]), (BridgeFormat::Core, vec![named(1)])] {
            let mut rooms = with_joined(1);
            rooms.unwant(RoomId(1));
            rooms.want(RoomId(2), named(2).1);
            // Wanted and no longer so while there was no connection: nothing remains of it.
            rooms.want(RoomId(3), named(3).1);
            rooms.unwant(RoomId(3));
            rooms.begin_anew(format);
            assert_eq!(rooms.take_changes(9), Changes { join: vec![named(2)], leave });
            assert!(rooms.of_group("chat_3").is_none());
        }
    }
}
