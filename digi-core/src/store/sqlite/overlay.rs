//! What stands in the journal and not yet in the tables, in memory.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;
use rusqlite::{Connection, Transaction};

use super::journal::{self, Entry, Extent, size};
use super::row::StoredHead;
use crate::id::{MessageId, RoomId};
use crate::store::model::Message;

/// A room with so many messages here is placed without waiting for others: its run is long enough, and a reader's copy
/// short enough.
const FULL: usize = 1_024;

/// All that is not placed.
pub(super) struct Overlay {
    /// What of the journal is in here.
    extent: Extent,
    rooms: BTreeMap<RoomId, Arc<Unplaced>>,
    full: VecDeque<RoomId>,
    messages: usize,
    bytes: usize,
    /// When it last had nothing older than now.
    since: Instant,
}

/// What is not placed of one room.
#[derive(Clone, Default)]
pub(super) struct Unplaced {
    /// With the number of its entry.
    head: Option<(i64, StoredHead)>,
    /// The same, in the order of their ids. New messages have the highest.
    messages: Vec<(i64, Arc<Message>)>,
    oldest: i64,
}

impl Unplaced {
    pub(super) fn head(&self) -> Option<StoredHead> {
        self.head.map(|(_, head)| head)
    }

    /// No entry of it has a lower number.
    pub(super) fn oldest(&self) -> i64 {
        self.oldest
    }

    pub(super) fn message(&self, id: MessageId) -> Option<&Message> {
        self.search(id).ok().map(|place| &*self.messages[place].1)
    }

    pub(super) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter().map(|(_, message)| &**message)
    }

    /// Those whose ids lie between two, in order.
    pub(super) fn between(&self, (first, last): (i64, i64)) -> impl DoubleEndedIterator<Item = &Message> {
        let place = |id| self.messages.partition_point(|(_, message)| message.id.0 < id);
        let (from, to) = (place(first), place(last.saturating_add(1)));
        self.messages[from..to.max(from)].iter().map(|(_, message)| &**message)
    }

    fn search(&self, id: MessageId) -> Result<usize, usize> {
        match self.messages.last() {
            Some((_, last)) if last.id < id => Err(self.messages.len()),
            _ => self.messages.binary_search_by_key(&id, |(_, message)| message.id),
        }
    }

    /// The message as it was.
    fn put(&mut self, n: i64, message: Arc<Message>) -> Option<Arc<Message>> {
        match self.search(message.id) {
            Ok(place) => Some(std::mem::replace(&mut self.messages[place], (n, message)).1),
            Err(place) => {
                self.messages.insert(place, (n, message));
                None
            }
        }
    }
}

impl Overlay {
    pub(super) fn new() -> Self {
        Self {
            extent: Extent { placed: 0, last: 0 },
            rooms: BTreeMap::new(),
            full: VecDeque::new(),
            messages: 0,
            bytes: 0,
            since: Instant::now(),
        }
    }

    pub(super) fn room(&self, room: RoomId) -> Option<&Arc<Unplaced>> {
        self.rooms.get(&room)
    }

    /// All of them, in the order of their ids.
    pub(super) fn rooms(&self) -> impl Iterator<Item = (RoomId, &Unplaced)> {
        self.rooms.iter().map(|(id, room)| (*id, &**room))
    }

    pub(super) fn head(&self, room: RoomId) -> Option<StoredHead> {
        self.rooms.get(&room)?.head()
    }

    pub(super) fn messages(&self) -> usize {
        self.messages
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn extent(&self) -> Extent {
        self.extent
    }

    /// The room that has waited to be placed for longest among those with many messages.
    pub(super) fn next_full(&mut self) -> Option<RoomId> {
        std::iter::from_fn(|| self.full.pop_front()).find(|room| self.rooms.contains_key(room))
    }

    /// The next room, in the order of their ids.
    pub(super) fn next_after(&self, room: Option<RoomId>) -> Option<RoomId> {
        let from = room.map_or(Bound::Unbounded, Bound::Excluded);
        self.rooms.range((from, Bound::Unbounded)).next().map(|(room, _)| *room)
    }

    /// Takes in an entry, whose last row has that number. One that is in here already changes nothing: a reader may have
    /// caught up with it, and with what others wrote behind it, before the writer came to say so.
    pub(super) fn put(&mut self, n: i64, entry: Entry) {
        if n <= self.extent.last {
            return;
        }
        // Of a large entry the rows before are this one's, too.
        let first = self.extent.last + 1;
        if self.rooms.is_empty() {
            self.since = Instant::now();
        }
        let new = || Arc::new(Unplaced { oldest: first, ..Unplaced::default() });
        for (room, head) in entry.heads {
            let room = Arc::make_mut(self.rooms.entry(room).or_insert_with(new));
            room.head = Some((n, head));
        }
        for message in entry.messages {
            let id = message.room;
            let room = Arc::make_mut(self.rooms.entry(id).or_insert_with(new));
            self.bytes += size(&message);
            self.messages += 1;
            if let Some(before) = room.put(n, message) {
                self.bytes -= size(&before);
                self.messages -= 1;
            } else if room.messages.len() == FULL {
                self.full.push_back(id);
            }
        }
        self.extent.last = self.extent.last.max(n);
    }

    /// What a room had up to a number has been placed.
    pub(super) fn forget(&mut self, id: RoomId, through: i64) {
        let Some(room) = self.rooms.get_mut(&id) else { return };
        let room = Arc::make_mut(room);
        let (mut messages, mut bytes) = (0, 0);
        room.messages.retain(|(n, message)| {
            let stays = *n > through;
            if !stays {
                messages += 1;
                bytes += size(message);
            }
            stays
        });
        room.head = room.head.filter(|(n, _)| *n > through);
        room.oldest = room.oldest.max(through + 1);
        if room.head.is_none() && room.messages.is_empty() {
            self.rooms.remove(&id);
        }
        self.messages -= messages;
        self.bytes -= bytes;
    }

    /// The journal has been removed up to there.
    pub(super) fn trimmed(&mut self, placed: i64) {
        if placed > self.extent.placed {
            let rooms: Vec<_> = self.rooms.keys().copied().collect();
            for room in rooms {
                self.forget(room, placed);
            }
            self.extent.placed = placed;
            self.extent.last = self.extent.last.max(placed);
            self.since = Instant::now();
        }
    }

    /// Takes in what others have appended or placed since, as a snapshot shows it.
    fn catch_up(&mut self, connection: &Connection, extent: Extent) -> rusqlite::Result<()> {
        self.trimmed(extent.placed);
        if self.extent.last < extent.last {
            journal::read_after(connection, self.extent.last, |n, entry| self.put(n, entry))?;
            self.extent.last = extent.last;
        }
        Ok(())
    }
}

/// Begins a snapshot and takes out of the overlay what it lacks, both as of one moment. The lock is held while two numbers
/// are read, so that the two cannot part.
pub(super) fn snapshot<'c, T>(
    connection: &'c Connection,
    overlay: &RwLock<Overlay>,
    take: impl Fn(&Overlay) -> T,
) -> rusqlite::Result<(Transaction<'c>, T)> {
    loop {
        let snapshot = connection.unchecked_transaction()?;
        // The snapshot begins with its first read. As nothing can leave the overlay meanwhile, it has whatever the
        // overlay has lost before.
        let known = overlay.read();
        let extent = Extent::read(&snapshot)?;
        if known.extent == extent {
            let taken = take(&known);
            drop(known);
            return Ok((snapshot, taken));
        }
        drop(known);
        // Another process has written, or the writer is between its commit and the overlay. What is placed meanwhile is
        // neither in this snapshot nor in the overlay, so another snapshot is needed.
        let mut known = overlay.write();
        if known.extent.last <= extent.last && known.extent.placed <= extent.placed {
            known.catch_up(&snapshot, extent)?;
        }
    }
}

/// Brings the overlay up to a transaction that writes, and so up to everything that is committed.
pub(super) fn catch_up(transaction: &Transaction<'_>, overlay: &RwLock<Overlay>) -> rusqlite::Result<Extent> {
    let extent = Extent::read(transaction)?;
    if overlay.read().extent != extent {
        overlay.write().catch_up(transaction, extent)?;
    }
    Ok(extent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Epoch, Millis, Seq};
    use crate::store::model::Head;

    fn entry(room: i64, last_seq: u64, bodies: &[(u64, &str)]) -> Entry {
        let head = Head { epoch: Epoch(9), last_seq: Seq(last_seq) };
        let message = |(pos, body): &(u64, &str)| {
            Arc::new(Message {
                id: MessageId::own(RoomId(room), Seq(*pos)).unwrap(),
                room: RoomId(room),
                pos: Seq(*pos),
                sender: "7".into(),
                sender_name: "alice".into(),
                body: Some((*body).into()),
                client_id: None,
                created_at: Millis(1),
                edited_at: None,
                deleted_at: None,
            })
        };
        let stored = StoredHead { head, floor: Seq(0), last_at: Millis(1) };
        Entry { heads: vec![(RoomId(room), stored)], messages: bodies.iter().map(message).collect() }
    }

    fn bodies(overlay: &Overlay, room: i64) -> Vec<String> {
        let room = overlay.room(RoomId(room));
        room.map(|room| room.messages().filter_map(|message| message.body.as_deref().map(str::to_owned)).collect())
            .unwrap_or_default()
    }

    /// The journal must not be removed up to the last row of an entry of which nothing is placed.
    #[test]
    fn an_entry_of_several_rows_is_there_from_its_first() {
        let mut overlay = Overlay::new();
        overlay.put(1, entry(1, 1, &[(1, "a")]));
        overlay.put(5, entry(2, 1, &[(1, "b")]));
        assert_eq!(overlay.room(RoomId(2)).unwrap().oldest(), 2);
        overlay.forget(RoomId(1), 5);
        overlay.put(7, entry(1, 2, &[(2, "c")]));
        assert_eq!(overlay.room(RoomId(1)).unwrap().oldest(), 6);
    }

    #[test]
    fn who_comes_late_changes_nothing() {
        let mut overlay = Overlay::new();
        overlay.put(1, entry(1, 1, &[(1, "a")]));
        overlay.put(2, entry(1, 2, &[(1, "edited")]));
        overlay.put(1, entry(1, 1, &[(1, "a")]));
        assert_eq!(
            (bodies(&overlay, 1), overlay.head(RoomId(1)).unwrap().head.last_seq),
            (vec!["edited".to_owned()], Seq(2))
        );
        overlay.trimmed(2);
        overlay.put(2, entry(1, 2, &[(1, "edited")]));
        assert_eq!((bodies(&overlay, 1), overlay.messages(), overlay.bytes()), (vec![], 0, 0));
    }

    #[test]
    fn messages_stand_in_order_and_leave_with_their_entry() {
        let mut overlay = Overlay::new();
        overlay.put(1, entry(1, 3, &[(1, "a"), (3, "c")]));
        overlay.put(2, entry(1, 4, &[(2, "b")]));
        overlay.put(3, entry(1, 5, &[(3, "C")]));
        assert_eq!(bodies(&overlay, 1), ["a", "b", "C"]);
        let room = overlay.room(RoomId(1)).unwrap().clone();
        let id = |pos| MessageId::own(RoomId(1), Seq(pos)).unwrap();
        let between =
            |first: u64, last: u64| room.between((id(first).0, id(last).0)).map(|m| m.pos.0).collect::<Vec<_>>();
        assert_eq!((between(2, 3), between(4, 9), between(3, 1)), (vec![2, 3], vec![], vec![]));
        assert_eq!(room.message(id(3)).unwrap().body.as_deref(), Some("C"));
        overlay.forget(RoomId(1), 2);
        assert_eq!((bodies(&overlay, 1), overlay.messages()), (vec!["C".to_owned()], 1));
    }
}
