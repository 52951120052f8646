//! Placing: what the journal has is brought into its tables, behind the batches and in runs.
//!
//! A room that has gathered a long run is placed at once. The others come in sweeps, in the order of their ids, a piece
//! after each batch: when much waits, when something has waited for long, when there is nothing else to do, and at the
//! end. After a sweep the journal is removed up to where nothing waits.

use std::collections::HashSet;
use std::time::Duration;

use rusqlite::{Connection, Result, Transaction, TransactionBehavior, params};

use super::apply::{prepare_set_head, write_head};
use super::connection::Writer;
use super::journal::{self, Extent};
use super::overlay::{self, Overlay, Unplaced};
use super::row::{message_columns, sql};
use crate::id::{ClientId, Millis, RoomId};
use crate::store::model::Message;

/// So many messages, or bytes of memory, wait at most before a sweep begins.
const MOST_MESSAGES: usize = 128 << 10;
const MOST_BYTES: usize = 64 << 20;
/// And so long does one wait while there are batches.
const LONGEST: Duration = Duration::from_secs(5);
/// How many messages are placed in one transaction, about: what the next batch waits for.
const PIECE: usize = 2_048;
/// With so long without a batch there is time for a sweep.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

const PLACE: &str = concat!(
    "INSERT OR REPLACE INTO digi_message (room_id, pos, ",
    message_columns!(),
    ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"
);

/// How far a sweep has come.
#[derive(Default)]
pub(super) struct Sweep(Option<Place>);

enum Place {
    Beginning,
    Behind(RoomId),
}

impl Place {
    fn behind(&self) -> Option<RoomId> {
        match self {
            Self::Beginning => None,
            Self::Behind(room) => Some(*room),
        }
    }
}

impl Writer {
    /// Whether anything waits to be placed, or to be removed from the journal.
    pub(super) fn has_unplaced(&self) -> bool {
        let Extent { placed, last } = self.overlay.read().extent();
        placed < last
    }

    /// Places what is due after a batch.
    pub(super) fn place_due(&mut self) -> Result<()> {
        let full = {
            let mut overlay = self.overlay.write();
            let Extent { placed, last } = overlay.extent();
            let is_much = overlay.messages() > MOST_MESSAGES || overlay.bytes() > MOST_BYTES;
            if is_much || (placed < last && overlay.since().elapsed() > LONGEST) {
                self.sweep.0.get_or_insert(Place::Beginning);
            }
            overlay.next_full()
        };
        if full.is_some() || self.sweep.0.is_some() { self.piece(full) } else { Ok(()) }
    }

    /// Makes sure that no more waits than there may: fails while nothing can be placed.
    pub(super) fn make_room(&mut self) -> Result<()> {
        let is_too_much = {
            let overlay = self.overlay.read();
            overlay.messages() > 4 * MOST_MESSAGES || overlay.bytes() > 4 * MOST_BYTES
        };
        if is_too_much { self.place_piece() } else { Ok(()) }
    }

    /// Places a piece of everything.
    pub(super) fn place_piece(&mut self) -> Result<()> {
        self.sweep.0.get_or_insert(Place::Beginning);
        self.piece(None)
    }

    /// Places everything that is there now; others may go on writing.
    pub(super) fn place_all(&mut self) -> Result<()> {
        let Extent { last, .. } = self.overlay.read().extent();
        while self.overlay.read().extent().placed < last {
            self.place_piece()?;
        }
        Ok(())
    }

    /// In one transaction: that room, then those that the sweep comes by or, without one, those that are full. What fails
    /// is still in the overlay, and the next sweep comes by.
    fn piece(&mut self, mut first: Option<RoomId>) -> Result<()> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let Extent { last, .. } = overlay::catch_up(&transaction, &self.overlay)?;
        let (mut rooms, mut messages, mut is_last) = (HashSet::new(), 0, false);
        while messages < PIECE {
            let next = match (first.take(), &mut self.sweep.0) {
                (Some(room), _) => Some(room),
                (None, Some(place)) => {
                    let next = self.overlay.read().next_after(place.behind());
                    is_last = next.is_none();
                    *place = next.map_or(Place::Beginning, Place::Behind);
                    next
                }
                (None, None) => self.overlay.write().next_full(),
            };
            let Some(id) = next else { break };
            let room = self.overlay.read().room(id).cloned();
            if let Some(room) = room
                && rooms.insert(id)
            {
                messages += place(&transaction, id, &room)?;
            }
        }
        let settled = is_last.then(|| settled_without(&self.overlay.read(), &rooms));
        if let Some(settled) = settled {
            journal::trim(&transaction, settled)?;
        }
        transaction.commit()?;
        let mut overlay = self.overlay.write();
        for room in rooms {
            overlay.forget(room, last);
        }
        if let Some(settled) = settled {
            overlay.trimmed(settled);
            self.sweep.0 = None;
        }
        Ok(())
    }
}

/// Up to which number of the journal nothing is left once these rooms are placed.
fn settled_without(overlay: &Overlay, placed: &HashSet<RoomId>) -> i64 {
    let left = overlay.rooms().filter(|(id, _)| !placed.contains(id));
    left.map(|(_, room)| room.oldest() - 1).min().unwrap_or(overlay.extent().last)
}

/// Writes a room's head and messages; how many they are.
fn place(connection: &Connection, id: RoomId, room: &Unplaced) -> Result<usize> {
    let mut insert = connection.prepare_cached(PLACE)?;
    let mut count = 0;
    for message in room.messages() {
        let Message { id, room, pos, sender, sender_name, body, client_id, created_at, edited_at, deleted_at } =
            message;
        insert.execute(params![
            room.0,
            sql(pos.0)?,
            id.0,
            sender.as_str(),
            &**sender_name,
            client_id.as_ref().map(ClientId::as_str),
            sql(created_at.0)?,
            edited_at.map(Millis::get).map(sql).transpose()?,
            deleted_at.map(Millis::get).map(sql).transpose()?,
            body.as_deref(),
        ])?;
        count += 1;
    }
    if let Some(head) = room.head() {
        write_head(&mut prepare_set_head(connection)?, id, &head)?;
    }
    Ok(count)
}

/// Places all that there is and empties the journal, for a transaction that changes the tables themselves. Once it is
/// committed, the overlay is to hear of it ([`Overlay::trimmed`]).
pub(super) fn settle(transaction: &Transaction<'_>, overlay: &Overlay) -> Result<i64> {
    for (id, room) in overlay.rooms() {
        place(transaction, id, room)?;
    }
    let last = overlay.extent().last;
    journal::trim(transaction, last)?;
    Ok(last)
}
