//! What a store remembers of the rooms it writes to, so that an `add` costs one insert and no query.
//!
//! Used by one writer under the lock of a room's head. A memory is valid up to the head at which it was last used; what
//! was written since, by whomever, is read from the log before it is trusted: [`Recent::take`], read what
//! [`RoomMemory::through`] leaves open, [`RoomMemory::advance`], use, and after the transaction [`Recent::put`].

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

use super::model::{Head, LOG_WINDOW, Role};
use crate::id::{Cursor, RoomId, Seq, UserKey};

/// How many rooms are remembered at most.
const MAX_ROOMS: usize = 16_384;
/// How many client ids and memberships over all rooms; at about 50 bytes each.
const MAX_ENTRIES: usize = 1_000_000;
/// How many memberships of one room.
const MAX_MEMBERS: usize = 4_096;

/// The memories of a store object's rooms; the ones that were not used for longest go first.
pub(super) struct Recent {
    rooms: HashMap<RoomId, Slot>,
    uses: u64,
    entries: usize,
    max_rooms: usize,
    max_entries: usize,
    /// Keyed at random, so that nobody can choose client ids that collide.
    hasher: RandomState,
}

struct Slot {
    memory: RoomMemory,
    last_use: u64,
}

/// What is known of one room.
pub(super) struct RoomMemory {
    through: Cursor,
    /// Where the adds of the last [`LOG_WINDOW`] changes that gave a client id stand, oldest first, and the names.
    adds: VecDeque<(Seq, ClientKey)>,
    places: HashMap<ClientKey, Seq>,
    /// Users that were looked up, with their role if they are members.
    members: HashMap<UserKey, Option<Role>>,
}

/// A sender and its client id, hashed. Whoever finds one compares the message itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct ClientKey(u64);

impl Recent {
    pub(super) fn new() -> Self {
        Self {
            rooms: HashMap::new(),
            uses: 0,
            entries: 0,
            max_rooms: MAX_ROOMS,
            max_entries: MAX_ENTRIES,
            hasher: RandomState::new(),
        }
    }

    /// The key under which a sender's client id is remembered.
    pub(super) fn key(&self, sender: &str, client_id: &str) -> ClientKey {
        ClientKey(self.hasher.hash_one((sender, client_id)))
    }

    /// Takes out what is known of a room whose head is locked and stands at `head`. The log above
    /// [`RoomMemory::through`] has to be read into it before it is used.
    pub(super) fn take(&mut self, room: RoomId, head: Head, floor: Seq) -> RoomMemory {
        if let Some(Slot { memory, .. }) = self.rooms.remove(&room) {
            self.entries -= memory.entries();
            if memory.continues_to(head, floor) {
                return memory;
            }
        }
        RoomMemory::before_window(head)
    }

    /// Puts a memory back after its transaction.
    pub(super) fn put(&mut self, room: RoomId, memory: RoomMemory) {
        self.uses += 1;
        self.entries += memory.entries();
        self.rooms.insert(room, Slot { memory, last_use: self.uses });
        while self.rooms.len() > self.max_rooms || (self.entries > self.max_entries && self.rooms.len() > 1) {
            self.evict();
        }
    }

    /// Forgets the eighth of the rooms that was not used for longest: many at once, because finding them costs a
    /// look at all.
    fn evict(&mut self) {
        let mut ages: Vec<u64> = self.rooms.values().map(|slot| slot.last_use).collect();
        let nth = ages.len() / 8;
        let (_, newest_to_go, _) = ages.select_nth_unstable(nth);
        let newest_to_go = *newest_to_go;
        let entries = &mut self.entries;
        self.rooms.retain(|_, slot| {
            let stays = slot.last_use > newest_to_go;
            if !stays {
                *entries -= slot.memory.entries();
            }
            stays
        });
    }
}

impl RoomMemory {
    /// Knows nothing; the window of changes up to `head` has to be read.
    fn before_window(head: Head) -> Self {
        let through = Cursor::new(head.epoch, Seq(head.last_seq.0.saturating_sub(LOG_WINDOW)));
        Self { through, adds: VecDeque::new(), places: HashMap::new(), members: HashMap::new() }
    }

    /// Whether reading the log above `through` makes this memory complete up to `head`.
    fn continues_to(&self, head: Head, floor: Seq) -> bool {
        let behind = head.last_seq.0.checked_sub(self.through.seq.0);
        // Below the floor rows are missing, perhaps those of removed members.
        head.epoch == self.through.epoch && floor <= self.through.seq && behind.is_some_and(|n| n <= LOG_WINDOW)
    }

    /// Everything up to here is known.
    pub(super) fn through(&self) -> Seq {
        self.through.seq
    }

    /// The changes up to `head` have been noted.
    pub(super) fn advance(&mut self, head: Head) {
        self.through = head.cursor();
        while let Some(&(pos, key)) = self.adds.front() {
            if pos.0.saturating_add(LOG_WINDOW) > head.last_seq.0 {
                break;
            }
            self.adds.pop_front();
            if self.places.get(&key) == Some(&pos) {
                self.places.remove(&key);
            }
        }
    }

    /// The transaction failed: forgets what was noted above the point up to which it had advanced.
    pub(super) fn undo(&mut self) {
        while self.adds.back().is_some_and(|(pos, _)| *pos > self.through.seq) {
            self.adds.pop_back();
        }
        // Anew: a later use of a client id may have hidden an earlier one, which counts again.
        self.places = self.adds.iter().map(|(pos, key)| (*key, *pos)).collect();
        self.members.clear();
    }

    /// A message with a client id stands at `pos`, above everything noted before.
    pub(super) fn note_add(&mut self, pos: Seq, key: ClientKey) {
        self.adds.push_back((pos, key));
        self.places.insert(key, pos);
    }

    /// Where a message with that sender and client id may stand, within the window up to `last_seq`.
    pub(super) fn place(&self, key: ClientKey, last_seq: Seq) -> Option<Seq> {
        self.places.get(&key).copied().filter(|pos| pos.0.saturating_add(LOG_WINDOW) > last_seq.0)
    }

    /// The user's role was read or written; none: no member.
    pub(super) fn note_member(&mut self, user: UserKey, role: Option<Role>) {
        if self.members.len() >= MAX_MEMBERS {
            self.members.clear();
        }
        self.members.insert(user, role);
    }

    /// The user's membership has changed.
    pub(super) fn forget_member(&mut self, user: &str) {
        self.members.remove(user);
    }

    /// The user's role, if it was looked up: outer none when not.
    pub(super) fn member(&self, user: &UserKey) -> Option<Option<Role>> {
        self.members.get(user).copied()
    }

    fn entries(&self) -> usize {
        self.adds.len() + self.members.len() + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Epoch;

    fn head(last_seq: u64) -> Head {
        Head { epoch: Epoch(1), last_seq: Seq(last_seq) }
    }

    fn room_with(recent: &mut Recent, room: i64, adds: u64) {
        let mut memory = recent.take(RoomId(room), head(0), Seq(0));
        for n in 1..=adds {
            memory.note_add(Seq(n), recent.key("alice", &n.to_string()));
        }
        memory.advance(head(adds));
        recent.put(RoomId(room), memory);
    }

    #[test]
    fn a_place_is_known_for_exactly_the_window() {
        let mut recent = Recent::new();
        room_with(&mut recent, 1, 1);
        let key = recent.key("alice", "1");
        let mut memory = recent.take(RoomId(1), head(1), Seq(0));
        assert_eq!(memory.place(key, Seq(LOG_WINDOW)), Some(Seq(1)));
        assert_eq!(memory.place(key, Seq(LOG_WINDOW + 1)), None);
        memory.advance(head(LOG_WINDOW));
        assert_eq!(memory.entries(), 2);
        memory.advance(head(LOG_WINDOW + 1));
        assert_eq!(memory.entries(), 1);
    }

    #[test]
    fn what_was_noted_by_a_failed_batch_is_forgotten() {
        let mut recent = Recent::new();
        room_with(&mut recent, 1, 10);
        let mut memory = recent.take(RoomId(1), head(10), Seq(0));
        memory.note_member("bob".into(), Some(Role::Member));
        memory.note_add(Seq(11), recent.key("alice", "11"));
        // A client id used again, as it may be beyond the window.
        memory.note_add(Seq(12), recent.key("alice", "1"));
        memory.undo();
        assert_eq!(memory.through(), Seq(10));
        assert_eq!(memory.member(&"bob".into()), None);
        assert_eq!(memory.place(recent.key("alice", "11"), Seq(10)), None);
        assert_eq!(memory.place(recent.key("alice", "1"), Seq(10)), Some(Seq(1)));
    }

    #[test]
    fn a_memory_is_trusted_only_where_the_log_can_complete_it() {
        let restored = Head { epoch: Epoch(2), last_seq: Seq(10) };
        for (now, floor, kept) in [
            (head(10), 0, true),
            (head(10), 10, true),
            (head(10 + LOG_WINDOW), 5, true),
            (head(11 + LOG_WINDOW), 5, false),
            (head(20), 11, false),
            (head(9), 0, false),
            (restored, 10, false),
        ] {
            let mut recent = Recent::new();
            room_with(&mut recent, 1, 10);
            let memory = recent.take(RoomId(1), now, Seq(floor));
            assert_eq!(memory.entries() > 1, kept, "{now:?} {floor}");
            if !kept {
                assert_eq!(memory.through().0, now.last_seq.0.saturating_sub(LOG_WINDOW));
            }
        }
    }

    #[test]
    fn rooms_and_entries_are_bounded_and_the_oldest_go() {
        let mut recent = Recent { max_rooms: 16, max_entries: 1_000, ..Recent::new() };
        for room in 0..100 {
            room_with(&mut recent, room, 1);
            assert!(recent.rooms.len() <= 16);
            assert!(recent.rooms.contains_key(&RoomId(room)));
        }
        assert!((90..100).all(|room| recent.rooms.contains_key(&RoomId(room))));
        for room in 100..120 {
            room_with(&mut recent, room, 300);
            assert!(recent.entries <= 1_000);
        }
        assert!(recent.rooms.contains_key(&RoomId(119)) && recent.rooms.contains_key(&RoomId(118)));
        let counted: usize = recent.rooms.values().map(|slot| slot.memory.entries()).sum();
        assert_eq!(counted, recent.entries);
        let mut memory = recent.take(RoomId(119), head(300), Seq(0));
        for n in 0..=MAX_MEMBERS {
            memory.note_member(n.to_string().into(), None);
        }
        assert!(memory.members.len() <= MAX_MEMBERS);
    }
}
